/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the time of each record went: one bar each, newest first, full and instant restores apart
 * since their times differ by orders of magnitude. Work summed over threads is part of the phase
 * before it and stays out of the bars.
 */
#include "verify/report_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 12, OUTLIER = 5, ROW_HEIGHT = 46, BAR_TOP = 22, BAR_HEIGHT = 14 };
#define PHASE_MAX_MS 3e11

static const struct kind {
	const char *name, *class;
	enum report_words words;
} kinds[] = { { "open", "c5 bar", W_PHASE_OPEN }, { "plan", "c4 bar", W_PHASE_PLAN }, { "prepare", "c6 bar", W_PHASE_PREPARE },
	{ "fetch", "c1 bar", W_PHASE_FETCH }, { "replay", "c2 bar", W_PHASE_REPLAY }, { "finish", "c3 bar", W_PHASE_FINISH },
	{ "sync", "c9 bar", W_PHASE_SYNC }, { "check", "c8 bar", W_PHASE_CHECK }, { "start", "c10 bar", W_PHASE_START },
	{ "hydrate", "c7 bar", W_PHASE_HYDRATE }, { "", "c5 bar", W_PHASE_OTHER } };
enum { KIND_COUNT = sizeof kinds / sizeof *kinds };

static size_t kind_of(const char *name)
{
	size_t k = 0;
	while (k + 1 < KIND_COUNT && strcmp(kinds[k].name, name) != 0)
		k++;
	return k;
}

struct rows { /* the newest of one scenario */
	const struct drill_record *items[ROWS_MAX];
	size_t count;
	double totals[ROWS_MAX], longest; /* ms, of what the bar shows */
	bool used[KIND_COUNT];
};

/* Wall-clock ms of one entry; 0 if it does not belong into the bar. */
static double wall_ms(const json_t *phase)
{
	double ms = (double)json_integer_value(json_object_get(phase, "ms"));
	return json_is_true(json_object_get(phase, "of_threads")) || ms < 0 || ms > PHASE_MAX_MS ? 0 : ms;
}

static const char *name_of(const json_t *phase)
{
	const char *name = json_string_value(json_object_get(phase, "name"));
	return name ? name : "";
}

static void collect(const struct report *r, bool instant, struct rows *rows)
{
	size_t n;
	json_t *phase;
	for (size_t i = r->drills.count; i-- > 0 && rows->count < ROWS_MAX;) {
		const struct drill_record *d = &r->drills.items[i];
		const json_t *phases = json_object_get(d->meta, "phases");
		double total = 0;
		if ((strcmp(d->scenario, "instant") == 0) != instant)
			continue;
		json_array_foreach(phases, n, phase) {
			total += wall_ms(phase);
			rows->used[kind_of(name_of(phase))] |= wall_ms(phase) > 0;
		}
		if (total <= 0)
			continue;
		total = fmax(total, fmin((double)d->service_ready_ms, PHASE_MAX_MS));
		rows->totals[rows->count] = total;
		rows->items[rows->count++] = d;
		rows->longest = fmax(rows->longest, total);
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* One that took hours must not press all others into nothing: it is cut, and its time stands beside it. */
static double scale_end(const struct rows *rows)
{
	double sorted[ROWS_MAX];
	memcpy(sorted, rows->totals, sizeof sorted);
	qsort(sorted, rows->count, sizeof *sorted, by_value);
	return fmin(rows->longest, OUTLIER * sorted[rows->count / 2]);
}

static void row_label(struct page *p, const struct drill_record *d, double total, double y)
{
	char when[REPORT_VALUE_BYTES], value[REPORT_VALUE_BYTES];
	report_put(p, "<text class=\"row\" x=\"0\" y=\"%.1f\">", y + BAR_TOP - 7);
	report_text(p, report_minute(when, d->time_ms));
	report_raw(p, " &#183; ");
	report_raw(p, report_words_of(p, d->is_drill ? W_DRILL : W_RESTORE));
	report_put(p, "</text><text class=\"row\" x=\"100%%\" y=\"%.1f\" text-anchor=\"end\">", y + BAR_TOP - 7);
	report_text(p, report_duration(p, value, (int64_t)total));
	report_raw(p, "</text>");
}

static void draw_row(const struct report_chart *c, const struct drill_record *d, double total, double y)
{
	struct page *p = c->p;
	size_t n;
	json_t *phase;
	double at = 0;
	char value[REPORT_VALUE_BYTES];
	row_label(p, d, total, y);
	json_array_foreach(json_object_get(d->meta, "phases"), n, phase) {
		double ms = wall_ms(phase);
		const struct kind *k = &kinds[kind_of(name_of(phase))];
		if (ms <= 0)
			continue;
		report_raw(p, "<g><title>");
		report_raw(p, report_words_of(p, k->words));
		report_raw(p, report_words_of(p, W_COLON));
		report_text(p, report_duration(p, value, (int64_t)ms));
		report_raw(p, "</title>");
		report_chart_bar(c, k->class, report_chart_x(c, at), y + BAR_TOP, report_chart_x(c, at + ms), y + BAR_TOP + BAR_HEIGHT);
		report_raw(p, "</g>");
		at += ms;
	}
	if (total > c->x.high)
		for (double x = 98; x < 99.5; x += 1)
			report_chart_line(c, "cut", x - 0.6, y + BAR_TOP + BAR_HEIGHT + 2, x + 0.6, y + BAR_TOP - 2);
	if (d->service_ready_ms >= 0 && (double)d->service_ready_ms <= c->x.high) {
		double x = report_chart_x(c, (double)d->service_ready_ms);
		report_chart_line(c, "ready", x, y + BAR_TOP - 4, x, y + BAR_TOP + BAR_HEIGHT + 4);
	}
	report_raw(p, "\n");
}

static void legend(struct page *p, const struct rows *rows)
{
	report_legend_open(p);
	for (size_t k = 0; k < KIND_COUNT; k++)
		if (rows->used[k])
			report_legend_swatch(p, kinds[k].class, kinds[k].words);
	report_legend_line(p, "ready", W_LEGEND_READY);
	report_legend_close(p);
}

static void table(struct page *p, const struct rows *rows)
{
	enum report_words heads[KIND_COUNT + 3] = { W_COLUMN_WHEN, W_COLUMN_READY };
	size_t columns[KIND_COUNT], count = 0, n;
	json_t *phase;
	for (size_t k = 0; k < KIND_COUNT; k++)
		if (rows->used[k])
			columns[count++] = k;
	for (size_t i = 0; i < count; i++)
		heads[2 + i] = kinds[columns[i]].words;
	heads[2 + count] = W_END;
	report_data_open(p, W_DATA_TABLE, ~1u, heads);
	for (size_t i = 0; i < rows->count; i++) {
		report_raw(p, "<tr><td>");
		report_record_link(p, rows->items[i]);
		report_raw(p, "</td>");
		report_cell_duration(p, rows->items[i]->service_ready_ms);
		for (size_t k = 0; k < count; k++) {
			double sum = 0;
			json_array_foreach(json_object_get(rows->items[i]->meta, "phases"), n, phase)
				sum += kind_of(name_of(phase)) == columns[k] ? wall_ms(phase) : 0;
			report_cell_duration(p, sum > 0 ? (int64_t)sum : -1);
		}
		report_raw(p, "</tr>\n");
	}
	report_data_close(p);
}

static void draw(struct page *p, bool instant)
{
	struct rows rows = { .count = 0 };
	struct report_chart c = { .p = p, .title = instant ? W_CHART_PHASES_INSTANT : W_CHART_PHASES_FULL, .y_title = W_END, .x_is_duration = true };
	char count[REPORT_VALUE_BYTES], longest[REPORT_VALUE_BYTES];
	collect(p->r, instant, &rows);
	if (!rows.count)
		return;
	c.height = (int)rows.count * ROW_HEIGHT;
	report_scale_durations(&c.x, 0, scale_end(&rows));
	report_figure_open(p, c.title);
	legend(p, &rows);
	report_desc_open(&c);
	report_say(p, W_DESC_PHASES, report_count(count, rows.count), report_duration(p, longest, (int64_t)rows.longest), NULL);
	report_plot_open(&c);
	for (size_t i = 0; i < rows.count; i++)
		draw_row(&c, rows.items[i], rows.totals[i], (double)i * ROW_HEIGHT);
	report_plot_close(&c);
	table(p, &rows);
	report_figure_close(p);
}

void report_section_phases(struct page *p)
{
	unsigned before = p->chart_count;
	report_section_open(p, "phases", W_SECTION_PHASES, W_LEAD_PHASES);
	draw(p, false);
	draw(p, true);
	if (p->chart_count == before)
		report_nothing(p, W_NO_RECORDS, W_DO_DRILL, "imvault drill");
	report_section_close(p);
}
