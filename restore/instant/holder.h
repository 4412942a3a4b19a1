/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who besides imvault keeps an instant restore alive, and who uses a folder already.
 */
#ifndef IM_RESTORE_INSTANT_HOLDER_H
#define IM_RESTORE_INSTANT_HOLDER_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

/* Does this shell command ask an init system to start the service? Then the service inherits nothing from us. */
bool holder_is_handed_over(const char *command);
/* Gives the stash to the service manager that started us, if there is one (sd_pid_notify_with_fds(3), FDSTORE=1). */
void holder_store(int stash);
/* A process that is none of imvault's and has the stash open; 0: none. */
pid_t holder_find(int stash);
/* A process that works in the folder or has something of it open (as far as we may look), 0: none; *ret_name: 16 bytes. Not ourselves. */
pid_t holder_find_user(const char *folder, char *ret_name);

#endif
