/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vault on a fault layer. For each kind of fault, at the 1st, 2nd, 3rd … call of the storage
 * until the command runs through untouched: no crash, never success with data missing, older
 * snapshots still restore equal, and the next run needs no help.
 */
#include "world.h"

#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

#define DIED 137

static unsigned stride;

/* Which call comes first: another one for each kind of fault, so that the sample is spread. */
static unsigned first_call(size_t fault)
{
	return 1 + (unsigned)(fault * 3 % stride);
}

typedef int command_fn(struct world *w, struct im_error *err);

/* Runs the command in a child under the plan; returns its exit status, or 1000 + signal. ret_hit: whether the fault happened. */
static int under_fault(struct world *w, command_fn *command, enum storage_fault what, uint64_t at, bool sticky, bool *ret_hit)
{
	int pipe_fds[2], status;
	assert_int_equal(pipe(pipe_fds), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct storage_fault_plan plan = { .what = what, .at_call = at, .sticky = sticky };
		struct im_error err = { 0 };
		storage_open_with_faults(&plan);
		int rc = command(w, &err);
		char hit = plan.calls >= at;
		if (write(pipe_fds[1], &hit, 1) != 1)
			_exit(99);
		_exit(im_exit_status(rc, 0));
	}
	close(pipe_fds[1]);
	char hit = 1; /* a child that dies was hit */
	ssize_t n = read(pipe_fds[0], &hit, 1);
	close(pipe_fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	*ret_hit = n != 1 || hit;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void restore_and_compare(struct world *w, const char *at, uint64_t expected)
{
	struct im_error err = { 0 };
	char to[96];
	snprintf(to, sizeof to, "%s/out", w->dir);
	assert_ok(world_restore(w, at, to, &err), &err);
	assert_int_equal(world_digest(w, to), expected);
	remove_tree(to);
}

static const struct {
	enum storage_fault what;
	bool sticky;
} write_faults[] = {
	{ FAULT_EIO, false }, { FAULT_EIO, true }, { FAULT_ENOSPC, true }, { FAULT_SHORT_WRITE, false },
	{ FAULT_DIE, false }, { FAULT_UNREACHABLE, true },
};

static void backup__survives_a_fault_at_every_storage_call(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	for (size_t f = 0; f < sizeof write_faults / sizeof *write_faults; f++) {
		struct world w;
		world_start(&w);
		assert_ok(world_backup(&w, &err), &err);
		uint64_t first = world_digest(&w, "");
		bool hit = true;
		for (unsigned n = first_call(f), round = 0; hit; n += stride, round++) {
			world_change(&w, n);
			int status = under_fault(&w, world_backup, write_faults[f].what, n, write_faults[f].sticky, &hit);
			assert_true(status < 1000);
			if (status == 0)
				restore_and_compare(&w, "latest", world_digest(&w, ""));
			if (hit && write_faults[f].what == FAULT_DIE) {
				assert_int_equal(status, DIED);
			}
			im_error_clear(&err);
			assert_ok(world_backup(&w, &err), &err);
			if (round % 8 == 0 || !hit) {
				restore_and_compare(&w, "latest", world_digest(&w, ""));
				restore_and_compare(&w, "1", first);
			}
			assert_true(n < 2000);
		}
		assert_ok(world_verify(&w, &err), &err);
		world_stop(&w);
	}
}

static int restore_to_out(struct world *w, struct im_error *err)
{
	char to[96];
	snprintf(to, sizeof to, "%s/out", w->dir);
	return world_restore(w, NULL, to, err);
}

static const struct {
	enum storage_fault what;
	bool sticky;
} read_faults[] = {
	{ FAULT_EIO, false }, { FAULT_EIO, true }, { FAULT_DIE, false }, { FAULT_UNREACHABLE, true }, { FAULT_FLIP_BIT, false },
};

static void restore__never_leaves_half_a_file_under_its_name(void **state)
{
	(void)state;
	struct world w;
	struct im_error err = { 0 };
	char out[96];
	world_start(&w);
	snprintf(out, sizeof out, "%s/out", w.dir);
	for (unsigned i = 1; i < 4; i++) {
		world_change(&w, i);
		assert_ok(world_backup(&w, &err), &err);
	}
	uint64_t whole = world_digest(&w, "");
	for (size_t f = 0; f < sizeof read_faults / sizeof *read_faults; f++) {
		bool hit = true;
		for (unsigned n = first_call(f); hit; n += stride) {
			int status = under_fault(&w, restore_to_out, read_faults[f].what, n, read_faults[f].sticky, &hit);
			assert_true(status < 1000);
			if (status == 0) {
				assert_int_equal(world_digest(&w, out), whole);
			}
			if (status != 3) { /* 3: the newest snapshot could not be read and an older one was taken, which it said */
				assert_true(world_nothing_half(&w, out));
			}
			if (status == DIED) { /* started again, without any help */
				im_error_clear(&err);
				int rc = world_restore(&w, NULL, out, &err);
				if (rc == IM_EUSAGE) { /* a whole store is in place already */
					assert_true(world_nothing_half(&w, out));
				} else {
					assert_ok(rc, &err);
				}
			}
			remove_tree(out);
			assert_true(n < 2000);
		}
	}
	world_stop(&w);
}

static void verify__reports_every_fault(void **state)
{
	(void)state;
	struct world w;
	struct im_error err = { 0 };
	world_start(&w);
	for (unsigned i = 1; i < 3; i++) {
		world_change(&w, i);
		assert_ok(world_backup(&w, &err), &err);
	}
	for (size_t f = 0; f < sizeof read_faults / sizeof *read_faults; f++) {
		bool hit = true;
		for (unsigned n = first_call(f); hit; n += stride) {
			int status = under_fault(&w, world_verify, read_faults[f].what, n, read_faults[f].sticky, &hit);
			assert_true(status < 1000);
			if (status == 0 && hit && read_faults[f].what != FAULT_FLIP_BIT)
				fail_msg("fault %zu at call %u was not reported", f, n);
			assert_true(n < 2000);
		}
	}
	assert_ok(world_verify(&w, &err), &err);
	world_stop(&w);
}

int main(void)
{
	const char *text = getenv("IMVAULT_FAULT_STRIDE");
	stride = text && atoi(text) > 0 ? (unsigned)atoi(text) : 7;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(backup__survives_a_fault_at_every_storage_call),
		cmocka_unit_test(restore__never_leaves_half_a_file_under_its_name),
		cmocka_unit_test(verify__reports_every_fault),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
