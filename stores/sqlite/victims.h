/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locality: which packs hold so little of the live image that it pays to move that little into
 * new packs, so that they become wholly unused and the newest snapshot stays in few, long reads.
 */
#ifndef IM_STORES_SQLITE_VICTIMS_H
#define IM_STORES_SQLITE_VICTIMS_H

#include "stores/sqlite/remember.h"

/* The emptiest packs whose live content is together about budget_bytes (plain); ascending, malloc'ed. */
int victims_choose(struct state *s, const struct remember_leaf *leaves, uint32_t leaf_count, uint64_t budget_bytes, uint32_t **ret, size_t *ret_count, struct im_error *err);

#endif
