/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and opening vaults. init writes the key files, then the first keyring, then vault.json:
 * without vault.json there is no vault. An init that fails takes back what it made; one that was
 * killed leaves files that the next init names, since it never overwrites or removes any.
 */
#include "vault/vault.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#define VAULT_OBJECT "vault.json"
#define FIRST_KEYRING "keys/00000001"
#define MAX_VAULT_BYTES 65536

IM_DEFINE_AUTO(storage, struct storage, storage_close)
IM_DEFINE_AUTO(key_file, struct key_file, key_file_free)
IM_DEFINE_AUTO(vault, struct vault, vault_close)
#define auto_storage IM_CLEANUP(im_auto_storage)
#define auto_key_file IM_CLEANUP(im_auto_key_file)
#define auto_vault IM_CLEANUP(im_auto_vault)

/* Making. */

struct content {
	bool has_vault, has_first_keyring;
	char other[256]; /* an example of what else is there */
};

static int note_content(void *context, const char *name, uint64_t size_bytes)
{
	struct content *c = context;
	(void)size_bytes;
	if (!strcmp(name, VAULT_OBJECT))
		c->has_vault = true;
	else if (!strcmp(name, FIRST_KEYRING))
		c->has_first_keyring = true;
	else if (!c->other[0])
		strncat(c->other, name, sizeof c->other - 1);
	return 0;
}

static int check_empty(struct storage *s, struct im_error *err)
{
	struct content c = { 0 };
	int rc = storage_list(s, "", note_content, &c, err);
	if (rc)
		return rc;
	if (c.has_vault)
		return im_fail(err, IM_EUSAGE, "%s is a vault already", s->url);
	if (c.other[0])
		return im_fail(err, IM_EUSAGE, "%s is not empty (there is %s); a new vault needs an empty folder", s->url, c.other);
	/* Not cleared away here: it might be another init's, still running. */
	if (c.has_first_keyring)
		return im_fail(err, IM_EUSAGE, "an earlier init of %s did not finish: remove %s there and the key files it wrote, and run it again",
		    s->url, FIRST_KEYRING);
	return 0;
}

static int check_absent(const char *path, struct im_error *err)
{
	if (access(path, F_OK) && errno == ENOENT)
		return 0;
	return im_fail(err, IM_EUSAGE, "%s exists already and is never overwritten; if an earlier init was interrupted, remove it, "
	    "else choose another name", path);
}

static int write_vault_json(struct storage *s, const struct key_file *restore, struct im_error *err)
{
	char id[33], authority[65], now[IM_INSTANT_BYTES];
	json_t *doc = json_pack("{s:s, s:i, s:s, s:s, s:s}", "format", "imvault", "version", 1, "id", im_hex(id, restore->vault_id, 16),
	    "created", im_instant_format(now, im_now_ms()), "authority", im_hex(authority, restore->authority, 32));
	auto_free char *text = doc ? json_dumps(doc, JSON_INDENT(2)) : NULL;
	json_decref(doc);
	return text ? storage_put_object(s, VAULT_OBJECT, text, strlen(text), err) : im_fail(err, IM_ENOMEM, "out of memory");
}

static int make_keys(const char *node, struct key_file **ret_restore, struct key_file **ret_node, struct im_error *err)
{
	uint8_t vault_id[16];
	int rc = crypto_init(err);
	if (rc)
		return rc;
	crypto_random(vault_id, sizeof vault_id);
	rc = key_file_new(vault_id, NULL, KEY_RESTORE, "restore", NULL, ret_restore, err);
	return rc ? rc : key_file_new(vault_id, (*ret_restore)->authority, KEY_NODE, node ? node : "node", node, ret_node, err);
}

/* Takes back what init made before it failed, but never from under a vault that exists after all. */
static void undo(struct storage *s, const char *restore_path, const char *node_path, bool has_keyring)
{
	uint64_t size;
	if (storage_size(s, VAULT_OBJECT, &size, NULL) != IM_ENOTFOUND)
		return;
	if (has_keyring && s->ops->remove)
		s->ops->remove(s, FIRST_KEYRING, NULL);
	unlink(restore_path);
	if (node_path)
		unlink(node_path);
}

static int write_all(struct storage *s, const struct key_file *restore, const char *restore_path, const char *passphrase,
    const struct key_file *node, const char *node_path, struct im_error *err)
{
	int rc = key_file_save(restore, restore_path, passphrase, false, err);
	if (rc)
		return rc;
	rc = key_file_save(node, node_path, NULL, false, err);
	if (rc) {
		undo(s, restore_path, NULL, false);
		return rc;
	}
	rc = keyring_create(s, restore, node, err);
	bool has_keyring = rc == 0;
	if (rc == 0)
		rc = write_vault_json(s, restore, err);
	if (rc)
		undo(s, restore_path, node_path, has_keyring);
	return rc;
}

int vault_init(const char *url, const char *restore_path, const char *restore_passphrase, const char *node_path, const char *node,
    struct im_error *err)
{
	auto_storage struct storage *s = NULL;
	auto_key_file struct key_file *restore_key = NULL;
	auto_key_file struct key_file *node_key = NULL;
	int rc = check_absent(restore_path, err);
	if (rc == 0)
		rc = check_absent(node_path, err);
	if (rc == 0 && !strcmp(restore_path, node_path))
		rc = im_fail(err, IM_EUSAGE, "the restore key and the node key need two files");
	if (rc == 0)
		rc = storage_open(url, true, &s, err);
	if (rc == 0)
		rc = check_empty(s, err);
	if (rc == 0)
		rc = make_keys(node, &restore_key, &node_key, err);
	return rc ? rc : write_all(s, restore_key, restore_path, restore_passphrase, node_key, node_path, err);
}

/* Opening. */

static int parse_vault_json(struct vault *v, const struct im_buf *text, struct im_error *err)
{
	json_t *doc = json_loadb((const char *)text->data, text->len, JSON_REJECT_DUPLICATES, NULL);
	const char *format = json_string_value(json_object_get(doc, "format"));
	json_int_t version = json_integer_value(json_object_get(doc, "version"));
	int rc = 0;
	if (!format || strcmp(format, "imvault"))
		rc = im_fail(err, IM_ECORRUPT, "vault.json of %s is damaged or not imvault's", v->storage->url);
	else if (version != 1)
		rc = im_fail(err, IM_EUSAGE, "the vault %s has format version %lld; this imvault reads version 1", v->storage->url, (long long)version);
	else if (!im_unhex(v->id, 16, json_string_value(json_object_get(doc, "id"))) ||
	         !im_unhex(v->authority, 32, json_string_value(json_object_get(doc, "authority"))))
		rc = im_fail(err, IM_ECORRUPT, "vault.json of %s is damaged: id or authority is not valid", v->storage->url);
	json_decref(doc);
	return rc;
}

static int read_vault_json(struct vault *v, struct im_error *err)
{
	auto_buf struct im_buf text = { 0 };
	struct im_error why = { 0 };
	int rc = storage_read_object(v->storage, VAULT_OBJECT, MAX_VAULT_BYTES, &text, &why);
	if (rc == IM_ENOTFOUND)
		return im_fail(err, IM_EUNREACHABLE, "there is no vault in %s (no vault.json); is it mounted, is the address right? "
		    "imvault init makes a new vault", v->storage->url);
	return rc ? im_fail(err, why.code, "%s", why.text) : parse_vault_json(v, &text, err);
}

/* The key file pins the vault: a vault.json that was swapped is not believed. */
static int check_pinned(const struct vault *v, const struct key_file *key, struct im_error *err)
{
	if (memcmp(v->id, key->vault_id, 16))
		return im_fail(err, IM_EKEY, "the key \"%s\" belongs to another vault than %s", key->name, v->storage->url);
	if (memcmp(v->authority, key->authority, 32))
		return im_fail(err, IM_ECORRUPT, "vault.json of %s names another authority than the key \"%s\": it was replaced", v->storage->url, key->name);
	return 0;
}

int vault_open_storage(struct storage *s, struct key_file *key, uint32_t min_generation, struct vault **ret, struct im_error *err)
{
	auto_vault struct vault *v = calloc(1, sizeof *v);
	if (!v) {
		storage_close(s);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	v->storage = s;
	int rc = crypto_init(err);
	if (rc == 0)
		rc = read_vault_json(v, err);
	if (rc == 0 && key)
		rc = check_pinned(v, key, err);
	if (rc == 0)
		rc = keyring_open(s, v->id, v->authority, key, min_generation, &v->keyring, err);
	if (rc)
		return rc;
	v->key = key;
	*ret = TAKE_PTR(v);
	return 0;
}

int vault_open(const char *url, const char *key_path, key_passphrase_fn *ask, void *context, uint32_t min_generation,
    struct vault **ret, struct im_error *err)
{
	auto_storage struct storage *s = NULL;
	auto_key_file struct key_file *key = NULL;
	int rc = storage_open(url, false, &s, err);
	if (rc == 0 && key_path)
		rc = key_file_load(key_path, ask, context, &key, err);
	if (rc == 0)
		rc = vault_open_storage(TAKE_PTR(s), key, min_generation, ret, err);
	if (rc == 0)
		key = NULL; /* the vault's now */
	return rc;
}

void vault_close(struct vault *v)
{
	if (!v)
		return;
	keyring_free(v->keyring);
	key_file_free(v->key);
	storage_close(v->storage);
	free(v);
}
