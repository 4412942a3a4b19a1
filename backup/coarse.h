/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coarse segments: a minute's fine segments merged into one, an hour's minutes into another, so that
 * a restore reads few objects. Inputs are kept in a bounded, encrypted scratch file, so nothing
 * is ever read back from the vault; what does not fit is left out: coarse segments are a convenience.
 *
 * Minutes and hours are counted from the newest anchor on, so that from a snapshot on they tile.
 */
#ifndef IM_BACKUP_COARSE_H
#define IM_BACKUP_COARSE_H

#include "backup/spool.h"
#include "stores/store.h"
#include "vault/keyring.h"

#define COARSE_MINUTE_MS 60000
#define COARSE_HOUR_MINUTES 60

struct coarse_request { /* borrowed */
	const struct store_follow_ops *ops;
	const struct keyring *keyring;
	struct spool *spool;
	const char *folder, *node, *store, *type;
	uint64_t limit_bytes; /* of the scratch file */
	int64_t minute_ms;
	unsigned hour_minutes;
	void (*added)(void *context); /* something is in the spool */
	void (*warn)(void *context, const char *text);
	void *context;
};

struct coarse; /* NULL everywhere: no coarse segments */

/* *ret is NULL if the store kind cannot merge. */
int coarse_start(const struct coarse_request *q, struct coarse **ret, struct im_error *err);
/* A fine segment is in the spool: head is after it, prev the hash that it continued. Copies what it needs. On the store's thread, as the next two. */
void coarse_feed(struct coarse *c, const struct spool_head *head, const uint8_t prev[32], const struct follow_batch *batch);
/* A snapshot stands at the newest point: minutes and hours end there and begin anew. */
void coarse_anchor(struct coarse *c);
/* A new epoch: what was not merged stays unmerged. */
void coarse_restart(struct coarse *c);
/* Nothing more will be fed: the thread ends after the segment it is at. */
void coarse_finish(struct coarse *c);
void coarse_stop(struct coarse *c);

#endif
