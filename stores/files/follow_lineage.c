/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A path that no record named before holds a file from before the log: its line is made when it is
 * first named, so that what replaces or removes it is known to have done so.
 */
#include "stores/files/follow_lineage.h"

#include <stdlib.h>
#include <string.h>

static int add_line(struct files_lineage *l, const char *path, bool before, uint32_t *ret, struct im_error *err)
{
	if (l->count == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		struct files_line *grown = realloc(l->lines, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory for the files of a log");
		l->lines = grown;
		l->cap = cap;
	}
	if (l->count >= UINT32_MAX - 2)
		return im_fail(err, IM_ECORRUPT, "a log names too many files");
	struct files_line *line = &l->lines[l->count];
	*line = (struct files_line){ .path = strdup(path), .origin = before ? strdup(path) : NULL };
	*ret = (uint32_t)l->count++;
	if (!line->path || (before && !line->origin))
		return im_fail(err, IM_ENOMEM, "out of memory for the files of a log");
	int rc = files_names_put(&l->now, path, *ret, err);
	return rc || !before ? rc : files_names_put(&l->origins, path, *ret, err);
}

/* The line at path. */
static int find(struct files_lineage *l, const char *path, uint32_t *ret, struct im_error *err)
{
	*ret = files_names_get(&l->now, path);
	if (*ret != FILES_NO_LINE || files_names_get(&l->origins, path) != FILES_NO_LINE)
		return 0;
	return add_line(l, path, true, ret, err);
}

static void end_line(struct files_lineage *l, uint32_t number)
{
	if (number == FILES_NO_LINE)
		return;
	struct files_line *line = &l->lines[number];
	files_names_drop(&l->now, line->path);
	free(line->path);
	line->path = NULL;
}

static int move_line(struct files_lineage *l, uint32_t number, const char *to, struct im_error *err)
{
	uint32_t there;
	int rc = find(l, to, &there, err);
	char *path = rc ? NULL : strdup(to);
	if (!path)
		return rc ? rc : im_fail(err, IM_ENOMEM, "out of memory for the files of a log");
	end_line(l, there);
	end_line(l, number);
	l->lines[number].path = path;
	return files_names_put(&l->now, to, number, err);
}

int files_lineage_take(
    struct files_lineage *l, const struct files_log_record *record, uint32_t *ret, struct im_error *err)
{
	*ret = FILES_NO_LINE;
	if (record->type == FILES_LOG_END || record->type == FILES_LOG_FOLDER)
		return 0;
	int rc = find(l, record->path, ret, err);
	if (rc)
		return rc;
	switch (record->type) {
	case FILES_LOG_BEGIN: end_line(l, *ret); return add_line(l, record->path, false, ret, err);
	case FILES_LOG_GONE: end_line(l, *ret); return 0;
	case FILES_LOG_MOVED: return *ret == FILES_NO_LINE ? 0 : move_line(l, *ret, record->to, err);
	default: return 0;
	}
}

void files_lineage_clear(struct files_lineage *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->lines[i].origin);
		free(l->lines[i].path);
	}
	free(l->lines);
	files_names_clear(&l->now);
	files_names_clear(&l->origins);
	*l = (struct files_lineage){ 0 };
}
