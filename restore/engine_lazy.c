/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose content comes later: which they are, and making them.
 */
#include "base/cleanup.h"
#include "restore/beneath.h"
#include "restore/engine_internal.h"
#include "restore/instant/lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define PAGE 4096u

int engine_lazy_init(struct engine *e, struct im_error *err)
{
	const struct content_options o = { .fetcher = e->options.fetcher, .chunk_key = e->chunk_key, .pack_of = engine_pack, .context = e };
	return content_new(&o, &e->content, err);
}

int engine_lazy_file(struct engine *e, struct built_file *f, bool at_once, struct im_error *err)
{
	uint32_t number;
	bool readable = !f->prove || f->digest; /* else its proof needs the whole file */
	if (!e->content || at_once || f->dropped || !readable || f->writer.size_bytes <= e->options.lazy_bytes ||
	    content_count(e->content) >= e->options.lazy_max)
		return 0;
	int rc = content_add(e->content, f, &number, err);
	f->lazy = rc ? 0 : number + 1;
	return rc;
}

const struct content *engine_content(const struct engine *e)
{
	return e->content;
}

void engine_stop_writing(struct engine *e)
{
	writer_free(e->writer);
	e->writer = NULL;
}

static int fill_last_page(struct engine *e, struct content_lane *l, uint32_t number, int fd, struct im_error *err)
{
	const struct built_file *f = content_file(e->content, number);
	uint64_t size = f->writer.size_bytes, at = size / PAGE * PAGE;
	uint8_t page[PAGE], *map;
	if (at == size)
		return 0;
	int rc = content_read(e->content, l, number, at, size - at, page, err);
	if (rc)
		return rc;
	rc = lazy_map(fd, size, &map, err);
	if (rc == 0 && lazy_fill(fd, map, at, page, (size_t)(size - at), false) != (ssize_t)(size - at))
		rc = im_fail(err, IM_ENOSPACE, "cannot write the end of /%s", f->writer.path);
	lazy_unmap(map, size);
	return rc;
}

int engine_make_lazy(struct engine *e, int *fds, struct im_error *err)
{
	struct content_lane *l;
	int rc = content_seal(e->content, err);
	if (rc == 0)
		rc = content_lane_new(0, &l, err);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < content_count(e->content) && rc == 0; i++) {
		struct built_file *f = content_file(e->content, i);
		rc = lazy_make(f->writer.root_fd, f->writer.path, i, f->writer.size_bytes, &fds[i], err);
		if (rc == 0)
			rc = fill_last_page(e, l, i, fds[i], err);
		if (rc == 0)
			rc = built_set_metadata(&e->built, f, fds[i], err);
		f->done = rc == 0;
	}
	content_lane_free(l);
	return rc;
}

static int sync_at(int root_fd, const char *path, struct im_error *err)
{
	auto_close int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		return im_fail_errno(err, IM_EIO, errno, "cannot make the folders of incomplete files durable");
	return 0;
}

int engine_sync_lazy_names(struct engine *e, struct im_error *err)
{
	int rc = 0;
	for (uint32_t i = 0; i < content_count(e->content) && rc == 0; i++) {
		const struct writer_file *f = &content_file(e->content, i)->writer;
		const char *slash = strrchr(f->path, '/');
		auto_free char *folder = strndup(f->path, slash ? (size_t)(slash - f->path) : 0);
		auto_close int fd = -1;
		rc = folder ? beneath_folder(f->root_fd, folder, false, false, &fd, NULL, err) : im_fail(err, IM_ENOMEM, "out of memory");
		if (rc == 0 && fsync(fd))
			rc = im_fail_errno(err, IM_EIO, errno, "cannot make the folder of /%s durable", f->path);
		static const char *const around[] = { "../" LAZY_FOLDER, ".", ".." };
		for (size_t k = 0; rc == 0 && k < sizeof around / sizeof around[0]; k++)
			rc = sync_at(f->root_fd, around[k], err);
	}
	return rc;
}
