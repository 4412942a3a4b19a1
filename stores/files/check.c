/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look at a rebuilt tree. Each chunk was compared with its id while it was written; what is left
 * to prove is that everything got its final name, with its size. "full" reads all files back, too.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "stores/files/beneath.h"
#include "stores/files/files_store.h"
#include "stores/files/links.h"
#include "stores/files/memory.h"
#include "stores/files/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define READ_BYTES (1u << 20)

struct checker {
	int root_fd;
	bool read;
	uint8_t *buffer;
	struct files_counts counts;
	struct files_links links;
	char fault[512];
};

static int read_back(struct checker *c, const char *path, const struct stat *st, struct im_error *err)
{
	auto_close int fd =
	    strcmp(path, ".") ? files_beneath_open(c->root_fd, path, O_RDONLY | O_NONBLOCK) : dup(c->root_fd);
	if (fd < 0)
		return im_fail_errno(err, IM_EDIFFERENT, -fd, "cannot open %s", path);
	for (uint64_t at = 0; at < (uint64_t)st->st_size;) {
		ssize_t n = im_pread_full(fd, c->buffer, READ_BYTES, at, err, path);
		if (n < 0)
			return (int)n;
		if (!n)
			return im_fail(err, IM_EDIFFERENT, "%s became shorter while it was checked", path);
		at += (uint64_t)n;
	}
	return 0;
}

static int on_entry(void *context, const char *path, const struct stat *st, struct im_error *err)
{
	struct checker *c = context;
	char *first = NULL;
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1 && files_links_note(&c->links, st, path, &first))
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (S_ISDIR(st->st_mode)) {
		c->counts.dirs++;
		return 0;
	}
	if (first || !S_ISREG(st->st_mode)) {
		c->counts.others++;
		return 0;
	}
	c->counts.files++;
	c->counts.bytes += (uint64_t)st->st_size;
	return c->read ? read_back(c, path, st, err) : 0;
}

static void on_fault(void *context, const char *path, int errno_value)
{
	struct checker *c = context;
	if (!c->fault[0])
		snprintf(c->fault, sizeof c->fault, "cannot read %.400s: %s", path, strerror(errno_value));
}

static uint64_t number(json_t *manifest, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(manifest, key));
	return n < 0 ? 0 : (uint64_t)n;
}

static int compare(const struct checker *c, json_t *manifest, const char *path, struct im_error *err)
{
	uint64_t files = number(manifest, "files"), dirs = number(manifest, "dirs");
	uint64_t others = number(manifest, "others"), bytes = number(manifest, "bytes");
	if (c->fault[0])
		return im_fail(err, IM_EDIFFERENT, "%s: %s", path, c->fault);
	if (c->counts.files == files && c->counts.dirs == dirs && c->counts.others == others &&
	    c->counts.bytes == bytes)
		return 0;
	return im_fail(err, IM_EDIFFERENT,
	    "%s holds %llu files (%llu bytes), %llu folders, %llu others; the snapshot %llu (%llu bytes), %llu, %llu",
	    path, (unsigned long long)c->counts.files, (unsigned long long)c->counts.bytes,
	    (unsigned long long)c->counts.dirs, (unsigned long long)c->counts.others, (unsigned long long)files,
	    (unsigned long long)bytes, (unsigned long long)dirs, (unsigned long long)others);
}

static int walk(struct checker *c, json_t *manifest, const char *path, struct im_error *err)
{
	struct files_exclude elsewhere = { 0 };
	size_t i;
	json_t *item;
	int rc = 0;
	json_array_foreach(json_object_get(manifest, "elsewhere"), i, item) if (!rc && json_is_string(item)) rc =
	    files_exclude_add_path(&elsewhere, json_string_value(item), err);
	struct files_walk w = {
		.root_fd = c->root_fd, .exclude = &elsewhere, .entry = on_entry, .fault = on_fault, .context = c
	};
	if (!rc)
		rc = files_walk_run(&w, err);
	if (!rc)
		rc = compare(c, manifest, path, err);
	files_exclude_clear(&elsewhere);
	return rc;
}

int files_check(json_t *manifest, const char *path, const char *level, char **ret_text, struct im_error *err)
{
	if (!strcmp(level, "none"))
		return (*ret_text = strdup("not checked")) ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	auto_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, IM_EDIFFERENT, errno, "cannot open %s", path);
	struct checker c = { .root_fd = fd, .read = !strcmp(level, "full") };
	auto_free uint8_t *buffer = c.read ? malloc(READ_BYTES) : NULL;
	if (c.read && !buffer)
		return im_fail(err, IM_ENOMEM, "out of memory");
	c.buffer = buffer;
	int rc = walk(&c, manifest, path, err);
	files_links_clear(&c.links);
	if (rc)
		return rc;
	char size[32];
	char *text = im_format(
	    "%llu files of %s and %llu folders are there%s; each chunk was compared with its id when it was written",
	    (unsigned long long)c.counts.files, im_bytes_format(size, sizeof size, c.counts.bytes),
	    (unsigned long long)c.counts.dirs, c.read ? " and were read to their ends" : "");
	if (!text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	*ret_text = text;
	return 0;
}

static void leave_out(void *context, const char *path, int errno_value)
{
	(void)context, (void)path, (void)errno_value;
}

int files_each_entry(const char *path, int (*fn)(void *context, const char *relative, const struct stat *st, struct im_error *err),
    void *context, struct im_error *err)
{
	auto_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, IM_EDIFFERENT, errno, "cannot open %s", path);
	struct files_walk w = { .root_fd = fd, .entry = fn, .fault = leave_out, .context = context };
	return files_walk_run(&w, err);
}
