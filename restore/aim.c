/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where each store goes, whether the place is free, and whether there is room.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "restore/instant/abort.h"
#include "restore/internal.h"

#include <string.h>

struct beside_list {
	char **paths;
	size_t count;
	bool failed;
};

static void take_beside(void *context, const char *path)
{
	struct beside_list *l = context;
	char **grown = realloc(l->paths, (l->count + 1) * sizeof *grown);
	if (grown)
		l->paths = grown;
	if (!grown || !(grown[l->count] = strdup(path)))
		l->failed = true;
	else
		l->count++;
}

static void beside_clear(struct beside_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->paths[i]);
	free(l->paths);
}

/* Databases are single files; what a files store is shows when it is planned. */
static bool is_folder(const struct restore_pick *p)
{
	return !json_object_get(p->manifest, "file_bytes");
}

/* A file cannot be shown before it is there without its folder. */
static int add_folder_of(struct restore_job *job, const struct restore_pick *p, struct im_error *err)
{
	const char *slash = strrchr(p->unit_path, '/');
	auto_free char *folder = strndup(p->unit_path, (size_t)(slash - p->unit_path));
	if (!folder)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (*folder)
		return target_add_folder(job->target, folder, err);
	job->declined = true;
	return im_fail(err, IM_EUSAGE, "%s lies in the root folder, which cannot change places with a restored one", p->unit_path);
}

static int make_way(struct restore_job *job, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; i < job->pick_count && rc == 0; i++) {
		auto_free char *place = target_place(job->target, job->picks[i].unit_path);
		rc = place ? instant_make_way(place, err) : im_fail(err, IM_ENOMEM, "out of memory");
	}
	return rc;
}

/* Where each store goes, and is the place free? */
int restore_aim(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	bool instant = restore_is_instant(job);
	int rc = target_new(q->to, q->overwrite || q->dry_run || q->resume, &job->target, err);
	if (rc == 0 && instant)
		target_set_instant(job->target);
	for (size_t i = 0; i < job->pick_count && rc == 0; i++) {
		struct restore_pick *p = &job->picks[i];
		const struct store_ops *ops = store_find(p->type);
		IM_CLEANUP(beside_clear) struct beside_list beside = { 0 };
		struct im_config_store store = {
			.name = (char *)p->name, .type = (char *)p->type, .path = (char *)p->path
		};
		if (!p->manifest)
			continue;
		if (ops && ops->own_files && !p->path_filter)
			ops->own_files(&store, take_beside, &beside);
		if (beside.failed)
			return im_fail(err, IM_ENOMEM, "out of memory");
		rc = target_add(job->target, p->unit_path, (const char *const *)beside.paths,
		    beside.count, &p->unit, err);
		if (rc == 0 && instant && !is_folder(p))
			rc = add_folder_of(job, p, err);
		if (rc)
			im_error_context(err, "store %s", p->name);
	}
	if (rc == 0 && !q->dry_run && !q->resume)
		rc = make_way(job, err);
	return rc ? rc : target_check(job->target, err);
}

/* Bytes a store will need, as far as its manifest says; 0: not known yet. */
static uint64_t need_of(const struct restore_pick *p)
{
	json_int_t bytes = json_integer_value(json_object_get(p->manifest, "file_bytes"));
	return bytes > 0 ? (uint64_t)bytes : 0;
}

/* For the log, which may be kept in the stage while it is laid over the image: taken already once a plan is made. */
static uint64_t need_of_log(const struct restore_job *job, const struct restore_pick *p, bool planned)
{
	return planned && !job->request->dry_run ? 0 : p->route.bytes;
}

int restore_check_space(struct restore_job *job, bool planned, struct im_error *err)
{
	for (size_t i = 0; i < job->pick_count; i++) {
		uint64_t need = 0, space, device, files, bytes;
		char a[24], b[24];
		if (!job->picks[i].manifest)
			continue;
		int rc = target_space(job->target, job->picks[i].unit, &space, &device, err);
		if (rc)
			return rc;
		job->result->stores[i].bytes_free = space;
		for (size_t j = 0; j < job->pick_count; j++) {
			const struct restore_pick *p = &job->picks[j];
			uint64_t other = 0, ignored;
			if (!p->manifest || p->failed ||
			    target_space(job->target, p->unit, &ignored, &other, NULL) ||
			    other != device)
				continue;
			bytes = need_of(p);
			if (planned && p->added)
				engine_store_stats(job->engine, p->engine_store, &files, &bytes);
			need += bytes + need_of_log(job, p, planned);
		}
		if (need > space)
			return im_fail(err, IM_ENOSPACE,
			    "restoring needs %s, but only %s are free at %s; free some, or choose another --to DIR",
			    im_bytes_format(a, sizeof a, need), im_bytes_format(b, sizeof b, space),
			    job->result->stores[i].path);
	}
	return 0;
}
