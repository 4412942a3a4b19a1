/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run at a time: flock on a file that also says who holds it. The kernel lets the lock go when
 * its holder dies, so nobody ever unlocks by hand.
 */
#ifndef IM_BASE_LOCK_H
#define IM_BASE_LOCK_H

#include "base/error.h"

/* Takes the lock without waiting. ret_fd keeps it until closed. IM_ELOCKED names the holder
 * (pid, command, since). what: e.g. "backup of node im-01". */
int im_lock_take(const char *path, const char *what, int *ret_fd, struct im_error *err);

#endif
