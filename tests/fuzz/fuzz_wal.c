/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The WAL reader: raw bytes, and bytes whose frame checksums are made right first (by SQLite's file
 * format, section 4.2), so that the input reaches what lies behind the checksums.
 */
#include "fuzz.h"

#include "stores/sqlite/wal.h"

#include <stdlib.h>
#include <string.h>

struct memory {
	const uint8_t *data;
	size_t len;
};

static ssize_t read_memory(void *context, void *ret, size_t len, uint64_t offset, struct im_error *err)
{
	const struct memory *m = context;
	(void)err;
	if (offset >= m->len)
		return 0;
	size_t n = m->len - offset < len ? m->len - (size_t)offset : len;
	memcpy(ret, m->data + offset, n);
	return (ssize_t)n;
}

static void put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static void add_checksum(uint32_t s[2], const uint8_t *p, size_t len)
{
	for (size_t i = 0; i + 8 <= len; i += 8) {
		s[0] += im_be32(p + i) + s[1];
		s[1] += im_be32(p + i + 4) + s[0];
	}
}

static void load(const uint8_t *wal, size_t len, const struct wal_expect *expect)
{
	struct memory m = { wal, len };
	struct wal_table t = { 0 };
	if (wal_load(read_memory, &m, "wal", expect, &t, NULL) == 0) {
		for (uint32_t page = 0; page < 40; page++)
			IM_CHECK(wal_table_frame(&t, page) <= expect->max_frame);
		wal_table_clear(&t);
	}
}

#define FRAME (WAL_FRAME_HEADER_BYTES + 512)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wal_expect expect = { .page_size = 512, .max_frame = (uint32_t)(size > WAL_HEADER_BYTES ? (size - WAL_HEADER_BYTES) / FRAME : 0) };
	if (size < WAL_HEADER_BYTES)
		return 0;
	memcpy(expect.salt, data + 16, 8);
	expect.pages = data[12];
	load(data, size, &expect);

	uint8_t *wal = malloc(size);
	uint32_t s[2] = { 0, 0 };
	if (!wal)
		return 0;
	memcpy(wal, data, size);
	put_be32(wal, 0x377f0683);
	put_be32(wal + 4, 3007000);
	put_be32(wal + 8, 512);
	add_checksum(s, wal, 24);
	put_be32(wal + 24, s[0]);
	put_be32(wal + 28, s[1]);
	for (uint32_t i = 0; i < expect.max_frame; i++) {
		uint8_t *frame = wal + WAL_HEADER_BYTES + (size_t)i * FRAME;
		memcpy(frame + 8, wal + 16, 8);
		add_checksum(s, frame, 8);
		add_checksum(s, frame + WAL_FRAME_HEADER_BYTES, 512);
		put_be32(frame + 16, s[0]);
		put_be32(frame + 20, s[1]);
		expect.pages = im_be32(frame + 4);
	}
	memcpy(expect.frame_checksum, s, sizeof s);
	load(wal, size, &expect);
	free(wal);
	return 0;
}
