# SPDX-License-Identifier: Apache-2.0
"""A rollback-journal store without pause or locking is refused, explained, and left alone."""
import asyncio
import time

from imvault import PART, Node, check, main, running, scratch, stores_of
from prosody import Sender, missing_from_archives


async def refusal__names_the_way_out_and_does_not_touch_the_server():
    with scratch() as folder, running(folder, "delete") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        server.add_uploads(3)
        sender = Sender(server)
        await sender.open()
        _, answers = await asyncio.gather(
            sender.traffic(6, 150), node.back_to_back(time.monotonic() + 6))
        check(await sender.settle() == 0, "the server stopped acknowledging")
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        check(not missing, f"{len(answers)} refused backups cost messages: {missing}")
        check(not server.trouble(), f"in the log: {server.trouble()[:3]}")
        await sender.close()

        for answer in answers:
            answer.expect(PART)
        said = answers[0].everything()
        print(answers[0].err.strip())
        for word in ("WAL", "journal_mode", "pause", "locking", "archive"):
            check(word.lower() in said.lower(), f"the refusal does not mention {word}:\n{said}")
        check(answers[0].store("archive").get("error"), "stores[] does not say that it failed")
        check(not answers[0].store("uploads").get("error"), "the uploads failed as well")
        to = f"{folder}/to"
        (await node.restore("--to", to, "--store", "uploads")).expect(0)


main(refusal__names_the_way_out_and_does_not_touch_the_server)
