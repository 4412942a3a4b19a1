/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What damage to a log harms: which instants can no longer be reached. A stretch of points is in
 * doubt until all segments have passed by that could lead over it.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "verify/logs.h"

#include <stdio.h>
#include <string.h>

int verify_log_no_memory(struct checker *c)
{
	return im_fail(c->err, IM_ENOMEM, "out of memory checking the log");
}

bool verify_log_grow(void *list, size_t count, size_t size)
{
	void *items;
	memcpy(&items, list, sizeof items);
	if (count & (count - 1))
		return true;
	items = realloc(items, (count ? 2 * count : 1) * size);
	if (items)
		memcpy(list, &items, sizeof items);
	return items != NULL;
}

size_t verify_log_damaged(struct checker *c, const char *object, const char *problem)
{
	size_t row = verify_damage_add(c->v, object, "%s", problem);
	if (row != VERIFY_NO_DAMAGE)
		verify_damage_store(c->v, row, c->node, c->store);
	return row;
}

/* Images. */

int verify_take_images(struct verify *v, size_t snapshot, const struct snapshot *s,
    struct im_error *err)
{
	size_t i;
	json_t *row;
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, row) {
		struct verify_image image = { .snapshot = snapshot };
		const char *name = json_string_value(json_object_get(row, "name"));
		if (!name || !log_anchor_read(row, &image.anchor))
			continue;
		image.anchor.sum = NULL;
		image.store = strdup(name);
		if (!image.store || !verify_log_grow(&v->images, v->image_count, sizeof image)) {
			free(image.store);
			return im_fail(err, IM_ENOMEM, "out of memory");
		}
		v->images[v->image_count++] = image;
	}
	return 0;
}

static int by_point(const void *a, const void *b)
{
	uint32_t x = (*(struct verify_image *const *)a)->anchor.point,
		 y = (*(struct verify_image *const *)b)->anchor.point;
	return (x > y) - (x < y);
}

int verify_log_find_images(struct checker *c)
{
	c->image_count = c->next_image = 0;
	for (size_t i = 0; i < c->v->image_count; i++) {
		struct verify_image *image = &c->v->images[i];
		if (strcmp(image->anchor.epoch, c->epoch) || strcmp(image->store, c->store) ||
		    strcmp(c->v->snapshots[image->snapshot].name.node, c->node))
			continue;
		struct verify_image **images = realloc(c->images, (c->image_count + 1) * sizeof *images);
		if (!images)
			return verify_log_no_memory(c);
		c->images = images;
		c->images[c->image_count++] = image;
	}
	if (c->image_count)
		qsort(c->images, c->image_count, sizeof *c->images, by_point);
	return 0;
}

/* The first that stands at this point or behind it. */
static size_t seek_image(const struct checker *c, uint32_t point)
{
	size_t low = 0, high = c->image_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (c->images[middle]->anchor.point < point)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void verify_log_note_images(struct checker *c, uint32_t point, const uint8_t hash[32])
{
	for (size_t i = seek_image(c, point);
	     i < c->image_count && c->images[i]->anchor.point == point; i++) {
		struct verify_image *image = c->images[i];
		if (!image->anchor.has_hash)
			continue;
		image->seen = true;
		image->same |= memcmp(image->anchor.hash, hash, 32) == 0;
	}
}

void verify_log_judge_images(struct checker *c)
{
	for (size_t i = 0; i < c->image_count; i++) {
		struct verify_image *image = c->images[i];
		const struct verify_snapshot *vs = &c->v->snapshots[image->snapshot];
		image->visited = true;
		if (!image->seen || image->same)
			continue;
		size_t row = verify_damage_add(c->v, vs->name.object,
		    "it says that the image of store %s stands at point %u of epoch %s, but the segment that ends there is another",
		    c->store, image->anchor.point, c->epoch);
		if (row == VERIFY_NO_DAMAGE)
			continue;
		verify_damage_store(c->v, row, c->node, c->store);
		verify_damage_snapshot(c->v, row, vs->label);
	}
}

/* What damage harms. */

/* Another way to reach points of s. */
static void offer(struct suspect *s, const struct log_end *e)
{
	if (e->point < s->at)
		return;
	if (e->from <= s->at) {
		s->at = e->point == UINT32_MAX ? UINT32_MAX : e->point + 1;
		s->before_ms = e->ms;
		if (s->has_next && s->next < s->at)
			s->has_next = false;
	} else if (!s->has_next || e->from < s->next) {
		s->has_next = true;
		s->next = e->from;
		s->next_ms = e->from_ms;
	}
}

int verify_log_suspect(struct checker *c, const char *object, size_t damage, const char *problem,
    uint32_t first, uint32_t last)
{
	const struct log_end *before = log_reach_before(&c->reach, first);
	struct suspect s = { .damage = damage, .first = first, .last = last, .at = first };
	s.object = strdup(object);
	s.problem = strdup(problem);
	if (!s.object || !s.problem || !verify_log_grow(&c->suspects, c->suspect_count, sizeof s)) {
		free(s.object);
		free(s.problem);
		return verify_log_no_memory(c);
	}
	s.before_ms = before ? before->ms : 0;
	for (size_t i = 0; i < c->reach.count; i++)
		if (c->reach.items[i].point >= first)
			offer(&s, &c->reach.items[i]);
	c->suspects[c->suspect_count++] = s;
	c->doubt = last > c->doubt ? last : c->doubt;
	return 0;
}

int verify_log_note_hole(struct checker *c, const char *object, const struct log_end *before,
    uint32_t to)
{
	uint32_t from = before ? before->point : 0;
	char problem[160];
	bool known = from >= to || from == c->hole || (from == 0 && !c->any);
	for (size_t i = 0; i < c->suspect_count && !known; i++)
		known = c->suspects[i].first <= from + 1;
	c->hole = from >= to ? UINT32_MAX : from;
	if (known)
		return 0;
	snprintf(problem, sizeof problem,
	    "what leads to it is missing: points %u to %u were removed or never written", from + 1,
	    to);
	return verify_log_suspect(c, object, verify_log_damaged(c, object, problem), problem, from + 1, to);
}

int verify_log_reach_images(struct checker *c, uint64_t first, const char *object)
{
	int rc = 0;
	while (rc == 0 && c->next_image < c->image_count &&
	    c->images[c->next_image]->anchor.point < first) {
		const struct log_anchor *a = &c->images[c->next_image++]->anchor;
		const struct log_end *far = log_reach_furthest(&c->reach);
		if (object && far && far->point < a->point)
			rc = verify_log_note_hole(c, object, far, a->point);
		if (rc == 0)
			rc = log_reach_put(&c->reach,
			    &(struct log_end){ .point = a->point,
				.from = a->point,
				.from_ms = a->complete_ms,
				.ms = a->complete_ms },
			    c->err);
	}
	return rc;
}

static char *lost_text(const struct checker *c, const struct suspect *s)
{
	char from[IM_INSTANT_BYTES], to[IM_INSTANT_BYTES];
	size_t within = seek_image(c, s->at), behind = seek_image(c, s->last);
	bool has_next = s->has_next, ends = within < behind;
	int64_t next_ms = s->next_ms;
	if (behind < c->image_count && (!has_next || c->images[behind]->anchor.point < s->next)) {
		has_next = true;
		next_ms = c->images[behind]->anchor.complete_ms;
	}
	im_instant_format(from, s->before_ms);
	im_instant_format(to, next_ms);
	if (!seek_image(c, s->first))
		return im_format("%s/%s: no instant is lost by it: no snapshot stands before it", c->node, c->store);
	if (!has_next)
		return im_format("%s/%s: no instant after %s can be reached in epoch %s%s", c->node, c->store, from,
		    c->epoch, ends ? ", but those of snapshots" : "");
	return im_format("%s/%s: no instant between %s and %s can be reached%s", c->node, c->store, from, to,
	    ends ? ", but those of snapshots" : "");
}

/* What only shows now: images within the stretch, and ends that were no help when they came. */
static void look_again(const struct checker *c, struct suspect *s)
{
	for (size_t i = seek_image(c, s->at); i < c->image_count && s->at <= s->last; i++) {
		const struct log_anchor *a = &c->images[i]->anchor;
		if (a->point > s->at)
			break;
		s->before_ms = a->complete_ms;
		s->at += a->point == s->at && s->at < UINT32_MAX;
	}
	if (s->has_next && s->next < s->at)
		s->has_next = false;
	for (size_t i = 0; i < c->reach.count; i++)
		if (c->reach.items[i].point > s->last)
			offer(s, &c->reach.items[i]);
}

static int settle(struct checker *c, struct suspect *s)
{
	look_again(c, s);
	bool harms = s->at <= s->last && seek_image(c, s->first) > 0;
	if (s->damage == VERIFY_NO_DAMAGE && harms)
		s->damage = verify_log_damaged(c, s->object, s->problem);
	if (s->damage == VERIFY_NO_DAMAGE) {
		verify_warn(c->v, "%s: %s; no instant is lost by it", s->object, s->problem);
		return 0;
	}
	auto_free char *text = s->at <= s->last ?
	    lost_text(c, s) :
	    im_format("%s/%s: no instant is lost: other segments or a snapshot give the same points", c->node, c->store);
	if (!text)
		return verify_log_no_memory(c);
	verify_damage_path(c->v, s->damage, text);
	return 0;
}

int verify_log_settle(struct checker *c, uint64_t first)
{
	size_t kept = 0;
	int rc = 0;
	for (size_t i = 0; i < c->suspect_count; i++) {
		struct suspect *s = &c->suspects[i];
		if (s->last >= first) {
			c->suspects[kept++] = *s;
			continue;
		}
		rc = rc ? rc : settle(c, s);
		free(s->object);
		free(s->problem);
	}
	c->suspect_count = kept;
	return rc;
}

void verify_log_offer(struct checker *c, const struct log_end *e)
{
	for (size_t i = 0; i < c->suspect_count; i++)
		offer(&c->suspects[i], e);
}
