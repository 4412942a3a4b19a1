/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing packs. Any thread puts entries; encoding runs in the calling thread, one writer thread
 * hashes and writes (I/O apart from CPU). Entries come out in about the order they were put, so a
 * restore reads long ranges. A pack is durable before anything refers to it.
 */
#ifndef IM_VAULT_PACKER_H
#define IM_VAULT_PACKER_H

#include "vault/pack.h"
#include "vault/state.h"

struct packer;

struct packer_stats {
	uint64_t packs, stored_bytes, entries, deduplicated_bytes;
};

/* node: for the index fragments. All borrowed until packer_free. level: zstd level. */
int packer_new(struct storage *s, const struct keyring *k, struct state *st, const char *node, int level, struct packer **ret, struct im_error *err);
void packer_free(struct packer *p); /* abandons what is not finished */

/* From now on new packs carry this dictionary (copied); NULL, 0: none. Not while other threads put. */
int packer_set_dict(struct packer *p, const void *dict, size_t len, struct im_error *err);
/* Stores one entry, or finds it: with id, an entry of that id already in the vault (or in this run) is reused. Thread-safe; codec is the calling thread's. */
int packer_put(struct packer *p, struct codec *c, enum entry_type type, const uint8_t id[32], const void *plain, size_t len, struct im_ref *ret, bool *ret_new, struct im_error *err);
/* Everything put so far becomes durable: packs, then the index fragment. */
int packer_finish(struct packer *p, struct im_error *err);
void packer_get_stats(struct packer *p, struct packer_stats *ret);

#endif
