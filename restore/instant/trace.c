/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trace names files by their original paths: they may have other numbers next time.
 */
#include "restore/instant/trace.h"

#include "base/clock.h"
#include "vault/trace.h"

#include <stdlib.h>
#include <string.h>

static json_t *encode(const struct content *c, const struct table *t)
{
	uint32_t count = t->head->trace_count < TABLE_TRACE_MAX ? t->head->trace_count : TABLE_TRACE_MAX;
	json_t *paths = json_array(), *touches = json_array();
	int *place = calloc(t->head->file_count ? t->head->file_count : 1, sizeof *place); /* in paths, + 1 */
	for (uint32_t i = 0; place && i < count; i++) {
		const struct table_touch *x = &t->head->trace[i];
		if (x->file >= t->head->file_count)
			continue;
		if (!place[x->file]) {
			json_array_append_new(paths, json_string(content_file(c, x->file)->writer.path));
			place[x->file] = (int)json_array_size(paths);
		}
		json_array_append_new(touches, json_pack("[i, I]", place[x->file] - 1, (json_int_t)x->block));
	}
	free(place);
	return json_pack("{s:i, s:o, s:o}", "block_bytes", (int)TABLE_BLOCK_BYTES, "paths", paths, "touches", touches);
}

int trace_keep(const struct vault *v, const char *node, const struct content *c, const struct table *t, struct im_error *err)
{
	json_t *all = t->head->trace_count ? encode(c, t) : NULL;
	int rc = all ? trace_write(v, node, im_now_ms(), all, err) : 0;
	json_decref(all);
	return rc;
}

static uint32_t find_path(const struct content *c, const char *path)
{
	for (uint32_t i = 0; path && i < content_count(c); i++)
		if (strcmp(content_file(c, i)->writer.path, path) == 0)
			return i;
	return UINT32_MAX;
}

static size_t decode(const json_t *all, const struct content *c, const struct table *t, struct table_touch *ret, size_t max)
{
	const json_t *paths = json_object_get(all, "paths"), *touches = json_object_get(all, "touches");
	size_t path_count = json_array_size(paths), n = 0;
	uint32_t *files = malloc((path_count ? path_count : 1) * sizeof *files);
	for (size_t i = 0; files && i < path_count; i++)
		files[i] = find_path(c, json_string_value(json_array_get(paths, i)));
	for (size_t i = 0; files && i < json_array_size(touches) && n < max; i++) {
		const json_t *x = json_array_get(touches, i);
		json_int_t path = json_integer_value(json_array_get(x, 0)), block = json_integer_value(json_array_get(x, 1));
		if (path < 0 || (size_t)path >= path_count || files[path] == UINT32_MAX || block < 0 || block >= t->files[files[path]].blocks)
			continue;
		ret[n++] = (struct table_touch){ files[path], (uint32_t)block };
	}
	free(files);
	return n;
}

int trace_recall(const struct vault *v, const char *node, const struct content *c, const struct table *t, struct table_touch **ret,
    size_t *ret_count, struct im_error *err)
{
	json_t *all = NULL;
	struct im_error why = { 0 };
	*ret = NULL;
	*ret_count = 0;
	int rc = trace_read(v, node, &all, &why);
	if (rc == IM_ENOTFOUND)
		return 0;
	if (rc)
		return im_fail(err, rc, "%s", why.text);
	if (json_integer_value(json_object_get(all, "block_bytes")) == TABLE_BLOCK_BYTES) {
		*ret = malloc(TABLE_TRACE_MAX * sizeof **ret);
		*ret_count = *ret ? decode(all, c, t, *ret, TABLE_TRACE_MAX) : 0;
	}
	json_decref(all);
	return 0;
}
