/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker pool: every job is handed to its function exactly once, whatever fails.
 */
#include "base/workers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static atomic_int runs, cancellations, freed, fail_at;
static atomic_uint highest_worker;

static int count_job(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	int n = *(int *)job;
	unsigned seen = atomic_load(&highest_worker);
	while (worker > seen && !atomic_compare_exchange_weak(&highest_worker, &seen, worker))
		;
	free(job);
	atomic_fetch_add(&freed, 1);
	if (cancelled) {
		atomic_fetch_add(&cancellations, 1);
		return 0;
	}
	atomic_fetch_add(&runs, 1);
	if (n == atomic_load(&fail_at))
		return im_fail(err, IM_ECORRUPT, "job %d failed", n);
	return 0;
}

static int *job_of(int n)
{
	int *job = malloc(sizeof *job);
	assert_non_null(job);
	*job = n;
	return job;
}

static int reset(void **state)
{
	(void)state;
	runs = cancellations = freed = 0;
	highest_worker = 0;
	fail_at = -1;
	return 0;
}

static void workers__run_every_job_once(void **state)
{
	(void)state;
	struct im_workers *w = NULL;
	struct im_error err = { 0 };
	assert_int_equal(im_workers_new(3, 2, count_job, &w, &err), 0);
	assert_int_equal(im_workers_count(w), 3);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(im_workers_submit(w, job_of(i)), 0);
	assert_int_equal(im_workers_wait(w, &err), 0);
	assert_int_equal(runs, 1000);
	assert_true(highest_worker < 3);
	for (int i = 0; i < 10; i++) /* a pool that has waited goes on */
		im_workers_submit(w, job_of(i));
	assert_int_equal(im_workers_wait(w, &err), 0);
	assert_int_equal(runs, 1010);
	im_workers_free(w);
}

static void workers__first_failure_cancels_the_rest(void **state)
{
	(void)state;
	struct im_workers *w = NULL;
	struct im_error err = { 0 };
	fail_at = 5;
	assert_int_equal(im_workers_new(1, 1, count_job, &w, &err), 0);
	for (int i = 0; i < 100; i++)
		im_workers_submit(w, job_of(i));
	assert_int_equal(im_workers_wait(w, &err), IM_ECORRUPT);
	assert_string_equal(err.text, "job 5 failed");
	assert_true(im_workers_failed(w));
	assert_int_equal(runs, 6);
	assert_int_equal(cancellations, 94);
	assert_int_equal(im_workers_submit(w, job_of(7)), IM_ECORRUPT);
	im_workers_free(w);
	assert_int_equal(freed, 101); /* nobody leaks */
}

static void workers__free_finishes_what_waits(void **state)
{
	(void)state;
	struct im_workers *w = NULL;
	assert_int_equal(im_workers_new(2, 64, count_job, &w, NULL), 0);
	for (int i = 0; i < 50; i++)
		im_workers_submit(w, job_of(i));
	im_workers_free(w);
	assert_int_equal(freed, 50);
}

static void workers__default_count_is_bounded(void **state)
{
	(void)state;
	struct im_workers *w = NULL;
	assert_int_equal(im_workers_new(0, 0, count_job, &w, NULL), 0);
	assert_int_equal(im_workers_count(w), im_cpu_count());
	assert_in_range(im_cpu_count(), 1, 8);
	im_workers_free(w);
}

static void workers__free_of_null(void **state)
{
	(void)state;
	im_workers_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(workers__run_every_job_once, reset),
		cmocka_unit_test_setup(workers__first_failure_cancels_the_rest, reset),
		cmocka_unit_test_setup(workers__free_finishes_what_waits, reset),
		cmocka_unit_test_setup(workers__default_count_is_bounded, reset),
		cmocka_unit_test_setup(workers__free_of_null, reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
