/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From file to chunks. A reader (I/O thread) cuts what it reads into chunks; encoders (CPU
 * threads, shared by all readers) give them their ids and put them into packs, so that one big
 * file keeps every CPU busy. The number of buffers is bounded by the encoders' queue.
 */
#ifndef IM_STORES_FILES_CONTENT_H
#define IM_STORES_FILES_CONTENT_H

#include "base/workers.h"
#include "stores/files/segment.h"
#include "vault/packer.h"

#include <stdatomic.h>
#include <sys/stat.h>

#define FILES_CHUNK_BYTES (1u << 20)
#define FILES_BUNDLE_BYTES (256u << 10)
#define FILES_SMALL_BYTES (64u << 10)
#define FILES_MAX_PIECES 1000000u

/* Shared by all segments of a run. */
struct files_encoders;
int files_encoders_new(
    struct packer *packer, const uint8_t chunk_key[32], int level, struct files_encoders **ret, struct im_error *err);
void files_encoders_free(struct files_encoders *e); /* waits */
unsigned files_encoders_count(const struct files_encoders *e);
uint64_t files_encoders_new_bytes(const struct files_encoders *e); /* plain bytes that were not in the vault yet */

/* The chunks of one segment; belongs to one reader. */
struct files_content;
int files_content_new(struct files_encoders *e, struct files_content **ret, struct im_error *err);
void files_content_free(struct files_content *c); /* waits for its chunks */

struct files_pieces {
	struct files_piece *items;
	size_t count, cap;
};

struct files_read {
	uint64_t size_bytes; /* what was kept */
	uint64_t read_bytes;
	bool sqlite; /* it begins like an SQLite database */
	bool too_large; /* left out: beyond what a segment can describe */
};

/* Reads the file as st has it: pieces are appended, rows numbered in c. Shorter on disk by now: size_bytes says so.
 * what: for messages. */
int files_content_read(struct files_content *c, int fd, const struct stat *st, const char *what,
    struct files_pieces *ret, struct files_read *ret_read, struct im_error *err);
/* A row for a chunk that is in the vault already. */
int files_content_reuse(
    struct files_content *c, const struct files_chunk *chunk, uint32_t *ret_row, struct im_error *err);
/* The failure of a chunk on its way to the vault (which no other file would survive either), or 0. */
int files_content_error(struct files_content *c, struct im_error *err);
size_t files_content_rows(const struct files_content *c);
/* Waits until every row is known: borrowed until the next call. */
int files_content_wait(
    struct files_content *c, const struct files_chunk **ret, size_t *ret_count, struct im_error *err);
/* Begins the next segment: forgets all rows (after a wait). */
void files_content_reset(struct files_content *c);
/* Puts a finished segment, whose bytes (taken over) follow FILES_SEGMENT_LABEL in the buffer: its id covers the label.
 */
#define FILES_SEGMENT_LABEL "tree"
int files_content_put_segment(
    struct files_content *c, struct im_buf *labelled, struct im_ref *ret, struct im_error *err);

#endif
