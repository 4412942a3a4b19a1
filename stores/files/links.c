/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open-addressing table by device and inode. Only files with more than one name are in it.
 */
#include "stores/files/links.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct files_link {
	uint64_t dev, ino;
	char *path; /* NULL: free */
};

static size_t slot_of(const struct files_links *l, uint64_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ dev * UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xBF58476D1CE4E5B9);
	size_t i = (size_t)(h >> 20) & (l->cap - 1);
	while (l->slots[i].path && (l->slots[i].dev != dev || l->slots[i].ino != ino))
		i = (i + 1) & (l->cap - 1);
	return i;
}

static int grow(struct files_links *l)
{
	struct files_links fresh = { .cap = l->cap ? 2 * l->cap : 64, .count = l->count };
	fresh.slots = calloc(fresh.cap, sizeof *fresh.slots);
	if (!fresh.slots)
		return -1;
	for (size_t i = 0; i < l->cap; i++)
		if (l->slots[i].path)
			fresh.slots[slot_of(&fresh, l->slots[i].dev, l->slots[i].ino)] = l->slots[i];
	free(l->slots);
	*l = fresh;
	return 0;
}

int files_links_note(struct files_links *l, const struct stat *st, const char *path, char **ret_first)
{
	if (2 * (l->count + 1) > l->cap && grow(l))
		return -1;
	struct files_link *slot = &l->slots[slot_of(l, st->st_dev, st->st_ino)];
	if (slot->path) {
		*ret_first = slot->path;
		return 0;
	}
	if (!(slot->path = strdup(path)))
		return -1;
	slot->dev = st->st_dev;
	slot->ino = st->st_ino;
	l->count++;
	*ret_first = NULL;
	return 0;
}

void files_links_clear(struct files_links *l)
{
	for (size_t i = 0; i < l->cap; i++)
		free(l->slots[i].path);
	free(l->slots);
	*l = (struct files_links){ 0 };
}
