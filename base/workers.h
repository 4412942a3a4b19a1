/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of worker threads fed by one bounded queue: I/O threads submit, CPU threads work, and
 * the bound is what keeps memory flat. The first failure stops the pool: later jobs are still
 * handed to their function, with cancelled = true, so that they can free what they own.
 */
#ifndef IM_BASE_WORKERS_H
#define IM_BASE_WORKERS_H

#include "base/error.h"

#include <stdbool.h>

struct im_workers;

/* Runs on worker number `worker` (0 … count-1), which may index per-thread state. A non-zero result (with err filled) fails the pool. */
typedef int im_job_fn(void *job, unsigned worker, bool cancelled, struct im_error *err);

/* count 0: one per CPU, at most 8. queue_max: jobs waiting before submit blocks (0: 2 × count). */
int im_workers_new(unsigned count, unsigned queue_max, im_job_fn *run, struct im_workers **ret, struct im_error *err);
unsigned im_workers_count(const struct im_workers *w);
/* Takes over the job, also when it fails. Any thread. Returns the pool's failure code, if any (the job has then been cancelled). */
int im_workers_submit(struct im_workers *w, void *job);
/* Waits until everything submitted is done; returns the first failure and its text. */
int im_workers_wait(struct im_workers *w, struct im_error *err);
/* True once a job failed: long submitters should stop. */
bool im_workers_failed(struct im_workers *w);
void im_workers_free(struct im_workers *w); /* waits for the threads */

unsigned im_cpu_count(void); /* CPUs this process may use, 1 … 8 */

#endif
