/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log in `imvault status`. What counts is the source: as long as nothing was committed after the
 * last shipped point nothing can be lost, however old that point is; from then on the clock runs.
 */
#include "cli/status.h"

#include "base/clock.h"
#include "cli/output.h"
#include "stores/store.h"

#include <inttypes.h>
#include <string.h>

static const struct follow_state_row *find_row(const struct follow_state *s, const char *store)
{
	for (size_t i = 0; i < s->count; i++)
		if (strcmp(s->rows[i].store, store) == 0)
			return &s->rows[i];
	return NULL;
}

/* How long ago the first thing may have been committed that a restore would miss. */
static int measure(const struct verdict *v, const struct im_config_store *store, const struct store_follow_ops *ops, const struct follow_state_row *row,
    int64_t *ret_lag_ms, struct im_error *err)
{
	bool moved = true;
	int64_t last_ms = 0;
	int rc = ops->moved(store, row->position, &moved, &last_ms, err);
	*ret_lag_ms = rc || (moved && last_ms > row->shipped_ms) ? v->now_ms - row->shipped_ms : 0;
	*ret_lag_ms = *ret_lag_ms < 0 ? 0 : *ret_lag_ms;
	return rc;
}

static void put_json(json_t *row_json, const struct follow_state_row *row, int64_t lag_ms)
{
	json_t *log = json_object();
	output_boolean(log, "following", row->following);
	output_integer(log, "lag_ms", lag_ms);
	output_integer(log, "point", row->point);
	output_text(log, "epoch", row->epoch);
	output_instant(log, "shipped", row->shipped_ms);
	output_integer(log, "spooled_bytes", (int64_t)row->spooled_bytes);
	output_integer(log, "held_bytes", (int64_t)row->held_bytes);
	output_text(log, "alarm", row->text);
	json_object_set_new(row_json, "log", log);
}

static void show(const struct verdict *v, const struct follow_state_row *row, int64_t lag_ms)
{
	char lag[40], shipped[IM_INSTANT_BYTES], spooled[24];
	im_duration_format(lag, sizeof lag, lag_ms);
	output_line(v->cli, "log            %-14s %s; up to %s is shipped%s%s%s", row->store, lag_ms ? lag : "nothing is missing",
	    im_instant_format(shipped, row->shipped_ms), row->spooled_bytes ? "; waiting in the spool: " : "",
	    row->spooled_bytes ? im_bytes_format(spooled, sizeof spooled, row->spooled_bytes) : "", row->following ? "" : "; not followed now");
}

static void judge_lag(struct verdict *v, const struct follow_state_row *row, int64_t lag_ms)
{
	char lag[40], rpo[40];
	if (!v->rpo_ms || lag_ms <= v->rpo_ms)
		return;
	im_duration_format(lag, sizeof lag, lag_ms);
	im_duration_format(rpo, sizeof rpo, v->rpo_ms);
	status_red(v, "the log of store %s is %s behind its source, more than rpo = %s: %s", row->store, lag, rpo,
	    !row->following       ? "nobody follows it; is the service running? (imvault follow)"
	    : row->spooled_bytes ? "it waits in the spool until the vault can be reached"
	                         : "see what the follower says");
}

/* A store that is meant to be followed and is not. */
static bool judge_missing(struct verdict *v, const struct im_config_store *store)
{
	if (!v->rpo_ms || v->age_ms <= v->rpo_ms || !v->follow.count)
		return false; /* without any log the snapshot's age is judged for all */
	status_red(v, "store %s has no log yet, and its last snapshot is older than rpo: is the service running? (imvault follow)", store->name);
	return true;
}

bool status_judge_log(struct verdict *v, const struct im_config_store *store, json_t *row_json)
{
	const struct store_ops *kind = store_find(store->type);
	const struct store_follow_ops *ops = kind ? kind->follow : NULL;
	const struct follow_state_row *row = find_row(&v->follow, store->name);
	const char *why;
	int64_t lag_ms;
	struct im_error err = { 0 };
	if (!ops || !ops->wanted(store, &why))
		return false;
	if (row && row->text)
		status_red(v, "store %s: %s", store->name, row->text);
	if (!row || !row->position)
		return judge_missing(v, store);
	int rc = measure(v, store, ops, row, &lag_ms, &err);
	put_json(row_json, row, lag_ms);
	show(v, row, lag_ms);
	if (rc)
		status_red(v, "store %s cannot be looked at: %s", store->name, err.text);
	judge_lag(v, row, lag_ms);
	v->logged++;
	return true;
}
