/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns are fnmatch's. One without '/' is compared with names, one with '/' with the path
 * relative to the store (where '*' stops at '/'); a trailing '/' limits it to folders. Nothing is
 * excluded by accident: an absolute path is first resolved, since the configuration may reach it
 * through a symbolic link.
 */
#include "stores/files/exclude.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "stores/store.h"

#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct gather {
	struct files_exclude *x;
	char *root; /* resolved */
	int rc;
};

int files_exclude_add_path(struct files_exclude *x, const char *path, struct im_error *err)
{
	for (size_t i = 0; i < x->path_count; i++)
		if (!strcmp(x->paths[i], path))
			return 0;
	char **grown = realloc(x->paths, (x->path_count + 1) * sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	x->paths = grown;
	if (!(x->paths[x->path_count] = strdup(path)))
		return im_fail(err, IM_ENOMEM, "out of memory");
	x->path_count++;
	return 0;
}

/* Keeps absolute if it lies strictly below the root. */
static void add_absolute(struct gather *g, const char *absolute)
{
	size_t n = strlen(g->root);
	if (strcmp(g->root, "/") == 0)
		n = 0;
	if (strncmp(absolute, g->root, n) == 0 && absolute[n] == '/' && absolute[n + 1])
		if (files_exclude_add_path(g->x, absolute + n + 1, NULL))
			g->rc = IM_ENOMEM;
}

/* Both the name itself and what it leads to, if it is a link. The file may not exist (a -wal). */
static void add_any(void *context, const char *path)
{
	struct gather *g = context;
	char resolved[PATH_MAX];
	if (!path || path[0] != '/')
		return;
	if (realpath(path, resolved))
		add_absolute(g, resolved);
	const char *slash = strrchr(path, '/');
	auto_free char *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (folder && realpath(folder, resolved)) {
		auto_free char *whole = im_path_join(strcmp(resolved, "/") ? resolved : "", slash + 1);
		if (whole)
			add_absolute(g, whole);
	}
}

static void add_others(struct gather *g, const struct im_config *config, const struct im_config_store *store)
{
	for (size_t i = 0; i < config->store_count; i++) {
		const struct im_config_store *other = &config->stores[i];
		const struct store_ops *ops = store_find(other->type);
		if (strcmp(other->name, store->name) && ops && ops->own_files)
			ops->own_files(other, add_any, g);
	}
	add_any(g, config->state_dir);
	const char *url = config->vault_url;
	add_any(g, url && !strncmp(url, "file://", 7) ? url + 7 : url);
}

static int take_patterns(
    struct files_exclude *x, const struct im_config_store *store, const char *key, struct im_error *err)
{
	x->patterns = calloc(store->pair_count + 1, sizeof *x->patterns);
	if (!x->patterns)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < store->pair_count; i++)
		if (!strcmp(store->pairs[i].key, key))
			x->patterns[x->pattern_count++] = store->pairs[i].value;
	return 0;
}

int files_exclude_init_key(
    struct files_exclude *ret, const struct im_config_store *store, const char *key, struct im_error *err)
{
	*ret = (struct files_exclude){ 0 };
	return take_patterns(ret, store, key, err);
}

int files_exclude_init(struct files_exclude *ret, const struct im_config *config, const struct im_config_store *store,
    struct im_error *err)
{
	struct files_exclude x = { 0 };
	int rc = take_patterns(&x, store, "exclude", err);
	auto_free char *root = rc || !config ? NULL : realpath(store->path, NULL);
	if (root) {
		struct gather g = { .x = &x, .root = root };
		add_others(&g, config, store);
		if (g.rc)
			rc = im_fail(err, g.rc, "out of memory");
	}
	if (rc) {
		files_exclude_clear(&x);
		return rc;
	}
	*ret = x;
	return 0;
}

static bool match_pattern(const char *pattern, const char *path, bool is_folder)
{
	char text[PATH_MAX];
	size_t len = strlen(pattern);
	if (len >= sizeof text)
		return false;
	memcpy(text, pattern, len + 1);
	if (len > 1 && text[len - 1] == '/') {
		if (!is_folder)
			return false;
		text[len - 1] = 0;
	}
	if (text[0] == '/')
		return !fnmatch(text + 1, path, FNM_PATHNAME);
	if (strchr(text, '/'))
		return !fnmatch(text, path, FNM_PATHNAME);
	const char *slash = strrchr(path, '/');
	return !fnmatch(text, slash ? slash + 1 : path, 0);
}

bool files_exclude_match(const struct files_exclude *x, const char *path, bool is_folder)
{
	if (!x)
		return false;
	for (size_t i = 0; i < x->path_count; i++)
		if (!strcmp(x->paths[i], path))
			return true;
	for (size_t i = 0; i < x->pattern_count; i++)
		if (match_pattern(x->patterns[i], path, is_folder))
			return true;
	return false;
}

void files_exclude_clear(struct files_exclude *x)
{
	for (size_t i = 0; i < x->path_count; i++)
		free(x->paths[i]);
	free(x->paths);
	free(x->patterns);
	*x = (struct files_exclude){ 0 };
}
