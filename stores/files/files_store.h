/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store kind `files`: a tree with everything Linux keeps about it. The operations of its
 * vtable, one source file each.
 */
#ifndef IM_STORES_FILES_FILES_STORE_H
#define IM_STORES_FILES_FILES_STORE_H

#include "stores/store.h"

extern const struct store_ops files_store_ops;

int files_snapshot(const struct snapshot_request *request, struct snapshot_result *ret, struct im_error *err);
int files_plan(struct rebuild *r, struct im_error *err);
int files_complete(struct rebuild *r, struct im_error *err);
int files_finish(struct rebuild *r, bool failed, struct im_error *err);
int files_check(json_t *manifest, const char *path, const char *level, char **ret_text, struct im_error *err);
int files_export_tar(struct rebuild *r, void *archive, struct im_error *err);
int files_each_entry(const char *path, int (*fn)(void *context, const char *relative, const struct stat *st, struct im_error *err),
    void *context, struct im_error *err);
int files_explain(struct rebuild *r, bool (*is_bad)(void *context, const struct im_ref *ref), void *bad_context,
    void (*fn)(void *context, const char *text), void *context, struct im_error *err);

#endif
