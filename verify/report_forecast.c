/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a recovery would take now, and how far off such forecasts have been: each record holds
 * the one that was made before it began.
 */
#include "verify/report_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool has_both(const struct report *r, const struct drill_record *d)
{
	return d->forecast_p50_ms > 0 && d->forecast_p95_ms >= d->forecast_p50_ms && d->service_ready_ms > 0 && report_time_plausible(r, d->time_ms);
}

/* --- now --- */

static void forecast_row(struct page *p, enum report_words words, const struct forecast *f)
{
	int64_t rto_ms = p->r->summary.rto_ms;
	report_raw(p, "<tr>");
	report_cell_words(p, words);
	report_cell_duration(p, f->ready_p50_ms);
	report_cell_duration(p, f->ready_p95_ms);
	report_cell_duration(p, f->complete_p50_ms);
	report_cell_duration(p, f->complete_p95_ms);
	report_put(p, "<td class=\"%s\">", !rto_ms ? "soft" : f->ready_p95_ms <= rto_ms ? "good" : f->ready_p50_ms <= rto_ms ? "warn" : "bad");
	report_raw(p, report_words_of(p, !rto_ms ? W_NO_TARGET_SET : f->ready_p95_ms <= rto_ms ? W_WITHIN : f->ready_p50_ms <= rto_ms ? W_P95_OVER : W_OVER));
	report_raw(p, "</td></tr>\n");
}

static void show_now(struct page *p)
{
	static const enum report_words heads[] = { W_COLUMN_SCENARIO, W_COLUMN_READY_P50, W_COLUMN_READY_P95, W_COLUMN_COMPLETE_P50,
		W_COLUMN_COMPLETE_P95, W_COLUMN_AGAINST, W_END };
	const struct forecast_node *f = &p->r->forecast;
	char write[REPORT_VALUE_BYTES], read[REPORT_VALUE_BYTES], packs[REPORT_VALUE_BYTES], log[REPORT_VALUE_BYTES], cpus[REPORT_VALUE_BYTES];
	report_table_open(p, 0x1e, heads);
	forecast_row(p, W_FULL, &f->full);
	forecast_row(p, W_INSTANT, &f->instant);
	report_table_close(p);
	report_raw(p, "<p class=\"soft\">");
	report_say(p, W_FORECAST_SIZES, report_bytes(write, f->sizes.write_bytes), report_bytes(read, f->sizes.read_bytes),
	    report_count(packs, f->sizes.packs), report_bytes(log, f->sizes.log_bytes), report_count(cpus, f->machine.cpus), NULL);
	report_raw(p, "</p>\n");
}

/* --- how good past ones were --- */

struct accuracy {
	struct report_share within, held; /* within 20 % of p50; not over p95 */
};

static struct accuracy accuracy_of(const struct report *r, size_t first)
{
	struct accuracy a = { 0 };
	for (size_t i = first; i < r->drills.count; i++) {
		const struct drill_record *d = &r->drills.items[i];
		if (!has_both(r, d))
			continue;
		double truth = (double)d->service_ready_ms, p50 = (double)d->forecast_p50_ms;
		a.within.of++;
		a.held.of++;
		a.within.met += fabs(p50 - truth) <= 0.2 * truth;
		a.held.met += d->service_ready_ms <= d->forecast_p95_ms;
	}
	return a;
}

static void say_accuracy(struct page *p, const struct accuracy *a)
{
	const struct forecast *f = p->r->summary.forecast_is_instant ? &p->r->forecast.instant : &p->r->forecast.full;
	char within[REPORT_VALUE_BYTES], held[REPORT_VALUE_BYTES], error[REPORT_VALUE_BYTES], learned[REPORT_VALUE_BYTES];
	report_raw(p, "<p>");
	report_say(p, W_ACCURACY, report_ratio(p, within, a->within), report_ratio(p, held, a->held), NULL);
	if (p->r->summary.has_forecast && f->error_percent >= 0) {
		snprintf(error, sizeof error, "%.0f", fmin(f->error_percent, 1e6));
		report_raw(p, report_words_of(p, W_SPACE));
		report_say(p, W_ACCURACY_ERROR, error, report_count(learned, f->learned_from), NULL);
	}
	report_raw(p, "</p>\n");
}

/* In per cent of the median that was forecast; the scale ends at ±100. */
static double deviation(const struct drill_record *d, int64_t ms)
{
	return 100 * ((double)ms / (double)d->forecast_p50_ms - 1);
}

static void draw_one(const struct report_chart *c, const struct drill_record *d)
{
	struct page *p = c->p;
	char when[REPORT_VALUE_BYTES], truth[REPORT_VALUE_BYTES], p50[REPORT_VALUE_BYTES], p95[REPORT_VALUE_BYTES];
	double x = report_chart_x(c, (double)d->time_ms);
	report_raw(p, "<g><title>");
	report_say(p, W_TIP_FORECAST, report_minute(when, d->time_ms), report_duration(p, truth, d->service_ready_ms),
	    report_duration(p, p50, d->forecast_p50_ms), report_duration(p, p95, d->forecast_p95_ms), NULL);
	report_raw(p, "</title>");
	report_chart_line(c, "band", x, report_chart_y(c, 0), x, report_chart_y(c, deviation(d, d->forecast_p95_ms)));
	report_chart_mark(c, d->is_drill ? MARK_DRILL : MARK_RESTORE, d->service_ready_ms <= d->forecast_p95_ms ? "ok" : "late", x,
	    report_chart_y(c, deviation(d, d->service_ready_ms)));
	report_raw(p, "</g>\n");
}

static void table(struct page *p)
{
	static const enum report_words heads[] = { W_COLUMN_WHEN, W_COLUMN_SCENARIO, W_COLUMN_P50, W_COLUMN_P95, W_COLUMN_TRUTH, W_COLUMN_ERROR, W_END };
	report_data_open(p, W_DATA_TABLE, 0x3c, heads);
	for (size_t i = p->r->drills.count; i-- > 0;) {
		const struct drill_record *d = &p->r->drills.items[i];
		if (!has_both(p->r, d))
			continue;
		report_raw(p, "<tr><td>");
		report_record_link(p, d);
		report_raw(p, "</td><td>");
		report_term(p, VOCABULARY_SCENARIO, d->scenario);
		report_raw(p, "</td>");
		report_cell_duration(p, d->forecast_p50_ms);
		report_cell_duration(p, d->forecast_p95_ms);
		report_cell_duration(p, d->service_ready_ms);
		report_put(p, "<td class=\"n\">%+.0f %%</td></tr>\n",
		    fmin(100 * ((double)d->forecast_p50_ms - (double)d->service_ready_ms) / (double)d->service_ready_ms, 1e6));
	}
	report_data_close(p);
}

static void draw_past(struct page *p)
{
	const struct report *r = p->r;
	struct report_chart c = { .p = p, .height = 220, .title = W_CHART_FORECAST, .y_title = W_AXIS_DEVIATION, .y_unit = UNIT_PER_CENT,
		.y = { .low = -100, .high = 100, .ticks = { -100, -50, 0, 50, 100 }, .tick_count = 5 } };
	size_t first = 0;
	int64_t from_ms, to_ms;
	bool any = report_records_span(r, &first, &from_ms, &to_ms);
	struct accuracy a = accuracy_of(r, first);
	char of[REPORT_VALUE_BYTES], within[REPORT_VALUE_BYTES], held[REPORT_VALUE_BYTES];
	if (!any || !a.within.of) {
		report_nothing(p, W_NO_FORECASTS_YET, W_DO_DRILL, "imvault drill");
		return;
	}
	say_accuracy(p, &a);
	report_scale_times(&c.x, from_ms, to_ms);
	report_figure_open(p, c.title);
	report_legend_open(p);
	report_legend_swatch(p, "band-key", W_LEGEND_BAND);
	report_legend_swatch(p, "near", W_LEGEND_WITHIN);
	report_legend_mark(p, MARK_DRILL, "ok", W_LEGEND_TRUTH_DRILL);
	report_legend_mark(p, MARK_RESTORE, "ok", W_LEGEND_TRUTH_RESTORE);
	report_legend_mark(p, MARK_DRILL, "late", W_LEGEND_OVER_P95);
	report_legend_close(p);
	report_desc_open(&c);
	report_say(p, W_DESC_FORECAST, report_count(of, a.within.of), report_ratio(p, within, a.within), report_ratio(p, held, a.held), NULL);
	report_plot_open(&c);
	report_chart_bar(&c, "near", 0, report_chart_y(&c, 20), 100, report_chart_y(&c, -20));
	report_chart_line(&c, "zero", 0, report_chart_y(&c, 0), 100, report_chart_y(&c, 0));
	for (size_t i = first; i < r->drills.count; i++)
		if (has_both(r, &r->drills.items[i]))
			draw_one(&c, &r->drills.items[i]);
	report_plot_close(&c);
	table(p);
	report_figure_close(p);
}

void report_section_forecast(struct page *p)
{
	report_section_open(p, "forecast", W_SECTION_FORECAST, W_LEAD_FORECAST);
	if (p->r->summary.has_forecast)
		show_now(p);
	else
		report_nothing(p, W_NO_FORECAST, W_DO_BACKUP, "imvault backup");
	draw_past(p);
	report_section_close(p);
}
