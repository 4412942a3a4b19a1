/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The WAL reader against logs written by SQLite itself, whole and damaged in every way that has
 * bitten others: torn, stale, restarted, overwritten, beyond the commit asked for.
 */
#include "stores/sqlite/shm.h"
#include "stores/sqlite/wal.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "fixture.h"

#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct log { /* a WAL as SQLite left it, and its reader's mark */
	char dir[64], path[96];
	sqlite3 *db;
	struct im_buf wal;
	struct shm_head shm;
	struct wal_expect expect;
};

static void load_files(struct log *l)
{
	struct im_error err = { 0 };
	auto_buf struct im_buf shm = { 0 };
	auto_free char *wal_path = im_format("%s-wal", l->path);
	auto_free char *shm_path = im_format("%s-shm", l->path);
	im_buf_free(&l->wal);
	assert_ok(im_file_read(wal_path, SIZE_MAX, &l->wal, &err), &err);
	assert_ok(im_file_read(shm_path, SIZE_MAX, &shm, &err), &err);
	assert_true(shm_decode(shm.data, &l->shm));
	l->expect = (struct wal_expect){ .page_size = l->shm.page_size, .max_frame = l->shm.max_frame, .pages = l->shm.pages,
		.frame_checksum = { l->shm.frame_checksum[0], l->shm.frame_checksum[1] } };
	memcpy(l->expect.salt, l->shm.salt, 8);
}

static void run(struct log *l, const char *sql)
{
	char *text = NULL;
	if (sqlite3_exec(l->db, sql, NULL, NULL, &text) != SQLITE_OK)
		fail_msg("%s: %s", sql, text);
}

static int setup_log(void **state)
{
	struct log *l = calloc(1, sizeof *l);
	strcpy(l->dir, "/tmp/imvault-wal-XXXXXX");
	assert_non_null(mkdtemp(l->dir));
	snprintf(l->path, sizeof l->path, "%s/w.db", l->dir);
	assert_int_equal(sqlite3_open(l->path, &l->db), SQLITE_OK);
	run(l, "PRAGMA page_size=1024; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=5;"
	       "CREATE TABLE t(i INTEGER PRIMARY KEY, b BLOB);"
	       "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO t SELECT i, randomblob(300) FROM n;"
	       "UPDATE t SET b = randomblob(300) WHERE i < 10");
	load_files(l);
	*state = l;
	return 0;
}

static int teardown(void **state)
{
	struct log *l = *state;
	sqlite3_close(l->db);
	im_buf_free(&l->wal);
	remove_tree(l->dir);
	free(l);
	return 0;
}

static ssize_t read_buf(void *context, void *ret, size_t len, uint64_t offset, struct im_error *err)
{
	struct im_buf *b = context;
	(void)err;
	size_t n = offset >= b->len ? 0 : b->len - offset < len ? b->len - (size_t)offset : len;
	memcpy(ret, b->data + (offset < b->len ? offset : 0), n);
	return (ssize_t)n;
}

static int load(struct log *l, struct wal_table *ret)
{
	return wal_load(read_buf, &l->wal, "test-wal", &l->expect, ret, NULL);
}

static void load__finds_the_last_frame_of_each_page(void **state)
{
	struct log *l = *state;
	struct wal_table t = { 0 };
	assert_int_equal(load(l, &t), 0);
	assert_true(t.count > 0 && t.count < l->expect.max_frame);
	for (uint32_t frame = 1; frame <= l->expect.max_frame; frame++) {
		uint64_t at = wal_frame_offset(1024, frame) - WAL_FRAME_HEADER_BYTES;
		assert_true(wal_table_frame(&t, im_be32(l->wal.data + at)) >= frame);
	}
	for (size_t i = 1; i < t.count; i++)
		assert_true(t.items[i - 1] >> 32 < t.items[i] >> 32);
	assert_int_equal(wal_table_frame(&t, 1000000), 0);
	wal_table_clear(&t);
}

static void load__stops_at_the_commit_asked_for(void **state)
{
	struct log *l = *state;
	struct wal_expect before = l->expect;
	struct wal_table t = { 0 };
	run(l, "UPDATE t SET b = randomblob(300) WHERE i = 3");
	load_files(l);
	assert_true(l->expect.max_frame > before.max_frame);
	l->expect = before;
	assert_int_equal(load(l, &t), 0);
	for (size_t i = 0; i < t.count; i++)
		assert_true((uint32_t)t.items[i] <= before.max_frame);
	wal_table_clear(&t);
}

static void load__refuses_a_mark_that_is_no_commit(void **state)
{
	struct log *l = *state;
	struct wal_table t = { 0 };
	for (uint32_t frame = 1; frame < l->expect.max_frame; frame++) {
		uint64_t at = wal_frame_offset(1024, frame) - WAL_FRAME_HEADER_BYTES;
		struct wal_expect keep = l->expect;
		l->expect.max_frame = frame;
		l->expect.frame_checksum[0] = im_be32(l->wal.data + at + 16);
		l->expect.frame_checksum[1] = im_be32(l->wal.data + at + 20);
		if (im_be32(l->wal.data + at + 4) == 0)
			assert_int_equal(load(l, &t), IM_ECORRUPT);
		l->expect = keep;
	}
	l->expect.pages++;
	assert_int_equal(load(l, &t), IM_ECORRUPT);
}

static void load__refuses_every_changed_byte_before_the_mark(void **state)
{
	struct log *l = *state;
	struct wal_table t = { 0 };
	size_t end = wal_frame_offset(1024, l->expect.max_frame) + 1024;
	for (size_t i = 0; i < end; i += i < 2048 ? 1 : 37) {
		l->wal.data[i] ^= 0x40;
		if (load(l, &t) != IM_ECORRUPT)
			fail_msg("byte %zu of %zu may be changed", i, end);
		l->wal.data[i] ^= 0x40;
	}
	assert_int_equal(load(l, &t), 0);
	wal_table_clear(&t);
}

static void load__refuses_every_truncation(void **state)
{
	struct log *l = *state;
	struct wal_table t = { 0 };
	size_t whole = wal_frame_offset(1024, l->expect.max_frame) + 1024;
	for (size_t len = 0; len < whole; len += len < 2048 ? 1 : 41) {
		l->wal.len = len;
		assert_int_equal(load(l, &t), IM_ECORRUPT);
	}
	l->wal.len = whole;
	assert_int_equal(load(l, &t), 0);
	wal_table_clear(&t);
}

static void load__refuses_a_restarted_log(void **state)
{
	struct log *l = *state;
	struct wal_expect before = l->expect;
	struct wal_table t = { 0 };
	run(l, "PRAGMA wal_checkpoint(RESTART); UPDATE t SET b = randomblob(300) WHERE i = 7");
	load_files(l); /* new salts, few frames, old ones behind them */
	assert_int_equal(load(l, &t), 0);
	assert_true(t.count < 20);
	wal_table_clear(&t);
	l->expect = before;
	assert_int_equal(load(l, &t), IM_ECORRUPT);
}

static void load__reads_a_commit_that_overwrote_a_rolled_back_spill(void **state)
{
	struct log *l = *state;
	struct wal_table t = { 0 };
	run(l, "BEGIN; UPDATE t SET b = randomblob(310); INSERT INTO t SELECT i + 1000, randomblob(300) FROM t; ROLLBACK");
	run(l, "UPDATE t SET b = randomblob(300) WHERE i = 2");
	load_files(l);
	assert_true(l->wal.len > wal_frame_offset(1024, l->expect.max_frame) + 1024); /* what was spilled lies behind */
	assert_int_equal(load(l, &t), 0);
	wal_table_clear(&t);
	l->expect.max_frame++;
	assert_int_equal(load(l, &t), IM_ECORRUPT);
}

static void load__of_nothing_is_empty(void **state)
{
	struct log *l = *state;
	struct wal_table t = { 0 };
	l->expect.max_frame = 0;
	l->wal.len = 0;
	assert_int_equal(load(l, &t), 0);
	assert_int_equal(t.count, 0);
}

static void load__refuses_impossible_page_sizes(void **state)
{
	struct log *l = *state;
	static const uint32_t sizes[] = { 0, 1, 256, 1000, 131072, 0x80000000u };
	struct wal_table t = { 0 };
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		l->expect.page_size = sizes[i];
		assert_int_equal(load(l, &t), IM_ECORRUPT);
	}
}

static void shm_decode__refuses_every_changed_byte(void **state)
{
	struct log *l = *state;
	struct im_error err = { 0 };
	struct shm_head head;
	auto_buf struct im_buf shm = { 0 };
	auto_free char *path = im_format("%s-shm", l->path);
	assert_ok(im_file_read(path, SIZE_MAX, &shm, &err), &err);
	for (size_t i = 0; i < 2 * SHM_HEADER_BYTES; i++) {
		shm.data[i] ^= 1;
		assert_false(shm_decode(shm.data, &head));
		shm.data[i] ^= 1;
	}
	memset(shm.data, 0, SHM_HEAD_BYTES);
	assert_false(shm_decode(shm.data, &head));
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, setup_log, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOG_TEST(load__finds_the_last_frame_of_each_page),
		LOG_TEST(load__stops_at_the_commit_asked_for),
		LOG_TEST(load__refuses_a_mark_that_is_no_commit),
		LOG_TEST(load__refuses_every_changed_byte_before_the_mark),
		LOG_TEST(load__refuses_every_truncation),
		LOG_TEST(load__refuses_a_restarted_log),
		LOG_TEST(load__reads_a_commit_that_overwrote_a_rolled_back_spill),
		LOG_TEST(load__of_nothing_is_empty),
		LOG_TEST(load__refuses_impossible_page_sizes),
		LOG_TEST(shm_decode__refuses_every_changed_byte),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
