# SPDX-License-Identifier: Apache-2.0
"""The report: read as XML, read by a browser, read by somebody who wants to cheat with it."""
import hashlib
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import xml.etree.ElementTree as ElementTree

from chromium import chromium
from imvault import NODE, Node, binary, check, main, make_store, scratch

SECTIONS = ["recovery", "phases", "rpo", "forecast", "window", "growth", "incidents", "evidence"]
TAGS = set("""html head meta title style body header main footer section nav figure figcaption details summary div article
    p h1 h2 h3 ul li dl dt dd table thead tbody tr th td a b br span code svg defs pattern circle path rect line text g use
    title desc""".split())
# What the records and the vault of this test hold, and names that are the same in every language.
FOREIGN = """archive uploads config sqlite files timer mwang drill host restore node imvault UTC RTO RPO BLAKE FUSE nice FORMAT
    md Ed kB MB GB im test offline""".split()


def plain(page):
    """(root, text of all that people see in the page's own words)"""
    root = ElementTree.fromstring(page.replace("<!DOCTYPE html>", "", 1))
    words = []

    def walk(element):
        if element.tag == "style":
            return
        if element.tag != "code" and element.get("class") not in ("said", "hash"):
            words.append(element.text or "")
            for child in element:
                walk(child)
                words.append(child.tail or "")

    walk(root.find("body"))
    return root, " ".join(words)


class Reports(Node):
    """A node with two snapshots and, if told so, records."""

    def __init__(self, folder, records=0, kind=""):
        super().__init__(folder)
        self.folder = folder
        (self.machine / "uploads").mkdir()
        (self.machine / "uploads" / "a").write_bytes(os.urandom(5000))
        make_store(self.machine / "archive.sqlite", 2, "--wal")
        self.setup(archive={"type": "sqlite", "path": self.machine / "archive.sqlite"},
                   uploads={"type": "files", "path": self.machine / "uploads"})
        self.records, self.kind = records, kind

    async def fill(self):
        (await self.backup()).expect(0)
        (self.machine / "uploads" / "b").write_bytes(os.urandom(3000))
        (await self.backup()).expect(0)
        if self.records:
            subprocess.run([binary("IMVAULT_MAKE_RECORDS"), self.vault, self.restore_key, NODE, str(self.records)] +
                           ([self.kind] if self.kind else []), check=True, env=self.env)
        return self

    async def report(self, name="page.html", code=0, key=None, *more):
        path = self.folder / name
        answer = await self.run("report", "--vault", str(self.vault), "--key", str(key or self.restore_key), "--node", NODE,
                                "-o", str(path), *more, config=False)
        answer.expect(code)
        return answer.json, path.read_text()


def check_sound(page):
    """Well-formed, loads nothing, runs nothing, and its charts can be heard."""
    root, _ = plain(page)
    tags = {element.tag for element in root.iter()}
    check(tags <= TAGS, f"elements {tags - TAGS}")
    for element in root.iter():
        for name, value in element.attrib.items():
            check(not name.startswith("on"), f"a handler: {name}")
            if name in ("src", "href"):
                check(name == "href" and value.startswith("#"), f"{name}={value}")
    check(not re.search(r"https?://|@import|url\((?!#)", page), "the page would fetch something")
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    check(len(ids) == len(set(ids)), "an id is there twice")
    links = {element.get("href")[1:] for element in root.iter() if element.get("href")}
    check(links <= set(ids), f"links to nowhere: {links - set(ids)}")
    for svg in root.iter("svg"):
        if svg.get("aria-hidden") == "true":
            continue
        check(svg.get("role") == "img", "a chart that is no image")
        for child, reference in (("title", "aria-labelledby"), ("desc", "aria-describedby")):
            told = svg.find(child)
            check(told is not None and told.text and told.get("id") == svg.get(reference), f"a chart without {child}")
    sections = [section.get("id") for section in root.iter("section")]
    check(sections == SECTIONS + ["terms"], f"sections {sections}")
    return root


async def report__a_page_is_sound_in_both_languages():
    with scratch() as folder:
        node = await Reports(folder, 24).fill()
        for lang in ("en", "zh"):
            json, page = await node.report("page.html", 0, None, "--lang", lang)
            root = check_sound(page)
            charts = [svg for svg in root.iter("svg") if svg.get("role") == "img"]
            check(len(charts) == 8, f"{len(charts)} charts")
            check(json["verdict"] == "proven" and json["reasons"] == [], f"{json}")
            check(json["drills"] == 22 and json["restores"] == 2, f"{json}")
            tables = [figure for figure in root.iter("figure") if figure.find("details") is not None]
            check(len(tables) == 7, f"{len(tables)} charts with a table")
            for path in (node.vault / "drills" / NODE).iterdir():
                digest = hashlib.blake2b(path.read_bytes(), digest_size=32).hexdigest()
                check(digest in page, f"the hash of {path.name} is missing")
        _, own = plain(page)
        own = re.sub(r"\b[0-9a-f]{16}\b", "", own)  # ids of keys
        own = own.replace("disk of im-01 failed at night; restored to the spare machine", "")
        own = own.replace("an administrator deleted the support room by mistake", "")
        english = sorted(set(re.findall(r"[A-Za-z]{3,}", own)) - set(FOREIGN))
        check(not english, f"English in the Chinese page: {english}")
        _, page = await node.report()
        check(not re.search(r"[\u3000-\u9fff\uff00-\uffef]", re.sub(r"<style>.*?</style>", "", page, flags=re.S)),
              "Chinese in the English page")
        mode = stat.S_IMODE((folder / "page.html").stat().st_mode)
        check(mode == 0o600, f"mode {mode:o}: what checks said was sealed in the vault")
        check(not list(folder.glob(".tmp-*")), "a temporary file stayed")


async def report__hostile_texts_stay_texts():
    with scratch() as folder:
        node = await Reports(folder, 9, "hostile").fill()
        for lang in ("en", "zh"):
            _, page = await node.report("page.html", 0, None, "--lang", lang)
            root = check_sound(page)
            check("<script" not in page and "<img" not in page, "markup of a record is markup of the page")
            seen = "".join(root.find("body").itertext())
            check("<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;" in seen, "the text is not shown as it is")
            check("\x1b" not in page and "\u202e" not in page, "characters that do something to the reader")
            check("[U+000A][U+001B][31m[U+202E]gpj.exe" in seen, "what they were is not shown")


async def report__an_empty_vault_says_what_to_do():
    with scratch() as folder:
        node = Reports(folder)
        json, page = await node.report()
        root = check_sound(page)
        check(json["verdict"] == "unproven" and set(json["reasons"]) == {"no_drill", "no_target"}, f"{json}")
        for section in root.iter("section"):
            if section.get("id") != "terms":
                advice = [d for d in section.iter("div") if d.get("class") == "nothing"]
                check(advice and advice[0].find("p/code").text.startswith("imvault "), f"{section.get('id')} gives no advice")
        await node.fill()
        json, page = await node.report()
        check_sound(page)
        check(json["reasons"] == ["no_drill"], f"{json}")
        (await node.run("report", "--vault", str(node.vault), "--key", str(node.restore_key), "--node", "im-tset", "-o",
                        str(folder / "none.html"), config=False)).expect(7)
        check(not (folder / "none.html").exists(), "a page about a slip of the pen")


async def report__a_node_key_shows_everything_but_what_checks_said():
    with scratch() as folder:
        node = await Reports(folder, 6).fill()
        _, whole = await node.report()
        _, page = await node.report("node.html", 0, node.machine / "node.key")
        check_sound(page)
        check("48213 messages" in whole and "48213" not in page, "what is sealed is in the page")
        check(page.count("Not readable with the key") == 6 and "Not readable with the key" not in whole, "it is not said")
        answer = await node.run("report", "-o", str(folder / "config.html"))
        check(answer.expect(0).json["rto_ms"] == 900000, "the configuration's target")


async def report__a_bad_end_and_a_broken_chain_are_told():
    with scratch() as folder:
        node = await Reports(folder, 8, "bad").fill()
        json, page = await node.report()
        check(json["verdict"] == "unproven" and "drill_failed" in json["reasons"], f"{json}")
        check("not proven" in page, "the page does not say so")
        records = sorted((node.vault / "drills" / NODE).iterdir())
        records[3].unlink()
        json, page = await node.report(code=6)
        check_sound(page)
        check("chain_broken" in json["reasons"] and len(json["findings"]) == 1, f"{json}")
        check(f"drills/{NODE}/{records[4].name}" in json["findings"][0], f"{json}")
        damaged = bytearray(records[5].read_bytes())
        damaged[200] ^= 1
        os.chmod(records[5], 0o600)
        records[5].write_bytes(damaged)
        json, page = await node.report(code=6)
        check(any(records[5].name in finding for finding in json["findings"]), f"{json}")
        check(records[5].name in page, "the page does not name it")


async def report__a_gap_in_the_log_is_drawn_and_explained():
    with scratch() as folder:
        node = await Reports(folder).fill()
        database = node.machine / "archive.sqlite"
        (await node.run("follow", "--once")).expect(0)
        shutil.copy(database, folder / "copy")
        os.rename(folder / "copy", database)
        sqlite3.connect(database).execute("PRAGMA user_version = 7").connection.close()
        await node.run("follow", "--once")
        (await node.backup()).expect(0)
        windows = [w for w in (await node.run("list")).expect(0).json["windows"] if w["store"] == "archive"]
        check(len(windows) == 2 and not windows[1]["gap"]["closed"], f"{windows}")
        _, page = await node.report()
        root = check_sound(page)
        section = next(s for s in root.iter("section") if s.get("id") == "window")
        bars = [r.get("class") for r in section.iter("rect")]
        check(bars.count("window") == 3 and bars.count("gap") == 2, f"two windows and a gap, each also in the legend: {bars}")
        check(windows[1]["gap"]["reason"] in "".join(section.itertext()), "the gap's reason")


async def report__options_are_checked():
    with scratch() as folder:
        node = await Reports(folder).fill()
        (await node.run("report", "--lang", "de")).expect(2)
        (await node.run("report", "-o", "-")).expect(2)
        run = subprocess.run([node.program, "-c", str(node.config), "report"], cwd=folder, env=node.env, capture_output=True, text=True)
        check(run.returncode == 0 and run.stdout == f"imvault-report-{NODE}.html\n", f"{run}")
        run = subprocess.run([node.program, "-c", str(node.config), "report", "-o", "-"], env=node.env, capture_output=True, text=True)
        check(run.returncode == 0, f"{run.stderr}")
        check_sound(run.stdout)
        run = subprocess.run([node.program, "-c", str(node.config), "report", "-o", "/dev/full/x"], env=node.env,
                             capture_output=True, text=True)
        check(run.returncode == 1 and "/dev/full" in run.stderr, f"{run}")


def luminance(colour):
    parts = [int(c * (2 if len(colour) == 3 else 1), 16) / 255 for c in re.findall("." if len(colour) == 3 else "..", colour)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


async def report__colours_can_be_read_in_both_themes():
    with scratch() as folder:
        _, page = await Reports(folder).report()
        themes = [dict(re.findall(r"--(\w+):#([0-9a-f]+)", rule)) for rule in re.findall(r":root\{([^}]*)\}", page)]
        check(len(themes) == 3 and themes[0] == themes[2] != themes[1], "light, dark and paper, which is light")
        for theme in themes[:2]:
            for name, least in [(n, 4.5) for n in ("ink", "soft", "accent", "good", "warn", "bad")] + \
                    [(f"s{n}", 3) for n in range(1, 11)]:
                ratio = contrast(theme[name], theme["page"])
                check(ratio >= least, f"{name} {theme[name]} on {theme['page']}: {ratio:.2f}")
            check(contrast(theme["ink"], theme["sunk"]) >= 4.5, "code")


OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CLOSED = "[...document.querySelectorAll('.record .body')].filter(e => !e.checkVisibility()).length"


async def report__a_browser_shows_and_prints_it():
    with scratch() as folder, chromium() as browser:
        await Reports(folder).report("empty.html")
        second = folder / "second"
        second.mkdir()
        node = await Reports(second, 24).fill()
        await node.report("en.html")
        await node.report("zh.html", 0, None, "--lang", "zh")
        third = folder / "third"
        third.mkdir()
        await (await Reports(third, 6, "hostile").fill()).report("hostile.html")
        for page in (folder / "empty.html", second / "en.html", second / "zh.html", third / "hostile.html"):
            for width in (360, 1280):
                browser.open(page, width)
                check(browser.value(OVERFLOW) <= 0, f"{page.name} is wider than {width} px")
                light = browser.value("getComputedStyle(document.body).backgroundColor")
            browser.open(page, 360, "dark")
            dark = browser.value("getComputedStyle(document.body).backgroundColor")
            check((light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)"), f"themes {light} {dark}")
            check(not browser.complaints, f"{page.name}: {browser.complaints}")
        browser.open(second / "en.html", 700)
        check(browser.value(CLOSED) == 24, "records are closed on a screen")
        browser.open(second / "en.html", 700, "dark", "print")
        check(browser.value(CLOSED) == 0, "records must be open on paper")
        check(browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "paper is light")
        browser.open(second / "en.html", 700)
        boxes = re.findall(rb"/MediaBox\s*\[0 0 ([0-9.]+) ([0-9.]+)\]", browser.pdf())
        check(len(boxes) > 3 and all(abs(float(w) - 595) < 1 and abs(float(h) - 842) < 1 for w, h in boxes), f"A4: {boxes}")


main(report__a_page_is_sound_in_both_languages,
     report__hostile_texts_stay_texts,
     report__an_empty_vault_says_what_to_do,
     report__a_node_key_shows_everything_but_what_checks_said,
     report__a_bad_end_and_a_broken_chain_are_told,
     report__a_gap_in_the_log_is_drawn_and_explained,
     report__options_are_checked,
     report__colours_can_be_read_in_both_themes,
     report__a_browser_shows_and_prints_it)
