/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A walk over a tree in a fixed order: a folder, then what is in it, names by strcmp. Symbolic
 * links are never followed; mounted file systems below are walked into. Memory is one folder's
 * names per level.
 */
#ifndef IM_STORES_FILES_WALK_H
#define IM_STORES_FILES_WALK_H

#include "stores/files/exclude.h"

#include <sys/stat.h>

struct files_walk {
	int root_fd; /* the root: a folder, or any other file */
	const char *from; /* only what is below this folder; NULL: the root and all below */
	const struct files_exclude *exclude; /* NULL: nothing */
	/* path is relative; the root is ".". Not called for sockets. Non-zero stops. */
	int (*entry)(void *context, const char *path, const struct stat *st, struct im_error *err);
	/* Something could not be looked at (or is gone: ENOENT); the walk goes on. */
	void (*fault)(void *context, const char *path, int errno_value);
	void *context;
};

int files_walk_run(const struct files_walk *w, struct im_error *err);

#endif
