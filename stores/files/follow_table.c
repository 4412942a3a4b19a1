/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files followed: rows that stay where they are, found by path and by inode. All looking and
 * opening is beneath the root and follows no links.
 */
#include "stores/files/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LOOK_MASK (STATX_BASIC_STATS | STATX_BTIME)

static int64_t ns_of(const struct statx_timestamp *t) { return t->tv_sec * INT64_C(1000000000) + t->tv_nsec; }

static void take_look(const struct statx *st, struct follow_look *ret)
{
	*ret = (struct follow_look){ .size = st->stx_size, .mtime_ns = ns_of(&st->stx_mtime), .mode = st->stx_mode };
	ret->ident.dev = (uint64_t)st->stx_dev_major << 32 | st->stx_dev_minor;
	ret->ident.ino = st->stx_ino;
	ret->ident.born_ns = st->stx_mask & STATX_BTIME ? ns_of(&st->stx_btime) : 0;
}

bool files_follow_look_fd(int fd, struct follow_look *ret)
{
	struct statx st;
	if (statx(fd, "", AT_EMPTY_PATH, LOOK_MASK, &st))
		return false;
	take_look(&st, ret);
	return true;
}

bool files_follow_look(struct follower *f, const char *path, struct follow_look *ret)
{
	struct statx st;
	const char *name;
	int parent = files_parent_open(&f->parent, f->root_fd, path, &name);
	if (parent < 0 || statx(parent, name, AT_SYMLINK_NOFOLLOW, LOOK_MASK, &st) || !S_ISREG(st.stx_mode))
		return false;
	take_look(&st, ret);
	return true;
}

bool files_follow_same(const struct follow_ident *a, const struct follow_ident *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->born_ns == b->born_ns;
}

int files_follow_open_file(struct follower *f, const char *path, const struct follow_ident *ident)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	const char *name;
	struct follow_look now;
	int parent = files_parent_open(&f->parent, f->root_fd, path, &name);
	if (parent < 0)
		return parent;
	auto_close int fd = openat(parent, name, flags | O_NOATIME); /* a backup leaves no trace, if it may */
	if (fd < 0 && errno == EPERM)
		fd = openat(parent, name, flags);
	if (fd < 0)
		return -errno;
	if (!files_follow_look_fd(fd, &now) || !S_ISREG(now.mode) || !files_follow_same(&now.ident, ident))
		return -ENOENT;
	return TAKE_FD(fd);
}

#define IDENT_NAME_BYTES 40
static const char *ident_name(char ret[IDENT_NAME_BYTES], const struct follow_ident *i)
{
	snprintf(ret, IDENT_NAME_BYTES, "%" PRIx64 "/%" PRIx64, i->dev, i->ino);
	return ret;
}

uint32_t files_follow_find(const struct follower *f, const char *path) { return files_names_get(&f->by_path, path); }

uint32_t files_follow_find_ident(const struct follower *f, const struct follow_ident *ident)
{
	char name[IDENT_NAME_BYTES];
	uint32_t i = files_names_get(&f->by_ident, ident_name(name, ident));
	return i != FILES_NO_NAME && files_follow_same(&f->files[i].ident, ident) ? i : FILES_NO_NAME;
}

static int free_row(struct follower *f, uint32_t *ret, struct im_error *err)
{
	if (f->free_rows.len) {
		f->free_rows.len -= 4;
		*ret = im_le32(f->free_rows.data + f->free_rows.len);
		return 0;
	}
	if (f->file_count == f->file_cap) {
		size_t cap = f->file_cap ? 2 * f->file_cap : 64;
		struct follow_file *grown = realloc(f->files, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory for the files that are followed");
		f->files = grown;
		f->file_cap = cap;
	}
	*ret = (uint32_t)f->file_count++;
	f->files[*ret] = (struct follow_file){ 0 };
	return 0;
}

int files_follow_add(struct follower *f, const char *path, const struct follow_look *look, uint32_t *ret, struct im_error *err)
{
	char name[IDENT_NAME_BYTES];
	int rc = free_row(f, ret, err);
	char *copy = rc ? NULL : strdup(path);
	if (!copy)
		return rc ? rc : im_fail(err, IM_ENOMEM, "out of memory for the files that are followed");
	struct follow_file *e = &f->files[*ret];
	*e = (struct follow_file){ .path = copy, .ident = look->ident };
	files_log_check(e->check, "", 0);
	f->live_count++;
	rc = files_names_put(&f->by_path, path, *ret, err);
	return rc ? rc : files_names_put(&f->by_ident, ident_name(name, &e->ident), *ret, err);
}

void files_follow_remove(struct follower *f, uint32_t file)
{
	char name[IDENT_NAME_BYTES];
	struct follow_file *e = &f->files[file];
	if (files_names_get(&f->by_path, e->path) == file)
		files_names_drop(&f->by_path, e->path);
	if (files_names_get(&f->by_ident, ident_name(name, &e->ident)) == file)
		files_names_drop(&f->by_ident, name);
	f->total_bytes -= e->size;
	f->lost_count -= e->lost;
	f->live_count--;
	free(e->path);
	*e = (struct follow_file){ 0 };
	im_buf_put_u32(&f->free_rows, file);
	if (f->free_rows.failed) /* the row stays unused */
		f->free_rows = (struct im_buf){ .data = f->free_rows.data, .cap = f->free_rows.cap };
}

int files_follow_rebind(struct follower *f, uint32_t file, const struct follow_ident *ident, struct im_error *err)
{
	char name[IDENT_NAME_BYTES];
	struct follow_file *e = &f->files[file];
	if (files_names_get(&f->by_ident, ident_name(name, &e->ident)) == file)
		files_names_drop(&f->by_ident, name);
	e->ident = *ident;
	return files_names_put(&f->by_ident, ident_name(name, ident), file, err);
}

int files_follow_rename(struct follower *f, uint32_t file, const char *to, struct im_error *err)
{
	struct follow_file *e = &f->files[file];
	char *copy = strdup(to);
	if (!copy)
		return im_fail(err, IM_ENOMEM, "out of memory for the files that are followed");
	if (files_names_get(&f->by_path, e->path) == file)
		files_names_drop(&f->by_path, e->path);
	free(e->path);
	e->path = copy;
	return files_names_put(&f->by_path, to, file, err);
}

bool files_follow_tail(const struct follow_file *e, int fd, uint8_t *ret, size_t *ret_len)
{
	size_t len = e->size < FILES_LOG_TAIL_BYTES ? (size_t)e->size : FILES_LOG_TAIL_BYTES;
	ssize_t n = im_pread_full(fd, ret, len, e->size - len, NULL, e->path);
	*ret_len = n < 0 ? 0 : (size_t)n;
	return n >= 0;
}

bool files_follow_adopt(struct follower *f, uint32_t file, int fd, uint64_t size)
{
	uint8_t tail[FILES_LOG_TAIL_BYTES];
	size_t len;
	struct follow_file *e = &f->files[file];
	f->total_bytes += size - e->size;
	e->size = size;
	if (!files_follow_tail(e, fd, tail, &len))
		return false;
	files_log_check(e->check, tail, len);
	return true;
}

bool files_follow_is_wanted(const struct follower *f, const char *path)
{
	return files_exclude_match(&f->patterns, path, false) && !files_exclude_match(&f->exclude, path, false);
}

int files_follow_adopt_all(struct follower *f, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; !rc && i < f->touched_count; i++) {
		struct follow_look look;
		uint32_t file;
		if (!files_follow_is_wanted(f, f->touched[i]) || !files_follow_look(f, f->touched[i], &look) ||
		    files_follow_find_ident(f, &look.ident) != FILES_NO_NAME) /* another name of one that is followed */
			continue;
		auto_close int fd = files_follow_open_file(f, f->touched[i], &look.ident);
		if (fd < 0) {
			files_follow_warn_once(f, f->touched[i], -fd);
			continue;
		}
		rc = files_follow_add(f, f->touched[i], &look, &file, err);
		if (!rc && !files_follow_adopt(f, file, fd, look.size))
			files_follow_remove(f, file);
		else if (!rc)
			f->files[file].mtime_ns = look.mtime_ns;
	}
	files_follow_untouch(f);
	return rc;
}

void files_follow_adopt_lost(struct follower *f)
{
	for (size_t i = 0; f->lost_count && i < f->file_count; i++) {
		struct follow_file *e = &f->files[i];
		struct follow_look look;
		if (!e->path || !e->lost || !files_follow_look(f, e->path, &look))
			continue;
		auto_close int fd = files_follow_open_file(f, e->path, &look.ident);
		if (fd < 0 || !files_follow_same(&look.ident, &e->ident) || !files_follow_adopt(f, (uint32_t)i, fd, look.size))
			continue;
		e->mtime_ns = look.mtime_ns;
		e->lost = false;
		f->lost_count--;
	}
}
