/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot a restore begins with: the one named, or the newest that counts for the instant asked
 * for. What each store comes from is decided afterwards (way.c).
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "restore/internal.h"

#include <string.h>

bool restore_is_named(const struct restore_request *q, const char *name)
{
	for (size_t i = 0; q->stores && q->stores[i]; i++)
		if (strcmp(q->stores[i], name) == 0)
			return true;
	return !q->stores || !q->stores[0];
}

static int choose_named(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	int rc = snapshot_choose(q->vault->storage, q->vault->keyring, q->node, q->at, NULL, NULL,
	    &job->named, err);
	job->snapshot = job->named;
	if (rc == 0 && !job->named->record.private_part)
		rc = im_fail(err, IM_EKEY,
		    "this key cannot read the snapshot's content; restore needs the restore key");
	return rc;
}

/* Does some store asked for stand in s as it was at or before the instant? */
static bool counts(const struct restore_job *job, const struct snapshot *s)
{
	size_t i;
	json_t *row;
	if (s->time_ms <= job->until_ms)
		return true;
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, row)
	{
		const char *name = json_string_value(json_object_get(row, "name"));
		int64_t instant_ms;
		if (name && restore_is_named(job->request, name) &&
		    history_has_image(s, name, &instant_ms) && instant_ms <= job->until_ms)
			return true;
	}
	return false;
}

static int choose_newest(struct restore_job *job, struct im_error *err)
{
	struct history *h = &job->history;
	const char *bad = NULL;
	char instant[IM_INSTANT_BYTES];
	for (size_t i = h->names.count; i-- > 0;) {
		struct snapshot *s = NULL;
		int rc = history_get(h, i, &s, err);
		if (rc)
			return rc;
		if (s && counts(job, s)) {
			job->snapshot = s;
			job->main = i;
			return 0;
		}
		bad = s ? bad : h->bad[i];
	}
	if (bad)
		return im_fail(err, IM_ECORRUPT, "no readable snapshot is left: %s", bad);
	return im_fail(err, IM_ENOTFOUND,
	    "node %s has no snapshot at or before %s; `imvault list` shows what there is",
	    h->names.items[0].node, im_instant_format(instant, job->until_ms));
}

static int choose(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	job->until_ms = ROUTE_LATEST;
	if (q->at && strcmp(q->at, "latest") != 0 && !im_instant_parse(q->at, &job->until_ms))
		return choose_named(job, err);
	int rc = history_open(&job->history, q->vault, q->node, err);
	return rc ? rc : choose_newest(job, err);
}

int restore_choose(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	int rc = choose(job, err);
	if (rc)
		return rc;
	struct snapshot *s = job->snapshot;
	struct restore_result *r = job->result;
	const char *slash = strrchr(s->object, '/');
	r->node = strdup(s->node);
	r->snapshot = strdup(slash ? slash + 1 : s->object);
	if (!r->node || !r->snapshot)
		return im_fail(err, IM_ENOMEM, "out of memory");
	r->seq = s->seq;
	const char *tier = json_string_value(json_object_get(s->record.meta, "tier"));
	r->rto_ms = q->rto_ms ? q->rto_ms :
				json_integer_value(json_object_get(s->record.meta, "rto_ms"));
	if (r->rto_ms <= 0)
		r->rto_ms = tier ? im_tier_rto_ms(tier) : 0;
	return 0;
}
