# SPDX-License-Identifier: Apache-2.0
"""`imvault follow` as a service manager runs it, for the end-to-end tests.

What it says goes to a file, so that a test can read it while it runs. Its processes are all those
that have this node's configuration in their arguments: the follower, its keeper (a fork of it) and
a snapshot under way.
"""
import asyncio
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

from imvault import OK, Failure, check
from prosody import ACCOUNTS, HOST, process_state, read_archive

STORE = "archive"


def wall_ms(instant):
    """A monotonic instant of this process on the clock that imvault writes down."""
    return round((time.time() - time.monotonic() + instant) * 1000)


def monotonic(ms):
    return ms / 1000 - (time.time() - time.monotonic())


def iso(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


class Follower:
    def __init__(self, node):
        self.node = node
        self.file = node.machine.parent / f"follow-{node.machine.name}.txt"
        self.child = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.kill()
        if self.child:
            await self.child.wait()

    async def start(self, *args):
        with self.file.open("ab") as out:
            self.child = await asyncio.create_subprocess_exec(
                self.node.program, "-c", str(self.node.config), "follow", *args,
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=self.node.env)

    def said(self):
        return self.file.read_text(errors="replace") if self.file.exists() else ""

    def pids(self):
        """Follower first, then keeper and whatever else it started."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.fsencode(self.node.config) in \
                        (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                pass
        first = self.child.pid if self.child else None
        return sorted(found, key=lambda pid: pid != first)

    def keepers(self):
        return [pid for pid in self.pids()
                if Path(f"/proc/{pid}/comm").read_text().strip() == "imvault-keeper"]

    def kill(self):
        """SIGKILL to all of it, as when the machine goes down."""
        pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for pid in pids:
            while process_state(pid) not in (None, "Z"):
                time.sleep(0.002)

    async def end(self, code=0):
        """SIGTERM: ships what is captured."""
        self.child.send_signal(signal.SIGTERM)
        got = await asyncio.wait_for(self.child.wait(), 60)
        check(got == code, f"follow ended with {got}, not {code}\n{self.said()}")

    async def until(self, what, wanted, seconds=30):
        """Waits for wanted(), which may be a coroutine function; returns what it returned."""
        deadline = time.monotonic() + seconds
        while True:
            got = wanted()
            if asyncio.iscoroutine(got):
                got = await got
            if got:
                return got
            check(self.child.returncode is None,
                  f"follow ended with {self.child.returncode}\n{self.said()}")
            if time.monotonic() > deadline:
                raise Failure(f"not within {seconds} s: {what}\n{self.said()}")
            await asyncio.sleep(0.1)

    async def log(self):
        """What status says of the store's log, or None."""
        answer = await self.node.run("status")
        stores = (answer.json or {}).get("stores", [])
        return next((s.get("log") for s in stores if s["name"] == STORE), None)

    async def anchored(self, epoch_not=None):
        """Until a snapshot stands in the epoch that is being written; returns the epoch."""
        async def look():
            log = await self.log()
            if not log or log["epoch"] == epoch_not:
                return None
            newest = anchors(await self.node.run("list"))
            return log["epoch"] if log["epoch"] in newest else None
        return await self.until("a snapshot that stands in the log", look)


def anchors(listed):
    """The epochs in which the listed snapshots stand."""
    return [s["log"]["epoch"] for snapshot in listed.json["snapshots"]
            for s in snapshot.get("stores", []) if s["name"] == STORE and "log" in s]


def lost_from(database, sent, names):
    """Which of `names` a restored Prosody database lacks; it must be sound."""
    db = sqlite3.connect(database)
    check(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", f"{database} is damaged")
    texts = {user: "".join(row[0] for row in db.execute(
        "SELECT value FROM prosodyarchive WHERE host = ? AND user = ?", (HOST, user)))
        for user in ACCOUNTS}
    db.close()
    return sorted(n for n in names
                  if f"id='{n}'" not in texts[sent[n][0]] or f"id='{n}'" not in texts["sender"])


async def archives(server):
    return {user: await read_archive(server, user) for user in ACCOUNTS}


async def restored_copy(node, folder, *args, code=OK):
    """Restores the followed store below `folder`: (its database, the row about it, the answer)."""
    shutil.rmtree(folder, ignore_errors=True)
    answer = (await node.restore("--to", str(folder), "--store", STORE, *args)).expect(code)
    row = answer.store(STORE)
    return Path(row["path"]), row, answer
