/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renames within one file system.
 */
#include "restore/instant/arrange.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "restore/beneath.h"
#include "restore/place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void arrange_clear(struct arrangement *a)
{
	free(a->cover.target);
	free(a->cover.staged);
	free(a->stage);
	json_decref(a->moves);
	*a = (struct arrangement){ 0 };
}

static int open_folder(const char *path)
{
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int add_move(struct arrangement *a, const char *from, const char *to, struct im_error *err)
{
	json_t *row = json_pack("{s:s, s:s}", "from", from, "to", to);
	if (!row || json_array_append_new(a->moves, row))
		return im_fail(err, IM_EUSAGE, "the name of %s/%s cannot be written down", a->cover.target, from);
	return 0;
}

static void aside_name(char ret[NAME_MAX + 1], const char *name, const char *stamp)
{
	char tail[64];
	int n = snprintf(tail, sizeof tail, TARGET_ASIDE_INFIX "%s", stamp);
	snprintf(ret, NAME_MAX + 1, "%.*s%s", NAME_MAX - n, name, tail);
}

static int plan_children(const struct target *t, const char *original, int fd, struct arrangement *a, struct im_error *err)
{
	auto_closedir DIR *dir = fdopendir(dup(fd));
	int rc = dir ? 0 : im_fail_errno(err, IM_EIO, errno, "cannot list %s", a->cover.target);
	for (struct dirent *e; rc == 0 && (e = readdir(dir));) {
		char aside[NAME_MAX + 1];
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (place_is_mount(fd, e->d_name))
			rc = im_fail(err, IM_EUSAGE, "%s/%s is a mount point, so its folder cannot change places with the restored one", a->cover.target, e->d_name);
		else if (target_owns(t, original, e->d_name)) {
			aside_name(aside, e->d_name, target_stamp(t));
			rc = add_move(a, e->d_name, aside, err);
		} else
			rc = add_move(a, e->d_name, e->d_name, err);
	}
	return rc;
}

int arrange_plan(const struct target *t, size_t whole, struct arrangement *ret, struct im_error *err)
{
	struct target_whole w;
	int rc = target_get_whole(t, whole, &w, err);
	if (rc)
		return rc;
	*ret = (struct arrangement){ .cover = { TAKE_PTR(w.target), TAKE_PTR(w.staged) }, .stage = TAKE_PTR(w.stage),
		.is_folder = w.is_folder, .moves = json_array() };
	const char *name = strrchr(ret->cover.target, '/') + 1;
	char aside[NAME_MAX + 1];
	auto_close int fd = open_folder(ret->cover.target);
	enum place_state state = PLACE_FREE;
	if (w.is_mount)
		rc = im_fail(err, IM_EUSAGE, "%s is a mount point and cannot change places with the restored folder", ret->cover.target);
	else if (fd < 0 && errno != ENOENT)
		rc = im_fail_errno(err, IM_EUSAGE, errno, "cannot open %s as a folder", ret->cover.target);
	else if (fd >= 0 && w.is_folder)
		rc = plan_children(t, w.original, fd, ret, err);
	else if (fd >= 0)
		rc = place_look(w.parent_fd, name, NULL, &state, err);
	if (rc == 0 && state == PLACE_TAKEN) {
		aside_name(aside, name, target_stamp(t));
		rc = add_move(ret, name, aside, err);
	}
	target_whole_clear(&w);
	if (rc)
		arrange_clear(ret);
	return rc;
}

/* A folder that is new gets the owner of what is restored into it: a server must be able to make its own files there. */
static int adopt(int staged_fd, struct im_error *err)
{
	auto_closedir DIR *dir = fdopendir(dup(staged_fd));
	struct stat st;
	for (struct dirent *e; dir && (e = readdir(dir));)
		if (e->d_name[0] != '.' && fstatat(staged_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
			if (fchown(staged_fd, st.st_uid, st.st_gid) || fchmod(staged_fd, 0755))
				return im_fail_errno(err, IM_EIO, errno, "cannot set the owner of a restored folder");
			break;
		}
	return 0;
}

/* The folder whose names move, and the one they move to. */
static int open_ends(const struct arrangement *a, int *ret_from, int *ret_to, struct im_error *err)
{
	const char *slash = strrchr(a->cover.target, '/');
	auto_free char *parent = slash == a->cover.target ? strdup("/") : strndup(a->cover.target, (size_t)(slash - a->cover.target));
	*ret_from = !parent ? -1 : open_folder(a->is_folder ? a->cover.target : parent);
	*ret_to = a->is_folder ? open_folder(a->cover.staged) : *ret_from < 0 ? -1 : dup(*ret_from);
	if (*ret_to < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot open %s", a->is_folder ? a->cover.staged : parent ? parent : "a folder");
	return 0;
}

static int move_all(const struct arrangement *a, int from, int to, bool back, struct im_error *err)
{
	size_t i;
	json_t *row;
	json_array_foreach(a->moves, i, row) {
		const char *old = json_string_value(json_object_get(row, "from")), *new = json_string_value(json_object_get(row, "to"));
		int rc = !old || !new || strchr(old, '/') || strchr(new, '/') ? -1 :
		    back ? renameat2(to, new, from, old, RENAME_NOREPLACE) : renameat2(from, old, to, new, RENAME_NOREPLACE);
		if (rc && !(back && errno == ENOENT))
			return im_fail_errno(err, IM_EIO, errno, "cannot move %s", old ? old : "something");
	}
	if ((from >= 0 && fsync(from)) || fsync(to))
		return im_fail_errno(err, IM_EIO, errno, "cannot make a folder durable");
	return 0;
}

int arrange_do(struct arrangement *a, struct im_error *err)
{
	auto_close int from = -1, to = -1;
	int rc = open_ends(a, &from, &to, err);
	if (rc == 0 && a->is_folder)
		rc = from >= 0 ? place_copy_metadata(from, to, err) : adopt(to, err);
	if (rc == 0)
		rc = move_all(a, from, to, false, err);
	return rc ? rc : cover_prepare(&a->cover, &a->loose, err);
}

int arrange_undo(const struct arrangement *a, struct im_error *err)
{
	auto_close int from = -1, to = -1;
	int rc = cover_release(&a->cover, err);
	if (rc == 0 && !json_array_size(a->moves))
		return 0;
	if (rc == 0 && a->is_folder && access(a->cover.staged, F_OK) && errno == ENOENT)
		return 0; /* undone before: the stage was about to be removed */
	if (rc == 0 && !a->is_folder && rmdir(a->cover.target) && errno != ENOENT && errno != ENOTEMPTY)
		rc = im_fail_errno(err, IM_EIO, errno, "cannot remove the empty folder %s", a->cover.target);
	if (rc == 0)
		rc = open_ends(a, &from, &to, err);
	return rc ? rc : move_all(a, from, to, true, err);
}

int arrange_remove_stage(const struct arrangement *a, struct im_error *err)
{
	const char *slash = strrchr(a->stage, '/');
	auto_free char *parent = strndup(a->stage, slash == a->stage ? 1 : (size_t)(slash - a->stage));
	auto_close int fd = parent ? open_folder(parent) : -1;
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot open the folder of %s", a->stage);
	if (cover_has_alias(&a->cover))
		return im_fail(err, IM_ELOCKED, "%s is still in use", a->cover.staged);
	return beneath_remove(fd, slash + 1, NULL, err);
}
