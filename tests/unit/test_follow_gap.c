/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The follower service where the log does not go on by itself: gaps, other writers, rollbacks of either
 * side, and the anchors that prove what the log leads to.
 */
#include "follow_service.h"

#include "backup/anchor.h"
#include "backup/wire.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>
#include <unistd.h>

/* --- gaps --- */

static void run__a_gap_while_running_begins_an_epoch(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	fake_commit(3);
	rig_wait_shipped(&r, 3);
	FAKE_SET(gap_at_capture, true);
	rig_wait_said(&r, "the log has a gap: commits were lost at the source");
	rig_wait_said(&r, "a new epoch begins");
	rig_wait_snapshots(&r, 2);
	fake_commit(3);
	rig_wait_shipped(&r, 6);
	rig_end(&r);
	assert_ok(r.rc, &r.err);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 2);
	assert_int_equal(r.snapshots, 2);
	chain_clear(&c);
	rig_stop(&r);
}

static void run__a_failed_snapshot_is_tried_again_and_capturing_goes_on(void **state)
{
	(void)state;
	struct rig r;
	rig_start(&r, NULL);
	r.snapshot_rc = IM_ELOCKED;
	rig_run(&r);
	rig_wait_said(&r, "the snapshot that the log needs could not be taken");
	fake_commit(3);
	rig_wait_shipped(&r, 3);
	r.snapshot_anchors = true;
	r.snapshot_rc = 0;
	rig_wait_snapshots(&r, 2);
	rig_end(&r);
	rig_stop(&r);
}

static void run__a_stalled_capture_is_noticed_and_cured(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	fake_commit(1);
	rig_wait_shipped(&r, 1);
	FAKE_SET(stall_ends_at_open, true);
	FAKE_SET(stalled, true);
	fake_commit(1);
	rig_wait_said(&r, "the source moves on, but nothing new is captured");
	rig_wait_shipped(&r, 2);
	rig_end(&r);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 1);
	chain_clear(&c);
	rig_stop(&r);
}

/* --- other writers --- */

static void copy_head(struct rig *r, bool back)
{
	char command[1024];
	snprintf(command, sizeof command, back ? "cp %s/saved %s/head" : "cp %s/head %s/saved", r->store_dir, r->store_dir);
	assert_int_equal(system(command), 0);
}

static void run__a_local_state_that_went_back_begins_an_epoch(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	fake_commit(3);
	rig_wait_shipped(&r, 3);
	rig_end(&r);
	copy_head(&r, false);
	rig_run(&r);
	fake_commit(3);
	rig_wait_shipped(&r, 6);
	rig_end(&r);
	copy_head(&r, true);
	rig_run(&r);
	rig_wait_said(&r, "this machine's local state went back");
	fake_commit(3);
	rig_wait_shipped(&r, 9);
	rig_end(&r);
	chain_read(&r, &c); /* would fail if anything had been written into the old epoch */
	assert_int_equal(c.epochs, 2);
	chain_clear(&c);
	rig_stop(&r);
}

/* Removes the newest segment from the vault. */
static void lose_newest(struct rig *r)
{
	char command[512];
	snprintf(command, sizeof command, "rm $(ls -d %s/logs/im-01/chat/*/*/* | tail -1)", r->f.vault_dir);
	assert_int_equal(system(command), 0);
}

static void once__a_vault_that_was_rolled_back_begins_an_epoch(void **state)
{
	(void)state;
	struct rig r;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	for (int i = 0; i < 4; i++) {
		assert_ok(rig_once(&r), &r.err);
		fake_commit(2);
	}
	lose_newest(&r);
	assert_int_equal(rig_once(&r), IM_EGAP);
	assert_true(rig_said(&r, "the vault lacks segments that this node wrote"));
	assert_ok(rig_once(&r), &r.err);
	rig_stop(&r);
}

static void once__a_spool_that_lost_something_begins_an_epoch(void **state)
{
	(void)state;
	struct rig r;
	char command[512];
	for (int late = 0; late < 2; late++) {
		rig_start(&r, NULL);
		r.snapshot_anchors = true;
		assert_ok(rig_once(&r), &r.err);
		rig_vault(&r, false);
		for (int i = 0; i < 4; i++) {
			fake_commit(2);
			assert_int_equal(rig_once(&r), IM_EUNREACHABLE);
		}
		/* The second of four is gone, as after a power cut; or it is empty. */
		snprintf(command, sizeof command, "f=$(ls %s/spool/* | sed -n 2p) && %s $f", r.store_dir, late ? "truncate -s 0" : "rm");
		assert_int_equal(system(command), 0);
		rig_vault(&r, true);
		int rc = rig_once(&r); /* an empty one is found out only when it is to be shipped */
		assert_true(rc == IM_EGAP || (late && rc == 0));
		assert_true(rig_said(&r, late ? "that stretch of the log is lost" : "the vault lacks segments that this node wrote"));
		rig_stop(&r);
	}
}

static void run__a_rollback_is_noticed_while_running(void **state)
{
	(void)state;
	struct rig r;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	r.check_ms = 200;
	rig_run(&r);
	rig_wait_snapshots(&r, 1);
	fake_commit(3);
	rig_wait_shipped(&r, 3);
	rig_nap_ms(200);
	lose_newest(&r);
	rig_wait_said(&r, "the vault lacks segments that this node wrote");
	rig_wait_snapshots(&r, 2);
	rig_end(&r);
	rig_stop(&r);
}

static void once__a_clone_that_comes_later_begins_its_own_epoch(void **state)
{
	(void)state;
	struct rig r, clone;
	struct chain c;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	assert_ok(rig_once(&r), &r.err);
	rig_clone(&clone, &r);
	clone.snapshot_anchors = true;
	fake_commit(3);
	assert_ok(rig_once(&r), &r.err);
	assert_int_equal(rig_once(&clone), IM_EGAP);
	assert_true(rig_said(&clone, "another machine writes under this node's name and continued the same log"));
	fake_commit(3);
	assert_ok(rig_once(&r), &r.err); /* the first one is not disturbed */
	assert_ok(rig_once(&clone), &clone.err);
	chain_read(&r, &c); /* both histories are whole */
	assert_int_equal(c.epochs, 2);
	chain_clear(&c);
	rig_stop(&clone);
	rig_stop(&r);
}

static size_t count_epochs(struct rig *r)
{
	struct log_list list = { 0 };
	struct im_error err = { 0 };
	size_t n = 0;
	assert_ok(log_list(r->f.restore->storage, "im-01", "chat", NULL, 0, &list, &err), &err);
	for (size_t i = 0; i < list.count; i++)
		n += i == 0 || strcmp(list.items[i].epoch, list.items[i - 1].epoch) != 0;
	log_list_clear(&list);
	return n;
}

static void run__two_machines_at_once_are_both_told(void **state)
{
	(void)state;
	struct rig r, clone;
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	r.check_ms = 200;
	assert_ok(rig_once(&r), &r.err);
	rig_clone(&clone, &r);
	clone.snapshot_anchors = true;
	clone.check_ms = 200;
	rig_vault(&r, false); /* so that neither sees the other in time */
	rig_run(&r);
	rig_run(&clone);
	fake_commit(1);
	rig_nap_ms(300);
	rig_vault(&r, true);
	rig_wait_said(&r, "another machine writes under this node's name");
	rig_wait_said(&clone, "another machine writes under this node's name");
	for (int i = 0; i < 2000 && count_epochs(&r) < 3; i++)
		rig_nap_ms(10);
	rig_nap_ms(1000);
	assert_int_equal(rig_said_times(&r, "another machine"), 1);
	assert_int_equal(rig_said_times(&clone, "another machine"), 1);
	rig_end(&r);
	im_interrupt_raise(SIGTERM);
	rig_end(&clone);
	assert_int_equal(count_epochs(&r), 3); /* each has its own now */
	rig_stop(&clone);
	rig_stop(&r);
}

static void run__a_damaged_head_is_a_gap(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	char path[512];
	struct im_error err = { 0 };
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	assert_ok(rig_once(&r), &r.err);
	snprintf(path, sizeof path, "%s/head", r.store_dir);
	assert_ok(im_file_write(path, "{", 1, 0600, IM_FILE_REPLACE, &err), &err);
	assert_int_equal(rig_once(&r), IM_EGAP);
	assert_true(rig_said(&r, "the local record of where the log ended is damaged"));
	unlink(path);
	assert_int_equal(rig_once(&r), IM_EGAP);
	assert_true(rig_said(&r, "the local record of where it ended is gone"));
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 3);
	chain_clear(&c);
	rig_stop(&r);
}

/* --- anchors --- */

static void anchor__stands_at_a_point_and_joins_epochs(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	struct im_error err = { 0 };
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	rig_wait_snapshots(&r, 1);
	fake_commit(5);
	assert_ok(rig_snapshot(&r, &err), &err);
	assert_false(json_is_true(json_object_get(r.log, "joined")));
	rig_end(&r);
	chain_read(&r, &c);
	assert_string_equal(json_string_value(json_object_get(r.log, "epoch")), c.epoch);
	assert_int_equal(json_integer_value(json_object_get(r.log, "point")), c.point);
	assert_int_equal(strlen(json_string_value(json_object_get(r.log, "hash"))), 64);
	chain_clear(&c);
	FAKE_SET(gap_at_open, true); /* it cannot be continued, though nothing was missed */
	rig_run(&r);
	rig_wait_snapshots(&r, 2);
	assert_true(json_is_true(json_object_get(r.log, "joined")));
	rig_end(&r);
	FAKE_SET(gap_at_open, true);
	fake_commit(1); /* missed */
	rig_run(&r);
	rig_wait_snapshots(&r, 3);
	assert_false(json_is_true(json_object_get(r.log, "joined")));
	rig_stop(&r);
}

static void anchor__missed_changes_are_found(void **state)
{
	(void)state;
	struct rig r;
	struct chain c;
	struct im_error err = { 0 };
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	rig_wait_snapshots(&r, 1);
	fake_commit(5);
	assert_ok(rig_snapshot(&r, &err), &err);
	FAKE_SET(hidden, 7);
	fake_commit(5);
	assert_int_equal(rig_snapshot(&r, &err), IM_EDIFFERENT);
	rig_wait_said(&r, "the log does not lead to what the database holds: changes were missed between");
	fake_commit(5);
	rig_wait_shipped(&r, 15);
	rig_end(&r);
	chain_read(&r, &c);
	assert_int_equal(c.epochs, 2);
	chain_clear(&c);
	rig_stop(&r);
}

static void anchor__a_client_that_dies_does_not_stop_the_log(void **state)
{
	(void)state;
	struct rig r;
	struct im_error err = { 0 };
	struct wire w;
	json_t *answer = NULL, *question = json_pack("{s:s, s:s}", "do", "freeze", "store", "chat");
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	rig_wait_snapshots(&r, 1);
	assert_ok(wire_connect(r.follow_dir, &w, NULL, &err), &err);
	assert_ok(wire_send(&w, question, &err), &err);
	assert_ok(wire_receive(&w, -1, 5000, &answer, &err), &err);
	assert_true(json_is_true(json_object_get(answer, "ok")));
	json_decref(answer);
	json_decref(question);
	fake_commit(2);
	rig_nap_ms(300);
	assert_true(fake_let_go() < 2);
	wire_close(&w);
	rig_wait_shipped(&r, 2);
	rig_stop(&r);
}

static void anchor__nonsense_is_refused_and_does_no_harm(void **state)
{
	(void)state;
	static const char *const lines[] = { "\n", "[]\n", "{}\n", "{\"do\":\"pinned\",\"store\":\"chat\"}\n", "{\"do\":\"image\",\"store\":\"chat\",\"checksum\":\"zz\"}\n",
		"{\"do\":\"freeze\",\"store\":\"other\"}\n", "{\"do\":\"dance\",\"store\":\"chat\"}\n", "{\"do\":1,\"store\":[]}\n",
		"{\"do\":\"pinned\",\"store\":\"chat\",\"position\":{}}\n", "\xff\xfe\n" };
	struct rig r;
	struct im_error err = { 0 };
	rig_start(&r, NULL);
	r.snapshot_anchors = true;
	rig_run(&r);
	rig_wait_snapshots(&r, 1);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		struct wire w;
		json_t *answer = NULL;
		assert_ok(wire_connect(r.follow_dir, &w, NULL, &err), &err);
		assert_int_equal(write(w.fd, lines[i], strlen(lines[i])), strlen(lines[i]));
		if (wire_receive(&w, -1, 5000, &answer, NULL) == 0)
			assert_false(json_is_true(json_object_get(answer, "ok")));
		json_decref(answer);
		wire_close(&w);
	}
	fake_commit(2);
	rig_wait_shipped(&r, 2);
	assert_ok(rig_snapshot(&r, &err), &err);
	rig_stop(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(run__a_gap_while_running_begins_an_epoch),
		cmocka_unit_test(run__a_failed_snapshot_is_tried_again_and_capturing_goes_on),
		cmocka_unit_test(run__a_stalled_capture_is_noticed_and_cured),
		cmocka_unit_test(run__a_local_state_that_went_back_begins_an_epoch),
		cmocka_unit_test(once__a_vault_that_was_rolled_back_begins_an_epoch),
		cmocka_unit_test(once__a_spool_that_lost_something_begins_an_epoch),
		cmocka_unit_test(run__a_rollback_is_noticed_while_running),
		cmocka_unit_test(once__a_clone_that_comes_later_begins_its_own_epoch),
		cmocka_unit_test(run__two_machines_at_once_are_both_told),
		cmocka_unit_test(run__a_damaged_head_is_a_gap),
		cmocka_unit_test(anchor__stands_at_a_point_and_joins_epochs),
		cmocka_unit_test(anchor__missed_changes_are_found),
		cmocka_unit_test(anchor__a_client_that_dies_does_not_stop_the_log),
		cmocka_unit_test(anchor__nonsense_is_refused_and_does_no_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
