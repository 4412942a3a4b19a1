# SPDX-License-Identifier: Apache-2.0
"""Gaps never hide. With a real server running: whatever makes it impossible to go on exactly is
said, gets a new epoch and a snapshot by itself, and no restore crosses it silently."""
import asyncio
import shutil
import signal
import sqlite3
import time

from following import (STORE, Follower, anchors, iso, lost_from, monotonic, restored_copy, wall_ms)
from imvault import NODE, OK, PART, Node, check, main, running, scratch, stores_of
from prosody import Sender, missing_from_archives

RATE = 150


async def send(server, prefix, seconds, rate=RATE):
    """A sender of its own, all of it acknowledged."""
    sender = Sender(server, prefix=prefix)
    await sender.open()
    await sender.traffic(seconds, rate)
    check(await sender.settle() == 0, "messages not acknowledged")
    await sender.close()
    return sender


def together(*senders):
    sent, acked = {}, {}
    for sender in senders:
        sent |= sender.sent
        acked |= sender.acked
    return sent, acked


async def snapshots(node):
    return len((await node.run("list")).json["snapshots"])


def check_told(listed):
    check("gap" in listed.everything(), f"list does not tell of the gap\n{listed.everything()}")


async def check_in_gap(node, folder, at_ms, sent, acked, later):
    """A restore to an instant within a gap stops before it, and says so."""
    database, row, answer = await restored_copy(node, folder, "--at", iso(at_ms), code=PART)
    print(f"asked for {iso(at_ms)}, reached {row['instant_reached']}: {row.get('stopped')}")
    check(row["instant_reached_ms"] <= at_ms, "it went beyond what was asked for")
    check("gap" in (row.get("stopped") or "") + answer.err, f"the gap is not mentioned: {row}")
    reached = monotonic(row["instant_reached_ms"])
    lost = lost_from(database, sent, {n for n, when in acked.items() if when < reached})
    check(not lost, f"acknowledged before the instant reached, not there: {lost[:10]}")
    there = len(later) - len(lost_from(database, sent, later))
    check(there == 0, f"{there} messages of after the gap are there")


async def gap__a_server_that_went_on_alone_gets_a_new_epoch_and_a_snapshot():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        async with Follower(node) as follower:
            await follower.start()
            first = await send(server, "a", 2)
            epoch = await follower.anchored()
            await asyncio.sleep(1)
            check(len(follower.keepers()) == 1, f"keepers: {follower.keepers()}")
            follower.kill()
        alone = await send(server, "b", 6, 400)  # checkpoints, and the WAL starts over
        within = wall_ms(time.monotonic())
        before = await snapshots(node)

        once = (await node.run("follow", "--once")).expect(PART)
        row = once.store(STORE)
        print(f"--once: {row['status']}: {row.get('text')}\n{once.err.strip()}")
        check(row["status"] == "gap" and row["epoch"] != epoch, f"no gap in {row}")
        check("gap" in once.err, "no line about the gap")
        check(await snapshots(node) == before + 1, "no snapshot was taken")
        listed = (await node.run("list")).expect(OK)
        check(anchors(listed)[-1] == row["epoch"], "the snapshot does not stand in the new epoch")
        check_told(listed)
        again = (await node.run("follow", "--once")).expect(OK)
        check(again.store(STORE)["epoch"] == row["epoch"], "another epoch for no reason")

        last = await send(server, "c", 1)
        (await node.run("follow", "--once")).expect(OK)
        sent, acked = together(first, alone, last)
        await check_in_gap(node, f"{folder}/in", within, sent, first.acked, alone.acked)
        database, row, _ = await restored_copy(node, f"{folder}/all")
        lost = lost_from(database, sent, acked)
        check(not lost, f"missing after the gap: {lost[:10]}")
        check(not await missing_from_archives(server, sent, acked), "the live archive lost some")


def replace(server):
    """As an admin would: the same content in another file, while the server is stopped."""
    other = server.database.with_name("other")
    db = sqlite3.connect(server.database, timeout=10)
    db.execute("VACUUM INTO ?", (str(other),))
    db.close()
    for suffix in ("-wal", "-shm"):
        server.database.with_name(server.database.name + suffix).unlink(missing_ok=True)
    other.rename(server.database)
    server.set_journal_mode()


async def gap__a_replaced_database_file_is_noticed_at_once():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        async with Follower(node) as follower:
            await follower.start()
            first = await send(server, "a", 2)
            epoch = await follower.anchored()
            await asyncio.sleep(1)
            server.kill(signal.SIGTERM)
            replace(server)
            server.start()
            await follower.until("words about the gap", lambda: "gap" in follower.said())
            other = await follower.anchored(epoch_not=epoch)
            second = await send(server, "b", 2)
            await asyncio.sleep(1)
            await follower.end()
            print("it said:", follower.said().strip())
        check(follower.said().count("the log has a gap") == 1, "more than one gap")
        check_told((await node.run("list")).expect(OK))
        sent, acked = together(first, second)
        database, row, _ = await restored_copy(node, f"{folder}/to")
        lost = lost_from(database, sent, acked)
        check(not lost and row["log"]["epoch"] == other, f"{row}: missing {lost[:10]}")
        database, row, _ = await restored_copy(node, f"{folder}/then", "--at",
                                               iso(wall_ms(max(first.acked.values())) + 700),
                                               code=PART)  # in the gap
        lost = lost_from(database, sent, first.acked)
        check(not lost and row["log"]["epoch"] == epoch, f"{row}: missing {lost[:10]}")


async def gap__a_vacuum_while_following_is_captured_or_recorded():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        async with Follower(node) as follower:
            await follower.start()
            first = await send(server, "a", 3)
            await follower.anchored()
            db = sqlite3.connect(server.database, timeout=20, isolation_level=None)
            db.execute("DELETE FROM prosodyarchive WHERE sort_id % 3 = 0")
            before = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute("VACUUM")
            after = db.execute("PRAGMA page_count").fetchone()[0]
            second = await send(server, "b", 2)
            await asyncio.sleep(1.5)
            await follower.end()
            said = follower.said()
            rows = db.execute("SELECT * FROM prosodyarchive ORDER BY sort_id").fetchall()
            db.close()
        print(f"VACUUM from {before} to {after} pages; it said: {said.strip() or 'nothing'}")
        check(after < before, "nothing was vacuumed")
        database, row, _ = await restored_copy(node, f"{folder}/to")
        copy = sqlite3.connect(database)
        check(copy.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "it is damaged")
        check(copy.execute("SELECT * FROM prosodyarchive ORDER BY sort_id").fetchall() == rows,
              "the restored archive differs from the live one")
        copy.close()
        check(not lost_from(database, second.sent, second.acked), "messages are missing")
        check(len(first.acked) > 100, "too little happened")


def clone(node, folder, **stores):
    """The machine a second time: the same key, the same state, the same vault."""
    twin = Node.__new__(Node)
    twin.__dict__.update(node.__dict__)
    twin.machine = folder / "twin"
    shutil.copytree(node.machine, twin.machine,
                    ignore=lambda d, names: [n for n in names if n in ("keeper", "_control")])
    twin.config = twin.machine / "imvault.ini"
    text = node.config.read_text().replace(str(node.machine), str(twin.machine))
    for old, new in stores.items():
        text = text.replace(old, new)
    twin.config.write_text(text)
    twin.env = dict(node.env, HOME=str(twin.machine))
    return twin


async def both_at_once(node, twin, write_one, write_other, noticed):
    """Both follow at the same time, until it is noticed and on from there."""
    async with Follower(node) as one, Follower(twin) as other:
        await one.start()
        await other.start()

        async def both():
            logs = await one.log(), await other.log()
            return all(log and log["following"] for log in logs)
        await one.until("both follow", both)
        await asyncio.sleep(1)
        deadline = time.monotonic() + 60
        while not (seen := noticed(one.said() + other.said())) and time.monotonic() < deadline:
            await asyncio.gather(write_one(), write_other())
        print(f"one said: {one.said().strip() or 'nothing'}\n"
              f"other said: {other.said().strip() or 'nothing'}")
        check(seen, "nobody noticed the other")
        await one.anchored()
        await other.anchored()
        await asyncio.gather(write_one(), write_other())
        await asyncio.sleep(1.5)
        told = await one.log(), await other.log()
        await one.end()
        await other.end()
        check(told[0]["epoch"] != told[1]["epoch"], f"both write one epoch: {told}")
        return other.said(), told


def insert(database, marker, count):
    """Returns the connection: whoever closes last checkpoints."""
    db = sqlite3.connect(database, timeout=20, isolation_level=None)
    for n in range(count):
        db.execute('INSERT INTO prosodyarchive'
                   ' (host, user, store, key, "when", "with", type, value)'
                   " VALUES ('localhost', 'twin', 'archive', hex(randomblob(9)), 1, 'x', 'xml', ?)",
                   (f"{marker} {n}",))
    return db


def count(database, marker):
    db = sqlite3.connect(database)
    check(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", f"{database} is damaged")
    got = db.execute("SELECT count(*) FROM prosodyarchive WHERE value LIKE ?",
                     (marker + " %",)).fetchone()[0]
    db.close()
    return got


async def gap__a_cloned_node_is_noticed_and_both_histories_stay():
    """A copy of the machine runs at the same time, on its own copy of the database."""
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        async with Follower(node) as follower:
            await follower.start()
            first = await send(server, "a", 2)
            await follower.anchored()
            await asyncio.sleep(1)
            await follower.end()
        shutil.copytree(server.root / "data", folder / "twin-data")
        twin = clone(node, folder, **{str(server.root / "data"): str(folder / "twin-data")})
        opened, senders = [], []

        async def write_one():
            senders.append(await send(server, f"b{len(senders)}-", 2))

        async def write_other():
            opened.append(insert(folder / "twin-data/prosody.sqlite", "twin", 50))

        said, told = await both_at_once(node, twin, write_one, write_other,
                                        lambda text: "another machine" in text or "gap" in text)
        check("gap" in said, "the clone said nothing")
        listed = await node.run("list")
        print(f"list: exit {listed.code}: {listed.err.strip()}")
        sent, acked = together(first, *senders)
        twins = 50 * len(opened)

        def look(database):
            return len(acked) - len(lost_from(database, sent, acked)), count(database, "twin")
        seen = await restore_each(node, folder, [end_of(node, log["epoch"]) for log in told], look)
        print(f"written: {(len(acked), twins)}; restored: {seen}")
        check(any(ours == len(acked) for ours, _ in seen), "the first history cannot be restored")
        check(any(n == twins for _, n in seen), "the clone's history cannot be restored")
        for db in opened:
            db.close()


def end_of(node, epoch):
    """When an epoch's last point was, from the names in the vault."""
    leaves = [p.name for p in node.vault.glob(f"logs/{NODE}/{STORE}/{epoch}/*/*")]
    return int(max(leaves).split("-")[2], 16) if leaves else 0


async def restore_each(node, folder, instants, look):
    """What a restore to each instant, and to the latest, brings."""
    seen = []
    for at in [iso(ms) for ms in instants] + ["latest"]:
        database, row, answer = await restored_copy(node, f"{folder}/each", "--at", at)
        seen.append(look(database))
        print(f"--at {at}: {row['instant_reached']} of {row['log']['epoch']}: {seen[-1]}; "
              f"{row.get('stopped') or ''} {answer.err.strip()}")
    return seen


async def restore_aloud(node, folder, at):
    answer = await node.restore("--to", folder, "--store", STORE, "--at", at)
    row = answer.store(STORE)
    why = row.get("stopped") or ""
    print(f"--at {at}: exit {answer.code}, {row['instant_reached']}: {why}")
    check(answer.code == OK or (answer.code == PART and "machine" in why),
          f"exit {answer.code}: {answer.out}")
    return row


async def gap__two_followers_that_continue_one_log_are_told_apart():
    """A local state that was copied continues the very log that its original continues."""
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        async with Follower(node) as follower:
            await follower.start()
            first = await send(server, "a", 2)
            epoch = await follower.anchored()
            await asyncio.sleep(1)
            await follower.end()
        twin = clone(node, folder)
        senders = []

        async def write():
            senders.append(await send(server, f"b{len(senders)}-", 2))

        async def look_on():
            pass

        await both_at_once(node, twin, write, look_on, lambda text: "another machine" in text)
        sent, acked = together(first, *senders)
        # Where both wrote there are two logs: a restore may stop there, but not silently.
        row = await restore_aloud(node, f"{folder}/to", "latest")
        lost = lost_from(row["path"], sent, acked)
        check(not lost, f"from {row}: missing {lost[:10]}")
        at = wall_ms(max(first.acked.values())) + 900
        row = await restore_aloud(node, f"{folder}/then", iso(at))
        check(row["log"]["epoch"] == epoch, f"restored from {row}")
        lost = lost_from(row["path"], sent, first.acked)
        check(not lost, f"from {row}: missing {lost[:10]}")


main(gap__a_server_that_went_on_alone_gets_a_new_epoch_and_a_snapshot,
     gap__a_replaced_database_file_is_noticed_at_once,
     gap__a_vacuum_while_following_is_captured_or_recorded,
     gap__a_cloned_node_is_noticed_and_both_histories_stay,
     gap__two_followers_that_continue_one_log_are_told_apart)
