/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaves: 32 bytes per run: first[4] count[2] skip[2] ref[20] zero[4].
 */
#include "stores/sqlite/leafmap.h"

#include <stdlib.h>

void leafmap_clear(struct leafmap_list *l)
{
	free(l->runs);
	*l = (struct leafmap_list){ 0 };
}

static bool same_extent(const struct im_ref *a, const struct im_ref *b)
{
	return a->pack == b->pack && a->offset == b->offset && a->stored == b->stored && a->slot == b->slot &&
	    a->plain == b->plain;
}

int leafmap_add(struct leafmap_list *l, const struct leafmap_run *run, struct im_error *err)
{
	struct leafmap_run *last = l->count ? &l->runs[l->count - 1] : NULL;
	if (last && last->first + last->count == run->first && last->skip + last->count == run->skip &&
	    last->count + run->count <= UINT16_MAX && same_extent(&last->ref, &run->ref)) {
		last->count = (uint16_t)(last->count + run->count);
		return 0;
	}
	if (l->count == l->room) {
		size_t room = l->room ? l->room * 2 : 64;
		struct leafmap_run *runs = realloc(l->runs, room * sizeof *runs);
		if (!runs)
			return im_fail(err, IM_ENOMEM, "out of memory for a map");
		l->runs = runs;
		l->room = room;
	}
	l->runs[l->count++] = *run;
	return 0;
}

static size_t seek(const struct leafmap_list *l, uint32_t page)
{
	size_t low = 0, high = l->count; /* the first run that ends behind page */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (l->runs[middle].first + l->runs[middle].count <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct leafmap_run *leafmap_find(const struct leafmap_list *l, uint32_t page)
{
	size_t i = seek(l, page);
	return i < l->count && l->runs[i].first <= page ? &l->runs[i] : NULL;
}

int leafmap_clip(struct leafmap_list *ret, const struct leafmap_list *list, uint32_t first, uint32_t count, struct im_error *err)
{
	uint32_t end = first + count;
	for (size_t i = seek(list, first); first < end; i++) {
		const struct leafmap_run *run = i < list->count ? &list->runs[i] : NULL;
		if (!run || run->first > first)
			return im_fail(err, IM_ECORRUPT, "a map does not cover page %u of its leaf", first);
		uint32_t run_end = run->first + run->count, stop = run_end < end ? run_end : end;
		struct leafmap_run part = { first, (uint16_t)(stop - first), (uint16_t)(run->skip + (first - run->first)),
			run->ref };
		int rc = leafmap_add(ret, &part, err);
		if (rc)
			return rc;
		first = stop;
	}
	return 0;
}

void leafmap_encode(const struct leafmap_list *l, struct im_buf *ret)
{
	for (size_t i = 0; i < l->count; i++) {
		im_buf_put_u32(ret, l->runs[i].first);
		im_buf_put_u16(ret, l->runs[i].count);
		im_buf_put_u16(ret, l->runs[i].skip);
		ref_put(ret, l->runs[i].ref);
		im_buf_put_u32(ret, 0);
	}
}

static bool run_valid(const struct leafmap_run *run, uint32_t zero, uint32_t expected_first, uint32_t page_size, uint32_t pages)
{
	uint32_t extent_pages = run->ref.plain / page_size;
	return zero == 0 && run->first == expected_first && run->count > 0 && run->count <= pages - run->first &&
	    run->ref.plain % page_size == 0 && run->ref.plain <= ENTRY_MAX_PLAIN_BYTES &&
	    (uint32_t)run->skip + run->count <= extent_pages;
}

int leafmap_decode(const void *data, size_t len, uint32_t page_size, uint32_t pages, struct leafmap_list *ret, struct im_error *err)
{
	if (pages == 0 || pages > LEAFMAP_PAGES || len == 0 || len % LEAFMAP_RUN_BYTES || len / LEAFMAP_RUN_BYTES > pages)
		return im_fail(err, IM_ECORRUPT, "a map leaf of %zu bytes for %u pages is impossible", len, pages);
	struct im_reader r = im_reader_of(data, len);
	struct leafmap_list list = { .room = len / LEAFMAP_RUN_BYTES };
	list.runs = calloc(list.room, sizeof *list.runs);
	if (!list.runs)
		return im_fail(err, IM_ENOMEM, "out of memory for a map");
	uint32_t next = 0;
	while (im_read_left(&r)) {
		struct leafmap_run *run = &list.runs[list.count++];
		run->first = im_read_u32(&r);
		run->count = im_read_u16(&r);
		run->skip = im_read_u16(&r);
		run->ref = ref_read(&r);
		uint32_t zero = im_read_u32(&r);
		if (next >= pages || !run_valid(run, zero, next, page_size, pages)) {
			size_t bad = list.count - 1;
			leafmap_clear(&list);
			return im_fail(err, IM_ECORRUPT, "run %zu of a map leaf is impossible", bad);
		}
		next += run->count;
	}
	if (next != pages) {
		leafmap_clear(&list);
		return im_fail(err, IM_ECORRUPT, "a map leaf covers %u of its %u pages", next, pages);
	}
	*ret = list;
	return 0;
}
