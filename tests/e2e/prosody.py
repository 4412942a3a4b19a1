# SPDX-License-Identifier: Apache-2.0
"""A private, real Prosody and real XMPP clients for the end-to-end tests.

Server starts Debian's prosody on a free loopback port, with every file below one folder, so that
the folder can be wiped as a lost machine would be. Sender and Listener are slixmpp clients;
a message counts as acknowledged only when the server's XEP-0198 counter has passed it.
read_archive() reads an account's archive back over XMPP (XEP-0313, paged), because only what a
client can read counts as kept. Nothing here knows imvault.
"""
import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SKIP = 77
HOST = "localhost"
PASSWORD = "correct-horse"
ACCOUNTS = ("sender", "online", "offline")
PAGE = 250


def skip(reason):
    print("SKIP:", reason)
    sys.exit(SKIP)


try:
    import warnings
    warnings.simplefilter("ignore")
    import slixmpp
    from slixmpp import ClientXMPP
except ImportError:
    skip("python3-slixmpp is not installed")

for tool in ("prosody", "prosodyctl"):
    if not shutil.which(tool):
        skip(tool + " is not installed")

logging.getLogger("slixmpp").setLevel(logging.CRITICAL)

CONFIG = """\
{run_as_root}
pidfile = "{root}/run/prosody.pid"
data_path = "{root}/data"
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
modules_enabled = {{ "roster"; "saslauth"; "disco"; "posix"; "ping"; "mam"; "smacks"; "carbons" }}
-- Without mod_offline the archive is the only copy of what an absent recipient was sent.
modules_disabled = {{ "s2s"; "s2s_auth_certs"; "offline" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_hashed"
storage = "sql"
sql = {{ driver = "SQLite3", database = "prosody.sqlite" }}
default_archive_policy = true
archive_expires_after = "never"
max_archive_query_results = {page}
log = {{ info = "{root}/log/prosody.log" }}
VirtualHost "{host}"
"""

# Before the first host, and after the last: real uploads (XEP-0363).
SHARE_GLOBAL = """\
http_ports = {{ {http_port} }}
http_interfaces = {{ "127.0.0.1" }}
https_ports = {{ }}
"""
SHARE_HOST = "upload." + HOST
SHARE = f'''Component "{SHARE_HOST}" "http_file_share"
'''

# What mod_mam, mod_storage_sql and util.sql log when an insert did not happen.
TROUBLE = re.compile(r"Could not archive|database is locked|disk I/O|malformed|SQLite|"
                     r"Failed while checking quota|Error in SQL|Traceback", re.I)

START = """\
#!/bin/sh
# Starts Prosody as a service manager would, and succeeds once it answers.
mkdir -p '{root}/run' '{root}/log'
setsid prosody -F --config '{root}/etc/prosody.cfg.lua' </dev/null >>'{root}/log/out' 2>&1 &
n=0
until /usr/bin/python3 -c 'import socket; socket.create_connection(("127.0.0.1", {port}), 1)' \\
    2>/dev/null; do
    n=$((n + 1)); [ $n -lt 100 ] || exit 1
    sleep 0.1
done
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def process_state(pid):
    """The letter of /proc/PID/stat ('R', 'S', 'T', ...), or None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


class Server:
    """One Prosody below `root`; `start_script` lies outside, where a bare machine would have it."""

    def __init__(self, scratch, journal_mode, make_database=None, file_share=False):
        """make_database(path): gives the archive a past, before Prosody adds its accounts.
        file_share: clients can upload files (see Client.upload)."""
        self.root = Path(scratch) / "server"
        self.start_script = Path(scratch) / "start-prosody"
        self.port = free_port()
        self.http_port = free_port() if file_share else None
        self.journal_mode = journal_mode
        for name in ("etc", "data" if file_share else "data/http_file_share", "run", "log"):
            (self.root / name).mkdir(parents=True)
        config = CONFIG
        if file_share:
            self.uploads.mkdir(parents=True)
            config = CONFIG.replace("VirtualHost", SHARE_GLOBAL + "VirtualHost") + SHARE
        self.config.write_text(config.format(
            root=self.root, port=self.port, http_port=self.http_port, host=HOST, page=PAGE,
            run_as_root="run_as_root = true" if os.getuid() == 0 else ""))
        self.start_script.write_text(START.format(root=self.root, port=self.port))
        self.start_script.chmod(0o755)
        if make_database:
            make_database(self.database)
        for user in ACCOUNTS:
            self.register(user)
        self.set_journal_mode()

    config = property(lambda self: self.root / "etc" / "prosody.cfg.lua")
    database = property(lambda self: self.root / "data" / "prosody.sqlite")
    uploads = property(lambda self: self.root / "data" / (
        SHARE_HOST.replace(".", "%2e") if self.http_port else "") / "http_file_share")
    pidfile = property(lambda self: self.root / "run" / "prosody.pid")
    log = property(lambda self: self.root / "log" / "prosody.log")

    def register(self, user):
        run = subprocess.run(["prosodyctl", "--config", str(self.config), "register", user, HOST,
                              PASSWORD], capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError("prosodyctl register failed: " + run.stdout + run.stderr)

    def set_journal_mode(self):
        """As the documentation tells operators to: while the server is stopped. It lasts."""
        db = sqlite3.connect(self.database)
        got = db.execute(f"PRAGMA journal_mode={self.journal_mode}").fetchone()[0]
        db.close()
        if got != self.journal_mode:
            raise RuntimeError(f"journal mode is {got}, not {self.journal_mode}")

    def start(self):
        subprocess.run([str(self.start_script)], check=True)

    def pid(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                return int(self.pidfile.read_text())
            except (OSError, ValueError):
                time.sleep(0.02)
        raise RuntimeError(f"{self.pidfile} never came")

    def state(self):
        return process_state(self.pid())

    def kill(self, how=signal.SIGKILL):
        """SIGKILL as in a disaster, or SIGTERM for an orderly end; returns when it is gone."""
        pid = self.pid()
        os.kill(pid, how)
        while process_state(pid) not in (None, "Z"):
            time.sleep(0.01)

    def stop(self):
        """Ends the server whatever state it is in: for the end of a test."""
        try:
            pid = int(self.pidfile.read_text())
            if b"prosody" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError):
            pass

    def trouble(self):
        """Log lines that say that a message was not archived."""
        if not self.log.exists():
            return []
        return [line for line in self.log.read_text(errors="replace").splitlines()
                if TROUBLE.search(line)]

    def add_uploads(self, count, seed=1):
        """Files as http_file_share keeps them; random, so that equality means something."""
        import random
        rng = random.Random(seed)
        for n in range(count):
            path = self.uploads / f"{rng.getrandbits(64):016x}.bin"
            path.write_bytes(rng.randbytes(rng.choice((0, 1, 4096, 70_000, 1_300_000))))


class Client(ClientXMPP):
    def __init__(self, server, user, resource, sm=True):
        super().__init__(f"{user}@{HOST}/{resource}", PASSWORD, plugin_config={
            "feature_mechanisms": {"unencrypted_scram": True, "unencrypted_plain": True},
            "xep_0198": {"allow_resume": False, "window": 10}})
        self.prosody_port = server.port
        if sm:
            self.register_plugin("xep_0198")
        self.register_plugin("xep_0199")
        self.add_event_handler("session_start", self.on_session)

    async def open(self):
        self.connect(("127.0.0.1", self.prosody_port), disable_starttls=True)
        await self.wait_until("session_start", 20)

    async def on_session(self, _event):
        pass

    async def close(self):
        try:
            await asyncio.wait_for(self.disconnect(wait=1.0), 5)
        except (asyncio.TimeoutError, asyncio.CancelledError):
            self.abort()
        if self._run_out_filters:
            self._run_out_filters.cancel()

    async def upload(self, name, data):
        """Asks for a slot, puts the file there, and returns the link to send in a message."""
        from xml.etree import ElementTree as ET
        ns = "{urn:xmpp:http:upload:0}"
        iq = self.make_iq_get()
        iq["to"] = SHARE_HOST
        ET.SubElement(iq.xml, ns + "request", {
            "filename": name, "size": str(len(data)), "content-type": "application/octet-stream"})
        slot = (await iq.send(timeout=30)).xml.find(ns + "slot")
        put = slot.find(ns + "put")
        link = put.get("url")
        request = urllib.request.Request(
            link.replace(SHARE_HOST, "127.0.0.1", 1), data=data, method="PUT", headers={
                "Host": link.split("/")[2], "Content-Type": "application/octet-stream",
                "Authorization": put.find(ns + "header").text})
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: urllib.request.urlopen(request, timeout=30).close())
        return slot.find(ns + "get").get("url")

    async def answers(self, timeout=30):
        """Whether the server replies to a ping in time."""
        try:
            await self["xep_0199"].ping(HOST, timeout=timeout)
            return True
        except (slixmpp.exceptions.IqError, slixmpp.exceptions.IqTimeout, asyncio.TimeoutError):
            return False


class Listener(Client):
    """A recipient that is online; remembers what it was handed."""

    def __init__(self, server, user):
        super().__init__(server, user, "desk")
        self.got = set()
        self.add_event_handler("message", lambda m: self.got.add(m["id"]))

    async def on_session(self, _event):
        self.send_presence()


class Sender(Client):
    """Sends at a steady rate. sent[id] = (recipient, instant); acked[id] = instant (monotonic)."""

    def __init__(self, server, user="sender", prefix="m"):
        super().__init__(server, user, "phone")
        self.prefix = prefix
        self.sent = {}
        self.acked = {}
        self.add_event_handler("stanza_acked", self.on_acked)

    async def on_session(self, _event):
        self.send_presence()

    def on_acked(self, stanza):
        if stanza.name == "message":
            self.acked[stanza["id"]] = time.monotonic()

    def send_one(self, to):
        name = f"{self.prefix}{len(self.sent):06d}"
        message = self.make_message(f"{to}@{HOST}", mtype="chat",
                                    mbody=f"{name} 你好, the train leaves at nine " + "x" * 60)
        message["id"] = name
        self.sent[name] = (to, time.monotonic())
        message.send()

    async def traffic(self, seconds, rate, to=("online", "offline")):
        """Sends for `seconds` and returns the rate reached. A late tick is made up for, but a
        server that is a whole second behind is waited for: a slow machine slows the test down
        instead of burying the server."""
        begin = time.monotonic()
        count = 0
        while (now := time.monotonic()) < begin + seconds:
            while count < (now - begin) * rate and len(self.sent) - len(self.acked) < rate:
                self.send_one(to[count % len(to)])
                count += 1
            await asyncio.sleep(0.01)
        return count / (time.monotonic() - begin)

    async def settle(self, timeout=30):
        """Waits for acknowledgements until none has come for `timeout`; how many are missing."""
        acked, deadline = -1, 0
        while len(self.acked) < len(self.sent):
            if len(self.acked) > acked:
                acked, deadline = len(self.acked), time.monotonic() + timeout
            if time.monotonic() > deadline:
                break
            self["xep_0198"].request_ack()
            await asyncio.sleep(0.1)
        return len(self.sent) - len(self.acked)

    def acked_before(self, instant):
        return {name for name, when in self.acked.items() if when < instant}


async def read_archive(server, user):
    """Every message id in a user's archive, oldest first, by paging MAM over XMPP.

    slixmpp's own MAM iterator builds an object tree for each result; a raw stanza handler is used
    instead, so that thousands of rows take seconds."""
    client = Client(server, user, "reader", sm=False)
    rows = []
    last_page = asyncio.Queue()
    from xml.etree import ElementTree as ET
    from slixmpp.xmlstream.handler import XMLCallback
    from slixmpp.xmlstream.matcher import MatchXPath
    mam, rsm = "urn:xmpp:mam:2", "http://jabber.org/protocol/rsm"
    client.register_handler(XMLCallback(
        "archive row", MatchXPath("{jabber:client}message/{%s}result" % mam),
        lambda xml: rows.append(xml.find(".//{jabber:client}message").get("id"))))
    await client.open()
    after = None
    try:
        while True:
            iq = client.make_iq_set()
            query = ET.SubElement(iq.xml, "{%s}query" % mam)
            page = ET.SubElement(query, "{%s}set" % rsm)
            ET.SubElement(page, "{%s}max" % rsm).text = str(PAGE)
            if after:
                ET.SubElement(page, "{%s}after" % rsm).text = after
            reply = await iq.send(timeout=30)
            fin = reply.xml.find("{%s}fin" % mam)
            if fin.get("complete") == "true":
                return rows
            after = fin.find("{%s}set/{%s}last" % (rsm, rsm)).text
    finally:
        await client.close()


async def missing_from_archives(server, sent, names):
    """Which of `names` are not where mod_mam puts them: {account: [id, ...]}, {} when all are."""
    missing = {}
    for user in ACCOUNTS:
        want = {n for n in names if user == "sender" or sent[n][0] == user}
        lost = want - set(await read_archive(server, user))
        if lost:
            missing[user] = sorted(lost)
    return missing
