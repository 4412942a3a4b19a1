/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: who reads which part, and that no bit, no byte and no claim about sizes can be changed
 * unseen.
 */
#include "fixture.h"

#include "base/cleanup.h"
#include "vault/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct rig {
	struct fixture f;
	struct im_buf object; /* a snapshot record by the node */
	uint8_t hash[32];
	struct im_error err;
};

static void encode(const struct keyring *k, struct im_buf *ret, uint8_t ret_hash[32])
{
	struct im_error err = { 0 };
	json_t *meta = json_pack("{s:s, s:i}", "node", "im-01", "seq", 1), *private_part = json_pack("{s:s}", "config", "hidden");
	assert_ok(record_encode(k, RECORD_SNAPSHOT, meta, private_part, ret, ret_hash, &err), &err);
	json_decref(meta);
	json_decref(private_part);
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	fixture_start(&r->f);
	encode(r->f.node->keyring, &r->object, r->hash);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	im_buf_free(&r->object);
	fixture_stop(&r->f);
	free(r);
	return 0;
}

static int decode(const struct keyring *k, const void *data, size_t len)
{
	struct record record = { 0 };
	int rc = record_decode(k, RECORD_SNAPSHOT, data, len, &record, NULL);
	record_clear(&record);
	return rc;
}

static const char *text_in(json_t *part, const char *key)
{
	return json_string_value(json_object_get(part, key));
}

static void record_decode__restore_key_reads_both_parts(void **state)
{
	struct rig *r = *state;
	struct record record = { 0 };
	assert_ok(record_decode(r->f.restore->keyring, RECORD_SNAPSHOT, r->object.data, r->object.len, &record, &r->err), &r->err);
	assert_string_equal(text_in(record.meta, "node"), "im-01");
	assert_string_equal(text_in(record.private_part, "config"), "hidden");
	assert_memory_equal(record.signer, r->f.node->key->id, 8);
	assert_memory_equal(record.hash, r->hash, 32);
	assert_int_equal(record.generation, 1);
	record_clear(&record);
}

static void record_decode__node_key_reads_meta_only(void **state)
{
	struct rig *r = *state;
	struct record record = { 0 };
	assert_ok(record_decode(r->f.node->keyring, RECORD_SNAPSHOT, r->object.data, r->object.len, &record, &r->err), &r->err);
	assert_string_equal(text_in(record.meta, "node"), "im-01");
	assert_null(record.private_part);
	record_clear(&record);
}

static void record_decode__keyless_reads_nothing(void **state)
{
	struct rig *r = *state;
	struct vault *v;
	assert_ok(vault_open(r->f.vault_dir, NULL, NULL, NULL, 0, &v, &r->err), &r->err);
	assert_int_equal(decode(v->keyring, r->object.data, r->object.len), IM_EKEY);
	vault_close(v);
}

static void record__shows_neither_part_in_clear(void **state)
{
	struct rig *r = *state;
	assert_null(memmem(r->object.data, r->object.len, "im-01", 5));
	assert_null(memmem(r->object.data, r->object.len, "hidden", 6));
}

static void record_encode__never_repeats_itself(void **state)
{
	struct rig *r = *state;
	auto_buf struct im_buf again = { 0 };
	uint8_t hash[32];
	encode(r->f.node->keyring, &again, hash);
	assert_int_equal(again.len, r->object.len);
	assert_memory_not_equal(hash, r->hash, 32);
	size_t meta_nonce_at = 56 + 88;
	assert_memory_not_equal(again.data + meta_nonce_at, r->object.data + meta_nonce_at, 24);
}

static void record_encode__appends_to_what_is_there(void **state)
{
	struct rig *r = *state;
	auto_buf struct im_buf b = { 0 };
	uint8_t hash[32], whole[32];
	im_buf_put(&b, "before", 6);
	encode(r->f.node->keyring, &b, hash);
	assert_memory_equal(b.data, "before", 6);
	crypto_hash(whole, b.data + 6, b.len - 6);
	assert_memory_equal(whole, hash, 32);
	assert_int_equal(decode(r->f.restore->keyring, b.data + 6, b.len - 6), 0);
}

static void record_encode_bytes__keeps_a_segments_body_as_it_is(void **state)
{
	struct rig *r = *state;
	static const uint8_t body[] = { 0, 1, 255, 0 };
	for (size_t len = 0; len <= sizeof body; len += sizeof body) {
		auto_buf struct im_buf b = { 0 };
		struct record record = { 0 };
		uint8_t hash[32];
		json_t *meta = json_pack("{s:s}", "kind", "segment");
		im_buf_put(&b, "before", 6);
		assert_ok(record_encode_bytes(r->f.node->keyring, RECORD_SEGMENT, meta, body, len, &b, hash, &r->err), &r->err);
		json_decref(meta);
		assert_ok(record_decode(r->f.restore->keyring, RECORD_SEGMENT, b.data + 6, b.len - 6, &record, &r->err), &r->err);
		assert_memory_equal(record.hash, hash, 32);
		assert_null(record.private_part);
		assert_true(record.has_private);
		assert_int_equal(record.private_bytes.len, len);
		assert_memory_equal(record.private_bytes.data, body, len);
		record_clear(&record);
		assert_ok(record_decode(r->f.node->keyring, RECORD_SEGMENT, b.data + 6, b.len - 6, &record, &r->err), &r->err);
		assert_false(record.has_private);
		record_clear(&record);
		b.data[b.len - 64 - 1] ^= 1; /* the body's tag */
		assert_int_equal(record_decode(r->f.restore->keyring, RECORD_SEGMENT, b.data + 6, b.len - 6, &record, NULL), IM_ECORRUPT);
	}
}

static void record_encode__takes_a_node_or_restore_key(void **state)
{
	struct rig *r = *state;
	struct key_file *prune;
	struct keyring *k;
	auto_buf struct im_buf b = { 0 };
	uint8_t hash[32];
	struct vault *v = r->f.restore;
	encode(v->keyring, &b, hash);
	size_t len = b.len;
	assert_ok(key_file_new(v->id, v->authority, KEY_PRUNE, "p", NULL, &prune, &r->err), &r->err);
	assert_ok(keyring_add(v->storage, v->keyring, prune, &r->err), &r->err);
	assert_ok(keyring_open(v->storage, v->id, v->authority, prune, 0, &k, &r->err), &r->err);
	json_t *meta = json_object();
	assert_int_equal(record_encode(k, RECORD_SNAPSHOT, meta, meta, &b, hash, NULL), IM_EKEY);
	assert_int_equal(b.len, len);
	assert_int_equal(decode(k, r->object.data, r->object.len), 0); /* but reads meta */
	json_decref(meta);
	keyring_free(k);
	key_file_free(prune);
}

static void record_decode__detects_every_flipped_bit(void **state)
{
	struct rig *r = *state;
	for (size_t bit = 0; bit < 8 * r->object.len; bit++) {
		r->object.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		if (decode(r->f.restore->keyring, r->object.data, r->object.len) != IM_ECORRUPT)
			fail_msg("bit %zu flipped unseen", bit);
		r->object.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
	assert_int_equal(decode(r->f.restore->keyring, r->object.data, r->object.len), 0);
}

static void record_decode__detects_every_length(void **state)
{
	struct rig *r = *state;
	for (size_t len = 0; len < r->object.len; len++) {
		auto_free uint8_t *copy = malloc(len + 1); /* so that sanitizers see every overrun */
		memcpy(copy, r->object.data, len);
		assert_int_equal(decode(r->f.restore->keyring, copy, len), IM_ECORRUPT);
	}
	im_buf_put_u8(&r->object, 0);
	assert_int_equal(decode(r->f.restore->keyring, r->object.data, r->object.len), IM_ECORRUPT);
}

/* Signed again after the change: what a thief of a node key could write. */
static void resign(struct rig *r)
{
	crypto_sign(r->object.data + r->object.len - 64, r->f.node->key->sign_seed, "imvault record v1", r->object.data, r->object.len - 64);
}

static void record_decode__survives_hostile_heads_rightly_signed(void **state)
{
	static const uint8_t masks[] = { 0x01, 0x80, 0xff };
	struct rig *r = *state;
	for (size_t at = 0; at < 56 + 88 + 24; at++)
		for (size_t m = 0; m < sizeof masks; m++) {
			r->object.data[at] ^= masks[m];
			resign(r);
			if (decode(r->f.restore->keyring, r->object.data, r->object.len) == 0)
				fail_msg("byte %zu changed unseen", at);
			r->object.data[at] ^= masks[m];
		}
}

static void record_decode__refuses_another_kind_or_vault(void **state)
{
	struct rig *r = *state;
	struct fixture other;
	struct record record = { 0 };
	assert_int_equal(record_decode(r->f.restore->keyring, RECORD_DRILL, r->object.data, r->object.len, &record, NULL), IM_ECORRUPT);
	fixture_start(&other);
	assert_int_equal(decode(other.restore->keyring, r->object.data, r->object.len), IM_ECORRUPT);
	fixture_stop(&other);
}

static void record_decode__old_records_stay_readable_after_rotation(void **state)
{
	struct rig *r = *state;
	struct vault *v = r->f.restore;
	struct key_file *next;
	struct keyring *k;
	struct record record = { 0 };
	assert_ok(key_file_new(v->id, v->authority, KEY_RESTORE, "next", NULL, &next, &r->err), &r->err);
	assert_ok(keyring_rotate(v->storage, v->keyring, v->key->id, next, NULL, &r->err), &r->err);
	assert_ok(keyring_open(v->storage, v->id, v->authority, next, 0, &k, &r->err), &r->err);
	assert_ok(record_decode(k, RECORD_SNAPSHOT, r->object.data, r->object.len, &record, &r->err), &r->err);
	assert_string_equal(text_in(record.private_part, "config"), "hidden");
	record_clear(&record);
	keyring_free(k);
	key_file_free(next);
}

static void record_decompress__gives_back_what_was_compressed(void **state)
{
	static const size_t lengths[] = { 0, 1, 1000, 300000 };
	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		auto_free uint8_t *data = malloc(lengths[i] + 1);
		auto_buf struct im_buf packed = { 0 }, plain = { 0 };
		fill_bytes(data, lengths[i], i);
		assert_int_equal(record_compress(data, lengths[i], &packed, NULL), 0);
		assert_int_equal(record_decompress(packed.data, packed.len, lengths[i], &plain, NULL), 0);
		assert_int_equal(plain.len, lengths[i]);
		assert_memory_equal(plain.data, data, lengths[i]);
		if (lengths[i])
			assert_int_equal(record_decompress(packed.data, packed.len, lengths[i] - 1, &plain, NULL), IM_ECORRUPT);
		assert_int_equal(plain.len, lengths[i]);
	}
}

static void record_decompress__refuses_bombs_cuts_and_tails(void **state)
{
	static const uint8_t bomb[] = { 0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0 }; /* claims 1 TiB */
	static const uint8_t unsized[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x01, 0, 0 };
	auto_buf struct im_buf packed = { 0 }, plain = { 0 };
	(void)state;
	assert_int_equal(record_decompress(bomb, sizeof bomb, 1 << 20, &plain, NULL), IM_ECORRUPT);
	assert_int_equal(record_decompress(unsized, sizeof unsized, 1 << 20, &plain, NULL), IM_ECORRUPT);
	assert_int_equal(record_decompress("", 0, 1 << 20, &plain, NULL), IM_ECORRUPT);
	assert_int_equal(record_compress("some text, some text, some text", 31, &packed, NULL), 0);
	for (size_t len = 0; len < packed.len; len++)
		assert_int_equal(record_decompress(packed.data, len, 1 << 20, &plain, NULL), IM_ECORRUPT);
	im_buf_put_u8(&packed, 0);
	assert_int_equal(record_decompress(packed.data, packed.len, 1 << 20, &plain, NULL), IM_ECORRUPT);
	assert_int_equal(plain.len, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(record_decode__restore_key_reads_both_parts),
		TEST(record_decode__node_key_reads_meta_only),
		TEST(record_decode__keyless_reads_nothing),
		TEST(record__shows_neither_part_in_clear),
		TEST(record_encode__never_repeats_itself),
		TEST(record_encode__appends_to_what_is_there),
		TEST(record_encode_bytes__keeps_a_segments_body_as_it_is),
		TEST(record_encode__takes_a_node_or_restore_key),
		TEST(record_decode__detects_every_flipped_bit),
		TEST(record_decode__detects_every_length),
		TEST(record_decode__survives_hostile_heads_rightly_signed),
		TEST(record_decode__refuses_another_kind_or_vault),
		TEST(record_decode__old_records_stay_readable_after_rotation),
		cmocka_unit_test(record_decompress__gives_back_what_was_compressed),
		cmocka_unit_test(record_decompress__refuses_bombs_cuts_and_tails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
