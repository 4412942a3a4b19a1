#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Takes the commands out of a runbook: runbook_blocks.py PAGE FOLDER

Each block becomes FOLDER/NUMBER.sh, and a line "NUMBER TAB scene TAB part" on standard output. A page that
ends with .html is read as XML, which also shows that it is well-formed, loads nothing and runs nothing. The
numbers of its blocks that change the machine as such are then in FOLDER/system.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree


def of_markdown(text):
    scene = part = fence = ""
    block = []
    for line in text.splitlines():
        if fence:
            if line == fence:
                yield scene, part, "\n".join(block), False
                fence, block = "", []
            else:
                block.append(line)
        elif found := re.fullmatch(r"(`{3,})sh", line):
            fence = found[1]
        elif line.startswith("## "):
            scene, part = line[3:], ""
        elif line.startswith("### "):
            part = line[4:].replace("`", "")
    assert not fence, "a block that does not end"


def of_html(text):
    root = ElementTree.fromstring(text.replace("<!DOCTYPE html>", "", 1))
    tags = {element.tag for element in root.iter()}
    assert tags <= set("html head meta title style body main section h1 h2 h3 p ul li pre code b".split()), tags
    for element in root.iter():
        assert not [name for name in element.attrib if name.startswith("on") or name in ("src", "href")], element.attrib
    assert not re.search(r"@import|url\((?!#)", text), "the page would fetch something"
    scene = part = ""
    for element in root.iter():
        words = "".join(element.itertext())
        if element.tag == "h2":
            scene, part = words, ""
        elif element.tag == "h3":
            part = words
        elif element.tag == "pre":
            yield scene, part, words, element.get("class") == "system"


page, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
folder.mkdir()
system = []
for number, (scene, part, block, is_system) in enumerate((of_html if page.suffix == ".html" else of_markdown)(page.read_text()), 1):
    (folder / f"{number}.sh").write_text(block + "\n")
    system += [number] if is_system else []
    print(number, scene, part, sep="\t")
(folder / "system").write_text("".join(f"{number}\n" for number in system))
