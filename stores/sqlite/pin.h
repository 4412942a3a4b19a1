/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pin: one read transaction on a live database, held while its pages are read past SQLite. It
 * never writes, never takes the write lock of a living server, never checkpoints, and leaves the
 * -wal as it was (DESIGN §6, "First, do no harm").
 *
 * Always: our own descriptors of the database, -wal and -shm are closed after the connection is,
 * because closing any descriptor of a file drops all POSIX locks this process holds on it.
 */
#ifndef IM_STORES_SQLITE_PIN_H
#define IM_STORES_SQLITE_PIN_H

#include "stores/sqlite/dbheader.h"
#include "stores/sqlite/shm.h"
#include "stores/sqlite/wal.h"

#include <sqlite3.h>
#include <sys/stat.h>

struct pin_files { /* the three files, opened raw; -1 where there is none */
	char *path, *wal_path, *shm_path, *journal_path; /* of the real file behind symbolic links */
	int db, wal, shm;
};

/* Opens what there is. IM_ENOTFOUND if there is no database. */
int pin_files_open(const char *path, struct pin_files *ret, struct im_error *err);
void pin_files_close(struct pin_files *f);
/* The header; *ret_empty instead if the file has no byte yet. */
int pin_files_header(const struct pin_files *f, struct dbheader *ret, bool *ret_empty, struct im_error *err);
/* The -shm head; false if there is none or it is being written. */
bool pin_files_shm(const struct pin_files *f, struct shm_head *ret);
/* A rollback journal that may be hot lies beside the database. */
bool pin_files_journal(const struct pin_files *f);

enum pin_mode { PIN_WAL, PIN_SHARED };

struct pin {
	struct pin_files files;
	struct dbheader header;
	sqlite3 *db;           /* in its read transaction; for probes */
	enum pin_mode mode;
	bool was_closed;       /* nobody had the WAL open */
	bool uses_wal;         /* some pages must come from the WAL */
	struct shm_head shm;   /* of the pinned commit (PIN_WAL) */
	struct wal_table table;
	uint32_t pages;
	struct stat stat;      /* of the database */
	int64_t instant_ms;    /* everything committed before this instant is in the image */
};

/* A connection to a WAL database without a transaction, for pins taken again and again with pin_begin and pin_end. */
int pin_connect(const char *path, int64_t timeout_ms, struct pin **ret, struct im_error *err);
/* Pins the newest commit: shm and instant_ms are then its. IM_EGAP if the files were replaced. */
int pin_begin(struct pin *p, int64_t timeout_ms, struct im_error *err);
int pin_end(struct pin *p, struct im_error *err);

/* Connects, pins and learns where each page lies. Waits at most timeout_ms for locks. */
int pin_open(const char *path, enum pin_mode mode, int64_t timeout_ms, struct pin **ret, struct im_error *err);
/* After the last page was read: was it protected all the time? IM_EFAIL if not. */
int pin_verify(struct pin *p, struct im_error *err);
void pin_close(struct pin *p); /* NULL is fine */

#endif
