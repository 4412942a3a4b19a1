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
	r->bytes = r->segments = r->snapshot_seq = 0;
	r->broken = false;
}

void log_route_clear(struct log_route *r)
{
	forget_plan(r);
	log_list_clear(&r->list);
	free(r->excluded);
	free(r->bad_links);
	free(r->node);
	*r = (struct log_route){ 0 };
}

static void stop(struct log_route *r, char *why)
{
	r->broken = true;
	free(r->stopped);
	r->stopped = why;
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

/* The rows of one range of points: one segment, or several of the same range (coarse and fine, or of two writers). */
static size_t range_end(const struct log_route *r, size_t row)
{
	const struct log_name *n = &r->list.items[row];
	size_t end = row + 1;
	while (end < r->list.count && r->list.items[end].first == n->first && r->list.items[end].last == n->last)
		end++;
	return end;
}

static bool is_bad_link(const struct log_route *r, size_t from, size_t to)
{
	for (size_t i = 0; i < r->bad_link_count; i++)
		if (r->bad_links[i].from == from && r->bad_links[i].to == to)
			return true;
	return false;
}

struct segment { /* all its rows, part by part */
	size_t *rows, count;
};

static void segment_clear(struct segment *s)
{
	free(s->rows);
	*s = (struct segment){ 0 };
}
#define auto_segment IM_CLEANUP(segment_clear)

/* For each row of the range: the row of the part behind it, itself if it is the final one, SIZE_MAX if nothing leads to a final one. */
static void find_next(const struct log_route *r, size_t begin, size_t end, size_t *next)
{
	for (size_t i = end; i-- > begin;) {
		const struct log_name *n = &r->list.items[i];
		next[i - begin] = r->excluded[i] ? SIZE_MAX : n->final ? i : SIZE_MAX;
		for (size_t j = i + 1; !n->final && !r->excluded[i] && j < end && r->list.items[j].part <= n->part + 1; j++) {
			const struct log_name *m = &r->list.items[j];
			if (m->part == n->part + 1 && m->latest_ms == n->latest_ms && next[j - begin] != SIZE_MAX && !is_bad_link(r, i, j)) {
				next[i - begin] = j;
				break;
			}
		}
	}
}

/* The segment whose part 0 is this row; ret->count is 0 if it is not whole. */
static int assemble(const struct log_route *r, size_t head, struct segment *ret, struct im_error *err)
{
	size_t end = range_end(r, head), count = 1;
	auto_free size_t *next = calloc(end - head, sizeof *next);
	*ret = (struct segment){ 0 };
	if (!next)
		return im_fail(err, IM_ENOMEM, "out of memory planning through the log");
	find_next(r, head, end, next);
	if (next[0] == SIZE_MAX || r->list.items[head].part)
		return 0;
	for (size_t i = head; next[i - head] != i; i = next[i - head])
		count++;
	ret->rows = calloc(count, sizeof *ret->rows);
	if (!ret->rows)
		return im_fail(err, IM_ENOMEM, "out of memory planning through the log");
	for (size_t i = head; ret->count < count; i = next[i - head])
		ret->rows[ret->count++] = i;
	return 0;
}

static bool begins_at(const struct log_route *r, size_t row, uint32_t first)
{
	return row < r->list.count && r->list.items[row].first == first;
}

/* The whole segment from `first` that reaches furthest, at most to `last` and `until_ms`; none: count 0. */
static int choose(const struct log_route *r, uint32_t first, uint32_t last, int64_t until_ms, struct segment *ret, struct im_error *err)
{
	size_t end = seek(r, first), begin = end;
	*ret = (struct segment){ 0 };
	while (begins_at(r, end, first))
		end++;
	while (end-- > begin && !ret->count) {
		const struct log_name *n = &r->list.items[end];
		if (n->part || n->last > last || n->latest_ms > until_ms || r->excluded[end])
			continue;
		int rc = assemble(r, end, ret, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int take(struct log_route *r, const struct segment *s, struct im_error *err)
{
	size_t *items = realloc(r->items, (r->count + s->count) * sizeof *items);
	if (!items)
		return im_fail(err, IM_ENOMEM, "out of memory planning through the log");
	r->items = items;
	for (size_t i = 0; i < s->count; i++) {
		r->items[r->count++] = s->rows[i];
		r->bytes += r->list.items[s->rows[i]].size_bytes;
	}
	r->segments++;
	r->until = r->list.items[s->rows[0]].last;
	return 0;
}

/* Is there anything behind this point at all? */
static bool goes_on(const struct log_route *r, uint32_t point)
{
	for (size_t i = r->list.count; i-- > 0;)
		if (r->list.items[i].last > point)
			return true;
	return false;
}

static bool is_damage(int rc)
{
	return rc == IM_ECORRUPT || rc == IM_ENOTFOUND;
}

/* *ret NULL: it cannot be read, and is excluded. */
static int read_row(struct log_route *r, size_t row, struct log_segment **ret, struct im_error *err)
{
	struct im_error why = { 0 };
	*ret = NULL;
	int rc = log_read(r->storage, r->keyring, r->node, &r->list.items[row], ret, &why);
	if (is_damage(rc)) {
		r->excluded[row] = true;
		return 0;
	}
	return rc ? im_fail(err, (enum im_code)rc, "%s", why.text) : 0;
}

/* Do shorter segments lead through the same points? Then it is a coarse one, without a look into it. */
static int is_tiled(const struct log_route *r, const struct log_name *n, bool *ret, struct im_error *err)
{
	uint32_t at = n->first - 1;
	*ret = true;
	while (at < n->last && *ret) {
		auto_segment struct segment s = { 0 };
		/* not itself again, which would begin at its first point and end at its last */
		int rc = choose(r, at + 1, at + 1 == n->first ? n->last - 1 : n->last, INT64_MAX, &s, err);
		if (rc)
			return rc;
		*ret = s.count > 0;
		at = s.count ? r->list.items[s.rows[0]].last : at;
	}
	return 0;
}

struct head { /* of a fine segment */
	bool any, has_prev;
	uint8_t prev[32];
};

/* Reads row unless its name tells that it is coarse. *ret_fork: it and `one` are fine and follow the same point. */
static int compare_head(struct log_route *r, size_t row, struct head *one, bool *ret_fork, struct im_error *err)
{
	struct log_segment *s = NULL;
	bool tiled = false;
	int rc = is_tiled(r, &r->list.items[row], &tiled, err);
	if (rc || tiled)
		return rc;
	rc = read_row(r, row, &s, err);
	if (s && s->level == 0) {
		*ret_fork = one->any && one->has_prev == s->has_prev && (!s->has_prev || memcmp(one->prev, s->prev, 32) == 0);
		*one = (struct head){ .any = true, .has_prev = s->has_prev };
		memcpy(one->prev, s->prev, 32);
	}
	log_segment_free(s);
	return rc;
}

/* Do two different fine segments follow the point before `first`? */
static int find_fork(struct log_route *r, uint32_t first, bool *ret, struct im_error *err)
{
	size_t begin = seek(r, first), heads = 0;
	struct head one = { 0 };
	*ret = false;
	for (size_t i = begin; begins_at(r, i, first); i++)
		heads += r->list.items[i].part == 0 && !r->excluded[i];
	for (size_t i = begin; heads > 1 && begins_at(r, i, first) && !*ret; i++) {
		int rc = r->list.items[i].part == 0 && !r->excluded[i] ? compare_head(r, i, &one, ret, err) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

/* By names. *ret_last_ms: latest_ms of the point reached. */
static int plan_names(struct log_route *r, int64_t until_ms, int64_t *ret_last_ms, struct im_error *err)
{
	r->until = r->anchor.point;
	*ret_last_ms = r->anchor.complete_ms;
	while (r->until < UINT32_MAX) {
		auto_segment struct segment s = { 0 };
		bool fork = false;
		int rc = find_fork(r, r->until + 1, &fork, err);
		if (rc == 0 && fork) {
			stop(r, im_format("two different segments follow point %u of epoch %s: two machines wrote this log, or a state was cloned",
			    r->until, r->anchor.epoch));
			return 0;
		}
		if (rc == 0)
			rc = choose(r, r->until + 1, UINT32_MAX, until_ms, &s, err);
		if (rc == 0 && s.count)
			rc = take(r, &s, err);
		if (rc || !s.count)
			return rc;
		*ret_last_ms = r->list.items[s.rows[0]].latest_ms;
	}
	return 0;
}

/* The part of a fine segment at or before until_ms. *ret_fine: it is one (or cannot be read, and *ret_again is set). */
static int cut_one(struct log_route *r, const struct segment *s, int64_t until_ms, bool *ret_fine, bool *ret_again, struct im_error *err)
{
	struct log_segment *read = NULL;
	uint32_t before = r->until, wanted = 0;
	int rc = read_row(r, s->rows[0], &read, err);
	if (rc)
		return rc;
	*ret_again = !read;
	*ret_fine = !read || read->level == 0;
	for (size_t i = 0; read && *ret_fine && i < read->point_count && read->points[i].latest_ms <= until_ms; i++, wanted++)
		r->reached = read->points[i];
	rc = wanted ? take(r, s, err) : 0;
	if (wanted) { /* its end is not reached */
		r->until = before + wanted;
		json_decref(r->position);
		r->position = NULL;
	}
	log_segment_free(read);
	return rc;
}

/* What follows the point reached but does not fit whole: the fine segment there, cut. */
static int cut(struct log_route *r, int64_t until_ms, int64_t last_ms, bool *ret_again, struct im_error *err)
{
	uint32_t first = r->until + 1;
	bool fine = false;
	if (r->until == UINT32_MAX)
		return 0;
	for (size_t i = seek(r, first); begins_at(r, i, first) && !fine && !*ret_again; i++) {
		auto_segment struct segment s = { 0 };
		int rc = r->excluded[i] ? 0 : assemble(r, i, &s, err);
		if (rc == 0 && s.count)
			rc = cut_one(r, &s, until_ms, &fine, ret_again, err);
		if (rc)
			return rc;
	}
	if (!fine && !*ret_again && last_ms < until_ms && goes_on(r, r->until))
		stop(r, im_format("the segment behind point %u of epoch %s is missing or cannot be read", r->until, r->anchor.epoch));
	return 0;
}

/* The instants of the last segment taken whole. */
static int learn_end(struct log_route *r, bool *ret_again, struct im_error *err)
{
	struct log_segment *s = NULL;
	int rc = read_row(r, r->items[r->count - 1], &s, err);
	if (rc)
		return rc;
	*ret_again = !s;
	if (s) {
		r->reached = s->points[s->point_count - 1];
		r->snapshot_seq = (uint64_t)json_integer_value(json_object_get(s->record.meta, "snapshot_seq"));
		r->position = json_incref(json_object_get(s->record.meta, "position"));
	}
	log_segment_free(s);
	return 0;
}

int log_route_plan(struct log_route *r, int64_t until_ms, struct im_error *err)
{
	for (bool again = true; again;) {
		int64_t last_ms = 0;
		again = false;
		forget_plan(r);
		r->reached = (struct log_point){ r->anchor.complete_ms, r->anchor.complete_ms };
		int rc = plan_names(r, until_ms, &last_ms, err);
		if (rc == 0 && r->count)
			rc = learn_end(r, &again, err);
		if (rc == 0 && !again && !r->stopped)
			rc = cut(r, until_ms, last_ms, &again, err);
		if (rc)
			return rc;
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

/* Does another segment of the same range have that part too? */
static bool has_rival(const struct log_route *r, size_t row)
{
	const struct log_name *n = &r->list.items[row];
	for (size_t i = row; i-- > 0 && r->list.items[i].first == n->first && r->list.items[i].last == n->last;)
		if (r->list.items[i].part == n->part)
			return true;
	size_t end = range_end(r, row);
	return row + 1 < end && r->list.items[row + 1].part == n->part;
}

void log_route_exclude(struct log_route *r, size_t i)
{
	size_t row = r->items[i];
	/* a part that only does not follow the one before it may follow another one */
	if (i && r->list.items[row].part && has_rival(r, r->items[i - 1])) {
		struct log_route_link *links = realloc(r->bad_links, (r->bad_link_count + 1) * sizeof *links);
		if (links) {
			r->bad_links = links;
			links[r->bad_link_count++] = (struct log_route_link){ r->items[i - 1], row };
			return;
		}
	}
	r->excluded[row] = true;
}
