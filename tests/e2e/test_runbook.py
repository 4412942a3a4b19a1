# SPDX-License-Identifier: Apache-2.0
"""The runbook in a browser: on a phone, by day and night, on paper. Its commands: tests/integration/test_runbook.sh."""
import re

from chromium import chromium
from imvault import Node, check, main, make_store, scratch

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SELECTED = "(() => { getSelection().selectAllChildren(document.querySelectorAll('pre')[NUMBER]); return getSelection().toString(); })()"


async def make(folder):
    node = Node(folder)
    name = "it's \"a\" <b>folder $(id) " + "long" * 20
    (node.machine / name).mkdir()
    (node.machine / name / "a").write_text("a")
    make_store(node.machine / "archive.sqlite", 2, "--wal")
    node.setup(archive={"type": "sqlite", "path": node.machine / "archive.sqlite"},
               uploads={"type": "files", "path": node.machine / name})
    with open(node.config, "a") as config:
        config.write("[runbook]\ncontact = <img src=x onerror=alert(1)>\nstop = systemctl stop prosody\nstart = systemctl start prosody\n")
    (await node.backup()).expect(0)
    page, text = folder / "page.html", folder / "page.md"
    (await node.run("runbook", "-o", str(page))).expect(0)
    (await node.run("runbook", "-o", str(text))).expect(0)
    return page, text.read_text()


async def runbook__a_browser_shows_and_prints_it():
    with scratch() as folder, chromium() as browser:
        page, text = await make(folder)
        commands = re.findall(r"^```sh\n(.*?)\n```$", text, flags=re.M | re.S)
        check(len(commands) > 20, f"{len(commands)} commands")
        for width, theme in ((360, "light"), (360, "dark"), (1280, "light")):
            browser.open(page, width, theme)
            check(browser.value(OVERFLOW) <= 0, f"wider than {width} px")
            check(not browser.complaints, f"{browser.complaints}")
        for number, command in enumerate(commands):
            copied = browser.value(SELECTED.replace("NUMBER", str(number)))
            check(copied.strip() == command, f"copying gives {copied!r} instead of {command!r}")
        check(browser.value("document.querySelectorAll('img, script').length") == 0, "markup of the configuration is markup of the page")
        boxes = re.findall(rb"/MediaBox\s*\[0 0 ([0-9.]+) ([0-9.]+)\]", browser.pdf())
        check(boxes and all(abs(float(w) - 595) < 1 and abs(float(h) - 842) < 1 for w, h in boxes), f"A4: {boxes}")


main(runbook__a_browser_shows_and_prints_it)
