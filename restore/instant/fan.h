/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fanotify permission events on files whose content is still to come: an access to a marked file
 * waits until it is answered. Two kinds: FAN_BLOCKS asks for the very range that is read, written
 * or mapped (FAN_PRE_ACCESS, Linux 6.14 and newer on ext4, XFS and btrfs), FAN_FILES asks when a
 * file is opened (FAN_OPEN_PERM, any Linux). The mark is on the inode: it holds under every name,
 * mount and namespace. When the last descriptor of a group is closed, waiting accesses are ALLOWED
 * and later ones see holes as zeros; so somebody must always hold it.
 *
 * See fanotify(7), fanotify_init(2), fanotify_mark(2); the range record is in linux/fanotify.h
 * since 6.14.
 */
#ifndef IM_RESTORE_INSTANT_FAN_H
#define IM_RESTORE_INSTANT_FAN_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum fan_kind { FAN_BLOCKS, FAN_FILES };

#define FAN_SLOT_BYTES 128 /* one event as the kernel writes it */

struct fan_event {
	int fd;     /* of the file, to be closed after the answer */
	pid_t pid;  /* who waits */
	uint64_t offset, count; /* count 0: to the end; always so with FAN_FILES */
};

/* A group: blocking reads, no limits. IM_EUSAGE: the kernel or our rights do not allow it; err says what to do. */
int fan_open(enum fan_kind kind, int *ret_group, struct im_error *err);
/* fd: of the file, any; it is not kept. A descriptor opened before the mark never raises events. */
int fan_mark(int group, enum fan_kind kind, int fd, struct im_error *err);
/* One that is not watched (any more) is fine. */
int fan_unmark(int group, enum fan_kind kind, int fd, struct im_error *err);
/* Waits for one event and takes no second one with it. The kernel writes it into slot: if that is shared memory, it is known to others
 * from then on. 1: *ret is there; 0: nothing to be answered came (again). */
int fan_read(int group, enum fan_kind kind, void *slot, struct fan_event *ret, struct im_error *err);
/* What a slot holds; false: nothing. */
bool fan_decode(const void *slot, struct fan_event *ret);
/* errno_value 0: go on; else the access fails with it (EIO, ENOSPC, EDQUOT; others become EIO). An event nobody waits for any
 * more is fine. */
int fan_answer(int group, int event_fd, int errno_value);
/* Tries in folder whether events of this kind come, with the right ranges, for reads, writes and maps, and that a descriptor
 * opened before raises none: some kernels report wrong offsets for maps. IM_EUSAGE with the reason. Leaves nothing behind. */
int fan_probe(enum fan_kind kind, int folder_fd, struct im_error *err);

#endif
