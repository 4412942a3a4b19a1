/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run records: the newest counts, damage stays until a run that could see it does not, and what is forged, foreign,
 * renamed or of the future counts for nothing.
 */
#include "fixture.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "vault/record.h"
#include "vault/runlog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW_MS INT64_C(2000000000000)
#define HOUR_MS INT64_C(3600000)

struct rig {
	struct fixture f;
	struct im_error err;
	struct runlog log;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	fixture_start(&r->f);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	fixture_stop(&r->f);
	free(r);
	return 0;
}

static struct runlog_run run_of(int64_t hours_ago, int read_percent, uint64_t damaged)
{
	return (struct runlog_run){ .time_ms = NOW_MS - hours_ago * HOUR_MS, .duration_ms = 5, .exit_code = damaged ? 6 : 0,
		.read_percent = read_percent, .damaged = damaged, .host = "spare", .version = "0.1" };
}

/* Returns the object's name. */
static char *wrote(struct rig *r, const struct vault *v, const struct runlog_run *run)
{
	char *object = NULL;
	assert_ok(runlog_write(v, "im-01", "verify", run, &object, &r->err), &r->err);
	return object;
}

static void verified(struct rig *r, const struct vault *v, int64_t hours_ago, int read_percent, uint64_t damaged)
{
	struct runlog_run run = run_of(hours_ago, read_percent, damaged);
	free(wrote(r, v, &run));
}

static void look(struct rig *r, const struct vault *v, const char *node)
{
	assert_ok(runlog_read(v, node, "verify", NOW_MS, &r->log, &r->err), &r->err);
	if (r->log.finding_count)
		print_message("%s\n", r->log.finding);
}

/* Puts a record under a name of its own making. */
static void plant(struct rig *r, const struct vault *v, enum record_kind kind, json_t *meta, const char *folder, int64_t time_ms)
{
	auto_buf struct im_buf data = { 0 };
	uint8_t hash[32];
	char hex[65];
	assert_ok(record_encode(v->keyring, kind, meta, NULL, &data, hash, &r->err), &r->err);
	json_decref(meta);
	auto_free char *object = im_format("%s/%016llx-%.16s", folder, (unsigned long long)time_ms, im_hex(hex, hash, 32));
	assert_ok(storage_put_object(v->storage, object, data.data, data.len, &r->err), &r->err);
}

static json_t *meta_of(const char *node, const char *command, int64_t time_ms)
{
	return json_pack("{s:s, s:s, s:I, s:i, s:i}", "node", node, "command", command, "time_ms", (json_int_t)time_ms, "exit_code", 0,
	    "read_percent", 100);
}

static void nothing__is_an_empty_log(void **state)
{
	struct rig *r = *state;
	look(r, r->f.node, "im-01");
	assert_false(r->log.known);
	assert_int_equal(r->log.damage_ms, 0);
	assert_int_equal(r->log.finding_count, 0);
}

static void newest__comes_back_as_it_was_written(void **state)
{
	struct rig *r = *state;
	verified(r, r->f.restore, 2, 10, 0);
	verified(r, r->f.node, 30, 100, 0);
	look(r, r->f.node, "im-01");
	assert_true(r->log.known);
	assert_int_equal(r->log.last.time_ms, NOW_MS - 2 * HOUR_MS);
	assert_int_equal(r->log.last.duration_ms, 5);
	assert_int_equal(r->log.last.read_percent, 10);
	assert_string_equal(r->log.last.host, "spare");
	assert_string_equal(r->log.last.version, "0.1");
	assert_true(r->log.last.by_restore_key);
	assert_int_equal(r->log.clean_ms, NOW_MS - 30 * HOUR_MS);
	assert_int_equal(r->log.finding_count, 0);
	look(r, r->f.node, "im-02");
	assert_false(r->log.known);
}

static void failed_run__is_none(void **state)
{
	struct rig *r = *state;
	struct runlog_run run = run_of(1, 100, 0);
	run.exit_code = 1;
	free(wrote(r, r->f.node, &run));
	look(r, r->f.node, "im-01");
	assert_false(r->log.known);
	assert_int_equal(r->log.clean_ms, 0);
}

static void damage__stays_until_a_full_read_finds_none(void **state)
{
	struct rig *r = *state;
	verified(r, r->f.node, 9, 10, 3);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.damage_ms, NOW_MS - 9 * HOUR_MS);
	verified(r, r->f.node, 8, 10, 0);
	look(r, r->f.restore, "im-01");
	assert_int_equal(r->log.damage_ms, NOW_MS - 9 * HOUR_MS);
	assert_false(r->log.damage_by_restore_key);
	verified(r, r->f.node, 7, 100, 0);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.damage_ms, 0);
	verified(r, r->f.restore, 6, 0, 1);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.damage_ms, NOW_MS - 6 * HOUR_MS);
}

/* A node key does not decrypt: that it finds nothing is no answer to what a restore key found. */
static void damage__found_with_a_restore_key_is_ended_by_one(void **state)
{
	struct rig *r = *state;
	verified(r, r->f.restore, 9, 100, 1);
	verified(r, r->f.node, 8, 100, 0);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.damage_ms, NOW_MS - 9 * HOUR_MS);
	assert_true(r->log.damage_by_restore_key);
	verified(r, r->f.restore, 7, 100, 0);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.damage_ms, 0);
}

/* Long after, when its own record is no longer among those that are read. */
static void damage__is_carried_on(void **state)
{
	struct rig *r = *state;
	struct runlog_run run = run_of(900, 10, 1);
	auto_free char *first = wrote(r, r->f.restore, &run), *path = im_path_join(r->f.vault_dir, first);
	for (int i = 0; i < 3; i++)
		verified(r, r->f.node, 800 - i, i == 1 ? 100 : 10, 0);
	assert_int_equal(unlink(path), 0);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.damage_ms, NOW_MS - 900 * HOUR_MS);
	assert_true(r->log.damage_by_restore_key);
	verified(r, r->f.restore, 1, 100, 0);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.damage_ms, 0);
}

static void many__are_not_all_read(void **state)
{
	struct rig *r = *state;
	for (int i = 0; i < 70; i++)
		verified(r, r->f.node, 200 - i, 10, i == 0);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.last.time_ms, NOW_MS - 131 * HOUR_MS);
	assert_int_equal(r->log.damage_ms, NOW_MS - 200 * HOUR_MS);
}

static void bad_signature__is_a_finding(void **state)
{
	struct rig *r = *state;
	struct runlog_run run = run_of(2, 100, 0);
	auto_free char *object = wrote(r, r->f.node, &run), *path = im_path_join(r->f.vault_dir, object);
	auto_buf struct im_buf data = { 0 };
	assert_ok(im_file_read(path, 1 << 20, &data, &r->err), &r->err);
	data.data[data.len - 1] ^= 1;
	assert_ok(im_file_write(path, data.data, data.len, 0600, IM_FILE_REPLACE, &r->err), &r->err);
	verified(r, r->f.node, 5, 10, 0);
	look(r, r->f.restore, "im-01");
	assert_int_equal(r->log.finding_count, 1);
	assert_non_null(strstr(r->log.finding, "its signature is wrong"));
	assert_int_equal(r->log.last.time_ms, NOW_MS - 5 * HOUR_MS);
	assert_int_equal(runlog_check(r->f.node, object, NOW_MS, &r->err), IM_ECORRUPT);
}

/* A key bound to im-02 speaks for no other node, a prune key for none. */
static void foreign_signer__is_refused(void **state)
{
	struct rig *r = *state;
	static const struct { enum key_role role; const char *node; } keys[] = { { KEY_NODE, "im-02" }, { KEY_PRUNE, NULL } };
	for (size_t i = 0; i < 2; i++) {
		struct key_file *key = NULL;
		struct vault *v = NULL;
		struct runlog_run run = run_of(1, 100, 0);
		auto_free char *path = im_format("%s/other-%zu.key", r->f.dir, i);
		assert_ok(key_file_new(r->f.restore->id, r->f.restore->authority, keys[i].role, "other", keys[i].node, &key, &r->err), &r->err);
		assert_ok(key_file_save(key, path, NULL, false, &r->err), &r->err);
		vault_close(r->f.restore);
		assert_ok(vault_open(r->f.vault_dir, r->f.restore_key, NULL, NULL, 0, &r->f.restore, &r->err), &r->err);
		assert_ok(keyring_add(r->f.restore->storage, r->f.restore->keyring, key, &r->err), &r->err);
		assert_ok(vault_open(r->f.vault_dir, path, NULL, NULL, 0, &v, &r->err), &r->err);
		assert_false(runlog_may_write(v, "im-01"));
		assert_int_equal(runlog_write(v, "im-01", "verify", &run, NULL, &r->err), IM_EKEY);
		im_error_clear(&r->err);
		if (keys[i].role == KEY_NODE) {
			assert_true(runlog_may_write(v, "im-02"));
			plant(r, v, RECORD_RUN, meta_of("im-01", "verify", NOW_MS - 1), "runs/im-01/verify", NOW_MS - 1);
			look(r, v, "im-01");
			assert_false(r->log.known);
			assert_int_equal(r->log.finding_count, 1);
			assert_non_null(strstr(r->log.finding, "not signed by a key that may write for node im-01"));
			/* nor may the unbound key speak for a node that has a key of its own */
			look(r, v, "im-02");
		}
		vault_close(v);
		key_file_free(key);
	}
}

static void renamed__is_a_finding(void **state)
{
	struct rig *r = *state;
	plant(r, r->f.node, RECORD_RUN, meta_of("im-02", "verify", NOW_MS - 1), "runs/im-01/verify", NOW_MS - 1);
	plant(r, r->f.node, RECORD_RUN, meta_of("im-01", "report", NOW_MS - 2), "runs/im-01/verify", NOW_MS - 2);
	plant(r, r->f.node, RECORD_RUN, meta_of("im-01", "verify", NOW_MS - HOUR_MS), "runs/im-01/verify", NOW_MS - 3);
	plant(r, r->f.node, RECORD_TRACE, meta_of("im-01", "verify", NOW_MS - 4), "runs/im-01/verify", NOW_MS - 4);
	look(r, r->f.node, "im-01");
	assert_false(r->log.known);
	assert_int_equal(r->log.finding_count, 4);
}

static void future__counts_for_nothing(void **state)
{
	struct rig *r = *state;
	verified(r, r->f.node, 3, 10, 0);
	verified(r, r->f.node, -1, 100, 0);
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.last.time_ms, NOW_MS - 3 * HOUR_MS);
	assert_int_equal(r->log.clean_ms, 0);
	assert_int_equal(r->log.finding_count, 1);
	assert_non_null(strstr(r->log.finding, "of the future"));
}

static void hostile_names__are_findings(void **state)
{
	struct rig *r = *state;
	static const char *const names[] = { "x", "ffffffffffffffff-0123456789abcdef", "0000000000000000-0123456789abcdef",
		"00000199ABCDEF00-0123456789abcdef", "0000019900000000-0123456789abcdef0", "sub/0000019900000000-0123456789abcdef" };
	verified(r, r->f.node, 1, 10, 0);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		auto_free char *object = im_format("runs/im-01/verify/%s", names[i]);
		assert_ok(storage_put_object(r->f.node->storage, object, "garbage", 7, &r->err), &r->err);
		assert_int_equal(runlog_check(r->f.node, object, NOW_MS, &r->err), IM_ECORRUPT);
		im_error_clear(&r->err);
	}
	look(r, r->f.node, "im-01");
	assert_int_equal(r->log.finding_count, sizeof names / sizeof *names);
	assert_true(r->log.known);
}

static void hostile_content__is_harmless(void **state)
{
	struct rig *r = *state;
	json_t *meta = json_pack("{s:s, s:s, s:I, s:s, s:i, s:I, s:i, s:s, s:I}", "node", "im-01", "command", "verify",
	    "time_ms", (json_int_t)(NOW_MS - 7), "exit_code", "none", "read_percent", 101, "damaged", (json_int_t)-1, "duration_ms", -4,
	    "host", "a\x1b[1m b", "known_damage_ms", (json_int_t)INT64_MAX);
	plant(r, r->f.node, RECORD_RUN, meta, "runs/im-01/verify", NOW_MS - 7);
	look(r, r->f.node, "im-01");
	assert_false(r->log.known); /* it does not say how it ended */
	assert_int_equal(r->log.finding_count, 0);
	assert_int_equal(r->log.damage_ms, NOW_MS - 7);
}

/* What it said of success is not believed any more, what it said of damage is. */
static void revoked_signer__only_warns(void **state)
{
	struct rig *r = *state;
	verified(r, r->f.node, 9, 100, 2);
	verified(r, r->f.node, 8, 10, 0);
	assert_ok(keyring_revoke(r->f.restore->storage, r->f.restore->keyring, r->f.node->key->id, NULL, &r->err), &r->err);
	vault_close(r->f.restore);
	assert_ok(vault_open(r->f.vault_dir, r->f.restore_key, NULL, NULL, 0, &r->f.restore, &r->err), &r->err);
	look(r, r->f.restore, "im-01");
	assert_false(r->log.known);
	assert_int_equal(r->log.finding_count, 0);
	assert_int_equal(r->log.damage_ms, NOW_MS - 9 * HOUR_MS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(nothing__is_an_empty_log),
		TEST(newest__comes_back_as_it_was_written),
		TEST(failed_run__is_none),
		TEST(damage__stays_until_a_full_read_finds_none),
		TEST(damage__found_with_a_restore_key_is_ended_by_one),
		TEST(damage__is_carried_on),
		TEST(many__are_not_all_read),
		TEST(bad_signature__is_a_finding),
		TEST(foreign_signer__is_refused),
		TEST(renamed__is_a_finding),
		TEST(future__counts_for_nothing),
		TEST(hostile_names__are_findings),
		TEST(hostile_content__is_harmless),
		TEST(revoked_signer__only_warns),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
