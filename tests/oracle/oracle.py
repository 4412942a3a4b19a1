#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Seeded oracle: random writes, snapshots, following, crashes, restores and losses of local state, the
clock set forth and back, against a model that remembers, for every snapshot, the rows and files it
must hold, and every state the database has had. A failure prints the seed and the step; the same seed
replays it, as far as processes that run at the same time allow.

usage: oracle.py --imvault BINARY [--clock IMVAULT-SET-CLOCK.SO] [--seed N] [--steps N]
"""
import argparse
import contextlib
import datetime
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Caracas"]


def digest_rows(connection):
    digest = hashlib.blake2b()
    tables = [r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    for table in tables:
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1"):
            digest.update(repr((table, row)).encode())
    return digest.hexdigest()


def digest_database(path):
    """Reads only: closing must not checkpoint."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return digest_rows(connection)


def digest_database_closed(path):
    """Of a restored one that nobody has open."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        return digest_rows(connection)


def digest_tree(path):
    digest = hashlib.blake2b()
    for folder, folders, files in sorted(os.walk(path)):
        folders.sort()
        for name in sorted(folders + files):
            full = os.path.join(folder, name)
            info = os.lstat(full)
            digest.update(repr((os.path.relpath(full, path), info.st_mode, info.st_mtime_ns if not os.path.isdir(full) else 0)).encode())
            if os.path.islink(full):
                digest.update(os.readlink(full).encode())
            elif os.path.isfile(full):
                with open(full, "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()


class State:
    """The database as one commit left it; the clock as imvault sees it."""
    def __init__(self, began_ms, ended_ms, latest_ms, digest, lines):
        self.began_ms, self.ended_ms, self.digest, self.lines = began_ms, ended_ms, digest, lines
        self.earliest_ms = began_ms  # the lowest the clock has shown since it began
        self.highest_ms = max(latest_ms, ended_ms)  # the highest it had shown when it was done


class World:
    def __init__(self, binary, clock, seed):
        self.random = random.Random(seed)
        self.zones = random.Random(seed)  # apart: how many runs there are is not the seed's alone
        self.binary = binary
        self.clock = clock and os.path.realpath(clock)
        self.offset_ms, self.highest_ms, self.set_back = 0, 0, False
        self.follower = None
        self.states = []
        self.top = tempfile.mkdtemp(prefix="imvault-oracle-")
        self.data = self.top + "/data"
        self.tree = self.data + "/files"
        self.database = self.data + "/chat.sqlite"
        self.logs = self.data + "/logs"
        os.makedirs(self.tree)
        os.makedirs(self.logs)
        self.lines = 0
        self.set_clock(0)
        self.snapshots = {}  # snapshot id -> (digest of rows, digest of files)
        page_size = self.random.choice([512, 1024, 4096, 4096, 16384, 65536])
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA auto_vacuum = {self.random.choice([0, 0, 1, 2])}")
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body BLOB)")
        connection.execute("CREATE INDEX by_body ON message (substr(body, 1, 20))")
        connection.close()
        self.note(self.now(), digest_database(self.database))
        self.run("init", "--vault", self.top + "/vault", "--restore-key", self.top + "/restore.key", "--node-key", self.top + "/node.key")
        with open(self.top + "/imvault.conf", "w") as file:
            file.write(f"[node]\nname = oracle\nstate = {self.top}/state\n[vault]\nurl = {self.top}/vault\nkey = {self.top}/node.key\n"
                       f"[store chat]\ntype = sqlite\npath = {self.database}\n[store files]\ntype = files\npath = {self.tree}\n"
                       f"[store logs]\ntype = files\npath = {self.logs}\nfollow = *.log\n[follow]\nflush = 100ms\nhold = 30s\n")
        self.follower_log = open(self.top + "/follower.log", "w")

    # The clock as imvault sees it, and what happened when.

    def now(self):
        shown = int(time.time() * 1000) + self.offset_ms
        self.highest_ms = max(self.highest_ms, shown)
        return shown

    def set_clock(self, offset_ms):
        self.now()  # imvault may have seen it
        self.offset_ms = offset_ms
        with open(self.top + "/clock", "r+b" if os.path.exists(self.top + "/clock") else "wb") as file:
            file.write(struct.pack("<q", offset_ms))
        for state in self.states:
            state.earliest_ms = min(state.earliest_ms, self.now())

    def environment(self):
        """In any zone: instants have none."""
        environment = dict(os.environ, TZ=self.zones.choice(ZONES))
        if self.clock:
            environment.update(LD_PRELOAD=self.clock, IMVAULT_TEST_CLOCK=self.top + "/clock")
        return environment

    def note(self, began_ms, digest):
        highest_ms = self.highest_ms
        self.states.append(State(began_ms, self.now(), highest_ms, digest, self.lines))

    def run(self, *arguments, allowed=(0,)):
        done = subprocess.run([self.binary, *arguments, "--json"], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.environment())
        if done.returncode not in allowed:
            raise AssertionError(f"imvault {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip() or done.stdout}")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    # What may happen.

    def write_rows(self):
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute("PRAGMA wal_autocheckpoint = %d" % self.random.choice([0, 10, 1000]))
        for _ in range(self.random.randint(1, 5)):
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(self.random.randint(1, 60)):
                connection.execute("INSERT INTO message (body) VALUES (?)", (self.random.randbytes(self.random.choice([10, 300, 9000])),))
            if self.random.random() < 0.5:
                connection.execute("DELETE FROM message WHERE id % 7 = ?", (self.random.randrange(7),))
            began_ms = self.now()
            connection.execute("COMMIT" if self.random.random() < 0.9 else "ROLLBACK")
            self.note(began_ms, digest_rows(connection))
        connection.close()

    def vacuum(self):
        connection = sqlite3.connect(self.database, isolation_level=None, timeout=0.2)
        began_ms = self.now()
        connection.execute(self.random.choice(["VACUUM", "PRAGMA incremental_vacuum", "PRAGMA wal_checkpoint(TRUNCATE)", "DELETE FROM message WHERE id % 2"])).fetchall()
        self.note(began_ms, digest_rows(connection))
        connection.close()

    def replace(self):
        """A restored or rebuilt database takes the place of the other, while nobody writes."""
        began_ms = self.now()
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute("VACUUM INTO ?", (self.top + "/replacement",))
        connection.close()
        connection = sqlite3.connect(self.top + "/replacement", isolation_level=None)
        if self.random.random() < 0.7:
            connection.execute("DELETE FROM message WHERE id % 3 = ?", (self.random.randrange(3),))
        connection.execute("PRAGMA journal_mode = wal")
        connection.close()
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.database + suffix)
        os.replace(self.top + "/replacement", self.database)
        self.note(began_ms, digest_database(self.database))

    def crash_writer(self):
        """A writer dies with its -wal in place."""
        began_ms = self.now()
        child = os.fork()
        if child == 0:
            connection = sqlite3.connect(self.database, isolation_level=None)
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("INSERT INTO message (body) VALUES ('before the crash')")
            connection.execute("BEGIN")
            connection.execute("INSERT INTO message (body) VALUES ('never committed')")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        self.note(began_ms, digest_database(self.database))

    def write_lines(self):
        for _ in range(self.random.randint(1, 5)):
            began_ms = self.now()
            with open(self.logs + "/server.log", "a") as file:
                for _ in range(self.random.choice([1, 3, 400])):
                    file.write(f"line {self.lines}\n")
                    self.lines += 1
            self.note(began_ms, self.states[-1].digest)

    def write_files(self):
        for _ in range(self.random.randint(1, 6)):
            path = f"{self.tree}/{self.random.choice(['a', 'b/c', 'b/d/e'])}/file-{self.random.randrange(20)}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.lexists(path) and self.random.random() < 0.3:
                os.unlink(path)
            elif self.random.random() < 0.1 and not os.path.lexists(path):
                os.symlink("file-0", path)
            elif not os.path.islink(path):
                with open(path, "ab" if self.random.random() < 0.5 else "wb") as file:
                    file.write(self.random.randbytes(self.random.choice([0, 5, 70000, 1500000])))

    def snapshot(self):
        before = (digest_database(self.database), digest_tree(self.tree))
        answer = self.run("-c", self.top + "/imvault.conf", "backup", *(["--full"] if self.random.random() < 0.1 else []),
                          allowed=(0, 9) if self.follower else (0,))  # 9: the follower has one taken just now
        if answer.get("snapshot"):
            self.snapshots[answer["snapshot"]] = before

    def listed(self):
        return [entry["snapshot"] for entry in self.run("list", "--vault", self.top + "/vault", "--key", self.top + "/restore.key", allowed=(0, 7))["snapshots"]]

    def killed_snapshot(self):
        known = self.listed()
        process = subprocess.Popen([self.binary, "-c", self.top + "/imvault.conf", "backup", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
                                   env=self.environment())
        before = (digest_database(self.database), digest_tree(self.tree))
        time.sleep(self.random.random() * 0.1)
        process.kill()
        process.wait()
        for name in self.listed():
            if name not in known and not self.follower:  # it may have been committed just before; the follower has its own taken
                self.snapshots.setdefault(name, before)

    def lose_state(self):
        self.stop_follow()
        shutil.rmtree(self.top + "/state", ignore_errors=True)

    def restore(self):
        if not self.snapshots:
            return
        chosen = self.random.choice(sorted(self.snapshots))
        target = self.top + "/out"
        self.run("restore", "--vault", self.top + "/vault", "--key", self.top + "/restore.key", "--at", chosen.split("/")[-1].split("-")[-1], "--to", target)
        found = (digest_database_closed(target + self.database), digest_tree(target + self.tree))
        assert found == self.snapshots[chosen], f"snapshot {chosen} restored to something else: rows {found[0] == self.snapshots[chosen][0]}, files {found[1] == self.snapshots[chosen][1]}"
        shutil.rmtree(target)

    # Following.

    def keepers(self):
        """By who has the keeper's name and our database open."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == "imvault-keeper" and any(
                        os.readlink(f"/proc/{pid}/fd/{fd}").startswith(self.database) for fd in os.listdir(f"/proc/{pid}/fd")):
                    found.append(int(pid))
        return found

    def kill_keepers(self):
        for pid in self.keepers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_follow(self):
        if not self.follower:
            self.follower = subprocess.Popen([self.binary, "-c", self.top + "/imvault.conf", "--quiet", "follow"], stdin=subprocess.DEVNULL,
                                             stdout=subprocess.DEVNULL, stderr=self.follower_log, env=self.environment())
        time.sleep(self.random.choice([0, 0.05, 0.4]))

    def stop_follow(self):
        if self.follower:
            self.follower.send_signal(signal.SIGTERM)
            status, self.follower = self.follower.wait(timeout=60), None
            assert status in (0, 9, 128 + signal.SIGTERM, -signal.SIGTERM), f"SIGTERM ended the follower with {status}"

    def kill_follow(self):
        keepers_too = self.random.random() < 0.3
        if self.follower:
            self.follower.kill()
            self.follower.wait()
            self.follower = None
        if keepers_too:
            self.kill_keepers()

    def follow_once(self):
        if self.follower:  # the one of the two that came first has the node
            self.run("-c", self.top + "/imvault.conf", "follow", "--once", allowed=(0, 3, 9))
        elif self.run("-c", self.top + "/imvault.conf", "follow", "--once", allowed=(0, 3)).get("exit_code") == 3:
            self.run("-c", self.top + "/imvault.conf", "follow", "--once")  # the gap is known and healed

    def jump(self):
        """Seconds, a summer-time hour, days; and back to the true time."""
        offset_ms = self.random.choice([0, 0, -1500, 2500, -3600000, 3600000, 86400000 * 3, self.random.randrange(-10000, 10000)])
        if self.clock:
            self.set_back = self.set_back or offset_ms < self.offset_ms
            self.set_clock(offset_ms)

    def instant(self, ms):
        """The same instant, in one zone or the other."""
        minutes = self.random.choice([0, 0, 120, -330])
        moment = datetime.datetime.fromtimestamp(ms / 1000 + 60 * minutes, datetime.timezone.utc)
        zone = "Z" if not minutes else "%+03d:%02d" % (int(minutes / 60), abs(minutes) % 60)
        return moment.strftime("%Y-%m-%dT%H:%M:%S") + ".%03d" % (ms % 1000) + zone

    def restore_to(self, at, check="quick", allowed=(0,)):
        target = self.top + "/out"
        shutil.rmtree(target, ignore_errors=True)
        answer = self.run("restore", "--vault", self.top + "/vault", "--key", self.top + "/restore.key", "--at", at, "--to", target,
                          "--check", check, allowed=allowed)
        return target, answer

    def lines_of(self, target):
        try:
            with open(target + self.logs + "/server.log", "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return 0
        lines = content.count(b"\n")
        assert content == b"".join(b"line %d\n" % n for n in range(lines)), "the restored log file is not a beginning of the one that was written"
        return lines

    def restore_at(self):
        """What was done before the instant reached is there, what began after the one asked for is not."""
        state = self.random.choice(self.states)
        at_ms = state.ended_ms + self.random.choice([0, 1, 20, 200])
        at, check = self.instant(at_ms), self.random.choice(["none", "quick", "full"])
        if at_ms > self.now() or not self.snapshots:
            return
        target, answer = self.restore_to(at, check, allowed=(0, 3, 7))
        if answer["exit_code"] == 7:
            return  # before the first snapshot
        for store in answer["stores"]:
            if store["status"] == "failed":
                continue  # no image of it was made before then
            reached_ms = store["instant_reached_ms"]
            if store["name"] == "chat":
                assert reached_ms <= at_ms or self.set_back, f"--at {at_ms} reached {reached_ms}, which is later"
                self.check_rows(digest_database_closed(target + self.database), at_ms, reached_ms)
            elif store["name"] == "logs":
                self.check_lines(self.lines_of(target), at_ms, reached_ms)
        shutil.rmtree(target, ignore_errors=True)

    def bounds(self, at_ms, reached_ms):
        """Numbers of the first and the last state that it may be."""
        first = max((i for i, s in enumerate(self.states) if s.highest_ms < min(reached_ms, at_ms)), default=0)
        return first, max((i for i, s in enumerate(self.states) if s.earliest_ms <= at_ms), default=-1)

    def check_rows(self, digest, at_ms, reached_ms):
        first, last = self.bounds(at_ms, reached_ms)
        found = [i for i, s in enumerate(self.states) if s.digest == digest]
        assert any(first <= i <= last for i in found), \
            f"--at {at_ms} reached {reached_ms}: the rows must be those of one of the states {first} to {last} of {len(self.states)}, but are those of {found}"

    def check_lines(self, lines, at_ms, reached_ms):
        first, last = self.bounds(at_ms, reached_ms)
        assert self.states[first].lines <= lines <= self.states[last].lines, \
            f"--at {at_ms} reached {reached_ms}: {lines} lines, but there were {self.states[first].lines} to {self.states[last].lines}"

    def settle(self):
        """Everything that is there is shipped; then the latest state is the present one."""
        self.stop_follow()
        self.follow_once()
        target, answer = self.restore_to("latest")
        assert digest_database_closed(target + self.database) == digest_database(self.database), "restore --at latest after a round is not what is there"
        lines = self.lines_of(target)
        assert lines == self.lines, f"restore --at latest after a round has {lines} of {self.lines} lines"
        shutil.rmtree(target)

    def verify(self):
        self.run("verify", "--vault", self.top + "/vault", "--key", self.top + "/restore.key", "--read")

    def end(self):
        if self.follower:
            self.follower.kill()
            self.follower.wait()
        self.kill_keepers()
        self.follower_log.close()


CHOICES = [("write_rows", 12), ("write_files", 6), ("write_lines", 4), ("snapshot", 8), ("restore", 5), ("vacuum", 2), ("crash_writer", 1),
           ("killed_snapshot", 3), ("lose_state", 1), ("verify", 1), ("start_follow", 7), ("stop_follow", 2), ("kill_follow", 3),
           ("follow_once", 4), ("jump", 3), ("restore_at", 8), ("settle", 2), ("replace", 1)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--imvault", required=True)
    parser.add_argument("--clock", help="the library that sets imvault's clock; without it the clock never jumps")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    world = World(options.imvault, options.clock, options.seed)
    step, name = 0, "start"
    try:
        for step in range(options.steps):
            name = world.random.choices([c[0] for c in CHOICES], [c[1] for c in CHOICES])[0]
            getattr(world, name)()
        name = "end"
        world.settle()
        for _ in range(5):
            world.restore()
            world.restore_at()
        world.verify()
    except Exception as error:
        print(f"oracle: seed {options.seed}, step {step} ({name}): {error}\nleft for inspection: {world.top}", file=sys.stderr)
        sys.exit(1)
    finally:
        world.end()
    shutil.rmtree(world.top)
    print(f"oracle: seed {options.seed}, {options.steps} steps, {len(world.snapshots)} snapshots, {len(world.states)} states, "
          f"{'the clock was set' if world.clock else 'the clock ran on'}, all equal")


if __name__ == "__main__":
    main()
