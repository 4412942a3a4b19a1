/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over the message table, in the order its pages were filled: a slot for an upload is
 * registered before the message that links to it, so that links can be looked up on the way. The
 * database is hostile: only a real table is read, within a fence, and no row may be huge.
 */
#include "stores/sqlite/survey.h"

#include "base/interrupt.h"
#include "stores/sqlite/fence.h"
#include "stores/sqlite/restored.h"
#include "stores/sqlite/schema.h"
#include "stores/sqlite/uploads.h"

#include <errno.h>
#include <string.h>

#define ROW_MAX_BYTES (64 << 20)
#define MAX_TIME_S INT64_C(4294967295)

struct survey { /* in progress */
	const struct store_survey_request *request;
	const struct schema *schema;
	sqlite3 *db;
	sqlite3_stmt *rows;
	struct fence fence;
	struct tally *tally;
	struct uploads uploads;
	int64_t first_later_id; /* lowest number of a row that is not to be counted; -1: there is none */
};

typedef int row_fn(struct survey *s, int64_t at_ms, struct im_error *err);

static const char *text(const struct survey *s, int column)
{
	const char *t = (const char *)sqlite3_column_text(s->rows, column);
	return t ? t : "";
}

/* A number of seconds times per_second; -1 for what cannot be a time. */
static int64_t time_ms(const struct survey *s, int column, int64_t per_second)
{
	int type = sqlite3_column_type(s->rows, column);
	if (type != SQLITE_INTEGER && type != SQLITE_FLOAT)
		return -1;
	double seconds = sqlite3_column_double(s->rows, column) / (double)per_second;
	if (!(seconds >= 0 && seconds <= (double)MAX_TIME_S))
		return -1;
	return type == SQLITE_INTEGER ? sqlite3_column_int64(s->rows, column) * 1000 / per_second : (int64_t)(seconds * 1000);
}

static int count(struct survey *s, const char *const *names, bool room, int64_t at_ms, struct im_error *err)
{
	/* names: host, kind, owner, the other side. Each begins with what the one before it is about. */
	struct tally_message m = { .group = hash64_of(names, 2), .owner = hash64_of(names, 3), .time_ms = at_ms };
	m.conversation = room ? m.owner : hash64_of(names, 4);
	return tally_add(s->tally, &m, err);
}

enum { ROW_ID, ROW_TIME, ROW_KIND, ROW_HOST, ROW_OWNER, ROW_PEER, ROW_XML, ROW_KEY };

#define PROSODY_ROWS "SELECT sort_id, \"when\", store, host, user, \"with\", value, \"key\" FROM prosodyarchive NOT INDEXED"
#define EJABBERD_ROWS "SELECT id, timestamp, kind, %s, username, bare_peer, xml FROM archive NOT INDEXED"

/* Other archives than these hold no messages, or (offline) only until they are delivered. */
static int prosody_row(struct survey *s, int64_t at_ms, struct im_error *err)
{
	const char *store = text(s, ROW_KIND);
	bool room = strcmp(store, "muc_log") == 0;
	if (strcmp(store, "uploads") == 0)
		return uploads_register(&s->uploads, text(s, ROW_HOST), text(s, ROW_KEY), text(s, ROW_XML), at_ms, err);
	if (!room && strcmp(store, "archive") != 0 && strcmp(store, "archive2") != 0)
		return 0;
	if (s->uploads.count)
		uploads_refer_to_slots(&s->uploads, text(s, ROW_XML), at_ms);
	/* muc_log says in "with" what kind of stanza it is. */
	return count(s, (const char *const[]){ text(s, ROW_HOST), store, text(s, ROW_OWNER), text(s, ROW_PEER) }, room, at_ms, err);
}

static int ejabberd_row(struct survey *s, int64_t at_ms, struct im_error *err)
{
	const char *kind = text(s, ROW_KIND);
	int rc = uploads_refer_to_paths(&s->uploads, text(s, ROW_XML), at_ms, err);
	if (rc)
		return rc;
	return count(s, (const char *const[]){ text(s, ROW_HOST), kind, text(s, ROW_OWNER), text(s, ROW_PEER) },
	    strcmp(kind, "groupchat") == 0, at_ms, err);
}

static int stopped(const struct survey *s, struct im_error *err)
{
	if (im_interrupt_signal())
		return im_interrupt_check(err);
	return im_fail(err, IM_EFAIL, "counting the messages in %s took longer than %lld s; its table %s is not as a server makes it, or is very large",
	    s->request->path, (long long)s->request->limit_ms / 1000, s->schema->table);
}

/* A service that the drill started may have written: what is dated since then is not of the recovery point. */
static bool is_later(struct survey *s, int64_t id, int64_t at_ms)
{
	if (!s->request->until_ms || at_ms < s->request->until_ms)
		return false;
	if (s->first_later_id < 0 || id < s->first_later_id)
		s->first_later_id = id;
	return true;
}

static int scan(struct survey *s, bool prosody, struct im_error *err)
{
	row_fn *row = prosody ? prosody_row : ejabberd_row;
	int step;
	while ((step = sqlite3_step(s->rows)) == SQLITE_ROW) {
		int64_t id = sqlite3_column_int64(s->rows, ROW_ID), at_ms = time_ms(s, ROW_TIME, prosody ? 1 : 1000000);
		int rc = fence_expired(&s->fence) ? stopped(s, err) : 0;
		bool later = rc == 0 && is_later(s, id, at_ms);
		if (rc == 0 && !later)
			rc = row(s, at_ms, err);
		if (rc)
			return rc;
		if (!later && id > s->tally->last_id)
			s->tally->last_id = id;
	}
	if (step == SQLITE_INTERRUPT)
		return stopped(s, err);
	return step == SQLITE_DONE ? 0 :
	    im_fail(err, step == SQLITE_CORRUPT ? IM_ECORRUPT : IM_EFAIL, "cannot read the messages in %s: %s", s->request->path, sqlite3_errmsg(s->db));
}

/* What AUTOINCREMENT remembers as the highest number; 0 if it was made to forget. */
static int64_t read_counter(const struct survey *s)
{
	char sql[320];
	sqlite3_stmt *q = NULL;
	sqlite3_snprintf(sizeof sql, sql, "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '%s'), "
	    "CASE WHEN (SELECT sql FROM sqlite_schema WHERE name = '%s') LIKE '%%AUTOINCREMENT%%' THEN 0 ELSE -1 END)", s->schema->table, s->schema->table);
	int64_t counter = -1;
	if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW)
		counter = sqlite3_column_int64(q, 0);
	sqlite3_finalize(q);
	return counter;
}

static int survey_table(struct survey *s, struct im_error *err)
{
	char sql[256];
	bool prosody = strcmp(s->schema->name, "prosody") == 0;
	if (!schema_is_table(s->db, s->schema))
		return im_fail(err, IM_EFAIL, "%s in %s is not a table but a view or the like, so its messages are not counted; no server makes it so",
		    s->schema->table, s->request->path);
	sqlite3_snprintf(sizeof sql, sql, prosody ? PROSODY_ROWS : EJABBERD_ROWS,
	    schema_has(s->db, s->schema, "server_host") ? "server_host" : "''");
	fence_raise(&s->fence, s->db, s->request->limit_ms);
	int rc = 0;
	if (sqlite3_prepare_v2(s->db, sql, -1, &s->rows, NULL) != SQLITE_OK)
		rc = im_fail(err, IM_EFAIL, "cannot read the messages in %s: %s", s->request->path, sqlite3_errmsg(s->db));
	else
		rc = scan(s, prosody, err);
	sqlite3_finalize(s->rows);
	if (rc == 0)
		s->tally->counter = s->first_later_id >= 0 ? s->first_later_id - 1 : read_counter(s);
	fence_lower(&s->fence);
	return rc;
}

static int survey_open(struct survey *s, struct store_survey *ret, struct im_error *err)
{
	for (s->schema = schema_table(); s->schema->name && !schema_present(s->db, s->schema);)
		s->schema++;
	if (!s->schema->name)
		return 0;
	sqlite3_limit(s->db, SQLITE_LIMIT_LENGTH, ROW_MAX_BYTES);
	s->tally = &ret->tally;
	tally_init(s->tally, tally_schema(s->schema->name));
	s->tally->before = s->request->before;
	int rc = survey_table(s, err);
	s->tally->before = NULL;
	if (rc) {
		uploads_clear(&s->uploads);
		store_survey_clear(ret);
		return rc;
	}
	ret->known = true;
	ret->attachments = s->uploads.items;
	ret->attachment_count = s->uploads.count;
	ret->attachments_cut = s->uploads.cut;
	s->uploads.items = NULL;
	s->uploads.count = 0;
	uploads_clear(&s->uploads);
	return 0;
}

int sqlite_survey(const struct store_survey_request *q, struct store_survey *ret, struct im_error *err)
{
	struct survey s = { .request = q, .first_later_id = -1 };
	struct stat st;
	*ret = (struct store_survey){ 0 };
	if (stat(q->path, &st))
		return im_fail_errno(err, IM_EDIFFERENT, errno, "the restored %s is not there", q->path);
	if (st.st_size == 0)
		return 0;
	int rc = restored_open(q->path, &s.db, err);
	if (rc)
		return rc;
	rc = survey_open(&s, ret, err);
	sqlite3_close(s.db);
	return rc;
}
