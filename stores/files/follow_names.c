/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open addressing; what is dropped leaves a mark until the table is made anew.
 */
#include "stores/files/follow_names.h"

#include <stdlib.h>
#include <string.h>

#define EMPTY UINT32_MAX
#define DROPPED (UINT32_MAX - 1)

static size_t slot_of(const struct files_names *n, const uint8_t *hash)
{
	return (size_t)im_le64(hash) & (n->cap - 1);
}

static struct files_name *find(const struct files_names *n, const uint8_t *hash)
{
	if (!n->cap)
		return NULL;
	for (size_t i = slot_of(n, hash);; i = (i + 1) & (n->cap - 1)) {
		struct files_name *s = &n->slots[i];
		if (s->value == EMPTY)
			return NULL;
		if (s->value != DROPPED && !memcmp(s->hash, hash, sizeof s->hash))
			return s;
	}
}

static void insert(struct files_names *n, const uint8_t *hash, uint32_t value)
{
	size_t i = slot_of(n, hash);
	while (n->slots[i].value != EMPTY)
		i = (i + 1) & (n->cap - 1);
	memcpy(n->slots[i].hash, hash, sizeof n->slots[i].hash);
	n->slots[i].value = value;
	n->used++;
}

static int make_room(struct files_names *n, struct im_error *err)
{
	if (n->used < n->cap / 4 * 3)
		return 0;
	size_t live = 0;
	for (size_t i = 0; i < n->cap; i++)
		live += n->slots[i].value < DROPPED;
	struct files_names fresh = { .cap = 64 };
	while (fresh.cap < 4 * live)
		fresh.cap *= 2;
	fresh.slots = malloc(fresh.cap * sizeof *fresh.slots);
	if (!fresh.slots)
		return im_fail(err, IM_ENOMEM, "out of memory for %zu names", live);
	memset(fresh.slots, 0xff, fresh.cap * sizeof *fresh.slots); /* EMPTY */
	for (size_t i = 0; i < n->cap; i++)
		if (n->slots[i].value < DROPPED)
			insert(&fresh, n->slots[i].hash, n->slots[i].value);
	free(n->slots);
	*n = fresh;
	return 0;
}

uint32_t files_names_get(const struct files_names *n, const char *name)
{
	uint8_t hash[FILES_NAME_HASH_BYTES];
	files_name_hash(hash, name);
	const struct files_name *s = find(n, hash);
	return s ? s->value : FILES_NO_NAME;
}

int files_names_put(struct files_names *n, const char *name, uint32_t value, struct im_error *err)
{
	uint8_t hash[FILES_NAME_HASH_BYTES];
	files_name_hash(hash, name);
	struct files_name *s = find(n, hash);
	IM_CHECK(value < DROPPED);
	if (s) {
		s->value = value;
		return 0;
	}
	int rc = make_room(n, err);
	if (!rc)
		insert(n, hash, value);
	return rc;
}

void files_names_drop(struct files_names *n, const char *name)
{
	uint8_t hash[FILES_NAME_HASH_BYTES];
	files_name_hash(hash, name);
	struct files_name *s = find(n, hash);
	if (s)
		s->value = DROPPED;
}

void files_names_clear(struct files_names *n)
{
	free(n->slots);
	*n = (struct files_names){ 0 };
}
