/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A way to bring one store back: its image in a snapshot, and the log behind that as far as the
 * instant asked for. Whoever restores compares routes and takes the one that reaches furthest. A
 * route is planned by names; its segments are checked when they are read, and one that cannot be
 * had makes the route void: plan again without it.
 */
#ifndef IM_RESTORE_ROUTE_H
#define IM_RESTORE_ROUTE_H

#include "restore/history.h"
#include "stores/store.h"

#define ROUTE_LATEST INT64_MAX

struct route_lost { /* segments of one store's log that cannot be had */
	struct route_lost_item {
		char *object;
		char *after; /* not NULL: it can, but not behind this one */
	} *items;
	size_t count;
};
void route_lost_clear(struct route_lost *l);

struct restore_route {
	struct snapshot *snapshot; /* borrowed; NULL: no route */
	int64_t image_ms;    /* when its image was true */
	int64_t reached_ms;  /* everything acknowledged before it is there */
	bool has_log;        /* the image has its place in a log; what follows is about that */
	char epoch[LOG_EPOCH_CHARS + 1];
	uint32_t after, until; /* points: the image's, and the one reached */
	uint64_t segments, bytes;
	uint64_t snapshot_seq; /* the newest snapshot that existed when the last segment was written; 0: no segment */
	bool broken;         /* the log goes on, but damage or a missing segment is in the way */
	bool missing;        /* something between the instant reached and the one asked for is lost to this route */
	char *stopped;       /* why it goes no further, or NULL: as far as was asked for, or the log's end */
	struct route_log *log; /* owned; NULL: there is nothing to lay over the image */
};

/* The route from the store's image in snapshot number i of h (see history_has_image) as far as until_ms, without what is lost.
 * Whatever is wrong with the log ends the route there; errors are those of the storage, IM_ENOMEM and IM_EINTERRUPTED. */
int route_plan(struct history *h, size_t i, const char *store, int64_t image_ms, int64_t until_ms,
    const struct route_lost *lost, struct restore_route *ret, struct im_error *err);
void route_clear(struct restore_route *r);
/* What the store kind gets; NULL: the image as it is. Borrowed from the route. Its read gives IM_EGAP for a segment that cannot be had: */
const struct rebuild_log *route_log(const struct restore_route *r);
/* … which is then added to lost, with the reason in *ret_why (borrowed from the route). False: none was. */
bool route_take_lost(struct restore_route *r, struct route_lost *lost, const char **ret_why);
/* Could an image older than r's (r without snapshot: there is none yet) lead further, and not past until_ms? A look at names at most. */
int route_may_gain(struct history *h, const char *store, const struct restore_route *r, int64_t until_ms, bool *ret, struct im_error *err);

/* beyond.c: did the epoch begin after the candidate (directly or through others)? *ret_point: the candidate's last point that it knew of. */
int route_came_before(struct history *h, const char *store, const char *epoch, const char *candidate, bool *ret, uint32_t *ret_point, struct im_error *err);
/* beyond.c: the epoch after the route's has begun: r->missing, and why in r->stopped, unless nothing was lost in between. */
int route_look_beyond(struct history *h, size_t i, const char *store, int64_t until_ms, int64_t latest_ms,
    struct restore_route *r, struct im_error *err);

#endif
