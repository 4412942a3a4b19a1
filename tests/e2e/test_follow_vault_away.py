# SPDX-License-Identifier: Apache-2.0
"""The vault goes away while a server is followed and comes back: what was captured meanwhile waits
on the node's own disk, where nobody can read it, and is shipped; status is red until it is."""
import asyncio
import shutil
import signal
import time

from following import STORE, Follower, lost_from, restored_copy, wall_ms
from imvault import OK, Node, check, main, running, scratch, stores_of
from prosody import Sender, missing_from_archives

RATE = 150
BODY = "the train leaves at nine".encode()


def away(node):
    return node.vault.with_name("vault-away")


def check_unreadable(node, sender):
    """No message, and no id of one, in anything that the node keeps outside its server."""
    names = [next(iter(sender.sent)).encode(), list(sender.sent)[-1].encode()]
    size, files = 0, [p for p in node.machine.rglob("*") if p.is_file()]
    for file in files:
        content = file.read_bytes()
        size += len(content)
        check(BODY not in content, f"a message can be read in {file}")
        for name in names:
            check(name not in content, f"{name} can be read in {file}")
    check(files, "nothing was searched")
    return size


def spooled(node):
    return sum(p.stat().st_size for p in node.machine.glob(f"state/*/*.follow/{STORE}/spool/*"))


async def check_red(node):
    answer = await node.run("status")
    check(answer.code != OK, "status is green although the vault is away")
    return answer.code


async def all_shipped(node, follower):
    async def look():
        log = await follower.log()
        return log and log["spooled_bytes"] == 0 and log["lag_ms"] == 0
    await follower.until("all that waited is shipped", look)
    check(spooled(node) == 0, "something is left in the spool")


async def check_restored(node, folder, sender):
    database, row, _ = await restored_copy(node, f"{folder}/to")
    lost = lost_from(database, sender.sent, sender.acked)
    check(not lost, f"{len(lost)} messages are missing: {lost[:10]}")
    return row


async def vault__away_and_back_costs_nothing():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        sender = Sender(server)
        await sender.open()
        async with Follower(node) as follower:
            await follower.start()
            await follower.anchored()
            await sender.traffic(2, RATE)
            node.vault.rename(away(node))
            follower.child.send_signal(signal.SIGHUP)  # it holds the folder: make it look again
            await follower.until("words about the vault", lambda: "vault" in follower.said())
            gone = len(sender.sent)
            await sender.traffic(6, RATE)
            check(await sender.settle() == 0, "messages not acknowledged")
            await asyncio.sleep(1)
            code = await check_red(node)
            waiting, searched = spooled(node), check_unreadable(node, sender)
            check(waiting > 10_000, f"only {waiting} bytes wait in the spool")

            back = time.monotonic()
            away(node).rename(node.vault)
            await all_shipped(node, follower)
            took = time.monotonic() - back
            await sender.traffic(1, RATE)
            check(await sender.settle() == 0, "messages not acknowledged")
            await all_shipped(node, follower)
            (await node.run("status")).expect(OK)
            await follower.end()
            said = follower.said()
        print(f"{len(sender.sent) - gone} messages while it was away: {waiting} bytes waited, "
              f"shipped {took:.1f} s after it was back; status said {code}; {searched} bytes "
              f"searched for plain text\nit said: {said.strip()}")
        check("gap" not in said, "a gap although the spool had room")
        check(not await missing_from_archives(server, sender.sent, sender.acked),
              "the live archive lost messages")
        await check_restored(node, folder, sender)
        (await node.run("verify", "--read")).expect(OK)
        await sender.close()


async def vault__away_while_the_follower_is_ended_killed_and_started_again():
    """Nothing needs the vault for going on: neither the end of a follower nor its start."""
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        sender = Sender(server)
        await sender.open()
        async with Follower(node) as follower:
            await follower.start()
            await follower.anchored()
            await sender.traffic(1, RATE)
            node.vault.rename(away(node))
            await sender.traffic(2, RATE)
            follower.child.kill()  # the keeper lives on and holds the source
            await follower.child.wait()
            await sender.traffic(1, RATE)
            await follower.start()
            await sender.traffic(2, RATE)
            check(await sender.settle() == 0, "messages not acknowledged")
            await asyncio.sleep(1)
            check_unreadable(node, sender)
            await follower.end()
            await check_red(node)
            check(spooled(node) > 10_000, f"only {spooled(node)} bytes wait in the spool")
            away(node).rename(node.vault)

            await follower.start()
            await all_shipped(node, follower)
            await sender.traffic(1, RATE)
            check(await sender.settle() == 0, "messages not acknowledged")
            ended = time.monotonic()
            await follower.end()
            said = follower.said()
        print("it said:", said.strip())
        check("gap" not in said, "a gap although the source was held all the time")
        row = await check_restored(node, folder, sender)
        check(row["instant_reached_ms"] >= wall_ms(ended) - 1000, f"not the end: {row}")
        await sender.close()


async def vault__another_folder_in_its_place_is_noticed():
    """As when a vault is moved to a larger disk, or unmounted lazily and mounted again: what is
    said to be shipped must be in the vault that the configuration names."""
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        sender = Sender(server)
        await sender.open()
        async with Follower(node) as follower:
            await follower.start()
            await follower.anchored()
            await sender.traffic(2, RATE)
            check(await sender.settle() == 0, "messages not acknowledged")
            await all_shipped(node, follower)
            node.vault.rename(away(node))
            shutil.copytree(away(node), node.vault)
            await sender.traffic(3, RATE)
            check(await sender.settle() == 0, "messages not acknowledged")
            await all_shipped(node, follower)
            await follower.end()
            print("it said:", follower.said().strip())
        await check_restored(node, folder, sender)
        await sender.close()


main(vault__away_and_back_costs_nothing,
     vault__another_folder_in_its_place_is_noticed,
     vault__away_while_the_follower_is_ended_killed_and_started_again)
