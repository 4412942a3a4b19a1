/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs (FORMAT §4): the bytes of one pack and one entry. Pure encoding and decoding, no I/O, so
 * that it can be fuzzed; packer.h writes packs, fetch.h reads them.
 */
#ifndef IM_VAULT_PACK_H
#define IM_VAULT_PACK_H

#include "vault/keyring.h"

#include <zstd.h>

enum entry_type { ENTRY_CHUNK = 1, ENTRY_EXTENT = 2, ENTRY_LEAF = 3, ENTRY_TREE = 4, ENTRY_DICT = 5, ENTRY_AUX = 6 };

#define PACK_HEADER_BYTES 56
#define PACK_RECIPIENT_BYTES 88
#define PACK_FOOTER_BYTES 32
#define PACK_MAX_RECIPIENTS 256
#define PACK_MAX_BYTES (UINT64_C(2) << 30)
#define ENTRY_OVERHEAD_BYTES 17 /* codec byte and tag */
#define ENTRY_MAX_PLAIN_BYTES (16u << 20)
#define ENTRY_MAX_META_BYTES (64u << 20)
#define REF_BYTES 20

struct im_ref { /* where an entry lies; pack is a number of the snapshot's pack table */
	uint32_t pack, offset, stored, slot, plain;
};
void ref_put(struct im_buf *b, struct im_ref ref);
struct im_ref ref_read(struct im_reader *r);

struct pack_info {
	uint32_t number; /* in this node's numbering; 0 if none */
	uint64_t size_bytes;
	uint8_t name[32], commitment[32];
};

/* An identity that entries are bound to, and the key to do it. */
struct pack_key {
	uint8_t vault_id[16], uid[16], key[32], commitment[32];
};

struct pack_header {
	uint32_t generation, dict_stored, dict_plain;
	uint8_t uid[16];
	const uint8_t *recipients; /* borrowed from the decoded bytes */
	size_t recipient_count, header_bytes;
};

struct pack_entry { /* a row of the trailer */
	uint8_t type;
	bool has_id;
	struct im_ref ref;
	uint8_t id[32];
};

void pack_key_new(const uint8_t vault_id[16], struct pack_key *ret);
int pack_header_encode(const struct keyring *k, const struct pack_key *key, uint32_t dict_stored, uint32_t dict_plain, struct im_buf *ret, struct im_error *err);
/* data: at least the first PACK_HEADER_BYTES; IM_ENOTFOUND-free: returns header_bytes needed in ret->header_bytes
 * and recipients NULL when len is shorter than that (read more and call again). */
int pack_header_decode(const uint8_t vault_id[16], const void *data, size_t len, struct pack_header *ret, struct im_error *err);
/* Unseals and checks the commitment (NULL: do not check). IM_ECORRUPT if it differs. */
int pack_key_open(const struct keyring *k, const struct pack_header *h, const uint8_t commitment[32], struct pack_key *ret, struct im_error *err);

int pack_trailer_encode(const struct keyring *k, const struct pack_key *key, const struct pack_entry *entries, size_t count, uint64_t trailer_offset, struct im_buf *ret, struct im_error *err); /* trailer and footer */
/* tail: the last bytes of the pack (footer included); returns entries (malloc'ed). */
int pack_footer_decode(const void *footer, uint64_t pack_bytes, uint64_t *ret_offset, uint32_t *ret_len, uint32_t *ret_count, struct im_error *err);
int pack_trailer_decode(const struct keyring *k, const struct pack_header *h, const void *trailer, size_t len, uint32_t count, struct pack_entry **ret, struct im_error *err);

/* Per-thread compressor and decompressor. */
struct codec;
int codec_new(int level, struct codec **ret, struct im_error *err);
void codec_free(struct codec *c);

/* Dictionary shared by threads, digested once. level 0: for decoding only. */
struct pack_dict;
int pack_dict_new(const void *data, size_t len, int level, struct pack_dict **ret, struct im_error *err);
void pack_dict_free(struct pack_dict *d);

/* Compresses (unless that does not pay), encrypts, then decrypts and decompresses again and compares with plain:
 * what a pack gets is proven readable. ret: room for codec_bound(len). */
size_t codec_bound(size_t len);
int entry_encode(struct codec *c, const struct pack_key *key, const struct pack_dict *dict, enum entry_type type, uint32_t slot, const void *plain, size_t len, uint8_t *ret, size_t *ret_len, struct im_error *err);
/* ret: room for plain_len. sealed is changed (decrypted in place). IM_ECORRUPT. */
int entry_decode(struct codec *c, const struct pack_key *key, const struct pack_dict *dict, enum entry_type type, uint32_t slot, uint8_t *sealed, size_t stored, void *ret, size_t plain_len, struct im_error *err);

#endif
