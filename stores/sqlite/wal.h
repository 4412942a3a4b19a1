/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a write-ahead log (https://www.sqlite.org/fileformat2.html §4) up to one given commit.
 * Every salt and every chained checksum on the way is verified, so what comes out is exactly what
 * SQLite wrote; torn, stale and overwritten frames are errors. No I/O of its own: fuzzable.
 */
#ifndef IM_STORES_SQLITE_WAL_H
#define IM_STORES_SQLITE_WAL_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define WAL_HEADER_BYTES 32
#define WAL_FRAME_HEADER_BYTES 24

/* Reads up to len bytes at offset; short only at the end. Bytes read, or a negative code. */
typedef ssize_t wal_read_fn(void *context, void *ret, size_t len, uint64_t offset, struct im_error *err);

/*
 * A place in a log that is being written: everything up to `frame` was read and verified. It goes on
 * from there as long as the log is of the same generation (salts) and the chained checksum holds.
 */
struct wal_cursor {
	uint32_t page_size;
	uint8_t salt[8];
	bool big_endian;
	uint32_t frame;           /* 0: behind the header */
	uint32_t commit_pages;    /* of that frame: the database's size if it ends a commit, else 0 */
	uint32_t frame_checksum[2];
};

/* Reads and checks the header: page_size and salt are what it must say. IM_ECORRUPT if the log is another. */
int wal_cursor_start(wal_read_fn *read, void *context, const char *what, uint32_t page_size, const uint8_t salt[8], struct wal_cursor *ret, struct im_error *err);
/* A frame in order (pages from 1); commit_pages: 0 unless it ends a commit. */
typedef int wal_frame_fn(void *context, uint32_t frame, uint32_t page, uint32_t commit_pages, struct im_error *err);
/* Goes on up to frame `to` (not below the cursor's), verifying every salt and checksum. On failure the cursor is as it was
 * after the last good batch: start again. IM_ECORRUPT for torn, stale and foreign frames. */
int wal_cursor_advance(struct wal_cursor *c, wal_read_fn *read, void *context, const char *what, uint32_t to, wal_frame_fn *fn, void *fn_context, struct im_error *err);

struct wal_expect { /* what the reader's mark says */
	uint32_t page_size;
	uint32_t max_frame;      /* frames count from 1 */
	uint32_t pages;          /* database size after the commit at max_frame */
	uint32_t frame_checksum[2];
	uint8_t salt[8];
};

struct wal_table { /* for each page its last frame; ascending by page */
	uint64_t *items; /* page number (from 1) << 32 | frame */
	size_t count;
};

/* what: the file's name for messages. IM_ECORRUPT if the log is not what expect says. */
int wal_load(wal_read_fn *read, void *context, const char *what, const struct wal_expect *expect, struct wal_table *ret, struct im_error *err);
void wal_table_clear(struct wal_table *t);
/* Adds a frame to an unsorted table; room: the caller's, 0 at first. Then wal_table_sort keeps each page's last frame. */
int wal_table_add(struct wal_table *t, size_t *room, uint32_t page, uint32_t frame, struct im_error *err);
void wal_table_sort(struct wal_table *t);
/* Frame of a page (numbered from 1), or 0. */
uint32_t wal_table_frame(const struct wal_table *t, uint32_t page);
/* Index of the first item whose page is at least page. */
size_t wal_table_seek(const struct wal_table *t, uint32_t page);
/* Where the page content of a frame begins. */
uint64_t wal_frame_offset(uint32_t page_size, uint32_t frame);

#endif
