/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The enclosure of a drill: its answer comes back, and whatever ends it, neither processes nor files are left.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "fixture.h"
#include "verify/enclosure.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
	char scratch[64], witness[96];
	struct im_error err;
	json_t *answer;
	char *kept;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	strcpy(r->scratch, "/tmp/imvault-test-XXXXXX");
	assert_non_null(mkdtemp(r->scratch));
	snprintf(r->witness, sizeof r->witness, "%s/witness", r->scratch);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	im_interrupt_raise(0);
	remove_tree(r->scratch);
	json_decref(r->answer);
	free(r->kept);
	free(r);
	return 0;
}

static unsigned folders(const struct rig *r)
{
	auto_closedir DIR *dir = opendir(r->scratch);
	unsigned n = 0;
	for (struct dirent *e; dir && (e = readdir(dir));)
		n += strncmp(e->d_name, "imvault-drill-", 14) == 0;
	return n;
}

/* A process that is left writes the witness again and again. */
static bool somebody_lives(const struct rig *r)
{
	unlink(r->witness);
	im_sleep_ms(300);
	return access(r->witness, F_OK) == 0;
}

static void leave_processes(const struct rig *r)
{
	auto_free char *command = im_format("(while :; do echo >%s; sleep 0.02; done) & setsid sh -c 'while :; do echo >%s; sleep 0.02; done' &", r->witness, r->witness);
	assert_int_equal(system(command), 0);
}

static json_t *litter(void *context, const char *folder)
{
	auto_free char *deep = im_path_join(folder, "a/b/c");
	if (im_mkdirs(deep, 0700, NULL))
		_exit(9);
	leave_processes(context);
	return json_pack("{s:s}", "folder", folder);
}

static json_t *die(void *context, const char *folder)
{
	json_decref(litter(context, folder));
	raise(SIGKILL);
	return NULL;
}

static json_t *wait_for_interruption(void *context, const char *folder)
{
	(void)context, (void)folder;
	kill(getppid(), 0);
	for (int i = 0; i < 1000 && !im_interrupt_signal(); i++)
		im_sleep_ms(20);
	return json_pack("{s:i}", "signal", im_interrupt_signal());
}

static int run(struct rig *r, enclosure_fn *fn, bool keep)
{
	return enclosure_run(r->scratch, keep, fn, r, &r->answer, &r->kept, &r->err);
}

static void enclosure__gives_the_answer_back_and_leaves_nothing(void **state)
{
	struct rig *r = *state;
	assert_ok(run(r, litter, false), &r->err);
	const char *folder = json_string_value(json_object_get(r->answer, "folder"));
	assert_non_null(folder);
	assert_int_equal(access(folder, F_OK), -1);
	assert_int_equal(folders(r), 0);
	assert_false(somebody_lives(r));
	assert_null(r->kept);
}

static void enclosure__keeps_the_folder_if_asked_but_no_process(void **state)
{
	struct rig *r = *state;
	assert_ok(run(r, litter, true), &r->err);
	assert_int_equal(access(r->kept, F_OK), 0);
	assert_false(somebody_lives(r));
	char *kept = r->kept;
	json_decref(r->answer);
	assert_ok(run(r, litter, false), &r->err); /* the next one leaves it alone */
	assert_int_equal(access(kept, F_OK), 0);
	free(kept);
}

static void enclosure__ends_all_if_its_process_dies(void **state)
{
	struct rig *r = *state;
	assert_int_equal(run(r, die, false), IM_EFAIL);
	assert_non_null(strstr(r->err.text, "signal 9"));
	assert_int_equal(folders(r), 0);
	assert_false(somebody_lives(r));
}

static void enclosure__removes_what_dead_ones_left_and_nothing_else(void **state)
{
	struct rig *r = *state;
	auto_free char *dead = im_path_join(r->scratch, "imvault-drill-dead/x"), *other = im_path_join(r->scratch, "imvault-other");
	assert_ok(im_mkdirs(dead, 0700, &r->err), &r->err);
	assert_ok(im_mkdirs(other, 0700, &r->err), &r->err);
	assert_ok(run(r, litter, false), &r->err);
	assert_int_equal(folders(r), 0);
	assert_int_equal(access(other, F_OK), 0);
}

static void enclosure__hands_an_interruption_on(void **state)
{
	struct rig *r = *state;
	pid_t me = getpid(), child = fork();
	if (child == 0) {
		for (int i = 0; i < 500 && !folders(r); i++)
			im_sleep_ms(10);
		im_sleep_ms(200);
		kill(me, SIGTERM);
		_exit(0);
	}
	im_interrupt_install();
	assert_ok(run(r, wait_for_interruption, false), &r->err);
	assert_int_equal(json_integer_value(json_object_get(r->answer, "signal")), SIGTERM);
	assert_int_equal(im_interrupt_signal(), SIGTERM);
	assert_int_equal(folders(r), 0);
}

static void enclosure__says_what_is_wrong_with_the_scratch_folder(void **state)
{
	struct rig *r = *state;
	assert_int_equal(enclosure_run("/nonexistent", false, litter, r, &r->answer, &r->kept, &r->err), IM_EUSAGE);
	assert_non_null(strstr(r->err.text, "--scratch"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(enclosure__gives_the_answer_back_and_leaves_nothing),
		TEST(enclosure__keeps_the_folder_if_asked_but_no_process),
		TEST(enclosure__ends_all_if_its_process_dies),
		TEST(enclosure__removes_what_dead_ones_left_and_nothing_else),
		TEST(enclosure__hands_an_interruption_on),
		TEST(enclosure__says_what_is_wrong_with_the_scratch_folder),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
