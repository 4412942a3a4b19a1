# SPDX-License-Identifier: Apache-2.0
"""Killed, or without power, before any system call that changes something: of the beginning of an
instant restore, of the switch, of --resume and of --abort. Afterwards --resume, --abort or the same
restore again brings all of it in order: what was there before, or what the snapshot holds.
EVERY: only each N-th call (5). FIRST: from this call on (1)."""
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import instant
from imvault import Failure, check, main
from instant_faults import MB, ended, is_immutable, kill, mounted_on, noise, record_of, run, scene, wait_for
from prosody import skip

EVERY, FIRST = int(os.environ.get("EVERY", 5)), int(os.environ.get("FIRST", 1))
CALLS = ("chmod,fchmod,fchown,fsetxattr,fremovexattr,unshare,mount,umount2,mkdir,mkdirat,rename,renameat,renameat2,linkat,unlink,unlinkat,rmdir,"
         "ioctl,fsync,fdatasync,syncfs,ftruncate,fanotify_mark,sendmsg,kill,fork,vfork,clone,clone3,exit_group")


def tracer(s, call, *more):
    """Kills before one call: (its name, how many of that name were before). None: only notes them all."""
    if not shutil.which("strace"):
        skip("strace is not installed")
    inject = ["-e", f"inject={call[0]}:signal=KILL:when={call[1]}"] if call else []
    return ["strace", "-o", str(s.folder / "trace"), "-e", f"trace={CALLS}", *inject, *more]


def traced(s):
    """All calls of an untouched run, as tracer() takes them."""
    counts, calls = {}, []
    for line in (s.folder / "trace").read_text().splitlines():
        found = re.match(r"(\d+ +)?(\w+)\(", line)
        if found:
            counts[found.groups()] = counts.get(found.groups(), 0) + 1
            calls.append((found[2], counts[found.groups()]))
    return list(dict.fromkeys(calls))


def was_killed(s):
    return "+++ killed by SIGKILL" in (s.folder / "trace").read_text()


async def before_each_call(what):
    """what(call) returns the calls when it is given none."""
    calls = await what(None)
    for number in range(FIRST - 1, len(calls), EVERY):
        try:
            await what(calls[number])
        except Exception as why:
            raise Failure(f"killed before call {number + 1}, {calls[number]}: {why}") from why
    print(len(calls), "calls")


# --- the switch ---

def two_stores(s):
    folders = [s.data / "one" / "files", s.data / "two" / "files"]
    for n, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "large").write_bytes(noise(n, 2 * MB))
    s.protect(one={"type": "files", "path": folders[0]}, two={"type": "files", "path": folders[1]})
    return folders


def kill_in_the_switch(s, folders, call):
    """Everything but the service dies before that system call of the switch. Returns the service."""
    note = s.folder / "service"
    s.instant("--exec", f"setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >{note}").ready(*folders)
    found = wait_for("the keepers", lambda: len(s.processes()) == 4 and s.processes())
    s.far.cut()
    wait_for("the service", lambda: note.exists() and note.read_text())
    kill(found["imvault"], found["imvault-keeper"], number=signal.SIGSTOP)
    trace = subprocess.Popen([*tracer(s, call, "-f"), "-p", str(found["imvault-keeper2"])], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    trace.stderr.readline()
    s.far.mend()
    wait_for("the second keeper's end, or its child's", lambda: ended(found["imvault-keeper2"]) or was_killed(s))
    s.kill_imvault()
    trace.wait()
    trace.stderr.close()
    return int(note.read_text())


def check_nobody_begins_anew(folder):
    """A service finds its files, or a folder that takes nothing."""
    check(any(folder.iterdir()) or is_immutable(folder), f"{folder} is empty and could be filled after a restart")


async def die_in_the_switch(call, power_too):
    with scene() as s:
        s.put_on_disk("ext4", 100)
        folders = two_stores(s)
        s.be_far(20)
        service = kill_in_the_switch(s, folders, call)
        phases = [record_of(folder).get("phase") for folder in folders]
        if power_too:
            kill(service)
            s.cut_power()
            for folder in folders:
                check_nobody_begins_anew(folder)
        if any(record_of(folder) for folder in folders):
            restore = s.start("--resume", folders[0])
            wait_for("the end of --resume", restore.over)
            check(restore.child.returncode == 0, f"({phases}): {restore.answer().everything()[-400:]}")
        kill(service)
        wait_for("the service's end", lambda: ended(service))
        for n, folder in enumerate(folders):
            s.tidy(folder)
            check((folder / "large").read_bytes() == noise(n, 2 * MB), f"({phases}): {folder} is not what it was")
        s.backup().expect(0)
        return traced(s)


async def switch__killed_before_any_system_call_of_it_and_resumed():
    await before_each_call(lambda call: die_in_the_switch(call, False))


async def switch__power_cut_between_unlocking_the_empty_folder_and_its_exchange():
    await die_in_the_switch(("renameat2", 1), True)


async def switch__power_cut_before_any_system_call_of_it_and_resumed():
    await before_each_call(lambda call: die_in_the_switch(call, True))


# --- the beginning, --resume and --abort ---

def old_and_new(s):
    """A database with neighbours, of which only the database is in the vault; it was lost to an older one."""
    database = s.data / "place" / "rows.sqlite"
    database.parent.mkdir(parents=True)
    db = sqlite3.connect(database)
    db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)")
    db.executemany("INSERT INTO t VALUES (?, ?)", ((n, noise(n, 20000)) for n in range(30)))
    db.commit()
    db.close()
    s.protect(rows={"type": "sqlite", "path": database, "locking": "shared"})
    database.parent.mkdir(parents=True)
    for name in ("rows.sqlite", "rows.sqlite-wal", "neighbour"):
        (database.parent / name).write_text(f"the old {name}")
    database.parent.chmod(0o751)
    sync(database.parent)
    return database


def sync(folder):
    run("sync", "-f", folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def check_old(database, what):
    folder = database.parent
    check(names(folder) == ["neighbour", "rows.sqlite", "rows.sqlite-wal"], f"{what}: {names(folder)}")
    for name in names(folder):
        check((folder / name).read_text() == f"the old {name}", f"{what}: {name} is another")
    check(folder.stat().st_mode & 0o7777 == 0o751 and not is_immutable(folder) and not mounted_on(folder), f"{what}: the folder is not as it was")
    check(not record_of(folder), f"{what}: a record is left")


def check_new(database, what):
    db = sqlite3.connect(database)
    rows = dict(db.execute("SELECT n, body FROM t"))
    db.close()
    check(rows == {n: noise(n, 20000) for n in range(30)}, f"{what}: the database is not what it was")
    check((database.parent / "neighbour").read_text() == "the old neighbour", f"{what}: the neighbour is another")
    aside = [name for name in names(database.parent) if name.startswith("rows.sqlite.before-restore-")]
    check(len(aside) == 1 and (database.parent / aside[0]).read_text() == "the old rows.sqlite", f"{what}: what was moved aside: {names(database.parent)}")


def is_new(database):
    return database.exists() and database.read_bytes()[:6] == b"SQLite"


def settle(s, database, what, give_up):
    """After a kill: whatever it takes to have the old or the new."""
    folder = database.parent
    phase = record_of(folder).get("phase")
    if s.processes():  # it had begun to serve
        s.complete(folder)
    elif not phase and is_new(database):
        pass
    elif give_up:
        answer = s.abort(folder)
        check(answer.code == (0 if phase else 7), f"{what}: {answer.everything()}")
        return check_old(database, what)
    elif phase == "serving":
        s.start("--resume", folder).expect(0)
    else:
        s.instant("--overwrite").expect(0)
    s.tidy(folder)
    check_new(database, what)


async def die_in_the_beginning(call, power_too):
    with scene() as s:
        s.put_on_disk("ext4", 100)
        database = old_and_new(s)
        s.under = tracer(s, call)
        restore = s.instant("--overwrite")
        wait_for("its end", restore.over)
        s.under = []
        if power_too:
            s.cut_power()
        settle(s, database, "the beginning", call and call[1] % 2)
        return traced(s)


async def begin__killed_before_any_system_call_of_it():
    await before_each_call(lambda call: die_in_the_beginning(call, False))


async def begin__power_cut_before_any_system_call_of_it():
    await before_each_call(lambda call: die_in_the_beginning(call, True))


def begin_and_lose_power(s):
    database = old_and_new(s)
    s.be_far(10)
    s.instant("--overwrite").ready(database.parent)
    s.far.cut()
    s.cut_power()
    s.be_near()
    return database


async def die_in_the_resumption(call, power_too):
    with scene() as s:
        s.put_on_disk("ext4", 100)
        database = begin_and_lose_power(s)
        s.under = tracer(s, call)
        restore = s.start("--resume", database.parent)
        wait_for("its end", restore.over)
        s.under = []
        if power_too:
            s.cut_power()
        settle(s, database, "--resume", False)
        return traced(s)


async def resume__killed_before_any_system_call_of_it():
    await before_each_call(lambda call: die_in_the_resumption(call, False))


async def resume__power_cut_before_any_system_call_of_it():
    await before_each_call(lambda call: die_in_the_resumption(call, True))


async def die_in_the_end(call, power_too):
    with scene() as s:
        s.put_on_disk("ext4", 100)
        database = begin_and_lose_power(s)
        s.under = tracer(s, call)
        s.abort(database.parent)
        s.under = []
        if power_too:
            s.cut_power()
        answer = s.abort(database.parent)
        check(answer.code in (0, 7), answer.everything())
        check_old(database, "--abort")
        return traced(s)


async def abort__killed_before_any_system_call_of_it():
    await before_each_call(lambda call: die_in_the_end(call, False))


async def abort__power_cut_before_any_system_call_of_it():
    await before_each_call(lambda call: die_in_the_end(call, True))


TESTS = [test for name, test in list(globals().items()) if name.split("__")[0] in ("switch", "begin", "resume", "abort") and "__" in name]
main(*TESTS)
