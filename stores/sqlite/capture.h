/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capturing: from a captured commit to a later pinned one, every page that changed, with its content
 * before and after, and the rolling checksum. Reads the database and its WAL raw; what it needs must be
 * protected by a pin at or before the captured commit (then neither a frame after it nor a page's
 * content before it can go: DESIGN, "Following SQLite").
 */
#ifndef IM_STORES_SQLITE_CAPTURE_H
#define IM_STORES_SQLITE_CAPTURE_H

#include "stores/sqlite/pin.h"
#include "stores/sqlite/walpos.h"
#include "vault/keyring.h"

struct capture {
	struct pin_files files;
	uint8_t *page_key;      /* secret */
	struct walpos at;       /* captured up to here */
	struct wal_cursor cursor;
	bool has_cursor;        /* the cursor stands at `at` in the WAL as it is */
	struct wal_table index; /* where pages lie in this generation, up to `at` */
	uint8_t *base, *content; /* a page each */
};

/* A page that changed, numbered from 0; ascending. base NULL: it did not exist. */
typedef int capture_page_fn(void *context, uint32_t page, const uint8_t *base, const uint8_t *content, struct im_error *err);

/* Opens the files. at is not set: see capture_begin. */
int capture_open(const char *path, const struct keyring *k, struct capture *ret, struct im_error *err);
void capture_close(struct capture *c);
/* Pages of the database file now. */
uint32_t capture_pages_in_file(const struct capture *c, uint32_t page_size);
/* Stands at this position: reads the WAL up to it, if it is still of that generation. IM_EGAP if the WAL says otherwise. */
int capture_begin(struct capture *c, const struct walpos *at, struct im_error *err);
/* How many frames lie between the position and mark; *ret_new_generation: the WAL was restarted in between. may_restart: the protecting pin allowed that.
 * IM_EGAP: something can have been lost. */
int capture_distance(const struct capture *c, const struct walpos *mark, bool may_restart, uint32_t *ret_frames, bool *ret_new_generation, struct im_error *err);
/* A commit on the way to mark, to be captured first: the last one within max_frames, or, if a single commit is larger, that one.
 * Call after capture_distance allowed mark. */
int capture_step(struct capture *c, const struct walpos *mark, uint32_t max_frames, struct walpos *ret, struct im_error *err);
/* Captures up to mark and stands there. *ret_commits: how many. IM_EGAP as above, or if the change is not complete. */
int capture_to(struct capture *c, const struct walpos *mark, bool may_restart, capture_page_fn *fn, void *context, uint64_t *ret_commits, struct im_error *err);

#endif
