/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A map from 64-bit hashes to numbers. The keys must already be hashes: they are not mixed again.
 */
#ifndef IM_STORES_HASH64_H
#define IM_STORES_HASH64_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct hash64_slot;
struct hash64 {
	struct hash64_slot *slots;
	size_t cap, count;
};

/* NULL if absent; valid until the next hash64_add. */
uint32_t *hash64_find(const struct hash64 *h, uint64_t key);
/* The key must be absent. */
int hash64_add(struct hash64 *h, uint64_t key, uint32_t value, struct im_error *err);
void hash64_clear(struct hash64 *h);

/* The first eight bytes of B2 over the parts, each with its NUL; a NULL part counts as "". */
uint64_t hash64_of(const char *const *parts, size_t count);

#endif
