# SPDX-License-Identifier: Apache-2.0
"""The last second: a followed server and its follower are killed at one instant and the machine is
lost. What comes back over XMPP is everything that was acknowledged more than a second before."""
import asyncio
import shutil
import time

from following import (STORE, Follower, archives, iso, lost_from, monotonic, restored_copy,
                       wall_ms)
from imvault import OK, PART, Node, check, main, running, scratch, stores_of
from prosody import Listener, Sender

SECONDS, RATE = 15, 150
SLACK_MS = 1000  # the promise


def check_instants(row, killed, sender, recovered):
    """What imvault says it reached, against what the clients saw."""
    reached = row["instant_reached_ms"]
    newest = max(sender.sent[n][1] for n in recovered)
    acked_last = max(when for when in sender.acked.values() if when < killed)
    print(f"instant reached {wall_ms(killed) - reached} ms before the kill; newest recovered "
          f"message sent {(killed - newest) * 1000:.0f} ms, last acknowledgement "
          f"{(killed - acked_last) * 1000:.0f} ms before it")
    check(reached >= wall_ms(killed) - SLACK_MS, f"reached {reached}, killed {wall_ms(killed)}")
    check(reached <= wall_ms(killed) + 100, "the instant reached lies after the kill")
    check(wall_ms(newest) <= reached + SLACK_MS, "newer messages than the instant reached allows")
    return sender.acked_before(monotonic(reached))


async def load(server, follower):
    online, sender = Listener(server, "online"), Sender(server)
    await online.open()
    await sender.open()
    rate = await sender.traffic(3, RATE)
    await follower.anchored()
    traffic = asyncio.create_task(sender.traffic(SECONDS - 3, RATE))
    await asyncio.sleep(SECONDS - 3.3)
    check(not traffic.done(), "the load ended before the kill")
    killed = time.monotonic()
    follower.kill()
    server.kill()
    took = time.monotonic() - killed
    traffic.cancel()
    sender.abort()
    online.abort()
    print(f"{len(sender.sent)} messages at {rate:.0f}/s, {len(sender.acked)} acknowledged; "
          f"all processes killed within {took * 1000:.0f} ms")
    return sender, killed


async def check_archives(server, sender, promised):
    """Returns which messages came back whole."""
    found = await archives(server)
    for user, names in found.items():
        check(len(names) == len(set(names)), f"{user} has messages twice")
        strangers = [n for n in names if n not in sender.sent]
        check(not strangers, f"{user} has messages that were never sent: {strangers[:5]}")
        want = {n for n in promised if user == "sender" or sender.sent[n][0] == user}
        lost = sorted(want - set(names))
        check(not lost, f"{user} lost {len(lost)} of {len(want)}: {lost[:10]}")
    return {n for n in found["sender"] if n in found[sender.sent[n][0]]}


async def recover__brings_back_what_was_acknowledged_a_second_before_everything_was_killed():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        async with Follower(node) as follower:
            await follower.start()
            sender, killed = await load(server, follower)
            check(len(sender.acked) > 1000, "too little traffic to prove anything")
            check(not server.trouble(), f"the live server lost messages: {server.trouble()[:3]}")
            said = follower.said()
        shutil.rmtree(server.root)
        shutil.rmtree(node.machine / "state")

        restored = (await node.restore()).expect(OK)
        row = restored.store(STORE)
        alone = (await restored_copy(node, f"{folder}/alone"))[2]
        server.start()
        promised = sender.acked_before(killed - SLACK_MS / 1000)
        recovered = await check_archives(server, sender, promised)
        covered = check_instants(row, killed, sender, recovered)
        lost = sorted(covered - recovered)
        check(not lost, f"acknowledged before the instant reached, not there: {lost[:10]}")
        # The printed figure is the distance of that instant from the restore's own beginning.
        printed = wall_ms(alone.began) - alone.json["rpo_ms"]
        check(abs(printed - row["instant_reached_ms"]) < 1000,
              f"rpo_ms {alone.json['rpo_ms']} tells of another instant than {row}")
        print(f"{len(promised)} promised, {len(recovered)} recovered, "
              f"{len(sender.acked_before(killed) - recovered)} of the last second lost; "
              f"log {row['log']}; restored in {restored.json['data_complete_ms']} ms")
        check("gap" not in said, f"it said: {said}")


async def recover__a_restored_node_begins_a_new_epoch_and_keeps_the_old_one():
    """After the disaster the service starts again, without its state: the log goes on in a new
    epoch that says so, and both sides of the break stay restorable."""
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        async with Follower(node) as follower:
            await follower.start()
            first = Sender(server, prefix="a")
            await first.open()
            await first.traffic(3, RATE)
            check(await first.settle() == 0, "messages not acknowledged")
            epoch = await follower.anchored()
            await asyncio.sleep(1.5)
            follower.kill()
            server.kill()
            first.abort()
            broken = wall_ms(time.monotonic())
            shutil.rmtree(server.root)
            shutil.rmtree(node.machine / "state")
            (await node.restore()).expect(OK)
            server.start()

            await follower.start()
            await follower.until("words about the gap", lambda: "gap" in follower.said())
            other = await follower.anchored(epoch_not=epoch)
            second = Sender(server, prefix="b")
            await second.open()
            await second.traffic(3, RATE)
            check(await second.settle() == 0, "messages not acknowledged")
            await follower.end()
            await second.close()
            print("it said:", follower.said().strip())
        sent = first.sent | second.sent
        database, row, _ = await restored_copy(node, f"{folder}/now")
        lost = lost_from(database, sent, first.acked | second.acked)
        check(not lost, f"lost after the restart: {lost[:10]}")
        check(row["log"]["epoch"] == other, f"restored from {row}")
        database, row, _ = await restored_copy(node, f"{folder}/then", "--at", iso(broken),
                                               code=PART)  # it lies in the gap
        check(not lost_from(database, sent, first.acked), "the old epoch lost messages")
        check(len(lost_from(database, sent, second.acked)) == len(second.acked),
              "the old epoch has messages of later")
        check(row["log"]["epoch"] == epoch, f"restored from {row}")
        whole = (await node.restore("--to", f"{folder}/whole")).expect(OK)
        kept = {s["name"]: s["status"] for s in whole.json["stores"]}
        check(kept.get("config") == "ok", f"a restore no longer has every store: {kept}")


main(recover__brings_back_what_was_acknowledged_a_second_before_everything_was_killed,
     recover__a_restored_node_begins_a_new_epoch_and_keeps_the_old_one)
