/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys: who may do what, before and after each change; and that whoever writes to the vault without
 * a restore key cannot make a keyring anyone believes.
 */
#include "fixture.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define SECRET "thirty-two bytes, sealed to all" /* with its NUL: 32 */
#define ROW_BYTES (8 + CRYPTO_SEAL_BYTES + sizeof SECRET)

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	fixture_start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_stop(*state);
	free(*state);
	return 0;
}

static struct key_file *fresh(const struct fixture *f, enum key_role role, const char *name, const char *node)
{
	struct im_error err = { 0 };
	struct key_file *k = NULL;
	assert_ok(key_file_new(f->restore->id, f->restore->authority, role, name, node, &k, &err), &err);
	return k;
}

static int try_open(const struct fixture *f, const struct key_file *own, uint32_t min_generation, struct keyring **ret)
{
	struct im_error err = { 0 };
	*ret = NULL;
	return keyring_open(f->restore->storage, f->restore->id, f->restore->authority, own, min_generation, ret, &err);
}

static struct keyring *reopen(const struct fixture *f, const struct key_file *own)
{
	struct im_error err = { 0 };
	struct keyring *k = NULL;
	assert_ok(keyring_open(f->restore->storage, f->restore->id, f->restore->authority, own, 0, &k, &err), &err);
	return k;
}

static void must(int rc)
{
	assert_int_equal(rc, 0);
}

/* SECRET sealed to all that should read it now. Returns the count. */
static size_t seal_now(const struct keyring *k, uint8_t rows[4 * ROW_BYTES])
{
	const struct key_entry *to[4];
	size_t count = keyring_recipients(k, to, 4);
	for (size_t i = 0; i < count; i++) {
		memcpy(rows + i * ROW_BYTES, to[i]->id, 8);
		must(crypto_box_seal_to(rows + i * ROW_BYTES + 8, to[i]->box_public, SECRET, sizeof SECRET));
	}
	return count;
}

static int unseal(const struct keyring *k, const uint8_t *rows, size_t count)
{
	char plain[sizeof SECRET] = "";
	int rc = keyring_unseal(k, rows, count, plain, sizeof plain, NULL);
	if (rc == 0)
		assert_string_equal(plain, SECRET);
	return rc;
}

/* Whatever the keyring says: does this raw secret open any row? */
static bool opens_any(const uint8_t secret[32], const uint8_t *rows, size_t count)
{
	uint8_t plain[sizeof SECRET];
	for (size_t i = 0; i < count; i++)
		if (crypto_box_open(plain, secret, rows + i * ROW_BYTES + 8, ROW_BYTES - 8))
			return true;
	return false;
}

static void assert_same_meta(const struct keyring *a, uint32_t generation_a, const struct keyring *b, uint32_t generation_b, bool same)
{
	uint8_t x[32], y[32];
	must(keyring_meta_key(a, generation_a, "label", x, NULL));
	must(keyring_meta_key(b, generation_b, "label", y, NULL));
	assert_int_equal(!memcmp(x, y, 32), same);
}

/* Key files. */

static char *give_right(void *context, const char *path)
{
	(void)path;
	return context ? strdup(context) : NULL;
}

static int load(const char *path, const char *passphrase, struct key_file **ret)
{
	struct im_error err = { 0 };
	*ret = NULL;
	return key_file_load(path, give_right, (void *)(uintptr_t)passphrase, ret, &err);
}

static void key_file_load__wants_the_right_passphrase(void **state)
{
	struct fixture *f = *state;
	auto_free char *path = im_path_join(f->dir, "p.key");
	struct key_file *k, *again;
	must(key_file_save(f->restore->key, path, "correct horse", false, NULL));
	assert_int_equal(load(path, "wrong horse", &k), IM_EKEY);
	assert_int_equal(load(path, NULL, &k), IM_EKEY);
	assert_int_equal(key_file_load(path, NULL, NULL, &k, NULL), IM_EKEY);
	must(load(path, "correct horse", &k));
	assert_true(k->is_protected);
	assert_memory_equal(k->box_secret, f->restore->key->box_secret, 32);
	assert_memory_equal(k->sign_seed, f->restore->key->sign_seed, 32);
	must(key_file_save(k, path, "another", true, NULL)); /* changed */
	assert_int_equal(load(path, "correct horse", &again), IM_EKEY);
	must(load(path, "another", &again));
	key_file_free(k);
	key_file_free(again);
}

static void key_file_save__shows_no_secret_when_protected(void **state)
{
	struct fixture *f = *state;
	auto_free char *path = im_path_join(f->dir, "p.key");
	auto_buf struct im_buf text = { 0 };
	char hex[65];
	must(key_file_save(f->restore->key, path, "x", false, NULL));
	must(im_file_read(path, 65536, &text, NULL));
	assert_null(memmem(text.data, text.len, im_hex(hex, f->restore->key->box_secret, 32), 64));
	assert_null(memmem(text.data, text.len, im_hex(hex, f->restore->key->sign_seed, 32), 64));
}

static void key_file_save__is_private_and_never_overwrites(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	must(stat(f->node_key, &st));
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(key_file_save(f->restore->key, f->node_key, NULL, false, NULL), IM_EUSAGE);
	struct key_file *k;
	must(load(f->node_key, NULL, &k));
	assert_int_equal(k->role, KEY_NODE);
	key_file_free(k);
}

static void key_file_load__refuses_what_is_not_sound(void **state)
{
	static const struct {
		const char *key, *value; /* NULL: removed */
	} changes[] = { { "imvault", "\"vault\"" }, { "version", "2" }, { "role", "\"admin\"" }, { "id", "\"0011223344556677\"" },
		{ "vault", "\"00\"" }, { "authority", NULL }, { "secret", "\"00\"" }, { "secret", NULL }, { "name", "7" }, { "node", "\"../x\"" },
		{ "protected", "{\"kdf\": \"md5\"}" } };
	struct fixture *f = *state;
	auto_free char *path = im_path_join(f->dir, "bad.key");
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		json_t *file = json_load_file(f->node_key, 0, NULL);
		struct key_file *k;
		json_object_del(file, changes[i].key);
		if (changes[i].value)
			json_object_set_new(file, changes[i].key, json_loads(changes[i].value, JSON_DECODE_ANY, NULL));
		must(json_dump_file(file, path, 0));
		json_decref(file);
		assert_int_equal(load(path, "x", &k), IM_EKEY);
	}
	struct key_file *k;
	must(im_file_write(path, "{", 1, 0600, IM_FILE_REPLACE, NULL));
	assert_int_equal(load(path, NULL, &k), IM_EKEY);
	assert_int_equal(load("/no/such/key", NULL, &k), IM_EUSAGE);
}

/* Vaults. */

static void vault_init__never_touches_what_is_there(void **state)
{
	struct fixture *f = *state;
	auto_free char *r = im_path_join(f->dir, "r2"), *n = im_path_join(f->dir, "n2"), *other = im_path_join(f->dir, "other");
	auto_free char *file = im_path_join(other, "thesis.txt");
	assert_int_equal(vault_init(f->vault_dir, r, NULL, n, NULL, NULL), IM_EUSAGE);
	assert_int_equal(vault_init(other, f->restore_key, NULL, n, NULL, NULL), IM_EUSAGE);
	assert_int_equal(vault_init(other, r, NULL, f->node_key, NULL, NULL), IM_EUSAGE);
	assert_int_equal(vault_init(other, r, NULL, r, NULL, NULL), IM_EUSAGE);
	must(im_mkdirs(other, 0700, NULL));
	must(im_file_write(file, "x", 1, 0600, IM_FILE_NEW, NULL));
	assert_int_equal(vault_init(other, r, NULL, n, NULL, NULL), IM_EUSAGE);
	assert_int_not_equal(access(r, F_OK), 0);
	assert_int_not_equal(access(n, F_OK), 0);
}

static void vault_init__takes_back_the_keys_when_it_fails(void **state)
{
	struct fixture *f = *state;
	auto_free char *v = im_path_join(f->dir, "v2"), *r = im_path_join(f->dir, "r2"), *n = im_path_join(f->dir, "none/n2");
	auto_free char *good = im_path_join(f->dir, "n2");
	assert_int_not_equal(vault_init(v, r, NULL, n, NULL, NULL), 0);
	assert_int_not_equal(access(r, F_OK), 0);
	must(vault_init(v, r, NULL, good, "im-02", NULL));
}

static void vault_init__says_what_a_killed_one_left(void **state)
{
	struct fixture *f = *state;
	auto_free char *left = im_path_join(f->vault_dir, "vault.json"), *r = im_path_join(f->dir, "r2"), *n = im_path_join(f->dir, "n2");
	struct im_error err = { 0 };
	must(unlink(left));
	assert_int_equal(vault_init(f->vault_dir, r, NULL, n, NULL, &err), IM_EUSAGE);
	assert_non_null(strstr(err.text, "keys/00000001"));
}

static void vault_open__finds_no_vault_in_an_empty_folder(void **state)
{
	struct fixture *f = *state;
	struct vault *v;
	struct im_error err = { 0 };
	assert_int_equal(vault_open(f->dir, f->node_key, NULL, NULL, 0, &v, &err), IM_EUNREACHABLE);
	assert_non_null(strstr(err.text, "mounted"));
}

static void vault_open__refuses_the_key_of_another_vault(void **state)
{
	struct fixture *f = *state, other;
	struct vault *v;
	fixture_start(&other);
	assert_int_equal(vault_open(f->vault_dir, other.restore_key, NULL, NULL, 0, &v, NULL), IM_EKEY);
	fixture_stop(&other);
}

static void vault_open__refuses_a_swapped_authority(void **state)
{
	struct fixture *f = *state;
	auto_free char *path = im_path_join(f->vault_dir, "vault.json");
	struct vault *v;
	json_t *doc = json_load_file(path, 0, NULL);
	json_object_set_new(doc, "authority", json_string("00000000000000000000000000000000000000000000000000000000000000ff"));
	must(json_dump_file(doc, path, 0));
	json_decref(doc);
	assert_int_equal(vault_open(f->vault_dir, f->node_key, NULL, NULL, 0, &v, NULL), IM_ECORRUPT);
	assert_int_equal(vault_open(f->vault_dir, NULL, NULL, NULL, 0, &v, NULL), IM_ECORRUPT);
}

/* Roles. */

static void keyring_open__keyless_sees_public_parts_only(void **state)
{
	struct fixture *f = *state;
	struct keyring *k = reopen(f, NULL);
	uint8_t key[32], rows[4 * ROW_BYTES];
	assert_int_equal(keyring_count(k), 2);
	assert_int_equal(keyring_meta_key(k, 1, "label", key, NULL), IM_EKEY);
	assert_int_equal(keyring_id_key(k, "label", key, NULL), IM_EKEY);
	assert_int_equal(unseal(k, rows, seal_now(k, rows)), IM_EKEY);
	keyring_free(k);
}

static void keyring__node_key_cannot_read_content(void **state)
{
	struct fixture *f = *state;
	uint8_t rows[4 * ROW_BYTES], a[32], b[32];
	size_t count = seal_now(f->node->keyring, rows);
	assert_int_equal(count, 1);
	assert_int_equal(unseal(f->node->keyring, rows, count), IM_EKEY);
	must(unseal(f->restore->keyring, rows, count));
	must(keyring_id_key(f->node->keyring, "imvault page v1", a, NULL));
	must(keyring_id_key(f->restore->keyring, "imvault page v1", b, NULL));
	assert_memory_equal(a, b, 32);
	assert_same_meta(f->node->keyring, 1, f->restore->keyring, 1, true);
}

static void keyring__prune_key_sees_meta_but_no_ids(void **state)
{
	struct fixture *f = *state;
	struct key_file *prune = fresh(f, KEY_PRUNE, "pruner", NULL);
	uint8_t key[32], rows[4 * ROW_BYTES];
	must(keyring_add(f->restore->storage, f->restore->keyring, prune, NULL));
	struct keyring *k = reopen(f, prune);
	assert_same_meta(k, 2, f->restore->keyring, 1, true);
	assert_int_equal(keyring_id_key(k, "label", key, NULL), IM_EKEY);
	assert_int_equal(unseal(k, rows, seal_now(k, rows)), IM_EKEY);
	keyring_free(k);
	key_file_free(prune);
}

static void keyring_unseal__tells_damage_from_not_ours(void **state)
{
	struct fixture *f = *state;
	uint8_t rows[4 * ROW_BYTES];
	size_t count = seal_now(f->node->keyring, rows);
	rows[20] ^= 1;
	assert_int_equal(unseal(f->restore->keyring, rows, count), IM_ECORRUPT);
	rows[0] ^= 1;
	assert_int_equal(unseal(f->restore->keyring, rows, count), IM_EKEY);
}

static void keyring_meta_key__refuses_generations_not_there(void **state)
{
	struct fixture *f = *state;
	uint8_t key[32];
	assert_int_equal(keyring_meta_key(f->node->keyring, 0, "label", key, NULL), IM_ECORRUPT);
	assert_int_equal(keyring_meta_key(f->node->keyring, 2, "label", key, NULL), IM_ECORRUPT);
}

/* Changes. */

static void keyring_add__takes_a_restore_key(void **state)
{
	struct fixture *f = *state;
	struct key_file *k = fresh(f, KEY_NODE, "n", NULL);
	assert_int_equal(keyring_add(f->node->storage, f->node->keyring, k, NULL), IM_EKEY);
	assert_int_equal(keyring_revoke(f->node->storage, f->node->keyring, f->node->key->id, NULL, NULL), IM_EKEY);
	key_file_free(k);
}

static void keyring_add__second_restore_key_reads_old_and_new(void **state)
{
	struct fixture *f = *state;
	struct key_file *second = fresh(f, KEY_RESTORE, "second", NULL);
	uint8_t before[4 * ROW_BYTES], after[4 * ROW_BYTES];
	size_t before_count = seal_now(f->restore->keyring, before);
	must(keyring_add(f->restore->storage, f->restore->keyring, second, NULL));
	struct keyring *k = reopen(f, second);
	assert_int_equal(keyring_generation(k), 2);
	must(unseal(k, before, before_count));
	size_t after_count = seal_now(k, after);
	assert_int_equal(after_count, 2);
	must(unseal(k, after, after_count));
	must(unseal(f->restore->keyring, after, after_count));
	assert_same_meta(k, 1, f->restore->keyring, 1, true);
	keyring_free(k);
	key_file_free(second);
}

static void keyring_add__refuses_the_same_or_a_foreign_key(void **state)
{
	struct fixture *f = *state;
	uint8_t other[16] = { 1 };
	struct key_file *foreign;
	assert_int_equal(keyring_add(f->restore->storage, f->restore->keyring, f->node->key, NULL), IM_EUSAGE);
	must(key_file_new(other, f->restore->authority, KEY_NODE, "x", NULL, &foreign, NULL));
	assert_int_equal(keyring_add(f->restore->storage, f->restore->keyring, foreign, NULL), IM_EUSAGE);
	key_file_free(foreign);
}

static void keyring_add__two_at_once_cannot_both_win(void **state)
{
	struct fixture *f = *state;
	struct key_file *a = fresh(f, KEY_NODE, "a", NULL), *b = fresh(f, KEY_NODE, "b", NULL);
	must(keyring_add(f->restore->storage, f->restore->keyring, a, NULL));
	assert_int_equal(keyring_add(f->restore->storage, f->restore->keyring, b, NULL), IM_ELOCKED);
	struct keyring *k = reopen(f, f->restore->key);
	assert_non_null(keyring_find(k, a->id));
	assert_null(keyring_find(k, b->id));
	keyring_free(k);
	key_file_free(a);
	key_file_free(b);
}

static void keyring_revoke__node_key_is_refused_afterwards(void **state)
{
	struct fixture *f = *state;
	struct keyring *k;
	must(keyring_revoke(f->restore->storage, f->restore->keyring, f->node->key->id, "{\"im-01\": 7}", NULL));
	assert_int_equal(try_open(f, f->node->key, 0, &k), IM_EKEY);
	k = reopen(f, f->restore->key);
	assert_false(keyring_find(k, f->node->key->id)->active);
	assert_true(keyring_may_sign(k, f->node->key->id, "im-01", 7));
	assert_false(keyring_may_sign(k, f->node->key->id, "im-01", 8));
	assert_false(keyring_may_sign(k, f->node->key->id, "im-02", 1));
	assert_same_meta(k, 2, f->restore->keyring, 1, false);
	assert_same_meta(k, 1, f->restore->keyring, 1, true);
	keyring_free(k);
}

#define EPOCH "018bcfe5680000000001"

static void keyring_may_sign_log__ends_with_the_last_point(void **state)
{
	struct fixture *f = *state;
	const uint8_t *id = f->node->key->id;
	assert_true(keyring_may_sign_log(f->restore->keyring, id, "im-01", "archive", EPOCH, UINT32_MAX));
	assert_false(keyring_may_sign_log(f->restore->keyring, f->restore->key->id, "im-01", "archive", EPOCH, 1));
	must(keyring_revoke(f->restore->storage, f->restore->keyring, id, "{\"im-01\": 7, \"im-01/archive/" EPOCH "\": 4294967294}", NULL));
	struct keyring *k = reopen(f, f->restore->key);
	assert_true(keyring_may_sign(k, id, "im-01", 7));
	assert_true(keyring_may_sign_log(k, id, "im-01", "archive", EPOCH, UINT32_MAX - 1));
	assert_false(keyring_may_sign_log(k, id, "im-01", "archive", EPOCH, UINT32_MAX));
	assert_false(keyring_may_sign_log(k, id, "im-01", "archive", "018bcfe5680000000002", 1));
	assert_false(keyring_may_sign_log(k, id, "im-01", "other", EPOCH, 1));
	assert_false(keyring_may_sign_log(k, id, "im-02", "archive", EPOCH, 1));
	keyring_free(k);
}

static void keyring_revoke__keeps_the_last_restore_key(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(keyring_revoke(f->restore->storage, f->restore->keyring, f->restore->key->id, NULL, NULL), IM_EUSAGE);
}

static void keyring_revoke__checks_what_it_is_given(void **state)
{
	static const char *const lasts[] = { "7", "[]", "{", "{\"im-01\": -1}", "{\"im-01\": \"7\"}", "{\"../x\": 7}", "{\"im-01/archive\": 7}",
		"{\"im-01/archive/018bcfe568000000000\": 7}", "{\"im-01/archive/" EPOCH "0\": 7}", "{\"im-01/../" EPOCH "\": 7}",
		"{\"im-01/archive/" EPOCH "\": -1}", "{\"im-01/archive/" EPOCH "/\": 1}" };
	struct fixture *f = *state;
	struct keyring *k;
	uint8_t unknown[8] = { 1 };
	assert_int_equal(keyring_revoke(f->restore->storage, f->restore->keyring, unknown, NULL, NULL), IM_EUSAGE);
	for (size_t i = 0; i < sizeof lasts / sizeof *lasts; i++)
		assert_int_equal(keyring_revoke(f->restore->storage, f->restore->keyring, f->node->key->id, lasts[i], NULL), IM_EUSAGE);
	must(keyring_revoke(f->restore->storage, f->restore->keyring, f->node->key->id, NULL, NULL));
	k = reopen(f, f->restore->key);
	assert_int_equal(keyring_revoke(f->restore->storage, k, f->node->key->id, NULL, NULL), IM_EUSAGE);
	keyring_free(k);
}

/* The second key inherited the first one's secret, so the first must change before the second goes. */
static void keyring_revoke__restore_key_cannot_read_what_comes_later(void **state)
{
	struct fixture *f = *state;
	struct storage *s = f->restore->storage;
	struct key_file *second = fresh(f, KEY_RESTORE, "second", NULL), *first_new = fresh(f, KEY_RESTORE, "first", NULL);
	uint8_t rows[4 * ROW_BYTES];
	struct im_error err = { 0 };
	must(keyring_add(s, f->restore->keyring, second, NULL));
	struct keyring *k = reopen(f, f->restore->key), *gone;
	assert_int_equal(keyring_revoke(s, k, second->id, NULL, &err), IM_EUSAGE);
	assert_non_null(strstr(err.text, "rotate"));
	must(keyring_rotate(s, k, f->restore->key->id, first_new, NULL, NULL));
	keyring_free(k);
	k = reopen(f, first_new);
	must(keyring_revoke(s, k, second->id, NULL, NULL));
	keyring_free(k);
	k = reopen(f, first_new);
	size_t count = seal_now(k, rows);
	assert_int_equal(count, 1);
	must(unseal(k, rows, count));
	assert_int_equal(try_open(f, second, 0, &gone), IM_EKEY);
	assert_false(opens_any(second->box_secret, rows, count));
	assert_false(opens_any(f->restore->key->box_secret, rows, count)); /* what the second had inherited */
	keyring_free(k);
	key_file_free(second);
	key_file_free(first_new);
}

static void keyring_rotate__successor_opens_the_old(void **state)
{
	struct fixture *f = *state;
	struct storage *s = f->restore->storage;
	struct key_file *one = fresh(f, KEY_RESTORE, "one", NULL), *two = fresh(f, KEY_RESTORE, "two", NULL);
	uint8_t old_rows[4 * ROW_BYTES], new_rows[4 * ROW_BYTES];
	size_t old_count = seal_now(f->restore->keyring, old_rows);
	must(keyring_rotate(s, f->restore->keyring, f->restore->key->id, one, NULL, NULL));
	struct keyring *k = reopen(f, one), *gone;
	must(keyring_rotate(s, k, one->id, two, NULL, NULL)); /* twice: inheritance goes on */
	keyring_free(k);
	k = reopen(f, two);
	must(unseal(k, old_rows, old_count));
	size_t new_count = seal_now(k, new_rows);
	must(unseal(k, new_rows, new_count));
	assert_false(opens_any(f->restore->key->box_secret, new_rows, new_count));
	assert_int_equal(try_open(f, f->restore->key, 0, &gone), IM_EKEY);
	assert_int_equal(try_open(f, one, 0, &gone), IM_EKEY);
	assert_true(keyring_same_lineage(k, f->restore->key->id, two->id));
	assert_true(keyring_same_lineage(k, two->id, f->restore->key->id));
	assert_false(keyring_same_lineage(k, two->id, f->node->key->id));
	assert_same_meta(k, 3, f->restore->keyring, 1, false);
	keyring_free(k);
	key_file_free(one);
	key_file_free(two);
}

static void keyring_rotate__needs_the_secret_of_the_old(void **state)
{
	struct fixture *f = *state;
	struct storage *s = f->restore->storage;
	struct key_file *second = fresh(f, KEY_RESTORE, "second", NULL), *third = fresh(f, KEY_RESTORE, "third", NULL);
	must(keyring_add(s, f->restore->keyring, second, NULL));
	struct keyring *k = reopen(f, f->restore->key);
	assert_int_equal(keyring_rotate(s, k, second->id, third, NULL, NULL), IM_EKEY);
	keyring_free(k);
	key_file_free(second);
	key_file_free(third);
}

static void keyring_rotate__keeps_role_and_node(void **state)
{
	struct fixture *f = *state;
	struct storage *s = f->restore->storage;
	struct key_file *bound = fresh(f, KEY_NODE, "b", "im-09"), *unbound = fresh(f, KEY_NODE, "u", NULL);
	struct key_file *prune = fresh(f, KEY_PRUNE, "p", NULL), *next = fresh(f, KEY_NODE, "b2", "im-09");
	must(keyring_add(s, f->restore->keyring, bound, NULL));
	struct keyring *k = reopen(f, f->restore->key);
	assert_int_equal(keyring_rotate(s, k, bound->id, prune, NULL, NULL), IM_EUSAGE);
	assert_int_equal(keyring_rotate(s, k, bound->id, unbound, NULL, NULL), IM_EUSAGE);
	must(keyring_rotate(s, k, bound->id, next, "{\"im-09\": 3}", NULL));
	keyring_free(k);
	k = reopen(f, next);
	assert_true(keyring_may_sign(k, next->id, "im-09", 4));
	assert_true(keyring_may_sign(k, bound->id, "im-09", 3));
	assert_false(keyring_may_sign(k, bound->id, "im-09", 4));
	keyring_free(k);
	key_file_free(bound);
	key_file_free(unbound);
	key_file_free(prune);
	key_file_free(next);
}

static void keyring_may_sign__honours_bound_nodes(void **state)
{
	struct fixture *f = *state;
	struct key_file *bound = fresh(f, KEY_NODE, "b", "im-09"), *prune = fresh(f, KEY_PRUNE, "p", NULL);
	uint8_t unknown[8] = { 1 };
	must(keyring_add(f->restore->storage, f->restore->keyring, bound, NULL));
	struct keyring *k = reopen(f, f->restore->key);
	must(keyring_add(f->restore->storage, k, prune, NULL));
	keyring_free(k);
	k = reopen(f, f->restore->key);
	assert_true(keyring_may_sign(k, bound->id, "im-09", 1));
	assert_false(keyring_may_sign(k, bound->id, "im-01", 1));
	assert_true(keyring_may_sign(k, f->node->key->id, "im-01", 1)); /* unbound */
	assert_false(keyring_may_sign(k, f->node->key->id, "im-09", 1)); /* somebody else's */
	assert_false(keyring_may_sign(k, prune->id, "im-01", 1));
	assert_false(keyring_may_sign(k, f->restore->key->id, "im-01", 1));
	assert_false(keyring_may_sign(k, unknown, "im-01", 1));
	keyring_free(k);
	key_file_free(bound);
	key_file_free(prune);
}

/* Attacks on the chain. */

static char *generation_path(const struct fixture *f, unsigned number)
{
	return im_format("%s/keys/%08u", f->vault_dir, number);
}

static void keyring_open__refuses_a_rolled_back_keyring(void **state)
{
	struct fixture *f = *state;
	struct keyring *k;
	auto_free char *path = generation_path(f, 2);
	must(keyring_revoke(f->restore->storage, f->restore->keyring, f->node->key->id, NULL, NULL));
	must(unlink(path));
	must(try_open(f, f->node->key, 1, &k)); /* who never saw generation 2 cannot know */
	keyring_free(k);
	assert_int_equal(try_open(f, f->node->key, 2, &k), IM_ECORRUPT);
}

static void keyring_open__refuses_gaps(void **state)
{
	struct fixture *f = *state;
	struct keyring *k;
	auto_free char *first = generation_path(f, 1), *far = generation_path(f, 9);
	must(im_file_write(far, "x", 1, 0600, IM_FILE_NEW, NULL));
	assert_int_equal(try_open(f, f->node->key, 0, &k), IM_ECORRUPT);
	must(unlink(far));
	must(try_open(f, f->node->key, 0, &k));
	keyring_free(k);
	must(unlink(first));
	assert_int_equal(try_open(f, f->node->key, 0, &k), IM_ECORRUPT);
}

/* Writes generation 2: doc framed, said to be signed by id, signed with seed. */
static void forge(const struct fixture *f, json_t *doc, const uint8_t id[8], const uint8_t seed[32])
{
	auto_free char *path = generation_path(f, 2), *text = json_dumps(doc, JSON_COMPACT);
	auto_buf struct im_buf b = { 0 };
	uint8_t signature[64];
	im_buf_put(&b, "IMVKEYS1", 8);
	im_buf_put_u32(&b, (uint32_t)strlen(text));
	im_buf_put(&b, text, strlen(text));
	im_buf_put(&b, id, 8);
	crypto_sign(signature, seed, "imvault keyring v1", b.data, b.len);
	im_buf_put(&b, signature, 64);
	must(im_file_write(path, b.data, b.len, 0600, IM_FILE_REPLACE, NULL));
}

/* A generation 2 that would be fine if only it were signed by the restore key. */
static json_t *plausible(const struct fixture *f)
{
	auto_free char *second = generation_path(f, 2);
	auto_buf struct im_buf b = { 0 };
	struct key_file *k = fresh(f, KEY_NODE, "n", NULL);
	must(keyring_add(f->restore->storage, f->restore->keyring, k, NULL));
	must(im_file_read(second, 1 << 20, &b, NULL));
	must(unlink(second));
	key_file_free(k);
	return json_loadb((const char *)b.data + 12, im_le32(b.data + 8), 0, NULL);
}

static void keyring_open__refuses_forged_generations(void **state)
{
	struct fixture *f = *state;
	const struct key_file *restore = f->restore->key, *node = f->node->key;
	struct key_file *stranger = fresh(f, KEY_RESTORE, "stranger", NULL);
	struct keyring *k;
	json_t *doc = plausible(f);
	forge(f, doc, restore->id, restore->sign_seed);
	must(try_open(f, restore, 0, &k)); /* the control: rightly signed */
	keyring_free(k);
	forge(f, doc, restore->id, node->sign_seed);
	assert_int_equal(try_open(f, restore, 0, &k), IM_ECORRUPT);
	forge(f, doc, node->id, node->sign_seed);
	assert_int_equal(try_open(f, restore, 0, &k), IM_ECORRUPT);
	forge(f, doc, stranger->id, stranger->sign_seed);
	assert_int_equal(try_open(f, restore, 0, &k), IM_ECORRUPT);
	json_decref(doc);
	key_file_free(stranger);
}

static json_t *first_key(json_t *doc)
{
	return json_array_get(json_object_get(doc, "keys"), 0);
}

static void spoil_prev(json_t *doc) { json_object_set_new(doc, "prev", json_string("00")); }
static void spoil_generation(json_t *doc) { json_object_set_new(doc, "generation", json_integer(3)); }
static void spoil_generation_type(json_t *doc) { json_object_set_new(doc, "generation", json_string("2")); }
static void spoil_vault(json_t *doc) { json_object_set_new(doc, "vault", json_string("00112233445566778899aabbccddeeff")); }
static void spoil_keys(json_t *doc) { json_object_set_new(doc, "keys", json_object()); }
static void spoil_no_keys(json_t *doc) { json_array_clear(json_object_get(doc, "keys")); }
static void spoil_row(json_t *doc) { json_array_set_new(json_object_get(doc, "keys"), 0, json_integer(1)); }
static void spoil_twice(json_t *doc) { json_array_append(json_object_get(doc, "keys"), first_key(doc)); }
static void spoil_role(json_t *doc) { json_object_set_new(first_key(doc), "role", json_string("king")); }
static void spoil_status(json_t *doc) { json_object_set_new(first_key(doc), "status", json_true()); }
static void spoil_box(json_t *doc) { json_object_set_new(first_key(doc), "box", json_object_get(first_key(doc), "sign")); }
static void spoil_sealed(json_t *doc) { json_object_set_new(first_key(doc), "sealed", json_string("00")); }
static void spoil_sealed_type(json_t *doc) { json_object_set_new(first_key(doc), "sealed", json_integer(0)); }
static void spoil_replaces(json_t *doc) { json_object_set_new(first_key(doc), "replaces", json_string("zz")); }
static void spoil_last(json_t *doc) { json_object_set_new(first_key(doc), "last", json_string("x")); }
static void spoil_inherits(json_t *doc) { json_object_set_new(first_key(doc), "inherits", json_pack("[{s:s}]", "id", "00")); }
static void spoil_node(json_t *doc) { json_object_set_new(first_key(doc), "node", json_string("a/b")); }
static void spoil_only_restore(json_t *doc) { json_object_set_new(first_key(doc), "status", json_string("revoked")); }
static void spoil_many(json_t *doc)
{
	for (int i = 0; i < 4097; i++)
		json_array_append(json_object_get(doc, "keys"), first_key(doc));
}

static void keyring_open__refuses_hostile_content_even_if_signed(void **state)
{
	static void (*const spoil[])(json_t *) = { spoil_prev, spoil_generation, spoil_generation_type, spoil_vault, spoil_keys, spoil_no_keys,
		spoil_row, spoil_twice, spoil_role, spoil_status, spoil_box, spoil_sealed, spoil_sealed_type, spoil_replaces, spoil_last,
		spoil_inherits, spoil_node, spoil_only_restore, spoil_many };
	struct fixture *f = *state;
	const struct key_file *restore = f->restore->key;
	json_t *good = plausible(f);
	for (size_t i = 0; i < sizeof spoil / sizeof *spoil; i++) {
		struct keyring *k;
		json_t *doc = json_deep_copy(good);
		spoil[i](doc);
		forge(f, doc, restore->id, restore->sign_seed);
		if (try_open(f, restore, 0, &k) != IM_ECORRUPT)
			fail_msg("hostile change %zu was accepted", i);
		json_decref(doc);
	}
	json_decref(good);
}

static void flip(int fd, off_t at, uint8_t mask)
{
	uint8_t c;
	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= mask;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
}

static void keyring_open__detects_damage_at_every_byte_and_length(void **state)
{
	struct fixture *f = *state;
	auto_free char *path = generation_path(f, 1);
	auto_close int fd = open(path, O_RDWR);
	auto_buf struct im_buf whole = { 0 };
	must(im_file_read(path, 1 << 20, &whole, NULL));
	off_t len = (off_t)whole.len;
	for (off_t at = 0; at < len; at++) {
		struct keyring *k;
		uint8_t mask = (uint8_t)(1u << (at % 8));
		flip(fd, at, mask);
		assert_int_equal(try_open(f, f->restore->key, 0, &k), IM_ECORRUPT);
		flip(fd, at, mask);
	}
	for (off_t cut = len - 1; cut >= 0; cut -= cut > 100 ? 37 : 1) {
		struct keyring *k;
		must(ftruncate(fd, cut));
		assert_int_equal(try_open(f, f->restore->key, 0, &k), IM_ECORRUPT);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(key_file_load__wants_the_right_passphrase),
		TEST(key_file_save__shows_no_secret_when_protected),
		TEST(key_file_save__is_private_and_never_overwrites),
		TEST(key_file_load__refuses_what_is_not_sound),
		TEST(vault_init__never_touches_what_is_there),
		TEST(vault_init__takes_back_the_keys_when_it_fails),
		TEST(vault_init__says_what_a_killed_one_left),
		TEST(vault_open__finds_no_vault_in_an_empty_folder),
		TEST(vault_open__refuses_the_key_of_another_vault),
		TEST(vault_open__refuses_a_swapped_authority),
		TEST(keyring_open__keyless_sees_public_parts_only),
		TEST(keyring__node_key_cannot_read_content),
		TEST(keyring__prune_key_sees_meta_but_no_ids),
		TEST(keyring_unseal__tells_damage_from_not_ours),
		TEST(keyring_meta_key__refuses_generations_not_there),
		TEST(keyring_add__takes_a_restore_key),
		TEST(keyring_add__second_restore_key_reads_old_and_new),
		TEST(keyring_add__refuses_the_same_or_a_foreign_key),
		TEST(keyring_add__two_at_once_cannot_both_win),
		TEST(keyring_revoke__node_key_is_refused_afterwards),
		TEST(keyring_may_sign_log__ends_with_the_last_point),
		TEST(keyring_revoke__keeps_the_last_restore_key),
		TEST(keyring_revoke__checks_what_it_is_given),
		TEST(keyring_revoke__restore_key_cannot_read_what_comes_later),
		TEST(keyring_rotate__successor_opens_the_old),
		TEST(keyring_rotate__needs_the_secret_of_the_old),
		TEST(keyring_rotate__keeps_role_and_node),
		TEST(keyring_may_sign__honours_bound_nodes),
		TEST(keyring_open__refuses_a_rolled_back_keyring),
		TEST(keyring_open__refuses_gaps),
		TEST(keyring_open__refuses_forged_generations),
		TEST(keyring_open__refuses_hostile_content_even_if_signed),
		TEST(keyring_open__detects_damage_at_every_byte_and_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
