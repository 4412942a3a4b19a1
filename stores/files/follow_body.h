/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a tree's log segment (FORMAT §7, "files"): records of what was appended to files and
 * what became of them, section by section (one per point), in compressed blocks. Pure encoding and
 * decoding; what the reader hands out is checked: plain relative paths, bounded offsets and sizes.
 */
#ifndef IM_STORES_FILES_FOLLOW_BODY_H
#define IM_STORES_FILES_FOLLOW_BODY_H

#include "stores/files/beneath.h"
#include "stores/store.h"

#define FILES_LOG_PART_BYTES (8u << 20)   /* plain: a part is closed when it has this many */
#define FILES_LOG_DATA_BYTES (128u << 10) /* at most this much content in a record */
#define FILES_LOG_META_BYTES (128u << 10)
#define FILES_LOG_REASON_BYTES 200
#define FILES_LOG_CHECK_BYTES 16
#define FILES_LOG_TAIL_BYTES 4096         /* a check is over at most this much before an offset */

enum files_log_type {
	FILES_LOG_END = 0, /* ends a section: its times */
	FILES_LOG_SIZE,    /* a followed file as it is at the begin of this section: size, check, mtime */
	FILES_LOG_APPEND,  /* data at offset, check of what is before, mtime */
	FILES_LOG_BEGIN,   /* the file at path is a new one, empty, with this meta: whatever was there is not any more */
	FILES_LOG_FOLDER,  /* a folder that is new, with this meta */
	FILES_LOG_MOVED,   /* the file at path is now at to, in place of what was there */
	FILES_LOG_GONE,    /* nothing is at path any more */
	FILES_LOG_LOST,    /* the log does not have what happened to path from here on; reason */
};

struct files_log_record {
	enum files_log_type type;
	uint32_t point;
	const char *path, *to, *reason; /* borrowed, as data, until the next record */
	uint64_t offset;                /* SIZE: the size */
	int64_t mtime_ns, complete_ms, latest_ms;
	uint8_t check[FILES_LOG_CHECK_BYTES];
	const uint8_t *data;            /* APPEND: content; BEGIN, FOLDER: meta, a tree segment (FORMAT §5) with one member */
	uint32_t len;
};

void files_log_check(uint8_t ret[FILES_LOG_CHECK_BYTES], const void *tail, size_t len);

/* --- writing --- */

struct files_log_writer;
int files_log_writer_new(struct files_log_writer **ret, struct im_error *err);
void files_log_writer_free(struct files_log_writer *w);
/* The section that comes next is of this point; each END makes it one more. */
void files_log_begin(struct files_log_writer *w, uint32_t point);
/* record->point is not looked at. */
int files_log_put(struct files_log_writer *w, const struct files_log_record *record, struct im_error *err);
uint64_t files_log_plain(const struct files_log_writer *w); /* of the part being made */
size_t files_log_size(const struct files_log_writer *w);    /* memory it takes, about */
bool files_log_empty(const struct files_log_writer *w);
/* Gives out a part, even in the middle of a section, which then goes on in the next. */
int files_log_finish(struct files_log_writer *w, struct im_buf *ret, struct im_error *err);

/* --- reading --- */

typedef int files_log_fn(void *context, const struct files_log_record *record, struct im_error *err);
/* All records of a body in order; one block is in memory. Non-zero stops. IM_ECORRUPT; also fn's codes. A body of 0 bytes has none. */
int files_log_each(const struct follow_source *body, files_log_fn *fn, void *context, struct im_error *err);
/* A source over bytes in memory. */
struct follow_source files_log_memory(const struct im_buf *b);

#endif
