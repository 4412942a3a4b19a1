/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fence around SQL, or a schema, that somebody else wrote: an authorizer lets nothing through but
 * reading, and a clock ends what takes too long.
 */
#ifndef IM_STORES_SQLITE_FENCE_H
#define IM_STORES_SQLITE_FENCE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

struct fence {
	sqlite3 *db;
	int64_t deadline_ms; /* monotonic */
};

/* Before the statement is prepared. f must live until fence_lower. */
void fence_raise(struct fence *f, sqlite3 *db, int64_t limit_ms);
/* After it was finalized. */
void fence_lower(struct fence *f);
/* Time is up, or somebody wants the program to end. A statement that was stopped for it says SQLITE_INTERRUPT. */
bool fence_expired(const struct fence *f);

#endif
