/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of log bodies (offsets: logbody_format.h). Changes gather in two plain streams, control and
 * literals, that are compressed and put aside as a block whenever they have become large.
 */
#include "stores/sqlite/logbody_format.h"

#include "base/cleanup.h"
#include "stores/sqlite/varint.h"

#include <stdlib.h>
#include <zstd.h>

#define LEVEL 3

struct logbody_writer {
	uint32_t page_size;
	struct pagediff *diff;
	ZSTD_CCtx *zstd;
	struct im_buf sections, blocks, stored; /* of the part being made, encoded */
	size_t section_count, block_count;
	uint32_t last_point;
	struct im_buf control, literals; /* of the block being made */
	uint32_t block_first, block_records;
	uint32_t section_records;        /* of the section being made, in this part */
	uint32_t page_from;
	uint32_t next_page;              /* the lowest that may come next in this section */
	bool absolute;                   /* the next record's page is written as it is */
};

void logbody_writer_free(struct logbody_writer *w)
{
	if (!w)
		return;
	pagediff_free(w->diff);
	ZSTD_freeCCtx(w->zstd);
	im_buf_free(&w->sections);
	im_buf_free(&w->blocks);
	im_buf_free(&w->stored);
	im_buf_free(&w->control);
	im_buf_free(&w->literals);
	free(w);
}

IM_DEFINE_AUTO(writer, struct logbody_writer, logbody_writer_free)

int logbody_writer_new(uint32_t page_size, struct logbody_writer **ret, struct im_error *err)
{
	IM_CLEANUP(im_auto_writer) struct logbody_writer *w = calloc(1, sizeof *w);
	if (!w)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	w->page_size = page_size;
	w->absolute = true;
	int rc = pagediff_new(page_size, &w->diff, err);
	if (rc)
		return rc;
	w->zstd = ZSTD_createCCtx();
	if (!w->zstd)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	*ret = TAKE_PTR(w);
	return 0;
}

/* An empty stream is stored as nothing. */
static int compress(struct logbody_writer *w, const struct im_buf *plain, size_t *ret_stored, struct im_error *err)
{
	size_t begin = w->stored.len, bound = ZSTD_compressBound(plain->len);
	*ret_stored = 0;
	if (!plain->len)
		return 0;
	uint8_t *p = im_buf_grow(&w->stored, bound);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	size_t n = ZSTD_compressCCtx(w->zstd, p, bound, plain->data, plain->len, LEVEL);
	if (ZSTD_isError(n))
		return im_fail(err, IM_EFAIL, "cannot compress a log segment: %s", ZSTD_getErrorName(n));
	w->stored.len = begin + n;
	*ret_stored = n;
	return 0;
}

static int close_block(struct logbody_writer *w, struct im_error *err)
{
	size_t stored_control, stored_literals;
	if (!w->block_records)
		return 0;
	int rc = compress(w, &w->control, &stored_control, err);
	if (rc == 0)
		rc = compress(w, &w->literals, &stored_literals, err);
	if (rc)
		return rc;
	im_buf_put_u32(&w->blocks, w->block_first);
	im_buf_put_u32(&w->blocks, w->block_records);
	im_buf_put_u32(&w->blocks, (uint32_t)w->control.len);
	im_buf_put_u32(&w->blocks, (uint32_t)w->literals.len);
	im_buf_put_u32(&w->blocks, (uint32_t)stored_control);
	im_buf_put_u32(&w->blocks, (uint32_t)stored_literals);
	w->control.len = w->literals.len = 0;
	w->block_records = 0;
	w->block_count++;
	w->absolute = true;
	return 0;
}

static int begin_record(struct logbody_writer *w, uint32_t page, struct im_error *err)
{
	if (page < w->next_page || page == UINT32_MAX)
		return im_fail(err, IM_EFAIL, "page %u comes too late in a log segment", page);
	if (!w->block_records)
		w->block_first = page;
	varint_put(&w->control, w->absolute ? page : page - (w->next_page - 1));
	return 0;
}

static int end_record(struct logbody_writer *w, uint32_t page, struct im_error *err)
{
	w->absolute = false;
	w->next_page = page + 1;
	w->block_records++;
	w->section_records++;
	if (w->control.failed || w->literals.failed || w->blocks.failed || w->sections.failed)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	return w->control.len + w->literals.len < LOGBODY_BLOCK_BYTES ? 0 : close_block(w, err);
}

int logbody_put(struct logbody_writer *w, uint32_t page, const uint8_t *base, const uint8_t *content, struct im_error *err)
{
	int rc = begin_record(w, page, err);
	if (rc)
		return rc;
	size_t flags = w->control.len, literals = w->literals.len;
	im_buf_put_u8(&w->control, LOGBODY_HAS_BASE);
	pagediff_make(w->diff, base, content, &w->control, &w->literals);
	if (w->literals.len - literals == w->page_size && !w->control.failed) /* nothing of the base is left */
		w->control.data[flags] = 0;
	return end_record(w, page, err);
}

int logbody_put_ops(struct logbody_writer *w, uint32_t page, const struct pagediff_ops *ops, struct im_error *err)
{
	int rc = begin_record(w, page, err);
	if (rc)
		return rc;
	im_buf_put_u8(&w->control, ops->has_base ? LOGBODY_HAS_BASE : 0);
	im_buf_put(&w->control, ops->control, ops->control_len);
	im_buf_put(&w->literals, ops->literals, ops->literals_len);
	return end_record(w, page, err);
}

static void put_section(struct im_buf *b, const struct logbody_section *s, uint32_t records)
{
	im_buf_put_u32(b, s->point);
	im_buf_put_u32(b, s->pages);
	im_buf_put_u64(b, (uint64_t)s->complete_ms);
	im_buf_put_u64(b, (uint64_t)s->latest_ms);
	im_buf_put(b, s->sum, sizeof s->sum);
	im_buf_put_u32(b, records);
	im_buf_put_u32(b, 0);
}

int logbody_end_section(struct logbody_writer *w, const struct logbody_section *s, struct im_error *err)
{
	if (w->section_count == LOG_MAX_POINTS || (w->page_from && w->section_count))
		return im_fail(err, IM_EFAIL, "a log segment has too many points");
	if (w->section_count && s->point <= w->last_point)
		return im_fail(err, IM_EFAIL, "point %u comes too late in a log segment", s->point);
	if (w->section_records && w->next_page > s->pages)
		return im_fail(err, IM_EFAIL, "a log segment has a page beyond its database's end");
	put_section(&w->sections, s, w->section_records);
	w->section_count++;
	w->last_point = s->point;
	w->section_records = 0;
	w->next_page = w->page_from;
	w->absolute = true;
	return 0;
}

size_t logbody_size(const struct logbody_writer *w)
{
	return w->sections.len + w->blocks.len + w->stored.len + w->control.len + w->literals.len;
}

static int build(struct logbody_writer *w, uint32_t page_to, struct im_buf *ret, struct im_error *err)
{
	int rc = close_block(w, err);
	if (rc)
		return rc;
	im_buf_put_u32(ret, LOGBODY_VERSION);
	im_buf_put_u32(ret, w->page_size);
	im_buf_put_u32(ret, (uint32_t)w->section_count);
	im_buf_put_u32(ret, (uint32_t)w->block_count);
	im_buf_put_u32(ret, w->page_from);
	im_buf_put_u32(ret, page_to);
	im_buf_put_u64(ret, 0);
	im_buf_put(ret, w->sections.data, w->sections.len);
	im_buf_put(ret, w->blocks.data, w->blocks.len);
	im_buf_put(ret, w->stored.data, w->stored.len);
	if (ret->failed || w->sections.failed || w->blocks.failed)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	w->sections.len = w->blocks.len = w->stored.len = 0;
	w->section_count = w->block_count = 0;
	w->section_records = 0;
	w->page_from = w->next_page = page_to == LOGBODY_OPEN_END ? 0 : page_to;
	w->absolute = true;
	return 0;
}

int logbody_cut_part(struct logbody_writer *w, const struct logbody_section *s, uint32_t page_to, struct im_buf *ret, struct im_error *err)
{
	if (w->section_count || page_to < w->next_page || page_to <= w->page_from || page_to == LOGBODY_OPEN_END)
		return im_fail(err, IM_EFAIL, "a log segment cannot be cut before page %u", page_to);
	put_section(&w->sections, s, w->section_records);
	w->section_count = 1;
	return build(w, page_to, ret, err);
}

int logbody_finish(struct logbody_writer *w, struct im_buf *ret, struct im_error *err)
{
	if (w->section_records || !w->section_count)
		return im_fail(err, IM_EFAIL, "a log segment ends within a point");
	return build(w, LOGBODY_OPEN_END, ret, err);
}
