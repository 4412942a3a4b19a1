/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a drill runs: a scratch folder and a process tree of its own, so that whatever ends it (its
 * end, a signal, kill -9 of any of its processes), no process, mount or file of it is left.
 */
#ifndef IM_VERIFY_ENCLOSURE_H
#define IM_VERIFY_ENCLOSURE_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

/* Runs within it: folder is the scratch folder (0700, empty). Its answer goes back to the caller; standard output and error are the caller's. */
typedef json_t *enclosure_fn(void *context, const char *folder);

/*
 * Makes the folder below scratch (an existing one), runs fn in a child process and takes all away. As root the child has PID and mount
 * namespaces of its own. The calling process must have no threads. Signals that interrupt the caller are handed on to fn.
 * keep: the folder stays; *ret_folder (malloc'ed) names it, else it is NULL. What killed drills left below scratch is removed first.
 * *ret: fn's answer, owned by the caller. IM_EFAIL if the child died.
 */
int enclosure_run(const char *scratch, bool keep, enclosure_fn *fn, void *context, json_t **ret, char **ret_folder, struct im_error *err);

#endif
