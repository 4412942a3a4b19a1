# SPDX-License-Identifier: Apache-2.0
"""Instant restores for the end-to-end tests: a vault as slow as one far away, so that a server is
at work long before its data is complete, the restore under way, and how things must be afterwards.

A server is started by --exec and inherits a socket that keeps the event group alive; keeps() looks
for it. After the switch what was mounted stays under the stage folder's name, the alias, as long as
a server uses it; let_go() ends it as an operator would.
"""
import asyncio
import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import imvault
from imvault import NODE, Failure, binary, check
from prosody import ACCOUNTS, Client, Sender, process_state, skip  # skips if there is no slixmpp
from slixmpp.xmlstream.handler import XMLCallback
from slixmpp.xmlstream.matcher import MatchXPath

FAN_CLASS_CONTENT = 4
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 16384, 1 << 18
RATE = 40    # messages a second
RECENT = 40  # messages a client asks for first


libc = ctypes.CDLL(None, use_errno=True)


def own_mounts():
    """This process leaves the others' mount namespace; False: it may not."""
    return libc.unshare(CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0


@functools.cache
def be_apart():
    """No other mount namespace, such as a drill's, has a copy of our mounts and keeps them busy."""
    if not own_mounts():
        skip("a mount namespace of one's own: " + os.strerror(ctypes.get_errno()))


def require():
    """Skips on a machine where no instant restore can be tried."""
    if os.getuid():
        skip("an instant restore needs root")
    group = libc.fanotify_init(FAN_CLASS_CONTENT, os.O_RDONLY)
    if group < 0:
        skip("fanotify permission events: " + os.strerror(ctypes.get_errno()))
    os.close(group)
    if not os.path.exists("/dev/fuse"):
        skip("there is no /dev/fuse for a slow vault")
    binary("IMVAULT_SLOW_FOLDER")
    be_apart()


def require_programs(*paths):
    for path in paths:
        if not shutil.which(path):
            skip(path + " is not installed")


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


async def until(what, wanted, task=None, seconds=60):
    """Waits for wanted(); returns what it returned. task: must not end before."""
    deadline = time.monotonic() + seconds
    while not (got := wanted()):
        if task and task.done():
            answer = task.result()
            raise Failure(f"imvault ended with {answer.code} before: {what}\n{answer.everything()}")
        if time.monotonic() > deadline:
            raise Failure(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)
    return got


# --- what is left on the machine ---

def stage_of(folder):
    folder = Path(folder)
    return folder.parent / f".{folder.name}.imvault-instant"


def record_of(folder):
    """What instant.json says of a folder's restore; {} when there is none."""
    try:
        return json.loads((stage_of(folder) / "instant.json").read_text())
    except (OSError, ValueError):
        return {}


def mounts_below(folder):
    """Mount points below a folder, the inner ones first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted((p for p in points if p.startswith(f"{folder}/")), reverse=True)


def processes_of(folder):
    """imvault's own processes (keepers and worker are copies of the command) that name `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{folder}/".encode() in (entry / "cmdline").read_bytes() \
                    and (entry / "exe").resolve() == Path(binary("IMVAULT")).resolve():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def keeps(pid, record):
    """Whether a process has the socket open that keeps the restore of `record` alive."""
    wanted = f"socket:[{record['stash']}]"
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(fd) == wanted:
                    return True
    except OSError:
        pass
    return False


def holders(record):
    """{process id: name} of all that have it open."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and keeps(entry.name, record):
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def marked_files(folder):
    """Files that still bear an attribute of an instant restore."""
    return [str(path) for path in Path(folder).rglob("*")
            if path.is_file() and not path.is_symlink()
            and any(name.startswith("trusted.imvault.") for name in os.listxattr(path))]


async def let_go(folder):
    """After the last user of an alias has ended: takes it away as the manual says."""
    stage = stage_of(folder)
    await until(f"nobody in {stage}", lambda: not users_of(stage))
    run = subprocess.run([binary("IMVAULT"), "restore", "--abort", str(folder)],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True)
    check(run.returncode == 0, f"restore --abort: exit {run.returncode}\n{run.stdout}{run.stderr}")


async def check_ordinary(scratch, folder):
    """All is over and the server is down: no process, no mount, no attribute, no stage."""
    await until("imvault's end", lambda: not processes_of(scratch))
    if stage_of(folder).exists():
        await let_go(folder)
    left = [p for p in mounts_below(scratch) if p != f"{scratch}/far"]
    check(not left, f"still mounted: {left}")
    check(not stage_of(folder).exists(), f"{stage_of(folder)} is still there")
    check(not marked_files(folder), f"still marked: {marked_files(folder)[:3]}")
    probe = Path(folder) / "imvault-e2e-probe"  # an immutable folder would not take it
    probe.touch()
    probe.unlink()


def users_of(folder):
    """Processes, but not this one, that are in the folder or have something of it open."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for link in (entry / "cwd", *(entry / "fd").iterdir()):
                with contextlib.suppress(OSError):
                    if os.readlink(link).startswith(f"{folder}/"):
                        found.append(int(entry.name))
                        break
    return found


def clean_up(scratch):
    """Whatever a failed test left, among it servers that wait for ever."""
    for pid in processes_of(scratch):  # or one of them starts another again
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    pids = processes_of(scratch) + users_of(scratch)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        while process_state(pid) not in (None, "Z"):
            time.sleep(0.01)
    for point in mounts_below(scratch):
        subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL)
    subprocess.run(["chattr", "-R", "-f", "-i", str(scratch)], stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def scratch():
    with imvault.scratch() as folder:
        folder.chmod(0o711)  # servers run as users of their own
        try:
            yield folder
        finally:
            clean_up(folder)


# --- a restore ---

@contextlib.contextmanager
def far_vault(node, megabytes_per_second, latency_us=500):
    """node's vault behind a narrow wire; yields its path."""
    far = node.vault.parent / "far"
    far.mkdir(exist_ok=True)
    child = subprocess.Popen(
        [binary("IMVAULT_SLOW_FOLDER"), "--writable", "--latency-us", str(latency_us), "--rate-mb",
         str(megabytes_per_second), str(node.vault), str(far)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        check(child.stdout.readline() == b"ready\n", "the slow folder cannot be mounted")
        yield far
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()


@contextlib.asynccontextmanager
async def restoring(node, vault, *args):
    """`imvault restore --instant` as on a bare machine, beside the test: a task with its Answer."""
    task = asyncio.create_task(node.run(
        "restore", "--vault", str(vault), "--key", str(node.restore_key), "--node", NODE,
        "--instant", *args, config=False))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Failure):
            await task


def check_served(folder, what):
    """The folder is being served and not complete; returns its record."""
    record = record_of(folder)
    check(record.get("phase") == "serving", f"{what}: but the restore is not under way: {record}")
    return record


def is_switched(folder):
    """All is ordinary; what may be left is an alias."""
    return not stage_of(folder).exists() or (stage_of(folder) / "switched.json").exists()


def check_restored(answer, folder, record):
    """The service was ready first, and what is left is told."""
    times = {k: answer.json.get(k) for k in ("service_ready_ms", "data_complete_ms")}
    work = answer.json["instant"]
    print("restored by", answer.json["mode"], times, work, *answer.json.get("warnings", []))
    check(answer.json["mode"] == record["kind"], f"by {answer.json['mode']}, not {record['kind']}")
    check(0 <= times["service_ready_ms"] < times["data_complete_ms"],
          "the service was not ready before the data was complete")
    stage = stage_of(folder)
    check(work.get("alias") == (record["staged"] if stage.exists() else None),
          f"the alias is {work.get('alias')}, {stage} {'exists' if stage.exists() else 'is gone'}")
    check(work["worker_starts"] == work["keeper_starts"] == 1, "a process had to start anew")


def check_keeps(server, pid, record):
    """The server's main process has what keeps the restore alive if all of imvault is killed."""
    print(f"{server}: holders of the inherited socket: {sorted(set(holders(record).values()))}")
    check(keeps(pid, record), f"{server} does not keep what it inherited")


# --- what the servers have ---

def check_sqlite(path):
    db = sqlite3.connect(path)
    check(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", f"{path} is damaged")
    db.close()


async def send(server, prefix, to, task=None, seconds=2):
    """Sends from one session until `task`, if any, is done and then for some seconds, all of it
    acknowledged. Returns the sender and how many messages were sent before the task was done."""
    sender = Sender(server, prefix=prefix)
    await sender.open()
    while task and not task.done():
        await sender.traffic(0.5, RATE, to)
    before = len(sender.sent)
    await sender.traffic(seconds, RATE, to)
    check(await sender.settle() == 0, f"{prefix}: messages not acknowledged")
    await sender.close()
    return sender, before


async def newest_archived(server, user):
    """The ids of the newest messages in a user's archive: one MAM page from the end."""
    client = Client(server, user, "newest", sm=False)
    rows = []
    mam, rsm = "urn:xmpp:mam:2", "http://jabber.org/protocol/rsm"
    client.register_handler(XMLCallback(
        "archive row", MatchXPath("{jabber:client}message/{%s}result" % mam),
        lambda xml: rows.append(xml.find(".//{jabber:client}message").get("id"))))
    await client.open()
    try:
        iq = client.make_iq_set()
        page = ET.SubElement(ET.SubElement(iq.xml, "{%s}query" % mam), "{%s}set" % rsm)
        ET.SubElement(page, "{%s}max" % rsm).text = str(RECENT)
        ET.SubElement(page, "{%s}before" % rsm)
        await iq.send(timeout=60)
    finally:
        await client.close()
    return rows


async def newest_of_all(server):
    return {user: await newest_archived(server, user) for user in ACCOUNTS}
