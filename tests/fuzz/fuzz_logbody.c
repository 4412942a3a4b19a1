/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of a database's log: raw bytes, and bytes taken as the plain streams of a body whose
 * compression and tables are made right first, so that the input reaches the records. What can be
 * read must apply, be found again, and merge to the same pages as applying one by one.
 */
#include "fuzz.h"

#include "stores/sqlite/logmerge.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define PAGES 64u /* of the database that changes are applied to */

struct pages {
	uint32_t page_size;
	uint8_t *data;
};

static void apply_record(const struct pages *p, const struct logbody_record *r)
{
	uint8_t *page = malloc(p->page_size);
	if (!page)
		abort();
	if (r->page < PAGES) {
		uint8_t *old = p->data + (size_t)r->page * p->page_size;
		IM_CHECK(pagediff_apply(p->page_size, &r->ops, old, page, NULL) == 0);
		memcpy(old, page, p->page_size);
	}
	free(page);
}

/* Walks all records, into p if it is not NULL. True if the body is sound. */
static bool walk(struct logbody *b, const struct pages *p)
{
	struct logbody_cursor *c = NULL;
	struct logbody_record r;
	bool more = true;
	uint64_t count = 0, expected = 0;
	IM_CHECK(logbody_cursor_new(b, &c, NULL) == 0);
	int rc = 0;
	while (rc == 0 && more) {
		rc = logbody_next(c, &r, &more, NULL);
		if (rc == 0 && more) {
			IM_CHECK(r.page < logbody_section_at(b, r.section)->pages);
			count++;
			if (p)
				apply_record(p, &r);
		}
	}
	for (size_t i = 0; i < logbody_section_count(b); i++)
		expected += logbody_section_at(b, i)->records;
	IM_CHECK(rc || count == expected);
	for (uint32_t page = 0; page < PAGES && logbody_section_count(b) == 1; page += 7)
		if (logbody_seek(c, page, NULL) == 0 && logbody_next(c, &r, &more, NULL) == 0 && more)
			IM_CHECK(r.page >= page);
	for (size_t i = 0; i < logbody_section_count(b) && i < 8; i++)
		if (logbody_seek_section(c, i, NULL) == 0 && logbody_next(c, &r, &more, NULL) == 0 && more)
			IM_CHECK(rc || (logbody_section_at(b, i)->records ? r.section == i : r.section > i));
	logbody_cursor_free(c);
	return rc == 0;
}

static bool load(const struct im_buf *data, const struct pages *p)
{
	struct follow_source source = logbody_memory(data);
	struct logbody *b = NULL;
	if (logbody_open(&source, &b, NULL))
		return false;
	bool sound = (!p || logbody_page_size(b) == p->page_size) && walk(b, NULL);
	if (sound && p)
		walk(b, p);
	logbody_free(b);
	return sound;
}

static int apply_part(void *context, const void *data, size_t len, bool final, struct im_error *err)
{
	struct im_buf part = { .data = (uint8_t *)(uintptr_t)data, .len = len };
	(void)final;
	(void)err;
	IM_CHECK(load(&part, context));
	return 0;
}

static void put_frame(struct im_buf *b, const uint8_t *data, size_t len, size_t *ret_stored)
{
	size_t bound = ZSTD_compressBound(len), begin = b->len;
	uint8_t *p = im_buf_grow(b, bound);
	*ret_stored = 0;
	if (!p)
		abort();
	if (len)
		*ret_stored = ZSTD_compress(p, bound, data, len, 1);
	b->len = begin + *ret_stored;
}

/* A body of one block. Before the streams: page size, sections, records of the first and of the others, pages, length of control[2]. */
#define HEAD 7u
static void wrap(const uint8_t *data, size_t size, uint32_t first_point, struct im_buf *ret)
{
	uint32_t sections = 1 + data[1] % 3, pages = data[4] % (PAGES + 1), records = data[2] + (sections - 1) * (uint32_t)data[3];
	size_t wanted = data[5] | (size_t)data[6] << 8, control = wanted < size - HEAD ? wanted : size - HEAD, literals = size - HEAD - control, stored[2];
	auto_buf struct im_buf frames = { 0 };
	struct im_reader first = im_reader_of(data + HEAD, control);
	put_frame(&frames, data + HEAD, control, &stored[0]);
	put_frame(&frames, data + HEAD + control, literals, &stored[1]);
	const uint32_t head[8] = { 1, 512u << data[0] % 8, sections, records ? 1 : 0, 0, LOGBODY_OPEN_END, 0, 0 };
	for (unsigned i = 0; i < 8; i++)
		im_buf_put_u32(ret, head[i]);
	for (uint32_t i = 0; i < sections; i++) {
		im_buf_put_u32(ret, first_point + i);
		im_buf_put_u32(ret, pages);
		for (unsigned k = 0; k < 4; k++)
			im_buf_put_u64(ret, first_point);
		im_buf_put_u32(ret, i ? data[3] : data[2]);
		im_buf_put_u32(ret, 0);
	}
	if (!records)
		return;
	const uint32_t block[6] = { im_read_u8(&first), records, (uint32_t)control, (uint32_t)literals, (uint32_t)stored[0], (uint32_t)stored[1] };
	for (unsigned i = 0; i < 6; i++)
		im_buf_put_u32(ret, block[i]);
	im_buf_put(ret, frames.data, frames.len);
}

static void fill(const struct pages *p)
{
	for (size_t i = 0; i < (size_t)PAGES * p->page_size; i++)
		p->data[i] = (uint8_t)(i * 37 / 11);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_buf struct im_buf raw = { 0 }, older = { 0 }, newer = { 0 };
	im_buf_put(&raw, data, size);
	load(&raw, NULL);
	if (size < HEAD + 2)
		return 0;
	wrap(data, size, 1, &older);
	wrap(data, size, 10, &newer);
	struct pages one = { .page_size = 512u << data[0] % 8 }, all = one;
	one.data = malloc((size_t)PAGES * one.page_size);
	all.data = malloc((size_t)PAGES * one.page_size);
	if (!one.data || !all.data)
		abort();
	struct follow_source sources[2] = { logbody_memory(&older), logbody_memory(&newer) };
	bool sound = load(&older, NULL);
	fill(&one);
	fill(&all);
	int rc = logmerge_run(sources, 2, 0, UINT32_MAX, apply_part, &all, NULL);
	IM_CHECK(!sound == (rc != 0));
	if (sound) {
		IM_CHECK(load(&older, &one) && load(&newer, &one));
		IM_CHECK(memcmp(one.data, all.data, (size_t)PAGES * one.page_size) == 0);
	}
	free(one.data);
	free(all.data);
	return 0;
}
