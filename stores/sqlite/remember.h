/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node remembers of one database between backups: which extent holds each page, a keyed
 * hash per page, and what the files looked like. In the local state, never content; losing it
 * costs one full read.
 *
 * Keys: "image" (everything but leaves), "leaf/NNNNNNNN/S" (S = a or b: a run writes changed leaves
 * beside the old ones, so that a run that fails leaves the old memory whole).
 */
#ifndef IM_STORES_SQLITE_REMEMBER_H
#define IM_STORES_SQLITE_REMEMBER_H

#include "stores/sqlite/leafmap.h"
#include "stores/sqlite/pin.h"
#include "vault/state.h"

#include "base/config.h"

struct remember_use { /* how much of a pack a leaf needs */
	uint32_t pack, bytes;
};

struct remember_leaf {
	struct im_ref ref;
	char slot;             /* 'a' or 'b'; 0: none yet */
	uint8_t checksum[CRYPTO_PAGE_HASH_BYTES]; /* XOR of its page hashes */
	struct remember_use *uses;
	uint32_t use_count;
};

struct remember_image {
	uint32_t page_size, pages;
	bool racy;             /* the files were so fresh that a later change may look the same */
	uint8_t fingerprint[CRYPTO_HASH_BYTES];
	uint64_t changed_bytes; /* by the run that made it */
	char *manifest;        /* JSON text */
	struct remember_leaf *leaves;
	uint32_t leaf_count;
};

struct remember_pages { /* one leaf's memory */
	uint32_t pages;
	uint8_t *hashes;
	struct leafmap_list runs;
};

uint32_t remember_leaf_count(uint32_t pages);
/* Of files and configuration as they are now. shm: the pinned head, or NULL. False if it can't be told. */
bool remember_fingerprint(const struct pin_files *f, const struct shm_head *shm, const struct im_config_store *config, uint8_t ret[CRYPTO_HASH_BYTES], bool *ret_racy);

void remember_image_clear(struct remember_image *image);
/* IM_ENOTFOUND if nothing (or nothing usable) is remembered. */
int remember_image_load(struct state *s, const char *store, struct remember_image *ret, struct im_error *err);
int remember_image_save(struct state *s, const char *store, const struct remember_image *image, struct im_error *err);

void remember_pages_clear(struct remember_pages *p);
int remember_pages_load(struct state *s, const char *store, uint32_t leaf, char slot, uint32_t page_size, struct remember_pages *ret, struct im_error *err);
int remember_pages_save(struct state *s, const char *store, uint32_t leaf, char slot, const struct remember_pages *p, struct im_error *err);
int remember_pages_forget(struct state *s, const char *store, uint32_t leaf, char slot, struct im_error *err);

#endif
