/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage is locked as long as one of imvault's processes works on it.
 */
#include "restore/instant/find.h"

#include "base/arriving.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mounts.h"
#include "restore/instant/fuse.h"
#include "restore/instant/stash.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

void found_clear(struct found_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].stage);
		json_decref(l->items[i].details);
	}
	free(l->items);
	*l = (struct found_list){ 0 };
}

static int add_stage(struct found_list *l, const char *stage, struct im_error *err)
{
	struct found f = { 0 };
	struct im_error why = { 0 };
	for (size_t i = 0; i < l->count; i++)
		if (!strcmp(l->items[i].stage, stage))
			return 0;
	int rc = record_read(stage, &f.phase, &f.details, &why);
	if (rc == IM_ENOTFOUND)
		return 0;
	if (rc)
		return im_fail(err, rc, "%s", why.text);
	struct found *grown = reallocarray(l->items, l->count + 1, sizeof *grown);
	if (grown)
		l->items = grown;
	f.stage = strdup(stage);
	if (!grown || !f.stage) {
		json_decref(f.details);
		free(f.stage);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	grown[l->count++] = f;
	return 0;
}

int found_add_path(struct found_list *l, const char *path, struct im_error *err)
{
	auto_free char *copy = realpath(path, NULL);
	int rc = 0;
	if (!copy)
		copy = strdup(path);
	for (char *slash; copy && rc == 0 && (slash = strrchr(copy, '/')); *slash = 0) {
		char name[NAME_MAX + 1];
		if (!slash[1])
			continue;
		*slash = 0;
		auto_free char *stage = im_format("%s/%s", copy, im_stage_name(name, slash + 1, IM_ARRIVING_SUFFIX));
		*slash = '/';
		rc = stage ? add_stage(l, stage, err) : im_fail(err, IM_ENOMEM, "out of memory");
	}
	return rc;
}

struct adding {
	struct found_list *list;
	struct im_error *err;
};

static int add_mount(void *context, const struct im_mount *m)
{
	static const char inside[] = IM_ARRIVING_SUFFIX "/root/";
	struct adding *a = context;
	struct im_error why = { 0 };
	int rc = 0;
	const char *in_stage = strstr(m->place, inside);
	if (in_stage) { /* an alias: mounted on its own stage */
		auto_free char *stage = strndup(m->place, (size_t)(in_stage - m->place) + strlen(IM_ARRIVING_SUFFIX));
		rc = stage ? add_stage(a->list, stage, &why) : im_fail(&why, IM_ENOMEM, "out of memory");
	} else if (strstr(m->root, inside) || strcmp(m->type, FUSE_VIEW_TYPE) == 0) {
		rc = found_add_path(a->list, m->place, &why);
	}
	/* another's record may be broken, or changing just now: the others count all the same */
	return rc == IM_ENOMEM ? im_fail(a->err, rc, "%s", why.text) : 0;
}

int found_add_mounted(struct found_list *l, struct im_error *err)
{
	struct adding a = { l, err };
	return im_mounts_each(0, add_mount, &a);
}

int found_complete(struct found_list *l, struct im_error *err)
{
	for (size_t i = 0; i < l->count; i++) {
		json_t *stages = json_object_get(l->items[i].details, "stages"), *row;
		size_t k;
		json_array_foreach(stages, k, row) {
			int rc = json_string_value(row) ? add_stage(l, json_string_value(row), err) : 0;
			if (rc)
				return rc;
		}
	}
	return 0;
}

void found_drop_switched(struct found_list *l)
{
	size_t kept = 0;
	for (size_t i = 0; i < l->count; i++) {
		if (l->items[i].phase != RECORD_SWITCHED) {
			l->items[kept++] = l->items[i];
			continue;
		}
		free(l->items[i].stage);
		json_decref(l->items[i].details);
	}
	l->count = kept;
}

static bool same_restore(const json_t *a, const json_t *b)
{
	return json_equal(json_object_get(a, "stages"), json_object_get(b, "stages"));
}

int found_check_one(const struct found_list *l, struct im_error *err)
{
	const struct found *first = NULL;
	for (size_t i = 0; i < l->count; i++) {
		const struct found *f = &l->items[i];
		if (f->phase == RECORD_SWITCHED)
			continue;
		if (first && !same_restore(first->details, f->details)) {
			const char *a = json_string_value(json_object_get(first->details, "target")), *b = json_string_value(json_object_get(f->details, "target"));
			return im_fail(err, IM_EUSAGE, "there is more than one instant restore here: name the folder, such as %s or %s", a ? a : first->stage, b ? b : f->stage);
		}
		first = first ? first : f;
	}
	return 0;
}

int found_arrangement(const struct found *f, struct arrangement *ret, struct im_error *err)
{
	const char *target = json_string_value(json_object_get(f->details, "target")), *staged = json_string_value(json_object_get(f->details, "staged"));
	json_t *moves = json_object_get(f->details, "moves");
	size_t n = strlen(f->stage);
	if (!target || !staged || target[0] != '/' || strncmp(staged, f->stage, n) != 0 || strncmp(staged + n, "/root/", 6) != 0 || !json_is_array(moves))
		return im_fail(err, IM_ECORRUPT, "the record in %s makes no sense", f->stage);
	*ret = (struct arrangement){ .cover = { strdup(target), strdup(staged) }, .stage = strdup(f->stage),
		.is_folder = json_is_true(json_object_get(f->details, "folder")), .moves = json_incref(moves) };
	if (ret->cover.target && ret->cover.staged && ret->stage)
		return 0;
	arrange_clear(ret);
	return im_fail(err, IM_ENOMEM, "out of memory");
}

int found_table(const struct found *f, bool writable, struct table *ret, struct im_error *err)
{
	auto_close int stash = -1;
	auto_free int *fds = NULL;
	size_t count = 0;
	stash_raise_limit(); /* all come out, or none */
	int rc = stash_find((uint64_t)json_integer_value(json_object_get(f->details, "stash")), &stash, err);
	if (rc == 0)
		rc = stash_look(stash, &fds, &count, err);
	if (rc == 0)
		rc = count >= 2 ? table_open(fds[count - 2], writable, ret, err) : im_fail(err, IM_EUSAGE, "the process that holds the restore holds something else");
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
	return rc;
}

bool found_is_at_work(const struct found *f)
{
	auto_close int fd = open(f->stage, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
}
