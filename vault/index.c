/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index fragments (FORMAT §6). Only our own lineage's fragments are believed: nobody can read what
 * another node stored under an id, so a forged fragment could poison every later snapshot.
 */
#include "vault/index.h"

#include "base/cleanup.h"
#include "vault/fetch.h"
#include "vault/record.h"

#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES 68
#define MAX_FRAGMENT_BYTES (256u << 20)
#define PACK_ROW_BYTES 68
#define ENTRY_ROW_BYTES 53
#define SIGN_DOMAIN "imvault index v1"

static const char magic[8] = "IMVINDX1";

static int by_id(const void *a, const void *b)
{
	return memcmp(((const struct pack_entry *)a)->id, ((const struct pack_entry *)b)->id, 32);
}

static void put_body(struct im_buf *b, const struct pack_info *packs, size_t pack_count, const struct pack_entry *entries, size_t entry_count)
{
	im_buf_put_u32(b, (uint32_t)pack_count);
	for (size_t i = 0; i < pack_count; i++) {
		im_buf_put_u32(b, (uint32_t)packs[i].size_bytes);
		im_buf_put(b, packs[i].name, 32);
		im_buf_put(b, packs[i].commitment, 32);
	}
	im_buf_put_u32(b, (uint32_t)entry_count);
	for (size_t i = 0; i < entry_count; i++) {
		im_buf_put(b, entries[i].id, 32);
		ref_put(b, entries[i].ref);
		im_buf_put_u8(b, entries[i].type);
	}
}

static int encode(const struct keyring *k, const struct im_buf *body, struct im_buf *ret, struct im_error *err)
{
	auto_buf struct im_buf packed = { 0 };
	uint8_t key[32], nonce[CRYPTO_NONCE_BYTES];
	const struct key_file *own = keyring_own(k);
	int rc = record_compress(body->data, body->len, &packed, err);
	if (rc == 0)
		rc = keyring_meta_key(k, keyring_generation(k), "imvault index v1", key, err);
	if (rc)
		return rc;
	crypto_random(nonce, sizeof nonce);
	im_buf_put(ret, magic, sizeof magic);
	im_buf_put_u16(ret, 1);
	im_buf_put_u16(ret, 0);
	im_buf_put_u32(ret, keyring_generation(k));
	im_buf_put(ret, keyring_vault_id(k), 16);
	im_buf_put(ret, own->id, 8);
	im_buf_put(ret, nonce, sizeof nonce);
	im_buf_put_u32(ret, (uint32_t)(packed.len + CRYPTO_TAG_BYTES));
	uint8_t *sealed = im_buf_grow(ret, packed.len + CRYPTO_TAG_BYTES);
	if (sealed)
		crypto_aead_seal(sealed, key, nonce, ret->data, 64, packed.data, packed.len);
	crypto_wipe(key, sizeof key);
	uint8_t *signature = im_buf_grow(ret, CRYPTO_SIGNATURE_BYTES);
	if (!signature)
		return im_fail(err, IM_ENOMEM, "out of memory for the index");
	crypto_sign(signature, own->sign_seed, SIGN_DOMAIN, ret->data, ret->len - CRYPTO_SIGNATURE_BYTES);
	return 0;
}

int index_write(struct storage *s, const struct keyring *k, const char *node, const struct pack_info *packs, size_t pack_count, struct pack_entry *entries, size_t entry_count, struct im_error *err)
{
	auto_buf struct im_buf body = { 0 }, object = { 0 };
	qsort(entries, entry_count, sizeof *entries, by_id);
	put_body(&body, packs, pack_count, entries, entry_count);
	if (body.failed)
		return im_fail(err, IM_ENOMEM, "out of memory for the index");
	int rc = encode(k, &body, &object, err);
	if (rc)
		return rc;
	uint8_t hash[32];
	char hex[65];
	crypto_hash(hash, object.data, object.len);
	auto_free char *name = NULL;
	if (asprintf(&name, "index/%s/%s", node, im_hex(hex, hash, 32)) < 0)
		return im_fail(err, IM_ENOMEM, "out of memory");
	return storage_put_object(s, name, object.data, object.len, err);
}

static int read_packs(struct im_reader *r, struct pack_info **ret, uint32_t *ret_count, struct im_error *err)
{
	uint32_t count = im_read_u32(r);
	if (im_read_left(r) / PACK_ROW_BYTES < count)
		return im_fail(err, IM_ECORRUPT, "the index fragment does not hold its %u packs", count);
	struct pack_info *packs = calloc(count ? count : 1, sizeof *packs);
	if (!packs)
		return im_fail(err, IM_ENOMEM, "out of memory for the index");
	for (uint32_t i = 0; i < count; i++) {
		packs[i].size_bytes = im_read_u32(r);
		im_read_copy(r, packs[i].name, 32);
		im_read_copy(r, packs[i].commitment, 32);
	}
	*ret = packs;
	*ret_count = count;
	return 0;
}

static int read_body(const struct im_buf *body, index_entry_fn *fn, void *context, struct im_error *err)
{
	struct im_reader r = im_reader_of(body->data, body->len);
	auto_free struct pack_info *packs = NULL;
	uint32_t pack_count = 0;
	int rc = read_packs(&r, &packs, &pack_count, err);
	if (rc)
		return rc;
	uint32_t count = im_read_u32(&r);
	if (r.failed || im_read_left(&r) != (uint64_t)count * ENTRY_ROW_BYTES)
		return im_fail(err, IM_ECORRUPT, "the index fragment does not hold its %u entries", count);
	for (uint32_t i = 0; i < count && rc == 0; i++) {
		struct pack_entry e = { .has_id = true };
		im_read_copy(&r, e.id, 32);
		e.ref = ref_read(&r);
		e.type = im_read_u8(&r);
		if (e.ref.pack >= pack_count || (uint64_t)e.ref.offset + e.ref.stored > packs[e.ref.pack].size_bytes)
			return im_fail(err, IM_ECORRUPT, "an index entry points outside its pack");
		rc = fn ? fn(context, &packs[e.ref.pack], &e, err) : 0;
	}
	return rc;
}

int index_decode(const struct keyring *k, const void *data, size_t len, uint8_t ret_signer[8], index_entry_fn *fn, void *context, struct im_error *err)
{
	const uint8_t *bytes = data;
	if (len < HEAD_BYTES + CRYPTO_TAG_BYTES + CRYPTO_SIGNATURE_BYTES || memcmp(bytes, magic, 8) != 0 || bytes[8] != 1 || bytes[9] != 0)
		return im_fail(err, IM_ECORRUPT, "this is not an index fragment of format version 1");
	uint32_t generation = im_le32(bytes + 12), sealed = im_le32(bytes + 64);
	if (sealed > MAX_FRAGMENT_BYTES || sealed < CRYPTO_TAG_BYTES || len != HEAD_BYTES + (size_t)sealed + CRYPTO_SIGNATURE_BYTES)
		return im_fail(err, IM_ECORRUPT, "the index fragment's length is wrong");
	if (memcmp(bytes + 16, keyring_vault_id(k), 16) != 0)
		return im_fail(err, IM_ECORRUPT, "the index fragment belongs to another vault");
	const struct key_entry *signer = keyring_find(k, bytes + 32);
	if (!signer || !crypto_verify(bytes + len - CRYPTO_SIGNATURE_BYTES, signer->sign_public, SIGN_DOMAIN, bytes, len - CRYPTO_SIGNATURE_BYTES))
		return im_fail(err, IM_ECORRUPT, "the index fragment's signature is not that of a key of this vault");
	uint8_t key[32];
	int rc = keyring_meta_key(k, generation, "imvault index v1", key, err);
	if (rc)
		return rc;
	auto_free uint8_t *packed = malloc(sealed);
	if (!packed)
		return im_fail(err, IM_ENOMEM, "out of memory for the index");
	bool ok = crypto_aead_open(packed, key, bytes + 40, bytes, 64, bytes + HEAD_BYTES, sealed);
	crypto_wipe(key, sizeof key);
	if (!ok)
		return im_fail(err, IM_ECORRUPT, "the index fragment is not authentic");
	auto_buf struct im_buf body = { 0 };
	rc = record_decompress(packed, sealed - CRYPTO_TAG_BYTES, 4 * (size_t)MAX_FRAGMENT_BYTES, &body, err);
	if (rc == 0 && ret_signer)
		memcpy(ret_signer, signer->id, 8);
	return rc ? rc : read_body(&body, fn, context, err);
}

/* Loading into the local state. */

struct loading {
	struct storage *storage;
	const struct keyring *keyring;
	struct state *state;
	size_t bad;
	uint8_t last_pack[32]; /* entries come by id, so this only helps small fragments */
	uint32_t last_number;
	bool last_present;
	struct im_error *err;
};

static int take_entry(void *context, const struct pack_info *pack, const struct pack_entry *entry, struct im_error *err)
{
	struct loading *l = context;
	if (memcmp(l->last_pack, pack->name, 32) != 0) {
		char object[80];
		uint64_t size = 0;
		memcpy(l->last_pack, pack->name, 32);
		l->last_present = true;
		if (state_pack_by_name(l->state, pack->name, &l->last_number, NULL)) {
			struct pack_info fresh = *pack;
			l->last_present = storage_size(l->storage, fetch_pack_object(object, pack->name), &size, NULL) == 0 && size == pack->size_bytes;
			int rc = l->last_present ? state_pack_number(l->state, &fresh.number, err) : 0;
			if (rc == 0 && l->last_present)
				rc = state_pack_add(l->state, &fresh, err);
			if (rc)
				return rc;
			l->last_number = fresh.number;
		}
	}
	if (!l->last_present)
		return 0;
	struct im_ref ref = entry->ref;
	ref.pack = l->last_number;
	return state_id_add(l->state, entry->id, &ref, err);
}

static int load_fragment(void *context, const char *name, uint64_t size_bytes)
{
	struct loading *l = context;
	(void)size_bytes;
	if (state_fragment_known(l->state, name))
		return 0;
	auto_buf struct im_buf object = { 0 };
	uint8_t signer[8];
	struct im_error why = { 0 };
	int rc = storage_read_object(l->storage, name, MAX_FRAGMENT_BYTES, &object, &why);
	if (rc == 0)
		rc = index_decode(l->keyring, object.data, object.len, signer, NULL, NULL, &why);
	if (rc == 0 && !keyring_same_lineage(l->keyring, signer, keyring_own(l->keyring)->id))
		return 0;
	if (rc) {
		l->bad++;
		return 0;
	}
	rc = index_decode(l->keyring, object.data, object.len, signer, take_entry, l, l->err);
	return rc ? rc : state_fragment_add(l->state, name, l->err);
}

int index_load(struct storage *s, const struct keyring *k, const char *node, struct state *st, size_t *ret_bad, struct im_error *err)
{
	struct loading l = { .storage = s, .keyring = k, .state = st, .err = err };
	auto_free char *prefix = NULL;
	if (asprintf(&prefix, "index/%s/", node) < 0)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = storage_list(s, prefix, load_fragment, &l, err);
	if (rc == 0 && ret_bad)
		*ret_bad = l.bad;
	return rc ? rc : state_checkpoint(st, err);
}
