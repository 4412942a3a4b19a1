/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the protection costs: the size of what is protected and what all its snapshots take in the
 * vault; what changed and what of it had to be stored; and the vault by kind of object.
 */
#include "verify/report_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BINS_MAX = 45, CURVE_POINTS = 240 };

static bool set_times(const struct report *r, struct report_scale *x)
{
	int64_t from_ms = INT64_MAX;
	for (size_t i = 0; i < r->snapshot_count; i++)
		if (report_time_plausible(r, r->snapshots[i].time_ms) && r->snapshots[i].time_ms < from_ms)
			from_ms = r->snapshots[i].time_ms;
	if (from_ms == INT64_MAX)
		return false;
	report_scale_times(x, from_ms, r->now_ms > from_ms ? r->now_ms : from_ms);
	return true;
}

struct sums {
	double source, changed, stored; /* source: over all snapshots, as if each were a copy */
	double most; /* of what was protected at once, or the vault's part */
};

static struct sums sums_of(const struct report *r)
{
	struct sums s = { 0 };
	for (size_t i = 0; i < r->snapshot_count; i++) {
		s.source += (double)r->snapshots[i].source_bytes;
		s.changed += (double)r->snapshots[i].changed_bytes;
		s.stored += (double)r->snapshots[i].stored_bytes;
		s.most = fmax(s.most, (double)r->snapshots[i].source_bytes);
	}
	s.most = fmax(s.most, s.stored);
	return s;
}

static void say_sums(struct page *p, const struct sums *s)
{
	char copies[REPORT_VALUE_BYTES], stored[REPORT_VALUE_BYTES], times[REPORT_VALUE_BYTES], count[REPORT_VALUE_BYTES], changed[REPORT_VALUE_BYTES],
	    share[REPORT_VALUE_BYTES];
	snprintf(times, sizeof times, "%.1f", s->stored > 0 ? fmin(s->source / s->stored, 1e9) : 0);
	snprintf(share, sizeof share, "%.0f", s->changed > 0 ? fmin(100 * s->stored / s->changed, 1e9) : 0);
	report_raw(p, "<p>");
	report_say(p, W_GROWTH_SUMS, report_count(count, p->r->snapshot_count), report_bytes(copies, (uint64_t)s->source),
	    report_bytes(stored, (uint64_t)s->stored), times, report_bytes(changed, (uint64_t)s->changed), share, NULL);
	report_raw(p, "</p>\n");
}

/* --- sizes over time --- */

static void draw_curves(const struct report_chart *c)
{
	const struct report *r = c->p->r;
	double stored = 0, x0 = -1, source0 = 0, stored0 = 0, step = 100.0 / CURVE_POINTS;
	for (size_t i = 0; i < r->snapshot_count; i++) {
		const struct report_snapshot *s = &r->snapshots[i];
		double x = report_chart_x(c, (double)s->time_ms), source = (double)s->source_bytes;
		stored += (double)s->stored_bytes;
		if (x0 >= 0 && x - x0 < step && i + 1 < r->snapshot_count)
			continue;
		if (x0 >= 0) {
			report_chart_line(c, "c1 curve", x0, report_chart_y(c, stored0), x, report_chart_y(c, stored));
			report_chart_line(c, "c5 curve", x0, report_chart_y(c, source0), x, report_chart_y(c, source));
			report_raw(c->p, "\n");
		}
		x0 = x;
		source0 = source;
		stored0 = stored;
	}
	if (x0 >= 0) {
		report_chart_mark(c, MARK_DRILL, "c5", x0, report_chart_y(c, source0));
		report_chart_mark(c, MARK_RESTORE, "c1", x0, report_chart_y(c, stored0));
	}
}

static void sizes_table(struct page *p)
{
	static const enum report_words heads[] = { W_COLUMN_SNAPSHOT, W_COLUMN_WHEN, W_COLUMN_PROTECTED, W_COLUMN_CHANGED, W_COLUMN_STORED,
		W_COLUMN_STORED_SUM, W_END };
	const struct report *r = p->r;
	uint64_t sum = 0;
	size_t first = r->snapshot_count > REPORT_DRAWN_MAX ? r->snapshot_count - REPORT_DRAWN_MAX : 0;
	char when[REPORT_VALUE_BYTES];
	report_data_open(p, W_DATA_TABLE, 0x3d, heads);
	for (size_t i = 0; i < r->snapshot_count; i++) {
		const struct report_snapshot *s = &r->snapshots[i];
		sum += s->stored_bytes;
		if (i < first)
			continue;
		report_put(p, "<tr><td class=\"n\">%" PRIu64 "</td><td>", s->seq);
		report_text(p, report_minute(when, s->time_ms));
		report_raw(p, "</td>");
		report_cell_bytes(p, s->source_bytes);
		report_cell_bytes(p, s->changed_bytes);
		report_cell_bytes(p, s->stored_bytes);
		report_cell_bytes(p, sum);
		report_raw(p, "</tr>\n");
	}
	report_data_close(p);
}

static void show_sizes(struct page *p, const struct report_scale *x, const struct sums *s)
{
	struct report_chart c = { .p = p, .x = *x, .height = 220, .title = W_CHART_SIZES, .y_title = W_AXIS_SIZE, .y_unit = UNIT_BYTES };
	const struct report *r = p->r;
	char source[REPORT_VALUE_BYTES], stored[REPORT_VALUE_BYTES], from[REPORT_VALUE_BYTES], to[REPORT_VALUE_BYTES];
	report_scale_bytes(&c.y, s->most);
	report_figure_open(p, c.title);
	report_legend_open(p);
	report_legend_mark(p, MARK_DRILL, "c5", W_LEGEND_PROTECTED);
	report_legend_mark(p, MARK_RESTORE, "c1", W_LEGEND_STORED_SUM);
	report_legend_close(p);
	report_desc_open(&c);
	report_say(p, W_DESC_SIZES, report_bytes(source, r->snapshots[r->snapshot_count - 1].source_bytes), report_bytes(stored, (uint64_t)s->stored),
	    report_day(from, (int64_t)x->low), report_day(to, (int64_t)x->high), NULL);
	report_plot_open(&c);
	draw_curves(&c);
	report_plot_close(&c);
	sizes_table(p);
	report_figure_close(p);
}

/* --- changed and stored per stretch of time --- */

struct bins {
	double changed[BINS_MAX], stored[BINS_MAX], most, width; /* width: per cent */
	size_t count;
};

static void fill_bins(const struct report *r, const struct report_scale *x, struct bins *b)
{
	double day = (double)REPORT_DAY_MS, days = ceil((x->high - x->low) / day), each = ceil(days / BINS_MAX) * day;
	*b = (struct bins){ .count = (size_t)fmin(fmax(ceil((x->high - x->low) / each), 1), BINS_MAX) };
	b->width = 100 * each / (x->high - x->low);
	for (size_t i = 0; i < r->snapshot_count; i++) {
		const struct report_snapshot *s = &r->snapshots[i];
		if (!report_time_plausible(r, s->time_ms))
			continue;
		size_t n = (size_t)fmax(((double)s->time_ms - x->low) / each, 0);
		n = n < b->count ? n : b->count - 1;
		b->changed[n] += (double)s->changed_bytes;
		b->stored[n] += (double)s->stored_bytes;
		b->most = fmax(b->most, fmax(b->changed[n], b->stored[n]));
	}
}

static void draw_bins(const struct report_chart *c, const struct bins *b)
{
	struct page *p = c->p;
	char day[REPORT_VALUE_BYTES], changed[REPORT_VALUE_BYTES], stored[REPORT_VALUE_BYTES];
	for (size_t i = 0; i < b->count; i++) {
		double width = fmin(b->width, 12), from = (double)i * b->width + 0.08 * width, middle = from + 0.42 * width;
		if (b->changed[i] + b->stored[i] <= 0)
			continue;
		report_raw(p, "<g><title>");
		report_say(p, W_TIP_BIN, report_day(day, (int64_t)(c->x.low + (double)i * b->width / 100 * (c->x.high - c->x.low))),
		    report_bytes(changed, (uint64_t)b->changed[i]), report_bytes(stored, (uint64_t)b->stored[i]), NULL);
		report_raw(p, "</title>");
		report_chart_bar(c, "c5", fmin(from, 99), report_chart_y(c, b->changed[i]), fmin(middle, 100), c->height);
		report_chart_bar(c, "c1", fmin(middle, 99), report_chart_y(c, b->stored[i]), fmin(middle + 0.42 * width, 100), c->height);
		report_raw(p, "</g>\n");
	}
}

static void show_changes(struct page *p, const struct report_scale *x, const struct sums *s)
{
	struct report_chart c = { .p = p, .x = *x, .height = 180, .title = W_CHART_CHANGES, .y_title = W_AXIS_CHANGES, .y_unit = UNIT_BYTES };
	struct bins b;
	char changed[REPORT_VALUE_BYTES], stored[REPORT_VALUE_BYTES];
	fill_bins(p->r, x, &b);
	report_scale_bytes(&c.y, b.most);
	report_figure_open(p, c.title);
	report_legend_open(p);
	report_legend_swatch(p, "c5", W_LEGEND_CHANGED);
	report_legend_swatch(p, "c1", W_LEGEND_STORED);
	report_legend_close(p);
	report_desc_open(&c);
	report_say(p, W_DESC_CHANGES, report_bytes(changed, (uint64_t)s->changed), report_bytes(stored, (uint64_t)s->stored), NULL);
	report_plot_open(&c);
	draw_bins(&c, &b);
	report_plot_close(&c);
	report_figure_close(p);
}

/* --- by kind of object --- */

static void show_kinds(struct page *p)
{
	static const enum report_words heads[] = { W_COLUMN_OBJECTS_KIND, W_COLUMN_OBJECTS, W_COLUMN_SIZE, W_END };
	static const enum report_words names[] = { [REPORT_PACKS] = W_KIND_PACKS, [REPORT_INDEX] = W_KIND_INDEX, [REPORT_SNAPSHOTS] = W_KIND_SNAPSHOTS,
		[REPORT_LOGS] = W_KIND_LOGS, [REPORT_DRILLS] = W_KIND_DRILLS, [REPORT_TRACES] = W_KIND_TRACES, [REPORT_RUNS] = W_KIND_RUNS,
		[REPORT_KEYS] = W_KIND_KEYS, [REPORT_OTHER] = W_KIND_OTHER };
	char count[REPORT_VALUE_BYTES];
	report_element(p, "h3", NULL, W_KINDS_TITLE);
	report_table_open(p, 0x6, heads);
	for (int k = 0; k < REPORT_KIND_COUNT; k++) {
		if (!p->r->kinds[k].objects)
			continue;
		report_raw(p, "<tr>");
		report_cell_words(p, names[k]);
		report_raw(p, "<td class=\"n\">");
		report_text(p, report_count(count, p->r->kinds[k].objects));
		report_raw(p, "</td>");
		report_cell_bytes(p, p->r->kinds[k].bytes);
		report_raw(p, "</tr>\n");
	}
	report_table_close(p);
}

void report_section_growth(struct page *p)
{
	struct report_scale x;
	struct sums s = sums_of(p->r);
	report_section_open(p, "growth", W_SECTION_GROWTH, W_LEAD_GROWTH);
	if (set_times(p->r, &x)) {
		say_sums(p, &s);
		show_sizes(p, &x, &s);
		show_changes(p, &x, &s);
	} else {
		report_nothing(p, W_NO_SNAPSHOTS, W_DO_BACKUP, "imvault backup");
	}
	show_kinds(p);
	report_section_close(p);
}
