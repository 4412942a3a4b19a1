/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry of a pack: compress, encrypt, and prove at once that it reads back (FORMAT §4).
 * A memory or library fault between plain bytes and sealed bytes is found here, before the pack
 * is committed, and never by the operator who needs the data (restic had to learn this, 0.16.4).
 */
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_createCDict_advanced */
#include "vault/pack.h"

#include <stdlib.h>
#include <string.h>

#define AAD_BYTES 45
#define USUAL_PLAIN_BYTES (64u << 10)

enum { CODEC_STORED = 0, CODEC_ZSTD = 1, CODEC_ZSTD_DICT = 2 };

struct codec {
	ZSTD_CCtx *compressor;
	ZSTD_DCtx *decompressor;
	int level;
	uint8_t *packed, *check; /* codec byte and data; the decoded copy */
	size_t packed_cap, check_cap;
};

struct pack_dict {
	ZSTD_CDict *compress;
	ZSTD_DDict *decompress;
};

int codec_new(int level, struct codec **ret, struct im_error *err)
{
	struct codec *c = calloc(1, sizeof *c);
	if (c) {
		c->level = level;
		c->compressor = ZSTD_createCCtx();
		c->decompressor = ZSTD_createDCtx();
	}
	if (!c || !c->compressor || !c->decompressor) {
		codec_free(c);
		return im_fail(err, IM_ENOMEM, "out of memory for a compressor");
	}
	ZSTD_CCtx_setParameter(c->compressor, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(c->compressor, ZSTD_c_dictIDFlag, 0);
	*ret = c;
	return 0;
}

void codec_free(struct codec *c)
{
	if (!c)
		return;
	ZSTD_freeCCtx(c->compressor);
	ZSTD_freeDCtx(c->decompressor);
	free(c->packed);
	free(c->check);
	free(c);
}

/* With the parameters for the size entries usually have: not knowing it, zstd would choose those of
 * short inputs, which store a message archive 2.4 % larger at the same speed. */
static ZSTD_CDict *digest(const void *data, size_t len, int level)
{
	ZSTD_customMem plain = { 0 };
	return ZSTD_createCDict_advanced(data, len, ZSTD_dlm_byCopy, ZSTD_dct_auto, ZSTD_getCParams(level, USUAL_PLAIN_BYTES, len), plain);
}

int pack_dict_new(const void *data, size_t len, int level, struct pack_dict **ret, struct im_error *err)
{
	struct pack_dict *d = calloc(1, sizeof *d);
	if (d) {
		d->compress = level ? digest(data, len, level) : NULL;
		d->decompress = ZSTD_createDDict(data, len);
	}
	if (!d || (level && !d->compress) || !d->decompress) {
		pack_dict_free(d);
		return im_fail(err, IM_ENOMEM, "cannot load a dictionary of %zu bytes", len);
	}
	*ret = d;
	return 0;
}

void pack_dict_free(struct pack_dict *d)
{
	if (!d)
		return;
	ZSTD_freeCDict(d->compress);
	ZSTD_freeDDict(d->decompress);
	free(d);
}

size_t codec_bound(size_t len)
{
	return len + ENTRY_OVERHEAD_BYTES;
}

static bool reserve(uint8_t **buffer, size_t *cap, size_t len)
{
	if (*cap >= len)
		return true;
	uint8_t *p = realloc(*buffer, len);
	if (!p)
		return false;
	*buffer = p;
	*cap = len;
	return true;
}

static void entry_aad(uint8_t ret[AAD_BYTES], const struct pack_key *key, enum entry_type type, uint32_t slot, size_t plain_len)
{
	memcpy(ret, "IMVE", 4);
	ret[4] = (uint8_t)type;
	im_put_le32(ret + 5, slot);
	im_put_le32(ret + 9, (uint32_t)plain_len);
	memcpy(ret + 13, key->vault_id, 16);
	memcpy(ret + 29, key->uid, 16);
}

static void entry_nonce(uint8_t ret[CRYPTO_NONCE_BYTES], uint32_t slot)
{
	memset(ret, 0, CRYPTO_NONCE_BYTES);
	im_put_le32(ret, slot);
}

/* Fills c->packed with the codec byte and data; returns its length, 0 when out of memory. */
static size_t compress_entry(struct codec *c, const struct pack_dict *dict, enum entry_type type, const void *plain, size_t len)
{
	size_t bound = ZSTD_compressBound(len) + 1;
	if (!reserve(&c->packed, &c->packed_cap, bound < len + 1 ? len + 1 : bound))
		return 0;
	bool use_dict = dict && type != ENTRY_DICT;
	ZSTD_CCtx_refCDict(c->compressor, use_dict ? dict->compress : NULL);
	size_t n = ZSTD_compress2(c->compressor, c->packed + 1, c->packed_cap - 1, plain, len);
	if (!ZSTD_isError(n) && n < len) {
		c->packed[0] = use_dict ? CODEC_ZSTD_DICT : CODEC_ZSTD;
		return n + 1;
	}
	c->packed[0] = CODEC_STORED;
	if (len)
		memcpy(c->packed + 1, plain, len);
	return len + 1;
}

static int unpack_entry(struct codec *c, const struct pack_dict *dict, const uint8_t *packed, size_t packed_len, void *ret, size_t plain_len, struct im_error *err)
{
	const uint8_t *data = packed + 1;
	size_t len = packed_len - 1;
	switch (packed[0]) {
	case CODEC_STORED:
		if (len != plain_len)
			return im_fail(err, IM_ECORRUPT, "a stored entry has %zu bytes instead of %zu", len, plain_len);
		if (len)
			memcpy(ret, data, len);
		return 0;
	case CODEC_ZSTD_DICT:
		if (!dict)
			return im_fail(err, IM_ECORRUPT, "an entry needs a dictionary that its pack lacks");
		/* fallthrough */
	case CODEC_ZSTD: {
		ZSTD_DCtx_refDDict(c->decompressor, packed[0] == CODEC_ZSTD_DICT ? dict->decompress : NULL);
		size_t n = ZSTD_decompressDCtx(c->decompressor, ret, plain_len, data, len);
		if (ZSTD_isError(n) || n != plain_len)
			return im_fail(err, IM_ECORRUPT, "an entry does not decompress to its %zu bytes: %s",
			    plain_len, ZSTD_isError(n) ? ZSTD_getErrorName(n) : "wrong size");
		return 0;
	}
	default:
		return im_fail(err, IM_ECORRUPT, "an entry has the unknown codec %u", packed[0]);
	}
}

static size_t entry_limit(enum entry_type type)
{
	return type == ENTRY_LEAF || type == ENTRY_TREE ? ENTRY_MAX_META_BYTES : ENTRY_MAX_PLAIN_BYTES;
}

int entry_encode(struct codec *c, const struct pack_key *key, const struct pack_dict *dict, enum entry_type type, uint32_t slot, const void *plain, size_t len, uint8_t *ret, size_t *ret_len, struct im_error *err)
{
	IM_CHECK(len <= entry_limit(type));
	size_t packed = compress_entry(c, dict, type, plain, len);
	if (!packed || !reserve(&c->check, &c->check_cap, packed + len + 1))
		return im_fail(err, IM_ENOMEM, "out of memory compressing %zu bytes", len);
	uint8_t aad[AAD_BYTES], nonce[CRYPTO_NONCE_BYTES];
	entry_aad(aad, key, type, slot, len);
	entry_nonce(nonce, slot);
	crypto_aead_seal(ret, key->key, nonce, aad, sizeof aad, c->packed, packed);
	size_t sealed = packed + CRYPTO_TAG_BYTES;

	uint8_t *opened = c->check, *copy = c->check + packed;
	if (!crypto_aead_open(opened, key->key, nonce, aad, sizeof aad, ret, sealed) ||
	    unpack_entry(c, dict, opened, packed, copy, len, NULL) || (len && memcmp(copy, plain, len) != 0))
		return im_fail(err, IM_EFAIL,
		    "an entry did not read back as it was written: this machine's memory or CPU is faulty, or the data changed under our hands; nothing was committed");
	*ret_len = sealed;
	return 0;
}

int entry_decode(struct codec *c, const struct pack_key *key, const struct pack_dict *dict, enum entry_type type, uint32_t slot, uint8_t *sealed, size_t stored, void *ret, size_t plain_len, struct im_error *err)
{
	if (stored < ENTRY_OVERHEAD_BYTES || plain_len > entry_limit(type))
		return im_fail(err, IM_ECORRUPT, "an entry of %zu bytes (%zu decoded) is out of bounds", stored, plain_len);
	uint8_t aad[AAD_BYTES], nonce[CRYPTO_NONCE_BYTES];
	entry_aad(aad, key, type, slot, plain_len);
	entry_nonce(nonce, slot);
	if (!crypto_aead_open(sealed, key->key, nonce, aad, sizeof aad, sealed, stored))
		return im_fail(err, IM_ECORRUPT, "an entry is not authentic: it was damaged or forged");
	return unpack_entry(c, dict, sealed, stored - CRYPTO_TAG_BYTES, ret, plain_len, err);
}
