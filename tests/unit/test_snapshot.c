/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots and their chain: choosing by every form of --at, and that removal, forks, foreign
 * signers and renamed objects are seen.
 */
#include "fixture.h"

#include "base/clock.h"
#include "vault/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

struct rig {
	struct fixture f;
	uint8_t last[32];
	bool has_last;
	struct im_error err;
	char findings[2000];
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

static void write_snapshot(struct rig *r, const char *node, int seq, int64_t time_ms, const uint8_t prev[32], uint8_t ret_hash[32])
{
	char instant[IM_INSTANT_BYTES], hex[65];
	json_t *meta = json_pack("{s:s,s:s,s:i,s:s,s:s,s:[]}", "kind", "snapshot", "node", node, "seq", seq,
	    "time", im_instant_format(instant, time_ms), "packs", "", "stores");
	json_t *private_part = json_pack("{s:s,s:[{s:s,s:s}]}", "config", "", "stores", "name", "archive", "type", "sqlite");
	if (prev)
		json_object_set_new(meta, "prev", json_string(im_hex(hex, prev, 32)));
	assert_ok(snapshot_write(r->f.node->storage, r->f.node->keyring, meta, private_part, ret_hash, &r->err), &r->err);
	json_decref(meta);
	json_decref(private_part);
}

static void append(struct rig *r, int seq, int64_t time_ms)
{
	uint8_t hash[32];
	write_snapshot(r, "im-01", seq, time_ms, r->has_last ? r->last : NULL, hash);
	memcpy(r->last, hash, 32);
	r->has_last = true;
}

static uint64_t chosen(struct rig *r, const char *node, const char *at, int expected)
{
	struct snapshot *s = NULL;
	struct im_error err = { 0 };
	assert_int_equal(snapshot_choose(r->f.restore->storage, r->f.restore->keyring, node, at, NULL, NULL, &s, &err), expected);
	uint64_t seq = s ? s->seq : 0;
	snapshot_free(s);
	return seq;
}

static void finding(void *context, const char *object, const char *text)
{
	struct rig *r = context;
	size_t n = strlen(r->findings);
	snprintf(r->findings + n, sizeof r->findings - n, "%.100s: %.300s\n", object, text);
}

static const char *check(struct rig *r)
{
	r->findings[0] = '\0';
	assert_ok(snapshot_check_chain(r->f.restore->storage, r->f.restore->keyring, "im-01", finding, r, &r->err), &r->err);
	return r->findings;
}

static void object_path(struct rig *r, size_t index, char ret[300])
{
	struct snapshot_list l;
	assert_ok(snapshot_list(r->f.node->storage, "im-01", &l, &r->err), &r->err);
	assert_true(index < l.count);
	snprintf(ret, 300, "%s/%s", r->f.vault_dir, l.items[index].object);
	snapshot_list_clear(&l);
}

#define T0 INT64_C(1700000000000)

static void snapshot_choose__understands_every_form(void **state)
{
	struct rig *r = *state;
	char hex[65] = "", instant[IM_INSTANT_BYTES];
	for (int i = 1; i <= 3; i++)
		append(r, i, T0 + i * 1000);
	assert_int_equal(chosen(r, NULL, NULL, 0), 3);
	assert_int_equal(chosen(r, "im-01", "latest", 0), 3);
	assert_int_equal(chosen(r, NULL, "2", 0), 2);
	im_hex(hex, r->last, 32);
	hex[16] = '\0';
	char name[80];
	snprintf(name, sizeof name, "00000003-%s", hex);
	assert_int_equal(chosen(r, NULL, name, 0), 3);
	name[7] = '2';
	assert_int_equal(chosen(r, NULL, name, IM_ENOTFOUND), 0);
	hex[12] = '\0';
	assert_int_equal(chosen(r, NULL, hex, 0), 3);
	assert_int_equal(chosen(r, NULL, im_instant_format(instant, T0 + 2999), 0), 2);
	assert_int_equal(chosen(r, NULL, im_instant_format(instant, T0 + 3000), 0), 3);
	assert_int_equal(chosen(r, NULL, im_instant_format(instant, T0), IM_ENOTFOUND), 0);
	assert_int_equal(chosen(r, NULL, "9", IM_ENOTFOUND), 0);
	assert_int_equal(chosen(r, NULL, "2023-11-14T22:13:20", IM_EUSAGE), 0); /* no zone */
	assert_int_equal(chosen(r, "nobody", NULL, IM_ENOTFOUND), 0);
	assert_int_equal(chosen(r, "../x", NULL, IM_EUSAGE), 0);
}

static void snapshot_choose__asks_which_node(void **state)
{
	struct rig *r = *state;
	uint8_t hash[32];
	write_snapshot(r, "im-01", 1, T0, NULL, hash);
	write_snapshot(r, "im-02", 1, T0, NULL, hash);
	assert_int_equal(chosen(r, NULL, NULL, IM_EUSAGE), 0);
	assert_int_equal(chosen(r, "im-02", NULL, 0), 1);
}

static void snapshot_choose__steps_over_a_damaged_latest(void **state)
{
	struct rig *r = *state;
	char path[300];
	append(r, 1, T0);
	append(r, 2, T0 + 1000);
	object_path(r, 1, path);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(chosen(r, NULL, "latest", 0), 1);
	assert_int_equal(chosen(r, NULL, "2", IM_ECORRUPT), 0);
}

static void snapshot_check_chain__is_silent_on_a_sound_chain(void **state)
{
	struct rig *r = *state;
	for (int i = 1; i <= 4; i++)
		append(r, i, T0 + i);
	assert_string_equal(check(r), "");
}

static void snapshot_check_chain__sees_a_removed_link(void **state)
{
	struct rig *r = *state;
	char path[300];
	for (int i = 1; i <= 3; i++)
		append(r, i, T0 + i);
	object_path(r, 1, path);
	unlink(path);
	assert_non_null(strstr(check(r), "predecessor (snapshot 2) is missing"));
}

static void snapshot_check_chain__sees_a_fork(void **state)
{
	struct rig *r = *state;
	uint8_t first[32], hash[32];
	write_snapshot(r, "im-01", 1, T0, NULL, first);
	write_snapshot(r, "im-01", 2, T0 + 1, first, hash);
	write_snapshot(r, "im-01", 2, T0 + 2, first, hash);
	assert_non_null(strstr(check(r), "fork"));
}

static void snapshot_check_chain__accepts_a_successor_of_either_fork(void **state)
{
	struct rig *r = *state;
	uint8_t first[32], left[32], right[32], hash[32];
	write_snapshot(r, "im-01", 1, T0, NULL, first);
	write_snapshot(r, "im-01", 2, T0 + 1, first, left);
	write_snapshot(r, "im-01", 2, T0 + 2, first, right);
	write_snapshot(r, "im-01", 3, T0 + 3, right, hash);
	assert_null(strstr(check(r), "missing"));
}

static void snapshot_read__refuses_a_renamed_object(void **state)
{
	struct rig *r = *state;
	char path[300], renamed[300];
	append(r, 1, T0);
	object_path(r, 0, path);
	strcpy(renamed, path);
	memcpy(strstr(renamed, "00000001"), "00000002", 8);
	assert_int_equal(rename(path, renamed), 0);
	assert_int_equal(chosen(r, NULL, "2", IM_ECORRUPT), 0);
}

static void snapshot_read__gives_the_node_no_private_part(void **state)
{
	struct rig *r = *state;
	struct snapshot_list l;
	struct snapshot *s;
	append(r, 1, T0);
	assert_ok(snapshot_list(r->f.node->storage, NULL, &l, &r->err), &r->err);
	assert_ok(snapshot_read(r->f.node->storage, r->f.node->keyring, &l.items[0], &s, &r->err), &r->err);
	assert_null(s->record.private_part);
	assert_null(snapshot_manifest(s, "archive"));
	snapshot_free(s);
	assert_ok(snapshot_read(r->f.restore->storage, r->f.restore->keyring, &l.items[0], &s, &r->err), &r->err);
	assert_non_null(snapshot_manifest(s, "archive"));
	snapshot_free(s);
	snapshot_list_clear(&l);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(snapshot_choose__understands_every_form),
		T(snapshot_choose__asks_which_node),
		T(snapshot_choose__steps_over_a_damaged_latest),
		T(snapshot_check_chain__is_silent_on_a_sound_chain),
		T(snapshot_check_chain__sees_a_removed_link),
		T(snapshot_check_chain__sees_a_fork),
		T(snapshot_check_chain__accepts_a_successor_of_either_fork),
		T(snapshot_read__refuses_a_renamed_object),
		T(snapshot_read__gives_the_node_no_private_part),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
