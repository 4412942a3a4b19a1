/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forecast: what must be moved, divided by how fast that goes here.
 */
#include "verify/forecast.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

void forecast_sizes_of_snapshot(const struct snapshot *s, struct forecast_sizes *ret)
{
	size_t i;
	json_t *store;
	*ret = (struct forecast_sizes){ 0 };
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, store) {
		uint64_t bytes = (uint64_t)json_integer_value(json_object_get(store, "bytes"));
		const char *type = json_string_value(json_object_get(store, "type"));
		ret->stores++;
		ret->write_bytes += bytes;
		ret->database_bytes += type && strcmp(type, "sqlite") == 0 ? bytes : 0;
	}
	for (size_t p = 0; p < s->pack_count; p++)
		ret->read_bytes += s->packs[p].size_bytes;
	ret->packs = s->pack_count;
}

int forecast_sizes_add_logs(const struct vault *v, const struct snapshot *s, struct forecast_sizes *ret, struct im_error *err)
{
	(void)v, (void)s, (void)ret, (void)err;
	return 0;
}

void forecast_probe(const struct vault *v, const struct snapshot *s, const char *target, struct forecast_machine *ret)
{
	cpu_set_t set;
	(void)v, (void)s, (void)target;
	*ret = (struct forecast_machine){ .cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1 };
}

void forecast_make(enum forecast_scenario scenario, const struct forecast_sizes *sizes, const struct forecast_machine *machine,
    const struct drill_list *history, struct forecast *ret)
{
	(void)history;
	double ms = 300 + (double)sizes->write_bytes / 300e3 / machine->cpus * 2 + (double)sizes->database_bytes / 700e3;
	double ready = scenario == FORECAST_INSTANT ? 500 : ms;
	*ret = (struct forecast){ .ready_p50_ms = (int64_t)ready, .ready_p95_ms = (int64_t)(2 * ready), .complete_p50_ms = (int64_t)ms,
		.complete_p95_ms = (int64_t)(2 * ms), .error_percent = -1 };
}

int forecast_of_node(const struct vault *v, const struct snapshot *s, const struct drill_list *history, const char *target,
    struct forecast_node *ret, struct im_error *err)
{
	forecast_sizes_of_snapshot(s, &ret->sizes);
	int rc = forecast_sizes_add_logs(v, s, &ret->sizes, err);
	forecast_probe(v, s, target, &ret->machine);
	forecast_make(FORECAST_FULL, &ret->sizes, &ret->machine, history, &ret->full);
	forecast_make(FORECAST_INSTANT, &ret->sizes, &ret->machine, history, &ret->instant);
	return rc;
}

json_t *forecast_sizes_json(const struct forecast_sizes *z)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "write_bytes", (json_int_t)z->write_bytes, "read_bytes", (json_int_t)z->read_bytes,
	    "files", (json_int_t)z->files, "packs", (json_int_t)z->packs, "stores", (json_int_t)z->stores, "database_bytes", (json_int_t)z->database_bytes,
	    "log_bytes", (json_int_t)z->log_bytes, "log_segments", (json_int_t)z->log_segments);
}

json_t *forecast_machine_json(const struct forecast_machine *m)
{
	return json_pack("{s:i, s:I, s:I, s:I}", "cpus", (int)m->cpus, "read_rate", (json_int_t)m->read_rate, "decode_rate", (json_int_t)m->decode_rate,
	    "write_rate", (json_int_t)m->write_rate);
}
