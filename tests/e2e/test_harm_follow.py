# SPDX-License-Identifier: Apache-2.0
"""First, do no harm, while following: what is acknowledged is in the live archive, the only copy
for an absent recipient. Rates and latencies with and without `follow` are printed, not judged:
that takes a quiet machine (scripts/bench)."""
import asyncio
import os
import sqlite3
import statistics
import time

from following import Follower, lost_from, restored_copy
from imvault import Node, check, main, running, scratch, stores_of
from prosody import Sender, missing_from_archives

ROUNDS, SECONDS, WINDOW, RATE = int(os.environ.get("ROUNDS", 1)), 3, 40, 150


class Hurried(Sender):
    """Asks for an acknowledgement of every message, so that each has a latency of its own."""

    def send_one(self, to):
        super().send_one(to)
        self["xep_0198"].request_ack()

    async def as_fast_as_it_goes(self, seconds):
        """Always WINDOW messages under way; returns the messages acknowledged per second."""
        begin, before = time.monotonic(), len(self.acked)
        while time.monotonic() < begin + seconds:
            while len(self.sent) - len(self.acked) < WINDOW:
                self.send_one("offline")
            await asyncio.sleep(0.001)
        return (len(self.acked) - before) / (time.monotonic() - begin)


def p99_ms(sender, names):
    taken = sorted((sender.acked[n] - sender.sent[n][1]) * 1000 for n in names)
    return taken[len(taken) * 99 // 100]


async def measure(sender):
    """(messages per second at full speed, p99 latency in ms at a steady rate)"""
    rate = await sender.as_fast_as_it_goes(SECONDS)
    check(await sender.settle() == 0, "messages not acknowledged")
    before = set(sender.sent)
    await sender.traffic(SECONDS, RATE, to=("offline",))
    check(await sender.settle() == 0, "messages not acknowledged")
    return rate, p99_ms(sender, set(sender.sent) - before)


async def checkpoint_often(database):
    """Another tool that keeps the WAL small: then it starts over many times a second, as with a
    small autocheckpoint (which Prosody cannot be told to have)."""
    db = sqlite3.connect(database, timeout=0, isolation_level=None)
    try:
        while True:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            await asyncio.sleep(0.02)
    finally:
        db.close()


async def compare(often):
    figures = {"without": [], "with": []}
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        sender = Hurried(server)
        await sender.open()
        other = asyncio.create_task(checkpoint_often(server.database)) if often else None
        async with Follower(node) as follower:
            await measure(sender)  # both sides meet a warm server and an archive with a past
            for _ in range(ROUNDS):
                figures["without"].append(await measure(sender))
                await follower.start()
                await follower.anchored()
                figures["with"].append(await measure(sender))
                await follower.end()
            said = follower.said()
        if other:
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        for name, rows in figures.items():
            print(f"{name:8} following: {statistics.median(r for r, _ in rows):6.0f} messages/s, "
                  f"p99 {statistics.median(p for _, p in rows):5.1f} ms "
                  f"({', '.join(f'{r:.0f}/s {p:.1f} ms' for r, p in rows)})")
        print(f"{len(sender.acked)} messages, missing {({k: len(v) for k, v in missing.items()})}")
        database, row, _ = await restored_copy(node, f"{folder}/to")
        lost = lost_from(database, sender.sent, sender.acked)
        print(f"gaps while it was stopped: {said.count('the log has a gap')}; restored to "
              f"{row['instant_reached']}, missing {len(lost)}")
        check(not missing, f"missing from the live archive: {missing}")
        check(not server.trouble(), f"in the log: {server.trouble()[:3]}")
        check(not lost, f"missing from what was restored: {lost[:10]}")
        check(len(sender.acked) > 1000, "too little happened")
        await sender.close()


async def harm__a_followed_server_loses_nothing():
    await compare(often=False)


async def harm__a_followed_server_whose_wal_starts_over_all_the_time_loses_nothing():
    await compare(often=True)


main(harm__a_followed_server_loses_nothing,
     harm__a_followed_server_whose_wal_starts_over_all_the_time_loses_nothing)
