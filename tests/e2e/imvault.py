# SPDX-License-Identifier: Apache-2.0
"""Runs the imvault binary under test ($IMVAULT) as an operator or cron would.

Node holds what a protected machine has (config, node key, local state) and, apart from it, what
survives the machine (vault, restore key). run() returns exit code, JSON answer and stderr.
"""
import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from prosody import HOST, Server, skip

OK, PART = 0, 3
NODE = "im-test"


class Failure(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failure(message)


def binary(variable):
    path = os.environ.get(variable)
    if not path or not os.access(path, os.X_OK):
        skip(f"${variable} names no program (got {path!r})")
    return path


def make_store(path, megabytes, journal="--delete"):
    """A realistic archive from the project's generator ($IMVAULT_MAKE_STORE)."""
    subprocess.run([binary("IMVAULT_MAKE_STORE"), "--size", str(megabytes), journal, str(path)],
                   check=True, stdout=subprocess.DEVNULL)


class Answer:
    def __init__(self, code, out, err, began, ended):
        self.code, self.err, self.began = code, err, began
        self.ms = round((ended - began) * 1000)
        try:
            self.json = json.loads(out)
        except ValueError:
            self.json = None
        self.out = out

    def expect(self, code):
        check(self.code == code, f"exit {self.code}, not {code}\n{self.out}\n{self.err}")
        check(isinstance(self.json, dict), f"no JSON object on stdout: {self.out!r}")
        check(self.json.get("exit_code") == code, f"JSON says {self.json.get('exit_code')}")
        return self

    def store(self, name):
        for store in self.json["stores"]:
            if store.get("name", store.get("store")) == name:
                return store
        raise Failure(f"stores[] has no {name}: {self.json['stores']}")

    def everything(self):
        return self.out + self.err


class Node:
    def __init__(self, scratch):
        scratch = Path(scratch)
        self.machine = scratch / "machine"      # goes down with the server
        self.vault = scratch / "vault"
        self.restore_key = scratch / "offline.key"
        self.config = self.machine / "imvault.ini"
        self.program = binary("IMVAULT")
        self.machine.mkdir()
        self.env = {"PATH": "/usr/bin:/bin", "HOME": str(self.machine), "LC_ALL": "C.UTF-8",
                    "TZ": "UTC"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    def setup(self, **stores):
        """Creates the vault and the config; stores: NAME = {key: value}."""
        lines = ["[node]", f"name = {NODE}", "tier = im", f"state = {self.machine}/state", "",
                 "[vault]", f"url = {self.vault}", f"key = {self.machine}/node.key"]
        for name, options in stores.items():
            lines += ["", f"[store {name}]"] + [f"{k} = {v}" for k, v in options.items()]
        self.config.write_text("\n".join(lines) + "\n")
        run = subprocess.run([self.program, "init", "--vault", str(self.vault),
                              "--restore-key", str(self.restore_key),
                              "--node-key", f"{self.machine}/node.key"],
                             capture_output=True, text=True, env=self.env,
                             stdin=subprocess.DEVNULL)
        check(run.returncode == 0, f"init: exit {run.returncode}\n{run.stderr}")

    async def start(self, *args, config=True, **options):
        argv = [self.program] + (["-c", str(self.config)] if config else []) + list(args)
        return await asyncio.create_subprocess_exec(
            *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.env, **options)

    async def run(self, *args, config=True):
        began = time.monotonic()
        child = await self.start(*args, "--json", config=config)
        try:
            out, err = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            raise
        return Answer(child.returncode, out.decode(), err.decode(), began, time.monotonic())

    async def backup(self):
        return await self.run("backup")

    async def restore(self, *args):
        """As on a bare machine: nothing but the vault and the restore key."""
        return await self.run("restore", "--vault", str(self.vault), "--key",
                              str(self.restore_key), "--node", NODE, *args, config=False)

    async def back_to_back(self, until):
        """Backups, one after the other without a break, until `until` (monotonic)."""
        answers = []
        while time.monotonic() < until:
            answers.append(await self.backup())
        return answers or [await self.backup()]

    def lose_machine(self):
        shutil.rmtree(self.machine)


def check_copy(database, sender, before, user="offline"):
    """A restored Prosody database is sound and has all that was acknowledged before an instant.
    Opening it rolls a journal back; returns whether there was one."""
    journal = database.with_name(database.name + "-journal").exists()
    db = sqlite3.connect(database)
    check(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", f"{database} is damaged")
    text = "".join(row[0] for row in db.execute(
        "SELECT value FROM prosodyarchive WHERE host = ? AND user = ?", (HOST, user)))
    db.close()
    lost = [n for n in sender.acked_before(before)
            if sender.sent[n][0] == user and f"id='{n}'" not in text]
    check(not lost, f"acknowledged before the snapshot, not in it: {lost}")
    return journal


def stores_of(server, **archive):
    return {"archive": {"type": "sqlite", "path": server.database, **archive},
            "uploads": {"type": "files", "path": server.uploads, "priority": 2},
            "config": {"type": "files", "path": server.config.parent}}


@contextlib.contextmanager
def scratch():
    """A folder of this test's own; $IMVAULT_E2E_KEEP leaves it behind."""
    folder = tempfile.mkdtemp(prefix="imvault-e2e-")
    try:
        yield Path(folder)
    finally:
        if os.environ.get("IMVAULT_E2E_KEEP"):
            print("kept:", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(folder, journal_mode, **options):
    """A started Prosody; stopped again whatever happens."""
    server = Server(folder, journal_mode, **options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def main(*tests):
    """Runs coroutine functions in turn; the exit code is meson's."""
    failed = 0
    wanted = sys.argv[1:] or [t.__name__ for t in tests]
    chosen = [t for t in tests if t.__name__ in wanted]
    assert len(chosen) == len(wanted), f"unknown test in {wanted}"
    for test in chosen:
        print(f"== {test.__name__}", flush=True)
        begin = time.monotonic()
        try:
            asyncio.run(test())
            verdict = "ok"
        except Failure as why:
            print("FAILED:", why)
            verdict, failed = "FAILED", failed + 1
        except Exception:
            traceback.print_exc(file=sys.stdout)
            verdict, failed = "FAILED", failed + 1
        print(f"== {test.__name__}: {verdict}, {time.monotonic() - begin:.1f} s", flush=True)
    sys.exit(1 if failed else 0)
