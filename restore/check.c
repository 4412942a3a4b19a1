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

static int check_one(struct restore_job *job, size_t i, const char *level, struct im_error *err)
{
	struct restore_pick *p = &job->picks[i];
	const struct store_ops *ops = store_find(p->type);
	if (!p->manifest || p->failed || p->damaged || !ops->check)
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
	struct warm *warm = place && json_object_get(p->manifest, "file_bytes") ? warm_begin(place) : NULL;
	json_t *manifest = json_copy(p->manifest);
	if (route_log(&p->route))
		json_object_set_new(manifest, "log_laid", json_true());
	target_each_stranger(job->target, p->unit, add_elsewhere, manifest);
	int rc = place && manifest ? ops->check(manifest, place, level, &text, &why) :
				     im_fail(&why, IM_ENOMEM, "out of memory");
	json_decref(manifest);
	warm_end(warm);
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

int restore_check(struct restore_job *job, struct im_error *err)
{
	const char *level = job->request->check_level ? job->request->check_level : "quick";
	int rc = 0;
	if (strcmp(level, "none") == 0)
		return 0;
	restore_phase_begin(job, "check");
	int64_t start = im_monotonic_us();
	for (size_t i = 0; i < job->pick_count && rc == 0; i++) {
		rc = im_interrupt_check(err);
		if (rc == 0)
			rc = check_one(job, i, level, err);
	}
	restore_phase_add(job, "check", im_monotonic_us() - start, 0);
	return rc;
}
