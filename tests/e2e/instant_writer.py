# SPDX-License-Identifier: Apache-2.0
"""A server that uses a database of instant_rows: each transaction adds a row, changes an old one
and reads some. It has one connection for life and makes a new one for each tenth transaction. Runs
until SIGTERM.

usage: instant_writer.py DATABASE ACKS OLD_ROWS SEED. After each commit one line goes to ACKS: the
new row's number and that of the old row it changed. Whatever is wrong ends it with a traceback on
stderr; the last word there is "done" if nothing is.
"""
import os
import random
import signal
import sqlite3
import sys

from instant_rows import body

READS = 3


def connect(path):
    return sqlite3.connect(path, timeout=20, isolation_level=None)


def read_old(db, n, changed):
    row = db.execute("SELECT changed_by, body FROM old WHERE n = ?", (n,)).fetchone()
    assert row and row[1] == body(n), f"old row {n} has another content"
    assert row[0] == changed.get(n, 0), f"old row {n}: {row[0]}, not {changed.get(n, 0)}"


def commit(db, new, n):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO new VALUES (?, ?, randomblob(700))", (new, n))
    db.execute("UPDATE old SET changed_by = ? WHERE n = ?", (new, n))
    db.execute("COMMIT")


def write(path, acks, old_rows, seed):
    rng, changed, ended = random.Random(seed), {}, []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    life = connect(path)
    new = 0
    while not ended:
        new += 1
        db = life if new % 10 else connect(path)
        n = rng.randrange(old_rows)
        commit(db, new, n)
        changed[n] = new
        os.write(acks, b"%d %d\n" % (new, n))
        for _ in range(READS):
            read_old(db, rng.randrange(old_rows), changed)
        read_old(life, n, changed)
        if db is not life:
            db.close()
    life.close()
    print("done", file=sys.stderr)


if __name__ == "__main__":
    write(sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
          int(sys.argv[3]), int(sys.argv[4]))
