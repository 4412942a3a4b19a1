/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping a server for a bounded time. A child process traces every thread of it; the kernel lets
 * traced threads go on when their tracer dies, so the server is released whoever is killed: imvault,
 * the child, or both. The child also lets go at the deadline, and when imvault ends.
 */
#ifndef IM_STORES_SQLITE_GUARD_H
#define IM_STORES_SQLITE_GUARD_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct guard;

/* Returns when all threads of these processes (and what they fork meanwhile) stand still. limit_us after the first
 * of them stood still they are let go, whatever happens: *ret_deadline_us, monotonic. IM_EKEY is never returned; a refusal by the kernel is IM_EFAIL with the way out. */
int guard_stop(const pid_t *pids, size_t count, int64_t limit_us, struct guard **ret, int64_t *ret_deadline_us, struct im_error *err);
/* Lets go. *ret_in_time: they stood still up to this call; if false, nothing read meanwhile may be believed. Frees the guard. */
void guard_release(struct guard *g, bool *ret_in_time, int64_t *ret_pause_us);

#endif
