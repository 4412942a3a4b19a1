/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place in a database's history: a commit, named by the WAL generation and frame that ends it.
 * As JSON it is the `position` of segments (FORMAT §7).
 */
#ifndef IM_STORES_SQLITE_WALPOS_H
#define IM_STORES_SQLITE_WALPOS_H

#include "stores/sqlite/keeper.h"
#include "vault/crypto.h"

#include <jansson.h>

struct walpos {
	uint32_t page_size, pages;
	uint8_t salt[8];
	uint32_t frame;            /* 0: nothing of this generation yet */
	uint32_t frame_checksum[2];
	uint8_t sum[CRYPTO_PAGE_HASH_BYTES]; /* FORMAT §7; zeros where it does not matter */
	uint64_t device, inode;
	int64_t complete_ms, latest_ms; /* as of the point that stands here; 0: unknown */
	int64_t changed_ns;        /* when the database file last changed, if that was long enough before to tell later changes; 0: unknown */
};

/* A WAL that never had a frame: all of them look the same, whatever was written and checkpointed between two of them. */
bool walpos_is_blank(const struct walpos *p);
/* The file's time of change for changed_ns, 0 while another change could leave the same. */
int64_t walpos_changed_ns(int db_fd);

json_t *walpos_encode(const struct walpos *p); /* NULL: out of memory */
/* IM_ECORRUPT. */
int walpos_decode(const json_t *j, struct walpos *ret, struct im_error *err);
/* The commit of a pin; pages_in_file serves where the WAL never had a frame. */
struct walpos walpos_of_pin(const struct keeper_pin *pin, uint32_t pages_in_file);
bool walpos_same_generation(const struct walpos *a, const uint8_t salt[8]);
/* salt-1 counts the generations: is b's the one right after a's? */
bool walpos_salt_follows(const uint8_t a[8], const uint8_t b[8]);

#endif
