/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a snapshot's place in the log to an instant: which segments to read. Planned by names alone
 * (and the last segment's points); each link of the chain is checked when its segment is read. What
 * cannot be read is left out and planned around, where finer or coarser segments hold the same points.
 */
#ifndef IM_VAULT_LOGROUTE_H
#define IM_VAULT_LOGROUTE_H

#include "vault/log.h"

struct log_anchor { /* where an image stands: `log` of a snapshot's store meta (FORMAT §5) */
	char epoch[LOG_EPOCH_CHARS + 1];
	uint32_t point;
	bool has_hash;
	uint8_t hash[32];  /* of the final part of the segment that ends there */
	int64_t complete_ms;
	const char *sum;   /* hex, borrowed; NULL */
	bool joined;       /* nothing is missing between the epoch before and this image */
};
/* False if the image has no place in a log (or an impossible one). */
bool log_anchor_read(const json_t *store_meta, struct log_anchor *ret);

struct log_route_link { /* rows of the list: this part does not follow that one */
	size_t from, to;
};

struct log_route {
	/* Set by log_route_open. */
	struct storage *storage;
	const struct keyring *keyring;
	char *node;
	struct log_anchor anchor; /* without sum */
	struct log_list list;     /* the epoch's names behind the anchor */
	bool *excluded;           /* per name: cannot be read, or does not fit the chain */
	struct log_route_link *bad_links; /* where several segments of one range have parts */
	size_t bad_link_count;
	/* Set by log_route_plan. */
	size_t *items;            /* rows of list in the order to read: segment by segment, part by part */
	size_t count;
	uint32_t until;           /* the point reached; the last segment may have to be cut there */
	uint64_t snapshot_seq;    /* the newest snapshot that whoever wrote the last segment knew of */
	struct log_point reached; /* its instants; if until is the anchor's point: complete_ms only */
	json_t *position;         /* of the last segment's end; NULL if it is cut or there is none. Owned */
	uint64_t bytes, segments;
	bool broken;              /* the log goes on, but what is needed is missing, damaged or forked */
	char *stopped;            /* then: why, a sentence. NULL otherwise. Owned */
};

/* Lists what there is behind the anchor. Everything is borrowed but the route's own. */
int log_route_open(struct storage *s, const struct keyring *k, const char *node, const char *store, const struct log_anchor *anchor, struct log_route *ret, struct im_error *err);
void log_route_clear(struct log_route *r);
/* Plans as far as until_ms (the last point with latest_ms at or before it; INT64_MAX: the log's end). Repeatable, also after log_route_exclude. */
int log_route_plan(struct log_route *r, int64_t until_ms, struct im_error *err);
/* Reads item i, checks it, and that it follows the item before (or the anchor). IM_ECORRUPT or IM_ENOTFOUND: exclude it and plan again. */
int log_route_read(const struct log_route *r, size_t i, const uint8_t prev[32], struct log_segment **ret, struct im_error *err);
/* What the next item's prev must be, after this segment was read. */
void log_route_link(const struct log_segment *s, uint8_t ret[32]);
void log_route_exclude(struct log_route *r, size_t i);

#endif
