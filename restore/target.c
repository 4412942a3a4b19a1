/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Units and groups, what is in their way, and their stages (see target.h).
 */
#include "base/arriving.h"
#include "base/beneath.h"
#include "base/cleanup.h"
#include "base/clock.h"
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
#include <sys/statvfs.h>

char *target_damaged_name(char *ret, const char *name)
{
	snprintf(ret, NAME_MAX + 1, "%.*s%s", NAME_MAX - (int)strlen(TARGET_DAMAGED_SUFFIX), name,
	    TARGET_DAMAGED_SUFFIX);
	return ret;
}

static void make_stamp(char ret[32])
{
	char text[IM_INSTANT_BYTES];
	im_instant_format(text, im_now_ms());
	size_t n = 0;
	for (const char *p = text; *p && *p != '.'; p++)
		if (*p != '-' && *p != ':')
			ret[n++] = *p;
	ret[n++] = 'Z';
	ret[n] = 0;
}

int target_new(const char *to, bool overwrite, struct target **ret, struct im_error *err)
{
	struct target *t = calloc(1, sizeof *t);
	if (!t)
		return im_fail(err, IM_ENOMEM, "out of memory");
	t->overwrite = overwrite;
	t->suffix = TARGET_PARTIAL_SUFFIX;
	make_stamp(t->stamp);
	if (to) {
		t->to = realpath(to, NULL);
		if (!t->to && errno == ENOENT)
			t->to = to[0] == '/' ? strdup(to) : NULL;
		if (!t->to && errno == ENOENT) {
			auto_free char *here = getcwd(NULL, 0);
			t->to = here ? im_path_join(here, to) : NULL;
		}
		if (!t->to) {
			free(t);
			return im_fail_errno(err, IM_EUSAGE, errno, "cannot restore to %s", to);
		}
	}
	t->root_fd = open(t->to ? t->to : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->root_fd < 0 && errno != ENOENT) {
		int rc = im_fail_errno(err, IM_EUSAGE, errno, "cannot restore to %s", to);
		target_free(t);
		return rc;
	}
	*ret = t;
	return 0;
}

void target_free(struct target *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->group_count; i++) {
		if (t->groups[i].parent_fd >= 0) {
			stage_close(&t->groups[i].stage);
			close(t->groups[i].parent_fd);
		}
	}
	for (size_t i = 0; i < t->unit_count; i++) {
		struct target_unit *u = &t->units[i];
		for (size_t j = 0; j < u->beside_count; j++)
			free(u->beside[j]);
		free(u->beside);
		free(u->path);
		free(u->folder);
		free(u->aside);
	}
	if (t->root_fd >= 0)
		close(t->root_fd);
	free(t->units);
	free(t->groups);
	free(t->to);
	free(t);
}

/* Keeps what lies in the unit's own folder; other places are not this restore's business. */
static int add_beside(struct target_unit *u, const char *path)
{
	size_t n = strlen(u->folder);
	if (path[0] != '/' || strncmp(path + 1, u->folder, n) || (n && path[1 + n] != '/'))
		return 0;
	const char *name = path + 1 + n + (n ? 1 : 0);
	if (!*name || strchr(name, '/') || !strcmp(name, u->name))
		return 0;
	char **grown = realloc(u->beside, (u->beside_count + 1) * sizeof *grown);
	if (!grown)
		return -1;
	u->beside = grown;
	return (u->beside[u->beside_count++] = strdup(name)) ? 0 : -1;
}

int target_add(struct target *t, const char *path, const char *const *beside, size_t beside_count,
    size_t *ret_unit, struct im_error *err)
{
	if (path[0] != '/' || (path[1] && !im_beneath_path_valid(path + 1)))
		return im_fail(err, IM_ECORRUPT,
		    "'%s' is not a plain absolute path and is not restored", path);
	if (!path[1] && !t->to)
		return im_fail(err, IM_EUSAGE,
		    "the root folder itself cannot be restored in place; use --to DIR");
	struct target_unit *grown = realloc(t->units, (t->unit_count + 1) * sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	t->units = grown;
	struct target_unit *u = &grown[t->unit_count];
	*u = (struct target_unit){ .path = strdup(path + 1) };
	char *slash = u->path ? strrchr(u->path, '/') : NULL;
	u->folder = u->path ? strndup(u->path, slash ? (size_t)(slash - u->path) : 0) : NULL;
	u->name = slash ? slash + 1 : u->path;
	t->unit_count++;
	bool failed = !u->folder;
	for (size_t i = 0; i < beside_count && !failed; i++)
		failed = add_beside(u, beside[i]) != 0;
	if (failed)
		return im_fail(err, IM_ENOMEM, "out of memory");
	*ret_unit = t->unit_count - 1;
	return 0;
}

void target_set_instant(struct target *t)
{
	t->suffix = IM_ARRIVING_SUFFIX;
}

int target_add_folder(struct target *t, const char *path, struct im_error *err)
{
	size_t unit;
	for (size_t i = 0; i < t->unit_count; i++)
		if (!strcmp(t->units[i].path, path + 1))
			return 0;
	int rc = target_add(t, path, NULL, 0, &unit, err);
	if (rc == 0)
		t->units[unit].is_folder = true;
	return rc;
}

bool target_holds(const char *outer, const char *inner)
{
	size_t n = strlen(outer);
	return n == 0 || (strncmp(outer, inner, n) == 0 && (inner[n] == 0 || inner[n] == '/'));
}

static size_t outermost_of(const struct target *t, size_t unit)
{
	size_t best = unit;
	for (size_t i = 0; i < t->unit_count; i++) {
		size_t n = strlen(t->units[i].path), m = strlen(t->units[best].path);
		if (target_holds(t->units[i].path, t->units[unit].path) && (n < m || (n == m && i < best)))
			best = i;
	}
	return best;
}

static int form_groups(struct target *t, struct im_error *err)
{
	t->groups = calloc(t->unit_count ? t->unit_count : 1, sizeof *t->groups);
	if (!t->groups)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < t->unit_count; i++) {
		size_t outer = outermost_of(t, i), g = 0;
		while (g < t->group_count && t->groups[g].outer != outer)
			g++;
		if (g == t->group_count)
			t->groups[t->group_count++] = (struct target_group){ .outer = outer,
				.parent_fd = -1,
				.stage = { .fd = -1, .root_fd = -1 } };
		t->units[i].group = g;
	}
	return 0;
}

int target_refuse(
    const struct target *t, const struct target_unit *u, const char *name, struct im_error *err)
{
	const char *sep = *u->folder ? "/" : "";
	if (name == u->name)
		return im_fail(err, IM_EUSAGE,
		    "%s/%s%s%s exists and is not empty; --overwrite moves it aside, --to DIR restores elsewhere",
		    t->to ? t->to : "", u->folder, sep, name);
	return im_fail(err, IM_EUSAGE,
	    "%s/%s%s%s is left of an older database and would damage the restored one; --overwrite moves it aside",
	    t->to ? t->to : "", u->folder, sep, name);
}

/* Told of a name that would have to be moved aside; not 0 stops the look. */
typedef int obstacle_fn(void *context, const struct target *t, const struct target_unit *u,
    const char *name, struct im_error *err);

static int look_at_unit(const struct target *t, const struct target_unit *u, obstacle_fn *fn,
    void *context, struct im_error *err)
{
	if (u->is_folder)
		return 0;
	auto_close int fd = -1;
	struct im_error why = { 0 };
	int rc = beneath_folder(t->root_fd, u->folder, !t->to, false, &fd, NULL, &why);
	if (rc == IM_ENOTFOUND)
		return 0;
	if (rc)
		return im_fail(err, rc, "%s", why.text);
	enum place_state state;
	char stage[NAME_MAX + 1];
	rc = place_look(fd, *u->name ? u->name : ".", im_stage_name(stage, NULL, t->suffix), &state, err);
	if (rc == 0 && state == PLACE_TAKEN)
		rc = fn(context, t, u, u->name, err);
	for (size_t i = 0; i < u->beside_count && rc == 0; i++) {
		rc = place_look(fd, u->beside[i], NULL, &state, err);
		if (rc == 0 && state != PLACE_FREE)
			rc = fn(context, t, u, u->beside[i], err);
	}
	return rc;
}

static int refuse_obstacle(void *context, const struct target *t, const struct target_unit *u,
    const char *name, struct im_error *err)
{
	(void)context;
	return t->overwrite ? 0 : target_refuse(t, u, name, err);
}

int target_check(struct target *t, struct im_error *err)
{
	int rc = form_groups(t, err);
	for (size_t i = 0; i < t->unit_count && rc == 0 && t->root_fd >= 0; i++)
		rc = look_at_unit(t, &t->units[i], refuse_obstacle, NULL, err);
	return rc;
}

struct obstacle_context {
	void (*fn)(void *context, size_t unit, const char *path);
	void *context;
};

static int tell_obstacle(void *context, const struct target *t, const struct target_unit *u,
    const char *name, struct im_error *err)
{
	const struct obstacle_context *c = context;
	auto_free char *original = im_format("/%s%s%s", u->folder, *u->folder ? "/" : "", name);
	auto_free char *path = original ? target_place(t, original) : NULL;
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	c->fn(c->context, (size_t)(u - t->units), path);
	return 0;
}

int target_each_obstacle(struct target *t, void (*fn)(void *context, size_t unit, const char *path),
    void *context, struct im_error *err)
{
	struct obstacle_context c = { fn, context };
	int rc = 0;
	for (size_t i = 0; i < t->unit_count && rc == 0 && t->root_fd >= 0; i++)
		rc = look_at_unit(t, &t->units[i], tell_obstacle, &c, err);
	return rc;
}

/* The deepest existing folder on the way to DIR, when DIR itself is not there yet. */
static int open_existing_part(const char *path)
{
	auto_free char *copy = strdup(path);
	while (copy && *copy) {
		int fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 || errno != ENOENT)
			return fd;
		char *slash = strrchr(copy, '/');
		if (!slash)
			break;
		*slash = 0;
	}
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int target_space(struct target *t, size_t unit, uint64_t *ret_free_bytes, uint64_t *ret_device,
    struct im_error *err)
{
	auto_close int fd = -1;
	struct target_unit *u = &t->units[unit];
	if (t->root_fd < 0)
		fd = open_existing_part(t->to);
	else {
		/* a mount point at the unit itself is where the bytes go */
		int rc = beneath_deepest(t->root_fd, u->folder, !t->to, &fd, err);
		if (rc)
			return rc;
		if (*u->name && place_is_mount(fd, u->name)) {
			int mounted = openat(
			    fd, u->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (mounted >= 0) {
				close(fd);
				fd = mounted;
			}
		}
	}
	struct statvfs vfs;
	struct stat st;
	if (fd < 0 || fstatvfs(fd, &vfs) || fstat(fd, &st))
		return im_fail_errno(
		    err, IM_EIO, errno, "cannot ask for the free space of the target");
	*ret_free_bytes = (uint64_t)(geteuid() ? vfs.f_bavail : vfs.f_bfree) * vfs.f_frsize;
	*ret_device = st.st_dev;
	return 0;
}

static int begin_group(struct target *t, struct target_group *g, struct im_error *err)
{
	struct target_unit *u = &t->units[g->outer];
	char name[NAME_MAX + 1];
	auto_close int fd = -1;
	int rc = beneath_folder(t->root_fd, u->folder, !t->to, true, &fd, &g->folders_made, err);
	if (rc)
		return rc;
	g->inside = !*u->name || place_is_mount(fd, u->name);
	if (g->inside && *u->name) {
		int mounted = openat(fd, u->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (mounted < 0)
			return im_fail_errno(err, IM_EIO, errno, "cannot open /%s", u->path);
		close(fd);
		fd = mounted;
	}
	g->parent_fd = TAKE_FD(fd);
	im_stage_name(name, g->inside ? NULL : u->name, t->suffix);
	auto_free char *where = im_format(
	    "%s/%s", t->to ? t->to : "", g->inside ? u->path : u->folder);
	return stage_open(&g->stage, g->parent_fd, name, where ? where : u->path, err);
}

int target_begin(struct target *t, struct im_error *err)
{
	if (t->root_fd < 0) {
		int rc = im_mkdirs(t->to, 0755, err);
		if (rc)
			return rc;
		t->root_fd = open(t->to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (t->root_fd < 0)
			return im_fail_errno(err, IM_EIO, errno, "cannot open %s", t->to);
		char *plain = realpath(t->to, NULL); /* it may have been relative, and through ".." */
		if (plain) {
			free(t->to);
			t->to = plain;
		}
	}
	int rc = 0;
	for (size_t i = 0; i < t->group_count && rc == 0; i++)
		rc = begin_group(t, &t->groups[i], err);
	return rc;
}

static int begin_group_again(struct target *t, struct target_group *g, struct im_error *err)
{
	const struct target_unit *u = &t->units[g->outer];
	char name[NAME_MAX + 1];
	auto_close int fd = -1;
	int rc = beneath_folder(t->root_fd, u->folder, !t->to, false, &fd, NULL, err);
	if (rc)
		return rc;
	g->parent_fd = TAKE_FD(fd);
	return stage_open_again(&g->stage, g->parent_fd, im_stage_name(name, u->name, t->suffix), err);
}

int target_begin_again(struct target *t, struct im_error *err)
{
	int rc = t->root_fd < 0 ? im_fail(err, IM_ENOTFOUND, "%s is not there", t->to) : 0;
	for (size_t i = 0; i < t->group_count && rc == 0; i++)
		rc = begin_group_again(t, &t->groups[i], err);
	return rc;
}

int target_root_fd(const struct target *t, size_t unit)
{
	return t->groups[t->units[unit].group].stage.root_fd;
}

bool target_is_covered(const struct target *t, size_t unit, const char *path)
{
	const struct target_unit *u = &t->units[unit];
	for (size_t i = 0; i < t->unit_count; i++) {
		const struct target_unit *o = &t->units[i];
		if (i == unit || o->group != u->group || strlen(o->path) <= strlen(u->path))
			continue;
		if (target_holds(o->path, path))
			return true;
		size_t n = strlen(o->folder);
		for (size_t j = 0; j < o->beside_count; j++)
			if (!strncmp(path, o->folder, n) && path[n] == '/' &&
			    !strcmp(path + n + 1, o->beside[j]))
				return true;
	}
	return false;
}

char *target_place(const struct target *t, const char *path)
{
	return im_format("%s%s", t->to && strcmp(t->to, "/") ? t->to : "", path);
}

size_t target_whole_count(const struct target *t)
{
	return t->group_count;
}

int target_get_whole(const struct target *t, size_t i, struct target_whole *ret, struct im_error *err)
{
	const struct target_group *g = &t->groups[i];
	const struct target_unit *u = &t->units[g->outer];
	auto_free char *path = im_format("/%s", u->path), *folder = im_format("%s%s", *u->folder ? "/" : "", u->folder);
	auto_free char *above = path && folder ? target_place(t, g->inside ? path : folder) : NULL;
	*ret = (struct target_whole){ .unit = g->outer, .is_folder = u->is_folder, .is_mount = g->inside, .parent_fd = g->parent_fd,
		.stage_fd = g->stage.fd, .root_fd = g->stage.root_fd };
	ret->target = path ? target_place(t, path) : NULL;
	ret->original = TAKE_PTR(path);
	ret->stage = above ? im_format("%s/%s", above, g->stage.name) : NULL;
	ret->staged = ret->stage ? im_format("%s/root/%s", ret->stage, u->path) : NULL;
	if (ret->target && ret->staged)
		return 0;
	target_whole_clear(ret);
	return im_fail(err, IM_ENOMEM, "out of memory");
}

bool target_owns(const struct target *t, const char *path, const char *name)
{
	for (size_t i = 0; i < t->unit_count; i++) {
		const struct target_unit *u = &t->units[i];
		if (u->is_folder || strcmp(u->folder, path + 1) != 0)
			continue;
		if (!strcmp(u->name, name))
			return true;
		for (size_t j = 0; j < u->beside_count; j++)
			if (!strcmp(u->beside[j], name))
				return true;
	}
	return false;
}

void target_whole_clear(struct target_whole *w)
{
	free(w->original);
	free(w->target);
	free(w->stage);
	free(w->staged);
	*w = (struct target_whole){ .parent_fd = -1, .stage_fd = -1, .root_fd = -1 };
}

const char *target_stamp(const struct target *t)
{
	return t->stamp;
}

int target_sync(struct target *t, struct im_error *err)
{
	for (size_t i = 0; i < t->group_count; i++)
		if (t->groups[i].stage.fd >= 0 && syncfs(t->groups[i].stage.fd))
			return im_fail_errno(
			    err, IM_EIO, errno, "cannot make the restored files durable");
	return 0;
}
