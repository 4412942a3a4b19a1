/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store's thread: wait, capture, and hand over a batch when it is old or large enough. It is the
 * only thread that calls the store kind; others leave a word and wake it.
 */
#include "backup/coarse.h"
#include "backup/follow_internal.h"

#include "base/clock.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_MS = 1000, /* the longest wait */
	CAPTURE_MIN_MS = 5, CAPTURE_MAX_MS = 30, /* between two captures: each costs the source something */
	RETRY_SPOOL_MS = 1000,
	IDLE_ROUNDS = 20, IDLE_PAUSE_MS = 10 }; /* a wait that returns for nothing must not become a busy loop */

/* What others may see of the head. */
void follow_publish(struct followed *f)
{
	pthread_mutex_lock(&f->lock);
	strcpy(f->view.epoch, f->head.epoch);
	f->view.point = f->head.point;
	f->view.captured_ms = f->head.complete_ms;
	f->view.dirty = true;
	pthread_mutex_unlock(&f->lock);
}

static bool stopping(const struct followed *f)
{
	return f->service->state != FOLLOW_RUN;
}

static void pause_until_woken(const struct followed *f, int64_t ms)
{
	struct pollfd fd = { .fd = f->wake[0], .events = POLLIN };
	if (ms > 0)
		poll(&fd, 1, (int)ms);
}

/* --- handing over --- */

static bool spool_is_full(struct followed *f)
{
	char limit[24], text[200];
	uint64_t bytes = f->service->config->follow_spool_limit_bytes;
	if (follow_spooled_bytes(f->service) < bytes)
		return false;
	snprintf(text, sizeof text, "the spool is full (%s): nothing more is captured until the vault takes some of it",
	    im_bytes_format(limit, sizeof limit, bytes));
	if (follow_view_text(f, f->view.trouble, sizeof f->view.trouble, text))
		follow_warn(f->service, f->store->name, "%s", text);
	return true;
}

static void cannot_spool(struct followed *f, const struct im_error *why)
{
	char text[400];
	snprintf(text, sizeof text, "what was captured cannot be put into the spool: %.300s", why->text);
	f->retry_ms = im_monotonic_ms() + RETRY_SPOOL_MS;
	if (follow_view_text(f, f->view.trouble, sizeof f->view.trouble, text))
		follow_warn(f->service, f->store->name, "%s", text);
}

static void spool_is_well(struct followed *f)
{
	if (f->view.trouble[0] && follow_view_text(f, f->view.trouble, sizeof f->view.trouble, ""))
		follow_note(f->service, f->store->name, "capturing again");
}

/* A batch that cannot be spooled is kept and tried again: its source is held as long as it can. */
static int deliver(struct followed *f, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = follow_deliver(f, &why);
	if (rc && f->has_batch && rc != IM_EGAP) {
		cannot_spool(f, &why);
		return 0;
	}
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

int follow_flush(struct followed *f, bool heartbeat, struct im_error *err)
{
	bool any = false;
	int64_t now_ms = im_now_ms();
	if (f->has_batch)
		return deliver(f, err);
	int rc = f->ops->take(f->follower, heartbeat, &f->batch, &any, err);
	if (rc)
		return rc;
	f->batch_since_ms = 0;
	f->seen_ms = now_ms;
	f->has_batch = any;
	if (!any && heartbeat)
		f->last_segment_ms = im_monotonic_ms();
	return deliver(f, err);
}

/* --- one round --- */

static int64_t wait_ms(const struct followed *f)
{
	const struct im_config *c = f->service->config;
	int64_t now = im_monotonic_ms(), until = now + LOOK_MS;
	int64_t heartbeat = f->last_segment_ms + c->follow_heartbeat_ms;
	if (f->batch_since_ms && f->batch_since_ms + c->follow_flush_ms < until)
		until = f->batch_since_ms + c->follow_flush_ms;
	if (heartbeat < until)
		until = heartbeat;
	return until > now ? until - now : 0;
}

static bool must_flush(const struct followed *f, bool *ret_heartbeat)
{
	const struct im_config *c = f->service->config;
	int64_t now = im_monotonic_ms();
	*ret_heartbeat = now - f->last_segment_ms >= c->follow_heartbeat_ms;
	return *ret_heartbeat || (f->batch_since_ms && now - f->batch_since_ms >= c->follow_flush_ms) ||
	    f->ops->pending(f->follower) > FOLLOW_PENDING_BYTES;
}

static int capture(struct followed *f, struct im_error *err)
{
	bool fresh = false;
	int rc = f->ops->capture(f->follower, &fresh, err);
	int64_t now = im_monotonic_ms();
	if (rc)
		return rc;
	if (!fresh) {
		if (++f->idle_rounds > IDLE_ROUNDS)
			pause_until_woken(f, IDLE_PAUSE_MS);
		return 0;
	}
	f->idle_rounds = 0;
	f->last_capture_ms = now;
	f->stalls = 0;
	f->moved_since_ms = 0;
	if (!f->batch_since_ms)
		f->batch_since_ms = now;
	return 0;
}

static int64_t capture_pace_ms(const struct followed *f)
{
	int64_t pace = f->service->config->follow_flush_ms / 10;
	return pace < CAPTURE_MIN_MS ? CAPTURE_MIN_MS : pace > CAPTURE_MAX_MS ? CAPTURE_MAX_MS : pace;
}

static int wait_for_news(struct followed *f, struct im_error *err)
{
	int64_t since = im_monotonic_ms() - f->last_capture_ms, pace = capture_pace_ms(f), asleep = im_monotonic_ms();
	if (since < pace)
		pause_until_woken(f, pace - since);
	int rc = f->ops->wait(f->follower, f->wake[0], wait_ms(f), err);
	if (im_monotonic_ms() - asleep >= IDLE_PAUSE_MS)
		f->idle_rounds = 0;
	return rc;
}

/* Nothing may be captured now. */
static bool stands_still(struct followed *f)
{
	int64_t now = im_monotonic_ms();
	if (f->frozen_until_ms && now >= f->frozen_until_ms) {
		f->frozen_until_ms = 0;
		follow_warn(f->service, f->store->name, "a backup froze this store and was not heard of again; it is followed on");
	}
	return f->frozen_until_ms || (f->has_batch && now < f->retry_ms) || spool_is_full(f);
}

static int work(struct followed *f, struct im_error *err)
{
	bool heartbeat;
	int rc = f->has_batch ? deliver(f, err) : 0;
	if (rc || f->has_batch)
		return rc;
	spool_is_well(f);
	rc = wait_for_news(f, err);
	if (rc == 0)
		rc = capture(f, err);
	if (rc == 0 && must_flush(f, &heartbeat))
		rc = follow_flush(f, heartbeat, err);
	return rc;
}

static char *take_demand(struct followed *f)
{
	pthread_mutex_lock(&f->lock);
	char *demand = f->demand;
	f->demand = NULL;
	pthread_mutex_unlock(&f->lock);
	return demand;
}

static void round_attached(struct followed *f)
{
	struct im_error why = { 0 };
	char *demand = take_demand(f);
	if (demand) {
		follow_flush(f, false, NULL); /* what the old epoch can still have */
		follow_gap(f, demand);
		free(demand);
		return;
	}
	int rc = 0;
	if (stands_still(f))
		pause_until_woken(f, LOOK_MS);
	else
		rc = work(f, &why);
	if (rc)
		follow_trouble(f, rc, &why);
	else
		follow_watch(f);
}

/* --- the thread --- */

static void round_detached(struct followed *f)
{
	char *demand = take_demand(f);
	if (demand)
		follow_gap(f, demand);
	free(demand);
	follow_attach(f);
	if (!f->follower)
		pause_until_woken(f, LOOK_MS);
}

/* --once: everything is captured and handed over, and a snapshot that was needed is there. */
static bool once_is_done(struct followed *f)
{
	struct im_error why = { 0 };
	if (!f->service->request->once)
		return false;
	if (!f->follower)
		return f->view.tried && !f->must_attach;
	if (!f->round_done) {
		int rc = follow_flush(f, f->last_segment_ms == 0, &why);
		if (rc) {
			follow_trouble(f, rc, &why);
			return false;
		}
		f->round_done = f->ops->pending(f->follower) <= FOLLOW_PENDING_BYTES; /* else more waits at the source */
	}
	return f->round_done && follow_snapshot_settled(f);
}

static void last_words(struct followed *f)
{
	struct im_error why = { 0 };
	if (f->follower && !f->frozen_until_ms) {
		int rc = follow_flush(f, false, &why);
		if (rc == IM_EGAP)
			follow_warn(f->service, f->store->name, "%s; the next start will record a gap", why.text);
		else if (rc)
			follow_warn(f->service, f->store->name, "what was captured last is not stored: %s", why.text);
	}
	follow_heal(f);
	if (f->follower) /* held, so that a service that is restarted, or the next round, goes on exactly */
		f->ops->close(f->follower, true);
	f->follower = NULL;
	pthread_mutex_lock(&f->lock);
	f->view.following = false;
	pthread_mutex_unlock(&f->lock);
	follow_refuse_questions(f);
}

void *follow_store_thread(void *context)
{
	struct followed *f = context;
	while (!stopping(f) && !once_is_done(f)) {
		f->ticked_ms = im_monotonic_ms();
		follow_drain(f->wake[0]);
		follow_answer(f);
		if (f->follower)
			round_attached(f);
		else
			round_detached(f);
	}
	last_words(f);
	f->finished = true;
	follow_wake(f->service->wake[1]);
	return NULL;
}
