/* SPDX-License-Identifier: Apache-2.0 */
#include "view_rig.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "fixture.h"
#include "restore/instant/lazy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE 100000u

struct rig rig;
static const char *const names[FILES] = { "big", "sub/small", "bad", "some.db" };

static int make_bytes(void *context, unsigned worker, uint64_t offset, const uint8_t **data, size_t len, struct im_error *err)
{
	const struct source *s = context;
	(void)worker;
	rig.shared->reads++;
	if (rig.shared->away)
		return im_fail(err, IM_EUNREACHABLE, "the vault is away");
	if (s->bad >= offset && s->bad < offset + len)
		return im_fail(err, IM_ECORRUPT, "damaged");
	*data = s->data + offset;
	return 0;
}

static const struct pack_info *no_pack(void *context, uint32_t number)
{
	(void)context, (void)number;
	return NULL;
}

uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)((offset / 512 * 7 + offset % 251) % 255 + 1);
}

static void make_source(struct source *s, uint64_t size)
{
	*s = (struct source){ .data = malloc(size), .size = size, .bad = UINT64_MAX };
	assert_non_null(s->data);
	for (uint64_t i = 0; i < size; i++)
		s->data[i] = byte_at(i);
}

void sql(sqlite3 *db, const char *text)
{
	char *why = NULL;
	if (sqlite3_exec(db, text, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s: %s", text, why);
}

int64_t number(sqlite3 *db, const char *text)
{
	sqlite3_stmt *s;
	assert_int_equal(sqlite3_prepare_v2(db, text, -1, &s, NULL), SQLITE_OK);
	int rc = sqlite3_step(s);
	if (rc != SQLITE_ROW)
		fail_msg("%s: %s", text, sqlite3_errmsg(db));
	int64_t n = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return n;
}

void assert_sound(sqlite3 *db)
{
	sqlite3_stmt *s;
	assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	assert_string_equal((const char *)sqlite3_column_text(s, 0), "ok");
	sqlite3_finalize(s);
}

static void make_database(struct source *s)
{
	char path[128];
	sqlite3 *db;
	struct im_buf b = { 0 };
	struct im_error err = { 0 };
	snprintf(path, sizeof path, "%s/origin.db", rig.dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sql(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX i ON t(x);"
	        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 8000)"
	        "INSERT INTO t SELECT n, printf('row %d %s', n * 7919 % 8000, hex(zeroblob(60))) FROM c;");
	sqlite3_close(db);
	assert_ok(im_file_read(path, 64u << 20, &b, &err), &err);
	*s = (struct source){ .data = b.data, .size = b.len, .bad = UINT64_MAX };
}

static void plan(void)
{
	const uint8_t key[32] = { 0 };
	const struct content_options o = { .chunk_key = key, .pack_of = no_pack };
	struct im_error err = { 0 };
	assert_ok(content_new(&o, &rig.content, &err), &err);
	for (uint32_t i = 0, n; i < FILES; i++) {
		struct source *s = &rig.sources[i];
		rig.built[i] = (struct built_file){ .writer = { .path = names[i], .root_fd = rig.root_fd, .size_bytes = s->size }, .transform = make_bytes, .context = s,
			.mtime_ns = (int64_t)MTIME * 1000000000 + 5 };
		assert_ok(content_add(rig.content, &rig.built[i], &n, &err), &err);
		uint32_t piece = i == FILE_BAD ? BLOCK : PIECE;
		for (uint64_t at = 0; at < s->size; at += piece)
			assert_ok(content_made(rig.content, i, at, (uint32_t)(s->size - at < piece ? s->size - at : piece), &err), &err);
	}
	assert_ok(content_seal(rig.content, &err), &err);
}

/* As an instant restore does: the last part of a page is there from the beginning. */
static void stage(void)
{
	uint64_t sizes[FILES];
	const bool digests[FILES] = { false };
	struct im_error err = { 0 };
	for (unsigned i = 0; i < FILES; i++)
		sizes[i] = rig.sources[i].size;
	assert_ok(table_new(sizes, digests, FILES, &rig.table, &err), &err);
	for (unsigned i = 0; i < FILES; i++) {
		struct stat st;
		uint64_t at = sizes[i] / 4096 * 4096;
		assert_ok(lazy_make(rig.root_fd, names[i], i, sizes[i], &rig.fds[i], &err), &err);
		assert_int_equal(pwrite(rig.fds[i], rig.sources[i].data + at, sizes[i] - at, (off_t)at), sizes[i] - at);
		assert_int_equal(fstat(rig.fds[i], &st), 0);
		rig.table.files[i].ino = st.st_ino;
		rig.table.files[i].device = st.st_dev;
		rig.table.head->phase = TABLE_HYDRATING;
	}
}

static void *run_background(void *context)
{
	struct hydrator *h = context;
	struct hydrate_lane *l;
	struct im_error err = { 0 };
	if (hydrate_lane_new(1, &l, &err))
		_exit(3);
	for (unsigned round = 0; rig.table.head->files_left; round++) {
		struct im_error why = { 0 };
		unsigned i = round % FILES;
		while (!rig.shared->background)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		struct table_file *f = &rig.table.files[i];
		uint64_t at = round / FILES * 7919 * BLOCK % (f->blocks * BLOCK);
		if (f->state == FILE_LAZY && at < f->size)
			hydrate_range(h, l, i, at, f->size - at < BLOCK ? f->size - at : BLOCK, HYDRATE_AHEAD, &why);
		if (f->state == FILE_WHOLE && hydrate_finish(h, i, false, &why))
			_exit(4);
		nanosleep(&(struct timespec){ .tv_nsec = 300000 }, NULL);
	}
	return NULL;
}

struct hydrator *rig_hydrator(void)
{
	struct hydrator *h;
	struct im_error err = { 0 };
	const struct hydrate_options o = { .content = rig.content, .table = &rig.table, .storage = rig.storage, .fds = rig.fds, .group = -1,
		.resumed = rig.resumed };
	assert_ok(hydrate_new(&o, &h, &err), &err);
	return h;
}

struct fuse_view_options rig_options(struct hydrator *h)
{
	return (struct fuse_view_options){ .staged = rig.staged, .target = rig.target, .hydrator = h, .table = &rig.table, .content = rig.content };
}

static void serve(int told_fd)
{
	struct im_error err = { 0 };
	struct fuse_view *v;
	struct hydrator *h = rig_hydrator();
	const struct fuse_view_options o = rig_options(h);
	pthread_t thread;
	if (rig.descriptors)
		setrlimit(RLIMIT_NOFILE, &(struct rlimit){ rig.descriptors, rig.descriptors });
	int rc = fuse_view_open(&o, &v, &err);
	if (rc == 0 && (pthread_create(&thread, NULL, run_background, h) || write(told_fd, "", 1) != 1))
		_exit(5);
	if (rc == 0)
		rc = fuse_view_serve(v, &err);
	if (rc) {
		fprintf(stderr, "server: %s\n", err.text);
		_exit(1);
	}
	fuse_view_close(v);
	_exit(0);
}

void rig_serve(void)
{
	int told[2];
	char byte;
	assert_int_equal(pipe(told), 0);
	rig.server = fork();
	if (rig.server == 0) {
		close(told[0]);
		serve(told[1]);
	}
	close(told[1]);
	assert_int_equal(read(told[0], &byte, 1), 1);
	close(told[0]);
}

static void prepare(void)
{
	struct im_error err = { 0 };
	char path[128];
	memset(&rig, 0, sizeof rig);
	strcpy(rig.dir, "/tmp/imvault-test-XXXXXX");
	assert_non_null(mkdtemp(rig.dir));
	snprintf(rig.staged, sizeof rig.staged, "%s/staged", rig.dir);
	snprintf(rig.target, sizeof rig.target, "%s/final place", rig.dir);
	snprintf(rig.vault, sizeof rig.vault, "%s/vault", rig.dir);
	snprintf(path, sizeof path, "%s/sub", rig.staged);
	assert_ok(im_mkdirs(path, 0755, &err), &err);
	assert_ok(im_mkdirs(rig.target, 0755, &err), &err);
	assert_ok(im_mkdirs(rig.vault, 0755, &err), &err);
	chmod(rig.dir, 0755);
	rig.root_fd = open(rig.staged, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(rig.root_fd >= 0);
	snprintf(path, sizeof path, "%s/vault.json", rig.vault);
	assert_ok(im_file_write(path, "{}", 2, 0644, IM_FILE_NEW, &err), &err);
	assert_ok(storage_dir_open(rig.vault, false, &rig.storage, &err), &err);
	rig.shared = mmap(NULL, sizeof *rig.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(rig.shared != MAP_FAILED);
	make_source(&rig.sources[FILE_BIG], BIG);
	make_source(&rig.sources[FILE_SMALL], SMALL);
	make_source(&rig.sources[FILE_BAD], 10 * BLOCK);
	rig.sources[FILE_BAD].bad = 5 * BLOCK + 17;
	make_database(&rig.sources[FILE_DB]);
	plan();
	stage();
}

int rig_setup(void **state)
{
	(void)state;
	prepare();
	rig_serve();
	return 0;
}

int rig_setup_few_descriptors(void **state)
{
	(void)state;
	prepare();
	rig.descriptors = 120;
	rig_serve();
	return 0;
}

int rig_setup_unserved(void **state)
{
	(void)state;
	prepare();
	return 0;
}

void rig_unmount(void)
{
	struct im_error err = { 0 };
	int status;
	assert_ok(fuse_view_unmount(rig.target, false, &err), &err);
	assert_int_equal(waitpid(rig.server, &status, 0), rig.server);
	assert_int_equal(status, 0);
	rig.server = 0;
}

void rig_kill(void)
{
	if (rig.server <= 0)
		return;
	kill(rig.server, SIGKILL);
	waitpid(rig.server, NULL, 0);
	rig.server = 0;
}

int rig_teardown(void **state)
{
	struct im_error err = { 0 };
	(void)state;
	rig_kill();
	assert_ok(fuse_view_unmount(rig.target, true, &err), &err);
	for (unsigned i = 0; i < FILES; i++) {
		close(rig.fds[i]);
		free(rig.sources[i].data);
	}
	close(rig.root_fd);
	content_free(rig.content);
	table_close(&rig.table);
	storage_close(rig.storage);
	munmap(rig.shared, sizeof *rig.shared);
	remove_tree(rig.dir);
	return 0;
}

const char *below(const char *top, const char *rest)
{
	static char paths[4][512];
	static unsigned next;
	char *p = paths[next++ % 4];
	snprintf(p, sizeof paths[0], "%s/%s", top, rest);
	return p;
}

const char *in(const char *rest)
{
	return below(rig.target, rest);
}

int open_in(const char *rest, int flags)
{
	int fd = open(in(rest), flags | O_CLOEXEC, 0644);
	if (fd < 0)
		fail_msg("%s: %s", rest, strerror(errno));
	return fd;
}

void assert_holds(int fd, uint64_t offset, const uint8_t *want, size_t len)
{
	auto_free uint8_t *got = malloc(len ? len : 1);
	assert_int_equal(pread(fd, got, len, (off_t)offset), len);
	for (size_t i = 0; i < len; i++)
		if (got[i] != want[i])
			fail_msg("byte %zu is %u, not %u", (size_t)offset + i, got[i], want[i]);
}

void rig_wait_for_background(void)
{
	rig.sources[FILE_BAD].bad = UINT64_MAX;
	rig.shared->background = true;
	for (unsigned i = 0; rig.table.files[FILE_BIG].state != FILE_ORDINARY || rig.table.files[FILE_SMALL].state != FILE_ORDINARY; i++) {
		assert_true(i < 20000);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

void rig_forget_the_table(void)
{
	uint64_t sizes[FILES], size, limit;
	const bool digests[FILES] = { false };
	struct table old = rig.table;
	struct im_error err = { 0 };
	for (unsigned i = 0; i < FILES; i++)
		sizes[i] = rig.sources[i].size;
	assert_ok(table_new(sizes, digests, FILES, &rig.table, &err), &err);
	for (unsigned i = 0; i < FILES; i++) {
		struct table_file *f = &rig.table.files[i];
		char *path;
		assert_ok(lazy_read(rig.fds[i], &path, &size, &limit, &err), &err);
		free(path);
		f->ino = old.files[i].ino;
		f->device = old.files[i].device;
		f->limit = limit;
		f->touched = 1;
		for (uint32_t b = 0; b < f->blocks; b++) {
			uint64_t at = b * BLOCK, len = at >= limit ? 0 : limit - at < BLOCK ? limit - at : BLOCK;
			bool here = !len || !lazy_lacks(rig.fds[i], at, len);
			*table_block(&rig.table, i, b) = here ? BLOCK_DONE : BLOCK_NONE;
			f->left -= here;
		}
		f->state = f->left ? FILE_LAZY : FILE_WHOLE;
	}
	rig.resumed = true;
	table_close(&old);
}
