/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log in the vault (FORMAT §7): per store a number of epochs, each a gap-free chain of points
 * held by segments, fine ones and coarse ones that cover many fine ones. Reading here checks
 * everything a stranger's bytes deserve: name, signature, signer, hash, node, store, epoch, points.
 */
#ifndef IM_VAULT_LOG_H
#define IM_VAULT_LOG_H

#include "vault/record.h"

#define LOG_EPOCH_CHARS 20
#define LOG_MAX_OBJECT_BYTES (64u << 20)
#define LOG_MAX_POINTS 65536 /* in one segment */
#define LOG_MAX_PARTS 65536

struct log_name { /* all that an object's name tells */
	char *store, *object; /* object: "logs/NODE/STORE/EPOCH/SSSSS/…" */
	char epoch[LOG_EPOCH_CHARS + 1];
	uint32_t first, last, part;
	bool final;           /* no more parts follow */
	int64_t latest_ms;    /* of point `last`, as the name claims */
	char hash_prefix[17];
	uint64_t size_bytes;
};
struct log_list {
	struct log_name *items; /* by store, epoch, first, last, part, hash */
	size_t count;
};
/* store NULL: all stores of the node. epoch NULL: all epochs. from: points below it need not be listed
 * (whole folders of names are left out), 0: all. Names that are no segments are skipped. */
int log_list(struct storage *s, const char *node, const char *store, const char *epoch, uint32_t from, struct log_list *ret, struct im_error *err);
void log_list_clear(struct log_list *l);

struct log_point {
	int64_t complete_ms; /* everything committed before it is in */
	int64_t latest_ms;   /* nothing committed after it is in */
};

struct log_segment { /* one part, read and checked */
	char epoch[LOG_EPOCH_CHARS + 1];
	uint32_t first, last, part;
	bool final;
	unsigned level;
	bool has_prev, has_ends;
	uint8_t hash[32], prev[32], ends[32];
	struct log_point *points; /* level 0: one per point first … last; else only the last one's */
	size_t point_count;
	struct record record;     /* meta; body as private_bytes */
};

/* Encodes, signs and names a segment from its meta (FORMAT §7; everything but nothing is added here).
 * *ret_object: allocated name. */
int log_encode(const struct keyring *k, json_t *meta, const void *body, size_t body_len, struct im_buf *ret, uint8_t ret_hash[32], char **ret_object, struct im_error *err);
/* Decodes and checks an object against what its name says. With a key that cannot read content the body is absent. */
int log_decode(const struct keyring *k, const char *node, const struct log_name *name, const void *data, size_t len, struct log_segment **ret, struct im_error *err);
int log_read(struct storage *s, const struct keyring *k, const char *node, const struct log_name *name, struct log_segment **ret, struct im_error *err);
void log_segment_free(struct log_segment *s); /* NULL is fine */
/* Parses "logs/NODE/STORE/EPOCH/SSSSS/…"; false for anything else. Allocates store and object. */
bool log_name_parse(const char *object, struct log_name *ret, char **ret_node);
void log_name_clear(struct log_name *n);

#endif
