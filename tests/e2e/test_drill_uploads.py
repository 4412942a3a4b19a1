# SPDX-License-Identifier: Apache-2.0
"""Drills of a real Prosody with real uploads: a file that a message links to and that is not in the
vault is a difference, told once; so is one that only was there before; what expired is none."""
import os
import sqlite3

from imvault import NODE, OK, Node, check, main, running, scratch, stores_of
from prosody import HOST, Sender

DIFFERENT = 11
COUNT = 5


async def send_uploads(server):
    """Files by the names Prosody gave them, in the order they were sent; the last one without a message."""
    sender, files = Sender(server), []
    await sender.open()
    for n in range(COUNT):
        link = await sender.upload(f"it's 图片 {n}.jpg", os.urandom(3000 + n))
        files.append(server.uploads / (link.split("/")[-2].replace("-", "%2d") + ".bin"))
        check(files[-1].stat().st_size == 3000 + n, f"{files[-1]} is not the file of {link}")
        if n < COUNT - 1:
            message = sender.make_message(f"offline@{HOST}", mtype="chat", mbody=link)
            message["id"] = f"upload{n}"
            sender.sent[message["id"]] = ("offline", 0)
            message.send()
    await sender.traffic(1, 50)
    check(await sender.settle() == 0, "not everything was acknowledged")
    await sender.close()
    return files


async def drill(node, code):
    answer = (await node.run("drill", "--vault", str(node.vault), "--key", str(node.restore_key), "--node", NODE,
                             "--scratch", str(node.machine), config=False)).expect(code)
    return [c for c in answer.json["checks"] if c["check"] == "attachments"]


def check_missing(found, text):
    bad = [c["text"] for c in found if not c["ok"]]
    check(len(bad) == 1 and text in bad[0], f"{found}")


async def drill__notices_attachments_that_are_missing():
    with scratch() as folder, running(folder, "wal", file_share=True) as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        files = await send_uploads(server)
        (await node.backup()).expect(OK)
        clean = await drill(node, OK)
        check([c["text"] for c in clean] == [f"attachments found, with their sizes: {COUNT}"], f"{clean}")

        files[1].unlink()
        (await node.backup()).expect(OK)
        check_missing(await drill(node, DIFFERENT), files[1].name)
        known = await drill(node, OK)
        check("missing in the drill before already: 1" in known[0]["text"], f"{known}")

        files[2].write_bytes(b"cut off")
        (await node.backup()).expect(OK)
        check_missing(await drill(node, DIFFERENT), "with another size: 1")


async def drill__does_not_miss_what_expired():
    with scratch() as folder, running(folder, "wal", file_share=True) as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        files = await send_uploads(server)
        (await node.backup()).expect(OK)
        await drill(node, OK)
        db = sqlite3.connect(server.database)  # as Prosody's daily task does, file and slot
        slot = files[0].name.removesuffix(".bin").replace("%2d", "-")
        gone = db.execute("DELETE FROM prosodyarchive WHERE store = 'uploads' AND \"key\" = ?", (slot,)).rowcount
        db.commit()
        db.close()
        files[0].unlink()
        check(gone == 1, f"there was no slot {slot}")
        (await node.backup()).expect(OK)
        found = await drill(node, OK)
        check(found[0]["text"] == f"attachments found, with their sizes: {COUNT - 1}", f"{found}")


main(drill__notices_attachments_that_are_missing, drill__does_not_miss_what_expired)
