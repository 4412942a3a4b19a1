/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault metrics: what status knows, as a textfile for Prometheus's node_exporter. The file is
 * replaced whole or not at all. A vault that cannot be reached is a measurement, too: imvault_up is 0 and
 * what the local state knows is there all the same.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/metrics_text.h"
#include "cli/output.h"
#include "cli/status.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const enum option_id options[] = { OPTION_OUTPUT, OPTION_END };

static const char help[] =
    "imvault metrics: how this node is protected, for Prometheus.\n"
    "\n"
    "  imvault [-c FILE] metrics [--output FILE]\n"
    "  imvault metrics --vault URL --key FILE --node NAME [--output FILE]\n"
    "\n"
    "  -o, --output FILE   replaces FILE, whole or not at all, for node_exporter's\n"
    "                      textfile collector; without it: standard output\n"
    "\n"
    "Last runs, snapshots, log lag, recovery windows, drills, the forecast against\n"
    "the target, the vault's size and space, the findings of imvault status. Any key\n"
    "will do. If the vault cannot be reached, imvault_up is 0, the rest is what this\n"
    "machine knows, and the exit code is 4. Red findings do not change it: a metric\n"
    "that was written is a success. Alert rules and a dashboard come with imvault.\n"
    "\n"
    "Examples:\n"
    "  imvault metrics\n"
    "  imvault --quiet metrics -o /var/lib/prometheus/node-exporter/imvault.prom\n";

static const char *const scenarios[] = { "full", "instant" };
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

static void gauge(struct metrics_text *m, const char *name, const char *help_text)
{
	metrics_family(m, METRICS_GAUGE, name, help_text);
}

static int64_t figure(const json_t *meta, const char *name)
{
	return json_integer_value(json_object_get(meta, name));
}

/* --- runs of this machine --- */

static void put_run(struct metrics_text *m, const struct status_facts *f, enum metrics_type type, const char *name, const char *help_text,
    size_t offset, bool is_time)
{
	metrics_family(m, type, name, help_text);
	for (int i = 0; i < RUN_COUNT; i++) {
		const struct run_record *r = &f->runs[i];
		int64_t value;
		memcpy(&value, (const char *)r + offset, sizeof value);
		if (!r->known || (is_time && !value))
			continue;
		if (is_time)
			metrics_seconds(m, "command", runs_name((enum run_command)i), value);
		else
			metrics_number(m, "command", runs_name((enum run_command)i), value);
	}
}

static void put_exit_codes(struct metrics_text *m, const struct status_facts *f)
{
	gauge(m, "imvault_run_last_exit_code", "How the last run of the command on this machine ended; 0 is success, imvault(1) lists the others.");
	for (int i = 0; i < RUN_COUNT; i++)
		if (f->runs[i].known)
			metrics_number(m, "command", runs_name((enum run_command)i), f->runs[i].exit_code);
}

static void put_runs(struct metrics_text *m, const struct status_facts *f)
{
#define RUN(field) offsetof(struct run_record, field)
	put_run(m, f, METRICS_GAUGE, "imvault_run_last_attempt_timestamp_seconds",
	    "When the last run of the command on this machine began, successful or not.", RUN(began_ms), true);
	put_run(m, f, METRICS_GAUGE, "imvault_run_last_success_timestamp_seconds", "When the last run that succeeded began.", RUN(success_ms), true);
	put_exit_codes(m, f);
	put_run(m, f, METRICS_GAUGE, "imvault_run_last_duration_seconds", "How long the last run took.", RUN(duration_ms), true);
	put_run(m, f, METRICS_GAUGE, "imvault_run_last_read_bytes", "What the last run read.", RUN(read_bytes), false);
	put_run(m, f, METRICS_GAUGE, "imvault_run_last_stored_bytes", "What the last run wrote to the vault.", RUN(stored_bytes), false);
	put_run(m, f, METRICS_COUNTER, "imvault_runs_total", "Runs of the command on this machine.", RUN(runs), false);
	put_run(m, f, METRICS_COUNTER, "imvault_run_failures_total", "Runs that ended with anything but 0.", RUN(failures), false);
	put_run(m, f, METRICS_COUNTER, "imvault_run_read_bytes_total", "What all runs read.", RUN(read_bytes_total), false);
	put_run(m, f, METRICS_COUNTER, "imvault_run_stored_bytes_total", "What all runs wrote to the vault.", RUN(stored_bytes_total), false);
#undef RUN
}

static void put_schedule(struct metrics_text *m, const struct status_facts *f)
{
	gauge(m, "imvault_run_interval_seconds", "How often the command is meant to run.");
	for (size_t i = 0; i < f->next_count; i++)
		metrics_seconds(m, "command", runs_name(f->next[i].command), f->next[i].every_ms);
	gauge(m, "imvault_run_due_timestamp_seconds", "When the command is to run next.");
	for (size_t i = 0; i < f->next_count; i++)
		metrics_seconds(m, "command", runs_name(f->next[i].command), f->next[i].due_ms);
	gauge(m, "imvault_run_overdue", "1 if the command should have run by now, or never ran.");
	for (size_t i = 0; i < f->next_count; i++)
		metrics_number(m, "command", runs_name(f->next[i].command), f->next[i].overdue);
}

/* --- snapshots, stores, logs --- */

static void put_figure(struct metrics_text *m, const struct status_facts *f, const char *name, const char *help_text, const char *field)
{
	gauge(m, name, help_text);
	if (f->newest)
		metrics_number(m, NULL, NULL, figure(f->newest->record.meta, field));
}

static void put_snapshots(struct metrics_text *m, const struct status_facts *f)
{
	gauge(m, "imvault_snapshots", "Snapshots of the node in the vault.");
	if (f->has_vault)
		metrics_number(m, NULL, NULL, (int64_t)f->list.count);
	gauge(m, "imvault_snapshot_timestamp_seconds", "The instant the newest snapshot shows.");
	if (f->newest)
		metrics_seconds(m, NULL, NULL, f->newest->time_ms);
	gauge(m, "imvault_snapshot_sequence_number", "The newest snapshot's number.");
	if (f->newest)
		metrics_number(m, NULL, NULL, (int64_t)f->newest->seq);
	gauge(m, "imvault_snapshot_duration_seconds", "How long the newest snapshot took.");
	if (f->newest)
		metrics_seconds(m, NULL, NULL, figure(f->newest->record.meta, "duration_ms"));
	put_figure(m, f, "imvault_snapshot_read_bytes", "What the newest snapshot read.", "bytes_read");
	put_figure(m, f, "imvault_snapshot_changed_bytes", "What had changed since the one before.", "bytes_changed");
	put_figure(m, f, "imvault_snapshot_stored_bytes", "What the newest snapshot added to the vault.", "bytes_stored");
	gauge(m, "imvault_snapshots_unreadable", "Snapshots newer than the newest that can be read.");
	if (f->has_vault)
		metrics_number(m, NULL, NULL, (int64_t)f->unreadable_count);
	gauge(m, "imvault_snapshot_chain_breaks", "Numbers missing from the chain of snapshots or given twice: removal, rollback or a second writer.");
	if (f->has_vault)
		metrics_number(m, NULL, NULL, (int64_t)f->chain_findings);
	gauge(m, "imvault_state_agrees", "0 if the vault lacks a snapshot that this node wrote: it was rolled back.");
	if (f->has_state)
		metrics_number(m, NULL, NULL, f->state_agrees);
}

static void put_stores(struct metrics_text *m, const struct status_facts *f)
{
	gauge(m, "imvault_store_ok", "1 if the newest snapshot has the whole store.");
	for (size_t i = 0; f->newest && i < f->store_count; i++) {
		const char *status = json_string_value(json_object_get(f->stores[i].meta, "status"));
		metrics_number(m, "store", f->stores[i].name,
		    status && strcmp(status, "ok") == 0 && !json_is_true(json_object_get(f->stores[i].meta, "partial")));
	}
	gauge(m, "imvault_store_bytes", "The store's size in the newest snapshot.");
	for (size_t i = 0; f->newest && i < f->store_count; i++)
		metrics_number(m, "store", f->stores[i].name, figure(f->stores[i].meta, "bytes"));
	gauge(m, "imvault_recovery_window_start_timestamp_seconds", "The earliest instant the store can be restored to.");
	for (size_t i = 0; i < f->store_count; i++)
		if (f->stores[i].has_window)
			metrics_seconds(m, "store", f->stores[i].name, f->stores[i].from_ms);
	gauge(m, "imvault_recovery_window_end_timestamp_seconds", "The latest instant the store can be restored to.");
	for (size_t i = 0; i < f->store_count; i++)
		if (f->stores[i].has_window)
			metrics_seconds(m, "store", f->stores[i].name, f->stores[i].to_ms);
	gauge(m, "imvault_recovery_window_gaps", "Gaps between the two, within which no instant of the store can be restored.");
	for (size_t i = 0; i < f->store_count; i++)
		if (f->stores[i].has_window)
			metrics_number(m, "store", f->stores[i].name, (int64_t)(f->stores[i].gaps + f->stores[i].holes));
}

static void put_log(struct metrics_text *m, const struct status_facts *f, const char *name, const char *help_text,
    int64_t (*value)(const struct status_store *s), bool is_time)
{
	gauge(m, name, help_text);
	for (size_t i = 0; i < f->store_count; i++) {
		const struct status_store *s = &f->stores[i];
		if (s->log == STATUS_LOG_THERE && is_time)
			metrics_seconds(m, "store", s->name, value(s));
		else if (s->log == STATUS_LOG_THERE)
			metrics_number(m, "store", s->name, value(s));
	}
}

static int64_t lag_of(const struct status_store *s) { return s->lag_ms; }
static int64_t shipped_of(const struct status_store *s) { return s->row->shipped_ms; }
static int64_t following_of(const struct status_store *s) { return s->row->following; }
static int64_t alarm_of(const struct status_store *s) { return s->row->text || s->trouble; }
static int64_t spooled_of(const struct status_store *s) { return (int64_t)s->row->spooled_bytes; }
static int64_t held_of(const struct status_store *s) { return (int64_t)s->row->held_bytes; }

static void put_logs(struct metrics_text *m, const struct status_facts *f)
{
	put_log(m, f, "imvault_log_lag_seconds",
	    "How long ago the first thing may have been committed that a restore would miss; 0: nothing is missing.", lag_of, true);
	put_log(m, f, "imvault_log_shipped_timestamp_seconds", "The instant up to which the store's log is in the vault.", shipped_of, true);
	put_log(m, f, "imvault_log_following", "1 if a process follows the store now.", following_of, false);
	put_log(m, f, "imvault_log_alarm", "1 if the follower has an alarm: a gap, or trouble with the source.", alarm_of, false);
	put_log(m, f, "imvault_log_spool_bytes", "Captured and waiting for the vault.", spooled_of, false);
	put_log(m, f, "imvault_log_held_bytes", "Kept at the source for the follower (the WAL).", held_of, false);
}

/* --- drills and the forecast --- */

static void put_drill(struct metrics_text *m, const struct status_facts *f, const char *name, const char *help_text,
    int64_t (*value)(const struct drill_record *d), bool is_time)
{
	gauge(m, name, help_text);
	for (size_t i = 0; i < SCENARIOS; i++) {
		const struct drill_record *d = status_facts_drill(f, scenarios[i]);
		if (d && is_time && value(d) >= 0)
			metrics_seconds(m, "scenario", scenarios[i], value(d));
		else if (d && !is_time)
			metrics_number(m, "scenario", scenarios[i], value(d));
	}
}

static int64_t time_of(const struct drill_record *d) { return d->time_ms; }
static int64_t passed_of(const struct drill_record *d) { return strcmp(d->verdict, "passed") == 0; }
static int64_t sound_of(const struct drill_record *d) { return d->passed; }
static int64_t rto_met_of(const struct drill_record *d) { return d->rto_met; }
static int64_t rpo_met_of(const struct drill_record *d) { return d->rpo_met; }
static int64_t ready_of(const struct drill_record *d) { return d->service_ready_ms; }
static int64_t complete_of(const struct drill_record *d) { return d->data_complete_ms; }
static int64_t lost_of(const struct drill_record *d) { return d->rpo_ms; }

static void put_drills(struct metrics_text *m, const struct status_facts *f)
{
	const struct drill_record *passed = drills_last(&f->drills, true);
	gauge(m, "imvault_last_verified_restore_timestamp_seconds", "When the last drill began that found everything it restored sound.");
	if (passed)
		metrics_seconds(m, NULL, NULL, passed->time_ms);
	put_drill(m, f, "imvault_drill_timestamp_seconds", "When the last drill of the scenario began.", time_of, true);
	put_drill(m, f, "imvault_drill_passed", "1 if it passed: everything sound, and within the targets.", passed_of, false);
	put_drill(m, f, "imvault_drill_sound", "1 if nothing was missing, damaged or different, whatever time it took.", sound_of, false);
	put_drill(m, f, "imvault_drill_rto_met", "1 if the service was ready within the target.", rto_met_of, false);
	put_drill(m, f, "imvault_drill_rpo_met", "1 if no more would have been lost than the target allows.", rpo_met_of, false);
	put_drill(m, f, "imvault_drill_service_ready_seconds", "After how long the service was ready.", ready_of, true);
	put_drill(m, f, "imvault_drill_data_complete_seconds", "After how long all data was back.", complete_of, true);
	put_drill(m, f, "imvault_drill_data_loss_seconds", "From the instant it restored to when it began.", lost_of, true);
	gauge(m, "imvault_recovery_records", "Records of drills and real restores in the vault.");
	if (f->has_vault)
		metrics_number(m, NULL, NULL, (int64_t)f->drills.count);
	gauge(m, "imvault_recovery_record_findings", "What is wrong with these records: removed, altered, signed by a stranger, unreadable.");
	if (f->has_vault)
		metrics_number(m, NULL, NULL, (int64_t)f->drills.finding_count + (f->drills_trouble != NULL));
}

static void put_forecast(struct metrics_text *m, const struct status_facts *f, const char *name, const char *help_text, size_t offset)
{
	const struct forecast *both[SCENARIOS] = { &f->forecast.full, &f->forecast.instant };
	gauge(m, name, help_text);
	for (size_t i = 0; f->has_forecast && i < SCENARIOS; i++) {
		int64_t ms;
		memcpy(&ms, (const char *)both[i] + offset, sizeof ms);
		if (both[i]->ready_p50_ms > 0)
			metrics_seconds(m, "scenario", scenarios[i], ms);
	}
}

static void put_forecasts(struct metrics_text *m, const struct status_facts *f)
{
	const struct forecast *both[SCENARIOS] = { &f->forecast.full, &f->forecast.instant };
#define FORECAST(field) offsetof(struct forecast, field)
	put_forecast(m, f, "imvault_forecast_service_ready_p50_seconds", "Half of all recoveries now would have the service ready by then.",
	    FORECAST(ready_p50_ms));
	put_forecast(m, f, "imvault_forecast_service_ready_p95_seconds", "95 percent of all recoveries now would have the service ready by then.",
	    FORECAST(ready_p95_ms));
	put_forecast(m, f, "imvault_forecast_data_complete_p50_seconds", "Half of all recoveries now would have all data back by then.",
	    FORECAST(complete_p50_ms));
	put_forecast(m, f, "imvault_forecast_data_complete_p95_seconds", "95 percent of all recoveries now would have all data back by then.",
	    FORECAST(complete_p95_ms));
#undef FORECAST
	gauge(m, "imvault_forecast_error_ratio", "How far past forecasts were off the truth, median; absent until there are drills.");
	for (size_t i = 0; f->has_forecast && i < SCENARIOS; i++)
		if (both[i]->error_percent >= 0)
			metrics_ratio(m, "scenario", scenarios[i], both[i]->error_percent);
	gauge(m, "imvault_forecast_recoveries", "Recovery records that taught the forecast; 0: it only knows this machine's speed.");
	for (size_t i = 0; f->has_forecast && i < SCENARIOS; i++)
		metrics_number(m, "scenario", scenarios[i], both[i]->learned_from);
}

/* --- the whole --- */

static void put_targets(struct metrics_text *m, const struct status_facts *f)
{
	gauge(m, "imvault_rto_target_seconds", "Recovery time target: the service is to be ready within.");
	if (f->rto_ms)
		metrics_seconds(m, NULL, NULL, f->rto_ms);
	gauge(m, "imvault_rpo_target_seconds", "Recovery point target: no more than this may be lost.");
	if (f->rpo_ms)
		metrics_seconds(m, NULL, NULL, f->rpo_ms);
}

static void put_vault(struct metrics_text *m, const struct status_facts *f)
{
	double days = status_facts_days_left(f);
	gauge(m, "imvault_vault_bytes", "The vault's size, all nodes.");
	if (f->has_vault)
		metrics_number(m, NULL, NULL, (int64_t)f->vault_bytes);
	gauge(m, "imvault_vault_objects", "Objects in the vault, all nodes.");
	if (f->has_vault)
		metrics_number(m, NULL, NULL, (int64_t)f->vault_objects);
	gauge(m, "imvault_vault_free_bytes", "Free space where the vault lies.");
	if (f->has_vault && f->has_free)
		metrics_number(m, NULL, NULL, (int64_t)f->vault_free_bytes);
	gauge(m, "imvault_vault_daily_growth_bytes", "What this node adds in a day, over the last month.");
	if (f->has_vault && f->has_growth)
		metrics_number(m, NULL, NULL, (int64_t)f->growth_per_day);
	gauge(m, "imvault_vault_full_in_seconds", "When the space ends if it goes on like this.");
	if (f->has_vault && days >= 0)
		metrics_number(m, NULL, NULL, (int64_t)(days * 86400));
	gauge(m, "imvault_damage_timestamp_seconds", "When verify found damage; 0: none is known.");
	if (f->folder || f->has_vault)
		metrics_seconds(m, NULL, NULL, f->damage_ms);
}

static void put_findings(struct metrics_text *m, const struct status_facts *f)
{
	struct verdict v = { .cli = f->cli };
	if (f->has_vault)
		status_judge(&v, f);
	gauge(m, "imvault_status_findings", "What imvault status would say: red, not protected as meant; amber, somebody should look.");
	if (f->has_vault) {
		metrics_number(m, "severity", "red", (int64_t)v.red);
		metrics_number(m, "severity", "amber", (int64_t)v.amber);
	}
	verdict_clear(&v);
}

static void put_self(struct metrics_text *m, const struct status_facts *f)
{
	gauge(m, "imvault_build_info", "The version of imvault; always 1.");
	metrics_number(m, "version", IMVAULT_VERSION, 1);
	gauge(m, "imvault_metrics_timestamp_seconds", "When these metrics were written.");
	metrics_seconds(m, NULL, NULL, f->now_ms);
	gauge(m, "imvault_up", "1 if the vault could be opened and listed.");
	metrics_number(m, NULL, NULL, f->has_vault);
}

static void put_all(struct metrics_text *m, const struct status_facts *f)
{
	put_self(m, f);
	put_targets(m, f);
	put_runs(m, f);
	put_schedule(m, f);
	put_snapshots(m, f);
	put_stores(m, f);
	put_logs(m, f);
	put_drills(m, f);
	put_forecasts(m, f);
	put_vault(m, f);
	put_findings(m, f);
}

static int write_all(struct cli *cli, const struct metrics_text *m, struct im_error *err)
{
	const char *path = cli->options.output;
	if (m->out.failed)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (path && strcmp(path, "-") != 0)
		return im_file_write(path, m->out.data, m->out.len, 0644, IM_FILE_REPLACE, err);
	if (cli->options.json) {
		json_object_set_new(cli->json, "metrics", json_stringn((const char *)m->out.data, m->out.len));
		return 0;
	}
	return im_write_full(STDOUT_FILENO, m->out.data, m->out.len, err, "standard output");
}

static int run(struct cli *cli, struct im_error *err)
{
	struct status_facts facts = { 0 };
	struct metrics_text m = { 0 };
	struct im_error why = { 0 };
	int rc = session_open(cli, SESSION_ANY_KEY, &why);
	m.node = session_node(cli);
	if (!m.node || !im_name_valid(m.node))
		return why.code ? im_fail(err, rc, "%s", why.text) : im_fail(err, IM_EUSAGE, "metrics: which node? Give --node NAME");
	int gathered = status_facts_gather(cli, m.node, &facts, rc ? NULL : &why);
	put_all(&m, &facts);
	rc = rc ? rc : gathered;
	int written = write_all(cli, &m, err);
	output_text(cli->json, "output", cli->options.output);
	output_boolean(cli->json, "up", facts.has_vault);
	im_buf_free(&m.out);
	status_facts_clear(&facts);
	return written ? written : rc ? im_fail(err, rc, "%s", why.text) : 0;
}

const struct command cmd_metrics = { "metrics", "how it is protected, for Prometheus", help, options, 0, run };
