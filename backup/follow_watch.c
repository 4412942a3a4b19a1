/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch dog of a store's thread: what the source says about itself, and whether it moves on
 * while we stand still, which must never stay unseen.
 */
#include "backup/follow_internal.h"

#include "base/clock.h"

#include <string.h>

enum { HEALTH_MS = 1000, LOOK_MS = 2000, STALL_MS = 10000 };

static void look_at_health(struct followed *f)
{
	struct follow_health h = { 0 };
	f->ops->health(f->follower, &h);
	pthread_mutex_lock(&f->lock);
	f->view.dirty |= f->view.held_bytes != h.held_bytes;
	f->view.held_bytes = h.held_bytes;
	f->view.held_since_ms = h.held_since_ms;
	pthread_mutex_unlock(&f->lock);
	bool had = f->view.alarm[0];
	if (!follow_view_text(f, f->view.alarm, sizeof f->view.alarm, h.alarm))
		return;
	if (h.alarm && !had)
		follow_warn(f->service, f->store->name, "%s", h.alarm);
	else if (!h.alarm)
		follow_note(f->service, f->store->name, "the alarm is over");
}

static bool source_is_ahead(struct followed *f)
{
	bool moved = false;
	int64_t last_ms = 0;
	if (f->batch_since_ms || f->has_batch || !f->head.position)
		return false;
	if (f->ops->moved(f->store, f->head.position, &moved, &last_ms, NULL))
		return false; /* not there to be looked at: capture says so itself */
	return moved && last_ms > f->seen_ms;
}

static void stalled(struct followed *f)
{
	f->moved_since_ms = 0;
	if (f->stalls++ == 0) {
		follow_warn(f->service, f->store->name, "the source moves on, but nothing new is captured: attaching anew");
		follow_detach(f, true);
		f->retry_ms = 0;
		return;
	}
	follow_gap(f, "the source moved on while nothing new could be captured");
}

void follow_watch(struct followed *f)
{
	int64_t now = im_monotonic_ms();
	if (!f->follower)
		return;
	if (now - f->health_ms >= HEALTH_MS) {
		f->health_ms = now;
		look_at_health(f);
		follow_heal(f);
	}
	if (now - f->look_ms < LOOK_MS)
		return;
	f->look_ms = now;
	if (f->frozen_until_ms || f->view.trouble[0] || !source_is_ahead(f)) /* standing still for a reason */
		f->moved_since_ms = 0;
	else if (!f->moved_since_ms)
		f->moved_since_ms = now;
	else if (now - f->moved_since_ms > STALL_MS + f->service->config->follow_flush_ms)
		stalled(f);
}
