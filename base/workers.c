/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker pool: a ring of job pointers under one mutex. Jobs are coarse (hundreds of
 * kilobytes), so contention does not show in profiles.
 */
#include "base/workers.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

struct im_workers {
	pthread_mutex_t mutex;
	pthread_cond_t not_empty, not_full, idle;
	im_job_fn *run;
	void **ring;
	unsigned ring_size, head, queued, running;
	bool stop;
	struct im_error error;
	pthread_t *threads;
	unsigned count, next_number;
};

unsigned im_cpu_count(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
	return n < 1 ? 1 : n > 8 ? 8 : (unsigned)n;
}

static void run_one(struct im_workers *w, void *job, unsigned number)
{
	bool cancelled = w->error.code != 0;
	pthread_mutex_unlock(&w->mutex);
	struct im_error err = { 0 };
	int rc = w->run(job, number, cancelled, &err);
	pthread_mutex_lock(&w->mutex);
	if (rc && !w->error.code) {
		im_fail(&err, rc, "a worker failed");
		w->error = err;
	}
}

static void *worker_main(void *arg)
{
	struct im_workers *w = arg;
	pthread_mutex_lock(&w->mutex);
	unsigned number = w->next_number++;
	for (;;) {
		while (!w->queued && !w->stop)
			pthread_cond_wait(&w->not_empty, &w->mutex);
		if (!w->queued)
			break;
		void *job = w->ring[w->head];
		w->head = (w->head + 1) % w->ring_size;
		w->queued--;
		w->running++;
		pthread_cond_signal(&w->not_full);
		run_one(w, job, number);
		w->running--;
		if (!w->queued && !w->running)
			pthread_cond_broadcast(&w->idle);
	}
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

int im_workers_new(unsigned count, unsigned queue_max, im_job_fn *run, struct im_workers **ret, struct im_error *err)
{
	struct im_workers *w = calloc(1, sizeof *w);
	if (!w)
		return im_fail(err, IM_ENOMEM, "out of memory");
	unsigned wanted = count ? count : im_cpu_count();
	w->ring_size = queue_max ? queue_max : 2 * wanted;
	w->run = run;
	w->ring = calloc(w->ring_size, sizeof *w->ring);
	w->threads = calloc(wanted, sizeof *w->threads);
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->not_empty, NULL);
	pthread_cond_init(&w->not_full, NULL);
	pthread_cond_init(&w->idle, NULL);
	if (!w->ring || !w->threads) {
		im_workers_free(w);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	for (; w->count < wanted; w->count++) {
		int e = pthread_create(&w->threads[w->count], NULL, worker_main, w);
		if (e) {
			im_workers_free(w);
			return im_fail_errno(err, IM_EFAIL, e, "cannot start a thread");
		}
	}
	*ret = w;
	return 0;
}

unsigned im_workers_count(const struct im_workers *w) { return w->count; }

int im_workers_submit(struct im_workers *w, void *job)
{
	pthread_mutex_lock(&w->mutex);
	while (w->queued == w->ring_size)
		pthread_cond_wait(&w->not_full, &w->mutex);
	w->ring[(w->head + w->queued) % w->ring_size] = job;
	w->queued++;
	int rc = w->error.code;
	pthread_cond_signal(&w->not_empty);
	pthread_mutex_unlock(&w->mutex);
	return rc;
}

int im_workers_wait(struct im_workers *w, struct im_error *err)
{
	pthread_mutex_lock(&w->mutex);
	while (w->queued || w->running)
		pthread_cond_wait(&w->idle, &w->mutex);
	int rc = w->error.code;
	if (rc)
		im_fail(err, rc, "%s", w->error.text);
	pthread_mutex_unlock(&w->mutex);
	return rc;
}

bool im_workers_failed(struct im_workers *w)
{
	pthread_mutex_lock(&w->mutex);
	bool failed = w->error.code != 0;
	pthread_mutex_unlock(&w->mutex);
	return failed;
}

void im_workers_free(struct im_workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->mutex);
	w->stop = true;
	pthread_cond_broadcast(&w->not_empty);
	pthread_mutex_unlock(&w->mutex);
	for (unsigned i = 0; i < w->count; i++)
		pthread_join(w->threads[i], NULL);
	pthread_cond_destroy(&w->not_empty);
	pthread_cond_destroy(&w->not_full);
	pthread_cond_destroy(&w->idle);
	pthread_mutex_destroy(&w->mutex);
	free(w->threads);
	free(w->ring);
	free(w);
}
