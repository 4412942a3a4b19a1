/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a database's log: page changes apply and compose exactly, bodies read as they were
 * written, and nothing impossible is believed.
 */
#include "stores/sqlite/logbody.h"

#include "fixture.h"
#include "log_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SMALL 512u

/* --- page changes --- */

struct change {
	struct im_buf control, literals;
	bool has_base;
};

static void change_clear(struct change *c)
{
	im_buf_free(&c->control);
	im_buf_free(&c->literals);
}

static struct pagediff_ops ops_of(const struct change *c)
{
	return (struct pagediff_ops){ c->has_base, c->control.data, c->literals.data, c->control.len, c->literals.len };
}

static struct change make(struct pagediff *d, const uint8_t *base, const uint8_t *page)
{
	struct change c = { .has_base = base != NULL };
	pagediff_make(d, base, page, &c.control, &c.literals);
	return c;
}

static void assert_gives(uint32_t page_size, const struct change *c, const uint8_t *base, const uint8_t *expected)
{
	auto_buf struct im_buf page = { 0 };
	struct im_error err = { 0 };
	struct pagediff_ops ops = ops_of(c);
	uint8_t *p = im_buf_grow(&page, page_size);
	assert_ok(pagediff_apply(page_size, &ops, c->has_base ? base : NULL, p, &err), &err);
	assert_memory_equal(p, expected, page_size);
}

static struct change compose(struct pagediff *d, const struct change *older, const struct change *newer)
{
	struct change c = { 0 };
	struct im_error err = { 0 };
	struct pagediff_ops a = ops_of(older), b = ops_of(newer);
	assert_ok(pagediff_compose(d, &a, &b, &c.control, &c.literals, &c.has_base, &err), &err);
	return c;
}

static struct pagediff *new_diff(uint32_t page_size)
{
	struct pagediff *d = NULL;
	struct im_error err = { 0 };
	assert_ok(pagediff_new(page_size, &d, &err), &err);
	return d;
}

static void apply__gives_the_page_of_which_the_change_was_made(void **state)
{
	static uint8_t base[65536], page[65536];
	(void)state;
	for (uint32_t size = 512; size <= 65536; size *= 2) {
		struct pagediff *d = new_diff(size);
		for (uint32_t round = 0; round < 60; round++) {
			log_rig_seed(size + round);
			fill_bytes(base, size, round);
			memcpy(page, base, size);
			log_rig_edit(page, size);
			struct change c = make(d, base, page), whole = make(d, NULL, page);
			assert_gives(size, &c, base, page);
			assert_gives(size, &whole, NULL, page);
			assert_int_equal(whole.literals.len, size);
			change_clear(&c);
			change_clear(&whole);
		}
		pagediff_free(d);
	}
}

static void make__finds_what_moved(void **state)
{
	uint8_t base[4096], page[4096];
	struct pagediff *d = new_diff(sizeof base);
	(void)state;
	fill_bytes(base, sizeof base, 1);
	memcpy(page, base, sizeof base);
	memmove(page + 100, page + 102, 3000); /* two bytes taken out */
	struct change c = make(d, base, page);
	assert_gives(sizeof base, &c, base, page);
	assert_true(c.literals.len < 32);
	assert_true(c.control.len < 32);
	change_clear(&c);
	pagediff_free(d);
}

static void compose__equals_applying_one_after_the_other(void **state)
{
	static uint8_t base[65536], page[65536], next[65536];
	(void)state;
	for (uint32_t size = 512; size <= 65536; size *= 2) {
		struct pagediff *d = new_diff(size);
		for (uint32_t round = 0; round < 6; round++) {
			log_rig_seed(3 * size + round);
			fill_bytes(base, size, round);
			memcpy(page, base, size);
			log_rig_edit(page, size);
			struct change all = make(d, base, page);
			for (unsigned i = 0; i < 40; i++) {
				memcpy(next, page, size);
				log_rig_edit(next, size);
				struct change step = make(d, page, next), both = compose(d, &all, &step);
				assert_gives(size, &both, base, next);
				change_clear(&all);
				change_clear(&step);
				all = both;
				memcpy(page, next, size);
			}
			change_clear(&all);
		}
		pagediff_free(d);
	}
}

static void compose__is_associative(void **state)
{
	uint8_t pages[4][1024];
	struct pagediff *d = new_diff(1024);
	(void)state;
	for (uint32_t round = 0; round < 200; round++) {
		struct change steps[3];
		log_rig_seed(round);
		fill_bytes(pages[0], 1024, round);
		for (unsigned i = 0; i < 3; i++) {
			memcpy(pages[i + 1], pages[i], 1024);
			log_rig_edit(pages[i + 1], 1024);
			steps[i] = make(d, pages[i], pages[i + 1]);
		}
		struct change left = compose(d, &steps[0], &steps[1]), right = compose(d, &steps[1], &steps[2]);
		struct change a = compose(d, &left, &steps[2]), b = compose(d, &steps[0], &right);
		assert_gives(1024, &a, pages[0], pages[3]);
		assert_gives(1024, &b, pages[0], pages[3]);
		change_clear(&left);
		change_clear(&right);
		change_clear(&a);
		change_clear(&b);
		for (unsigned i = 0; i < 3; i++)
			change_clear(&steps[i]);
	}
	pagediff_free(d);
}

static void compose__knows_when_no_base_is_left(void **state)
{
	uint8_t base[SMALL], page[SMALL], next[SMALL];
	struct pagediff *d = new_diff(SMALL);
	(void)state;
	fill_bytes(base, SMALL, 1);
	fill_bytes(page, SMALL, 2);
	memcpy(next, page, SMALL);
	next[7]++;
	struct change whole = make(d, NULL, page), step = make(d, page, next), from_base = make(d, base, page);
	struct change a = compose(d, &whole, &step), b = compose(d, &from_base, &whole);
	assert_false(a.has_base);
	assert_false(b.has_base);
	assert_gives(SMALL, &a, NULL, next);
	assert_gives(SMALL, &b, NULL, page);
	assert_int_equal(a.control.len, 2); /* literals have been joined */
	change_clear(&whole);
	change_clear(&step);
	change_clear(&from_base);
	change_clear(&a);
	change_clear(&b);
	pagediff_free(d);
}

static void compose__joins_copies(void **state)
{
	uint8_t base[4096], page[4096], next[4096];
	struct pagediff *d = new_diff(4096);
	(void)state;
	fill_bytes(base, 4096, 1);
	memcpy(page, base, 4096);
	fill_bytes(page + 1000, 8, 77);
	memcpy(next, base, 4096);
	struct change there = make(d, base, page), back = make(d, page, next), both = compose(d, &there, &back);
	assert_gives(4096, &both, base, base);
	assert_true(both.literals.len <= 8);
	assert_true(both.control.len <= there.control.len);
	change_clear(&there);
	change_clear(&back);
	change_clear(&both);
	pagediff_free(d);
}

static void measure__cuts_streams_into_changes(void **state)
{
	uint8_t pages[20][SMALL];
	size_t control_lens[20], literal_lens[20];
	struct pagediff *d = new_diff(SMALL);
	struct im_error err = { 0 };
	auto_buf struct im_buf control = { 0 }, literals = { 0 };
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		fill_bytes(pages[i], SMALL, 1);
		log_rig_seed(i);
		log_rig_edit(pages[i], SMALL);
		size_t c = control.len, l = literals.len;
		pagediff_make(d, i % 3 ? pages[i - 1] : NULL, pages[i], &control, &literals);
		control_lens[i] = control.len - c;
		literal_lens[i] = literals.len - l;
	}
	struct im_reader c = im_reader_of(control.data, control.len), l = im_reader_of(literals.data, literals.len);
	for (unsigned i = 0; i < 20; i++) {
		struct pagediff_ops ops;
		assert_ok(pagediff_measure(SMALL, i % 3 != 0, &c, &l, &ops, &err), &err);
		assert_int_equal(ops.control_len, control_lens[i]);
		assert_int_equal(ops.literals_len, literal_lens[i]);
	}
	assert_int_equal(im_read_left(&c) + im_read_left(&l), 0);
	pagediff_free(d);
}

#define BYTES(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

static void refuse_ops(bool has_base, const uint8_t *control, size_t control_len, size_t literals_len)
{
	static const uint8_t zeros[70000];
	uint8_t base[SMALL] = { 0 }, page[SMALL];
	struct pagediff_ops ops = { has_base, control, zeros, control_len, literals_len };
	assert_int_equal(pagediff_apply(SMALL, &ops, base, page, NULL), IM_ECORRUPT);
	struct pagediff *d = new_diff(SMALL);
	struct change same = make(d, base, base);
	struct pagediff_ops good = ops_of(&same);
	auto_buf struct im_buf c = { 0 }, l = { 0 };
	bool ret_has_base;
	assert_int_equal(pagediff_compose(d, &good, &ops, &c, &l, &ret_has_base, NULL), IM_ECORRUPT);
	assert_int_equal(pagediff_compose(d, &ops, &good, &c, &l, &ret_has_base, NULL), IM_ECORRUPT);
	assert_int_equal(c.len + l.len, 0);
	change_clear(&same);
	pagediff_free(d);
}

static void apply__refuses_what_cannot_be(void **state)
{
	(void)state;
	refuse_ops(true, BYTES(0), 0);                                 /* ends early */
	refuse_ops(true, BYTES(0x00, 0x80, 0x04), 0);
	refuse_ops(true, BYTES(0x81, 0x04), 513);                      /* more literals than page */
	refuse_ops(true, BYTES(0x80, 0x04), 511);                      /* fewer literals than said */
	refuse_ops(true, BYTES(0x80, 0x04), 513);                      /* more literals than said */
	refuse_ops(true, BYTES(0x80, 0x04, 0x00), 512);                /* something left over */
	refuse_ops(true, BYTES(0x00, 0x00, 0x00, 0x80, 0x04), 512);    /* an empty copy */
	refuse_ops(true, BYTES(0x00, 0x81, 0x04, 0x00), 0);            /* a copy beyond the page */
	refuse_ops(true, BYTES(0x00, 0x80, 0x04, 0x02), 0);            /* a copy from beyond the base */
	refuse_ops(true, BYTES(0x00, 0x80, 0x04, 0x01), 0);            /* a copy from before it */
	refuse_ops(true, BYTES(0x00, 0x80, 0x04, 0xff, 0xff, 0xff, 0xff, 0x0f), 0);
	refuse_ops(true, BYTES(0x80, 0x84, 0x80, 0x80, 0x10), 512);    /* more than 32 bits */
	refuse_ops(true, BYTES(0x80, 0x84, 0x80, 0x80, 0x80, 0x00), 512);
	refuse_ops(false, BYTES(0x00, 0x80, 0x04, 0x00), 0);           /* a copy without a base */
	refuse_ops(false, BYTES(0x80, 0x02, 0x80, 0x02, 0x00), 256);
}

static void apply__refuses_a_missing_base(void **state)
{
	uint8_t page[SMALL] = { 0 };
	struct pagediff *d = new_diff(SMALL);
	struct change c = make(d, page, page);
	struct pagediff_ops ops = ops_of(&c);
	(void)state;
	assert_int_equal(pagediff_apply(SMALL, &ops, NULL, page, NULL), IM_ECORRUPT);
	change_clear(&c);
	pagediff_free(d);
}

/* --- bodies --- */

static void next__returns_what_was_put(void **state)
{
	struct log_rig_db db, copy;
	auto_buf struct im_buf data = { 0 };
	(void)state;
	for (uint32_t size = 512; size <= 65536; size *= 4) {
		struct logbody_writer *w = log_rig_writer(size);
		log_rig_seed(size);
		log_rig_start(&db, size, 60);
		log_rig_start(&copy, size, 60);
		for (unsigned i = 0; i < 10; i++)
			log_rig_write(&db, w, 4, 60 + 3 * i);
		data.len = 0;
		log_rig_finish(w, &data);
		struct logbody *b = log_rig_open(&data);
		assert_int_equal(logbody_page_size(b), size);
		assert_int_equal(logbody_section_count(b), 10);
		assert_int_equal(logbody_section_at(b, 9)->point, 10);
		assert_int_equal(logbody_section_at(b, 9)->complete_ms, 1010);
		logbody_free(b);
		log_rig_apply(&copy, &data);
		log_rig_assert_same(&db, &copy);
		free(db.data);
		free(copy.data);
		logbody_writer_free(w);
	}
}

static void next__walks_many_blocks(void **state)
{
	struct log_rig_db db, copy;
	auto_buf struct im_buf data = { 0 };
	struct logbody_writer *w = log_rig_writer(4096);
	(void)state;
	log_rig_seed(1);
	log_rig_start(&db, 4096, 1);
	log_rig_start(&copy, 4096, 1);
	for (unsigned i = 1; i < 6; i++)
		log_rig_write(&db, w, 3, 300 * i);
	log_rig_finish(w, &data);
	assert_true(im_le32(data.data + 12) > 5);
	log_rig_apply(&copy, &data);
	log_rig_assert_same(&db, &copy);
	free(db.data);
	free(copy.data);
	logbody_writer_free(w);
}

static void put__needs_no_base_when_nothing_of_it_is_left(void **state)
{
	uint8_t old[SMALL], new[SMALL];
	auto_buf struct im_buf data = { 0 };
	struct logbody_writer *w = log_rig_writer(SMALL);
	struct logbody_section s = { .point = 1, .pages = 2 };
	struct logbody_record r;
	struct im_error err = { 0 };
	(void)state;
	fill_bytes(old, SMALL, 1);
	fill_bytes(new, SMALL, 2);
	assert_ok(logbody_put(w, 0, old, old, &err), &err);
	assert_ok(logbody_put(w, 1, old, new, &err), &err);
	assert_ok(logbody_end_section(w, &s, &err), &err);
	log_rig_finish(w, &data);
	struct logbody *b = log_rig_open(&data);
	struct logbody_cursor *c = log_rig_cursor(b);
	assert_true(log_rig_next(c, &r) && r.ops.has_base);
	assert_true(log_rig_next(c, &r) && !r.ops.has_base);
	logbody_cursor_free(c);
	logbody_free(b);
	logbody_writer_free(w);
}

static void put__refuses_pages_out_of_order(void **state)
{
	uint8_t page[SMALL] = { 0 };
	struct logbody_writer *w = log_rig_writer(SMALL);
	struct logbody_section s = { .point = 1, .pages = 7 };
	struct im_error err = { 0 };
	(void)state;
	assert_ok(logbody_put(w, 7, NULL, page, &err), &err);
	assert_int_equal(logbody_put(w, 7, NULL, page, NULL), IM_EFAIL);
	assert_int_equal(logbody_put(w, 6, NULL, page, NULL), IM_EFAIL);
	assert_int_equal(logbody_end_section(w, &s, NULL), IM_EFAIL); /* page 7 of 7 */
	logbody_writer_free(w);
}

static void finish__makes_bodies_without_changes(void **state)
{
	auto_buf struct im_buf data = { 0 };
	struct logbody_writer *w = log_rig_writer(SMALL);
	struct logbody_section s = { .point = 1 };
	struct logbody_record r;
	struct im_error err = { 0 };
	(void)state;
	assert_int_equal(logbody_finish(w, &data, NULL), IM_EFAIL);
	assert_ok(logbody_end_section(w, &s, &err), &err);
	log_rig_finish(w, &data);
	struct logbody *b = log_rig_open(&data);
	struct logbody_cursor *c = log_rig_cursor(b);
	assert_false(log_rig_next(c, &r));
	assert_ok(logbody_seek(c, 0, &err), &err);
	assert_false(log_rig_next(c, &r));
	logbody_cursor_free(c);
	logbody_free(b);
	logbody_writer_free(w);
}

static void cut_part__continues_the_section(void **state)
{
	auto_buf struct im_buf a = { 0 }, b = { 0 };
	uint8_t page[SMALL];
	struct logbody_writer *w = log_rig_writer(SMALL);
	struct logbody_section s = { .point = 1, .pages = 100 };
	struct im_error err = { 0 };
	uint32_t from, to;
	(void)state;
	fill_bytes(page, SMALL, 1);
	for (uint32_t i = 0; i < 50; i++)
		assert_ok(logbody_put(w, i, NULL, page, &err), &err);
	assert_int_equal(logbody_cut_part(w, &s, 49, &a, NULL), IM_EFAIL);
	assert_ok(logbody_cut_part(w, &s, 60, &a, &err), &err);
	assert_int_equal(logbody_put(w, 59, NULL, page, NULL), IM_EFAIL);
	for (uint32_t i = 60; i < 100; i++)
		assert_ok(logbody_put(w, i, NULL, page, &err), &err);
	assert_ok(logbody_end_section(w, &s, &err), &err);
	log_rig_finish(w, &b);
	struct logbody *first = log_rig_open(&a), *second = log_rig_open(&b);
	logbody_range(first, &from, &to);
	assert_true(from == 0 && to == 60);
	assert_int_equal(logbody_section_at(first, 0)->records, 50);
	logbody_range(second, &from, &to);
	assert_true(from == 60 && to == LOGBODY_OPEN_END);
	assert_int_equal(logbody_section_at(second, 0)->records, 40);
	logbody_free(first);
	logbody_free(second);
	logbody_writer_free(w);
}

static void seek__finds_every_page(void **state)
{
	struct log_rig_db db;
	auto_buf struct im_buf data = { 0 };
	struct logbody_writer *w = log_rig_writer(2048);
	struct logbody_record r;
	struct im_error err = { 0 };
	uint32_t pages[LOG_RIG_MAX_PAGES], count = 0;
	(void)state;
	log_rig_seed(9);
	log_rig_start(&db, 2048, 2000);
	log_rig_write(&db, w, 3, 2100);
	log_rig_finish(w, &data);
	struct logbody *b = log_rig_open(&data);
	struct logbody_cursor *c = log_rig_cursor(b);
	while (log_rig_next(c, &r))
		pages[count++] = r.page;
	assert_int_equal(count, logbody_section_at(b, 0)->records);
	for (uint32_t page = 0, i = 0; page < 2110; page += 1 + log_rig_random(3)) {
		while (i < count && pages[i] < page)
			i++;
		assert_ok(logbody_seek(c, page, &err), &err);
		for (uint32_t k = i; k < i + 3; k++) {
			assert_int_equal(log_rig_next(c, &r), k < count);
			assert_true(k >= count || r.page == pages[k]);
			if (k >= count)
				break;
		}
	}
	logbody_cursor_free(c);
	logbody_free(b);
	free(db.data);
	logbody_writer_free(w);
}

static void seek_section__finds_every_section(void **state)
{
	struct log_rig_db db;
	auto_buf struct im_buf data = { 0 };
	struct logbody_writer *w = log_rig_writer(2048);
	struct logbody_record r;
	struct im_error err = { 0 };
	(void)state;
	log_rig_seed(9);
	log_rig_start(&db, 2048, 100);
	for (unsigned i = 0; i < 200; i++)
		log_rig_write(&db, w, i % 5 ? 200 : 2, 100 + i / 10);
	log_rig_finish(w, &data);
	struct logbody *b = log_rig_open(&data);
	struct logbody_cursor *c = log_rig_cursor(b);
	assert_true(im_le32(data.data + 12) > 2);
	for (size_t i = 200; i-- > 0;) {
		uint32_t records = logbody_section_at(b, i)->records;
		assert_ok(logbody_seek_section(c, i, &err), &err);
		for (uint32_t k = 0; k < records; k++)
			assert_true(log_rig_next(c, &r) && r.section == i);
		assert_true(!log_rig_next(c, &r) || r.section > i);
	}
	assert_int_equal(logbody_seek(c, 0, NULL), IM_EFAIL);
	logbody_cursor_free(c);
	logbody_free(b);
	free(db.data);
	logbody_writer_free(w);
}

/* Two points, two blocks at least. */
static void make_body(struct im_buf *ret)
{
	struct log_rig_db db;
	struct logbody_writer *w = log_rig_writer(SMALL);
	log_rig_seed(4);
	log_rig_start(&db, SMALL, 100);
	log_rig_write(&db, w, 3, 500);
	log_rig_write(&db, w, 3, 500);
	log_rig_finish(w, ret);
	free(db.data);
	logbody_writer_free(w);
}

/* 0, or what opening or walking says. */
static int read_all(const struct im_buf *data)
{
	struct logbody *b = NULL;
	struct logbody_cursor *c = NULL;
	struct follow_source source = logbody_memory(data);
	struct logbody_record r;
	bool more = true;
	int rc = logbody_open(&source, &b, NULL);
	if (rc == 0)
		rc = logbody_cursor_new(b, &c, NULL);
	while (rc == 0 && more)
		rc = logbody_next(c, &r, &more, NULL);
	logbody_cursor_free(c);
	logbody_free(b);
	return rc;
}

static void refuse_field(size_t offset, uint32_t value)
{
	auto_buf struct im_buf data = { 0 };
	make_body(&data);
	assert_int_equal(read_all(&data), 0);
	im_put_le32(data.data + offset, value);
	assert_int_equal(read_all(&data), IM_ECORRUPT);
}

#define SECTION(i) (32u + 48u * (i))
#define BLOCK(i) (32u + 96u + 24u * (i))

static void open__refuses_what_cannot_be(void **state)
{
	(void)state;
	refuse_field(0, 2);                       /* version */
	refuse_field(4, 1000);                    /* page size */
	refuse_field(4, 256);
	refuse_field(4, 131072);
	refuse_field(8, 0);                       /* sections */
	refuse_field(8, 1);
	refuse_field(8, 3);
	refuse_field(8, LOG_MAX_POINTS + 1);
	refuse_field(12, 0);                      /* blocks */
	refuse_field(12, 1);
	refuse_field(12, UINT32_MAX);
	refuse_field(16, 1);                      /* a part of a body with two sections */
	refuse_field(20, 0);
	refuse_field(20, 600);
	refuse_field(28, 1);
	refuse_field(SECTION(1), 1);              /* points in order */
	refuse_field(SECTION(1) + 4, 100);        /* pages beyond the end */
	refuse_field(SECTION(1) + 12, 1u << 31);  /* instants in order */
	refuse_field(SECTION(1) + 20, 1u << 31);
	refuse_field(SECTION(0) + 8, 5000);
	refuse_field(SECTION(0) + 16, 5000);
	refuse_field(SECTION(0) + 40, 7);         /* records */
	refuse_field(SECTION(0) + 40, UINT32_MAX);
	refuse_field(SECTION(0) + 44, 1);
	refuse_field(BLOCK(0), 1);                /* first page */
	refuse_field(BLOCK(1), 0);
	refuse_field(BLOCK(0) + 4, 0);            /* records */
	refuse_field(BLOCK(0) + 4, 1);
	refuse_field(BLOCK(0) + 8, 0);            /* plain sizes */
	refuse_field(BLOCK(0) + 8, 1u << 25);
	refuse_field(BLOCK(0) + 12, 0);
	refuse_field(BLOCK(0) + 12, 100000);
	refuse_field(BLOCK(0) + 12, 1u << 25);
	refuse_field(BLOCK(0) + 16, 0);           /* stored sizes */
	refuse_field(BLOCK(0) + 20, 0);
	refuse_field(BLOCK(0) + 20, UINT32_MAX);
}

static void next__refuses_moved_records(void **state)
{
	auto_buf struct im_buf data = { 0 };
	uint8_t *records[2];
	(void)state;
	make_body(&data);
	records[0] = data.data + SECTION(0) + 40;
	records[1] = data.data + SECTION(1) + 40;
	im_put_le32(records[0], im_le32(records[0]) + 1); /* the sums still agree */
	im_put_le32(records[1], im_le32(records[1]) - 1);
	assert_int_equal(read_all(&data), IM_ECORRUPT);
}

static void open__refuses_bodies_cut_short_or_continued(void **state)
{
	auto_buf struct im_buf data = { 0 };
	(void)state;
	make_body(&data);
	im_buf_put_u8(&data, 0);
	assert_int_equal(read_all(&data), IM_ECORRUPT);
	for (data.len -= 2; data.len; data.len = data.len * 7 / 8)
		assert_int_equal(read_all(&data), IM_ECORRUPT);
	assert_int_equal(read_all(&data), IM_ECORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(apply__gives_the_page_of_which_the_change_was_made),
		cmocka_unit_test(make__finds_what_moved),
		cmocka_unit_test(compose__equals_applying_one_after_the_other),
		cmocka_unit_test(compose__is_associative),
		cmocka_unit_test(compose__knows_when_no_base_is_left),
		cmocka_unit_test(compose__joins_copies),
		cmocka_unit_test(measure__cuts_streams_into_changes),
		cmocka_unit_test(apply__refuses_what_cannot_be),
		cmocka_unit_test(apply__refuses_a_missing_base),
		cmocka_unit_test(next__returns_what_was_put),
		cmocka_unit_test(next__walks_many_blocks),
		cmocka_unit_test(put__needs_no_base_when_nothing_of_it_is_left),
		cmocka_unit_test(put__refuses_pages_out_of_order),
		cmocka_unit_test(finish__makes_bodies_without_changes),
		cmocka_unit_test(cut_part__continues_the_section),
		cmocka_unit_test(seek__finds_every_page),
		cmocka_unit_test(seek_section__finds_every_section),
		cmocka_unit_test(open__refuses_what_cannot_be),
		cmocka_unit_test(next__refuses_moved_records),
		cmocka_unit_test(open__refuses_bodies_cut_short_or_continued),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
