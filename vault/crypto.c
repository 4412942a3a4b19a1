/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place that calls libsodium. Nothing here chooses a construction: docs/FORMAT.md does.
 * Keys are only ever copied into memory the caller owns; intermediate secrets are wiped before
 * return on every path.
 */
#include <sodium.h> /* before crypto.h, which renames what would clash */

#include "vault/crypto.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct crypto_hasher) >= sizeof(crypto_generichash_state), "hasher too small");
_Static_assert(CRYPTO_SEAL_BYTES == crypto_box_SEALBYTES, "seal size");
_Static_assert(CRYPTO_TAG_BYTES == crypto_aead_xchacha20poly1305_ietf_ABYTES, "tag size");
_Static_assert(CRYPTO_NONCE_BYTES == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, "nonce size");
_Static_assert(CRYPTO_PAGE_HASH_BYTES == crypto_onetimeauth_BYTES, "page hash size");

int crypto_init(struct im_error *err)
{
	if (sodium_init() < 0)
		return im_fail(err, IM_EFAIL, "libsodium cannot start (no source of random numbers?)");
	return 0;
}

void crypto_random(void *ret, size_t len)
{
	randombytes_buf(ret, len);
}

void crypto_wipe(void *p, size_t len)
{
	sodium_memzero(p, len);
}

bool crypto_equal(const void *a, const void *b, size_t len)
{
	return sodium_memcmp(a, b, len) == 0;
}

/* sodium_malloc locks the pages if RLIMIT_MEMLOCK lets it, and goes on if not. */
void *crypto_secret_new(size_t len)
{
	void *p = sodium_malloc(len ? len : 1);
	if (p)
		memset(p, 0, len);
	return p;
}

void crypto_secret_free(void *p)
{
	sodium_free(p);
}

void crypto_hash(uint8_t ret[32], const void *data, size_t len)
{
	crypto_generichash(ret, 32, data, len, NULL, 0);
}

void crypto_keyed(uint8_t ret[32], const uint8_t key[32], const void *data, size_t len)
{
	crypto_generichash(ret, 32, data, len, key, 32);
}

void crypto_derive(uint8_t ret[32], const uint8_t key[32], const char *label)
{
	crypto_keyed(ret, key, label, strlen(label));
}

static crypto_generichash_state *hasher_state(struct crypto_hasher *h)
{
	return (crypto_generichash_state *)(void *)h->state;
}

void crypto_hasher_begin(struct crypto_hasher *h)
{
	crypto_generichash_init(hasher_state(h), NULL, 0, 32);
}

void crypto_hasher_add(struct crypto_hasher *h, const void *data, size_t len)
{
	crypto_generichash_update(hasher_state(h), data, len);
}

void crypto_hasher_end(struct crypto_hasher *h, uint8_t ret[32])
{
	crypto_generichash_final(hasher_state(h), ret, 32);
}

void crypto_page_hash(uint8_t ret[16], const uint8_t page_key[32], const void *page, size_t len, uint64_t number)
{
	crypto_onetimeauth_state state;
	uint8_t suffix[16] = { 0 };
	im_put_le64(suffix, number);
	crypto_onetimeauth_init(&state, page_key);
	crypto_onetimeauth_update(&state, page, len);
	crypto_onetimeauth_update(&state, suffix, sizeof suffix);
	crypto_onetimeauth_final(&state, ret);
}

void crypto_aead_seal(uint8_t *ret, const uint8_t key[32], const uint8_t nonce[24], const void *aad, size_t aad_len,
    const void *plain, size_t len)
{
	crypto_aead_xchacha20poly1305_ietf_encrypt(ret, NULL, plain, len, aad, aad_len, NULL, nonce, key);
}

bool crypto_aead_open(uint8_t *ret, const uint8_t key[32], const uint8_t nonce[24], const void *aad, size_t aad_len,
    const void *sealed, size_t len)
{
	return len >= CRYPTO_TAG_BYTES &&
	       crypto_aead_xchacha20poly1305_ietf_decrypt(ret, NULL, NULL, sealed, len, aad, aad_len, nonce, key) == 0;
}

void crypto_box_keypair(uint8_t ret_public[32], uint8_t ret_secret[32])
{
	crypto_random(ret_secret, 32);
	crypto_box_public(ret_public, ret_secret);
}

void crypto_box_public(uint8_t ret_public[32], const uint8_t secret[32])
{
	crypto_scalarmult_base(ret_public, secret);
}

void crypto_sign_public(uint8_t ret_public[32], const uint8_t seed[32])
{
	uint8_t secret[crypto_sign_SECRETKEYBYTES];
	crypto_sign_seed_keypair(ret_public, secret, seed);
	sodium_memzero(secret, sizeof secret);
}

int crypto_box_seal_to(uint8_t *ret, const uint8_t public_key[32], const void *plain, size_t len)
{
	return crypto_box_seal(ret, plain, len, public_key) ? -1 : 0;
}

bool crypto_box_open(uint8_t *ret, const uint8_t secret[32], const void *sealed, size_t len)
{
	uint8_t public_key[32];
	if (len < CRYPTO_SEAL_BYTES)
		return false;
	crypto_box_public(public_key, secret);
	return crypto_box_seal_open(ret, sealed, len, public_key, secret) == 0;
}

/* Ed25519 wants one contiguous message. */
static uint8_t *with_domain(const char *domain, const void *data, size_t len, size_t *ret_len)
{
	size_t prefix = strlen(domain) + 1;
	uint8_t *message = len < SIZE_MAX - prefix ? malloc(prefix + len) : NULL;
	if (!message)
		return NULL;
	memcpy(message, domain, prefix);
	if (len)
		memcpy(message + prefix, data, len);
	*ret_len = prefix + len;
	return message;
}

void crypto_sign(uint8_t ret[64], const uint8_t seed[32], const char *domain, const void *data, size_t len)
{
	uint8_t public_key[32], secret[crypto_sign_SECRETKEYBYTES];
	size_t message_len = 0;
	uint8_t *message = with_domain(domain, data, len, &message_len);
	IM_CHECK(message); /* nothing refers to what was to be signed: stopping here is safe */
	crypto_sign_seed_keypair(public_key, secret, seed);
	crypto_sign_detached(ret, NULL, message, message_len, secret);
	sodium_memzero(secret, sizeof secret);
	free(message);
}

bool crypto_verify(const uint8_t signature[64], const uint8_t public_key[32], const char *domain, const void *data, size_t len)
{
	size_t message_len = 0;
	uint8_t *message = with_domain(domain, data, len, &message_len);
	bool ok = message && crypto_sign_verify_detached(signature, message, message_len, public_key) == 0;
	free(message);
	return ok;
}

int crypto_password_key(uint8_t ret[32], const char *passphrase, const uint8_t salt[16], uint64_t opslimit,
    uint64_t memlimit_bytes, struct im_error *err)
{
	if (opslimit < 1 || opslimit > 16 || memlimit_bytes < UINT64_C(8) << 20 || memlimit_bytes > UINT64_C(1) << 30)
		return im_fail(err, IM_ECORRUPT, "the passphrase settings of the key file are out of bounds");
	if (crypto_pwhash(ret, 32, passphrase, strlen(passphrase), salt, opslimit, (size_t)memlimit_bytes,
		crypto_pwhash_ALG_ARGON2ID13))
		return im_fail(err, IM_ENOMEM, "not enough memory to derive a key from the passphrase (it takes %llu MiB)",
		    (unsigned long long)(memlimit_bytes >> 20));
	return 0;
}
