/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cryptography against published or independently computed values (Python's hashlib, the XChaCha
 * draft), so that the format is what FORMAT.md says and not merely what this program does.
 */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int start(void **state)
{
	struct im_error err = { 0 };
	(void)state;
	return crypto_init(&err) || crypto_init(&err);
}

static void assert_hex(const void *data, size_t len, const char *expected)
{
	char text[513];
	assert_true(len <= 256);
	assert_string_equal(im_hex(text, data, len), expected);
}

static void counting_key(uint8_t ret[32])
{
	for (uint8_t i = 0; i < 32; i++)
		ret[i] = i;
}

static void crypto_hash__is_blake2b_256(void **state)
{
	uint8_t hash[32];
	(void)state;
	crypto_hash(hash, "abc", 3);
	assert_hex(hash, 32, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
}

static void crypto_derive__is_keyed_blake2b_of_the_label(void **state)
{
	uint8_t key[32], derived[32];
	(void)state;
	counting_key(key);
	crypto_derive(derived, key, "imvault index v1");
	assert_hex(derived, 32, "b4d984fd02820017930bb4c4b1255b6dfbb585c8541a1598404ccf0aa6ac28b2");
}

static void crypto_hasher__equals_one_shot_for_any_cut(void **state)
{
	uint8_t data[300], whole[32], parts[32];
	(void)state;
	fill_bytes(data, sizeof data, 1);
	crypto_hash(whole, data, sizeof data);
	for (size_t cut = 0; cut <= sizeof data; cut += 50) {
		struct crypto_hasher h;
		crypto_hasher_begin(&h);
		crypto_hasher_add(&h, data, cut);
		crypto_hasher_add(&h, data + cut, sizeof data - cut);
		crypto_hasher_end(&h, parts);
		assert_memory_equal(whole, parts, 32);
	}
}

static void crypto_page_hash__is_poly1305_of_page_and_number(void **state)
{
	uint8_t key[32], page[512], hash[16], other[16];
	(void)state;
	counting_key(key);
	for (size_t i = 0; i < sizeof page; i++)
		page[i] = (uint8_t)(i % 251);
	crypto_page_hash(hash, key, page, sizeof page, 7);
	assert_hex(hash, 16, "9946fe77020bcd8436af0503559c01a1");
	crypto_page_hash(other, key, page, sizeof page, 8);
	assert_memory_not_equal(hash, other, 16);
}

static void crypto_aead__matches_the_xchacha_draft(void **state)
{
	static const char plain[] = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
	                            "sunscreen would be it.";
	uint8_t key[32], nonce[24], aad[12], sealed[sizeof plain - 1 + 16];
	(void)state;
	for (uint8_t i = 0; i < 32; i++)
		key[i] = (uint8_t)(0x80 + i);
	for (uint8_t i = 0; i < 24; i++)
		nonce[i] = (uint8_t)(0x40 + i);
	assert_true(im_unhex(aad, 12, "50515253c0c1c2c3c4c5c6c7"));
	crypto_aead_seal(sealed, key, nonce, aad, 12, plain, sizeof plain - 1);
	assert_hex(sealed, 16, "bd6d179d3e83d43b9576579493c0e939");
	assert_hex(sealed + sizeof plain - 1, 16, "c0875924c1c7987947deafd8780acf49");
}

static void crypto_aead_open__refuses_any_flipped_bit(void **state)
{
	uint8_t key[32], nonce[24] = { 1 }, sealed[20 + 16], copy[sizeof sealed], plain[sizeof sealed];
	(void)state;
	counting_key(key);
	crypto_aead_seal(sealed, key, nonce, "aad", 3, "twenty bytes of text", 20);
	for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
		memcpy(copy, sealed, sizeof sealed);
		copy[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		assert_false(crypto_aead_open(plain, key, nonce, "aad", 3, copy, sizeof copy));
	}
	assert_false(crypto_aead_open(plain, key, nonce, "aae", 3, sealed, sizeof sealed));
	assert_false(crypto_aead_open(plain, key, nonce, "aad", 3, sealed, 15));
	assert_true(crypto_aead_open(sealed, key, nonce, "aad", 3, sealed, sizeof sealed)); /* in place */
	assert_memory_equal(sealed, "twenty bytes of text", 20);
}

static void crypto_box__opens_only_with_its_secret(void **state)
{
	uint8_t public_key[32], secret[32], other_public[32], other[32], derived[32], sealed[4 + CRYPTO_SEAL_BYTES], plain[4];
	(void)state;
	crypto_box_keypair(public_key, secret);
	crypto_box_keypair(other_public, other);
	crypto_box_public(derived, secret);
	assert_memory_equal(derived, public_key, 32);
	assert_int_equal(crypto_box_seal_to(sealed, public_key, "key!", 4), 0);
	assert_false(crypto_box_open(plain, other, sealed, sizeof sealed));
	assert_false(crypto_box_open(plain, secret, sealed, CRYPTO_SEAL_BYTES - 1));
	assert_true(crypto_box_open(plain, secret, sealed, sizeof sealed));
	assert_memory_equal(plain, "key!", 4);
}

static void crypto_box_seal_to__refuses_a_degenerate_key(void **state)
{
	uint8_t zero[32] = { 0 }, sealed[1 + CRYPTO_SEAL_BYTES];
	(void)state;
	assert_int_equal(crypto_box_seal_to(sealed, zero, "x", 1), -1);
}

static void crypto_verify__wants_the_same_key_domain_and_data(void **state)
{
	uint8_t seed[32], public_key[32], other[32], signature[64];
	(void)state;
	counting_key(seed);
	crypto_sign_public(public_key, seed);
	crypto_sign(signature, seed, "imvault record v1", "data", 4);
	assert_true(crypto_verify(signature, public_key, "imvault record v1", "data", 4));
	assert_false(crypto_verify(signature, public_key, "imvault index v1", "data", 4));
	assert_false(crypto_verify(signature, public_key, "imvault record v1", "date", 4));
	assert_false(crypto_verify(signature, public_key, "imvault record v1", "data", 3));
	seed[0] ^= 1;
	crypto_sign_public(other, seed);
	assert_false(crypto_verify(signature, other, "imvault record v1", "data", 4));
}

static void crypto_sign__signs_the_nul_of_the_domain(void **state)
{
	uint8_t seed[32], public_key[32], signature[64];
	(void)state;
	counting_key(seed);
	crypto_sign_public(public_key, seed);
	crypto_sign(signature, seed, "ab", "c", 1);
	assert_false(crypto_verify(signature, public_key, "a", "bc", 2));
}

static void crypto_password_key__refuses_limits_out_of_bounds(void **state)
{
	static const struct {
		uint64_t opslimit, memlimit_bytes;
	} bad[] = { { 0, 8 << 20 }, { 17, 8 << 20 }, { 1, (8 << 20) - 1 }, { 1, (UINT64_C(1) << 30) + 1 }, { UINT64_MAX, UINT64_MAX } };
	uint8_t key[32], salt[16] = { 0 };
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct im_error err = { 0 };
		assert_int_not_equal(crypto_password_key(key, "x", salt, bad[i].opslimit, bad[i].memlimit_bytes, &err), 0);
	}
}

static void crypto_secret_new__gives_zeroed_memory(void **state)
{
	uint8_t *secret = crypto_secret_new(100);
	(void)state;
	assert_non_null(secret);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(secret[i], 0);
	crypto_secret_free(secret);
	crypto_secret_free(NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(crypto_hash__is_blake2b_256),
		cmocka_unit_test(crypto_derive__is_keyed_blake2b_of_the_label),
		cmocka_unit_test(crypto_hasher__equals_one_shot_for_any_cut),
		cmocka_unit_test(crypto_page_hash__is_poly1305_of_page_and_number),
		cmocka_unit_test(crypto_aead__matches_the_xchacha_draft),
		cmocka_unit_test(crypto_aead_open__refuses_any_flipped_bit),
		cmocka_unit_test(crypto_box__opens_only_with_its_secret),
		cmocka_unit_test(crypto_box_seal_to__refuses_a_degenerate_key),
		cmocka_unit_test(crypto_verify__wants_the_same_key_domain_and_data),
		cmocka_unit_test(crypto_sign__signs_the_nul_of_the_domain),
		cmocka_unit_test(crypto_password_key__refuses_limits_out_of_bounds),
		cmocka_unit_test(crypto_secret_new__gives_zeroed_memory),
	};
	return cmocka_run_group_tests(tests, start, NULL);
}
