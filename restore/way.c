/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How each store comes back. The newest image and the log behind it nearly always lead furthest; an
 * older image is looked at when that one is missing, cannot be read, or has a log that breaks off
 * early. Whatever is not as it should be is said here, once.
 */
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "restore/internal.h"

#include <inttypes.h>
#include <string.h>

/* A snapshot that should have counted but cannot be read. */
static void tell_bad(struct restore_job *job, size_t i)
{
	if (!job->history.told[i])
		restore_warn(job, "%s", job->history.bad[i]);
	job->history.told[i] = true;
}

/* Once it is decided where the store goes, an image from elsewhere no longer fits. */
static bool fits_target(const struct restore_pick *p, const struct snapshot *s)
{
	const char *path = json_string_value(json_object_get(snapshot_manifest(s, p->name), "path"));
	return !p->unit_path || (path && strcmp(path, p->path) == 0);
}

/* Where the clock was set back, instants prove nothing: only a log that was written when snapshot seq was there is later than it. */
static bool is_better(const struct restore_route *fresh, const struct restore_route *old, uint64_t seq)
{
	if (!old->snapshot)
		return true;
	return seq ? fresh->snapshot_seq >= seq && old->snapshot_seq < seq : fresh->reached_ms > old->reached_ms;
}

/* An image without a place in the log is later than all of an epoch that another one had followed by then, whatever the
 * clocks say. newest: the epoch of the newest image with a place. */
static bool is_over(const struct restore_route *fresh, const struct restore_route *old, const char *newest)
{
	return fresh->has_log && old->snapshot && !old->has_log && strcmp(fresh->epoch, newest) != 0;
}

/* seq: 0, or see is_better. newest: see is_over; "" until an image with a place was met. */
static int consider(struct restore_job *job, struct restore_pick *p, size_t i,
    const struct snapshot *s, uint64_t seq, char newest[LOG_EPOCH_CHARS + 1], struct im_error *err)
{
	struct restore_route fresh = { 0 };
	int64_t image_ms;
	if (!history_has_image(s, p->name, &image_ms) || image_ms > job->until_ms || !fits_target(p, s))
		return 0;
	int rc = route_plan(&job->history, i, p->name, image_ms, job->until_ms, &p->lost, &fresh, err);
	if (rc == 0 && fresh.has_log && !*newest)
		memcpy(newest, fresh.epoch, LOG_EPOCH_CHARS + 1);
	if (rc == 0 && !is_over(&fresh, &p->route, newest) && is_better(&fresh, &p->route, seq)) {
		struct restore_route old = p->route;
		p->route = fresh;
		fresh = old;
	}
	route_clear(&fresh);
	return rc;
}

static int look_back(struct restore_job *job, struct restore_pick *p, bool *ret_skipped, struct im_error *err)
{
	struct history *h = &job->history;
	bool go_on = true;
	int rc = 0;
	/* beyond a readable one that is too new, nothing counts */
	for (size_t i = job->main + 1; i < h->names.count && h->bad[i]; i++) {
		tell_bad(job, i);
		*ret_skipped = true;
	}
	int64_t newest_ms = -1, image_ms;
	uint64_t newest_seq = 0;
	bool set_back = false;
	char newest_epoch[LOG_EPOCH_CHARS + 1] = "";
	for (size_t i = job->main + 1; i-- > 0;) {
		struct snapshot *s = NULL;
		if (i < job->main)
			rc = route_may_gain(h, p->name, &p->route, job->until_ms, &go_on, err);
		if (rc || !go_on)
			return rc;
		rc = history_get(h, i, &s, err);
		/* An older image that looks later: the clock was set back in between. */
		if (rc == 0 && s && history_has_image(s, p->name, &image_ms) && newest_ms >= 0 && image_ms > newest_ms)
			set_back = true;
		if (rc == 0 && s)
			rc = consider(job, p, i, s, set_back ? newest_seq : 0, newest_epoch, err);
		if (newest_ms < 0 && p->route.snapshot) {
			newest_ms = p->route.image_ms;
			newest_seq = p->route.snapshot->seq;
		}
		if (rc)
			return rc;
		if (!s && !p->route.snapshot) {
			tell_bad(job, i);
			*ret_skipped = true;
		}
	}
	return 0;
}

static void fail_pick(struct restore_job *job, struct restore_pick *p, const char *reason)
{
	restore_worst(job, IM_EPARTIAL);
	restore_warn(job, "store %s is not in snapshot %" PRIu64 ": %s", p->name, job->snapshot->seq, reason);
	p->failed = job->bad = true;
}

/* From another snapshot than the chosen one: why, and is that a loss? */
static void tell_older(struct restore_job *job, struct restore_pick *p, const char *reason)
{
	char instant[IM_INSTANT_BYTES];
	int64_t image_ms;
	const struct restore_route *r = &p->route;
	im_instant_format(instant, r->has_log ? r->reached_ms : r->image_ms);
	if (history_has_image(job->snapshot, p->name, &image_ms)) {
		if (image_ms <= job->until_ms)
			restore_warn(job,
			    "store %s: snapshot %" PRIu64
			    " and the log behind it reach further than snapshot %" PRIu64 " does; they are used, up to %s",
			    p->name, r->snapshot->seq, job->snapshot->seq, instant);
		return;
	}
	restore_warn(job, "store %s is not in snapshot %" PRIu64 " (%s); it comes from snapshot %" PRIu64 "%s of %s",
	    p->name, job->snapshot->seq, reason, r->snapshot->seq, r->has_log ? " and the log behind it, up to the state" : "", instant);
	p->late = !r->has_log || r->broken || r->missing;
	if (p->late)
		restore_worst(job, IM_EPARTIAL);
}

static void tell_end(struct restore_job *job, const struct restore_pick *p)
{
	char instant[IM_INSTANT_BYTES];
	const struct restore_route *r = &p->route;
	if (r->stopped)
		restore_warn(job, "store %s: reached %s and no further: %s", p->name,
		    im_instant_format(instant, r->reached_ms), r->stopped);
	if (r->missing)
		restore_worst(job, IM_EPARTIAL);
}

static int find_newest(struct restore_job *job, struct restore_pick *p, const char *reason, struct im_error *err)
{
	bool skipped = false;
	int rc = look_back(job, p, &skipped, err);
	if (rc)
		return rc;
	struct restore_route *r = &p->route;
	if (!r->snapshot) {
		fail_pick(job, p, reason);
		return 0;
	}
	/* what a snapshot that cannot be read held is only made up for by a log that goes past it */
	if (skipped && (!r->has_log || r->broken || r->missing))
		restore_worst(job, IM_EPARTIAL);
	p->snapshot = r->snapshot;
	p->manifest = snapshot_manifest(r->snapshot, p->name);
	if (r->snapshot != job->snapshot)
		tell_older(job, p, reason);
	tell_end(job, p);
	return 0;
}

int restore_find_way(struct restore_job *job, struct restore_pick *p, const char *reason, struct im_error *err)
{
	if (!job->named)
		return find_newest(job, p, reason, err);
	int64_t image_ms;
	if (!history_has_image(job->named, p->name, &image_ms)) {
		fail_pick(job, p, reason);
		return 0;
	}
	p->manifest = snapshot_manifest(job->named, p->name);
	p->route = (struct restore_route){ .snapshot = job->named, .image_ms = image_ms, .reached_ms = image_ms };
	return 0;
}

int restore_rethink(struct restore_job *job, size_t i, bool *ret_again, struct im_error *err)
{
	struct restore_pick *p = &job->picks[i];
	const char *why;
	*ret_again = route_take_lost(&p->route, &p->lost, &why);
	if (!*ret_again)
		return 0;
	restore_warn(job, "store %s: planned around a segment of its log: %s", p->name, why);
	route_clear(&p->route);
	p->manifest = NULL;
	int rc = restore_find_way(job, p, "nothing of it can be restored", err);
	return rc ? rc : restore_tell_way(job, i, err);
}
