# SPDX-License-Identifier: Apache-2.0
"""The main job: messages flow while a backup runs, the server is killed, the machine is lost, and
one command from vault and restore key brings it back. The archive is read over XMPP afterwards."""
import asyncio
import shutil
from pathlib import Path

from imvault import NODE, OK, Node, check, check_copy, main, running, scratch, stores_of
from prosody import Listener, Sender, missing_from_archives, process_state


def contents(folder):
    """{relative name: (mode, bytes)} of every regular file."""
    folder = Path(folder)
    return {str(p.relative_to(folder)): (p.stat().st_mode, p.read_bytes())
            for p in sorted(folder.rglob("*")) if p.is_file()}


def check_clocks(restored):
    answer = restored.json
    for name in ("service_ready_ms", "data_complete_ms", "rto_ms"):
        value = answer.get(name)
        check(isinstance(value, int) and value >= 0, f"{name} is {value!r}")
    check(answer.get("rto_ms") == 15 * 60 * 1000, "tier = im is 15 minutes")
    check(answer.get("rto_met") is True, f"rto_met is {answer.get('rto_met')!r}")
    check(answer.get("node") == NODE and answer.get("snapshot"), "node or snapshot is missing")
    check(answer.get("phases"), "no phase table")
    print("restored in", {k: answer[k] for k in ("service_ready_ms", "data_complete_ms")},
          "phases", {p["name"]: p["ms"] for p in answer["phases"]})


async def recover(journal_mode):
    with scratch() as folder, running(folder, journal_mode) as server:
        node = Node(folder)
        options = {"pause": server.pidfile} if journal_mode == "delete" else {}
        node.setup(**stores_of(server, **options))
        server.add_uploads(20)
        online, sender = Listener(server, "online"), Sender(server)
        await online.open()
        await sender.open()

        traffic = asyncio.create_task(sender.traffic(12, 150))
        await asyncio.sleep(3)
        (await node.backup()).expect(OK)
        server.add_uploads(5, seed=2)
        await asyncio.sleep(2)
        uploads, config = contents(server.uploads), server.config.read_bytes()
        last = (await node.backup()).expect(OK)
        during = len(sender.sent) - len(sender.acked_before(last.began))
        await traffic
        unacked = await sender.settle()
        check(unacked == 0, f"{unacked} messages not acknowledged")
        promised = sender.acked_before(last.began)
        print(f"{len(sender.sent)} messages; {len(promised)} acknowledged before the snapshot, "
              f"{during} while it ran ({last.ms} ms)")
        check(len(promised) > 100 and during > 0, "too little traffic to prove anything")
        check(not server.trouble(), f"the live server lost messages: {server.trouble()[:3]}")

        server.kill()
        sender.abort()
        online.abort()
        shutil.rmtree(server.root)
        node.lose_machine()

        restored = (await node.restore("--exec", str(server.start_script))).expect(OK)
        check_clocks(restored)
        check(process_state(server.pid()) in ("S", "R"), "the server is not running")
        check(server.config.read_bytes() == config, "the configuration differs")
        check(contents(server.uploads) == uploads, "the uploads differ")
        missing = await missing_from_archives(server, sender.sent, promised)
        check(not missing, f"acknowledged before the snapshot, missing afterwards: {missing}")

        again = Sender(server)
        await again.open()
        await again.traffic(1, 20)
        check(await again.settle() == 0, "the restored server does not acknowledge")
        check(not await missing_from_archives(server, again.sent, again.acked),
              "the restored server does not archive")
        check(not server.trouble(), f"the restored server complains: {server.trouble()[:3]}")
        await again.close()


async def recover__brings_back_every_message_acknowledged_before_the_snapshot():
    await recover("wal")


async def recover__brings_them_back_from_a_paused_server_as_well():
    await recover("delete")


async def recover__works_from_the_backup_of_a_killed_server():
    """What kill -9 left, with its -wal: backed up unharmed, and restored whole."""
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        sender = Sender(server)
        await sender.open()
        await sender.traffic(3, 150)
        check(await sender.settle() == 0, "messages not acknowledged")
        server.kill()
        sender.abort()
        left = {n: v for n, v in contents(server.root / "data").items() if not n.endswith("-shm")}
        check(left["prosody.sqlite-wal"][1], "the kill left no -wal")
        answer = (await node.backup()).expect(OK)
        now = {n: v for n, v in contents(server.root / "data").items() if not n.endswith("-shm")}
        check(now == left, "the backup changed what the killed server left")
        shutil.rmtree(server.root)
        node.lose_machine()
        (await node.restore("--exec", str(server.start_script))).expect(OK)
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        check(not missing, f"missing after {answer.json['snapshot']}: {missing}")


async def recover__writes_a_store_that_sqlite_finds_sound():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        sender = Sender(server)
        await sender.open()
        traffic = asyncio.create_task(sender.traffic(5, 150))
        await asyncio.sleep(2)
        last = (await node.backup()).expect(OK)
        await traffic
        await sender.settle()
        await sender.close()
        (await node.restore("--to", f"{folder}/to", "--store", "archive")).expect(OK)
        check_copy(Path(f"{folder}/to{server.database}"), sender, last.began)
        check(not Path(f"{folder}/to{server.uploads}").exists(), "--store restored another store")


main(recover__brings_back_every_message_acknowledged_before_the_snapshot,
     recover__brings_them_back_from_a_paused_server_as_well,
     recover__works_from_the_backup_of_a_killed_server,
     recover__writes_a_store_that_sqlite_finds_sound)
