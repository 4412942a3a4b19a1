/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following a database in WAL mode: the SQLite store's side of struct store_follow_ops.
 */
#ifndef IM_STORES_SQLITE_FOLLOW_H
#define IM_STORES_SQLITE_FOLLOW_H

#include "stores/store.h"

#define FOLLOW_WAL_LIMIT "512MiB" /* default of wal_limit */

extern const struct store_follow_ops sqlite_follow_ops;

/* The configuration's wal_limit. IM_EUSAGE. */
int follow_wal_limit(const struct im_config_store *store, uint64_t *ret, struct im_error *err);

#endif
