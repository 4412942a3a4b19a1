/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata of one entry, from an archive entry to a file: owner, mode, times, and "extras": extended
 * attributes and ACLs (which are attributes to the kernel), flattened to bytes.
 */
#ifndef IM_STORES_FILES_META_H
#define IM_STORES_FILES_META_H

#include "base/bytes.h"

#include <archive.h>
#include <archive_entry.h>
#include <time.h>

struct files_meta {
	uint32_t mode, uid, gid; /* mode: with the type bits */
	bool set_owner; /* only root can */
	struct timespec mtime;
};

/* Owners by name where this machine knows the name, else by number. */
struct archive *files_meta_lookup_new(void);
void files_meta_lookup_free(struct archive *lookup);
void files_meta_of(struct files_meta *ret, struct archive_entry *e, struct archive *lookup);
/* Saturating: a time beyond what 64 bits of nanoseconds hold is cut; *ret_exact says whether it was not. */
int64_t files_meta_ns(const struct timespec *t, bool *ret_exact);

/* Appends the extras; 0 bytes if there are none. */
void files_meta_extras(struct im_buf *ret, struct archive_entry *e, struct archive *lookup);

/* What could not be set because of rights or the file system, but leaves the content whole. */
struct files_meta_refused {
	uint64_t count;
	char first[256]; /* which, and why */
};
/* fd: of the file; or -1 and at "/proc/self/fd/N/NAME" for what cannot be opened, never followed. path: for messages.
 */
void files_meta_set_extras(
    int fd, const char *at, const char *path, const void *extras, size_t len, struct files_meta_refused *refused);
void files_meta_refuse(struct files_meta_refused *refused, const char *path, const char *what, int errno_value);

#endif
