/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finishing leaves. A leaf whose runs did not change keeps its entry in the vault: snapshots share it.
 */
#include "stores/sqlite/leafwork.h"

#include <stdlib.h>
#include <string.h>

char leafwork_new_slot(char old_slot)
{
	return old_slot == 'a' ? 'b' : 'a';
}

static void leafwork_free(struct leafwork *w)
{
	for (uint32_t i = 0; w->parts && i < w->part_count; i++)
		leafmap_clear(&w->parts[i]);
	free(w->parts);
	free(w->hashes);
	remember_pages_clear(&w->old);
	free(w);
}

int leafwork_new(struct leafwork_env *env, uint32_t index, uint32_t pages, struct remember_pages *old, struct leafwork **ret, struct im_error *err)
{
	struct leafwork *w = calloc(1, sizeof *w);
	if (!w)
		return im_fail(err, IM_ENOMEM, "out of memory");
	w->env = env;
	w->index = index;
	w->pages = pages;
	if (old) {
		w->old = *old;
		*old = (struct remember_pages){ 0 };
		w->has_old = true;
	}
	w->part_pages = BLOCK_BYTES / env->block.page_size;
	w->part_count = (pages + w->part_pages - 1) / w->part_pages;
	w->pending = w->part_count;
	w->hashes = malloc((size_t)pages * CRYPTO_PAGE_HASH_BYTES);
	w->parts = calloc(w->part_count, sizeof *w->parts);
	if (!w->hashes || !w->parts) {
		leafwork_free(w);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	*ret = w;
	return 0;
}

uint32_t leafwork_part(const struct leafwork *w, uint32_t part, uint32_t *ret_first)
{
	uint32_t first = part * w->part_pages, left = w->pages - first;
	*ret_first = first;
	return left < w->part_pages ? left : w->part_pages;
}

int leafwork_run(struct leafwork *w, uint32_t part, const uint8_t *data, const uint8_t *present, struct codec *codec, struct im_error *err)
{
	struct block b = { .leaf_first = w->index * LEAFMAP_PAGES, .data = data, .present = present,
		.old = w->has_old ? &w->old : NULL, .ret_runs = &w->parts[part] };
	b.count = leafwork_part(w, part, &b.first);
	b.ret_hashes = w->hashes + (size_t)b.first * CRYPTO_PAGE_HASH_BYTES;
	return block_run(&w->env->block, &b, codec, err);
}

static int join_parts(struct leafwork *w, struct leafmap_list *ret, struct im_error *err)
{
	for (uint32_t p = 0; p < w->part_count; p++)
		for (size_t i = 0; i < w->parts[p].count; i++) {
			int rc = leafmap_add(ret, &w->parts[p].runs[i], err);
			if (rc)
				return rc;
		}
	return 0;
}

static int add_use(struct remember_leaf *leaf, uint32_t *room, uint32_t pack, uint32_t bytes, struct im_error *err)
{
	for (uint32_t i = leaf->use_count; i-- > 0;)
		if (leaf->uses[i].pack == pack) {
			leaf->uses[i].bytes += bytes;
			return 0;
		}
	if (leaf->use_count == *room) {
		uint32_t more = *room ? *room * 2 : 8;
		struct remember_use *uses = realloc(leaf->uses, more * sizeof *uses);
		if (!uses)
			return im_fail(err, IM_ENOMEM, "out of memory");
		leaf->uses = uses;
		*room = more;
	}
	leaf->uses[leaf->use_count++] = (struct remember_use){ pack, bytes };
	return 0;
}

static int count_uses(struct remember_leaf *leaf, const struct leafmap_list *runs, uint32_t page_size, struct im_error *err)
{
	uint32_t room = 0;
	int rc = add_use(leaf, &room, leaf->ref.pack, leaf->ref.stored, err);
	for (size_t i = 0; rc == 0 && i < runs->count; i++) {
		const struct leafmap_run *run = &runs->runs[i];
		uint64_t extent_pages = run->ref.plain / page_size;
		rc = add_use(leaf, &room, run->ref.pack, (uint32_t)(run->ref.stored * (uint64_t)run->count / extent_pages), err);
	}
	return rc;
}

static bool keeps_entry(const struct leafwork *w, const struct im_buf *encoded, struct im_error *err, int *ret_rc)
{
	const struct remember_leaf *leaf = &w->env->leaves[w->index];
	if (!w->has_old || w->old.pages != w->pages)
		return false;
	auto_buf struct im_buf before = { 0 };
	leafmap_encode(&w->old.runs, &before);
	if (before.failed) {
		*ret_rc = im_fail(err, IM_ENOMEM, "out of memory");
		return true;
	}
	if (before.len != encoded->len || memcmp(before.data, encoded->data, encoded->len) != 0)
		return false;
	struct block_env *env = &w->env->block;
	return !block_is_victim(env, leaf->ref.pack) || !block_may_move(env, encoded->len);
}

static int replace_entry(struct leafwork *w, const struct leafmap_list *runs, const struct im_buf *encoded, struct codec *codec, struct im_error *err)
{
	struct remember_leaf fresh = { .slot = leafwork_new_slot(w->env->old_slots[w->index]) };
	bool is_new;
	int rc = packer_put(w->env->block.packer, codec, ENTRY_LEAF, NULL, encoded->data, encoded->len, &fresh.ref, &is_new, err);
	if (rc == 0)
		rc = count_uses(&fresh, runs, w->env->block.page_size, err);
	for (size_t i = 0; i < (size_t)w->pages * CRYPTO_PAGE_HASH_BYTES; i++)
		fresh.checksum[i % CRYPTO_PAGE_HASH_BYTES] ^= w->hashes[i];
	struct remember_pages memory = { w->pages, w->hashes, *runs };
	if (rc == 0)
		rc = remember_pages_save(w->env->state, w->env->store, w->index, fresh.slot, &memory, err);
	if (rc) {
		free(fresh.uses);
		return rc;
	}
	struct remember_leaf *leaf = &w->env->leaves[w->index];
	free(leaf->uses);
	*leaf = fresh;
	return 0;
}

static int finish(struct leafwork *w, struct codec *codec, struct im_error *err)
{
	struct leafmap_list runs = { 0 };
	auto_buf struct im_buf encoded = { 0 };
	int rc = join_parts(w, &runs, err);
	leafmap_encode(&runs, &encoded);
	if (rc == 0 && encoded.failed)
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0 && !keeps_entry(w, &encoded, err, &rc))
		rc = replace_entry(w, &runs, &encoded, codec, err);
	leafmap_clear(&runs);
	return rc;
}

int leafwork_done(struct leafwork *w, uint32_t count, bool ok, struct codec *codec, struct im_error *err)
{
	if (!ok)
		atomic_store(&w->failed, true);
	if (atomic_fetch_sub(&w->pending, count) != count)
		return 0;
	int rc = atomic_load(&w->failed) ? 0 : finish(w, codec, err);
	leafwork_free(w);
	return rc;
}
