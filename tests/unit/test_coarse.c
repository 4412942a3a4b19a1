/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Minutes and hours of the log: which fine segments they cover, how they hang in the chain, and that
 * the scratch behind them is bounded, private and never holds up the log itself.
 */
#include "backup/coarse.h"
#include "backup/scratch.h"

#include "base/file.h"
#include "fake_source.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EPOCH "0123456789abcdef0123"

struct bench {
	struct fixture f;
	char folder[128];
	struct spool *spool;
	struct coarse *coarse;
	struct spool_head head;
	uint8_t before[4000][32]; /* hash of the fine segment that ends at point */
	unsigned complaints;
};

static void on_warn(void *context, const char *text)
{
	(void)text;
	((struct bench *)context)->complaints++;
}

static void start(struct bench *b, const struct store_follow_ops *ops, uint64_t limit)
{
	struct im_error err = { 0 };
	bool lost;
	char why[256];
	memset(b, 0, sizeof *b);
	fixture_start(&b->f);
	snprintf(b->folder, sizeof b->folder, "%s/follow", b->f.dir);
	assert_int_equal(mkdir(b->folder, 0700), 0);
	assert_ok(spool_open(b->folder, "im-01", "chat", &b->spool, &b->head, &lost, why, &err), &err);
	const struct coarse_request q = { .ops = ops, .keyring = b->f.node->keyring, .spool = b->spool, .folder = b->folder, .node = "im-01",
		.store = "chat", .type = "sqlite", .limit_bytes = limit, .minute_ms = 60000, .hour_minutes = 4, .warn = on_warn, .context = b };
	assert_ok(coarse_start(&q, &b->coarse, &err), &err);
	strcpy(b->head.epoch, EPOCH);
}

static void stop(struct bench *b)
{
	coarse_stop(b->coarse);
	spool_close(b->spool);
	spool_head_clear(&b->head);
	fixture_stop(&b->f);
}

/* A fine segment of one point, `seconds` after the one before; its hash is made up. */
static void feed(struct bench *b, int64_t seconds, size_t filler)
{
	struct follow_body body = { 0 };
	struct log_point point;
	uint8_t prev[32];
	char text[32];
	memcpy(prev, b->head.hash, 32);
	b->head.first = ++b->head.point;
	b->head.complete_ms = b->head.complete_ms ? b->head.complete_ms + seconds * 1000 : 1700000000000;
	b->head.latest_ms = b->head.complete_ms + 1;
	fill_bytes(b->head.hash, 32, b->head.point);
	memcpy(b->before[b->head.point], b->head.hash, 32);
	json_decref(b->head.position);
	b->head.position = json_pack("{s:i}", "at", (int)b->head.point);
	point = (struct log_point){ b->head.complete_ms, b->head.latest_ms };
	snprintf(text, sizeof text, "%u ", (unsigned)b->head.point);
	im_buf_put(&body.data, text, strlen(text));
	if (filler)
		memset(im_buf_grow(&body.data, filler), '.', filler);
	struct follow_batch batch = { .parts = &body, .part_count = 1, .points = &point, .point_count = 1, .position = b->head.position, .bytes = 10, .commits = 1 };
	coarse_feed(b->coarse, &b->head, prev, &batch);
	im_buf_free(&body.data);
}

static void wait_for_objects(struct bench *b, size_t count)
{
	for (int i = 0; i < 2000 && spool_count(b->spool) < count; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	assert_int_equal(spool_count(b->spool), count);
}

/* The next object, checked as a reader would. */
static struct log_segment *next(struct bench *b, char text[64])
{
	auto_buf struct im_buf data = { 0 };
	struct spool_item item;
	struct log_name name;
	struct log_segment *s = NULL;
	struct im_error err = { 0 };
	char *node;
	assert_true(spool_front(b->spool, &item));
	assert_ok(spool_read(b->spool, &item, &data, &err), &err);
	assert_true(log_name_parse(item.object, &name, &node));
	name.size_bytes = data.len;
	assert_ok(log_decode(b->f.restore->keyring, "im-01", &name, data.data, data.len, &s, &err), &err);
	snprintf(text, 64, "%.*s", (int)s->record.private_bytes.len, (const char *)s->record.private_bytes.data);
	log_name_clear(&name);
	free(node);
	spool_shipped(b->spool);
	return s;
}

static void expect(struct bench *b, unsigned level, uint32_t first, uint32_t last, const char *text)
{
	char got[64];
	struct log_segment *s = next(b, got);
	assert_int_equal(s->level, level);
	assert_int_equal(s->first, first);
	assert_int_equal(s->last, last);
	assert_string_equal(got, text);
	assert_true(s->has_ends && memcmp(s->ends, b->before[last], 32) == 0);
	assert_int_equal(s->has_prev, first > 1);
	if (first > 1)
		assert_memory_equal(s->prev, b->before[first - 1], 32);
	assert_int_equal(s->point_count, 1);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(s->record.meta, "position"), "at")), last);
	assert_int_equal(json_integer_value(json_object_get(s->record.meta, "commits")), last - first + 1);
	log_segment_free(s);
}

static void feed__minutes_become_hours(void **state)
{
	(void)state;
	struct bench b;
	start(&b, &fake_follow_ops, 64 << 20);
	for (int i = 0; i < 9; i++)
		feed(&b, 30, 0);
	wait_for_objects(&b, 5);
	expect(&b, 1, 1, 3, "1 2 3 ");
	expect(&b, 1, 4, 5, "4 5 ");
	expect(&b, 1, 6, 7, "6 7 ");
	expect(&b, 1, 8, 9, "8 9 ");
	expect(&b, 2, 1, 9, "1 2 3 4 5 6 7 8 9 ");
	feed(&b, 30, 0);
	feed(&b, 30, 0);
	wait_for_objects(&b, 1);
	expect(&b, 1, 10, 11, "10 11 ");
	assert_int_equal(b.complaints, 0);
	stop(&b);
}

static void feed__a_minute_of_one_segment_is_that_segment(void **state)
{
	(void)state;
	struct bench b;
	start(&b, &fake_follow_ops, 64 << 20);
	for (int i = 0; i < 5; i++)
		feed(&b, 60, 0); /* heartbeats */
	wait_for_objects(&b, 2); /* the first one begins the first minute */
	expect(&b, 1, 1, 2, "1 2 ");
	expect(&b, 2, 1, 5, "1 2 3 4 5 ");
	stop(&b);
}

static void anchor__cuts_minute_and_hour(void **state)
{
	(void)state;
	struct bench b;
	start(&b, &fake_follow_ops, 64 << 20);
	for (int i = 0; i < 6; i++)
		feed(&b, 30, 0);
	coarse_anchor(b.coarse); /* at point 6 */
	wait_for_objects(&b, 3);
	expect(&b, 1, 1, 3, "1 2 3 ");
	expect(&b, 1, 4, 5, "4 5 ");
	expect(&b, 2, 1, 6, "1 2 3 4 5 6 ");
	for (int i = 0; i < 3; i++)
		feed(&b, 30, 0);
	wait_for_objects(&b, 1);
	expect(&b, 1, 7, 9, "7 8 9 ");
	coarse_anchor(b.coarse);
	coarse_anchor(b.coarse); /* nothing in between */
	feed(&b, 1, 0);
	stop(&b);
}

static void restart__epochs_are_never_merged(void **state)
{
	(void)state;
	struct bench b;
	start(&b, &fake_follow_ops, 64 << 20);
	for (int i = 0; i < 4; i++)
		feed(&b, 30, 0);
	wait_for_objects(&b, 1);
	expect(&b, 1, 1, 3, "1 2 3 ");
	coarse_restart(b.coarse);
	spool_head_clear(&b.head);
	strcpy(b.head.epoch, "0123456789abcdef9999");
	for (int i = 0; i < 3; i++)
		feed(&b, 30, 0);
	wait_for_objects(&b, 1);
	expect(&b, 1, 1, 3, "1 2 3 ");
	stop(&b);
}

static void feed__what_does_not_fit_is_left_out(void **state)
{
	(void)state;
	struct bench b;
	start(&b, &fake_follow_ops, 1 << 20);
	feed(&b, 30, 0);
	feed(&b, 10, 2 << 20); /* larger than all of the scratch */
	for (int i = 0; i < 3; i++)
		feed(&b, 30, 0);
	wait_for_objects(&b, 1);
	expect(&b, 1, 3, 5, "3 4 5 "); /* nothing covers point 2 */
	for (int i = 0; i < 400; i++)
		feed(&b, 1, 100000); /* a minute is 6 MB */
	stop(&b);
}

static int merge_in_parts(const struct follow_source *bodies, size_t count, int (*part)(void *context, const void *data, size_t len, bool final,
    struct im_error *err), void *context, struct im_error *err)
{
	(void)bodies;
	(void)count;
	int rc = part(context, "a", 1, false, err);
	if (rc == 0)
		rc = part(context, "b", 1, false, err);
	return rc ? rc : part(context, "c", 1, true, err);
}

static void merge__several_parts_are_chained(void **state)
{
	(void)state;
	struct bench b;
	struct store_follow_ops ops = fake_follow_ops;
	uint8_t hash[32];
	char text[64];
	ops.merge = merge_in_parts;
	start(&b, &ops, 64 << 20);
	for (int i = 0; i < 3; i++)
		feed(&b, 30, 0);
	wait_for_objects(&b, 3);
	for (unsigned i = 0; i < 3; i++) {
		struct log_segment *s = next(&b, text);
		assert_int_equal(s->part, i);
		assert_int_equal(s->final, i == 2);
		assert_int_equal(text[0], 'a' + (int)i);
		if (i)
			assert_memory_equal(s->prev, hash, 32);
		memcpy(hash, s->hash, 32);
		log_segment_free(s);
	}
	stop(&b);
}

static int merge_fails(const struct follow_source *bodies, size_t count, int (*part)(void *context, const void *data, size_t len, bool final,
    struct im_error *err), void *context, struct im_error *err)
{
	(void)bodies;
	(void)count;
	(void)part;
	(void)context;
	return im_fail(err, IM_ECORRUPT, "no");
}

static void merge__a_failure_is_said_and_forgotten(void **state)
{
	(void)state;
	struct bench b;
	struct store_follow_ops ops = fake_follow_ops;
	ops.merge = merge_fails;
	start(&b, &ops, 64 << 20);
	for (int i = 0; i < 7; i++)
		feed(&b, 30, 0);
	coarse_finish(b.coarse);
	assert_int_equal(spool_count(b.spool), 0);
	stop(&b);
}

/* --- the scratch --- */

static void scratch__reads_back_what_was_put(void **state)
{
	(void)state;
	char dir[] = "/tmp/imvault-scratch-XXXXXX";
	struct scratch *s;
	struct im_error err = { 0 };
	struct scratch_body bodies[40];
	assert_non_null(mkdtemp(dir));
	assert_ok(scratch_new(dir, 64 << 20, &s, &err), &err);
	for (size_t round = 0; round < 3; round++) {
		for (size_t i = 0; i < 40; i++) {
			size_t len = i * 3571 + round;
			uint8_t *data = malloc(len + 1);
			fill_bytes(data, len, i + round);
			assert_ok(scratch_put(s, data, len, &bodies[i], &err), &err);
			free(data);
		}
		for (size_t i = 0; i < 40; i++) {
			size_t len = i * 3571 + round;
			struct scratch_reader r = { .scratch = s, .body = &bodies[i] };
			uint8_t *data = malloc(len + 1), *got = malloc(len + 1);
			fill_bytes(data, len, i + round);
			assert_ok(scratch_read(&r, 0, got, len, &err), &err);
			assert_memory_equal(got, data, len);
			for (size_t at = 0; at + 100 < len; at += 4001) {
				assert_ok(scratch_read(&r, at, got, 100, &err), &err);
				assert_memory_equal(got, data + at, 100);
			}
			assert_int_equal(scratch_read(&r, len, got, 1, NULL), IM_ECORRUPT);
			scratch_reader_clear(&r);
			free(data);
			free(got);
		}
		for (size_t i = 0; i < 40; i++)
			scratch_drop(s, &bodies[(i * 7) % 40]);
		assert_int_equal(scratch_bytes(s), 0);
	}
	scratch_free(s);
	assert_int_equal(rmdir(dir), 0); /* it never had a name */
}

static void scratch__is_bounded(void **state)
{
	(void)state;
	char dir[] = "/tmp/imvault-scratch-XXXXXX", data[1000];
	struct scratch *s;
	struct im_error err = { 0 };
	struct scratch_body bodies[200];
	size_t n = 0;
	memset(data, 'x', sizeof data);
	assert_non_null(mkdtemp(dir));
	assert_ok(scratch_new(dir, 1 << 20, &s, &err), &err);
	while (n < 200 && scratch_put(s, data, sizeof data, &bodies[n], NULL) == 0)
		n++;
	assert_in_range(n, 50, 100);
	assert_true(scratch_bytes(s) <= 1 << 20);
	scratch_drop(s, &bodies[3]);
	assert_ok(scratch_put(s, data, sizeof data, &bodies[3], &err), &err);
	assert_int_equal(scratch_put(s, data, sizeof data, &bodies[n], NULL), IM_ENOSPACE);
	for (size_t i = 0; i < n; i++)
		scratch_drop(s, &bodies[i]);
	scratch_free(s);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(feed__minutes_become_hours),
		cmocka_unit_test(feed__a_minute_of_one_segment_is_that_segment),
		cmocka_unit_test(anchor__cuts_minute_and_hour),
		cmocka_unit_test(restart__epochs_are_never_merged),
		cmocka_unit_test(feed__what_does_not_fit_is_left_out),
		cmocka_unit_test(merge__several_parts_are_chained),
		cmocka_unit_test(merge__a_failure_is_said_and_forgotten),
		cmocka_unit_test(scratch__reads_back_what_was_put),
		cmocka_unit_test(scratch__is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
