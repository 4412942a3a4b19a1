/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts and the exchange.
 */
#include "restore/instant/cover.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/mounts.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int change_immutable(const char *path, bool on)
{
	auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int flags = 0;
	if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags))
		return -1;
	if (!(flags & FS_IMMUTABLE_FL) == !on)
		return 0;
	flags = on ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
	/* the flag goes with the exchange that follows, not before: in between a service could begin anew with nothing */
	return ioctl(fd, FS_IOC_SETFLAGS, &flags) || (on && fsync(fd)) ? -1 : 0;
}

static bool is_empty(const char *path)
{
	auto_closedir DIR *dir = opendir(path);
	for (struct dirent *e; dir && (e = readdir(dir));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			return false;
	return dir != NULL;
}

static int sync_parent(const char *path, struct im_error *err)
{
	const char *slash = strrchr(path, '/');
	auto_free char *parent = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	return parent ? im_fsync_dir(parent, err) : im_fail(err, IM_ENOMEM, "out of memory");
}

int cover_prepare(const struct cover *c, bool *ret_loose, struct im_error *err)
{
	struct stat st;
	bool made = mkdir(c->target, 0755) == 0;
	if (!made && errno != EEXIST)
		return im_fail_errno(err, IM_EIO, errno, "cannot make %s", c->target);
	if (lstat(c->target, &st) || !S_ISDIR(st.st_mode) || !is_empty(c->target))
		return im_fail(err, IM_EUSAGE, "%s is not an empty folder", c->target);
	*ret_loose = change_immutable(c->target, true) != 0;
	return made ? sync_parent(c->target, err) : 0;
}

int cover_release(const struct cover *c, struct im_error *err)
{
	if (change_immutable(c->target, false) && errno != ENOTTY && errno != EOPNOTSUPP && errno != ENOENT)
		return im_fail_errno(err, IM_EIO, errno, "cannot make %s changeable again (chattr -i)", c->target);
	return 0;
}

int cover_mount(const struct cover *c, struct im_error *err)
{
	if (mount(c->staged, c->target, NULL, MS_BIND, NULL) || mount(NULL, c->target, NULL, MS_PRIVATE, NULL))
		return im_fail_errno(err, IM_EUSAGE, errno, "cannot mount %s over %s", c->staged, c->target);
	return 0;
}

/* Is something mounted at exactly this name? */
static bool is_mount(const char *path)
{
	struct statx st;
	return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &st) == 0 &&
	    (st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

bool cover_is_mounted(const struct cover *c)
{
	return is_mount(c->target);
}

bool cover_has_alias(const struct cover *c)
{
	return is_mount(c->staged);
}

bool cover_is_switched(const struct cover *c)
{
	return is_mount(c->staged) || (!is_mount(c->target) && is_empty(c->staged) && !is_empty(c->target));
}

int cover_unmount(const struct cover *c, struct im_error *err)
{
	while (cover_is_mounted(c))
		if (umount2(c->target, UMOUNT_NOFOLLOW)) {
			if (errno == EBUSY)
				return im_fail(err, IM_ELOCKED, "%s is in use: stop the service first (fuser -vm %s tells who)", c->target, c->target);
			return im_fail_errno(err, IM_EIO, errno, "cannot unmount %s", c->target);
		}
	return 0;
}

/* In a child, whose mount namespace is its own. 0 or errno. */
static int exchange(const struct cover *c)
{
	int e = 0;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		e = errno;
	if (!e && is_mount(c->staged)) /* done before: a kill came between the exchange and its report */
		return 0;
	while (!e && is_mount(c->target))
		if (umount2(c->target, MNT_DETACH | UMOUNT_NOFOLLOW))
			e = errno;
	if (!e && !is_empty(c->target)) /* … or a restart of the machine */
		return is_empty(c->staged) ? 0 : ENOTEMPTY;
	if (!e && change_immutable(c->target, false) && errno != ENOTTY && errno != EOPNOTSUPP)
		e = errno;
	if (!e && renameat2(AT_FDCWD, c->staged, AT_FDCWD, c->target, RENAME_EXCHANGE))
		e = errno;
	return e;
}

int cover_switch(const struct cover *c, struct im_error *err)
{
	pid_t pid = fork();
	int status = 0;
	if (pid == 0)
		_exit(exchange(c));
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return im_fail_errno(err, IM_EFAIL, errno, "cannot start a process");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return im_fail_errno(err, IM_EIO, WIFEXITED(status) ? WEXITSTATUS(status) : EINTR,
		    "all files are complete, but %s and %s cannot change places", c->staged, c->target);
	int rc = sync_parent(c->target, err);
	return rc ? rc : sync_parent(c->staged, err);
}

static int is_there(void *path, const struct im_mount *m)
{
	return strcmp(m->place, path) == 0;
}

/* Is anything mounted there for any process we can see? */
static bool is_mounted_anywhere(char *path)
{
	auto_closedir DIR *dir = opendir("/proc");
	bool found = false;
	for (struct dirent *e; !found && dir && (e = readdir(dir));)
		found = isdigit((unsigned char)e->d_name[0]) && im_mounts_each((pid_t)atoi(e->d_name), is_there, path);
	return found;
}

int cover_end_alias(const struct cover *c, bool *ret_gone, struct im_error *err)
{
	*ret_gone = false;
	while (is_mount(c->staged))
		if (umount2(c->staged, UMOUNT_NOFOLLOW))
			return errno == EBUSY ? 0 : im_fail_errno(err, IM_EIO, errno, "cannot unmount %s", c->staged);
	/* removing a folder takes other namespaces' mounts on it away, and with them their processes' working folders */
	if (is_mounted_anywhere(c->staged))
		return 0;
	if (rmdir(c->staged) && errno != ENOENT)
		return errno == EBUSY ? 0 : im_fail_errno(err, IM_EIO, errno, "cannot remove the empty folder %s", c->staged);
	*ret_gone = true;
	return 0;
}
