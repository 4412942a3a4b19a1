/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading entries. fetch_one is for maps and trees; fetch_run takes a long list, sorts it by pack
 * and offset, merges neighbours into long reads (I/O threads), decodes each entry once (CPU
 * threads) and hands it to everyone who asked: the heart of restore, verify and, later, hydration.
 * Memory stays under a fixed budget whatever the list's size.
 */
#ifndef IM_VAULT_FETCH_H
#define IM_VAULT_FETCH_H

#include "vault/pack.h"

struct fetcher; /* caches open pack keys and dictionaries; thread-safe */

/* storage and keyring are borrowed. */
int fetcher_new(struct storage *s, const struct keyring *k, struct fetcher **ret, struct im_error *err);
void fetcher_free(struct fetcher *f);
/* "packs/xx/NAME"; returns ret. */
char *fetch_pack_object(char ret[80], const uint8_t name[32]);

/* One entry into ret (plain bytes appended). IM_ECORRUPT names the pack. */
int fetch_one(struct fetcher *f, const struct pack_info *pack, enum entry_type type, const struct im_ref *ref, struct im_buf *ret, struct im_error *err);

struct fetch_item {
	struct im_ref ref;      /* ref.pack is looked up by pack_of */
	uint64_t tag;           /* the caller's: which file, which range */
	uint8_t type;
};
/* One decoded entry and every item that wanted it (all have the same ref). Any worker thread, several at once. */
typedef int fetch_sink_fn(void *context, unsigned worker, const struct fetch_item *items, size_t count, const uint8_t *plain, size_t len, struct im_error *err);
/* An entry that could not be had. Return 0 to go on with the rest (the damage is noted), or a code to stop. */
typedef int fetch_damage_fn(void *context, const struct fetch_item *items, size_t count, const struct im_error *why, struct im_error *err);
struct fetch_plan {
	struct fetch_item *items; /* reordered, unless keep_order */
	size_t count;
	bool keep_order; /* read in the order given: for callers who need places to fill up one after the other. Only neighbours are merged */
	const struct pack_info *(*pack_of)(void *context, uint32_t number);
	fetch_sink_fn *sink;
	fetch_damage_fn *damage; /* NULL: the first damage stops */
	void *context;
	unsigned workers; /* 0: one per CPU; sink's worker is below this (see fetch_workers) */
};
struct fetch_stats { /* for the phase table; microseconds summed over threads */
	uint64_t read_bytes, plain_bytes, reads, read_us, decode_us, sink_us;
};
unsigned fetch_workers(const struct fetch_plan *plan);
int fetch_run(struct fetcher *f, const struct fetch_plan *plan, struct fetch_stats *ret, struct im_error *err);

/* The same in the caller's thread, for few entries that somebody waits for: no threads are started; the sink's worker is 0, and
 * plan's workers do not count. A lane is one thread's own. */
struct fetch_lane;
int fetch_lane_new(struct fetch_lane **ret, struct im_error *err);
void fetch_lane_free(struct fetch_lane *l);
int fetch_here(struct fetcher *f, struct fetch_lane *lane, const struct fetch_plan *plan, struct im_error *err);

#endif
