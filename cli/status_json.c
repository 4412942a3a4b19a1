/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer of `imvault status --json`. Names are promised (imvault-status(1)); what is not known is left out.
 */
#include "cli/output.h"
#include "cli/status.h"

#include <string.h>

static int64_t figure(const json_t *meta, const char *name)
{
	return json_integer_value(json_object_get(meta, name));
}

static void put_snapshot(json_t *j, const struct status_facts *f)
{
	output_text(j, "snapshot", strrchr(f->newest->object, '/') + 1);
	output_integer(j, "seq", (int64_t)f->newest->seq);
	output_instant(j, "time", f->newest->time_ms);
	output_integer(j, "age_ms", f->age_ms);
	output_integer(j, "snapshots", (int64_t)f->list.count);
	output_integer(j, "rto_ms", f->rto_ms);
	if (f->rpo_ms)
		output_integer(j, "rpo_ms", f->rpo_ms);
}

static json_t *log_json(const struct status_store *s)
{
	const struct follow_state_row *row = s->row;
	json_t *log = json_object();
	output_boolean(log, "following", row->following);
	output_integer(log, "lag_ms", s->lag_ms);
	output_integer(log, "point", row->point);
	output_text(log, "epoch", row->epoch);
	output_instant(log, "shipped", row->shipped_ms);
	output_integer(log, "spooled_bytes", (int64_t)row->spooled_bytes);
	output_integer(log, "held_bytes", (int64_t)row->held_bytes);
	output_text(log, "alarm", row->text);
	return log;
}

static void put_store(json_t *row, const struct status_store *s)
{
	output_text(row, "name", s->name);
	output_text(row, "status", s->meta ? json_string_value(json_object_get(s->meta, "status")) : "missing");
	output_text(row, "error", json_string_value(json_object_get(s->meta, "error")));
	output_text(row, "instant", json_string_value(json_object_get(s->meta, "instant")));
	output_integer(row, "bytes", figure(s->meta, "bytes"));
	if (s->log == STATUS_LOG_THERE)
		json_object_set_new(row, "log", log_json(s));
}

static void put_gap(json_t *gap, const char *reason, bool has_from, int64_t from_ms, bool has_to, int64_t to_ms)
{
	output_text(gap, "reason", reason);
	if (has_from)
		output_instant(gap, "from", from_ms);
	if (has_to)
		output_instant(gap, "to", to_ms);
}

static void put_gaps(json_t *row, const struct log_window *w)
{
	if (w->restorable && w->has_before && !w->closed)
		put_gap(output_row(row, "gaps"), w->reason, w->has_gap_from, w->gap_from_ms, w->has_gap_to, w->gap_to_ms);
	for (size_t i = 0; i < w->hole_count; i++)
		if (!w->holes[i].at_end)
			put_gap(output_row(row, "gaps"), "segments of the log are missing", true, w->holes[i].from_ms, true, w->holes[i].to_ms);
}

static void put_window(json_t *row, const struct status_facts *f, const struct status_store *s)
{
	output_text(row, "store", s->name);
	output_boolean(row, "logged", s->logged);
	output_instant(row, "from", s->from_ms);
	output_instant(row, "to", s->to_ms);
	output_array(row, "gaps");
	for (size_t i = 0; i < f->windows.count; i++)
		if (strcmp(f->windows.items[i].store, s->name) == 0)
			put_gaps(row, &f->windows.items[i]);
}

/* The vault's record of a run, on whichever machine. */
static void put_logged_run(json_t *j, const char *name, const struct runlog_run *r)
{
	json_t *row = json_object();
	output_instant(row, "time", r->time_ms);
	output_integer(row, "duration_ms", r->duration_ms);
	output_text(row, "host", r->host);
	output_integer(row, "exit_code", r->exit_code);
	if (r->read_percent >= 0) {
		output_integer(row, "read_percent", r->read_percent);
		output_integer(row, "damaged", (int64_t)r->damaged);
	}
	json_object_set_new(j, name, row);
}

static void put_vault(json_t *j, const struct status_facts *f)
{
	double days = status_facts_days_left(f);
	output_text(j, "vault", f->cli->vault->storage->url);
	output_integer(j, "vault_bytes", (int64_t)f->vault_bytes);
	output_integer(j, "vault_objects", (int64_t)f->vault_objects);
	if (f->has_free)
		output_integer(j, "vault_free_bytes", (int64_t)f->vault_free_bytes);
	if (f->has_growth)
		output_integer(j, "growth_bytes_per_day", (int64_t)f->growth_per_day);
	if (days >= 0)
		output_integer(j, "vault_days_left", (int64_t)days);
	if (f->has_state)
		output_boolean(j, "state_agrees", f->state_agrees);
	if (f->verified_ms)
		output_integer(j, "verify_age_ms", f->now_ms - f->verified_ms);
	if (f->damage_ms)
		output_instant(j, "damage_found", f->damage_ms);
	if (f->verify_log.known)
		put_logged_run(j, "last_verify", &f->verify_log.last);
	if (f->report_log.known)
		put_logged_run(j, "last_report", &f->report_log.last);
}

static void put_time(json_t *j, const char *name, int64_t ms)
{
	if (ms >= 0)
		output_integer(j, name, ms);
}

static json_t *drill_json(const struct status_facts *f, const struct drill_record *d)
{
	json_t *j = json_object();
	output_text(j, "record", d->object);
	output_instant(j, "time", d->time_ms < 0 ? 0 : d->time_ms);
	output_integer(j, "age_ms", f->now_ms - d->time_ms);
	output_text(j, "scenario", d->scenario);
	output_text(j, "verdict", d->verdict);
	output_boolean(j, "passed", d->passed);
	output_text(j, "snapshot", d->snapshot);
	output_text(j, "operator", d->operator_name);
	output_text(j, "host", d->host);
	put_time(j, "service_ready_ms", d->service_ready_ms);
	put_time(j, "data_complete_ms", d->data_complete_ms);
	put_time(j, "rto_ms", d->rto_ms);
	put_time(j, "rpo_ms", d->rpo_ms);
	output_boolean(j, "rto_met", d->rto_met);
	output_boolean(j, "rpo_met", d->rpo_met);
	return j;
}

static void put_drills(json_t *j, const struct status_facts *f)
{
	const struct drill_record *last = drills_last(&f->drills, false), *passed = drills_last(&f->drills, true);
	output_integer(j, "recovery_records", (int64_t)f->drills.count);
	if (last)
		json_object_set_new(j, "last_drill", drill_json(f, last));
	if (passed)
		output_instant(j, "last_verified_restore", passed->time_ms);
}

static json_t *forecast_json(const struct forecast *f)
{
	json_t *j = json_object();
	output_integer(j, "ready_p50_ms", f->ready_p50_ms);
	output_integer(j, "ready_p95_ms", f->ready_p95_ms);
	output_integer(j, "complete_p50_ms", f->complete_p50_ms);
	output_integer(j, "complete_p95_ms", f->complete_p95_ms);
	output_integer(j, "learned_from", f->learned_from);
	if (f->error_percent >= 0)
		json_object_set_new(j, "error_percent", json_real(f->error_percent));
	return j;
}

static void put_forecast(json_t *j, const struct status_facts *f)
{
	json_t *both = json_object();
	json_object_set_new(both, "full", forecast_json(&f->forecast.full));
	json_object_set_new(both, "instant", forecast_json(&f->forecast.instant));
	json_object_set_new(j, "forecast", both);
}

static void put_run(json_t *row, enum run_command command, const struct run_record *r)
{
	output_text(row, "run", runs_name(command));
	output_instant(row, "time", r->began_ms);
	output_integer(row, "duration_ms", r->duration_ms);
	output_integer(row, "exit_code", r->exit_code);
	output_text(row, "error", r->error[0] ? r->error : NULL);
	if (r->success_ms)
		output_instant(row, "last_success", r->success_ms);
}

static void put_next(json_t *row, const struct status_facts *f, const struct status_next *n)
{
	output_text(row, "run", runs_name(n->command));
	output_integer(row, "every_ms", n->every_ms);
	if (n->last_ms)
		output_instant(row, "last", n->last_ms);
	output_instant(row, "due", n->due_ms);
	output_integer(row, "due_in_ms", n->due_ms - f->now_ms);
	output_boolean(row, "overdue", n->overdue);
}

void status_json(json_t *j, const struct status_facts *f)
{
	if (f->newest)
		put_snapshot(j, f);
	output_array(j, "stores");
	output_array(j, "window");
	for (size_t i = 0; f->newest && i < f->store_count; i++) {
		put_store(output_row(j, "stores"), &f->stores[i]);
		if (f->stores[i].has_window)
			put_window(output_row(j, "window"), f, &f->stores[i]);
	}
	if (f->has_vault) {
		put_vault(j, f);
		put_drills(j, f);
	}
	if (f->has_forecast)
		put_forecast(j, f);
	output_array(j, "last_runs");
	for (int i = 0; i < RUN_COUNT; i++)
		if (f->runs[i].known)
			put_run(output_row(j, "last_runs"), (enum run_command)i, &f->runs[i]);
	output_array(j, "next_runs");
	for (size_t i = 0; i < f->next_count; i++)
		put_next(output_row(j, "next_runs"), f, &f->next[i]);
}
