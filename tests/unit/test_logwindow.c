/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery windows: what a log's names, its first and last segments and the images in it come to.
 */
#include "fixture.h"

#include "base/cleanup.h"
#include "vault/logwindow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#define T0 INT64_C(1700000000000)
#define EPOCH_A "018bcfe5680000000001"
#define EPOCH_B "018bcfe6000000000001"
#define POINTS 64

struct rig {
	struct fixture f;
	const char *epoch;
	uint8_t ends[POINTS][32];
	char objects[POINTS][200]; /* of the fine segment that ends at a point */
	json_t *after;             /* for the next epoch's beginning */
	struct log_images images;
	struct log_windows windows;
	struct im_error err;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	fixture_start(&r->f);
	r->epoch = EPOCH_A;
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	log_images_clear(&r->images);
	log_windows_clear(&r->windows);
	json_decref(r->after);
	fixture_stop(&r->f);
	free(r);
	return 0;
}

static int64_t complete_of(uint32_t point) { return T0 + point * 1000; }

static void put(struct rig *r, uint32_t first, uint32_t last, unsigned level, const char *body, uint8_t ret_hash[32])
{
	auto_buf struct im_buf object = { 0 };
	auto_free char *name = NULL;
	char hex[65];
	json_t *points = json_array();
	for (uint32_t i = level ? last : first; i <= last; i++)
		json_array_append_new(points, json_pack("[II]", (json_int_t)complete_of(i), (json_int_t)complete_of(i) + 10));
	json_t *meta = json_pack("{ss ss ss ss ss sI sI si sb si so s{}}", "kind", "segment", "node", "im-01", "store", "archive", "type", "sqlite",
	    "epoch", r->epoch, "first", (json_int_t)first, "last", (json_int_t)last, "part", 0, "final", 1, "level", (int)level, "points", points,
	    "position");
	if (first > 1)
		json_object_set_new(meta, "prev", json_string(im_hex(hex, r->ends[first - 1], 32)));
	else
		json_object_set_new(meta, "began", r->after ? json_pack("{ssso}", "reason", "it was away", "after", r->after) :
		                                              json_pack("{ss}", "reason", "first start"));
	r->after = first == 1 ? NULL : r->after;
	if (level)
		json_object_set_new(meta, "ends", json_string(im_hex(hex, r->ends[last], 32)));
	assert_ok(log_encode(r->f.node->keyring, meta, body, strlen(body), &object, ret_hash, &name, &r->err), &r->err);
	assert_ok(storage_put_object(r->f.node->storage, name, object.data, object.len, &r->err), &r->err);
	if (!level)
		snprintf(r->objects[last], sizeof r->objects[last], "%s", name);
	json_decref(meta);
}

static void fine(struct rig *r, uint32_t first, uint32_t last) { put(r, first, last, 0, "x", r->ends[last]); }

static void coarse(struct rig *r, uint32_t first, uint32_t last, unsigned level)
{
	uint8_t ignored[32];
	put(r, first, last, level, "y", ignored);
}

static void ten_fine(struct rig *r)
{
	for (uint32_t i = 1; i <= 10; i++)
		fine(r, i, i);
}

static void next_epoch(struct rig *r, uint32_t point)
{
	r->after = json_pack("{ss sI ss sI}", "epoch", EPOCH_A, "point", (json_int_t)point, "hash", "00", "complete_ms", (json_int_t)complete_of(point));
	r->epoch = EPOCH_B;
}

static void image(struct rig *r, const char *epoch, uint32_t point, bool joined)
{
	struct log_images *l = &r->images;
	if (!l->items)
		l->items = calloc(l->room = 16, sizeof *l->items);
	struct log_image *i = &l->items[l->count++];
	*i = (struct log_image){ .store = strdup("archive"),
		.anchor = { .point = point, .has_hash = true, .complete_ms = complete_of(point), .joined = joined } };
	strcpy(i->anchor.epoch, epoch);
}

static void harm(struct rig *r, uint32_t point, bool removed)
{
	auto_free char *path = NULL;
	assert_true(asprintf(&path, "%s/%s", r->f.vault_dir, r->objects[point]) > 0);
	assert_int_equal(removed ? unlink(path) : truncate(path, 200), 0);
}

static const struct log_window *look(struct rig *r, size_t count)
{
	log_windows_clear(&r->windows);
	assert_ok(log_windows_read(r->f.node->storage, r->f.node->keyring, "im-01", &r->images, &r->windows, &r->err), &r->err);
	assert_int_equal(r->windows.count, count);
	return r->windows.items;
}

static void windows__are_none_without_a_log(void **state)
{
	look(*state, 0);
}

static void windows__need_an_image(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	const struct log_window *w = look(r, 1);
	assert_false(w->restorable || w->has_before || w->closed || w->forked);
	assert_string_equal(w->reason, "first start");
	assert_int_equal(w->points, 10);
	assert_int_equal(w->segments, 10);
	assert_int_equal(w->hole_count, 0);
}

static void windows__go_from_the_first_image_to_the_last_point(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	coarse(r, 2, 9, 1);
	fine(r, 11, 15);
	image(r, EPOCH_A, 7, false);
	image(r, EPOCH_A, 3, false);
	const struct log_window *w = look(r, 1);
	assert_true(w->restorable && !w->forked);
	assert_int_equal(w->from_ms, complete_of(3));
	assert_int_equal(w->to_ms, complete_of(15));
	assert_int_equal(w->segments, 12);
	assert_int_equal(w->hole_count, 0);
}

static void windows__name_holes(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	image(r, EPOCH_A, 3, false);
	harm(r, 6, true);
	assert_int_equal(look(r, 1)->to_ms, complete_of(5));
	image(r, EPOCH_A, 8, false);
	const struct log_window *w = look(r, 1);
	assert_int_equal(w->to_ms, complete_of(10));
	assert_int_equal(w->hole_count, 1);
	assert_int_equal(w->holes[0].from_ms, complete_of(5));
	assert_int_equal(w->holes[0].to_ms, complete_of(8));
	assert_false(w->holes[0].at_end);
	coarse(r, 2, 10, 1); /* does not begin at the image */
	assert_int_equal(look(r, 1)->hole_count, 1);
	image(r, EPOCH_A, 1, false);
	assert_int_equal(look(r, 1)->hole_count, 0);
}

static void windows__know_what_is_on_its_way(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	image(r, EPOCH_A, 3, false);
	image(r, EPOCH_A, 20, false);
	const struct log_window *w = look(r, 1);
	assert_int_equal(w->to_ms, complete_of(20));
	assert_int_equal(w->hole_count, 1);
	assert_true(w->holes[0].at_end);
}

static void windows__end_before_a_damaged_last_segment(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	image(r, EPOCH_A, 3, false);
	harm(r, 10, false);
	assert_int_equal(look(r, 1)->to_ms, complete_of(9));
}

static void windows__tell_the_gap_between_epochs(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	image(r, EPOCH_A, 3, false);
	next_epoch(r, 10);
	fine(r, 1, 1);
	fine(r, 2, 20);
	const struct log_window *w = look(r, 2) + 1;
	assert_true(w->has_before && w->has_gap_from && !w->has_gap_to && !w->closed && !w->restorable);
	assert_string_equal(w->reason, "it was away");
	assert_int_equal(w->gap_from_ms, complete_of(10));
	image(r, EPOCH_B, 20, false);
	w = look(r, 2) + 1;
	assert_true(w->restorable && w->has_gap_to);
	assert_int_equal(w->gap_to_ms, complete_of(20));
	image(r, EPOCH_B, 20, true);
	assert_true(look(r, 2)[1].closed);
	r->epoch = EPOCH_A;
	harm(r, 10, true);
	assert_false(look(r, 2)[1].closed); /* what it joins is not there */
	assert_int_equal(look(r, 2)[1].gap_from_ms, complete_of(9));
}

static void windows__see_forks_but_not_in_coarse_segments(void **state)
{
	struct rig *r = *state;
	uint8_t ignored[32];
	ten_fine(r);
	image(r, EPOCH_A, 1, false);
	coarse(r, 2, 5, 1);
	coarse(r, 6, 9, 1);
	coarse(r, 2, 9, 2);
	coarse(r, 10, 10, 1);
	assert_false(look(r, 1)->forked);
	put(r, 10, 10, 0, "another", ignored);
	assert_true(look(r, 1)->forked);
}

static void windows__see_forks_of_other_lengths(void **state)
{
	struct rig *r = *state;
	uint8_t ignored[32];
	ten_fine(r);
	image(r, EPOCH_A, 1, false);
	put(r, 8, 12, 0, "another", ignored);
	assert_true(look(r, 1)->forked);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(windows__are_none_without_a_log),
		T(windows__need_an_image),
		T(windows__go_from_the_first_image_to_the_last_point),
		T(windows__name_holes),
		T(windows__know_what_is_on_its_way),
		T(windows__end_before_a_damaged_last_segment),
		T(windows__tell_the_gap_between_epochs),
		T(windows__see_forks_but_not_in_coarse_segments),
		T(windows__see_forks_of_other_lengths),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
