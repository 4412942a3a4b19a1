/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the SQLite follower share: a database written by other processes (as in life: a
 * follower and a server in one process would drop each other's locks), a real follower with its
 * keeper, and a model that applies every captured section to a copy of the database and compares checksums.
 */
#ifndef IM_TESTS_FOLLOW_RIG_H
#define IM_TESTS_FOLLOW_RIG_H

#include "sqlite_rig.h"

#include "stores/sqlite/follow.h"
#include "stores/sqlite/logbody.h"

struct follow_rig {
	struct sqlite_rig *r;
	char folder[128];
	struct follower *follower; /* NULL: not open */
	json_t *position;          /* after the last batch */
	uint32_t point;
	int64_t hold_ms;
	/* The model. */
	uint8_t *pages;
	uint32_t page_size, page_count;
	uint8_t *page_key;
	uint8_t sum[CRYPTO_PAGE_HASH_BYTES];
	uint64_t sections, commits;
	int64_t complete_ms, latest_ms;
};

int follow_rig_setup(void **state);
int follow_rig_teardown(void **state);
/* Runs SQL in another process; fails the test if it fails. */
void follow_rig_sql(struct follow_rig *t, const char *sql);
/* Makes a table of rows, WAL, checkpointed; the model is its copy. */
void follow_rig_make(struct follow_rig *t, unsigned page_size, unsigned rows);
/* Opens (or opens again, at position) the follower. */
int follow_rig_open(struct follow_rig *t, struct im_error *err);
/* Forgets the follower as kill -9 would: its keeper stays. */
void follow_rig_abandon(struct follow_rig *t);
/* Takes what there is, applies it to the model, makes it durable. False: nothing new. */
bool follow_rig_take(struct follow_rig *t);
/* Until nothing more comes. */
void follow_rig_drain(struct follow_rig *t);
/* Ends the follower and compares the model with the checkpointed database, byte by byte. */
void follow_rig_prove(struct follow_rig *t);
/* A process that inserts rows until it is stopped; autocheckpoint in pages. Returns its pid. */
int follow_rig_writer(struct follow_rig *t, unsigned seed, unsigned autocheckpoint, unsigned pause_us);
/* Stops it; returns how many commits it made. */
uint64_t follow_rig_stop(struct follow_rig *t, int pid);
/* Frames of the WAL in use, and its file's size in bytes. */
uint32_t follow_rig_frames(struct follow_rig *t);
/* Runs rounds for ms milliseconds. */
void follow_rig_run(struct follow_rig *t, int ms);
/* The pid of the keeper that holds the database, or 0. */
int follow_rig_keeper(struct follow_rig *t);

#endif
