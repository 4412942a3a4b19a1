/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery records: they chain, every role reads the meta part and only restore keys the rest, and removal, alteration,
 * renaming and foreign signers are seen.
 */
#include "fixture.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "vault/drills.h"
#include "vault/record.h"
#include "verify/drill.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
	struct fixture f;
	struct im_error err;
	struct drill_list list;
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
	drill_list_clear(&r->list);
	fixture_stop(&r->f);
	free(r);
	return 0;
}

static char *append(struct rig *r, const char *kind, const char *verdict, int64_t ready_ms)
{
	json_t *meta = json_pack("{s:s, s:s, s:I, s:I, s:b}", "kind", kind, "verdict", verdict, "time_ms", (json_int_t)1000000, "service_ready_ms", (json_int_t)ready_ms, "rto_met", 1);
	json_t *own = json_pack("{s:[{s:s}]}", "checks", "text", "secret");
	char *object = NULL;
	assert_ok(drills_append(r->f.restore, "im-01", meta, own, &object, &r->err), &r->err);
	json_decref(meta);
	json_decref(own);
	return object;
}

static void read_as(struct rig *r, const struct vault *v)
{
	drill_list_clear(&r->list);
	assert_ok(drills_read(v, "im-01", &r->list, &r->err), &r->err);
}

static bool found(const struct rig *r, const char *words)
{
	for (size_t i = 0; i < r->list.finding_count; i++)
		if (strstr(r->list.findings[i], words))
			return true;
	return false;
}

static void records__come_back_in_order_with_their_facts(void **state)
{
	struct rig *r = *state;
	auto_free char *first = append(r, "drill", "passed", 700), *second = append(r, "restore", "missed", 900), *third = append(r, "drill", "different", 800);
	read_as(r, r->f.restore);
	assert_int_equal(r->list.count, 3);
	assert_int_equal(r->list.finding_count, 0);
	assert_string_equal(r->list.items[0].object, first);
	assert_string_equal(r->list.items[1].object, second);
	assert_int_equal(r->list.items[1].service_ready_ms, 900);
	assert_int_equal(r->list.items[1].data_complete_ms, -1);
	assert_true(!r->list.items[1].is_drill && r->list.items[1].passed && r->list.items[1].signer_active);
	assert_string_equal(drills_last(&r->list, false)->object, third);
	assert_string_equal(drills_last(&r->list, true)->object, first);
	assert_non_null(r->list.items[0].private_part);
}

static void records__show_node_keys_no_private_part(void **state)
{
	struct rig *r = *state;
	auto_free char *object = append(r, "drill", "passed", 700);
	read_as(r, r->f.node);
	assert_int_equal(r->list.count, 1);
	assert_null(r->list.items[0].private_part);
	assert_int_equal(r->list.items[0].service_ready_ms, 700);
	assert_non_null(object);
}

static void records__of_two_hosts_at_once_fork_and_join(void **state)
{
	struct rig *r = *state;
	auto_free char *first = append(r, "drill", "passed", 1);
	auto_free char *path = im_path_join(r->f.vault_dir, first), *away = im_format("%s.away", r->f.dir);
	/* the other host does not see it yet */
	assert_int_equal(rename(path, away), 0);
	auto_free char *other = append(r, "drill", "passed", 2);
	assert_int_equal(rename(away, path), 0);
	auto_free char *joined = append(r, "drill", "passed", 3);
	read_as(r, r->f.restore);
	assert_int_equal(r->list.count, 3);
	assert_int_equal(r->list.finding_count, 0);
	assert_int_equal(r->list.items[2].seq, 2);
	assert_int_equal(json_array_size(json_object_get(r->list.items[2].meta, "prev")), 2);
	assert_true(other && joined);
}

static void chain__shows_a_removed_record(void **state)
{
	struct rig *r = *state;
	auto_free char *first = append(r, "drill", "passed", 1), *second = append(r, "drill", "different", 2), *third = append(r, "drill", "passed", 3);
	auto_free char *path = im_path_join(r->f.vault_dir, second);
	assert_int_equal(unlink(path), 0);
	read_as(r, r->f.restore);
	assert_int_equal(r->list.count, 2);
	assert_true(found(r, "missing or altered"));
	assert_true(first && third);
}

static void chain__shows_an_altered_or_renamed_record(void **state)
{
	struct rig *r = *state;
	auto_free char *first = append(r, "drill", "passed", 1), *second = append(r, "drill", "passed", 2);
	auto_free char *path = im_path_join(r->f.vault_dir, first), *other = im_format("%s/drills/im-01/00000007-%s", r->f.vault_dir, strrchr(second, '-') + 1);
	auto_free char *last = im_path_join(r->f.vault_dir, second);
	auto_buf struct im_buf data = { 0 };
	assert_ok(im_file_read(path, 1 << 20, &data, &r->err), &r->err);
	data.data[data.len / 2] ^= 1;
	assert_ok(im_file_write(path, data.data, data.len, 0600, IM_FILE_REPLACE, &r->err), &r->err);
	assert_int_equal(rename(last, other), 0);
	read_as(r, r->f.restore);
	assert_int_equal(r->list.count, 0);
	assert_int_equal(r->list.finding_count, 2);
	assert_true(found(r, "renamed or moved"));
}

/* A node that was broken into cannot invent a drill that passed. */
static void records__by_a_node_key_are_not_believed(void **state)
{
	struct rig *r = *state;
	json_t *meta = json_pack("{s:s, s:s}", "kind", "drill", "verdict", "passed"), *own = json_object();
	assert_ok(drills_append(r->f.node, "im-01", meta, own, NULL, &r->err), &r->err);
	json_decref(meta);
	json_decref(own);
	read_as(r, r->f.restore);
	assert_int_equal(r->list.count, 0);
	assert_true(found(r, "not signed by a restore key"));
}

static void records__of_hostile_content_are_harmless(void **state)
{
	struct rig *r = *state;
	json_t *meta = json_pack("{s:i, s:[], s:s, s:{}, s:i, s:i}", "kind", 7, "verdict", "time_ms", "yesterday", "service_ready_ms", "rto_ms", -5, "forecast", 3), *own = json_pack("{s:i}", "checks", 1);
	assert_ok(drills_append(r->f.restore, "im-01", meta, own, NULL, &r->err), &r->err);
	json_decref(meta);
	json_decref(own);
	read_as(r, r->f.restore);
	assert_int_equal(r->list.count, 1);
	const struct drill_record *d = &r->list.items[0];
	assert_string_equal(d->kind, "");
	assert_string_equal(d->verdict, "");
	assert_int_equal(d->time_ms, -1);
	assert_int_equal(d->service_ready_ms, -1);
	assert_int_equal(d->rto_ms, -1);
	assert_int_equal(d->forecast_p50_ms, -1);
	assert_false(d->passed);
	assert_null(drills_last(&r->list, false));
}

static void meta__has_the_fields_of_the_format(void **state)
{
	struct rig *r = *state;
	struct restore_store store = { .name = "archive", .type = "sqlite", .status = "ok", .bytes = 10 };
	struct restore_result result = { .node = "im-01", .snapshot = "00000001-0123456789abcdef", .seq = 1, .mode = "blocks", .rto_ms = 900000, .rto_met = true,
		.service_ready_ms = 300, .data_complete_ms = -1, .exec_status = 0, .instant_reached_ms = 5, .stores = &store, .store_count = 1, .phase_count = 1 };
	result.phases[0] = (struct restore_phase){ .name = "fetch", .ms = 4, .bytes = 10 };
	const struct forecast forecast = { .ready_p50_ms = 280, .ready_p95_ms = 400 };
	const struct drill_facts facts = { .kind = "drill", .chosen = "random", .at = "2026-11-27T10:00:00.000Z", .operator_name = "o", .began_ms = 9, .rpo_ms = 4,
		.forecast = &forecast, .code = IM_EDIFFERENT, .difference_count = 2, .limit_cpus = 1, .nice = 10 };
	json_t *m = drill_record_meta(&facts, &result), *own = json_object();
	assert_ok(drills_append(r->f.restore, "im-01", m, own, NULL, &r->err), &r->err);
	json_decref(m);
	json_decref(own);
	read_as(r, r->f.restore);
	const struct drill_record *d = &r->list.items[0];
	assert_string_equal(d->scenario, "instant");
	assert_string_equal(d->verdict, "different");
	assert_string_equal(d->chosen, "random");
	assert_int_equal(d->service_ready_ms, 300);
	assert_int_equal(d->data_complete_ms, -1);
	assert_int_equal(d->forecast_p95_ms, 400);
	assert_int_equal(json_integer_value(json_object_get(d->meta, "exit_code")), 11);
	assert_string_equal(json_string_value(json_object_get(d->meta, "service")), "started");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(d->meta, "limits"), "cpus")), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(records__come_back_in_order_with_their_facts),
		TEST(records__show_node_keys_no_private_part),
		TEST(records__of_two_hosts_at_once_fork_and_join),
		TEST(chain__shows_a_removed_record),
		TEST(chain__shows_an_altered_or_renamed_record),
		TEST(records__by_a_node_key_are_not_believed),
		TEST(records__of_hostile_content_are_harmless),
		TEST(meta__has_the_fields_of_the_format),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
