/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging: it gives what applying one by one gives, however points were written, and refuses what
 * does not follow one another.
 */
#include "stores/sqlite/logmerge.h"

#include "fixture.h"
#include "log_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SMALL 512u

#define MAX_PARTS 200

struct log { /* bodies in order */
	struct im_buf parts[MAX_PARTS];
	size_t count;
	bool ended;
};

static void log_clear(struct log *l)
{
	for (size_t i = 0; i < MAX_PARTS; i++)
		im_buf_free(&l->parts[i]);
	*l = (struct log){ 0 };
}

static int take_part(void *context, const void *data, size_t len, bool final, struct im_error *err)
{
	struct log *l = context;
	(void)err;
	assert_true(l->count < MAX_PARTS && !l->ended);
	im_buf_put(&l->parts[l->count++], data, len);
	l->ended = final;
	return 0;
}

static int merge(const struct log *l, uint32_t after, uint32_t until, struct log *ret, struct im_error *err)
{
	struct follow_source sources[MAX_PARTS];
	for (size_t i = 0; i < l->count; i++)
		sources[i] = logbody_memory(&l->parts[i]);
	return logmerge_run(sources, l->count, after, until, take_part, ret, err);
}

static void db_apply_log(struct log_rig_db *db, const struct log *l)
{
	for (size_t i = 0; i < l->count; i++)
		log_rig_apply(db, &l->parts[i]);
}

/* A log of segments with `points` points each, and the database before (copy) and after it. */
static void make_log(struct log *l, struct log_rig_db *db, struct log_rig_db *copy, uint32_t page_size, size_t segments, unsigned points)
{
	struct logbody_writer *w = log_rig_writer(page_size);
	log_rig_start(db, page_size, 100);
	log_rig_start(copy, page_size, 100);
	for (size_t i = 0; i < segments; i++) {
		for (unsigned k = 0; k < points; k++)
			log_rig_write(db, w, 1 + log_rig_random(60), log_rig_random(3) ? db->pages : 60 + log_rig_random(100));
		log_rig_finish(w, &l->parts[l->count++]);
	}
	logbody_writer_free(w);
}

static void run__equals_applying_one_after_the_other(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db, copy;
	struct im_error err = { 0 };
	(void)state;
	for (unsigned round = 0; round < 24; round++) {
		log_rig_seed(round);
		make_log(&l, &db, &copy, 512u << round % 8, 1 + round, 1 + round % 4);
		assert_ok(merge(&l, 0, UINT32_MAX, &merged, &err), &err);
		assert_true(merged.ended);
		db_apply_log(&copy, &merged);
		log_rig_assert_same(&db, &copy);
		struct logbody *b = log_rig_open(&merged.parts[0]);
		struct logbody_section s = log_rig_section(&db);
		assert_int_equal(logbody_section_count(b), 1);
		assert_memory_equal(logbody_section_at(b, 0)->sum, s.sum, sizeof s.sum);
		assert_int_equal(logbody_section_at(b, 0)->latest_ms, s.latest_ms);
		logbody_free(b);
		log_clear(&l);
		log_clear(&merged);
		free(db.data);
		free(copy.data);
	}
}

static void run__merges_thousands_of_points(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db, copy;
	struct im_error err = { 0 };
	struct logbody_writer *w = log_rig_writer(SMALL);
	(void)state;
	log_rig_seed(1);
	log_rig_start(&db, SMALL, 200);
	log_rig_start(&copy, SMALL, 200);
	while (l.count < 150) {
		for (unsigned k = 0; k < 20; k++)
			log_rig_write(&db, w, 100, log_rig_random(9) ? db.pages : 150 + log_rig_random(100));
		log_rig_finish(w, &l.parts[l.count++]);
	}
	assert_ok(merge(&l, 0, UINT32_MAX, &merged, &err), &err);
	db_apply_log(&copy, &merged);
	log_rig_assert_same(&db, &copy);
	log_clear(&l);
	log_clear(&merged);
	free(db.data);
	free(copy.data);
	logbody_writer_free(w);
}

static void run__merges_what_was_merged(void **state)
{
	struct log l = { 0 }, halves = { 0 }, merged = { 0 };
	struct log_rig_db db, copy;
	struct im_error err = { 0 };
	(void)state;
	log_rig_seed(77);
	make_log(&l, &db, &copy, 1024, 40, 3);
	assert_ok(merge(&l, 0, 60, &halves, &err), &err);
	halves.ended = false;
	assert_ok(merge(&l, 60, UINT32_MAX, &halves, &err), &err);
	assert_ok(merge(&halves, 0, UINT32_MAX, &merged, &err), &err);
	db_apply_log(&copy, &merged);
	log_rig_assert_same(&db, &copy);
	log_clear(&l);
	log_clear(&halves);
	log_clear(&merged);
	free(db.data);
	free(copy.data);
}

static void run__takes_only_the_points_asked_for(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db, copy, middle;
	struct im_error err = { 0 };
	struct logbody_writer *w = log_rig_writer(SMALL);
	(void)state;
	log_rig_seed(3);
	log_rig_start(&db, SMALL, 100);
	log_rig_start(&copy, SMALL, 100);
	log_rig_start(&middle, SMALL, 100);
	for (unsigned i = 1; i <= 9; i++) {
		log_rig_write(&db, w, 3, 100 + i);
		if (i == 4)
			memcpy(copy.data, db.data, (size_t)db.pages * SMALL);
		if (i == 7) {
			memcpy(middle.data, db.data, (size_t)db.pages * SMALL);
			middle.pages = db.pages;
			middle.point = 7;
		}
		if (i % 3 == 0)
			log_rig_finish(w, &l.parts[l.count++]);
	}
	assert_ok(merge(&l, 4, 7, &merged, &err), &err);
	db_apply_log(&copy, &merged);
	log_rig_assert_same(&middle, &copy);
	log_clear(&merged);
	assert_int_equal(merge(&l, 9, UINT32_MAX, &merged, NULL), IM_ENOTFOUND);
	assert_int_equal(merge(&l, 5, 5, &merged, NULL), IM_ENOTFOUND);
	assert_int_equal(merge(&merged, 0, UINT32_MAX, &merged, NULL), IM_ENOTFOUND);
	log_clear(&l);
	free(db.data);
	free(copy.data);
	free(middle.data);
	logbody_writer_free(w);
}

/* A point that changes the pages [from, to), all with bases or all without. */
static void write_range(struct log_rig_db *db, struct logbody_writer *w, uint32_t from, uint32_t to, bool has_base, uint32_t pages)
{
	struct im_error err = { 0 };
	uint8_t old[SMALL];
	for (uint32_t page = from; page < to; page++) {
		memcpy(old, log_rig_page(db, page), SMALL);
		log_rig_edit(log_rig_page(db, page), SMALL);
		assert_ok(logbody_put(w, page, has_base ? old : NULL, log_rig_page(db, page), &err), &err);
	}
	db->pages = pages;
	db->point++;
	struct logbody_section s = log_rig_section(db);
	assert_ok(logbody_end_section(w, &s, &err), &err);
}

static void run__drops_pages_beyond_the_end(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db;
	struct logbody_record r;
	struct im_error err = { 0 };
	struct logbody_writer *w = log_rig_writer(SMALL);
	(void)state;
	log_rig_start(&db, SMALL, 100);
	write_range(&db, w, 40, 100, true, 100);
	write_range(&db, w, 0, 1, true, 50);
	log_rig_finish(w, &l.parts[l.count++]);
	assert_ok(merge(&l, 0, UINT32_MAX, &merged, &err), &err);
	struct logbody *b = log_rig_open(&merged.parts[0]);
	struct logbody_cursor *c = log_rig_cursor(b);
	assert_int_equal(logbody_section_at(b, 0)->records, 11);
	assert_true(log_rig_next(c, &r) && r.page == 0);
	for (uint32_t page = 40; page < 50; page++)
		assert_true(log_rig_next(c, &r) && r.page == page);
	assert_false(log_rig_next(c, &r));
	logbody_cursor_free(c);
	logbody_free(b);
	log_clear(&l);
	log_clear(&merged);
	free(db.data);
	logbody_writer_free(w);
}

static void run__lets_a_page_come_back(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db, copy;
	struct im_error err = { 0 };
	struct logbody_writer *w = log_rig_writer(SMALL);
	(void)state;
	log_rig_start(&db, SMALL, 100);
	log_rig_start(&copy, SMALL, 100);
	write_range(&db, w, 40, 100, true, 100);
	write_range(&db, w, 0, 1, true, 50);
	write_range(&db, w, 50, 100, false, 100);
	write_range(&db, w, 60, 70, true, 100);
	log_rig_finish(w, &l.parts[l.count++]);
	assert_ok(merge(&l, 0, UINT32_MAX, &merged, &err), &err);
	memset(log_rig_page(&copy, 50), 0xee, 50 * SMALL); /* what was there does not matter */
	db_apply_log(&copy, &merged);
	log_rig_assert_same(&db, &copy);
	log_clear(&l);
	log_clear(&merged);
	free(db.data);
	free(copy.data);
	logbody_writer_free(w);
}

static void run__refuses_changes_of_vanished_pages(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db;
	struct logbody_writer *w = log_rig_writer(SMALL);
	(void)state;
	log_rig_start(&db, SMALL, 100);
	write_range(&db, w, 40, 100, true, 100);
	write_range(&db, w, 0, 1, true, 50);
	write_range(&db, w, 60, 70, true, 100);
	log_rig_finish(w, &l.parts[l.count++]);
	assert_int_equal(merge(&l, 0, UINT32_MAX, &merged, NULL), IM_ECORRUPT);
	assert_int_equal(merge(&l, 1, UINT32_MAX, &merged, NULL), IM_ECORRUPT);
	log_clear(&l);
	log_clear(&merged);
	free(db.data);
	logbody_writer_free(w);
}

/* Pages of noise, so that one change takes several parts. */
static void make_large(struct log *l, struct log_rig_db *db, struct log_rig_db *copy)
{
	struct im_error err = { 0 };
	struct logbody_writer *w = log_rig_writer(65536);
	log_rig_start(db, 65536, 700);
	log_rig_start(copy, 65536, 700);
	for (unsigned i = 0; i < 3; i++) {
		db->point++;
		struct logbody_section s = log_rig_section(db);
		for (uint32_t page = i; page < 700; page += 2) {
			uint8_t *p = log_rig_page(db, page);
			for (uint32_t k = 0; k < 65536; k += 4)
				im_put_le32(p + k, log_rig_random(UINT32_MAX));
			if (logbody_size(w) >= LOGBODY_PART_BYTES)
				assert_ok(logbody_cut_part(w, &s, page, &l->parts[l->count++], &err), &err);
			assert_ok(logbody_put(w, page, NULL, p, &err), &err);
		}
		assert_ok(logbody_end_section(w, &s, &err), &err);
		log_rig_finish(w, &l->parts[l->count++]);
	}
	logbody_writer_free(w);
}

static void run__reads_and_makes_parts(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db, copy;
	struct im_error err = { 0 };
	(void)state;
	log_rig_seed(5);
	make_large(&l, &db, &copy);
	assert_ok(merge(&l, 0, UINT32_MAX, &merged, &err), &err);
	assert_true(merged.count > 3 && merged.count < l.count);
	for (size_t i = 0; i < merged.count; i++)
		assert_true(merged.parts[i].len < LOGBODY_PART_BYTES + (1u << 18));
	db_apply_log(&copy, &merged);
	log_rig_assert_same(&db, &copy);
	log_clear(&merged);
	assert_ok(merge(&l, 1, 2, &merged, &err), &err);
	assert_true(merged.ended);
	log_clear(&l);
	log_clear(&merged);
	free(db.data);
	free(copy.data);
}

static void run__refuses_missing_parts_and_wrong_order(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db, copy;
	(void)state;
	log_rig_seed(5);
	make_large(&l, &db, &copy);
	struct follow_source sources[MAX_PARTS];
	for (size_t i = 0; i < l.count; i++)
		sources[i] = logbody_memory(&l.parts[i]);
	assert_int_equal(logmerge_run(sources + 1, l.count - 1, 0, UINT32_MAX, take_part, &merged, NULL), IM_ECORRUPT);
	assert_int_equal(logmerge_run(sources, l.count - 1, 0, UINT32_MAX, take_part, &merged, NULL), IM_ECORRUPT);
	struct follow_source first = sources[0];
	sources[0] = sources[1];
	assert_int_equal(logmerge_run(sources, l.count, 0, UINT32_MAX, take_part, &merged, NULL), IM_ECORRUPT);
	sources[0] = first;
	sources[1] = first;
	assert_int_equal(logmerge_run(sources, l.count, 0, UINT32_MAX, take_part, &merged, NULL), IM_ECORRUPT);
	assert_int_equal(merged.count, 0);
	log_clear(&l);
	free(db.data);
	free(copy.data);
}

static void run__refuses_points_twice(void **state)
{
	struct log l = { 0 }, merged = { 0 };
	struct log_rig_db db, copy;
	struct follow_source twice[2];
	(void)state;
	log_rig_seed(5);
	make_log(&l, &db, &copy, SMALL, 1, 2);
	twice[0] = twice[1] = logbody_memory(&l.parts[0]);
	assert_int_equal(logmerge_run(twice, 2, 0, UINT32_MAX, take_part, &merged, NULL), IM_ECORRUPT);
	log_clear(&l);
	free(db.data);
	free(copy.data);
}

static int refuse_part(void *context, const void *data, size_t len, bool final, struct im_error *err)
{
	(void)context;
	(void)data;
	(void)len;
	(void)final;
	return im_fail(err, IM_ENOSPACE, "no");
}

static void run__passes_on_what_part_says(void **state)
{
	struct log l = { 0 };
	struct log_rig_db db, copy;
	(void)state;
	log_rig_seed(5);
	make_log(&l, &db, &copy, SMALL, 1, 2);
	struct follow_source source = logbody_memory(&l.parts[0]);
	assert_int_equal(logmerge_run(&source, 1, 0, UINT32_MAX, refuse_part, NULL, NULL), IM_ENOSPACE);
	log_clear(&l);
	free(db.data);
	free(copy.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(run__equals_applying_one_after_the_other),
		cmocka_unit_test(run__merges_thousands_of_points),
		cmocka_unit_test(run__merges_what_was_merged),
		cmocka_unit_test(run__takes_only_the_points_asked_for),
		cmocka_unit_test(run__drops_pages_beyond_the_end),
		cmocka_unit_test(run__lets_a_page_come_back),
		cmocka_unit_test(run__refuses_changes_of_vanished_pages),
		cmocka_unit_test(run__reads_and_makes_parts),
		cmocka_unit_test(run__refuses_missing_parts_and_wrong_order),
		cmocka_unit_test(run__refuses_points_twice),
		cmocka_unit_test(run__passes_on_what_part_says),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
