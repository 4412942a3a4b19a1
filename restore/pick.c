/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What to restore: of the chosen snapshot, the stores and paths asked for.
 */
#include "restore/internal.h"

#include <string.h>

static bool holds(const char *outer, const char *inner)
{
	size_t n = strlen(outer);
	if (n == 1)
		return true; /* "/" */
	return strncmp(outer, inner, n) == 0 && (inner[n] == 0 || inner[n] == '/');
}

static const char *text_of(json_t *row, const char *key)
{
	const char *s = json_string_value(json_object_get(row, key));
	return s ? s : "";
}

/* The deepest store that holds the path asked for; what else holds it left that part to this one.
 */
static const char *deepest_holder(const struct restore_request *q, json_t *stores)
{
	const char *best = NULL;
	size_t i;
	json_t *row;
	json_array_foreach(stores, i, row) {
		const char *path = text_of(row, "path");
		if (*path && restore_is_named(q, text_of(row, "name")) && holds(path, q->path) &&
		    (!best || strlen(path) > strlen(best)))
			best = path;
	}
	return best;
}

static int check_names(const struct restore_job *job, json_t *stores, struct im_error *err)
{
	for (size_t n = 0; job->request->stores && job->request->stores[n]; n++) {
		bool found = false;
		size_t i;
		json_t *row;
		json_array_foreach(stores, i, row)
			found |= strcmp(text_of(row, "name"), job->request->stores[n]) == 0;
		if (!found)
			return im_fail(err, IM_EUSAGE,
			    "snapshot %s of node %s has no store '%s'; imvault list shows what it has",
			    job->result->snapshot, job->result->node, job->request->stores[n]);
	}
	return 0;
}

static int pick_one(struct restore_job *job, json_t *row, struct im_error *err)
{
	struct restore_pick *p = &job->picks[job->pick_count++];
	const struct restore_request *q = job->request;
	*p = (struct restore_pick){ .name = text_of(row, "name"),
		.type = text_of(row, "type"),
		.path = text_of(row, "path"),
		.snapshot = job->snapshot };
	const char *error = text_of(row, "error");
	int rc = restore_find_way(job, p, *error ? error : "it failed then", err);
	if (rc)
		return rc;
	if (p->manifest && *text_of(p->manifest, "path"))
		p->path = text_of(p->manifest, "path");
	bool below = q->path && holds(p->path, q->path) && strcmp(p->path, q->path) != 0;
	p->path_filter = below ? q->path : NULL;
	p->unit_path = below ? q->path : p->path;
	return 0;
}

static int by_path_length(const void *a, const void *b)
{
	const struct restore_pick *x = a, *y = b;
	size_t n = strlen(x->path), m = strlen(y->path);
	return n != m ? (n < m ? -1 : 1) : strcmp(x->name, y->name);
}

int restore_pick_stores(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	json_t *stores = json_object_get(job->snapshot->record.meta, "stores"), *row;
	size_t i;
	int rc = check_names(job, stores, err);
	if (rc)
		return rc;
	const char *holder = q->path ? deepest_holder(q, stores) : NULL;
	job->picks = calloc(json_array_size(stores) + 1, sizeof *job->picks);
	if (!job->picks)
		return im_fail(err, IM_ENOMEM, "out of memory");
	json_array_foreach(stores, i, row) {
		const char *path = text_of(row, "path");
		if (!restore_is_named(q, text_of(row, "name")))
			continue;
		if (q->path && !(holder && strcmp(path, holder) == 0) && !holds(q->path, path))
			continue;
		rc = pick_one(job, row, err);
		if (rc)
			return rc;
	}
	qsort(job->picks, job->pick_count, sizeof *job->picks, by_path_length);
	if (!job->pick_count && q->path)
		return im_fail(err, IM_ENOTFOUND, "%s is in no store of this snapshot", q->path);
	if (!job->pick_count)
		return im_fail(
		    err, IM_ENOTFOUND, "snapshot %s holds no store", job->result->snapshot);
	return 0;
}
