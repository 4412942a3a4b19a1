/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the report share: the data, the writer that lets no foreign text become markup,
 * and the charts. Whatever comes out of the vault goes through report_text or report_say, never
 * through report_raw or report_put.
 */
#ifndef IM_VERIFY_REPORT_INTERNAL_H
#define IM_VERIFY_REPORT_INTERNAL_H

#include "vault/logwindow.h"
#include "verify/forecast.h"
#include "verify/report.h"
#include "verify/report_words.h"

#define REPORT_DAY_MS INT64_C(86400000)

/* --- data (report_data.c, report_judge.c) --- */

struct report_store {
	char *name;
	int64_t *images;   /* instants that snapshots hold, ascending */
	size_t image_count;
};

struct report_snapshot {
	uint64_t seq;
	int64_t time_ms;
	uint64_t source_bytes, changed_bytes, stored_bytes; /* source: size of what it protects */
};

enum report_kind { /* of objects in the vault */
	REPORT_PACKS, REPORT_INDEX, REPORT_SNAPSHOTS, REPORT_LOGS, REPORT_DRILLS, REPORT_TRACES, REPORT_RUNS,
	REPORT_KEYS, REPORT_OTHER, REPORT_KIND_COUNT
};

struct report {
	const struct vault *vault;
	char *node;
	int64_t now_ms;
	int64_t drill_every_ms; /* 0: not known */
	bool has_private;       /* the key reads what checks said */
	struct drill_list drills;
	struct report_snapshot *snapshots; /* by seq; unreadable ones are findings */
	size_t snapshot_count, newest_store_count; /* stores in the newest snapshot */
	struct report_store *stores;
	size_t store_count;
	struct log_windows windows;
	struct {
		uint64_t bytes, objects;
	} kinds[REPORT_KIND_COUNT]; /* of the whole vault */
	struct forecast_node forecast;
	char **findings; /* of the chains of records and of snapshots; English sentences */
	size_t finding_count;
	struct report_summary summary;
};

void report_judge(struct report *r);
/* Could the record be drawn? Times that no clock shows would stretch an axis to nothing. */
bool report_time_plausible(const struct report *r, int64_t ms);
/* Was the service ready within the target of its day? */
bool report_met(const struct drill_record *d);

/* --- writing (report_html.c) --- */

struct page {
	const struct report *r;
	enum report_lang lang;
	struct im_buf out;
	unsigned chart_count; /* charts so far, for ids */
};

void report_raw(struct page *p, const char *own);
/* Our own markup with numbers in it; %s for our own constants only. */
void report_put(struct page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Text of any bytes: escaped, control and direction characters visible, cut after REPORT_TEXT_MAX characters. */
void report_text(struct page *p, const char *foreign);
#define REPORT_TEXT_MAX 2000
void report_text_upto(struct page *p, const char *foreign, size_t max); /* max: characters */
/* One character of UTF-8; what is none comes out as U+FFFD, one byte at a time. Never longer than the text. */
uint32_t report_next_character(const unsigned char **at);
/* Controls, changes the direction, breaks lines, or is not there to the eye. */
bool report_hides(uint32_t c);
/* Words in the page's language; {1}, {2} … are replaced by the arguments (texts of any bytes), which end with NULL. */
void report_say(struct page *p, enum report_words words, ...) __attribute__((sentinel));
/* <TAG class="CLASS">words</TAG> */
void report_element(struct page *p, const char *tag, const char *class, enum report_words words);
/* A text that the vault holds, in the language it was written in. */
void report_quote(struct page *p, const char *foreign);
const char *report_words_of(const struct page *p, enum report_words words);

/* Values for people; all return ret. Negative durations and instants are "–". */
#define REPORT_VALUE_BYTES 64
char *report_duration(const struct page *p, char ret[REPORT_VALUE_BYTES], int64_t ms);
char *report_minute(char ret[REPORT_VALUE_BYTES], int64_t ms); /* "2026-11-20 03:12 UTC" */
char *report_day(char ret[REPORT_VALUE_BYTES], int64_t ms);    /* "2026-11-20" */
char *report_bytes(char ret[REPORT_VALUE_BYTES], uint64_t bytes);
char *report_count(char ret[REPORT_VALUE_BYTES], uint64_t n);  /* "12 345" with thin spaces */
char *report_ratio(const struct page *p, char ret[REPORT_VALUE_BYTES], struct report_share s); /* "11 of 12", "–" if of nothing */
/* What the page calls a value of a record; one that this version does not know is quoted. */
enum report_vocabulary { VOCABULARY_VERDICT, VOCABULARY_SCENARIO, VOCABULARY_MODE, VOCABULARY_CHOSEN, VOCABULARY_SERVICE, VOCABULARY_PHASE,
	VOCABULARY_STATUS };
void report_term(struct page *p, enum report_vocabulary vocabulary, const char *value);

/* --- tables (report_html.c) --- */

/* <div class="scroll"><table> with a heading for each of the words up to W_END; bit i of the mask: column i holds numbers. */
void report_table_open(struct page *p, unsigned numeric_mask, const enum report_words *heads);
void report_table_close(struct page *p);

/* --- scales and charts (report_scale.c, report_chart.c) --- */

struct report_scale {
	double low, high; /* high > low */
	bool log;
	double ticks[16];
	size_t tick_count;
};
/* Each makes a scale that holds [min, max] with round ticks. Durations: logarithmic when the values are far apart. */
void report_scale_durations(struct report_scale *s, double min_ms, double max_ms);
void report_scale_bytes(struct report_scale *s, double max_bytes);
void report_scale_times(struct report_scale *s, int64_t from_ms, int64_t to_ms);
double report_scale_at(const struct report_scale *s, double value); /* 0 … 1 */
/* A tick of a time scale as text: date, month or hour as its step needs. */
char *report_scale_time(const struct report_scale *s, char ret[REPORT_VALUE_BYTES], double ms);

enum report_mark { MARK_DRILL, MARK_RESTORE, MARK_DRILL_COMPLETE, MARK_RESTORE_COMPLETE, MARK_FAILED };

enum report_unit { UNIT_DURATION, UNIT_BYTES, UNIT_PER_CENT };

struct report_chart {
	struct page *p;
	struct report_scale x, y; /* x: time, or durations where x_is_duration */
	int height;               /* of the plot, px */
	enum report_words title, y_title; /* y_title W_END: rows instead of a scale */
	enum report_unit y_unit;
	bool x_is_duration;
};
/* <section id=…> with heading and an explanation below it. */
void report_section_open(struct page *p, const char *id, enum report_words title, enum report_words explanation);
void report_section_close(struct page *p);
/* A figure: heading, legend, the SVG (title, description, axes), the data table behind it. In this order. */
void report_figure_open(struct page *p, enum report_words title);
void report_legend_open(struct page *p);
void report_legend_mark(struct page *p, enum report_mark mark, const char *class, enum report_words words);
void report_legend_swatch(struct page *p, const char *class, enum report_words words);
void report_legend_line(struct page *p, const char *class, enum report_words words);
void report_legend_close(struct page *p);
void report_desc_open(struct report_chart *c); /* between this and plot_open the caller says the description */
void report_plot_open(struct report_chart *c);
void report_plot_close(struct report_chart *c);
void report_data_open(struct page *p, enum report_words summary, unsigned numeric_mask, const enum report_words *heads);
void report_data_close(struct page *p);
void report_figure_close(struct page *p);
/* Inside a plot. x in per cent, y in px, both from the scales. */
double report_chart_x(const struct report_chart *c, double v);
double report_chart_y(const struct report_chart *c, double v);
void report_chart_mark(const struct report_chart *c, enum report_mark mark, const char *class, double x, double y);
void report_chart_line(const struct report_chart *c, const char *class, double x1, double y1, double x2, double y2);
void report_chart_bar(const struct report_chart *c, const char *class, double x1, double y1, double x2, double y2);
/* A horizontal line across the plot with words at its end, such as the target; value replaces {1}. */
void report_chart_level(const struct report_chart *c, double y, enum report_words words, const char *value);
/* What a section says when there is nothing to show, and what to do about it. */
void report_nothing(struct page *p, enum report_words what, enum report_words todo, const char *command);

/* --- records in charts (report_times.c) --- */

#define REPORT_DRAWN_MAX 400 /* records in one chart, the newest */

/* The first record that is drawn, and the instants of the time axis; false: none can be. */
bool report_records_span(const struct report *r, size_t *ret_first, int64_t *ret_from_ms, int64_t *ret_to_ms);
enum report_mark report_mark_of(const struct drill_record *d);
const char *report_class_of(const struct drill_record *d); /* "ok" or "late" */
/* Its time as a link to its evidence. */
void report_record_link(struct page *p, const struct drill_record *d);
/* <td> with a duration, a text, a term. */
void report_cell_duration(struct page *p, int64_t ms);
void report_cell_words(struct page *p, enum report_words words);
void report_cell_bytes(struct page *p, uint64_t bytes);

/* --- sections --- */

void report_section_recovery(struct page *p);  /* report_times.c */
void report_section_phases(struct page *p);    /* report_phases.c */
void report_section_rpo(struct page *p);       /* report_times.c */
void report_section_forecast(struct page *p);  /* report_forecast.c */
void report_section_window(struct page *p);    /* report_window.c */
void report_section_growth(struct page *p);    /* report_growth.c */
void report_section_incidents(struct page *p); /* report_evidence.c */
void report_section_evidence(struct page *p);  /* report_evidence.c */
void report_style(struct page *p);             /* report_style.c */

/* --- the frame of a page (report_page.c), also of the runbook --- */

/* From the doctype to <title>; the caller writes the title, closes it, and adds styles of its own before </head>. */
void report_head_open(struct page *p);

#endif
