/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots with a pause, of a stand-in server that writes without a busy timeout, as Prosody does:
 * it never meets a lock, always goes on, and every snapshot is a prefix of its history.
 */
#include "sqlite_rig.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "stores/sqlite/fasthash.h"
#include "stores/sqlite/guard.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

struct server {
	pid_t pid;
	char pid_file[128];
	volatile int64_t *beats; /* shared: how often each of two threads got round */
};

static char process_state(pid_t pid)
{
	char path[64], text[512] = "";
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "r");
	if (!f)
		return 0;
	size_t n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = 0;
	char *at = strrchr(text, ')');
	return at ? at[2] : 0;
}

static void *beat(void *arg)
{
	volatile int64_t *beats = arg;
	for (;; usleep(500))
		beats[1]++;
	return NULL;
}

/* Runs in the child for ever; exits 1 as soon as SQLite refuses anything. */
static void serve(const char *path, volatile int64_t *beats, const char *once, const char *sql)
{
	sqlite3 *db;
	pthread_t thread;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthread_create(&thread, NULL, beat, (void *)beats);
	sqlite3_open(path, &db);
	if (sqlite3_exec(db, once, NULL, NULL, NULL))
		_exit(1);
	for (;; beats[0]++)
		if (!sql)
			usleep(1000);
		else if (sqlite3_exec(db, sql, NULL, NULL, NULL))
			_exit(1);
}

static void start(struct sqlite_rig *r, struct server *s, const char *once, const char *sql)
{
	struct im_error err = { 0 };
	s->beats = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	s->pid = fork();
	if (s->pid == 0)
		serve(r->db_path, s->beats, once, sql);
	while (s->beats[0] == 0 || s->beats[1] == 0)
		usleep(1000);
	snprintf(s->pid_file, sizeof s->pid_file, "%s/server.pid", r->f.dir);
	auto_free char *text = im_format("%d\n", (int)s->pid);
	assert_ok(im_file_write(s->pid_file, text, strlen(text), 0600, IM_FILE_REPLACE, &err), &err);
	sqlite_rig_option(r, "pause", s->pid_file);
}

static void assert_alive(const struct server *s)
{
	int64_t a = s->beats[0], b = s->beats[1];
	for (int i = 0; i < 5000 && (s->beats[0] == a || s->beats[1] == b); i++)
		usleep(1000);
	assert_true(s->beats[0] > a && s->beats[1] > b);
}

static void stop(struct server *s)
{
	int status;
	assert_int_equal(waitpid(s->pid, &status, WNOHANG), 0); /* SQLite never refused it anything */
	kill(s->pid, SIGKILL);
	waitpid(s->pid, &status, 0);
	munmap((void *)s->beats, 4096);
}

static void prepare(struct sqlite_rig *r, unsigned rows)
{
	sqlite3 *db = sqlite_rig_make(r, 4096, "delete", rows);
	sqlite_rig_sql(db, "CREATE TABLE seq(n INTEGER PRIMARY KEY, twice INTEGER, pad BLOB)");
	sqlite3_close(db);
}

#define WRITE_SQL "INSERT INTO seq(twice, pad) SELECT coalesce(max(n), 0) * 2 + 2, randomblob(900) FROM seq;" \
                  "UPDATE message SET body = hex(randomblob(60)) WHERE n = (abs(random()) % 1000)"

static void snapshot__of_a_writing_server_is_a_prefix_of_its_history(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	int64_t last = 0;
	prepare(r, 3000);
	sqlite_rig_option(r, "pause_limit", "5s");
	start(r, &s, "PRAGMA synchronous=OFF", WRITE_SQL);
	for (int i = 0; i < 12; i++) {
		struct im_error err = { 0 };
		char *text = NULL;
		assert_ok(sqlite_rig_snapshot(r, i == 6, &err), &err);
		assert_in_range(r->result.pause_us, 0, 5000000);
		assert_ok(sqlite_rig_restore(r, &err), &err);
		assert_ok(sqlite_store_ops.check(r->result.manifest, r->restored, "full", &text, &err), &err);
		free(text);
		sqlite3 *copy = sqlite_rig_open(r->restored);
		int64_t count = sqlite_rig_number(copy, "SELECT count(*) FROM seq");
		assert_int_equal(sqlite_rig_number(copy, "SELECT coalesce(max(n), 0) FROM seq"), count);
		assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM seq WHERE twice != 2 * n"), 0);
		assert_true(count >= last);
		last = count;
		sqlite3_close(copy);
		assert_alive(&s);
	}
	assert_true(last > 0);
	stop(&s);
}

static void snapshot__within_a_transaction_brings_the_journal(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	struct im_error err = { 0 };
	char *text = NULL;
	prepare(r, 4000);
	sqlite_rig_option(r, "pause_limit", "5s");
	start(r, &s, "PRAGMA cache_size=5; BEGIN; UPDATE message SET body = 'half done'; DELETE FROM message WHERE n > 3000", NULL);
	for (int i = 0; i < 2; i++) {
		assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
		assert_true(json_integer_value(json_object_get(r->result.manifest, "journal_bytes")) > 512);
		assert_ok(sqlite_rig_restore(r, &err), &err);
		assert_ok(sqlite_store_ops.check(r->result.manifest, r->restored, "full", &text, &err), &err);
		free(text);
		sqlite3 *copy = sqlite_rig_open(r->restored);
		assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM message"), 4000);
		assert_int_equal(sqlite_rig_number(copy, "SELECT count(*) FROM message WHERE body = 'half done'"), 0);
		sqlite3_close(copy);
	}
	stop(&s);
}

static void snapshot__of_a_quiet_server_needs_no_pause(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	struct im_error err = { 0 };
	prepare(r, 1000);
	start(r, &s, "SELECT * FROM seq", NULL);
	struct timespec old[2] = { { .tv_sec = 1700000000 }, { .tv_sec = 1700000000 } };
	assert_int_equal(utimensat(AT_FDCWD, r->db_path, old, 0), 0);
	sleep(3);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_int_equal(r->result.pause_us, 0);
	assert_ok(sqlite_rig_snapshot(r, false, &err), &err);
	assert_int_equal(r->result.bytes_read, 0); /* unchanged */
	assert_ok(sqlite_rig_restore(r, &err), &err);
	assert_true(sqlite_rig_same_bytes(r->restored, r->db_path));
	stop(&s);
}

static void snapshot__that_cannot_finish_in_time_lets_the_server_go(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	struct im_error err = { 0 };
	prepare(r, 60000); /* some 15 MB: not to be compared within a millisecond */
	sqlite_rig_option(r, "pause_limit", "1ms");
	start(r, &s, "PRAGMA synchronous=OFF", WRITE_SQL);
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "pause_limit"));
	assert_alive(&s);
	stop(&s);
}

static void snapshot__refuses_to_stop_a_stranger(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	prepare(r, 100);
	start(r, &s, "SELECT * FROM seq", NULL);
	pid_t stranger = fork();
	if (stranger == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	const char *const texts[] = { "", "0", "-5", "1", "abc", "12 34", "99999999999999999999", "4194303", NULL };
	for (int i = 0;; i++) {
		struct im_error err = { 0 };
		auto_free char *text = texts[i] ? strdup(texts[i]) : im_format("%d\n", (int)stranger);
		assert_ok(im_file_write(s.pid_file, text, strlen(text), 0600, IM_FILE_REPLACE, &err), &err);
		int rc = sqlite_rig_snapshot(r, false, &err);
		assert_int_equal(rc, IM_EFAIL);
		assert_non_null(strstr(err.text, s.pid_file));
		if (!texts[i])
			break;
	}
	assert_int_equal(process_state(stranger), 'S');
	struct im_error err = { 0 };
	unlink(s.pid_file);
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_ENOTFOUND);
	kill(stranger, SIGKILL);
	waitpid(stranger, NULL, 0);
	stop(&s);
}

static void snapshot__refuses_when_somebody_else_writes_too(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	struct im_error err = { 0 };
	prepare(r, 100);
	start(r, &s, "SELECT * FROM seq", NULL);
	volatile int64_t *beats = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t other = fork();
	if (other == 0)
		serve(r->db_path, beats, "SELECT * FROM seq", NULL);
	while (beats[0] == 0)
		usleep(1000);
	assert_int_equal(sqlite_rig_snapshot(r, false, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "open for writing"));
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	munmap((void *)beats, 4096);
	stop(&s);
}

static struct guard *stop_server(const struct server *s, int64_t limit_us)
{
	struct im_error err = { 0 };
	struct guard *g = NULL;
	int64_t deadline_us;
	assert_ok(guard_stop(&s->pid, 1, limit_us, &g, &deadline_us, &err), &err);
	return g;
}

static void guard__stops_every_thread_and_lets_them_go(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	bool in_time;
	int64_t pause_us;
	prepare(r, 100);
	start(r, &s, "PRAGMA synchronous=OFF", WRITE_SQL);
	for (int i = 0; i < 20; i++) {
		struct guard *g = stop_server(&s, 2000000);
		int64_t a = s.beats[0], b = s.beats[1];
		usleep(5000);
		assert_true(s.beats[0] == a && s.beats[1] == b);
		guard_release(g, &in_time, &pause_us);
		assert_true(in_time && pause_us >= 5000);
		assert_alive(&s);
	}
	stop(&s);
}

static void guard__lets_go_at_the_deadline(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	bool in_time;
	int64_t pause_us;
	prepare(r, 100);
	start(r, &s, "PRAGMA synchronous=OFF", WRITE_SQL);
	struct guard *g = stop_server(&s, 20000);
	usleep(30000);
	assert_alive(&s);
	guard_release(g, &in_time, &pause_us);
	assert_false(in_time);
	stop(&s);
}

static void guard__lets_go_when_imvault_is_killed(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	prepare(r, 100);
	start(r, &s, "PRAGMA synchronous=OFF", WRITE_SQL);
	for (int i = 0; i < 5; i++) {
		pid_t imvault = fork();
		if (imvault == 0) {
			stop_server(&s, 60000000);
			kill(getpid(), SIGKILL);
		}
		waitpid(imvault, NULL, 0);
		assert_alive(&s);
	}
	stop(&s);
}

static void guard__that_is_killed_lets_go_and_is_noticed(void **state)
{
	struct sqlite_rig *r = *state;
	struct server s;
	bool in_time;
	int64_t pause_us;
	prepare(r, 100);
	start(r, &s, "PRAGMA synchronous=OFF", WRITE_SQL);
	struct guard *g = stop_server(&s, 60000000);
	pid_t tracer = 0;
	auto_free char *path = im_format("/proc/%d/status", (int)s.pid);
	FILE *f = fopen(path, "r");
	char line[256];
	while (fgets(line, sizeof line, f))
		sscanf(line, "TracerPid: %d", &tracer);
	fclose(f);
	assert_true(tracer > 1);
	kill(tracer, SIGKILL);
	assert_alive(&s);
	guard_release(g, &in_time, &pause_us);
	assert_false(in_time);
	stop(&s);
}

static void fasthash__sees_every_bit(void **state)
{
	struct fasthash_key key;
	uint8_t page[512];
	(void)state;
	crypto_random(&key, sizeof key);
	fill_bytes(page, sizeof page, 1);
	uint64_t hash = fasthash(&key, page, sizeof page);
	for (unsigned bit = 0; bit < sizeof page * 8; bit++) {
		page[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_true(fasthash(&key, page, sizeof page) != hash);
		page[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	memset(page, 0, sizeof page);
	uint64_t zero = fasthash(&key, page, sizeof page);
	page[511] = 1;
	assert_true(fasthash(&key, page, sizeof page) != zero);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, sqlite_rig_setup, sqlite_rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(snapshot__of_a_writing_server_is_a_prefix_of_its_history),
		RIG_TEST(snapshot__within_a_transaction_brings_the_journal),
		RIG_TEST(snapshot__of_a_quiet_server_needs_no_pause),
		RIG_TEST(snapshot__that_cannot_finish_in_time_lets_the_server_go),
		RIG_TEST(snapshot__refuses_to_stop_a_stranger),
		RIG_TEST(snapshot__refuses_when_somebody_else_writes_too),
		RIG_TEST(guard__stops_every_thread_and_lets_them_go),
		RIG_TEST(guard__lets_go_at_the_deadline),
		RIG_TEST(guard__lets_go_when_imvault_is_killed),
		RIG_TEST(guard__that_is_killed_lets_go_and_is_noticed),
		cmocka_unit_test(fasthash__sees_every_bit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
