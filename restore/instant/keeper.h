/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes that see an instant restore through. Two keepers hold everything (the event group,
 * the files, the plan) and do nothing but watch: the first starts the second again, the second starts
 * the worker again, and becomes the first when that one ends. The command that began the restore is
 * a third, as long as it lives. All are copies of that command's process, so nothing has to be
 * planned or unlocked again.
 */
#ifndef IM_RESTORE_INSTANT_KEEPER_H
#define IM_RESTORE_INSTANT_KEEPER_H

#include "restore/instant/worker.h"

struct keeper_options {
	struct table *table;
	const struct worker_options *worker;
	/* When every file is ordinary, in a process of one thread: the switch. May be called again after a failure or a kill. */
	int (*finish)(void *context, struct im_error *err);
	/* NULL, or: every file is ordinary, but the worker cannot end before the service lets go; called every now and then. */
	void (*release)(void *context);
	void *context;
};

/* To be called while this process has one thread. Returns in the caller only; *ret_pid is its child, to be waited for. */
int keeper_start(const struct keeper_options *options, pid_t *ret_pid, struct im_error *err);

/* Ends those of a restore (nobody uses its folders any more): they are dead soon. Any process. */
void keeper_end(struct table *t);

#endif
