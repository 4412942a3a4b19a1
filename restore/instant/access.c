/* SPDX-License-Identifier: Apache-2.0 */
#include "restore/instant/access.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum {
	AHEAD_BLOCKS = 16,
	AHEAD_GAP_BLOCKS = 4, /* not further behind the access before */
};

static size_t slot_of(const struct access_index *x, uint64_t device, uint64_t ino)
{
	return (size_t)(((ino ^ device << 40) * 0x9e3779b97f4a7c15u) >> 20) & (x->count - 1);
}

int access_index_new(const struct table *t, struct access_index *ret, struct im_error *err)
{
	uint32_t files = t->head->file_count;
	struct access_index x = { .count = 64 };
	while (x.count < 2 * (size_t)files)
		x.count *= 2;
	x.slots = malloc(x.count * sizeof *x.slots);
	if (!x.slots)
		return im_fail(err, IM_ENOMEM, "out of memory");
	memset(x.slots, 0xff, x.count * sizeof *x.slots);
	for (uint32_t i = 0; i < files; i++) {
		if (!t->files[i].ino)
			continue; /* complete since before a crash */
		size_t at = slot_of(&x, t->files[i].device, t->files[i].ino);
		while (x.slots[at] != ACCESS_NO_FILE)
			at = (at + 1) & (x.count - 1);
		x.slots[at] = i;
	}
	*ret = x;
	return 0;
}

void access_index_clear(struct access_index *x)
{
	free(x->slots);
	*x = (struct access_index){ 0 };
}

uint32_t access_find(const struct access_index *x, const struct table *t, const struct stat *st)
{
	for (size_t at = slot_of(x, st->st_dev, st->st_ino); x->slots[at] != ACCESS_NO_FILE; at = (at + 1) & (x->count - 1)) {
		const struct table_file *f = &t->files[x->slots[at]];
		if (f->ino == st->st_ino && f->device == st->st_dev)
			return x->slots[at];
	}
	return ACCESS_NO_FILE;
}

bool access_is_there(const struct table *t, uint32_t file, uint64_t offset, uint64_t end)
{
	for (uint64_t b = offset / TABLE_BLOCK_BYTES; b * TABLE_BLOCK_BYTES < end; b++)
		if ((*table_block(t, file, (uint32_t)b) & BLOCK_STATE) != BLOCK_DONE)
			return false;
	return true;
}

void access_trace(struct table *t, uint32_t file, uint64_t offset, uint64_t end)
{
	struct table_head *head = t->head;
	for (uint64_t b = offset / TABLE_BLOCK_BYTES; !head->service_us && b * TABLE_BLOCK_BYTES < end; b++) {
		uint8_t old = atomic_fetch_or(table_block(t, file, (uint32_t)b), BLOCK_TOUCHED);
		if (old & BLOCK_TOUCHED || head->trace_count >= TABLE_TRACE_MAX)
			continue;
		uint32_t at = atomic_fetch_add(&head->trace_count, 1);
		if (at < TABLE_TRACE_MAX)
			head->trace[at] = (struct table_touch){ file, (uint32_t)b };
	}
}

void access_count(struct table *t, int64_t since_us)
{
	struct table_head *head = t->head;
	uint64_t took = (uint64_t)(im_monotonic_us() - since_us), longest = head->longest_us;
	atomic_fetch_add(&head->events, 1);
	while (took > longest && !atomic_compare_exchange_weak(&head->longest_us, &longest, took))
		;
}

void access_look_ahead(struct hydrator *h, struct hydrate_lane *l, const struct table *t, uint32_t file, uint64_t offset, uint64_t end,
    _Atomic uint32_t *last)
{
	uint32_t first = (uint32_t)(offset / TABLE_BLOCK_BYTES), next = (uint32_t)((end + TABLE_BLOCK_BYTES - 1) / TABLE_BLOCK_BYTES);
	uint32_t before = atomic_exchange(last, next);
	uint64_t limit = t->files[file].limit, from = (uint64_t)next * TABLE_BLOCK_BYTES, len = (uint64_t)AHEAD_BLOCKS * TABLE_BLOCK_BYTES;
	struct im_error ignored = { 0 }; /* whoever needs it will be told */
	if (!before || first + 1 < before || first > before + AHEAD_GAP_BLOCKS || from >= limit)
		return;
	hydrate_range(h, l, file, from, limit - from < len ? limit - from : len, HYDRATE_AHEAD, &ignored);
}
