# SPDX-License-Identifier: Apache-2.0
"""A server that waits: inserts numbered rows with a busy timeout until stdin is closed.

usage: writer.py DATABASE. Prints each committed number with its instant (monotonic)."""
import select
import sqlite3
import sys
import time

db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
n = db.execute("SELECT coalesce(max(n), 0) FROM message").fetchone()[0]
while not select.select([sys.stdin], [], [], 0.005)[0]:
    n += 1
    db.execute("INSERT INTO message VALUES (?, ?, randomblob(300))", (n, time.time()))
    print(n, time.monotonic(), flush=True)
db.close()
