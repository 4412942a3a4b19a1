/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are filled later.
 */
#include "restore/instant/lazy.h"

#include "base/beneath.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "restore/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PAGE 4096u

static char *stage_path(uint32_t number)
{
	return im_format("../" LAZY_FOLDER "/%" PRIu32, number);
}

static int give_name(int root_fd, int parent, const char *name, uint32_t number, struct im_error *err)
{
	auto_free char *hidden = stage_path(number);
	if (!hidden)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (linkat(parent, name, root_fd, hidden, 0) == 0)
		return 0;
	if (errno == ENOENT && mkdirat(root_fd, "../" LAZY_FOLDER, 0700) == 0 && linkat(parent, name, root_fd, hidden, 0) == 0)
		return 0;
	return im_fail_errno(err, IM_EUSAGE, errno, "cannot give an incomplete file a second name");
}

int lazy_forget(int root_fd, uint32_t number, struct im_error *err)
{
	auto_free char *hidden = stage_path(number);
	if (!hidden)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (unlinkat(root_fd, hidden, 0) && errno != ENOENT)
		return im_fail_errno(err, IM_EIO, errno, "cannot remove the second name of a complete file");
	return 0;
}

int lazy_each(int root_fd, int (*fn)(void *context, int fd, uint32_t number, struct im_error *err), void *context, struct im_error *err)
{
	int copy = openat(root_fd, "../" LAZY_FOLDER, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (copy < 0 && errno == ENOENT)
		return 0;
	auto_closedir DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir)
		return im_fail_errno(err, IM_EIO, errno, "cannot list the incomplete files");
	int rc = 0;
	for (struct dirent *e; rc == 0 && (e = readdir(dir));) {
		char *end;
		unsigned long number = strtoul(e->d_name, &end, 10);
		if (e->d_name[0] < '0' || e->d_name[0] > '9' || *end || number > UINT32_MAX)
			continue;
		int fd = openat(dirfd(dir), e->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		rc = fd < 0 ? im_fail_errno(err, IM_EIO, errno, "cannot open incomplete file %lu", number) : fn(context, fd, (uint32_t)number, err);
	}
	return rc;
}

int lazy_make(int root_fd, const char *path, uint32_t number, uint64_t size, int *ret_fd, struct im_error *err)
{
	const char *slash = strrchr(path, '/');
	auto_free char *folder = strndup(path, slash ? (size_t)(slash - path) : 0);
	auto_close int parent = -1, fd = -1;
	struct stat st;
	if (!folder)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = beneath_folder(root_fd, folder, false, true, &parent, NULL, err);
	if (rc)
		return rc;
	fd = openat(parent, slash ? slash + 1 : path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size) || fstat(fd, &st))
		return im_fail_errno(err, errno == ENOSPC ? IM_ENOSPACE : IM_EIO, errno, "cannot make /%s", path);
	auto_free char *text = im_format("1 %" PRIu64 " %" PRIu64 " %s", size, (uint64_t)st.st_ino, path);
	if (!text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (fsetxattr(fd, LAZY_ATTRIBUTE, text, strlen(text), 0))
		return im_fail_errno(err, IM_EUSAGE, errno, "cannot mark /%s as incomplete: its file system must keep trusted attributes", path);
	rc = give_name(root_fd, parent, slash ? slash + 1 : path, number, err);
	*ret_fd = rc ? -1 : TAKE_FD(fd);
	return rc;
}

static bool parse_number(const char *text, char **end, uint64_t *ret)
{
	errno = 0;
	*ret = strtoull(text, end, 10);
	return *text >= '0' && *text <= '9' && errno == 0 && *ret <= INT64_MAX;
}

int lazy_read(int fd, char **ret_path, uint64_t *ret_size, uint64_t *ret_limit, struct im_error *err)
{
	auto_free char *text = calloc(1, PATH_MAX + 64);
	char limit[32] = "", *end;
	uint64_t inode;
	struct stat st;
	if (!text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	ssize_t n = fgetxattr(fd, LAZY_ATTRIBUTE, text, PATH_MAX + 63);
	if (n < 0 && (errno == ENODATA || errno == EOPNOTSUPP))
		return im_fail(err, IM_ENOTFOUND, "no file of an instant restore");
	if (n < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot read the attributes of a file");
	if (strncmp(text, "1 ", 2) != 0 || !parse_number(text + 2, &end, ret_size) || *end != ' ' || !parse_number(end + 1, &end, &inode) ||
	    *end != ' ' || !im_beneath_path_valid(end + 1))
		return im_fail(err, IM_ECORRUPT, "the attribute %s of a file makes no sense", LAZY_ATTRIBUTE);
	if (fstat(fd, &st) || st.st_ino != inode)
		return im_fail(err, IM_ENOTFOUND, "a copy of a file of an instant restore");
	char *path = strdup(end + 1);
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	*ret_limit = *ret_size;
	n = fgetxattr(fd, LAZY_LIMIT, limit, sizeof limit - 1);
	if (n >= 0 && (!parse_number(limit, &end, ret_limit) || *end || *ret_limit > *ret_size)) {
		free(path);
		return im_fail(err, IM_ECORRUPT, "the attribute %s of a file makes no sense", LAZY_LIMIT);
	}
	*ret_path = path;
	return 0;
}

int lazy_lower_limit(int fd, uint64_t limit, struct im_error *err)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%" PRIu64, limit);
	if (fsetxattr(fd, LAZY_LIMIT, text, (size_t)n, 0) || fsync(fd))
		return im_fail_errno(err, IM_EIO, errno, "cannot note that a file was made shorter");
	return 0;
}

static int drop(int fd, const char *name, struct im_error *err)
{
	if (fremovexattr(fd, name) && errno != ENODATA)
		return im_fail_errno(err, IM_EIO, errno, "cannot take the mark off a complete file");
	return 0;
}

int lazy_sync(int fd, struct im_error *err)
{
	if (fdatasync(fd))
		return im_fail_errno(err, errno == ENOSPC ? IM_ENOSPACE : IM_EIO, errno, "cannot make a complete file durable");
	return 0;
}

int lazy_unmark(int fd, struct im_error *err)
{
	/* in this order: without its limit, what the server cut off would count as not arrived */
	int rc = drop(fd, LAZY_ATTRIBUTE, err);
	return rc ? rc : drop(fd, LAZY_LIMIT, err);
}

int lazy_map(int fd, uint64_t size, uint8_t **ret, struct im_error *err)
{
	*ret = NULL;
	if (!size)
		return 0;
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return im_fail_errno(err, IM_EIO, errno, "cannot map a file of %" PRIu64 " bytes", size);
	*ret = map;
	return 0;
}

void lazy_unmap(uint8_t *map, uint64_t size)
{
	if (map)
		munmap(map, size);
}

static ssize_t copy(uint8_t *to, const uint8_t *from, size_t len)
{
	struct iovec local = { .iov_base = to, .iov_len = len }, remote = { .iov_base = (void *)from, .iov_len = len };
	size_t done = 0;
	while (done < len) {
		local = (struct iovec){ to + done, len - done };
		remote = (struct iovec){ (void *)(from + done), len - done };
		ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* The first page from *from on that holds nothing, and the pages after it that do not either; false: none. now: what is there. */
static bool next_empty(const uint8_t *now, size_t len, size_t *from, size_t *to)
{
	for (size_t at = *from; at < len; at += PAGE) {
		size_t n = len - at < PAGE ? len - at : PAGE;
		if (!is_zero(now + at, n))
			continue;
		*from = at;
		for (*to = at + n; *to < len && is_zero(now + *to, len - *to < PAGE ? len - *to : PAGE);)
			*to += len - *to < PAGE ? len - *to : PAGE;
		return true;
	}
	return false;
}

/* What is there now; what lies behind the end is not zeros but nothing. NULL: cannot be read. */
static uint8_t *read_now(int fd, uint64_t offset, size_t len)
{
	uint8_t *now = malloc(len ? len : 1);
	ssize_t n = now ? im_pread_full(fd, now, len, offset, NULL, "an incomplete file") : -1;
	if (n < 0) {
		free(now);
		return NULL;
	}
	memset(now + n, 1, len - (size_t)n);
	return now;
}

bool lazy_lacks(int fd, uint64_t offset, size_t len)
{
	auto_free uint8_t *now = read_now(fd, offset, len);
	size_t from = 0, to;
	return !now || next_empty(now, len, &from, &to);
}

/* Our page table entries go again at once: writing back pages that are mapped costs a TLB flush each (measured: a third of all). */
static ssize_t copy_and_let_go(uint8_t *map, uint64_t offset, const uint8_t *data, size_t len)
{
	ssize_t n = copy(map + offset, data, len);
	uint64_t from = offset / PAGE * PAGE;
	madvise(map + from, (size_t)(offset + len - from), MADV_DONTNEED);
	return n;
}

ssize_t lazy_fill(int fd, uint8_t *map, uint64_t offset, const uint8_t *data, size_t len, bool empty_only)
{
	if (!empty_only)
		return copy_and_let_go(map, offset, data, len);
	auto_free uint8_t *now = read_now(fd, offset, len);
	if (!now)
		return -1;
	for (size_t from = 0, to; next_empty(now, len, &from, &to); from = to)
		if (copy_and_let_go(map, offset + from, data + from, to - from) != (ssize_t)(to - from))
			return (ssize_t)from;
	return (ssize_t)len;
}
