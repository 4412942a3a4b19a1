/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records as lessons. A record is signed, but that is no reason to believe its figures: each is
 * checked for type and range, and one that contradicts itself teaches nothing.
 */
#include "verify/forecast_internal.h"

#include <string.h>
#include <unistd.h>

#define TIME_MAX_MS 3e9 /* 35 days */
enum { PHASES_MAX = 100 };

static double ms_of(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	double ms = json_is_integer(value) ? (double)json_integer_value(value) : -1;
	return ms >= 0 && ms <= TIME_MAX_MS ? ms : -1;
}

/* Only a recovery that brought everything back says how long that takes. */
static bool is_complete(const struct drill_record *r)
{
	return (r->passed || strcmp(r->verdict, "different") == 0) && r->data_complete_ms > 0 && r->service_ready_ms > 0 &&
	    (double)r->data_complete_ms < TIME_MAX_MS && (double)r->service_ready_ms < TIME_MAX_MS;
}

static enum forecast_part part_of(const char *phase)
{
	static const struct {
		const char *phase;
		enum forecast_part part;
	} table[] = { { "open", PART_BEGIN }, { "plan", PART_BEGIN }, { "fetch", PART_FETCH }, { "finish", PART_END }, { "sync", PART_END },
		{ "prepare", PART_END }, { "check", PART_CHECK }, { "start", PART_START }, { "hydrate", PART_HYDRATE } };
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (strcmp(phase, table[i].phase) == 0)
			return table[i].part;
	return PART_OTHER;
}

/* Sums the phases; false if there are none. */
static bool take_phases(const json_t *phases, struct forecast_parts *ret)
{
	size_t i;
	json_t *phase;
	bool any = false;
	*ret = (struct forecast_parts){ 0 };
	json_array_foreach(phases, i, phase) {
		const char *name = json_string_value(json_object_get(phase, "name"));
		double ms = ms_of(phase, "ms");
		if (i == PHASES_MAX || !name || ms < 0)
			return false;
		if (json_is_true(json_object_get(phase, "of_threads")))
			continue;
		ret->ms[part_of(name)] += ms;
		any = true;
	}
	return any;
}

/* The two clocks say what the phases leave out. False: they contradict each other. */
static bool take_times(const struct drill_record *r, struct forecast_lesson *l)
{
	l->ready_ms = (double)r->service_ready_ms;
	l->complete_ms = (double)r->data_complete_ms;
	if (!take_phases(json_object_get(r->meta, "phases"), &l->took)) {
		for (int i = 0; i < PART_COUNT; i++)
			l->took.ms[i] = -1;
		return true;
	}
	l->took.ms[PART_OTHER] = 0; /* it may lie behind both clocks, such as what only a drill looks at */
	double rest = l->ready_ms - forecast_ready_ms(&l->took);
	if (rest < -0.1 * l->ready_ms - 50)
		return false;
	l->took.ms[PART_OTHER] = rest > 0 ? rest : 0;
	double visible = forecast_ready_ms(&l->took) - l->took.ms[PART_START];
	l->took.ms[PART_HYDRATE] = l->scenario == FORECAST_INSTANT && l->complete_ms > visible ? l->complete_ms - visible : 0;
	return true;
}

static void take_sizes(const struct drill_record *r, struct forecast_sizes *ret)
{
	size_t i;
	json_t *store;
	uint64_t files = 0;
	forecast_sizes_read(json_object_get(r->meta, "sizes"), ret);
	json_array_foreach(json_object_get(r->meta, "stores"), i, store) {
		struct forecast_sizes one;
		forecast_sizes_read(store, &one);
		files += i < PHASES_MAX ? one.files : 0;
	}
	if (!ret->files)
		ret->files = files;
}

static void take_machine(const struct drill_record *r, const struct forecast_machine *now, struct forecast_machine *ret)
{
	struct forecast_machine limits;
	forecast_machine_read(json_object_get(r->meta, "machine"), ret);
	forecast_machine_read(json_object_get(r->meta, "limits"), &limits);
	if (!ret->cpus)
		ret->cpus = now->cpus;
	if (limits.cpus && limits.cpus < ret->cpus)
		ret->cpus = limits.cpus;
	ret->read_rate = ret->read_rate > 0 ? ret->read_rate : now->read_rate;
	ret->decode_rate = ret->decode_rate > 0 ? ret->decode_rate : now->decode_rate;
	ret->write_rate = ret->write_rate > 0 ? ret->write_rate : now->write_rate;
}

static bool take_one(const struct drill_record *r, const struct forecast_machine *now, const char *host, struct forecast_lesson *ret)
{
	const char *mode = json_string_value(json_object_get(r->meta, "mode"));
	if (!is_complete(r))
		return false;
	*ret = (struct forecast_lesson){ .same_host = strcmp(r->host, host) == 0 };
	ret->scenario = strcmp(r->scenario, "instant") == 0 && !(mode && strcmp(mode, "ordinary") == 0) ? FORECAST_INSTANT : FORECAST_FULL;
	ret->foretold_ms = (double)r->forecast_p50_ms;
	take_sizes(r, &ret->sizes);
	take_machine(r, now, &ret->machine);
	bool taught = ret->sizes.write_bytes > 0 && take_times(r, ret);
	ret->sizes.service = ret->took.ms[PART_START] > 0;
	return taught;
}

size_t forecast_lessons_take(const struct drill_list *history, const struct forecast_machine *now, struct forecast_lesson ret[FORECAST_LESSONS_MAX])
{
	char host[256] = "";
	size_t count = 0;
	gethostname(host, sizeof host - 1);
	for (size_t i = history->count; i-- > 0 && count < FORECAST_LESSONS_MAX;)
		count += take_one(&history->items[i], now, host, &ret[count]);
	for (size_t i = 0; i < count / 2; i++) {
		struct forecast_lesson swap = ret[i];
		ret[i] = ret[count - 1 - i];
		ret[count - 1 - i] = swap;
	}
	return count;
}
