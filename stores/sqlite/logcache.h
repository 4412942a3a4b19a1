/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoded blocks of a log's layers, shared by all threads: each is decoded once while it is needed,
 * the longest unused go when there are too many. A block being decoded is waited for, not decoded
 * twice; nothing is decoded under the lock.
 */
#ifndef IM_STORES_SQLITE_LOGCACHE_H
#define IM_STORES_SQLITE_LOGCACHE_H

#include "stores/sqlite/loglayer.h"

#define LOGCACHE_BYTES (32u << 20)

struct logcache;
int logcache_new(struct logcache **ret, struct im_error *err);
void logcache_free(struct logcache *c); /* before the layers are cleared */
/* block->decoded may be read until the release. Any thread. */
int logcache_acquire(struct logcache *c, struct loglayer_block *block, struct im_error *err);
void logcache_release(struct logcache *c, struct loglayer_block *block);

#endif
