/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was achieved over time, against the targets: recovery time of each record, and how much data
 * the latest state was short of. Drills are round and real restores square, whatever their colour.
 */
#include "verify/report_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLOT_HEIGHT = 260 };

/* --- what charts of records share --- */

bool report_records_span(const struct report *r, size_t *ret_first, int64_t *ret_from_ms, int64_t *ret_to_ms)
{
	size_t first = r->drills.count > REPORT_DRAWN_MAX ? r->drills.count - REPORT_DRAWN_MAX : 0;
	int64_t from_ms = INT64_MAX;
	for (size_t i = first; i < r->drills.count; i++)
		if (report_time_plausible(r, r->drills.items[i].time_ms) && r->drills.items[i].time_ms < from_ms)
			from_ms = r->drills.items[i].time_ms;
	if (from_ms == INT64_MAX)
		return false;
	int64_t span_ms = r->now_ms - from_ms > REPORT_DAY_MS ? r->now_ms - from_ms : REPORT_DAY_MS;
	*ret_first = first;
	*ret_from_ms = from_ms - span_ms / 30;
	*ret_to_ms = r->now_ms > from_ms ? r->now_ms + span_ms / 60 : from_ms + span_ms / 60;
	return true;
}

enum report_mark report_mark_of(const struct drill_record *d)
{
	return d->service_ready_ms < 0 ? MARK_FAILED : d->is_drill ? MARK_DRILL : MARK_RESTORE;
}

const char *report_class_of(const struct drill_record *d)
{
	return d->passed && (d->rto_ms <= 0 || report_met(d)) ? "ok" : "late";
}

void report_record_link(struct page *p, const struct drill_record *d)
{
	char hex[65], when[REPORT_VALUE_BYTES];
	im_hex(hex, d->hash, 32);
	report_put(p, "<a href=\"#r%.12s\">", hex);
	report_text(p, report_minute(when, d->time_ms));
	report_raw(p, "</a>");
}

void report_cell_duration(struct page *p, int64_t ms)
{
	char value[REPORT_VALUE_BYTES];
	report_raw(p, "<td class=\"n\">");
	report_text(p, report_duration(p, value, ms));
	report_raw(p, "</td>");
}

void report_cell_words(struct page *p, enum report_words words)
{
	report_raw(p, "<td>");
	report_raw(p, report_words_of(p, words));
	report_raw(p, "</td>");
}

void report_cell_bytes(struct page *p, uint64_t bytes)
{
	char value[REPORT_VALUE_BYTES];
	report_raw(p, "<td class=\"n\">");
	report_text(p, report_bytes(value, bytes));
	report_raw(p, "</td>");
}

struct measure { /* one figure of a record and what it is held against */
	int64_t (*value)(const struct drill_record *d), (*target)(const struct drill_record *d);
	bool (*counts)(const struct drill_record *d);
};

static int64_t ready_ms(const struct drill_record *d) { return d->service_ready_ms; }
static int64_t rto_ms(const struct drill_record *d) { return d->rto_ms; }
static bool always(const struct drill_record *d) { return d != NULL; }
static int64_t lost_ms(const struct drill_record *d) { return d->rpo_ms; }
static int64_t rpo_target_ms(const struct drill_record *d) { return d->rpo_target_ms; }
static bool is_latest(const struct drill_record *d) { return strcmp(d->chosen, "latest") == 0 && d->rpo_ms >= 0; }
static const struct measure recovery = { ready_ms, rto_ms, always }, loss = { lost_ms, rpo_target_ms, is_latest };

struct range {
	double min, max;
	size_t drills, restores;
};

static void widen(struct range *g, int64_t ms)
{
	if (ms < 0)
		return;
	g->min = fmin(g->min, fmax((double)ms, 10));
	g->max = fmax(g->max, (double)ms);
}

/* Of the values alone; the scale must hold the targets too. */
static struct range range_of(const struct report *r, const struct measure *m, size_t first)
{
	struct range g = { .min = INFINITY };
	for (size_t i = first; i < r->drills.count; i++) {
		const struct drill_record *d = &r->drills.items[i];
		if (!m->counts(d))
			continue;
		*(d->is_drill ? &g.drills : &g.restores) += 1;
		widen(&g, m->value(d));
	}
	return g;
}

static void set_scale(const struct report *r, const struct measure *m, size_t first, struct range g, int64_t target_ms, struct report_chart *c)
{
	for (size_t i = first; i < r->drills.count; i++) {
		if (!m->counts(&r->drills.items[i]))
			continue;
		widen(&g, m->target(&r->drills.items[i]));
		if (m == &recovery)
			widen(&g, r->drills.items[i].data_complete_ms);
	}
	if (target_ms)
		widen(&g, target_ms);
	report_scale_durations(&c->y, g.min, g.max);
}

/* Each record's own target up to the next one, since targets change; today's with its name. */
static void draw_target(const struct report_chart *c, const struct measure *m, size_t first, int64_t now_ms)
{
	const struct report *r = c->p->r;
	char value[REPORT_VALUE_BYTES];
	bool same = true;
	for (size_t i = first; i < r->drills.count; i++)
		same &= !m->counts(&r->drills.items[i]) || m->target(&r->drills.items[i]) == now_ms;
	if (now_ms && same)
		report_chart_level(c, report_chart_y(c, (double)now_ms), W_LEVEL_TARGET, report_duration(c->p, value, now_ms));
	double x = 0;
	const struct drill_record *before = NULL;
	for (size_t i = first; i < r->drills.count && !same; i++) {
		const struct drill_record *d = &r->drills.items[i];
		if (!m->counts(d) || m->target(d) <= 0 || !report_time_plausible(r, d->time_ms))
			continue;
		double to = report_chart_x(c, (double)d->time_ms);
		if (before)
			report_chart_line(c, "target", x, report_chart_y(c, (double)m->target(before)), to, report_chart_y(c, (double)m->target(before)));
		x = before ? to : 0;
		before = d;
	}
	if (before && !same)
		report_chart_line(c, "target", x, report_chart_y(c, (double)m->target(before)), 100, report_chart_y(c, (double)m->target(before)));
	if (now_ms && !same) {
		report_put(c->p, "<text class=\"level\" x=\"100%%\" y=\"%.1f\" text-anchor=\"end\">", report_chart_y(c, (double)now_ms) - 7);
		report_say(c->p, W_LEVEL_TARGET, report_duration(c->p, value, now_ms), NULL);
		report_raw(c->p, "</text>\n");
	}
}

/* Tooltip: when, how long. */
static void draw_record(const struct report_chart *c, const struct drill_record *d, const struct measure *m)
{
	struct page *p = c->p;
	char when[REPORT_VALUE_BYTES], value[REPORT_VALUE_BYTES];
	double x = report_chart_x(c, (double)d->time_ms);
	int64_t v = m->value(d), end_ms = m == &recovery ? d->data_complete_ms : -1;
	const char *class = m == &recovery ? report_class_of(d) : d->rpo_target_ms <= 0 || d->rpo_met ? "ok" : "late";
	double y = v < 0 ? 0 : report_chart_y(c, (double)v);
	report_raw(p, "<g><title>");
	report_raw(p, report_words_of(p, d->is_drill ? W_DRILL : W_RESTORE));
	report_raw(p, report_words_of(p, W_COMMA));
	report_text(p, report_minute(when, d->time_ms));
	report_raw(p, report_words_of(p, W_COLON));
	report_text(p, report_duration(p, value, v));
	report_raw(p, "</title>");
	if (v >= 0 && end_ms >= 0 && fabs(report_chart_y(c, (double)end_ms) - y) > 8) {
		report_chart_line(c, "thread", x, y, x, report_chart_y(c, (double)end_ms));
		report_chart_mark(c, d->is_drill ? MARK_DRILL_COMPLETE : MARK_RESTORE_COMPLETE, class[0] == 'o' ? "ok hollow" : "late hollow", x,
		    report_chart_y(c, (double)end_ms));
	}
	report_chart_mark(c, v < 0 ? MARK_FAILED : d->is_drill ? MARK_DRILL : MARK_RESTORE, class, x, y);
	report_raw(p, "</g>\n");
}

static void draw_records(const struct report_chart *c, const struct measure *m, size_t first)
{
	const struct report *r = c->p->r;
	for (size_t i = first; i < r->drills.count; i++)
		if (m->counts(&r->drills.items[i]) && report_time_plausible(r, r->drills.items[i].time_ms))
			draw_record(c, &r->drills.items[i], m);
}

static void describe(struct report_chart *c, const struct range *g, enum report_words words, int64_t target_ms)
{
	char drills[REPORT_VALUE_BYTES], restores[REPORT_VALUE_BYTES], from[REPORT_VALUE_BYTES], to[REPORT_VALUE_BYTES], least[REPORT_VALUE_BYTES],
	    most[REPORT_VALUE_BYTES], target[REPORT_VALUE_BYTES];
	bool any = g->max > 0 || isfinite(g->min);
	report_say(c->p, words, report_count(drills, g->drills), report_count(restores, g->restores), report_day(from, (int64_t)c->x.low),
	    report_day(to, (int64_t)c->x.high), report_duration(c->p, least, any ? (int64_t)g->min : -1),
	    report_duration(c->p, most, any ? (int64_t)g->max : -1), report_duration(c->p, target, target_ms ? target_ms : -1), NULL);
}

/* --- recovery time --- */

static void recovery_legend(struct page *p)
{
	report_legend_open(p);
	report_legend_mark(p, MARK_DRILL, "ok", W_LEGEND_DRILL);
	report_legend_mark(p, MARK_RESTORE, "ok", W_LEGEND_RESTORE);
	report_legend_mark(p, MARK_DRILL_COMPLETE, "ok hollow", W_LEGEND_COMPLETE);
	report_legend_mark(p, MARK_DRILL, "late", W_LEGEND_LATE);
	report_legend_mark(p, MARK_FAILED, "late", W_LEGEND_FAILED);
	report_legend_close(p);
}

static void recovery_table(struct page *p)
{
	static const enum report_words heads[] = { W_COLUMN_WHEN, W_COLUMN_KIND, W_COLUMN_SCENARIO, W_COLUMN_READY, W_COLUMN_COMPLETE, W_COLUMN_RTO,
		W_COLUMN_RESULT, W_END };
	report_data_open(p, W_DATA_TABLE, 0x38, heads);
	for (size_t i = p->r->drills.count; i-- > 0;) {
		const struct drill_record *d = &p->r->drills.items[i];
		report_raw(p, "<tr><td>");
		report_record_link(p, d);
		report_raw(p, "</td>");
		report_cell_words(p, d->is_drill ? W_DRILL : W_RESTORE);
		report_raw(p, "<td>");
		report_term(p, VOCABULARY_SCENARIO, d->scenario);
		report_raw(p, "</td>");
		report_cell_duration(p, d->service_ready_ms);
		report_cell_duration(p, d->data_complete_ms);
		report_cell_duration(p, d->rto_ms);
		report_raw(p, "<td>");
		report_term(p, VOCABULARY_VERDICT, d->verdict);
		report_raw(p, "</td></tr>\n");
	}
	report_data_close(p);
}

void report_section_recovery(struct page *p)
{
	const struct report *r = p->r;
	struct report_chart c = { .p = p, .height = PLOT_HEIGHT, .title = W_CHART_RECOVERY, .y_title = W_AXIS_RECOVERY };
	size_t first;
	int64_t from_ms, to_ms;
	report_section_open(p, "recovery", W_SECTION_RECOVERY, W_LEAD_RECOVERY);
	if (!report_records_span(r, &first, &from_ms, &to_ms)) {
		report_nothing(p, W_NO_RECORDS, W_DO_DRILL, "imvault drill");
		report_section_close(p);
		return;
	}
	struct range g = range_of(r, &recovery, first);
	report_scale_times(&c.x, from_ms, to_ms);
	set_scale(r, &recovery, first, g, r->summary.rto_ms, &c);
	report_figure_open(p, W_CHART_RECOVERY);
	recovery_legend(p);
	report_desc_open(&c);
	describe(&c, &g, W_DESC_RECOVERY, r->summary.rto_ms);
	report_plot_open(&c);
	draw_target(&c, &recovery, first, r->summary.rto_ms);
	draw_records(&c, &recovery, first);
	report_plot_close(&c);
	recovery_table(p);
	report_figure_close(p);
	report_section_close(p);
}

/* --- data loss --- */

static void rpo_table(struct page *p)
{
	static const enum report_words heads[] = { W_COLUMN_WHEN, W_COLUMN_KIND, W_COLUMN_REACHED, W_COLUMN_LOST, W_COLUMN_RPO, W_COLUMN_MET, W_END };
	char value[REPORT_VALUE_BYTES];
	report_data_open(p, W_DATA_TABLE, 0x18, heads);
	for (size_t i = p->r->drills.count; i-- > 0;) {
		const struct drill_record *d = &p->r->drills.items[i];
		if (!is_latest(d))
			continue;
		report_raw(p, "<tr><td>");
		report_record_link(p, d);
		report_raw(p, "</td>");
		report_cell_words(p, d->is_drill ? W_DRILL : W_RESTORE);
		report_raw(p, "<td>");
		report_text(p, report_minute(value, d->instant_reached_ms));
		report_raw(p, "</td>");
		report_cell_duration(p, d->rpo_ms);
		report_cell_duration(p, d->rpo_target_ms);
		report_cell_words(p, d->rpo_target_ms <= 0 ? W_NO_TARGET_SET : d->rpo_met ? W_YES : W_NO);
		report_raw(p, "</tr>\n");
	}
	report_data_close(p);
}

void report_section_rpo(struct page *p)
{
	const struct report *r = p->r;
	struct report_chart c = { .p = p, .height = 220, .title = W_CHART_RPO, .y_title = W_AXIS_RPO };
	size_t first = 0;
	int64_t from_ms, to_ms;
	bool any = report_records_span(r, &first, &from_ms, &to_ms);
	struct range g = range_of(r, &loss, first);
	report_section_open(p, "rpo", W_SECTION_RPO, W_LEAD_RPO);
	if (!any || g.drills + g.restores == 0) {
		report_nothing(p, W_NO_LATEST, W_DO_DRILL_LATEST, "imvault drill");
		report_section_close(p);
		return;
	}
	report_scale_times(&c.x, from_ms, to_ms);
	set_scale(r, &loss, first, g, r->summary.rpo_ms, &c);
	report_figure_open(p, W_CHART_RPO);
	report_legend_open(p);
	report_legend_mark(p, MARK_DRILL, "ok", W_DRILL);
	report_legend_mark(p, MARK_RESTORE, "ok", W_RESTORE);
	report_legend_mark(p, MARK_DRILL, "late", W_LEGEND_LATE);
	report_legend_close(p);
	report_desc_open(&c);
	describe(&c, &g, W_DESC_RPO, r->summary.rpo_ms);
	report_plot_open(&c);
	draw_target(&c, &loss, first, r->summary.rpo_ms);
	draw_records(&c, &loss, first);
	report_plot_close(&c);
	rpo_table(p);
	report_figure_close(p);
	report_section_close(p);
}
