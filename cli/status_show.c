/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The screen of `imvault status`: one line for each question an operator asks. Texts that come from
 * the vault are made printable; what is red or amber is said apart, on stderr.
 */
#include "base/clock.h"
#include "cli/outlook.h"
#include "cli/output.h"
#include "cli/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_COLUMNS 80
#define MINUTE_BYTES 17 /* "2026-11-23 00:50" */

const char *status_colour(int fd, enum status_colour colour)
{
	static const char *const codes[] = { "\033[0m", "\033[1;32m", "\033[1;33m", "\033[1;31m" };
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
	return (no && *no) || !term || strcmp(term, "dumb") == 0 || !isatty(fd) ? "" : codes[colour];
}

/* To the minute, UTC. */
static char *minute(char ret[MINUTE_BYTES], int64_t ms)
{
	char text[IM_INSTANT_BYTES];
	im_instant_format(text, ms);
	snprintf(ret, MINUTE_BYTES, "%.10s %.5s", text, strlen(text) > 15 ? text + 11 : "");
	return ret;
}

/* As short as it can be: without the year if it is clear, without the time if it is long ago. */
static char *moment(char ret[MINUTE_BYTES], int64_t ms, int64_t now_ms)
{
	char text[MINUTE_BYTES];
	minute(text, ms);
	bool recent = ms > now_ms - INT64_C(300) * 24 * 3600 * 1000;
	snprintf(ret, MINUTE_BYTES, "%.*s", recent ? 11 : 10, recent ? text + 5 : text);
	return ret;
}

char *status_span(char *ret, size_t size, int64_t ms)
{
	if (ms >= INT64_C(48) * 3600 * 1000) {
		snprintf(ret, size, "%" PRId64 " days", ms / (INT64_C(24) * 3600 * 1000));
		return ret;
	}
	im_duration_format(ret, size, ms);
	for (char *p = strstr(ret, " 0 "); p; p = NULL) /* "15 min 0 s" */
		*p = '\0';
	return ret;
}

static const char *plain(char *ret, size_t size, const char *text)
{
	snprintf(ret, size, "%s", text);
	for (char *p = ret; *p; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
	return ret;
}

static void show_verdict(const struct verdict *v, const struct status_facts *f)
{
	enum status_colour colour = v->red ? STATUS_RED : v->amber || v->restoring ? STATUS_AMBER : STATUS_GREEN;
	static const char *const words[] = { "", "GREEN", "AMBER", "RED" };
	char time[MINUTE_BYTES];
	output_line(v->cli, "%s%-9s%s node %s %s; %s UTC", status_colour(STDOUT_FILENO, colour), words[colour],
	    status_colour(STDOUT_FILENO, STATUS_PLAIN), f->node,
	    v->red ? "is not fully protected" : v->restoring ? "is being restored" : "is protected", minute(time, f->now_ms));
}

static void show_snapshot(const struct cli *cli, const struct status_facts *f)
{
	char time[MINUTE_BYTES], age[40], rpo[40];
	if (!f->newest)
		return;
	output_line(cli, "snapshot  %" PRIu64 " of %s, %s old%s%s", f->newest->seq, minute(time, f->newest->time_ms),
	    status_span(age, sizeof age, f->age_ms),
	    f->rpo_ms ? "; rpo " : "", f->rpo_ms ? status_span(rpo, sizeof rpo, f->rpo_ms) : "");
}

static const char *lag_text(char *ret, size_t size, const struct status_store *s)
{
	if (s->log == STATUS_LOG_NONE)
		return "no log";
	if (s->log == STATUS_LOG_MISSING)
		return "missing";
	return s->lag_ms ? im_duration_format(ret, size, s->lag_ms) : "0";
}

static void show_store(const struct cli *cli, const struct status_store *s, int64_t now_ms)
{
	const char *status = json_string_value(json_object_get(s->meta, "status"));
	bool ok = status && strcmp(status, "ok") == 0;
	char size[24], lag[40], from[MINUTE_BYTES], to[MINUTE_BYTES], faults[40] = "";
	im_bytes_format(size, sizeof size, (uint64_t)json_integer_value(json_object_get(s->meta, "bytes")));
	if (s->gaps + s->holes)
		snprintf(faults, sizeof faults, ", %zu gap%s", s->gaps + s->holes, s->gaps + s->holes == 1 ? "" : "s");
	output_line(cli, "store     %-12s %8s  %-10s %s%s%s%s", s->name, ok ? size : s->meta ? "FAILED" : "missing", lag_text(lag, sizeof lag, s),
	    s->has_window ? moment(from, s->from_ms, now_ms) : "", s->has_window ? " to " : "",
	    s->has_window ? moment(to, s->to_ms, now_ms) : "", faults);
	if (s->row && s->row->spooled_bytes)
		output_line(cli, "          %-12s %8s  wait in the spool", "", im_bytes_format(size, sizeof size, s->row->spooled_bytes));
}

static void show_stores(const struct cli *cli, const struct status_facts *f)
{
	if (!f->newest)
		return;
	output_line(cli, "          %-12s %8s  %-10s %s", "", "size", "behind", "can be restored (UTC)");
	for (size_t i = 0; i < f->store_count; i++)
		show_store(cli, &f->stores[i], f->now_ms);
}

static void show_drill(const struct cli *cli, const struct status_facts *f)
{
	const struct drill_record *d = drills_last(&f->drills, false), *passed = drills_last(&f->drills, true);
	char time[MINUTE_BYTES], ago[40], scenario[16], verdict[16], ready[40], complete[40];
	if (!d) {
		output_line(cli, "drill     none yet; imvault drill shows that this comes back, and how fast");
		return;
	}
	output_line(cli, "drill     %s ago, %s: %s%s%s%s%s", status_span(ago, sizeof ago, f->now_ms - d->time_ms),
	    plain(scenario, sizeof scenario, d->scenario), plain(verdict, sizeof verdict, d->verdict), d->service_ready_ms >= 0 ? ", ready " : "",
	    d->service_ready_ms >= 0 ? im_duration_format(ready, sizeof ready, d->service_ready_ms) : "",
	    d->data_complete_ms >= 0 ? ", complete " : "",
	    d->data_complete_ms >= 0 ? im_duration_format(complete, sizeof complete, d->data_complete_ms) : "");
	if (passed && passed != d)
		output_line(cli, "          the last whose data was sound: %s", minute(time, passed->time_ms));
}

static void show_scenario(const struct cli *cli, const char *label, const char *name, const struct forecast *c)
{
	char p50[40], p95[40], complete[40];
	if (c->ready_p50_ms <= 0)
		return;
	output_line(cli, "%-9s %-8s ready in %s (95 %%: %s), complete in %s", label, name, im_duration_format(p50, sizeof p50, c->ready_p50_ms),
	    im_duration_format(p95, sizeof p95, c->ready_p95_ms), im_duration_format(complete, sizeof complete, c->complete_p50_ms));
}

static void show_forecast(const struct cli *cli, const struct status_facts *f)
{
	const struct forecast *best = status_best_forecast(f);
	char rto[40], ground[100];
	if (!f->has_forecast)
		return;
	show_scenario(cli, "forecast", "full", &f->forecast.full);
	show_scenario(cli, "", "instant", &f->forecast.instant);
	status_span(rto, sizeof rto, f->rto_ms);
	output_line(cli, "          rto %s; %s", rto, best->learned_from ? outlook_ground(ground, sizeof ground, best)
	                                                             : "from sizes and a probe alone until there are drills");
}

static void show_vault(const struct cli *cli, const struct status_facts *f)
{
	char size[24], space[24] = "unknown space", growth[40] = "growth not known yet", left[60] = "";
	double days = status_facts_days_left(f);
	output_line(cli, "vault     %s in %" PRIu64 " objects: %s", im_bytes_format(size, sizeof size, f->vault_bytes), f->vault_objects,
	    f->cli->vault->storage->url);
	if (f->has_free)
		im_bytes_format(space, sizeof space, f->vault_free_bytes);
	if (f->has_growth)
		snprintf(growth, sizeof growth, "grows by %s a day", im_bytes_format(size, sizeof size, f->growth_per_day));
	if (days >= 3650)
		snprintf(left, sizeof left, ", full in more than ten years");
	else if (days >= 0)
		snprintf(left, sizeof left, ", full in about %.0f days", days);
	output_line(cli, "          %s free; %s%s", space, growth, left);
}

/* Of the newest record in the vault, if that run is the one that counts; this machine may date it a little later. */
static const char *verified_where(char *ret, size_t size, const struct status_facts *f)
{
	const struct runlog_run *r = &f->verify_log.last;
	if (!f->verify_log.known || r->time_ms + 1000 < f->verified_ms)
		return "";
	snprintf(ret, size, " on %.24s, %d %% read", *r->host ? r->host : "?", r->read_percent < 0 ? 0 : r->read_percent);
	return ret;
}

static void show_trust(const struct cli *cli, const struct status_facts *f)
{
	char ago[40], where[60];
	if (!f->folder || !f->has_state)
		output_line(cli, "state     no local state of this node here");
	else if (f->state_agrees)
		output_line(cli, "state     agrees with the vault up to snapshot %" PRIu64, f->state_seq);
	if (f->verified_ms)
		output_line(cli, "verify    %s ago%s", status_span(ago, sizeof ago, f->now_ms - f->verified_ms),
		    verified_where(where, sizeof where, f));
	else
		output_line(cli, "verify    never; imvault verify --read=10 reads a tenth each time");
}

static void show_next(const struct cli *cli, const struct status_facts *f)
{
	char line[LINE_COLUMNS] = "", one[60], when[40];
	const char *head = "next";
	size_t n;
	for (size_t i = 0; i < f->next_count; i++) {
		const struct status_next *x = &f->next[i];
		bool past = x->due_ms <= f->now_ms;
		snprintf(one, sizeof one, "%s %s%s", runs_name(x->command), x->overdue ? "OVERDUE" : past ? "now" : "in ",
		    past || x->overdue ? "" : status_span(when, sizeof when, x->due_ms - f->now_ms));
		if (strlen(line) + strlen(one) > sizeof line - 14) {
			output_line(cli, "%-9s %s,", head, line);
			head = "";
			line[0] = '\0';
		}
		n = strlen(line);
		snprintf(line + n, sizeof line - n, "%s%s", n ? ", " : "", one);
	}
	output_line(cli, "%-9s %s", head, f->next_count ? line : "not known: [schedule] in the configuration says how often what runs");
}

void status_show(const struct verdict *v, const struct status_facts *f)
{
	const struct cli *cli = v->cli;
	show_verdict(v, f);
	show_snapshot(cli, f);
	show_stores(cli, f);
	if (f->has_vault) {
		show_drill(cli, f);
		show_forecast(cli, f);
		show_vault(cli, f);
		show_trust(cli, f);
		show_next(cli, f);
	}
}
