/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cryptography: the only file pair that uses libsodium. Sizes are in the prototypes. Constructions
 * are those of docs/FORMAT.md. Secrets live in crypto_secret memory (locked, wiped when freed).
 */
#ifndef IM_VAULT_CRYPTO_H
#define IM_VAULT_CRYPTO_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>

/* libsodium exports functions of these names and calls them itself: ours must not take their place. */
#define crypto_hash im_crypto_hash
#define crypto_sign im_crypto_sign
#define crypto_box_keypair im_crypto_box_keypair
#define crypto_box_open im_crypto_box_open

#define CRYPTO_KEY_BYTES 32
#define CRYPTO_HASH_BYTES 32
#define CRYPTO_NONCE_BYTES 24
#define CRYPTO_TAG_BYTES 16
#define CRYPTO_SEAL_BYTES 48
#define CRYPTO_SIGNATURE_BYTES 64
#define CRYPTO_PAGE_HASH_BYTES 16

int crypto_init(struct im_error *err); /* once per process; safe to repeat */
void crypto_random(void *ret, size_t len);
void crypto_wipe(void *p, size_t len);
bool crypto_equal(const void *a, const void *b, size_t len); /* constant time */
void *crypto_secret_new(size_t len); /* zeroed, guarded; NULL when out of memory */
void crypto_secret_free(void *p);    /* NULL is fine */

void crypto_hash(uint8_t ret[32], const void *data, size_t len); /* B2 */
void crypto_keyed(uint8_t ret[32], const uint8_t key[32], const void *data, size_t len); /* B2k */
void crypto_derive(uint8_t ret[32], const uint8_t key[32], const char *label); /* B2k(key, label) */

struct crypto_hasher { /* streaming B2 */
	_Alignas(64) uint8_t state[384];
};
void crypto_hasher_begin(struct crypto_hasher *h);
void crypto_hasher_add(struct crypto_hasher *h, const void *data, size_t len);
void crypto_hasher_end(struct crypto_hasher *h, uint8_t ret[32]);

/* Page hash of FORMAT §4 (Poly1305 over content ‖ page number ‖ 0). */
void crypto_page_hash(uint8_t ret[16], const uint8_t page_key[32], const void *page, size_t len, uint64_t number);

/* ret has len + 16 bytes. In place is allowed (ret == plain). */
void crypto_aead_seal(uint8_t *ret, const uint8_t key[32], const uint8_t nonce[24], const void *aad, size_t aad_len, const void *plain, size_t len);
/* len counts the tag; ret has len - 16 bytes. false: not authentic. In place is allowed. */
bool crypto_aead_open(uint8_t *ret, const uint8_t key[32], const uint8_t nonce[24], const void *aad, size_t aad_len, const void *sealed, size_t len);

void crypto_box_keypair(uint8_t ret_public[32], uint8_t ret_secret[32]);
void crypto_box_public(uint8_t ret_public[32], const uint8_t secret[32]);
void crypto_sign_public(uint8_t ret_public[32], const uint8_t seed[32]);
int crypto_box_seal_to(uint8_t *ret, const uint8_t public_key[32], const void *plain, size_t len); /* ret: len + 48; -1 for a degenerate key */
bool crypto_box_open(uint8_t *ret, const uint8_t secret[32], const void *sealed, size_t len); /* ret: len - 48 */
/* Domain is the NUL-terminated label of FORMAT; its NUL is part of the message. */
void crypto_sign(uint8_t ret[64], const uint8_t seed[32], const char *domain, const void *data, size_t len);
bool crypto_verify(const uint8_t signature[64], const uint8_t public_key[32], const char *domain, const void *data, size_t len);

/* Argon2id13. Limits checked: opslimit 1…16, memory 8 MiB…1 GiB. */
int crypto_password_key(uint8_t ret[32], const char *passphrase, const uint8_t salt[16], uint64_t opslimit, uint64_t memlimit_bytes, struct im_error *err);

#endif
