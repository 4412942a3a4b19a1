# SPDX-License-Identifier: Apache-2.0
"""First, do no harm: a WAL-mode Prosody at 150 msg/s loses nothing while backups run back to back.

Prosody opens SQLite without a busy timeout: any lock in its way costs an archived message, which
it acknowledges all the same. So the live archive is read, not the backup."""
import asyncio
import time

from imvault import OK, Node, check, main, running, scratch, stores_of
from prosody import Listener, Sender, missing_from_archives

SECONDS = 20


async def harm__a_wal_server_loses_nothing_while_backups_run_back_to_back():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        online, sender = Listener(server, "online"), Sender(server)
        await online.open()
        await sender.open()
        rate, answers = await asyncio.gather(
            sender.traffic(SECONDS, 150), node.back_to_back(time.monotonic() + SECONDS))
        unacked = await sender.settle()
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        print(f"{len(sender.sent)} messages at {rate:.0f}/s during {len(answers)} backups "
              f"({min(a.ms for a in answers)}-{max(a.ms for a in answers)} ms); "
              f"{unacked} not acknowledged, missing {({k: len(v) for k, v in missing.items()})}")
        for answer in answers:
            answer.expect(OK)
        check(len(answers) >= 5 and len(sender.acked) > 1000, "too little happened")
        check(unacked == 0, "the server stopped acknowledging")
        check(not missing, f"missing from the live archive: {missing}")
        check(not server.trouble(), f"in the log: {server.trouble()[:3]}")
        (await node.run("verify", "--read")).expect(OK)
        await sender.close()
        await online.close()


main(harm__a_wal_server_loses_nothing_while_backups_run_back_to_back)
