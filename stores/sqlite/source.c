/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading pages. A page that has a frame is always taken from the WAL: a checkpoint may be writing
 * it to the database at this moment. All other pages stand still while the pin is held.
 */
#include "stores/sqlite/source.h"

#include "base/file.h"
#include "stores/sqlite/dbheader.h"

#include <string.h>

static int overlay(const struct source *s, uint32_t first, uint32_t count, uint32_t in_file, uint8_t *ret, struct im_error *err)
{
	size_t item = s->table ? wal_table_seek(s->table, first + 1) : 0;
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *at = ret + (size_t)i * s->page_size;
		uint32_t number = first + i;
		if (s->table && item < s->table->count && s->table->items[item] >> 32 == number + UINT64_C(1)) {
			uint32_t frame = (uint32_t)s->table->items[item++];
			ssize_t n = im_pread_full(s->wal, at, s->page_size, wal_frame_offset(s->page_size, frame), err, "a write-ahead log");
			if (n < 0)
				return (int)n;
			if ((size_t)n < s->page_size)
				return im_fail(err, IM_ECORRUPT, "%s-wal ends within frame %u", s->path, frame);
		} else if (i >= in_file) {
			if (!s->moving && dbheader_lock_page(s->page_size, s->pages) != number)
				return im_fail(err, IM_ECORRUPT,
				    "page %u of %u is neither in %s nor in its -wal: the database is damaged (or was copied without its -wal)",
				    number + 1, s->pages, s->path);
			memset(at, 0, s->page_size);
		}
	}
	return 0;
}

int source_read(const struct source *s, uint32_t first, uint32_t count, uint8_t *ret, struct im_error *err)
{
	ssize_t n = im_pread_full(s->db, ret, (size_t)count * s->page_size, (uint64_t)first * s->page_size, err, s->path);
	if (n < 0)
		return (int)n;
	return overlay(s, first, count, (uint32_t)((size_t)n / s->page_size), ret, err);
}
