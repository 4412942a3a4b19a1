/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rig. Its rebuild writes pieces as they are declared, in the order they come.
 */
#include "sqlite_rig.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct rig_file {
	int fd;
	struct rebuild_file meta;
	char *path; /* whole */
};

int sqlite_rig_setup(void **state)
{
	struct sqlite_rig *r = calloc(1, sizeof *r);
	fixture_start(&r->f);
	snprintf(r->db_path, sizeof r->db_path, "%s/store.db", r->f.dir);
	r->store = (struct im_config_store){ .name = "archive", .type = "sqlite", .path = r->db_path, .priority = 1, .pairs = r->pairs };
	r->config = (struct im_config){ .node_name = "im-01", .vault_url = r->f.vault_dir, .state_dir = r->f.state_dir,
		.compression_level = 1, .stores = &r->store, .store_count = 1 };
	*state = r;
	return 0;
}

static void drop_snapshot(struct sqlite_rig *r)
{
	json_decref(r->result.manifest);
	free(r->result.packs);
	free(r->snapshot.packs);
	r->result = (struct snapshot_result){ 0 };
	r->snapshot = (struct snapshot){ 0 };
}

int sqlite_rig_teardown(void **state)
{
	struct sqlite_rig *r = *state;
	drop_snapshot(r);
	fixture_stop(&r->f);
	free(r);
	return 0;
}

void sqlite_rig_option(struct sqlite_rig *r, const char *key, const char *value)
{
	r->pairs[r->store.pair_count++] = (struct im_config_pair){ .key = (char *)key, .value = (char *)value };
}

sqlite3 *sqlite_rig_open(const char *path)
{
	sqlite3 *db = NULL;
	if (sqlite3_open(path, &db) != SQLITE_OK)
		fail_msg("%s: %s", path, sqlite3_errmsg(db));
	return db;
}

void sqlite_rig_sql(sqlite3 *db, const char *sql)
{
	char *text = NULL;
	if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
		fail_msg("%s: %s", sql, text);
}

int64_t sqlite_rig_number(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *q;
	if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) != SQLITE_OK || sqlite3_step(q) != SQLITE_ROW)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	int64_t n = sqlite3_column_int64(q, 0);
	sqlite3_finalize(q);
	return n;
}

sqlite3 *sqlite_rig_make(struct sqlite_rig *r, unsigned page_size, const char *journal, unsigned rows)
{
	auto_free char *sql = im_format(
	    "PRAGMA page_size=%u; PRAGMA journal_mode=%s; PRAGMA synchronous=OFF;"
	    "CREATE TABLE message(n INTEGER PRIMARY KEY, who TEXT, body TEXT); CREATE INDEX by_who ON message(who);"
	    "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < %u)"
	    "INSERT INTO message SELECT n, hex(randomblob(8)), hex(randomblob(100)) FROM i",
	    page_size, journal, rows);
	sqlite3 *db = sqlite_rig_open(r->db_path);
	sqlite_rig_sql(db, sql);
	return db;
}

static void take_packs(struct sqlite_rig *r)
{
	struct im_error err = { 0 };
	r->snapshot.pack_count = r->result.pack_count;
	r->snapshot.packs = calloc(r->result.pack_count + 1, sizeof *r->snapshot.packs);
	for (size_t i = 0; i < r->result.pack_count; i++)
		assert_ok(state_pack_get(r->f.state, r->result.packs[i], &r->snapshot.packs[i], &err), &err);
}

int sqlite_rig_snapshot(struct sqlite_rig *r, bool full, struct im_error *err)
{
	struct im_error e = { 0 };
	struct packer *packer;
	struct state_head head = { .seq = ++r->rounds, .epoch = "0123456789abcdef", .keyring_generation = 1 };
	drop_snapshot(r);
	assert_ok(packer_new(r->f.node->storage, r->f.node->keyring, r->f.state, "im-01", 1, &packer, &e), &e);
	struct snapshot_request q = { .config = &r->config, .store = &r->store, .packer = packer, .state = r->f.state,
		.keyring = r->f.node->keyring, .full = full };
	int rc = sqlite_store_ops.snapshot(&q, &r->result, err);
	assert_ok(packer_finish(packer, &e), &e);
	packer_get_stats(packer, &r->stats);
	assert_ok(state_commit(r->f.state, &head, &e), &e); /* other stores may have succeeded */
	if (rc == 0)
		take_packs(r);
	else
		r->result = (struct snapshot_result){ 0 };
	packer_free(packer);
	return rc;
}

/* struct rebuild. */

static struct sqlite_rig *rig_of(struct rebuild *b)
{
	return (struct sqlite_rig *)((char *)b - offsetof(struct sqlite_rig, rebuild));
}

static int on_file(struct rebuild *b, const struct rebuild_file *file, uint32_t *ret_number, struct im_error *err)
{
	struct sqlite_rig *r = rig_of(b);
	char *path = im_format("%s/%s", r->target, file->path);
	assert_true(file->path[0] != '/');
	auto_free char *wal = im_format("%s-wal", path);
	if (r->plant_wal)
		assert_ok(im_file_write(wal, "old", 3, 0600, IM_FILE_NEW, err), err);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, file->mode);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)file->size_bytes), 0);
	r->files = realloc(r->files, (r->file_count + 1) * sizeof *r->files);
	r->files[r->file_count] = (struct rig_file){ fd, *file, path };
	*ret_number = (uint32_t)r->file_count++;
	return 0;
}

static int on_piece(struct rebuild *b, uint32_t file, uint64_t file_offset, uint32_t len, enum entry_type type, const struct im_ref *ref, uint32_t skip, const uint8_t id[32], struct im_error *err)
{
	struct rig_file *f = &rig_of(b)->files[file];
	auto_buf struct im_buf bytes = { 0 };
	(void)id;
	const struct pack_info *pack = snapshot_pack(b->snapshot, ref->pack);
	assert_non_null(pack);
	int rc = fetch_one(b->fetcher, pack, type, ref, &bytes, err);
	if (rc)
		return rc;
	assert_true(bytes.len >= (size_t)skip + len && file_offset + len <= f->meta.size_bytes);
	return im_pwrite_full(f->fd, bytes.data + skip, len, file_offset, err, "test");
}

static void on_damaged(struct rebuild *b, const char *text)
{
	(void)b;
	fail_msg("damaged: %s", text);
}

static int finish_files(struct sqlite_rig *r, int rc, struct im_error *err)
{
	auto_close int parent_fd = open(r->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < r->file_count; i++) {
		struct rig_file *f = &r->files[i];
		if (rc == 0 && f->meta.prove)
			rc = f->meta.prove(f->meta.context, f->fd, NULL, err);
		if (rc == 0 && f->meta.finish) {
			char *slash = strrchr(f->path, '/');
			*slash = 0;
			auto_close int dir_fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			*slash = '/';
			rc = f->meta.finish(f->meta.context, f->fd, dir_fd, slash + 1, err);
		}
		close(f->fd);
		free(f->path);
	}
	free(r->files);
	r->files = NULL;
	r->file_count = 0;
	return rc;
}

int sqlite_rig_restore(struct sqlite_rig *r, struct im_error *err)
{
	struct im_error e = { 0 };
	struct fetcher *fetcher;
	snprintf(r->target, sizeof r->target, "%s/target-XXXXXX", r->f.dir);
	assert_non_null(mkdtemp(r->target));
	snprintf(r->restored, sizeof r->restored, "%s%s", r->target, r->db_path);
	auto_free char *parents = im_format("%s%s", r->target, r->f.dir);
	assert_ok(im_mkdirs(parents, 0700, &e), &e);
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &e), &e);
	r->rebuild = (struct rebuild){ .snapshot = &r->snapshot, .fetcher = fetcher, .manifest = r->result.manifest,
		.keyring = r->f.restore->keyring, .file = on_file, .piece = on_piece, .damaged = on_damaged };
	int rc = finish_files(r, sqlite_store_ops.plan(&r->rebuild, err), err);
	sqlite_store_ops.finish(&r->rebuild, rc != 0, &e);
	fetcher_free(fetcher);
	return rc;
}

static void copy_file(const char *from, const char *to)
{
	struct im_error err = { 0 };
	auto_buf struct im_buf b = { 0 };
	int rc = im_file_read(from, SIZE_MAX, &b, &err);
	if (rc == IM_ENOTFOUND)
		return;
	assert_ok(rc, &err);
	assert_ok(im_file_write(to, b.data, b.len, 0600, IM_FILE_REPLACE, &err), &err);
}

void sqlite_rig_expected(struct sqlite_rig *r, char *ret_path)
{
	char wal[300], wal_copy[300];
	snprintf(ret_path, 256, "%s/expected-%llu.db", r->f.dir, (unsigned long long)r->rounds);
	snprintf(wal, sizeof wal, "%s-wal", r->db_path);
	snprintf(wal_copy, sizeof wal_copy, "%s-wal", ret_path);
	unlink(wal_copy);
	copy_file(r->db_path, ret_path);
	copy_file(wal, wal_copy);
	sqlite3 *db = sqlite_rig_open(ret_path);
	sqlite_rig_sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
	sqlite3_close(db);
}

bool sqlite_rig_same_bytes(const char *a, const char *b)
{
	struct im_error err = { 0 };
	auto_buf struct im_buf x = { 0 };
	auto_buf struct im_buf y = { 0 };
	assert_ok(im_file_read(a, SIZE_MAX, &x, &err), &err);
	assert_ok(im_file_read(b, SIZE_MAX, &y, &err), &err);
	return x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
}

void sqlite_rig_prove(struct sqlite_rig *r, bool full)
{
	struct im_error err = { 0 };
	char expected[256], *text = NULL;
	assert_ok(sqlite_rig_snapshot(r, full, &err), &err);
	sqlite_rig_expected(r, expected);
	assert_ok(sqlite_rig_restore(r, &err), &err);
	assert_true(sqlite_rig_same_bytes(r->restored, expected));
	assert_ok(sqlite_store_ops.check(r->result.manifest, r->restored, "full", &text, &err), &err);
	free(text);
}
