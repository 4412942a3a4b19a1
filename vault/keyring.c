/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a keyring (FORMAT §3) and asking it. Every generation from the first is checked: signed by
 * the authority or by an active restore key of the generation before, and carrying the hash of that
 * generation. So whoever can write to the vault but holds no restore key can add, change and
 * reorder nothing; taking the newest away is seen by those who remember its number.
 */
#include "vault/keyring_internal.h"

#include "base/cleanup.h"
#include "base/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

IM_DEFINE_AUTO(keyring, struct keyring, keyring_free)
#define auto_keyring IM_CLEANUP(im_auto_keyring)
#define auto_generation IM_CLEANUP(keyring_generation_clear)

char *keyring_object(char ret[24], uint32_t generation)
{
	snprintf(ret, 24, "keys/%08" PRIu32, generation);
	return ret;
}

static void entry_clear(struct key_entry *e)
{
	free(e->name);
	free(e->node);
	free(e->created);
}

void keyring_generation_clear(struct keyring_generation *g)
{
	for (size_t i = 0; i < g->count; i++)
		entry_clear(&g->entries[i]);
	free(g->entries);
	json_decref(g->doc);
	*g = (struct keyring_generation){ 0 };
}

/* Parsing one generation. */

static const char *text_of(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text && strlen(text) <= KEY_TEXT_BYTES ? text : NULL;
}

/* NODE, or NODE/STORE/EPOCH. */
static bool last_name_valid(const char *name)
{
	char node[65], store[65], epoch[21];
	int end = 0;
	if (!strchr(name, '/'))
		return im_name_valid(name);
	return sscanf(name, "%64[^/]/%64[^/]/%20[0-9a-f]%n", node, store, epoch, &end) == 3 && !name[end] && im_name_valid(node) &&
	    im_name_valid(store) && strlen(epoch) == 20;
}

bool keyring_last_valid(json_t *last)
{
	const char *node;
	json_t *seq;
	if (!last)
		return true;
	if (!json_is_object(last))
		return false;
	json_object_foreach(last, node, seq)
		if (!last_name_valid(node) || !json_is_integer(seq) || json_integer_value(seq) < 0)
			return false;
	return true;
}

static bool inherits_valid(json_t *row)
{
	json_t *list = json_object_get(row, "inherits"), *item;
	size_t i;
	uint8_t id[8], sealed[INHERITED_BYTES];
	if (!list)
		return true;
	if (!json_is_array(list) || json_array_size(list) > KEYRING_MAX_KEYS)
		return false;
	json_array_foreach(list, i, item)
		if (!im_unhex(id, 8, text_of(item, "id")) || !im_unhex(sealed, sizeof sealed, text_of(item, "sealed")))
			return false;
	return true;
}

/* What is wrong with a row, or NULL; ret is always to be cleared. */
static const char *parse_entry(json_t *row, struct key_entry *ret)
{
	uint8_t id[8];
	const char *name = text_of(row, "name"), *status = text_of(row, "status"), *created = text_of(row, "created");
	json_t *node = json_object_get(row, "node");
	if (!im_unhex(ret->id, 8, text_of(row, "id")) || !im_unhex(ret->box_public, 32, text_of(row, "box")) ||
	    !im_unhex(ret->sign_public, 32, text_of(row, "sign")))
		return "a key lacks id, box or sign";
	key_id_of(ret->box_public, ret->sign_public, id);
	if (memcmp(id, ret->id, 8))
		return "a key's id does not belong to it";
	if (!key_role_parse(text_of(row, "role"), &ret->role) || !name || !created || !status)
		return "a key lacks role, name, created or status";
	if (strcmp(status, "active") && strcmp(status, "revoked"))
		return "a key has an unknown status";
	if (node && (!json_is_string(node) || !im_name_valid(json_string_value(node))))
		return "a key has an invalid node name";
	ret->active = !strcmp(status, "active");
	ret->has_replaces = json_object_get(row, "replaces") != NULL;
	if (ret->has_replaces && !im_unhex(ret->replaces, 8, text_of(row, "replaces")))
		return "a key replaces an invalid id";
	if (!keyring_last_valid(json_object_get(row, "last")) || !inherits_valid(row))
		return "a key has an invalid last or inherits";
	if (ret->active && !json_is_string(json_object_get(row, "sealed")))
		return "an active key lacks its sealed part";
	ret->name = strdup(name);
	ret->created = strdup(created);
	ret->node = node ? strdup(json_string_value(node)) : NULL;
	return ret->name && ret->created && (ret->node || !node) ? NULL : "out of memory";
}

static int by_id(const void *a, const void *b)
{
	return memcmp(*(const uint8_t *const *)a, *(const uint8_t *const *)b, 8);
}

static const char *check_set(const struct keyring_generation *g)
{
	const uint8_t *ids[KEYRING_MAX_KEYS];
	size_t restores = 0;
	for (size_t i = 0; i < g->count; i++) {
		ids[i] = g->entries[i].id;
		restores += g->entries[i].active && g->entries[i].role == KEY_RESTORE;
	}
	qsort(ids, g->count, sizeof *ids, by_id);
	for (size_t i = 1; i < g->count; i++)
		if (!memcmp(ids[i - 1], ids[i], 8))
			return "two keys have the same id";
	if (restores == 0 || restores > KEYRING_MAX_RECIPIENTS)
		return "it has no active restore key, or too many";
	return NULL;
}

static const char *parse_keys(struct keyring_generation *g)
{
	json_t *keys = json_object_get(g->doc, "keys");
	size_t count = json_array_size(keys);
	if (count == 0 || count > KEYRING_MAX_KEYS)
		return "it has no keys, or too many";
	g->entries = calloc(count, sizeof *g->entries);
	if (!g->entries)
		return "out of memory";
	for (g->count = 0; g->count < count;) {
		json_t *row = json_array_get(keys, g->count);
		const char *wrong = parse_entry(row, &g->entries[g->count++]);
		if (wrong)
			return wrong;
	}
	return check_set(g);
}

int keyring_generation_parse(json_t *doc, const uint8_t vault_id[16], uint32_t number, struct keyring_generation *ret, struct im_error *err)
{
	auto_generation struct keyring_generation g = { .number = number, .doc = doc };
	uint8_t id[16];
	const char *wrong = NULL;
	if (!json_is_object(doc))
		wrong = "it is not JSON";
	else if (!im_unhex(id, 16, text_of(doc, "vault")) || memcmp(id, vault_id, 16))
		wrong = "it belongs to another vault";
	else if (!json_is_integer(json_object_get(doc, "generation")) ||
	         json_integer_value(json_object_get(doc, "generation")) != (json_int_t)number)
		wrong = "its generation number is not that of its name";
	else
		wrong = parse_keys(&g);
	if (wrong)
		return im_fail(err, IM_ECORRUPT, "keyring generation %" PRIu32 " is damaged or forged: %s", number, wrong);
	*ret = g;
	g = (struct keyring_generation){ 0 };
	return 0;
}

const struct key_entry *keyring_generation_find(const struct keyring_generation *g, const uint8_t id[8])
{
	for (size_t i = 0; i < g->count; i++)
		if (!memcmp(g->entries[i].id, id, 8))
			return &g->entries[i];
	return NULL;
}

json_t *keyring_generation_row(const struct keyring_generation *g, const uint8_t id[8])
{
	const struct key_entry *e = keyring_generation_find(g, id);
	return e ? json_array_get(json_object_get(g->doc, "keys"), (size_t)(e - g->entries)) : NULL;
}

/* Walking the chain. */

static bool signed_by(const struct im_buf *object, const uint8_t sign_public[32])
{
	return crypto_verify(object->data + object->len - 64, sign_public, KEYRING_DOMAIN, object->data, object->len - 64);
}

/* Only a key of the generation before may sign; the first is signed by the authority, which it lists. */
static const char *check_signature(const struct im_buf *object, const uint8_t signer[8], const uint8_t authority[32],
    const struct keyring_generation *before, const struct keyring_generation *g)
{
	const struct key_entry *e = keyring_generation_find(g->number == 1 ? g : before, signer);
	if (!e || e->role != KEY_RESTORE || !e->active)
		return "it is not signed by an active restore key";
	if (g->number == 1 && memcmp(e->sign_public, authority, 32))
		return "it is not signed by the vault's authority";
	return signed_by(object, e->sign_public) ? NULL : "its signature is wrong";
}

static const char *check_prev(const struct keyring_generation *before, const struct keyring_generation *g)
{
	uint8_t prev[32];
	json_t *text = json_object_get(g->doc, "prev");
	if (g->number == 1)
		return text ? "the first generation cannot have a predecessor" : NULL;
	if (!im_unhex(prev, 32, json_string_value(text)) || memcmp(prev, before->hash, 32))
		return "it does not follow the generation before";
	return NULL;
}

static int decode_generation(const struct im_buf *object, const uint8_t vault_id[16], const uint8_t authority[32], uint32_t number,
    const struct keyring_generation *before, struct keyring_generation *ret, struct im_error *err)
{
	struct im_reader r = im_reader_of(object->data, object->len);
	const uint8_t *magic = im_read_view(&r, 8);
	uint32_t json_len = im_read_u32(&r);
	const uint8_t *text = json_len <= KEYRING_MAX_JSON_BYTES ? im_read_view(&r, json_len) : NULL;
	const uint8_t *signer = im_read_view(&r, 8);
	if (!text || r.failed || memcmp(magic, KEYRING_MAGIC, 8) || im_read_left(&r) != 64)
		return im_fail(err, IM_ECORRUPT, "keyring generation %" PRIu32 " is damaged: wrong form", number);
	auto_generation struct keyring_generation g = { 0 };
	int rc = keyring_generation_parse(json_loadb((const char *)text, json_len, JSON_REJECT_DUPLICATES, NULL), vault_id, number, &g, err);
	if (rc)
		return rc;
	const char *wrong = check_signature(object, signer, authority, before, &g);
	if (!wrong)
		wrong = check_prev(before, &g);
	if (wrong)
		return im_fail(err, IM_ECORRUPT, "keyring generation %" PRIu32 " is damaged or forged: %s", number, wrong);
	crypto_hash(g.hash, object->data, object->len);
	*ret = g;
	g = (struct keyring_generation){ 0 };
	return 0;
}

struct newest {
	uint32_t number, count;
};

static int note_generation(void *context, const char *name, uint64_t size_bytes)
{
	struct newest *n = context;
	const char *digits = name + strlen("keys/");
	(void)size_bytes;
	if (strlen(digits) == 8 && strspn(digits, "0123456789") == 8) {
		uint32_t number = (uint32_t)strtoul(digits, NULL, 10);
		n->number = number > n->number ? number : n->number;
		n->count++;
	}
	return 0;
}

static int find_newest(struct storage *s, uint32_t min_generation, uint32_t *ret, struct im_error *err)
{
	struct newest n = { 0 };
	int rc = storage_list(s, "keys/", note_generation, &n, err);
	if (rc)
		return rc;
	if (n.count == 0)
		return im_fail(err, IM_ECORRUPT, "the vault %s has no keyring (keys/00000001 is missing)", s->url);
	if (n.count != n.number || n.number > KEYRING_MAX_GENERATIONS)
		return im_fail(err, IM_ECORRUPT, "the keyring of the vault %s has gaps: newest generation %" PRIu32 ", but %" PRIu32
		    " are there; somebody removed or added files below keys/", s->url, n.number, n.count);
	if (n.number < min_generation)
		return im_fail(err, IM_ECORRUPT, "the keyring of the vault %s was rolled back: generation %" PRIu32
		    " was seen before, now the newest is %" PRIu32 "; somebody removed newer ones (perhaps a revocation)",
		    s->url, min_generation, n.number);
	*ret = n.number;
	return 0;
}

static int walk_chain(struct storage *s, struct keyring *k, const uint8_t authority[32], uint32_t newest, struct im_error *err)
{
	for (uint32_t number = 1; number <= newest; number++) {
		auto_buf struct im_buf object = { 0 };
		struct keyring_generation g = { 0 };
		char name[24];
		int rc = storage_read_object(s, keyring_object(name, number), KEYRING_MAX_JSON_BYTES + KEYRING_FRAME_BYTES, &object, err);
		if (rc == 0)
			rc = decode_generation(&object, k->vault_id, authority, number, &k->newest, &g, err);
		if (rc)
			return rc;
		keyring_generation_clear(&k->newest);
		k->newest = g;
	}
	return 0;
}

/* Unsealing what our own key may see. */

static int take_sealed(struct keyring *k, const uint8_t *plain, size_t len, struct im_error *err)
{
	uint32_t count = k->newest.number;
	struct im_reader r = im_reader_of(plain, len);
	const uint8_t *id_key = im_read_view(&r, 32);
	if (im_read_u32(&r) != count || im_read_left(&r) != (size_t)count * META_ROW_BYTES)
		return im_fail(err, IM_ECORRUPT, "the part of the keyring sealed to this key is incomplete");
	k->meta_keys = crypto_secret_new((size_t)count * 32);
	if (k->own->role != KEY_PRUNE)
		k->id_key = crypto_secret_new(32);
	if (!k->meta_keys || (k->own->role != KEY_PRUNE && !k->id_key))
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (k->id_key)
		memcpy(k->id_key, id_key, 32);
	for (uint32_t i = 0; i < count; i++) {
		if (im_read_u32(&r) != i + 1)
			return im_fail(err, IM_ECORRUPT, "the part of the keyring sealed to this key is out of order");
		im_read_copy(&r, k->meta_keys + (size_t)i * 32, 32);
	}
	return 0;
}

static int open_sealed(struct keyring *k, json_t *row, struct im_error *err)
{
	const char *text = json_string_value(json_object_get(row, "sealed"));
	size_t len = text ? strlen(text) / 2 : 0;
	auto_free uint8_t *sealed = malloc(len + 1);
	uint8_t *plain = crypto_secret_new(len);
	int rc;
	if (!sealed || !plain)
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	else if (len < CRYPTO_SEAL_BYTES + SEALED_HEAD_BYTES || !im_unhex(sealed, len, text) ||
	         !crypto_box_open(plain, k->own->box_secret, sealed, len))
		rc = im_fail(err, IM_ECORRUPT, "the part of the keyring sealed to this key cannot be opened");
	else
		rc = take_sealed(k, plain, len - CRYPTO_SEAL_BYTES, err);
	crypto_secret_free(plain);
	return rc;
}

static int open_inherited(struct keyring *k, json_t *row, struct im_error *err)
{
	json_t *list = json_object_get(row, "inherits"), *item;
	size_t i, count = json_array_size(list);
	k->boxes = calloc(count + 1, sizeof *k->boxes);
	k->inherited = crypto_secret_new(count * 32);
	if (!k->boxes || !k->inherited)
		return im_fail(err, IM_ENOMEM, "out of memory");
	memcpy(k->boxes[0].id, k->own->id, 8);
	k->boxes[k->box_count++].secret = k->own->box_secret;
	json_array_foreach(list, i, item) {
		uint8_t sealed[INHERITED_BYTES], public_key[32];
		struct held_box *b = &k->boxes[k->box_count++];
		b->secret = k->inherited + i * 32;
		const struct key_entry *e = NULL;
		if (im_unhex(b->id, 8, text_of(item, "id")) && im_unhex(sealed, sizeof sealed, text_of(item, "sealed")) &&
		    crypto_box_open(k->inherited + i * 32, k->own->box_secret, sealed, sizeof sealed))
			e = keyring_find(k, b->id);
		crypto_box_public(public_key, b->secret);
		if (!e || memcmp(e->box_public, public_key, 32))
			return im_fail(err, IM_ECORRUPT, "a key that this restore key inherits cannot be opened");
	}
	return 0;
}

static int unseal_own(struct keyring *k, struct im_error *err)
{
	char id[17];
	const struct key_entry *e = keyring_find(k, k->own->id);
	json_t *row = keyring_generation_row(&k->newest, k->own->id);
	if (!e)
		return im_fail(err, IM_EKEY, "the key \"%s\" (%s) is not a key of this vault", k->own->name, im_hex(id, k->own->id, 8));
	if (!e->active)
		return im_fail(err, IM_EKEY, "the key \"%s\" (%s) was revoked or replaced; use its successor", e->name, im_hex(id, k->own->id, 8));
	if (e->role != k->own->role)
		return im_fail(err, IM_EKEY, "the key \"%s\" calls itself a %s key, but the vault knows it as a %s key",
		    e->name, key_role_name(k->own->role), key_role_name(e->role));
	int rc = open_sealed(k, row, err);
	return rc == 0 && e->role == KEY_RESTORE ? open_inherited(k, row, err) : rc;
}

int keyring_open(struct storage *s, const uint8_t vault_id[16], const uint8_t authority[32], const struct key_file *own,
    uint32_t min_generation, struct keyring **ret, struct im_error *err)
{
	uint32_t newest = 0;
	auto_keyring struct keyring *k = calloc(1, sizeof *k);
	if (!k)
		return im_fail(err, IM_ENOMEM, "out of memory");
	memcpy(k->vault_id, vault_id, 16);
	k->own = own;
	int rc = find_newest(s, min_generation, &newest, err);
	if (rc == 0)
		rc = walk_chain(s, k, authority, newest, err);
	if (rc == 0 && own)
		rc = unseal_own(k, err);
	if (rc)
		return rc;
	*ret = TAKE_PTR(k);
	return 0;
}

void keyring_free(struct keyring *k)
{
	if (!k)
		return;
	keyring_generation_clear(&k->newest);
	crypto_secret_free(k->id_key);
	crypto_secret_free(k->meta_keys);
	crypto_secret_free(k->inherited);
	free(k->boxes);
	free(k);
}
