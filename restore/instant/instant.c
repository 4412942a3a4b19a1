/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The story of an instant restore, and its undoing as long as nothing was served.
 */
#include "restore/instant/fuse.h"
#include "restore/instant/instant_internal.h"

#include "base/clock.h"
#include "base/interrupt.h"
#include "restore/instant/holder.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SPARE_DESCRIPTORS = TABLE_SLOTS + 256 /* each access that waits has one, too */, BEHIND_KIB = 64 << 10 };

static int decline(struct instant *in, struct im_error *err, const char *why)
{
	in->job->declined = true;
	return im_fail(err, IM_EUSAGE, "%s", why);
}

/* --- before --- */

uint32_t instant_files_max(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_max < 2 * SPARE_DESCRIPTORS)
		return 0;
	rlim_t room = limit.rlim_max - SPARE_DESCRIPTORS;
	return room < STASH_MAX - SPARE_DESCRIPTORS ? (uint32_t)room : STASH_MAX - SPARE_DESCRIPTORS;
}

static int try_kind(struct instant *in, enum table_kind kind, struct im_error *why)
{
	size_t n = target_whole_count(in->job->target);
	int rc = 0;
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct target_whole w;
		rc = target_get_whole(in->job->target, i, &w, why);
		if (rc == 0)
			rc = kind == TABLE_VIEW ? fuse_view_probe(w.stage, why) : fan_probe((enum fan_kind)kind, w.stage_fd, why);
		target_whole_clear(&w);
	}
	in->kind = kind;
	return rc;
}

/* The best that every file system concerned allows: by blocks; through FUSE, if the service may be stopped for a moment in the end; by
 * whole files. A service that cannot hold the event group gets FUSE, which fails closed, or nothing. */
static int choose_kind(struct instant *in, struct im_error *err)
{
	const struct restore_request *q = in->job->request;
	bool unheld = q->exec_command && holder_is_handed_over(q->exec_command) && !getenv("NOTIFY_SOCKET");
	struct im_error why = { 0 }, last = { 0 };
	if (q->mode != RESTORE_INSTANT) {
		enum table_kind wanted = q->mode == RESTORE_FILES ? TABLE_FILES : q->mode == RESTORE_VIEW ? TABLE_VIEW : TABLE_BLOCKS;
		return try_kind(in, wanted, &why) ? decline(in, err, why.text) : 0;
	}
	if (unheld)
		im_fail(&why, IM_EUSAGE, "a service started by an init system cannot hold what keeps it from reading zeros if imvault is killed (start it directly, run imvault as a unit with FileDescriptorStoreMax=1, give --stop CMD, or accept the risk with --instant=blocks)");
	else if (try_kind(in, TABLE_BLOCKS, &why) == 0)
		return 0;
	if (q->stop_command && try_kind(in, TABLE_VIEW, &last) == 0) {
		restore_warn(in->job, "the service works through FUSE and is stopped for a moment in the end: %s", why.text);
		return 0;
	}
	if (!unheld && try_kind(in, TABLE_FILES, &last) == 0) {
		restore_warn(in->job, "whole files are brought when they are first opened, since parts of them cannot be watched here: %s", why.text);
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

/* What a tree's store holds shows only now. */
static int check_folders(struct instant *in, struct im_error *err)
{
	for (size_t i = 0; i < in->whole_count; i++) {
		struct stat st;
		if (stat(in->wholes[i].cover.staged, &st) || !S_ISDIR(st.st_mode))
			return decline(in, err, "a single file is restored, and only a folder can be shown before it is there");
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

static int watch_files(struct instant *in, struct im_error *err)
{
	bool watch = in->kind != TABLE_VIEW;
	int rc = watch ? fan_open((enum fan_kind)in->kind, &in->group, err) : 0;
	for (uint32_t i = 0; i < in->file_count && watch && rc == 0; i++)
		rc = fan_mark(in->group, (enum fan_kind)in->kind, in->fds[i], err);
	return rc ? rc : instant_make_stash(in, err);
}

/* Will anybody but us keep the group open? Else, with all of imvault killed, the service would read zeros. */
static int check_holder(struct instant *in, struct im_error *err)
{
	const struct restore_request *q = in->job->request;
	holder_store(in->stash);
	if (in->kind == TABLE_VIEW || holder_find(in->stash))
		return 0;
	if (!q->exec_command)
		restore_warn(in->job, "nobody but imvault's own processes will hold this restore: do not kill them while a service uses its folders (a service started by --exec holds it too)");
	else if (holder_is_handed_over(q->exec_command) && q->mode == RESTORE_INSTANT)
		return decline(in, err, "the service manager that started imvault does not keep what would hold the service back if imvault is killed (FileDescriptorStoreMax=1)");
	else if (holder_is_handed_over(q->exec_command))
		restore_warn(in->job, "a service started by an init system does not hold this restore: should all of imvault's processes be killed, it would read zeros");
	return 0;
}

static int check_users(struct instant *in, struct im_error *err)
{
	for (size_t i = 0; i < in->whole_count; i++) {
		char name[16];
		pid_t pid = holder_find_user(in->wholes[i].cover.target, name);
		if (pid)
			return im_fail(err, IM_ELOCKED, "%s is in use by %s (process %d): stop it first", in->wholes[i].cover.target, name, (int)pid);
	}
	return 0;
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
	int rc = instant_write_records(in, RECORD_BUILDING, err);
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
		if (fuse_view_unmount(a->cover.target, false, &why) || cover_unmount(&a->cover, &why) || arrange_undo(a, &why))
			restore_warn(in->job, "%s could not be put back as it was: %s", a->cover.target, why.text);
		else
			record_remove(a->stage);
	}
}

/* Data that other programs have written and the disk has not got yet. */
static bool is_disk_behind(void)
{
	char line[128];
	unsigned long kib, sum = 0;
	FILE *f = fopen("/proc/meminfo", "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Dirty: %lu", &kib) == 1 || sscanf(line, "Writeback: %lu", &kib) == 1)
			sum += kib;
	if (f)
		fclose(f);
	return sum > BEHIND_KIB;
}

/* A sync of the file system is quicker than many of files, unless it has to wait for what is not ours. */
static int make_durable(struct instant *in, struct im_error *err)
{
	bool done = false;
	int rc = is_disk_behind() ? engine_sync_few(in->job->engine, &done, err) : 0;
	if (rc == 0 && done)
		return engine_sync_lazy_names(in->job->engine, err);
	return rc ? rc : target_sync(in->job->target, err);
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
		rc = check_users(in, err);
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
		rc = check_folders(in, err);
	if (rc == 0)
		rc = instant_make_table(in, err);
	if (rc == 0)
		rc = make_durable(in, err); /* which opens them: not when that would wait for us */
	if (rc == 0)
		rc = watch_files(in, err);
	if (rc == 0)
		rc = check_holder(in, err);
	if (rc == 0)
		rc = take_room(in, err);
	if (rc == 0)
		rc = im_interrupt_check(err);
	if (rc == 0)
		rc = instant_serve(in, err);
	restore_phase_add(job, "prepare", im_monotonic_us() - begin, 0);
	return rc;
}

void instant_begin(struct instant *in, struct restore_job *job)
{
	*in = (struct instant){ .job = job, .table = { .fd = -1 }, .group = -1, .stash = -1, .alive = { -1, -1 }, .child = -1 };
	in->files_before = stash_raise_limit();
}

void instant_clear(struct instant *in)
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
	if (in->child > 0)
		waitpid(in->child, NULL, in->job->result->data_complete_ms < 0 ? WNOHANG : 0);
	free(in->wholes);
	free(in->order);
	free(in->hot);
	free(in->views);
	im_buf_free(&in->identity);
	free(in->fds);
}

int instant_run(struct restore_job *job, struct im_error *err)
{
	struct instant in;
	instant_begin(&in, job);
	int rc = build(&in, err);
	job->result->mode = instant_kind_name(in.kind);
	if (in.serving) {
		target_keep(job->target);
		rc = instant_see_through(&in, err);
	} else {
		undo(&in);
	}
	instant_clear(&in);
	return rc;
}
