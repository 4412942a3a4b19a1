/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ends that matter are few (a fine, a minute's, an hour's segment): a list, searched from its
 * end. What a hostile node could pile up is bounded.
 */
#include "vault/logreach.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ENDS 65536

void log_reach_clear(struct log_reach *r)
{
	for (size_t i = 0; i < r->count; i++)
		free(r->items[i].object);
	free(r->items);
	*r = (struct log_reach){ 0 };
}

int log_reach_put(struct log_reach *r, const struct log_end *e, struct im_error *err)
{
	if (r->count == MAX_ENDS)
		return 0; /* no honest epoch has so many */
	if (r->count == r->room) {
		size_t room = r->room ? 2 * r->room : 16;
		struct log_end *items = realloc(r->items, room * sizeof *items);
		if (!items)
			return im_fail(err, IM_ENOMEM, "out of memory looking through the log");
		r->items = items;
		r->room = room;
	}
	struct log_end copy = *e;
	copy.object = e->object ? strdup(e->object) : NULL;
	if (e->object && !copy.object)
		return im_fail(err, IM_ENOMEM, "out of memory looking through the log");
	r->items[r->count++] = copy;
	return 0;
}

int log_reach_add(struct log_reach *r, uint32_t first, const struct log_end *e, bool *ret, struct im_error *err)
{
	*ret = false;
	for (size_t i = r->count; i-- > 0 && !*ret;)
		*ret = r->items[i].point == first - 1;
	return *ret ? log_reach_put(r, e, err) : 0;
}

const struct log_end *log_reach_before(const struct log_reach *r, uint32_t first)
{
	const struct log_end *found = NULL;
	for (size_t i = 0; i < r->count; i++)
		if (r->items[i].point < first && (!found || r->items[i].point >= found->point)) /* of equals the last: an image at point 0 knows when */
			found = &r->items[i];
	return found;
}

const struct log_end *log_reach_furthest(const struct log_reach *r)
{
	const struct log_end *found = NULL;
	for (size_t i = 0; i < r->count; i++)
		if (!found || r->items[i].point > found->point)
			found = &r->items[i];
	return found;
}

void log_reach_trim(struct log_reach *r, uint32_t first)
{
	const struct log_end *furthest = log_reach_before(r, first);
	size_t kept = 0, keep = furthest ? (size_t)(furthest - r->items) : r->count;
	for (size_t i = 0; i < r->count; i++) {
		if (i == keep || r->items[i].point >= first)
			r->items[kept++] = r->items[i];
		else
			free(r->items[i].object);
	}
	r->count = kept;
}
