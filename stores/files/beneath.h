/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Path operations that stay beneath a folder: no "..", no symbolic link anywhere on the way. Every
 * access of the files store to a tree it reads or rebuilds goes through these, so that a planted
 * link or a swapped parent leads to an error and never outside.
 */
#ifndef IM_STORES_FILES_BENEATH_H
#define IM_STORES_FILES_BENEATH_H

#include "base/error.h"

#include <stdbool.h>

#define FILES_PATH_MAX_BYTES 3800 /* relative; leaves room for a prefix within PATH_MAX */

/* "." or components joined by single '/', none of them empty, "." or ".."; at most FILES_PATH_MAX_BYTES. */
bool files_path_valid(const char *path);

/* A descriptor, or a negative errno. path as above; flags get O_CLOEXEC and O_NOFOLLOW. */
int files_beneath_open(int root_fd, const char *path, int flags);

/* The parent folder most recently opened: neighbours share it. Begin with { .fd = -1 }. */
struct files_parent {
	int fd; /* O_PATH; borrowed by callers until the next call */
	char *folder;
};
/* The folder that holds path (not "."), and path's last component. A negative errno on failure. */
int files_parent_open(struct files_parent *p, int root_fd, const char *path, const char **ret_name);
void files_parent_close(struct files_parent *p);

#endif
