/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The follower of a database: every commit captured while others write, checkpoint, vacuum and kill;
 * and a gap whenever that cannot be proven. The model in the rig compares page by page.
 */
#include "follow_rig.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "stores/sqlite/capture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void start(struct follow_rig *t, unsigned page_size, unsigned rows)
{
	struct im_error err = { 0 };
	follow_rig_make(t, page_size, rows);
	assert_ok(follow_rig_open(t, &err), &err);
}

static void must_gap(struct follow_rig *t, const char *part)
{
	struct im_error err = { 0 };
	struct follow_batch b = { 0 };
	bool any = false;
	int rc = t->follower ? sqlite_follow_ops.take(t->follower, false, &b, &any, &err) : follow_rig_open(t, &err);
	if (rc != IM_EGAP || !strstr(err.text, part))
		fail_msg("%d: %s", rc, err.text);
	if (t->follower)
		sqlite_follow_ops.close(t->follower, false);
	t->follower = NULL;
}

static void kill_keeper(struct follow_rig *t)
{
	int keeper = follow_rig_keeper(t);
	assert_true(keeper > 0);
	kill(keeper, SIGKILL);
	for (int i = 0; i < 200 && follow_rig_keeper(t); i++)
		usleep(5000);
}

/* --- capture --- */

static void capture__takes_inserts_updates_and_deletes(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 500);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('a', 'first');\n");
	assert_true(follow_rig_take(t));
	follow_rig_sql(t, "UPDATE message SET body = hex(randomblob(2000)) WHERE n % 7 = 0; DELETE FROM message WHERE n % 5 = 0;\n");
	assert_true(follow_rig_take(t));
	assert_false(follow_rig_take(t));
	follow_rig_prove(t);
}

static void capture__works_with_every_page_size(void **state)
{
	struct follow_rig *t = *state;
	for (unsigned size = 512; size <= 65536; size *= 2) {
		start(t, size, 200);
		follow_rig_sql(t, "INSERT INTO message (who, body) SELECT 'x', hex(randomblob(300)) FROM message; DELETE FROM message WHERE n % 3 = 0;\n");
		follow_rig_prove(t);
		remove(t->r->db_path);
	}
}

static void capture__follows_growth_and_shrinkage(void **state)
{
	struct follow_rig *t = *state;
	start(t, 1024, 2000);
	follow_rig_sql(t, "PRAGMA auto_vacuum; INSERT INTO message (who, body) SELECT 'grow', hex(randomblob(500)) FROM message LIMIT 1500;\n");
	follow_rig_drain(t);
	uint32_t grown = t->page_count;
	follow_rig_sql(t, "DELETE FROM message WHERE who = 'grow'; VACUUM;\n");
	follow_rig_drain(t);
	assert_true(t->page_count < grown);
	follow_rig_sql(t, "INSERT INTO message (who, body) SELECT 'again', hex(randomblob(400)) FROM message LIMIT 1500;\n");
	follow_rig_prove(t);
}

/* Trap 3: a spill that is rolled back leaves frames behind the last commit, which a later commit overwrites. */
static void capture__never_ships_a_rolled_back_spill(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 500);
	follow_rig_sql(t, "PRAGMA cache_size=5; PRAGMA cache_spill=1; BEGIN; UPDATE message SET body = hex(randomblob(900)); ROLLBACK;"
	    "INSERT INTO message (who, body) VALUES ('small', 'commit');\n");
	follow_rig_prove(t);
}

/* A process whose open transaction has outgrown its cache: frames are in the WAL, but no commit. */
static pid_t spill(struct follow_rig *t)
{
	int fds[2];
	char c;
	assert_int_equal(pipe(fds), 0);
	pid_t child = fork();
	if (child == 0) {
		sqlite3 *db = sqlite_rig_open(t->r->db_path);
		sqlite_rig_sql(db, "PRAGMA cache_size=5; PRAGMA cache_spill=1; BEGIN; UPDATE message SET body = hex(randomblob(900))");
		_exit(write(fds[1], "x", 1) == 1 && (pause(), 0));
	}
	assert_int_equal(read(fds[0], &c, 1), 1);
	close(fds[0]);
	close(fds[1]);
	return child;
}

static void capture__sees_nothing_while_a_spill_is_open(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 2000);
	pid_t child = spill(t);
	assert_false(follow_rig_take(t));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('after', 'the crash');\n");
	assert_true(follow_rig_take(t));
	follow_rig_prove(t);
}

/* Trap 7: the page that holds byte 1 GiB is never written; a database that grows across it. (A page size of 64 KiB makes it page 16384.) */
static void capture__crosses_the_lock_page(void **state)
{
	struct follow_rig *t = *state;
	sqlite_rig_option(t->r, "wal_limit", "4GiB"); /* on a slow machine nothing of it may have been let go yet */
	start(t, 65536, 10);
	for (int i = 0; i < 11; i++) {
		follow_rig_sql(t, "PRAGMA synchronous=OFF; INSERT INTO message (who, body) VALUES ('big', zeroblob(93000000));\n");
		follow_rig_run(t, 400);
	}
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('across', zeroblob(70000000));\n");
	follow_rig_drain(t);
	assert_true((uint64_t)t->page_count * t->page_size > UINT64_C(1) << 30);
	follow_rig_prove(t);
}

static void capture__survives_four_writers_with_small_autocheckpoint(void **state)
{
	struct follow_rig *t = *state;
	int writers[4];
	uint64_t made = 0;
	start(t, 4096, 300);
	for (unsigned i = 0; i < 4; i++)
		writers[i] = follow_rig_writer(t, i, 50, 500);
	follow_rig_run(t, 3000);
	for (unsigned i = 0; i < 4; i++)
		made += follow_rig_stop(t, writers[i]);
	follow_rig_drain(t);
	assert_int_equal(t->commits, made);
	follow_rig_prove(t);
}

/* A checkpoint by another tool: RESTART and TRUNCATE cannot pass the pin; PASSIVE does no harm. */
static void capture__survives_checkpoints_by_others(void **state)
{
	struct follow_rig *t = *state;
	static const char *const kinds[] = { "PASSIVE", "FULL", "RESTART", "TRUNCATE" };
	start(t, 4096, 300);
	for (unsigned i = 0; i < 12; i++) {
		auto_free char *sql = im_format("PRAGMA busy_timeout=50; INSERT INTO message (who, body) VALUES ('c', hex(randomblob(3000))); PRAGMA wal_checkpoint(%s);\n", kinds[i % 4]);
		follow_rig_sql(t, sql);
		if (i % 3 == 2)
			follow_rig_drain(t);
	}
	follow_rig_prove(t);
}

/* --- harm --- */

/* The WAL begins again and again although the writer never rests. */
static void harm__wal_stays_bounded_under_writes(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 300);
	int writer = follow_rig_writer(t, 1, 1000, 5000);
	uint32_t most = 0, before = 0;
	int begun_again = 0;
	for (int i = 0; i < 1200 && begun_again < 3; i++) {
		follow_rig_run(t, 50);
		uint32_t frames = follow_rig_frames(t);
		begun_again += frames < before;
		before = frames;
		most = frames > most ? frames : most;
	}
	follow_rig_stop(t, writer);
	assert_int_equal(begun_again, 3);
	assert_true((uint64_t)most * 4120 < UINT64_C(64) << 20);
	follow_rig_prove(t);
}

static bool write_locked(const struct follow_rig *t)
{
	auto_free char *shm = im_format("%s-shm", t->r->db_path);
	auto_close int fd = open(shm, O_RDWR | O_CLOEXEC);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 120, .l_len = 1 };
	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void harm__never_takes_the_write_lock(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 300);
	for (int i = 0; i < 20; i++) {
		follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', hex(randomblob(100000)));\n");
		follow_rig_take(t);
		assert_false(write_locked(t));
	}
	follow_rig_prove(t);
}

static void harm__never_deletes_the_wal_when_it_is_the_last(void **state)
{
	struct follow_rig *t = *state;
	auto_free char *wal = im_format("%s-wal", t->r->db_path);
	start(t, 4096, 300);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	follow_rig_drain(t);
	sqlite_follow_ops.close(t->follower, false);
	t->follower = NULL;
	for (int i = 0; i < 200 && follow_rig_keeper(t); i++)
		usleep(10000);
	struct stat st;
	assert_int_equal(stat(wal, &st), 0);
	assert_true(st.st_size > 4096);
}

/* Trap 11, and: the keeper lets go when nobody comes back. */
/* A writer could restart the WAL meanwhile, which SQLite before 3.51.3 does not survive from another process. */
static void keeper__refuses_to_checkpoint_without_a_mark(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	struct keeper *k = NULL;
	struct keeper_pin pins[2], pin;
	unsigned count;
	int journal;
	follow_rig_make(t, 4096, 300);
	struct keeper_options o = { .folder = t->folder, .database = t->r->db_path, .timeout_ms = 2000, .hold_ms = 1000 };
	assert_ok(keeper_open(&o, &k, pins, &count, &journal, &err), &err);
	assert_int_equal(keeper_checkpoint(k, &err), IM_EUSAGE); /* no pin at all */
	im_error_clear(&err);
	assert_ok(keeper_take(k, &pin, &err), &err);
	assert_true(pin.all_backfilled);
	assert_int_equal(keeper_checkpoint(k, &err), IM_EUSAGE); /* slot 0 */
	im_error_clear(&err);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	assert_ok(keeper_take(k, &pin, &err), &err);
	assert_false(pin.all_backfilled);
	assert_ok(keeper_checkpoint(k, &err), &err);
	keeper_close(k, false);
	close(journal);
}

static void keeper__lets_go_after_hold(void **state)
{
	struct follow_rig *t = *state;
	t->hold_ms = 300;
	start(t, 4096, 300);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	follow_rig_abandon(t);
	assert_true(follow_rig_keeper(t) > 0);
	for (int i = 0; i < 400 && follow_rig_keeper(t); i++)
		usleep(10000);
	assert_int_equal(follow_rig_keeper(t), 0);
}

static void keeper__lets_go_when_the_wal_grows_too_large(void **state)
{
	struct follow_rig *t = *state;
	sqlite_rig_option(t->r, "wal_limit", "8MiB");
	start(t, 4096, 300);
	follow_rig_abandon(t);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', zeroblob(12000000));\n");
	for (int i = 0; i < 400 && follow_rig_keeper(t); i++)
		usleep(10000);
	assert_int_equal(follow_rig_keeper(t), 0);
}

/* --- going on --- */

static void continue__exactly_after_the_follower_was_killed(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	int writers[2];
	start(t, 4096, 300);
	writers[0] = follow_rig_writer(t, 1, 50, 2000);
	writers[1] = follow_rig_writer(t, 2, 50, 2000);
	while (!t->position) /* before the log has anything there is nothing to go on from */
		follow_rig_run(t, 100);
	for (int i = 0; i < 10; i++) {
		follow_rig_run(t, 100);
		bool any;
		assert_ok(sqlite_follow_ops.capture(t->follower, &any, &err), &err); /* captured, never taken: only the journal has it */
		follow_rig_abandon(t);
		usleep(50000);
		assert_ok(follow_rig_open(t, &err), &err);
	}
	follow_rig_stop(t, writers[0]);
	follow_rig_stop(t, writers[1]);
	follow_rig_prove(t);
}

/* The first frames of a WAL that begins again are no commit: the pin then stands in it before anything the log has of it. */
static void continue__exactly_when_the_wal_had_just_begun_again(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	start(t, 4096, 2000);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('large', randomblob(6000000));\n");
	follow_rig_run(t, 300); /* all of it is checkpointed, and the WAL may begin again */
	assert_non_null(t->position);
	assert_true(follow_rig_frames(t) > 0);
	pid_t child = spill(t);
	assert_int_equal(follow_rig_frames(t), 0);
	bool any;
	assert_ok(sqlite_follow_ops.capture(t->follower, &any, &err), &err); /* moves the pin */
	follow_rig_abandon(t);
	assert_ok(follow_rig_open(t, &err), &err);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('after', 'the crash');\n");
	assert_true(follow_rig_take(t));
	follow_rig_prove(t);
}

/* The same, but what had been taken of the WAL before is lost to the log. */
static void gap__batch_lost_before_a_wal_that_had_just_begun_again(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	start(t, 4096, 2000);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('kept', 'x');\n");
	assert_true(follow_rig_take(t));
	json_t *position = json_incref(t->position);
	uint32_t point = t->point;
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('lost', randomblob(6000000));\n");
	follow_rig_run(t, 300);
	pid_t child = spill(t);
	assert_int_equal(follow_rig_frames(t), 0);
	follow_rig_take(t);
	follow_rig_abandon(t);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	json_decref(t->position);
	t->position = position;
	t->point = point;
	int rc = follow_rig_open(t, &err);
	if (rc == 0)
		must_gap(t, "restarted");
	else
		assert_int_equal(rc, IM_EGAP);
}

static void continue__exactly_without_keeper_if_nothing_was_written(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	start(t, 4096, 300);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	int holder = follow_rig_writer(t, 9, 0, 10000000); /* somebody keeps the database open */
	usleep(200000);
	follow_rig_drain(t);
	kill_keeper(t);
	follow_rig_abandon(t);
	assert_ok(follow_rig_open(t, &err), &err);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'z');\n");
	assert_true(follow_rig_take(t));
	kill(holder, SIGKILL);
	waitpid(holder, NULL, 0);
	follow_rig_prove(t);
}

static void continue__exactly_without_keeper_if_nothing_was_checkpointed(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	start(t, 4096, 300);
	int holder = follow_rig_writer(t, 9, 0, 10000000);
	usleep(200000);
	follow_rig_sql(t, "PRAGMA wal_autocheckpoint=0; INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	follow_rig_drain(t);
	kill_keeper(t);
	follow_rig_abandon(t);
	follow_rig_sql(t, "PRAGMA wal_autocheckpoint=0; INSERT INTO message (who, body) VALUES ('while', 'away');\n");
	assert_ok(follow_rig_open(t, &err), &err);
	assert_true(follow_rig_take(t));
	kill(holder, SIGKILL);
	waitpid(holder, NULL, 0);
	follow_rig_prove(t);
}

/* --- gaps --- */

/* Trap 1: the application checkpoints while nobody follows. */
static void gap__checkpoint_while_nobody_followed(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 300);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	follow_rig_drain(t);
	kill_keeper(t);
	follow_rig_abandon(t);
	int holder = follow_rig_writer(t, 9, 0, 10000000);
	usleep(200000);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('lost', 'one'); PRAGMA wal_checkpoint(PASSIVE);\n");
	must_gap(t, "while nobody followed it");
	kill(holder, SIGKILL);
	waitpid(holder, NULL, 0);
}

/* Traps 2 and 10: the WAL was deleted and begun again; its size may even be the same. */
static void gap__wal_begun_again_while_nobody_followed(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 300);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	follow_rig_drain(t);
	kill_keeper(t);
	follow_rig_abandon(t);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'z');\n"); /* the last one closes: the -wal goes */
	must_gap(t, "while nobody followed it");
}

static void take_heartbeat(struct follow_rig *t)
{
	struct im_error err = { 0 };
	struct follow_batch b = { 0 };
	bool any = false;
	assert_ok(sqlite_follow_ops.take(t->follower, true, &b, &any, &err), &err);
	assert_true(any);
	json_decref(t->position);
	t->position = json_incref(b.position);
	t->point++;
	follow_batch_clear(&b);
	assert_ok(sqlite_follow_ops.durable(t->follower, &err), &err);
}

/* A WAL that never had a frame looks like any other: what was written, checkpointed and closed in between leaves no sign in it. */
static void gap__new_wal_as_before_while_nobody_followed(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 300);
	sleep(3); /* the file's times can be trusted */
	take_heartbeat(t);
	kill_keeper(t);
	follow_rig_abandon(t);
	follow_rig_sql(t, "DELETE FROM message WHERE n % 2;\n"); /* the last one closes: the -wal goes */
	must_gap(t, "cannot be told");
}

static void continue__with_a_new_wal_if_the_file_is_untouched(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	start(t, 4096, 300);
	sleep(3);
	take_heartbeat(t);
	kill_keeper(t);
	follow_rig_abandon(t);
	assert_ok(follow_rig_open(t, &err), &err);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	assert_true(follow_rig_take(t));
	follow_rig_prove(t);
}

/* Nothing new may be claimed by looking at files that nobody holds. */
static void gap__keeper_killed_while_nothing_happens(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	struct follow_batch b = { 0 };
	bool any = false;
	start(t, 4096, 300);
	kill_keeper(t);
	assert_int_equal(sqlite_follow_ops.take(t->follower, true, &b, &any, &err), IM_EGAP);
	assert_false(any);
}

static void gap__keeper_killed(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 300);
	kill_keeper(t);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	must_gap(t, "gone");
}

static void gap__database_replaced(void **state)
{
	struct follow_rig *t = *state;
	auto_free char *other = im_format("%s.other", t->r->db_path);
	auto_free char *copy = im_format("cp %s %s && mv %s %s", t->r->db_path, other, other, t->r->db_path);
	start(t, 4096, 300);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	follow_rig_drain(t);
	assert_int_equal(system(copy), 0);
	must_gap(t, "replaced");
	must_gap(t, "another file");
}

/* A reset behind our back: salt-1 rises by more than one, or at all although the pin forbade it. */
static void gap__wal_restarted_in_spite_of_the_pin(void **state)
{
	(void)state;
	struct capture c = { .at = { .page_size = 4096, .pages = 10, .salt = { 0, 0, 0, 5, 1, 2, 3, 4 }, .frame = 7 } };
	struct walpos mark = { .page_size = 4096, .pages = 11, .salt = { 0, 0, 0, 6, 9, 9, 9, 9 }, .frame = 3 };
	uint32_t frames;
	bool fresh;
	c.files.path = "db";
	assert_int_equal(capture_distance(&c, &mark, true, &frames, &fresh, NULL), 0);
	assert_true(fresh && frames == 3);
	assert_int_equal(capture_distance(&c, &mark, false, &frames, &fresh, NULL), IM_EGAP);
	mark.salt[3] = 7;
	assert_int_equal(capture_distance(&c, &mark, true, &frames, &fresh, NULL), IM_EGAP);
	memcpy(mark.salt, c.at.salt, 8);
	mark.frame = 6;
	assert_int_equal(capture_distance(&c, &mark, true, &frames, &fresh, NULL), IM_EGAP);
}

static void gap__single_commit_of_a_huge_change(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 300);
	follow_rig_sql(t, "PRAGMA wal_autocheckpoint=0; INSERT INTO message (who, body) VALUES ('x', zeroblob(200000000));\n");
	must_gap(t, "single commit");
}

static void refuse__rollback_journal(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	follow_rig_make(t, 4096, 10);
	follow_rig_sql(t, "PRAGMA journal_mode=delete;\n");
	assert_int_equal(follow_rig_open(t, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "rollback journal"));
}

/* Exclusive locking mode has no shared index: a capture would be bypassed. */
static void refuse__exclusive_locking(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	int fds[2];
	follow_rig_make(t, 4096, 10);
	assert_int_equal(pipe(fds), 0);
	pid_t child = fork();
	if (child == 0) {
		sqlite3 *db = sqlite_rig_open(t->r->db_path);
		sqlite_rig_sql(db, "PRAGMA locking_mode=EXCLUSIVE; INSERT INTO message (who, body) VALUES ('mine', 'alone')");
		_exit(write(fds[1], "x", 1) == 1 && (pause(), 0));
	}
	char c;
	assert_int_equal(read(fds[0], &c, 1), 1);
	assert_int_equal(follow_rig_open(t, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "EXCLUSIVE"));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* --- points and batches --- */

static void batch__heartbeat_says_up_to_when_nothing_is_missing(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	struct follow_batch b = { 0 };
	bool any = false;
	start(t, 4096, 300);
	int64_t before = im_now_ms();
	usleep(20000);
	assert_ok(sqlite_follow_ops.take(t->follower, true, &b, &any, &err), &err);
	assert_true(any);
	assert_int_equal(b.point_count, 1);
	assert_true(b.points[0].complete_ms > before && b.points[0].latest_ms >= b.points[0].complete_ms);
	follow_batch_clear(&b);
	assert_ok(sqlite_follow_ops.durable(t->follower, &err), &err);
}

static void batch__takes_exactly_up_to_a_pinned_commit(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	struct follow_batch b = { 0 };
	start(t, 4096, 300);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'in');\n");
	struct pin_files files;
	struct shm_head head;
	assert_ok(pin_files_open(t->r->db_path, &files, &err), &err);
	assert_true(pin_files_shm(&files, &head));
	pin_files_close(&files);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'not in');\n");
	struct walpos p = { .page_size = 4096, .pages = head.pages, .frame = head.max_frame,
		.frame_checksum = { head.frame_checksum[0], head.frame_checksum[1] } };
	memcpy(p.salt, head.salt, 8);
	json_t *position = walpos_encode(&p);
	assert_ok(sqlite_follow_ops.take_to(t->follower, position, &b, &err), &err);
	json_decref(position);
	assert_int_equal(b.commits, 1);
	assert_int_equal(json_integer_value(json_object_get(b.position, "frame")), head.max_frame);
	follow_batch_clear(&b);
	assert_ok(sqlite_follow_ops.durable(t->follower, &err), &err);
	bool any = false;
	assert_ok(sqlite_follow_ops.take(t->follower, false, &b, &any, &err), &err);
	assert_true(any);
	assert_int_equal(b.commits, 1);
	follow_batch_clear(&b);
}

static void batch__large_commit_comes_in_parts(void **state)
{
	struct follow_rig *t = *state;
	start(t, 4096, 300);
	follow_rig_sql(t, "PRAGMA wal_autocheckpoint=0; INSERT INTO message (who, body) VALUES ('x', randomblob(40000000));\n");
	follow_rig_prove(t);
}

static void moved__tells_whether_something_was_committed_since(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	bool moved = true;
	int64_t last;
	start(t, 4096, 300);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	follow_rig_drain(t);
	assert_ok(sqlite_follow_ops.moved(&t->r->store, t->position, &moved, &last, &err), &err);
	assert_false(moved);
	follow_rig_sql(t, "INSERT INTO message (who, body) VALUES ('x', 'y');\n");
	assert_ok(sqlite_follow_ops.moved(&t->r->store, t->position, &moved, &last, &err), &err);
	assert_true(moved);
}

static void wait__sleeps_while_nothing_happens_and_wakes_for_a_commit(void **state)
{
	struct follow_rig *t = *state;
	struct im_error err = { 0 };
	bool any = false;
	start(t, 4096, 300);
	follow_rig_drain(t);
	pid_t child = fork();
	if (child == 0) {
		usleep(300000);
		execlp("sqlite3", "sqlite3", t->r->db_path, "INSERT INTO message (who, body) VALUES ('x', 'y')", (char *)NULL);
		_exit(1);
	}
	for (int rounds = 0; !any && rounds < 50; rounds++) {
		assert_ok(sqlite_follow_ops.wait(t->follower, -1, 10000, &err), &err);
		assert_ok(sqlite_follow_ops.capture(t->follower, &any, &err), &err);
	}
	waitpid(child, NULL, 0);
	assert_true(any);
	follow_rig_prove(t);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, follow_rig_setup, follow_rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(capture__takes_inserts_updates_and_deletes),
		TEST(capture__works_with_every_page_size),
		TEST(capture__follows_growth_and_shrinkage),
		TEST(capture__never_ships_a_rolled_back_spill),
		TEST(capture__sees_nothing_while_a_spill_is_open),
		TEST(capture__crosses_the_lock_page),
		TEST(capture__survives_four_writers_with_small_autocheckpoint),
		TEST(capture__survives_checkpoints_by_others),
		TEST(harm__wal_stays_bounded_under_writes),
		TEST(harm__never_takes_the_write_lock),
		TEST(harm__never_deletes_the_wal_when_it_is_the_last),
		TEST(keeper__refuses_to_checkpoint_without_a_mark),
		TEST(keeper__lets_go_after_hold),
		TEST(keeper__lets_go_when_the_wal_grows_too_large),
		TEST(continue__exactly_after_the_follower_was_killed),
		TEST(continue__exactly_when_the_wal_had_just_begun_again),
		TEST(gap__batch_lost_before_a_wal_that_had_just_begun_again),
		TEST(continue__exactly_without_keeper_if_nothing_was_written),
		TEST(continue__exactly_without_keeper_if_nothing_was_checkpointed),
		TEST(gap__checkpoint_while_nobody_followed),
		TEST(gap__wal_begun_again_while_nobody_followed),
		TEST(gap__new_wal_as_before_while_nobody_followed),
		TEST(continue__with_a_new_wal_if_the_file_is_untouched),
		TEST(gap__keeper_killed_while_nothing_happens),
		TEST(gap__keeper_killed),
		TEST(gap__database_replaced),
		TEST(gap__wal_restarted_in_spite_of_the_pin),
		TEST(gap__single_commit_of_a_huge_change),
		TEST(refuse__rollback_journal),
		TEST(refuse__exclusive_locking),
		TEST(batch__heartbeat_says_up_to_when_nothing_is_missing),
		TEST(batch__takes_exactly_up_to_a_pinned_commit),
		TEST(batch__large_commit_comes_in_parts),
		TEST(moved__tells_whether_something_was_committed_since),
		TEST(wait__sleeps_while_nothing_happens_and_wakes_for_a_commit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
