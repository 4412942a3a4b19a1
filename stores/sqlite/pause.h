/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of a rollback-journal database whose server is stopped for some milliseconds: all pages
 * are copied and hashed while it runs, then, while it stands still, hashed again, and what differs
 * is copied, with the journal of a transaction in progress. No SQLite lock is ever taken.
 */
#ifndef IM_STORES_SQLITE_PAUSE_H
#define IM_STORES_SQLITE_PAUSE_H

#include "stores/store.h"

/* who: a PID file (absolute path) or a systemd unit. */
int pause_validate(const char *store, const char *who, struct im_error *err);
/* No pause is longer than limit_ms; ret->pause_us is the longest that was needed. */
int pause_snapshot(const struct snapshot_request *request, const char *who, int64_t limit_ms, struct snapshot_result *ret, struct im_error *err);

#endif
