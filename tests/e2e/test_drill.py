# SPDX-License-Identifier: Apache-2.0
"""Drills of a real Prosody with uploads: the verdicts are right, the server that drills start is a real
one, the production that runs beside them notices nothing, and nothing is left of them."""
import asyncio
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from instant import far_vault
from imvault import NODE, OK, Node, check, main, running, scratch, stores_of
from prosody import Listener, Sender, process_state, skip

MISSED, DIFFERENT, DAMAGED = 10, 11, 6
HOOK = Path(__file__).resolve().parents[2] / "scripts/drill-prosody"

if subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True).returncode:
    skip("the drill's server needs namespaces of its own, which are not to be had here")


def sum_of(path):
    """Of content and names below a folder."""
    total = hashlib.sha256()
    for p in sorted(Path(path).rglob("*")):
        total.update(str(p.relative_to(path)).encode() + b"\0" + (p.read_bytes() if p.is_file() else b""))
    return total.hexdigest()


class Drill:
    def __init__(self, folder, server, node):
        self.room = Path(folder) / "scratch"
        self.room.mkdir()
        self.server, self.node = server, node
        self.probe = f"mkdir -p {server.root}/run {server.root}/log; {HOOK} --config {server.config} --host localhost --port {server.port}"

    def words(self, *args, vault=None):
        return ["drill", "--vault", str(vault or self.node.vault), "--key", str(self.node.restore_key), "--node", NODE,
                "--scratch", str(self.room), *args]

    async def run(self, *args, vault=None):
        return await self.node.run(*self.words(*args, vault=vault), config=False)

    def check_clean(self):
        check(not list(self.room.iterdir()), f"left in the scratch folder: {list(self.room.iterdir())}")
        mounts = Path("/proc/self/mounts").read_text()
        check(str(self.room) not in mounts, "something is still mounted there")
        for p in Path("/proc").iterdir():
            try:
                line = (p / "cmdline").read_bytes().decode(errors="replace") if p.name.isdigit() else ""
                inside = str(self.room) in os.readlink(p / "cwd") if p.name.isdigit() else False
            except OSError:
                continue
            check(str(self.room) not in line and not inside, f"process {p.name} of a drill is left: {line}")

    def records(self):
        folder = self.node.vault / "drills" / NODE
        return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


async def with_messages(server, node):
    online, sender = Listener(server, "online"), Sender(server)
    await online.open()
    await sender.open()
    await sender.traffic(2, 100)
    check(await sender.settle() == 0, "not everything was acknowledged")
    await sender.close()
    await online.close()
    return sender


async def drill__gives_the_right_verdicts():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        server.add_uploads(20)
        await with_messages(server, node)
        (await node.backup()).expect(OK)
        drill = Drill(folder, server, node)
        pid, uploads, config = server.pid(), sum_of(server.uploads), sum_of(server.config.parent)

        clean = (await drill.run("--exec", drill.probe, "--reason", "first")).expect(OK)
        check(clean.json["verdict"] == "passed" and clean.json["rto_met"], f"{clean.json}")
        check(all(c["ok"] for c in clean.json["checks"]) and len(clean.json["checks"]) >= 3, f"checks: {clean.json['checks']}")
        check("logged in" in clean.err or clean.json["exec_status"] == 0, clean.err)
        check(clean.json["service_ready_ms"] > clean.json["data_complete_ms"], "the service was not part of service ready")
        drill.check_clean()

        instant = (await drill.run("--instant", "--exec", drill.probe)).expect(OK)
        check(instant.json["verdict"] == "passed", f"{instant.json}")
        drill.check_clean()

        late = (await drill.run("--rto", "1ms", "--at", "random", "--operator", "night shift")).expect(MISSED)
        check(late.json["verdict"] == "missed" and late.json["chosen"] == "random" and late.json["at"], f"{late.json}")

        bad = Path(folder) / "bad-vault"
        shutil.copytree(node.vault, bad)
        pack = max((bad / "packs").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
        data = bytearray(pack.read_bytes())
        for at in range(len(data) // 4, len(data) * 3 // 4, 4096):
            data[at] ^= 0xFF
        pack.chmod(0o600)
        pack.write_bytes(data)
        damaged = await drill.run(vault=bad)
        damaged.expect(DAMAGED)
        check(damaged.json["verdict"] == "damaged" and damaged.json["damaged"], f"{damaged.json}")
        drill.check_clean()

        check(process_state(pid) in ("S", "R") and server.pid() == pid, "production's server did not survive")
        check(sum_of(server.uploads) == uploads and sum_of(server.config.parent) == config, "a drill changed production")
        check(not server.trouble(), f"production lost messages: {server.trouble()[:3]}")
        db = sqlite3.connect(server.database)
        made = db.execute("SELECT count(*) FROM prosody WHERE user LIKE 'imvault-drill-%'").fetchone()[0]
        db.close()
        check(made == 0, "the drill's account was made in production")
        check(len(drill.records()) == 3, f"records: {drill.records()}")


async def drill__notices_rows_that_were_lost_before_the_snapshot():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        await with_messages(server, node)
        (await node.backup()).expect(OK)
        drill = Drill(folder, server, node)
        (await drill.run()).expect(OK)
        server.kill(signal.SIGTERM)
        db = sqlite3.connect(server.database)
        day = db.execute('SELECT max("when") FROM prosodyarchive').fetchone()[0]
        first = db.execute("SELECT min(sort_id) FROM prosodyarchive").fetchone()[0]
        gone = db.execute("DELETE FROM prosodyarchive WHERE sort_id BETWEEN ? AND ?", (first + 20, first + 24)).rowcount
        db.commit()
        db.close()
        check(gone == 5 and day, "the test itself deleted nothing")
        (await node.backup()).expect(OK)
        lost = (await drill.run()).expect(DIFFERENT)
        check(lost.json["verdict"] == "different" and lost.json["differences"] >= 1, f"{lost.json}")
        check(any("5 messages" in c["text"] for c in lost.json["checks"] if not c["ok"]), f"{lost.json['checks']}")
        (await drill.run()).expect(OK)  # it was told once


async def drill__leaves_nothing_behind_when_it_is_killed():
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        server.add_uploads(20)
        (await node.backup()).expect(OK)
        drill = Drill(folder, server, node)
        for instant in (False, True):
            for victim in ("caller", "guard"):
                child = await node.start(*drill.words(*(["--instant"] if instant else []), "--exec", "sleep 300 & sleep 300"), config=False)
                for _ in range(200):
                    await asyncio.sleep(0.05)
                    if any(b"sleep 300" in read(p) for p in Path("/proc").glob("[0-9]*/cmdline")):
                        break
                pid = child.pid
                if victim == "guard":
                    pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
                os.kill(pid, signal.SIGKILL)
                await child.wait()
                for _ in range(100):
                    await asyncio.sleep(0.05)
                    if not list(drill.room.iterdir()):
                        break
                drill.check_clean()
                print(f"killed the {victim}, {'instant' if instant else 'full'}: nothing left")
        check(not drill.records(), "a killed drill has a record")
        child = await node.start(*drill.words("--exec", "sleep 300"), config=False)
        await asyncio.sleep(1)
        child.send_signal(signal.SIGTERM)
        check(await child.wait() == 128 + signal.SIGTERM, f"exit {child.returncode} of an interrupted drill")
        drill.check_clean()


async def drill__and_restore_from_a_slow_vault_miss_the_target_and_alert():
    if not os.path.exists("/dev/fuse") or not os.environ.get("IMVAULT_SLOW_FOLDER"):
        skip("there is no /dev/fuse, or no libfuse, for a slow vault")
    with scratch() as folder, running(folder, "wal") as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        server.add_uploads(20)
        (await node.backup()).expect(OK)
        drill, told = Drill(folder, server, node), Path(folder) / "told"
        with node.config.open("a") as f:
            f.write(f"[alert]\ncommand = tr -d '\\n' >>{told}; echo >>{told}\n")
        words = ["--key", str(node.restore_key), "--node", NODE, "--rto", "1500ms"]
        near = await node.run("drill", "--vault", str(node.vault), "--scratch", str(drill.room), *words)
        near.expect(OK)
        check(not told.exists(), "a drill that was in time told somebody")
        with far_vault(node, 1, latency_us=20_000) as far:
            late = (await node.run("drill", "--vault", str(far), "--scratch", str(drill.room), *words)).expect(MISSED)
            check(late.json["verdict"] == "missed" and not late.json["rto_met"], f"{late.json}")
            (await node.run("restore", "--vault", str(far), "--to", f"{folder}/back", *words)).expect(MISSED)
        alerts = [json.loads(line) for line in told.read_text().splitlines() if line.strip()]
        check([(a["kind"], a["exit_code"]) for a in alerts] == [("drill", MISSED), ("restore", MISSED)], f"alerts: {alerts}")
        check(all("target" in a["text"] for a in alerts), f"alerts: {alerts}")
        drill.check_clean()


def read(path):
    try:
        return path.read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


if __name__ == "__main__":
    main(drill__gives_the_right_verdicts, drill__notices_rows_that_were_lost_before_the_snapshot,
         drill__leaves_nothing_behind_when_it_is_killed, drill__and_restore_from_a_slow_vault_miss_the_target_and_alert)
