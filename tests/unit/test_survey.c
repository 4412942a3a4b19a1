/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Surveys of restored message stores: what counts as lost and what does not. The tables are those of
 * Prosody 0.12 and ejabberd 23 word for word; the uploads are named as Prosody's mod_http_file_share names them.
 */
#include "fixture.h"
#include "sqlite_rig.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "stores/store.h"
#include "verify/survey.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <unistd.h>

#define DAY0 INT64_C(20000) /* 2024-10-04 */
#define DAYS 10
#define USERS 3
#define DAY_S INT64_C(86400)
#define MAX_JSON_BYTES 4000000

static const char prosody_schema[] =
    "CREATE TABLE prosodyarchive (sort_id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, user TEXT NOT NULL, store TEXT NOT NULL, "
    "\"key\" TEXT NOT NULL, \"when\" INTEGER NOT NULL, \"with\" TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL);"
    "CREATE UNIQUE INDEX prosodyarchive_index ON prosodyarchive (host, user, store, \"key\");"
    "CREATE INDEX prosodyarchive_with_when ON prosodyarchive (host, user, store, \"with\", \"when\");"
    "CREATE INDEX prosodyarchive_when ON prosodyarchive (host, user, store, \"when\");"
    "CREATE INDEX prosodyarchive_sort ON prosodyarchive (host, user, store, sort_id);";

static const char ejabberd_schema[] =
    "CREATE TABLE archive (username text NOT NULL, timestamp BIGINT UNSIGNED NOT NULL, peer text NOT NULL, bare_peer text NOT NULL, xml text NOT NULL, "
    "txt text, id INTEGER PRIMARY KEY AUTOINCREMENT, kind text, nick text, created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP);"
    "CREATE INDEX i_username_timestamp ON archive(username, timestamp);"
    "CREATE INDEX i_timestamp ON archive(timestamp);";

struct rig {
	char dir[64], db_path[96], tree[96];
	sqlite3 *db;
	struct survey_store stores[2];
	size_t store_count;
	json_t *before, *now;
	char said[8192];        /* all findings, a line each */
	size_t differences;
	struct im_error err;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	strcpy(r->dir, "/tmp/imvault-survey-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	assert_ok(crypto_init(&r->err), &r->err);
	snprintf(r->db_path, sizeof r->db_path, "%s/prosody.sqlite", r->dir);
	snprintf(r->tree, sizeof r->tree, "%s/data", r->dir);
	assert_int_equal(mkdir(r->tree, 0700), 0);
	r->db = sqlite_rig_open(r->db_path);
	sqlite_rig_sql(r->db, "PRAGMA synchronous=off; PRAGMA journal_mode=memory");
	r->stores[0] = (struct survey_store){ .name = "archive", .type = "sqlite", .path = r->db_path };
	r->stores[1] = (struct survey_store){ .name = "uploads", .type = "files", .path = r->tree };
	r->store_count = 1;
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	sqlite3_close(r->db);
	json_decref(r->before);
	json_decref(r->now);
	remove_tree(r->dir);
	free(r);
	return 0;
}

static void on_finding(void *context, const char *store, const char *check, bool ok, const char *text)
{
	struct rig *r = context;
	size_t len = strlen(r->said);
	assert_null(strchr(text, '\n'));
	r->differences += !ok;
	snprintf(r->said + len, sizeof r->said - len, "%s %s %s: %s\n", ok ? "ok" : "DIFFERENT", store ? store : "-", check, text);
}

static void survey(struct rig *r)
{
	r->said[0] = 0;
	r->differences = 0;
	json_decref(r->before);
	r->before = r->now;
	r->now = NULL;
	assert_ok(survey_run(r->stores, r->store_count, r->before, "2026-11-20T03:00:00.000Z", on_finding, r, &r->now, &r->err), &r->err);
}

static void assert_said(const struct rig *r, const char *text)
{
	if (!strstr(r->said, text))
		fail_msg("\"%s\" was not said, but:\n%s", text, r->said);
}

static void assert_same(const struct rig *r)
{
	if (r->differences)
		fail_msg("%zu differences:\n%s", r->differences, r->said);
}

static void assert_different(const struct rig *r, size_t count)
{
	if (r->differences != count)
		fail_msg("%zu differences, not %zu:\n%s", r->differences, count, r->said);
}

static void sql(struct rig *r, const char *format, ...)
{
	char *text;
	va_list ap;
	va_start(ap, format);
	assert_true(vasprintf(&text, format, ap) >= 0);
	va_end(ap);
	sqlite_rig_sql(r->db, text);
	free(text);
}

static void put(struct rig *r, const char *user, const char *store, const char *with, int64_t time_s, const char *value)
{
	sql(r, "INSERT INTO prosodyarchive (host, user, store, \"key\", \"when\", \"with\", type, value) VALUES "
	    "('im.example', '%s', '%s', lower(hex(randomblob(16))), %" PRId64 ", '%s', 'xml', '%s')", user, store, time_s, with, value);
}

/* Every user has four messages a day with each of three others, and a room has as many; the last day is short. */
static void put_days(struct rig *r, int64_t first, int64_t count)
{
	char user[16], with[48];
	for (int64_t day = first; day < first + count; day++)
		for (int i = 0; i < 4; i++)
			for (int u = 0; u < USERS; u++) {
				int64_t at = (DAY0 + day) * DAY_S + 3600 * i + 60 * u;
				snprintf(user, sizeof user, "user%d", u);
				for (int p = 0; p < 3; p++) {
					snprintf(with, sizeof with, "peer%d@far.example", p);
					put(r, user, "archive", with, at + p, "<message/>");
				}
				put(r, "kitchen", "muc_log", "message<groupchat", at, "<message/>");
			}
}

static void make(struct rig *r)
{
	sql(r, "%s BEGIN", prosody_schema);
	put_days(r, 0, DAYS);
	sql(r, "COMMIT");
}

#define ROW_OF_DAY "CAST(\"when\" / 86400 AS INTEGER) - 20000"

/* --- messages --- */

static void survey__counts_what_there_is(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	assert_same(r);
	assert_said(r, "480 messages in 10 conversations, from 2024-10-04T00:00:00.000Z to 2024-10-13T03:02:02.000Z");
}

static void survey__the_same_state_again_is_no_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	survey(r);
	assert_same(r);
	assert_said(r, "none is missing");
}

static void survey__new_messages_are_no_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	put_days(r, DAYS, 2);
	survey(r);
	assert_same(r);
}

static void survey__no_name_gets_into_it(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	auto_free char *text = json_dumps(r->now, 0);
	assert_null(strstr(text, "peer"));
	assert_null(strstr(text, "user1"));
	assert_null(strstr(text, "kitchen"));
	assert_null(strstr(text, "example"));
}

static void survey__what_expired_is_no_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	put_days(r, DAYS, 3);
	/* As mod_mam does it: one host's archive up to a second in the middle of a day; rooms are kept longer. */
	sql(r, "DELETE FROM prosodyarchive WHERE store = 'archive' AND \"when\" <= %" PRId64, (DAY0 + 5) * DAY_S + 3661);
	survey(r);
	assert_same(r);
}

static void survey__an_archive_of_limited_length_is_no_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	/* storage_archive_item_limit: the oldest of one user go, those of others stay. */
	sql(r, "DELETE FROM prosodyarchive WHERE store = 'archive' AND user = 'user1' AND sort_id IN "
	    "(SELECT sort_id FROM prosodyarchive WHERE store = 'archive' AND user = 'user1' ORDER BY sort_id LIMIT 70)");
	survey(r);
	assert_same(r);
	assert_said(r, "a limit on their length can be the reason");
}

static void survey__a_user_whose_whole_archive_expired_is_no_difference(void **state)
{
	struct rig *r = *state;
	const int64_t noon = (DAY0 + 3) * DAY_S + 43200;
	sql(r, "%s", prosody_schema);
	for (int i = 0; i < 8; i++)
		put(r, "quiet", "archive", "otto@im.example", noon - i * DAY_S / 2 - 60, "<message/>");
	for (int i = 0; i < 80; i++)
		put(r, "busy", "archive", "otto@im.example", noon + 60 + i * 3600, "<message/>");
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE \"when\" <= %" PRId64, noon);
	survey(r);
	assert_same(r);
}

static void survey__a_user_whose_whole_archive_is_gone_is_a_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	put(r, "late", "archive", "otto@im.example", (DAY0 + 4) * DAY_S, "<message/>");
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE user = 'late'");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "1 of 11 conversations lost 1 message of 2024-10-08 that was there");
}

static void survey__a_loss_behind_what_was_cut_off_is_a_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE user = 'user1' AND (" ROW_OF_DAY " < 3 OR " ROW_OF_DAY " = 6)");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "the archive lost 12 messages of 2024-10-10");
}

static void survey__what_was_cut_off_does_not_add_to_a_loss(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE user = 'user1' AND " ROW_OF_DAY " < 3");
	sql(r, "DELETE FROM prosodyarchive WHERE user = 'user2' AND " ROW_OF_DAY " = 6 AND \"with\" = 'peer1@far.example'");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "1 of 10 conversations lost 4 messages of 2024-10-10 that were");
}

static void survey__rows_lost_in_the_middle_name_the_day_and_the_conversations(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE sort_id IN (SELECT sort_id FROM prosodyarchive WHERE store = 'archive' AND " ROW_OF_DAY
	    " = 4 AND user = 'user1' AND \"with\" = 'peer1@far.example' LIMIT 2)");
	sql(r, "DELETE FROM prosodyarchive WHERE sort_id IN (SELECT sort_id FROM prosodyarchive WHERE store = 'archive' AND " ROW_OF_DAY
	    " = 4 AND user = 'user2' AND \"with\" = 'peer0@far.example' LIMIT 1)");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "2 of 10 conversations lost 3 messages of 2024-10-08 that were there in the drill of ");
	survey(r);
	assert_same(r); /* told once */
}

static void survey__a_loss_shows_although_more_came_since(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE user = 'kitchen' AND " ROW_OF_DAY " = 9 AND sort_id % 2 = 0");
	put_days(r, DAYS, 5);
	survey(r);
	assert_different(r, 1);
	assert_said(r, "1 of 10 conversations lost");
}

static void survey__a_loss_of_the_newest_day_shows_among_messages_of_one_hour(void **state)
{
	struct rig *r = *state;
	sql(r, "%s", prosody_schema);
	for (int i = 0; i < 20; i++)
		put(r, "anna", "archive", "otto@im.example", DAY0 * DAY_S + i, "<message/>");
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE sort_id BETWEEN 8 AND 12");
	put(r, "anna", "archive", "otto@im.example", DAY0 * DAY_S + 30, "<message/>");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "1 of 1 conversation lost 5 messages of 2024-10-04");
}

static void survey__an_older_recovery_point_is_no_difference_and_is_not_kept(void **state)
{
	struct rig *r = *state;
	make(r);
	auto_free char *copy = im_format("VACUUM INTO '%s/older.sqlite'", r->dir);
	sqlite_rig_sql(r->db, copy);
	put_days(r, DAYS, 4);
	sql(r, "DELETE FROM prosodyarchive WHERE store = 'archive' AND \"when\" <= %" PRId64, (DAY0 + 3) * DAY_S);
	survey(r);
	auto_free char *older = im_format("%s/older.sqlite", r->dir);
	r->stores[0].path = older;
	survey(r);
	assert_same(r);
	assert_said(r, "as far as this older recovery point goes");
	assert_true(json_equal(json_object_get(r->now, "archive"), json_object_get(r->before, "archive")));
}

static void survey__a_loss_shows_at_an_older_recovery_point_too(void **state)
{
	struct rig *r = *state;
	make(r);
	auto_free char *copy = im_format("VACUUM INTO '%s/older.sqlite'", r->dir);
	sqlite_rig_sql(r->db, copy);
	put_days(r, DAYS, 4);
	survey(r);
	auto_free char *older = im_format("%s/older.sqlite", r->dir);
	sqlite3_close(r->db);
	r->db = sqlite_rig_open(older);
	sql(r, "DELETE FROM prosodyarchive WHERE user = 'kitchen' AND " ROW_OF_DAY " = 6");
	r->stores[0].path = older;
	survey(r);
	assert_different(r, 1);
	assert_said(r, "12 messages of 2024-10-10");
}

static void survey__lost_newest_messages_show_if_the_recovery_point_is_later(void **state)
{
	struct rig *r = *state;
	make(r);
	r->stores[0].instant_ms = INT64_C(1730000000000);
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE " ROW_OF_DAY " >= 8");
	r->stores[0].instant_ms += 3600000;
	survey(r);
	assert_true(r->differences > 0);
	assert_said(r, "the newest messages are gone");
}

static void survey__the_instants_tell_which_recovery_point_is_older(void **state)
{
	struct rig *r = *state;
	make(r);
	r->stores[0].instant_ms = INT64_C(1730000000000);
	survey(r);
	sql(r, "DELETE FROM prosodyarchive WHERE " ROW_OF_DAY " >= 8");
	r->stores[0].instant_ms -= 3600000;
	survey(r);
	assert_same(r);
	assert_said(r, "as far as this older recovery point goes");
}

static void survey__what_the_drills_own_service_wrote_does_not_count(void **state)
{
	struct rig *r = *state;
	const int64_t began_s = (DAY0 + DAYS) * DAY_S;
	make(r);
	auto_free char *copy = im_format("VACUUM INTO '%s/again.sqlite'", r->dir);
	sqlite_rig_sql(r->db, copy);
	put(r, "imvault-drill-1", "archive", "imvault-drill-1@im.example", began_s, "<message/>");
	put(r, "imvault-drill-1", "archive", "imvault-drill-1@im.example", began_s + 1, "<message/>");
	r->stores[0].until_ms = began_s * 1000 + 700;
	survey(r);
	assert_same(r);
	assert_said(r, "480 messages in 10 conversations");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(r->now, "archive"), "counter")), 480);
	auto_free char *again = im_format("%s/again.sqlite", r->dir);
	r->stores[0].path = again;
	survey(r);
	assert_same(r);
}

static void survey__an_emptied_archive_is_a_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	sql(r, "DELETE FROM prosodyarchive");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "there are no messages; in the drill of ");
}

static void survey__a_table_that_is_gone_is_a_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	sql(r, "DROP TABLE prosodyarchive; CREATE TABLE other (a)");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "no message table that is known");
}

static void survey__a_counter_below_the_highest_number_is_a_difference(void **state)
{
	struct rig *r = *state;
	make(r);
	sql(r, "UPDATE sqlite_sequence SET seq = 7");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "stands at 7, below the highest number 480");
	sql(r, "DELETE FROM sqlite_sequence");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "stands at 0, below the highest number 480");
}

static void survey__silent_days_between_busy_ones_are_a_remark(void **state)
{
	struct rig *r = *state;
	sql(r, "%s", prosody_schema);
	put_days(r, 0, 3);
	put_days(r, 5, 3);
	survey(r);
	assert_same(r);
	assert_said(r, "2 days without any message between days with many, the first 2024-10-07");
}

static void survey__other_archives_than_messages_do_not_count(void **state)
{
	struct rig *r = *state;
	make(r);
	put(r, "user1", "offline", "", DAY0 * DAY_S + 5, "<message/>");
	survey(r);
	assert_said(r, "480 messages");
	sql(r, "DELETE FROM prosodyarchive WHERE store = 'offline'"); /* delivered */
	survey(r);
	assert_same(r);
}

static void survey__ejabberd_archives_are_known(void **state)
{
	struct rig *r = *state;
	sql(r, "%s", ejabberd_schema);
	for (int64_t day = 0; day < DAYS; day++)
		for (int i = 0; i < 30; i++)
			sql(r, "INSERT INTO archive (username, timestamp, peer, bare_peer, xml, kind) VALUES ('anna', %" PRId64 ", 'otto@im.example/x', 'otto@im.example', "
			       "'<message/>', 'chat')", ((DAY0 + day) * DAY_S + i * 60) * 1000000 + 123456);
	survey(r);
	assert_same(r);
	assert_said(r, "300 messages in 1 conversation, from 2024-10-04T00:00:00.123Z");
	sql(r, "DELETE FROM archive WHERE id IN (100, 101, 130)");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "1 of 1 conversation lost 3 messages of 2024-10-07, 2024-10-08");
}

static void survey__a_store_that_was_not_restored_keeps_its_survey(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	r->store_count = 0;
	survey(r);
	assert_true(json_equal(r->now, r->before));
	assert_string_equal(r->said, "");
}

static void survey__a_malformed_earlier_survey_is_told_and_left_out(void **state)
{
	struct rig *r = *state;
	make(r);
	survey(r);
	json_t *good = json_deep_copy(r->now);
	static const char *const bad[] = {
		"{\"schema\":\"what\"}", "{\"messages\":-1}", "{\"sample_bits\":65}", "{\"sample_bits\":-1}", "{\"groups\":[[\"zz\"]]}",
		"{\"groups\":[]}", "{\"groups\":7}", "{\"days\":[[0,-1,1]]}", "{\"days\":[[64,1,1]]}", "{\"days\":[[0,1,0]]}", "{\"days\":[[0,1000000,1]]}",
		"{\"conversations\":\"====\"}", "{\"conversations\":\"AAAA\"}", "{\"conversations\":null}", "{\"uploads\":{}}", "{\"uploads\":{\"store\":\"0123456789abcdef\",\"absent\":\"AAAA\"}}", "{\"newest_ms\":9000000000000000}" };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		json_t *change = json_loads(bad[i], 0, NULL);
		json_decref(r->now);
		r->now = json_deep_copy(good);
		json_object_update(json_object_get(r->now, "archive"), change);
		json_decref(change);
		survey(r);
		assert_same(r);
		assert_said(r, "malformed");
	}
	json_decref(good);
}

static void survey__a_hundred_thousand_conversations_are_bounded_and_still_compared(void **state)
{
	struct rig *r = *state;
	sql(r, "%s", ejabberd_schema);
	sql(r, "DROP INDEX i_username_timestamp; DROP INDEX i_timestamp");
	sql(r, "INSERT INTO archive (username, timestamp, peer, bare_peer, xml, kind) "
	       "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 239999) "
	       "SELECT 'user' || (i %% 7), (20000 * 86400 + i) * 1000000, '', 'peer' || (i %% 120000), '', 'chat' FROM n");
	survey(r);
	assert_same(r);
	assert_said(r, "(a sample of 1 in 2^");
	auto_free char *text = json_dumps(r->now, JSON_COMPACT);
	assert_in_range(strlen(text), 1, MAX_JSON_BYTES);
	survey(r);
	assert_same(r);
	sql(r, "DELETE FROM archive WHERE id %% 100 = 50");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "conversations lost");
}

static void put_conversations(struct rig *r, int first, int last)
{
	sql(r, "INSERT INTO archive (username, timestamp, peer, bare_peer, xml, kind) "
	       "WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
	       "SELECT 'user' || (i %% 7), (20000 * 86400 + i) * 1000000, '', 'peer' || i, '', 'chat' FROM n", first, last);
}

static void survey__conversations_that_leave_the_sample_are_no_difference(void **state)
{
	struct rig *r = *state;
	sql(r, "%s", ejabberd_schema);
	put_conversations(r, 1, 90000);
	survey(r);
	put_conversations(r, 90001, 110000);
	survey(r);
	assert_same(r);
	assert_said(r, "a sample of 1 in 2^1");
}

/* --- hostile databases --- */

static void survey__a_view_in_the_tables_place_is_not_read(void **state)
{
	struct rig *r = *state;
	sql(r, "CREATE VIEW prosodyarchive AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT i AS sort_id, '' AS host, '' AS user, "
	       "'archive' AS store, '' AS \"key\", 1 AS \"when\", '' AS \"with\", '' AS type, '' AS value FROM n");
	survey(r);
	assert_different(r, 1);
	assert_said(r, "is not a table but a view");
}

static void survey__columns_that_are_computed_are_no_message_table(void **state)
{
	struct rig *r = *state;
	sql(r, "CREATE TABLE prosodyarchive (sort_id INTEGER PRIMARY KEY AUTOINCREMENT, host, user, store, \"key\", \"when\", \"with\", type, "
	       "value AS (hex(zeroblob(200000000 + sort_id))))");
	survey(r);
	assert_string_equal(r->said, "");
}

static void survey__a_table_that_takes_too_long_is_given_up(void **state)
{
	struct rig *r = *state;
	struct store_survey found;
	make(r);
	const struct store_survey_request q = { .path = r->db_path, .limit_ms = -1 };
	assert_int_equal(store_find("sqlite")->survey(&q, &found, &r->err), IM_EFAIL);
	assert_non_null(strstr(r->err.text, "took longer than"));
	assert_false(found.known);
}

static void survey__triggers_blobs_and_odd_times_do_no_harm(void **state)
{
	struct rig *r = *state;
	make(r);
	sql(r, "CREATE TABLE trap (a); CREATE TRIGGER spring AFTER INSERT ON prosodyarchive BEGIN INSERT INTO trap VALUES (1); END");
	static const char *const odd[] = { "x'00ff'", "'yesterday'", "-5", "9e99", "9223372036854775807", "'Infinity'" };
	for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
		sql(r, "INSERT INTO prosodyarchive (host, user, store, \"key\", \"when\", \"with\", type, value) VALUES (x'ff00', x'80', 'archive', %zu, %s, x'c0', '', "
		       "x'3a2f2f')", i, odd[i]);
	survey(r);
	assert_same(r);
	assert_said(r, "of one host too many, which are only counted: 6");
	survey(r);
	assert_same(r);
}

/* --- attachments --- */

static void slot(struct rig *r, int n, int64_t time_s, int64_t bytes)
{
	sql(r, "INSERT INTO prosodyarchive (host, user, store, \"key\", \"when\", \"with\", type, value) VALUES ('upload.im.example', '', 'uploads', "
	       "'f5151269-115d-4295-8460-00000000000%d', %" PRId64 ", 'anna@im.example', 'xml', "
	       "'<request content-type=''image/jpeg'' size=''%" PRId64 "'' filename=''p&apos;ic %d.jpg'' xmlns=''urn:xmpp:http:upload:0''/>')", n, time_s, bytes, n);
}

static void link_to(struct rig *r, int n, int64_t time_s)
{
	auto_free char *value = im_format("<message><body>https://upload.im.example:5281/file_share/f5151269-115d-4295-8460-00000000000%d/p&apos;ic%%20%d.jpg</body>"
	    "</message>", n, n);
	put(r, "anna", "archive", "otto@im.example", time_s, value);
}

static char *upload_path(const struct rig *r, int n)
{
	return im_format("%s/upload%%2eim%%2eexample/http_file_share/f5151269%%2d115d%%2d4295%%2d8460%%2d00000000000%d.bin", r->tree, n);
}

static void upload(struct rig *r, int n, size_t bytes)
{
	auto_free char *path = upload_path(r, n);
	auto_free uint8_t *data = calloc(1, bytes + 1);
	assert_ok(im_file_write(path, data, bytes, 0600, IM_FILE_REPLACE, &r->err), &r->err);
}

/* Five uploads, an hour apart, each sent a minute later. */
static void make_uploads(struct rig *r)
{
	auto_free char *folder = im_format("%s/upload%%2eim%%2eexample/http_file_share", r->tree);
	assert_ok(im_mkdirs(folder, 0700, &r->err), &r->err);
	make(r);
	for (int n = 0; n < 5; n++) {
		slot(r, n, (DAY0 + 5) * DAY_S + n * 3600, 1000 + n);
		link_to(r, n, (DAY0 + 5) * DAY_S + n * 3600 + 60);
		upload(r, n, (size_t)(1000 + n));
	}
	r->store_count = 2;
	r->stores[1].instant_ms = (DAY0 + 6) * DAY_S * 1000;
}

static void drop_upload(const struct rig *r, int n)
{
	auto_free char *path = upload_path(r, n);
	assert_int_equal(unlink(path), 0);
}

static void survey__all_attachments_there_is_no_difference(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	survey(r);
	assert_same(r);
	assert_said(r, "attachments found, with their sizes: 5\n");
}

static void survey__a_missing_attachment_is_a_difference(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	drop_upload(r, 3);
	survey(r);
	assert_different(r, 1);
	assert_said(r, "missing: 1, with another size: 0, of 5 attachments: "
		       "f5151269%2d115d%2d4295%2d8460%2d000000000003.bin (message of 2024-10-09T03:01:00.000Z)");
	survey(r);
	assert_same(r); /* told once */
	assert_said(r, "missing in the drill before already: 1");
}

static void survey__an_attachment_of_another_size_is_a_difference(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	upload(r, 2, 999);
	survey(r);
	assert_different(r, 1);
	assert_said(r, "missing: 0, with another size: 1, of 5 attachments");
}

static void survey__all_attachments_missing_from_their_folder_is_a_difference(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	for (int n = 0; n < 5; n++)
		drop_upload(r, n);
	survey(r);
	assert_different(r, 1);
	assert_said(r, "missing: 5");
	assert_said(r, "and 2 more");
}

static void survey__attachments_being_expired_are_no_difference(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	drop_upload(r, 0); /* the file goes first, its slot later */
	survey(r);
	assert_same(r);
	assert_said(r, "attachments found, with their sizes: 4; older than all that are kept: 1");
}

static void survey__attachments_sent_after_the_files_instant_are_no_difference(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	drop_upload(r, 4);
	r->stores[1].instant_ms = ((DAY0 + 5) * DAY_S + 4 * 3600 + 30) * 1000;
	survey(r);
	assert_same(r);
	assert_said(r, "sent after the instant of the files: 1");
}

static void survey__a_slot_nobody_sent_is_a_remark(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	slot(r, 7, (DAY0 + 5) * DAY_S + 5, 10);
	survey(r);
	assert_same(r);
	assert_said(r, "refers to it: 1");
	survey(r);
	assert_same(r);
	assert_said(r, "refers to it: 1");
}

/* With end-to-end encryption no link can be read. */
static void survey__an_upload_without_a_link_that_was_there_before_is_missing(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	slot(r, 7, (DAY0 + 5) * DAY_S + 5, 10);
	upload(r, 7, 10);
	survey(r);
	assert_same(r);
	drop_upload(r, 7);
	survey(r);
	assert_different(r, 1);
	assert_said(r, "missing: 1");
	assert_said(r, "000000000007.bin (registered 2024-10-09T00:00:05.000Z)");
}

static void survey__a_drill_without_files_does_not_forget_attachments(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	slot(r, 7, (DAY0 + 5) * DAY_S + 5, 10);
	upload(r, 7, 10);
	survey(r);
	r->store_count = 1;
	survey(r);
	r->store_count = 2;
	drop_upload(r, 7);
	survey(r);
	assert_different(r, 1);
	assert_said(r, "missing: 1");
}

static void survey__without_a_store_of_files_it_is_a_remark(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	r->store_count = 1;
	survey(r);
	assert_same(r);
	assert_said(r, "no store of files was restored; attachments that messages refer to: 5");
}

static void survey__a_folder_of_uploads_that_is_no_longer_saved_is_a_difference(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	survey(r);
	auto_free char *other = im_format("%s/config", r->dir);
	assert_int_equal(mkdir(other, 0700), 0);
	r->stores[1].path = other;
	survey(r);
	assert_different(r, 1);
	assert_said(r, "no attachment that messages refer to (5) is in a restored store; found in the drill before: 5");
}

static void survey__a_drill_without_the_store_of_uploads_is_no_difference(void **state)
{
	struct rig *r = *state;
	make_uploads(r);
	survey(r);
	auto_free char *other = im_format("%s/config", r->dir);
	assert_int_equal(mkdir(other, 0700), 0);
	r->stores[1].name = "config";
	r->stores[1].path = other;
	survey(r);
	assert_same(r);
	assert_said(r, "the folder is in no restored store): 5");
}

#define RANDOM "ABCDEFGHIJabcdefghij0123456789ABCDEFGHI"

static void ejabberd_link(struct rig *r, const char *host, int n)
{
	sql(r, "INSERT INTO archive (username, timestamp, peer, bare_peer, xml, kind) VALUES ('anna', %" PRId64 ", 'o@x', 'o@x', "
	       "'<message><body>look: https://%s:5443/upload/0123abcd/" RANDOM "%d/p_%d_%%C3%%A9.jpg, nice</body></message>', 'chat')",
	    (DAY0 * DAY_S + n) * 1000000, host, n, n);
}

static void survey__ejabberd_links_are_looked_for_unless_they_lead_elsewhere(void **state)
{
	struct rig *r = *state;
	sql(r, "%s", ejabberd_schema);
	for (int n = 0; n < 4; n++) {
		auto_free char *folder = im_format("%s/upload/0123abcd/" RANDOM "%d", r->tree, n);
		auto_free char *path = im_format("%s/p_%d_é.jpg", folder, n);
		assert_ok(im_mkdirs(folder, 0700, &r->err), &r->err);
		if (n != 2)
			assert_ok(im_file_write(path, "x", 1, 0600, IM_FILE_NEW, &r->err), &r->err);
		ejabberd_link(r, "im.example", n);
	}
	ejabberd_link(r, "far.example", 9);
	r->store_count = 2;
	survey(r);
	assert_different(r, 1);
	assert_said(r, "missing: 1, with another size: 0, of 4 attachments");
	assert_said(r, RANDOM "2/ (message of");
	assert_said(r, "attachments found, with their sizes: 3; offered where none was found");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(survey__counts_what_there_is),
		T(survey__the_same_state_again_is_no_difference),
		T(survey__new_messages_are_no_difference),
		T(survey__no_name_gets_into_it),
		T(survey__what_expired_is_no_difference),
		T(survey__an_archive_of_limited_length_is_no_difference),
		T(survey__a_user_whose_whole_archive_expired_is_no_difference),
		T(survey__a_user_whose_whole_archive_is_gone_is_a_difference),
		T(survey__a_loss_behind_what_was_cut_off_is_a_difference),
		T(survey__what_was_cut_off_does_not_add_to_a_loss),
		T(survey__rows_lost_in_the_middle_name_the_day_and_the_conversations),
		T(survey__a_loss_shows_although_more_came_since),
		T(survey__a_loss_of_the_newest_day_shows_among_messages_of_one_hour),
		T(survey__an_older_recovery_point_is_no_difference_and_is_not_kept),
		T(survey__a_loss_shows_at_an_older_recovery_point_too),
		T(survey__lost_newest_messages_show_if_the_recovery_point_is_later),
		T(survey__the_instants_tell_which_recovery_point_is_older),
		T(survey__what_the_drills_own_service_wrote_does_not_count),
		T(survey__an_emptied_archive_is_a_difference),
		T(survey__a_table_that_is_gone_is_a_difference),
		T(survey__a_counter_below_the_highest_number_is_a_difference),
		T(survey__silent_days_between_busy_ones_are_a_remark),
		T(survey__other_archives_than_messages_do_not_count),
		T(survey__ejabberd_archives_are_known),
		T(survey__a_store_that_was_not_restored_keeps_its_survey),
		T(survey__a_malformed_earlier_survey_is_told_and_left_out),
		T(survey__a_hundred_thousand_conversations_are_bounded_and_still_compared),
		T(survey__conversations_that_leave_the_sample_are_no_difference),
		T(survey__a_view_in_the_tables_place_is_not_read),
		T(survey__columns_that_are_computed_are_no_message_table),
		T(survey__a_table_that_takes_too_long_is_given_up),
		T(survey__triggers_blobs_and_odd_times_do_no_harm),
		T(survey__all_attachments_there_is_no_difference),
		T(survey__a_missing_attachment_is_a_difference),
		T(survey__an_attachment_of_another_size_is_a_difference),
		T(survey__all_attachments_missing_from_their_folder_is_a_difference),
		T(survey__attachments_being_expired_are_no_difference),
		T(survey__attachments_sent_after_the_files_instant_are_no_difference),
		T(survey__a_slot_nobody_sent_is_a_remark),
		T(survey__an_upload_without_a_link_that_was_there_before_is_missing),
		T(survey__a_drill_without_files_does_not_forget_attachments),
		T(survey__without_a_store_of_files_it_is_a_remark),
		T(survey__a_folder_of_uploads_that_is_no_longer_saved_is_a_difference),
		T(survey__a_drill_without_the_store_of_uploads_is_no_difference),
		T(survey__ejabberd_links_are_looked_for_unless_they_lead_elsewhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
