/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To which instants each store can be brought back: snapshots as ticks, logs as windows, and what
 * lies between windows as gaps that are marked, never left to be guessed.
 */
#include "verify/report_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROW_HEIGHT = 54, BAR_TOP = 24, BAR_HEIGHT = 12 };
#define TICK_APART 0.2 /* per cent; nearer ones are one tick */

static void earlier(int64_t *from_ms, const struct report *r, int64_t ms)
{
	if (report_time_plausible(r, ms) && ms < *from_ms)
		*from_ms = ms;
}

static bool set_times(const struct report *r, struct report_scale *x)
{
	int64_t from_ms = INT64_MAX;
	for (size_t i = 0; i < r->store_count; i++)
		for (size_t k = 0; k < r->stores[i].image_count; k++)
			earlier(&from_ms, r, r->stores[i].images[k]);
	for (size_t i = 0; i < r->windows.count; i++)
		if (r->windows.items[i].restorable)
			earlier(&from_ms, r, r->windows.items[i].from_ms);
	if (from_ms == INT64_MAX)
		return false;
	int64_t span_ms = r->now_ms - from_ms > REPORT_DAY_MS / 24 ? r->now_ms - from_ms : REPORT_DAY_MS / 24;
	report_scale_times(x, from_ms - span_ms / 50, from_ms + span_ms);
	return true;
}

static void tip(struct page *p, enum report_words words, int64_t from_ms, int64_t to_ms)
{
	char from[REPORT_VALUE_BYTES], to[REPORT_VALUE_BYTES];
	report_raw(p, "<g><title>");
	report_say(p, words, report_minute(from, from_ms), report_minute(to, to_ms), NULL);
	report_raw(p, "</title>");
}

static void draw_span(const struct report_chart *c, const char *class, enum report_words words, int64_t from_ms, int64_t to_ms, double y)
{
	double from = report_chart_x(c, (double)from_ms), to = report_chart_x(c, (double)to_ms);
	tip(c->p, words, from_ms, to_ms);
	report_chart_bar(c, class, from, y + BAR_TOP, fmax(to, from + 0.3), y + BAR_TOP + BAR_HEIGHT);
	report_raw(c->p, "</g>");
}

static bool has_gap(const struct log_window *w)
{
	return w->has_before && !w->closed;
}

/* Gaps first: what is restorable after all is drawn over them. */
static void draw_windows(const struct report_chart *c, const struct report *r, const char *store, double y)
{
	for (size_t i = 0; i < r->windows.count; i++) {
		const struct log_window *w = &r->windows.items[i];
		if (strcmp(w->store, store) == 0 && has_gap(w) && w->has_gap_from)
			draw_span(c, "gap", W_TIP_GAP, w->gap_from_ms, w->has_gap_to ? w->gap_to_ms : w->restorable ? w->from_ms : r->now_ms, y);
	}
	for (size_t i = 0; i < r->windows.count; i++) {
		const struct log_window *w = &r->windows.items[i];
		if (strcmp(w->store, store) != 0 || !w->restorable)
			continue;
		draw_span(c, "window", W_TIP_WINDOW, w->from_ms, w->to_ms, y);
		for (size_t h = 0; h < w->hole_count; h++)
			if (!w->holes[h].at_end)
				draw_span(c, "hole", W_TIP_HOLE, w->holes[h].from_ms, w->holes[h].to_ms, y);
	}
}

static void draw_ticks(const struct report_chart *c, const struct report_store *s, double y)
{
	double last = -1;
	for (size_t i = 0; i < s->image_count; i++) {
		double x = report_chart_x(c, (double)s->images[i]);
		if (!report_time_plausible(c->p->r, s->images[i]) || fabs(x - last) < TICK_APART)
			continue;
		report_chart_line(c, "snap", x, y + BAR_TOP + BAR_HEIGHT, x, y + BAR_TOP + BAR_HEIGHT + 7);
		last = x;
	}
}

static void draw_store(const struct report_chart *c, const struct report_store *s, double y)
{
	struct page *p = c->p;
	char count[REPORT_VALUE_BYTES];
	report_put(p, "<text class=\"row\" x=\"0\" y=\"%.1f\">", y + BAR_TOP - 8);
	report_text(p, s->name);
	report_raw(p, " &#183; ");
	report_say(p, W_N_SNAPSHOTS, report_count(count, s->image_count), NULL);
	report_raw(p, "</text>");
	report_put(p, "<rect class=\"track\" x=\"0\" y=\"%.1f\" width=\"100%%\" height=\"%d\"/>", y + BAR_TOP, BAR_HEIGHT);
	draw_windows(c, p->r, s->name, y);
	draw_ticks(c, s, y);
	report_raw(p, "\n");
}

static void cell_instant(struct page *p, bool there, int64_t ms)
{
	char value[REPORT_VALUE_BYTES];
	report_raw(p, "<td>");
	report_text(p, report_minute(value, there ? ms : -1));
	report_raw(p, "</td>");
}

static void window_row(struct page *p, const struct log_window *w)
{
	char from[REPORT_VALUE_BYTES], to[REPORT_VALUE_BYTES];
	report_raw(p, "<tr><td>");
	report_text(p, w->store);
	report_raw(p, "</td>");
	cell_instant(p, w->restorable, w->from_ms);
	cell_instant(p, w->restorable, w->to_ms);
	report_put(p, "<td class=\"n\">%" PRIu32 "</td>", w->points);
	report_cell_bytes(p, w->bytes);
	report_raw(p, "<td class=\"free\">");
	if (has_gap(w)) {
		report_say(p, W_GAP_FROM_TO, report_minute(from, w->has_gap_from ? w->gap_from_ms : -1), report_minute(to, w->has_gap_to ? w->gap_to_ms : -1), NULL);
		report_raw(p, report_words_of(p, W_SPACE));
		if (w->reason)
			report_quote(p, w->reason);
	} else {
		report_raw(p, report_words_of(p, w->has_before ? W_GAP_CLOSED : W_GAP_FIRST));
	}
	for (size_t h = 0; h < w->hole_count; h++)
		if (!w->holes[h].at_end) {
			report_raw(p, report_words_of(p, W_SPACE));
			report_say(p, W_HOLE_FROM_TO, report_minute(from, w->holes[h].from_ms), report_minute(to, w->holes[h].to_ms), NULL);
		}
	report_raw(p, "</td></tr>\n");
}

static void table(struct page *p)
{
	static const enum report_words heads[] = { W_COLUMN_STORE, W_COLUMN_FROM, W_COLUMN_TO, W_COLUMN_POINTS, W_COLUMN_LOG_BYTES, W_COLUMN_GAP, W_END };
	report_data_open(p, W_DATA_WINDOWS, 0x18, heads);
	for (size_t i = 0; i < p->r->windows.count; i++)
		window_row(p, &p->r->windows.items[i]);
	report_data_close(p);
}

/* The same for stores without a log. */
static void snapshot_table(struct page *p)
{
	static const enum report_words heads[] = { W_COLUMN_STORE, W_COLUMN_SNAPSHOTS, W_COLUMN_FIRST, W_COLUMN_NEWEST, W_END };
	report_data_open(p, W_DATA_SNAPSHOTS, 0x2, heads);
	for (size_t i = 0; i < p->r->store_count; i++) {
		const struct report_store *s = &p->r->stores[i];
		report_raw(p, "<tr><td>");
		report_text(p, s->name);
		report_put(p, "</td><td class=\"n\">%zu</td>", s->image_count);
		cell_instant(p, s->image_count > 0, s->image_count ? s->images[0] : 0);
		cell_instant(p, s->image_count > 0, s->image_count ? s->images[s->image_count - 1] : 0);
		report_raw(p, "</tr>\n");
	}
	report_data_close(p);
}

static void describe(struct page *p)
{
	const struct report *r = p->r;
	size_t windows = 0, gaps = 0;
	char stores[REPORT_VALUE_BYTES], snapshots[REPORT_VALUE_BYTES], all[REPORT_VALUE_BYTES], missing[REPORT_VALUE_BYTES];
	for (size_t i = 0; i < r->windows.count; i++) {
		windows += r->windows.items[i].restorable;
		gaps += has_gap(&r->windows.items[i]);
	}
	report_say(p, W_DESC_WINDOW, report_count(stores, r->store_count), report_count(snapshots, r->snapshot_count), report_count(all, windows),
	    report_count(missing, gaps), NULL);
}

void report_section_window(struct page *p)
{
	const struct report *r = p->r;
	struct report_chart c = { .p = p, .height = (int)(r->store_count < 64 ? r->store_count : 64) * ROW_HEIGHT, .title = W_CHART_WINDOW, .y_title = W_END };
	report_section_open(p, "window", W_SECTION_WINDOW, W_LEAD_WINDOW);
	if (!set_times(r, &c.x)) {
		report_nothing(p, W_NO_SNAPSHOTS, W_DO_BACKUP, "imvault backup");
		report_section_close(p);
		return;
	}
	report_figure_open(p, c.title);
	report_legend_open(p);
	report_legend_swatch(p, "window", W_LEGEND_WINDOW);
	report_legend_line(p, "snap-key", W_LEGEND_SNAPSHOT);
	report_legend_swatch(p, "gap", W_LEGEND_GAP);
	report_legend_swatch(p, "hole", W_LEGEND_HOLE);
	report_legend_close(p);
	report_desc_open(&c);
	describe(p);
	report_plot_open(&c);
	for (size_t i = 0; i < r->store_count && i < 64; i++)
		draw_store(&c, &r->stores[i], (double)i * ROW_HEIGHT);
	report_plot_close(&c);
	snapshot_table(p);
	if (r->windows.count)
		table(p);
	report_figure_close(p);
	if (!r->windows.count)
		report_nothing(p, W_NO_LOG, W_DO_FOLLOW, "imvault follow");
	report_section_close(p);
}
