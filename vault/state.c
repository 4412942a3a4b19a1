/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local state: two SQLite files per node. NODE.ids.db knows what durable packs hold (true whatever
 * becomes of a run); NODE.memory.db is what store kinds remember of the last snapshot and becomes
 * true only with it. Both carry the same epoch: if one of them is lost or replaced, the other is
 * not believed. A crash leaves SQLite's own journals, and at worst an older truth that still holds.
 */
#include "vault/state.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define STATE_VERSION 1

enum statement {
	IDS_META_GET, IDS_META_PUT, PACK_ADD, PACK_GET, PACK_BY_NAME, ID_FIND, ID_ADD, FRAGMENT_FIND, FRAGMENT_ADD,
	MEM_META_GET, MEM_META_PUT, MEM_GET, MEM_PUT, MEM_DELETE, MEM_FORGET, STATEMENT_COUNT
};

static const struct {
	bool memory;
	const char *sql;
} statements[STATEMENT_COUNT] = {
	[IDS_META_GET] = { false, "SELECT value FROM meta WHERE key = ?1" },
	[IDS_META_PUT] = { false, "INSERT OR REPLACE INTO meta VALUES (?1, ?2)" },
	[PACK_ADD] = { false, "INSERT OR REPLACE INTO packs VALUES (?1, ?2, ?3, ?4)" },
	[PACK_GET] = { false, "SELECT name, commitment, size FROM packs WHERE number = ?1" },
	[PACK_BY_NAME] = { false, "SELECT number FROM packs WHERE name = ?1" },
	[ID_FIND] = { false, "SELECT ref FROM ids WHERE id = ?1" },
	[ID_ADD] = { false, "INSERT OR REPLACE INTO ids VALUES (?1, ?2)" },
	[FRAGMENT_FIND] = { false, "SELECT 1 FROM fragments WHERE name = ?1" },
	[FRAGMENT_ADD] = { false, "INSERT OR IGNORE INTO fragments VALUES (?1)" },
	[MEM_META_GET] = { true, "SELECT value FROM meta WHERE key = ?1" },
	[MEM_META_PUT] = { true, "INSERT OR REPLACE INTO meta VALUES (?1, ?2)" },
	[MEM_GET] = { true, "SELECT value FROM memory WHERE store = ?1 AND key = ?2" },
	[MEM_PUT] = { true, "INSERT OR REPLACE INTO memory VALUES (?1, ?2, ?3)" },
	[MEM_DELETE] = { true, "DELETE FROM memory WHERE store = ?1 AND key >= ?2 AND key < ?2 || char(1114111)" },
	[MEM_FORGET] = { true, "DELETE FROM memory" },
};

static const char *const ids_schema =
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS packs (number INTEGER PRIMARY KEY, name BLOB UNIQUE, commitment BLOB, size INTEGER);"
    "CREATE TABLE IF NOT EXISTS ids (id BLOB PRIMARY KEY, ref BLOB) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS fragments (name TEXT PRIMARY KEY) WITHOUT ROWID;";
static const char *const memory_schema =
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS memory (store TEXT, key TEXT, value BLOB, PRIMARY KEY (store, key)) WITHOUT ROWID;";

struct state {
	pthread_mutex_t mutex;
	sqlite3 *ids, *memory;
	char *ids_path, *memory_path;
	sqlite3_stmt *stmt[STATEMENT_COUNT];
	struct state_head head;
	bool has_head, damaged;
	uint32_t next_pack;
};

static int db_fail(struct state *s, sqlite3 *db, struct im_error *err)
{
	int rc = sqlite3_errcode(db) & 0xff;
	if (rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB)
		s->damaged = true;
	if (rc == SQLITE_FULL)
		return im_fail(err, IM_ENOSPACE, "no space for the local state %s", s->ids_path);
	return im_fail(err, IM_EFAIL, "local state %s: %s%s", db == s->ids ? s->ids_path : s->memory_path, sqlite3_errmsg(db),
	    s->damaged ? "; it is moved aside and the next run reads everything once" : "");
}

static int exec(struct state *s, sqlite3 *db, const char *sql, struct im_error *err)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_fail(s, db, err);
}

/* A statement ready to be bound; reset by done(). */
static sqlite3_stmt *begin(struct state *s, enum statement n, struct im_error *err)
{
	sqlite3 *db = statements[n].memory ? s->memory : s->ids;
	if (!s->stmt[n] && sqlite3_prepare_v3(db, statements[n].sql, -1, SQLITE_PREPARE_PERSISTENT, &s->stmt[n], NULL)) {
		db_fail(s, db, err);
		return NULL;
	}
	return s->stmt[n];
}

/* Runs a statement without rows. */
static int done(struct state *s, enum statement n, struct im_error *err)
{
	int rc = sqlite3_step(s->stmt[n]) == SQLITE_DONE ? 0 : db_fail(s, statements[n].memory ? s->memory : s->ids, err);
	sqlite3_reset(s->stmt[n]);
	sqlite3_clear_bindings(s->stmt[n]);
	return rc;
}

/* Runs a statement for one row; its first column goes to ret (which may be NULL). IM_ENOTFOUND without a text. */
static int fetch_blob(struct state *s, enum statement n, struct im_buf *ret, struct im_error *err)
{
	int step = sqlite3_step(s->stmt[n]), rc = 0;
	if (step == SQLITE_ROW) {
		if (ret)
			im_buf_put(ret, sqlite3_column_blob(s->stmt[n], 0), (size_t)sqlite3_column_bytes(s->stmt[n], 0));
		if (ret && ret->failed)
			rc = im_fail(err, IM_ENOMEM, "out of memory");
	} else if (step == SQLITE_DONE) {
		rc = IM_ENOTFOUND;
	} else {
		rc = db_fail(s, statements[n].memory ? s->memory : s->ids, err);
	}
	sqlite3_reset(s->stmt[n]);
	sqlite3_clear_bindings(s->stmt[n]);
	return rc;
}

static int meta_get(struct state *s, enum statement n, const char *key, void *ret, size_t len)
{
	auto_buf struct im_buf b = { 0 };
	if (!begin(s, n, NULL))
		return IM_EFAIL;
	sqlite3_bind_text(s->stmt[n], 1, key, -1, SQLITE_STATIC);
	int rc = fetch_blob(s, n, &b, NULL);
	if (rc || b.len != len)
		return rc ? rc : IM_EFAIL;
	memcpy(ret, b.data, len);
	return 0;
}

static int meta_put(struct state *s, enum statement n, const char *key, const void *data, size_t len, struct im_error *err)
{
	if (!begin(s, n, err))
		return IM_EFAIL;
	sqlite3_bind_text(s->stmt[n], 1, key, -1, SQLITE_STATIC);
	sqlite3_bind_blob(s->stmt[n], 2, data, (int)len, SQLITE_STATIC);
	return done(s, n, err);
}

static int open_one(struct state *s, const char *path, const char *schema, sqlite3 **ret, struct im_error *err)
{
	int rc = sqlite3_open_v2(path, ret, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc != SQLITE_OK)
		return im_fail(err, IM_EFAIL, "cannot open the local state %s: %s", path, *ret ? sqlite3_errmsg(*ret) : "out of memory");
	sqlite3_busy_timeout(*ret, 5000);
	rc = exec(s, *ret, "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;", err);
	if (rc == 0)
		rc = exec(s, *ret, schema, err);
	if (rc == 0)
		rc = exec(s, *ret, "BEGIN", err);
	return rc;
}

static void close_databases(struct state *s)
{
	for (size_t i = 0; i < STATEMENT_COUNT; i++) {
		sqlite3_finalize(s->stmt[i]);
		s->stmt[i] = NULL;
	}
	sqlite3_close(s->ids);
	sqlite3_close(s->memory);
	s->ids = s->memory = NULL;
}

static void move_aside(const char *path)
{
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	for (size_t i = 0; i < 3; i++) {
		auto_free char *from = im_format("%s%s", path, suffixes[i]);
		auto_free char *to = im_format("%s.damaged%s", path, suffixes[i]);
		if (from && to)
			rename(from, to);
	}
}

static int open_databases(struct state *s, struct im_error *err)
{
	int rc = open_one(s, s->ids_path, ids_schema, &s->ids, err);
	return rc ? rc : open_one(s, s->memory_path, memory_schema, &s->memory, err);
}

static void new_epoch(struct state *s)
{
	uint8_t random[8];
	crypto_random(random, sizeof random);
	im_hex(s->head.epoch, random, sizeof random);
	s->has_head = false;
}

static int start_fresh(struct state *s, const uint8_t identity[32], struct im_error *err)
{
	uint32_t version = STATE_VERSION;
	int rc = exec(s, s->ids, "DELETE FROM meta; DELETE FROM packs; DELETE FROM ids; DELETE FROM fragments;", err);
	if (rc == 0)
		rc = exec(s, s->memory, "DELETE FROM meta; DELETE FROM memory;", err);
	new_epoch(s);
	s->next_pack = 1;
	for (int i = 0; i < 2 && rc == 0; i++) {
		enum statement put = i ? MEM_META_PUT : IDS_META_PUT;
		rc = meta_put(s, put, "version", &version, sizeof version, err);
		if (rc == 0)
			rc = meta_put(s, put, "identity", identity, 32, err);
		if (rc == 0)
			rc = meta_put(s, put, "epoch", s->head.epoch, 17, err);
	}
	if (rc == 0)
		rc = exec(s, s->memory, "COMMIT; BEGIN", err);
	return rc ? rc : state_checkpoint(s, err);
}

static int read_head(struct state *s)
{
	char epoch[17];
	uint32_t version[2];
	for (int i = 0; i < 2; i++)
		if (meta_get(s, i ? MEM_META_GET : IDS_META_GET, "version", &version[i], 4) || version[i] != STATE_VERSION)
			return IM_EFAIL;
	if (meta_get(s, IDS_META_GET, "epoch", s->head.epoch, 17) || meta_get(s, MEM_META_GET, "epoch", epoch, 17) ||
	    memcmp(epoch, s->head.epoch, 17) != 0 || meta_get(s, IDS_META_GET, "next_pack", &s->next_pack, 4))
		return IM_EFAIL;
	s->has_head = meta_get(s, MEM_META_GET, "head", &s->head, sizeof s->head) == 0;
	return 0;
}

static int load(struct state *s, const uint8_t vault_id[16], const char *node, struct im_error *err)
{
	uint8_t identity[32], ids[32], memory[32];
	auto_buf struct im_buf text = { 0 };
	im_buf_put(&text, vault_id, 16);
	im_buf_put(&text, node, strlen(node));
	crypto_hash(identity, text.data, text.len);
	if (meta_get(s, IDS_META_GET, "identity", ids, 32) || meta_get(s, MEM_META_GET, "identity", memory, 32) ||
	    memcmp(ids, identity, 32) != 0 || memcmp(memory, identity, 32) != 0 || read_head(s))
		return s->damaged ? IM_EFAIL : start_fresh(s, identity, err);
	return 0;
}

int state_open(const char *dir, const uint8_t vault_id[16], const char *node, struct state **ret, struct im_error *err)
{
	int rc = im_mkdirs(dir, 0700, err);
	struct state *s = rc ? NULL : calloc(1, sizeof *s);
	if (!s)
		return rc ? rc : im_fail(err, IM_ENOMEM, "out of memory");
	pthread_mutex_init(&s->mutex, NULL);
	s->ids_path = im_format("%s/%s.ids.db", dir, node);
	s->memory_path = im_format("%s/%s.memory.db", dir, node);
	struct im_error first = { 0 };
	if (!s->ids_path || !s->memory_path)
		rc = im_fail(&first, IM_ENOMEM, "out of memory");
	if (rc == 0)
		rc = open_databases(s, &first);
	if (rc == 0)
		rc = load(s, vault_id, node, &first);
	if (rc && s->damaged) {
		close_databases(s);
		move_aside(s->ids_path);
		move_aside(s->memory_path);
		s->damaged = false;
		im_error_clear(&first);
		rc = open_databases(s, &first);
		if (rc == 0)
			rc = load(s, vault_id, node, &first);
	}
	if (rc) {
		state_close(s);
		return im_fail(err, first.code ? first.code : IM_EFAIL, "%s", first.code ? first.text : "the local state cannot be read");
	}
	*ret = s;
	return 0;
}

void state_close(struct state *s)
{
	if (!s)
		return;
	close_databases(s);
	if (s->damaged) {
		move_aside(s->ids_path);
		move_aside(s->memory_path);
	}
	pthread_mutex_destroy(&s->mutex);
	free(s->ids_path);
	free(s->memory_path);
	free(s);
}

bool state_head(struct state *s, struct state_head *ret)
{
	*ret = s->head;
	return s->has_head;
}

int state_forget(struct state *s, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	int rc = begin(s, MEM_FORGET, err) ? done(s, MEM_FORGET, err) : IM_EFAIL;
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_forget_ids(struct state *s, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	int rc = exec(s, s->ids, "DELETE FROM packs; DELETE FROM ids; DELETE FROM fragments;", err);
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_get(struct state *s, const char *store, const char *key, struct im_buf *ret, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, MEM_GET, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_text(q, 1, store, -1, SQLITE_STATIC);
		sqlite3_bind_text(q, 2, key, -1, SQLITE_STATIC);
		rc = fetch_blob(s, MEM_GET, ret, err);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_put(struct state *s, const char *store, const char *key, const void *data, size_t len, struct im_error *err)
{
	IM_CHECK(len < INT32_MAX);
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, MEM_PUT, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_text(q, 1, store, -1, SQLITE_STATIC);
		sqlite3_bind_text(q, 2, key, -1, SQLITE_STATIC);
		sqlite3_bind_blob(q, 3, data, (int)len, SQLITE_STATIC);
		rc = done(s, MEM_PUT, err);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_delete(struct state *s, const char *store, const char *key_prefix, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, MEM_DELETE, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_text(q, 1, store, -1, SQLITE_STATIC);
		sqlite3_bind_text(q, 2, key_prefix, -1, SQLITE_STATIC);
		rc = done(s, MEM_DELETE, err);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_pack_number(struct state *s, uint32_t *ret, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	int rc = s->next_pack == UINT32_MAX ? im_fail(err, IM_EFAIL, "pack numbers are used up; remove the local state %s", s->ids_path) : 0;
	if (rc == 0)
		*ret = s->next_pack++;
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_pack_add(struct state *s, const struct pack_info *pack, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, PACK_ADD, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_int64(q, 1, pack->number);
		sqlite3_bind_blob(q, 2, pack->name, 32, SQLITE_STATIC);
		sqlite3_bind_blob(q, 3, pack->commitment, 32, SQLITE_STATIC);
		sqlite3_bind_int64(q, 4, (int64_t)pack->size_bytes);
		rc = done(s, PACK_ADD, err);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

static int read_pack_row(struct state *s, sqlite3_stmt *q, uint32_t number, struct pack_info *ret, struct im_error *err)
{
	if (sqlite3_step(q) != SQLITE_ROW || sqlite3_column_bytes(q, 0) != 32 || sqlite3_column_bytes(q, 1) != 32)
		return im_fail(err, IM_ENOTFOUND, "local state %s knows no pack number %u", s->ids_path, number);
	ret->number = number;
	memcpy(ret->name, sqlite3_column_blob(q, 0), 32);
	memcpy(ret->commitment, sqlite3_column_blob(q, 1), 32);
	ret->size_bytes = (uint64_t)sqlite3_column_int64(q, 2);
	return 0;
}

int state_pack_get(struct state *s, uint32_t number, struct pack_info *ret, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, PACK_GET, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_int64(q, 1, number);
		rc = read_pack_row(s, q, number, ret, err);
		sqlite3_reset(q);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_pack_by_name(struct state *s, const uint8_t name[32], uint32_t *ret, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, PACK_BY_NAME, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_blob(q, 1, name, 32, SQLITE_STATIC);
		rc = sqlite3_step(q) == SQLITE_ROW ? 0 : IM_ENOTFOUND;
		if (rc == 0)
			*ret = (uint32_t)sqlite3_column_int64(q, 0);
		sqlite3_reset(q);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_id_find(struct state *s, const uint8_t id[32], struct im_ref *ret, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, ID_FIND, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_blob(q, 1, id, 32, SQLITE_STATIC);
		rc = fetch_blob(s, ID_FIND, &b, err);
	}
	pthread_mutex_unlock(&s->mutex);
	if (rc)
		return rc;
	struct im_reader r = im_reader_of(b.data, b.len);
	struct im_ref ref = ref_read(&r);
	if (r.failed)
		return IM_ENOTFOUND;
	*ret = ref;
	return 0;
}

int state_id_add(struct state *s, const uint8_t id[32], const struct im_ref *ref, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	ref_put(&b, *ref);
	if (b.failed)
		return im_fail(err, IM_ENOMEM, "out of memory");
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, ID_ADD, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_blob(q, 1, id, 32, SQLITE_STATIC);
		sqlite3_bind_blob(q, 2, b.data, (int)b.len, SQLITE_STATIC);
		rc = done(s, ID_ADD, err);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

bool state_fragment_known(struct state *s, const char *name)
{
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, FRAGMENT_FIND, NULL);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_text(q, 1, name, -1, SQLITE_STATIC);
		rc = fetch_blob(s, FRAGMENT_FIND, NULL, NULL);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc == 0;
}

int state_fragment_add(struct state *s, const char *name, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	sqlite3_stmt *q = begin(s, FRAGMENT_ADD, err);
	int rc = IM_EFAIL;
	if (q) {
		sqlite3_bind_text(q, 1, name, -1, SQLITE_STATIC);
		rc = done(s, FRAGMENT_ADD, err);
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_checkpoint(struct state *s, struct im_error *err)
{
	pthread_mutex_lock(&s->mutex);
	int rc = meta_put(s, IDS_META_PUT, "next_pack", &s->next_pack, sizeof s->next_pack, err);
	if (rc == 0)
		rc = exec(s, s->ids, "COMMIT; BEGIN", err);
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

int state_commit(struct state *s, const struct state_head *head, struct im_error *err)
{
	int rc = state_checkpoint(s, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&s->mutex);
	rc = meta_put(s, MEM_META_PUT, "head", head, sizeof *head, err);
	if (rc == 0)
		rc = exec(s, s->memory, "COMMIT; BEGIN", err);
	if (rc == 0) {
		s->head = *head;
		s->has_head = true;
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}
