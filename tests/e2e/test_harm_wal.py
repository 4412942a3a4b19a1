# SPDX-License-Identifier: Apache-2.0
"""First, do no harm: a WAL-mode Prosody at 150 msg/s loses nothing while backups run back to back.

Prosody opens SQLite without a busy timeout: any lock in its way costs an archived message, which
it acknowledges all the same. So the live archive is read, not the backup."""
import asyncio
import signal
import time

from imvault import OK, Node, check, main, make_store, running, scratch, stores_of
from prosody import Listener, Sender, missing_from_archives


async def load(server, node, seconds):
    """150 msg/s to two recipients during back-to-back backups; nothing may be lost."""
    online, sender = Listener(server, "online"), Sender(server)
    await online.open()
    await sender.open()
    rate, answers = await asyncio.gather(
        sender.traffic(seconds, 150), node.back_to_back(time.monotonic() + seconds))
    unacked = await sender.settle()
    missing = await missing_from_archives(server, sender.sent, sender.acked)
    wal = server.database.with_name(server.database.name + "-wal").stat().st_size
    print(f"{len(sender.sent)} messages at {rate:.0f}/s during {len(answers)} backups "
          f"({min(a.ms for a in answers)}-{max(a.ms for a in answers)} ms); {unacked} not "
          f"acknowledged, missing {({k: len(v) for k, v in missing.items()})}; "
          f"database {server.database.stat().st_size >> 20} MiB, WAL {wal >> 20} MiB")
    for answer in answers:
        answer.expect(OK)
    check(len(sender.acked) > 300, "too little happened")
    check(unacked == 0, "the server stopped acknowledging")
    check(not missing, f"missing from the live archive: {missing}")
    check(not server.trouble(), f"in the log: {server.trouble()[:3]}")
    await sender.close()
    await online.close()
    return answers


async def harm__a_wal_server_loses_nothing_while_backups_run_back_to_back():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        answers = await load(server, node, 20)
        check(len(answers) >= 5, "too few backups")
        (await node.run("verify", "--read")).expect(OK)


async def harm__long_backups_of_a_large_archive_lose_nothing():
    def past(path):
        make_store(path, 200, "--wal")

    with scratch() as folder, running(folder, "wal", make_database=past) as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        await load(server, node, 12)


async def harm__a_server_restarted_during_backups_loses_nothing():
    """Whoever is the last to close a WAL database checkpoints it and deletes the WAL: never us."""
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        kept = []
        backups = asyncio.create_task(node.back_to_back(time.monotonic() + 12))
        while not backups.done():
            sender = Sender(server, prefix=f"r{len(kept)}-")
            await sender.open()
            await sender.traffic(1, 150)
            await sender.settle()
            server.kill(signal.SIGKILL if len(kept) % 2 else signal.SIGTERM)
            sender.abort()
            kept.append(sender)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
        answers = await backups
        sent = {name: to for sender in kept for name, to in sender.sent.items()}
        acked = {name for sender in kept for name in sender.acked}
        missing = await missing_from_archives(server, sent, acked)
        print(f"{len(acked)} messages, {len(kept)} restarts, {len(answers)} backups, "
              f"missing {({k: len(v) for k, v in missing.items()})}")
        check(len(kept) >= 3, "too few restarts")
        check(not missing, f"missing from the live archive: {missing}")
        for answer in answers:
            answer.expect(OK)


main(harm__a_wal_server_loses_nothing_while_backups_run_back_to_back,
     harm__long_backups_of_a_large_archive_lose_nothing,
     harm__a_server_restarted_during_backups_loses_nothing)
