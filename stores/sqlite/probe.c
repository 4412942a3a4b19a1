/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running probes. The SQL of a restore comes from a snapshot, which a stolen node key could have
 * written: it runs within a fence (fence.h).
 */
#include "stores/sqlite/probe.h"

#include "base/interrupt.h"
#include "stores/sqlite/fence.h"
#include "stores/sqlite/schema.h"

#include <string.h>

#define PROBE_MAX_MS 300000

static json_t *cell(sqlite3_stmt *q, int column)
{
	if (sqlite3_column_type(q, column) == SQLITE_NULL)
		return json_null();
	const char *text = (const char *)sqlite3_column_text(q, column);
	json_t *value = text ? json_stringn(text, (size_t)sqlite3_column_bytes(q, column)) : NULL;
	return value ? value : json_string("(not text)"); /* blobs and broken UTF-8 */
}

static int step_rows(sqlite3 *db, sqlite3_stmt *q, const char *sql, json_t *rows, struct im_error *err)
{
	int step;
	while ((step = sqlite3_step(q)) == SQLITE_ROW) {
		if (json_array_size(rows) == PROBE_MAX_ROWS)
			return im_fail(err, IM_EUSAGE, "probe \"%s\" gives more than %d rows; let it count or LIMIT", sql, PROBE_MAX_ROWS);
		json_t *row = json_array();
		for (int i = 0; i < sqlite3_column_count(q); i++)
			json_array_append_new(row, cell(q, i));
		if (json_array_append_new(rows, row))
			return im_fail(err, IM_ENOMEM, "out of memory");
	}
	if (step == SQLITE_INTERRUPT)
		return im_interrupt_signal() ? im_interrupt_check(err) :
		    im_fail(err, IM_EFAIL, "probe \"%s\" ran longer than %d s", sql, PROBE_MAX_MS / 1000);
	return step == SQLITE_DONE ? 0 :
	    im_fail(err, step == SQLITE_CORRUPT ? IM_ECORRUPT : IM_EFAIL, "probe \"%s\": %s", sql, sqlite3_errmsg(db));
}

static int run_one(sqlite3 *db, const char *sql, json_t **ret, struct im_error *err)
{
	struct fence fence;
	sqlite3_stmt *q = NULL;
	const char *tail = NULL;
	json_t *rows = json_array();
	int rc = 0;
	fence_raise(&fence, db, PROBE_MAX_MS);
	if (sqlite3_prepare_v2(db, sql, -1, &q, &tail) != SQLITE_OK)
		rc = im_fail(err, IM_EUSAGE, "probe \"%s\": %s", sql, sqlite3_errmsg(db));
	else if (!q || tail[strspn(tail, "; \t\n")])
		rc = im_fail(err, IM_EUSAGE, "probe \"%s\" must be one SELECT statement", sql);
	else
		rc = step_rows(db, q, sql, rows, err);
	sqlite3_finalize(q);
	fence_lower(&fence);
	if (rc) {
		json_decref(rows);
		return rc;
	}
	*ret = rows;
	return 0;
}

static int record(sqlite3 *db, const char *sql, json_t *list, struct im_error *err)
{
	json_t *rows;
	int rc = run_one(db, sql, &rows, err);
	if (rc)
		return rc;
	json_t *probe = json_pack("{s:s, s:o}", "sql", sql, "rows", rows);
	return probe && json_array_append_new(list, probe) == 0 ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

static bool configured(const struct im_config_store *config, const char *table)
{
	for (size_t i = 0; i < config->pair_count; i++)
		if (strcmp(config->pairs[i].key, "probe") == 0 && strstr(config->pairs[i].value, table))
			return true;
	return false;
}

int probe_run(sqlite3 *db, const struct im_config_store *config, json_t **ret, struct im_error *err)
{
	json_t *list = json_array();
	int rc = list ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; rc == 0 && i < config->pair_count; i++)
		if (strcmp(config->pairs[i].key, "probe") == 0)
			rc = record(db, config->pairs[i].value, list, err);
	for (const struct schema *k = schema_table(); rc == 0 && k->name; k++)
		if (!configured(config, k->table) && schema_present(db, k))
			rc = record(db, k->probe, list, err);
	if (rc) {
		json_decref(list);
		return rc;
	}
	*ret = list;
	return 0;
}

static int compare_one(sqlite3 *db, const char *sql, const json_t *expected, bool may_differ, struct im_error *err)
{
	json_t *rows;
	int rc = run_one(db, sql, &rows, err);
	if (rc)
		return rc;
	if (!may_differ && !json_equal(rows, expected)) {
		char *was = json_dumps(expected, JSON_COMPACT), *is = json_dumps(rows, JSON_COMPACT);
		rc = im_fail(err, IM_EDIFFERENT, "probe \"%.200s\" gave %.200s when the snapshot was taken and gives %.200s now",
		    sql, was ? was : "?", is ? is : "?");
		free(was);
		free(is);
	}
	json_decref(rows);
	return rc;
}

int probe_compare(sqlite3 *db, const json_t *recorded, bool may_differ, size_t *ret_count, struct im_error *err)
{
	size_t i;
	json_t *probe;
	if (json_array_size(recorded) > PROBE_MAX_PROBES)
		return im_fail(err, IM_ECORRUPT, "the snapshot records more than %d probes", PROBE_MAX_PROBES);
	json_array_foreach(recorded, i, probe) {
		const char *sql = json_string_value(json_object_get(probe, "sql"));
		const json_t *rows = json_object_get(probe, "rows");
		if (!sql || !json_is_array(rows))
			return im_fail(err, IM_ECORRUPT, "the snapshot records a malformed probe");
		int rc = compare_one(db, sql, rows, may_differ, err);
		if (rc)
			return rc;
	}
	*ret_count = json_array_size(recorded);
	return 0;
}
