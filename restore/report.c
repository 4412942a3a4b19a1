/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a restore tells: phases, rows, warnings, damage.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "restore/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { DAMAGE_MAX = 100000 };

void restore_warn(struct restore_job *job, const char *format, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, format);
	int n = vasprintf(&text, format, ap);
	va_end(ap);
	struct restore_result *r = job->result;
	char **grown = n < 0 ? NULL : realloc(r->warnings, (r->warning_count + 1) * sizeof *grown);
	if (!grown) {
		free(n < 0 ? NULL : text);
		return;
	}
	r->warnings = grown;
	r->warnings[r->warning_count++] = text;
	const struct restore_events *ev = job->request->events;
	if (ev && ev->warn)
		ev->warn(ev->context, text);
}

void restore_worst(struct restore_job *job, int code)
{
	static const int order[] = { IM_ECORRUPT, IM_EDIFFERENT, IM_EPARTIAL, IM_EFAIL,
		IM_EMISSED };
	for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
		if (job->worst == order[i])
			return;
		if (code == order[i]) {
			job->worst = code;
			return;
		}
	}
}

void restore_phase_begin(struct restore_job *job, const char *name)
{
	const struct restore_events *ev = job->request->events;
	if (ev && ev->phase)
		ev->phase(ev->context, name);
}

struct restore_phase *restore_phase_add(
    struct restore_job *job, const char *name, int64_t us, uint64_t bytes)
{
	struct restore_result *r = job->result;
	IM_CHECK(r->phase_count < sizeof r->phases / sizeof *r->phases);
	struct restore_phase *p = &r->phases[r->phase_count++];
	*p = (struct restore_phase){
		.name = name, .ms = us > 0 ? (us + 500) / 1000 : 0, .bytes = bytes
	};
	return p;
}

/* The instant at which everything is there. */
static void tell_reached(struct restore_job *job)
{
	struct restore_result *r = job->result;
	int64_t reached_ms = INT64_MAX;
	for (size_t i = 0; i < job->pick_count; i++)
		if (job->picks[i].route.snapshot && job->picks[i].route.reached_ms < reached_ms)
			reached_ms = job->picks[i].route.reached_ms;
	r->instant_reached_ms = reached_ms == INT64_MAX ? job->snapshot->time_ms : reached_ms;
	r->rpo_ms = job->start_wall_ms > r->instant_reached_ms ?
	    job->start_wall_ms - r->instant_reached_ms :
	    0;
}

int restore_tell_way(struct restore_job *job, size_t pick, struct im_error *err)
{
	const struct restore_route *way = &job->picks[pick].route;
	struct restore_store *row = &job->result->stores[pick];
	tell_reached(job);
	free(row->stopped);
	row->stopped = NULL;
	row->seq = way->snapshot ? way->snapshot->seq : 0;
	row->instant_reached_ms = way->reached_ms;
	row->has_log = way->has_log;
	memcpy(row->log_epoch, way->epoch, sizeof row->log_epoch);
	row->log_after = way->after;
	row->log_until = way->until;
	row->log_segments = way->segments;
	row->log_bytes = way->bytes;
	row->stopped = way->stopped ? strdup(way->stopped) : NULL;
	return way->stopped && !row->stopped ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

int restore_add_rows(struct restore_job *job, struct im_error *err)
{
	struct restore_result *r = job->result;
	r->stores = calloc(job->pick_count, sizeof *r->stores);
	if (!r->stores)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < job->pick_count; i++) {
		const struct restore_pick *p = &job->picks[i];
		struct restore_store *row = &r->stores[r->store_count++];
		*row = (struct restore_store){ .name = strdup(p->name),
			.type = strdup(p->type),
			.status = "failed",
			.path = job->target ? target_place(job->target, p->unit_path) :
					      strdup(p->unit_path) };
		if (!row->name || !row->type || !row->path)
			return im_fail(err, IM_ENOMEM, "out of memory");
		int rc = restore_tell_way(job, i, err);
		if (rc)
			return rc;
	}
	return 0;
}

void restore_row(struct restore_job *job, size_t pick, const char *status, const char *text)
{
	struct restore_store *row = &job->result->stores[pick];
	row->status = status;
	if (text) {
		free(row->text);
		row->text = strdup(text);
	}
}

struct damage_context {
	struct restore_job *job;
	const char *store;
};

static void take_damage(void *context, const struct engine_damage *d)
{
	struct damage_context *c = context;
	struct restore_result *r = c->job->result;
	if (r->damaged_count >= DAMAGE_MAX)
		return;
	if ((r->damaged_count & (r->damaged_count - 1)) == 0) {
		size_t cap = r->damaged_count ? 2 * r->damaged_count : 1;
		struct restore_damage *grown = realloc(r->damaged, cap * sizeof *grown);
		if (!grown)
			return;
		r->damaged = grown;
	}
	auto_free char *place = d->path ? target_place(c->job->target, d->path) : NULL;
	r->damaged[r->damaged_count++] = (struct restore_damage){ .store = strdup(c->store),
		.text = strdup(d->text),
		.path = place ? im_format("%s" TARGET_DAMAGED_SUFFIX, place) : NULL };
}

void restore_report_damage(struct restore_job *job, size_t pick)
{
	struct damage_context c = { job, job->picks[pick].name };
	engine_each_damage(job->engine, job->picks[pick].engine_store, take_damage, &c);
}
