/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work done on about 1 MiB of pages, on any CPU: hash each page, see which changed, store those
 * as extents, and say for every page where it lies now.
 */
#ifndef IM_STORES_SQLITE_BLOCK_H
#define IM_STORES_SQLITE_BLOCK_H

#include "stores/sqlite/fasthash.h"
#include "stores/sqlite/remember.h"
#include "vault/packer.h"

#include <stdatomic.h>

#define BLOCK_BYTES (1u << 20)
#define BLOCK_MOVE_SHARE 16 /* a run moves a 16th of what changes in it, and a 16th of what changed in the one before */
#define BLOCK_MAX_PAGES (BLOCK_BYTES / 512)

struct block_env { /* shared by all blocks of a capture */
	struct packer *packer;
	uint32_t page_size;
	uint32_t group_pages;  /* extents do not cross groups of this many pages */
	const uint8_t *page_key, *chunk_key; /* 32 bytes each */
	const uint32_t *victims; /* packs to be emptied, ascending */
	size_t victim_count;
	uint64_t move_credit;  /* bytes that may be moved as soon as anything changed, beside a share of what changes */
	_Atomic uint64_t changed_bytes, moved_bytes;
	uint64_t *fast;        /* a fast hash per page to fill in, or NULL */
	struct fasthash_key fast_key;
};

struct block { /* pages first … first+count-1 of one leaf */
	uint32_t leaf_first;   /* number of the leaf's first page */
	uint32_t first, count; /* relative to the leaf */
	const uint8_t *data;   /* count pages */
	const uint8_t *present; /* per page: data holds it; others are as remembered. NULL: all */
	const struct remember_pages *old; /* NULL: nothing is remembered */
	uint8_t *ret_hashes;   /* of the block's first page on */
	struct leafmap_list *ret_runs;
};

uint32_t block_group_pages(uint32_t page_size);
bool block_is_victim(const struct block_env *env, uint32_t pack);
/* May bytes more be moved? If so, they count as moved. An image in which nothing changed moves nothing. */
bool block_may_move(struct block_env *env, uint64_t bytes);
int block_run(struct block_env *env, const struct block *b, struct codec *codec, struct im_error *err);

#endif
