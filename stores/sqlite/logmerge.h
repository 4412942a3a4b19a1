/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many changes as one: consecutive bodies merged page by page, newest wins, changes in a row
 * composed, without any page content. Used for coarse segments and when a restore gathers what it
 * will lay over a snapshot.
 */
#ifndef IM_STORES_SQLITE_LOGMERGE_H
#define IM_STORES_SQLITE_LOGMERGE_H

#include "stores/sqlite/logbody.h"

/* bodies: all parts of consecutive segments in order (one of no bytes at all changes nothing). Only points in (after, until]
 * are taken (0, UINT32_MAX: all). One section results, that of the last point taken. part as in store_follow_ops.merge.
 * IM_ECORRUPT; IM_ENOTFOUND if there is no such point. */
int logmerge_run(const struct follow_source *bodies, size_t count, uint32_t after, uint32_t until,
    int (*part)(void *context, const void *data, size_t len, bool final, struct im_error *err), void *context, struct im_error *err);

#endif
