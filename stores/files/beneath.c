/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openat2 does the work; where it is missing (old kernels, strict sandboxes) the path is walked
 * one component at a time with O_NOFOLLOW, which is slower and just as strict.
 */
#include "stores/files/beneath.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

bool files_path_valid(const char *path)
{
	if (!strcmp(path, "."))
		return true;
	if (strlen(path) > FILES_PATH_MAX_BYTES)
		return false;
	for (const char *at = path;;) {
		size_t len = strcspn(at, "/");
		if (!len || (len == 1 && at[0] == '.') || (len == 2 && at[0] == '.' && at[1] == '.'))
			return false;
		if (!at[len])
			return true;
		at += len + 1;
	}
}

static int open_by_walking(int root_fd, const char *path, int flags)
{
	auto_close int at_fd = openat(root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at_fd < 0)
		return -errno;
	for (const char *at = path;;) {
		char name[256];
		size_t len = strcspn(at, "/");
		if (len >= sizeof name)
			return -ENAMETOOLONG;
		memcpy(name, at, len);
		name[len] = 0;
		bool last = !at[len];
		int fd = openat(at_fd, name, last ? flags : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (last)
			return fd;
		close(at_fd);
		at_fd = fd;
		at += len + 1;
	}
}

int files_beneath_open(int root_fd, const char *path, int flags)
{
	struct open_how how = { .flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	if (!files_path_valid(path))
		return -EINVAL;
	for (int tries = 0; tries < 8; tries++) {
		long fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
		if (fd >= 0)
			return (int)fd;
		if (errno == ENOSYS)
			return open_by_walking(root_fd, path, (int)how.flags);
		if (errno != EAGAIN && errno != EINTR) /* EAGAIN: a rename ran beside the lookup */
			return -errno;
	}
	return -EAGAIN;
}

int files_parent_open(struct files_parent *p, int root_fd, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 1;
	const char *folder = slash ? path : ".";
	if (p->fd < 0 || strncmp(p->folder, folder, len) != 0 || p->folder[len]) {
		files_parent_close(p);
		auto_free char *copy = strndup(folder, len);
		if (!copy)
			return -ENOMEM;
		int fd = files_beneath_open(root_fd, copy, O_PATH | O_DIRECTORY);
		if (fd < 0)
			return fd;
		p->fd = fd;
		p->folder = TAKE_PTR(copy);
	}
	*ret_name = slash ? slash + 1 : path;
	return p->fd;
}

void files_parent_close(struct files_parent *p)
{
	if (p->fd >= 0)
		close(p->fd);
	free(p->folder);
	p->fd = -1;
	p->folder = NULL;
}
