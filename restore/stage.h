/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One hidden stage folder (see target.h): made, locked, emptied, removed.
 */
#ifndef IM_RESTORE_STAGE_H
#define IM_RESTORE_STAGE_H

#include "base/error.h"

struct stage {
	int parent_fd;  /* borrowed */
	int fd, root_fd; /* -1: not open */
	char name[256];
};

/* Makes or takes over parent/name. where: for messages. */
int stage_open(
    struct stage *s, int parent_fd, const char *name, const char *where, struct im_error *err);
/* One that is there: locked, nothing is changed. */
int stage_open_again(struct stage *s, int parent_fd, const char *name, struct im_error *err);
void stage_close(struct stage *s); /* the folder stays */
int stage_remove(struct stage *s, struct im_error *err);
#endif
