/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Charts as inline SVG that fits any width without a script: what lies along x is given in per cent,
 * everything else in px, so that letters and marks keep their size on a phone and on paper. Kinds
 * differ in shape and not in colour alone. The reader's software hears title and description.
 */
#include "verify/report_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void report_section_open(struct page *p, const char *id, enum report_words title, enum report_words explanation)
{
	report_put(p, "<section id=\"%s\" aria-labelledby=\"h-%s\">\n<h2 id=\"h-%s\">", id, id, id);
	report_raw(p, report_words_of(p, title));
	report_raw(p, "</h2>\n");
	report_element(p, "p", "lead", explanation);
}

void report_section_close(struct page *p)
{
	report_raw(p, "</section>\n");
}

void report_figure_open(struct page *p, enum report_words title)
{
	report_raw(p, "<figure>\n");
	report_element(p, "figcaption", NULL, title);
}

void report_figure_close(struct page *p)
{
	report_raw(p, "</figure>\n");
}

/* --- legend --- */

static const char *const mark_ids[] = { [MARK_DRILL] = "m-dot", [MARK_RESTORE] = "m-diamond", [MARK_DRILL_COMPLETE] = "m-ring",
	[MARK_RESTORE_COMPLETE] = "m-frame", [MARK_FAILED] = "m-cross" };

void report_legend_open(struct page *p)
{
	report_raw(p, "<ul class=\"legend\">");
}

static void entry_close(struct page *p, enum report_words words)
{
	report_raw(p, report_words_of(p, words));
	report_raw(p, "</li>");
}

void report_legend_mark(struct page *p, enum report_mark mark, const char *class, enum report_words words)
{
	report_put(p, "<li><svg class=\"key\" width=\"16\" height=\"16\" aria-hidden=\"true\"><use href=\"#%s\" class=\"%s\" x=\"8\" y=\"8\"/></svg>",
	    mark_ids[mark], class);
	entry_close(p, words);
}

void report_legend_swatch(struct page *p, const char *class, enum report_words words)
{
	report_put(p, "<li><svg class=\"key\" width=\"16\" height=\"16\" aria-hidden=\"true\"><rect class=\"%s\" x=\"2\" y=\"3\" width=\"12\" "
	    "height=\"10\"/></svg>", class);
	entry_close(p, words);
}

void report_legend_line(struct page *p, const char *class, enum report_words words)
{
	report_put(p, "<li><svg class=\"key\" width=\"22\" height=\"16\" aria-hidden=\"true\"><line class=\"%s\" x1=\"1\" y1=\"8\" x2=\"21\" "
	    "y2=\"8\"/></svg>", class);
	entry_close(p, words);
}

void report_legend_close(struct page *p)
{
	report_raw(p, "</ul>\n");
}

/* --- the plot --- */

double report_chart_x(const struct report_chart *c, double v)
{
	return 100 * report_scale_at(&c->x, v);
}

double report_chart_y(const struct report_chart *c, double v)
{
	return c->height * (1 - report_scale_at(&c->y, v));
}

void report_desc_open(struct report_chart *c)
{
	struct page *p = c->p;
	unsigned n = ++p->chart_count;
	report_put(p, "<svg class=\"plot%s\" role=\"img\" aria-labelledby=\"t%u\" aria-describedby=\"d%u\" height=\"%d\"><title id=\"t%u\">",
	    c->y_title == W_END ? " rows" : "", n, n, c->height, n);
	report_raw(p, report_words_of(p, c->title));
	report_put(p, "</title><desc id=\"d%u\">", n);
}

static char *tick_text(const struct report_chart *c, char ret[REPORT_VALUE_BYTES], double at)
{
	switch (c->y_unit) {
	case UNIT_BYTES: return report_bytes(ret, (uint64_t)at);
	case UNIT_PER_CENT: snprintf(ret, REPORT_VALUE_BYTES, at ? "%+.0f %%" : "%.0f %%", at); return ret;
	default: return report_duration(c->p, ret, (int64_t)at);
	}
}

static void y_axis(const struct report_chart *c)
{
	char value[REPORT_VALUE_BYTES];
	struct page *p = c->p;
	for (size_t i = 0; i < c->y.tick_count; i++) {
		double y = report_chart_y(c, c->y.ticks[i]);
		report_put(p, "<line class=\"grid\" x1=\"0\" x2=\"100%%\" y1=\"%.1f\" y2=\"%.1f\"/><text class=\"tick\" x=\"-10\" y=\"%.1f\" "
		    "text-anchor=\"end\">", y, y, y + 4);
		report_text(p, tick_text(c, value, c->y.ticks[i]));
		report_raw(p, "</text>\n");
	}
	report_raw(p, "<text class=\"axis\" x=\"-78\" y=\"-14\">");
	report_raw(p, report_words_of(p, c->y_title));
	if (c->y.log)
		report_raw(p, report_words_of(p, W_LOGARITHMIC));
	report_raw(p, "</text>\n");
}

static void x_axis(const struct report_chart *c)
{
	char value[REPORT_VALUE_BYTES];
	struct page *p = c->p;
	report_put(p, "<line class=\"base\" x1=\"0\" x2=\"100%%\" y1=\"%d\" y2=\"%d\"/>\n", c->height, c->height);
	for (size_t i = 0; i < c->x.tick_count; i++) {
		double x = report_chart_x(c, c->x.ticks[i]);
		bool odd = c->x.tick_count > 3 && i % 2;
		const char *anchor = c->y_title == W_END && x < 5 ? "start" : c->y_title == W_END && x > 95 ? "end" : "middle"; /* no room beside rows */
		report_put(p, "<g%s><line class=\"base\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"%d\" y2=\"%d\"/><text class=\"tick\" x=\"%.2f%%\" y=\"%d\" "
		    "text-anchor=\"%s\">", odd ? " class=\"odd\"" : "", x, x, c->height, c->height + 5, x, c->height + 20, anchor);
		report_text(p, c->x_is_duration ? report_duration(p, value, (int64_t)c->x.ticks[i]) : report_scale_time(&c->x, value, c->x.ticks[i]));
		report_raw(p, "</text></g>\n");
	}
	report_put(p, "<text class=\"axis\" x=\"100%%\" y=\"%d\" text-anchor=\"end\">", c->height + 38);
	report_raw(p, report_words_of(p, c->x_is_duration ? W_AXIS_SINCE_BEGIN : W_AXIS_DATE));
	report_raw(p, "</text>\n");
}

void report_plot_open(struct report_chart *c)
{
	report_raw(c->p, "</desc>\n");
	if (c->y_title != W_END)
		y_axis(c);
	x_axis(c);
}

void report_plot_close(struct report_chart *c)
{
	report_raw(c->p, "</svg>\n");
}

void report_chart_mark(const struct report_chart *c, enum report_mark mark, const char *class, double x, double y)
{
	report_put(c->p, "<use href=\"#%s\" class=\"%s\" x=\"%.2f%%\" y=\"%.1f\"/>", mark_ids[mark], class, x, y);
}

void report_chart_line(const struct report_chart *c, const char *class, double x1, double y1, double x2, double y2)
{
	report_put(c->p, "<line class=\"%s\" x1=\"%.2f%%\" y1=\"%.1f\" x2=\"%.2f%%\" y2=\"%.1f\"/>", class, x1, y1, x2, y2);
}

void report_chart_bar(const struct report_chart *c, const char *class, double x1, double y1, double x2, double y2)
{
	report_put(c->p, "<rect class=\"%s\" x=\"%.2f%%\" y=\"%.1f\" width=\"%.2f%%\" height=\"%.1f\"/>", class, x1, y1, fmax(x2 - x1, 0), fmax(y2 - y1, 0));
}

void report_chart_level(const struct report_chart *c, double y, enum report_words words, const char *value)
{
	report_chart_line(c, "target", 0, y, 100, y);
	report_put(c->p, "<text class=\"level\" x=\"100%%\" y=\"%.1f\" text-anchor=\"end\">", y - 7);
	report_say(c->p, words, value, NULL);
	report_raw(c->p, "</text>\n");
}

/* --- behind and instead of a chart --- */

void report_data_open(struct page *p, enum report_words summary, unsigned numeric_mask, const enum report_words *heads)
{
	report_raw(p, "<details class=\"data\"><summary>");
	report_raw(p, report_words_of(p, summary));
	report_raw(p, "</summary>\n");
	report_table_open(p, numeric_mask, heads);
}

void report_data_close(struct page *p)
{
	report_table_close(p);
	report_raw(p, "</details>\n");
}

void report_nothing(struct page *p, enum report_words what, enum report_words todo, const char *command)
{
	report_raw(p, "<div class=\"nothing\"><p>");
	report_raw(p, report_words_of(p, what));
	report_raw(p, "</p><p>");
	report_raw(p, report_words_of(p, todo));
	report_put(p, " <code>%s</code></p></div>\n", command);
}
