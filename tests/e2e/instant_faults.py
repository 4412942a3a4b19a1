# SPDX-License-Identifier: Apache-2.0
"""What the fault tests of instant restores share: a node whose vault is far away and can be cut off,
a disk whose power can be cut, the restore under way with its processes, and those who work on what
it fills. Whatever they start or mount is ended, by its id, when a scene ends.
"""
import contextlib
import fcntl
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
import traceback
from pathlib import Path

import instant
import instant_rows
from imvault import NODE, Answer, Failure, Node, binary, check
from prosody import process_state, skip

PAGE, BLOCK, MB = 4096, 64 << 10, 1 << 20
ROLES = ("imvault", "imvault-keeper", "imvault-keeper2", "imvault-worker")
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN = XFS_IOC_GOINGDOWN = BTRFS_IOC_SHUTDOWN


def wait_for(what, wanted, seconds=60):
    deadline = time.monotonic() + seconds
    while not (got := wanted()):
        check(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return got


def ended(pid):
    """With all of its threads: those that wait for a slow vault go last."""
    if process_state(pid) not in (None, "Z"):
        return False
    try:
        return len(os.listdir(f"/proc/{pid}/task")) <= 1
    except OSError:
        return True


def kill(*pids, number=signal.SIGKILL):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def run(*command, allowed=(0,), seconds=60, **options):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=seconds, **options)
    check(done.returncode in allowed, f"{command} ended with {done.returncode}: {done.stdout[-800:]}{done.stderr[-800:]}")
    return done


def noise(seed, size):
    return random.Random(seed).randbytes(size)


def mounted_on(path):
    """How often something is mounted at exactly this place."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(line.split()[4].encode().decode("unicode_escape") == str(path) for line in lines)


def is_immutable(path):
    return "i" in run("lsattr", "-d", path, allowed=(0, 1)).stdout.split(" ")[0]


def compare_rows(database, rows, notes, before=float("inf")):
    """Everything acknowledged (before an instant) is there, everything else as in the snapshot."""
    try:
        return instant_rows.compare(database, rows, instant_rows.acknowledged(notes, before))
    except (AssertionError, sqlite3.Error) as why:
        raise Failure(f"{database}: {why}") from why


class Child:
    """A function in a process of its own. It says what is wrong by raising."""

    def __init__(self, folder, function, *args):
        self.words = Path(tempfile.mkstemp(prefix="child-", dir=folder)[1])
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self.be(function, args)
        self.status = None

    def be(self, function, args):
        status = 1
        try:
            os.setsid()
            with self.words.open("w") as words:
                os.dup2(words.fileno(), 1)
                os.dup2(words.fileno(), 2)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            function(*args)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def poll(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def said(self):
        return self.words.read_text()

    def expect(self, status=0, seconds=60):
        wait_for(f"the end of a process ({self.said()})", self.poll, seconds)
        check(self.status == status, f"a process ended with {self.status}: {self.said()}")
        return self.said()

    def expect_blocked(self, seconds=0.5):
        """It waits, and goes on waiting."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            check(not self.poll(), f"a process that should wait ended with {self.status}: {self.said()}")
            time.sleep(0.02)
        wait_for("that a process waits in the kernel", lambda: process_state(self.pid) in ("D", "S"))

    def end(self):
        if not self.poll():
            kill(self.pid)
            wait_for("a killed process's end", self.poll)


class Rows:
    """Somebody who works on a database of instant_rows; command() starts one as a service does."""

    def __init__(self, folder, what, database, rows, seed):
        self.what, self.database, self.rows, self.seed = what, database, rows, seed
        self.folder = folder
        self.notes, self.words = folder / f"notes-{what}-{database.name}", folder / f"words-{what}-{database.name}"
        self.pidfile = folder / f"pid-{what}-{database.name}"
        self.words.touch()

    def command(self):
        seen = len(instant_rows.notes(self.notes))
        return (f"setsid '{sys.executable}' '{instant_rows.__file__}' {self.what} '{self.database}' '{self.notes}' {self.rows} "
                f"{self.seed} </dev/null >/dev/null 2>>'{self.words}' & echo $! >'{self.pidfile}'\n"
                f"until [ $(cat '{self.notes}' 2>/dev/null | wc -l) -gt {seen} ]; do kill -0 $! || exit 1; sleep 0.02; done\n")

    def pid(self):
        return int(self.pidfile.read_text()) if self.pidfile.exists() and self.pidfile.read_text().strip() else None

    def count(self):
        return len(instant_rows.notes(self.notes))

    def check(self):
        said = self.words.read_text()
        check(not said, f"who does '{self.what}' on {self.database.name} failed: {said}")

    def has(self, count):
        self.check()
        return self.count() >= count

    def end(self):
        kill(self.pid(), number=signal.SIGTERM)
        wait_for(f"the end of '{self.what}'", lambda: ended(self.pid()))
        check(self.words.read_text() == "done\n", f"who does '{self.what}' failed: {self.words.read_text()}")
        self.words.write_text("")

    def kill(self):
        if self.pid():
            kill(self.pid())
            wait_for(f"the end of '{self.what}'", lambda: ended(self.pid()))


class Far:
    """A folder at the end of a wire that can be cut: the vault far away, or a disk that fails."""

    def __init__(self, folder, place, rate_mb=0, latency_us=300, away="fail"):
        self.place = place
        place.mkdir(exist_ok=True)
        self.child = subprocess.Popen(
            [binary("IMVAULT_SLOW_FOLDER"), "--latency-us", str(latency_us), "--rate-mb", str(rate_mb), f"--away={away}", "--writable",
             str(folder), str(place)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        check(self.child.stdout.readline() == b"ready\n", "the slow folder cannot be mounted")

    def cut(self):
        self.child.send_signal(signal.SIGUSR1)

    def mend(self):
        self.child.send_signal(signal.SIGUSR2)

    def end(self):
        if self.child.poll() is None:
            self.mend()
        subprocess.run(["umount", "-l", str(self.place)], capture_output=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(5)
        kill(*([self.child.pid] if self.child.poll() is None else []))
        self.child.wait()
        self.child.stdout.close()


class Disk:
    """A file system in a file, which can lose its power. btrfs cannot be shut down as the others can, so its power cut is a disk that
    fails and comes back. pool_mb: it is promised more room than there is."""

    MKFS = {"ext4": ["-q", "-F"], "xfs": ["-q", "-f"], "btrfs": ["-q", "-f"]}

    def __init__(self, folder, kind, megabytes, *options, pool_mb=0):
        if not shutil.which(f"mkfs.{kind}"):
            skip(f"mkfs.{kind} is not installed")
        self.root, self.kind, self.drive = folder / "disk", kind, None
        self.root.mkdir()
        platter = self.pool = folder / "platter"
        platter.mkdir()
        if pool_mb:
            run("mount", "-t", "tmpfs", "-o", f"size={pool_mb}m", "tmpfs", platter)
        if kind == "btrfs":
            self.drive = Far(platter, folder / "drive", latency_us=0)
        self.image = (folder / "drive" if self.drive else platter) / "disk.img"
        with (platter / "disk.img").open("wb") as file:
            file.truncate(megabytes << 20)
        run(f"mkfs.{kind}", *self.MKFS[kind], *options, platter / "disk.img")
        self.mount()

    def mount(self):
        done = subprocess.run(["mount", "-o", "loop", str(self.image), str(self.root)], capture_output=True, text=True)
        if done.returncode:
            skip(f"a loop device with {self.kind} cannot be mounted here: {done.stderr.strip()}")

    def cut(self):
        """Returns when."""
        now = time.monotonic()
        if self.drive:
            self.drive.cut()
            return now
        fd = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
            return now
        except OSError as error:
            skip(f"this {self.kind} cannot be shut down: {error}")
        finally:
            os.close(fd)

    def loops(self):
        return run("losetup", "-j", self.image).stdout.strip()

    def unmount(self):
        """All of it: whoever used it is gone."""
        for point in sorted(mounts_of(self.root), key=len, reverse=True):
            run("umount", "-l", point, allowed=(0, 32))
        if self.drive:
            time.sleep(0.1)
            self.drive.mend()
        wait_for(f"that nobody uses {self.root} any more", lambda: not self.loops(), 30)

    def thaw(self):
        subprocess.run(["fsfreeze", "--unfreeze", str(self.root)], capture_output=True)

    def end(self):
        for point in sorted(mounts_of(self.root), key=len, reverse=True):
            run("umount", "-l", point, allowed=(0, 32))
        if self.drive:
            self.drive.end()


def mounts_of(root):
    """Where the file system at root, or a part of it, is mounted."""
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    devices = {row[2] for row in rows if row[4] == str(root)}
    return [row[4].encode().decode("unicode_escape") for row in rows if row[2] in devices]


def record_of(folder):
    """What is written down of its restore; {}: nothing, or that it is complete."""
    return {} if (instant.stage_of(folder) / "switched.json").exists() else instant.record_of(folder)


class Restore:
    """An imvault command under way."""

    def __init__(self, scene, *args):
        self.scene = scene
        self.out, self.err = (Path(tempfile.mkstemp(prefix=f"std{n}-", dir=scene.folder)[1]) for n in ("out", "err"))
        self.argv = [*scene.under, scene.node.program, "restore", *(str(a) for a in args), "--json"]
        self.began = time.monotonic()
        with self.out.open("w") as out, self.err.open("w") as err:
            self.child = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=scene.node.env)

    def over(self):
        return self.child.poll() is not None

    def ready(self, *folders, seconds=60):
        """Shown under the final names, and not complete."""
        def is_shown():
            check(not self.over(), f"imvault ended before its folders were shown: {self.child.returncode}\n{self.answer().everything()}")
            return all(mounted_on(f) and record_of(f).get("phase") == "serving" for f in folders)
        wait_for("that the folders are shown", is_shown, seconds)
        return self

    def answer(self):
        return Answer(self.child.returncode, self.out.read_text(), self.err.read_text(), self.began, time.monotonic())

    def expect(self, code, seconds=60):
        wait_for(f"the end of {' '.join(self.argv)}\n{self.err.read_text()}", self.over, seconds)
        return self.answer().expect(code)

    def end(self):
        if not self.over():
            kill(self.child.pid)
        self.child.wait()


class Scene:
    """One machine: stores below data, its vault and what is left of it (config, keys)."""

    def __init__(self, folder):
        self.folder, self.node = folder, Node(folder)
        self.far = self.disk = None
        self.data = folder / "data"
        self.started, self.under = [], []  # under: a command that runs imvault

    def put_on_disk(self, kind, megabytes, *options, pool_mb=0):
        self.disk = Disk(self.folder, kind, megabytes, *options, pool_mb=pool_mb)
        self.data = self.disk.root / "data"

    def protect(self, **stores):
        """Setup and a first backup; then the data is lost."""
        self.node.setup(**stores)
        self.run("backup", "-c", self.node.config).expect(0)
        shutil.rmtree(self.data)

    def be_far(self, rate_mb, away="fail"):
        self.far = Far(self.node.vault, self.folder / "far", rate_mb, away=away)

    def be_near(self):
        self.far.end()
        self.far = None

    def origin(self):
        return ["--vault", str(self.far.place if self.far else self.node.vault), "--key", str(self.node.restore_key)]

    def start(self, *args):
        restore = Restore(self, *self.origin(), *args)
        self.started.append(restore)
        return restore

    def instant(self, *args, mode="blocks"):
        return self.start("--node", NODE, f"--instant={mode}", *args)

    def abort(self, *folders):
        restore = Restore(self, "--abort", *folders)
        self.started.append(restore)
        wait_for("the end of --abort", restore.over)
        return restore.answer()

    def run(self, command, *args, seconds=60):
        began = time.monotonic()
        done = subprocess.run([*self.under, self.node.program, command, *(str(a) for a in args), "--json"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, env=self.node.env, timeout=seconds)
        return Answer(done.returncode, done.stdout, done.stderr, began, time.monotonic())

    def backup(self):
        return self.run("backup", "-c", self.node.config)

    def status(self, folder):
        """What `imvault status` says of one folder's restore; None: nothing."""
        answer = self.run("status", "-c", self.node.config)
        check(answer.json is not None, f"status: {answer.code} {answer.everything()}")
        rows = answer.json.get("restores", [])
        return next((row for row in rows if row["target"] == str(folder)), None)

    def child(self, function, *args):
        child = Child(self.folder, function, *args)
        self.started.append(child)
        return child

    def rows(self, what, database, rows, seed):
        worker = Rows(self.folder, what, database, rows, seed)
        self.started.append(worker)
        return worker

    def processes(self):
        """{role: process id} of this scene's restores."""
        found = {}
        for pid in instant.processes_of(self.folder):
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if not ended(pid):
                    found[name] = pid
        return found

    def kill_imvault(self):
        """All of its processes at once: nothing may be started again by another."""
        pids = instant.processes_of(self.folder)
        kill(*pids, number=signal.SIGSTOP)
        pids = set(pids + instant.processes_of(self.folder))
        kill(*pids)
        wait_for("that all of imvault has ended", lambda: all(ended(pid) for pid in pids))
        for restore in self.started:
            if isinstance(restore, Restore) and restore.child.pid in pids:
                restore.child.wait()
        left = instant.processes_of(self.folder)
        check(not left, f"still there: {left}")

    def complete(self, *folders, seconds=60):
        """Ordinary folders from now on."""
        wait_for(f"that {[str(f) for f in folders]} are complete ({self.processes()})",
                 lambda: not any(record_of(f) for f in folders) and not self.processes(), seconds)
        for folder in folders:
            check(not mounted_on(folder), f"{folder} is a mount point")

    def tidy(self, *folders):
        """After the last user: second names go, and nothing else is left."""
        for folder in folders:
            stage = instant.stage_of(folder)
            if stage.exists():
                answer = self.abort(folder)
                check(answer.code == 0 or is_empty_leftover(stage), f"--abort of a complete restore: {answer.code} {answer.everything()}")
            check(not stage.exists() or is_empty_leftover(stage), f"{stage} is still there: {sorted(map(str, stage.rglob('*')))[:8]}")
            check(not mounted_on(folder), f"{folder} is a mount point")
            check(not is_immutable(folder), f"{folder} is immutable")
            left = instant.marked_files(folder)
            check(not left, f"still marked: {left[:3]}")
            (folder / "probe").touch()
            (folder / "probe").unlink()

    def cut_power(self):
        """Returns when; afterwards nothing runs and the disk is mounted again."""
        at = self.disk.cut()
        self.kill_imvault()
        for worker in self.started:
            if isinstance(worker, Rows):
                worker.kill()
                worker.words.write_text("")
            elif isinstance(worker, Child):
                worker.end()
        self.disk.unmount()
        self.disk.mount()
        return at

    def end(self):
        for wire in (self.far, self.disk and self.disk.drive):
            if wire:
                wire.mend()
        if self.disk:
            self.disk.thaw()
        kill(*instant.processes_of(self.folder), number=signal.SIGSTOP)  # or one of them starts another again
        pids = instant.processes_of(self.folder) + users_of(self.folder)
        kill(*pids)
        for worker in reversed(self.started):
            worker.kill() if isinstance(worker, Rows) else worker.end()
        for pid in pids:
            wait_for(f"the end of process {pid}", lambda: ended(pid))
        if self.far:
            self.far.end()
        if self.disk:
            self.disk.end()
        for point in instant.mounts_below(self.folder):
            subprocess.run(["umount", "-l", point], capture_output=True)
        subprocess.run(["chattr", "-R", "-f", "-i", str(self.folder)], capture_output=True)


def is_empty_leftover(stage):
    """Who was killed while he removed a stage leaves folders with nothing in them, which the next restore uses."""
    return not instant.mounts_below(stage) and not any(path.is_file() and path.name != "marker" for path in stage.rglob("*"))


def users_of(folder):
    """Processes that are in the folder, or have something of it open or mapped."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for link in (entry / "cwd", entry / "exe", *(entry / "fd").iterdir()):
                with contextlib.suppress(OSError):
                    if os.readlink(link).startswith(f"{folder}/"):
                        found.append(int(entry.name))
                        break
    return found


@contextlib.contextmanager
def scene():
    instant.require()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    folder = Path(tempfile.mkdtemp(prefix="imvault-fault-"))
    folder.chmod(0o711)
    s = Scene(folder)
    try:
        yield s
        s.under = []
    except BaseException:
        for restore in s.started:
            if isinstance(restore, Restore):
                print(restore.argv[1:], restore.child.poll(), restore.answer().everything()[-3000:])
        raise
    finally:
        s.end()
        if os.environ.get("IMVAULT_E2E_KEEP"):
            print("kept:", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)

