/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logs without a follower: segments made from successive contents of a database file, and snapshots
 * given a place in them. What restore tests are made of.
 */
#ifndef IM_TESTS_LOG_FORGE_H
#define IM_TESTS_LOG_FORGE_H

#include "fixture.h"

#include "vault/log.h"
#include "vault/snapshot.h"

#define FORGE_POINTS 128
#define FORGE_OBJECTS 256

struct forge_point {
	struct im_buf content; /* of the database */
	int64_t ms;            /* complete and latest */
	uint8_t sum[16];
	uint8_t hash[32];      /* of the segment that ends here; zeros: none does */
};
struct forge_object {
	char path[400];
	uint32_t first, last, part;
	unsigned level;
};
struct forge { /* one epoch of one store */
	struct vault *node;    /* borrowed; opened with the node's key */
	const char *vault_dir, *store;
	char epoch[LOG_EPOCH_CHARS + 1];
	uint32_t page_size;
	uint8_t page_key[32];
	struct forge_point points[FORGE_POINTS]; /* 0: where the epoch begins; 1: the empty segment */
	uint32_t point, shipped;
	struct forge_object objects[FORGE_OBJECTS];
	size_t object_count;
	bool spoil_sum;        /* the next segment's sums are wrong */
	bool tiny_parts;       /* coarse segments are cut into parts of a few pages */
};

/* Begins an epoch with its empty segment (point 1) at ms. before: the epoch it comes after, or NULL. Opens nothing but takes a copy of the file. */
void forge_begin(struct forge *f, struct vault *node, const char *vault_dir, const char *store, const char *epoch, const char *database, int64_t ms, const char *reason, const struct forge *before);
void forge_end(struct forge *f);
/* The database, which nobody writes now, is checkpointed and becomes the next point. */
uint32_t forge_take(struct forge *f, const char *database, int64_t ms);
/* Everything taken and not shipped yet becomes one fine segment. */
void forge_ship(struct forge *f);
/* One segment for points first … last; all of them are shipped. */
void forge_coarse(struct forge *f, uint32_t first, uint32_t last, unsigned level);
void forge_remove(struct forge *f, uint32_t first, uint32_t last, unsigned level);
/* Gives the snapshot (read with restore's key) a place in the log. */
void forge_anchor(const struct forge *f, struct vault *restore, uint64_t seq, uint32_t point, bool joined);
bool forge_same(const struct forge *f, uint32_t point, const char *database);

#endif
