# SPDX-License-Identifier: Apache-2.0
"""locking = shared: for servers that wait. One that does loses nothing; Prosody, which does not
wait, is only observed: what happens to it is printed."""
import asyncio
import sqlite3
import sys
import time
from pathlib import Path

from imvault import OK, Node, check, main, running, scratch, stores_of
from prosody import Sender, missing_from_archives

WRITER = Path(__file__).with_name("writer.py")


async def shared__a_writer_that_waits_loses_nothing():
    with scratch() as folder:
        path = folder / "waits.sqlite"
        db = sqlite3.connect(path)
        check(db.execute("PRAGMA journal_mode").fetchone()[0] == "delete", "journal mode")
        db.execute("CREATE TABLE message(n INTEGER PRIMARY KEY, at REAL, body BLOB)")
        db.execute("CREATE INDEX message_body ON message(body)")
        db.execute("""INSERT INTO message WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL
                      SELECT n + 1 FROM i WHERE n < 40000) SELECT n, 0, randomblob(300) FROM i""")
        db.commit()
        db.close()
        node = Node(folder)
        node.setup(chat={"type": "sqlite", "path": path, "locking": "shared"})
        writer = await asyncio.create_subprocess_exec(
            sys.executable, str(WRITER), str(path), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        output = asyncio.create_task(writer.stdout.read())
        answers = await node.back_to_back(time.monotonic() + 8)
        writer.stdin.close()
        committed = {int(n): float(at) for n, at in map(str.split, (await output).decode()
                                                        .splitlines())}
        complaint = (await writer.stderr.read()).decode()
        check(await writer.wait() == 0 and not complaint, f"the writer failed: {complaint}")
        for answer in answers:
            answer.expect(OK)
        print(f"{len(committed)} commits during {len(answers)} backups")
        check(len(committed) > 20, "the writer hardly wrote")

        (await node.restore("--to", f"{folder}/to")).expect(OK)
        db = sqlite3.connect(f"{folder}/to{path}")
        check(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "integrity_check")
        rows = {row[0] for row in db.execute("SELECT n FROM message")}
        lost = {n for n, at in committed.items() if at < answers[-1].began} - rows
        check(not lost, f"committed before the last snapshot, missing from it: {sorted(lost)}")
        check(rows == set(range(1, max(rows) + 1)), "the snapshot is not a prefix of the history")
        db.close()


async def shared__is_allowed_with_prosody_and_what_happens_is_shown():
    with scratch() as folder, running(folder, "delete") as server:
        node = Node(folder)
        node.setup(**stores_of(server, locking="shared"))
        sender = Sender(server)
        await sender.open()
        _, answers = await asyncio.gather(
            sender.traffic(8, 150), node.back_to_back(time.monotonic() + 8))
        await sender.settle()
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        print(f"Prosody, which does not wait: {len(sender.sent)} messages, {len(answers)} backups, "
              f"missing {({k: len(v) for k, v in missing.items()})}, "
              f"exit codes {sorted({a.code for a in answers})}")
        check({a.code for a in answers} <= {0, 3}, answers[0].everything())
        await sender.close()


main(shared__a_writer_that_waits_loses_nothing,
     shared__is_allowed_with_prosody_and_what_happens_is_shown)
