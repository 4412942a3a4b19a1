/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of an instant restore in memory and on disk, as its command makes it.
 */
#include "restore/instant/instant_internal.h"

#include "base/cleanup.h"
#include "base/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const kinds[] = { [TABLE_BLOCKS] = "blocks", [TABLE_FILES] = "files", [TABLE_VIEW] = "fuse" };

const char *instant_kind_name(enum table_kind kind)
{
	return kinds[kind];
}

enum table_kind instant_kind_of(const char *name)
{
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (strcmp(kinds[i], name) == 0)
			return (enum table_kind)i;
	return TABLE_BLOCKS;
}

struct ordering {
	const struct content *content;
	int *priorities; /* by the engine's store number */
};

/* The stores' own order, databases first (a message that points to a missing upload is better than none), then small ones: each is soon
 * done with, and costs nothing any more. */
static int compare_files(const void *a, const void *b, void *context)
{
	const struct ordering *o = context;
	const struct built_file *x = content_file(o->content, *(const uint32_t *)a), *y = content_file(o->content, *(const uint32_t *)b);
	int by_priority = o->priorities[x->store] - o->priorities[y->store];
	if (by_priority)
		return by_priority;
	if (!x->digest != !y->digest)
		return x->digest ? -1 : 1;
	if (x->writer.size_bytes != y->writer.size_bytes)
		return x->writer.size_bytes < y->writer.size_bytes ? -1 : 1;
	return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1;
}

/* As the node's configuration says, which the snapshot carries; else 1. */
static int priority_of(const struct restore_pick *p)
{
	struct im_config *config = NULL;
	const char *text = json_string_value(json_object_get(p->snapshot->record.private_part, "config"));
	int priority = 1;
	if (text && im_config_parse(text, "the snapshot's configuration", &config, NULL) == 0)
		for (size_t i = 0; i < config->store_count; i++)
			if (strcmp(config->stores[i].name, p->name) == 0)
				priority = config->stores[i].priority;
	im_config_free(config);
	return priority;
}

int instant_make_order(struct instant *in, struct im_error *err)
{
	const struct restore_job *job = in->job;
	auto_free int *priorities = calloc(job->pick_count + 1, sizeof *priorities);
	in->order = calloc(in->file_count ? in->file_count : 1, sizeof *in->order);
	if (!in->order || !priorities)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < job->pick_count; i++)
		if (job->picks[i].engine_store < job->pick_count)
			priorities[job->picks[i].engine_store] = priority_of(&job->picks[i]);
	for (uint32_t i = 0; i < in->file_count; i++)
		in->order[i] = i;
	struct ordering o = { engine_content(job->engine), priorities };
	qsort_r(in->order, in->file_count, sizeof *in->order, compare_files, &o);
	return 0;
}

int instant_make_table(struct instant *in, struct im_error *err)
{
	const struct content *c = engine_content(in->job->engine);
	uint32_t n = in->file_count;
	auto_free uint64_t *sizes = calloc(n ? n : 1, sizeof *sizes);
	auto_free bool *digests = calloc(n ? n : 1, sizeof *digests);
	if (!sizes || !digests)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < n; i++) {
		sizes[i] = content_file(c, i)->writer.size_bytes;
		digests[i] = content_file(c, i)->digest != NULL;
	}
	int rc = instant_make_order(in, err);
	if (rc == 0)
		rc = table_new(sizes, digests, n, &in->table, err);
	for (uint32_t i = 0; rc == 0 && i < n; i++) {
		struct stat st;
		if (in->fds[i] < 0)
			continue; /* complete since before a crash */
		if (fstat(in->fds[i], &st))
			return im_fail_errno(err, IM_EIO, errno, "cannot stat a file that is restored");
		in->table.files[i].ino = st.st_ino;
		in->table.files[i].device = st.st_dev;
	}
	if (rc)
		return rc;
	struct table_head *h = in->table.head;
	h->kind = in->kind;
	h->begin_us = in->job->start_us;
	h->begin_wall_ms = in->job->start_wall_ms;
	h->rto_ms = in->job->result->rto_ms;
	return 0;
}

int instant_make_stash(struct instant *in, struct im_error *err)
{
	in->fds[in->file_count] = in->table.fd;
	in->fds[in->file_count + 1] = in->group;
	auto_free int *sent = malloc((in->file_count + 2) * sizeof *sent);
	if (!sent)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < in->file_count + 2; i++)
		sent[i] = in->fds[i] >= 0 ? in->fds[i] : in->table.fd; /* a stand-in: places are what counts */
	return stash_make(sent, in->file_count + 2, &in->stash, err);
}

static json_t *describe(const struct instant *in, const struct arrangement *a)
{
	const struct restore_job *job = in->job;
	json_t *stores = json_array();
	for (size_t i = 0; i < job->pick_count; i++) {
		const struct restore_pick *p = &job->picks[i];
		json_array_append_new(stores, json_pack("{s:s, s:b, s:I, s:s, s:I, s:I, s:I}", "name", p->name, "late", p->late, "snapshot", (json_int_t)p->snapshot->seq, "epoch",
		    p->route.has_log ? p->route.epoch : "", "after", (json_int_t)p->route.after, "until", (json_int_t)p->route.until, "reached_ms",
		    (json_int_t)p->route.reached_ms));
	}
	auto_free char *to = job->request->to ? target_place(job->target, "") : NULL; /* absolute */
	json_t *stages = json_array();
	for (size_t i = 0; i < in->whole_count; i++)
		json_array_append_new(stages, json_string(in->wholes[i].stage));
	return json_pack("{s:s, s:s, s:b, s:O, s:s, s:s?, s:s?, s:s?, s:s, s:I, s:I, s:o, s:o}", "target", a->cover.target, "staged", a->cover.staged, "folder", a->is_folder,
	    "moves", a->moves, "node", job->result->node, "at", job->request->at, "path", job->request->path, "to", to, "kind", instant_kind_name(in->kind), "stash", (json_int_t)stash_number(in->stash),
	    "begin_ms", (json_int_t)job->start_wall_ms, "stores", stores, "stages", stages);
}

int instant_write_records(struct instant *in, enum record_phase phase, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; i < in->whole_count && rc == 0; i++) {
		json_t *details = describe(in, &in->wholes[i]);
		rc = details ? record_write(in->wholes[i].stage, phase, details, err) : im_fail(err, IM_ENOMEM, "out of memory");
		json_decref(details);
	}
	return rc;
}
