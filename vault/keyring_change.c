/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a keyring: each change writes one new generation and nothing else, so a crash leaves
 * either the old keyring or the new one. Two changes at once cannot both win: objects are never
 * replaced. What is about to be written is parsed as a reader would before it is signed.
 *
 * A restore key that inherits another's secret could go on reading with it after its own
 * revocation; so it cannot be revoked while that other key is still being sealed to.
 */
#include "vault/keyring_internal.h"

#include "base/clock.h"
#include "base/cleanup.h"

#include <inttypes.h>
#include <string.h>

static void json_release(json_t **j)
{
	json_decref(*j);
}
static void secret_release(uint8_t **p)
{
	crypto_secret_free(*p);
}
#define auto_json IM_CLEANUP(json_release)
#define auto_secret IM_CLEANUP(secret_release)

static int no_memory(struct im_error *err)
{
	return im_fail(err, IM_ENOMEM, "out of memory");
}

static int set_text(json_t *object, const char *key, const char *text)
{
	return json_object_set_new(object, key, json_string(text));
}

static int set_hex(json_t *object, const char *key, const void *data, size_t len)
{
	auto_free char *text = malloc(2 * len + 1);
	return text ? set_text(object, key, im_hex(text, data, len)) : -1;
}

static int set_now(json_t *object)
{
	char now[IM_INSTANT_BYTES];
	return set_text(object, "created", im_instant_format(now, im_now_ms()));
}

static size_t bundle_bytes(uint32_t generation)
{
	return SEALED_HEAD_BYTES + (size_t)generation * META_ROW_BYTES;
}

/* What gets sealed to each key: id_key ‖ count ‖ rows. before NULL: everything is new. */
static uint8_t *bundle_new(const struct keyring *before, bool is_new_meta)
{
	uint32_t generation = before ? before->newest.number + 1 : 1;
	uint8_t *bundle = crypto_secret_new(bundle_bytes(generation));
	if (!bundle)
		return NULL;
	if (before)
		memcpy(bundle, before->id_key, 32);
	else
		crypto_random(bundle, 32);
	im_put_le32(bundle + 32, generation);
	for (uint32_t i = 1; i <= generation; i++) {
		uint8_t *row = bundle + SEALED_HEAD_BYTES + (size_t)(i - 1) * META_ROW_BYTES;
		im_put_le32(row, i);
		if (i < generation)
			memcpy(row + 4, before->meta_keys + (size_t)(i - 1) * 32, 32);
		else if (before && !is_new_meta)
			memcpy(row + 4, before->meta_keys + (size_t)(i - 2) * 32, 32);
		else
			crypto_random(row + 4, 32);
	}
	return bundle;
}

static bool row_is(json_t *row, const char *key, const char *value)
{
	const char *text = json_string_value(json_object_get(row, key));
	return text && !strcmp(text, value);
}

static int seal_hex(json_t *object, const char *key, const uint8_t box_public[32], const uint8_t *plain, size_t len, struct im_error *err)
{
	auto_free uint8_t *sealed = malloc(len + CRYPTO_SEAL_BYTES);
	if (!sealed)
		return no_memory(err);
	if (crypto_box_seal_to(sealed, box_public, plain, len))
		return im_fail(err, IM_EKEY, "a key of the keyring is degenerate: nothing can be sealed to it");
	return set_hex(object, key, sealed, len + CRYPTO_SEAL_BYTES) ? no_memory(err) : 0;
}

/* The id key is not for role prune. */
static int seal_bundle(json_t *row, const uint8_t *bundle, size_t len, struct im_error *err)
{
	uint8_t box_public[32];
	if (!im_unhex(box_public, 32, json_string_value(json_object_get(row, "box"))))
		return im_fail(err, IM_ECORRUPT, "a key of the keyring has no public key");
	if (!row_is(row, "role", key_role_name(KEY_PRUNE)))
		return seal_hex(row, "sealed", box_public, bundle, len, err);
	auto_secret uint8_t *copy = crypto_secret_new(len);
	if (!copy)
		return no_memory(err);
	memcpy(copy + 32, bundle + 32, len - 32);
	return seal_hex(row, "sealed", box_public, copy, len, err);
}

static int seal_all(json_t *doc, uint32_t generation, const uint8_t *bundle, struct im_error *err)
{
	size_t i;
	json_t *row;
	json_array_foreach(json_object_get(doc, "keys"), i, row) {
		int rc = row_is(row, "status", "active") ? seal_bundle(row, bundle, bundle_bytes(generation), err) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

static int encode(const struct key_file *signer, json_t *doc, uint32_t generation, struct im_buf *ret, struct im_error *err)
{
	struct keyring_generation check = { 0 };
	uint8_t signature[64];
	auto_free char *text = json_dumps(doc, JSON_COMPACT);
	if (!text)
		return no_memory(err);
	if (strlen(text) > KEYRING_MAX_JSON_BYTES)
		return im_fail(err, IM_EUSAGE, "the keyring would become larger than 16 MiB: too many keys or changes");
	int rc = keyring_generation_parse(json_loads(text, JSON_REJECT_DUPLICATES, NULL), signer->vault_id, generation, &check, err);
	if (rc)
		return im_error_context(err, "this change is refused"), rc;
	keyring_generation_clear(&check);
	im_buf_put(ret, KEYRING_MAGIC, 8);
	im_buf_put_u32(ret, (uint32_t)strlen(text));
	im_buf_put(ret, text, strlen(text));
	im_buf_put(ret, signer->id, 8);
	if (ret->failed)
		return no_memory(err);
	crypto_sign(signature, signer->sign_seed, KEYRING_DOMAIN, ret->data, ret->len);
	im_buf_put(ret, signature, sizeof signature);
	return ret->failed ? no_memory(err) : 0;
}

static int write_generation(struct storage *s, const struct key_file *signer, json_t *doc, uint32_t generation, const uint8_t *bundle, struct im_error *err)
{
	auto_buf struct im_buf object = { 0 };
	struct im_error why = { 0 };
	char name[24];
	if (json_object_set_new(doc, "generation", json_integer(generation)) || set_hex(doc, "vault", signer->vault_id, 16) || set_now(doc))
		return no_memory(err);
	int rc = seal_all(doc, generation, bundle, err);
	if (rc == 0)
		rc = encode(signer, doc, generation, &object, err);
	if (rc)
		return rc;
	rc = storage_put_object(s, keyring_object(name, generation), object.data, object.len, &why);
	if (rc == IM_EUSAGE && generation > 1)
		return im_fail(err, IM_ELOCKED, "another key change was made at the same time; nothing was changed, run the command again");
	return rc ? im_fail(err, why.code, "%s", why.text) : 0;
}

/* Rows. */

static json_t *row_new(const struct key_file *key)
{
	json_t *row = json_object();
	if (!row || set_hex(row, "id", key->id, 8) || set_text(row, "role", key_role_name(key->role)) || set_text(row, "name", key->name) ||
	    (key->node && set_text(row, "node", key->node)) || set_hex(row, "box", key->box_public, 32) ||
	    set_hex(row, "sign", key->sign_public, 32) || set_text(row, "status", "active") || set_now(row)) {
		json_decref(row);
		return NULL;
	}
	return row;
}

static int inherit_one(json_t *list, const uint8_t box_public[32], const struct held_box *box, struct im_error *err)
{
	json_t *item = json_object();
	if (!item || json_array_append_new(list, item) || set_hex(item, "id", box->id, 8))
		return no_memory(err);
	return seal_hex(item, "sealed", box_public, box->secret, 32, err);
}

static const struct held_box *held(const struct keyring *k, const uint8_t id[8])
{
	for (size_t i = 0; i < k->box_count; i++)
		if (!memcmp(k->boxes[i].id, id, 8))
			return &k->boxes[i];
	return NULL;
}

/* Gives a fresh restore key what `from` can open: its own secret and those it inherits. */
static int add_inherits(const struct keyring *k, json_t *row, const struct key_file *fresh, const uint8_t from[8], struct im_error *err)
{
	json_t *list = json_array(), *item;
	size_t i;
	const struct held_box *box = held(k, from);
	if (!list || json_object_set_new(row, "inherits", list))
		return no_memory(err);
	int rc = box ? inherit_one(list, fresh->box_public, box, err) : IM_EKEY;
	json_array_foreach(json_object_get(keyring_generation_row(&k->newest, from), "inherits"), i, item) {
		uint8_t id[8];
		if (rc || !im_unhex(id, 8, json_string_value(json_object_get(item, "id"))))
			break;
		box = held(k, id);
		rc = box ? inherit_one(list, fresh->box_public, box, err) : IM_EKEY;
	}
	if (rc == IM_EKEY)
		return im_fail(err, IM_EKEY, "only the holder of that restore key can rotate it (its successor must read what was sealed to it); "
		    "instead, add a new key and revoke the old one");
	return rc;
}

static int check_fresh(const struct keyring *k, const struct key_file *fresh, struct im_error *err)
{
	if (memcmp(fresh->vault_id, k->vault_id, 16))
		return im_fail(err, IM_EUSAGE, "the key \"%s\" was made for another vault", fresh->name);
	if (keyring_find(k, fresh->id))
		return im_fail(err, IM_EUSAGE, "the key \"%s\" is in the keyring already", fresh->name);
	return 0;
}

/* begin: a copy of the newest generation to change. */
static int begin(const struct keyring *k, json_t **ret, struct im_error *err)
{
	char prev[65];
	if (!k->own || k->own->role != KEY_RESTORE)
		return im_fail(err, IM_EKEY, "changing the keyring takes a restore key");
	json_t *doc = json_deep_copy(k->newest.doc);
	if (!doc || set_text(doc, "prev", im_hex(prev, k->newest.hash, 32))) {
		json_decref(doc);
		return no_memory(err);
	}
	*ret = doc;
	return 0;
}

static int finish(struct storage *s, const struct keyring *k, json_t *doc, bool is_new_meta, struct im_error *err)
{
	auto_secret uint8_t *bundle = bundle_new(k, is_new_meta);
	return bundle ? write_generation(s, k->own, doc, k->newest.number + 1, bundle, err) : no_memory(err);
}

static int append_fresh(const struct keyring *k, json_t *doc, const struct key_file *fresh, const uint8_t inherits_from[8], const uint8_t replaces[8], struct im_error *err)
{
	int rc = check_fresh(k, fresh, err);
	if (rc)
		return rc;
	json_t *row = row_new(fresh);
	if (!row || json_array_append_new(json_object_get(doc, "keys"), row))
		return no_memory(err);
	if (replaces && set_hex(row, "replaces", replaces, 8))
		return no_memory(err);
	return fresh->role == KEY_RESTORE ? add_inherits(k, row, fresh, inherits_from, err) : 0;
}

static int refuse_holder(const struct key_entry *holder, const struct key_entry *held, struct im_error *err)
{
	char holder_id[17], held_id[17];
	return im_fail(err, IM_EUSAGE, "the restore key \"%s\" also holds the secret of the active restore key \"%s\" (so it reads what was stored before "
	    "it was made): revoking it alone would not lock it out. First give \"%s\" a successor, then revoke with that one: "
	    "imvault key rotate %s --key ITS-FILE --out NEW-FILE; imvault key revoke %s --key NEW-FILE", holder->name, held->name, held->name,
	    im_hex(held_id, held->id, 8), im_hex(holder_id, holder->id, 8));
}

/* See the head of this file. */
static int check_inherited_active(const struct keyring *k, const struct key_entry *e, json_t *row, struct im_error *err)
{
	json_t *item;
	size_t i;
	json_array_foreach(json_object_get(row, "inherits"), i, item) {
		uint8_t id[8];
		const struct key_entry *other = im_unhex(id, 8, json_string_value(json_object_get(item, "id"))) ? keyring_find(k, id) : NULL;
		if (other && other->active)
			return refuse_holder(e, other, err);
	}
	return 0;
}

static int mark_revoked(const struct keyring *k, json_t *doc, const struct key_entry *e, const char *lasts, struct im_error *err)
{
	json_t *row = json_array_get(json_object_get(doc, "keys"), (size_t)(e - k->newest.entries));
	int rc = check_inherited_active(k, e, row, err);
	if (rc)
		return rc;
	json_object_del(row, "sealed");
	json_object_del(row, "inherits");
	if (set_text(row, "status", "revoked"))
		return no_memory(err);
	if (!lasts)
		return 0;
	json_t *last = json_loads(lasts, JSON_REJECT_DUPLICATES, NULL);
	if (!last || !keyring_last_valid(last)) {
		json_decref(last);
		return im_fail(err, IM_EUSAGE, "the last trusted sequences are not a JSON object {NODE: SEQUENCE}");
	}
	return json_object_set_new(row, "last", last) ? no_memory(err) : 0;
}

/* NULL: IM_EUSAGE. */
static const struct key_entry *find_active(const struct keyring *k, const uint8_t id[8], struct im_error *err)
{
	char hex[17];
	const struct key_entry *e = keyring_find(k, id);
	if (!e)
		im_fail(err, IM_EUSAGE, "the vault has no key %s", im_hex(hex, id, 8));
	else if (!e->active)
		im_fail(err, IM_EUSAGE, "the key \"%s\" is revoked already", e->name);
	return e && e->active ? e : NULL;
}

/* The changes. */

int keyring_create(struct storage *s, const struct key_file *restore, const struct key_file *node, struct im_error *err)
{
	json_t *keys = json_array();
	auto_json json_t *doc = json_pack("{s:o}", "keys", keys);
	auto_secret uint8_t *bundle = bundle_new(NULL, true);
	if (!doc || !bundle || json_array_append_new(keys, row_new(restore)) || json_array_append_new(keys, row_new(node)))
		return no_memory(err);
	return write_generation(s, restore, doc, 1, bundle, err);
}

int keyring_add(struct storage *s, const struct keyring *k, const struct key_file *fresh, struct im_error *err)
{
	auto_json json_t *doc = NULL;
	int rc = begin(k, &doc, err);
	if (rc == 0)
		rc = append_fresh(k, doc, fresh, k->own->id, NULL, err);
	return rc ? rc : finish(s, k, doc, false, err);
}

int keyring_revoke(struct storage *s, const struct keyring *k, const uint8_t id[8], const char *lasts, struct im_error *err)
{
	auto_json json_t *doc = NULL;
	const struct key_entry *e = find_active(k, id, err), *two[2];
	int rc = 0;
	if (!e)
		return IM_EUSAGE;
	if (e->role == KEY_RESTORE && keyring_recipients(k, two, 2) < 2)
		rc = im_fail(err, IM_EUSAGE, "\"%s\" is the only active restore key: without it nothing could ever be restored; rotate it, "
		    "or add another one first", e->name);
	if (rc == 0)
		rc = begin(k, &doc, err);
	if (rc == 0)
		rc = mark_revoked(k, doc, e, lasts, err);
	return rc ? rc : finish(s, k, doc, true, err);
}

int keyring_rotate(struct storage *s, const struct keyring *k, const uint8_t old[8], const struct key_file *fresh, const char *lasts, struct im_error *err)
{
	auto_json json_t *doc = NULL;
	const struct key_entry *e = find_active(k, old, err);
	int rc = 0;
	if (!e)
		return IM_EUSAGE;
	if (e->role != fresh->role)
		rc = im_fail(err, IM_EUSAGE, "a %s key cannot take the place of the %s key \"%s\"", key_role_name(fresh->role), key_role_name(e->role), e->name);
	if (rc == 0 && e->node && (!fresh->node || strcmp(e->node, fresh->node)))
		rc = im_fail(err, IM_EUSAGE, "the key \"%s\" is bound to the node %s, and so must be its successor", e->name, e->node);
	if (rc == 0)
		rc = begin(k, &doc, err);
	if (rc == 0)
		rc = append_fresh(k, doc, fresh, old, old, err);
	if (rc == 0)
		rc = mark_revoked(k, doc, e, lasts, err);
	return rc ? rc : finish(s, k, doc, true, err);
}
