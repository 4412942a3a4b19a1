/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a path that cannot leave a folder: no "..", no symbolic link anywhere on the way. Names
 * come from a snapshot or from a tree that others write, and either may hold links somebody planted.
 */
#ifndef IM_BASE_BENEATH_H
#define IM_BASE_BENEATH_H

#include <stdbool.h>

/* Relative, no empty, "." or ".." component, no component over NAME_MAX, shorter than PATH_MAX. */
bool im_beneath_path_valid(const char *path);

/* As openat(), of a valid path or "."; -1 with errno. O_CLOEXEC is added. A symbolic link is ELOOP,
 * except that O_PATH | O_NOFOLLOW opens one at the end itself. */
int im_beneath_open(int root_fd, const char *path, int flags, unsigned permissions);

#endif
