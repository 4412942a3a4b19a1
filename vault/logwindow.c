/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names pass by in order; logreach says what follows what. Read are the first segment of an epoch
 * (why it began), those beside which its windows end, and those that look like a fork.
 */
#include "vault/logwindow.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "vault/logreach.h"

#include <stdlib.h>
#include <string.h>

#define MAX_RIVALS 64

/* --- images --- */

void log_images_clear(struct log_images *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->items[i].store);
	free(l->items);
	*l = (struct log_images){ 0 };
}

static int add_image(struct log_images *l, const char *store, const struct log_anchor *a, struct im_error *err)
{
	if (l->count == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		struct log_image *items = realloc(l->items, room * sizeof *items);
		if (!items)
			return im_fail(err, IM_ENOMEM, "out of memory");
		l->items = items;
		l->room = room;
	}
	struct log_image *image = &l->items[l->count];
	*image = (struct log_image){ .store = strdup(store), .anchor = *a };
	image->anchor.sum = NULL;
	if (!image->store)
		return im_fail(err, IM_ENOMEM, "out of memory");
	l->count++;
	return 0;
}

int log_images_take(struct log_images *l, const struct snapshot *s, struct im_error *err)
{
	size_t i;
	json_t *row;
	int rc = 0;
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, row) {
		const char *name = json_string_value(json_object_get(row, "name"));
		struct log_anchor a;
		if (rc == 0 && name && log_anchor_read(row, &a))
			rc = add_image(l, name, &a, err);
	}
	return rc;
}

static int by_place(const void *a, const void *b)
{
	const struct log_image *x = a, *y = b;
	int c = strcmp(x->store, y->store);
	if (c == 0)
		c = strcmp(x->anchor.epoch, y->anchor.epoch);
	if (c == 0)
		c = (x->anchor.point > y->anchor.point) - (x->anchor.point < y->anchor.point);
	return c ? c : (x->anchor.complete_ms > y->anchor.complete_ms) - (x->anchor.complete_ms < y->anchor.complete_ms);
}

/* --- one epoch, name by name --- */

struct rival { /* of several segments that begin at the same point: which are fine? */
	char *object, *other;
	uint32_t first, last;
};

struct look {
	struct storage *storage;
	const struct keyring *keyring;
	const char *node;
	struct log_image *images; /* of this epoch */
	size_t image_count, next_image;
	struct log_window *window;
	struct log_reach reach;
	/* The segment whose parts pass by: */
	char *head, *final;       /* objects: its part 0, its last part once that is whole */
	uint32_t first, last, parts;
	int64_t latest_ms;
	/* The one that began last: */
	char *before;
	uint32_t before_first, before_last;
	struct rival rivals[MAX_RIVALS];
	size_t rival_count;
	char *beginning;          /* the epoch's first segment */
	struct im_error *err;
};

static void look_clear(struct look *l)
{
	log_reach_clear(&l->reach);
	for (size_t i = 0; i < l->rival_count; i++) {
		free(l->rivals[i].object);
		free(l->rivals[i].other);
	}
	free(l->head);
	free(l->final);
	free(l->before);
	free(l->beginning);
}

static int set_text(char **text, const char *value, struct im_error *err)
{
	free(*text);
	*text = value ? strdup(value) : NULL;
	return value && !*text ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

/* *ret NULL: it cannot be read. */
static int read_segment(const struct look *l, const char *object, struct log_segment **ret, struct im_error *err)
{
	struct log_name n;
	struct im_error why = { 0 };
	*ret = NULL;
	if (!object || !log_name_parse(object, &n, NULL))
		return 0;
	int rc = log_read(l->storage, l->keyring, l->node, &n, ret, &why);
	log_name_clear(&n);
	return rc == 0 || rc == IM_ECORRUPT || rc == IM_ENOTFOUND || rc == IM_EKEY ? 0 : im_fail(err, (enum im_code)rc, "%s", why.text);
}

/* The complete_ms of an end: names tell latest_ms only. */
static int end_ms(const struct look *l, const struct log_end *e, int64_t *ret_ms, struct im_error *err)
{
	struct log_segment *s = NULL;
	int rc = read_segment(l, e->object, &s, err);
	*ret_ms = s ? s->points[s->point_count - 1].complete_ms : e->ms;
	log_segment_free(s);
	return rc;
}

static int add_hole(struct look *l, const struct log_end *from, const struct log_image *to, bool at_end)
{
	struct log_window *w = l->window;
	struct log_hole *holes = realloc(w->holes, (w->hole_count + 1) * sizeof *holes);
	if (!holes)
		return im_fail(l->err, IM_ENOMEM, "out of memory");
	w->holes = holes;
	holes[w->hole_count] = (struct log_hole){ .from = from->point, .to = to->anchor.point, .to_ms = to->anchor.complete_ms, .at_end = at_end };
	return end_ms(l, from, &holes[w->hole_count++].from_ms, l->err);
}

/* Images before this point: from there on things can be reached, whatever was before. */
static int pass_images(struct look *l, uint64_t before, bool at_end)
{
	int rc = 0;
	while (rc == 0 && l->next_image < l->image_count && l->images[l->next_image].anchor.point < before) {
		const struct log_image *image = &l->images[l->next_image++];
		const struct log_end *far = log_reach_furthest(&l->reach);
		const struct log_end end = { .point = image->anchor.point, .from = image->anchor.point, .ms = image->anchor.complete_ms };
		if (far && far->point < image->anchor.point)
			rc = add_hole(l, far, image, at_end);
		if (rc == 0)
			rc = log_reach_put(&l->reach, &end, l->err);
	}
	return rc;
}

/* Both fine: a fork. *ret_coarse: the object is coarse, so it says nothing about others. */
static int judge_rivals(struct look *l, const struct rival *r, bool *ret_coarse)
{
	struct log_segment *a = NULL, *b = NULL;
	int rc = read_segment(l, r->object, &a, l->err);
	if (rc == 0)
		rc = read_segment(l, r->other, &b, l->err);
	if (rc == 0 && a && b && a->level == 0 && b->level == 0)
		l->window->forked = true;
	*ret_coarse = rc == 0 && a && a->level > 0;
	log_segment_free(a);
	log_segment_free(b);
	return rc;
}

static void forget_rival(struct look *l, size_t i)
{
	free(l->rivals[i].object);
	free(l->rivals[i].other);
	l->rivals[i] = l->rivals[--l->rival_count];
}

/* A segment [first, last] begins. Whatever a rival covers and shorter ones end with as well is coarse. */
static int settle_rivals(struct look *l, uint64_t first, uint32_t last)
{
	int rc = 0;
	for (size_t i = l->rival_count; rc == 0 && i-- > 0;) {
		struct rival *r = &l->rivals[i];
		bool coarse = first > r->first && last == r->last, ignored;
		if (!coarse && first <= r->last)
			continue;
		if (!coarse && !l->window->forked)
			rc = judge_rivals(l, r, &ignored);
		forget_rival(l, i);
	}
	return rc;
}

static int add_rival(struct look *l, const struct log_name *n, bool *ret_coarse)
{
	struct rival r = { .first = n->first, .last = n->last };
	if (l->window->forked || l->rival_count == MAX_RIVALS)
		return 0;
	int rc = set_text(&r.object, n->object, l->err);
	if (rc == 0)
		rc = set_text(&r.other, l->before, l->err);
	if (rc == 0 && n->last == l->before_last)
		rc = judge_rivals(l, &r, ret_coarse);
	else if (rc == 0) {
		l->rivals[l->rival_count++] = r;
		return 0;
	}
	free(r.object);
	free(r.other);
	return rc;
}

/* All parts of the segment have passed by. */
static int end_segment(struct look *l)
{
	const struct log_end end = { .point = l->last, .from = l->last, .from_ms = l->latest_ms, .ms = l->latest_ms, .object = l->final };
	bool reached;
	if (!l->final)
		return 0;
	int rc = log_reach_add(&l->reach, l->first, &end, &reached, l->err);
	l->window->segments++;
	l->window->points = l->last > l->window->points ? l->last : l->window->points;
	return rc ? rc : set_text(&l->final, NULL, l->err);
}

static int begin_segment(struct look *l, const struct log_name *n)
{
	int rc = end_segment(l);
	if (rc == 0)
		rc = settle_rivals(l, n->first, n->last);
	if (rc == 0)
		rc = pass_images(l, n->first, false);
	log_reach_trim(&l->reach, n->first);
	l->first = n->first;
	l->last = n->last;
	l->latest_ms = n->latest_ms;
	l->parts = 0;
	if (rc == 0)
		rc = set_text(&l->head, NULL, l->err);
	return rc;
}

static int take_head(struct look *l, const struct log_name *n)
{
	bool coarse = false; /* then the next of the same range is compared with the one before */
	int rc = l->before && l->before_first == n->first ? add_rival(l, n, &coarse) : 0;
	if (rc == 0)
		rc = set_text(&l->head, n->object, l->err);
	if (rc == 0 && !coarse)
		rc = set_text(&l->before, n->object, l->err);
	if (rc == 0 && n->first == 1 && !l->beginning)
		rc = set_text(&l->beginning, n->object, l->err);
	l->before_first = n->first;
	l->before_last = n->last;
	return rc;
}

static int take_name(void *context, const char *object, uint64_t size_bytes)
{
	struct look *l = context;
	struct log_name n;
	if (!log_name_parse(object, &n, NULL))
		return 0;
	int rc = im_interrupt_check(l->err);
	l->window->bytes += size_bytes;
	if (rc == 0 && (n.first != l->first || n.last != l->last))
		rc = begin_segment(l, &n);
	if (rc == 0 && n.part == 0)
		rc = take_head(l, &n);
	if (n.part == l->parts)
		l->parts++;
	if (rc == 0 && n.final && n.part + 1 == l->parts && l->head)
		rc = set_text(&l->final, n.object, l->err);
	log_name_clear(&n);
	return rc;
}

/* --- what an epoch says of itself --- */

/* A damaged segment at the end: as far as a restore would get. */
static int plan_end(struct look *l, const char *store, int64_t *ret_ms, struct im_error *err)
{
	struct log_route r;
	int rc = log_route_open(l->storage, l->keyring, l->node, store, &l->images[l->image_count - 1].anchor, &r, err);
	if (rc)
		return rc;
	rc = log_route_plan(&r, INT64_MAX, err);
	*ret_ms = r.reached.complete_ms;
	log_route_clear(&r);
	return rc;
}

static int find_end(struct look *l, struct im_error *err)
{
	struct log_window *w = l->window;
	const struct log_end *far = log_reach_furthest(&l->reach);
	struct log_segment *s = NULL;
	if (!l->image_count || !far)
		return 0;
	w->restorable = true;
	w->from_ms = l->images[0].anchor.complete_ms;
	if (!far->object) {
		w->to_ms = far->ms;
		return 0;
	}
	int rc = read_segment(l, far->object, &s, err);
	if (rc == 0 && s)
		w->to_ms = s->points[s->point_count - 1].complete_ms;
	else if (rc == 0)
		rc = plan_end(l, w->store, &w->to_ms, err);
	log_segment_free(s);
	return rc;
}

static int find_gap(struct look *l, const struct log_window *before, struct im_error *err)
{
	struct log_window *w = l->window;
	struct log_segment *s = NULL;
	int rc = read_segment(l, l->beginning, &s, err);
	json_t *began = s ? json_object_get(s->record.meta, "began") : NULL, *after = json_object_get(began, "after");
	const char *reason = json_string_value(json_object_get(began, "reason")), *epoch = json_string_value(json_object_get(after, "epoch"));
	if (rc == 0)
		rc = set_text(&w->reason, reason, err);
	bool follows = before && epoch && strcmp(before->epoch, epoch) == 0;
	json_int_t point = json_integer_value(json_object_get(after, "point"));
	w->has_before = before || after;
	w->gap_from_ms = json_integer_value(json_object_get(after, "complete_ms"));
	w->has_gap_from = json_is_integer(json_object_get(after, "complete_ms"));
	/* what did not get into the vault, or is no longer in it, is missing as well */
	if (before && before->restorable && (!follows || before->points < point)) {
		w->gap_from_ms = before->to_ms;
		w->has_gap_from = true;
	}
	w->has_gap_to = w->restorable;
	w->gap_to_ms = w->from_ms;
	for (size_t i = 0; i < l->image_count; i++)
		w->closed |= l->images[i].anchor.joined && follows && before->points >= point;
	log_segment_free(s);
	return rc;
}

static int look_at(struct look *l, const char *prefix, const struct log_window *before, struct im_error *err)
{
	l->err = err;
	int rc = storage_list(l->storage, prefix, take_name, l, err);
	if (rc == 0)
		rc = end_segment(l);
	if (rc == 0)
		rc = settle_rivals(l, UINT64_MAX, 0);
	if (rc == 0)
		rc = pass_images(l, UINT64_MAX, true);
	if (rc == 0)
		rc = find_end(l, err);
	return rc ? rc : find_gap(l, before, err);
}

/* --- all epochs of all stores --- */

struct walk {
	struct storage *storage;
	const struct keyring *keyring;
	const char *node, *store;
	struct log_images *images;
	struct log_windows windows;
	struct im_error *err;
};

static void window_clear(struct log_window *w)
{
	free(w->store);
	free(w->holes);
	free(w->reason);
}

void log_windows_clear(struct log_windows *w)
{
	for (size_t i = 0; i < w->count; i++)
		window_clear(&w->items[i]);
	free(w->items);
	*w = (struct log_windows){ 0 };
}

/* The last component of "…/NAME/". */
static char *folder_name(const char *folder)
{
	size_t len = strlen(folder);
	const char *end = folder + len - (len > 0), *begin = end;
	while (begin > folder && begin[-1] != '/')
		begin--;
	return strndup(begin, (size_t)(end - begin));
}

static void find_images(const struct walk *walk, struct look *l)
{
	const struct log_images *all = walk->images;
	for (size_t i = 0; i < all->count; i++) {
		if (strcmp(all->items[i].store, walk->store) != 0 || strcmp(all->items[i].anchor.epoch, l->window->epoch) != 0)
			continue;
		if (!l->image_count)
			l->images = &all->items[i];
		l->image_count++;
	}
}

static int take_epoch(void *context, const char *folder, uint64_t size_bytes)
{
	struct walk *walk = context;
	struct log_windows *all = &walk->windows;
	auto_free char *epoch = folder_name(folder);
	(void)size_bytes;
	if (!epoch || strlen(epoch) != LOG_EPOCH_CHARS || strspn(epoch, "0123456789abcdef") != LOG_EPOCH_CHARS)
		return epoch ? 0 : im_fail(walk->err, IM_ENOMEM, "out of memory");
	struct log_window *items = realloc(all->items, (all->count + 1) * sizeof *items);
	if (!items)
		return im_fail(walk->err, IM_ENOMEM, "out of memory");
	all->items = items;
	struct log_window *w = &items[all->count], *before = all->count && strcmp(w[-1].store, walk->store) == 0 ? w - 1 : NULL;
	*w = (struct log_window){ .store = strdup(walk->store) };
	if (!w->store)
		return im_fail(walk->err, IM_ENOMEM, "out of memory");
	memcpy(w->epoch, epoch, LOG_EPOCH_CHARS);
	all->count++;
	struct look l = { .storage = walk->storage, .keyring = walk->keyring, .node = walk->node, .window = w };
	find_images(walk, &l);
	int rc = look_at(&l, folder, before, walk->err);
	look_clear(&l);
	return rc;
}

static int take_store(void *context, const char *folder, uint64_t size_bytes)
{
	struct walk *walk = context;
	auto_free char *store = folder_name(folder);
	(void)size_bytes;
	if (!store)
		return im_fail(walk->err, IM_ENOMEM, "out of memory");
	if (!im_name_valid(store))
		return 0;
	walk->store = store;
	return storage_list_folders(walk->storage, folder, take_epoch, walk, walk->err);
}

int log_windows_read(struct storage *s, const struct keyring *k, const char *node, struct log_images *images, struct log_windows *ret, struct im_error *err)
{
	struct walk walk = { .storage = s, .keyring = k, .node = node, .images = images, .err = err };
	auto_free char *prefix = im_format("logs/%s/", node);
	if (images->count)
		qsort(images->items, images->count, sizeof *images->items, by_place);
	int rc = prefix ? storage_list_folders(s, prefix, take_store, &walk, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc) {
		log_windows_clear(&walk.windows);
		return rc;
	}
	*ret = walk.windows;
	return 0;
}
