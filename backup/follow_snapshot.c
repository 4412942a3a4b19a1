/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots that a new epoch needs. Their own thread waits for them: they ask the stores' threads for
 * anchors, and those go on capturing all the while.
 */
#include "backup/follow_internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RETRY_MIN_MS = 5000, RETRY_MAX_MS = 600000 };

void follow_want_snapshot(struct followed *f)
{
	struct service *s = f->service;
	pthread_mutex_lock(&f->lock);
	f->snapshot_wanted = true;
	pthread_mutex_unlock(&f->lock);
	pthread_mutex_lock(&s->snapshot_lock);
	s->snapshot_new = true;
	pthread_cond_signal(&s->snapshot_wake);
	pthread_mutex_unlock(&s->snapshot_lock);
}

bool follow_snapshot_settled(struct followed *f)
{
	pthread_mutex_lock(&f->lock);
	bool settled = !f->snapshot_wanted && !f->snapshot_running;
	pthread_mutex_unlock(&f->lock);
	return settled;
}

/* How many stores want one; marks them. */
static size_t gather(struct service *s)
{
	size_t n = 0;
	for (size_t i = 0; i < s->store_count; i++) {
		struct followed *f = &s->stores[i];
		pthread_mutex_lock(&f->lock);
		f->snapshot_running = f->snapshot_wanted;
		f->snapshot_wanted = false;
		n += f->snapshot_running;
		pthread_mutex_unlock(&f->lock);
	}
	return n;
}

static void settle(struct service *s, bool taken, bool again)
{
	for (size_t i = 0; i < s->store_count; i++) {
		struct followed *f = &s->stores[i];
		pthread_mutex_lock(&f->lock);
		f->snapshot_taken |= f->snapshot_running && taken;
		f->snapshot_wanted |= f->snapshot_running && again;
		f->snapshot_running = false;
		pthread_mutex_unlock(&f->lock);
		follow_wake(f->wake[1]);
	}
}

/* Of every store, whichever wants it: where the local state is lost, one of a few stores would leave the others out. */
static int take(struct service *s, struct im_error *err)
{
	const struct follow_events *events = s->request->events;
	static const char *const all[] = { NULL };
	if (!events || !events->snapshot)
		return im_fail(err, IM_EUSAGE, "nobody here takes snapshots: run imvault backup");
	return events->snapshot(events->context, all, err);
}

/* Returns how long to wait before the next attempt; 0: nothing is left to do. */
static int64_t attempt(struct service *s, int64_t last_wait_ms)
{
	struct im_error why = { 0 };
	int64_t wait = 0;
	if (!gather(s))
		return 0;
	int rc = take(s, &why);
	bool taken = rc == 0 || rc == IM_EPARTIAL, again = !taken && !s->request->once && rc != IM_EUSAGE;
	if (!taken) {
		wait = last_wait_ms * 2 < RETRY_MIN_MS ? RETRY_MIN_MS : last_wait_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : last_wait_ms * 2;
		if (!last_wait_ms || rc == IM_EUSAGE)
			follow_warn(s, NULL, "the snapshot that the log needs could not be taken: %s%s", why.text, again ? "; it is tried again" : "");
		s->snapshot_rc = rc;
	}
	settle(s, taken, again);
	return again ? wait : 0;
}

static bool wait_until_wanted(struct service *s, int64_t wait_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000 + 1;
	pthread_mutex_lock(&s->snapshot_lock);
	int rc = 0;
	while (!s->snapshot_end && rc == 0 && (wait_ms || !s->snapshot_new))
		rc = wait_ms ? pthread_cond_timedwait(&s->snapshot_wake, &s->snapshot_lock, &until)
		             : pthread_cond_wait(&s->snapshot_wake, &s->snapshot_lock);
	s->snapshot_new = false;
	bool end = s->snapshot_end;
	pthread_mutex_unlock(&s->snapshot_lock);
	return !end;
}

void *follow_snapshot_thread(void *context)
{
	struct service *s = context;
	int64_t wait_ms = 0;
	while (wait_until_wanted(s, wait_ms))
		wait_ms = attempt(s, wait_ms);
	return NULL;
}
