# SPDX-License-Identifier: Apache-2.0
"""The moment in which a folder that was shown early becomes an ordinary one: nobody notices, whatever
he has open; and what it then holds is in everything what an ordinary restore makes.
FILES: how many small files (1500)."""
import fcntl
import mmap
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import instant
from imvault import Failure, check, main
from instant_faults import (BLOCK, MB, PAGE, Restore, ended, is_immutable, kill, mounted_on, noise, run, scene, wait_for)

FILES = int(os.environ.get("FILES", 1500))


# --- seen from outside ---

def open_all_the_time(folder, names, stop):
    """By path, as servers do that keep nothing open."""
    rounds = 0
    while not stop.exists():
        for name in names:
            fd = os.open(f"{folder}/{name}", os.O_RDONLY)
            os.close(fd)
        check(set(names) <= set(os.listdir(folder)), "a name is missing")
        os.stat(folder)
        rounds += 1
    print(rounds)


def ask_for_the_working_folder(folder, stop):
    os.chdir(folder)
    me, seen, rounds = os.stat("."), set(), 0
    while not stop.exists():
        path = os.getcwd()
        there = os.stat(path)
        check((there.st_dev, there.st_ino) == (me.st_dev, me.st_ino), f"{path} is another folder")
        os.close(os.open("first", os.O_RDONLY))
        seen.add(path)
        rounds += 1
    there = os.stat(folder)
    check((there.st_dev, there.st_ino) == (me.st_dev, me.st_ino), f"{folder} is another folder now")
    print(rounds, sorted(seen))


def ask_as_nobody(folder, stop):
    os.setgid(65534)
    os.setuid(65534)
    ask_for_the_working_folder(folder, stop)


def ask_in_another_mount_namespace(folder, stop):
    check(instant.own_mounts(), "no mount namespace")
    ask_for_the_working_folder(folder, stop)


def hold_on(folder, content, stop):
    """A descriptor, a map and a lock from before work after."""
    file = open(f"{folder}/second", "r+b", buffering=0)
    fcntl.lockf(file, fcntl.LOCK_EX)
    with mmap.mmap(file.fileno(), 0) as m:
        while not stop.exists():
            check(m[BLOCK:BLOCK + 100] == content[BLOCK:BLOCK + 100], "the map shows something else")
        if os.fork() == 0:
            try:
                fcntl.lockf(open(f"{folder}/second", "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB)
                os._exit(1)
            except OSError:
                os._exit(0)
        check(os.wait()[1] == 0, "the lock is gone")
        m[7:11] = b"mine"
        file.seek(BLOCK)
        file.write(b"yours")
        with open(f"{folder}/second", "rb") as again:
            check(os.fstat(again.fileno()).st_ino == os.fstat(file.fileno()).st_ino, "the name is another file now")
            got = again.read()
        check(got == content[:7] + b"mine" + content[11:BLOCK] + b"yours" + content[BLOCK + 5:], "who opens it anew sees something else")


async def watch_the_switch(*watchers, rounds=3, name="files"):
    with scene() as s:
        folder, contents = s.data / name, {n: noise(i, MB) for i, n in enumerate(("first", "second", "third"))}
        folder.mkdir(parents=True)
        for n, content in contents.items():
            (folder / n).write_bytes(content)
        (folder / "small").write_text("small")
        s.protect(files={"type": "files", "path": folder})
        s.be_far(10)
        for number in range(rounds):
            shutil.rmtree(folder, ignore_errors=True)
            stop = s.folder / f"stop-{number}"
            restore = s.instant().ready(folder)
            children = [s.child(watcher, *(args(folder, contents) if callable(args) else args), stop) for watcher, args in watchers]
            restore.expect(0)
            s.complete(folder)
            time.sleep(0.2)
            stop.touch()
            for child in children:
                print(child.expect(0).strip())
            s.tidy(folder)
            check(sorted(os.listdir(folder)) == ["first", "second", "small", "third"], f"{os.listdir(folder)}")


async def switch__who_opens_by_path_all_the_time_misses_nothing():
    await watch_the_switch(*[(open_all_the_time, lambda folder, c: (folder, [*c, "small"]))] * 2, rounds=5)


async def switch__a_working_folder_keeps_its_name():
    here = lambda folder, c: (folder,)
    await watch_the_switch((ask_for_the_working_folder, here), (ask_as_nobody, here), (ask_in_another_mount_namespace, here))


async def switch__a_working_folder_with_blanks_in_its_name_keeps_it():
    here = lambda folder, c: (folder,)
    await watch_the_switch((ask_for_the_working_folder, here), (ask_in_another_mount_namespace, here), name="my \\ files\t%s", rounds=1)


async def switch__a_descriptor_a_map_and_a_lock_go_through():
    await watch_the_switch((hold_on, lambda folder, c: (folder, c["second"])), rounds=2)


# --- what is there in the end ---

def make_everything(folder):
    """Small files, large ones, and all that can be odd about a file."""
    for n in range(FILES):
        path = folder / f"{n % 100:02}" / f"small-{n}"
        if n < 100:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % n * (n % 50))
        os.utime(path, ns=(n, 1_500_000_000_000_000_000 + n * 1_000_003))
    for n, size in enumerate((BLOCK * 2, BLOCK * 2 + 1, 3 * MB + 17, 5 * MB)):
        path = folder / f"large-{n}"
        path.write_bytes(noise(n, size))
        path.chmod((0o600, 0o4755, 0o2710, 0o444)[n])
        os.chown(path, 1000 + n, 2000 + n)
        path.chmod((0o600, 0o4755, 0o2710, 0o444)[n])
        os.setxattr(path, "user.number", b"%d" % n)
        os.utime(path, ns=(n, -5_000_000_001 + n * 1_700_000_000_123_456_789))
    run("setfacl", "-m", "u:1234:rw,g:4321:r", folder / "large-2")
    os.link(folder / "large-3", folder / "large-3.link")
    os.link(folder / "00" / "small-0", folder / "small.link")
    os.symlink("large-2", folder / "symlink")
    os.symlink("/nowhere/at all", folder / "dangling")
    os.mkfifo(folder / "fifo")
    with (folder / "sparse").open("wb") as file:
        for at in (0, 40 * BLOCK, 100 * BLOCK):
            file.seek(at)
            file.write(noise(at, 3 * PAGE))
        file.truncate(200 * BLOCK)
    (folder / "hole only").touch()
    os.truncate(folder / "hole only", 10 * BLOCK + 5)
    (folder / "empty").mkdir(mode=0o1777)
    os.chmod(folder / "empty", 0o1777)
    for name in ("00", "empty", "sparse", "hole only"):
        os.utime(folder / name, ns=(1, 1_600_000_000_987_654_321))
    os.utime(folder, ns=(1, 1_600_000_000_987_654_322))


def holes(path, size):
    """Where there is data, by whole blocks of ours; the last part of one may be there or not."""
    found, at, size = [], 0, size // BLOCK * BLOCK
    with open(path, "rb") as file:
        while at < size:
            try:
                data = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), data, os.SEEK_HOLE)
            if data < size:
                found.append((data // BLOCK, -(-min(at, size) // BLOCK)))
    return found


def describe(folder):
    """{name: all that can be told of it}."""
    names, found = {}, {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        st, name = path.lstat(), str(path.relative_to(folder))
        row = {"mode": oct(st.st_mode), "owner": (st.st_uid, st.st_gid), "mtime": st.st_mtime_ns, "nlink": st.st_nlink,
               "xattrs": {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)},
               "same as": names.setdefault(st.st_ino, name)}
        if path.is_symlink():
            row["target"] = os.readlink(path)
        elif path.is_file():
            row.update(size=st.st_size, content=hash(path.read_bytes()))
            if st.st_size > 2 * BLOCK:
                row["data"] = holes(path, st.st_size)
        found[name] = row
    return found


def check_same(found, wanted, what):
    check(sorted(found) == sorted(wanted), f"{what}: {sorted(set(found) ^ set(wanted))[:5]}")
    for name, row in wanted.items():
        differing = {key: (found[name].get(key), value) for key, value in row.items() if found[name].get(key) != value}
        check(not differing, f"{what}: {name}: (found, wanted) {differing}")


async def compare_with_an_ordinary_restore(mode, touch):
    with scene() as s:
        folder = s.data / "files"
        make_everything(folder)
        original = describe(folder)
        s.protect(files={"type": "files", "path": folder})
        s.start("--node", "im-test").expect(0)
        ordinary = describe(folder)
        shutil.rmtree(folder)
        s.be_far(60)
        restore = s.instant(mode=mode).ready(folder)
        touch(folder)
        restore.expect(0, seconds=200)
        s.complete(folder)
        found = describe(folder)
        s.tidy(folder)
        check_same(found, ordinary, "not as an ordinary restore makes it")
        for row in original.values():
            row.pop("data", None)  # as far as its holes are kept by an ordinary restore
        check_same(found, original, "not as it was")


async def tree__is_the_same_as_after_an_ordinary_restore():
    await compare_with_an_ordinary_restore("blocks", lambda folder: None)


async def tree__is_the_same_where_whole_files_are_brought():
    await compare_with_an_ordinary_restore("files", lambda folder: None)


def look_without_reading(folder):
    for path in folder.rglob("*"):
        path.lstat()
        os.listxattr(path, follow_symlinks=False)


async def tree__keeps_its_times_when_it_is_only_looked_at():
    await compare_with_an_ordinary_restore("blocks", look_without_reading)


def set_what_is_the_services(folder):
    (folder / "large-3").chmod(0o640)
    os.chown(folder / "large-3", 5, 6)
    os.setxattr(folder / "large-3", "user.mine", b"mine")


async def tree__what_a_service_sets_meanwhile_is_kept():
    with scene() as s:
        folder = s.data / "files"
        folder.mkdir(parents=True)
        (folder / "large-3").write_bytes(noise(3, 2 * MB))
        s.protect(files={"type": "files", "path": folder})
        s.be_far(2)
        restore = s.instant().ready(folder)
        set_what_is_the_services(folder)
        restore.expect(0)
        row = describe(folder)["large-3"]
        check((row["mode"], row["owner"], row["xattrs"]) == ("0o100640", (5, 6), {"user.mine": b"mine"}), row)
        check((folder / "large-3").read_bytes() == noise(3, 2 * MB), "the file is not what it was")
        s.tidy(folder)


TESTS = [test for name, test in list(globals().items()) if name.split("__")[0] in ("switch", "tree") and "__" in name]
if __name__ == "__main__":
    main(*TESTS)
