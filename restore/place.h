/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Final names: what stands at one, moving it aside, and putting the new thing there. Nothing is
 * ever deleted or replaced except an empty file or an empty folder.
 */
#ifndef IM_RESTORE_PLACE_H
#define IM_RESTORE_PLACE_H

#include "base/error.h"

#include <stdbool.h>

#define PLACE_LOST_FOUND "lost+found"

enum place_state { PLACE_FREE, PLACE_EMPTY, PLACE_TAKEN };

/* ignore (may be NULL): a child that does not count. */
int place_look(
    int dir_fd, const char *name, const char *ignore, enum place_state *ret, struct im_error *err);
/* A folder something is mounted on: it cannot be renamed, only filled. */
bool place_is_mount(int dir_fd, const char *name);
/* Renames name to a free NAME.before-restore-STAMP; ret_name has NAME_MAX + 1 bytes. */
int place_move_aside(
    int dir_fd, const char *name, const char *stamp, char *ret_name, struct im_error *err);
/* Moves every child of dir_fd but ignore into a new folder "before-restore-STAMP" of it. */
int place_move_children_aside(
    int dir_fd, const char *ignore, const char *stamp, char *ret_name, struct im_error *err);
/* A name in a mount point that is never moved: lost+found, or what an earlier restore moved aside.
 */
bool place_is_stranger(const char *name);
/* Owner, mode, times and attributes of a folder. */
int place_copy_metadata(int from_fd, int to_fd, struct im_error *err);
/* from → to; to must be free, or empty. */
int place_put(int from_fd, const char *from, int to_fd, const char *to, struct im_error *err);
/* Moves every child of from_fd into to_fd, and gives to_fd the owner, mode, times and attributes of
 * from_fd. */
int place_put_children(int from_fd, int to_fd, struct im_error *err);

#endif
