# SPDX-License-Identifier: Apache-2.0
"""A program that writes into a SQLite database from the first moment of its instant restore until
after the switch sees no error, and nothing it or the snapshot holds is lost or another's."""
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import instant
import instant_rows
from imvault import OK, Failure, Node, check, main
from instant_writer import __file__ as WRITER
from prosody import process_state

ROWS = 50_000      # some 100 MB
RATE_MB = 16
BESIDE_BYTES = 80_000_000
ROUNDS = 2  # the second meets the alias that the first left
EARLY, LATE = 20, 200  # commits that must be seen before and after the switch

START = """\
setsid '{python}' '{writer}' '{database}' '{acks}' {rows} {seed} </dev/null >/dev/null 2>'{words}' &
echo $! >'{pid}'
until [ -s '{acks}' ]; do kill -0 $! || exit 1; sleep 0.01; done
"""


class Writer:
    def __init__(self, folder, database, rows, seed):
        self.acks_file, self.words = folder / f"acks-{seed}", folder / f"words-{seed}"
        self.pidfile = folder / f"pid-{seed}"
        self.command = START.format(
            python=sys.executable, writer=WRITER, database=database, acks=self.acks_file,
            rows=rows, seed=seed, words=self.words, pid=self.pidfile)

    def pid(self):
        return int(self.pidfile.read_text())

    def acks(self):
        """[(new row, old row it changed)] in order; only whole lines."""
        text = self.acks_file.read_text() if self.acks_file.exists() else ""
        return [tuple(map(int, line.split()))
                for line in text[:text.rfind("\n") + 1].splitlines()]

    def complaint(self):
        return self.words.read_text() if self.words.exists() else ""

    def has(self, count):
        """So many acknowledged; at once an error if it has ended."""
        check(not self.complaint(), f"the writer failed: {self.complaint()}")
        return len(self.acks()) >= count

    async def end(self):
        os.kill(self.pid(), signal.SIGTERM)
        await instant.until("the writer's end",
                            lambda: process_state(self.pid()) in (None, "Z"))
        check(self.complaint() == "done\n", f"the writer failed: {self.complaint()}")

    def kill(self):
        if self.pidfile.exists() and process_state(self.pid()) not in (None, "Z"):
            os.kill(self.pid(), signal.SIGKILL)


def check_rows(database, acks, rows):
    try:
        unknown = instant_rows.compare(database, rows, acks)
    except AssertionError as why:
        raise Failure(why) from why
    check(unknown == 0, f"{len(acks)} acknowledged, {len(acks) + unknown} there")


async def go_through(node, vault, database, *args, rows=ROWS, seed=0):
    writer = Writer(node.vault.parent, database, rows, seed)
    try:
        async with instant.restoring(node, vault, *args, "--exec", writer.command) as restore:
            watched = None if "--detach" in args else restore
            if not watched:
                (await restore).expect(OK)
            await instant.until("early commits", lambda: writer.has(EARLY), watched)
            record = instant.check_served(database.parent, f"{EARLY} commits")
            instant.check_keeps("python", writer.pid(), record)
            answer = (await restore).expect(OK)
            await instant.until("the switch", lambda: instant.is_switched(database.parent))
            early = len(writer.acks())
            await instant.until("late commits", lambda: writer.has(early + LATE))
        if watched:
            instant.check_restored(answer, database.parent, record)
        await writer.end()
    finally:
        writer.kill()
    print(f"{early} commits before the end of the restore, {len(writer.acks()) - early} after it")
    check_rows(database, writer.acks(), rows)


async def work(journal_mode, *args, rounds=ROUNDS):
    instant.require()
    with instant.scratch() as folder:
        node, database = Node(folder), Path(folder) / "data" / "rows.sqlite"
        instant_rows.make(database, journal_mode, ROWS)
        locking = {"locking": "shared"} if journal_mode == "delete" else {}
        node.setup(rows={"type": "sqlite", "path": database, **locking})
        (await node.backup()).expect(OK)
        node.lose_machine()
        with instant.far_vault(node, RATE_MB) as vault:
            for seed in range(rounds):
                shutil.rmtree(database.parent)
                await go_through(node, vault, database, *args, seed=seed)
        await instant.check_ordinary(folder, database.parent)


async def instant__a_wal_database_is_written_through_the_switch():
    await work("wal")


async def instant__a_database_with_a_rollback_journal_is_written_through_the_switch():
    await work("delete")


async def instant__a_detached_restore_goes_on_and_ends_alone():
    await work("wal", "--detach", rounds=1)


async def instant__whole_files_are_enough_where_blocks_cannot_be_watched():
    """The database is brought at its first opening, what lies beside it later."""
    instant.require()
    with instant.scratch() as folder:
        node, database = Node(folder), Path(folder) / "data" / "rows.sqlite"
        instant_rows.make(database, "wal", ROWS // 5)
        beside = random.Random(1).randbytes(BESIDE_BYTES)
        (database.parent / "beside").write_bytes(beside)
        node.setup(data={"type": "files", "path": database.parent})
        (await node.backup()).expect(OK)
        node.lose_machine()
        shutil.rmtree(database.parent)
        with instant.far_vault(node, RATE_MB) as vault:
            await go_through(node, vault, database, "--instant=files", rows=ROWS // 5)
        await instant.check_ordinary(folder, database.parent)
        check((database.parent / "beside").read_bytes() == beside, "what lay beside it differs")


main(instant__a_wal_database_is_written_through_the_switch,
     instant__a_database_with_a_rollback_journal_is_written_through_the_switch,
     instant__a_detached_restore_goes_on_and_ends_alone,
     instant__whole_files_are_enough_where_blocks_cannot_be_watched)
