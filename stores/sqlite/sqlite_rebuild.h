/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a manifest back to a database: the restore side of the SQLite store. Contracts are those of
 * stores/store.h.
 */
#ifndef IM_STORES_SQLITE_REBUILD_H
#define IM_STORES_SQLITE_REBUILD_H

#include "stores/store.h"

int sqlite_rebuild_plan(struct rebuild *r, struct im_error *err);
int sqlite_rebuild_finish(struct rebuild *r, bool failed, struct im_error *err);
int sqlite_check(json_t *manifest, const char *path, const char *level, char **ret_text, struct im_error *err);
int sqlite_export_tar(struct rebuild *r, void *archive, struct im_error *err);
int sqlite_explain(struct rebuild *r, bool (*is_bad)(void *context, const struct im_ref *ref), void *bad_context, void (*fn)(void *context, const char *text), void *context, struct im_error *err);

#endif
