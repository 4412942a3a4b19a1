/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record envelope (FORMAT §5). The signature covers everything and is checked before anything
 * else is believed; both parts are bound to the head by their additional data.
 */
#include "vault/record.h"

#include "base/cleanup.h"

#include <string.h>
#include <zstd.h>

#define MAGIC "IMVREC1\n"
#define DOMAIN "imvault record v1"
#define SEGMENT_DOMAIN "imvault segment v1"
#define META_LABEL "imvault record meta v1"
#define HEAD_BYTES 56
#define RECIPIENT_BYTES (8 + 32 + CRYPTO_SEAL_BYTES)
#define MAX_RECIPIENTS 256
#define MAX_PART_BYTES (256u << 20)
#define MAX_JSON_BYTES (UINT64_C(1) << 30)
#define LEVEL 3

int record_compress(const void *data, size_t len, struct im_buf *ret, struct im_error *err)
{
	size_t start = ret->len, bound = ZSTD_compressBound(len);
	uint8_t *p = ZSTD_isError(bound) ? NULL : im_buf_grow(ret, bound);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory compressing %zu bytes", len);
	size_t n = ZSTD_compress(p, bound, data, len, LEVEL);
	if (ZSTD_isError(n)) {
		ret->len = start;
		return im_fail(err, IM_ENOMEM, "cannot compress %zu bytes: %s", len, ZSTD_getErrorName(n));
	}
	ret->len = start + n;
	return 0;
}

/* Exactly one frame that says how large its content is. */
int record_decompress(const void *data, size_t len, size_t limit_bytes, struct im_buf *ret, struct im_error *err)
{
	unsigned long long size = ZSTD_getFrameContentSize(data, len);
	if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || ZSTD_findFrameCompressedSize(data, len) != len)
		return im_fail(err, IM_ECORRUPT, "compressed data is damaged");
	if (size > limit_bytes)
		return im_fail(err, IM_ECORRUPT, "compressed data claims %llu bytes, more than the %zu it may have", size, limit_bytes);
	size_t start = ret->len;
	uint8_t *p = im_buf_grow(ret, (size_t)size + 1); /* never nothing: zstd wants a place */
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory decompressing %llu bytes", size);
	size_t n = ZSTD_decompress(p, (size_t)size, data, len);
	ret->len = start + (size_t)size;
	if (n == size)
		return 0;
	ret->len = start;
	return im_fail(err, IM_ECORRUPT, "compressed data is damaged");
}

/*
 * What is signed, and the hash of the whole object. Segments are large and many: of them the hash of
 * what precedes the signature is signed, which costs nothing beside the object's own.
 */
struct digest {
	const char *domain;
	const void *signed_data;
	size_t signed_len;
	uint8_t prefix[CRYPTO_HASH_BYTES];
	struct crypto_hasher hasher;
};

/* data without the signature. */
static void digest_begin(struct digest *d, enum record_kind kind, const void *data, size_t len)
{
	*d = (struct digest){ DOMAIN, data, len };
	crypto_hasher_begin(&d->hasher);
	crypto_hasher_add(&d->hasher, data, len);
	if (kind != RECORD_SEGMENT)
		return;
	struct crypto_hasher so_far = d->hasher;
	crypto_hasher_end(&so_far, d->prefix);
	d->domain = SEGMENT_DOMAIN;
	d->signed_data = d->prefix;
	d->signed_len = sizeof d->prefix;
}

static void digest_end(struct digest *d, const uint8_t signature[CRYPTO_SIGNATURE_BYTES], uint8_t ret_hash[CRYPTO_HASH_BYTES])
{
	crypto_hasher_add(&d->hasher, signature, CRYPTO_SIGNATURE_BYTES);
	crypto_hasher_end(&d->hasher, ret_hash);
}

/* Encoding. */

struct part {
	const void *data;
	size_t len;
};

static int pack_json(json_t *part, struct im_buf *ret, struct im_error *err)
{
	auto_free char *text = part ? json_dumps(part, JSON_COMPACT) : strdup("{}");
	if (!text)
		return im_fail(err, IM_ENOMEM, "cannot write a record's JSON: out of memory");
	if (strlen(text) > MAX_JSON_BYTES)
		return im_fail(err, IM_EFAIL, "a record's JSON exceeds 1 GiB");
	int rc = record_compress(text, strlen(text), ret, err);
	if (rc == 0 && ret->len > MAX_PART_BYTES - CRYPTO_TAG_BYTES)
		rc = im_fail(err, IM_EFAIL, "a record's part exceeds 256 MiB");
	return rc;
}

static int put_recipients(const struct keyring *k, const uint8_t key[32], struct im_buf *ret, struct im_error *err)
{
	const struct key_entry *to[MAX_RECIPIENTS];
	size_t count = keyring_recipients(k, to, MAX_RECIPIENTS);
	im_buf_put_u16(ret, (uint16_t)count);
	im_buf_put(ret, (const uint8_t[6]){ 0 }, 6);
	for (size_t i = 0; i < count; i++) {
		uint8_t sealed[32 + CRYPTO_SEAL_BYTES];
		if (crypto_box_seal_to(sealed, to[i]->box_public, key, 32))
			return im_fail(err, IM_EKEY, "the key \"%s\" is degenerate: nothing can be sealed to it", to[i]->name);
		im_buf_put(ret, to[i]->id, 8);
		im_buf_put(ret, sealed, sizeof sealed);
	}
	return 0;
}

/* The head, which begins at `start`, is the additional data. */
static void put_part(struct im_buf *ret, size_t start, size_t head_len, const uint8_t key[32], const struct part *plain)
{
	uint8_t *nonce = im_buf_grow(ret, CRYPTO_NONCE_BYTES);
	if (!nonce)
		return;
	crypto_random(nonce, CRYPTO_NONCE_BYTES);
	size_t nonce_at = ret->len - CRYPTO_NONCE_BYTES;
	uint8_t *out = im_buf_grow(ret, plain->len + CRYPTO_TAG_BYTES);
	if (out)
		crypto_aead_seal(out, key, ret->data + nonce_at, ret->data + start, head_len, plain->data, plain->len);
}

static int put_head(const struct keyring *k, enum record_kind kind, size_t meta_len, size_t private_len, const uint8_t private_key[32],
    struct im_buf *ret, struct im_error *err)
{
	im_buf_put(ret, MAGIC, 8);
	im_buf_put_u16(ret, 1);
	im_buf_put_u8(ret, (uint8_t)kind);
	im_buf_put_u8(ret, 0);
	im_buf_put_u32(ret, keyring_generation(k));
	im_buf_put(ret, keyring_own(k)->id, 8);
	im_buf_put(ret, keyring_vault_id(k), 16);
	im_buf_put_u32(ret, (uint32_t)(meta_len + CRYPTO_TAG_BYTES));
	im_buf_put_u32(ret, (uint32_t)(private_len + CRYPTO_TAG_BYTES));
	return put_recipients(k, private_key, ret, err);
}

static int encode_with(const struct keyring *k, enum record_kind kind, const struct part *meta, const struct part *private_part,
    uint8_t keys[64], struct im_buf *ret, uint8_t ret_hash[32], struct im_error *err)
{
	uint8_t signature[CRYPTO_SIGNATURE_BYTES];
	struct digest digest;
	size_t start = ret->len;
	int rc = keyring_meta_key(k, keyring_generation(k), META_LABEL, keys, err);
	crypto_random(keys + 32, 32);
	if (rc == 0)
		rc = put_head(k, kind, meta->len, private_part->len, keys + 32, ret, err);
	if (rc)
		return rc;
	size_t head_len = ret->len - start;
	put_part(ret, start, head_len, keys, meta);
	put_part(ret, start, head_len, keys + 32, private_part);
	if (!ret->failed) {
		digest_begin(&digest, kind, ret->data + start, ret->len - start);
		crypto_sign(signature, keyring_own(k)->sign_seed, digest.domain, digest.signed_data, digest.signed_len);
		digest_end(&digest, signature, ret_hash);
		im_buf_put(ret, signature, sizeof signature);
	}
	return ret->failed ? im_fail(err, IM_ENOMEM, "out of memory writing a record") : 0;
}

static int encode(const struct keyring *k, enum record_kind kind, json_t *meta, const struct part *private_part, struct im_buf *ret,
    uint8_t ret_hash[32], struct im_error *err)
{
	const struct key_file *own = keyring_own(k);
	auto_buf struct im_buf packed_meta = { 0 };
	uint8_t keys[64]; /* meta's, private's */
	if (!own || own->role == KEY_PRUNE)
		return im_fail(err, IM_EKEY, "writing a record takes a node key or a restore key");
	if (private_part->len > MAX_PART_BYTES - CRYPTO_TAG_BYTES)
		return im_fail(err, IM_EFAIL, "a record's part exceeds 256 MiB");
	size_t start = ret->len;
	int rc = pack_json(meta, &packed_meta, err);
	const struct part meta_part = { packed_meta.data, packed_meta.len };
	if (rc == 0)
		rc = encode_with(k, kind, &meta_part, private_part, keys, ret, ret_hash, err);
	crypto_wipe(keys, sizeof keys);
	if (rc)
		ret->len = start;
	return rc;
}

int record_encode(const struct keyring *k, enum record_kind kind, json_t *meta, json_t *private_part, struct im_buf *ret,
    uint8_t ret_hash[32], struct im_error *err)
{
	auto_buf struct im_buf packed = { 0 };
	int rc = pack_json(private_part, &packed, err);
	const struct part part = { packed.data, packed.len };
	return rc ? rc : encode(k, kind, meta, &part, ret, ret_hash, err);
}

int record_encode_bytes(const struct keyring *k, enum record_kind kind, json_t *meta, const void *bytes, size_t len, struct im_buf *ret,
    uint8_t ret_hash[32], struct im_error *err)
{
	const struct part part = { bytes, len };
	return encode(k, kind, meta, &part, ret, ret_hash, err);
}

/* Decoding. */

struct head {
	uint32_t generation, meta_len, private_len;
	uint16_t recipient_count;
	const uint8_t *signer, *recipients, *meta_nonce, *meta, *private_nonce, *private_part, *signature;
	size_t head_len;
};

static const char *parse_head(const struct keyring *k, enum record_kind kind, const uint8_t *data, size_t len, struct head *ret)
{
	struct im_reader r = im_reader_of(data, len);
	const uint8_t *magic = im_read_view(&r, 8);
	uint16_t version = im_read_u16(&r);
	uint8_t its_kind = im_read_u8(&r), zero = im_read_u8(&r);
	struct head h = { .generation = im_read_u32(&r), .signer = im_read_view(&r, 8) };
	const uint8_t *vault_id = im_read_view(&r, 16);
	h.meta_len = im_read_u32(&r);
	h.private_len = im_read_u32(&r);
	h.recipient_count = im_read_u16(&r);
	const uint8_t *zeros = im_read_view(&r, 6);
	if (r.failed || memcmp(magic, MAGIC, 8))
		return "it is not a record";
	if (version != 1)
		return "its version is unknown (a newer imvault may read it)";
	if (its_kind != kind || zero || memcmp(zeros, "\0\0\0\0\0\0", 6))
		return "its head is wrong";
	if (memcmp(vault_id, keyring_vault_id(k), 16))
		return "it belongs to another vault";
	if (h.recipient_count > MAX_RECIPIENTS || h.meta_len > MAX_PART_BYTES || h.private_len > MAX_PART_BYTES ||
	    h.meta_len < CRYPTO_TAG_BYTES || h.private_len < CRYPTO_TAG_BYTES)
		return "its sizes are out of bounds";
	h.recipients = im_read_view(&r, (size_t)h.recipient_count * RECIPIENT_BYTES);
	h.head_len = HEAD_BYTES + (size_t)h.recipient_count * RECIPIENT_BYTES;
	h.meta_nonce = im_read_view(&r, CRYPTO_NONCE_BYTES);
	h.meta = im_read_view(&r, h.meta_len);
	h.private_nonce = im_read_view(&r, CRYPTO_NONCE_BYTES);
	h.private_part = im_read_view(&r, h.private_len);
	h.signature = im_read_view(&r, 64);
	if (r.failed || im_read_left(&r))
		return "its length is wrong";
	*ret = h;
	return NULL;
}

/* Appends the plain bytes. */
static int open_bytes(const uint8_t *head, size_t head_len, const uint8_t key[32], const uint8_t *nonce, const uint8_t *sealed, size_t len,
    struct im_buf *ret, struct im_error *err)
{
	uint8_t *p = im_buf_grow(ret, len);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory reading a record");
	if (!crypto_aead_open(p, key, nonce, head, head_len, sealed, len))
		return im_fail(err, IM_ECORRUPT, "a record is damaged: its content is not authentic");
	ret->len -= CRYPTO_TAG_BYTES;
	return 0;
}

static int open_part(const uint8_t *head, size_t head_len, const uint8_t key[32], const uint8_t *nonce, const uint8_t *sealed, size_t len,
    json_t **ret, struct im_error *err)
{
	auto_buf struct im_buf packed = { 0 }, text = { 0 };
	int rc = open_bytes(head, head_len, key, nonce, sealed, len, &packed, err);
	if (rc == 0)
		rc = record_decompress(packed.data, packed.len, MAX_JSON_BYTES, &text, err);
	if (rc)
		return rc;
	json_t *part = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(part)) {
		json_decref(part);
		return im_fail(err, IM_ECORRUPT, "a record's content is not JSON");
	}
	*ret = part;
	return 0;
}

static int open_private(const uint8_t *data, const struct head *h, const uint8_t key[32], struct record *r, struct im_error *err)
{
	int rc = r->kind == RECORD_SEGMENT ?
	    open_bytes(data, h->head_len, key, h->private_nonce, h->private_part, h->private_len, &r->private_bytes, err) :
	    open_part(data, h->head_len, key, h->private_nonce, h->private_part, h->private_len, &r->private_part, err);
	r->has_private = rc == 0;
	return rc;
}

static int open_parts(const struct keyring *k, const uint8_t *data, const struct head *h, struct record *r, struct im_error *err)
{
	uint8_t key[32];
	const struct key_file *own = keyring_own(k);
	int rc = keyring_meta_key(k, h->generation, META_LABEL, key, err);
	if (rc == 0)
		rc = open_part(data, h->head_len, key, h->meta_nonce, h->meta, h->meta_len, &r->meta, err);
	if (rc == 0 && own->role == KEY_RESTORE) {
		struct im_error why = { 0 };
		rc = keyring_unseal(k, h->recipients, h->recipient_count, key, 32, &why);
		if (rc == 0)
			rc = open_private(data, h, key, r, err);
		else if (rc == IM_EKEY)
			rc = 0; /* sealed before this key was there: not ours to read */
		else
			im_fail(err, why.code, "%s", why.text);
	}
	crypto_wipe(key, sizeof key);
	return rc;
}

int record_decode(const struct keyring *k, enum record_kind kind, const void *data, size_t len, struct record *ret, struct im_error *err)
{
	struct head h;
	char id[17];
	const char *wrong = parse_head(k, kind, data, len, &h);
	if (wrong)
		return im_fail(err, IM_ECORRUPT, "a record is damaged: %s", wrong);
	const struct key_entry *signer = keyring_find(k, h.signer);
	if (!signer)
		return im_fail(err, IM_ECORRUPT, "a record is signed by %s, which is not a key of this vault", im_hex(id, h.signer, 8));
	struct digest digest;
	digest_begin(&digest, kind, data, len - CRYPTO_SIGNATURE_BYTES);
	if (!crypto_verify(h.signature, signer->sign_public, digest.domain, digest.signed_data, digest.signed_len))
		return im_fail(err, IM_ECORRUPT, "a record is damaged or forged: its signature is wrong");
	struct record r = { .kind = kind, .generation = h.generation };
	memcpy(r.signer, h.signer, 8);
	digest_end(&digest, h.signature, r.hash);
	int rc = open_parts(k, data, &h, &r, err);
	if (rc) {
		record_clear(&r);
		return rc;
	}
	*ret = r;
	return 0;
}

void record_clear(struct record *r)
{
	json_decref(r->meta);
	json_decref(r->private_part);
	im_buf_free(&r->private_bytes);
	r->meta = r->private_part = NULL;
	r->has_private = false;
}
