/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The WAL reader.
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

struct scan {
	const struct wal_expect *expect;
	const char *what;
	bool big_endian;
	uint32_t s0, s1;
	uint32_t frame, commit_pages; /* of the last frame taken */
	struct wal_table table;
	size_t room;
};

static void checksum_add(struct scan *s, const uint8_t *data, size_t len)
{
	uint32_t s0 = s->s0, s1 = s->s1, pair[2];
	if (s->big_endian) {
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
	s->s0 = s0;
	s->s1 = s1;
}

static int header_check(struct scan *s, const uint8_t data[WAL_HEADER_BYTES], struct im_error *err)
{
	uint32_t magic = im_be32(data), page_size = im_be32(data + 8);
	if ((magic & ~1u) != WAL_MAGIC || im_be32(data + 4) != WAL_VERSION)
		return im_fail(err, IM_ECORRUPT, "%s is not a write-ahead log of a version this imvault knows", s->what);
	if (page_size != s->expect->page_size)
		return im_fail(err, IM_ECORRUPT, "%s has pages of %u bytes, its database of %u", s->what, page_size,
		    s->expect->page_size);
	if (memcmp(data + 16, s->expect->salt, 8) != 0)
		return im_fail(err, IM_ECORRUPT, "%s was restarted while it was read", s->what);
	s->big_endian = magic & 1;
	checksum_add(s, data, 24);
	if (s->s0 != im_be32(data + 24) || s->s1 != im_be32(data + 28))
		return im_fail(err, IM_ECORRUPT, "%s: wrong checksum in the header", s->what);
	return 0;
}

static int table_add(struct wal_table *t, size_t *room, uint32_t page, uint32_t frame, struct im_error *err)
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

static int frame_take(struct scan *s, const uint8_t *data, struct im_error *err)
{
	uint32_t page = im_be32(data), frame = s->frame + 1;
	if (memcmp(data + 8, s->expect->salt, 8) != 0 || page == 0)
		return im_fail(err, IM_ECORRUPT, "%s: frame %u of %u is not of this generation", s->what, frame,
		    s->expect->max_frame);
	checksum_add(s, data, 8);
	checksum_add(s, data + WAL_FRAME_HEADER_BYTES, s->expect->page_size);
	if (s->s0 != im_be32(data + 16) || s->s1 != im_be32(data + 20))
		return im_fail(err, IM_ECORRUPT, "%s: wrong checksum in frame %u of %u", s->what, frame,
		    s->expect->max_frame);
	s->frame = frame;
	s->commit_pages = im_be32(data + 4);
	return table_add(&s->table, &s->room, page, frame, err);
}

static int scan_frames(struct scan *s, wal_read_fn *read, void *context, struct im_error *err)
{
	size_t frame_bytes = WAL_FRAME_HEADER_BYTES + s->expect->page_size;
	uint32_t batch = BATCH_BYTES / frame_bytes ? (uint32_t)(BATCH_BYTES / frame_bytes) : 1;
	auto_free uint8_t *buffer = malloc(batch * frame_bytes);
	if (!buffer)
		return im_fail(err, IM_ENOMEM, "out of memory reading %s", s->what);
	while (s->frame < s->expect->max_frame) {
		uint32_t left = s->expect->max_frame - s->frame, count = left < batch ? left : batch;
		uint64_t offset = WAL_HEADER_BYTES + (uint64_t)s->frame * frame_bytes;
		ssize_t n = read(context, buffer, count * frame_bytes, offset, err);
		if (n < 0)
			return (int)n;
		if ((size_t)n < count * frame_bytes)
			return im_fail(err, IM_ECORRUPT, "%s ends before frame %u", s->what, s->expect->max_frame);
		for (uint32_t i = 0; i < count; i++) {
			int rc = frame_take(s, buffer + i * frame_bytes, err);
			if (rc)
				return rc;
		}
	}
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void keep_last_frames(struct wal_table *t)
{
	if (t->count)
		qsort(t->items, t->count, sizeof *t->items, by_value);
	size_t kept = 0;
	for (size_t i = 0; i < t->count; i++)
		if (i + 1 == t->count || t->items[i] >> 32 != t->items[i + 1] >> 32)
			t->items[kept++] = t->items[i];
	t->count = kept;
}

static int scan_run(struct scan *s, wal_read_fn *read, void *context, struct im_error *err)
{
	uint8_t header[WAL_HEADER_BYTES];
	ssize_t n = read(context, header, sizeof header, 0, err);
	if (n < 0)
		return (int)n;
	if (n < (ssize_t)sizeof header)
		return im_fail(err, IM_ECORRUPT, "%s is shorter than its header", s->what);
	int rc = header_check(s, header, err);
	if (rc == 0)
		rc = scan_frames(s, read, context, err);
	if (rc)
		return rc;
	if (s->commit_pages == 0 || s->commit_pages != s->expect->pages)
		return im_fail(err, IM_ECORRUPT, "%s: frame %u does not end the commit it should", s->what, s->frame);
	if (s->s0 != s->expect->frame_checksum[0] || s->s1 != s->expect->frame_checksum[1])
		return im_fail(err, IM_ECORRUPT, "%s: its checksum at frame %u is not the one in the index", s->what, s->frame);
	return 0;
}

int wal_load(wal_read_fn *read, void *context, const char *what, const struct wal_expect *expect, struct wal_table *ret, struct im_error *err)
{
	struct scan s = { .expect = expect, .what = what };
	if (!dbheader_page_size_valid(expect->page_size))
		return im_fail(err, IM_ECORRUPT, "%s: impossible page size %u", what, expect->page_size);
	int rc = expect->max_frame ? scan_run(&s, read, context, err) : 0;
	if (rc) {
		wal_table_clear(&s.table);
		return rc;
	}
	keep_last_frames(&s.table);
	*ret = s.table;
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
