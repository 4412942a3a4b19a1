/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files: whole reads and writes that retry on EINTR, and the one durable write of the project:
 * temporary in the same folder, write, fsync, checked close, rename, fsync of the folder.
 * A failed fsync is final for that file and never retried.
 */
#ifndef IM_BASE_FILE_H
#define IM_BASE_FILE_H

#include "base/bytes.h"
#include "base/error.h"

#include <sys/types.h>

/* Reads up to len bytes at offset; short only at end of file. Returns bytes read or a negative code. */
ssize_t im_pread_full(int fd, void *ret, size_t len, uint64_t offset, struct im_error *err, const char *what);
int im_pwrite_full(int fd, const void *data, size_t len, uint64_t offset, struct im_error *err, const char *what);
int im_write_full(int fd, const void *data, size_t len, struct im_error *err, const char *what);

/* Whole content of a regular file of at most limit bytes. IM_ENOTFOUND if it is not there. */
int im_file_read(const char *path, size_t limit_bytes, struct im_buf *ret, struct im_error *err);

enum im_file_mode { IM_FILE_NEW, IM_FILE_REPLACE };
/* Durable whole-file write. IM_FILE_NEW fails with IM_EUSAGE if path exists. */
int im_file_write(const char *path, const void *data, size_t len, unsigned permissions,
    enum im_file_mode mode, struct im_error *err);

int im_fsync_dir(const char *path, struct im_error *err);
/* mkdir -p, each new folder made durable in its parent. */
int im_mkdirs(const char *path, unsigned permissions, struct im_error *err);

/* Allocated "a/b"; NULL when out of memory. asprintf for the rest. */
char *im_path_join(const char *a, const char *b);
char *im_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
