/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of log bodies (offsets: logbody_format.h). Opening checks every count against the
 * others and against the source's length; the cursor checks the records themselves, one
 * decompressed block at a time.
 */
#include "stores/sqlite/logbody_format.h"

#include "base/cleanup.h"
#include "stores/sqlite/varint.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

struct block {
	uint32_t first_page, records, control, literals, stored_control, stored_literals;
	uint64_t offset;       /* in the source */
	uint64_t first_record; /* counted through the body */
};

struct logbody {
	struct follow_source source;
	uint32_t page_size, page_from, page_to;
	size_t section_count, block_count;
	struct logbody_section *sections;
	uint64_t *first_records; /* of each section, counted through the body */
	struct block *blocks;
	uint64_t records;
};

static int damaged(struct im_error *err, const char *what)
{
	return im_fail(err, IM_ECORRUPT, "the body of a log segment is damaged: %s", what);
}

static int no_memory(struct im_error *err)
{
	return im_fail(err, IM_ENOMEM, "out of memory for the body of a log segment");
}

void logbody_free(struct logbody *b)
{
	if (!b)
		return;
	free(b->sections);
	free(b->first_records);
	free(b->blocks);
	free(b);
}

IM_DEFINE_AUTO(logbody, struct logbody, logbody_free)

/* --- opening --- */

static int read_head(struct logbody *b, struct im_error *err)
{
	uint8_t head[LOGBODY_HEAD_BYTES];
	if (b->source.len < sizeof head)
		return damaged(err, "it is too short");
	int rc = b->source.read(b->source.context, 0, head, sizeof head, err);
	if (rc)
		return rc;
	struct im_reader r = im_reader_of(head, sizeof head);
	uint32_t version = im_read_u32(&r);
	b->page_size = im_read_u32(&r);
	b->section_count = im_read_u32(&r);
	b->block_count = im_read_u32(&r);
	b->page_from = im_read_u32(&r);
	b->page_to = im_read_u32(&r);
	if (version != LOGBODY_VERSION)
		return im_fail(err, IM_ECORRUPT, "a log segment's body has the unknown version %u", version);
	if (b->page_size < 512 || b->page_size > 65536 || (b->page_size & (b->page_size - 1)))
		return damaged(err, "its page size is impossible");
	if (!b->section_count || b->section_count > LOG_MAX_POINTS)
		return damaged(err, "its number of points is impossible");
	uint64_t tables = LOGBODY_HEAD_BYTES + (uint64_t)b->section_count * LOGBODY_SECTION_BYTES +
	    (uint64_t)b->block_count * LOGBODY_BLOCK_ENTRY_BYTES;
	if (tables > b->source.len)
		return damaged(err, "its tables do not fit into it");
	bool whole = !b->page_from && b->page_to == LOGBODY_OPEN_END;
	if (b->page_from >= b->page_to || (!whole && b->section_count > 1) || im_read_u64(&r))
		return damaged(err, "its range of pages is impossible");
	return 0;
}

static int read_section(struct logbody *b, size_t i, struct im_reader *r, struct im_error *err)
{
	struct logbody_section *s = &b->sections[i];
	const struct logbody_section *before = i ? s - 1 : NULL;
	s->point = im_read_u32(r);
	s->pages = im_read_u32(r);
	s->complete_ms = (int64_t)im_read_u64(r);
	s->latest_ms = (int64_t)im_read_u64(r);
	im_read_copy(r, s->sum, sizeof s->sum);
	s->records = im_read_u32(r);
	uint32_t zero = im_read_u32(r), end = s->pages < b->page_to ? s->pages : b->page_to;
	if (zero || s->complete_ms < 0 || s->latest_ms < s->complete_ms)
		return damaged(err, "a point is impossible");
	if (before && (s->point <= before->point || s->complete_ms < before->complete_ms || s->latest_ms < before->latest_ms))
		return damaged(err, "its points are out of order");
	if (s->records && (end < b->page_from || s->records > end - b->page_from))
		return damaged(err, "a point has more changes than pages");
	b->first_records[i] = b->records;
	b->records += s->records;
	return 0;
}

static int read_block(struct logbody *b, size_t i, struct im_reader *r, uint64_t offset, uint64_t record, struct im_error *err)
{
	struct block *k = &b->blocks[i];
	*k = (struct block){ .offset = offset, .first_record = record };
	k->first_page = im_read_u32(r);
	k->records = im_read_u32(r);
	k->control = im_read_u32(r);
	k->literals = im_read_u32(r);
	k->stored_control = im_read_u32(r);
	k->stored_literals = im_read_u32(r);
	if (!k->records || k->control > LOGBODY_MAX_STREAM_BYTES || k->literals > LOGBODY_MAX_STREAM_BYTES ||
	    k->records > k->control / LOGBODY_MIN_RECORD_BYTES || k->literals > (uint64_t)k->records * b->page_size)
		return damaged(err, "a block's size is impossible");
	if (!k->stored_control || k->stored_control > ZSTD_compressBound(k->control) || !k->stored_literals != !k->literals ||
	    (k->literals && k->stored_literals > ZSTD_compressBound(k->literals)))
		return damaged(err, "a block's stored size is impossible");
	if (b->section_count == 1 && i && k->first_page <= b->blocks[i - 1].first_page)
		return damaged(err, "its blocks are out of order");
	return 0;
}

static int read_tables(struct logbody *b, struct im_error *err)
{
	size_t sections_len = b->section_count * LOGBODY_SECTION_BYTES, blocks_len = b->block_count * LOGBODY_BLOCK_ENTRY_BYTES;
	auto_free uint8_t *data = malloc(sections_len + blocks_len);
	b->sections = calloc(b->section_count, sizeof *b->sections);
	b->first_records = calloc(b->section_count, sizeof *b->first_records);
	b->blocks = calloc(b->block_count + 1, sizeof *b->blocks);
	if (!data || !b->sections || !b->first_records || !b->blocks)
		return no_memory(err);
	int rc = b->source.read(b->source.context, LOGBODY_HEAD_BYTES, data, sections_len + blocks_len, err);
	struct im_reader r = im_reader_of(data, sections_len + blocks_len);
	for (size_t i = 0; rc == 0 && i < b->section_count; i++)
		rc = read_section(b, i, &r, err);
	uint64_t offset = LOGBODY_HEAD_BYTES + sections_len + blocks_len, records = 0;
	for (size_t i = 0; rc == 0 && i < b->block_count; i++) {
		rc = read_block(b, i, &r, offset, records, err);
		offset += (uint64_t)b->blocks[i].stored_control + b->blocks[i].stored_literals;
		records += b->blocks[i].records;
	}
	if (rc)
		return rc;
	if (offset != b->source.len)
		return damaged(err, "its length does not agree with its blocks");
	return records == b->records ? 0 : damaged(err, "its points and blocks do not agree");
}

int logbody_open(const struct follow_source *source, struct logbody **ret, struct im_error *err)
{
	IM_CLEANUP(im_auto_logbody) struct logbody *b = calloc(1, sizeof *b);
	if (!b)
		return no_memory(err);
	b->source = *source;
	int rc = read_head(b, err);
	if (rc == 0)
		rc = read_tables(b, err);
	if (rc == 0)
		*ret = TAKE_PTR(b);
	return rc;
}

uint32_t logbody_page_size(const struct logbody *b) { return b->page_size; }
size_t logbody_section_count(const struct logbody *b) { return b->section_count; }
const struct logbody_section *logbody_section_at(const struct logbody *b, size_t i) { return &b->sections[i]; }

void logbody_range(const struct logbody *b, uint32_t *ret_from, uint32_t *ret_to)
{
	*ret_from = b->page_from;
	*ret_to = b->page_to;
}

static int read_memory(void *context, uint64_t offset, void *ret, size_t len, struct im_error *err)
{
	const struct im_buf *b = context;
	if (offset > b->len || len > b->len - offset)
		return damaged(err, "it ends early");
	if (len)
		memcpy(ret, b->data + offset, len);
	return 0;
}

struct follow_source logbody_memory(const struct im_buf *b)
{
	return (struct follow_source){ .read = read_memory, .context = (void *)(uintptr_t)b, .len = b->len };
}

/* --- walking --- */

struct place {
	struct im_reader control, literals; /* the rest of the block */
	size_t next_block, section;
	uint32_t left_in_block, left_in_section;
	uint32_t page;   /* the last one read in this section, if any */
	bool any, absolute;
};

struct logbody_cursor {
	struct logbody *body;
	ZSTD_DCtx *zstd;           /* only while blocks are still to come: there may be many cursors */
	struct im_buf control, literals;
	struct place at;
};

int logbody_cursor_new(struct logbody *b, struct logbody_cursor **ret, struct im_error *err)
{
	struct logbody_cursor *c = calloc(1, sizeof *c);
	if (!c)
		return no_memory(err);
	c->body = b;
	c->at = (struct place){ .left_in_section = b->sections[0].records, .absolute = true };
	*ret = c;
	return 0;
}

void logbody_cursor_free(struct logbody_cursor *c)
{
	if (!c)
		return;
	ZSTD_freeDCtx(c->zstd);
	im_buf_free(&c->control);
	im_buf_free(&c->literals);
	free(c);
}

/* The source's next `stored` bytes must be exactly one frame of plain_len bytes. */
static int load_stream(struct logbody_cursor *c, uint64_t offset, uint32_t stored, uint32_t plain_len, struct im_buf *ret, struct im_error *err)
{
	auto_free uint8_t *data = malloc(stored ? stored : 1);
	ret->len = 0;
	uint8_t *plain = im_buf_grow(ret, plain_len);
	if (!data || !plain)
		return no_memory(err);
	if (!plain_len)
		return 0;
	int rc = c->body->source.read(c->body->source.context, offset, data, stored, err);
	if (rc)
		return rc;
	if (ZSTD_getFrameContentSize(data, stored) != plain_len || ZSTD_findFrameCompressedSize(data, stored) != stored)
		return damaged(err, "a block's stored size does not agree with its content");
	size_t n = ZSTD_decompressDCtx(c->zstd, plain, plain_len, data, stored);
	if (ZSTD_isError(n) || n != plain_len)
		return damaged(err, "a block cannot be decompressed");
	return 0;
}

/* Its streams are loaded. */
static void begin_block(struct logbody_cursor *c, size_t i)
{
	c->at.control = im_reader_of(c->control.data, c->control.len);
	c->at.literals = im_reader_of(c->literals.data, c->literals.len);
	c->at.left_in_block = c->body->blocks[i].records;
	c->at.next_block = i + 1;
	c->at.absolute = true;
}

static int load_block(struct logbody_cursor *c, size_t i, struct im_error *err)
{
	const struct block *k = &c->body->blocks[i];
	if (!c->zstd)
		c->zstd = ZSTD_createDCtx();
	if (!c->zstd)
		return no_memory(err);
	int rc = load_stream(c, k->offset, k->stored_control, k->control, &c->control, err);
	if (rc == 0)
		rc = load_stream(c, k->offset + k->stored_control, k->stored_literals, k->literals, &c->literals, err);
	if (i + 1 == c->body->block_count) {
		ZSTD_freeDCtx(c->zstd);
		c->zstd = NULL;
	}
	if (rc)
		return rc;
	begin_block(c, i);
	return 0;
}

static int read_page(struct logbody_cursor *c, uint32_t *ret_page, struct im_error *err)
{
	const struct logbody *b = c->body;
	const struct logbody_section *s = &b->sections[c->at.section];
	const struct block *k = &b->blocks[c->at.next_block - 1];
	struct place *at = &c->at;
	uint64_t page = varint_read(&at->control);
	if (!at->absolute)
		page += at->page;
	if (at->control.failed || (at->any && page <= at->page))
		return damaged(err, "its pages are out of order");
	if (page >= s->pages || page < b->page_from || page >= b->page_to)
		return damaged(err, "it has a page beyond its range");
	if (at->left_in_block == k->records && page != k->first_page)
		return damaged(err, "a block begins with another page than said");
	*ret_page = (uint32_t)page;
	return 0;
}

int logbody_next(struct logbody_cursor *c, struct logbody_record *ret, bool *ret_more, struct im_error *err)
{
	const struct logbody *b = c->body;
	struct place *at = &c->at;
	int rc = 0;
	while (!at->left_in_section && at->section + 1 < b->section_count) {
		at->left_in_section = b->sections[++at->section].records;
		at->any = false;
		at->absolute = true;
	}
	*ret_more = at->left_in_section > 0;
	if (!*ret_more)
		return 0;
	if (!at->left_in_block)
		rc = at->next_block < b->block_count ? load_block(c, at->next_block, err) : damaged(err, "it ends early");
	if (rc == 0)
		rc = read_page(c, &ret->page, err);
	if (rc)
		return rc;
	uint32_t flags = varint_read(&at->control);
	if (at->control.failed || flags > LOGBODY_HAS_BASE)
		return damaged(err, "a record is of an unknown kind");
	rc = pagediff_measure(b->page_size, flags == LOGBODY_HAS_BASE, &at->control, &at->literals, &ret->ops, err);
	if (rc)
		return rc;
	ret->section = (uint32_t)at->section;
	at->page = ret->page;
	at->any = true;
	at->absolute = false;
	at->left_in_section--;
	if (!--at->left_in_block && (im_read_left(&at->control) || im_read_left(&at->literals)))
		return damaged(err, "a block has something left over");
	return 0;
}

/* --- going elsewhere --- */

static size_t section_of(const struct logbody *b, uint64_t record)
{
	size_t low = 0, high = b->section_count; /* the last that begins at or before it */
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (b->first_records[middle] <= record)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Nothing is read yet. */
static void go_to_block(struct logbody_cursor *c, size_t i)
{
	const struct logbody *b = c->body;
	uint64_t record = i < b->block_count ? b->blocks[i].first_record : b->records;
	size_t section = section_of(b, record);
	uint64_t end = b->first_records[section] + b->sections[section].records;
	c->at = (struct place){ .next_block = i, .section = section, .left_in_section = (uint32_t)(end - record), .absolute = true };
}

int logbody_seek(struct logbody_cursor *c, uint32_t page, struct im_error *err)
{
	const struct logbody *b = c->body;
	if (b->section_count != 1)
		return im_fail(err, IM_EFAIL, "a log segment with several points cannot be searched by page");
	size_t low = 0, high = b->block_count; /* the last block that begins at or before page */
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (b->blocks[middle].first_page <= page)
			low = middle;
		else
			high = middle;
	}
	go_to_block(c, low);
	int rc = c->at.left_in_section ? load_block(c, low, err) : 0;
	while (rc == 0 && c->at.left_in_block) { /* the next block begins beyond page */
		struct place before = c->at;
		struct logbody_record record;
		bool more;
		rc = logbody_next(c, &record, &more, err);
		if (rc == 0 && record.page >= page) {
			c->at = before;
			break;
		}
	}
	return rc;
}

int logbody_seek_section(struct logbody_cursor *c, size_t section, struct im_error *err)
{
	const struct logbody *b = c->body;
	uint64_t record = b->first_records[section];
	size_t low = 0, high = b->block_count; /* the last block that begins at or before the record */
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (b->blocks[middle].first_record <= record)
			low = middle;
		else
			high = middle;
	}
	go_to_block(c, low);
	int rc = 0;
	for (uint64_t i = b->block_count ? b->blocks[low].first_record : record; rc == 0 && i < record; i++) {
		struct logbody_record skipped;
		bool more;
		rc = logbody_next(c, &skipped, &more, err);
	}
	return rc;
}

/* --- block by block --- */

size_t logbody_block_count(const struct logbody *b) { return b->block_count; }
uint32_t logbody_block_page(const struct logbody *b, size_t i) { return b->blocks[i].first_page; }

void logbody_block_sizes(const struct logbody *b, size_t i, uint32_t *ret_records, uint32_t *ret_literals)
{
	*ret_records = b->blocks[i].records;
	*ret_literals = b->blocks[i].literals;
}

void logbody_block_clear(struct logbody_block *block)
{
	free(block->records);
	im_buf_free(&block->control);
	im_buf_free(&block->literals);
	*block = (struct logbody_block){ 0 };
}

/* Takes the block's records from c, which has just loaded it. */
static int list_records(struct logbody_cursor *c, struct logbody_block *ret, struct im_error *err)
{
	size_t count = c->at.left_in_block;
	bool more = true;
	int rc = 0;
	ret->records = calloc(count, sizeof *ret->records);
	if (!ret->records)
		return no_memory(err);
	for (; rc == 0 && more && ret->count < count; ret->count += rc == 0 && more)
		rc = logbody_next(c, &ret->records[ret->count], &more, err);
	return rc ? rc : ret->count == count ? 0 : damaged(err, "it ends early");
}

int logbody_block_read(const struct logbody *b, size_t i, struct ZSTD_DCtx_s *zstd, bool literals, struct logbody_block *ret, struct im_error *err)
{
	if (b->section_count != 1)
		return im_fail(err, IM_EFAIL, "a log segment with several points cannot be read block by block");
	struct logbody_cursor c = { .body = (struct logbody *)(uintptr_t)b, .zstd = zstd };
	const struct block *k = &b->blocks[i];
	go_to_block(&c, i);
	int rc = load_stream(&c, k->offset, k->stored_control, k->control, &c.control, err);
	if (rc == 0 && literals)
		rc = load_stream(&c, k->offset + k->stored_control, k->stored_literals, k->literals, &c.literals, err);
	else if (rc == 0 && !im_buf_grow(&c.literals, k->literals)) /* measured, never looked at */
		rc = no_memory(err);
	if (rc == 0) {
		begin_block(&c, i);
		rc = list_records(&c, ret, err);
	}
	for (size_t n = 0; rc == 0 && !literals && n < ret->count; n++)
		ret->records[n].ops.literals = NULL;
	ret->control = c.control;
	ret->literals = c.literals;
	if (!literals)
		im_buf_free(&ret->literals);
	if (rc)
		logbody_block_clear(ret);
	return rc;
}
