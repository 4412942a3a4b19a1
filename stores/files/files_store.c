/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vtable of the store kind `files`, and the check of its configuration.
 */
#include "stores/files/files_store.h"

#include "base/clock.h"
#include "stores/files/follow.h"
#include "stores/files/hooks.h"

#include <string.h>

static const char *const keys[] = { "exclude", "follow", "pre", "post", "hook_timeout", NULL };

static int validate(const struct im_config_store *store, struct im_error *err)
{
	int64_t timeout_ms;
	if (store->path[0] != '/')
		return im_fail(err, IM_EUSAGE, "store %s: path must be absolute", store->name);
	for (size_t i = 0; i < store->pair_count; i++) {
		const struct im_config_pair *p = &store->pairs[i];
		if (!p->value[0])
			return im_fail(err, IM_EUSAGE, "store %s: %s has no value", store->name, p->key);
		if (!strcmp(p->key, "hook_timeout") && (!im_duration_parse(p->value, &timeout_ms) || timeout_ms <= 0))
			return im_fail(err, IM_EUSAGE,
			    "store %s: hook_timeout = %s is not a duration (like 90s or 10m)", store->name, p->value);
		if (!strcmp(p->key, "exclude") && (!strcmp(p->value, "*") || !strcmp(p->value, "/")))
			return im_fail(
			    err, IM_EUSAGE, "store %s: exclude = %s would leave everything out", store->name, p->value);
		if (!strcmp(p->key, "follow") && p->value[strlen(p->value) - 1] == '/')
			return im_fail(err, IM_EUSAGE, "store %s: follow = %s names folders; it must name files", store->name,
			    p->value);
	}
	return 0;
}

/* A tree inside another files store is stored once: under its own name. */
static void own_files(const struct im_config_store *store, void (*fn)(void *context, const char *path), void *context)
{
	fn(context, store->path);
}

const struct store_ops files_store_ops = {
	.type = "files",
	.keys = keys,
	.validate = validate,
	.snapshot = files_snapshot,
	.plan = files_plan,
	.complete = files_complete,
	.finish = files_finish,
	.check = files_check,
	.export_tar = files_export_tar,
	.own_files = own_files,
	.each_entry = files_each_entry,
	.follow = &files_follow_ops,
	.explain = files_explain,
};
