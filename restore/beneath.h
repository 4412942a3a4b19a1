/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding, making and removing folders beneath the target without being led out of it
 * (base/beneath.h opens single paths). Unless told otherwise no symlink is followed.
 */
#ifndef IM_RESTORE_BENEATH_H
#define IM_RESTORE_BENEATH_H

#include "base/error.h"

#include <stdbool.h>

/*
 * The folder root/path ("" = root itself), opened O_RDONLY. create: missing ones are made (0755)
 * and made durable; *ret_made says how many (may be NULL). follow: symlinks on the way are
 * followed and may lead out: only for the machine's own folders in an in-place restore.
 * Without create, IM_ENOTFOUND when it is not there.
 */
int beneath_folder(int root_fd, const char *path, bool follow, bool create, int *ret_fd,
    unsigned *ret_made, struct im_error *err);

/* The deepest part of root/path that exists, for statvfs and forecasts. */
int beneath_deepest(int root_fd, const char *path, bool follow, int *ret_fd, struct im_error *err);

/* Removes name and all below it, never following a link; keep (may be NULL) is the name of one
 * direct child that is left. Not there: fine. */
int beneath_remove(int dir_fd, const char *name, const char *keep, struct im_error *err);

#endif
