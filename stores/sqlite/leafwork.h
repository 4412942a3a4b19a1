/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One leaf being worked on: its blocks run on the workers in any order, and the last one joins
 * their runs, stores the leaf if it changed, and remembers it.
 */
#ifndef IM_STORES_SQLITE_LEAFWORK_H
#define IM_STORES_SQLITE_LEAFWORK_H

#include "stores/sqlite/block.h"

struct leafwork_env { /* shared by all leaves of an image */
	struct block_env block;
	struct state *state;
	const char *store;
	struct remember_leaf *leaves; /* each is written by the one thread that finishes it */
	const char *old_slots;        /* of what was remembered before this run */
};

struct leafwork {
	struct leafwork_env *env;
	uint32_t index, pages;
	bool has_old;
	struct remember_pages old;
	uint8_t *hashes;
	struct leafmap_list *parts; /* one per block */
	uint32_t part_count, part_pages;
	_Atomic uint32_t pending;   /* blocks not done yet; whoever takes it to 0 frees */
	atomic_bool failed;
};

/* old: taken over, or NULL. */
int leafwork_new(struct leafwork_env *env, uint32_t index, uint32_t pages, struct remember_pages *old, struct leafwork **ret, struct im_error *err);
/* Pages of a block: first page relative to the leaf. */
uint32_t leafwork_part(const struct leafwork *w, uint32_t part, uint32_t *ret_first);
int leafwork_run(struct leafwork *w, uint32_t part, const uint8_t *data, const uint8_t *present, struct codec *codec, struct im_error *err);
/* `count` blocks are done (or will never run: ok = false). May free w. */
int leafwork_done(struct leafwork *w, uint32_t count, bool ok, struct codec *codec, struct im_error *err);
/* Slot for a leaf's new memory: never the one that holds what was remembered before this run. */
char leafwork_new_slot(char old_slot);

#endif
