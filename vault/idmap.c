/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open addressing with linear probing and backward-shift deletion (Knuth, TAOCP 3, 6.4, algorithm
 * R). Ids are keyed hashes, so their first bytes serve as the hash.
 */
#include "vault/idmap.h"

#include <stdlib.h>
#include <string.h>

struct idmap_slot {
	bool used;
	uint8_t id[32];
	struct im_ref ref;
};

static size_t home(const struct idmap *m, const uint8_t id[32])
{
	return (size_t)im_le64(id) & (m->cap - 1);
}

static size_t locate(const struct idmap *m, const uint8_t id[32])
{
	size_t i = home(m, id);
	while (m->slots[i].used && memcmp(m->slots[i].id, id, 32) != 0)
		i = (i + 1) & (m->cap - 1);
	return i;
}

const struct im_ref *idmap_find(const struct idmap *m, const uint8_t id[32])
{
	if (!m->cap)
		return NULL;
	size_t i = locate(m, id);
	return m->slots[i].used ? &m->slots[i].ref : NULL;
}

static int enlarge(struct idmap *m, struct im_error *err)
{
	struct idmap larger = { .cap = m->cap ? 2 * m->cap : 1024, .count = m->count };
	larger.slots = calloc(larger.cap, sizeof *larger.slots);
	if (!larger.slots)
		return im_fail(err, IM_ENOMEM, "out of memory for the ids of this run");
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].used)
			larger.slots[locate(&larger, m->slots[i].id)] = m->slots[i];
	free(m->slots);
	*m = larger;
	return 0;
}

int idmap_add(struct idmap *m, const uint8_t id[32], struct im_ref ref, struct im_error *err)
{
	if (2 * (m->count + 1) > m->cap) {
		int rc = enlarge(m, err);
		if (rc)
			return rc;
	}
	struct idmap_slot *slot = &m->slots[locate(m, id)];
	m->count += !slot->used;
	slot->used = true;
	memcpy(slot->id, id, 32);
	slot->ref = ref;
	return 0;
}

void idmap_remove(struct idmap *m, const uint8_t id[32])
{
	if (!m->cap)
		return;
	size_t hole = locate(m, id);
	if (!m->slots[hole].used)
		return;
	m->count--;
	for (size_t i = (hole + 1) & (m->cap - 1); m->slots[i].used; i = (i + 1) & (m->cap - 1)) {
		size_t h = home(m, m->slots[i].id);
		if (((i - h) & (m->cap - 1)) >= ((i - hole) & (m->cap - 1))) {
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->slots[hole].used = false;
}

void idmap_clear(struct idmap *m)
{
	free(m->slots);
	*m = (struct idmap){ 0 };
}
