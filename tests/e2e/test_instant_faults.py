# SPDX-License-Identifier: Apache-2.0
"""Never silent zeros: whatever becomes of imvault's processes and of the vault while an instant restore
is under way, who works on its folders reads what the snapshot holds, waits, or gets an error. And
what a restore was given up is as it was before. KILLS: how many for each kind of database (10)."""
import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import instant
import instant_rows
from imvault import Failure, check, main
from instant_faults import (BLOCK, MB, PAGE, compare_rows, ended, is_immutable, kill, mounted_on, noise, record_of, run, scene, users_of, wait_for)

KILLS = int(os.environ.get("KILLS", 10))
SEED = int(os.environ.get("SEED", 1))


# --- imvault's processes ---

def protect_rows(s, journal_mode, rows):
    database = s.data / "rows.sqlite"
    instant_rows.make(database, journal_mode, rows)
    s.protect(rows={"type": "sqlite", "path": database, **({"locking": "shared"} if journal_mode == "delete" else {})})
    return database


def kill_some(s, chance):
    found = s.processes()
    names = chance.sample(sorted(found), min(len(found), chance.choice((1, 1, 2))))
    kill(*(found[name] for name in names))
    return names


def check_wait(s, folder, workers):
    """All of imvault is gone; sooner or later those who hold the restore wait."""
    seen = [worker.count() for worker in workers]
    time.sleep(0.3)
    for worker in workers:
        worker.check()
    check(s.status(folder)["state"] == "cut off", s.status(folder))
    return seen


async def one_restore(journal_mode, rows, rate_mb, kills, chance):
    """Returns how many kills it took part in, and how often it had to be resumed."""
    with scene() as s:
        database, done, resumed = protect_rows(s, journal_mode, rows), 0, 0
        folder = database.parent
        s.be_far(rate_mb)
        workers = [s.rows(what, database, rows, chance.randrange(1 << 30)) for what in ("write", "read")]
        s.instant("--exec", "".join(worker.command() for worker in workers)).ready(folder)
        wait_for("the first row", lambda: workers[0].has(1))
        while record_of(folder):
            time.sleep(0.1 + 0.4 * chance.random())
            for worker in workers:
                worker.check()
            if not s.processes() and record_of(folder).get("phase") == "serving":
                check_wait(s, folder, workers)
                s.start("--resume", folder)
                resumed += 1
                wait_for("new processes", s.processes)
            elif done < kills and kill_some(s, chance):
                done += 1
        s.complete(folder)
        seen = [worker.count() for worker in workers]
        for worker, count in zip(workers, seen):
            wait_for("work after the end", lambda: worker.has(count + 10))
            worker.end()
        check(compare_rows(database, rows, workers[0].notes) == 0, "there are commits that nobody made")
        s.tidy(folder)
        print(f"{journal_mode}: {done} times one or two processes killed, {resumed} times resumed, {workers[0].count()} commits, {workers[1].count()} rows read")
        return done


async def survive_kills(journal_mode):
    chance, done = random.Random(SEED), 0
    while done < KILLS:
        done += await one_restore(journal_mode, int(os.environ.get("ROWS", 12000)), 6, min(KILLS - done, 15), chance)


async def kill__any_process_at_any_time_and_a_wal_database_stays_right():
    await survive_kills("wal")


async def kill__any_process_at_any_time_and_a_database_with_a_rollback_journal_stays_right():
    await survive_kills("delete")


def protect_one(s, size=24 * MB, name="large"):
    folder, content = s.data / "files", noise(SEED, size)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    s.protect(files={"type": "files", "path": folder})
    return folder, content


def read_at(path, want, *places):
    with open(path, "rb", buffering=0) as file:
        for at in places:
            file.seek(at)
            got = file.read(PAGE)
            check(got == want[at:at + PAGE], f"{path} at {at:#x}: {'ZEROS' if got == bytes(len(got)) else 'wrong'}")


def start_reader(path, note, count, *more):
    """A shell command: a service that inherits what --exec gives it, waits for its turn and reads blocks one after the other."""
    return (f"setsid sh -c 'until [ -e {note}.go ]; do sleep 0.02; done; for n in {' '.join(str(n) for n in count)}; do "
            f"dd if={path} bs=64k skip=$n count=1 2>>{note}.err >>{note}.out || echo $n >>{note}.failed; echo $n >>{note}; done; sleep 1000' "
            f"</dev/null >/dev/null 2>&1 & echo $! >{note}.pid\n")


async def kill__all_processes_and_a_service_started_by_exec_waits_until_the_restore_is_resumed():
    with scene() as s:
        folder, content = protect_one(s, 16 * MB)
        s.be_far(8)
        note, last = s.folder / "reads", len(content) // BLOCK - 1
        restore = s.instant("--exec", start_reader(folder / "large", note, (last, 5, 200))).ready(folder)
        wait_for("the service", (note.with_suffix(".pid")).exists)
        s.kill_imvault()
        check(instant.holders(record_of(folder)), "nobody holds the restore")
        (s.folder / "reads.go").touch()
        time.sleep(0.7)
        check(not note.exists(), "a read was answered though nobody is there")
        row = s.status(folder)
        check(row["state"] == "cut off", row)
        check(s.backup().code != 0, "a backup of a folder that is cut off")
        restore = s.start("--resume", folder)
        wait_for("the reads", lambda: note.exists() and len(note.read_text().split()) == 3)
        restore.expect(0)
        got = (s.folder / "reads.out").read_bytes()
        check(got == b"".join(content[n * BLOCK:(n + 1) * BLOCK] for n in (last, 5, 200)), f"the service read something else: {got[:8].hex()}")
        kill(-int(note.with_suffix(".pid").read_text()))
        wait_for("its end", lambda: not users_of(folder))
        check((folder / "large").read_bytes() == content, "the file is not what it was")
        s.tidy(folder)


async def kill__all_processes_while_nobody_else_holds_it_and_a_warning_names_the_danger():
    with scene() as s:
        folder, content = protect_one(s, 12 * MB)
        s.be_far(6)
        restore = s.instant()
        restore.ready(folder)
        check("do not kill them" in wait_for("a warning", lambda: restore.err.read_text()), restore.err.read_text())
        user = s.child(sit_in, folder)
        wait_for("the user", lambda: user.said())
        s.kill_imvault()
        answer = s.abort(folder)
        check(answer.code == 9 and "in use" in answer.everything(), answer.everything())
        check(record_of(folder).get("phase") == "serving" and mounted_on(folder), "a refused --abort changed something")
        restore = s.start("--resume", folder)
        answer = restore.expect(0)
        words = " ".join(answer.json["warnings"])
        check("zeros" in words and str(folder) in words, f"no warning of the danger: {answer.everything()}")
        user.end()
        check((folder / "large").read_bytes() == content, "the file is not what it was")
        s.tidy(folder)


def sit_in(folder):
    os.chdir(folder)
    print("here", flush=True)
    time.sleep(1000)


async def kill__the_command_by_a_signal_and_the_restore_goes_on():
    with scene() as s:
        folder, content = protect_one(s, 6 * MB)
        s.be_far(6)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            shutil.rmtree(folder, ignore_errors=True)
            restore = s.instant().ready(folder)
            kill(restore.child.pid, number=number)
            wait_for("the command's end", restore.over)
            check(record_of(folder).get("phase") == "serving" and s.status(folder)["state"] == "at work", f"signal {number} ended it all")
            s.child(read_at, folder / "large", content, 0, len(content) - PAGE, 50 * BLOCK).expect()
            s.complete(folder)
            check((folder / "large").read_bytes() == content, "the file is not what it was")
            s.tidy(folder)


async def kill__all_and_two_who_resume_at_once():
    with scene() as s:
        folder, content = protect_one(s)
        s.be_far(6)
        s.instant().ready(folder)
        for _ in range(2):
            s.kill_imvault()
            both = [s.start("--resume", folder) for _ in range(2)]
            wait_for("one at work", lambda: not record_of(folder) or s.status(folder)["state"] == "at work")
        for restore in both:
            wait_for("its end", restore.over)
        check(sorted(restore.child.returncode for restore in both) in ([0, 0], [0, 9]), [restore.answer().everything()[-500:] for restore in both])
        s.complete(folder)
        check((folder / "large").read_bytes() == content, "the file is not what it was")
        s.tidy(folder)


# --- giving up ---

def tree(folder):
    """Everything below, with what it holds."""
    rows = {}
    for path in sorted(folder.rglob("*")):
        st = path.lstat()
        rows[str(path.relative_to(folder))] = (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return rows


async def give_up(before_abort, code):
    """An old database and its neighbours stand where one is restored with --overwrite."""
    with scene() as s:
        database = protect_rows(s, "wal", 8000)
        folder = database.parent
        (folder / "sub").mkdir(parents=True)
        for name in ("rows.sqlite", "rows.sqlite-wal", "neighbour", "sub/deep"):
            (folder / name).write_bytes(b"old " + name.encode() * 100)
        (folder / "neighbour").chmod(0o641)
        os.utime(folder / "neighbour", ns=(1, 10**18))
        os.chown(folder, 7, 8)
        folder.chmod(0o750)
        before, st = tree(folder), folder.stat()
        s.be_far(4)
        restore = s.instant("--overwrite")
        restore.ready(folder)
        check((folder / "neighbour").read_bytes() == before["neighbour"][4], "a neighbour is not there meanwhile")
        check(folder.stat().st_mode == st.st_mode and folder.stat().st_uid == 7, "the folder has other rights meanwhile")
        user = s.child(sit_in, folder)
        wait_for("the user", lambda: user.said())
        before_abort(s)
        check(s.abort(folder).code == 9, "--abort while somebody uses the folder")
        check(mounted_on(folder) and (folder / "neighbour").exists(), "a refused --abort changed something")
        user.end()
        answer = s.abort(folder)
        check(answer.code == 0, answer.everything())
        check(not mounted_on(folder) and not is_immutable(folder) and not instant.stage_of(folder).exists(), "--abort left something")
        check(tree(folder) == before, f"{sorted(tree(folder))}: not as it was")
        now = folder.stat()
        check((now.st_mode, now.st_uid, now.st_gid) == (st.st_mode, st.st_uid, st.st_gid), f"the folder's rights: {now}")
        if code is not None:
            restore.expect(code)
        check(not s.processes(), f"still running: {s.processes()}")


async def abort__a_living_restore_and_everything_is_as_it_was():
    await give_up(lambda s: None, 1)


async def abort__one_whose_processes_were_killed_and_everything_is_as_it_was():
    await give_up(lambda s: s.kill_imvault(), None)


# --- the vault ---

async def wait_for_the_vault(away):
    with scene() as s:
        folder, content = protect_one(s)
        s.be_far(20, away)
        restore = s.instant().ready(folder)
        s.far.cut()
        places = (0, 100 * BLOCK, len(content) - 2 * BLOCK)
        readers = [s.child(read_at, folder / "large", content, at) for at in places]
        waiting = [reader for reader in readers if not reader.poll()]
        if away == "fail":
            wait_for("that status knows", lambda: s.status(folder)["vault_away_ms"] > 0)
        readers[-1].expect_blocked(2)
        row = s.status(folder)
        check(row["state"] == "at work" and (row["waiting"] or row["vault_away_ms"]), row)
        s.far.mend()
        for reader in readers:
            reader.expect()
        restore.expect(0)
        check(waiting and (folder / "large").read_bytes() == content, "the file is not what it was")
        s.tidy(folder)


async def vault__away_and_readers_wait():
    await wait_for_the_vault("fail")


async def vault__hanging_and_readers_wait():
    await wait_for_the_vault("hang")


def biggest_pack(vault):
    return max((path for path in (vault / "packs").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


async def vault__damaged_in_one_place_is_an_error_there_and_nowhere_else():
    with scene() as s:
        folder, content = protect_one(s, 12 * MB)
        pack = biggest_pack(s.node.vault)
        sound = pack.read_bytes()
        at = len(sound) // 2
        pack.chmod(0o600)
        pack.write_bytes(sound[:at] + bytes(byte ^ 0xff for byte in sound[at:at + 64]) + sound[at + 64:])
        s.be_far(100)
        restore = s.instant()
        restore.ready(folder)
        answer = restore.expect(6)
        check("--resume" in answer.everything() and "--abort" in answer.everything(), answer.everything())
        check({"imvault-keeper", "imvault-keeper2"} <= set(s.processes()), f"the keepers did not stay: {s.processes()}")
        failed = failing_blocks(folder / "large", content)
        check(0 < len(failed) <= 40, f"{len(failed)} blocks cannot be read")
        row = s.status(folder)
        check(row["damaged_bytes"] >= len(failed) * BLOCK, row)
        check(s.backup().code != 0, "a backup of a folder with damage")
        again = s.start("--resume", folder)
        again.expect(6)
        pack.write_bytes(sound)
        s.start("--resume", folder).expect(0)
        s.complete(folder)
        check((folder / "large").read_bytes() == content, "the file is not what it was")
        s.tidy(folder)


def failing_blocks(path, content):
    """Blocks that are an error; the others must be right."""
    failed = []
    with open(path, "rb", buffering=0) as file:
        for at in range(0, len(content), BLOCK):
            try:
                file.seek(at)
                got = file.read(BLOCK)
                check(got == content[at:at + BLOCK], f"block {at // BLOCK} is wrong: {'ZEROS' if not any(got) else got[:8].hex()}")
            except OSError as error:
                check(error.errno == 5, f"block {at // BLOCK}: {error}")
                failed.append(at // BLOCK)
    return failed


# --- who skips holes ---

async def copy__programs_that_skip_holes_copy_zeros_which_is_why_our_backup_refuses():
    with scene() as s:
        folder, content = protect_one(s, 8 * MB)
        s.be_far(20)
        restore = s.instant().ready(folder)
        s.far.cut()
        run("cp", "--sparse=auto", folder / "large", s.folder / "by-cp")
        run("tar", "-S", "-C", folder, "-cf", s.folder / "by-tar.tar", "large")
        for copy in ("by-cp",):
            got = (s.folder / copy).read_bytes()
            check(len(got) == len(content) and got != content, f"{copy}: the hazard is gone; docs and the refusal can go too")
        check((s.folder / "by-tar.tar").stat().st_size < len(content), "tar -S: the hazard is gone")
        answer = s.backup()
        check(answer.code != 0 and "still being restored" in answer.everything(), answer.everything())
        s.far.mend()
        restore.expect(0)
        s.backup().expect(0)
        run("cp", "--sparse=auto", folder / "large", s.folder / "by-cp")
        check((s.folder / "by-cp").read_bytes() == content, "a copy of the complete file")
        s.tidy(folder)


# --- where it cannot be ---

def open_to_nobody(s):
    s.folder.chmod(0o755)
    for path in (s.node.vault, s.node.restore_key, *s.node.vault.rglob("*")):
        os.chown(path, 65534, 65534)
    s.data.mkdir()
    os.chown(s.data, 65534, 65534)


async def fallback__without_root_a_reason_and_an_ordinary_restore():
    with scene() as s:
        folder, content = protect_one(s, 2 * MB)
        open_to_nobody(s)
        s.under = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        answer = s.instant().expect(2)
        check("root" in answer.everything() and not folder.exists(), answer.everything())
        answer = s.instant(mode="auto").expect(0)
        check("root" in answer.everything() and answer.json["mode"] == "ordinary", answer.everything())
        check((folder / "large").read_bytes() == content, "the file is not what it was")


async def fallback__on_tmpfs_whole_files_are_brought_and_it_says_so():
    with scene() as s:
        folder, content = protect_one(s, 4 * MB)
        s.data.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", s.data)
        answer = s.instant().expect(2)
        answer = s.instant(mode="auto").expect(0)
        check(answer.json["mode"] in ("files", "ordinary", "fuse") and answer.json["warnings"], answer.everything())
        print("tmpfs:", answer.json["mode"], answer.json["warnings"])
        check((folder / "large").read_bytes() == content, "the file is not what it was")


async def fallback__a_mount_point_is_restored_in_the_ordinary_way_and_it_says_so():
    with scene() as s:
        s.put_on_disk("ext4", 100)
        s.data = s.disk.root
        (s.data / "large").write_bytes(noise(1, 4 * MB))
        shutil.rmtree(s.data / "lost+found")
        s.node.setup(files={"type": "files", "path": s.data})
        s.backup().expect(0)
        (s.data / "large").unlink()
        s.instant().expect(2)
        answer = s.instant(mode="auto").expect(0)
        check(answer.json["mode"] == "ordinary" and "mount point" in " ".join(answer.json["warnings"]), answer.everything())
        check((s.data / "large").read_bytes() == noise(1, 4 * MB), "the file is not what it was")


# --- how many ---

def protect_many(s, count):
    """Large, but with little in them."""
    folder = s.data / "files"
    folder.mkdir(parents=True)
    for n in range(count):
        with (folder / str(n)).open("wb") as file:
            file.write(noise(n, 100))
            file.truncate(3 * BLOCK)
    s.protect(files={"type": "files", "path": folder})
    return folder


def check_many(folder, count):
    for n in range(count):
        check((folder / str(n)).read_bytes() == noise(n, 100) + bytes(3 * BLOCK - 100), f"{n} is not what it was")


async def many__large_files_and_a_low_soft_limit_of_descriptors():
    with scene() as s:
        folder = protect_many(s, 1100)
        s.under = ["prlimit", "--nofile=1024:20000"]
        s.be_far(1)
        restore = s.instant("--exec", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >" + str(s.folder / "service")).ready(folder)
        wait_for("the service", lambda: (s.folder / "service").exists() and (s.folder / "service").read_text())
        service = int((s.folder / "service").read_text())
        s.far.cut()
        row = s.status(folder)
        check(row["state"] == "at work" and "total_bytes" in row, row)
        s.kill_imvault()
        row = s.status(folder)
        check(row["state"] == "cut off" and "total_bytes" in row, row)
        s.far.mend()
        s.start("--resume", folder).ready(folder)
        s.far.cut()
        limits = Path(f"/proc/{service}/limits").read_text()
        check("1024" in limits.split("Max open files")[1].split("\n")[0].split()[0], f"the service has another limit: {limits}")
        kill(service)
        answer = s.abort(folder)
        check(answer.code == 0 and not instant.stage_of(folder).exists(), answer.everything())
        s.far.mend()
        s.instant().expect(0)
        check_many(folder, 1100)
        s.tidy(folder)


async def many__large_files_and_a_low_hard_limit_of_descriptors():
    """The rest is brought before; readers need descriptors as well."""
    with scene() as s:
        folder = protect_many(s, 1200)
        s.under = ["prlimit", "--nofile=1100:1100"]
        s.be_far(2)
        restore = s.instant().ready(folder)
        s.far.cut()
        lazy = [name for name in os.listdir(folder) if "trusted.imvault.lazy" in os.listxattr(folder / name)]
        check(len(lazy) >= 300, f"only {len(lazy)} files come later")
        readers = [s.child(read_name, folder / name, int(name)) for name in lazy[:300]]
        time.sleep(0.5)
        s.far.mend()
        for reader in readers:
            reader.expect(0)
        restore.expect(0)
        check_many(folder, 1200)
        s.tidy(folder)


def read_name(path, n):
    check(path.read_bytes()[:100] == noise(n, 100), "something else")


# --- asked for in other ways ---

async def resume_from_elsewhere(s, target, *args):
    restore = s.instant(*args)
    restore.ready(target)
    s.kill_imvault()
    here = os.getcwd()
    try:
        os.chdir("/")
        check(s.status(target), "status knows nothing of it")
        s.start("--resume", target).expect(0)
    finally:
        os.chdir(here)
    s.complete(target)


async def resume__one_that_was_to_a_relative_folder():
    with scene() as s:
        folder, content = protect_one(s, 8 * MB)
        s.be_far(8)
        target = Path(f"{s.folder}/there{folder}")
        await resume_from_elsewhere(s, target, "--to", os.path.relpath(s.folder / "there"))
        check((target / "large").read_bytes() == content, "the file is not what it was")
        s.tidy(target)


async def resume__one_of_a_part_of_a_store():
    with scene() as s:
        folder, content = s.data / "files" / "part", noise(SEED, 8 * MB)
        for other in (folder, s.data / "files" / "other"):
            other.mkdir(parents=True)
            (other / "large").write_bytes(content)
        s.protect(files={"type": "files", "path": folder.parent})
        s.be_far(8)
        folder.parent.mkdir(parents=True)
        await resume_from_elsewhere(s, folder, "--path", folder)
        check((folder / "large").read_bytes() == content and not (folder.parent / "other").exists(), "it is not what it was")
        s.tidy(folder)


async def part__of_a_store_that_is_one_file():
    with scene() as s:
        folder, content = protect_one(s, 4 * MB)
        folder.mkdir(parents=True)
        (folder / "neighbour").write_text("as it was")
        answer = s.instant("--path", folder / "large", mode="auto").expect(0)
        check((folder / "large").read_bytes() == content and (folder / "neighbour").read_text() == "as it was", answer.everything())
        s.tidy(folder)


TESTS = [test for name, test in list(globals().items()) if name.split("__")[0] in ("kill", "abort", "vault", "copy", "fallback", "many", "resume", "part") and "__" in name]
main(*TESTS)
