/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a node is not as it should be. Each finding ends with what to do about it.
 */
#include "cli/status.h"

#include "base/clock.h"
#include "cli/output.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SPACE_MIN_BYTES (UINT64_C(64) << 20)
#define SPACE_MIN_DAYS 14
#define LOGGED_MAX_AGE_MS (INT64_C(24) * 3600 * 1000)

static void add(struct verdict *v, bool red, const char *format, va_list ap)
{
	struct status_finding *grown = reallocarray(v->items, v->count + 1, sizeof *grown);
	*(red ? &v->red : &v->amber) += 1;
	if (!grown)
		return; /* it counts all the same */
	v->items = grown;
	char *text = NULL;
	grown[v->count++] = (struct status_finding){ red, vasprintf(&text, format, ap) < 0 ? NULL : text };
}

void status_red(struct verdict *v, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	add(v, true, format, ap);
	va_end(ap);
}

void status_amber(struct verdict *v, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	add(v, false, format, ap);
	va_end(ap);
}

void verdict_clear(struct verdict *v)
{
	for (size_t i = 0; i < v->count; i++)
		free(v->items[i].text);
	free(v->items);
	*v = (struct verdict){ 0 };
}

/* --- stores and their logs --- */

static void judge_image(struct verdict *v, const struct status_store *s)
{
	const char *status = json_string_value(json_object_get(s->meta, "status"));
	const char *error = json_string_value(json_object_get(s->meta, "error"));
	if (!s->meta)
		status_red(v, "store %s is in the configuration but not in the last snapshot: run imvault backup", s->name);
	else if (!status || strcmp(status, "ok") != 0)
		status_red(v, "store %s failed in the last snapshot: %s; put that right and run imvault backup", s->name,
		    error ? error : "no reason recorded");
	else if (json_is_true(json_object_get(s->meta, "partial")))
		status_red(v, "store %s is incomplete in the last snapshot: run imvault backup on a terminal and see what it says", s->name);
}

static void judge_lag(struct verdict *v, const struct status_facts *f, const struct status_store *s)
{
	char lag[40], rpo[40];
	if (!f->rpo_ms || s->lag_ms <= f->rpo_ms)
		return;
	status_span(lag, sizeof lag, s->lag_ms);
	status_span(rpo, sizeof rpo, f->rpo_ms);
	status_red(v, "the log of store %s is %s behind its source, more than rpo = %s: %s", s->name, lag, rpo,
	    !s->row->following      ? "nobody follows it; is the service running? (imvault follow)"
	    : s->row->spooled_bytes ? "it waits in the spool until the vault can be reached; see why with imvault verify"
	                            : "see what the follower says (imvault follow)");
}

static void judge_log(struct verdict *v, const struct status_facts *f, const struct status_store *s)
{
	if (s->row && s->row->text && s->log != STATUS_LOG_NONE)
		status_red(v, "store %s: %s", s->name, s->row->text);
	/* without any log the snapshot's age is judged for all */
	if (s->log == STATUS_LOG_MISSING && f->newest && f->follow.count && f->rpo_ms && f->age_ms > f->rpo_ms)
		status_red(v, "store %s has no log yet, and its last snapshot is older than rpo: is the service running? (imvault follow)", s->name);
	if (s->log != STATUS_LOG_THERE)
		return;
	if (s->trouble)
		status_red(v, "store %s cannot be looked at: %s; imvault backup says more", s->name, s->trouble);
	judge_lag(v, f, s);
}

static void judge_window(struct verdict *v, const struct status_store *s)
{
	if (s->forks)
		status_amber(v, "store %s: two machines wrote its log, or a state was cloned: imvault list shows when", s->name);
	if (s->holes)
		status_amber(v, "store %s: its log lacks segments, so that some instants cannot be reached: imvault list shows which", s->name);
}

/* --- backups --- */

/* Where a log is shipped, the snapshot may be older than rpo: it is what the rest stands on. But not for ever. */
static void judge_age(struct verdict *v, const struct status_facts *f)
{
	char age[40], rpo[40];
	int64_t limit_ms = f->logged && f->rpo_ms < LOGGED_MAX_AGE_MS ? LOGGED_MAX_AGE_MS : f->rpo_ms;
	if (!f->newest || !f->rpo_ms || f->age_ms <= limit_ms)
		return;
	status_span(age, sizeof age, f->age_ms);
	status_span(rpo, sizeof rpo, f->rpo_ms);
	status_red(v, "the last snapshot of %s is %s old, older than %s%s: is the timer running? Run imvault backup", f->node, age,
	    f->logged ? "a day" : "rpo = ", f->logged ? "" : rpo);
}

/* A failed backup is red where nothing else would ever tell that they fail. */
static void judge_attempt(struct verdict *v, const struct status_facts *f)
{
	const struct run_record *r = &f->runs[RUN_BACKUP];
	const struct im_config *c = f->cli->config;
	bool guarded = f->rpo_ms || f->logged || (c && c->backup_every_ms);
	char ago[40];
	if (!r->known || !r->exit_code || r->exit_code == 3 || (f->newest && f->newest->time_ms > r->began_ms + r->duration_ms))
		return; /* 3: the stores say it */
	status_span(ago, sizeof ago, f->now_ms - r->began_ms);
	(r->exit_code == 6 || !guarded ? status_red : status_amber)(v, "the last backup, %s ago, failed with %d: %s; put that right and run "
	    "imvault backup", ago, r->exit_code, r->error);
}

static void judge_due(struct verdict *v, const struct status_facts *f)
{
	char late[40], every[40];
	for (size_t i = 0; i < f->next_count; i++) {
		const struct status_next *n = &f->next[i];
		const char *name = runs_name(n->command);
		status_span(every, sizeof every, n->every_ms);
		status_span(late, sizeof late, f->now_ms - n->due_ms);
		if (n->overdue && !n->last_ms)
			status_red(v, "there was no %s yet, and one is meant to run every %s: run imvault %s", name, every, name);
		else if (n->overdue)
			status_red(v, "the %s that is meant to run every %s is overdue by %s: is the timer running? Run imvault %s", name, every, late,
			    name);
	}
}

/* --- the vault --- */

static void judge_chain(struct verdict *v, const struct status_facts *f)
{
	for (size_t i = 0; i < f->unreadable_count; i++)
		status_red(v, "snapshot %s; run imvault verify", f->unreadable[i]);
	if (f->has_state && !f->state_agrees)
		status_red(v, "the vault lacks snapshot %" PRIu64 ", which this node wrote: it was rolled back or snapshots were removed; run "
		    "imvault backup and find out who did it", f->state_seq);
	if (f->chain_findings)
		status_amber(v, "the chain of snapshots has %zu break%s: some were removed, the vault was rolled back, or two machines wrote it; "
		    "imvault list shows where", f->chain_findings, f->chain_findings == 1 ? "" : "s");
	if (f->windows_trouble)
		status_red(v, "the log in the vault cannot be read: %s; run imvault verify", f->windows_trouble);
}

static void judge_damage(struct verdict *v, const struct status_facts *f)
{
	char ago[40];
	const char *key = f->verify_log.damage_by_restore_key ? " with a restore key" : "";
	if (f->damage_ms)
		status_red(v, "verify found damage %s ago: copy the vault away, then run imvault verify --read%s, which names what is harmed",
		    status_span(ago, sizeof ago, f->now_ms - f->damage_ms), key);
}

/* A forged record hides nothing, as it counts for nothing; but somebody wrote it. */
static void judge_runlog(struct verdict *v, const struct status_facts *f)
{
	const struct runlog *both[] = { &f->verify_log, &f->report_log };
	if (f->runlog_trouble)
		status_amber(v, "the run records cannot be read: %s; run imvault verify", f->runlog_trouble);
	for (size_t i = 0; i < 2; i++)
		if (both[i]->finding_count)
			status_amber(v, "%s; it counts for nothing%s: imvault verify names all of them", both[i]->finding,
			    both[i]->finding_count > 1 ? ", nor do others" : "");
}

static void judge_space(struct verdict *v, const struct status_facts *f)
{
	char space[24];
	uint64_t wanted = f->newest ? 3 * (uint64_t)json_integer_value(json_object_get(f->newest->record.meta, "bytes_stored")) : 0;
	double days = status_facts_days_left(f);
	if (!f->has_free)
		return;
	im_bytes_format(space, sizeof space, f->vault_free_bytes);
	if (f->vault_free_bytes < (wanted > SPACE_MIN_BYTES ? wanted : SPACE_MIN_BYTES))
		status_red(v, "the vault has only %s left: make room before the next backup fails (df %s)", space, f->cli->vault->storage->url);
	else if (days >= 0 && days < SPACE_MIN_DAYS)
		status_amber(v, "the vault has %s left and is full in about %.0f days as it grows now: make room (df %s)", space, days,
		    f->cli->vault->storage->url);
}

/* --- rehearsals --- */

static void judge_last_drill(struct verdict *v, const struct drill_record *d, const char *when)
{
	const char *scenario = strcmp(d->scenario, "instant") == 0 ? "instant" : "full", *again = *scenario == 'i' ? " --instant" : "";
	char ready[40], rto[40];
	if (strcmp(d->verdict, "passed") == 0)
		return;
	status_span(ready, sizeof ready, d->service_ready_ms);
	status_span(rto, sizeof rto, d->rto_ms);
	if (strcmp(d->verdict, "interrupted") == 0)
		status_amber(v, "the last drill (%s, %s) was interrupted and proves nothing: run imvault drill%s", scenario, when, again);
	else if (d->passed && d->rto_ms >= 0 && !d->rto_met)
		status_red(v, "the last drill (%s, %s) was ready after %s, later than rto = %s: see what took long with imvault report, then run "
		    "imvault drill%s", scenario, when, ready, rto, again);
	else if (d->passed)
		status_red(v, "the last drill (%s, %s) reached less than rpo asks for: follow the stores (imvault follow) or back up more often", scenario,
		    when);
	else
		status_red(v, "the last drill (%s, %s) failed: what it restored was not sound or did not start; see imvault report, then run imvault "
		    "drill%s", scenario, when, again);
}

static void judge_drills(struct verdict *v, const struct status_facts *f)
{
	char time[IM_INSTANT_BYTES];
	const struct drill_record *d = drills_last(&f->drills, false);
	if (f->drills_trouble)
		status_red(v, "the recovery records cannot be read: %s; run imvault verify", f->drills_trouble);
	for (size_t i = 0; i < f->drills.finding_count && i < 3; i++)
		status_red(v, "%s; find out who changed the vault and run imvault verify", f->drills.findings[i]);
	if (f->drills.finding_count > 3)
		status_red(v, "%zu more findings about recovery records: run imvault report", f->drills.finding_count - 3);
	if (d)
		judge_last_drill(v, d, im_instant_format(time, d->time_ms));
}

const struct forecast *status_best_forecast(const struct status_facts *f)
{
	const struct forecast *full = &f->forecast.full, *instant = &f->forecast.instant;
	return instant->ready_p50_ms > 0 && instant->ready_p95_ms < full->ready_p95_ms ? instant : full;
}

static void judge_forecast(struct verdict *v, const struct status_facts *f)
{
	const struct forecast *best = status_best_forecast(f);
	char time[40], rto[40];
	if (!f->has_forecast || !f->rto_ms)
		return;
	status_span(rto, sizeof rto, f->rto_ms);
	if (best->ready_p50_ms > f->rto_ms)
		status_red(v, "a recovery now would take about %s until the service is ready, longer than rto = %s: find out what takes long with imvault "
		    "drill; a faster disk or vault, or --instant, shortens it", status_span(time, sizeof time, best->ready_p50_ms), rto);
	else if (best->ready_p95_ms > f->rto_ms)
		status_amber(v, "a recovery now could take up to %s until the service is ready, longer than rto = %s: imvault drill makes the forecast surer",
		    status_span(time, sizeof time, best->ready_p95_ms), rto);
}

void status_judge(struct verdict *v, const struct status_facts *f)
{
	judge_chain(v, f);
	for (size_t i = 0; i < f->store_count; i++) {
		if (f->newest)
			judge_image(v, &f->stores[i]);
		judge_log(v, f, &f->stores[i]);
		judge_window(v, &f->stores[i]);
	}
	judge_age(v, f);
	judge_attempt(v, f);
	judge_damage(v, f);
	judge_runlog(v, f);
	judge_space(v, f);
	judge_drills(v, f);
	judge_due(v, f);
	judge_forecast(v, f);
}
