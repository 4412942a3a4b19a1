/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots in the vault: listing, choosing, reading, writing, and the chain that shows removal,
 * rollback and forks. JSON fields are those of FORMAT §5.
 */
#ifndef IM_VAULT_SNAPSHOT_H
#define IM_VAULT_SNAPSHOT_H

#include "vault/pack.h"
#include "vault/record.h"

struct snapshot_name { /* from the object's name alone */
	char *node;
	uint64_t seq;
	char hash_prefix[17];
	char *object; /* "snapshots/NODE/SSSSSSSS-HHHH…" */
	uint64_t size_bytes;
};
struct snapshot_list {
	struct snapshot_name *items; /* by node, then seq, then hash */
	size_t count;
};
/* node NULL: all nodes. */
int snapshot_list(struct storage *s, const char *node, struct snapshot_list *ret, struct im_error *err);
void snapshot_list_clear(struct snapshot_list *l);
/* All of one node: that of the vault's only node, if node is NULL (else IM_EUSAGE naming them). IM_ENOTFOUND if there is none. */
int snapshot_list_of(struct storage *s, const char *node, struct snapshot_list *ret, struct im_error *err);

struct snapshot {
	char *node, *object;
	uint64_t seq;
	int64_t time_ms;
	struct record record;         /* meta and, for restore keys, private_part */
	struct pack_info *packs;      /* the pack table, ascending by number */
	size_t pack_count;
};
/* Reads, checks signature, that the signer may sign for this node, that name, node and seq agree, and the pack table's form. */
int snapshot_read(struct storage *s, const struct keyring *k, const struct snapshot_name *name, struct snapshot **ret, struct im_error *err);
void snapshot_free(struct snapshot *s);
const struct pack_info *snapshot_pack(const struct snapshot *s, uint32_t number); /* NULL if it has none */
json_t *snapshot_manifest(const struct snapshot *s, const char *store); /* borrowed; NULL */
json_t *snapshot_store_meta(const struct snapshot *s, const char *store); /* borrowed; NULL */

/* at: "latest", a sequence number, a hash prefix (≥ 4 digits), or an RFC 3339 instant (newest at or before it). node NULL: the vault's only node, else IM_EUSAGE naming them.
 * skip_bad: for latest and times, step over unreadable ones, reporting each through note. IM_ENOTFOUND says what there is. */
typedef void snapshot_note_fn(void *context, const char *text);
int snapshot_choose(struct storage *s, const struct keyring *k, const char *node, const char *at, snapshot_note_fn *note, void *context, struct snapshot **ret, struct im_error *err);

/* Encodes and writes; meta must hold node and seq. */
int snapshot_write(struct storage *s, const struct keyring *k, json_t *meta, json_t *private_part, uint8_t ret_hash[32], struct im_error *err);

/* The chain of one node: calls fn for each finding (gap in the sequence, prev that does not match, fork, unreadable, foreign signer). */
typedef void chain_finding_fn(void *context, const char *object, const char *text);
int snapshot_check_chain(struct storage *s, const struct keyring *k, const char *node, chain_finding_fn *fn, void *context, struct im_error *err);

#endif
