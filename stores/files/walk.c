/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk. A folder stays open while its children are visited, down to a depth that leaves
 * descriptors for others; below it is closed and opened again by its path.
 */
#include "stores/files/walk.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/interrupt.h"
#include "stores/files/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define MAX_OPEN_DEPTH 64

struct names {
	struct im_buf text;
	char **items;
	size_t count;
};

struct walker {
	const struct files_walk *w;
	char path[FILES_PATH_MAX_BYTES + 1];
	unsigned since_check;
};

static void names_clear(struct names *n)
{
	im_buf_free(&n->text);
	free(n->items);
}
#define auto_names IM_CLEANUP(names_clear)

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int read_names(int fd, struct names *n)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (copy < 0)
		return errno;
	auto_closedir DIR *dir = fdopendir(copy);
	if (!dir) {
		int e = errno;
		close(copy);
		return e;
	}
	for (;;) {
		errno = 0;
		struct dirent *d = readdir(dir);
		if (!d && errno)
			return errno;
		if (!d)
			break;
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		im_buf_put(&n->text, d->d_name, strlen(d->d_name) + 1);
		n->count++;
	}
	n->items = calloc(n->count + 1, sizeof *n->items);
	if (n->text.failed || !n->items)
		return ENOMEM;
	char *at = (char *)n->text.data;
	for (size_t i = 0; i < n->count; i++, at += strlen(at) + 1)
		n->items[i] = at;
	qsort(n->items, n->count, sizeof *n->items, compare_names);
	return 0;
}

static int walk_folder(struct walker *k, int fd, size_t path_len, unsigned depth, struct im_error *err);

/* Enters the folder k->path. *fd is its parent's, which may be closed and opened again on the way. */
static int descend(struct walker *k, int *fd, const char *name, size_t parent_len, size_t path_len, unsigned depth,
    struct im_error *err)
{
	auto_close int child = openat(*fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (child < 0) {
		k->w->fault(k->w->context, k->path, errno);
		return 0;
	}
	if (depth < MAX_OPEN_DEPTH)
		return walk_folder(k, child, path_len, depth + 1, err);
	close(*fd);
	*fd = -1;
	int rc = walk_folder(k, child, path_len, depth + 1, err);
	if (rc)
		return rc;
	k->path[parent_len] = 0;
	*fd = files_beneath_open(k->w->root_fd, k->path, O_RDONLY | O_DIRECTORY);
	if (*fd < 0)
		k->w->fault(k->w->context, k->path, -*fd);
	return 0;
}

/* One child of the folder whose path is the first parent_len bytes of k->path. */
static int visit(struct walker *k, int *fd, const char *name, size_t parent_len, unsigned depth, struct im_error *err)
{
	size_t start = parent_len ? parent_len + 1 : 0, len = strlen(name);
	if (start + len > FILES_PATH_MAX_BYTES) {
		k->w->fault(k->w->context, k->path, ENAMETOOLONG);
		return 0;
	}
	if (parent_len)
		k->path[parent_len] = '/';
	memcpy(k->path + start, name, len + 1);
	struct stat st;
	if (fstatat(*fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		k->w->fault(k->w->context, k->path, errno);
		return 0;
	}
	if (S_ISSOCK(st.st_mode) || files_exclude_match(k->w->exclude, k->path, S_ISDIR(st.st_mode)))
		return 0;
	int rc = k->w->entry(k->w->context, k->path, &st, err);
	if (!rc && ++k->since_check % 256 == 0)
		rc = im_interrupt_check(err);
	if (!rc && S_ISDIR(st.st_mode))
		rc = descend(k, fd, name, parent_len, start + len, depth, err);
	return rc;
}

static int walk_folder(struct walker *k, int fd, size_t path_len, unsigned depth, struct im_error *err)
{
	auto_names struct names names = { 0 };
	auto_close int own = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int e = own < 0 ? errno : read_names(fd, &names);
	if (e == ENOMEM)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (e)
		k->w->fault(k->w->context, path_len ? k->path : ".", e);
	for (size_t i = 0; i < names.count && own >= 0 && names.items; i++) {
		int rc = visit(k, &own, names.items[i], path_len, depth, err);
		if (rc)
			return rc;
		k->path[path_len] = 0;
	}
	return 0;
}

static int walk_from(struct walker *k, const char *from, struct im_error *err)
{
	size_t len = strlen(from);
	auto_close int fd = files_beneath_open(k->w->root_fd, from, O_RDONLY | O_DIRECTORY);
	if (fd < 0) {
		k->w->fault(k->w->context, from, -fd);
		return 0;
	}
	memcpy(k->path, from, len + 1); /* opened, so it fits */
	return walk_folder(k, fd, len, 0, err);
}

int files_walk_run(const struct files_walk *w, struct im_error *err)
{
	auto_free struct walker *k = calloc(1, sizeof *k);
	struct stat st;
	if (!k)
		return im_fail(err, IM_ENOMEM, "out of memory");
	k->w = w;
	if (w->from)
		return walk_from(k, w->from, err);
	if (fstat(w->root_fd, &st))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat the root of the tree");
	int rc = w->entry(w->context, ".", &st, err);
	if (!rc && S_ISDIR(st.st_mode))
		rc = walk_folder(k, w->root_fd, 0, 0, err);
	return rc;
}
