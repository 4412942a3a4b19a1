/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault tests' world. Its own failures abort: they are not what is tested.
 */
#include "world.h"

#include "base/clock.h"
#include "base/file.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ftw.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

static void sql(const struct world *w, const char *text)
{
	sqlite3 *db;
	char *message = NULL;
	assert_int_equal(sqlite3_open(w->database, &db), SQLITE_OK);
	if (sqlite3_exec(db, text, NULL, NULL, &message))
		fail_msg("%s", message);
	sqlite3_close(db);
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

void world_start(struct world *w)
{
	struct im_error err = { 0 };
	char text[1024];
	memset(w, 0, sizeof *w);
	strcpy(w->dir, "/tmp/imvault-fault-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->source, sizeof w->source, "%s/source", w->dir);
	snprintf(w->vault, sizeof w->vault, "%s/vault", w->dir);
	snprintf(w->state, sizeof w->state, "%s/state", w->dir);
	snprintf(w->restore_key, sizeof w->restore_key, "%s/restore.key", w->dir);
	snprintf(w->node_key, sizeof w->node_key, "%s/node.key", w->dir);
	snprintf(w->database, sizeof w->database, "%s/chat.sqlite", w->source);
	snprintf(w->tree, sizeof w->tree, "%s/uploads", w->source);
	mkdir(w->source, 0700);
	mkdir(w->tree, 0700);
	sql(w, "PRAGMA journal_mode = wal; CREATE TABLE message (id INTEGER PRIMARY KEY, body TEXT);");
	world_change(w, 0);
	assert_ok(vault_init(w->vault, w->restore_key, NULL, w->node_key, NULL, &err), &err);
	snprintf(text, sizeof text,
	    "[node]\nname = im-01\nstate = %s\n[vault]\nurl = %s\nkey = %s\n[store chat]\ntype = sqlite\npath = %s\n[store uploads]\ntype = files\npath = %s\n",
	    w->state, w->vault, w->node_key, w->database, w->tree);
	assert_ok(im_config_parse(text, "test", &w->config, &err), &err);
}

void world_stop(struct world *w)
{
	im_config_free(w->config);
	remove_tree(w->dir);
}

void world_change(struct world *w, unsigned round)
{
	char text[256], path[192];
	snprintf(text, sizeof text, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) "
	    "INSERT INTO message (body) SELECT 'round %u ' || i || hex(zeroblob(40)) FROM n;", round);
	sql(w, text);
	snprintf(path, sizeof path, "%s/file-%u", w->tree, round);
	snprintf(text, sizeof text, "upload of round %u\n", round);
	write_text(path, text);
	snprintf(path, sizeof path, "%s/changing", w->tree);
	write_text(path, text);
}

int world_backup(struct world *w, struct im_error *err)
{
	struct backup_request request = { .config = w->config };
	struct backup_result result = { 0 };
	int rc = backup_run(&request, &result, err);
	backup_result_clear(&result);
	return rc;
}

int world_restore(struct world *w, const char *at, const char *to, struct im_error *err)
{
	struct vault *vault;
	int rc = vault_open(w->vault, w->restore_key, NULL, NULL, 0, &vault, err);
	if (rc)
		return rc;
	struct restore_request request = { .vault = vault, .node = "im-01", .at = at, .to = to };
	struct restore_result result = { 0 };
	rc = restore_run(&request, &result, err);
	restore_result_clear(&result);
	vault_close(vault);
	return rc;
}

int world_verify(struct world *w, struct im_error *err)
{
	struct vault *vault;
	int rc = vault_open(w->vault, w->restore_key, NULL, NULL, 0, &vault, err);
	if (rc)
		return rc;
	struct verify_request request = { .vault = vault, .read_percent = 100 };
	struct verify_result result = { 0 };
	rc = verify_run(&request, &result, err);
	verify_result_clear(&result);
	vault_close(vault);
	return rc;
}

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static uint64_t digest_database(const char *path)
{
	sqlite3 *db;
	sqlite3_stmt *q;
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	if (access(path, F_OK))
		return 0;
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) || sqlite3_prepare_v2(db, "SELECT id, body FROM message ORDER BY id", -1, &q, NULL)) {
		sqlite3_close(db);
		return 1;
	}
	while (sqlite3_step(q) == SQLITE_ROW)
		h = mix(h, sqlite3_column_text(q, 1), (size_t)sqlite3_column_bytes(q, 1));
	sqlite3_finalize(q);
	sqlite3_close(db);
	return h;
}

static uint64_t tree_hash;

static int digest_file(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	auto_buf struct im_buf content = { 0 };
	struct im_error err = { 0 };
	(void)st;
	if (type != FTW_F)
		return 0;
	assert_ok(im_file_read(path, 1 << 20, &content, &err), &err);
	tree_hash += mix(mix(UINT64_C(0xcbf29ce484222325), path + walk->base, strlen(path + walk->base)), content.data, content.len);
	return 0;
}

static uint64_t digest_tree(const char *path)
{
	if (access(path, F_OK))
		return 0;
	tree_hash = 0;
	nftw(path, digest_file, 8, FTW_PHYS);
	return tree_hash;
}

uint64_t world_digest(const struct world *w, const char *root)
{
	char path[320];
	snprintf(path, sizeof path, "%s%s", root, w->database);
	uint64_t database = digest_database(path);
	snprintf(path, sizeof path, "%s%s", root, w->tree);
	uint64_t tree = digest_tree(path);
	return database && tree ? database * 31 + tree : 0;
}

static const struct world *compared;
static bool all_whole;

static int compare_file(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	auto_buf struct im_buf found = { 0 }, original = { 0 };
	struct im_error err = { 0 };
	char source[320];
	size_t len = strlen(path), suffix = strlen(".imvault-damaged");
	(void)st;
	if (type != FTW_F || (len > suffix && strcmp(path + len - suffix, ".imvault-damaged") == 0))
		return 0;
	snprintf(source, sizeof source, "%s/%s", compared->tree, path + walk->base);
	assert_ok(im_file_read(path, 1 << 20, &found, &err), &err);
	assert_ok(im_file_read(source, 1 << 20, &original, &err), &err);
	all_whole = all_whole && found.len == original.len && memcmp(found.data, original.data, found.len) == 0;
	return 0;
}

bool world_nothing_half(const struct world *w, const char *root)
{
	char path[320];
	snprintf(path, sizeof path, "%s%s", root, w->database);
	uint64_t database = digest_database(path);
	if (database && database != digest_database(w->database))
		return false;
	compared = w;
	all_whole = true;
	snprintf(path, sizeof path, "%s%s", root, w->tree);
	nftw(path, compare_file, 8, FTW_PHYS);
	return all_whole;
}
