/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tree segments (FORMAT §5): a chunk table and a pax archive whose bodies are piece lists. Pure
 * encoding and decoding, no I/O, so that it can be fuzzed. What the reader hands out is checked:
 * paths are relative and without "..", pieces ascend and lie within their file and their chunk.
 */
#ifndef IM_STORES_FILES_SEGMENT_H
#define IM_STORES_FILES_SEGMENT_H

#include "base/bytes.h"
#include "vault/pack.h"

#include <archive.h>
#include <archive_entry.h>

#define FILES_MAX_FILE_BYTES (UINT64_C(1) << 60)
#define FILES_CHUNK_ROW_BYTES (REF_BYTES + 32)
#define FILES_PIECE_BYTES 20

struct files_chunk {
	struct im_ref ref;
	uint8_t id[32];
};

struct files_piece {
	uint64_t file_offset;
	uint32_t chunk, skip, len; /* len bytes of chunk (a row of the table) from skip on */
};

struct files_segment_writer;

int files_segment_writer_new(struct files_segment_writer **ret, struct im_error *err);
void files_segment_writer_free(struct files_segment_writer *w);
/* entry: path and metadata; its size is changed. For a regular file that is no hard link, size_bytes and pieces are its
 * body. */
int files_segment_add(struct files_segment_writer *w, struct archive_entry *entry, uint64_t size_bytes,
    const struct files_piece *pieces, size_t piece_count, struct im_error *err);
size_t files_segment_written(const struct files_segment_writer *w); /* archive bytes so far */
/* The whole segment is appended to ret. The writer is used up. */
int files_segment_finish(struct files_segment_writer *w, const struct files_chunk *chunks, size_t chunk_count,
    struct im_buf *ret, struct im_error *err);

struct files_segment;

struct files_member {
	struct archive_entry *entry; /* borrowed until the next call, as everything here */
	const char *path; /* "." is the root */
	const char *link; /* hard link to this path, or NULL */
	bool has_body; /* a regular file, no link */
	uint64_t size_bytes;
	const struct files_piece *pieces;
	size_t piece_count;
};

/* data is borrowed until close. IM_ECORRUPT. */
int files_segment_open(const void *data, size_t len, struct files_segment **ret, struct im_error *err);
void files_segment_close(struct files_segment *s);
size_t files_segment_chunks(const struct files_segment *s, const struct files_chunk **ret); /* borrowed until close */
/* *ret_more false: the end came, ret is not written. After a failure only close. */
int files_segment_next(struct files_segment *s, struct files_member *ret, bool *ret_more, struct im_error *err);

#endif
