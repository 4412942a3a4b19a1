/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open addressing, at most half full, doubled when it is.
 */
#include "stores/hash64.h"

#include "vault/crypto.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 1024 /* a power of two */

struct hash64_slot {
	uint64_t key;
	uint32_t value;
	bool used;
};

static struct hash64_slot *place(const struct hash64 *h, uint64_t key)
{
	size_t i = (size_t)key & (h->cap - 1);
	while (h->slots[i].used && h->slots[i].key != key)
		i = (i + 1) & (h->cap - 1);
	return &h->slots[i];
}

uint32_t *hash64_find(const struct hash64 *h, uint64_t key)
{
	if (!h->count)
		return NULL;
	struct hash64_slot *s = place(h, key);
	return s->used ? &s->value : NULL;
}

static int grow(struct hash64 *h, struct im_error *err)
{
	struct hash64 bigger = { .cap = h->cap ? 2 * h->cap : FIRST_CAP, .count = h->count };
	bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
	if (!bigger.slots)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < h->cap; i++)
		if (h->slots[i].used)
			*place(&bigger, h->slots[i].key) = h->slots[i];
	free(h->slots);
	*h = bigger;
	return 0;
}

int hash64_add(struct hash64 *h, uint64_t key, uint32_t value, struct im_error *err)
{
	int rc = 2 * h->count >= h->cap ? grow(h, err) : 0;
	if (rc)
		return rc;
	*place(h, key) = (struct hash64_slot){ .key = key, .value = value, .used = true };
	h->count++;
	return 0;
}

void hash64_clear(struct hash64 *h)
{
	free(h->slots);
	*h = (struct hash64){ 0 };
}

uint64_t hash64_of(const char *const *parts, size_t count)
{
	struct crypto_hasher h;
	uint8_t hash[32];
	crypto_hasher_begin(&h);
	for (size_t i = 0; i < count; i++) {
		const char *part = parts[i] ? parts[i] : "";
		crypto_hasher_add(&h, part, strlen(part) + 1);
	}
	crypto_hasher_end(&h, hash);
	return im_le64(hash);
}
