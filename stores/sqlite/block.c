/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting: within a group of 16 pages, each stretch of changed pages becomes one extent, so that an
 * increment carries exactly what changed. Only whole groups get an id (they are what a full read
 * finds again when the local memory is lost); small extents go without, which keeps packs'
 * trailers and the index small.
 */
#include "stores/sqlite/block.h"

#include <stdlib.h>
#include <string.h>

#define HASH_BYTES CRYPTO_PAGE_HASH_BYTES
#define EXTENT_LABEL "extent"
#define GROUP_MAX_PAGES 128

uint32_t block_group_pages(uint32_t page_size)
{
	return page_size < 4096 ? 65536 / page_size : 16;
}

bool block_is_victim(const struct block_env *env, uint32_t pack)
{
	size_t low = 0, high = env->victim_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (env->victims[middle] < pack)
			low = middle + 1;
		else
			high = middle;
	}
	return low < env->victim_count && env->victims[low] == pack;
}

bool block_may_move(struct block_env *env, uint64_t bytes)
{
	uint64_t changed = atomic_load(&env->changed_bytes);
	uint64_t moved = atomic_fetch_add(&env->moved_bytes, bytes) + bytes;
	if (changed && moved <= env->move_credit + changed / BLOCK_MOVE_SHARE)
		return true;
	atomic_fetch_sub(&env->moved_bytes, bytes);
	return false;
}

/* Unchanged pages are moved out of nearly empty packs, within bounds. */
static bool take_move(struct block_env *env, const struct block *b, uint32_t page)
{
	const struct leafmap_run *run = env->victim_count ? leafmap_find(&b->old->runs, page) : NULL;
	return run && block_is_victim(env, run->ref.pack) && block_may_move(env, env->page_size);
}

enum { KEEP = 0, CHANGED, MOVED };

/* Hashes the pages; emit[i] tells which must be stored and why. */
static int judge(struct block_env *env, const struct block *b, uint8_t *emit, struct im_error *err)
{
	uint64_t changed = 0;
	for (uint32_t i = 0; i < b->count; i++) {
		uint32_t page = b->first + i;
		const uint8_t *old = b->old && page < b->old->pages ? b->old->hashes + (size_t)page * HASH_BYTES : NULL;
		uint8_t *hash = b->ret_hashes + (size_t)i * HASH_BYTES;
		if (b->present && !b->present[i]) {
			if (!old)
				return im_fail(err, IM_EFAIL, "page %u is neither given nor remembered", b->leaf_first + page);
			memcpy(hash, old, HASH_BYTES);
			continue;
		}
		const uint8_t *content = b->data + (size_t)i * env->page_size;
		crypto_page_hash(hash, env->page_key, content, env->page_size, (uint64_t)b->leaf_first + page);
		if (env->fast)
			env->fast[b->leaf_first + page] = fasthash(&env->fast_key, content, env->page_size);
		emit[i] = !old || memcmp(old, hash, HASH_BYTES) != 0 ? CHANGED : KEEP;
		changed += emit[i] == CHANGED;
	}
	atomic_fetch_add(&env->changed_bytes, changed * env->page_size);
	for (uint32_t i = 0; b->old && i < b->count; i++)
		if (!emit[i] && (!b->present || b->present[i]))
			emit[i] = take_move(env, b, b->first + i) ? MOVED : KEEP;
	return 0;
}

static void extent_id(const struct block_env *env, const uint8_t *hashes, uint32_t count, uint8_t ret[32])
{
	uint8_t text[sizeof EXTENT_LABEL - 1 + 4 + GROUP_MAX_PAGES * HASH_BYTES];
	size_t label = sizeof EXTENT_LABEL - 1;
	memcpy(text, EXTENT_LABEL, label);
	im_put_le32(text + label, env->page_size);
	memcpy(text + label + 4, hashes, (size_t)count * HASH_BYTES);
	crypto_keyed(ret, env->chunk_key, text, label + 4 + (size_t)count * HASH_BYTES);
}

static int put_extent(struct block_env *env, const struct block *b, struct codec *codec, uint32_t at, uint32_t count, bool whole_group, struct im_error *err)
{
	uint8_t id[32];
	if (whole_group)
		extent_id(env, b->ret_hashes + (size_t)at * HASH_BYTES, count, id);
	struct leafmap_run run = { .first = b->first + at, .count = (uint16_t)count };
	bool is_new;
	int rc = packer_put(env->packer, codec, ENTRY_EXTENT, whole_group ? id : NULL,
	    b->data + (size_t)at * env->page_size, (size_t)count * env->page_size, &run.ref, &is_new, err);
	return rc ? rc : leafmap_add(b->ret_runs, &run, err);
}

int block_run(struct block_env *env, const struct block *b, struct codec *codec, struct im_error *err)
{
	uint8_t emit[BLOCK_MAX_PAGES] = { 0 };
	IM_CHECK(b->count <= BLOCK_MAX_PAGES && b->first % env->group_pages == 0 && env->group_pages <= GROUP_MAX_PAGES);
	int rc = judge(env, b, emit, err);
	for (uint32_t at = 0, stop; rc == 0 && at < b->count; at = stop) {
		uint32_t group = at - at % env->group_pages, group_end = group + env->group_pages;
		if (group_end > b->count)
			group_end = b->count;
		bool any_changed = emit[at] == CHANGED;
		for (stop = at + 1; stop < group_end && !emit[stop] == !emit[at]; stop++)
			any_changed = any_changed || emit[stop] == CHANGED;
		/* A group that is only moved must not be found where it lies now, so it goes without an id. */
		bool whole = at == group && stop == group_end && any_changed;
		if (emit[at])
			rc = put_extent(env, b, codec, at, stop - at, whole, err);
		else
			rc = leafmap_clip(b->ret_runs, &b->old->runs, b->first + at, stop - at, err);
	}
	return rc;
}
