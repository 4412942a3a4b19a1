/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks, instants, durations. Nothing here reads the time zone of the machine: an instant without
 * a zone is refused rather than guessed, since the operator and the node may disagree about it.
 */
#include "base/clock.h"

#include <ctype.h>
#include <inttypes.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t clock_us(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t im_now_ms(void) { return clock_us(CLOCK_REALTIME) / 1000; }
int64_t im_monotonic_ms(void) { return clock_us(CLOCK_MONOTONIC) / 1000; }
int64_t im_monotonic_us(void) { return clock_us(CLOCK_MONOTONIC); }

char *im_instant_format(char ret[IM_INSTANT_BYTES], int64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	int fraction = (int)(ms % 1000);
	struct tm tm;
	if (fraction < 0) {
		fraction += 1000;
		seconds--;
	}
	if (!gmtime_r(&seconds, &tm) || tm.tm_year > 8099)
		memset(&tm, 0, sizeof tm);
	size_t n = strftime(ret, IM_INSTANT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret + n, IM_INSTANT_BYTES - n, ".%03dZ", fraction);
	return ret;
}

void im_sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 }, NULL);
}

struct timespec im_timespec(int64_t ns)
{
	int64_t seconds = ns / 1000000000 - (ns % 1000000000 < 0);
	return (struct timespec){ .tv_sec = seconds, .tv_nsec = ns - seconds * 1000000000 };
}

static bool digits(const char **p, int count, int *ret)
{
	int v = 0;
	for (int i = 0; i < count; i++, (*p)++) {
		if (!isdigit((unsigned char)**p))
			return false;
		v = v * 10 + (**p - '0');
	}
	*ret = v;
	return true;
}

static bool parse_zone(const char **p, int *ret_minutes)
{
	int sign = **p == '-' ? -1 : 1, h, m;
	if (**p == 'Z' || **p == 'z') {
		(*p)++;
		*ret_minutes = 0;
		return true;
	}
	if (**p != '+' && **p != '-')
		return false;
	(*p)++;
	if (!digits(p, 2, &h))
		return false;
	if (**p == ':')
		(*p)++;
	if (!digits(p, 2, &m) || h > 23 || m > 59)
		return false;
	*ret_minutes = sign * (h * 60 + m);
	return true;
}

bool im_instant_parse(const char *text, int64_t *ret_ms)
{
	const char *p = text;
	struct tm tm = { 0 };
	int zone, fraction = 0, scale = 100;
	if (!digits(&p, 4, &tm.tm_year) || *p++ != '-' || !digits(&p, 2, &tm.tm_mon) || *p++ != '-' ||
	    !digits(&p, 2, &tm.tm_mday))
		return false;
	if (*p != 'T' && *p != 't' && *p != ' ')
		return false;
	p++;
	if (!digits(&p, 2, &tm.tm_hour) || *p++ != ':' || !digits(&p, 2, &tm.tm_min))
		return false;
	if (*p == ':') {
		p++;
		if (!digits(&p, 2, &tm.tm_sec))
			return false;
	}
	if (*p == '.')
		for (p++; isdigit((unsigned char)*p); p++, scale /= 10)
			fraction += (*p - '0') * scale;
	while (*p == ' ')
		p++;
	if (!parse_zone(&p, &zone) || *p)
		return false;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
	    tm.tm_min > 59 || tm.tm_sec > 60 || tm.tm_year < 1970)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*ret_ms = ((int64_t)timegm(&tm) - zone * 60) * 1000 + fraction;
	return true;
}

bool im_duration_parse(const char *text, int64_t *ret_ms)
{
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = { { "ms", 1 }, { "s", 1000 }, { "", 1000 }, { "m", 60000 }, { "min", 60000 },
		{ "h", 3600000 }, { "d", 86400000 } };
	char *end;
	if (!isdigit((unsigned char)*text))
		return false;
	unsigned long long v = strtoull(text, &end, 10);
	while (*end == ' ')
		end++;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (strcmp(end, units[i].unit) == 0 && v <= (unsigned long long)(INT64_MAX / units[i].ms)) {
			*ret_ms = (int64_t)v * units[i].ms;
			return true;
		}
	return false;
}

char *im_duration_format(char *ret, size_t size, int64_t ms)
{
	int64_t s = ms / 1000;
	if (ms < 10000)
		snprintf(ret, size, "%.2f s", (double)ms / 1000);
	else if (s < 120)
		snprintf(ret, size, "%.1f s", (double)ms / 1000);
	else if (s < 7200)
		snprintf(ret, size, "%" PRId64 " min %" PRId64 " s", s / 60, s % 60);
	else if (s < 2 * 86400)
		snprintf(ret, size, "%" PRId64 " h %" PRId64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(ret, size, "%" PRId64 " d %" PRId64 " h", s / 86400, s / 3600 % 24);
	return ret;
}

bool im_size_parse(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	char *end;
	errno = 0;
	if (*text < '0' || *text > '9')
		return false;
	uint64_t value = strtoull(text, &end, 10), unit = 1;
	if (errno)
		return false;
	const char *letter = *end ? strchr(units, *end) : NULL;
	bool binary = letter && strcmp(end + 1, "iB") == 0;
	if (letter && (binary || !end[1] || strcmp(end + 1, "B") == 0))
		for (const char *u = units; u <= letter; u++)
			unit *= binary ? 1024 : 1000;
	else if (*end && strcmp(end, "B") != 0)
		return false;
	return !__builtin_mul_overflow(value, unit, ret_bytes);
}

char *im_bytes_format(char *ret, size_t size, uint64_t bytes)
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB" };
	double v = (double)bytes;
	size_t u = 0;
	while (v >= 999.5 && u + 1 < sizeof units / sizeof *units) {
		v /= 1000;
		u++;
	}
	snprintf(ret, size, u == 0 || v >= 99.95 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return ret;
}
