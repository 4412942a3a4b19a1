/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The follower service with a source that does what it is told and a vault that goes away: rounds, the
 * running service, the spool, what status reads. What arrives is read back and believed nothing.
 */
#include "follow_service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- rounds --- */

static void once__the_first_round_begins_an_epoch(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	assert_ok(rig_once(&r), &r.err);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 1);
	assert_int_equal(c.segments, 2); /* the beginning, and the snapshot's anchor */
	assert_string_equal(c.reason, "first start");
	assert_null(c.after_epoch);
	assert_int_equal(r.snapshots, 1);
	assert_string_equal(r.result.stores[0].status, "following");
	assert_int_equal(r.result.stores[0].point, c.point);
	assert_int_equal(r.result.stores[0].spooled_bytes, 0);
	assert_int_equal(fake.holds, 1);
	chain_clear(&c);
	rig_stop(&r);
}

static void once__later_rounds_continue(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	for (int i = 0; i < 4; i++) {
		assert_ok(rig_once(&r), &r.err);
		fake_commit(7);
	}
	assert_ok(rig_once(&r), &r.err);
	assert_ok(rig_once(&r), &r.err); /* nothing new: a heartbeat */
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 1);
	assert_int_equal(c.segments, 7);
	assert_int_equal(c.commits, 28);
	assert_int_equal(r.snapshots, 1);
	chain_clear(&c);
	rig_stop(&r);
}

static void once__a_gap_has_its_exit_code_and_a_snapshot(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	assert_ok(rig_once(&r), &r.err);
	char epoch[21];
	strcpy(epoch, r.result.stores[0].epoch);
	uint32_t point = r.result.stores[0].point;
	FAKE_SET(generation, 2);
	fake_commit(3);
	assert_int_equal(rig_once(&r), IM_EGAP);
	assert_int_equal(im_exit_status(r.rc, 0), 3);
	assert_string_equal(r.result.stores[0].status, "gap");
	assert_int_equal(r.snapshots, 2);
	assert_true(rig_said(&r, "warn chat: the log has a gap: the source was reset behind our back"));
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 2);
	assert_non_null(strstr(c.reason, "reset behind our back"));
	assert_string_equal(c.after_epoch, epoch);
	assert_int_equal(c.after_point, point);
	chain_clear(&c);
	assert_ok(rig_once(&r), &r.err); /* healed */
	assert_int_equal(r.snapshots, 2);
	rig_stop(&r);
}

static void once__a_store_that_cannot_be_opened_is_no_success(void **state)
{
	(void)state;
	struct rig r;
	rig_start(&r, NULL);
	FAKE_SET(missing, true);
	assert_int_equal(rig_once(&r), IM_EPARTIAL);
	assert_string_equal(r.result.stores[0].status, "failed");
	assert_true(rig_said(&r, "the source is not there"));
	rig_stop(&r);
}

static void once__a_vault_that_is_away_is_said(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	assert_ok(rig_once(&r), &r.err);
	fake_commit(5);
	rig_vault(&r, false);
	assert_int_equal(rig_once(&r), IM_EUNREACHABLE);
	assert_true(r.result.stores[0].spooled_bytes > 0);
	rig_vault(&r, true);
	assert_ok(rig_once(&r), &r.err);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 1);
	assert_int_equal(c.commits, 5);
	chain_clear(&c);
	rig_stop(&r);
}

static const struct {
	enum storage_fault what;
	bool sticky;
} faults[] = { { FAULT_EIO, false }, { FAULT_EIO, true }, { FAULT_ENOSPC, true }, { FAULT_SHORT_WRITE, false }, { FAULT_UNREACHABLE, false },
	{ FAULT_DIE, false } };

/* A round in another process, which may die of it. */
static int round_under_fault(struct rig *r, uint64_t at, bool *ret_hit)
{
	int status, ends[2];
	char hit = 1;
	assert_int_equal(pipe(ends), 0);
	pid_t pid = fork();
	if (pid == 0) {
		r->faults.at_call = at;
		r->faults.calls = 0;
		int rc = rig_once(r);
		hit = r->faults.calls >= at;
		_exit(write(ends[1], &hit, 1) == 1 ? im_exit_status(rc, 0) : 99);
	}
	close(ends[1]);
	*ret_hit = read(ends[0], &hit, 1) != 1 || hit;
	close(ends[0]);
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void once__survives_a_fault_at_every_storage_call(void **state)
{
	(void)state;
	for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
		struct rig r;
		struct chain c;
		bool hit = true;
		rig_start(&r, NULL);
		r.snapshot_anchors = true;
		assert_ok(rig_once(&r), &r.err);
		for (uint64_t at = 1; hit; at++) {
			fake_commit(1);
			r.faults.what = faults[f].what;
			r.faults.sticky = faults[f].sticky;
			int status = round_under_fault(&r, at, &hit);
			if (faults[f].what == FAULT_DIE && hit)
				assert_int_equal(status, 137);
			else
				assert_true(status == 0 || status == 4 || status == 1 || status == 8);
			r.faults.at_call = 0;
			assert_ok(rig_once(&r), &r.err);
			assert_true(at < 100);
		}
		chain_read(&r, &c);
		assert_int_equal(c.epochs, 1);
		assert_int_equal(c.commits, fake.commits);
		chain_clear(&c);
		rig_stop(&r);
	}
}

/* --- the service --- */

static void run__ships_and_continues_after_the_end(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	for (unsigned i = 1; i <= 3; i++) {
		rig_run(&r);
		fake_commit(10);
		rig_wait_shipped(&r, 20 * i - 10);
		fake_commit(10);
		rig_end(&r); /* ships what is captured */
		assert_ok(r.rc, &r.err);
		chain_read(&r, &c);
		assert_int_equal(c.commits, 20 * i);
		assert_int_equal(c.epochs, 1);
		chain_clear(&c);
	}
	assert_int_equal(fake.holds, 3); /* for a successor */
	rig_stop(&r);
}

static void run__sighup_asks_for_a_reload_and_holds_the_source(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	fake_commit(4);
	rig_reload(&r);
	assert_ok(r.rc, &r.err);
	assert_true(r.reload);
	assert_int_equal(fake.holds, 1);
	rig_run(&r);
	fake_commit(4);
	rig_wait_shipped(&r, 8);
	rig_end(&r);
	assert_false(r.reload);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 1);
	chain_clear(&c);
	rig_stop(&r);
}

static void run__a_second_follower_is_refused(void **state)
{
	(void)state;
	struct rig r;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	struct follow_result result;
	struct im_error err = { 0 };
	bool reload;
	const struct follow_service_request q = { .config = r.config, .once = true, .find = fake_find };
	assert_int_equal(follow_run(&q, &reload, &result, &err), IM_ELOCKED);
	follow_result_clear(&result);
	rig_stop(&r);
}

static void run__the_spool_bridges_an_outage(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	fake_commit(3);
	rig_wait_shipped(&r, 3);
	rig_vault(&r, false);
	for (int i = 0; i < 20; i++) {
		fake_commit(1);
		rig_nap_ms(60);
	}
	rig_wait_said(&r, "nothing can be shipped");
	rig_vault(&r, true);
	rig_wait_shipped(&r, 23);
	rig_wait_said(&r, "the vault is back");
	assert_int_equal(rig_said_times(&r, "nothing can be shipped"), 1);
	rig_end(&r);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 1);
	assert_true(c.segments > 10);
	chain_clear(&c);
	rig_stop(&r);
}

static void run__a_restart_during_an_outage_goes_on_capturing(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	fake_commit(3);
	rig_wait_shipped(&r, 3);
	rig_vault(&r, false);
	fake_commit(3);
	rig_end(&r);
	rig_run(&r); /* the keyring is at hand */
	fake_commit(3);
	rig_nap_ms(200);
	rig_end(&r);
	rig_vault(&r, true);
	rig_run(&r);
	rig_wait_shipped(&r, 9);
	rig_end(&r);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 1);
	chain_clear(&c);
	rig_stop(&r);
}

static void run__a_full_spool_stops_capturing_and_loses_nothing(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, "spool_limit = 1MiB");
	r.snapshot_anchors = true;
	rig_run(&r);
	fake_commit(1);
	rig_wait_shipped(&r, 1);
	rig_vault(&r, false);
	FAKE_SET(part_bytes, 300000);
	for (int i = 0; i < 12; i++) {
		fake_commit(1);
		rig_nap_ms(80);
	}
	rig_wait_said(&r, "the spool is full");
	fake_commit(100);
	rig_nap_ms(200);
	assert_true(fake_let_go() < 13);
	rig_vault(&r, true);
	rig_wait_shipped(&r, 113);
	rig_wait_said(&r, "capturing again");
	rig_end(&r);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 1);
	chain_clear(&c);
	rig_stop(&r);
}

static void run__large_batches_become_chained_parts(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	FAKE_SET(parts, 5);
	FAKE_SET(part_bytes, 1 << 20);
	fake_commit(2);
	rig_wait_shipped(&r, 2);
	fake_commit(2);
	rig_wait_shipped(&r, 4);
	rig_end(&r);
	chain_read(&r, &c);
	assert_true(c.parts >= c.segments + 8);
	chain_clear(&c);
	rig_stop(&r);
}

static void run__heartbeats_when_nothing_happens(void **state)
{
	(void)state;
	struct rig r;
	struct chain before, after;
	rig_start(&r, "heartbeat = 1s");
	r.snapshot_anchors = true;
	rig_run(&r);
	rig_nap_ms(500);
	chain_read(&r, &before);
	rig_nap_ms(2500);
	rig_end(&r);
	chain_read(&r, &after);
	assert_in_range(after.segments - before.segments, 1, 4);
	chain_clear(&before);
	chain_clear(&after);
	rig_stop(&r);
}

/* --- status --- */

static void state_load__tells_what_the_follower_wrote(void **state)
{
	(void)state;
	struct rig r;
	struct follow_state s;
	struct im_error err = { 0 };
	char folder[256];
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(r.follow_dir, '/') - r.follow_dir), r.follow_dir);
	assert_int_equal(follow_state_load(folder, "im-01", &s, &err), IM_ENOTFOUND);
	im_error_clear(&err);
	rig_run(&r);
	fake_commit(3);
	FAKE_SET(alarm, "the source complains");
	FAKE_SET(held_bytes, 77);
	rig_wait_shipped(&r, 3);
	rig_wait_said(&r, "the source complains");
	rig_nap_ms(2500);
	assert_ok(follow_state_load(folder, "im-01", &s, &err), &err);
	assert_int_equal(s.count, 1);
	assert_string_equal(s.rows[0].store, "chat");
	assert_true(s.rows[0].following);
	assert_int_equal(s.rows[0].held_bytes, 77);
	assert_string_equal(s.rows[0].text, "the source complains");
	assert_int_equal(json_integer_value(json_object_get(s.rows[0].position, "commits")), 3);
	follow_state_clear(&s);
	rig_end(&r);
	assert_ok(follow_state_load(folder, "im-01", &s, &err), &err);
	assert_false(s.rows[0].following);
	follow_state_clear(&s);
	rig_stop(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(once__the_first_round_begins_an_epoch),
		cmocka_unit_test(once__later_rounds_continue),
		cmocka_unit_test(once__a_gap_has_its_exit_code_and_a_snapshot),
		cmocka_unit_test(once__a_store_that_cannot_be_opened_is_no_success),
		cmocka_unit_test(once__a_vault_that_is_away_is_said),
		cmocka_unit_test(once__survives_a_fault_at_every_storage_call),
		cmocka_unit_test(run__ships_and_continues_after_the_end),
		cmocka_unit_test(run__sighup_asks_for_a_reload_and_holds_the_source),
		cmocka_unit_test(run__a_second_follower_is_refused),
		cmocka_unit_test(run__the_spool_bridges_an_outage),
		cmocka_unit_test(run__a_restart_during_an_outage_goes_on_capturing),
		cmocka_unit_test(run__a_full_spool_stops_capturing_and_loses_nothing),
		cmocka_unit_test(run__large_batches_become_chained_parts),
		cmocka_unit_test(run__heartbeats_when_nothing_happens),
		cmocka_unit_test(state_load__tells_what_the_follower_wrote),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
