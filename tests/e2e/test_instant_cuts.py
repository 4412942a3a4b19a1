# SPDX-License-Identifier: Apache-2.0
"""Instant restores on a disk that fails: the power is cut while the service writes, there is no room
left, it is frozen, it turns read-only. CUTS: how many cuts for each file system and kind of database (6)."""
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import instant
import instant_rows
from imvault import Failure, check, main
from instant_faults import BLOCK, MB, PAGE, Restore, compare_rows, is_immutable, mounted_on, noise, record_of, run, scene, wait_for

CUTS = int(os.environ.get("CUTS", 6))
SEED = int(os.environ.get("SEED", 1))
ROWS = int(os.environ.get("ROWS", 6000))


# --- power cuts ---

def check_nothing_is_there(s, folder, database):
    """After the machine is up again a service finds an empty folder that it cannot fill."""
    if record_of(folder).get("phase") != "serving" or any(folder.iterdir()):
        return  # the power went in the switch: see test_instant_moments.py
    check(not mounted_on(folder), f"{folder} is mounted after a restart")
    check(is_immutable(folder), f"{folder} is not immutable after a restart")
    done = subprocess.run(["sqlite3", str(database), "CREATE TABLE t (n)"], capture_output=True, text=True)
    check(done.returncode != 0 and not database.exists(), f"a new database could be made: {done.stderr}")
    check(subprocess.run(["mkdir", str(folder / "x")], capture_output=True).returncode != 0, "a folder could be made there")


def check_refusals(s, folder):
    answer = s.backup().expect(3)
    check("still being restored" in answer.store("rows")["error"] and answer.store("other")["status"] == "ok", answer.everything())
    for args in ([], ["--instant=blocks"], ["--overwrite"], ["--instant=files", "--overwrite"]):
        restore = s.start("--node", "im-test", "--store", "rows", *args)
        words = restore.expect(9).everything()
        check("--resume" in words and "--abort" in words, words)
    check(s.status(folder)["state"] == "cut off", s.status(folder))


def start_database(s, kind, journal_mode, seed):
    s.put_on_disk(kind, 400)
    database = s.data / "rows.sqlite"
    instant_rows.make(database, journal_mode, ROWS)
    other = s.folder / "other"
    other.mkdir()
    locking = {"locking": "shared"} if journal_mode == "delete" else {}
    s.protect(rows={"type": "sqlite", "path": database, **locking}, other={"type": "files", "path": other})
    s.be_far(4)
    return database


async def one_restore(kind, journal_mode, chance, cuts):
    """A restore whose power is cut again and again until it is complete, or was cut often enough. Returns how often it was."""
    with scene() as s:
        database, done = start_database(s, kind, journal_mode, SEED), 0
        folder = database.parent
        while True:
            writer = s.rows("write", database, ROWS, chance.randrange(1 << 30))
            known = writer.count()
            args = ["--exec", writer.command()]
            restore = s.start("--resume", folder, *args) if done else s.instant("--store", "rows", *args)
            wait_for("the first commit", lambda: restore.over() or writer.has(known + 1))
            time.sleep(chance.random())
            writer.check()
            if done == cuts or not record_of(folder):
                break
            keep_acknowledged(writer, s.cut_power())
            done += 1
            if not record_of(folder):
                compare_rows(database, ROWS, writer.notes)
                return done
            check_nothing_is_there(s, folder, database)
            if done == 1:
                check_refusals(s, folder)
        restore.expect(0)
        writer.end()
        s.complete(folder)
        unknown = compare_rows(database, ROWS, writer.notes)
        s.tidy(folder)
        print(f"{kind}, {journal_mode}: {done} cuts, {writer.count()} commits, {unknown} more that nobody was told of")
        return done


async def lose_power(kind, journal_mode):
    chance, cuts = random.Random(SEED), 0
    while cuts < CUTS:
        cuts += await one_restore(kind, journal_mode, chance, min(CUTS - cuts, 3))


def keep_acknowledged(writer, before):
    """What was acknowledged at the moment of the cut is nobody's promise."""
    lines = [" ".join(row) for row in instant_rows.notes(writer.notes) if float(row[2]) < before - 0.01]
    writer.notes.write_text("".join(f"{line}\n" for line in lines))


# --- what a service did with files, and made durable ---

SIZE = 30 * BLOCK + 1234
AT = 17 * BLOCK + 2 * PAGE


def append_lines(path):
    with open(path, "ab", buffering=0) as file:
        for n in range(50):
            file.write(b"line %d\n" % n)
            os.fsync(file.fileno())


def cut_off_and_extend(path):
    with open(path, "r+b") as file:
        os.ftruncate(file.fileno(), AT + 10)
        os.ftruncate(file.fileno(), SIZE)
        os.fsync(file.fileno())


def overwrite(path):
    with open(path, "r+b", buffering=0) as file:
        file.seek(AT + 100)
        file.write(noise(77, 3 * PAGE))
        os.fsync(file.fileno())


def rewrite(path):
    with open(path, "wb") as file:
        file.write(noise(78, BLOCK))
        file.flush()
        os.ftruncate(file.fileno(), SIZE)
        os.fsync(file.fileno())


def punch(path):
    run("fallocate", "--punch-hole", "--offset", AT, "--length", 4 * PAGE, path)
    sync(path)


def rename(path):
    os.rename(path, f"{path}.renamed")
    sync(path.parent)


def link(path):
    os.link(path, f"{path}.second")
    sync(path.parent)


def replace(path):
    (path.parent / "new").write_bytes(b"another")
    sync(path.parent / "new")
    os.rename(path.parent / "new", path)
    sync(path.parent)


def remove(path):
    path.unlink()
    sync(path.parent)


def leave(path):
    pass


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


DEEDS = {  # and what must be there then
    append_lines: lambda old: {"": old + b"".join(b"line %d\n" % n for n in range(50))},
    cut_off_and_extend: lambda old: {"": old[:AT + 10] + bytes(SIZE - AT - 10)},
    overwrite: lambda old: {"": old[:AT + 100] + noise(77, 3 * PAGE) + old[AT + 100 + 3 * PAGE:]},
    rewrite: lambda old: {"": noise(78, BLOCK) + bytes(SIZE - BLOCK)},
    rename: lambda old: {".renamed": old},
    link: lambda old: {"": old, ".second": old},
    replace: lambda old: {"": b"another"},
    remove: lambda old: {},
    leave: lambda old: {"": old},
}


def do_all(folder):
    for deed in (*DEEDS, punch):
        deed(folder / deed.__name__)


def check_punched(path, old):
    """A known limit: what was a hole when the power went counts as not arrived yet, so old bytes may come back; nothing else may."""
    got = path.read_bytes()
    check(got in (old, old[:AT] + bytes(4 * PAGE) + old[AT + 4 * PAGE:]), "a punched file is neither as it was nor as it was made")
    path.unlink()


def check_deeds(folder, old, others):
    wanted = {f"{deed.__name__}{suffix}": content for deed, then in DEEDS.items() for suffix, content in then(old[deed]).items()}
    wanted.update(others)
    check(sorted(wanted) == sorted(os.listdir(folder)), f"{sorted(os.listdir(folder))}, not {sorted(wanted)}")
    wrong = [name for name, content in wanted.items() if (folder / name).read_bytes() != content]
    check(not wrong, f"not as it was made durable: {wrong}")
    for name in ("0", "0.link", "link"):
        check((folder / name).stat().st_nlink == 2, f"{name} has {(folder / name).stat().st_nlink} names")


def rename_complete_ones(folder, others):
    """Just ordinary, but what was done last to them may not be durable yet."""
    for name in ("7", "11"):
        wait_for(f"that {name} is complete", lambda: "trusted.imvault.lazy" not in os.listxattr(folder / name))
        rename(folder / name)
        others[f"{name}.renamed"] = others.pop(name)


async def keep_deeds(kind, mode="blocks"):
    """Small files are brought first: those that something is done with are not complete when the power is cut."""
    with scene() as s:
        s.put_on_disk(kind, 400)
        folder, others = s.data / "files", {**{str(n): noise(100 + n, MB) for n in range(12)}, "last": noise(99, 24 * MB)}
        folder.mkdir(parents=True)
        old = {deed: noise(n, SIZE) for n, deed in enumerate((*DEEDS, punch))}
        for name, content in [(deed.__name__, content) for deed, content in old.items()] + list(others.items()):
            (folder / name).write_bytes(content)
        os.link(folder / "0", folder / "0.link")
        others["0.link"] = others["0"]
        s.protect(files={"type": "files", "path": folder})
        s.be_far(4)
        s.instant(mode=mode).ready(folder)
        s.child(do_all, folder).expect()
        lazy = {Path(path).name for path in instant.marked_files(folder)}
        check(mode == "files" or lazy >= {"append_lines", "cut_off_and_extend", "overwrite", "punch", "rename.renamed", "link", "leave"},
              f"not for this test: only these were incomplete: {sorted(lazy)}")
        rename_complete_ones(folder, others)
        check(record_of(folder).get("phase") == "serving", "not for this test: it is complete")
        s.cut_power()
        s.be_near()
        s.start("--resume", folder).expect(0)
        s.complete(folder)
        check_punched(folder / "punch", old[punch])
        check_deeds(folder, old, others)
        s.tidy(folder)


async def cut__what_was_done_with_files_stays_done_on_ext4():
    await keep_deeds("ext4")


async def cut__what_was_done_with_files_stays_done_on_xfs():
    await keep_deeds("xfs")


async def cut__what_was_done_with_files_stays_done_on_btrfs():
    await keep_deeds("btrfs")


async def cut__what_was_done_with_files_stays_done_where_whole_files_are_brought():
    await keep_deeds("ext4", "files")


# --- disks ---

def protect_one(s, size):
    folder, content = s.data / "files", noise(SEED, size)
    folder.mkdir(parents=True)
    (folder / "large").write_bytes(content)
    s.protect(files={"type": "files", "path": folder})
    return folder, content


def read_block(path, content, at, wanted):
    """wanted: of the two things that may come of it, bytes or an error."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(at)
            got = file.read(BLOCK)
        check(got == content[at:at + BLOCK], f"{at:#x}: {'ZEROS' if not any(got) else 'wrong bytes'}")
        check("bytes" in wanted, f"{at:#x}: there was no error")
    except OSError as error:
        check("error" in wanted, f"{at:#x}: {error}")
        print(error)


def read_all(path, content, wanted=("bytes", "error")):
    for at in range(0, len(content), 30 * BLOCK):
        read_block(path, content, at, wanted)


async def disk__full_is_an_error_and_goes_on_when_there_is_room():
    with scene() as s:
        s.put_on_disk("ext4", 80, "-m", "0")
        folder, content = protect_one(s, 24 * MB)
        s.be_far(40)
        restore = s.instant().ready(folder)
        s.far.cut()
        filler = s.disk.root / "filler"
        run("dd", "if=/dev/zero", f"of={filler}", "bs=64k", allowed=(1,))
        run("dd", "if=/dev/zero", f"of={s.disk.root}/crumbs", "bs=1k", allowed=(0, 1))
        s.far.mend()
        s.child(read_block, folder / "large", content, len(content) - 10 * BLOCK, ("error",)).expect()
        s.child(read_all, folder / "large", content).expect()
        check(not restore.over(), "the command ended though not everything is there")
        filler.unlink()
        answer = restore.expect(0)
        check("full" in " ".join(answer.json["warnings"]), answer.everything())
        s.complete(folder)
        check((folder / "large").read_bytes() == content, "the file is not what it was")
        s.tidy(folder)


async def disk__frozen_for_a_while_and_readers_wait():
    with scene() as s:
        s.put_on_disk("xfs", 320)
        folder, content = protect_one(s, 24 * MB)
        s.be_far(16)
        restore = s.instant().ready(folder)
        run("fsfreeze", "--freeze", s.disk.root)
        reader = s.child(read_block, folder / "large", content, len(content) - 10 * BLOCK, ("bytes",))
        reader.expect_blocked(2)
        run("fsfreeze", "--unfreeze", s.disk.root)
        reader.expect()
        restore.expect(0)
        s.tidy(folder)


async def disk__read_only_after_an_error_and_nobody_sees_a_hole():
    with scene() as s:
        s.put_on_disk("ext4", 200, "-e", "remount-ro")
        folder, content = protect_one(s, 24 * MB)
        s.be_far(8)
        s.instant().ready(folder)
        loop = s.disk.loops().split(":")[0].removeprefix("/dev/")
        trigger = Path(f"/sys/fs/ext4/{loop}/trigger_fs_error")
        trigger.write_text("a test")
        s.child(read_block, folder / "large", content, len(content) - 10 * BLOCK, ("error",)).expect()
        s.child(read_all, folder / "large", content).expect()
        check(record_of(folder).get("phase") == "serving", "the restore passes for complete")
        s.kill_imvault()
        s.disk.unmount()
        run("e2fsck", "-fy", s.disk.image, allowed=(0, 1))
        s.disk.mount()
        s.start("--resume", folder).expect(0)
        s.complete(folder)
        check((folder / "large").read_bytes() == content, "the file is not what it was")
        s.tidy(folder)


async def disk__that_lies_about_its_room_is_never_taken_for_complete():
    """A thin pool runs out: the file system accepts all, and finds out when it writes."""
    with scene() as s:
        s.put_on_disk("ext4", 120, "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4", pool_mb=40)
        folder, content = protect_one(s, 24 * MB)
        run("dd", "if=/dev/zero", f"of={s.disk.pool}/others", "bs=64k", allowed=(1,))
        run("truncate", "-s", "-6M", f"{s.disk.pool}/others")
        s.be_far(20)
        restore = s.instant().ready(folder)
        wait_for("an error", lambda: restore.over() or "durable" in restore.err.read_text() or "cannot fill" in restore.err.read_text())
        (s.disk.pool / "others").unlink()
        wait_for("the end", restore.over)
        complete = restore.child.returncode == 0
        if complete:
            run("sync")
        Path("/proc/sys/vm/drop_caches").write_text("3")
        s.child(read_all, folder / "large", content, ("bytes",) if complete else ("bytes", "error")).expect()
        print("ended with", restore.child.returncode, restore.answer().json.get("warnings"))


async def cut__ext4_with_a_wal_database():
    await lose_power("ext4", "wal")


async def cut__ext4_with_a_rollback_journal():
    await lose_power("ext4", "delete")


async def cut__xfs_with_a_wal_database():
    await lose_power("xfs", "wal")


async def cut__xfs_with_a_rollback_journal():
    await lose_power("xfs", "delete")


async def cut__btrfs_with_a_wal_database():
    await lose_power("btrfs", "wal")


async def cut__btrfs_with_a_rollback_journal():
    await lose_power("btrfs", "delete")


TESTS = [test for name, test in list(globals().items()) if name.split("__")[0] in ("cut", "disk") and "__" in name]
main(*TESTS)
