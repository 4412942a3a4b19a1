/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The WAL reader: a cursor that goes on where it stopped, and wal_load, one run of it up to a commit.
 *
 *   header: magic[4] (bit 0: checksums over big-endian words) version[4] page size[4] sequence[4] salts[8] checksum[8]
 *   frame:  page[4] commit size[4] salts[8] checksum[8] content[page size]; all big-endian
 *
 * The checksum runs on from the header through every frame's first 8 bytes and content.
 */
#include "stores/sqlite/wal.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "stores/sqlite/dbheader.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define WAL_MAGIC 0x377f0682u
#define WAL_VERSION 3007000u
#define BATCH_BYTES (1u << 20)

static void checksum_add(struct wal_cursor *c, const uint8_t *data, size_t len)
{
	uint32_t s0 = c->frame_checksum[0], s1 = c->frame_checksum[1], pair[2];
	if (c->big_endian) {
		for (size_t i = 0; i < len; i += 8) {
			memcpy(pair, data + i, 8);
			s0 += be32toh(pair[0]) + s1;
			s1 += be32toh(pair[1]) + s0;
		}
	} else {
		for (size_t i = 0; i < len; i += 8) {
			memcpy(pair, data + i, 8);
			s0 += le32toh(pair[0]) + s1;
			s1 += le32toh(pair[1]) + s0;
		}
	}
	c->frame_checksum[0] = s0;
	c->frame_checksum[1] = s1;
}

static bool checksum_is(const struct wal_cursor *c, const uint8_t *be)
{
	return c->frame_checksum[0] == im_be32(be) && c->frame_checksum[1] == im_be32(be + 4);
}

int wal_cursor_start(wal_read_fn *read, void *context, const char *what, uint32_t page_size, const uint8_t salt[8], struct wal_cursor *ret, struct im_error *err)
{
	uint8_t data[WAL_HEADER_BYTES];
	struct wal_cursor c = { .page_size = page_size };
	if (!dbheader_page_size_valid(page_size))
		return im_fail(err, IM_ECORRUPT, "%s: impossible page size %u", what, page_size);
	ssize_t n = read(context, data, sizeof data, 0, err);
	if (n < 0)
		return (int)n;
	if (n < (ssize_t)sizeof data)
		return im_fail(err, IM_ECORRUPT, "%s is shorter than its header", what);
	uint32_t magic = im_be32(data), its_size = im_be32(data + 8);
	if ((magic & ~1u) != WAL_MAGIC || im_be32(data + 4) != WAL_VERSION)
		return im_fail(err, IM_ECORRUPT, "%s is not a write-ahead log of a version this imvault knows", what);
	if (its_size != page_size)
		return im_fail(err, IM_ECORRUPT, "%s has pages of %u bytes, its database of %u", what, its_size, page_size);
	if (memcmp(data + 16, salt, 8) != 0)
		return im_fail(err, IM_ECORRUPT, "%s was restarted while it was read", what);
	c.big_endian = magic & 1;
	memcpy(c.salt, salt, 8);
	checksum_add(&c, data, 24);
	if (!checksum_is(&c, data + 24))
		return im_fail(err, IM_ECORRUPT, "%s: wrong checksum in the header", what);
	*ret = c;
	return 0;
}

static int frame_take(struct wal_cursor *c, const char *what, const uint8_t *data, uint32_t to, struct im_error *err)
{
	uint32_t frame = c->frame + 1;
	if (memcmp(data + 8, c->salt, 8) != 0 || im_be32(data) == 0)
		return im_fail(err, IM_ECORRUPT, "%s: frame %u of %u is not of this generation", what, frame, to);
	checksum_add(c, data, 8);
	checksum_add(c, data + WAL_FRAME_HEADER_BYTES, c->page_size);
	if (!checksum_is(c, data + 16))
		return im_fail(err, IM_ECORRUPT, "%s: wrong checksum in frame %u of %u", what, frame, to);
	c->frame = frame;
	c->commit_pages = im_be32(data + 4);
	return 0;
}

int wal_cursor_advance(struct wal_cursor *c, wal_read_fn *read, void *context, const char *what, uint32_t to, wal_frame_fn *fn, void *fn_context, struct im_error *err)
{
	size_t frame_bytes = WAL_FRAME_HEADER_BYTES + c->page_size;
	uint32_t batch = BATCH_BYTES / frame_bytes ? (uint32_t)(BATCH_BYTES / frame_bytes) : 1;
	batch = to - c->frame < batch ? to - c->frame : batch;
	if (!batch)
		return 0;
	auto_free uint8_t *buffer = malloc(batch * frame_bytes);
	if (!buffer)
		return im_fail(err, IM_ENOMEM, "out of memory reading %s", what);
	while (c->frame < to) {
		uint32_t left = to - c->frame, count = left < batch ? left : batch;
		uint64_t offset = WAL_HEADER_BYTES + (uint64_t)c->frame * frame_bytes;
		struct wal_cursor ahead = *c;
		ssize_t n = read(context, buffer, count * frame_bytes, offset, err);
		if (n < 0)
			return (int)n;
		if ((size_t)n < count * frame_bytes)
			return im_fail(err, IM_ECORRUPT, "%s ends before frame %u", what, to);
		for (uint32_t i = 0; i < count; i++) {
			const uint8_t *data = buffer + i * frame_bytes;
			int rc = frame_take(&ahead, what, data, to, err);
			if (rc == 0 && fn)
				rc = fn(fn_context, ahead.frame, im_be32(data), ahead.commit_pages, err);
			if (rc)
				return rc;
		}
		*c = ahead;
	}
	return 0;
}

int wal_table_add(struct wal_table *t, size_t *room, uint32_t page, uint32_t frame, struct im_error *err)
{
	if (t->count == *room) {
		size_t more = *room ? *room * 2 : 1024;
		uint64_t *items = realloc(t->items, more * sizeof *items);
		if (!items)
			return im_fail(err, IM_ENOMEM, "out of memory for the pages of a write-ahead log");
		t->items = items;
		*room = more;
	}
	t->items[t->count++] = (uint64_t)page << 32 | frame;
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

void wal_table_sort(struct wal_table *t)
{
	if (t->count)
		qsort(t->items, t->count, sizeof *t->items, by_value);
	size_t kept = 0;
	for (size_t i = 0; i < t->count; i++)
		if (i + 1 == t->count || t->items[i] >> 32 != t->items[i + 1] >> 32)
			t->items[kept++] = t->items[i];
	t->count = kept;
}

struct load {
	struct wal_table table;
	size_t room;
};

static int load_frame(void *context, uint32_t frame, uint32_t page, uint32_t commit_pages, struct im_error *err)
{
	struct load *l = context;
	(void)commit_pages;
	return wal_table_add(&l->table, &l->room, page, frame, err);
}

static int load_run(struct load *l, wal_read_fn *read, void *context, const char *what, const struct wal_expect *expect, struct im_error *err)
{
	struct wal_cursor c;
	int rc = wal_cursor_start(read, context, what, expect->page_size, expect->salt, &c, err);
	if (rc == 0)
		rc = wal_cursor_advance(&c, read, context, what, expect->max_frame, load_frame, l, err);
	if (rc)
		return rc;
	if (c.commit_pages == 0 || c.commit_pages != expect->pages)
		return im_fail(err, IM_ECORRUPT, "%s: frame %u does not end the commit it should", what, c.frame);
	if (memcmp(c.frame_checksum, expect->frame_checksum, sizeof c.frame_checksum) != 0)
		return im_fail(err, IM_ECORRUPT, "%s: its checksum at frame %u is not the one in the index", what, c.frame);
	return 0;
}

int wal_load(wal_read_fn *read, void *context, const char *what, const struct wal_expect *expect, struct wal_table *ret, struct im_error *err)
{
	struct load l = { 0 };
	if (!dbheader_page_size_valid(expect->page_size))
		return im_fail(err, IM_ECORRUPT, "%s: impossible page size %u", what, expect->page_size);
	int rc = expect->max_frame ? load_run(&l, read, context, what, expect, err) : 0;
	if (rc) {
		wal_table_clear(&l.table);
		return rc;
	}
	wal_table_sort(&l.table);
	*ret = l.table;
	return 0;
}

void wal_table_clear(struct wal_table *t)
{
	free(t->items);
	*t = (struct wal_table){ 0 };
}

size_t wal_table_seek(const struct wal_table *t, uint32_t page)
{
	size_t low = 0, high = t->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (t->items[middle] >> 32 < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

uint32_t wal_table_frame(const struct wal_table *t, uint32_t page)
{
	size_t i = wal_table_seek(t, page);
	return i < t->count && t->items[i] >> 32 == page ? (uint32_t)t->items[i] : 0;
}

uint64_t wal_frame_offset(uint32_t page_size, uint32_t frame)
{
	return WAL_HEADER_BYTES + (uint64_t)(frame - 1) * (WAL_FRAME_HEADER_BYTES + page_size) + WAL_FRAME_HEADER_BYTES;
}
