/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file whose content is still arriving: made at its full size with nothing in it, filled block by
 * block, and in the end an ordinary file.
 *
 * What survives a crash is in the file itself: a page that holds nothing but zeros has not arrived,
 * any other has (or was written by the server). Holes do not tell: a page that is dirtied takes its
 * whole folio along, and readahead makes folios of many pages of zeros (seen on ext4 and XFS). So
 * zeros that a server wrote itself where the snapshot has something come back as that. Two attributes say that it is such a file, and the smallest size it
 * ever had: what lies beyond is the server's, holes included.
 *
 * Filling goes through a shared mapping, and the bytes are copied by the kernel (process_vm_readv to
 * ourselves): a file that the server makes shorter at that moment is not made longer again, which a
 * write would do, and the copy ends early instead of killing us.
 *
 * As long as it is incomplete it has one more name, in the stage: when an inode loses its last name,
 * the kernel may forget that it is watched although somebody has it open. By that name a later
 * command finds it, wherever the server has moved it.
 */
#ifndef IM_RESTORE_INSTANT_LAZY_H
#define IM_RESTORE_INSTANT_LAZY_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LAZY_ATTRIBUTE "trusted.imvault.lazy"  /* "1 SIZE INODE PATH": the original path, without its leading slash */
#define LAZY_LIMIT "trusted.imvault.limit"     /* decimal bytes */

#define LAZY_FOLDER "lazy" /* of the stage, beside root: names are numbers */

/* Makes root/path at its size, empty, with number as its name in the stage. *ret_fd is open for reading and writing. */
int lazy_make(int root_fd, const char *path, uint32_t number, uint64_t size, int *ret_fd, struct im_error *err);
/* Takes that name away; the file may be gone with it. */
int lazy_forget(int root_fd, uint32_t number, struct im_error *err);
/* Calls fn with each of them, open for reading and writing: fd is fn's. Not 0 ends it and is returned. */
int lazy_each(int root_fd, int (*fn)(void *context, int fd, uint32_t number, struct im_error *err), void *context, struct im_error *err);
/* The two attributes of a file that is restored; path: allocated, the caller's. *ret_limit: size if there is none. IM_ENOTFOUND: it is
 * no such file, or a copy of one that took the attributes along. */
int lazy_read(int fd, char **ret_path, uint64_t *ret_size, uint64_t *ret_limit, struct im_error *err);
/* Durable when it returns. */
int lazy_lower_limit(int fd, uint64_t limit, struct im_error *err);
/* The file is whole: first durable, then without attributes. */
int lazy_sync(int fd, struct im_error *err);
int lazy_unmark(int fd, struct im_error *err);

/* A mapping of all of it; NULL for an empty file. */
int lazy_map(int fd, uint64_t size, uint8_t **ret, struct im_error *err);
void lazy_unmap(uint8_t *map, uint64_t size);
/* data to [offset, offset + len). empty_only (offset of a whole page): only to pages that hold nothing yet. Returns the bytes that could be
 * copied: fewer when the file ends before, or there is no room. -1: it cannot be read. */
ssize_t lazy_fill(int fd, uint8_t *map, uint64_t offset, const uint8_t *data, size_t len, bool empty_only);
/* Does any page of the range hold nothing? */
bool lazy_lacks(int fd, uint64_t offset, size_t len);

#endif
