/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for commits without polling: the kernel tells when the WAL is written (inotify). A commit
 * counts only once SQLite has updated the -shm, a moment after the last write and without a sign,
 * so a few looks follow each.
 */
#ifndef IM_STORES_SQLITE_WATCH_H
#define IM_STORES_SQLITE_WATCH_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct watch {
	int inotify;          /* -1: none to be had; then it polls */
	unsigned looks_left;  /* to take after the last write */
	int64_t last_return_ms; /* monotonic */
};

/* Files that exist: writes to the WAL wake, and what happens to the names of both. */
void watch_open(struct watch *w, const char *db_path, const char *wal_path);
void watch_close(struct watch *w);
/* Returns when the WAL may hold something new, wake_fd is readable, or after timeout_ms (-1: never). busy: more is known to be there, wait only the shortest time. */
int watch_wait(struct watch *w, int wake_fd, int64_t timeout_ms, bool busy, struct im_error *err);

#endif
