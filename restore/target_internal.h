/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What target.c and target_publish.c share.
 */
#ifndef IM_RESTORE_TARGET_INTERNAL_H
#define IM_RESTORE_TARGET_INTERNAL_H

#include "restore/stage.h"
#include "restore/target.h"

struct target_unit {
	char *path;   /* original, relative to the root: without its leading slash */
	char *folder; /* its parent, "" for the root */
	const char *name;
	char **beside; /* names in the same folder */
	size_t beside_count;
	size_t group;
	bool published, had_lost_found, is_folder;
	char *aside;
};

struct target_group {
	size_t outer;  /* unit */
	bool inside;   /* the outer unit is a mount point: staged within */
	unsigned folders_made; /* innermost of the way to parent_fd */
	int parent_fd; /* the folder that holds the stage; -1: not begun */
	struct stage stage;
};

struct target {
	char *to; /* NULL: in place */
	bool overwrite, kept;
	const char *suffix; /* of stages */
	int root_fd; /* DIR or "/"; -1 until target_begin, if DIR is not there */
	struct target_unit *units;
	size_t unit_count;
	struct target_group *groups;
	size_t group_count;
	char stamp[32];
};

/* Is inner the same as outer, or below it? Relative paths; "" is the root. */
bool target_holds(const char *outer, const char *inner);
/* IM_EUSAGE: this name of the unit is taken. */
int target_refuse(
    const struct target *t, const struct target_unit *u, const char *name, struct im_error *err);

#endif
