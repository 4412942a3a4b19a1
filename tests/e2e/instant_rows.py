# SPDX-License-Identifier: Apache-2.0
"""A database whose every row can be told from any other, and those who work on it until SIGTERM,
also through kills and power cuts.

usage: instant_rows.py write|read DATABASE NOTES ROWS SEED
write: each transaction adds a row and changes an old one; after its commit "NEW OLD INSTANT" goes to
NOTES. read: compares old rows at random; "N INSTANT" goes to NOTES. Both go on from NOTES if it is
there. Whatever is wrong ends them with a traceback on stderr; the last word there is "done".
"""
import hashlib
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

BODY_BYTES = 1500
CALM_S = 600  # a lock may be held by somebody who waits for the vault


def body(n):
    """What old row n holds; does not compress."""
    return hashlib.shake_128(b"%d" % n).digest(BODY_BYTES)


def make(path, journal_mode, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA journal_mode={journal_mode}")
    db.execute("CREATE TABLE old (n INTEGER PRIMARY KEY, changed_by INTEGER, body BLOB)")
    db.execute("CREATE TABLE new (n INTEGER PRIMARY KEY, changed INTEGER, body BLOB)")
    db.executemany("INSERT INTO old VALUES (?, 0, ?)", ((n, body(n)) for n in range(rows)))
    db.commit()
    db.close()


def notes(path):
    """Whole lines only."""
    text = Path(path).read_text() if Path(path).exists() else ""
    return [line.split() for line in text[:text.rfind("\n") + 1].splitlines()]


def acknowledged(path, before=float("inf")):
    """[(new, old)] in order."""
    return [(int(new), int(old)) for new, old, at in notes(path) if float(at) < before]


def compare(path, rows, acked):
    """What a database must be after all of it; returns how many commits it has that were never acknowledged."""
    db = sqlite3.connect(path)
    sound = db.execute("PRAGMA integrity_check").fetchone()[0]
    assert sound == "ok", f"{path}: {sound}"
    new = dict(db.execute("SELECT n, changed FROM new"))
    lost = [pair for pair in acked if new.get(pair[0]) != pair[1]]
    assert not lost, f"{len(lost)} of {len(acked)} acknowledged commits are lost, first {lost[0]}"
    last = dict((old, n) for n, old in sorted(new.items()))
    count = 0
    for n, by, content in db.execute("SELECT n, changed_by, body FROM old ORDER BY n"):
        assert n == count and content == body(n), f"old row {n} is not what it was in the snapshot"
        assert by == last.get(n, 0), f"old row {n}: changed by {by}, not {last.get(n, 0)}"
        count += 1
    db.close()
    assert count == rows, f"{count} old rows, not {rows}"
    return len(new) - len(acked)


def connect(path):
    db = sqlite3.connect(path, timeout=CALM_S, isolation_level=None)
    db.execute("PRAGMA synchronous = EXTRA")  # with a rollback journal FULL may lose the last commit
    db.execute("PRAGMA wal_autocheckpoint = 100")
    return db


def write(path, note, rows, rng, ended, noted):
    life = connect(path)
    changed = {int(old): int(new) for new, old, _ in noted}
    new = life.execute("SELECT coalesce(max(n), 0) FROM new").fetchone()[0]
    while not ended:
        new += 1
        db = life if new % 10 else connect(path)
        n = rng.randrange(rows)
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO new VALUES (?, ?, randomblob(700))", (new, n))
        by, content = db.execute("SELECT changed_by, body FROM old WHERE n = ?", (n,)).fetchone()
        assert content == body(n), f"old row {n} has another content"
        assert by >= changed.get(n, 0), f"old row {n}: {by}, not {changed[n]}"
        db.execute("UPDATE old SET changed_by = ? WHERE n = ?", (new, n))
        db.execute("COMMIT")
        changed[n] = new
        os.write(note, b"%d %d %.6f\n" % (new, n, time.monotonic()))
        time.sleep(0.002)  # SQLite's locks are not fair: else readers may starve
        if db is not life:
            db.close()
    life.close()


def read(path, note, rows, rng, ended, _):
    life = connect(path)
    while not ended:
        db = life if rng.randrange(20) else connect(path)
        n = rng.randrange(rows)
        row = db.execute("SELECT body FROM old WHERE n = ?", (n,)).fetchone()
        assert row and row[0] == body(n), f"old row {n} has another content"
        os.write(note, b"%d %.6f\n" % (n, time.monotonic()))
        if db is not life:
            db.close()
    life.close()


def main(what, path, note, rows, seed):
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    fd = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    {"write": write, "read": read}[what](path, fd, int(rows), random.Random(int(seed)), ended, notes(note))
    print("done", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
