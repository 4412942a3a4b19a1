# SPDX-License-Identifier: Apache-2.0
"""The harness itself: it finds nothing missing when all is well, and finds it when it is not.

Without the second half, "nothing lost" in the other tests would prove nothing. No imvault here.
"""
import asyncio
import sqlite3
import time

from imvault import check, main, running, scratch
from prosody import Listener, Sender, missing_from_archives


async def send_while(server, seconds, disturb):
    online, sender = Listener(server, "online"), Sender(server)
    await online.open()
    await sender.open()
    rate, _ = await asyncio.gather(sender.traffic(seconds, 150), disturb(seconds))
    unacked = await sender.settle()
    missing = await missing_from_archives(server, sender.sent, sender.acked)
    print(f"{len(sender.sent)} sent at {rate:.0f}/s, {unacked} not acknowledged, "
          f"{len(online.got)} delivered, missing {({k: len(v) for k, v in missing.items()})}, "
          f"{len(server.trouble())} complaints in the log")
    await sender.close()
    await online.close()
    return sender, missing


async def harness__sees_nothing_missing_from_an_undisturbed_server():
    for mode in ("wal", "delete"):
        with scratch() as folder, running(folder, mode) as server:
            sender, missing = await send_while(server, 5, asyncio.sleep)
            check(len(sender.acked) == len(sender.sent) > 300, "not everything acknowledged")
            check(not missing and not server.trouble(), f"{mode}: {missing} {server.trouble()}")


async def harness__sees_what_a_reader_of_a_rollback_journal_makes_prosody_lose():
    with scratch() as folder, running(folder, "delete") as server:
        async def shared_locks(seconds):
            db = sqlite3.connect(server.database, isolation_level=None)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                db.execute("BEGIN")
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                await asyncio.sleep(0.1)
                db.execute("COMMIT")
                await asyncio.sleep(0.3)
            db.close()

        _, missing = await send_while(server, 5, shared_locks)
        check(missing.get("offline"), "the loss went unnoticed in the archive")
        check(server.trouble(), "the loss went unnoticed in the log")


main(harness__sees_nothing_missing_from_an_undisturbed_server,
     harness__sees_what_a_reader_of_a_rollback_journal_makes_prosody_lose)
