/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching to a source, and what happens when that cannot be done without a gap: a new epoch that
 * says why it began and after what, and a snapshot for it to stand on.
 */
#include "backup/coarse.h"
#include "backup/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define EPOCH_SETTLED_MS 60000 /* an epoch that lived longer is followed by the next one at once */
#define EPOCH_WAIT_MIN_MS 5000
#define EPOCH_WAIT_MAX_MS 300000
#define RETRY_MIN_MS 1000
#define TROUBLE_FORGOTTEN_MS 60000
#define SNAPSHOT_AGAIN_MS 300000

/* --- a new epoch --- */

static void new_epoch_id(char ret[LOG_EPOCH_CHARS + 1])
{
	uint8_t random[4];
	crypto_random(random, sizeof random);
	snprintf(ret, LOG_EPOCH_CHARS + 1, "%012" PRIx64 "%02x%02x%02x%02x", (uint64_t)im_now_ms() & UINT64_C(0xffffffffffff), random[0], random[1],
	    random[2], random[3]);
}

static json_t *why_began(const struct spool_head *h, const char *reason)
{
	char hash[65];
	json_t *text = json_string(reason); /* NULL if it is not UTF-8 */
	json_t *began = json_pack("{s:o}", "reason", text ? text : json_string("the source could not be followed"));
	if (h->point)
		json_object_set_new(began, "after", json_pack("{s:s, s:I, s:s, s:I}", "epoch", h->epoch, "point", (json_int_t)h->point, "hash",
		    im_hex(hash, h->hash, 32), "complete_ms", (json_int_t)h->complete_ms));
	return began;
}

static void combine(uint8_t ret[SPOOL_SUM_BYTES], const uint8_t *a, const uint8_t *b, const uint8_t *c)
{
	for (size_t i = 0; i < SPOOL_SUM_BYTES; i++)
		ret[i] = a[i] ^ b[i] ^ c[i];
}

/* In memory only: it is there once its first segment is in the spool. */
static void begin_epoch(struct followed *f, const char *reason)
{
	struct spool_head next = { .snapshot_due = true };
	uint8_t sum[SPOOL_SUM_BYTES];
	new_epoch_id(next.epoch);
	f->epoch_ms = im_monotonic_ms();
	if (f->began && f->head.point == 0) { /* the last attempt did not get that far */
		memcpy(f->head.epoch, next.epoch, sizeof next.epoch);
		return;
	}
	if (f->head.has_anchor && follow_position_sum(f->head.position, sum)) {
		next.has_before = true;
		combine(next.before_checksum, f->head.anchor_checksum, f->head.anchor_sum, sum);
	}
	json_decref(f->began);
	f->began = why_began(&f->head, reason);
	spool_head_clear(&f->head);
	f->head = next;
	f->anchored = f->imaged = false;
	f->snapshot_again_ms = 0;
	pthread_mutex_lock(&f->lock);
	f->snapshot_running = f->snapshot_taken = false; /* one under way is not of this epoch */
	pthread_mutex_unlock(&f->lock);
	coarse_restart(f->coarse);
}

static void record_gap(struct followed *f, const char *reason)
{
	const struct follow_events *events = f->service->request->events;
	char text[400];
	snprintf(text, sizeof text, "the log has a gap: %s", reason);
	pthread_mutex_lock(&f->lock);
	f->view.gap = true;
	pthread_mutex_unlock(&f->lock);
	follow_view_text(f, f->view.gap_text, sizeof f->view.gap_text, text);
	follow_warn(f->service, f->store->name, "%s; a new epoch begins, and a snapshot is taken", text);
	if (events && events->gap)
		events->gap(events->context, f->store->name, text);
}

/* A snapshot was taken, but its image has no place in the log: another one, but not at once. */
static void try_again_later(struct followed *f)
{
	follow_warn(f->service, f->store->name, "the snapshot does not stand in the log; another one will be taken");
	f->snapshot_again_ms = im_monotonic_ms() + SNAPSHOT_AGAIN_MS;
}

void follow_heal(struct followed *f)
{
	pthread_mutex_lock(&f->lock);
	bool taken = f->snapshot_taken;
	f->snapshot_taken = false;
	pthread_mutex_unlock(&f->lock);
	if (f->snapshot_again_ms && im_monotonic_ms() >= f->snapshot_again_ms) {
		f->snapshot_again_ms = 0;
		follow_want_snapshot(f);
	}
	if (taken && !f->imaged && f->head.snapshot_due)
		try_again_later(f);
	if (!f->imaged || !(taken || f->service->snapshot_seq > f->imaged_seq))
		return;
	struct im_error why = { 0 };
	f->imaged = false;
	f->snapshot_again_ms = 0;
	follow_view_text(f, f->view.gap_text, sizeof f->view.gap_text, "");
	if (!f->head.snapshot_due)
		return;
	f->head.snapshot_due = false;
	if (spool_write_head(f->spool, &f->head, f->service->away, &why))
		follow_warn(f->service, f->store->name, "%s", why.text); /* at worst one more snapshot after a restart */
}

/* --- detaching and trouble --- */

void follow_detach(struct followed *f, bool hold)
{
	if (f->follower)
		f->ops->close(f->follower, hold);
	f->follower = NULL;
	if (f->has_batch)
		follow_batch_clear(&f->batch); /* not in the spool: it is captured again */
	f->has_batch = false;
	f->batch_since_ms = f->moved_since_ms = f->frozen_until_ms = 0;
	f->anchored = false;
	pthread_mutex_lock(&f->lock);
	f->view.following = false;
	f->view.held_bytes = 0;
	f->view.held_since_ms = 0;
	f->view.alarm[0] = '\0';
	f->view.dirty = true;
	pthread_mutex_unlock(&f->lock);
}

void follow_gap(struct followed *f, const char *reason)
{
	auto_free char *copy = strdup(reason); /* it may be the follower's */
	int64_t now = im_monotonic_ms();
	follow_detach(f, false);
	f->must_attach = true;
	f->round_done = false;
	record_gap(f, copy ? copy : "out of memory");
	f->epoch_wait_ms = !f->epoch_ms || now - f->epoch_ms >= EPOCH_SETTLED_MS ? 0
	    : f->epoch_wait_ms * 2 < EPOCH_WAIT_MIN_MS                           ? EPOCH_WAIT_MIN_MS
	    : f->epoch_wait_ms * 2 > EPOCH_WAIT_MAX_MS                           ? EPOCH_WAIT_MAX_MS
	                                                                         : f->epoch_wait_ms * 2;
	f->retry_ms = now + f->epoch_wait_ms;
	begin_epoch(f, copy ? copy : "out of memory");
}

static void not_attached(struct followed *f, const struct im_error *why, int64_t retry_ms)
{
	f->retry_ms = im_monotonic_ms() + retry_ms;
	f->must_attach = false;
	if (follow_view_text(f, f->view.trouble, sizeof f->view.trouble, why->text))
		follow_warn(f->service, f->store->name, "%s", why->text);
	pthread_mutex_lock(&f->lock);
	f->view.tried = true;
	pthread_mutex_unlock(&f->lock);
	follow_wake(f->service->wake[1]);
}

void follow_trouble(struct followed *f, int rc, const struct im_error *why)
{
	if (rc == IM_EGAP) {
		follow_gap(f, why->text);
		return;
	}
	int64_t now = im_monotonic_ms();
	f->trouble_wait_ms = now - f->attached_ms > TROUBLE_FORGOTTEN_MS ? RETRY_MIN_MS
	    : 2 * f->trouble_wait_ms > FOLLOW_REOPEN_MS                 ? FOLLOW_REOPEN_MS
	                                                                 : 2 * f->trouble_wait_ms;
	follow_detach(f, true);
	not_attached(f, why, f->trouble_wait_ms);
}

/* --- attaching --- */

static void on_warn(void *context, const char *store, const char *text)
{
	const struct followed *f = context;
	follow_warn(f->service, store ? store : f->store->name, "%s", text);
}

static int open_follower(struct followed *f, struct im_error *err)
{
	const struct service *s = f->service;
	f->events = (struct store_events){ .warn = on_warn, .context = f };
	const struct follow_request q = { .config = s->config, .store = f->store, .keyring = s->vault->keyring, .folder = f->folder,
		.position = f->head.point ? f->head.position : NULL, .point = f->head.point, .hold_ms = s->config->follow_hold_ms,
		.once = s->request->once, .events = &f->events };
	pthread_mutex_lock(&f->service->open_lock);
	int rc = f->ops->open(&q, &f->follower, err);
	pthread_mutex_unlock(&f->service->open_lock);
	return rc;
}

static void attached(struct followed *f)
{
	f->attached_ms = im_monotonic_ms();
	f->trouble_wait_ms = f->trouble_wait_ms ? f->trouble_wait_ms : RETRY_MIN_MS / 2;
	f->last_capture_ms = 0;
	if (f->ops->pending(f->follower))
		f->batch_since_ms = f->attached_ms; /* what a follower before captured and did not hand over */
	f->seen_ms = im_now_ms();
	if (follow_view_text(f, f->view.trouble, sizeof f->view.trouble, ""))
		follow_note(f->service, f->store->name, "followed again");
	pthread_mutex_lock(&f->lock);
	f->must_attach = false;
	f->view.following = f->view.tried = f->view.dirty = true;
	pthread_mutex_unlock(&f->lock);
	follow_wake(f->service->wake[1]);
}

static void first_epoch(struct followed *f)
{
	if (f->head_lost) {
		record_gap(f, f->lost_why);
		begin_epoch(f, f->lost_why);
	} else {
		begin_epoch(f, "first start");
	}
	f->head_lost = false;
}

void follow_attach(struct followed *f)
{
	struct im_error why = { 0 };
	if (im_monotonic_ms() < f->retry_ms)
		return;
	if (!f->head.epoch[0])
		first_epoch(f);
	int rc = open_follower(f, &why);
	if (rc == IM_EGAP && f->head.point) {
		follow_gap(f, why.text);
		if (f->epoch_wait_ms)
			return;
		im_error_clear(&why);
		rc = open_follower(f, &why);
	}
	if (rc) {
		f->follower = NULL;
		not_attached(f, &why, FOLLOW_REOPEN_MS);
		return;
	}
	bool begins = f->head.point == 0;
	rc = begins ? follow_flush(f, true, &why) : 0; /* so that the epoch is on record at once */
	if (rc) {
		follow_trouble(f, rc, &why);
		return;
	}
	attached(f);
	follow_publish(f);
	if (f->head.snapshot_due)
		follow_want_snapshot(f);
}
