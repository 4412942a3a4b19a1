/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local state of a node: an SQLite file that only saves work. It may be lost or cloned at any
 * time: losing it costs one full read and no data; cloning it repeats no nonce (none comes from here).
 * It holds pack numbers, the ids of what is stored, and what the store kinds remember (page hashes,
 * leaves, file stats), never content. It is bound to one vault and one node, and is written only after the snapshot
 * it describes is durable.
 */
#ifndef IM_VAULT_STATE_H
#define IM_VAULT_STATE_H

#include "vault/pack.h"

struct state;

struct state_head { /* the snapshot this state describes */
	uint64_t seq;
	uint8_t hash[32];
	char epoch[17];
	uint32_t keyring_generation;
};

/* dir: made if missing (0700). A damaged or foreign file is moved aside (NAME.damaged) and a new state begun. */
int state_open(const char *dir, const uint8_t vault_id[16], const char *node, struct state **ret, struct im_error *err);
void state_close(struct state *s); /* without state_commit: everything since is forgotten */
/* False if this state is new (no snapshot yet): epoch is then fresh. */
bool state_head(struct state *s, struct state_head *ret);
/* Forget what stores know (maps, stats), keep nothing but the highest seen head for rollback detection. */
int state_forget(struct state *s, struct im_error *err);
/* Forget also which ids, packs and index fragments are in the vault: it was found to have lost some. Numbers already given are not given again. */
int state_forget_ids(struct state *s, struct im_error *err);

/* Store-kind memory: key/value blobs per store, in one transaction until state_commit. Thread-safe. */
int state_get(struct state *s, const char *store, const char *key, struct im_buf *ret, struct im_error *err); /* IM_ENOTFOUND */
int state_put(struct state *s, const char *store, const char *key, const void *data, size_t len, struct im_error *err);
int state_delete(struct state *s, const char *store, const char *key_prefix, struct im_error *err); /* "" = all of the store */

/* Packs. Numbers are given once and never again. */
int state_pack_number(struct state *s, uint32_t *ret, struct im_error *err);
int state_pack_add(struct state *s, const struct pack_info *pack, struct im_error *err);
int state_pack_get(struct state *s, uint32_t number, struct pack_info *ret, struct im_error *err);
int state_pack_by_name(struct state *s, const uint8_t name[32], uint32_t *ret, struct im_error *err); /* IM_ENOTFOUND */

/* Ids of entries in durable packs. Thread-safe. */
int state_id_find(struct state *s, const uint8_t id[32], struct im_ref *ret, struct im_error *err); /* IM_ENOTFOUND */
int state_id_add(struct state *s, const uint8_t id[32], const struct im_ref *ref, struct im_error *err);
/* Index fragments already taken in. */
bool state_fragment_known(struct state *s, const char *name);
int state_fragment_add(struct state *s, const char *name, struct im_error *err);

/* Ids, packs and fragments become permanent (they are durable in the vault whatever becomes of this run); store memory stays pending. */
int state_checkpoint(struct state *s, struct im_error *err);
/* Everything becomes permanent together with the new head. */
int state_commit(struct state *s, const struct state_head *head, struct im_error *err);

#endif
