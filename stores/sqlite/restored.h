/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a restored database to look at it. Its schema may come from a stolen node key, so it is not trusted.
 */
#ifndef IM_STORES_SQLITE_RESTORED_H
#define IM_STORES_SQLITE_RESTORED_H

#include "base/error.h"

#include <sqlite3.h>

/* The caller closes *ret with sqlite3_close. */
int restored_open(const char *path, sqlite3 **ret, struct im_error *err);

#endif
