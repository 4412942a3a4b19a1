/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The restore as a story: choose, aim, plan, fetch, finish, make durable, publish, check, start,
 * judge. Until "publish" nothing has a final name; a failure before it removes the stage (an
 * interruption leaves it, to be quick; the next restore empties it). The service is started only
 * on data that was decoded, compared and checked.
 */
#include "restore/restore.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "restore/instant/instant.h"
#include "restore/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

bool restore_is_instant(const struct restore_job *job)
{
	return job->request->mode != RESTORE_ORDINARY && !job->request->dry_run && !job->ordinary;
}

static void take_figures(struct restore_job *job)
{
	struct restore_result *r = job->result;
	struct engine_stats stats;
	engine_get_stats(job->engine, &stats);
	r->bytes_to_write = stats.planned_bytes;
	r->bytes_to_read = stats.fetch.read_bytes > stats.read_bytes_planned ?
	    stats.fetch.read_bytes :
	    stats.read_bytes_planned;
	r->bytes_read = stats.fetch.read_bytes;
	r->files = r->packs = 0;
	r->packs = stats.packs;
	for (size_t i = 0; i < job->pick_count; i++) {
		if (job->picks[i].planned)
			engine_store_stats(job->engine, job->picks[i].engine_store,
			    &r->stores[i].files, &r->stores[i].bytes);
		r->files += r->stores[i].files;
		r->bytes_to_read += r->stores[i].log_bytes;
		r->bytes_read += job->picks[i].added && !job->request->dry_run ?
		    r->stores[i].log_bytes :
		    0;
	}
}

/* Before anything is fetched. A plan that is made in parts is announced with the snapshot's own
 * sums. */
static void tell_planned(void *context, bool all)
{
	struct restore_job *job = context;
	struct restore_result *r = job->result;
	const struct restore_events *ev = job->request->events;
	if (!ev || !ev->planned)
		return;
	take_figures(job);
	if (!all && r->bytes_to_write < job->total_bytes)
		r->bytes_to_write = job->total_bytes;
	ev->planned(ev->context, r);
}

static void store_warn(void *context, const char *store, const char *text)
{
	restore_warn(context, "store %s: %s", store, text);
}

static int make_engine(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	job->store_events = (struct store_events){ .warn = store_warn, .context = job };
	struct engine_options o = { .vault = q->vault,
		.events = q->events,
		.store_events = &job->store_events,
		.target = q->dry_run ? NULL : job->target,
		.dry_run = q->dry_run,
		.check_ids = true,
		.lazy_bytes = restore_is_instant(job) ? INSTANT_EAGER_BYTES : 0,
		.lazy_max = instant_files_max(),
		.only_lazy = q->resume,
		.first_window = tell_planned,
		.context = job };
	for (size_t i = 0; i < job->pick_count; i++) {
		json_t *meta = snapshot_store_meta(job->picks[i].snapshot, job->picks[i].name);
		if (!job->picks[i].path_filter)
			o.total_bytes += (uint64_t)json_integer_value(
			    json_object_get(meta, "bytes"));
	}
	job->total_bytes = o.total_bytes;
	int rc = fetcher_new(q->vault->storage, q->vault->keyring, &job->fetcher, err);
	o.fetcher = job->fetcher;
	return rc ? rc : engine_new(&o, &job->engine, err);
}

/* Errors that are one store's own; others end the restore. */
static bool is_local(int code)
{
	return code == IM_ECORRUPT || code == IM_ENOTFOUND || code == IM_EUSAGE ||
	    code == IM_EDIFFERENT || code == IM_EKEY;
}

static int fail_store(struct restore_job *job, size_t i, const struct im_error *why)
{
	job->picks[i].failed = job->bad = true;
	if (!job->first.code)
		job->first = *why;
	restore_worst(job, why->code == IM_ECORRUPT ? IM_ECORRUPT : IM_EPARTIAL);
	restore_row(job, i, "failed", why->text);
	if (job->pick_count > 1) /* else it is the error itself */
		restore_warn(job, "store %s: %s", job->picks[i].name, why->text);
	return 0;
}

static int plan_way(struct restore_job *job, size_t i, struct im_error *why)
{
	struct restore_pick *p = &job->picks[i];
	struct im_error ignored = { 0 };
	int root_fd = job->request->dry_run ? -1 : target_root_fd(job->target, p->unit);
	int rc = engine_add(job->engine, p->snapshot, p->manifest, p->name, p->unit, root_fd,
	    p->path_filter, route_log(&p->route), &p->engine_store, why);
	if (rc)
		return rc;
	p->planned = p->added = true;
	rc = engine_plan(job->engine, p->engine_store, why);
	if (rc == IM_EGAP) {
		engine_finish(job->engine, p->engine_store, true, &ignored);
		p->planned = p->added = false;
	}
	return rc;
}

static int plan_store(struct restore_job *job, size_t i, struct im_error *err)
{
	struct restore_pick *p = &job->picks[i];
	struct im_error why = { 0 };
	bool again = true;
	int rc = 0;
	while (again && p->manifest) {
		im_error_clear(&why);
		rc = plan_way(job, i, &why);
		again = false;
		if (rc == IM_EGAP) {
			int fatal = restore_rethink(job, i, &again, err);
			if (fatal)
				return fatal;
		}
	}
	if (rc && (is_local(rc) || rc == IM_EGAP))
		return p->failed ? 0 : fail_store(job, i, &why);
	return rc ? im_fail(err, rc, "store %s: %s", p->name, why.text) : 0;
}

int restore_plan(struct restore_job *job, struct im_error *err)
{
	struct engine_stats stats;
	restore_phase_begin(job, "plan");
	int64_t start = im_monotonic_us();
	int rc = 0;
	bool any = false;
	for (size_t i = 0; i < job->pick_count && rc == 0; i++) {
		rc = plan_store(job, i, err);
		any |= !job->picks[i].failed;
	}
	if (rc == 0 && !any)
		rc = job->first.code ?
		    im_fail(err, job->first.code, "%s", job->first.text) :
		    im_fail(err, IM_ENOTFOUND, "none of these stores is in the snapshot");
	engine_get_stats(job->engine, &stats);
	restore_phase_add(job, "plan", im_monotonic_us() - start - (int64_t)stats.fetch_us, 0);
	return rc;
}

static uint64_t log_bytes(const struct restore_result *r)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < r->store_count; i++)
		bytes += r->stores[i].log_bytes;
	return bytes;
}

int restore_fetch(struct restore_job *job, struct im_error *err)
{
	struct engine_stats stats;
	int rc = restore_check_space(job, true, err);
	if (rc)
		return rc;
	restore_phase_begin(job, "fetch");
	rc = engine_fetch(job->engine, err);
	engine_get_stats(job->engine, &stats);
	uint64_t bytes = restore_is_instant(job) ? stats.fetch.plain_bytes : stats.planned_bytes;
	restore_phase_add(job, "fetch", (int64_t)stats.fetch_us, bytes);
	restore_phase_add(job, "read", (int64_t)stats.fetch.read_us, stats.fetch.read_bytes)
	    ->of_threads = true;
	restore_phase_add(job, "decode", (int64_t)stats.fetch.decode_us, stats.fetch.plain_bytes)
	    ->of_threads = true;
	restore_phase_add(job, "write", (int64_t)stats.write_us, bytes)
	    ->of_threads = true;
	if (log_bytes(job->result))
		restore_phase_add(job, "replay", (int64_t)stats.replay_us, log_bytes(job->result))->of_threads = true;
	job->result->bytes_written = rc ? 0 : bytes;
	return rc;
}

/* Metadata; deepest stores first, so that outer folders' times are set last. */
static int finish(struct restore_job *job, struct im_error *err)
{
	restore_phase_begin(job, "finish");
	int64_t start = im_monotonic_us();
	int rc = engine_complete(job->engine, err);
	for (size_t i = job->pick_count; i-- > 0 && rc == 0;) {
		struct restore_pick *p = &job->picks[i];
		struct im_error why = { 0 };
		if (!p->planned)
			continue;
		engine_store_stats(job->engine, p->engine_store, &job->result->stores[i].files,
		    &job->result->stores[i].bytes);
		int one = engine_finish(job->engine, p->engine_store, p->failed, &why);
		p->planned = false;
		if (one && is_local(one) && !p->failed)
			fail_store(job, i, &why);
		else if (one && !p->failed)
			rc = im_fail(err, one, "store %s: %s", p->name, why.text);
	}
	struct engine_stats stats;
	engine_get_stats(job->engine, &stats);
	if (stats.refused_owners)
		restore_warn(job,
		    "%" PRIu64
		    " files belong to the user who restored: only root can give them their owners",
		    stats.refused_owners);
	restore_phase_add(job, "finish", im_monotonic_us() - start, 0);
	return rc;
}

static int publish(struct restore_job *job, struct im_error *err)
{
	auto_free bool *wanted = calloc(job->pick_count + 1, sizeof *wanted);
	if (!wanted)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < job->pick_count; i++)
		if (job->picks[i].manifest)
			wanted[job->picks[i].unit] = !job->picks[i].failed;
	struct im_error why = { 0 };
	int rc = target_publish(job->target, wanted, &why);
	bool any = false;
	for (size_t i = 0; i < job->pick_count; i++) {
		struct restore_pick *p = &job->picks[i];
		if (!p->manifest || p->failed)
			continue;
		any |= target_is_published(job->target, p->unit);
		const char *aside = target_moved_aside(job->target, p->unit);
		job->result->stores[i].moved_aside = aside ? strdup(aside) : NULL;
		if (!target_is_published(job->target, p->unit))
			fail_store(job, i, &why);
		else
			restore_row(job, i, p->late ? "older" : "ok", NULL);
	}
	bool fatal = rc && (!is_local(rc) || (!any && rc != IM_ECORRUPT));
	return fatal ? im_fail(err, rc, "%s", why.text) : 0;
}

static int make_durable(struct restore_job *job, struct im_error *err)
{
	restore_phase_begin(job, "sync");
	int64_t start = im_monotonic_us();
	bool few = false;
	int rc = im_interrupt_check(err);
	if (rc == 0)
		rc = engine_sync_few(job->engine, &few, err);
	if (rc == 0 && !few)
		rc = target_sync(job->target, err);
	if (rc == 0)
		rc = publish(job, err);
	if (rc == 0)
		rc = target_end(job->target, err);
	restore_phase_add(job, "sync", im_monotonic_us() - start, 0);
	return rc;
}

static void report_damage(struct restore_job *job)
{
	for (size_t i = 0; i < job->pick_count; i++) {
		struct restore_pick *p = &job->picks[i];
		if (!p->manifest || p->failed || !p->added ||
		    !engine_damage_count(job->engine, p->engine_store))
			continue;
		p->damaged = job->bad = true;
		restore_worst(job, IM_ECORRUPT);
		restore_row(job, i, "damaged",
		    "parts of it could not be read from the vault; see what is damaged");
		restore_report_damage(job, i);
	}
}

static int64_t elapsed_ms(const struct restore_job *job)
{
	return (im_monotonic_us() - job->start_us + 500) / 1000;
}

static int start_service(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	struct restore_result *r = job->result;
	if (!job->bad)
		r->data_complete_ms = elapsed_ms(job);
	if (!q->exec_command) {
		r->service_ready_ms = r->data_complete_ms;
		return 0;
	}
	if (job->bad) {
		restore_warn(job,
		    "the service is not started: not everything is back and sound; look at it, then start it yourself");
		return 0;
	}
	restore_phase_begin(job, "start");
	int64_t start = im_monotonic_us();
	auto_free char *target = target_place(job->target, "");
	const struct start_options options = { .command = q->exec_command, .ready = q->ready_command,
		.target = target && *target ? target : "/",
		.inherit_fd = -1 };
	int rc = restore_start(&options, &r->exec_status, err);
	restore_phase_add(job, "start", im_monotonic_us() - start, 0);
	if (rc == 0)
		r->service_ready_ms = elapsed_ms(job);
	return rc;
}

static int judge(struct restore_job *job, struct im_error *err)
{
	struct restore_result *r = job->result;
	char took[40], target[40];
	r->rto_met = r->rto_ms && r->service_ready_ms >= 0 && r->service_ready_ms <= r->rto_ms;
	if (r->rto_ms && r->service_ready_ms >= 0 && !r->rto_met)
		restore_worst(job, IM_EMISSED);
	switch (job->worst) {
	case 0:
		return 0;
	case IM_ECORRUPT:
		return im_fail(err, IM_ECORRUPT,
		    "damage in the vault or in a store: what it harms is named above; everything else is restored");
	case IM_EDIFFERENT:
		return im_fail(err, IM_EDIFFERENT,
		    "everything is restored, but a check found a difference; see above");
	case IM_EMISSED:
		return im_fail(err, IM_EMISSED, "recovered after %s, but the target is %s",
		    im_duration_format(took, sizeof took, r->service_ready_ms),
		    im_duration_format(target, sizeof target, r->rto_ms));
	default:
		return im_fail(err, job->worst, "restored in part; see above");
	}
}

static void take_obstacle(void *context, size_t unit, const char *path)
{
	struct restore_job *job = context;
	for (size_t i = 0; i < job->pick_count; i++)
		if (job->picks[i].manifest && job->picks[i].unit == unit &&
		    !job->result->stores[i].in_the_way)
			job->result->stores[i].in_the_way = strdup(path);
}

/* The plan of a dry run: as the restore's own, without a stage. */
static int plan_only(struct restore_job *job, struct im_error *err)
{
	int rc = restore_plan(job, err);
	if (rc == 0)
		rc = engine_fetch(job->engine, err); /* counts only */
	if (rc)
		return rc;
	take_figures(job);
	for (size_t i = 0; i < job->pick_count; i++) {
		if (!job->picks[i].failed)
			restore_row(job, i, "planned",
			    job->picks[i].late ? "from an older snapshot" : NULL);
		if (job->picks[i].planned) {
			struct im_error why = { 0 };
			engine_finish(job->engine, job->picks[i].engine_store, true, &why);
			job->picks[i].planned = false;
		}
	}
	rc = target_each_obstacle(job->target, take_obstacle, job, err);
	if (rc)
		return rc;
	rc = restore_check_space(job, true, err);
	return rc ? rc : judge(job, err);
}

static int rebuild(struct restore_job *job, struct im_error *err)
{
	int rc = target_begin(job->target, err);
	if (rc == 0)
		rc = restore_plan(job, err);
	if (rc == 0)
		rc = restore_fetch(job, err);
	if (rc == 0)
		rc = finish(job, err);
	take_figures(job);
	if (rc == 0)
		rc = make_durable(job, err);
	if (rc == 0)
		report_damage(job);
	if (rc == 0)
		rc = restore_check(job, err);
	if (rc == 0)
		rc = restore_examine(job, false, err);
	if (rc == 0)
		rc = start_service(job, err);
	return rc ? rc : judge(job, err);
}

static int run(struct restore_job *job, struct im_error *err)
{
	const struct restore_request *q = job->request;
	int64_t opened_us = q->opened_us ? q->opened_us : im_monotonic_us();
	restore_phase_add(job, "open", opened_us - job->start_us, 0);
	int64_t start = im_monotonic_us();
	int rc = restore_choose(job, err);
	if (rc == 0)
		rc = restore_pick_stores(job, err);
	if (rc == 0)
		rc = restore_aim(job, err);
	if (rc == 0)
		rc = restore_add_rows(job, err);
	if (rc == 0 && !q->dry_run) /* a dry run shows the plan first */
		rc = restore_check_space(job, false, err);
	if (rc == 0)
		rc = make_engine(job, err);
	job->result->phases[0].ms += (im_monotonic_us() - start) / 1000;
	if (rc)
		return rc;
	if (q->dry_run)
		return plan_only(job, err);
	if (!restore_is_instant(job))
		return rebuild(job, err);
	rc = q->resume ? instant_resume(job, err) : instant_run(job, err);
	take_figures(job);
	if (rc == 0 && !job->declined && !q->detach)
		rc = restore_examine(job, q->exec_command != NULL, err);
	return rc ? rc : judge(job, err);
}

static void pick_clear(struct restore_pick *p)
{
	route_clear(&p->route);
	route_lost_clear(&p->lost);
}

static void job_clear(struct restore_job *job, int rc)
{
	struct im_error ignored = { 0 };
	for (size_t i = 0; i < job->pick_count; i++)
		if (job->picks[i].planned)
			engine_finish(job->engine, job->picks[i].engine_store, true, &ignored);
	engine_free(job->engine);
	/* an interruption must be quick: the next restore empties the stage */
	if (job->target && rc != IM_EINTERRUPTED)
		target_end(job->target, &ignored);
	target_free(job->target);
	fetcher_free(job->fetcher);
	for (size_t i = 0; i < job->pick_count; i++)
		pick_clear(&job->picks[i]);
	free(job->picks);
	snapshot_free(job->named);
	history_clear(&job->history);
}

static int run_once(const struct restore_request *request, bool ordinary, struct restore_result *ret, bool *ret_declined, struct im_error *err)
{
	struct restore_job job = { .request = request, .result = ret, .ordinary = ordinary, .start_wall_ms = im_now_ms(),
		.start_us = request->start_us ? request->start_us : im_monotonic_us() };
	ret->mode = "ordinary";
	int rc = run(&job, err);
	job_clear(&job, rc);
	*ret_declined = job.declined;
	return rc;
}

static void result_begin(struct restore_result *r)
{
	*r = (struct restore_result){ .service_ready_ms = -1, .data_complete_ms = -1, .exec_status = -1 };
}

static int resume(const struct restore_request *request, struct restore_result *ret, struct im_error *err)
{
	struct restore_request mine = *request;
	json_t *keep = NULL;
	auto_free const char **stores = NULL;
	bool declined, joined;
	int rc = instant_join(request, ret, &joined, err);
	if (rc || joined)
		return rc;
	rc = instant_take_record(&mine, &keep, &stores, err);
	if (rc == 0)
		rc = run_once(&mine, false, ret, &declined, err);
	json_decref(keep);
	return rc;
}

int restore_run(
    const struct restore_request *request, struct restore_result *ret, struct im_error *err)
{
	bool declined;
	struct im_error why = { 0 };
	result_begin(ret);
	if (request->resume)
		return resume(request, ret, err);
	int rc = run_once(request, false, ret, &declined, &why);
	if (!rc || !declined || request->mode != RESTORE_INSTANT)
		return rc ? im_fail(err, rc, "%s", why.text) : 0;
	restore_result_clear(ret);
	result_begin(ret);
	struct restore_job note = { .request = request, .result = ret };
	restore_warn(&note, "an instant restore is not possible here, so this is an ordinary one: %s", why.text);
	return run_once(request, true, ret, &declined, err);
}

void restore_result_clear(struct restore_result *r)
{
	for (size_t i = 0; i < r->store_count; i++) {
		struct restore_store *s = &r->stores[i];
		free(s->name);
		free(s->type);
		free(s->path);
		free(s->text);
		free(s->stopped);
		free(s->moved_aside);
		free(s->in_the_way);
	}
	for (size_t i = 0; i < r->warning_count; i++)
		free(r->warnings[i]);
	for (size_t i = 0; i < r->damaged_count; i++) {
		free(r->damaged[i].store);
		free(r->damaged[i].path);
		free(r->damaged[i].text);
	}
	free(r->instant.alias);
	free(r->stores);
	free(r->warnings);
	free(r->damaged);
	free(r->node);
	free(r->snapshot);
	*r = (struct restore_result){ 0 };
}
