/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What keyring.c (reading) and keyring_change.c (writing) share: one generation as parsed, and the
 * opened keyring. Nobody else includes this.
 */
#ifndef IM_VAULT_KEYRING_INTERNAL_H
#define IM_VAULT_KEYRING_INTERNAL_H

#include "vault/keyring.h"

#include <jansson.h>

#define KEY_TEXT_BYTES 1024         /* names, instants */
#define KEYRING_MAX_KEYS 4096
#define KEYRING_MAX_RECIPIENTS 256  /* as many as a pack or a record may have */
#define KEYRING_MAX_GENERATIONS 100000
#define KEYRING_MAX_JSON_BYTES (16u << 20)
#define KEYRING_MAGIC "IMVKEYS1"
#define KEYRING_DOMAIN "imvault keyring v1"
#define KEYRING_FRAME_BYTES (8 + 4 + 8 + 64) /* around the JSON */
#define META_ROW_BYTES 36           /* generation[4] ‖ meta_key[32] */
#define SEALED_HEAD_BYTES 36        /* id_key[32] ‖ count[4] */
#define INHERITED_BYTES (32 + CRYPTO_SEAL_BYTES)

struct keyring_generation {
	uint32_t number;
	uint8_t hash[32];         /* B2 of the object */
	json_t *doc;              /* owned */
	struct key_entry *entries; /* in the order of doc's keys */
	size_t count;
};

struct held_box { /* a secret X25519 key we may use */
	uint8_t id[8];
	const uint8_t *secret; /* in keyring.secrets, or own's */
};

struct keyring {
	uint8_t vault_id[16];
	struct keyring_generation newest;
	const struct key_file *own; /* borrowed */
	uint8_t *id_key;            /* secret; NULL if not ours to see */
	uint8_t *meta_keys;         /* secret; 32 bytes per generation; NULL if keyless */
	uint8_t *inherited;         /* secret; backs boxes */
	struct held_box *boxes;
	size_t box_count;
};

/* keyfile.c */
void key_id_of(const uint8_t box_public[32], const uint8_t sign_public[32], uint8_t ret[8]);

/* keyring.c */
char *keyring_object(char ret[24], uint32_t generation); /* "keys/GGGGGGGG"; returns ret */
/* Checks the form of a generation's JSON and takes doc over (also on failure). */
int keyring_generation_parse(json_t *doc, const uint8_t vault_id[16], uint32_t number, struct keyring_generation *ret, struct im_error *err);
bool keyring_last_valid(json_t *last); /* NULL, or an object {NODE: SEQ} */
void keyring_generation_clear(struct keyring_generation *g);
const struct key_entry *keyring_generation_find(const struct keyring_generation *g, const uint8_t id[8]);
/* The row of g.doc's "keys" of an id; NULL. Borrowed. */
json_t *keyring_generation_row(const struct keyring_generation *g, const uint8_t id[8]);

#endif
