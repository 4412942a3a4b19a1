/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/beneath.h with the files store's limit and error convention, and the folder opened last.
 */
#include "stores/files/beneath.h"

#include "base/beneath.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

bool files_path_valid(const char *path)
{
	return !strcmp(path, ".") || (strlen(path) <= FILES_PATH_MAX_BYTES && im_beneath_path_valid(path));
}

int files_beneath_open(int root_fd, const char *path, int flags)
{
	int fd = files_path_valid(path) ? im_beneath_open(root_fd, path, flags | O_NOFOLLOW, 0) : -EINVAL;
	return fd == -1 ? -errno : fd;
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
