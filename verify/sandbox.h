/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a drill's service runs: a network namespace with nothing but loopback, and a view of the
 * machine in which everything may be written and nothing of it lasts, with the restored stores at
 * their original paths. Linux namespaces and overlayfs; needs root.
 */
#ifndef IM_VERIFY_SANDBOX_H
#define IM_VERIFY_SANDBOX_H

#include "base/error.h"

#include <stddef.h>

#define SANDBOX_COMMAND "drill-service" /* of imvault itself, run by the drill */

/* The command that a restore below folder/root is to run as its service: it enters the sandbox and becomes command. paths: original
 * absolute paths of the stores, NULL-terminated; they are noted in the folder. *ret: malloc'ed. */
int sandbox_command(const char *folder, const char *const *paths, const char *command, char **ret, struct im_error *err);
/* What SANDBOX_COMMAND does: enters the sandbox that the environment names and executes the command. Returns only on failure. */
int sandbox_enter(struct im_error *err);

#endif
