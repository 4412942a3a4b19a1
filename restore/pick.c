/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What to restore: the snapshot, and of it the stores and paths asked for. A store that failed in
 * the newest snapshot is taken from the newest older one that has it, and the result says so.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "restore/internal.h"

#include <inttypes.h>
#include <string.h>

static void note(void *context, const char *text)
{
	struct restore_job *job = context;
	restore_warn(job, "%s", text);
	restore_worst(job, IM_EPARTIAL);
}

static bool wants_latest(const struct restore_request *q)
{
	return !q->at || strcmp(q->at, "latest") == 0;
}

int restore_choose(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	int rc = snapshot_choose(q->vault->storage, q->vault->keyring, q->node,
	    q->at ? q->at : "latest", note, job, &job->snapshot, err);
	if (rc)
		return rc;
	struct snapshot *s = job->snapshot;
	if (!s->record.private_part)
		return im_fail(err, IM_EKEY,
		    "this key cannot read the snapshot's content; restore needs the restore key");
	struct restore_result *r = job->result;
	const char *slash = strrchr(s->object, '/');
	r->node = strdup(s->node);
	r->snapshot = strdup(slash ? slash + 1 : s->object);
	if (!r->node || !r->snapshot)
		return im_fail(err, IM_ENOMEM, "out of memory");
	r->seq = s->seq;
	r->instant_reached_ms = s->time_ms;
	r->rpo_ms = job->start_wall_ms > s->time_ms ? job->start_wall_ms - s->time_ms : 0;
	const char *tier = json_string_value(json_object_get(s->record.meta, "tier"));
	r->rto_ms = q->rto_ms ? q->rto_ms :
				json_integer_value(json_object_get(s->record.meta, "rto_ms"));
	if (r->rto_ms <= 0)
		r->rto_ms = tier ? im_tier_rto_ms(tier) : 0;
	return 0;
}

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

static bool is_named(const struct restore_request *q, const char *name)
{
	for (size_t i = 0; q->stores && q->stores[i]; i++)
		if (strcmp(q->stores[i], name) == 0)
			return true;
	return !q->stores || !q->stores[0];
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
		if (*path && is_named(q, text_of(row, "name")) && holds(path, q->path) &&
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

static bool is_ok(const struct snapshot *s, const char *name)
{
	json_t *meta = snapshot_store_meta(s, name);
	return meta && strcmp(text_of(meta, "status"), "ok") == 0 && snapshot_manifest(s, name);
}

/* The newest snapshot before the chosen one that has the store. */
static int find_older(struct restore_job *job, struct restore_pick *p, struct im_error *err)
{
	const struct vault *v = job->request->vault;
	struct snapshot_list list = { 0 };
	int rc = snapshot_list(v->storage, job->result->node, &list, err);
	for (size_t i = list.count; i-- > 0 && rc == 0 && !p->older;) {
		if (list.items[i].seq >= job->snapshot->seq)
			continue;
		struct snapshot *s = NULL;
		struct im_error why = { 0 };
		rc = im_interrupt_check(err);
		if (rc == 0 &&
		    snapshot_read(v->storage, v->keyring, &list.items[i], &s, &why) == 0 &&
		    s->record.private_part && is_ok(s, p->name))
			p->older = s;
		else
			snapshot_free(s);
	}
	snapshot_list_clear(&list);
	return rc;
}

static int use_older(
    struct restore_job *job, struct restore_pick *p, const char *reason, struct im_error *err)
{
	int rc = wants_latest(job->request) ? find_older(job, p, err) : 0;
	if (rc)
		return rc;
	restore_worst(job, IM_EPARTIAL);
	if (!p->older) {
		restore_warn(job, "store %s is not in snapshot %" PRIu64 ": %s", p->name,
		    job->snapshot->seq, reason);
		p->failed = job->bad = true;
		return 0;
	}
	char instant[IM_INSTANT_BYTES];
	restore_warn(job,
	    "store %s is not in snapshot %" PRIu64 " (%s); it comes from snapshot %" PRIu64
	    " of %s",
	    p->name, job->snapshot->seq, reason, p->older->seq,
	    im_instant_format(instant, p->older->time_ms));
	p->snapshot = p->older;
	p->manifest = snapshot_manifest(p->older, p->name);
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
	p->manifest = snapshot_manifest(job->snapshot, p->name);
	if (strcmp(text_of(row, "status"), "ok") != 0 || !p->manifest) {
		const char *reason = text_of(row, "error");
		int rc = use_older(job, p, *reason ? reason : "it failed then", err);
		if (rc)
			return rc;
	}
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
		if (!is_named(q, text_of(row, "name")))
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
