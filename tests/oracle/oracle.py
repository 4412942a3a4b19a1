#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Seeded oracle: random writes, snapshots, crashes, restores and losses of local state against a
model that remembers, for every snapshot, the rows and files it must hold. A failure prints the
seed and the step; the same seed replays it.

usage: oracle.py --imvault BINARY [--seed N] [--steps N]
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time


def digest_database(path):
    connection = sqlite3.connect(path)
    digest = hashlib.blake2b()
    tables = [r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    for table in tables:
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1"):
            digest.update(repr((table, row)).encode())
    connection.close()
    return digest.hexdigest()


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


class World:
    def __init__(self, binary, seed):
        self.random = random.Random(seed)
        self.binary = binary
        self.top = tempfile.mkdtemp(prefix="imvault-oracle-")
        self.data = self.top + "/data"
        self.tree = self.data + "/files"
        self.database = self.data + "/chat.sqlite"
        os.makedirs(self.tree)
        self.snapshots = {}  # snapshot id -> (digest of rows, digest of files)
        page_size = self.random.choice([512, 1024, 4096, 4096, 16384, 65536])
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA auto_vacuum = {self.random.choice([0, 0, 1, 2])}")
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body BLOB)")
        connection.execute("CREATE INDEX by_body ON message (substr(body, 1, 20))")
        connection.close()
        self.run("init", "--vault", self.top + "/vault", "--restore-key", self.top + "/restore.key", "--node-key", self.top + "/node.key")
        with open(self.top + "/imvault.conf", "w") as file:
            file.write(f"[node]\nname = oracle\nstate = {self.top}/state\n[vault]\nurl = {self.top}/vault\nkey = {self.top}/node.key\n"
                       f"[store chat]\ntype = sqlite\npath = {self.database}\n[store files]\ntype = files\npath = {self.tree}\n")

    def run(self, *arguments, allowed=(0,)):
        done = subprocess.run([self.binary, *arguments, "--json"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode not in allowed:
            raise AssertionError(f"imvault {' '.join(arguments)} ended with {done.returncode}: {done.stderr} {done.stdout}")
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
            connection.execute("COMMIT" if self.random.random() < 0.9 else "ROLLBACK")
        connection.close()

    def vacuum(self):
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute(self.random.choice(["VACUUM", "PRAGMA incremental_vacuum", "PRAGMA wal_checkpoint(TRUNCATE)", "DELETE FROM message WHERE id % 2"]))
        connection.close()

    def crash_writer(self):
        """A writer dies with its -wal in place."""
        child = os.fork()
        if child == 0:
            connection = sqlite3.connect(self.database, isolation_level=None)
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("INSERT INTO message (body) VALUES ('before the crash')")
            connection.execute("BEGIN")
            connection.execute("INSERT INTO message (body) VALUES ('never committed')")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)

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
        answer = self.run("-c", self.top + "/imvault.conf", "backup", *(["--full"] if self.random.random() < 0.1 else []))
        self.snapshots[answer["snapshot"]] = before

    def killed_snapshot(self):
        process = subprocess.Popen([self.binary, "-c", self.top + "/imvault.conf", "backup", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True)
        before = (digest_database(self.database), digest_tree(self.tree))
        time.sleep(self.random.random() * 0.1)
        process.kill()
        process.wait()
        listed = self.run("list", "--vault", self.top + "/vault", "--key", self.top + "/restore.key", allowed=(0, 7))
        for entry in listed["snapshots"]:
            self.snapshots.setdefault(entry["snapshot"], before)  # it may have been committed just before

    def lose_state(self):
        shutil.rmtree(self.top + "/state", ignore_errors=True)

    def restore(self):
        if not self.snapshots:
            return
        chosen = self.random.choice(sorted(self.snapshots))
        target = self.top + "/out"
        self.run("restore", "--vault", self.top + "/vault", "--key", self.top + "/restore.key", "--at", chosen.split("/")[-1].split("-")[-1], "--to", target)
        found = (digest_database(target + self.database), digest_tree(target + self.tree))
        assert found == self.snapshots[chosen], f"snapshot {chosen} restored to something else: rows {found[0] == self.snapshots[chosen][0]}, files {found[1] == self.snapshots[chosen][1]}"
        shutil.rmtree(target)

    def verify(self):
        self.run("verify", "--vault", self.top + "/vault", "--key", self.top + "/restore.key", "--read")


CHOICES = [("write_rows", 8), ("write_files", 6), ("snapshot", 8), ("restore", 5), ("vacuum", 2), ("crash_writer", 1),
           ("killed_snapshot", 3), ("lose_state", 1), ("verify", 1)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--imvault", required=True)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    world = World(options.imvault, options.seed)
    step, name = 0, "start"
    try:
        for step in range(options.steps):
            name = world.random.choices([c[0] for c in CHOICES], [c[1] for c in CHOICES])[0]
            getattr(world, name)()
        for _ in range(5):
            world.restore()
        world.verify()
    except Exception as error:
        print(f"oracle: seed {options.seed}, step {step} ({name}): {error}\nleft for inspection: {world.top}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(world.top)
    print(f"oracle: seed {options.seed}, {options.steps} steps, {len(world.snapshots)} snapshots, all equal")


if __name__ == "__main__":
    main()
