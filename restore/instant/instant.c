/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The story of an instant restore, and its undoing as long as nothing was served.
 */
#include "restore/instant/instant.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "restore/instant/arrange.h"
#include "restore/instant/keeper.h"
#include "restore/instant/record.h"
#include "restore/instant/stash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SPARE_DESCRIPTORS = 256, POLL_MS = 20 };

struct instant {
	struct restore_job *job;
	enum fan_kind kind;
	struct arrangement *wholes;
	size_t whole_count;
	size_t arranged;        /* so many of them were begun */
	int *fds;               /* of the files, by number; then the table's and the group's: as the stash holds them */
	uint32_t file_count;
	struct table table;
	int group, stash, alive[2]; /* alive: read and write end */
	uint32_t *order;
	struct worker_options worker;
	struct keeper_options keeper;
	pid_t child;            /* the first keeper, or -1 */
	bool serving;           /* from here on nothing is undone */
	rlim_t files_before;    /* the soft limit we came with */
};

static const char *kind_name(enum fan_kind kind)
{
	return kind == FAN_BLOCKS ? "blocks" : "files";
}

static int decline(struct instant *in, struct im_error *err, const char *why)
{
	in->job->declined = true;
	return im_fail(err, IM_EUSAGE, "%s", why);
}

/* --- before --- */

static void raise_limit(struct instant *in)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	in->files_before = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

uint32_t instant_files_max(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_max < 2 * SPARE_DESCRIPTORS)
		return 0;
	rlim_t room = limit.rlim_max - SPARE_DESCRIPTORS;
	return room < STASH_MAX - SPARE_DESCRIPTORS ? (uint32_t)room : STASH_MAX - SPARE_DESCRIPTORS;
}

/* Which kind of events every file system concerned can give. */
static int choose_kind(struct instant *in, struct im_error *err)
{
	enum restore_mode wanted = in->job->request->mode;
	struct im_error why = { 0 };
	for (int k = wanted == RESTORE_FILES ? FAN_FILES : FAN_BLOCKS; k <= (wanted == RESTORE_BLOCKS ? FAN_BLOCKS : FAN_FILES); k++) {
		int rc = 0;
		for (size_t i = 0; i < target_whole_count(in->job->target) && rc == 0; i++) {
			struct target_whole w;
			rc = target_get_whole(in->job->target, i, &w, &why);
			if (rc == 0)
				rc = fan_probe((enum fan_kind)k, w.stage_fd, &why);
			target_whole_clear(&w);
		}
		in->kind = (enum fan_kind)k;
		if (rc == 0 && k == FAN_FILES && wanted == RESTORE_INSTANT)
			restore_warn(in->job, "whole files are brought when they are first opened, since parts of them cannot be watched here: %s", why.text);
		if (rc == 0)
			return 0;
	}
	return decline(in, err, why.text);
}

/* Damage that is known before anything is shown is better served by an ordinary restore, which names and keeps what it can. */
static int check_plan(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	for (size_t i = 0; i < job->pick_count; i++) {
		const struct restore_pick *p = &job->picks[i];
		if (!p->manifest || p->failed || !p->added || engine_damage_count(job->engine, p->engine_store))
			return decline(in, err, "a store is damaged or missing in the vault; an ordinary restore brings back all that can be had and names the rest");
	}
	return 0;
}

static int dress(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	int rc = engine_complete(job->engine, err);
	for (size_t i = job->pick_count; i-- > 0 && rc == 0;) {
		rc = engine_dress(job->engine, job->picks[i].engine_store, err);
		engine_store_stats(job->engine, job->picks[i].engine_store, &job->result->stores[i].files, &job->result->stores[i].bytes);
	}
	engine_stop_writing(job->engine); /* a process with threads cannot be copied */
	return rc;
}

static int make_files(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	in->file_count = (uint32_t)content_count(engine_content(job->engine));
	in->fds = malloc((in->file_count + 2) * sizeof *in->fds);
	if (!in->fds)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < in->file_count + 2; i++)
		in->fds[i] = -1;
	return engine_make_lazy(job->engine, in->fds, err);
}

/* --- the state --- */

static const struct content *sort_content; /* qsort has no context in C */

static int by_size(const void *a, const void *b)
{
	const struct built_file *x = content_file(sort_content, *(const uint32_t *)a), *y = content_file(sort_content, *(const uint32_t *)b);
	if (x->writer.size_bytes != y->writer.size_bytes)
		return x->writer.size_bytes < y->writer.size_bytes ? -1 : 1;
	return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

static int make_table(struct instant *in, struct im_error *err)
{
	const struct content *c = engine_content(in->job->engine);
	uint32_t n = in->file_count;
	auto_free uint64_t *sizes = calloc(n ? n : 1, sizeof *sizes);
	auto_free bool *digests = calloc(n ? n : 1, sizeof *digests);
	in->order = calloc(n ? n : 1, sizeof *in->order);
	if (!sizes || !digests || !in->order)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < n; i++) {
		sizes[i] = content_file(c, i)->writer.size_bytes;
		digests[i] = content_file(c, i)->digest != NULL;
		in->order[i] = i;
	}
	sort_content = c;
	qsort(in->order, n, sizeof *in->order, by_size);
	int rc = table_new(sizes, digests, n, &in->table, err);
	for (uint32_t i = 0; rc == 0 && i < n; i++) {
		struct stat st;
		if (fstat(in->fds[i], &st))
			return im_fail_errno(err, IM_EIO, errno, "cannot stat a file that is restored");
		in->table.files[i].ino = st.st_ino;
	}
	if (rc)
		return rc;
	struct table_head *h = in->table.head;
	h->kind = in->kind;
	h->begin_us = in->job->start_us;
	h->begin_wall_ms = in->job->start_wall_ms;
	h->rto_ms = in->job->result->rto_ms;
	h->front = getpid();
	return 0;
}

static int watch_files(struct instant *in, struct im_error *err)
{
	int rc = fan_open(in->kind, &in->group, err);
	for (uint32_t i = 0; i < in->file_count && rc == 0; i++)
		rc = fan_mark(in->group, in->kind, in->fds[i], err);
	if (rc)
		return rc;
	in->fds[in->file_count] = in->table.fd;
	in->fds[in->file_count + 1] = in->group;
	return stash_make(in->fds, in->file_count + 2, &in->stash, err);
}

static json_t *describe(const struct instant *in, const struct arrangement *a)
{
	const struct restore_job *job = in->job;
	json_t *stores = json_array();
	for (size_t i = 0; i < job->pick_count; i++) {
		const struct restore_pick *p = &job->picks[i];
		json_array_append_new(stores, json_pack("{s:s, s:I, s:s, s:I, s:I, s:I}", "name", p->name, "snapshot", (json_int_t)p->snapshot->seq, "epoch",
		    p->route.has_log ? p->route.epoch : "", "after", (json_int_t)p->route.after, "until", (json_int_t)p->route.until, "reached_ms",
		    (json_int_t)p->route.reached_ms));
	}
	return json_pack("{s:s, s:s, s:b, s:O, s:s, s:s?, s:s, s:I, s:I, s:o}", "target", a->cover.target, "staged", a->cover.staged, "folder", a->is_folder,
	    "moves", a->moves, "node", job->result->node, "to", job->request->to, "kind", kind_name(in->kind), "stash", (json_int_t)stash_number(in->stash),
	    "begin_ms", (json_int_t)job->start_wall_ms, "stores", stores);
}

static int write_records(struct instant *in, enum record_phase phase, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; i < in->whole_count && rc == 0; i++) {
		json_t *details = describe(in, &in->wholes[i]);
		rc = details ? record_write(in->wholes[i].stage, phase, details, err) : im_fail(err, IM_ENOMEM, "out of memory");
		json_decref(details);
	}
	return rc;
}

/* --- room --- */

static int arrange_all(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	size_t n = target_whole_count(job->target);
	in->wholes = calloc(n ? n : 1, sizeof *in->wholes);
	int rc = in->wholes ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct im_error why = { 0 };
		rc = arrange_plan(job->target, i, &in->wholes[i], &why);
		in->whole_count += rc == 0;
		if (rc)
			return rc == IM_EUSAGE ? decline(in, err, why.text) : im_fail(err, rc, "%s", why.text);
	}
	return rc;
}

static int take_room(struct instant *in, struct im_error *err)
{
	int rc = write_records(in, RECORD_BUILDING, err);
	for (size_t i = 0; i < in->whole_count && rc == 0; i++) {
		in->arranged++;
		rc = arrange_do(&in->wholes[i], err);
		if (rc == 0 && in->wholes[i].loose)
			restore_warn(in->job, "%s could not be made immutable (chattr +i): should this machine go down before all is back, keep the service from starting until imvault restore --resume has run",
			    in->wholes[i].cover.target);
	}
	return rc;
}

static void undo(struct instant *in)
{
	struct im_error why = { 0 };
	if (in->group >= 0)
		close(in->group);
	in->group = -1;
	while (in->arranged > 0) {
		struct arrangement *a = &in->wholes[--in->arranged];
		if (cover_unmount(&a->cover, &why) || arrange_undo(a, &why))
			restore_warn(in->job, "%s could not be put back as it was: %s", a->cover.target, why.text);
	}
}

/* --- serving --- */

static int switch_all(void *context, struct im_error *err)
{
	struct instant *in = context;
	int rc = 0;
	for (size_t i = 0; i < in->whole_count && rc == 0; i++)
		rc = cover_switch(&in->wholes[i].cover, err);
	return rc ? rc : write_records(in, RECORD_SWITCHED, err);
}

static int serve(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	in->worker = (struct worker_options){ .hydrate = { .content = engine_content(job->engine), .table = &in->table,
		.storage = job->request->vault->storage, .fds = in->fds, .group = in->group }, .order = in->order };
	if (pipe2(in->alive, O_CLOEXEC))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot make a pipe");
	in->keeper = (struct keeper_options){ .table = &in->table, .worker = &in->worker, .finish = switch_all, .context = in, .alive_fd = in->alive[1] };
	int rc = write_records(in, RECORD_SERVING, err);
	for (size_t i = 0; i < in->whole_count && rc == 0; i++)
		rc = cover_mount(&in->wholes[i].cover, err);
	if (rc)
		return rc;
	in->table.head->phase = TABLE_HYDRATING;
	in->table.head->ready_us = im_monotonic_us();
	rc = keeper_start(&in->keeper, &in->child, err);
	in->serving = rc == 0;
	return rc;
}

/* Nobody else watches any more: we begin anew. */
static void guard(void *context)
{
	struct instant *in = context;
	struct table_head *h = in->table.head;
	struct pollfd end = { .fd = in->alive[0], .events = POLLIN };
	struct im_error ignored = { 0 };
	const struct restore_events *ev = in->job->request->events;
	if (ev && ev->progress)
		ev->progress(ev->context, h->filled_bytes, h->total_bytes);
	if (in->alive[1] >= 0) { /* ours would keep the pipe alive */
		close(in->alive[1]);
		in->alive[1] = -1;
	}
	if (poll(&end, 1, 0) <= 0 || !(end.revents & POLLHUP) || table_phase(&in->table) == TABLE_SWITCHED || table_phase(&in->table) == TABLE_GIVEN_UP)
		return;
	waitpid(in->child, NULL, 0);
	close(in->alive[0]);
	if (pipe2(in->alive, O_CLOEXEC) == 0)
		keeper_start(&in->keeper, &in->child, &ignored);
}

static uint64_t left_blocks(const struct table *t)
{
	uint64_t left = 0;
	for (uint32_t i = 0; i < t->head->file_count; i++)
		left += t->files[i].left;
	return left;
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
		if (h->bad_blocks && left_blocks(&in->table) == h->bad_blocks)
			return im_fail(err, IM_ECORRUPT,
			    "everything is back but %" PRIu64 " KiB that are damaged in the vault: reading them is an error, never wrong bytes. The service stays as it is until the vault is repaired (then: imvault restore --resume) or given up (imvault restore --abort)",
			    h->bad_blocks * TABLE_BLOCK_BYTES / 1024);
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
	const struct start_options options = { .command = job->request->exec_command, .target = target && *target ? target : "/",
		.inherit_fd = in->stash, .files_soft = in->files_before, .tick = guard, .context = in };
	int rc = restore_start(&options, &r->exec_status, err);
	restore_phase_add(job, "start", im_monotonic_us() - begin, 0);
	if (rc)
		return rc;
	in->table.head->service_us = im_monotonic_us();
	r->service_ready_ms = since_start_ms(in, in->table.head->service_us);
	return 0;
}

static void tell(struct instant *in)
{
	struct restore_job *job = in->job;
	struct restore_result *r = job->result;
	const struct table_head *h = in->table.head;
	r->instant = (struct restore_instant){ .events = h->events, .demand_bytes = h->demand_bytes, .longest_wait_ms = (int64_t)h->longest_us / 1000,
		.worker_starts = h->worker_starts, .keeper_starts = h->keeper_starts };
	for (size_t i = 0; i < job->pick_count; i++) {
		bool differs = false;
		for (uint32_t k = 0; k < h->file_count; k++)
			differs |= in->table.files[k].differs && content_file(engine_content(job->engine), k)->store == job->picks[i].engine_store;
		restore_row(job, i, differs ? "different" : job->picks[i].late ? "older" : "ok",
		    differs ? "it is not what the snapshot and its log say" :
			      "each block compared; not checked as a whole, since the service was writing already");
		if (differs) {
			job->bad = true;
			restore_worst(job, IM_ECORRUPT);
		}
	}
}

/* What was mounted goes, if nobody uses it; else it waits for the service's next start. */
static void end_stages(struct instant *in)
{
	for (size_t i = 0; i < in->whole_count; i++) {
		struct arrangement *a = &in->wholes[i];
		struct im_error why = { 0 };
		bool gone = false;
		if (cover_end_alias(&a->cover, &gone, &why) || !gone) {
			if (!in->job->result->instant.alias)
				in->job->result->instant.alias = strdup(a->cover.staged);
			continue;
		}
		if (target_remove_stage(in->job->target, i, &why))
			restore_warn(in->job, "%s", why.text);
	}
}

static int build(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	int rc = target_begin(job->target, err);
	if (rc == 0)
		rc = choose_kind(in, err);
	if (rc == 0)
		rc = arrange_all(in, err);
	if (rc == 0)
		rc = restore_plan(job, err);
	if (rc == 0)
		rc = check_plan(in, err);
	if (rc == 0)
		rc = restore_fetch(job, err);
	int64_t begin = im_monotonic_us();
	restore_phase_begin(job, "prepare");
	if (rc == 0)
		rc = make_files(in, err);
	if (rc == 0)
		rc = dress(in, err);
	if (rc == 0)
		rc = check_plan(in, err);
	if (rc == 0)
		rc = make_table(in, err);
	if (rc == 0)
		rc = watch_files(in, err);
	if (rc == 0)
		rc = take_room(in, err);
	if (rc == 0)
		rc = target_sync(job->target, err);
	if (rc == 0)
		rc = im_interrupt_check(err);
	if (rc == 0)
		rc = serve(in, err);
	restore_phase_add(job, "prepare", im_monotonic_us() - begin, 0);
	return rc;
}

static int see_through(struct instant *in, struct im_error *err)
{
	struct restore_job *job = in->job;
	struct im_error why = { 0 };
	int rc = start_service(in, &why);
	if (rc == IM_EINTERRUPTED)
		return im_fail(err, rc, "%s", why.text);
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
	end_stages(in);
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

static void clear(struct instant *in)
{
	for (size_t i = 0; i < in->file_count; i++)
		if (in->fds && in->fds[i] >= 0)
			close(in->fds[i]);
	for (size_t i = 0; i < in->whole_count; i++)
		arrange_clear(&in->wholes[i]);
	table_close(&in->table);
	int *const ends[] = { &in->group, &in->stash, &in->alive[0], &in->alive[1] };
	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
		if (*ends[i] >= 0)
			close(*ends[i]);
	if (in->child > 0 && in->serving)
		waitpid(in->child, NULL, in->job->result->data_complete_ms < 0 ? WNOHANG : 0);
	free(in->wholes);
	free(in->order);
	free(in->fds);
}

int instant_run(struct restore_job *job, struct im_error *err)
{
	struct instant in = { .job = job, .table = { .fd = -1 }, .group = -1, .stash = -1, .alive = { -1, -1 } };
	raise_limit(&in);
	int rc = build(&in, err);
	job->result->mode = kind_name(in.kind);
	if (in.serving) {
		target_keep(job->target);
		rc = see_through(&in, err);
	} else {
		undo(&in);
	}
	clear(&in);
	return rc;
}
