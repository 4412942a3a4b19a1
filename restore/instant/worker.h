/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that does the work of an instant restore: it answers accesses, brings what they need
 * first and everything else besides, and finishes file after file. It may be killed at any moment:
 * the next one takes over from the table.
 */
#ifndef IM_RESTORE_INSTANT_WORKER_H
#define IM_RESTORE_INSTANT_WORKER_H

#include "restore/instant/hydrate.h"

struct worker_options {
	struct hydrate_options hydrate;
	const uint32_t *order;         /* the files as they are brought in the background; file_count of them */
	const struct table_touch *hot; /* what a service touched when it started before: brought first */
	size_t hot_count;
	const struct worker_view { /* folders shown through FUSE, until somebody unmounts them */
		const char *staged, *target;
	} *views;
	size_t view_count;
};

/* In a process of its own, which has one thread. Returns when every file is ordinary (0), or a code. */
int worker_run(const struct worker_options *options, struct im_error *err);

#endif
