/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder that is shown under its final name before it is there: the final name is an empty folder
 * that nobody can write into (so that after a reboot a server finds nothing, instead of beginning
 * anew), and the staged folder is mounted over it. In the end the two change places in one step, in
 * a mount namespace of our own where nothing is mounted: every process sees the ordinary folder from
 * then on, whatever it has open stays valid. What was mounted is then found under the staged name,
 * the *alias*: it is the live folder, must never be removed recursively, and goes when nobody uses it
 * any more. See mount(2), renameat2(2), ioctl_iflags(2).
 */
#ifndef IM_RESTORE_INSTANT_COVER_H
#define IM_RESTORE_INSTANT_COVER_H

#include "base/error.h"

#include <stdbool.h>

struct cover {
	char *target; /* absolute path that the service uses */
	char *staged; /* absolute path of the folder that takes its place; same file system, other folder */
};

/* Makes the target (empty, immutable) if it is not there; *ret_loose: it could not be made immutable. IM_EUSAGE if there is something in it. */
int cover_prepare(const struct cover *c, bool *ret_loose, struct im_error *err);
int cover_mount(const struct cover *c, struct im_error *err);
bool cover_is_mounted(const struct cover *c);
/* Is the live folder mounted under the staged name? */
bool cover_has_alias(const struct cover *c);
/* Have the two changed places already? */
bool cover_is_switched(const struct cover *c);
/* Takes the mount away; IM_ELOCKED: somebody uses it. */
int cover_unmount(const struct cover *c, struct im_error *err);
/* Undoes cover_prepare; the target stays as an empty folder. */
int cover_release(const struct cover *c, struct im_error *err);
/* The two change places. May be called again after a kill at any moment. In a process of one thread. */
int cover_switch(const struct cover *c, struct im_error *err);
/* After the switch: takes the alias away if nobody uses it, in any mount namespace. *ret_gone. */
int cover_end_alias(const struct cover *c, bool *ret_gone, struct im_error *err);

#endif
