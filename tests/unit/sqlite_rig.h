/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the SQLite store share: a database, snapshots of it through a real vault, a plain
 * rebuild without the restore engine, and what the database should look like.
 */
#ifndef IM_TESTS_SQLITE_RIG_H
#define IM_TESTS_SQLITE_RIG_H

#include "fixture.h"

#include "stores/sqlite/sqlite_store.h"
#include "vault/snapshot.h"

#include <sqlite3.h>

struct sqlite_rig {
	struct fixture f;
	char db_path[128];
	struct im_config config;
	struct im_config_store store;
	struct im_config_pair pairs[8];
	struct snapshot_result result; /* of the last snapshot */
	struct packer_stats stats;
	struct snapshot snapshot;
	uint64_t rounds;
	/* of the last restore */
	char restored[256];            /* the database's new path */
	char target[128];              /* the folder it went to */
	bool plant_wal;                /* an old -wal lies where the database goes */
	struct rebuild rebuild;
	struct rig_file *files;
	size_t file_count;
};

int sqlite_rig_setup(void **state);
int sqlite_rig_teardown(void **state);
void sqlite_rig_option(struct sqlite_rig *r, const char *key, const char *value);
/* Opens the database; fails the test with SQLite's text. */
sqlite3 *sqlite_rig_open(const char *path);
void sqlite_rig_sql(sqlite3 *db, const char *sql);
/* First column of the first row as a number. */
int64_t sqlite_rig_number(sqlite3 *db, const char *sql);
/* Makes a table of rows with random text; journal: "wal" or "delete". Returns the open connection. */
sqlite3 *sqlite_rig_make(struct sqlite_rig *r, unsigned page_size, const char *journal, unsigned rows);
/* Takes a snapshot with a new packer and commits the state. */
int sqlite_rig_snapshot(struct sqlite_rig *r, bool full, struct im_error *err);
/* Rebuilds the last snapshot into a new folder. */
int sqlite_rig_restore(struct sqlite_rig *r, struct im_error *err);
/* What a copy of the database with its -wal becomes once SQLite has checkpointed it: in path (of 256 bytes). */
void sqlite_rig_expected(struct sqlite_rig *r, char *ret_path);
bool sqlite_rig_same_bytes(const char *a, const char *b);
/* Snapshot, restore, and the restored file is byte for byte what the database is. */
void sqlite_rig_prove(struct sqlite_rig *r, bool full);

#endif
