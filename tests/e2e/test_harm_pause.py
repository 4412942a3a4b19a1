# SPDX-License-Identifier: Apache-2.0
"""pause = PIDFILE against a rollback-journal Prosody: nothing is lost, and the server is released
whatever becomes of imvault."""
import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path

from imvault import OK, Node, check, check_copy, main, make_store, running, scratch, stores_of
from prosody import Listener, Sender, missing_from_archives, process_state

SECONDS = 20


def stopped(pid):
    return process_state(pid) in ("T", "t")


async def check_images(folder, node, server, sender, answers):
    """Images taken amid transactions, with their journals, open as whole databases. The restore's
    own check rolls a journal back; without it, SQLite does so here."""
    journals = 0
    for n, answer in enumerate(random.Random(3).sample(answers, min(12, len(answers)))):
        to = folder / f"to{n}"
        (await node.restore("--at", answer.json["snapshot"], "--to", str(to), "--store", "archive",
                            "--check", "none" if n % 3 else "quick")).expect(OK)
        journals += check_copy(Path(f"{to}{server.database}"), sender, answer.began)
    print(f"restored {n + 1} of the snapshots, {journals} with a journal to roll back")


async def harm__a_paused_server_loses_nothing():
    with scratch() as folder, running(folder, "delete") as server:
        node = Node(folder)
        node.setup(**stores_of(server, pause=server.pidfile))
        online, sender = Listener(server, "online"), Sender(server)
        await online.open()
        await sender.open()
        rate, answers = await asyncio.gather(
            sender.traffic(SECONDS, 150), node.back_to_back(time.monotonic() + SECONDS))
        unacked = await sender.settle()
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        for answer in answers:
            answer.expect(OK)
        pauses = sorted(answer.store("archive").get("pause_ms", -1) for answer in answers)
        print(f"{len(sender.sent)} messages at {rate:.0f}/s during {len(answers)} backups, "
              f"pauses {pauses[0]}-{pauses[-1]} ms, median {pauses[len(pauses) // 2]}; "
              f"{unacked} not acknowledged, missing {({k: len(v) for k, v in missing.items()})}")
        check(pauses[0] >= 0, "pause_ms is missing from stores[]")
        check(unacked == 0, "the server stopped acknowledging")
        check(not missing, f"missing from the live archive: {missing}")
        check(not server.trouble(), f"in the log: {server.trouble()[:3]}")
        check(not stopped(server.pid()), "the server was left stopped")
        await check_images(folder, node, server, sender, answers)
        await sender.close()
        await online.close()


async def catch_in_pause(child, pid):
    """True as soon as the server is seen stopped, False when the run ends before."""
    while child.returncode is None:
        for _ in range(200):
            if stopped(pid):
                return True
        await asyncio.sleep(0)
    return False


async def killed_run(node, pid, how, group, in_pause, rng):
    """Starts a backup and ends it; returns whether it was ended while the server stood still."""
    child = await node.start("backup", "--json", start_new_session=True)
    drain = asyncio.create_task(child.communicate())
    if in_pause:
        await catch_in_pause(child, pid)
    else:
        await asyncio.sleep(rng.uniform(0, 0.15))
    hit = stopped(pid)
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(child.pid, how)
    await drain
    return hit


async def harm__a_killed_imvault_releases_the_server():
    """A past of 60 MB makes the pause long enough to be caught in."""
    def past(path):
        make_store(path, 60, "--delete")

    rng = random.Random(7)
    with scratch() as folder, running(folder, "delete", make_database=past) as server:
        node = Node(folder)
        node.setup(**stores_of(server, pause=server.pidfile))
        online, sender = Listener(server, "online"), Sender(server)
        await online.open()
        await sender.open()
        pid = server.pid()
        traffic = asyncio.create_task(sender.traffic(30, 50))
        hits, runs = 0, 0
        ways = [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGKILL, True),
                (signal.SIGINT, True)]
        while not traffic.done() and runs < 40:
            how, group = ways[runs % len(ways)]
            hits += await killed_run(node, pid, how, group, runs % 5 != 0, rng)
            runs += 1
            deadline = time.monotonic() + 5
            while stopped(pid) and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            check(not stopped(pid), f"left stopped by run {runs} ({how.name}, group {group})")
            check(await sender.answers(), f"does not answer after run {runs} ({how.name})")
        print(f"{runs} runs ended by a signal, {hits} of them seen while the server was stopped")
        check(hits >= 5, "hardly any run was ended within its pause")
        (await node.backup()).expect(OK)
        await traffic
        check(await sender.settle() == 0, "the server stopped acknowledging")
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        check(not missing and not server.trouble(), f"{missing} {server.trouble()[:3]}")
        check(process_state(pid) in ("S", "R"), "the server is not running")
        await sender.close()
        await online.close()


async def harm__a_stale_pid_file_is_an_error_and_stops_nobody():
    with scratch() as folder, running(folder, "delete") as server:
        node = Node(folder)
        wrong = folder / "wrong.pid"
        node.setup(**stores_of(server, pause=wrong))
        bystander = await asyncio.create_subprocess_exec("sleep", "60")
        dead = await asyncio.create_subprocess_exec("true")
        await dead.wait()
        for text in (None, "", "0\n", "-1\n", "1 2", "99999999999999999999", f"{dead.pid}\n"):
            if text is not None:
                wrong.write_text(text)
            answer = await node.backup()
            check(answer.code == 3, f"pid file {text!r}: exit {answer.code}\n{answer.err}")
            check(str(wrong) in answer.everything(), f"the message does not name {wrong}")
        check(not stopped(bystander.pid) and not stopped(server.pid()), "somebody was stopped")
        bystander.kill()
        await bystander.wait()


main(harm__a_paused_server_loses_nothing,
     harm__a_killed_imvault_releases_the_server,
     harm__a_stale_pid_file_is_an_error_and_stops_nobody)
