/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a database's log segment (FORMAT §7): sections (one per point) of page changes in
 * compressed blocks. The writer is fed by the follower, the reader serves restore, merge and
 * verify; both work block by block. Bodies come from a vault: hostile until checked.
 */
#ifndef IM_STORES_SQLITE_LOGBODY_H
#define IM_STORES_SQLITE_LOGBODY_H

#include "stores/sqlite/pagediff.h"
#include "stores/store.h"
#include "vault/crypto.h"

#define LOGBODY_BLOCK_BYTES (128u << 10)
#define LOGBODY_PART_BYTES (8u << 20) /* a part is closed when its blocks reach this */
#define LOGBODY_OPEN_END UINT32_MAX

struct ZSTD_DCtx_s;

struct logbody_section {
	uint32_t point, pages;   /* pages: the database's size after it */
	int64_t complete_ms, latest_ms;
	uint8_t sum[CRYPTO_PAGE_HASH_BYTES];
	uint32_t records;        /* reader: in this part */
};

/* --- writing --- */

struct logbody_writer;
int logbody_writer_new(uint32_t page_size, struct logbody_writer **ret, struct im_error *err);
void logbody_writer_free(struct logbody_writer *w);
/* Records of the section being written; pages ascend. base NULL: none. */
int logbody_put(struct logbody_writer *w, uint32_t page, const uint8_t *base, const uint8_t *content, struct im_error *err);
int logbody_put_ops(struct logbody_writer *w, uint32_t page, const struct pagediff_ops *ops, struct im_error *err);
/* Ends the section (even one without records); its fields but `records` are the caller's. */
int logbody_end_section(struct logbody_writer *w, const struct logbody_section *s, struct im_error *err);
/* Compressed bytes so far, about. */
size_t logbody_size(const struct logbody_writer *w);
/* Gives out what is complete as a part [page_from, page_to) and goes on with the rest: for changes larger than LOGBODY_PART_BYTES,
 * in the middle of the only section, whose later part repeats it. s: the section as it will end. */
int logbody_cut_part(struct logbody_writer *w, const struct logbody_section *s, uint32_t page_to, struct im_buf *ret, struct im_error *err);
/* The (last) part; the writer is then empty and can be used again. */
int logbody_finish(struct logbody_writer *w, struct im_buf *ret, struct im_error *err);

/* --- reading --- */

struct logbody;
/* Reads head, sections and block table, checking every count. source is copied; what its context points to must outlive the body. */
int logbody_open(const struct follow_source *source, struct logbody **ret, struct im_error *err);
void logbody_free(struct logbody *b);
uint32_t logbody_page_size(const struct logbody *b);
void logbody_range(const struct logbody *b, uint32_t *ret_from, uint32_t *ret_to);
size_t logbody_section_count(const struct logbody *b);
const struct logbody_section *logbody_section_at(const struct logbody *b, size_t i);
/* A source over bytes in memory. */
struct follow_source logbody_memory(const struct im_buf *b);

struct logbody_record {
	uint32_t section, page;
	struct pagediff_ops ops; /* borrowed until the cursor moves to another block */
};
/* Walks all records in order (section by section). One block is in memory. */
struct logbody_cursor;
int logbody_cursor_new(struct logbody *b, struct logbody_cursor **ret, struct im_error *err);
void logbody_cursor_free(struct logbody_cursor *c);
/* *ret_more false at the end. IM_ECORRUPT for anything impossible: pages out of order or beyond the section's, counts that do not agree. */
int logbody_next(struct logbody_cursor *c, struct logbody_record *ret, bool *ret_more, struct im_error *err);
/* For bodies with one section: goes to the first record of a page at or after `page` (binary search over blocks). */
int logbody_seek(struct logbody_cursor *c, uint32_t page, struct im_error *err);
/* Goes to the first record of a section (if it has none: to what comes after it). */
int logbody_seek_section(struct logbody_cursor *c, size_t section, struct im_error *err);

/* --- block by block, of bodies with one section: for readers that keep decoded blocks themselves (a restore: many threads, one body) --- */

struct logbody_block {
	struct logbody_record *records; /* ascending by page; ops point into the two below */
	size_t count;
	struct im_buf control, literals;
};
size_t logbody_block_count(const struct logbody *b);
uint32_t logbody_block_page(const struct logbody *b, size_t i); /* of its first record */
/* How many records it holds, and how many bytes of literals: pages × their size if nothing of any base is left. */
void logbody_block_sizes(const struct logbody *b, size_t i, uint32_t *ret_records, uint32_t *ret_literals);
/* Decodes block i into ret, which is empty. zstd: a context of the calling thread's. literals false: only control is read, and ops' literals
 * are NULL. Any thread, if the source's read allows it. IM_ECORRUPT as for logbody_next. */
int logbody_block_read(const struct logbody *b, size_t i, struct ZSTD_DCtx_s *zstd, bool literals, struct logbody_block *ret, struct im_error *err);
void logbody_block_clear(struct logbody_block *block);

#endif
