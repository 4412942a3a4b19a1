/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Final names, by renameat2(RENAME_NOREPLACE): whoever puts something there between our look and
 * our rename keeps it, and the restore fails instead.
 */
#include "restore/place.h"

#include "base/beneath.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

enum { XATTR_LIST_BYTES = 65536, ASIDE_TRIES = 1000 };

typedef int child_fn(void *context, int dir_fd, const char *name, struct im_error *err);

static int each_child(
    int dir_fd, const char *ignore, child_fn *fn, void *context, struct im_error *err)
{
	int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	IM_CLEANUP(im_auto_closedir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir)
		return im_fail_errno(err, IM_EIO, errno, "cannot list a folder of the target");
	for (struct dirent *e; (errno = 0, e = readdir(dir));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    (ignore && !strcmp(e->d_name, ignore)))
			continue;
		int rc = fn(context, dir_fd, e->d_name, err);
		if (rc)
			return rc;
	}
	return errno ? im_fail_errno(err, IM_EIO, errno, "cannot list a folder of the target") : 0;
}

static int stop_at_first(void *context, int dir_fd, const char *name, struct im_error *err)
{
	(void)context, (void)dir_fd, (void)err;
	return strcmp(name, PLACE_LOST_FOUND) != 0; /* that belongs to the file system */
}

int place_look(
    int dir_fd, const char *name, const char *ignore, enum place_state *ret, struct im_error *err)
{
	struct stat st;
	*ret = PLACE_TAKEN;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT)
			return im_fail_errno(
			    err, IM_EIO, errno, "cannot look at %s in the target", name);
		*ret = PLACE_FREE;
		return 0;
	}
	if (S_ISREG(st.st_mode) && st.st_size == 0)
		*ret = PLACE_EMPTY;
	if (!S_ISDIR(st.st_mode))
		return 0;
	auto_close int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot open %s in the target", name);
	int rc = each_child(fd, ignore, stop_at_first, NULL, err);
	if (rc == 0)
		*ret = PLACE_EMPTY;
	return rc < 0 ? rc : 0;
}

bool place_is_mount(int dir_fd, const char *name)
{
	struct statx sx;
	return statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &sx) == 0 &&
	    S_ISDIR(sx.stx_mode) && (sx.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

int place_move_aside(
    int dir_fd, const char *name, const char *stamp, char *ret_name, struct im_error *err)
{
	for (int i = 1; i < ASIDE_TRIES; i++) {
		char tail[64], fresh[NAME_MAX + 1];
		int n = snprintf(tail, sizeof tail,
		    i == 1 ? ".before-restore-%s" : ".before-restore-%s-%d", stamp, i);
		snprintf(fresh, sizeof fresh, "%.*s%s", NAME_MAX - n, name, tail);
		if (renameat2(dir_fd, name, dir_fd, fresh, RENAME_NOREPLACE) == 0) {
			strcpy(ret_name, fresh);
			return 0;
		}
		if (errno != EEXIST)
			return im_fail_errno(
			    err, IM_EIO, errno, "cannot move %s aside to %s", name, fresh);
	}
	return im_fail(err, IM_EIO, "cannot move %s aside: too many older ones", name);
}

bool place_is_stranger(const char *name)
{
	return !strcmp(name, PLACE_LOST_FOUND) || !strncmp(name, "before-restore-", 15);
}

static int move_child(void *context, int dir_fd, const char *name, struct im_error *err)
{
	int to_fd = *(int *)context;
	struct stat st;
	if (!strcmp(name, PLACE_LOST_FOUND) && fstatat(to_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (renameat2(dir_fd, name, to_fd, name, RENAME_NOREPLACE))
		return errno == EEXIST ?
		    im_fail(err, IM_EUSAGE, "%s appeared in the target meanwhile", name) :
		    im_fail_errno(err, IM_EIO, errno, "cannot move %s", name);
	return 0;
}

static int move_aside_child(void *context, int dir_fd, const char *name, struct im_error *err)
{
	/* lost+found, and what earlier restores moved aside, stay where they are */
	if (place_is_stranger(name))
		return 0;
	return move_child(context, dir_fd, name, err);
}

int place_move_children_aside(
    int dir_fd, const char *ignore, const char *stamp, char *ret_name, struct im_error *err)
{
	int made = -1;
	for (int i = 1; i < ASIDE_TRIES && made; i++) {
		snprintf(ret_name, NAME_MAX + 1,
		    i == 1 ? "before-restore-%s" : "before-restore-%s-%d", stamp, i);
		made = mkdirat(dir_fd, ret_name, 0700);
		if (made && errno != EEXIST)
			break;
	}
	if (made)
		return im_fail_errno(err, IM_EIO, errno, "cannot make folder %s", ret_name);
	auto_close int fd = im_beneath_open(dir_fd, ret_name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot open folder %s", ret_name);
	int rc = each_child(dir_fd, ignore, move_aside_child, &fd, err);
	if (rc == 0 && fsync(fd))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot make folder %s durable", ret_name);
	return rc;
}

int place_put(int from_fd, const char *from, int to_fd, const char *to, struct im_error *err)
{
	enum place_state state;
	int rc = place_look(to_fd, to, NULL, &state, err);
	if (rc)
		return rc;
	unsigned flags = state == PLACE_EMPTY ? 0 : RENAME_NOREPLACE;
	if (renameat2(from_fd, from, to_fd, to, flags) == 0)
		return 0;
	if (errno == EEXIST || errno == ENOTEMPTY)
		return im_fail(err, IM_EUSAGE,
		    "%s appeared in the target meanwhile; what was restored is not put over it",
		    to);
	return im_fail_errno(err, IM_EIO, errno, "cannot give %s its final name", to);
}

/* Best effort for attributes: what the file system refuses was warned about when the store set it.
 */
static void copy_attributes(int from_fd, int to_fd)
{
	auto_free char *names = malloc(XATTR_LIST_BYTES), *value = malloc(XATTR_LIST_BYTES);
	ssize_t n = names && value ? flistxattr(from_fd, names, XATTR_LIST_BYTES) : -1;
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(names + at) + 1) {
		ssize_t len = fgetxattr(from_fd, names + at, value, XATTR_LIST_BYTES);
		if (len >= 0)
			fsetxattr(to_fd, names + at, value, (size_t)len, 0);
	}
}

int place_copy_metadata(int from_fd, int to_fd, struct im_error *err)
{
	struct stat st;
	if (fstat(from_fd, &st))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat a folder");
	if (fchown(to_fd, st.st_uid, st.st_gid) && errno != EPERM)
		return im_fail_errno(
		    err, IM_EIO, errno, "cannot set the owner of a restored folder");
	copy_attributes(from_fd, to_fd);
	struct timespec times[2] = { st.st_atim, st.st_mtim };
	if (fchmod(to_fd, st.st_mode & 07777) || futimens(to_fd, times))
		return im_fail_errno(
		    err, IM_EIO, errno, "cannot set the mode of a restored folder");
	return 0;
}

int place_put_children(int from_fd, int to_fd, struct im_error *err)
{
	struct stat st;
	if (fstat(from_fd, &st))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat a restored folder");
	int rc = each_child(from_fd, NULL, move_child, &to_fd, err);
	if (rc)
		return rc;
	struct timespec times[2] = { st.st_atim, st.st_mtim }; /* moving changed them */
	rc = place_copy_metadata(from_fd, to_fd, err);
	if (rc == 0 && futimens(to_fd, times))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot set the time of a restored folder");
	return rc;
}
