/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check of what was rebuilt, under its final name: the store kind's own, beside a reader that
 * brings a database into the page cache.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "restore/internal.h"
#include "restore/warm.h"

#include <string.h>

/* A damaged store inside this one leaves files there that the snapshot does not have. */
static const char *damaged_inside(const struct restore_job *job, const struct restore_pick *outer)
{
	size_t n = strlen(outer->path);
	for (size_t i = 0; i < job->pick_count; i++) {
		const struct restore_pick *p = &job->picks[i];
		if (p != outer && p->damaged && strncmp(p->path, outer->path, n) == 0 &&
		    (n == 1 || p->path[n] == '/'))
			return p->name;
	}
	return NULL;
}

static void add_elsewhere(void *context, const char *name)
{
	json_t *manifest = context, *list = json_object_get(manifest, "elsewhere");
	json_t *mine = list ? json_copy(list) : json_array();
	json_array_append_new(mine, json_string(name));
	json_object_set_new(manifest, "elsewhere", mine);
}

/* How a store is looked at: as every restore does, or as the caller wishes. */
struct look {
	const char *level; /* NULL: the caller's examination */
	bool touched;
};

static int look_at(struct restore_job *job, size_t i, const struct look *look, const char *place, json_t *manifest, char **ret_text, struct im_error *err)
{
	const struct restore_request *q = job->request;
	if (!look->level)
		return q->examine(q->examine_context, &job->result->stores[i], manifest, look->touched, ret_text, err);
	struct warm *warm = json_object_get(manifest, "file_bytes") ? warm_begin(place) : NULL;
	int rc = store_find(job->picks[i].type)->check(manifest, place, look->level, ret_text, err);
	warm_end(warm);
	return rc;
}

static int check_one(struct restore_job *job, size_t i, const struct look *look, struct im_error *err)
{
	struct restore_pick *p = &job->picks[i];
	const struct store_ops *ops = store_find(p->type);
	if (!p->manifest || p->failed || p->damaged || !ops->check || strcmp(job->result->stores[i].status, "different") == 0)
		return 0;
	if (p->path_filter) {
		restore_row(job, i, job->result->stores[i].status,
		    "each byte compared; the store as a whole was not restored and is not checked");
		return 0;
	}
	auto_free char *text = NULL;
	const char *inside = damaged_inside(job, p);
	if (inside) {
		text = im_format(
		    "each byte compared; not checked as a whole, since store %s inside it is damaged",
		    inside);
		restore_row(job, i, job->result->stores[i].status, text);
		return 0;
	}
	auto_free char *place = target_place(job->target, p->path);
	struct im_error why = { 0 };
	json_t *manifest = json_copy(p->manifest);
	if (route_log(&p->route))
		json_object_set_new(manifest, "log_laid", json_true());
	target_each_stranger(job->target, p->unit, add_elsewhere, manifest);
	int rc = place && manifest ? look_at(job, i, look, place, manifest, &text, &why) :
				     im_fail(&why, IM_ENOMEM, "out of memory");
	json_decref(manifest);
	if (rc == IM_EINTERRUPTED || rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	if (rc == 0) {
		restore_row(job, i, job->result->stores[i].status, text);
		return 0;
	}
	job->bad = true;
	restore_worst(job, rc == IM_ECORRUPT ? IM_ECORRUPT : IM_EDIFFERENT);
	restore_row(job, i, "different", why.text);
	restore_warn(job, "store %s: %s", p->name, why.text);
	return 0;
}

static int look_at_all(struct restore_job *job, const char *phase, const struct look *look, struct im_error *err)
{
	int rc = 0;
	restore_phase_begin(job, phase);
	for (size_t i = 0; i < job->pick_count && rc == 0; i++) {
		rc = im_interrupt_check(err);
		if (rc == 0)
			rc = check_one(job, i, look, err);
	}
	return rc;
}

int restore_check(struct restore_job *job, struct im_error *err)
{
	const struct look look = { .level = job->request->check_level ? job->request->check_level : "quick" };
	if (strcmp(look.level, "none") == 0)
		return 0;
	int64_t start = im_monotonic_us();
	int rc = look_at_all(job, "check", &look, err);
	restore_phase_add(job, "check", im_monotonic_us() - start, 0);
	return rc;
}

static int examine_all(struct restore_job *job, bool touched, struct im_error *err)
{
	const struct restore_request *q = job->request;
	struct im_error why = { 0 };
	int rc = q->examine_all ? q->examine_all(q->examine_context, job->result, touched, &why) : 0;
	if (rc != IM_EDIFFERENT && rc != IM_ECORRUPT)
		return rc ? im_fail(err, rc, "%s", why.text) : 0;
	job->bad = true;
	restore_worst(job, rc);
	return 0;
}

int restore_examine(struct restore_job *job, bool touched, struct im_error *err)
{
	const struct look look = { .touched = touched };
	if (!job->request->examine)
		return 0;
	int64_t start = im_monotonic_us();
	int rc = look_at_all(job, "examine", &look, err);
	if (rc == 0)
		rc = examine_all(job, touched, err);
	job->start_us += im_monotonic_us() - start; /* off the clock */
	return rc;
}
