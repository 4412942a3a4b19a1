/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A zstd dictionary for one run, trained on pages spread over the live database. Small extents (an
 * increment's) gain most. It lives in memory and, sealed, in packs; never in the local state.
 */
#ifndef IM_STORES_SQLITE_DICT_H
#define IM_STORES_SQLITE_DICT_H

#include "base/bytes.h"
#include "stores/sqlite/source.h"

/* Appends a dictionary, or nothing if none could be trained (which is no error). */
int dict_train(const struct source *s, struct im_buf *ret, struct im_error *err);

#endif
