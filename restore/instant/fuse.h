/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder whose files are still being filled, shown through FUSE: for machines that cannot watch
 * parts of files. Every access comes to us, so what it needs is brought before it is answered; all
 * else is passed through to the staged folder, which nobody else may change meanwhile. When the
 * process dies, the view answers ENOTCONN and takes no writes: no page that has not arrived is ever
 * seen as zeros.
 *
 * Its end costs a stop of the service: what is open on the view cannot go on on the ordinary folder.
 * The order is: stop the service, fuse_view_unmount (served all the while, since it may write what
 * was mapped), fuse_view_serve returns, fuse_view_close, rename, start the service.
 *
 * Needs root. See fuse(4), libfuse's low-level interface (3.10 or newer).
 */
#ifndef IM_RESTORE_INSTANT_FUSE_H
#define IM_RESTORE_INSTANT_FUSE_H

#include "restore/instant/hydrate.h"

#define FUSE_VIEW_TYPE "fuse.imvault" /* as /proc/self/mountinfo names it */
#define FUSE_VIEW_FIRST_LANE 20u /* all views of a process share as many of hydrate_lane_new's numbers from here on */
#define FUSE_VIEW_LANES 16u

struct fuse_view; /* one folder shown at a mount point; of one process, which must not fork it away */

struct fuse_view_options {
	const char *staged, *target; /* absolute: the real folder, and an existing one to mount at */
	struct hydrator *hydrator;
	struct table *table;           /* its files' inode numbers are set; borrowed, as the others, until close */
	const struct content *content; /* of the same files: what nobody wrote to shows the time it had */
};

/* Can a view be mounted here at all? Mounts one at folder (any that is there) where nobody sees it. IM_EUSAGE with the reason. */
int fuse_view_probe(const char *folder, struct im_error *err);
/* Mounts it. Whoever looks at target waits until it is served. IM_EUSAGE: this machine has no FUSE, or we may not use it; err says why.
 * A view that is still mounted there, of a process that died, must be unmounted first. */
int fuse_view_open(const struct fuse_view_options *options, struct fuse_view **ret, struct im_error *err);
/* Serves it with threads of its own until it is unmounted or fuse_view_stop was called. In the latter case accesses that wait for the
 * vault are still waited for; others get an error. Once for each view. */
int fuse_view_serve(struct fuse_view *v, struct im_error *err);
/* Any thread, also a signal handler. */
void fuse_view_stop(struct fuse_view *v);
/* After fuse_view_serve returned, or instead of it. If it is still mounted, it answers ENOTCONN from now on and is unmounted unless
 * somebody uses it. The hydrator must live until then. */
void fuse_view_close(struct fuse_view *v);

/* Is a view (living or dead) mounted at target? Asks nobody who may be dead. */
bool fuse_view_is_mounted(const char *target);
/* Unmounts the views at target, living ones and those of dead processes; none is fine. IM_ELOCKED: somebody uses it. lazily: from the
 * names at once, although somebody uses it. Not in a thread that serves it. */
int fuse_view_unmount(const char *target, bool lazily, struct im_error *err);

#endif
