/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The follower service with a source that does what it is told and a vault that goes away: epochs,
 * chains, gaps, the spool, other writers, anchors. What arrives is read back and believed nothing.
 */
#include "follow_service.h"

#include "backup/anchor.h"
#include "backup/wire.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void nap_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

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
	assert_int_equal(fake.holds, 0);
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
		nap_ms(60);
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
	nap_ms(200);
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
		nap_ms(80);
	}
	rig_wait_said(&r, "the spool is full");
	fake_commit(100);
	nap_ms(200);
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
	nap_ms(500);
	chain_read(&r, &before);
	nap_ms(2500);
	rig_end(&r);
	chain_read(&r, &after);
	assert_in_range(after.segments - before.segments, 1, 4);
	chain_clear(&before);
	chain_clear(&after);
	rig_stop(&r);
}

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
	nap_ms(300);
	rig_vault(&r, true);
	rig_wait_said(&r, "another machine writes under this node's name");
	rig_wait_said(&clone, "another machine writes under this node's name");
	for (int i = 0; i < 2000 && count_epochs(&r) < 3; i++)
		nap_ms(10);
	nap_ms(1000);
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
	nap_ms(300);
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
	nap_ms(2500);
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
		cmocka_unit_test(run__a_gap_while_running_begins_an_epoch),
		cmocka_unit_test(run__a_failed_snapshot_is_tried_again_and_capturing_goes_on),
		cmocka_unit_test(run__a_stalled_capture_is_noticed_and_cured),
		cmocka_unit_test(run__a_local_state_that_went_back_begins_an_epoch),
		cmocka_unit_test(once__a_clone_that_comes_later_begins_its_own_epoch),
		cmocka_unit_test(run__two_machines_at_once_are_both_told),
		cmocka_unit_test(run__a_damaged_head_is_a_gap),
		cmocka_unit_test(anchor__stands_at_a_point_and_joins_epochs),
		cmocka_unit_test(anchor__missed_changes_are_found),
		cmocka_unit_test(anchor__a_client_that_dies_does_not_stop_the_log),
		cmocka_unit_test(anchor__nonsense_is_refused_and_does_no_harm),
		cmocka_unit_test(state_load__tells_what_the_follower_wrote),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
