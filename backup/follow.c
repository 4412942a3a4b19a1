/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service, as a story: set up, start a thread per store, one that ships, one that has snapshots
 * taken and one that answers backups; watch over them; end them in the order in which one feeds the
 * other; say how it went.
 */
#include "backup/follow.h"

#include "backup/coarse.h"
#include "backup/control.h"
#include "backup/follow_internal.h"

#include "base/clock.h"
#include "base/interrupt.h"
#include "base/notify.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_MS = 1000, STATUS_MAX_AGE_MS = 10000, MANAGER_MS = 5000, LOOK_MS = 1000, CLOCK_STEP_MS = 1000,
	ONCE_SHIP_MS = 3600 * 1000,
	WATCHDOG_PATIENCE_MS = 15 * 60 * 1000 }; /* capturing a VACUUM of a large database takes its time */

struct watch { /* the main thread's */
	int64_t written_ms, manager_ms, look_ms, watchdog_ms, watchdog_every_ms; /* monotonic */
	int64_t clock_offset_ms; /* wall clock minus monotonic */
	bool ready;
};

/* --- watching over the threads --- */

static bool all_tried(struct service *s)
{
	bool all = true;
	for (size_t i = 0; i < s->store_count; i++) {
		pthread_mutex_lock(&s->stores[i].lock);
		all = all && s->stores[i].view.tried;
		pthread_mutex_unlock(&s->stores[i].lock);
	}
	return all;
}

static bool all_finished(struct service *s)
{
	for (size_t i = 0; i < s->store_count; i++)
		if (!s->stores[i].finished)
			return false;
	return true;
}

static void say_ready(struct service *s, struct watch *w)
{
	const struct follow_events *events = s->request->events;
	if (w->ready || !all_tried(s))
		return;
	w->ready = true;
	im_notify("READY=1");
	if (events && events->ready)
		events->ready(events->context);
}

static void write_status(struct service *s, struct watch *w, bool all)
{
	int64_t now = im_monotonic_ms();
	bool old = now - w->written_ms >= STATUS_MAX_AGE_MS;
	if (now - w->written_ms < TICK_MS && !all)
		return;
	for (size_t i = 0; i < s->store_count; i++) {
		struct followed *f = &s->stores[i];
		pthread_mutex_lock(&f->lock);
		bool dirty = f->view.dirty;
		pthread_mutex_unlock(&f->lock);
		if (dirty || old || all)
			follow_write_status(f);
		if (dirty || old)
			w->written_ms = now;
	}
}

/* The worst that is wrong with a store, or NULL. */
static const char *view_text(const struct follow_view *v)
{
	return v->trouble[0] ? v->trouble : v->gap_text[0] ? v->gap_text : v->alarm[0] ? v->alarm : NULL;
}

static void tell_manager(struct service *s, struct watch *w)
{
	char spooled[24];
	int64_t now = im_monotonic_ms();
	size_t following = 0, alarms = 0;
	if (now - w->manager_ms < MANAGER_MS)
		return;
	w->manager_ms = now;
	for (size_t i = 0; i < s->store_count; i++) {
		const struct follow_view *v = &s->stores[i].view;
		pthread_mutex_lock(&s->stores[i].lock);
		following += v->following;
		alarms += view_text(v) != NULL;
		pthread_mutex_unlock(&s->stores[i].lock);
	}
	im_notify("STATUS=Following %zu of %zu stores; %zu with problems; %s waiting to be shipped%s", following, s->store_count, alarms,
	    im_bytes_format(spooled, sizeof spooled, follow_spooled_bytes(s)), s->away ? "; the vault is away" : "");
}

/* Copied under its lock, told without any. */
static void tell_look(struct service *s, struct watch *w)
{
	const struct follow_events *events = s->request->events;
	int64_t now = im_monotonic_ms();
	if (!events || !events->look || now - w->look_ms < LOOK_MS)
		return;
	w->look_ms = now;
	struct follow_look *looks = calloc(s->store_count + 1, sizeof *looks);
	char (*texts)[400] = calloc(s->store_count + 1, sizeof *texts);
	for (size_t i = 0; looks && texts && i < s->store_count; i++) {
		struct followed *f = &s->stores[i];
		looks[i] = (struct follow_look){ .store = f->store->name, .spooled_bytes = spool_bytes(f->spool) };
		pthread_mutex_lock(&f->lock);
		looks[i].shipped_ms = f->view.shipped_ms;
		snprintf(texts[i], sizeof texts[i], "%s", view_text(&f->view) ? view_text(&f->view) : "");
		pthread_mutex_unlock(&f->lock);
		looks[i].text = texts[i][0] ? texts[i] : NULL;
	}
	if (looks && texts)
		events->look(events->context, looks, s->store_count);
	free(texts);
	free(looks);
}

/* Each store's thread must have been round its loop lately. */
static void feed_watchdog(struct service *s, struct watch *w)
{
	int64_t now = im_monotonic_ms();
	if (!w->watchdog_every_ms || now - w->watchdog_ms < w->watchdog_every_ms / 2)
		return;
	for (size_t i = 0; i < s->store_count; i++)
		if (!s->stores[i].finished && now - s->stores[i].ticked_ms > WATCHDOG_PATIENCE_MS)
			return;
	w->watchdog_ms = now;
	im_notify("WATCHDOG=1");
}

static void watch_clock(struct service *s, struct watch *w)
{
	int64_t offset = im_now_ms() - im_monotonic_ms();
	if (offset < w->clock_offset_ms - CLOCK_STEP_MS)
		follow_warn(s, NULL, "the clock was set back by %" PRId64 " ms: until it has caught up, restores cannot tell instants apart",
		    w->clock_offset_ms - offset);
	w->clock_offset_ms = offset;
}

static void look_at_signals(struct service *s)
{
	int run = FOLLOW_RUN;
	if (im_interrupt_signal())
		s->state = FOLLOW_STOP;
	else if (im_interrupt_take_hangup())
		atomic_compare_exchange_strong(&s->state, &run, FOLLOW_RELOAD);
}

static void tick(struct service *s, struct watch *w)
{
	struct pollfd fd = { .fd = s->wake[0], .events = POLLIN };
	poll(&fd, 1, TICK_MS);
	follow_drain(s->wake[0]);
	look_at_signals(s);
	say_ready(s, w);
	write_status(s, w, false);
	feed_watchdog(s, w);
	watch_clock(s, w);
	tell_manager(s, w);
	tell_look(s, w);
}

/* --- starting and ending them --- */

static int start_threads(struct service *s, struct im_error *err)
{
	s->shipper_started = pthread_create(&s->shipper, NULL, follow_ship_thread, s) == 0;
	s->snapshotter_started = pthread_create(&s->snapshotter, NULL, follow_snapshot_thread, s) == 0;
	bool ok = s->shipper_started && s->snapshotter_started;
	for (size_t i = 0; ok && i < s->store_count; i++) {
		struct followed *f = &s->stores[i];
		f->ticked_ms = im_monotonic_ms();
		ok = f->started = pthread_create(&f->thread, NULL, follow_store_thread, f) == 0;
	}
	return ok ? 0 : im_fail(err, IM_EFAIL, "cannot start a thread");
}

static void end_stores(struct service *s)
{
	for (size_t i = 0; i < s->store_count; i++)
		follow_wake(s->stores[i].wake[1]);
	for (size_t i = 0; i < s->store_count; i++)
		if (s->stores[i].started)
			pthread_join(s->stores[i].thread, NULL);
}

static void end_snapshotter(struct service *s)
{
	const struct follow_events *events = s->request->events;
	pthread_mutex_lock(&s->snapshot_lock);
	s->snapshot_end = true;
	pthread_cond_signal(&s->snapshot_wake);
	pthread_mutex_unlock(&s->snapshot_lock);
	if (s->snapshotter_started && events && events->cancel)
		events->cancel(events->context);
	if (s->snapshotter_started)
		pthread_join(s->snapshotter, NULL);
}

static void let_shipper_end(struct service *s, int64_t within_ms)
{
	pthread_mutex_lock(&s->ship_lock);
	s->ship_end = true;
	s->ship_deadline_ms = im_monotonic_ms() + within_ms;
	pthread_cond_signal(&s->ship_wake);
	pthread_mutex_unlock(&s->ship_lock);
}

static void end_shipper(struct service *s, struct watch *w)
{
	bool once = s->request->once && s->state == FOLLOW_RUN;
	let_shipper_end(s, once ? ONCE_SHIP_MS : s->state == FOLLOW_RELOAD ? 0 : FOLLOW_STOP_SHIP_MS);
	while (s->shipper_started && !s->ship_finished) {
		tick(s, w);
		if (once && s->state != FOLLOW_RUN)
			let_shipper_end(s, 0);
	}
	if (s->shipper_started)
		pthread_join(s->shipper, NULL);
}

static int run_threads(struct service *s, struct watch *w, struct im_error *err)
{
	struct control_ops ops = follow_control_ops;
	struct control *control = NULL;
	ops.context = s;
	int rc = control_start(s->folder, &ops, &control, err);
	if (rc == 0)
		rc = start_threads(s, err);
	if (rc)
		s->state = FOLLOW_STOP;
	while (s->state == FOLLOW_RUN && !all_finished(s))
		tick(s, w);
	if (s->state == FOLLOW_RELOAD)
		im_notify_reloading();
	else
		im_notify("STOPPING=1");
	end_stores(s);
	for (size_t i = 0; i < s->store_count; i++)
		coarse_finish(s->stores[i].coarse);
	end_snapshotter(s);
	control_stop(control);
	end_shipper(s, w);
	return rc;
}

/* --- how it went --- */

static int fill_row(struct followed *f, struct follow_store *row, struct im_error *err)
{
	const struct follow_view *v = &f->view;
	const char *text = view_text(v);
	*row = (struct follow_store){ .name = strdup(f->store->name), .type = strdup(f->store->type), .text = text ? strdup(text) : NULL,
		.status = v->trouble[0] ? "failed" : v->gap ? "gap" : "following", .point = v->point, .segments = v->segments,
		.bytes_shipped = v->bytes_shipped, .bytes_changed = v->bytes_changed, .commits = v->commits, .complete_ms = v->shipped_ms,
		.spooled_bytes = (int64_t)spool_bytes(f->spool) };
	strcpy(row->epoch, v->epoch);
	return row->name && row->type ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

static int fill_result(struct service *s, struct follow_result *ret, struct im_error *err)
{
	int rc = 0;
	ret->stores = calloc(s->store_count + 1, sizeof *ret->stores);
	if (!ret->stores)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; rc == 0 && i < s->store_count; i++)
		rc = fill_row(&s->stores[i], &ret->stores[ret->store_count++], err);
	return rc;
}

static int judge(const struct service *s, const struct follow_result *r, struct im_error *err)
{
	size_t failed = 0, gaps = 0;
	int64_t spooled = 0;
	if (!s->request->once)
		return 0;
	if (s->state != FOLLOW_RUN)
		return im_interrupt_check(err);
	for (size_t i = 0; i < r->store_count; i++) {
		failed += strcmp(r->stores[i].status, "failed") == 0;
		gaps += strcmp(r->stores[i].status, "gap") == 0;
		spooled += r->stores[i].spooled_bytes;
	}
	if (failed)
		return im_fail(err, IM_EPARTIAL, "%zu of %zu stores could not be followed", failed, r->store_count);
	if (spooled)
		return im_fail(err, IM_EUNREACHABLE, "the vault could not be reached: what was captured waits in the spool");
	if (s->snapshot_rc)
		return im_fail(err, IM_EPARTIAL, "the snapshot that the log needs could not be taken; run imvault backup");
	return gaps ? im_fail(err, IM_EGAP, "the log of %zu of %zu stores has a gap", gaps, r->store_count) : 0;
}

int follow_run(const struct follow_service_request *request, bool *ret_reload, struct follow_result *ret, struct im_error *err)
{
	struct watch w = { .watchdog_every_ms = im_notify_watchdog_ms(), .clock_offset_ms = im_now_ms() - im_monotonic_ms() };
	struct service s = { .request = request, .config = request->config, .lock_fd = -1, .wake = { -1, -1 },
		.node = request->node ? request->node : request->config->node_name,
		.url = request->vault_url ? request->vault_url : request->config->vault_url };
	*ret = (struct follow_result){ 0 };
	*ret_reload = false;
	if (!im_name_valid(s.node))
		return im_fail(err, IM_EUSAGE, "node name \"%s\" is not allowed", s.node);
	ret->node = strdup(s.node);
	int rc = follow_setup(&s, err);
	if (rc == 0) {
		im_interrupt_wake(s.wake[1]);
		rc = run_threads(&s, &w, err);
		im_interrupt_wake(-1);
		write_status(&s, &w, true);
		*ret_reload = s.state == FOLLOW_RELOAD;
		if (fill_result(&s, ret, err) == 0 && rc == 0)
			rc = judge(&s, ret, err);
	}
	follow_teardown(&s);
	return rc;
}

void follow_result_clear(struct follow_result *r)
{
	for (size_t i = 0; i < r->store_count; i++) {
		free(r->stores[i].name);
		free(r->stores[i].type);
		free(r->stores[i].text);
	}
	free(r->stores);
	free(r->node);
	*r = (struct follow_result){ 0 };
}
