/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the SQLite follower share.
 */
#ifndef IM_STORES_SQLITE_FOLLOW_INTERNAL_H
#define IM_STORES_SQLITE_FOLLOW_INTERNAL_H

#include "stores/sqlite/capture.h"
#include "stores/sqlite/follow.h"
#include "stores/sqlite/journal.h"
#include "stores/sqlite/watch.h"

struct follower {
	const struct im_config_store *store; /* borrowed */
	struct capture capture;
	struct keeper *keeper;
	int journal;
	struct keeper_pin held;   /* the older pin: it protects what is captured but not safe */
	struct keeper_pin newer;  /* with two_pins: the one just taken */
	bool two_pins;
	struct pagediff *diff;
	struct logbody_writer *writer;
	struct watch watch;
	/* The batch */
	struct log_point *points;
	size_t point_count, point_room;
	uint64_t bytes, commits;
	struct follow_body *parts; /* of a change too large for the journal */
	size_t part_count;
	bool taken;                /* handed out, not durable yet */
	bool too_much;             /* more waits at the source than fits into this batch: take it */
	bool more;                 /* and it will still wait there when that is done */
	uint32_t point;            /* last given */
	int64_t complete_ms, latest_ms; /* of the last point */
	int64_t seen_before_ms, seen_after_ms; /* the last look that found nothing new */
	/* The WAL */
	uint64_t wal_limit;
	int64_t free_ms;           /* wall clock: when it last could be restarted, or was small */
	int64_t tried_ms;          /* monotonic: the last attempt */
	char alarm[300];
};

#define FOLLOW_WAL_SMALL (UINT64_C(4) << 20) /* up to this size the WAL is nobody's concern */

/* follow_round.c: one round: if there are new commits: pin, capture, journal, let the old pin go. IM_EGAP. */
int follow_round(struct follower *f, bool *ret_new, struct im_error *err);
/* The same up to a commit that somebody else has pinned. */
int follow_round_to(struct follower *f, const struct walpos *mark, struct im_error *err);
/* Numbers a point and adds it to the batch; its instants never go back. */
int follow_add_point(struct follower *f, int64_t before_ms, int64_t after_ms, struct log_point *ret, struct im_error *err);
/* Bytes of the WAL in use. */
uint64_t follow_wal_bytes(const struct follower *f);
struct logbody_section follow_section(const struct follower *f, const struct log_point *point);

#endif
