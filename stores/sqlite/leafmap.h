/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A leaf of a paged file's map (FORMAT §5, type sqlite): runs that say which extent holds which
 * pages. Encoding, hostile-checked decoding, cutting and joining. Pure.
 */
#ifndef IM_STORES_SQLITE_LEAFMAP_H
#define IM_STORES_SQLITE_LEAFMAP_H

#include "vault/pack.h"

#define LEAFMAP_PAGES 4096 /* per leaf */
#define LEAFMAP_RUN_BYTES 32

struct leafmap_run {
	uint32_t first;        /* page, relative to the leaf */
	uint16_t count, skip;  /* pages skip … skip+count-1 of the extent */
	struct im_ref ref;
};

struct leafmap_list {
	struct leafmap_run *runs;
	size_t count, room;
};

void leafmap_clear(struct leafmap_list *l);
/* Appends, joining with the last run where both are one stretch of one extent. IM_ENOMEM. */
int leafmap_add(struct leafmap_list *l, const struct leafmap_run *run, struct im_error *err);
/* Appends what list has of pages first … first+count-1. IM_ECORRUPT if it does not cover them. */
int leafmap_clip(struct leafmap_list *ret, const struct leafmap_list *list, uint32_t first, uint32_t count, struct im_error *err);
/* The run that holds a page, or NULL. */
const struct leafmap_run *leafmap_find(const struct leafmap_list *l, uint32_t page);

void leafmap_encode(const struct leafmap_list *l, struct im_buf *ret);
/* Checks everything FORMAT says: order, cover of exactly `pages` pages, bounds within extents. IM_ECORRUPT. ret must be empty. */
int leafmap_decode(const void *data, size_t len, uint32_t page_size, uint32_t pages, struct leafmap_list *ret, struct im_error *err);

#endif
