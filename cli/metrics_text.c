/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text format: https://prometheus.io/docs/instrumenting/exposition_formats/. Label values are
 * UTF-8 with \, " and line feed escaped; bytes that are not UTF-8 become question marks.
 */
#include "cli/metrics_text.h"

#include "base/cleanup.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static void put(struct metrics_text *m, const char *text)
{
	im_buf_put(&m->out, text, strlen(text));
}

void metrics_family(struct metrics_text *m, enum metrics_type type, const char *name, const char *help)
{
	m->family = name;
	put(m, "# HELP ");
	put(m, name);
	put(m, " ");
	put(m, help);
	put(m, "\n# TYPE ");
	put(m, name);
	put(m, type == METRICS_COUNTER ? " counter\n" : " gauge\n");
}

static bool is_utf8(const char *text)
{
	json_t *j = json_string(text);
	json_decref(j);
	return j != NULL;
}

static void put_label(struct metrics_text *m, const char *name, const char *value)
{
	bool utf8 = is_utf8(value);
	put(m, name);
	put(m, "=\"");
	for (const char *p = value; *p; p++) {
		if (*p == '\\' || *p == '"')
			im_buf_put_u8(&m->out, '\\');
		if (*p == '\n')
			put(m, "\\n");
		else
			im_buf_put_u8(&m->out, (uint8_t)*p >= 0x80 && !utf8 ? '?' : (uint8_t)*p);
	}
	put(m, "\"");
}

static void put_sample(struct metrics_text *m, const char *label, const char *value_text, const char *number)
{
	put(m, m->family);
	if (m->node || label)
		put(m, "{");
	if (m->node)
		put_label(m, "node", m->node);
	if (m->node && label)
		put(m, ",");
	if (label)
		put_label(m, label, value_text);
	put(m, m->node || label ? "} " : " ");
	put(m, number);
	put(m, "\n");
}

void metrics_number(struct metrics_text *m, const char *label, const char *value_text, int64_t value)
{
	char number[32];
	snprintf(number, sizeof number, "%" PRId64, value);
	put_sample(m, label, value_text, number);
}

void metrics_seconds(struct metrics_text *m, const char *label, const char *value_text, int64_t ms)
{
	char number[32];
	uint64_t magnitude = ms < 0 ? -(uint64_t)ms : (uint64_t)ms;
	snprintf(number, sizeof number, "%s%" PRIu64 ".%03u", ms < 0 ? "-" : "", magnitude / 1000, (unsigned)(magnitude % 1000));
	put_sample(m, label, value_text, number);
}

void metrics_ratio(struct metrics_text *m, const char *label, const char *value_text, double percent)
{
	char number[32];
	int64_t parts = (int64_t)(percent * 100 + 0.5); /* no locale's decimal point */
	snprintf(number, sizeof number, "%" PRId64 ".%04u", parts / 10000, (unsigned)(parts % 10000));
	put_sample(m, label, value_text, number);
}
