/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: the signed, sealed envelope of snapshots (and later log segments and drill records),
 * FORMAT §5. A record has a meta part every role reads and a private part only restore keys read.
 */
#ifndef IM_VAULT_RECORD_H
#define IM_VAULT_RECORD_H

#include "vault/keyring.h"

#include <jansson.h>

#define RECORD_SIGNER_AT 16 /* offset of the signer's key id in a record */

enum record_kind { RECORD_SNAPSHOT = 1, RECORD_SEGMENT = 2, RECORD_DRILL = 3, RECORD_TRACE = 4, RECORD_RUN = 5 };

struct record {
	enum record_kind kind;
	uint32_t generation;
	uint8_t signer[8];
	uint8_t hash[32];       /* B2 of the whole object */
	json_t *meta;           /* owned */
	json_t *private_part;   /* owned; NULL if we may not read it. Segments have private_bytes instead */
	struct im_buf private_bytes; /* owned; of a segment; see has_private */
	bool has_private;       /* we may read the private part */
};

/* Encodes, signed by the keyring's own key (role node or restore), sealed to all active restore keys. */
int record_encode(const struct keyring *k, enum record_kind kind, json_t *meta, json_t *private_part, struct im_buf *ret, uint8_t ret_hash[32], struct im_error *err);
/* As record_encode, for kinds whose private part is bytes and not JSON (segments). */
int record_encode_bytes(const struct keyring *k, enum record_kind kind, json_t *meta, const void *bytes, size_t len, struct im_buf *ret, uint8_t ret_hash[32], struct im_error *err);
/* Checks size, magic, vault id, signature by a key of the keyring (any status: the caller judges with keyring_may_sign),
 * decrypts. With a key that cannot read the private part, private_part is NULL. IM_ECORRUPT otherwise. */
int record_decode(const struct keyring *k, enum record_kind kind, const void *data, size_t len, struct record *ret, struct im_error *err);
void record_clear(struct record *r);

/* One zstd frame with a bound, for small things (records, trailers, index). */
int record_compress(const void *data, size_t len, struct im_buf *ret, struct im_error *err);
int record_decompress(const void *data, size_t len, size_t limit_bytes, struct im_buf *ret, struct im_error *err);

#endif
