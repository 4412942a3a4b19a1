# SPDX-License-Identifier: Apache-2.0
"""A database that somebody holds locked: a clear error in time, the other stores safe, exit 3."""
import sqlite3

from imvault import OK, PART, Node, check, main, scratch

TIMEOUT_S = 2


def make_database(path, journal):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode={journal}")
    db.execute("CREATE TABLE message(n INTEGER PRIMARY KEY, body)")
    db.execute("INSERT INTO message VALUES (1, 'kept')")
    return db


async def locked(folder, journal, lock, **options):
    """One backup of a locked database and a folder of uploads; the holder must go on unharmed."""
    path = folder / "locked.sqlite"
    db = make_database(path, journal)
    if lock == "exclusive mode":
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("INSERT INTO message VALUES (2, 'takes the lock')")
    else:
        db.execute("BEGIN EXCLUSIVE")
        db.execute("INSERT INTO message VALUES (2, 'pending')")
    uploads = folder / "uploads"
    uploads.mkdir()
    (uploads / "a.bin").write_bytes(b"picture")
    node = Node(folder)
    node.setup(chat={"type": "sqlite", "path": path, "timeout": f"{TIMEOUT_S}s", **options},
               uploads={"type": "files", "path": uploads})
    answer = await node.backup()
    if db.in_transaction:
        db.execute("COMMIT")
    db.execute("INSERT INTO message VALUES (3, 'goes on')")
    check(db.execute("SELECT count(*) FROM message").fetchone()[0] == 3, "the holder was disturbed")
    db.close()
    return node, answer


async def check_refused(folder, node, answer):
    print(f"{answer.ms} ms: {answer.err.strip()}")
    answer.expect(PART)
    check(answer.ms < (TIMEOUT_S + 15) * 1000, f"took {answer.ms} ms")
    said = answer.store("chat").get("error") or ""
    check("lock" in said.lower(), f"the error does not speak of a lock: {said!r}")
    check(str(folder / "locked.sqlite") in answer.everything(), "the error does not name the file")
    check(not answer.store("uploads").get("error"), "the uploads failed as well")
    (await node.restore("--to", f"{folder}/to", "--store", "uploads")).expect(OK)
    copy = folder / f"to{folder}/uploads/a.bin"
    check(copy.read_bytes() == b"picture", "the uploads differ")
    answer = await node.backup()
    check(answer.code == OK, f"once released: exit {answer.code}\n{answer.err}")


async def locked__exclusive_mode_in_wal():
    with scratch() as folder:
        await check_refused(folder, *await locked(folder, "wal", "exclusive mode"))


async def locked__exclusive_mode_in_rollback_journal():
    with scratch() as folder:
        await check_refused(folder, *await locked(folder, "delete", "exclusive mode",
                                                  locking="shared"))


async def locked__exclusive_transaction_in_rollback_journal():
    with scratch() as folder:
        await check_refused(folder, *await locked(folder, "delete", "transaction",
                                                  locking="shared"))


async def locked__a_write_transaction_in_wal_is_no_obstacle():
    with scratch() as folder:
        node, answer = await locked(folder, "wal", "transaction")
        answer.expect(OK)
        (await node.restore("--to", f"{folder}/to", "--store", "chat")).expect(OK)
        db = sqlite3.connect(f"{folder}/to{folder}/locked.sqlite")
        check([row[0] for row in db.execute("SELECT n FROM message")] == [1],
              "the snapshot holds what was not committed")
        db.close()


main(locked__exclusive_mode_in_wal,
     locked__exclusive_mode_in_rollback_journal,
     locked__exclusive_transaction_in_rollback_journal,
     locked__a_write_transaction_in_wal_is_no_obstacle)
