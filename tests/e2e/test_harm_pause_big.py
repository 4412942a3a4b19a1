# SPDX-License-Identifier: Apache-2.0
"""pause = PIDFILE with a past of 500 MB: the pause is printed, never asserted (machines differ)."""
import asyncio
import time

from imvault import OK, Node, check, main, make_store, running, scratch, stores_of
from prosody import Sender, missing_from_archives


async def pause__of_a_500_mb_store_is_reported():
    def past(path):
        make_store(path, 500, "--delete")

    with scratch() as folder, running(folder, "delete", make_database=past) as server:
        node = Node(folder)
        node.setup(**stores_of(server, pause=server.pidfile, pause_limit="5s"))
        sender = Sender(server)
        await sender.open()
        size = server.database.stat().st_size
        rate, answers = await asyncio.gather(
            sender.traffic(25, 150), node.back_to_back(time.monotonic() + 24))
        unacked = await sender.settle()
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        for answer in answers:
            answer.expect(OK)
        pauses = [answer.store("archive").get("pause_ms", -1) for answer in answers]
        print(f"{size >> 20} MiB, {rate:.0f} messages/s, {len(answers)} backups: "
              f"pauses {pauses} ms, of which {sum(p < 200 for p in pauses)} below 200 ms; "
              f"runs {[a.ms for a in answers]} ms")
        check(min(pauses) >= 0, "pause_ms is missing from stores[]")
        check(unacked == 0, "the server stopped acknowledging")
        check(not missing and not server.trouble(), f"{missing} {server.trouble()[:3]}")
        await sender.close()


main(pause__of_a_500_mb_store_is_reported)
