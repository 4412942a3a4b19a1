# SPDX-License-Identifier: Apache-2.0
"""An ejabberd whose Mnesia is still arriving delivers what was kept for absent users, and keeps
what is sent before and after the switch; another start finds all of it."""
import base64
import contextlib
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import instant
from imvault import OK, Node, check, main
from prosody import HOST, PASSWORD, Listener, Sender, free_port, process_state

CTL = "/usr/sbin/ejabberdctl"

RATE_MB = 8
BULKY = 3            # accounts that nobody looks at before the end, ...
BULK = (40, 60_000)  # ... each with so many messages of so many bytes: some 10 MB
UPLOADS = (48, 1_500_000)  # beside them; smaller files, so they come before Mnesia's large table
ACCOUNTS = ("sender", "early", "late", *(f"bulky{n}" for n in range(BULKY)))

CONFIG = """\
hosts: ["{host}"]
loglevel: info
auth_method: internal
auth_password_format: scram
listen:
  - port: {port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    max_stanza_size: 262144
    starttls: false
acl: {{}}
modules:
  mod_admin_extra: {{}}
  mod_disco: {{}}
  mod_offline:
    db_type: mnesia
    access_max_user_messages: all_of_them
  mod_ping: {{}}
  mod_roster: {{}}
  mod_stream_mgmt: {{}}
shaper_rules:
  all_of_them:
    100000: all
"""

START = """\
#!/bin/sh
# Starts ejabberd as an init script would, and succeeds once it answers.
{ctl} start || exit 1
n=0
until /usr/bin/python3 -c 'import socket; socket.create_connection(("127.0.0.1", {port}), 1)' \\
    2>/dev/null; do
    n=$((n + 1)); [ $n -lt 300 ] || exit 1
    sleep 0.1
done
"""


class Ejabberd:
    """Debian's ejabberd below `folder`, run by its user. The node's own port spares it an epmd."""

    def __init__(self, folder):
        self.root, self.port = Path(folder) / "ejabberd", free_port()
        self.spool, self.logs = self.root / "spool", self.root / "logs"
        self.etc, self.pidfile = self.root / "etc", self.root / "pid"
        self.start_script = Path(folder) / "start-ejabberd"
        for path in (self.root, self.spool, self.logs, self.etc):
            path.mkdir()
            shutil.chown(path, "ejabberd", "ejabberd")
        (self.etc / "ejabberd.yml").write_text(CONFIG.format(host=HOST, port=self.port))
        (self.etc / "ejabberdctl.cfg").write_text("INET_DIST_INTERFACE=127.0.0.1\n")
        (self.etc / "inetrc").write_text("")
        self.ctl = ["setpriv", "--reuid=ejabberd", "--regid=ejabberd", "--init-groups", "env",
                    f"HOME={self.root}", f"ERL_DIST_PORT={free_port()}",
                    f"EJABBERD_PID_PATH={self.pidfile}", CTL, "--config-dir", str(self.etc),
                    "--logs", str(self.logs), "--spool", str(self.spool),
                    "--node", f"imvault{self.port}@localhost"]
        self.start_script.write_text(START.format(ctl=" ".join(self.ctl), port=self.port))
        self.start_script.chmod(0o755)

    def start(self):
        subprocess.run([self.start_script], check=True, stdin=subprocess.DEVNULL)

    def run(self, *args):
        run = subprocess.run([*self.ctl, *args], stdin=subprocess.DEVNULL, capture_output=True,
                             text=True)
        check(run.returncode == 0, f"ejabberdctl {args[0]}: {run.stdout}{run.stderr}")

    def pid(self):
        return int(self.pidfile.read_text())

    async def stop(self):
        pid = self.pid()
        self.run("stop")
        await instant.until("ejabberd's end", lambda: process_state(pid) in (None, "Z"))

    def kill(self):
        with contextlib.suppress(OSError, ValueError):
            if b"ejabberd" in Path(f"/proc/{self.pid()}/cmdline").read_bytes():
                os.kill(self.pid(), signal.SIGKILL)

    def complaints(self):
        text = "".join(p.read_text(errors="replace") for p in self.logs.glob("*.log"))
        return [line for line in text.splitlines()
                if any(word in line for word in ("[error]", "[critical]", "CRASH REPORT"))]


async def send_bulk(server):
    """Much that does not compress, for accounts that are not there."""
    rng, sender = random.Random(1), Sender(server, prefix="bulk")
    await sender.open()
    count, size = BULK
    for n in range(count * BULKY):
        message = sender.make_message(f"bulky{n % BULKY}@{HOST}", mtype="chat",
                                      mbody=base64.b64encode(rng.randbytes(size)).decode())
        message["id"] = f"bulk{n}"
        sender.sent[message["id"]] = (f"bulky{n % BULKY}", 0)
        message.send()
        if n % 20 == 0:
            check(await sender.settle() == 0, "messages not acknowledged")
    check(await sender.settle() == 0, "messages not acknowledged")
    await sender.close()
    return sender


async def check_delivered(server, user, sender):
    """An absent user comes and is given all that was sent to it."""
    listener = Listener(server, user)
    await listener.open()
    wanted = {name for name, (to, _) in sender.sent.items() if to == user}
    await instant.until(f"{len(wanted)} messages for {user}", lambda: listener.got >= wanted)
    await listener.close()


def make_uploads(folder):
    folder.mkdir()
    count, size = UPLOADS
    for n in range(count):
        (folder / f"{n}.bin").write_bytes(random.Random(n).randbytes(size))


def check_uploads(folder):
    count, size = UPLOADS
    for n in range(count):
        check((folder / f"{n}.bin").read_bytes() == random.Random(n).randbytes(size),
              f"upload {n} is not what it was")


async def make_past(server):
    server.start()
    for user in ACCOUNTS:
        server.run("register", user, HOST, PASSWORD)
    bulk = await send_bulk(server)
    before, _ = await instant.send(server, "before", ("early",))
    await server.stop()
    server.start()  # moves what is in Mnesia's log into its tables; else the next start would
    await server.stop()
    return bulk, before


async def go_through(folder, server):
    bulk, before = await make_past(server)
    make_uploads(server.spool / "upload")
    node = Node(folder)
    node.setup(spool={"type": "files", "path": server.spool})
    (await node.backup()).expect(OK)
    shutil.rmtree(server.spool)
    server.pidfile.unlink(missing_ok=True)
    node.lose_machine()

    with instant.far_vault(node, RATE_MB) as vault:
        async with instant.restoring(node, vault, "--exec", str(server.start_script)) as restore:
            await instant.until("ejabberd", lambda: instant.listens(server.port), restore)
            await check_delivered(server, "early", before)
            record = instant.check_served(server.spool, "login and delivery")
            pid = server.pid()
            instant.check_keeps("ejabberd", pid, record)
            during, early = await instant.send(server, "during", ("late",), restore)
            answer = (await restore).expect(OK)
    instant.check_restored(answer, server.spool, record)
    print(f"{early} messages before the end of the restore, {len(during.sent) - early} after it")
    check(server.pid() == pid and process_state(pid) in ("S", "R"), "ejabberd was restarted")
    await server.stop()
    check(not server.complaints(), f"ejabberd complains: {server.complaints()[:3]}")
    await instant.check_ordinary(folder, server.spool)
    check_uploads(server.spool / "upload")

    server.start()
    await check_delivered(server, "late", during)
    for n in range(BULKY):
        await check_delivered(server, f"bulky{n}", bulk)
    await server.stop()
    check(not server.complaints(), f"ejabberd complains: {server.complaints()[:3]}")


async def instant__an_ejabberd_keeps_and_delivers_through_the_switch():
    instant.require()
    instant.require_programs(CTL, "setpriv")
    with instant.scratch() as folder:
        server = Ejabberd(folder)
        try:
            await go_through(folder, server)
        finally:
            server.kill()


main(instant__an_ejabberd_keeps_and_delivers_through_the_switch)
