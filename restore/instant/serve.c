/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From "the folders are shown" to "they are ordinary": the keepers' start, the service's start, the
 * watch over both, and what is told in the end.
 */
#include "restore/instant/fuse.h"
#include "restore/instant/instant_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { POLL_MS = 20, SHOW_EVERY_US = 1000000, VIEW_TRIES = 1000 };

/* What was mounted goes, if nobody uses it; else it waits for the service's end. Returns the first that stays, or NULL; borrowed. */
static const char *end_stages(struct instant *in)
{
	const char *stays = NULL;
	for (size_t i = 0; i < in->whole_count; i++) {
		struct arrangement *a = &in->wholes[i];
		struct im_error ignored = { 0 };
		bool gone = false;
		if (cover_end_alias(&a->cover, &gone, &ignored) == 0 && gone)
			arrange_remove_stage(a, &ignored);
		else if (!stays)
			stays = a->cover.staged;
	}
	return stays;
}

/* What a process learns of its working folder leads through the stage from the switch on, whoever it is. */
static int open_the_way(const struct arrangement *a, struct im_error *err)
{
	auto_free char *way = strdup(a->cover.staged);
	size_t stage_len = strlen(a->stage);
	for (char *slash; way && (slash = strrchr(way, '/')) && (size_t)(slash - way) >= stage_len;) {
		*slash = 0;
		if (chmod(way, 0711))
			return im_fail_errno(err, IM_EIO, errno, "cannot open %s to the service", way);
	}
	return way ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

static int switch_all(void *context, struct im_error *err)
{
	struct instant *in = context;
	int rc = 0;
	for (size_t i = 0; i < in->whole_count && rc == 0; i++) {
		rc = open_the_way(&in->wholes[i], err);
		if (rc == 0)
			rc = cover_switch(&in->wholes[i].cover, err);
	}
	if (rc == 0)
		rc = instant_write_records(in, RECORD_SWITCHED, err);
	/* With the last descriptor of the group goes what may still wait for an answer: everything is there. */
	if (rc == 0)
		stash_empty(in->stash);
	if (rc == 0)
		end_stages(in);
	return rc;
}

static void run_command(struct instant *in, const char *command, const char *ready)
{
	int status;
	struct im_error why = { 0 };
	auto_free char *target = target_place(in->job->target, "");
	const struct start_options o = { .command = command, .ready = ready, .target = target && *target ? target : "/", .inherit_fd = -1 };
	if (restore_start(&o, &status, &why))
		table_trouble(&in->table, "%s", why.text);
}

/* In a keeper: a view cannot become the ordinary folder while the service uses it. */
static void let_go(void *context)
{
	struct instant *in = context;
	const struct restore_request *q = in->job->request;
	struct im_error why = { 0 };
	if (!in->let_go_told_us && q->stop_command)
		run_command(in, q->stop_command, NULL);
	else if (!in->let_go_told_us)
		table_trouble(&in->table, "everything is there: stop the service for a moment, so that %s becomes an ordinary folder", in->wholes[0].cover.target);
	in->let_go_told_us = im_monotonic_us();
	for (size_t i = 0; i < in->whole_count; i++)
		fuse_view_unmount(in->wholes[i].cover.target, false, &why);
}

/* In a keeper, after the last file. */
static int finish(void *context, struct im_error *err)
{
	struct instant *in = context;
	const struct restore_request *q = in->job->request;
	int rc = switch_all(in, err);
	if (rc == 0 && in->kind == TABLE_VIEW && q->stop_command && q->exec_command)
		run_command(in, q->exec_command, q->ready_command);
	return rc;
}

static int wait_for_views(struct instant *in, struct im_error *err)
{
	uint32_t troubles = in->table.head->trouble_count;
	size_t shown = 0;
	for (int tries = 0; shown < in->whole_count; tries++) {
		const char *target = in->wholes[shown].cover.target;
		if (fuse_view_is_mounted(target)) {
			shown++;
			continue;
		}
		if (in->table.head->trouble_count != troubles || tries == VIEW_TRIES)
			return im_fail(err, IM_EUSAGE, "%s cannot be shown through FUSE: %s", target, in->table.head->trouble);
		im_sleep_ms(10);
	}
	return 0;
}

/* Nothing was served yet. */
static void end_keepers(struct instant *in)
{
	keeper_end(&in->table);
	waitpid(in->child, NULL, 0);
	in->child = -1;
	in->serving = false;
}

static int make_views(struct instant *in, struct im_error *err)
{
	in->views = calloc(in->whole_count, sizeof *in->views);
	if (!in->views)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < in->whole_count; i++)
		in->views[i] = (struct worker_view){ in->wholes[i].cover.staged, in->wholes[i].cover.target };
	in->worker.views = in->views;
	in->worker.view_count = in->whole_count;
	return 0;
}

int instant_serve(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	struct im_error ignored = { 0 };
	int read = storage_read_object(job->request->vault->storage, "vault.json", 64u << 10, &in->identity, err);
	if (read)
		return read;
	trace_recall(job->request->vault, job->result->node, engine_content(job->engine), &in->table, &in->hot, &in->hot_count, &ignored);
	in->worker = (struct worker_options){ .hydrate = { .content = engine_content(job->engine), .table = &in->table,
		.storage = job->request->vault->storage, .identity = in->identity.data, .identity_len = in->identity.len, .fds = in->fds, .group = in->group, .resumed = in->resumed }, .order = in->order, .hot = in->hot, .hot_count = in->hot_count };
	if (pipe2(in->alive, O_CLOEXEC))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot make a pipe");
	in->keeper = (struct keeper_options){ .table = &in->table, .worker = &in->worker, .finish = finish, .release = in->kind == TABLE_VIEW ? let_go : NULL, .context = in };
	int rc = instant_write_records(in, RECORD_SERVING, err);
	if (in->kind == TABLE_VIEW && rc == 0)
		rc = make_views(in, err);
	for (size_t i = 0; i < in->whole_count && in->kind != TABLE_VIEW && rc == 0; i++)
		rc = cover_is_mounted(&in->wholes[i].cover) || cover_is_switched(&in->wholes[i].cover) ? 0 : cover_mount(&in->wholes[i].cover, err);
	if (rc)
		return rc;
	in->table.head->awaits_service = job->request->exec_command != NULL;
	if (table_phase(&in->table) == TABLE_BUILDING)
		in->table.head->phase = TABLE_HYDRATING;
	in->table.head->ready_us = im_monotonic_us();
	rc = keeper_start(&in->keeper, &in->child, err);
	in->serving = rc == 0;
	if (rc == 0 && in->kind == TABLE_VIEW && (rc = wait_for_views(in, err)))
		end_keepers(in);
	in->table.head->ready_us = im_monotonic_us();
	return rc;
}

/* Both clocks, and how much the service asks for. */
static void show_progress(struct instant *in)
{
	const struct restore_events *ev = in->job->request->events;
	const struct table_head *h = in->table.head;
	int64_t now_us = im_monotonic_us(), took_us = now_us - in->shown_us;
	char text[64], ready[40], rate[24];
	if (ev && ev->progress)
		ev->progress(ev->context, h->filled_bytes, h->total_bytes);
	if (!ev || !ev->note || took_us < SHOW_EVERY_US)
		return;
	uint64_t demand = h->demand_bytes;
	im_bytes_format(rate, sizeof rate, (demand - in->shown_demand) * 1000000 / (uint64_t)took_us);
	if (h->service_us)
		snprintf(text, sizeof text, "service ready after %s, asks for %s/s", im_duration_format(ready, sizeof ready, (h->service_us - h->begin_us) / 1000), rate);
	else
		snprintf(text, sizeof text, "service asks for %s/s", rate);
	ev->note(ev->context, text);
	in->shown_us = now_us;
	in->shown_demand = demand;
}

/* Nobody else watches any more: we begin anew. */
static void guard(void *context)
{
	struct instant *in = context;
	struct pollfd end = { .fd = in->alive[0], .events = POLLIN };
	struct im_error ignored = { 0 };
	show_progress(in);
	if (in->alive[1] >= 0) { /* ours would keep the pipe alive */
		close(in->alive[1]);
		in->alive[1] = -1;
	}
	if (table_phase(&in->table) == TABLE_SWITCHED && in->group >= 0) { /* see switch_all */
		close(in->group);
		in->group = -1;
	}
	if (poll(&end, 1, 0) <= 0 || !(end.revents & POLLHUP) || table_phase(&in->table) == TABLE_SWITCHED || table_phase(&in->table) == TABLE_GIVEN_UP)
		return;
	waitpid(in->child, NULL, 0);
	close(in->alive[0]);
	if (pipe2(in->alive, O_CLOEXEC) == 0)
		keeper_start(&in->keeper, &in->child, &ignored);
}

static int wait_until_complete(struct instant *in, struct im_error *err)
{
	const struct table_head *h = in->table.head;
	uint32_t told = 0;
	char text[TABLE_TROUBLE_BYTES];
	while (table_phase(&in->table) != TABLE_SWITCHED) {
		struct pollfd end = { .fd = in->alive[0], .events = POLLIN };
		guard(in);
		poll(&end, 1, POLL_MS);
		if (h->trouble_count != told) {
			told = h->trouble_count;
			snprintf(text, sizeof text, "%s", h->trouble);
			restore_warn(in->job, "%s", text);
		}
		if (table_phase(&in->table) == TABLE_GIVEN_UP)
			return im_fail(err, IM_EFAIL, "the restore was ended by imvault restore --abort");
		int stuck = table_check(&in->table, err);
		if (stuck)
			return stuck;
		if (im_interrupt_signal())
			return im_fail(err, IM_EINTERRUPTED, "interrupted; the restore goes on in the background (imvault status shows it)");
	}
	return 0;
}

static int64_t since_start_ms(const struct instant *in, int64_t us)
{
	return us ? (us - in->job->start_us + 500) / 1000 : -1;
}

static int start_service(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	struct restore_result *r = job->result;
	if (!job->request->exec_command) {
		r->service_ready_ms = since_start_ms(in, in->table.head->ready_us);
		in->table.head->service_us = in->table.head->ready_us;
		return 0;
	}
	restore_phase_begin(job, "start");
	int64_t begin = im_monotonic_us();
	auto_free char *target = target_place(job->target, "");
	const struct start_options options = { .command = job->request->exec_command, .ready = job->request->ready_command, .target = target && *target ? target : "/",
		.inherit_fd = in->kind == TABLE_VIEW ? -1 : in->stash, .files_soft = in->files_before, .tick = guard, .context = in };
	int rc = restore_start(&options, &r->exec_status, err);
	in->table.head->awaits_service = 0;
	restore_phase_add(job, "start", im_monotonic_us() - begin, 0);
	if (rc)
		return rc;
	in->table.head->service_us = im_monotonic_us();
	r->service_ready_ms = since_start_ms(in, in->table.head->service_us);
	struct im_error why = { 0 };
	if (trace_keep(job->request->vault, r->node, engine_content(job->engine), &in->table, &why))
		restore_warn(job, "what the service needed to start could not be noted in the vault for next time: %s", why.text);
	return 0;
}

/* Where what stood at path went; allocated, NULL if nothing did. */
static char *moved_aside(const struct instant *in, const char *path)
{
	for (size_t i = 0; path && i < in->whole_count; i++) {
		const struct arrangement *a = &in->wholes[i];
		const char *name = strrchr(path, '/') + 1;
		size_t folder = a->is_folder ? strlen(a->cover.target) : (size_t)(strrchr(a->cover.target, '/') - a->cover.target), k;
		json_t *row;
		json_array_foreach(a->moves, k, row) {
			const char *from = json_string_value(json_object_get(row, "from")), *to = json_string_value(json_object_get(row, "to"));
			if ((size_t)(name - path) == folder + 1 && strncmp(path, a->cover.target, folder) == 0 && strcmp(from, name) == 0 && strcmp(from, to) != 0)
				return im_format("%.*s/%s", (int)folder, a->cover.target, to);
		}
	}
	return NULL;
}

static void tell(struct instant *in)
{
	struct restore_job *job = in->job;
	struct restore_result *r = job->result;
	const struct table_head *h = in->table.head;
	r->instant = (struct restore_instant){ .events = h->events, .demand_bytes = h->demand_bytes, .longest_wait_ms = (int64_t)h->longest_us / 1000,
		.worker_starts = h->worker_starts, .keeper_starts = h->keeper_starts };
	for (size_t i = 0; i < job->pick_count; i++) {
		bool differs = false, lacks = false;
		for (uint32_t k = 0; k < h->file_count; k++) {
			bool its = content_file(engine_content(job->engine), k)->store == job->picks[i].engine_store;
			differs |= its && in->table.files[k].differs;
			lacks |= its && in->table.files[k].left && h->bad_blocks;
		}
		restore_row(job, i, differs ? "different" : lacks ? "damaged" : job->picks[i].late ? "older" : "ok",
		    differs ? "it is not what the snapshot and its log say" :
		    lacks   ? "parts of it are damaged in the vault: reading them is an error" :
			      "each block compared; not checked as a whole, since the service was writing already");
		job->result->stores[i].moved_aside = moved_aside(in, job->result->stores[i].path);
		if (differs) {
			job->bad = true;
			restore_worst(job, IM_ECORRUPT);
		}
	}
}

int instant_see_through(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	struct im_error why = { 0 };
	int rc = start_service(in, &why);
	if (rc == IM_EINTERRUPTED)
		return im_fail(err, rc, "%s; the restore goes on in the background (imvault status shows it)", why.text);
	if (rc)
		restore_warn(job, "%s", why.text);
	restore_phase_begin(job, "hydrate");
	int64_t begin = im_monotonic_us();
	int end = job->request->detach ? 0 : wait_until_complete(in, err);
	restore_phase_add(job, "hydrate", im_monotonic_us() - begin, in->table.head->filled_bytes);
	tell(in);
	if (end || job->request->detach)
		return end ? end : rc ? im_fail(err, rc, "%s", why.text) : 0;
	job->result->data_complete_ms = since_start_ms(in, in->table.head->switched_us);
	const char *alias = end_stages(in);
	job->result->instant.alias = alias ? strdup(alias) : NULL;
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}
