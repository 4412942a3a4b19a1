/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rig of the follower's tests.
 */
#include "follow_rig.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "stores/sqlite/pin.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static uint64_t *shared_counts; /* commits by pid % 1024, written by the children */

int follow_rig_setup(void **state)
{
	struct follow_rig *t = calloc(1, sizeof *t);
	void *rig = NULL;
	sqlite_rig_setup(&rig);
	t->r = rig;
	t->hold_ms = 20000;
	snprintf(t->folder, sizeof t->folder, "%s/follow", t->r->f.dir);
	mkdir(t->folder, 0700);
	t->page_key = crypto_secret_new(CRYPTO_KEY_BYTES);
	struct im_error err = { 0 };
	assert_ok(keyring_id_key(t->r->f.node->keyring, "imvault page v1", t->page_key, &err), &err);
	if (!shared_counts)
		shared_counts = mmap(NULL, 1024 * sizeof *shared_counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	*state = t;
	return 0;
}

int follow_rig_teardown(void **state)
{
	struct follow_rig *t = *state;
	void *rig = t->r;
	if (t->follower)
		sqlite_follow_ops.close(t->follower, false);
	int keeper = follow_rig_keeper(t);
	if (keeper > 0)
		kill(keeper, SIGKILL);
	json_decref(t->position);
	crypto_secret_free(t->page_key);
	free(t->pages);
	free(t);
	return sqlite_rig_teardown(&rig);
}

void follow_rig_sql(struct follow_rig *t, const char *sql)
{
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	pid_t child = fork();
	if (child == 0) {
		dup2(fds[0], 0);
		close(fds[1]);
		int null = open("/dev/null", O_WRONLY);
		dup2(null, 1);
		execlp("sqlite3", "sqlite3", "-bail", "-cmd", ".timeout 5000", t->r->db_path, (char *)NULL);
		_exit(127);
	}
	close(fds[0]);
	assert_int_equal(write(fds[1], sql, strlen(sql)), (ssize_t)strlen(sql));
	close(fds[1]);
	int status;
	waitpid(child, &status, 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void load_model(struct follow_rig *t)
{
	auto_close int fd = open(t->r->db_path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	t->page_count = (uint32_t)(st.st_size / t->page_size);
	t->pages = realloc(t->pages, (size_t)st.st_size + 1);
	assert_int_equal(im_pread_full(fd, t->pages, (size_t)st.st_size, 0, NULL, "db"), st.st_size);
	memset(t->sum, 0, sizeof t->sum);
	json_decref(t->position);
	t->position = NULL;
	t->point = 0;
}

void follow_rig_make(struct follow_rig *t, unsigned page_size, unsigned rows)
{
	auto_free char *sql = im_format("PRAGMA page_size=%u; PRAGMA journal_mode=wal; CREATE TABLE message (n INTEGER PRIMARY KEY, who TEXT, body TEXT);"
	    "CREATE INDEX by_who ON message (who, n);"
	    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < %u) INSERT INTO message (who, body) SELECT 'user' || (x * 7919 %% 97), hex(randomblob(40)) FROM c;"
	    "PRAGMA wal_checkpoint(TRUNCATE);\n", page_size, rows ? rows : 1);
	follow_rig_sql(t, sql);
	t->page_size = page_size;
	load_model(t);
}

int follow_rig_open(struct follow_rig *t, struct im_error *err)
{
	struct follow_request q = { .config = &t->r->config, .store = &t->r->store, .keyring = t->r->f.node->keyring, .folder = t->folder,
		.position = t->position, .point = t->point, .hold_ms = t->hold_ms };
	assert_null(t->follower);
	return sqlite_follow_ops.open(&q, &t->follower, err);
}

void follow_rig_abandon(struct follow_rig *t)
{
	sqlite_follow_ops.close(t->follower, true);
	t->follower = NULL;
}

static void xor_hash(struct follow_rig *t, uint32_t page, const uint8_t *content)
{
	uint8_t hash[CRYPTO_PAGE_HASH_BYTES];
	crypto_page_hash(hash, t->page_key, content, t->page_size, page);
	for (unsigned i = 0; i < sizeof hash; i++)
		t->sum[i] ^= hash[i];
}

static void resize(struct follow_rig *t, uint32_t pages)
{
	for (uint32_t p = pages; p < t->page_count; p++)
		xor_hash(t, p, t->pages + (size_t)p * t->page_size);
	t->pages = realloc(t->pages, (size_t)pages * t->page_size + 1);
	assert_non_null(t->pages);
	if (pages > t->page_count)
		memset(t->pages + (size_t)t->page_count * t->page_size, 0xee, (size_t)(pages - t->page_count) * t->page_size);
}

static void apply_record(struct follow_rig *t, const struct logbody_record *record, uint32_t old_count)
{
	struct im_error err = { 0 };
	auto_free uint8_t *fresh = malloc(t->page_size);
	uint8_t *page = t->pages + (size_t)record->page * t->page_size;
	assert_true(record->page < t->page_count);
	assert_true(!record->ops.has_base || record->page < old_count);
	assert_ok(pagediff_apply(t->page_size, &record->ops, record->ops.has_base ? page : NULL, fresh, &err), &err);
	if (record->page < old_count)
		xor_hash(t, record->page, page);
	xor_hash(t, record->page, fresh);
	memcpy(page, fresh, t->page_size);
}

static void end_section(struct follow_rig *t, const struct logbody_section *s, bool last_part)
{
	assert_true(s->complete_ms >= t->complete_ms && s->latest_ms >= t->latest_ms && s->latest_ms >= s->complete_ms);
	if (!last_part)
		return;
	assert_memory_equal(s->sum, t->sum, sizeof t->sum);
	assert_int_equal(s->point, t->point + 1);
	t->point++;
	t->sections++;
	t->complete_ms = s->complete_ms;
	t->latest_ms = s->latest_ms;
}

static void apply_part(struct follow_rig *t, const struct im_buf *data, bool first_part, bool last_part)
{
	struct follow_source source = logbody_memory(data);
	struct logbody *body = NULL;
	struct logbody_cursor *cursor = NULL;
	struct logbody_record record;
	struct im_error err = { 0 };
	bool more = false;
	assert_ok(logbody_open(&source, &body, &err), &err);
	assert_ok(logbody_cursor_new(body, &cursor, &err), &err);
	assert_ok(logbody_next(cursor, &record, &more, &err), &err);
	static uint32_t old_count;
	for (uint32_t i = 0; i < logbody_section_count(body); i++) {
		const struct logbody_section *s = logbody_section_at(body, i);
		if (first_part || i) {
			old_count = t->page_count;
			resize(t, s->pages);
			if (s->pages < old_count)
				old_count = s->pages;
			t->page_count = s->pages;
		}
		while (more && record.section == i) {
			apply_record(t, &record, old_count);
			assert_ok(logbody_next(cursor, &record, &more, &err), &err);
		}
		end_section(t, s, last_part);
	}
	assert_false(more);
	logbody_cursor_free(cursor);
	logbody_free(body);
}

bool follow_rig_take(struct follow_rig *t)
{
	struct im_error err = { 0 };
	struct follow_batch b = { 0 };
	bool any = false;
	assert_ok(sqlite_follow_ops.take(t->follower, false, &b, &any, &err), &err);
	if (!any)
		return false;
	for (size_t i = 0; i < b.part_count; i++)
		apply_part(t, &b.parts[i].data, i == 0, i + 1 == b.part_count);
	t->commits += b.commits;
	json_decref(t->position);
	t->position = json_incref(b.position);
	follow_batch_clear(&b);
	assert_ok(sqlite_follow_ops.durable(t->follower, &err), &err);
	return true;
}

void follow_rig_drain(struct follow_rig *t)
{
	while (follow_rig_take(t))
		;
}

void follow_rig_prove(struct follow_rig *t)
{
	follow_rig_drain(t);
	sqlite_follow_ops.close(t->follower, false);
	t->follower = NULL;
	for (int i = 0; i < 200 && follow_rig_keeper(t); i++)
		usleep(10000);
	follow_rig_sql(t, "PRAGMA wal_checkpoint(TRUNCATE);\n");
	auto_buf struct im_buf now = { 0 };
	struct im_error err = { 0 };
	assert_ok(im_file_read(t->r->db_path, SIZE_MAX, &now, &err), &err);
	assert_int_equal(now.len, (size_t)t->page_count * t->page_size);
	assert_memory_equal(now.data, t->pages, now.len);
}

static volatile sig_atomic_t stopped;

static void on_term(int number)
{
	(void)number;
	stopped = 1;
}

static void write_rows(struct follow_rig *t, unsigned seed, unsigned autocheckpoint, unsigned pause_us)
{
	sqlite3 *db = NULL;
	char sql[400];
	if (sqlite3_open(t->r->db_path, &db) != SQLITE_OK)
		_exit(3);
	sqlite3_busy_timeout(db, 10000);
	sqlite3_wal_autocheckpoint(db, (int)autocheckpoint);
	sqlite3_exec(db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
	for (uint64_t i = 0; !stopped; i++) {
		snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; INSERT INTO message (who, body) VALUES ('w%u-%llu', hex(randomblob(%u)));%s COMMIT", seed,
		    (unsigned long long)i, 10 + (unsigned)(i * 2654435761u >> 8) % 3000, i % 5 == 4 ? "DELETE FROM message WHERE n = (SELECT min(n) FROM message WHERE n > abs(random()) % 1000);" : "");
		if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
			_exit(4);
		shared_counts[getpid() % 1024]++;
		if (pause_us)
			usleep(pause_us);
	}
	sqlite3_close(db);
	_exit(0);
}

int follow_rig_writer(struct follow_rig *t, unsigned seed, unsigned autocheckpoint, unsigned pause_us)
{
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGTERM, on_term);
		shared_counts[getpid() % 1024] = 0;
		write_rows(t, seed, autocheckpoint, pause_us);
	}
	return child;
}

uint64_t follow_rig_stop(struct follow_rig *t, int pid)
{
	int status;
	(void)t;
	kill(pid, SIGTERM);
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return shared_counts[pid % 1024];
}

uint32_t follow_rig_frames(struct follow_rig *t)
{
	struct pin_files files;
	struct shm_head head = { 0 };
	struct im_error err = { 0 };
	assert_ok(pin_files_open(t->r->db_path, &files, &err), &err);
	pin_files_shm(&files, &head);
	pin_files_close(&files);
	return head.max_frame;
}

void follow_rig_run(struct follow_rig *t, int ms)
{
	struct im_error err = { 0 };
	int64_t end = im_monotonic_ms() + ms, flush = 0;
	while (im_monotonic_ms() < end) {
		bool any = false;
		assert_ok(sqlite_follow_ops.wait(t->follower, -1, 20, &err), &err);
		assert_ok(sqlite_follow_ops.capture(t->follower, &any, &err), &err);
		if (sqlite_follow_ops.pending(t->follower) > (1u << 20) || im_monotonic_ms() - flush > 100) {
			follow_rig_take(t);
			flush = im_monotonic_ms();
		}
	}
}

/* By who has the journal's name and our database open. */
int follow_rig_keeper(struct follow_rig *t)
{
	auto_free char *command = im_format("for p in $(pgrep -x imvault-keeper); do ls -l /proc/$p/fd 2>/dev/null | grep -qF '%s' && echo $p; done", t->r->db_path);
	FILE *f = popen(command, "r");
	int pid = 0;
	if (f && fscanf(f, "%d", &pid) != 1)
		pid = 0;
	if (f)
		pclose(f);
	return pid;
}
