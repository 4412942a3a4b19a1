/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last line of defence before a snapshot is written: the vault may have lost packs that the
 * local state still believes in. One listing of the vault's packs, however many are needed.
 */
#include "backup/internal.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <string.h>

struct needed {
	char object[80];
	uint64_t size_bytes;
	bool there;
};

struct needed_list { /* ascending by object */
	struct needed *items;
	size_t count;
};

static int by_object(const void *a, const void *b)
{
	return strcmp(((const struct needed *)a)->object, ((const struct needed *)b)->object);
}

static int tick_off(void *context, const char *name, uint64_t size_bytes)
{
	const struct needed_list *list = context;
	struct needed key = { 0 };
	if (strlen(name) >= sizeof key.object)
		return 0;
	strcpy(key.object, name);
	struct needed *found = bsearch(&key, list->items, list->count, sizeof key, by_object);
	if (found)
		found->there = found->size_bytes == size_bytes;
	return 0;
}

/* Makes the next run believe nothing: it reads everything and stores what is gone. */
static void forget(struct backup_run *run)
{
	state_forget(run->state, NULL);
	state_forget_ids(run->state, NULL);
	if (!run->has_state_head || state_commit(run->state, &run->state_head, NULL))
		state_checkpoint(run->state, NULL);
}

int backup_check_packs(struct backup_run *run, struct im_error *err)
{
	auto_free struct needed *items = calloc(run->pack_count + 1, sizeof *items);
	struct needed_list list = { items, run->pack_count };
	if (!items)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < run->pack_count; i++) {
		fetch_pack_object(items[i].object, run->packs[i].name);
		items[i].size_bytes = run->packs[i].size_bytes;
	}
	qsort(items, list.count, sizeof *items, by_object);
	int rc = storage_list(run->vault->storage, "packs/", tick_off, &list, err);
	for (size_t i = 0; i < list.count && rc == 0; i++) {
		if (items[i].there)
			continue;
		forget(run);
		return im_fail(err, IM_ECORRUPT, "%s is missing from the vault or cut, and this node's memory relied on it: no "
		    "snapshot was written; run the backup again (it will read everything), then imvault verify", items[i].object);
	}
	return rc;
}
