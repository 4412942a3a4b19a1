/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backup's side of the follower's control socket: asks the running follower of this node to
 * make the images of a snapshot stand at points of the log.
 */
#ifndef IM_BACKUP_ANCHOR_H
#define IM_BACKUP_ANCHOR_H

#include "stores/store.h"

struct anchor; /* a connection to the follower; one thread. NULL everywhere: nobody follows */

/* folder: backup_state_folder. NULL if nobody follows this node (or cannot be asked). */
struct anchor *anchor_connect(const char *folder, const char *node);
/* What stores are given while they take a snapshot; borrowed. NULL for NULL. */
struct snapshot_anchor *anchor_hooks(struct anchor *a);
/* The image of store is read: checksum (hex) of the database in it, NULL if its kind has none. *ret_joined: `joined` of the snapshot's log.
 * IM_EDIFFERENT: the log does not lead to this image; the follower begins a new epoch. */
int anchor_image(struct anchor *a, const char *store, const char *checksum_hex, bool *ret_joined, struct im_error *err);
/* Whatever is frozen is let go. */
void anchor_close(struct anchor *a);

#endif
