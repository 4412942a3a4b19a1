/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scales with steps that people count in: 10 s and 5 min rather than 16.7 s, Mondays and first days
 * of months rather than every ninth day. Bounded work whatever the values are.
 */
#include "verify/report_internal.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

#define SECOND 1000.0
#define MINUTE 60000.0
#define HOUR 3600000.0
#define DAY 86400000.0

enum { TICKS_MAX = 5, LOG_TICKS_MAX = 9, TICK_ROOM = 16 };

static void add_tick(struct report_scale *s, double at)
{
	if (s->tick_count < TICK_ROOM)
		s->ticks[s->tick_count++] = at;
}

/* From zero in equal steps. */
static void linear(struct report_scale *s, double max, double step)
{
	double count = fmax(1, ceil(max / step - 1e-9));
	*s = (struct report_scale){ .low = 0, .high = count * step };
	for (int i = 0; i <= count; i++)
		add_tick(s, i * step);
}

static void logarithmic(struct report_scale *s, double min, double max)
{
	static const double marks[] = { 1, 10, 100, SECOND, 10 * SECOND, MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY,
		3650 * DAY };
	enum { COUNT = sizeof marks / sizeof *marks };
	int first = 0, last = COUNT - 1;
	while (first + 2 < COUNT && marks[first + 1] <= min)
		first++;
	while (last > first + 1 && marks[last - 1] >= max)
		last--;
	*s = (struct report_scale){ .low = marks[first], .high = marks[last], .log = true };
	int step = (last - first) / LOG_TICKS_MAX + 1;
	for (int i = first; i <= last; i += step)
		add_tick(s, marks[i]);
}

void report_scale_durations(struct report_scale *s, double min_ms, double max_ms)
{
	static const double steps[] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 20 * SECOND, 30 * SECOND,
		MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY,
		7 * DAY, 14 * DAY, 30 * DAY, 60 * DAY, 180 * DAY, 365 * DAY, 1000 * DAY };
	max_ms = fmax(1, fmin(max_ms, 3650 * DAY));
	if (min_ms > 0 && max_ms / min_ms > 15) {
		logarithmic(s, min_ms, max_ms);
		return;
	}
	size_t i = 0;
	while (i + 1 < sizeof steps / sizeof *steps && max_ms / steps[i] > TICKS_MAX)
		i++;
	linear(s, max_ms, steps[i]);
}

void report_scale_bytes(struct report_scale *s, double max_bytes)
{
	double power = pow(10, floor(log10(fmax(max_bytes, 1))));
	static const double factors[] = { 0.2, 0.5, 1, 2 };
	size_t i = 0;
	while (i + 1 < sizeof factors / sizeof *factors && max_bytes / (factors[i] * power) > TICKS_MAX)
		i++;
	linear(s, fmax(max_bytes, 1), fmax(factors[i] * power, 1));
}

double report_scale_at(const struct report_scale *s, double value)
{
	double at = s->log ? log(fmax(value, s->low) / s->low) / log(s->high / s->low) : (value - s->low) / (s->high - s->low);
	return at < 0 ? 0 : at > 1 ? 1 : at;
}

/* --- time --- */

static struct tm utc_of(double ms)
{
	time_t t = (time_t)(ms / SECOND);
	struct tm tm = { 0 };
	gmtime_r(&t, &tm);
	return tm;
}

/* First days of every so many months. */
static void month_ticks(struct report_scale *s, int step)
{
	struct tm tm = utc_of(s->low);
	struct tm first = { .tm_year = tm.tm_year, .tm_mon = tm.tm_mon / step * step, .tm_mday = 1 };
	for (int i = 0; i < TICK_ROOM + 1; i++, first.tm_mon += step) {
		struct tm normal = first;
		double at = (double)timegm(&normal) * SECOND;
		if (at >= s->low && at <= s->high)
			add_tick(s, at);
	}
}

void report_scale_times(struct report_scale *s, int64_t from_ms, int64_t to_ms)
{
	static const double steps[] = { HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY };
	static const int months[] = { 1, 2, 3, 6, 12, 24 };
	double from = (double)from_ms, to = fmax((double)to_ms, from + HOUR), span = to - from;
	*s = (struct report_scale){ .low = from, .high = to };
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		double offset = steps[i] >= 7 * DAY ? 4 * DAY : 0; /* 1970 began on a Thursday; weeks begin on Monday */
		if (span / steps[i] > TICKS_MAX)
			continue;
		for (double at = ceil((from - offset) / steps[i]) * steps[i] + offset; at <= to; at += steps[i])
			add_tick(s, at);
		return;
	}
	size_t m = 0;
	while (m + 1 < sizeof months / sizeof *months && span / (30 * DAY * months[m]) > TICKS_MAX)
		m++;
	month_ticks(s, months[m]);
}

char *report_scale_time(const struct report_scale *s, char ret[REPORT_VALUE_BYTES], double ms)
{
	struct tm tm = utc_of(ms);
	double step = s->tick_count > 1 ? s->ticks[1] - s->ticks[0] : DAY;
	const char *format = step < DAY ? "%m-%d %H:%M" : "%Y-%m-%d";
	if (strftime(ret, REPORT_VALUE_BYTES, format, &tm) == 0)
		ret[0] = '\0';
	return ret;
}
