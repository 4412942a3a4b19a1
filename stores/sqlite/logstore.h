/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a restore keeps what it read of the log: a file without a name in its stage, so that memory
 * does not follow the log's size and nothing stays, whatever happens. What lies there is compressed,
 * and as open as the database that is being restored beside it.
 */
#ifndef IM_STORES_SQLITE_LOGSTORE_H
#define IM_STORES_SQLITE_LOGSTORE_H

#include "stores/store.h"

/* A new file without a name beneath root_fd, 0600; the caller closes it. */
int logstore_unnamed(int root_fd, struct im_error *err);

struct logstore;
int logstore_open(int root_fd, struct logstore **ret, struct im_error *err);
void logstore_close(struct logstore *s); /* NULL is fine; sources of it end here */
/* Appends; *ret reads it back. Any thread. */
int logstore_put(struct logstore *s, const void *data, size_t len, struct follow_source *ret, struct im_error *err);

#endif
