/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message tables of servers that are known, and what is asked of them.
 */
#ifndef IM_STORES_SQLITE_SCHEMA_H
#define IM_STORES_SQLITE_SCHEMA_H

#include <sqlite3.h>
#include <stdbool.h>

struct schema {
	const char *name;    /* as in tallies (stores/tally.h) */
	const char *table;
	const char *columns; /* the schema is known by these: an SQL list */
	int column_count;
	const char *probe;   /* how many messages, and the last one's number */
};

/* Ends with a row without a name. */
const struct schema *schema_table(void);
bool schema_present(sqlite3 *db, const struct schema *s);
/* Has the table this column, too? */
bool schema_has(sqlite3 *db, const struct schema *s, const char *column);
/* Is it a table with pages of its own? A view by that name can be any query. */
bool schema_is_table(sqlite3 *db, const struct schema *s);

#endif
