/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A restore's log as a few layers, each one change of the database: large segments as they are, runs
 * of small ones merged. Layers lie compressed in an unnamed file in the restore's stage, so that
 * memory does not follow the log's size; their blocks are decoded on demand (logcache.h).
 */
#ifndef IM_STORES_SQLITE_LOGLAYER_H
#define IM_STORES_SQLITE_LOGLAYER_H

#include "stores/sqlite/logbody.h"

struct loglayer_block {
	const struct logbody *body;
	uint32_t index, page;   /* in the body; page of its first record */
	/* The cache's: */
	struct logbody_block decoded;
	bool loaded, loading;
	unsigned users;
	uint64_t tick;
};

struct loglayer {
	struct logbody **bodies;  /* the parts */
	struct follow_source *sources;
	size_t body_count;
	struct logbody_section end; /* the point at which it ends */
	uint64_t bytes;           /* compressed */
	struct loglayer_block *blocks; /* of all parts, ascending */
	size_t block_count;
};

struct loglayers {
	struct loglayer *items; /* oldest first; the last one ends at the log's `until` */
	size_t count;
	uint8_t *replaced;      /* a bit per page of the image: nothing of it is needed */
	uint32_t image_pages;
	struct logstore *store;
};

/* Reads r->log (which is not empty) for an image of so many pages. IM_ECORRUPT; IM_ENOSPACE. */
int loglayers_gather(const struct rebuild *r, uint32_t page_size, uint32_t image_pages, struct loglayers *ret, struct im_error *err);
void loglayers_clear(struct loglayers *l);

/* The section of point log->until, from the last segment alone. */
int loglayer_target(const struct rebuild_log *log, uint32_t page_size, struct logbody_section *ret, struct im_error *err);

#endif
