/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One image of a paged database on its way into packs: reads pages leaf by leaf, hands blocks to
 * the workers, keeps the map. Memory does not follow the database's size: a few leaves and a few
 * blocks are in flight, the rest is in the local state.
 */
#ifndef IM_STORES_SQLITE_IMAGE_H
#define IM_STORES_SQLITE_IMAGE_H

#include "stores/sqlite/block.h"
#include "stores/sqlite/source.h"
#include "stores/store.h"

struct image;

struct image_page { /* a page read again, for image_patch */
	uint32_t number; /* from 0 */
	const uint8_t *content;
};

/* Loads what is remembered (unless request->full), derives the keys, starts the workers. */
int image_new(const struct snapshot_request *request, uint32_t page_size, struct image **ret, struct im_error *err);
/* Forgets what this run remembered unless it was committed, stops the workers. NULL is fine. */
void image_free(struct image *image);

/* Fast hashes per page to be filled in by image_add (for pause); borrowed, one per page. */
void image_set_fast(struct image *image, uint64_t *fast, const struct fasthash_key *key);
/* Stores every page that differs from what is remembered. Once. */
int image_add(struct image *image, const struct source *source, struct im_error *err);
/* Corrects the image: it now has `pages` pages, of which these (ascending) were read again. All others are as they were. */
int image_patch(struct image *image, uint32_t pages, const struct image_page *changed, size_t count, struct im_error *err);
/* Stores a journal in entries of type AUX; refs appended to ret as they are encoded in the manifest. */
int image_add_journal(struct image *image, const uint8_t *data, size_t len, struct im_buf *ret, struct im_error *err);

/* Manifest fields leaves, leaf_pages, checksum, page_size, pages, file_bytes; and the result's packs and counts. */
int image_describe(struct image *image, json_t *manifest, struct snapshot_result *ret, struct im_error *err);
/* Remembers the image together with its manifest; after image_describe. */
int image_commit(struct image *image, const uint8_t fingerprint[CRYPTO_HASH_BYTES], bool racy, const json_t *manifest, struct im_error *err);

#endif
