/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes: a few figures (message count, last id) taken from the very image a snapshot holds, and
 * compared after a restore. Only statements that read are allowed, and not for ever.
 */
#ifndef IM_STORES_SQLITE_PROBE_H
#define IM_STORES_SQLITE_PROBE_H

#include "base/config.h"
#include "base/error.h"

#include <jansson.h>
#include <sqlite3.h>

#define PROBE_MAX_ROWS 100
#define PROBE_MAX_PROBES 64

/* Runs the store's `probe` lines, and built-in ones where the schema is known, on a connection within its read transaction.
 * ret: array of {sql, rows} (FORMAT §5). */
int probe_run(sqlite3 *db, const struct im_config_store *config, json_t **ret, struct im_error *err);
/* Runs recorded probes again. IM_EDIFFERENT says which differs and how, unless may_differ: then they must only run. ret_count: how many did. */
int probe_compare(sqlite3 *db, const json_t *recorded, bool may_differ, size_t *ret_count, struct im_error *err);

#endif
