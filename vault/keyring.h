/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys: the files people and nodes keep, and the vault's keyring (FORMAT §3), an append-only chain
 * of signed generations. Opening it checks the whole chain from the authority pinned in the key file.
 */
#ifndef IM_VAULT_KEYRING_H
#define IM_VAULT_KEYRING_H

#include "base/error.h"

#include <stdbool.h>
#include "vault/crypto.h"
#include "vault/storage/storage.h"

enum key_role { KEY_NODE, KEY_RESTORE, KEY_PRUNE };

/* A key file in memory. Secrets in crypto_secret memory. */
struct key_file {
	uint8_t vault_id[16], id[8], authority[32];
	enum key_role role;
	char *name, *node; /* node may be NULL */
	uint8_t box_public[32], sign_public[32];
	uint8_t *box_secret, *sign_seed; /* 32 bytes each */
	bool is_protected;
};

struct key_entry { /* one key of the keyring */
	uint8_t id[8], box_public[32], sign_public[32], replaces[8];
	enum key_role role;
	char *name, *node;
	bool active, has_replaces;
	char *created;
};

struct keyring; /* immutable once opened; threads may share it */

const char *key_role_name(enum key_role role);
bool key_role_parse(const char *text, enum key_role *ret);

/* New random key pair. authority NULL: the new key itself is it (init). */
int key_file_new(const uint8_t vault_id[16], const uint8_t authority[32], enum key_role role, const char *name, const char *node, struct key_file **ret, struct im_error *err);
/* passphrase NULL: unprotected. Durable, 0600; never replaces unless replace. */
int key_file_save(const struct key_file *k, const char *path, const char *passphrase, bool replace, struct im_error *err);
/* ask(ctx, path) gives a passphrase (malloc'ed, wiped and freed here) or NULL; only called for a protected file. Wrong passphrase: IM_EKEY. */
typedef char *key_passphrase_fn(void *context, const char *path);
int key_file_load(const char *path, key_passphrase_fn *ask, void *context, struct key_file **ret, struct im_error *err);
void key_file_free(struct key_file *k);

/* init: writes generation 1 holding both keys. authority is restore's sign key. */
int keyring_create(struct storage *s, const struct key_file *restore, const struct key_file *node, struct im_error *err);
/* Walks and verifies the chain, unseals what `own` may see. own NULL: public parts only (keyless scrub).
 * IM_EKEY if own is revoked or unknown, IM_ECORRUPT for a broken chain. min_generation: refuse an older keyring (rollback); 0 = any. */
int keyring_open(struct storage *s, const uint8_t vault_id[16], const uint8_t authority[32], const struct key_file *own, uint32_t min_generation, struct keyring **ret, struct im_error *err);
void keyring_free(struct keyring *k);

uint32_t keyring_generation(const struct keyring *k);
const uint8_t *keyring_vault_id(const struct keyring *k);
const struct key_file *keyring_own(const struct keyring *k); /* borrowed; NULL if keyless */
size_t keyring_count(const struct keyring *k);
const struct key_entry *keyring_at(const struct keyring *k, size_t i);
const struct key_entry *keyring_find(const struct keyring *k, const uint8_t id[8]);
/* Active restore keys, to whom content is sealed. */
size_t keyring_recipients(const struct keyring *k, const struct key_entry **ret, size_t max);
/* Key derived from a generation's meta key ("imvault index v1" …). IM_EKEY if not ours to see. */
int keyring_meta_key(const struct keyring *k, uint32_t generation, const char *label, uint8_t ret[32], struct im_error *err);
/* Key derived from the id key ("imvault page v1", "imvault chunk v1"). IM_EKEY for role prune. */
int keyring_id_key(const struct keyring *k, const char *label, uint8_t ret[32], struct im_error *err);
/* Opens what was sealed to any of the restore keys we hold or inherit. recipients: count × (id[8] ‖ sealed[48+len]). IM_EKEY if none is ours. */
int keyring_unseal(const struct keyring *k, const uint8_t *recipients, size_t count, void *ret, size_t len, struct im_error *err);
/* May this key sign snapshots of NODE with this sequence? Only node keys may; FORMAT §3, "Who may write". */
bool keyring_may_sign(const struct keyring *k, const uint8_t key_id[8], const char *node, uint64_t seq);
/* May this key sign the log segment of NODE's STORE that ends at this point of the epoch? */
bool keyring_may_sign_log(const struct keyring *k, const uint8_t key_id[8], const char *node, const char *store, const char *epoch, uint32_t last);
/* Same key, or one that replaced the other, directly or through others. */
bool keyring_same_lineage(const struct keyring *k, const uint8_t a[8], const uint8_t b[8]);

/* Changes: own must be an active restore key; each writes generation+1 durably and nothing else. */
int keyring_add(struct storage *s, const struct keyring *k, const struct key_file *fresh, struct im_error *err);
/* lasts: JSON object text {NODE: SEQ} for a node key, or NULL. New meta key. */
int keyring_revoke(struct storage *s, const struct keyring *k, const uint8_t id[8], const char *lasts, struct im_error *err);
/* fresh (same role) takes the place of old, which is revoked; a fresh restore key inherits. New meta key. */
int keyring_rotate(struct storage *s, const struct keyring *k, const uint8_t old[8], const struct key_file *fresh, const char *lasts, struct im_error *err);

#endif
