/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header, key, trailer and footer of a pack (FORMAT §4). Pure functions over bytes: what they are
 * given may come from an enemy, so every count and length is checked before it is used.
 */
#include "vault/pack.h"

#include "base/cleanup.h"
#include "vault/record.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ENTRIES (4u << 20)
#define LISTING_ROW_BYTES 18

static const char header_magic[8] = "IMVPACK1", footer_magic[8] = "IMVPEND1";

void ref_put(struct im_buf *b, struct im_ref ref)
{
	im_buf_put_u32(b, ref.pack);
	im_buf_put_u32(b, ref.offset);
	im_buf_put_u32(b, ref.stored);
	im_buf_put_u32(b, ref.slot);
	im_buf_put_u32(b, ref.plain);
}

struct im_ref ref_read(struct im_reader *r)
{
	struct im_ref ref;
	ref.pack = im_read_u32(r);
	ref.offset = im_read_u32(r);
	ref.stored = im_read_u32(r);
	ref.slot = im_read_u32(r);
	ref.plain = im_read_u32(r);
	return ref;
}

static void compute_commitment(struct pack_key *key)
{
	uint8_t text[15 + 16 + 16];
	memcpy(text, "imvault pack v1", 15);
	memcpy(text + 15, key->vault_id, 16);
	memcpy(text + 31, key->uid, 16);
	crypto_keyed(key->commitment, key->key, text, sizeof text);
}

void pack_key_new(const uint8_t vault_id[16], struct pack_key *ret)
{
	memcpy(ret->vault_id, vault_id, 16);
	crypto_random(ret->uid, sizeof ret->uid);
	crypto_random(ret->key, sizeof ret->key);
	compute_commitment(ret);
}

int pack_header_encode(const struct keyring *k, const struct pack_key *key, uint32_t dict_stored, uint32_t dict_plain, struct im_buf *ret, struct im_error *err)
{
	const struct key_entry *recipients[PACK_MAX_RECIPIENTS];
	size_t count = keyring_recipients(k, recipients, PACK_MAX_RECIPIENTS);
	if (count == 0 || count > PACK_MAX_RECIPIENTS)
		return im_fail(err, IM_EKEY, "the vault has %zu active restore keys; at least 1 and at most %d can read a pack", count, PACK_MAX_RECIPIENTS);
	im_buf_put(ret, header_magic, sizeof header_magic);
	im_buf_put_u16(ret, 1);
	im_buf_put_u16(ret, (uint16_t)count);
	im_buf_put_u32(ret, keyring_generation(k));
	im_buf_put(ret, key->vault_id, 16);
	im_buf_put(ret, key->uid, 16);
	im_buf_put_u32(ret, dict_stored);
	im_buf_put_u32(ret, dict_plain);
	for (size_t i = 0; i < count; i++) {
		im_buf_put(ret, recipients[i]->id, 8);
		uint8_t *p = im_buf_grow(ret, 32 + CRYPTO_SEAL_BYTES);
		if (p && crypto_box_seal_to(p, recipients[i]->box_public, key->key, 32))
			return im_fail(err, IM_EKEY, "a pack cannot be sealed to the key %s", recipients[i]->name);
	}
	return ret->failed ? im_fail(err, IM_ENOMEM, "out of memory for a pack header") : 0;
}

int pack_header_decode(const uint8_t vault_id[16], const void *data, size_t len, struct pack_header *ret, struct im_error *err)
{
	struct im_reader r = im_reader_of(data, len);
	const uint8_t *magic = im_read_view(&r, 8);
	uint16_t version = im_read_u16(&r), count = im_read_u16(&r);
	struct pack_header h = { .generation = im_read_u32(&r), .recipient_count = count };
	const uint8_t *vault = im_read_view(&r, 16);
	im_read_copy(&r, h.uid, 16);
	h.dict_stored = im_read_u32(&r);
	h.dict_plain = im_read_u32(&r);
	if (r.failed || memcmp(magic, header_magic, 8) != 0)
		return im_fail(err, IM_ECORRUPT, "this is not a pack");
	if (version != 1)
		return im_fail(err, IM_ECORRUPT, "the pack has format version %u; this imvault reads version 1", version);
	if (memcmp(vault, vault_id, 16) != 0)
		return im_fail(err, IM_ECORRUPT, "the pack belongs to another vault");
	if (count == 0 || count > PACK_MAX_RECIPIENTS || h.dict_stored > ENTRY_MAX_PLAIN_BYTES || h.dict_plain > ENTRY_MAX_PLAIN_BYTES)
		return im_fail(err, IM_ECORRUPT, "the pack's header is out of bounds");
	h.header_bytes = PACK_HEADER_BYTES + (size_t)count * PACK_RECIPIENT_BYTES;
	if (len >= h.header_bytes)
		h.recipients = im_read_view(&r, (size_t)count * PACK_RECIPIENT_BYTES);
	*ret = h;
	return 0;
}

int pack_key_open(const struct keyring *k, const struct pack_header *h, const uint8_t commitment[32], struct pack_key *ret, struct im_error *err)
{
	struct pack_key key;
	int rc = keyring_unseal(k, h->recipients, h->recipient_count, key.key, sizeof key.key, err);
	if (rc)
		return rc;
	memcpy(key.vault_id, keyring_vault_id(k), 16);
	memcpy(key.uid, h->uid, 16);
	compute_commitment(&key);
	if (commitment && !crypto_equal(commitment, key.commitment, 32)) {
		crypto_wipe(&key, sizeof key);
		return im_fail(err, IM_ECORRUPT, "the pack's key is not the one its snapshot was signed with: the pack was replaced");
	}
	*ret = key;
	crypto_wipe(&key, sizeof key);
	return 0;
}

static void trailer_aad(uint8_t ret[36], const uint8_t vault_id[16], const uint8_t uid[16])
{
	memcpy(ret, "IMVT", 4);
	memcpy(ret + 4, vault_id, 16);
	memcpy(ret + 20, uid, 16);
}

static void put_listing(struct im_buf *b, const struct pack_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		im_buf_put_u8(b, entries[i].type);
		im_buf_put_u8(b, entries[i].has_id);
		im_buf_put_u32(b, entries[i].ref.offset);
		im_buf_put_u32(b, entries[i].ref.stored);
		im_buf_put_u32(b, entries[i].ref.slot);
		im_buf_put_u32(b, entries[i].ref.plain);
		if (entries[i].has_id)
			im_buf_put(b, entries[i].id, 32);
	}
}

int pack_trailer_encode(const struct keyring *k, const struct pack_key *key, const struct pack_entry *entries, size_t count, uint64_t trailer_offset, struct im_buf *ret, struct im_error *err)
{
	auto_buf struct im_buf listing = { 0 }, packed = { 0 };
	uint8_t trailer_key[32], nonce[CRYPTO_NONCE_BYTES], aad[36];
	int rc = keyring_meta_key(k, keyring_generation(k), "imvault trailer v1", trailer_key, err);
	if (rc)
		return rc;
	put_listing(&listing, entries, count);
	rc = listing.failed ? im_fail(err, IM_ENOMEM, "out of memory for a pack trailer") :
	                      record_compress(listing.data, listing.len, &packed, err);
	if (rc)
		return rc;
	crypto_random(nonce, sizeof nonce);
	trailer_aad(aad, key->vault_id, key->uid);
	im_buf_put(ret, nonce, sizeof nonce);
	uint8_t *sealed = im_buf_grow(ret, packed.len + CRYPTO_TAG_BYTES);
	if (sealed)
		crypto_aead_seal(sealed, trailer_key, nonce, aad, sizeof aad, packed.data, packed.len);
	crypto_wipe(trailer_key, sizeof trailer_key);
	im_buf_put(ret, footer_magic, sizeof footer_magic);
	im_buf_put_u64(ret, trailer_offset);
	im_buf_put_u32(ret, (uint32_t)(sizeof nonce + packed.len + CRYPTO_TAG_BYTES));
	im_buf_put_u32(ret, (uint32_t)count);
	im_buf_put_u64(ret, 0);
	return ret->failed ? im_fail(err, IM_ENOMEM, "out of memory for a pack trailer") : 0;
}

int pack_footer_decode(const void *footer, uint64_t pack_bytes, uint64_t *ret_offset, uint32_t *ret_len, uint32_t *ret_count, struct im_error *err)
{
	struct im_reader r = im_reader_of(footer, PACK_FOOTER_BYTES);
	const uint8_t *magic = im_read_view(&r, 8);
	uint64_t offset = im_read_u64(&r);
	uint32_t len = im_read_u32(&r), count = im_read_u32(&r);
	if (memcmp(magic, footer_magic, 8) != 0)
		return im_fail(err, IM_ECORRUPT, "the pack's footer is missing: the pack is cut off or damaged");
	if (pack_bytes < PACK_FOOTER_BYTES || offset > pack_bytes - PACK_FOOTER_BYTES ||
	    len != pack_bytes - PACK_FOOTER_BYTES - offset || count > MAX_ENTRIES)
		return im_fail(err, IM_ECORRUPT, "the pack's footer does not fit its size");
	*ret_offset = offset;
	*ret_len = len;
	*ret_count = count;
	return 0;
}

static int read_listing(struct im_reader *r, struct pack_entry *entries, uint32_t count, struct im_error *err)
{
	for (uint32_t i = 0; i < count; i++) {
		struct pack_entry *e = &entries[i];
		e->type = im_read_u8(r);
		e->has_id = im_read_u8(r) != 0;
		e->ref.offset = im_read_u32(r);
		e->ref.stored = im_read_u32(r);
		e->ref.slot = im_read_u32(r);
		e->ref.plain = im_read_u32(r);
		if (e->has_id)
			im_read_copy(r, e->id, 32);
	}
	return r->failed || im_read_left(r) ? im_fail(err, IM_ECORRUPT, "the pack's trailer does not hold its %u entries", count) : 0;
}

int pack_trailer_decode(const struct keyring *k, const struct pack_header *h, const void *trailer, size_t len, uint32_t count, struct pack_entry **ret, struct im_error *err)
{
	uint8_t trailer_key[32], aad[36];
	if (len < CRYPTO_NONCE_BYTES + CRYPTO_TAG_BYTES || count > MAX_ENTRIES)
		return im_fail(err, IM_ECORRUPT, "the pack's trailer is too short");
	int rc = keyring_meta_key(k, h->generation, "imvault trailer v1", trailer_key, err);
	if (rc)
		return rc;
	size_t sealed = len - CRYPTO_NONCE_BYTES;
	auto_free uint8_t *packed = malloc(sealed);
	auto_free struct pack_entry *entries = calloc(count ? count : 1, sizeof *entries);
	if (!packed || !entries)
		return im_fail(err, IM_ENOMEM, "out of memory for a pack trailer");
	trailer_aad(aad, keyring_vault_id(k), h->uid);
	bool ok = crypto_aead_open(packed, trailer_key, trailer, aad, sizeof aad, (const uint8_t *)trailer + CRYPTO_NONCE_BYTES, sealed);
	crypto_wipe(trailer_key, sizeof trailer_key);
	if (!ok)
		return im_fail(err, IM_ECORRUPT, "the pack's trailer is not authentic: it was damaged or forged");
	auto_buf struct im_buf listing = { 0 };
	rc = record_decompress(packed, sealed - CRYPTO_TAG_BYTES, (size_t)count * (LISTING_ROW_BYTES + 32), &listing, err);
	if (rc)
		return rc;
	struct im_reader r = im_reader_of(listing.data, listing.len);
	rc = read_listing(&r, entries, count, err);
	if (rc == 0)
		*ret = TAKE_PTR(entries);
	return rc;
}
