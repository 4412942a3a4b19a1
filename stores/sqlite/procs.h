/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes are the server: named by a PID file (with all descendants) or by a systemd unit.
 * A wrong process is never stopped: one of them must have the database open, and nobody else may
 * have it open for writing.
 */
#ifndef IM_STORES_SQLITE_PROCS_H
#define IM_STORES_SQLITE_PROCS_H

#include "base/error.h"

#include <stddef.h>
#include <sys/types.h>

struct procs {
	pid_t *pids;
	size_t count, room;
};

/* who: an absolute path of a PID file, or a unit's name. */
int procs_validate(const char *store, const char *who, struct im_error *err);
int procs_find(const char *who, struct procs *ret, struct im_error *err);
/* fd: the database. who is for messages. */
int procs_check_owner(const struct procs *p, int fd, const char *path, const char *who, struct im_error *err);
void procs_clear(struct procs *p);

#endif
