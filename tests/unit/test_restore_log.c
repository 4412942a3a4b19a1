/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring from a snapshot and the log behind it: to every point, by every route, around damage,
 * and up to gaps that are told. The log is forged (log_forge.h) from successive contents of a real
 * database.
 */
#include "../fault/world.h"

#include "base/clock.h"
#include "base/file.h"
#include "fixture.h"
#include "log_forge.h"
#include "restore/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#define EPOCH_A "00000000000a00000001"
#define EPOCH_B "00000000000b00000001"

static struct world w;
static struct vault *vault, *node;
static struct forge a, b;
static struct restore_result result;
static struct im_error err;
static char to[128];
static int64_t t0; /* of the first snapshot; points are whole seconds later */

static void sql(const char *text)
{
	sqlite3 *db;
	char *said = NULL;
	assert_int_equal(sqlite3_open(w.database, &db), SQLITE_OK);
	if (sqlite3_exec(db, text, NULL, NULL, &said))
		fail_msg("%s: %s", text, said);
	sqlite3_close(db);
}

static void fill(unsigned rows, unsigned seed)
{
	char text[300];
	snprintf(text, sizeof text,
	    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u) "
	    "INSERT INTO message (body) SELECT 'of %u ' || hex(randomblob(60 + i %% 40)) FROM n", rows, seed);
	sql(text);
}

/* When its image of the database was true. */
static int64_t snapshot(void)
{
	struct snapshot *s = NULL;
	int64_t ms;
	assert_ok(world_backup(&w, &err), &err);
	assert_ok(snapshot_choose(vault->storage, vault->keyring, "im-01", "latest", NULL, NULL, &s, &err), &err);
	assert_true(history_has_image(s, "chat", &ms));
	snapshot_free(s);
	return ms;
}

/* Snapshots get their places when all are taken: a node whose snapshots change notices. */
static struct place {
	const struct forge *f;
	uint64_t seq;
	uint32_t point;
	bool joined;
} places[4];
static size_t place_count;

static void anchor(const struct forge *f, uint64_t seq, uint32_t point, bool joined)
{
	places[place_count++] = (struct place){ f, seq, point, joined };
}

static void put_anchors(void)
{
	for (size_t i = 0; i < place_count; i++)
		forge_anchor(places[i].f, vault, places[i].seq, places[i].point, places[i].joined);
	place_count = 0;
}

static int setup(void **state)
{
	(void)state;
	err = (struct im_error){ 0 };
	world_start(&w);
	assert_ok(vault_open(w.vault, w.restore_key, NULL, NULL, 0, &vault, &err), &err);
	assert_ok(vault_open(w.vault, w.node_key, NULL, NULL, 0, &node, &err), &err);
	snprintf(to, sizeof to, "%s/to", w.dir);
	memset(&a, 0, sizeof a);
	memset(&b, 0, sizeof b);
	result = (struct restore_result){ 0 };
	t0 = 0;
	place_count = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	forge_end(&a);
	forge_end(&b);
	restore_result_clear(&result);
	vault_close(vault);
	vault_close(node);
	world_stop(&w);
	return 0;
}

/* A snapshot with its place at point 1 of epoch A. */
static void begin(void)
{
	forge_begin(&a, node, w.vault, "chat", EPOCH_A, w.database, im_now_ms(), "the first start", NULL);
	t0 = snapshot();
	a.points[1].ms = t0;
	anchor(&a, 1, 1, false);
}

static int64_t at(unsigned seconds)
{
	return t0 + 1000 * (int64_t)seconds;
}

/* The next point, at its number in seconds, in a segment of its own. */
static uint32_t step(unsigned rows)
{
	fill(rows, a.point);
	uint32_t point = forge_take(&a, w.database, at(a.point + 1));
	forge_ship(&a);
	return point;
}

static struct restore_request request(void)
{
	static const char *const chat[] = { "chat", NULL };
	return (struct restore_request){ .vault = vault, .node = "im-01", .to = to, .stores = chat };
}

static int run(const struct restore_request *q)
{
	restore_result_clear(&result);
	im_error_clear(&err);
	remove_tree(to);
	put_anchors();
	return restore_run(q, &result, &err);
}

static int restore_at(const char *when)
{
	struct restore_request q = request();
	q.at = when;
	return run(&q);
}

static int restore_at_ms(int64_t ms)
{
	char text[IM_INSTANT_BYTES];
	return restore_at(im_instant_format(text, ms));
}

static const char *restored(void)
{
	static char path[320];
	snprintf(path, sizeof path, "%s%s", to, w.database);
	return path;
}

static void assert_is(const struct forge *f, uint32_t point)
{
	if (!forge_same(f, point, restored()))
		fail_msg("what was restored is not point %u", point);
}

static bool says(const char *text)
{
	for (size_t i = 0; i < result.warning_count; i++)
		if (strstr(result.warnings[i], text))
			return true;
	return false;
}

/* Every point by time, and the last one by "latest". */
static void prove_every_point(void)
{
	for (uint32_t i = 2; i <= a.point; i++) {
		assert_ok(restore_at_ms(a.points[i].ms), &err);
		assert_is(&a, i);
		assert_int_equal(result.instant_reached_ms, a.points[i].ms);
		assert_int_equal(result.stores[0].log_until, i);
	}
	assert_ok(restore_at(NULL), &err);
	assert_is(&a, a.point);
}

static void restore_log__reaches_every_point(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 6; i++)
		step(i * 40);
	prove_every_point();
	assert_string_equal(result.stores[0].status, "ok");
	assert_non_null(strstr(result.stores[0].text, "quick_check ok"));
	assert_int_equal(result.stores[0].log_segments, 6);
	assert_int_equal(result.warning_count, 0);
	assert_ok(restore_at_ms(a.points[3].ms + 999), &err);
	assert_is(&a, 3);
	assert_ok(restore_at_ms(t0), &err);
	assert_is(&a, 1);
	assert_int_equal(result.stores[0].log_segments, 0);
}

static void restore_log__a_snapshot_by_name_takes_no_log(void **state)
{
	(void)state;
	begin();
	step(100);
	assert_ok(restore_at("1"), &err);
	assert_is(&a, 1);
	assert_false(result.stores[0].has_log);
	assert_int_equal(result.instant_reached_ms, t0);
}

static void restore_log__cuts_within_a_fine_segment(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 8; i++) {
		fill(30, i);
		forge_take(&a, w.database, at(a.point + 1));
	}
	forge_ship(&a);
	prove_every_point();
}

static void restore_log__follows_shrinking_and_growing(void **state)
{
	(void)state;
	fill(3000, 0);
	begin();
	sql("PRAGMA auto_vacuum; DELETE FROM message WHERE id > 500; VACUUM");
	forge_take(&a, w.database, at(2)); /* shorter than the snapshot */
	forge_ship(&a);
	step(6000); /* longer than it ever was */
	sql("DELETE FROM message WHERE id > 100; VACUUM");
	forge_take(&a, w.database, at(4));
	forge_ship(&a);
	step(10);
	step(2000);
	prove_every_point();
	forge_coarse(&a, 2, 4, 1);
	prove_every_point();
	forge_coarse(&a, 2, 6, 2);
	prove_every_point();
}

static void restore_log__all_page_sizes(void **state)
{
	(void)state;
	static const unsigned sizes[] = { 512, 1024, 8192, 65536 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		char text[160];
		if (i) {
			teardown(NULL);
			setup(NULL);
		}
		snprintf(text, sizeof text, "PRAGMA journal_mode = delete; PRAGMA page_size = %u; VACUUM; PRAGMA journal_mode = wal", sizes[i]);
		sql(text);
		begin();
		assert_int_equal(a.page_size, sizes[i]);
		step(300);
		step(1000);
		sql("DELETE FROM message WHERE id % 3 = 0; UPDATE message SET body = upper(body) WHERE id % 5 = 0");
		forge_take(&a, w.database, at(4));
		forge_ship(&a);
		prove_every_point();
	}
}

static void restore_log__coarse_segments_are_used_and_equal(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 12; i++)
		step(60);
	a.tiny_parts = true;
	forge_coarse(&a, 2, 6, 1);
	forge_coarse(&a, 7, 11, 1);
	prove_every_point();
	assert_int_equal(result.stores[0].log_segments, 4);
	assert_ok(restore_at_ms(a.points[11].ms), &err);
	assert_int_equal(result.stores[0].log_segments, 2);
	for (uint32_t i = 2; i <= 11; i++)
		forge_remove(&a, i, i, 0);
	assert_ok(restore_at(NULL), &err);
	assert_is(&a, 13);
	assert_int_equal(result.warning_count, 0);
}

static void restore_log__large_segments_are_layers_of_their_own(void **state)
{
	(void)state;
	fill(60000, 0);
	begin();
	sql("UPDATE message SET body = hex(randomblob(70))");
	forge_take(&a, w.database, at(2));
	forge_ship(&a);
	step(50);
	sql("UPDATE message SET body = hex(randomblob(70)) WHERE id % 2");
	forge_take(&a, w.database, at(4));
	forge_ship(&a);
	step(50);
	step(20000);
	prove_every_point();
}

static void restore_log__missing_segments_end_it_and_are_told(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 5; i++)
		step(50);
	forge_remove(&a, 4, 4, 0);
	assert_int_equal(restore_at(NULL), IM_EPARTIAL);
	assert_is(&a, 3);
	assert_int_equal(result.instant_reached_ms, a.points[3].ms);
	assert_non_null(result.stores[0].stopped);
	assert_true(says("no further"));
	assert_int_equal(restore_at_ms(a.points[5].ms), IM_EPARTIAL);
	assert_is(&a, 3);
	assert_ok(restore_at_ms(a.points[3].ms), &err);
	assert_is(&a, 3);
	assert_int_equal(result.warning_count, 0);
}

static void flip(const char *path, off_t offset)
{
	uint8_t byte;
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, offset), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	close(fd);
}

static const char *object_of(const struct forge *f, uint32_t first, uint32_t last, unsigned level)
{
	for (size_t i = 0; i < f->object_count; i++)
		if (f->objects[i].first == first && f->objects[i].last == last && f->objects[i].level == level)
			return f->objects[i].path;
	fail_msg("no segment %u-%u", first, last);
	return NULL;
}

static void restore_log__damaged_segments_are_planned_around(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 6; i++)
		step(50);
	forge_coarse(&a, 2, 5, 1);
	flip(object_of(&a, 2, 5, 1), 300);
	assert_ok(restore_at(NULL), &err); /* the fine ones are still there */
	assert_is(&a, 7);
	assert_true(says("planned around"));
	flip(object_of(&a, 4, 4, 0), 300);
	assert_int_equal(restore_at(NULL), IM_EPARTIAL);
	assert_is(&a, 3);
	assert_int_equal(result.instant_reached_ms, a.points[3].ms);
	assert_int_equal(result.stores[0].log_until, 3);
}

static void restore_log__a_broken_chain_ends_it(void **state)
{
	(void)state;
	begin();
	step(50);
	step(50);
	memset(a.points[3].hash, 7, 32); /* the next one will follow something else */
	step(50);
	assert_int_equal(restore_at(NULL), IM_EPARTIAL);
	assert_is(&a, 3);
	assert_true(says("does not follow the segment before it"));
}

static void restore_log__a_longer_log_of_an_older_snapshot_is_used(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 3; i++)
		step(50);
	snapshot();
	anchor(&a, 2, 4, false);
	t0 = im_now_ms() + 60000; /* what follows comes after the second snapshot */
	for (unsigned i = 0; i < 3; i++)
		step(50);
	forge_coarse(&a, 2, 6, 1);
	forge_remove(&a, 5, 5, 0);
	assert_ok(restore_at(NULL), &err);
	assert_is(&a, 7);
	assert_int_equal(result.stores[0].seq, 1);
	assert_true(says("reach further"));
	forge_remove(&a, 2, 6, 1);
	assert_int_equal(restore_at(NULL), IM_EPARTIAL);
	assert_is(&a, 4);
	assert_int_equal(result.stores[0].seq, 2);
}

static void restore_log__makes_up_for_an_unreadable_snapshot(void **state)
{
	(void)state;
	struct snapshot_list list = { 0 };
	char path[400];
	begin();
	for (unsigned i = 0; i < 3; i++)
		step(50);
	snapshot();
	anchor(&a, 2, 4, false);
	step(50);
	put_anchors();
	assert_ok(snapshot_list(vault->storage, "im-01", &list, &err), &err);
	snprintf(path, sizeof path, "%s/%s", w.vault, list.items[1].object);
	flip(path, 300);
	snapshot_list_clear(&list);
	assert_ok(restore_at(NULL), &err);
	assert_is(&a, 5);
	assert_int_equal(result.stores[0].seq, 1);
	assert_true(result.warning_count > 0);
}

static void restore_log__takes_the_newest_snapshot(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 3; i++)
		step(50);
	snapshot();
	anchor(&a, 2, 4, false);
	t0 = im_now_ms() + 60000;
	step(50);
	assert_ok(restore_at(NULL), &err);
	assert_is(&a, 5);
	assert_int_equal(result.stores[0].seq, 2);
	assert_int_equal(result.stores[0].log_segments, 1);
}

static void restore_log__a_store_missing_in_the_newest_comes_with_its_log(void **state)
{
	(void)state;
	char hidden[192];
	begin();
	step(50);
	step(50);
	snprintf(hidden, sizeof hidden, "%s.hidden", w.database);
	assert_int_equal(rename(w.database, hidden), 0);
	assert_int_equal(world_backup(&w, &err), IM_EPARTIAL);
	assert_int_equal(rename(hidden, w.database), 0);
	assert_ok(restore_at(NULL), &err);
	assert_is(&a, 3);
	assert_string_equal(result.stores[0].status, "ok");
	assert_true(says("it comes from snapshot 1 and the log behind it"));
}

static void restore_log__a_time_before_the_first_snapshot_is_refused(void **state)
{
	(void)state;
	begin();
	step(50);
	assert_int_equal(restore_at_ms(t0 - 1), IM_ENOTFOUND);
}

static void begin_next_epoch(unsigned seconds, bool joined, bool with_snapshot)
{
	forge_begin(&b, node, w.vault, "chat", EPOCH_B, w.database, at(seconds), "the write-ahead log was reset while nobody followed", &a);
	if (!with_snapshot)
		return;
	snapshot();
	anchor(&b, 2, 1, joined);
}

static void restore_log__a_gap_is_never_crossed_silently(void **state)
{
	(void)state;
	begin();
	step(50);
	step(50);
	fill(50, 9); /* nobody saw this */
	begin_next_epoch(60, false, false);
	assert_int_equal(restore_at_ms(at(30)), IM_EPARTIAL);
	assert_is(&a, 3);
	assert_int_equal(result.instant_reached_ms, a.points[3].ms);
	assert_true(says("the write-ahead log was reset while nobody followed"));
	assert_non_null(result.stores[0].stopped);
	assert_int_equal(restore_at_ms(at(90)), IM_EPARTIAL);
	assert_is(&a, 3);
	assert_int_equal(restore_at(NULL), IM_EPARTIAL);
	assert_is(&a, 3);
	assert_ok(restore_at_ms(a.points[3].ms), &err); /* before the gap nothing is missing */
	assert_is(&a, 3);
}

static void restore_log__epochs_are_restored_each_for_itself(void **state)
{
	(void)state;
	begin();
	t0 -= 100000; /* epoch A lies before its successor's snapshot */
	a.points[1].ms = t0;
	fill(50, 2);
	forge_take(&a, w.database, im_now_ms());
	forge_ship(&a);
	usleep(30000);
	fill(50, 9);
	int64_t between = im_now_ms();
	usleep(30000);
	forge_begin(&b, node, w.vault, "chat", EPOCH_B, w.database, im_now_ms(), "VACUUM by hand", &a);
	int64_t second = snapshot();
	anchor(&b, 2, 1, false);
	fill(50, 3);
	forge_take(&b, w.database, second + 5000);
	forge_ship(&b);
	assert_ok(restore_at(NULL), &err);
	assert_is(&b, 2);
	assert_int_equal(result.stores[0].seq, 2);
	assert_int_equal(restore_at_ms(between), IM_EPARTIAL);
	assert_is(&a, 2);
	assert_true(says("VACUUM by hand"));
	assert_ok(restore_at_ms(second), &err);
	assert_is(&b, 1);
	/* the same, but the epochs are proven to join: nothing is missing */
	anchor(&b, 2, 1, true);
	assert_ok(restore_at_ms(between), &err);
	assert_is(&a, 2);
	assert_int_equal(result.warning_count, 0);
}

static void restore_log__a_wrong_sum_names_the_last_good_instant(void **state)
{
	(void)state;
	char instant[IM_INSTANT_BYTES], text[120];
	begin();
	for (unsigned i = 0; i < 3; i++)
		step(50);
	a.spoil_sum = true;
	step(50);
	a.spoil_sum = false;
	step(50);
	im_instant_format(instant, a.points[4].ms);
	snprintf(text, sizeof text, "the last good instant is %s: restore --at %s", instant, instant);
	assert_ok(restore_at(NULL), &err); /* what matters is where it arrives */
	assert_int_equal(restore_at_ms(a.points[5].ms), IM_ECORRUPT);
	assert_int_equal(access(restored(), F_OK), -1);
	assert_int_equal(result.damaged_count, 1);
	assert_non_null(strstr(result.damaged[0].text, text));
	assert_ok(restore_at(instant), &err);
	assert_is(&a, 4);
}

static void restore_log__a_wrong_anchor_is_noticed(void **state)
{
	(void)state;
	begin();
	step(50);
	step(50);
	anchor(&a, 1, 2, false); /* the image stands at 1 */
	assert_int_equal(restore_at(NULL), IM_ECORRUPT);
	assert_int_equal(access(restored(), F_OK), -1);
	assert_ok(restore_at("1"), &err);
	assert_is(&a, 1);
}

static void restore_log__tells_its_way(void **state)
{
	(void)state;
	begin();
	step(50);
	step(50);
	struct restore_request q = request();
	q.dry_run = true;
	assert_ok(run(&q), &err);
	assert_int_equal(result.stores[0].log_segments, 2);
	assert_true(result.stores[0].log_bytes > 0);
	assert_int_equal(result.bytes_to_write, a.points[3].content.len);
	assert_int_equal(access(to, F_OK), -1);
	q = request();
	q.stores = NULL; /* the files have no log: what is whole for all is the snapshot's instant */
	assert_ok(run(&q), &err);
	assert_true(result.instant_reached_ms < a.points[3].ms);
	for (size_t i = 0; i < result.store_count; i++)
		if (strcmp(result.stores[i].name, "chat") == 0)
			assert_int_equal(result.stores[i].instant_reached_ms, a.points[3].ms);
}

static void restore_log__rpo_is_measured_from_the_instant_reached(void **state)
{
	(void)state;
	begin();
	fill(20, 0);
	int64_t ms = im_now_ms();
	forge_take(&a, w.database, ms);
	forge_ship(&a);
	usleep(50000);
	assert_ok(restore_at(NULL), &err);
	assert_int_equal(result.instant_reached_ms, ms);
	assert_true(result.rpo_ms >= 50 && result.rpo_ms < 10000);
}

static void restore_log__leaves_nothing_but_the_database(void **state)
{
	(void)state;
	char folder[320];
	begin();
	step(500);
	assert_ok(restore_at(NULL), &err);
	snprintf(folder, sizeof folder, "%s%s", to, w.source);
	unsigned n = 0;
	DIR *d = opendir(folder);
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.' || strlen(e->d_name) > 2;
	closedir(d);
	assert_int_equal(n, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(restore_log__reaches_every_point),
		TEST(restore_log__a_snapshot_by_name_takes_no_log),
		TEST(restore_log__cuts_within_a_fine_segment),
		TEST(restore_log__follows_shrinking_and_growing),
		TEST(restore_log__all_page_sizes),
		TEST(restore_log__coarse_segments_are_used_and_equal),
		TEST(restore_log__large_segments_are_layers_of_their_own),
		TEST(restore_log__missing_segments_end_it_and_are_told),
		TEST(restore_log__damaged_segments_are_planned_around),
		TEST(restore_log__a_broken_chain_ends_it),
		TEST(restore_log__a_longer_log_of_an_older_snapshot_is_used),
		TEST(restore_log__makes_up_for_an_unreadable_snapshot),
		TEST(restore_log__takes_the_newest_snapshot),
		TEST(restore_log__a_store_missing_in_the_newest_comes_with_its_log),
		TEST(restore_log__a_time_before_the_first_snapshot_is_refused),
		TEST(restore_log__a_gap_is_never_crossed_silently),
		TEST(restore_log__epochs_are_restored_each_for_itself),
		TEST(restore_log__a_wrong_sum_names_the_last_good_instant),
		TEST(restore_log__a_wrong_anchor_is_noticed),
		TEST(restore_log__tells_its_way),
		TEST(restore_log__rpo_is_measured_from_the_instant_reached),
		TEST(restore_log__leaves_nothing_but_the_database),
	};
	return cmocka_run_group_tests_name("restore_log", tests, NULL, NULL);
}
