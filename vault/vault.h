/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vault opened with a key: storage, key file, keyring. Everything above the vault starts here.
 */
#ifndef IM_VAULT_VAULT_H
#define IM_VAULT_VAULT_H

#include "vault/keyring.h"

struct vault {
	struct storage *storage;
	struct key_file *key; /* NULL: keyless */
	struct keyring *keyring;
	uint8_t id[16], authority[32];
};

/* Creates vault.json and the first keyring. Both key files are written (durably) before the vault is. Passphrases may be NULL. IM_EUSAGE if a vault is there already. */
int vault_init(const char *url, const char *restore_path, const char *restore_passphrase, const char *node_path, const char *node, struct im_error *err);
/* key_path NULL: keyless (scrub only). min_generation as in keyring_open. */
int vault_open(const char *url, const char *key_path, key_passphrase_fn *ask, void *context, uint32_t min_generation, struct vault **ret, struct im_error *err);
/* As vault_open on a storage that is open already (tests put a fault layer there). Takes it over, also on failure. key may be NULL; taken over on success. */
int vault_open_storage(struct storage *s, struct key_file *key, uint32_t min_generation, struct vault **ret, struct im_error *err);
void vault_close(struct vault *v);

#endif
