/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prosody 0.12 (mod_storage_sql) and ejabberd 23 (sql/lite.sql, with or without server_host).
 */
#include "stores/sqlite/schema.h"

#include <stddef.h>

static const struct schema known[] = {
	{ "prosody", "prosodyarchive", "'sort_id','host','user','store','with','value'", 6,
	    "SELECT (SELECT count(*) FROM prosodyarchive), (SELECT max(sort_id) FROM prosodyarchive)" },
	{ "ejabberd", "archive", "'id','username','bare_peer','timestamp'", 4,
	    "SELECT (SELECT count(*) FROM archive), (SELECT max(id) FROM archive)" },
	{ 0 },
};

const struct schema *schema_table(void) { return known; }

static bool gives(sqlite3 *db, const char *sql, int expected)
{
	sqlite3_stmt *q = NULL;
	bool yes = sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW &&
	    sqlite3_column_int(q, 0) == expected;
	sqlite3_finalize(q);
	return yes;
}

static bool has_columns(sqlite3 *db, const char *table, const char *columns, int count)
{
	char sql[256];
	sqlite3_snprintf(sizeof sql, sql, "SELECT count(*) FROM pragma_table_info('%s') WHERE name IN (%s)", table, columns);
	return gives(db, sql, count);
}

bool schema_present(sqlite3 *db, const struct schema *s)
{
	return has_columns(db, s->table, s->columns, s->column_count);
}

bool schema_has(sqlite3 *db, const struct schema *s, const char *column)
{
	char quoted[64];
	sqlite3_snprintf(sizeof quoted, quoted, "'%s'", column);
	return has_columns(db, s->table, quoted, 1);
}

bool schema_is_table(sqlite3 *db, const struct schema *s)
{
	char sql[256];
	sqlite3_snprintf(sizeof sql, sql, "SELECT count(*) FROM sqlite_schema WHERE name = '%s' AND type = 'table' AND rootpage > 0", s->table);
	return gives(db, sql, 1);
}
