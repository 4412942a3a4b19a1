/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Planning through the log: at each point the segment that begins right behind it and reaches
 * furthest without passing the instant asked for; where none fits whole, the finest one, cut.
 */
#include "vault/logroute.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

bool log_anchor_read(const json_t *store_meta, struct log_anchor *ret)
{
	const json_t *log = json_object_get(store_meta, "log");
	const char *epoch = json_string_value(json_object_get(log, "epoch"));
	const char *hash = json_string_value(json_object_get(log, "hash"));
	const json_t *point = json_object_get(log, "point");
	json_int_t number = json_integer_value(point);
	struct log_anchor a = { 0 };
	if (!epoch || strlen(epoch) != LOG_EPOCH_CHARS || strspn(epoch, "0123456789abcdef") != LOG_EPOCH_CHARS || !json_is_integer(point) ||
	    number < 0 || number > UINT32_MAX)
		return false;
	memcpy(a.epoch, epoch, LOG_EPOCH_CHARS);
	a.point = (uint32_t)number;
	a.has_hash = hash && im_unhex(a.hash, 32, hash);
	a.complete_ms = json_integer_value(json_object_get(log, "complete_ms"));
	a.sum = json_string_value(json_object_get(log, "sum"));
	a.joined = json_is_true(json_object_get(log, "joined"));
	*ret = a;
	return a.point == 0 || a.has_hash;
}

int log_route_open(struct storage *s, const struct keyring *k, const char *node, const char *store, const struct log_anchor *anchor, struct log_route *ret, struct im_error *err)
{
	struct log_route r = { .storage = s, .keyring = k, .anchor = *anchor, .node = strdup(node) };
	r.anchor.sum = NULL;
	int rc = r.node ? log_list(s, node, store, anchor->epoch, anchor->point == UINT32_MAX ? anchor->point : anchor->point + 1, &r.list, err) :
	    im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0 && !(r.excluded = calloc(r.list.count + 1, sizeof *r.excluded)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc) {
		log_route_clear(&r);
		return rc;
	}
	*ret = r;
	return 0;
}

static void forget_plan(struct log_route *r)
{
	free(r->items);
	free(r->stopped);
	json_decref(r->position);
	r->items = NULL;
	r->stopped = NULL;
	r->position = NULL;
	r->count = 0;
	r->bytes = r->segments = 0;
	r->broken = false;
}

void log_route_clear(struct log_route *r)
{
	forget_plan(r);
	log_list_clear(&r->list);
	free(r->excluded);
	free(r->node);
	*r = (struct log_route){ 0 };
}

static void stop(struct log_route *r, char *why)
{
	r->broken = true;
	free(r->stopped);
	r->stopped = why;
}

/* Rows row … of one segment: all parts are there? Returns how many rows it takes, 0 if it is not whole. */
static size_t whole(const struct log_route *r, size_t row)
{
	const struct log_name *first = &r->list.items[row];
	for (size_t i = row; i < r->list.count; i++) {
		const struct log_name *n = &r->list.items[i];
		if (r->excluded[i] || n->first != first->first || n->last != first->last || n->part != i - row || n->latest_ms != first->latest_ms)
			return 0;
		if (n->final)
			return i - row + 1;
	}
	return 0;
}

static size_t seek(const struct log_route *r, uint32_t first)
{
	size_t low = 0, high = r->list.count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (r->list.items[middle].first < first)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct choice {
	size_t row, rows;   /* the best that fits whole */
	size_t fine, fine_rows; /* the shortest, to be cut */
	bool any;           /* something begins there, whole or not */
};

static struct choice choose(const struct log_route *r, uint32_t first, int64_t until_ms)
{
	struct choice c = { 0 };
	for (size_t i = seek(r, first); i < r->list.count && r->list.items[i].first == first; i++) {
		size_t rows = r->list.items[i].part == 0 ? whole(r, i) : 0;
		c.any = true;
		if (!rows)
			continue;
		if (!c.fine_rows) { /* sorted by last: the first is the shortest */
			c.fine = i;
			c.fine_rows = rows;
		}
		if (r->list.items[i].latest_ms <= until_ms) {
			c.row = i;
			c.rows = rows;
		}
	}
	return c;
}

static int take(struct log_route *r, size_t row, size_t rows, struct im_error *err)
{
	size_t *items = realloc(r->items, (r->count + rows) * sizeof *items);
	if (!items)
		return im_fail(err, IM_ENOMEM, "out of memory planning through the log");
	r->items = items;
	for (size_t i = 0; i < rows; i++) {
		r->items[r->count++] = row + i;
		r->bytes += r->list.items[row + i].size_bytes;
	}
	r->segments++;
	r->until = r->list.items[row].last;
	return 0;
}

/* Is there anything behind this point at all? */
static bool goes_on(const struct log_route *r, uint32_t point)
{
	return r->list.count && r->list.items[r->list.count - 1].last > point;
}

/* By names. *ret_cut: a segment of which only the first points may be wanted; its rows, 0: none. */
static int plan_names(struct log_route *r, int64_t until_ms, size_t *ret_cut, size_t *ret_cut_rows, struct im_error *err)
{
	*ret_cut_rows = 0;
	r->until = r->anchor.point;
	while (r->until < UINT32_MAX) {
		struct choice c = choose(r, r->until + 1, until_ms);
		if (!c.rows) {
			*ret_cut = c.fine;
			*ret_cut_rows = c.fine_rows;
			if (!c.fine_rows && (c.any || goes_on(r, r->until)))
				stop(r, im_format("the segment behind point %u of epoch %s is missing or cannot be read", r->until, r->anchor.epoch));
			return 0;
		}
		int rc = take(r, c.row, c.rows, err);
		if (rc)
			return rc;
	}
	return 0;
}

static bool is_damage(int rc)
{
	return rc == IM_ECORRUPT || rc == IM_ENOTFOUND;
}

/* The points of the segment that does not fit whole. *ret_again: it cannot be read, plan without it. */
static int cut(struct log_route *r, size_t row, size_t rows, int64_t until_ms, bool *ret_again, struct im_error *err)
{
	struct log_segment *s = NULL;
	struct im_error why = { 0 };
	uint32_t before = r->until, wanted = 0;
	int rc = log_read(r->storage, r->keyring, r->node, &r->list.items[row], &s, &why);
	*ret_again = is_damage(rc);
	if (rc) {
		if (!*ret_again)
			return im_fail(err, rc, "%s", why.text);
		r->excluded[row] = true;
		return 0;
	}
	for (size_t i = 0; s->level == 0 && i < s->point_count && s->points[i].latest_ms <= until_ms; i++, wanted++)
		r->reached = s->points[i];
	if (s->level && r->list.items[row].latest_ms > until_ms)
		stop(r, im_format("the fine segment behind point %u of epoch %s is missing or cannot be read", before, r->anchor.epoch));
	rc = wanted ? take(r, row, rows, err) : 0;
	if (wanted)
		r->until = before + wanted;
	log_segment_free(s);
	return rc;
}

/* The instants of the last segment taken whole. */
static int learn_end(struct log_route *r, bool *ret_again, struct im_error *err)
{
	struct log_segment *s = NULL;
	struct im_error why = { 0 };
	size_t row = r->items[r->count - 1];
	int rc = log_read(r->storage, r->keyring, r->node, &r->list.items[row], &s, &why);
	*ret_again = is_damage(rc);
	if (rc) {
		if (!*ret_again)
			return im_fail(err, rc, "%s", why.text);
		r->excluded[row] = true;
		return 0;
	}
	r->reached = s->points[s->point_count - 1];
	r->position = json_incref(json_object_get(s->record.meta, "position"));
	log_segment_free(s);
	return 0;
}

int log_route_plan(struct log_route *r, int64_t until_ms, struct im_error *err)
{
	for (bool again = true; again;) {
		size_t row = 0, rows = 0;
		again = false;
		forget_plan(r);
		r->reached = (struct log_point){ r->anchor.complete_ms, r->anchor.complete_ms };
		int rc = plan_names(r, until_ms, &row, &rows, err);
		if (rc == 0 && r->count)
			rc = learn_end(r, &again, err);
		uint32_t whole_until = r->until;
		if (rc == 0 && !again && rows)
			rc = cut(r, row, rows, until_ms, &again, err);
		if (rc)
			return rc;
		if (r->until != whole_until) { /* the last segment is cut */
			json_decref(r->position);
			r->position = NULL;
		}
	}
	return 0;
}

int log_route_read(const struct log_route *r, size_t i, const uint8_t prev[32], struct log_segment **ret, struct im_error *err)
{
	struct log_segment *s = NULL;
	const struct log_name *name = &r->list.items[r->items[i]];
	int rc = log_read(r->storage, r->keyring, r->node, name, &s, err);
	if (rc)
		return rc;
	bool follows = s->has_prev ? memcmp(s->prev, prev, 32) == 0 : s->first == 1 && s->part == 0;
	if (!follows) {
		log_segment_free(s);
		return im_fail(err, IM_ECORRUPT, "%s does not follow the segment before it: something was removed, replaced, or written by two machines", name->object);
	}
	*ret = s;
	return 0;
}

void log_route_link(const struct log_segment *s, uint8_t ret[32])
{
	memcpy(ret, s->level && s->final ? s->ends : s->hash, 32);
}

void log_route_exclude(struct log_route *r, size_t i)
{
	r->excluded[r->items[i]] = true;
}
