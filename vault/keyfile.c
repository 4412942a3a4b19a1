/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key files (FORMAT §3): what a person or a node keeps. The text that holds an unprotected secret
 * is wiped before its memory is given back. A key file's id is always recomputed from its secrets,
 * so a file whose parts do not belong together is refused.
 */
#include "vault/keyring_internal.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "base/file.h"

#include <string.h>

#define MAX_FILE_BYTES 65536
#define OPSLIMIT 4
#define MEMLIMIT_BYTES (UINT64_C(64) << 20)
#define SECRET_BYTES 64 /* box_secret ‖ sign_seed */
#define PROTECTED_BYTES (SECRET_BYTES + CRYPTO_TAG_BYTES)
#define PROTECTED_AAD "imvault key v1"

static const char *const role_names[] = { [KEY_NODE] = "node", [KEY_RESTORE] = "restore", [KEY_PRUNE] = "prune" };

const char *key_role_name(enum key_role role)
{
	return role_names[role];
}

bool key_role_parse(const char *text, enum key_role *ret)
{
	for (size_t i = 0; text && i < sizeof role_names / sizeof *role_names; i++)
		if (!strcmp(text, role_names[i])) {
			*ret = (enum key_role)i;
			return true;
		}
	return false;
}

void key_id_of(const uint8_t box_public[32], const uint8_t sign_public[32], uint8_t ret[8])
{
	uint8_t both[64], hash[32];
	memcpy(both, box_public, 32);
	memcpy(both + 32, sign_public, 32);
	crypto_hash(hash, both, sizeof both);
	memcpy(ret, hash, 8);
}

void key_file_free(struct key_file *k)
{
	if (!k)
		return;
	crypto_secret_free(k->box_secret);
	crypto_secret_free(k->sign_seed);
	free(k->name);
	free(k->node);
	free(k);
}
IM_DEFINE_AUTO(key_file, struct key_file, key_file_free)
#define auto_key_file IM_CLEANUP(im_auto_key_file)

/* Secrets zero, public parts not yet derived. */
static struct key_file *key_file_blank(enum key_role role, const char *name, const char *node)
{
	struct key_file *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	k->role = role;
	k->name = strdup(name);
	k->node = node ? strdup(node) : NULL;
	k->box_secret = crypto_secret_new(32);
	k->sign_seed = crypto_secret_new(32);
	if (!k->name || (node && !k->node) || !k->box_secret || !k->sign_seed) {
		key_file_free(k);
		return NULL;
	}
	return k;
}

static void derive_public(struct key_file *k)
{
	crypto_box_public(k->box_public, k->box_secret);
	crypto_sign_public(k->sign_public, k->sign_seed);
	key_id_of(k->box_public, k->sign_public, k->id);
}

int key_file_new(const uint8_t vault_id[16], const uint8_t authority[32], enum key_role role, const char *name, const char *node,
    struct key_file **ret, struct im_error *err)
{
	int rc = crypto_init(err);
	if (rc)
		return rc;
	if (strlen(name) > KEY_TEXT_BYTES)
		return im_fail(err, IM_EUSAGE, "the name of a key may have at most %d bytes", KEY_TEXT_BYTES);
	if (node && !im_name_valid(node))
		return im_fail(err, IM_EUSAGE, "\"%s\" cannot be the name of a node", node);
	struct key_file *k = key_file_blank(role, name, node);
	if (!k)
		return im_fail(err, IM_ENOMEM, "out of memory");
	crypto_random(k->box_secret, 32);
	crypto_random(k->sign_seed, 32);
	derive_public(k);
	memcpy(k->vault_id, vault_id, 16);
	memcpy(k->authority, authority ? authority : k->sign_public, 32);
	*ret = k;
	return 0;
}

/* Saving. */

static int set_hex(json_t *object, const char *key, const void *data, size_t len)
{
	char text[2 * PROTECTED_BYTES + 1];
	IM_CHECK(len <= PROTECTED_BYTES);
	int rc = json_object_set_new(object, key, json_string(im_hex(text, data, len)));
	crypto_wipe(text, sizeof text);
	return rc;
}

static int add_protected(json_t *file, const uint8_t secret[SECRET_BYTES], const char *passphrase, struct im_error *err)
{
	uint8_t salt[16], nonce[24], sealed[PROTECTED_BYTES], key[32];
	crypto_random(salt, sizeof salt);
	crypto_random(nonce, sizeof nonce);
	int rc = crypto_password_key(key, passphrase, salt, OPSLIMIT, MEMLIMIT_BYTES, err);
	if (rc)
		return rc;
	crypto_aead_seal(sealed, key, nonce, PROTECTED_AAD, strlen(PROTECTED_AAD), secret, SECRET_BYTES);
	crypto_wipe(key, sizeof key);
	json_t *p = json_pack("{s:s, s:I, s:I}", "kdf", "argon2id", "opslimit", (json_int_t)OPSLIMIT, "memlimit_bytes",
	    (json_int_t)MEMLIMIT_BYTES);
	if (!p || set_hex(p, "salt", salt, sizeof salt) || set_hex(p, "nonce", nonce, sizeof nonce) ||
	    set_hex(p, "box", sealed, sizeof sealed)) {
		json_decref(p);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	return json_object_set_new(file, "protected", p) ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

static int add_secret(json_t *file, const struct key_file *k, const char *passphrase, struct im_error *err)
{
	uint8_t secret[SECRET_BYTES];
	memcpy(secret, k->box_secret, 32);
	memcpy(secret + 32, k->sign_seed, 32);
	int rc = 0;
	if (passphrase)
		rc = add_protected(file, secret, passphrase, err);
	else if (set_hex(file, "secret", secret, sizeof secret))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	crypto_wipe(secret, sizeof secret);
	return rc;
}

/* Strings are immutable to jansson's callers; this one is ours and about to be freed. */
static void wipe_secret(json_t *file)
{
	json_t *text = json_object_get(file, "secret");
	if (json_is_string(text))
		crypto_wipe((char *)(uintptr_t)json_string_value(text), json_string_length(text));
}

static int write_key_file(json_t *file, const char *path, bool replace, struct im_error *err)
{
	size_t len = json_dumpb(file, NULL, 0, JSON_INDENT(2));
	char *text = len && len < MAX_FILE_BYTES ? crypto_secret_new(len + 1) : NULL;
	if (!text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	json_dumpb(file, text, len, JSON_INDENT(2));
	text[len] = '\n';
	int rc = im_file_write(path, text, len + 1, 0600, replace ? IM_FILE_REPLACE : IM_FILE_NEW, err);
	crypto_secret_free(text);
	return rc;
}

int key_file_save(const struct key_file *k, const char *path, const char *passphrase, bool replace, struct im_error *err)
{
	json_t *file = json_pack("{s:s, s:i, s:s, s:s}", "imvault", "key", "version", 1, "role", key_role_name(k->role), "name", k->name);
	int rc = 0;
	if (!file || set_hex(file, "vault", k->vault_id, 16) || set_hex(file, "id", k->id, 8) ||
	    set_hex(file, "authority", k->authority, 32) || (k->node && json_object_set_new(file, "node", json_string(k->node))))
		rc = im_fail(err, file ? IM_ENOMEM : IM_EUSAGE, "cannot write the key file %s: its name is not UTF-8 or memory ran out", path);
	if (rc == 0)
		rc = add_secret(file, k, passphrase, err);
	if (rc == 0)
		rc = write_key_file(file, path, replace, err);
	wipe_secret(file);
	json_decref(file);
	return rc;
}

/* Loading. */

static bool get_hex(json_t *object, const char *key, void *ret, size_t len)
{
	return im_unhex(ret, len, json_string_value(json_object_get(object, key)));
}

static int64_t get_integer(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static int malformed(const char *path, const char *what, struct im_error *err)
{
	return im_fail(err, IM_EKEY, "%s is not a sound imvault key file: %s", path, what);
}

static int open_protected(json_t *p, const char *path, char *passphrase, uint8_t ret[SECRET_BYTES], struct im_error *err)
{
	uint8_t salt[16], nonce[24], sealed[PROTECTED_BYTES], key[32];
	const char *kdf = json_string_value(json_object_get(p, "kdf"));
	if (!kdf || strcmp(kdf, "argon2id") || !get_hex(p, "salt", salt, sizeof salt) ||
	    !get_hex(p, "nonce", nonce, sizeof nonce) || !get_hex(p, "box", sealed, sizeof sealed))
		return malformed(path, "its protected part is damaged", err);
	int rc = crypto_password_key(key, passphrase, salt, (uint64_t)get_integer(p, "opslimit"),
	    (uint64_t)get_integer(p, "memlimit_bytes"), err);
	if (rc)
		return im_error_context(err, "%s", path), rc;
	bool ok = crypto_aead_open(ret, key, nonce, PROTECTED_AAD, strlen(PROTECTED_AAD), sealed, sizeof sealed);
	crypto_wipe(key, sizeof key);
	return ok ? 0 : im_fail(err, IM_EKEY, "wrong passphrase for %s", path);
}

static int ask_and_open(json_t *p, const char *path, key_passphrase_fn *ask, void *context, uint8_t ret[SECRET_BYTES], struct im_error *err)
{
	char *passphrase = ask ? ask(context, path) : NULL;
	if (!passphrase)
		return im_fail(err, IM_EKEY, "%s is protected by a passphrase and none was given", path);
	int rc = open_protected(p, path, passphrase, ret, err);
	crypto_wipe(passphrase, strlen(passphrase));
	free(passphrase);
	return rc;
}

static int take_secret(json_t *file, const char *path, key_passphrase_fn *ask, void *context, struct key_file *k, struct im_error *err)
{
	uint8_t secret[SECRET_BYTES];
	json_t *p = json_object_get(file, "protected");
	int rc = 0;
	k->is_protected = p != NULL;
	if (p)
		rc = ask_and_open(p, path, ask, context, secret, err);
	else if (!get_hex(file, "secret", secret, sizeof secret))
		rc = malformed(path, "its secret is missing or damaged", err);
	if (rc == 0) {
		memcpy(k->box_secret, secret, 32);
		memcpy(k->sign_seed, secret + 32, 32);
	}
	crypto_wipe(secret, sizeof secret);
	return rc;
}

static int parse_key_file(json_t *file, const char *path, key_passphrase_fn *ask, void *context, struct key_file **ret, struct im_error *err)
{
	const char *mark = json_string_value(json_object_get(file, "imvault"));
	const char *name = json_string_value(json_object_get(file, "name"));
	json_t *node = json_object_get(file, "node");
	enum key_role role;
	uint8_t id[8];
	if (!mark || strcmp(mark, "key"))
		return malformed(path, "it does not say it is one", err);
	if (get_integer(file, "version") != 1)
		return malformed(path, "its version is not 1 (a newer imvault may read it)", err);
	if (!name || strlen(name) > KEY_TEXT_BYTES || !key_role_parse(json_string_value(json_object_get(file, "role")), &role))
		return malformed(path, "its name or role is missing or unknown", err);
	if (node && (!json_is_string(node) || !im_name_valid(json_string_value(node))))
		return malformed(path, "its node name is not valid", err);
	auto_key_file struct key_file *k = key_file_blank(role, name, json_string_value(node));
	if (!k)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (!get_hex(file, "vault", k->vault_id, 16) || !get_hex(file, "id", id, 8) || !get_hex(file, "authority", k->authority, 32))
		return malformed(path, "vault, id or authority is missing or damaged", err);
	int rc = take_secret(file, path, ask, context, k, err);
	if (rc)
		return rc;
	derive_public(k);
	if (!crypto_equal(id, k->id, 8))
		return malformed(path, "its id does not belong to its secret", err);
	*ret = TAKE_PTR(k);
	return 0;
}

int key_file_load(const char *path, key_passphrase_fn *ask, void *context, struct key_file **ret, struct im_error *err)
{
	auto_buf struct im_buf text = { 0 };
	struct im_error why = { 0 };
	int rc = crypto_init(err);
	if (rc)
		return rc;
	rc = im_file_read(path, MAX_FILE_BYTES, &text, &why);
	if (rc == IM_ENOTFOUND)
		return im_fail(err, IM_EUSAGE, "there is no key file %s", path);
	if (rc)
		return im_fail(err, IM_EKEY, "%s", why.text);
	json_t *file = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	crypto_wipe(text.data, text.len);
	if (!json_is_object(file))
		rc = malformed(path, "it is not JSON", err);
	else
		rc = parse_key_file(file, path, ask, context, ret, err);
	wipe_secret(file);
	json_decref(file);
	return rc;
}
