# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL whose data directory is still arriving serves transactions, without a failed one
until after the switch; so does a Prosody that keeps its archive there."""
import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path

import instant
from imvault import OK, Node, check, main
from prosody import Server, free_port, missing_from_archives, process_state

BIN = Path("/usr/lib/postgresql/15/bin")
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]

SCALE = 20          # some 300 MB, which compress to a tenth
BENCH_RATE_MB = 8
BALLAST_BYTES = 40_000_000  # does not compress, and comes before the large tables
EARLY, LATE = 5, 500  # transactions that must be seen before and after the switch

MESSAGES = 120_000  # others', so that the archive has some 100 MB
ARCHIVE_RATE_MB = 8
TO = ("online", "offline")

SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
shared_buffers = 16MB
max_wal_size = 64MB
"""

FILL = """\
INSERT INTO prosodyarchive (host, "user", store, key, "when", "with", type, value)
SELECT 'localhost', 'other' || n % 500, 'archive', md5(n::text), 1700000000 + n, 'peer@localhost',
       'xml', (SELECT string_agg(md5((n * 20 + i)::text), '') FROM generate_series(1, 20) i)
FROM generate_series(1, {count}) n
"""


def require():
    instant.require()
    instant.require_programs(BIN / "pg_ctl", BIN / "pgbench", BIN / "pg_amcheck", "setpriv")


class Cluster:
    """A PostgreSQL of its own below `folder`, run by the user postgres."""

    def __init__(self, folder):
        self.root, self.port = Path(folder) / "postgres", free_port()
        self.data, self.log = self.root / "data", self.root / "log"
        self.root.mkdir()
        shutil.chown(self.root, "postgres", "postgres")
        self.run("initdb", "-D", self.data, "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(SETTINGS.format(port=self.port))

    def argv(self, program, *args):
        return [*AS_POSTGRES, str(BIN / program), *map(str, args)]

    def connection(self):
        return "-h", "127.0.0.1", "-p", str(self.port)

    def run(self, program, *args):
        run = subprocess.run(self.argv(program, *args), cwd=self.root, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True)
        check(run.returncode == 0, f"{program}: exit {run.returncode}\n{run.stdout}{run.stderr}")
        return run.stdout

    def start_argv(self, *options):
        return self.argv("pg_ctl", "-D", self.data, "-l", self.log, "-w", *options, "start")

    def start(self, *options):
        # not captured: the server would keep the pipe
        subprocess.run(self.start_argv(*options), cwd=self.root, check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")

    def is_ready(self):
        """Asked of its pid file: a connection now would be a complaint in the log."""
        try:
            return (self.data / "postmaster.pid").read_text().split()[-1] == "ready"
        except (OSError, IndexError):
            return False

    def pid(self):
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def ask(self, query, database="postgres"):
        return self.run("psql", *self.connection(), "-XAtq", "-v", "ON_ERROR_STOP=1",
                        "-d", database, "-c", query).strip()

    def complaints(self):
        """What the server logged as wrong, after a start whose log is empty."""
        return [line for line in self.log.read_text(errors="replace").splitlines()
                if re.search(r" (ERROR|FATAL|PANIC|WARNING): ", line)]

    def check_sound(self):
        self.run("pg_amcheck", *self.connection(), "--install-missing", "--heapallindexed", "--all")


@contextlib.contextmanager
def cluster_in(folder):
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        with contextlib.suppress(OSError, ValueError, IndexError):
            if b"postgres" in Path(f"/proc/{cluster.pid()}/cmdline").read_bytes():
                os.kill(cluster.pid(), signal.SIGQUIT)


def lose(cluster):
    shutil.rmtree(cluster.data)
    cluster.log.unlink()


def command_of(argv):
    return " ".join(f"'{word}'" for word in argv)


class Bench:
    """pgbench's own mix of transactions, until told to end."""

    def __init__(self, cluster):
        self.cluster = cluster

    async def __aenter__(self):
        self.child = await asyncio.create_subprocess_exec(
            *self.cluster.argv("pgbench", *self.cluster.connection(), "-n", "-c", "2", "-T", "3600",
                               "postgres"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return self

    async def __aexit__(self, *_):
        if self.child.returncode is None:
            self.child.kill()
            await self.child.wait()

    def done(self):
        """Transactions that have been committed so far."""
        check(self.child.returncode is None, "pgbench has ended")
        return int(self.cluster.ask("SELECT count(*) FROM pgbench_history"))

    async def end(self):
        """As if its time were over (it sets an alarm); returns how many transactions it counted."""
        self.child.send_signal(signal.SIGALRM)
        said = (await asyncio.wait_for(self.child.communicate(), 60))[0].decode()
        check(self.child.returncode == 0, f"pgbench: exit {self.child.returncode}\n{said}")
        check("number of failed transactions: 0 " in said and "rror" not in said, said)
        return int(re.search(r"transactions actually processed: (\d+)", said).group(1))


def check_balances(cluster, transactions):
    sums = [cluster.ask(f"SELECT sum({column}) FROM pgbench_{table}") for table, column in (
        ("accounts", "abalance"), ("branches", "bbalance"), ("tellers", "tbalance"),
        ("history", "delta"))]
    check(len(set(sums)) == 1, f"accounts, branches, tellers and history: {sums}")
    count = int(cluster.ask("SELECT count(*) FROM pgbench_history"))
    check(count == transactions, f"{count} rows of {transactions} transactions")
    check(cluster.ask("SELECT count(*) FROM pgbench_accounts") == str(SCALE * 100_000), "accounts")


async def instant__pgbench_goes_through_the_switch_without_a_failed_transaction():
    require()
    with instant.scratch() as folder, cluster_in(folder) as cluster:
        cluster.start("-o", "-c fsync=off")
        cluster.run("pgbench", *cluster.connection(), "-i", "-q", "-s", SCALE, "postgres")
        cluster.stop()
        ballast = random.Random(1).randbytes(BALLAST_BYTES)
        (cluster.data / "ballast").write_bytes(ballast)
        node = Node(folder)
        node.setup(cluster={"type": "files", "path": cluster.data})
        (await node.backup()).expect(OK)
        lose(cluster)
        node.lose_machine()

        with instant.far_vault(node, BENCH_RATE_MB) as vault:
            start = command_of(cluster.start_argv())
            async with instant.restoring(node, vault, "--exec", start) as restore:
                await instant.until("postgres", cluster.is_ready, restore)
                async with Bench(cluster) as bench:
                    pid = cluster.pid()
                    await instant.until("transactions", lambda: bench.done() > EARLY, restore)
                    record = instant.check_served(cluster.data, f"{EARLY} transactions")
                    instant.check_keeps("postgres", pid, record)
                    answer = (await restore).expect(OK)
                    early = bench.done()
                    await instant.until("more", lambda: bench.done() > early + LATE)
                    transactions = await bench.end()
        instant.check_restored(answer, cluster.data, record)
        print(f"{early} transactions before the end of the restore, {transactions - early} after")
        check(cluster.pid() == pid and process_state(pid) in ("S", "R"), "postgres was restarted")
        cluster.check_sound()
        check_balances(cluster, transactions)
        check((cluster.data / "ballast").read_bytes() == ballast, "the ballast differs")
        check(not cluster.complaints(), f"postgres complains: {cluster.complaints()[:3]}")
        cluster.stop()
        await instant.check_ordinary(folder, cluster.data)


class ArchiveInPostgres(Server):
    """A Prosody that keeps everything in a database of `cluster`, which runs."""

    def __init__(self, folder, cluster):
        self.cluster = cluster
        cluster.ask("CREATE DATABASE prosody")
        super().__init__(folder, None, make_database=lambda _path: self.use_cluster())

    def use_cluster(self):
        wanted = (f'sql = {{ driver = "PostgreSQL", database = "prosody", host = "127.0.0.1", '
                  f'port = {self.cluster.port}, username = "postgres", password = "" }}')
        self.config.write_text(re.sub(r"^sql = .*$", wanted, self.config.read_text(), flags=re.M))

    def set_journal_mode(self):
        """There is none."""


async def instant__a_prosody_archives_in_postgres_through_the_switch():
    require()
    with instant.scratch() as folder, cluster_in(folder) as cluster:
        cluster.start("-o", "-c fsync=off")
        server = ArchiveInPostgres(folder, cluster)
        cluster.ask(FILL.format(count=MESSAGES), "prosody")
        try:
            await go_through(folder, cluster, server)
        finally:
            server.stop()


async def go_through(folder, cluster, server):
    server.start()
    before, _ = await instant.send(server, "before", TO)
    wanted = await instant.newest_of_all(server)
    server.kill()
    cluster.stop()
    node = Node(folder)
    node.setup(cluster={"type": "files", "path": cluster.data})
    (await node.backup()).expect(OK)
    lose(cluster)
    node.lose_machine()

    with instant.far_vault(node, ARCHIVE_RATE_MB) as vault:
        server.pidfile.unlink(missing_ok=True)
        start = command_of(cluster.start_argv()) + f" && '{server.start_script}'"
        async with instant.restoring(node, vault, "--exec", start) as restore:
            await instant.until("postgres", cluster.is_ready, restore)
            await instant.until("prosody", server.pidfile.exists, restore)
            await instant.until("an open port", lambda: instant.listens(server.port), restore)
            check(await instant.newest_of_all(server) == wanted, "the newest messages differ")
            record = instant.check_served(cluster.data, "login and archive query")
            instant.check_keeps("postgres", cluster.pid(), record)
            instant.check_keeps("prosody", server.pid(), record)
            pids = cluster.pid(), server.pid()
            during, early = await instant.send(server, "during", TO, restore)
            answer = (await restore).expect(OK)
    instant.check_restored(answer, cluster.data, record)
    print(f"{early} messages before the end of the restore, {len(during.sent) - early} after it")
    check((cluster.pid(), server.pid()) == pids, "a server was restarted")
    for sender in (before, during):
        missing = await missing_from_archives(server, sender.sent, sender.acked)
        check(not missing, f"not in the archive: {missing}")
    check(not server.trouble(), f"prosody complains: {server.trouble()[:3]}")
    server.kill()
    count = int(cluster.ask("SELECT count(*) FROM prosodyarchive WHERE \"user\" LIKE 'other%'",
                            "prosody"))
    check(count == MESSAGES, f"{count} older messages, not {MESSAGES}")
    cluster.check_sound()
    check(not cluster.complaints(), f"postgres complains: {cluster.complaints()[:3]}")
    cluster.stop()
    await instant.check_ordinary(folder, cluster.data)


main(instant__a_prosody_archives_in_postgres_through_the_switch,
     instant__pgbench_goes_through_the_switch_without_a_failed_transaction)
