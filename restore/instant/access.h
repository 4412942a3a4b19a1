/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an access to an incomplete file comes to, however we learn of it (fanotify or FUSE): which file,
 * whether its range is there, what is noted of it, what comes next.
 */
#ifndef IM_RESTORE_INSTANT_ACCESS_H
#define IM_RESTORE_INSTANT_ACCESS_H

#include "restore/instant/hydrate.h"

#include <sys/stat.h>

#define ACCESS_NO_FILE UINT32_MAX

struct access_index { /* files by device and inode; does not change */
	uint32_t *slots; /* open addressing */
	size_t count;    /* a power of two */
};

int access_index_new(const struct table *t, struct access_index *ret, struct im_error *err);
void access_index_clear(struct access_index *x);
/* ACCESS_NO_FILE: none of the table's. */
uint32_t access_find(const struct access_index *x, const struct table *t, const struct stat *st);

/* Is all of [offset, end) there? */
bool access_is_there(const struct table *t, uint32_t file, uint64_t offset, uint64_t end);
/* For the next start of the service: nothing once it is ready. */
void access_trace(struct table *t, uint32_t file, uint64_t offset, uint64_t end);
/* One access was answered, which began at since_us (monotonic). */
void access_count(struct table *t, int64_t since_us);
/* Brings what comes next if the access went on from the one before it in this file, gaps included. *last: the file's, 0 at first. */
void access_look_ahead(struct hydrator *h, struct hydrate_lane *l, const struct table *t, uint32_t file, uint64_t offset, uint64_t end,
    _Atomic uint32_t *last);

#endif
