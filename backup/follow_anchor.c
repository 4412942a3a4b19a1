/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backup asks of a followed store: to stand still, to capture up to exactly where the image
 * is pinned, and whether the log leads to what the image holds. The control thread leaves the
 * question, the store's thread answers it.
 *
 * The last one is the proof against losses nobody noticed: between two snapshots of an epoch the
 * checksums must differ by exactly what the log says has changed.
 */
#include "backup/coarse.h"
#include "backup/control.h"
#include "backup/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TAKE_MS = 90000, /* until a store's thread must have begun with a question */
	FREEZE_ROUNDS = 64 };

/* --- the control thread's side --- */

static struct followed *find_store(struct service *s, const char *name)
{
	for (size_t i = 0; i < s->store_count; i++)
		if (strcmp(s->stores[i].store->name, name) == 0)
			return &s->stores[i];
	return NULL;
}

static void wait_for_answer(struct followed *f, struct question *q)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TAKE_MS / 1000;
	int rc = 0;
	while (!q->done && f->question == q && (rc != ETIMEDOUT || q->taken))
		rc = q->taken ? pthread_cond_wait(&f->answered, &f->lock) : pthread_cond_timedwait(&f->answered, &f->lock, &until);
	if (q->done)
		return;
	q->rc = im_fail(&q->err, IM_EMISSED, f->closed ? "the follower stops" : "the store is busy");
	f->question = NULL;
}

static int ask(struct service *s, const char *store, struct question *q, struct im_error *err)
{
	struct followed *f = find_store(s, store);
	if (!f)
		return im_fail(err, IM_ENOTFOUND, "store %.64s is not followed", store);
	pthread_mutex_lock(&f->lock);
	if (f->closed) {
		q->rc = im_fail(&q->err, IM_ENOTFOUND, "the follower stops");
	} else {
		f->question = q;
		follow_wake(f->wake[1]);
		wait_for_answer(f, q);
	}
	pthread_mutex_unlock(&f->lock);
	return q->rc ? im_fail(err, q->rc, "%s", q->err.text) : 0;
}

static int on_freeze(void *context, const char *store, struct im_error *err)
{
	struct question q = { .what = ASK_FREEZE };
	return ask(context, store, &q, err);
}

static int on_pinned(void *context, const char *store, const json_t *position, json_t **ret_log, struct im_error *err)
{
	struct question q = { .what = ASK_PINNED, .position = position };
	int rc = ask(context, store, &q, err);
	*ret_log = q.log;
	return rc;
}

static int on_image(void *context, const char *store, const char *checksum_hex, bool *ret_joined, struct im_error *err)
{
	struct question q = { .what = ASK_IMAGE, .checksum = checksum_hex };
	int rc = ask(context, store, &q, err);
	*ret_joined = q.joined;
	return rc;
}

static void on_gone(void *context)
{
	struct service *s = context;
	for (size_t i = 0; i < s->store_count; i++) {
		struct question q = { .what = ASK_THAW };
		if (s->stores[i].thaw_wanted)
			ask(s, s->stores[i].store->name, &q, NULL);
	}
}

const struct control_ops follow_control_ops = { on_freeze, on_pinned, on_image, on_gone, NULL };

/* --- the store's thread --- */

static int freeze(struct followed *f, struct im_error *err)
{
	if (!f->follower)
		return im_fail(err, IM_ENOTFOUND, "store %s cannot be followed just now: %.300s", f->store->name, f->view.trouble);
	bool fresh = true;
	for (int i = 0; fresh && i < FREEZE_ROUNDS; i++) {
		int rc = follow_flush(f, false, err);
		if (rc == 0 && f->has_batch)
			rc = im_fail(err, IM_EIO, "%s", f->view.trouble);
		if (rc == 0)
			rc = f->ops->capture(f->follower, &fresh, err);
		if (rc)
			return rc;
		/* What was committed in the meantime may follow in the segment that pinned makes; a large rest may not. */
		if (f->ops->pending(f->follower) <= FOLLOW_PENDING_BYTES)
			break;
	}
	f->frozen_until_ms = im_monotonic_ms() + FOLLOW_FREEZE_MS;
	return 0;
}

static json_t *anchor_log(struct followed *f)
{
	char hash[65], sum[2 * SPOOL_SUM_BYTES + 1];
	json_t *log = json_pack("{s:s, s:I, s:s, s:I, s:b}", "epoch", f->head.epoch, "point", (json_int_t)f->head.point, "hash",
	    im_hex(hash, f->head.hash, 32), "complete_ms", (json_int_t)f->head.complete_ms, "joined", f->head.joined);
	f->anchored = true;
	f->anchored_point = f->head.point;
	f->anchored_ms = f->head.complete_ms;
	f->anchored_has_sum = follow_position_sum(f->head.position, f->anchored_sum);
	if (f->anchored_has_sum)
		json_object_set_new(log, "sum", json_string(im_hex(sum, f->anchored_sum, SPOOL_SUM_BYTES)));
	return log;
}

static void image_is_read(struct followed *f)
{
	f->imaged = true;
	f->imaged_seq = f->service->snapshot_seq;
}

/* *ret_log stays NULL if the image's place cannot be had; that is no failure of the snapshot. */
static int pinned(struct followed *f, const json_t *position, json_t **ret_log, struct im_error *err)
{
	if (!f->follower || !f->frozen_until_ms)
		return im_fail(err, IM_EUSAGE, "store %s is not frozen (any more)", f->store->name);
	f->frozen_until_ms = 0;
	int rc = position ? f->ops->take_to(f->follower, position, &f->batch, err) : follow_flush(f, false, err);
	if (rc == IM_ENOTFOUND) {
		follow_note(f->service, f->store->name, "the snapshot's image has no place in the log: %s", err->text);
		im_error_clear(err);
		return 0;
	}
	if (rc)
		return rc;
	if (position) {
		f->has_batch = true;
		f->batch_since_ms = 0;
		rc = follow_flush(f, false, err);
	}
	if (rc || f->has_batch)
		return rc;
	*ret_log = anchor_log(f);
	coarse_anchor(f->coarse);
	if (!f->anchored_has_sum)
		image_is_read(f); /* nothing to compare it with later */
	return 0;
}

static bool sums_lead(const uint8_t *checksum1, const uint8_t *sum1, const uint8_t *sum2, const uint8_t *checksum2)
{
	uint8_t difference = 0;
	for (size_t i = 0; i < SPOOL_SUM_BYTES; i++)
		difference |= checksum1[i] ^ sum1[i] ^ sum2[i] ^ checksum2[i];
	return difference == 0;
}

static void missed_changes(struct followed *f)
{
	char from[IM_INSTANT_BYTES], to[IM_INSTANT_BYTES], text[300];
	snprintf(text, sizeof text, "the log does not lead to what the database holds: changes were missed between %s and %s",
	    im_instant_format(from, f->head.anchor_ms), im_instant_format(to, f->anchored_ms));
	follow_demand_epoch(f, "%s", text);
}

static int take_checksum(struct followed *f, const uint8_t checksum[SPOOL_SUM_BYTES], struct im_error *err)
{
	struct spool_head *h = &f->head;
	static const uint8_t zero[SPOOL_SUM_BYTES];
	if (h->has_anchor && !sums_lead(h->anchor_checksum, h->anchor_sum, f->anchored_sum, checksum)) {
		missed_changes(f);
		return im_fail(err, IM_EDIFFERENT, "the log does not lead to this image of store %s", f->store->name);
	}
	if (!h->has_anchor && h->has_before)
		h->joined = sums_lead(h->before_checksum, zero, f->anchored_sum, checksum);
	h->has_anchor = true;
	h->anchor_point = f->anchored_point;
	h->anchor_ms = f->anchored_ms;
	memcpy(h->anchor_sum, f->anchored_sum, SPOOL_SUM_BYTES);
	memcpy(h->anchor_checksum, checksum, SPOOL_SUM_BYTES);
	return 0;
}

static int image(struct followed *f, const char *checksum_hex, bool *ret_joined, struct im_error *err)
{
	uint8_t checksum[SPOOL_SUM_BYTES];
	if (!f->anchored)
		return im_fail(err, IM_EUSAGE, "store %s has no anchor to check (any more)", f->store->name);
	if (checksum_hex && !im_unhex(checksum, sizeof checksum, checksum_hex))
		return im_fail(err, IM_EUSAGE, "that is no checksum");
	f->anchored = false;
	int rc = checksum_hex && f->anchored_has_sum ? take_checksum(f, checksum, err) : 0;
	if (rc)
		return rc;
	*ret_joined = f->head.joined;
	image_is_read(f);
	return spool_write_head(f->spool, &f->head, f->service->away, err);
}

static void thaw(struct followed *f)
{
	if (f->frozen_until_ms)
		follow_note(f->service, f->store->name, "the backup that froze this store is gone; it is followed on");
	f->frozen_until_ms = 0;
	f->anchored = false;
}

static void carry_out(struct followed *f, struct question *q)
{
	switch (q->what) {
	case ASK_FREEZE:
		q->rc = freeze(f, &q->err);
		break;
	case ASK_PINNED:
		q->rc = pinned(f, q->position, &q->log, &q->err);
		break;
	case ASK_IMAGE:
		q->rc = image(f, q->checksum, &q->joined, &q->err);
		return;
	case ASK_THAW:
		thaw(f);
		return;
	}
	if (q->rc && f->follower && q->rc != IM_EUSAGE)
		follow_trouble(f, q->rc, &q->err);
}

void follow_answer(struct followed *f)
{
	pthread_mutex_lock(&f->lock);
	struct question *q = f->question;
	if (q)
		q->taken = true;
	pthread_mutex_unlock(&f->lock);
	if (!q)
		return;
	carry_out(f, q);
	pthread_mutex_lock(&f->lock);
	q->done = true;
	f->question = NULL; /* or it would be carried out again before its asker wakes */
	f->thaw_wanted = f->frozen_until_ms || f->anchored;
	pthread_cond_broadcast(&f->answered);
	pthread_mutex_unlock(&f->lock);
}

void follow_refuse_questions(struct followed *f)
{
	pthread_mutex_lock(&f->lock);
	f->closed = true;
	f->question = NULL;
	pthread_cond_broadcast(&f->answered);
	pthread_mutex_unlock(&f->lock);
}
