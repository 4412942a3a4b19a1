/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rig of log_rig.h.
 */
#include "log_rig.h"

#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t random_state;

void log_rig_seed(uint64_t seed)
{
	random_state = seed;
}

uint32_t log_rig_random(uint32_t limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 33) % limit;
}

void log_rig_edit(uint8_t *page, uint32_t page_size)
{
	for (uint32_t n = 1 + log_rig_random(6); n; n--) {
		uint32_t len = 1 + log_rig_random(page_size / 4), at = log_rig_random(page_size - len), from = log_rig_random(page_size - len);
		switch (log_rig_random(4)) {
		case 0:
			fill_bytes(page + at, len > 60 ? 60 : len, log_rig_random(1000));
			break;
		case 1:
			memset(page + at, 0, len);
			break;
		default:
			memmove(page + at, page + from, len);
		}
	}
}

void log_rig_start(struct log_rig_db *db, uint32_t page_size, uint32_t pages)
{
	*db = (struct log_rig_db){ .page_size = page_size, .pages = pages, .data = calloc(LOG_RIG_MAX_PAGES, page_size) };
	assert_non_null(db->data);
	fill_bytes(db->data, (size_t)pages * page_size, 5);
}

uint8_t *log_rig_page(const struct log_rig_db *db, uint32_t page)
{
	return db->data + (size_t)page * db->page_size;
}

struct logbody_section log_rig_section(const struct log_rig_db *db)
{
	struct logbody_section s = { .point = db->point, .pages = db->pages, .complete_ms = 1000 + db->point, .latest_ms = 1000 + db->point };
	fill_bytes(s.sum, sizeof s.sum, db->point);
	return s;
}

struct logbody_writer *log_rig_writer(uint32_t page_size)
{
	struct logbody_writer *w = NULL;
	struct im_error err = { 0 };
	assert_ok(logbody_writer_new(page_size, &w, &err), &err);
	return w;
}

void log_rig_write(struct log_rig_db *db, struct logbody_writer *w, uint32_t every, uint32_t new_pages)
{
	struct im_error err = { 0 };
	uint8_t old[65536];
	assert_true(new_pages <= LOG_RIG_MAX_PAGES);
	for (uint32_t page = 0; page < new_pages; page++) {
		bool is_new = page >= db->pages;
		if (!is_new && log_rig_random(every))
			continue;
		memcpy(old, log_rig_page(db, page), db->page_size);
		if (is_new)
			fill_bytes(log_rig_page(db, page), db->page_size, page + 1000u * log_rig_random(1000));
		else
			log_rig_edit(log_rig_page(db, page), db->page_size);
		assert_ok(logbody_put(w, page, is_new ? NULL : old, log_rig_page(db, page), &err), &err);
	}
	db->pages = new_pages;
	db->point++;
	struct logbody_section s = log_rig_section(db);
	assert_ok(logbody_end_section(w, &s, &err), &err);
}

void log_rig_finish(struct logbody_writer *w, struct im_buf *ret)
{
	struct im_error err = { 0 };
	assert_ok(logbody_finish(w, ret, &err), &err);
}

struct logbody *log_rig_open(const struct im_buf *data)
{
	struct logbody *b = NULL;
	struct im_error err = { 0 };
	struct follow_source source = logbody_memory(data);
	assert_ok(logbody_open(&source, &b, &err), &err);
	return b;
}

struct logbody_cursor *log_rig_cursor(struct logbody *b)
{
	struct logbody_cursor *c = NULL;
	struct im_error err = { 0 };
	assert_ok(logbody_cursor_new(b, &c, &err), &err);
	return c;
}

bool log_rig_next(struct logbody_cursor *c, struct logbody_record *ret)
{
	struct im_error err = { 0 };
	bool more;
	assert_ok(logbody_next(c, ret, &more, &err), &err);
	return more;
}

void log_rig_apply(struct log_rig_db *db, const struct im_buf *data)
{
	struct logbody *b = log_rig_open(data);
	struct logbody_cursor *c = log_rig_cursor(b);
	struct logbody_record r;
	struct im_error err = { 0 };
	uint8_t page[65536];
	while (log_rig_next(c, &r)) {
		assert_ok(pagediff_apply(db->page_size, &r.ops, log_rig_page(db, r.page), page, &err), &err);
		memcpy(log_rig_page(db, r.page), page, db->page_size);
	}
	db->pages = logbody_section_at(b, logbody_section_count(b) - 1)->pages;
	db->point = logbody_section_at(b, logbody_section_count(b) - 1)->point;
	logbody_cursor_free(c);
	logbody_free(b);
}

void log_rig_assert_same(const struct log_rig_db *a, const struct log_rig_db *b)
{
	assert_int_equal(a->pages, b->pages);
	assert_int_equal(a->point, b->point);
	assert_memory_equal(a->data, b->data, (size_t)a->pages * a->page_size);
}
