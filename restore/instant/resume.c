/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going on with an instant restore that was cut off. Either a process of the service still holds the
 * event group: then everything is as it was, and what waits is answered. Or nobody does (the machine
 * was restarted): then what the files hold says what is missing (lazy.h), and what the service wrote
 * before stays. The plan is made anew from the vault and must be the same as then.
 */
#include "restore/instant/instant_internal.h"

#include "base/beneath.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "restore/instant/find.h"
#include "restore/instant/lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_EVERY = 25 }; /* waits */

/* --- which restore --- */

static int find_records(const struct restore_request *q, struct found_list *l, struct im_error *err)
{
	int rc = q->paths ? 0 : found_add_mounted(l, err);
	for (size_t i = 0; q->paths && q->paths[i] && rc == 0; i++)
		rc = found_add_path(l, q->paths[i], err);
	if (rc == 0)
		rc = found_complete(l, err);
	bool open = !q->paths; /* of one that was cut off within its switch, some are complete */
	for (size_t i = 0; i < l->count; i++)
		open |= l->items[i].phase != RECORD_SWITCHED;
	if (open)
		found_drop_switched(l);
	if (rc == 0 && !l->count)
		return im_fail(err, IM_ENOTFOUND, "no instant restore was cut off%s", q->paths ? " there" : "; name its folder if the machine was restarted since");
	rc = rc ? rc : found_check_one(l, err);
	for (size_t i = 0; i < l->count && rc == 0; i++) {
		const char *target = json_string_value(json_object_get(l->items[i].details, "target"));
		target = target ? target : l->items[i].stage;
		if (l->items[i].phase == RECORD_BUILDING)
			rc = im_fail(err, IM_EUSAGE, "the restore of %s had not shown anything yet: start it again", target);
		else if (l->items[i].phase == RECORD_SWITCHED)
			rc = im_fail(err, IM_EUSAGE, "the restore of %s is complete", target);
	}
	return rc;
}

int instant_take_record(struct restore_request *request, json_t **ret_keep, const char ***ret_stores, struct im_error *err)
{
	struct found_list l = { 0 };
	int rc = find_records(request, &l, err);
	json_t *d = rc ? NULL : l.items[0].details, *stores = json_object_get(d, "stores"), *row;
	const char **names = calloc(json_array_size(stores) + 1, sizeof *names);
	size_t i;
	json_array_foreach(stores, i, row) {
		if (names && rc == 0)
			names[i] = json_string_value(json_object_get(row, "name"));
		if (rc == 0 && names && !names[i])
			rc = im_fail(err, IM_ECORRUPT, "the record in %s makes no sense", l.items[0].stage);
	}
	const char *kind = json_string_value(json_object_get(d, "kind"));
	if (rc == 0 && (!names || !kind))
		rc = im_fail(err, names ? IM_ECORRUPT : IM_ENOMEM, "the record in %s cannot be used", l.items[0].stage);
	if (rc == 0) {
		request->node = json_string_value(json_object_get(d, "node"));
		request->at = json_string_value(json_object_get(d, "at"));
		request->to = json_string_value(json_object_get(d, "to"));
		request->path = json_string_value(json_object_get(d, "path"));
		request->stores = names;
		static const enum restore_mode modes[] = { [TABLE_BLOCKS] = RESTORE_BLOCKS, [TABLE_FILES] = RESTORE_FILES, [TABLE_VIEW] = RESTORE_VIEW };
		request->mode = modes[instant_kind_of(kind)];
		*ret_keep = json_incref(d);
		*ret_stores = names;
	} else {
		free(names);
	}
	found_clear(&l);
	return rc;
}

static int wait_for_others(const struct restore_request *q, const struct found *f, const struct table *t, struct im_error *err)
{
	const struct restore_events *ev = q->events;
	for (unsigned n = 1;; n++) {
		uint32_t phase = table_phase(t);
		int rc = table_check(t, err);
		if (rc || phase == TABLE_SWITCHED)
			return rc;
		if (phase == TABLE_GIVEN_UP)
			return im_fail(err, IM_EFAIL, "the restore was ended by imvault restore --abort");
		if (n % LOOK_EVERY == 0 && !found_is_at_work(f) && table_phase(t) != TABLE_SWITCHED)
			return im_fail(err, IM_EFAIL, "all of imvault's processes that worked on it have ended: run imvault restore --resume again");
		if (im_interrupt_signal())
			return im_fail(err, IM_EINTERRUPTED, "interrupted; the restore goes on in the background (imvault status shows it)");
		if (ev && ev->progress)
			ev->progress(ev->context, t->head->filled_bytes, t->head->total_bytes);
		im_sleep_ms(20);
	}
}

int instant_join(const struct restore_request *request, struct restore_result *ret, bool *ret_joined, struct im_error *err)
{
	struct found_list l = { 0 };
	struct table t;
	int rc = find_records(request, &l, err);
	*ret_joined = rc == 0 && found_is_at_work(&l.items[0]);
	if (*ret_joined)
		rc = found_table(&l.items[0], true, &t, err);
	if (rc == 0 && *ret_joined) {
		int32_t worker = t.head->worker;
		t.head->bad_blocks = 0; /* the next worker counts anew */
		if (worker > 1)
			kill(worker, SIGKILL);
		ret->mode = "joined";
		rc = wait_for_others(request, &l.items[0], &t, err);
		if (rc == 0)
			ret->data_complete_ms = (t.head->switched_us - t.head->begin_us) / 1000;
		table_close(&t);
	}
	found_clear(&l);
	return rc;
}

/* The vault must give the same as then: what has arrived already came from there. */
static int check_way(const struct instant *in, const json_t *details, struct im_error *err)
{
	const json_t *stores = json_object_get(details, "stores");
	bool late = false;
	for (size_t i = 0; i < in->job->pick_count; i++) {
		const struct restore_pick *p = &in->job->picks[i];
		const json_t *row = NULL;
		for (size_t k = 0; k < json_array_size(stores) && !row; k++) {
			const char *name = json_string_value(json_object_get(json_array_get(stores, k), "name"));
			row = name && strcmp(name, p->name) == 0 ? json_array_get(stores, k) : NULL;
		}
		const char *epoch = json_string_value(json_object_get(row, "epoch"));
		if (!row || !epoch || json_integer_value(json_object_get(row, "snapshot")) != (json_int_t)p->snapshot->seq ||
		    strcmp(epoch, p->route.has_log ? p->route.epoch : "") != 0 || json_integer_value(json_object_get(row, "after")) != p->route.after ||
		    json_integer_value(json_object_get(row, "until")) != p->route.until)
			return im_fail(err, IM_EUSAGE,
			    "the vault now leads to another state of store %s than the one that was being restored; imvault restore --abort, then restore again",
			    p->name);
		in->job->picks[i].late = json_is_true(json_object_get(row, "late"));
		late |= in->job->picks[i].late;
	}
	if (!late && in->job->worst == IM_EPARTIAL)
		in->job->worst = 0; /* a newer snapshot without these stores: they were arriving */
	return 0;
}

static int take_wholes(struct instant *in, const struct found_list *l, struct im_error *err)
{
	in->wholes = calloc(l->count, sizeof *in->wholes);
	int rc = in->wholes ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < l->count && rc == 0; i++) {
		rc = found_arrangement(&l->items[i], &in->wholes[i], err);
		in->whole_count += rc == 0;
	}
	return rc;
}

/* --- after a restart: what is on disk --- */

struct scan {
	struct scanned {
		char *path;
		uint64_t size, limit;
		int fd;
	} *files;
	size_t count, cap;
};

static void scan_clear(struct scan *s)
{
	for (size_t i = 0; i < s->count; i++) {
		free(s->files[i].path);
		if (s->files[i].fd >= 0)
			close(s->files[i].fd);
	}
	free(s->files);
	*s = (struct scan){ 0 };
}

struct scanning {
	struct scan *scan;
	int root_fd;
};

static int scan_file(void *context, int file_fd, uint32_t number, struct im_error *err)
{
	struct scan *s = ((struct scanning *)context)->scan;
	struct scanned f = { .fd = -1 };
	struct im_error why = { 0 };
	auto_close int fd = file_fd;
	int rc = lazy_read(fd, &f.path, &f.size, &f.limit, &why);
	if (rc == IM_ENOTFOUND) /* complete; only its name was still to be taken away */
		return lazy_forget(((struct scanning *)context)->root_fd, number, err);
	if (rc)
		return im_fail(err, rc, "incomplete file %" PRIu32 ": %s", number, why.text);
	if (s->count == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 64;
		struct scanned *grown = reallocarray(s->files, cap, sizeof *grown);
		if (!grown) {
			free(f.path);
			return im_fail(err, IM_ENOMEM, "out of memory");
		}
		s->files = grown;
		s->cap = cap;
	}
	f.fd = TAKE_FD(fd);
	s->files[s->count++] = f;
	return 0;
}

static int scan_all(const struct instant *in, struct scan *s, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; i < target_whole_count(in->job->target) && rc == 0; i++) {
		struct target_whole w;
		rc = target_get_whole(in->job->target, i, &w, err);
		struct scanning scanning = { s, w.root_fd };
		if (rc == 0)
			rc = lazy_each(w.root_fd, scan_file, &scanning, err);
		target_whole_clear(&w);
	}
	return rc;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct scanned *)a)->path, ((const struct scanned *)b)->path);
}

/* Which of the planned files are still incomplete: their descriptors move into in->fds. */
static int match_files(struct instant *in, struct scan *s, struct im_error *err)
{
	const struct content *c = engine_content(in->job->engine);
	size_t matched = 0;
	in->file_count = (uint32_t)content_count(c);
	in->fds = malloc((in->file_count + 2) * sizeof *in->fds);
	if (!in->fds)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < in->file_count + 2; i++)
		in->fds[i] = -1;
	if (s->count)
		qsort(s->files, s->count, sizeof *s->files, by_path);
	for (uint32_t i = 0; i < in->file_count; i++) {
		const struct built_file *f = content_file(c, i);
		const struct scanned key = { .path = (char *)f->writer.path };
		struct scanned *found = s->count ? bsearch(&key, s->files, s->count, sizeof key, by_path) : NULL;
		if (!found)
			continue;
		if (found->size != f->writer.size_bytes)
			return im_fail(err, IM_ECORRUPT, "/%s had another size when its restore began", found->path);
		in->fds[i] = TAKE_FD(found->fd);
		matched++;
	}
	if (matched != s->count)
		return im_fail(err, IM_ECORRUPT, "files are incomplete that the snapshot does not have; imvault restore --abort, then restore again");
	return 0;
}

/* What of a block has arrived shows when it is its turn. */
static void note_limit(struct instant *in, uint32_t file, uint64_t limit)
{
	struct table_file *f = &in->table.files[file];
	uint32_t left = 0;
	f->limit = limit;
	for (uint32_t b = 0; b < f->blocks; b++) {
		bool ours = in->fds[file] >= 0 && (uint64_t)b * TABLE_BLOCK_BYTES < limit;
		*table_block(&in->table, file, b) = ours ? BLOCK_NONE : BLOCK_DONE;
		left += ours;
	}
	f->left = left;
	f->touched = 1; /* nobody knows whether it was */
	f->state = in->fds[file] < 0 ? FILE_ORDINARY : FILE_LAZY;
}

/* A file without its second name was complete and durable; of what was done last to it, a crash may have kept only a part. */
static int forget_complete(const struct built_file *f, struct im_error *err)
{
	auto_close int fd = im_beneath_open(f->writer.root_fd, f->writer.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	struct stat st;
	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? lazy_unmark(fd, err) : 0;
}

static int take_from_disk(struct instant *in, struct scan *s, struct im_error *err)
{
	int rc = match_files(in, s, err);
	if (rc == 0)
		rc = instant_make_table(in, err);
	for (uint32_t i = 0; rc == 0 && i < in->file_count; i++)
		if (in->fds[i] < 0)
			rc = forget_complete(content_file(engine_content(in->job->engine), i), err);
	for (uint32_t i = 0; rc == 0 && i < in->file_count; i++) {
		const struct scanned key = { .path = (char *)content_file(engine_content(in->job->engine), i)->writer.path };
		const struct scanned *found = in->fds[i] < 0 ? NULL : bsearch(&key, s->files, s->count, sizeof key, by_path);
		note_limit(in, i, found ? found->limit : in->table.files[i].size);
	}
	in->resumed = true;
	return rc ? rc : instant_make_stash(in, err);
}

/* Before anything else: if a service has these files open, its accesses wait from now on. */
static int watch_scanned(struct instant *in, struct scan *s, struct im_error *err)
{
	enum restore_mode mode = in->job->request->mode;
	in->kind = mode == RESTORE_FILES ? TABLE_FILES : mode == RESTORE_VIEW ? TABLE_VIEW : TABLE_BLOCKS;
	int rc = scan_all(in, s, err);
	if (rc || in->kind == TABLE_VIEW)
		return rc; /* a view fails closed: whoever used it got errors */
	rc = fan_open((enum fan_kind)in->kind, &in->group, err);
	for (size_t i = 0; i < s->count && rc == 0; i++)
		rc = fan_mark(in->group, (enum fan_kind)in->kind, s->files[i].fd, err);
	for (size_t i = 0; i < in->whole_count && rc == 0; i++)
		if (cover_is_mounted(&in->wholes[i].cover))
			restore_warn(in->job, "nobody watched over %s since imvault's processes ended: what was read there meanwhile may have been zeros; restart its service when this is complete, and check its data",
			    in->wholes[i].cover.target);
	return rc;
}

/* --- while the service still holds everything --- */

static int take_from_stash(struct instant *in, int stash, struct im_error *err)
{
	size_t count = 0;
	int rc = stash_look(stash, &in->fds, &count, err);
	if (rc == 0 && count < 2)
		rc = im_fail(err, IM_EUSAGE, "the process that holds the restore holds something else");
	if (rc)
		return rc;
	in->file_count = (uint32_t)count - 2;
	rc = table_open(in->fds[count - 2], true, &in->table, err);
	if (rc == 0 && (in->table.head->file_count != in->file_count || in->table.head->kind > TABLE_VIEW))
		rc = im_fail(err, IM_ECORRUPT, "the state of the restore does not fit its files");
	if (rc)
		return rc;
	close(in->fds[count - 2]);
	in->fds[count - 2] = in->table.fd;
	in->group = in->fds[count - 1];
	in->kind = (enum table_kind)in->table.head->kind;
	if (in->kind == TABLE_VIEW) { /* there was no group */
		close(in->group);
		in->group = -1;
	}
	return 0;
}

static int check_files(struct instant *in, struct im_error *err)
{
	const struct content *c = engine_content(in->job->engine);
	bool same = content_count(c) == in->file_count;
	for (uint32_t i = 0; same && i < in->file_count; i++) {
		struct stat st;
		const struct table_file *f = &in->table.files[i];
		same = f->size == content_file(c, i)->writer.size_bytes && (f->state == FILE_ORDINARY || (fstat(in->fds[i], &st) == 0 && st.st_ino == f->ino));
	}
	return same ? instant_make_order(in, err) :
	              im_fail(err, IM_EUSAGE, "the vault now leads to other files than those that were being restored; imvault restore --abort, then restore again");
}

/* --- */

static int plan_again(struct instant *in, const json_t *details, struct im_error *err)
{
	struct restore_job *job = in->job;
	int rc = restore_plan(job, err);
	if (rc == 0)
		rc = check_way(in, details, err);
	if (rc == 0)
		rc = content_seal((struct content *)engine_content(job->engine), err);
	engine_stop_writing(job->engine);
	for (size_t i = 0; i < job->pick_count; i++)
		if (rc == 0 && (job->picks[i].failed || !job->picks[i].added))
			rc = im_fail(err, IM_ECORRUPT, "store %s cannot be planned any more: %s", job->picks[i].name, job->first.text);
	return rc;
}

static int build_again(struct instant *in, const struct found_list *l, struct im_error *err)
{
	struct scan scan = { 0 };
	auto_close int stash = -1;
	struct im_error ignored = { 0 };
	uint64_t number = (uint64_t)json_integer_value(json_object_get(l->items[0].details, "stash"));
	int rc = take_wholes(in, l, err);
	if (rc == 0)
		rc = target_begin_again(in->job->target, err);
	bool held = rc == 0 && stash_find(number, &stash, &ignored) == 0;
	if (rc == 0)
		rc = held ? take_from_stash(in, stash, err) : watch_scanned(in, &scan, err);
	if (rc == 0)
		rc = plan_again(in, l->items[0].details, err);
	if (rc == 0)
		rc = held ? check_files(in, err) : take_from_disk(in, &scan, err);
	scan_clear(&scan);
	if (rc == 0 && held)
		in->stash = TAKE_FD(stash);
	return rc ? rc : instant_serve(in, err);
}

int instant_resume(struct restore_job *job, struct im_error *err)
{
	struct instant in;
	struct found_list l = { 0 };
	instant_begin(&in, job);
	target_keep(job->target);
	int rc = find_records(job->request, &l, err);
	if (rc == 0)
		rc = build_again(&in, &l, err);
	job->result->mode = instant_kind_name(in.kind);
	if (rc == 0)
		rc = instant_see_through(&in, err);
	instant_clear(&in);
	found_clear(&l);
	return rc;
}
