/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which points of an epoch can be reached, found out while its segments pass by in the order of
 * their names: only the ends that something may still follow are kept, however long the epoch is.
 */
#ifndef IM_VAULT_LOGREACH_H
#define IM_VAULT_LOGREACH_H

#include "vault/log.h"

struct log_end { /* a point that can be reached: a segment ends there, or an image stands there */
	uint32_t point;
	uint32_t from;       /* the first one the segment gives: a fine segment gives all of its own, a coarse one its last only */
	int64_t from_ms, ms; /* of these two, as well as whoever feeds this knows them */
	char *object;        /* of the segment's final part; NULL: an image, or where the epoch begins */
};

struct log_reach {
	struct log_end *items;
	size_t count, room;
};
void log_reach_clear(struct log_reach *r);
/* Reached without a segment. e->object is copied. */
int log_reach_put(struct log_reach *r, const struct log_end *e, struct im_error *err);
/* A whole segment from `first` to e->point; `first` never goes down from call to call. *ret: it can be reached. */
int log_reach_add(struct log_reach *r, uint32_t first, const struct log_end *e, bool *ret, struct im_error *err);
/* Segments before `first` will not come any more: forgets ends nothing can follow, but the furthest below `first`. */
void log_reach_trim(struct log_reach *r, uint32_t first);
const struct log_end *log_reach_furthest(const struct log_reach *r);                 /* NULL: none */
const struct log_end *log_reach_before(const struct log_reach *r, uint32_t first); /* the furthest below first; NULL: none */

#endif
