/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage folders. The marker proves that a folder of that name is ours to empty: it is written
 * before anything else is put there and removed after everything else is gone, so that a run
 * killed at any point leaves a folder the next run recognises.
 */
#include "restore/stage.h"

#include "base/beneath.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "restore/beneath.h"
#include "restore/target.h"
#include "vault/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static const char marker_name[] = "marker";
static const char marker_text[] =
    "imvault restore in progress; safe to remove when no restore runs\n";

static int open_locked(struct stage *s, const char *where, struct im_error *err)
{
	for (int tries = 0; tries < 10; tries++) {
		if (mkdirat(s->parent_fd, s->name, 0700) && errno != EEXIST)
			return im_fail_errno(
			    err, IM_EIO, errno, "cannot make %s in %s", s->name, where);
		auto_close int fd = im_beneath_open(
		    s->parent_fd, s->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return im_fail_errno(
			    err, IM_EIO, errno, "cannot open %s in %s", s->name, where);
		if (flock(fd, LOCK_EX | LOCK_NB))
			return im_fail(err, IM_ELOCKED,
			    "another restore is writing into %s (%s is locked)", where, s->name);
		struct stat a, b;
		if (fstat(fd, &a) == 0 &&
		    fstatat(s->parent_fd, s->name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
		    a.st_ino == b.st_ino && a.st_dev == b.st_dev) {
			s->fd = TAKE_FD(fd);
			return 0;
		}
	}
	return im_fail(
	    err, IM_EIO, "%s in %s is removed again and again by somebody else", s->name, where);
}

static int is_empty(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	IM_CLEANUP(im_auto_closedir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir)
		return -1;
	for (struct dirent *e; (e = readdir(dir));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			return 0;
	return 1;
}

static int write_marker(struct stage *s, struct im_error *err)
{
	auto_close int fd = openat(
	    s->fd, marker_name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot write into %s", s->name);
	return im_write_full(fd, marker_text, sizeof marker_text - 1, err, s->name);
}

static bool has_marker(const struct stage *s)
{
	struct stat st;
	return fstatat(s->fd, marker_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/*
 * Where everything is made. ext4 puts files near their folder and passes over inodes that were freed there in the last minutes one
 * by one (fs/ext4/ialloc.c, recently_deleted), so that a restore in place of many files that were just removed took four times as
 * long. Below a folder marked as the top of a hierarchy it spreads new folders by the hash of their names. Elsewhere the mark means
 * nothing or is refused.
 */
static int make_root(const struct stage *s)
{
	int flags = 0;
	uint64_t number;
	char apart[24];
	if (ioctl(s->fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_TOPDIR_FL;
		ioctl(s->fd, FS_IOC_SETFLAGS, &flags);
	}
	crypto_random(&number, sizeof number);
	snprintf(apart, sizeof apart, "%016" PRIx64, number);
	return mkdirat(s->fd, apart, 0700) || renameat(s->fd, apart, s->fd, "root");
}

int stage_open(
    struct stage *s, int parent_fd, const char *name, const char *where, struct im_error *err)
{
	*s = (struct stage){ .parent_fd = parent_fd, .fd = -1, .root_fd = -1 };
	snprintf(s->name, sizeof s->name, "%s", name);
	int rc = open_locked(s, where, err);
	if (rc)
		return rc;
	if (!has_marker(s) && is_empty(s->fd) != 1)
		rc = im_fail(err, IM_EUSAGE, "%s in %s is not a leftover of imvault; move it away",
		    s->name, where);
	if (rc == 0)
		rc = write_marker(s, err);
	if (rc == 0)
		rc = beneath_remove(s->parent_fd, s->name, marker_name, err);
	if (rc == 0 && (fchmod(s->fd, 0700) || make_root(s)))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot make %s/root in %s", s->name, where);
	if (rc == 0 && (s->root_fd = im_beneath_open(s->fd, "root", O_RDONLY | O_DIRECTORY, 0)) < 0)
		rc = im_fail_errno(err, IM_EIO, errno, "cannot open %s/root in %s", s->name, where);
	if (rc)
		stage_close(s);
	return rc;
}

int stage_open_again(struct stage *s, int parent_fd, const char *name, struct im_error *err)
{
	*s = (struct stage){ .parent_fd = parent_fd, .fd = -1, .root_fd = -1 };
	snprintf(s->name, sizeof s->name, "%s", name);
	s->fd = im_beneath_open(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	int rc = s->fd < 0 ? im_fail_errno(err, errno == ENOENT ? IM_ENOTFOUND : IM_EIO, errno, "cannot open %s", name) : 0;
	if (rc == 0 && flock(s->fd, LOCK_EX | LOCK_NB))
		rc = im_fail(err, IM_ELOCKED, "another imvault works on %s", name);
	if (rc == 0 && (s->root_fd = im_beneath_open(s->fd, "root", O_RDONLY | O_DIRECTORY, 0)) < 0)
		rc = im_fail_errno(err, IM_EIO, errno, "cannot open %s/root", name);
	if (rc)
		stage_close(s);
	return rc;
}

void stage_close(struct stage *s)
{
	if (s->root_fd >= 0)
		close(s->root_fd);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = s->root_fd = -1;
}

int stage_remove(struct stage *s, struct im_error *err)
{
	if (s->fd < 0)
		return 0;
	int rc = beneath_remove(s->parent_fd, s->name, marker_name, err);
	if (rc == 0)
		rc = beneath_remove(s->parent_fd, s->name, NULL, err);
	stage_close(s);
	return rc;
}
