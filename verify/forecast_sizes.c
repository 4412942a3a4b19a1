/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a recovery has to move, as the vault's metadata tells it, and these figures in records. All of
 * it was written by others: each figure is bounded before it is added.
 */
#include "verify/forecast.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "vault/logroute.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MAX_BYTES UINT64_C(1000000000000000) /* of a single figure: sums of them do not overflow */
#define RATE_MAX 1e12
#define STORES_MAX 10000
#define CPUS_MAX 1024

static uint64_t figure(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	json_int_t n = json_is_integer(value) ? json_integer_value(value) : 0;
	return n < 0 ? 0 : (uint64_t)n < SIZE_MAX_BYTES ? (uint64_t)n : SIZE_MAX_BYTES;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
	return a + b < SIZE_MAX_BYTES ? a + b : SIZE_MAX_BYTES;
}

static bool is_ok(const json_t *store)
{
	const char *status = json_string_value(json_object_get(store, "status"));
	return !status || strcmp(status, "failed") != 0;
}

static bool is_database(const json_t *store)
{
	const char *type = json_string_value(json_object_get(store, "type"));
	return type && strcmp(type, "sqlite") == 0;
}

/* Marks the packs that the store needs; false if it does not say. */
static bool mark_packs(const struct snapshot *s, const json_t *store, bool *needed)
{
	auto_buf struct im_buf numbers = { 0 };
	const char *text = json_string_value(json_object_get(store, "packs"));
	if (!text || !im_unbase64(&numbers, text) || numbers.len % 4)
		return false;
	for (size_t i = 0; i < numbers.len; i += 4) {
		const struct pack_info *p = snapshot_pack(s, im_le32(numbers.data + i));
		if (p)
			needed[p - s->packs] = true;
	}
	return true;
}

static void add_packs(const struct snapshot *s, const json_t *stores, struct forecast_sizes *ret)
{
	auto_free bool *needed = calloc(s->pack_count + 1, sizeof *needed);
	bool known = needed != NULL;
	size_t i;
	json_t *store;
	json_array_foreach(stores, i, store)
		if (known && is_ok(store))
			known = mark_packs(s, store, needed);
	for (size_t p = 0; p < s->pack_count; p++)
		if (!known || needed[p]) {
			ret->read_bytes = plus(ret->read_bytes, s->packs[p].size_bytes);
			ret->packs++;
		}
	/* what is stored is never larger than what it becomes: the rest of the packs is other snapshots' */
	if (ret->read_bytes > ret->write_bytes + ret->write_bytes / 64)
		ret->read_bytes = ret->write_bytes + ret->write_bytes / 64;
}

void forecast_sizes_count_small(uint64_t files, uint64_t bytes, struct forecast_sizes *ret)
{
	if (!files || bytes / files >= FORECAST_SMALL_BYTES)
		return;
	ret->small_files = plus(ret->small_files, files);
	ret->small_bytes = plus(ret->small_bytes, bytes);
}

void forecast_sizes_of_snapshot(const struct snapshot *s, struct forecast_sizes *ret)
{
	const json_t *stores = json_object_get(s->record.meta, "stores");
	size_t i;
	json_t *store;
	*ret = (struct forecast_sizes){ 0 };
	json_array_foreach(stores, i, store) {
		if (i == STORES_MAX)
			break;
		if (!is_ok(store))
			continue;
		uint64_t bytes = figure(store, "bytes");
		ret->stores++;
		ret->write_bytes = plus(ret->write_bytes, bytes);
		ret->database_bytes = plus(ret->database_bytes, is_database(store) ? bytes : 0);
		ret->files = plus(ret->files, is_database(store) ? 1 : figure(store, "files"));
		if (!is_database(store))
			forecast_sizes_count_small(figure(store, "files"), bytes, ret);
	}
	add_packs(s, stores, ret);
}

static int add_log(const struct vault *v, const struct snapshot *s, const json_t *store, int64_t until_ms, struct forecast_sizes *ret, struct im_error *err)
{
	const char *name = json_string_value(json_object_get(store, "name"));
	struct log_anchor anchor;
	struct log_route route;
	if (!until_ms || !name || !im_name_valid(name) || !log_anchor_read(store, &anchor))
		return 0;
	int rc = log_route_open(v->storage, v->keyring, s->node, name, &anchor, &route, err);
	if (rc)
		return rc;
	rc = log_route_plan(&route, until_ms, err);
	ret->log_bytes = plus(ret->log_bytes, rc ? 0 : route.bytes);
	ret->log_segments = plus(ret->log_segments, rc ? 0 : route.segments);
	log_route_clear(&route);
	return rc;
}

int forecast_sizes_add_logs(const struct vault *v, const struct snapshot *s, int64_t until_ms, struct forecast_sizes *ret, struct im_error *err)
{
	size_t i;
	json_t *store;
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, store) {
		struct im_error why = { 0 };
		int rc = i < STORES_MAX ? add_log(v, s, store, until_ms, ret, &why) : 0;
		if (rc && rc != IM_ECORRUPT && rc != IM_ENOTFOUND) /* a damaged log is verify's to tell */
			return im_fail(err, rc, "%s", why.text);
	}
	return 0;
}

const char *forecast_target_of(const struct snapshot *s)
{
	const char *ret = NULL;
	uint64_t most = 0;
	size_t i;
	json_t *store;
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, store) {
		const char *path = json_string_value(json_object_get(store, "path"));
		if (path && *path == '/' && (!ret || figure(store, "bytes") > most)) {
			ret = path;
			most = figure(store, "bytes");
		}
	}
	return ret;
}

int forecast_of_node(const struct vault *v, const struct snapshot *s, int64_t until_ms, const struct drill_list *history, const char *target,
    bool service, struct forecast_node *ret, struct im_error *err)
{
	*ret = (struct forecast_node){ 0 };
	forecast_sizes_of_snapshot(s, &ret->sizes);
	ret->sizes.service = service;
	int rc = forecast_sizes_add_logs(v, s, until_ms, &ret->sizes, err);
	if (rc)
		return rc;
	forecast_probe(v, s, target, &ret->machine);
	forecast_make(FORECAST_FULL, &ret->sizes, &ret->machine, history, &ret->full);
	forecast_make(FORECAST_INSTANT, &ret->sizes, &ret->machine, history, &ret->instant);
	return 0;
}

/* --- in records --- */

json_t *forecast_sizes_json(const struct forecast_sizes *z)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "write_bytes", (json_int_t)z->write_bytes, "read_bytes", (json_int_t)z->read_bytes,
	    "files", (json_int_t)z->files, "packs", (json_int_t)z->packs, "stores", (json_int_t)z->stores, "database_bytes", (json_int_t)z->database_bytes,
	    "log_bytes", (json_int_t)z->log_bytes, "log_segments", (json_int_t)z->log_segments,
	    "small_files", (json_int_t)z->small_files, "small_bytes", (json_int_t)z->small_bytes);
}

json_t *forecast_machine_json(const struct forecast_machine *m)
{
	return json_pack("{s:i, s:I, s:I, s:I}", "cpus", (int)m->cpus, "read_rate", (json_int_t)m->read_rate, "decode_rate", (json_int_t)m->decode_rate,
	    "write_rate", (json_int_t)m->write_rate);
}

void forecast_sizes_read(const json_t *j, struct forecast_sizes *ret)
{
	*ret = (struct forecast_sizes){ .write_bytes = figure(j, "write_bytes"), .read_bytes = figure(j, "read_bytes"), .files = figure(j, "files"),
		.packs = figure(j, "packs"), .stores = figure(j, "stores"), .database_bytes = figure(j, "database_bytes"),
		.log_bytes = figure(j, "log_bytes"), .log_segments = figure(j, "log_segments"),
		.small_files = figure(j, "small_files"), .small_bytes = figure(j, "small_bytes") };
}

static double rate(const json_t *object, const char *name)
{
	double r = (double)figure(object, name);
	return r < RATE_MAX ? r : 0;
}

void forecast_machine_read(const json_t *j, struct forecast_machine *ret)
{
	uint64_t cpus = figure(j, "cpus");
	*ret = (struct forecast_machine){ .cpus = cpus && cpus <= CPUS_MAX ? (unsigned)cpus : 0, .read_rate = rate(j, "read_rate"),
		.decode_rate = rate(j, "decode_rate"), .write_rate = rate(j, "write_rate") };
}
