/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes over vault/logroute.h. Bodies may be read in any order and by several threads: each is
 * compared with those of its neighbours that were read before, so that once all are read the chain
 * is proven from the image to the end.
 */
#include "restore/route.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "vault/logroute.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct link { /* what is known of an item's place in the chain */
	bool read, has_prev;
	uint8_t prev[32], next[32]; /* next: what the item behind it must name */
};

struct route_log {
	struct rebuild_log log; /* first: the store kinds see only this */
	struct log_route plan;
	struct link *links;
	struct rebuild_log_body *bodies;
	pthread_mutex_t mutex; /* the links, and: */
	bool has_lost, lost_link; /* lost_link: it only does not follow the one before it */
	size_t lost;           /* item that cannot be had */
	char *why;
};

void route_lost_clear(struct route_lost *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].object);
		free(l->items[i].after);
	}
	free(l->items);
	*l = (struct route_lost){ 0 };
}

static void log_free(struct route_log *l)
{
	if (!l)
		return;
	log_route_clear(&l->plan);
	pthread_mutex_destroy(&l->mutex);
	free(l->links);
	free(l->bodies);
	free(l->why);
	free(l);
}

void route_clear(struct restore_route *r)
{
	log_free(r->log);
	free(r->stopped);
	*r = (struct restore_route){ 0 };
}

/* --- reading --- */

static const struct log_name *name_at(const struct route_log *l, size_t i)
{
	return &l->plan.list.items[l->plan.items[i]];
}

/* Does item i follow what came before it, as far as both are known? */
static bool follows_locked(const struct route_log *l, size_t i)
{
	const struct link *mine = &l->links[i];
	if (!mine->read)
		return true;
	if (i == 0) {
		const struct log_anchor *a = &l->plan.anchor;
		return a->has_hash ? mine->has_prev && memcmp(mine->prev, a->hash, 32) == 0 : !mine->has_prev && a->point == 0;
	}
	const struct link *before = &l->links[i - 1];
	return !before->read || (mine->has_prev && memcmp(mine->prev, before->next, 32) == 0);
}

static int lose(struct route_log *l, size_t i, bool link, const char *why, struct im_error *err)
{
	pthread_mutex_lock(&l->mutex);
	if (!l->has_lost) {
		l->lost = i;
		l->lost_link = link;
		l->why = strdup(why);
		l->has_lost = true;
	}
	pthread_mutex_unlock(&l->mutex);
	return im_fail(err, IM_EGAP, "%s", why);
}

static int link_in(struct route_log *l, size_t i, const struct log_segment *s, struct im_error *err)
{
	struct link fresh = { .read = true, .has_prev = s->has_prev };
	memcpy(fresh.prev, s->prev, 32);
	log_route_link(s, fresh.next);
	pthread_mutex_lock(&l->mutex);
	l->links[i] = fresh;
	bool follows = follows_locked(l, i), followed = i + 1 == l->plan.count || follows_locked(l, i + 1);
	pthread_mutex_unlock(&l->mutex);
	if (follows && followed)
		return 0;
	size_t stranger = follows ? i + 1 : i;
	auto_free char *why = im_format("%s does not follow the segment before it: something was removed, replaced, or written by two machines", name_at(l, stranger)->object);
	return lose(l, stranger, true, why ? why : "out of memory", err);
}

static int read_body(const struct rebuild_log *log, size_t i, struct im_buf *ret, struct im_error *err)
{
	struct route_log *l = (struct route_log *)(uintptr_t)log;
	struct log_segment *s = NULL;
	struct im_error why = { 0 };
	int rc = log_read(l->plan.storage, l->plan.keyring, l->plan.node, name_at(l, i), &s, &why);
	if (rc == IM_ECORRUPT || rc == IM_ENOTFOUND || rc == IM_EIO)
		return lose(l, i, false, why.text, err);
	if (rc)
		return im_fail(err, rc, "%s", why.text);
	if (!s->record.has_private)
		rc = im_fail(err, IM_EKEY, "this key cannot read the log's content; restore needs the restore key");
	if (rc == 0)
		rc = link_in(l, i, s, err);
	if (rc == 0 && !ret->data) {
		*ret = s->record.private_bytes;
		s->record.private_bytes = (struct im_buf){ 0 };
	} else if (rc == 0) {
		im_buf_put(ret, s->record.private_bytes.data, s->record.private_bytes.len);
		rc = ret->failed ? im_fail(err, IM_ENOMEM, "out of memory for a segment of the log") : 0;
	}
	log_segment_free(s);
	return rc;
}

const struct rebuild_log *route_log(const struct restore_route *r)
{
	return r->log ? &r->log->log : NULL;
}

bool route_take_lost(struct restore_route *r, struct route_lost *lost, const char **ret_why)
{
	struct route_log *l = r->log;
	if (!l || !l->has_lost)
		return false;
	struct route_lost_item *grown = realloc(lost->items, (lost->count + 1) * sizeof *grown);
	if (!grown)
		return false;
	bool link = l->lost_link && l->lost > 0;
	lost->items = grown;
	grown[lost->count++] = (struct route_lost_item){ .object = strdup(name_at(l, l->lost)->object),
		.after = link ? strdup(name_at(l, l->lost - 1)->object) : NULL };
	if (!grown[lost->count - 1].object || (link && !grown[lost->count - 1].after))
		return false;
	*ret_why = l->why ? l->why : "a segment of the log cannot be read";
	return true;
}

/* --- planning --- */

/* Excludes the first item of the plan that is lost; false: none is. */
static bool leave_out(struct log_route *plan, const struct route_lost *lost)
{
	for (size_t i = 0; i < plan->count; i++)
		for (size_t k = 0; k < lost->count; k++) {
			const struct route_lost_item *item = &lost->items[k];
			const char *before = i ? plan->list.items[plan->items[i - 1]].object : "";
			if (strcmp(plan->list.items[plan->items[i]].object, item->object) != 0 || (item->after && strcmp(before, item->after) != 0))
				continue;
			if (item->after)
				log_route_exclude(plan, i);
			else
				plan->excluded[plan->items[i]] = true;
			return true;
		}
	return false;
}

static int list_bodies(struct route_log *l, const json_t *anchor, struct im_error *err)
{
	const struct log_route *plan = &l->plan;
	l->links = calloc(plan->count + 1, sizeof *l->links);
	l->bodies = calloc(plan->count + 1, sizeof *l->bodies);
	if (!l->links || !l->bodies)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < plan->count; i++) {
		const struct log_name *n = name_at(l, i);
		l->bodies[i] = (struct rebuild_log_body){ n->first, n->last, n->part, n->final, n->size_bytes };
	}
	l->log = (struct rebuild_log){ .after = plan->anchor.point, .until = plan->until, .anchor = anchor,
		.bodies = l->bodies, .body_count = plan->count, .read = read_body };
	return 0;
}

static int plan_log(struct history *h, const char *store, const struct log_anchor *anchor, int64_t until_ms,
    const struct route_lost *lost, struct route_log **ret, struct im_error *err)
{
	struct route_log *l = calloc(1, sizeof *l);
	if (!l)
		return im_fail(err, IM_ENOMEM, "out of memory");
	pthread_mutex_init(&l->mutex, NULL);
	int rc = log_route_open(h->vault->storage, h->vault->keyring, h->names.items[0].node, store, anchor, &l->plan, err);
	bool again = rc == 0;
	while (again) {
		rc = log_route_plan(&l->plan, until_ms, err);
		again = rc == 0 && leave_out(&l->plan, lost);
	}
	if (rc) {
		log_free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

/* What the plan says, into r. */
static int take_plan(struct restore_route *r, const struct route_log *l, int64_t until_ms, struct im_error *err)
{
	const struct log_route *plan = &l->plan;
	r->until = plan->until;
	r->segments = plan->segments;
	r->bytes = plan->bytes;
	r->broken = plan->broken;
	r->snapshot_seq = plan->count ? plan->snapshot_seq : 0;
	r->reached_ms = plan->reached.complete_ms > r->image_ms ? plan->reached.complete_ms : r->image_ms;
	if (!plan->broken || plan->reached.latest_ms >= until_ms) /* what is broken was not asked for */
		return 0;
	r->missing = true;
	r->stopped = strdup(plan->stopped ? plan->stopped : "the log breaks off");
	return r->stopped ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

/* Has the route come to the end of its epoch, short of what was asked for? */
static bool at_the_end(const struct log_route *plan, int64_t until_ms)
{
	const struct log_list *list = &plan->list;
	return !plan->broken && plan->reached.latest_ms < until_ms && (!list->count || list->items[list->count - 1].last <= plan->until);
}

int route_plan(struct history *h, size_t i, const char *store, int64_t image_ms, int64_t until_ms,
    const struct route_lost *lost, struct restore_route *ret, struct im_error *err)
{
	struct restore_route r = { .snapshot = h->read[i], .image_ms = image_ms, .reached_ms = image_ms };
	json_t *meta = snapshot_store_meta(r.snapshot, store);
	struct log_anchor anchor;
	struct route_log *l = NULL;
	r.has_log = log_anchor_read(meta, &anchor);
	if (!r.has_log) {
		*ret = r;
		return 0;
	}
	memcpy(r.epoch, anchor.epoch, sizeof r.epoch);
	r.after = anchor.point;
	int rc = plan_log(h, store, &anchor, until_ms, lost, &l, err);
	if (rc == 0)
		rc = take_plan(&r, l, until_ms, err);
	if (rc == 0 && at_the_end(&l->plan, until_ms))
		rc = route_look_beyond(h, i, store, until_ms, l->plan.reached.latest_ms, &r, err);
	if (rc == 0 && l->plan.count) {
		rc = list_bodies(l, json_object_get(meta, "log"), err);
		r.log = TAKE_PTR(l);
	}
	log_free(l);
	if (rc) {
		route_clear(&r);
		return rc;
	}
	*ret = r;
	return 0;
}

/* --- is it worth looking further back? --- */

struct look {
	const struct restore_route *route;
	bool found;
};

/* A segment that a longer route could take past where this one ends. */
static int look_at(void *context, const char *object, uint64_t size_bytes)
{
	struct look *look = context;
	const struct restore_route *r = look->route;
	struct log_name n;
	(void)size_bytes;
	if (!log_name_parse(object, &n, NULL))
		return 0;
	look->found |= r->has_log ? n.first <= r->after && n.last > r->until : n.latest_ms > r->reached_ms;
	log_name_clear(&n);
	return look->found;
}

/* The last folder of an epoch's names. */
static int last_folder(void *context, const char *folder, uint64_t size_bytes)
{
	char **last = context;
	(void)size_bytes;
	free(*last);
	*last = strdup(folder);
	return *last ? 0 : IM_ENOMEM;
}

struct rivals {
	struct history *h;
	const char *store;
	const struct restore_route *route;
	int64_t until_ms;
	uint32_t last;  /* of the epoch looked at */
	bool later, found;
	struct im_error *err;
};

static int look_at_latest(void *context, const char *object, uint64_t size_bytes)
{
	struct rivals *x = context;
	struct log_name n;
	(void)size_bytes;
	if (!log_name_parse(object, &n, NULL))
		return 0;
	x->later |= n.latest_ms > x->route->reached_ms && n.latest_ms <= x->until_ms;
	x->last = n.last > x->last ? n.last : x->last;
	log_name_clear(&n);
	return 0;
}

/* The epoch that ours began after may have gone on behind our back, if two machines wrote. Clocks tell nothing else: one
 * that was set back makes what is older look later. */
static int look_at_epoch(void *context, const char *folder, uint64_t size_bytes)
{
	struct rivals *x = context;
	size_t len = strlen(folder);
	char epoch[LOG_EPOCH_CHARS + 1] = "";
	bool before = false;
	uint32_t point = 0;
	(void)size_bytes;
	if (len < LOG_EPOCH_CHARS + 2)
		return 0;
	memcpy(epoch, folder + len - 1 - LOG_EPOCH_CHARS, LOG_EPOCH_CHARS);
	if (strcmp(epoch, x->route->epoch) == 0)
		return 0;
	auto_free char *last = NULL;
	x->later = false;
	x->last = 0;
	int rc = storage_list_folders(x->h->vault->storage, folder, last_folder, &last, x->err);
	if (rc == 0 && last)
		rc = storage_list(x->h->vault->storage, last, look_at_latest, x, x->err);
	if (rc == 0 && x->later)
		rc = route_came_before(x->h, x->store, x->route->epoch, epoch, &before, &point, x->err);
	x->found |= x->later && before && point < x->last;
	return rc < 0 ? rc : x->found;
}

int route_may_gain(struct history *h, const char *store, const struct restore_route *r, int64_t until_ms, bool *ret, struct im_error *err)
{
	struct look look = { .route = r };
	*ret = !r->snapshot;
	if (!r->snapshot)
		return 0;
	bool broken = !r->has_log || r->broken;
	auto_free char *prefix = r->has_log && broken ? im_format("logs/%s/%s/%s/", h->names.items[0].node, store, r->epoch) :
	    im_format("logs/%s/%s/", h->names.items[0].node, store);
	if (!prefix)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (broken) {
		int rc = storage_list(h->vault->storage, prefix, look_at, &look, err);
		*ret = look.found;
		return rc < 0 ? rc : 0;
	}
	struct rivals x = { .h = h, .store = store, .route = r, .until_ms = until_ms, .err = err };
	int rc = storage_list_folders(h->vault->storage, prefix, look_at_epoch, &x, err);
	*ret = x.found;
	return rc < 0 ? rc : 0;
}
