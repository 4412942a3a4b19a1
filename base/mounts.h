/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is mounted where, as /proc/PID/mountinfo tells: see proc(5).
 */
#ifndef IM_BASE_MOUNTS_H
#define IM_BASE_MOUNTS_H

#include <sys/types.h>

struct im_mount {
	const char *root;  /* the folder of its file system that is shown */
	const char *place; /* where */
	const char *type;  /* of the file system, such as "ext4" or "fuse.imvault" */
};

/* Calls fn for each mount that the process sees (0: we), those on top last. Not 0 ends it and is returned; 0 too if nothing can be read. */
int im_mounts_each(pid_t pid, int (*fn)(void *context, const struct im_mount *m), void *context);

#endif
