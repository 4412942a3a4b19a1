/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pin: which commit it names, that its locks hold against other processes, and that it does
 * no harm: database and -wal keep every byte, nothing is deleted, nobody is kept waiting.
 */
#include "sqlite_rig.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "stores/sqlite/pin.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

static struct pin *pin(struct sqlite_rig *r)
{
	struct im_error err = { 0 };
	struct pin *p = NULL;
	assert_ok(pin_open(r->db_path, PIN_WAL, 2000, &p, &err), &err);
	return p;
}

/* Is a byte range of a file locked, as another process sees it? (Opened there: closing it here would drop our locks.) */
static bool locked(const char *path, off_t at, off_t len)
{
	pid_t child = fork();
	if (child == 0) {
		int fd = open(path, O_RDWR | O_CLOEXEC);
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = len };
		_exit(fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK);
	}
	int status;
	waitpid(child, &status, 0);
	return WEXITSTATUS(status);
}

static void open__holds_a_read_mark_and_the_shared_lock(void **state)
{
	struct sqlite_rig *r = *state;
	auto_free char *shm = im_format("%s-shm", r->db_path);
	sqlite3_close(sqlite_rig_make(r, 4096, "wal", 100));
	struct pin *p = pin(r);
	assert_true(locked(shm, 123, 5));                      /* WAL_READ_LOCK(0…4) */
	assert_false(locked(shm, 120, 3));                     /* neither write, checkpoint nor recover */
	assert_true(locked(r->db_path, (1 << 30) + 2, 510));   /* SHARED */
	pin_close(p);
	assert_false(locked(shm, 120, 8));
}

static void open__keeps_its_locks_while_descriptors_come_and_go(void **state)
{
	struct sqlite_rig *r = *state;
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 100);
	auto_free char *shm = im_format("%s-shm", r->db_path);
	struct pin *p = pin(r);
	struct im_error err = { 0 };
	uint8_t page[4096];
	for (int i = 0; i < 10; i++)
		assert_int_equal(im_pread_full(p->files.db, page, sizeof page, 0, &err, "db"), sizeof page);
	assert_true(locked(shm, 123, 5));
	assert_ok(pin_verify(p, &err), &err);
	pin_close(p);
	sqlite3_close(db);
}

static void verify__sees_that_a_lost_lock_was_used(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 1000); /* in this process: its locks go with ours */
	sqlite_rig_sql(db, "UPDATE message SET who = 'a' WHERE n < 100");
	struct pin *p = pin(r);
	assert_true(p->uses_wal);
	pid_t other = fork();
	if (other == 0) {
		auto_free char *command = im_format(
		    "sqlite3 -bail '%s' \"PRAGMA busy_timeout=3000; PRAGMA wal_checkpoint(RESTART); UPDATE message SET who = 'b' WHERE n < 50\" >/dev/null", r->db_path);
		usleep(200000);
		_exit(system(command) != 0);
	}
	close(open(r->db_path, O_RDONLY));                    /* drops them, as POSIX has it */
	auto_free char *shm = im_format("%s-shm", r->db_path);
	close(open(shm, O_RDONLY));
	int status;
	waitpid(other, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(pin_verify(p, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "thrown away"));
	pin_close(p);
	sqlite3_close(db);
}

static void open__keeps_writers_from_restarting_the_wal(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 1024, "wal", 500);
	sqlite_rig_sql(db, "PRAGMA wal_autocheckpoint=0; PRAGMA wal_checkpoint(TRUNCATE); UPDATE message SET who = 'pinned'");
	struct pin *p = pin(r);
	assert_true(p->uses_wal);
	uint32_t mark = p->shm.max_frame;
	for (int i = 0; i < 20; i++)
		sqlite_rig_sql(db, "UPDATE message SET who = 'later'; PRAGMA wal_checkpoint(PASSIVE)");
	assert_ok(pin_verify(p, &err), &err);
	struct shm_head now;
	assert_true(pin_files_shm(&p->files, &now));
	assert_true(now.max_frame > mark && now.backfilled <= mark);
	pin_close(p);
	sqlite3_close(db);
}

static void open__in_slot_0_lets_the_wal_restart_and_needs_it_not(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 1024, "wal", 500);
	sqlite_rig_sql(db, "PRAGMA wal_autocheckpoint=0; PRAGMA wal_checkpoint(PASSIVE)");
	struct pin *p = pin(r);
	assert_false(p->uses_wal);
	sqlite_rig_sql(db, "UPDATE message SET who = 'restarts the WAL'; PRAGMA wal_checkpoint(PASSIVE)");
	struct shm_head now;
	assert_true(pin_files_shm(&p->files, &now));
	assert_memory_not_equal(now.salt, p->shm.salt, 8);
	assert_int_equal(now.backfilled, 0);
	assert_ok(pin_verify(p, &err), &err);
	pin_close(p);
	sqlite3_close(db);
}

/* --- a crashed server --- */

static void crash_a_writer(struct sqlite_rig *r)
{
	sqlite3_close(sqlite_rig_make(r, 4096, "wal", 500));
	pid_t child = fork();
	if (child == 0) {
		sqlite3 *db;
		sqlite3_open(r->db_path, &db);
		sqlite3_exec(db, "PRAGMA wal_autocheckpoint=0; UPDATE message SET who = 'acknowledged' WHERE n <= 200", NULL, NULL, NULL);
		sqlite3_exec(db, "PRAGMA cache_size=5; BEGIN; UPDATE message SET body = 'never committed'", NULL, NULL, NULL);
		kill(getpid(), SIGKILL);
	}
	int status;
	waitpid(child, &status, 0);
	assert_true(WIFSIGNALED(status));
}

static void snapshot__after_a_crash_changes_neither_database_nor_wal(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	crash_a_writer(r);
	auto_free char *wal = im_format("%s-wal", r->db_path);
	auto_buf struct im_buf db_before = { 0 };
	auto_buf struct im_buf wal_before = { 0 };
	auto_buf struct im_buf db_after = { 0 };
	auto_buf struct im_buf wal_after = { 0 };
	assert_ok(im_file_read(r->db_path, SIZE_MAX, &db_before, &err), &err);
	assert_ok(im_file_read(wal, SIZE_MAX, &wal_before, &err), &err);
	assert_true(wal_before.len > 32);
	for (int i = 0; i < 2; i++) {
		assert_ok(sqlite_rig_snapshot(r, i, &err), &err);
		assert_ok(sqlite_rig_restore(r, &err), &err);
	}
	assert_ok(im_file_read(r->db_path, SIZE_MAX, &db_after, &err), &err);
	assert_ok(im_file_read(wal, SIZE_MAX, &wal_after, &err), &err);
	assert_true(db_before.len == db_after.len && memcmp(db_before.data, db_after.data, db_after.len) == 0);
	assert_true(wal_before.len == wal_after.len && memcmp(wal_before.data, wal_after.data, wal_after.len) == 0);
	sqlite3 *copy = sqlite_rig_open(r->restored);
	assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM message WHERE who = 'acknowledged'"), 200);
	assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM message WHERE body = 'never committed'"), 0);
	sqlite3_close(copy);
	sqlite3 *db = sqlite_rig_open(r->db_path); /* and the server finds all it had */
	assert_int_equal(sqlite_rig_number(db, "SELECT count(*) FROM message WHERE who = 'acknowledged'"), 200);
	sqlite3_close(db);
}

static void snapshot__with_a_torn_wal_ends_at_the_last_whole_commit(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	crash_a_writer(r);
	auto_free char *wal = im_format("%s-wal", r->db_path);
	auto_free char *shm = im_format("%s-shm", r->db_path);
	auto_buf struct im_buf bytes = { 0 };
	assert_ok(im_file_read(wal, SIZE_MAX, &bytes, &err), &err);
	assert_int_equal(truncate(wal, (off_t)bytes.len - 1000), 0);
	unlink(shm); /* the machine went down, too */
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_ok(sqlite_rig_restore(r, &err), &err);
	sqlite3 *copy = sqlite_rig_open(r->restored);
	assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM message WHERE who = 'acknowledged'"), 200);
	sqlite3_close(copy);
}

static void snapshot__is_never_the_last_to_close(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 4096, "wal", 500);
	auto_free char *wal = im_format("%s-wal", r->db_path);
	auto_free char *kept = im_format("%s/kept-wal", r->f.dir);
	assert_int_equal(link(wal, kept), 0);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_int_equal(access(wal, F_OK), 0);
	sqlite_rig_sql(db, "UPDATE message SET who = 'goes on' WHERE n = 1");
	sqlite3_close(db);
}

static void snapshot__while_writers_run_is_a_prefix_of_their_history(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	sqlite3 *db = sqlite_rig_make(r, 1024, "wal", 300);
	sqlite_rig_sql(db, "CREATE TABLE seq(n INTEGER PRIMARY KEY, twice INTEGER, pad BLOB)");
	sqlite3_close(db);
	pid_t child = fork();
	if (child == 0) {
		sqlite3_open(r->db_path, &db);
		sqlite3_busy_timeout(db, 10000);
		sqlite3_exec(db, "PRAGMA wal_autocheckpoint=20; PRAGMA synchronous=OFF", NULL, NULL, NULL);
		for (;;)
			if (sqlite3_exec(db, "INSERT INTO seq(twice, pad) SELECT coalesce(max(n), 0) * 2 + 2, randomblob(700) FROM seq;"
			                     "UPDATE message SET body = hex(randomblob(60)) WHERE n = (abs(random()) % 300)", NULL, NULL, NULL))
				_exit(1);
	}
	int64_t last = 0;
	for (int i = 0; i < 15; i++) {
		assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
		assert_ok(sqlite_rig_restore(r, &err), &err);
		sqlite3 *copy = sqlite_rig_open(r->restored);
		sqlite3_stmt *q;
		sqlite3_prepare_v2(copy, "PRAGMA integrity_check", -1, &q, NULL);
		assert_int_equal(sqlite3_step(q), SQLITE_ROW);
		assert_string_equal(sqlite3_column_text(q, 0), "ok");
		sqlite3_finalize(q);
		int64_t count = sqlite_rig_number(copy, "SELECT count(*) FROM seq");
		assert_int_equal(sqlite_rig_number(copy, "SELECT coalesce(max(n), 0) FROM seq"), count);
		assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM seq WHERE twice != 2 * n"), 0);
		assert_true(count >= last);
		last = count;
		sqlite3_close(copy);
	}
	int status;
	assert_int_equal(waitpid(child, &status, WNOHANG), 0); /* it never failed */
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	assert_true(last > 0);
}

static void open__refuses_a_database_in_rollback_mode(void **state)
{
	struct sqlite_rig *r = *state;
	struct im_error err = { 0 };
	struct pin *p = NULL;
	sqlite3 *db = sqlite_rig_make(r, 4096, "delete", 10);
	assert_int_equal(pin_open(r->db_path, PIN_WAL, 100, &p, &err), IM_EFAIL);
	sqlite3_close(db);
	assert_null(p);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, sqlite_rig_setup, sqlite_rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(open__holds_a_read_mark_and_the_shared_lock),
		RIG_TEST(open__keeps_its_locks_while_descriptors_come_and_go),
		RIG_TEST(verify__sees_that_a_lost_lock_was_used),
		RIG_TEST(open__keeps_writers_from_restarting_the_wal),
		RIG_TEST(open__in_slot_0_lets_the_wal_restart_and_needs_it_not),
		RIG_TEST(snapshot__after_a_crash_changes_neither_database_nor_wal),
		RIG_TEST(snapshot__with_a_torn_wal_ends_at_the_last_whole_commit),
		RIG_TEST(snapshot__is_never_the_last_to_close),
		RIG_TEST(snapshot__while_writers_run_is_a_prefix_of_their_history),
		RIG_TEST(open__refuses_a_database_in_rollback_mode),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
