/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders beneath a folder: stepped through one by one, since missing ones may have to be made and
 * an operator wants to know which one is in the way.
 */
#include "restore/beneath.h"

#include "base/beneath.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REMOVE_MAX_DEPTH = 2000 };

static int open_child(int fd, const char *name, bool follow)
{
	if (follow)
		return openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return im_beneath_open(fd, name, O_RDONLY | O_DIRECTORY, 0);
}

/* One step down; made says whether it had to be created. */
static int step(int fd, const char *name, bool follow, bool create, bool *made)
{
	*made = false;
	int child = open_child(fd, name, follow);
	if (child >= 0 || errno != ENOENT || !create)
		return child;
	if (mkdirat(fd, name, 0755) && errno != EEXIST)
		return -1;
	*made = true;
	if (fsync(fd))
		return -1;
	child = open_child(fd, name, follow);
	if (child >= 0)
		fchmod(child,
		    0755); /* whatever the umask: the way to a service's data must be open to it */
	return child;
}

static int walk(int root_fd, const char *path, bool follow, bool create, bool stop_at_missing,
    int *ret_fd, unsigned *ret_made, struct im_error *err)
{
	auto_close int fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot open the folder for /%s", path);
	unsigned made_count = 0;
	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");
		char name[NAME_MAX + 1];
		if (n == 0 || n > NAME_MAX)
			return im_fail(err, IM_EUSAGE, "/%s is not a path that can be made", path);
		memcpy(name, p, n);
		name[n] = 0;
		bool made;
		int child = step(fd, name, follow, create, &made);
		if (child < 0 && errno == ENOENT && stop_at_missing)
			break;
		if (child < 0 && errno == ENOENT)
			return im_fail(err, IM_ENOTFOUND, "folder /%.*s is not there",
			    (int)(p + n - path), path);
		if (child < 0 && (errno == ELOOP || errno == EXDEV))
			return im_fail(err, IM_EUSAGE,
			    "/%.*s is a symlink below the target and is not followed; remove it or choose another --to",
			    (int)(p + n - path), path);
		if (child < 0)
			return im_fail_errno(err, errno == ENOTDIR ? IM_EUSAGE : IM_EIO, errno,
			    "cannot open folder /%.*s", (int)(p + n - path), path);
		made_count += made;
		close(fd);
		fd = child;
		p += n;
		p += *p == '/';
	}
	*ret_fd = TAKE_FD(fd);
	if (ret_made)
		*ret_made = made_count;
	return 0;
}

int beneath_folder(int root_fd, const char *path, bool follow, bool create, int *ret_fd,
    unsigned *ret_made, struct im_error *err)
{
	return walk(root_fd, path, follow, create, false, ret_fd, ret_made, err);
}

int beneath_deepest(int root_fd, const char *path, bool follow, int *ret_fd, struct im_error *err)
{
	return walk(root_fd, path, follow, false, true, ret_fd, NULL, err);
}

static bool is_mount(int fd)
{
	struct statx st;
	return statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &st) == 0 &&
	    (st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

/* The empty place of an instant restore that was cut off. */
static void make_mutable(int fd)
{
	int flags = 0;
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_IMMUTABLE_FL)) {
		flags &= ~FS_IMMUTABLE_FL;
		ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}

static int remove_tree(
    int dir_fd, const char *name, const char *keep, unsigned depth, struct im_error *err)
{
	if (!keep && unlinkat(dir_fd, name, 0) == 0)
		return 0;
	if (!keep && errno == ENOENT)
		return 0;
	if (!keep && errno != EISDIR && errno != EPERM)
		return im_fail_errno(err, IM_EIO, errno, "cannot remove %s", name);
	if (depth > REMOVE_MAX_DEPTH)
		return im_fail(err, IM_EIO, "cannot remove %s: nested too deeply", name);
	int fd = im_beneath_open(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return errno == ENOENT ?
		    0 :
		    im_fail_errno(err, IM_EIO, errno, "cannot remove %s", name);
	if (is_mount(fd)) { /* what lies there is not part of the folder, and may be in use */
		close(fd);
		return im_fail(err, IM_EUSAGE, "cannot remove %s: something is mounted there", name);
	}
	make_mutable(fd);
	fchmod(fd, 0700);
	IM_CLEANUP(im_auto_closedir) DIR *dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return im_fail_errno(err, IM_EIO, errno, "cannot list %s", name);
	}
	for (struct dirent *e; (errno = 0, e = readdir(dir));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    (keep && !strcmp(e->d_name, keep)))
			continue;
		int rc = remove_tree(fd, e->d_name, NULL, depth + 1, err);
		if (rc)
			return rc;
	}
	if (errno)
		return im_fail_errno(err, IM_EIO, errno, "cannot list %s", name);
	if (!keep && unlinkat(dir_fd, name, AT_REMOVEDIR) && errno != ENOENT)
		return im_fail_errno(err, IM_EIO, errno, "cannot remove folder %s", name);
	return 0;
}

int beneath_remove(int dir_fd, const char *name, const char *keep, struct im_error *err)
{
	return remove_tree(dir_fd, name, keep, 0, err);
}
