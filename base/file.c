/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole reads and writes, and the durable write. A crash in im_file_write leaves the old file (or
 * none) and at most a ".tmp-" file beside it, never half a file under the final name.
 */
#include "base/file.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t im_pread_full(int fd, void *ret, size_t len, uint64_t offset, struct im_error *err, const char *what)
{
	size_t done = 0;
	while (done < len) {
		ssize_t n = pread(fd, (char *)ret + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return im_fail_errno(err, IM_EIO, errno, "cannot read %s", what);
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int im_pwrite_full(int fd, const void *data, size_t len, uint64_t offset, struct im_error *err, const char *what)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)data + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return im_fail_errno(err, IM_EIO, errno, "cannot write %s", what);
		done += (size_t)n;
	}
	return 0;
}

int im_write_full(int fd, const void *data, size_t len, struct im_error *err, const char *what)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)data + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return im_fail_errno(err, IM_EIO, errno, "cannot write %s", what);
		done += (size_t)n;
	}
	return 0;
}

int im_file_read(const char *path, size_t limit_bytes, struct im_buf *ret, struct im_error *err)
{
	auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, errno == ENOENT || errno == ENOTDIR ? IM_ENOTFOUND : IM_EIO, errno,
		    "cannot open %s", path);
	struct stat st;
	if (fstat(fd, &st))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat %s", path);
	if (!S_ISREG(st.st_mode))
		return im_fail(err, IM_EUSAGE, "%s is not a regular file", path);
	if ((uint64_t)st.st_size > limit_bytes)
		return im_fail(err, IM_ECORRUPT, "%s is larger than the %zu bytes it may have", path, limit_bytes);
	size_t start = ret->len;
	uint8_t *p = im_buf_grow(ret, (size_t)st.st_size);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory reading %s", path);
	ssize_t n = im_pread_full(fd, p, (size_t)st.st_size, 0, err, path);
	if (n < 0)
		return (int)n;
	ret->len = start + (size_t)n;
	return 0;
}

int im_fsync_dir(const char *path, struct im_error *err)
{
	auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		return im_fail_errno(err, IM_EIO, errno, "cannot make folder %s durable", path);
	return 0;
}

static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

int im_mkdirs(const char *path, unsigned permissions, struct im_error *err)
{
	if (mkdir(path, permissions) == 0) {
		auto_free char *parent = parent_of(path);
		return parent ? im_fsync_dir(parent, err) : im_fail(err, IM_ENOMEM, "out of memory");
	}
	if (errno == EEXIST) {
		struct stat st;
		if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
			return 0;
		return im_fail(err, IM_EIO, "%s exists and is not a folder", path);
	}
	if (errno != ENOENT)
		return im_fail_errno(err, IM_EIO, errno, "cannot make folder %s", path);
	auto_free char *parent = parent_of(path);
	if (!parent)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = im_mkdirs(parent, permissions, err);
	if (rc)
		return rc;
	if (mkdir(path, permissions) && errno != EEXIST)
		return im_fail_errno(err, IM_EIO, errno, "cannot make folder %s", path);
	return im_fsync_dir(parent, err);
}

static int write_temporary(int fd, const void *data, size_t len, struct im_error *err, const char *path)
{
	int rc = im_write_full(fd, data, len, err, path);
	if (rc == 0 && fsync(fd))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot make %s durable", path);
	if (close(fd) && rc == 0)
		rc = im_fail_errno(err, IM_EIO, errno, "cannot close %s", path);
	return rc;
}

int im_file_write(const char *path, const void *data, size_t len, unsigned permissions,
    enum im_file_mode mode, struct im_error *err)
{
	auto_free char *parent = parent_of(path);
	auto_free char *temporary = parent ? im_format("%s/.tmp-XXXXXX", parent) : NULL;
	if (!temporary)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot create a file in %s", parent);
	fchmod(fd, permissions);
	int rc = write_temporary(fd, data, len, err, path);
	if (rc == 0 && renameat2(AT_FDCWD, temporary, AT_FDCWD, path, mode == IM_FILE_NEW ? RENAME_NOREPLACE : 0))
		rc = errno == EEXIST ? im_fail(err, IM_EUSAGE, "%s exists already and is never overwritten; move it away or choose another name", path) :
		                       im_fail_errno(err, IM_EIO, errno, "cannot rename to %s", path);
	if (rc) {
		unlink(temporary);
		return rc;
	}
	return im_fsync_dir(parent, err);
}

char *im_path_join(const char *a, const char *b)
{
	size_t n = strlen(a);
	return im_format("%s%s%s", a, n && a[n - 1] == '/' ? "" : "/", b);
}

char *im_format(const char *format, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, format);
	int n = vasprintf(&text, format, ap);
	va_end(ap);
	return n < 0 ? NULL : text;
}
