/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the stage to final names. The order on disk: everything durable in the stage, then the old
 * thing moved aside, then the new one renamed, then the folder fsynced. A crash between the two
 * renames leaves the old one under its aside name and the new one in the stage; the next run finds
 * the place free and begins again.
 */
#include "base/beneath.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "restore/beneath.h"
#include "restore/place.h"
#include "restore/target_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Moves one existing name out of the way; what is empty may stay, to be replaced. */
static int clear_place(struct target *t, struct target_unit *u, int fd, const char *name, bool keep_empty,
    struct im_error *err)
{
	enum place_state state;
	char aside[NAME_MAX + 1];
	int rc = place_look(fd, name, NULL, &state, err);
	if (rc || state == PLACE_FREE || (state == PLACE_EMPTY && keep_empty))
		return rc;
	if (state == PLACE_TAKEN && !t->overwrite)
		return target_refuse(t, u, name, err);
	rc = place_move_aside(fd, name, t->stamp, aside, err);
	if (rc == 0 && (name == u->name || !u->aside)) {
		free(u->aside);
		auto_free char *path = im_format(
		    "/%s%s%s", u->folder, *u->folder ? "/" : "", aside);
		u->aside = path ? target_place(t, path) : NULL;
	}
	return rc;
}

static bool is_there(int fd, const char *name, mode_t *ret_type)
{
	struct stat st;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return false;
	*ret_type = st.st_mode & S_IFMT;
	return true;
}

/* A folder that had to be made gets the owner of what goes into it: a server must be able to
 * make its own files beside its database. */
static void adopt_folder(int to_fd, int from_fd, const char *name)
{
	struct stat st;
	if (geteuid() == 0 && fstatat(from_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    fchown(to_fd, st.st_uid, st.st_gid) == 0)
		fchmod(to_fd, 0755);
}

static int publish_renamed(struct target *t, struct target_unit *u, int from_fd, struct im_error *err)
{
	auto_close int to_fd = -1;
	unsigned made = 0;
	mode_t type, old_type;
	int rc = beneath_folder(t->root_fd, u->folder, !t->to, true, &to_fd, &made, err);
	if (rc)
		return rc;
	char damaged[NAME_MAX + 1];
	const char *name = u->name;
	if (!is_there(from_fd, name, &type)) {
		name = target_damaged_name(damaged, u->name);
		if (!is_there(from_fd, name, &type))
			return im_fail(err, IM_ENOTFOUND, "/%s is not in this snapshot", u->path);
		rc = clear_place(t, u, to_fd, name, false, err);
		return rc ? rc : place_put(from_fd, name, to_fd, name, err);
	}
	bool same_type = is_there(to_fd, name, &old_type) && old_type == type;
	rc = clear_place(t, u, to_fd, name, same_type, err);
	for (size_t i = 0; i < u->beside_count && rc == 0; i++) {
		rc = clear_place(t, u, to_fd, u->beside[i], false, err);
		if (rc == 0 && is_there(from_fd, u->beside[i], &old_type))
			rc = place_put(from_fd, u->beside[i], to_fd, u->beside[i], err);
	}
	if (rc == 0)
		rc = place_put(from_fd, name, to_fd, name, err);
	const struct target_group *g = &t->groups[u->group];
	if (rc == 0 && (made || (g->folders_made && u == &t->units[g->outer])))
		adopt_folder(to_fd, to_fd, name);
	if (rc == 0 && fsync(to_fd))
		rc = im_fail_errno(
		    err, IM_EIO, errno, "cannot make the folder of /%s durable", u->path);
	return rc;
}

static int publish_inside(struct target *t, struct target_unit *u, struct target_group *g, struct im_error *err)
{
	enum place_state state;
	char aside[NAME_MAX + 1];
	auto_close int from_fd = *u->path ?
	    im_beneath_open(g->stage.root_fd, u->path, O_RDONLY | O_DIRECTORY, 0) :
	    dup(g->stage.root_fd);
	if (from_fd < 0)
		return im_fail_errno(
		    err, IM_ENOTFOUND, errno, "/%s is not a folder of this snapshot", u->path);
	mode_t type;
	u->had_lost_found = is_there(from_fd, PLACE_LOST_FOUND, &type);
	int rc = place_look(g->parent_fd, ".", g->stage.name, &state, err);
	if (rc == 0 && state == PLACE_TAKEN && !t->overwrite)
		rc = target_refuse(t, u, u->name, err);
	if (rc == 0 && state == PLACE_TAKEN) {
		rc = place_move_children_aside(g->parent_fd, g->stage.name, t->stamp, aside, err);
		auto_free char *path = im_format("/%s%s%s", u->path, *u->path ? "/" : "", aside);
		u->aside = path ? target_place(t, path) : NULL;
	}
	if (rc == 0)
		rc = place_put_children(from_fd, g->parent_fd, err);
	if (rc == 0 && fsync(g->parent_fd))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot make /%s durable", u->path);
	return rc;
}

static int publish_unit(struct target *t, size_t unit, struct im_error *err)
{
	struct target_unit *u = &t->units[unit];
	struct target_group *g = &t->groups[u->group];
	if (g->inside && !strcmp(t->units[g->outer].path, u->path))
		return publish_inside(t, u, g, err);
	auto_close int from_fd = -1;
	int rc = beneath_folder(g->stage.root_fd, u->folder, false, false, &from_fd, NULL, err);
	if (rc == IM_ENOTFOUND) {
		im_error_clear(err);
		return im_fail(err, IM_ENOTFOUND, "/%s is not in this snapshot", u->path);
	}
	return rc ? rc : publish_renamed(t, u, from_fd, err);
}

/* Went with a unit that encloses it? */
static bool went_along(const struct target *t, size_t unit)
{
	for (size_t i = 0; i < t->unit_count; i++)
		if (i != unit && t->units[i].published &&
		    target_holds(t->units[i].path, t->units[unit].path))
			return true;
	return false;
}

int target_publish(struct target *t, const bool *wanted, struct im_error *err)
{
	size_t done = 0;
	int first = 0;
	/* by ascending length: an enclosing path is always shorter */
	for (size_t len = 0; done < t->unit_count && len < PATH_MAX; len++)
		for (size_t i = 0; i < t->unit_count; i++) {
			if (strlen(t->units[i].path) != len)
				continue;
			done++;
			struct im_error why = { 0 };
			int rc = wanted[i] && !went_along(t, i) ? publish_unit(t, i, &why) : 0;
			t->units[i].published = wanted[i] && rc == 0;
			if (rc && first == 0)
				first = im_fail(err, rc, "%s", why.text);
		}
	return first;
}

bool target_is_published(const struct target *t, size_t unit)
{
	return t->units[unit].published;
}

const char *target_moved_aside(const struct target *t, size_t unit)
{
	return t->units[unit].aside;
}

void target_each_stranger(
    const struct target *t, size_t unit, void (*fn)(void *context, const char *name), void *context)
{
	const struct target_unit *u = &t->units[unit];
	const struct target_group *g = &t->groups[u->group];
	if (!g->inside || !u->published || strcmp(t->units[g->outer].path, u->path))
		return;
	int copy = openat(g->parent_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	IM_CLEANUP(im_auto_closedir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	for (struct dirent *e; dir && (e = readdir(dir));)
		if (place_is_stranger(e->d_name) &&
		    !(u->had_lost_found && !strcmp(e->d_name, PLACE_LOST_FOUND)))
			fn(context, e->d_name);
}

/* Folders made for nothing go again, as long as they are empty. */
static void remove_made(struct target *t, struct target_group *g)
{
	auto_free char *path = strdup(t->units[g->outer].folder);
	unsigned made = g->folders_made;
	g->folders_made = 0;
	for (size_t i = 0; i < t->unit_count; i++)
		if (&t->groups[t->units[i].group] == g && t->units[i].published)
			return;
	for (; path && *path && made; made--) {
		char *slash = strrchr(path, '/');
		auto_close int fd = -1;
		if (slash)
			*slash = 0;
		if (beneath_folder(t->root_fd, slash ? path : "", !t->to, false, &fd, NULL, NULL) ||
		    unlinkat(fd, slash ? slash + 1 : path, AT_REMOVEDIR))
			return;
		if (!slash)
			return;
	}
}

void target_keep(struct target *t)
{
	t->kept = true;
}

int target_end(struct target *t, struct im_error *err)
{
	int rc = 0;
	if (t->kept)
		return 0;
	for (size_t i = 0; i < t->group_count; i++) {
		struct im_error why = { 0 };
		int one = t->groups[i].parent_fd >= 0 ? stage_remove(&t->groups[i].stage, &why) : 0;
		if (one && rc == 0)
			rc = im_fail(err, one, "%s", why.text);
	}
	for (size_t i = 0; i < t->group_count && rc == 0; i++)
		if (t->groups[i].parent_fd >= 0)
			remove_made(t, &t->groups[i]);
	return rc;
}
