# SPDX-License-Identifier: Apache-2.0
"""Every way into a file whose content is still to come. The vault is cut off when they set out: each
must wait, none may see a hole; when it is back each finds what the snapshot holds, and in the end
the file is what its user made of it. ROUNDS: of those that play at random (1)."""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import instant
from imvault import Failure, check, main
from instant import libc
from instant_faults import BLOCK, MB, PAGE, ended, kill, noise, run, scene, wait_for

SEED, ROUNDS = int(os.environ.get("SEED", 1)), int(os.environ.get("ROUNDS", 1))
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
MS_BIND, MS_REMOUNT, MS_RDONLY = 4096, 32, 1
SIZE = 5 * BLOCK + 1234
AT = 2 * BLOCK + 3 * PAGE  # in the middle of a block


def same(got, want, what):
    if got == want:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    zeros = got[at:at + 64] == bytes(len(got[at:at + 64]))
    raise Failure(f"{what}: {len(got)} bytes, wanted {len(want)}; they differ from {at:#x} on, {'ZEROS' if zeros else got[at:at + 16].hex()}")


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def opened(path, flags=os.O_RDWR):
    return os.open(path, flags | os.O_CLOEXEC)


def whole(path):
    return Path(path).read_bytes()


def put(content, at, piece):
    return content[:at] + piece + content[at + len(piece):]


# --- reading: each returns nothing and leaves the file as it is ---

def read_by_pread(path, want):
    fd = opened(path, os.O_RDONLY)
    same(os.pread(fd, 10, AT + 5), want[AT + 5:AT + 15], "pread")
    same(os.pread(fd, 2 * PAGE, SIZE - 100), want[-100:], "pread at the end")
    check(os.pread(fd, 10, SIZE + 10) == b"", "pread behind the end")


def read_without_waiting(path, want):
    """RWF_NOWAIT, O_NONBLOCK: they wait nevertheless, or say that they would have to."""
    fd, piece = opened(path, os.O_RDONLY | os.O_NONBLOCK), bytearray(PAGE)
    try:
        check(os.preadv(fd, [piece], AT, os.RWF_NOWAIT) == PAGE, "a short read")
        same(bytes(piece), want[AT:AT + PAGE], "preadv2(RWF_NOWAIT)")
    except BlockingIOError:
        pass
    same(os.pread(fd, PAGE, AT), want[AT:AT + PAGE], "pread")


def read_after_readahead(path, want):
    fd = opened(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, SIZE, os.POSIX_FADV_WILLNEED)
    call(libc.readahead(fd, ctypes.c_int64(0), ctypes.c_size_t(SIZE)))
    time.sleep(0.05)
    same(os.pread(fd, SIZE, 0), want, "read after readahead")


def read_by_map(path, want):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 3 * PAGE, mmap.MAP_SHARED, mmap.PROT_READ, offset=AT) as m:
        same(m[:], want[AT:AT + 3 * PAGE], "a map at an offset")


def read_by_private_map(path, want):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        m[AT:AT + 4] = b"mine"
        same(m[:], put(want, AT, b"mine"), "a private map")


def read_directly(path, want):
    fd, piece = opened(path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 2 * PAGE)
    check(os.preadv(fd, [piece], AT) == 2 * PAGE, "a short read")
    same(piece[:], want[AT:AT + 2 * PAGE], "O_DIRECT")


def read_by_sendfile(path, want):
    with open(path, "rb") as file, open(f"{path}.out", "w+b") as out:
        os.unlink(out.name)
        at = 0
        while n := os.sendfile(out.fileno(), file.fileno(), at, SIZE):
            at += n
        same(os.pread(out.fileno(), SIZE + 1, 0), want, "sendfile")


def read_by_splice(path, want):
    got, (r, w) = b"", os.pipe()
    with open(path, "rb") as file:
        while n := os.splice(file.fileno(), w, 4 * PAGE, offset_src=len(got)):
            while n > 0:
                got += (piece := os.read(r, n))
                n -= len(piece)
    same(got, want, "splice")


def read_by_copy_file_range(path, want):
    with open(path, "rb") as file, open(f"{path}.out", "w+b") as out:
        os.unlink(out.name)
        while os.copy_file_range(file.fileno(), out.fileno(), SIZE):
            pass
        same(os.pread(out.fileno(), SIZE + 1, 0), want, "copy_file_range")


def read_by_link_of_a_descriptor(path, want):
    fd = os.open(path, os.O_PATH)
    same(whole(f"/proc/self/fd/{fd}"), want, "a descriptor opened again")


def read_in_another_mount_namespace(path, want):
    check(instant.own_mounts(), "no mount namespace")
    same(whole(path), want, "in another mount namespace")


def read_through_a_read_only_mount(path, want):
    check(instant.own_mounts(), "no mount namespace")
    folder, name = os.path.split(path)
    call(libc.mount(folder.encode(), b"/mnt", None, MS_BIND, None))
    call(libc.mount(None, b"/mnt", None, MS_BIND | MS_REMOUNT | MS_RDONLY, None))
    try:
        os.open(f"/mnt/{name}", os.O_RDWR)
        raise Failure("the mount is not read-only")
    except OSError as error:
        check(error.errno == errno.EROFS, f"{error}")
    same(whole(f"/mnt/{name}"), want, "through a read-only mount")


def read_by_another_name(path, want):
    os.link(path, f"{path}.link")
    os.rename(f"{path}.link", f"{path}.other")
    same(whole(f"{path}.other"), want, "by another name")
    os.unlink(f"{path}.other")


def read_after_unlink(path, want):
    fd = opened(path, os.O_RDONLY)
    os.rename(path, f"{path}.gone")
    os.unlink(f"{path}.gone")
    same(os.pread(fd, SIZE + 1, 0), want, "after unlink")


def read_as_nobody(path, want):
    os.setgid(65534)
    os.setuid(65534)
    same(whole(path), want, "as nobody")


READS = (read_by_pread, read_without_waiting, read_after_readahead, read_by_map, read_by_private_map, read_directly,
         read_by_sendfile, read_by_splice, read_by_copy_file_range, read_by_link_of_a_descriptor,
         read_in_another_mount_namespace, read_through_a_read_only_mount, read_by_another_name, read_as_nobody)


# --- writing: what the file must be then ---

def write_a_little(path, want):
    fd = opened(path, os.O_WRONLY)
    os.pwrite(fd, b"ten bytes!", AT + 100)
    return put(want, AT + 100, b"ten bytes!")


def write_a_page(path, want):
    fd, page = opened(path), noise(1, PAGE)
    os.pwrite(fd, page, AT)
    same(os.pread(fd, BLOCK, AT - PAGE), put(want, AT, page)[AT - PAGE:AT - PAGE + BLOCK], "around a written page")
    return put(want, AT, page)


def write_directly(path, want):
    fd, page = opened(path, os.O_WRONLY | os.O_DIRECT), mmap.mmap(-1, PAGE)
    page[:] = noise(2, PAGE)
    check(os.pwritev(fd, [page], AT) == PAGE, "a short write")
    return put(want, AT, page[:])


def write_by_map(path, want):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 4 * PAGE, mmap.MAP_SHARED, offset=AT) as m:
        m[PAGE + 7:PAGE + 15] = b"by a map"
        m.flush()
    return put(want, AT + PAGE + 7, b"by a map")


def write_by_copy_file_range(path, want):
    piece = noise(3, 3 * PAGE)
    Path(f"{path}.in").write_bytes(piece)
    with open(f"{path}.in", "rb") as source, open(path, "r+b") as file:
        os.unlink(source.name)
        check(os.copy_file_range(source.fileno(), file.fileno(), len(piece), 0, AT) == len(piece), "a short copy")
    return put(want, AT, piece)


def append(path, want):
    fd, piece = opened(path, os.O_WRONLY | os.O_APPEND), noise(4, 70000)
    for at in range(0, len(piece), 1000):
        os.write(fd, piece[at:at + 1000])
    return want + piece


def write_far_behind_the_end(path, want):
    os.pwrite(opened(path), b"far away", SIZE + 9 * PAGE)
    return want + bytes(9 * PAGE) + b"far away"


def punch_a_hole(path, want):
    fd = opened(path)
    call(libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, ctypes.c_int64(AT), ctypes.c_int64(2 * PAGE)))
    return put(want, AT, bytes(2 * PAGE))


def zero_a_range(path, want):
    fd = opened(path)
    call(libc.fallocate(fd, ZERO_RANGE, ctypes.c_int64(AT), ctypes.c_int64(2 * PAGE)))
    return put(want, AT, bytes(2 * PAGE))


def collapse_a_range(path, want):
    fd = opened(path)
    call(libc.fallocate(fd, COLLAPSE_RANGE, ctypes.c_int64(AT), ctypes.c_int64(2 * PAGE)))
    return want[:AT] + want[AT + 2 * PAGE:]


def cut_and_extend(path, want):
    fd = opened(path)
    os.ftruncate(fd, AT + 10)
    os.ftruncate(fd, SIZE)
    same(os.pread(fd, SIZE, AT), bytes(10).join([want[AT:AT + 10], bytes(SIZE - AT - 20)]), "behind a cut")
    return want[:AT + 10] + bytes(SIZE - AT - 10)


def cut_by_name_and_extend(path, want):
    os.truncate(path, AT + PAGE)
    os.truncate(path, SIZE + 5)
    return want[:AT + PAGE] + bytes(SIZE + 5 - AT - PAGE)


def write_anew(path, want):
    fd = opened(path, os.O_WRONLY | os.O_TRUNC)
    os.pwrite(fd, b"new", AT)
    os.ftruncate(fd, SIZE)
    return bytes(AT) + b"new" + bytes(SIZE - AT - 3)


def replace_by_rename(path, want):
    Path(f"{path}.new").write_bytes(b"another file")
    os.rename(f"{path}.new", path)
    return b"another file"


def unlink_and_make_again(path, want):
    os.unlink(path)
    Path(path).write_bytes(noise(5, SIZE))
    return noise(5, SIZE)


WRITES = (write_a_little, write_a_page, write_directly, write_by_map, write_by_copy_file_range, append, write_far_behind_the_end, punch_a_hole,
          zero_a_range, collapse_a_range, cut_and_extend, cut_by_name_and_extend, write_anew, replace_by_rename, unlink_and_make_again)
WAIT_NOT = (write_far_behind_the_end, write_anew, replace_by_rename, unlink_and_make_again)  # they ask for nothing of the old content


def act(way, path, want, result):
    made = way(path, want)
    if made is not None:
        Path(result).write_bytes(made)


def protect_files(s, names, size=SIZE):
    folder = s.data / "files"
    folder.mkdir(parents=True)
    want = {name: noise(i, size) for i, name in enumerate(names)}
    for name, content in want.items():
        (folder / name).write_bytes(content)
    s.protect(files={"type": "files", "path": folder})
    return folder, want


def is_there(path):
    """All of it, by the attribute."""
    return "trusted.imvault.lazy" not in os.listxattr(path)


async def go_all_ways(ways, mode="blocks"):
    with scene() as s:
        folder, want = protect_files(s, [way.__name__ for way in ways])
        s.be_far(20)
        restore = s.instant(mode=mode)
        restore.ready(folder)
        s.far.cut()
        there = {name for name in want if is_there(folder / name)}
        children = {way: s.child(act, way, str(folder / way.__name__), want[way.__name__], s.folder / way.__name__) for way in ways}
        for way, child in children.items():
            if way.__name__ not in there and way not in WAIT_NOT:
                child.expect_blocked(0.05)
        s.far.mend()
        for way, child in children.items():
            child.expect(0)
        restore.expect(0)
        s.complete(folder)
        for way in ways:
            made = s.folder / way.__name__
            if way is not read_after_unlink:
                same(whole(folder / way.__name__), whole(made) if made.exists() else want[way.__name__], f"{way.__name__}: in the end")
        print(len(ways) - len(there), "of", len(ways), "were not there yet")
        s.tidy(folder)


async def ways__no_reader_sees_a_hole():
    await go_all_ways(READS + (read_after_unlink,))


async def ways__no_writer_loses_what_it_wrote_or_finds_something_else_around_it():
    await go_all_ways(WRITES)


async def ways__none_of_them_where_whole_files_are_brought():
    """Only what opens the file: changing its length by name is not announced there."""
    await go_all_ways([way for way in READS + WRITES if way is not cut_by_name_and_extend], mode="files")


# --- at random, while it is being filled ---

class Model:
    """One file and what it must hold."""

    def __init__(self, path, content, rng):
        self.path, self.content, self.rng = path, bytearray(content), rng

    def piece(self, size):
        return self.rng.randbytes(self.rng.randrange(1, size))

    def place(self):
        return self.rng.randrange(len(self.content) + 1)

    def put(self, at, piece):
        if len(self.content) < at:
            self.content.extend(bytes(at - len(self.content)))
        self.content[at:at + len(piece)] = piece

    def rewrite(self):
        fd = opened(self.path, os.O_WRONLY | os.O_TRUNC)
        self.content.clear()
        for _ in range(self.rng.randrange(4)):
            piece = self.piece(150000)
            os.write(fd, piece)
            self.content.extend(piece)
        os.close(fd)

    def resize(self):
        fd = opened(self.path)
        for size in (self.place(), self.place() + self.rng.randrange(200000)):
            os.ftruncate(fd, size)
            del self.content[size:]
            self.content.extend(bytes(size - len(self.content)))
        os.close(fd)

    def write(self):
        fd, at, piece = opened(self.path, os.O_WRONLY), self.place(), self.piece(3 * PAGE)
        os.pwrite(fd, piece, at)
        self.put(at, piece)
        os.close(fd)

    def append(self):
        fd, piece = opened(self.path, os.O_WRONLY | os.O_APPEND), self.piece(3 * PAGE)
        os.write(fd, piece)
        self.content.extend(piece)
        os.close(fd)

    def write_map(self):
        if len(self.content) < 2 * PAGE:
            return
        at = self.rng.randrange(len(self.content) // PAGE - 1) * PAGE
        piece = self.piece(PAGE)
        with open(self.path, "r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE, offset=at) as m:
            m[PAGE // 2:PAGE // 2 + len(piece)] = piece
        self.put(at + PAGE // 2, piece)

    def punch(self):
        fd, at = opened(self.path), self.place()
        n = min(self.rng.randrange(1, 2 * BLOCK), len(self.content) - at)
        if n:
            call(libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, ctypes.c_int64(at), ctypes.c_int64(n)))
            self.put(at, bytes(n))
        os.close(fd)

    def move(self):
        os.rename(self.path, f"{self.path}.moved")
        os.link(f"{self.path}.moved", self.path)
        os.unlink(f"{self.path}.moved")

    def replace(self):
        self.content = bytearray(self.piece(150000))
        Path(f"{self.path}.new").write_bytes(self.content)
        os.rename(f"{self.path}.new", self.path)

    def look(self):
        fd, at = opened(self.path, os.O_RDONLY), self.place()
        got = os.pread(fd, 3 * PAGE, at)
        same(got, bytes(self.content[at:at + 3 * PAGE]), f"{self.path} at {at:#x}")
        os.close(fd)

    def check(self):
        same(whole(self.path), bytes(self.content), self.path)

    STEPS = (rewrite, rewrite, resize, resize, write, write, append, write_map, punch, move, replace, look, look)


def play(folder, names, size, seed, stop, result):
    """Does something to one file after the other until stop exists; result: how much, when all were compared."""
    rng, count = random.Random(seed), 0
    files = [Model(f"{folder}/{name}", noise(int(name), size), rng) for name in names]
    while not stop.exists():
        file, step = rng.choice(files), rng.choice(Model.STEPS)
        step(file)
        if rng.randrange(3) == 0:
            file.look()
        count += 1
    for file in files:
        file.check()
    result.write_text(str(count))


def kill_one_after_the_other(s, restore, chance):
    """Never so many that nobody is left: these players hold nothing."""
    count = 0
    while not restore.over():
        found = s.processes()
        if len(found) == 4:
            kill(found[chance.choice(("imvault-keeper", "imvault-keeper2", "imvault-worker", "imvault-worker"))])
            count += 1
        time.sleep(0.05 + 0.2 * chance.random())
    print(count, "kills")


async def play_rounds(mode, kills=False, rounds=ROUNDS, files=60, size=8 * BLOCK + 77, players=3, seed=SEED):
    with scene() as s:
        names = [str(n) for n in range(files)]
        folder = s.data / "files"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(noise(int(name), size))
        s.protect(files={"type": "files", "path": folder})
        s.be_far(12)
        for n in range(rounds):
            shutil.rmtree(folder, ignore_errors=True)
            stop, steps = s.folder / f"stop-{n}", [s.folder / f"steps-{n}-{i}" for i in range(players)]
            restore = s.instant(mode=mode).ready(folder)
            children = [s.child(play, folder, names[i::players], size, seed * 1000 + n * players + i, stop, steps[i]) for i in range(players)]
            if kills:
                kill_one_after_the_other(s, restore, random.Random(seed + n))
            restore.expect(0)
            time.sleep(0.1)
            stop.touch()
            for child in children:
                child.expect(0)
            s.complete(folder)
            print(sum(int(path.read_text()) for path in steps), "changes and looks")
            s.tidy(folder)


async def ways__files_that_are_changed_at_random_meanwhile_are_what_their_writers_made_of_them():
    await play_rounds("blocks")


async def ways__the_same_while_processes_of_imvault_are_killed():
    await play_rounds("blocks", kills=True)


async def ways__the_same_where_whole_files_are_brought_and_processes_are_killed():
    """Changing a file's length by name is not announced there; the players open first."""
    await play_rounds("files", kills=True)


# --- the rest ---

def run_program(path):
    print(subprocess.run([path, "-c", "echo $((6 * 7))"], capture_output=True, text=True, check=True).stdout)


async def ways__a_program_can_be_run_before_it_is_there():
    with scene() as s:
        folder = s.data / "bin"
        folder.mkdir(parents=True)
        shutil.copy(shutil.which("bash"), folder / "shell")
        s.protect(bin={"type": "files", "path": folder})
        s.be_far(20)
        restore = s.instant().ready(folder)
        s.far.cut()
        child = s.child(run_program, folder / "shell")
        child.expect_blocked()
        s.far.mend()
        check(child.expect(0) == "42\n\n", child.said())
        restore.expect(0)
        s.tidy(folder)


TESTS = [test for name, test in list(globals().items()) if name.startswith("ways__")]
main(*TESTS)
