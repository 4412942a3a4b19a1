/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose content comes later: which they are, and making them.
 */
#include "base/cleanup.h"
#include "restore/engine_internal.h"
#include "restore/instant/lazy.h"

#include <errno.h>
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
