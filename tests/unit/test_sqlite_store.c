/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite store through a real vault: what is restored is byte for byte what SQLite has, for
 * every page size and shape, live and at rest; increments hold what changed; nothing is harmed.
 */
#include "sqlite_rig.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "stores/sqlite/dbheader.h"
#include "stores/sqlite/source.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

static void snapshot__restores_every_page_size(void **state)
{
	struct sqlite_rig *r = *state;
	for (unsigned page_size = 512; page_size <= 65536; page_size *= 2) {
		snprintf(r->db_path, sizeof r->db_path, "%s/p%u.db", r->f.dir, page_size);
		sqlite3 *db = sqlite_rig_make(r, page_size, "wal", 3000);
		assert_int_equal(sqlite_rig_number(db, "PRAGMA page_size"), page_size);
		sqlite_rig_prove(r, false);
		sqlite_rig_sql(db, "UPDATE message SET body = hex(randomblob(90)) WHERE n % 100 = 7");
		sqlite_rig_prove(r, false);
		sqlite3_close(db);
	}
}

static void snapshot__takes_committed_pages_from_the_wal_only(void **state)
{
	struct sqlite_rig *r = *state;
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 2000);
	sqlite_rig_sql(db, "PRAGMA wal_autocheckpoint=0; PRAGMA wal_checkpoint(TRUNCATE); UPDATE message SET who = 'in the wal' WHERE n < 500");
	sqlite_rig_sql(db, "PRAGMA cache_size=5; BEGIN IMMEDIATE; UPDATE message SET body = 'not committed'"); /* spills */
	struct im_error err = { 0 };
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	sqlite_rig_sql(db, "ROLLBACK");
	assert_ok(sqlite_rig_restore(r, &err), &err);
	sqlite3 *copy = sqlite_rig_open(r->restored);
	assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM message WHERE who = 'in the wal'"), 499);
	assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM message WHERE body = 'not committed'"), 0);
	sqlite3_close(copy);
	sqlite_rig_prove(r, false);
	sqlite3_close(db);
}

static void snapshot__survives_rolled_back_spills_that_were_overwritten(void **state)
{
	struct sqlite_rig *r = *state;
	sqlite3 *db = sqlite_rig_make(r, 1024, "wal", 2000);
	sqlite_rig_sql(db, "PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=5");
	for (int i = 0; i < 5; i++) {
		sqlite_rig_sql(db, "BEGIN; UPDATE message SET body = hex(randomblob(120)); ROLLBACK");
		sqlite_rig_sql(db, "UPDATE message SET body = hex(randomblob(80)) WHERE n % 97 = 5");
		sqlite_rig_prove(r, false);
	}
	sqlite3_close(db);
}

static void snapshot__follows_growth_shrinkage_and_vacuum(void **state)
{
	struct sqlite_rig *r = *state;
	sqlite3 *db = sqlite_rig_open(r->db_path);
	sqlite_rig_sql(db, "PRAGMA page_size=1024; PRAGMA auto_vacuum=FULL; CREATE TABLE first(a)");
	sqlite3_close(db);
	db = sqlite_rig_make(r, 1024, "wal", 30000); /* more than one leaf */
	assert_true(sqlite_rig_number(db, "PRAGMA page_count") > 4096);
	sqlite_rig_prove(r, false);
	sqlite_rig_sql(db, "DELETE FROM message WHERE n > 3000");
	sqlite_rig_prove(r, false);
	assert_true(r->result.bytes < 4096 * 1024);
	sqlite_rig_sql(db, "VACUUM");
	sqlite_rig_prove(r, false);
	sqlite_rig_sql(db, "INSERT INTO message(who, body) SELECT who, body || 'x' FROM message; INSERT INTO message(who, body) SELECT who, body || 'y' FROM message");
	sqlite_rig_sql(db, "INSERT INTO message(who, body) SELECT who, body || 'z' FROM message");
	sqlite_rig_prove(r, false);
	sqlite_rig_prove(r, true);
	sqlite3_close(db);
}

static void snapshot__of_an_empty_file_is_an_empty_file(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	char *text = NULL;
	assert_ok(im_file_write(r->db_path, "", 0, 0640, IM_FILE_NEW, &err), &err);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_ok(sqlite_rig_restore(r, &err), &err);
	struct stat st;
	assert_int_equal(stat(r->restored, &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_ok(sqlite_store_ops.check(r->result.manifest, r->restored, "quick", &text, &err), &err);
	free(text);
}

static void snapshot__of_an_unchanged_store_reads_and_writes_nothing(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 2000);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err); /* frames in the WAL name the commit for certain */
	size_t packs = r->result.pack_count;
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_int_equal(r->result.bytes_read, 0);
	assert_int_equal(r->stats.stored_bytes, 0);
	assert_int_equal(r->result.pack_count, packs);
	sqlite_rig_sql(db, "UPDATE message SET who = 'changed' WHERE n = 1");
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_true(r->result.bytes_read > 0 && r->result.bytes_changed > 0);
	sqlite_rig_prove(r, false);
	sqlite3_close(db);
}

static void snapshot__does_not_trust_times_that_are_too_fresh(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3_close(sqlite_rig_make(r, 4096, "wal", 500)); /* closed: no WAL, only times tell */
	struct timespec soon[2] = { { .tv_sec = time(NULL) + 100 }, { .tv_sec = time(NULL) + 100 } };
	assert_int_equal(utimensat(AT_FDCWD, r->db_path, soon, 0), 0);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_true(r->result.bytes_read > 0);
	assert_int_equal(r->result.bytes_changed, 0);
	assert_int_equal(r->stats.stored_bytes, 0);
}

static void snapshot__of_a_closed_unchanged_store_reads_nothing(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3_close(sqlite_rig_make(r, 4096, "wal", 500));
	sleep(3);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_string_equal(json_string_value(json_object_get(r->result.manifest, "capture")), "closed");
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_int_equal(r->result.bytes_read, 0);
	assert_ok(sqlite_rig_restore(r, &err), &err);
	assert_true(sqlite_rig_same_bytes(r->restored, r->db_path));
	assert_ok(sqlite_rig_snapshot(r, true, &err), &err); /* full believes nothing */
	assert_true(r->result.bytes_read > 0);
}

static void snapshot__stores_only_changed_pages(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 20000);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	uint64_t all = r->result.bytes_changed;
	assert_int_equal(all, r->result.bytes);
	sqlite_rig_sql(db, "UPDATE message SET body = hex(randomblob(100)) WHERE n IN (10, 9000, 19000)");
	sqlite_rig_prove(r, false);
	assert_in_range(r->result.bytes_changed, 3 * 4096, 10 * 4096);
	sqlite3_close(db);
}

static void snapshot__after_lost_state_finds_whole_groups_again(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 20000);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	uint64_t first = r->stats.stored_bytes;
	assert_ok(state_delete(r->f.state, "archive", "", &err), &err);
	sqlite_rig_prove(r, false);
	assert_true(r->stats.deduplicated_bytes > 0);
	assert_true(r->stats.stored_bytes < first / 10);
	sqlite3_close(db);
}

static void snapshot__with_damaged_memory_reads_everything(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 5000);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_ok(state_put(r->f.state, "archive", "leaf/00000000/a", "rubbish", 7, &err), &err);
	sqlite_rig_sql(db, "UPDATE message SET who = 'x' WHERE n = 4");
	sqlite_rig_prove(r, false);
	assert_ok(state_put(r->f.state, "archive", "image", "rubbish", 7, &err), &err);
	sqlite_rig_prove(r, false);
	sqlite3_close(db);
}

static void snapshot__that_fails_keeps_the_old_memory(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 5000);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	sqlite_rig_sql(db, "UPDATE message SET who = 'x' WHERE n < 50");
	sqlite_rig_option(r, "probe", "SELECT no_such_column FROM message");
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EUSAGE);
	assert_non_null(strstr(err.text, "no_such_column"));
	r->store.pair_count = 0;
	sqlite_rig_prove(r, false);
	assert_true(r->result.bytes_changed < 40 * 4096); /* the rest was still remembered */
	sqlite3_close(db);
}

static void snapshot__moves_what_is_left_out_of_old_packs(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 8000);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_int_equal(r->result.pack_count, 1);
	uint32_t first = r->result.packs[0];
	bool gone = false;
	for (int i = 0; i < 12 && !gone; i++) {
		sqlite_rig_sql(db, "UPDATE message SET body = hex(randomblob(100)) WHERE n > 800");
		sqlite_rig_prove(r, false);
		gone = r->result.packs[0] != first;
	}
	assert_true(gone);
	sqlite3_close(db);
}

static void snapshot__records_probes_of_the_very_image(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	char *text = NULL;
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 1000);
	sqlite_rig_sql(db, "CREATE TABLE prosodyarchive(sort_id INTEGER PRIMARY KEY AUTOINCREMENT, host, user, store, key, \"when\", \"with\", type, value);"
	                   "INSERT INTO prosodyarchive(value) VALUES ('a'), ('b')");
	sqlite_rig_option(r, "probe", "SELECT count(*), max(n), NULL FROM message");
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	auto_free char *probes = json_dumps(json_object_get(r->result.manifest, "probes"), JSON_COMPACT);
	assert_non_null(strstr(probes, "[[\"1000\",\"1000\",null]]"));
	assert_non_null(strstr(probes, "[[\"2\",\"2\"]]"));
	assert_ok(sqlite_rig_restore(r, &err), &err);
	assert_ok(sqlite_store_ops.check(r->result.manifest, r->restored, "quick", &text, &err), &err);
	assert_non_null(strstr(text, "2 probes equal"));
	free(text);
	sqlite3 *copy = sqlite_rig_open(r->restored);
	sqlite_rig_sql(copy, "PRAGMA journal_mode=delete; DELETE FROM message WHERE n = 5");
	sqlite3_close(copy);
	assert_int_equal(sqlite_store_ops.check(r->result.manifest, r->restored, "quick", &text, &err), IM_EDIFFERENT);
	assert_non_null(strstr(err.text, "999"));
	sqlite3_close(db);
}

static void probe__may_not_write(void **state)
{
	struct sqlite_rig *r = *state;
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 10);
	static const char *const evil[] = { "DELETE FROM message", "ATTACH '/tmp/imvault-never' AS x", "PRAGMA journal_mode=delete",
		"SELECT 1; DELETE FROM message", "", "SELECT n FROM message, (SELECT 1 UNION SELECT 2 UNION SELECT 3)x, message m2" };
	sqlite_rig_option(r, "probe", "");
	for (size_t i = 0; i < sizeof evil / sizeof evil[0]; i++) {
		struct im_error err = { 0 };
		r->pairs[0].value = (char *)evil[i];
		assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EUSAGE);
	}
	assert_int_equal(sqlite_rig_number(db, "SELECT count(*) FROM message"), 10);
	sqlite3_close(db);
}

static void check__leaves_nothing_beside_the_database(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	char name[300];
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 1000);
	sqlite_rig_prove(r, false);
	snprintf(name, sizeof name, "%s-wal", r->restored);
	assert_int_equal(access(name, F_OK), -1);
	snprintf(name, sizeof name, "%s-shm", r->restored);
	assert_int_equal(access(name, F_OK), -1);
	auto_close int fd = open(r->restored, O_RDWR);
	assert_ok(im_pwrite_full(fd, "rubbish rubbish rubbish", 23, 3 * 4096, &err, "test"), &err);
	char *text = NULL;
	assert_int_equal(sqlite_store_ops.check(r->result.manifest, r->restored, "quick", &text, &err), IM_ECORRUPT);
	sqlite3_close(db);
}

static void restore__moves_a_stale_wal_aside(void **state)
{
	struct sqlite_rig *r = *state;
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 1000);
	r->plant_wal = true;
	sqlite_rig_prove(r, false);
	char wal[300];
	snprintf(wal, sizeof wal, "%s-wal", r->restored);
	assert_int_equal(access(wal, F_OK), -1);
	auto_free char *folder = im_format("%s%s", r->target, r->f.dir);
	auto_closedir DIR *d = opendir(folder);
	int aside = 0;
	for (struct dirent *e; (e = readdir(d));)
		aside += strncmp(e->d_name, "store.db-wal.before-restore-", 28) == 0;
	assert_int_equal(aside, 1);
	sqlite3_close(db);
}

static void restore__refuses_hostile_manifests(void **state)
{
	struct sqlite_rig *r = *state;
	static const char *const changes[] = { "{\"page_size\": 1000}", "{\"page_size\": 131072}", "{\"pages\": -1}", "{\"pages\": 4294967295}",
		"{\"pages\": 5}", "{\"file_bytes\": 1}", "{\"leaves\": \"AAAA\"}", "{\"leaves\": \"\"}", "{\"leaves\": 5}",
		"{\"path\": \"/a/../b\"}", "{\"path\": \"a\"}", "{\"path\": \"/\"}", "{\"path\": \"/a//b\"}", "{\"checksum\": \"00\"}",
		"{\"leaf_pages\": 1}", "{\"mode\": 4294967296}", "{\"uid\": -5}", "{\"journal\": \"AAAA\", \"journal_bytes\": 3}",
		"{\"journal\": \"\", \"journal_bytes\": 3}" };
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 1000);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	json_t *good = r->result.manifest;
	for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
		json_t *change = json_loads(changes[i], 0, NULL);
		assert_non_null(change);
		r->result.manifest = json_deep_copy(good);
		json_object_update(r->result.manifest, change);
		int rc = sqlite_rig_restore(r, &err);
		if (rc != IM_ECORRUPT)
			fail_msg("%s gave %d", changes[i], rc);
		json_decref(change);
		json_decref(r->result.manifest);
	}
	r->result.manifest = good;
	json_object_set_new(good, "checksum", json_string("00000000000000000000000000000000"));
	assert_int_equal(sqlite_rig_restore(r, &err), IM_ECORRUPT);
	sqlite3_close(db);
}

static void snapshot__refuses_a_rollback_journal_and_says_why(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "delete", 100);
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "PRAGMA journal_mode=wal"));
	assert_non_null(strstr(err.text, "pause"));
	assert_non_null(strstr(err.text, "locking = shared"));
	sqlite3_close(db);
}

static void snapshot__with_locking_shared_reads_a_rollback_journal_database(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "delete", 1000);
	sqlite_rig_option(r, "locking", "shared");
	sqlite_rig_prove(r, false);
	sqlite_rig_sql(db, "BEGIN IMMEDIATE; UPDATE message SET who = 'y' WHERE n = 3"); /* RESERVED is no obstacle */
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	sqlite_rig_sql(db, "COMMIT");
	sqlite_rig_prove(r, false);
	sqlite3_close(db);
}

static void snapshot__of_a_locked_database_fails_in_time(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 1000);
	sqlite_rig_option(r, "timeout", "100ms");
	sqlite_rig_sql(db, "PRAGMA locking_mode=EXCLUSIVE; UPDATE message SET who = 'z' WHERE n = 3");
	sqlite3_close(db);
	db = sqlite_rig_open(r->db_path);
	sqlite_rig_sql(db, "PRAGMA locking_mode=EXCLUSIVE; UPDATE message SET who = 'z' WHERE n = 3");
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "locked by another process"));
	sqlite_rig_sql(db, "UPDATE message SET who = 'zz' WHERE n = 3");
	sqlite3_close(db);
}

static void snapshot__of_a_hot_journal_is_refused(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	char journal[300], kept[300], db_kept[300];
	sqlite3 *db = sqlite_rig_make(r, 4096, "delete", 3000);
	sqlite_rig_option(r, "locking", "shared");
	sqlite_rig_sql(db, "PRAGMA cache_size=5; PRAGMA synchronous=FULL; BEGIN; UPDATE message SET body = 'half'");
	snprintf(journal, sizeof journal, "%s-journal", r->db_path);
	snprintf(kept, sizeof kept, "%s/crashed.db-journal", r->f.dir);
	snprintf(db_kept, sizeof db_kept, "%s/crashed.db", r->f.dir);
	auto_buf struct im_buf a = { 0 };
	auto_buf struct im_buf b = { 0 };
	assert_ok(im_file_read(journal, SIZE_MAX, &a, &err), &err);
	assert_ok(im_file_read(r->db_path, SIZE_MAX, &b, &err), &err);
	assert_ok(im_file_write(kept, a.data, a.len, 0600, IM_FILE_NEW, &err), &err);
	assert_ok(im_file_write(db_kept, b.data, b.len, 0600, IM_FILE_NEW, &err), &err);
	sqlite3_close(db);
	r->store.path = db_kept;
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "hot rollback journal"));
}

static void snapshot__names_what_is_no_database(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_ENOTFOUND);
	im_error_clear(&err);
	char rubbish[4096] = "this is not a database";
	assert_ok(im_file_write(r->db_path, rubbish, sizeof rubbish, 0600, IM_FILE_NEW, &err), &err);
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "not an SQLite database"));
	im_error_clear(&err);
	assert_int_equal(unlink(r->db_path), 0);
	assert_int_equal(mkdir(r->db_path, 0700), 0);
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EFAIL);
}

static void source_read__knows_the_page_that_is_never_used(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	uint8_t page[65536];
	for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
		uint32_t lock = (uint32_t)((1u << 30) / page_size);
		assert_int_equal(dbheader_lock_page(page_size, lock), UINT32_MAX);
		assert_int_equal(dbheader_lock_page(page_size, lock + 1), lock);
		auto_close int fd = open(r->db_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
		assert_int_equal(ftruncate(fd, 1 << 30), 0); /* a hole: it ends right before that page */
		struct source s = { .page_size = page_size, .pages = lock + 2, .path = r->db_path, .db = fd, .wal = -1 };
		memset(page, 1, sizeof page);
		assert_ok(source_read(&s, lock, 1, page, &err), &err);
		assert_true(page[0] == 0 && page[page_size - 1] == 0);
		assert_int_equal(source_read(&s, lock + 1, 1, page, NULL), IM_ECORRUPT);
		assert_ok(source_read(&s, lock - 1, 1, page, &err), &err);
	}
}

static void snapshot__finds_a_truncated_database(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 3000);
	sqlite_rig_sql(db, "PRAGMA wal_checkpoint(TRUNCATE); UPDATE message SET who = 'w' WHERE n = 1");
	assert_int_equal(truncate(r->db_path, 40 * 4096), 0);
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_ECORRUPT);
	assert_non_null(strstr(err.text, "neither in"));
	sqlite3_close(db);
}

static void collect(void *context, const char *path)
{
	strcat(strcat(context, path + strlen(path) - 5), " ");
}

static void own_files__names_all_four(void **state)
{
	struct sqlite_rig *r = *state;
	char text[256] = "";
	sqlite_store_ops.own_files(&r->store, collect, text);
	assert_string_equal(text, "re.db b-wal b-shm urnal ");
}

static void validate__refuses_what_it_cannot_honour(void **state)
{
	struct sqlite_rig *r = *state;
	static const struct {
		const char *a, *av, *b, *bv;
		int code;
	} cases[] = {
		{ "locking", "shared", NULL, NULL, 0 }, { "locking", "exclusive", NULL, NULL, IM_EUSAGE },
		{ "locking", "shared", "pause", "/x.pid", IM_EUSAGE }, { "pause", "/x.pid", "pause_limit", "1s", 0 },
		{ "pause_limit", "1s", NULL, NULL, IM_EUSAGE }, { "pause", "prosody.service", NULL, NULL, 0 },
		{ "pause", "a b; c", NULL, NULL, IM_EUSAGE }, { "timeout", "never", NULL, NULL, IM_EUSAGE },
		{ "pause", "", NULL, NULL, IM_EUSAGE }, { "pause", "prosody", "pause_limit", "9h", IM_EUSAGE },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct im_error err = { 0 };
		r->store.pair_count = 0;
		sqlite_rig_option(r, cases[i].a, cases[i].av);
		if (cases[i].b)
			sqlite_rig_option(r, cases[i].b, cases[i].bv);
		assert_int_equal(sqlite_store_ops.validate(&r->store, &err), cases[i].code);
	}
}

static bool every_ref_is_bad(void *context, const struct im_ref *ref)
{
	(void)context, (void)ref;
	return true;
}

static void append(void *context, const char *line)
{
	strcat(context, line);
}

static void explain__names_pages(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	struct fetcher *fetcher;
	char text[256] = "", expected[256];
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 1000);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &err), &err);
	struct rebuild b = { .snapshot = &r->snapshot, .fetcher = fetcher, .manifest = r->result.manifest, .keyring = r->f.restore->keyring };
	assert_ok(sqlite_store_ops.explain(&b, every_ref_is_bad, NULL, append, text, &err), &err);
	snprintf(expected, sizeof expected, "pages 1-%llu of %s", (unsigned long long)r->result.bytes / 4096, r->db_path);
	assert_string_equal(text, expected);
	fetcher_free(fetcher);
	sqlite3_close(db);
}

static void export_tar__writes_the_database_as_one_entry(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	struct fetcher *fetcher;
	char expected[256];
	sqlite3 *db = sqlite_rig_make(r, 1024, "wal", 30000); /* two leaves */
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	sqlite_rig_sql(db, "UPDATE message SET body = hex(randomblob(100)) WHERE n % 50 = 0");
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	sqlite_rig_expected(r, expected);
	auto_buf struct im_buf want = { 0 };
	assert_ok(im_file_read(expected, SIZE_MAX, &want, &err), &err);
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &err), &err);
	struct rebuild b = { .snapshot = &r->snapshot, .fetcher = fetcher, .manifest = r->result.manifest, .keyring = r->f.restore->keyring };
	auto_free char *tar = im_format("%s/out.tar", r->f.dir);
	struct archive *out = archive_write_new();
	archive_write_set_format_pax(out);
	assert_int_equal(archive_write_open_filename(out, tar), ARCHIVE_OK);
	assert_ok(sqlite_store_ops.export_tar(&b, out, &err), &err);
	assert_int_equal(archive_write_free(out), ARCHIVE_OK);
	fetcher_free(fetcher);

	struct archive *in = archive_read_new();
	struct archive_entry *entry;
	archive_read_support_format_tar(in);
	assert_int_equal(archive_read_open_filename(in, tar, 65536), ARCHIVE_OK);
	assert_int_equal(archive_read_next_header(in, &entry), ARCHIVE_OK);
	assert_string_equal(archive_entry_pathname(entry), r->db_path + 1);
	assert_int_equal(archive_entry_size(entry), want.len);
	auto_free uint8_t *got = malloc(want.len);
	assert_int_equal(archive_read_data(in, got, want.len), want.len);
	assert_memory_equal(got, want.data, want.len);
	assert_int_equal(archive_read_next_header(in, &entry), ARCHIVE_EOF);
	archive_read_free(in);
	sqlite3_close(db);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, sqlite_rig_setup, sqlite_rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(snapshot__restores_every_page_size),
		RIG_TEST(snapshot__takes_committed_pages_from_the_wal_only),
		RIG_TEST(snapshot__survives_rolled_back_spills_that_were_overwritten),
		RIG_TEST(snapshot__follows_growth_shrinkage_and_vacuum),
		RIG_TEST(snapshot__of_an_empty_file_is_an_empty_file),
		RIG_TEST(snapshot__of_an_unchanged_store_reads_and_writes_nothing),
		RIG_TEST(snapshot__does_not_trust_times_that_are_too_fresh),
		RIG_TEST(snapshot__of_a_closed_unchanged_store_reads_nothing),
		RIG_TEST(snapshot__stores_only_changed_pages),
		RIG_TEST(snapshot__after_lost_state_finds_whole_groups_again),
		RIG_TEST(snapshot__with_damaged_memory_reads_everything),
		RIG_TEST(snapshot__that_fails_keeps_the_old_memory),
		RIG_TEST(snapshot__moves_what_is_left_out_of_old_packs),
		RIG_TEST(snapshot__records_probes_of_the_very_image),
		RIG_TEST(probe__may_not_write),
		RIG_TEST(check__leaves_nothing_beside_the_database),
		RIG_TEST(restore__moves_a_stale_wal_aside),
		RIG_TEST(restore__refuses_hostile_manifests),
		RIG_TEST(snapshot__refuses_a_rollback_journal_and_says_why),
		RIG_TEST(snapshot__with_locking_shared_reads_a_rollback_journal_database),
		RIG_TEST(snapshot__of_a_locked_database_fails_in_time),
		RIG_TEST(snapshot__of_a_hot_journal_is_refused),
		RIG_TEST(snapshot__names_what_is_no_database),
		RIG_TEST(source_read__knows_the_page_that_is_never_used),
		RIG_TEST(snapshot__finds_a_truncated_database),
		RIG_TEST(own_files__names_all_four),
		RIG_TEST(validate__refuses_what_it_cannot_honour),
		RIG_TEST(explain__names_pages),
		RIG_TEST(export_tar__writes_the_database_as_one_entry),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
