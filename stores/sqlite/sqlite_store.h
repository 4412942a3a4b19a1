/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite store kind: one database file, live or at rest.
 */
#ifndef IM_STORES_SQLITE_STORE_H
#define IM_STORES_SQLITE_STORE_H

#include "stores/store.h"

extern const struct store_ops sqlite_store_ops;

#endif
