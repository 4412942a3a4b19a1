/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openat2 does the work, again after EAGAIN: the kernel answers that when a rename happened while it
 * resolved, which an attacker can provoke but not profit from. Where openat2 is missing (old kernels,
 * strict sandboxes) the path is walked one component at a time with O_NOFOLLOW, which is slower and
 * just as strict.
 */
#include "base/beneath.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TRIES = 100 };

bool im_beneath_path_valid(const char *path)
{
	if (strlen(path) >= PATH_MAX)
		return false;
	for (const char *p = path;;) {
		size_t n = strcspn(p, "/");
		if (n == 0 || n > NAME_MAX || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		if (!p[n])
			return true;
		p += n + 1;
	}
}

static int open_by_walking(int root_fd, const char *path, int flags, unsigned permissions)
{
	auto_close int at_fd = openat(root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at_fd < 0)
		return -1;
	for (const char *p = path;;) {
		char name[NAME_MAX + 1];
		size_t n = strcspn(p, "/");
		memcpy(name, p, n);
		name[n] = 0;
		if (!p[n])
			return openat(at_fd, name, flags | O_NOFOLLOW, permissions);
		int fd = openat(at_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -1;
		close(at_fd);
		at_fd = fd;
		p += n + 1;
	}
}

int im_beneath_open(int root_fd, const char *path, int flags, unsigned permissions)
{
	struct open_how how = { .flags = (unsigned)flags | O_CLOEXEC, .mode = flags & O_CREAT ? permissions : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS };
	if (strcmp(path, ".") != 0 && !im_beneath_path_valid(path)) {
		errno = EINVAL;
		return -1;
	}
	for (int tries = 0;; tries++) {
		long fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
		if (fd >= 0)
			return (int)fd;
		if (errno == ENOSYS)
			return open_by_walking(root_fd, path, flags | O_CLOEXEC, permissions);
		if (errno != EINTR && (errno != EAGAIN || tries > TRIES))
			return -1;
	}
}
