/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run will read, and in which order, decided and checked before anything is touched: a
 * mistake in the configuration must not show only after an hour of reading.
 */
#include "backup/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_keys(const struct im_config_store *s, const struct store_ops *ops, struct im_error *err)
{
	for (size_t i = 0; i < s->pair_count; i++) {
		bool known = false;
		for (const char *const *k = ops->keys; *k && !known; k++)
			known = strcmp(*k, s->pairs[i].key) == 0;
		if (!known)
			return im_fail(err, IM_EUSAGE, "store %s: a store of type %s has no key %s; see imvault.conf(5)", s->name,
			    s->type, s->pairs[i].key);
	}
	return 0;
}

static int check_store(const struct im_config_store *s, struct im_error *err)
{
	const struct store_ops *ops = store_find(s->type);
	if (!ops) {
		char kinds[200] = "";
		for (const struct store_ops *const *o = store_table(); *o; o++)
			snprintf(kinds + strlen(kinds), sizeof kinds - strlen(kinds), " %s", (*o)->type);
		return im_fail(err, IM_EUSAGE, "store %s: type = %s is unknown; there are:%s", s->name, s->type, kinds);
	}
	int rc = check_keys(s, ops, err);
	if (rc == 0 && ops->validate && (rc = ops->validate(s, err)))
		im_error_context(err, "store %s", s->name);
	return rc;
}

int backup_check_config(const struct im_config *config, struct im_error *err)
{
	json_t *text = json_string(config->text);
	json_decref(text);
	if (!text)
		return im_fail(err, IM_EUSAGE, "the configuration is not UTF-8 text; it could not travel with the snapshot");
	for (size_t i = 0; i < config->store_count; i++) {
		int rc = check_store(&config->stores[i], err);
		if (rc)
			return rc;
	}
	return 0;
}

/* Databases before files, so that no restored message points to a missing attachment; then by priority. */
static int reading_order(const void *a, const void *b)
{
	const struct im_config_store *x = ((const struct backup_image *)a)->store, *y = ((const struct backup_image *)b)->store;
	int by_kind = (strcmp(x->type, "files") == 0) - (strcmp(y->type, "files") == 0);
	if (by_kind)
		return by_kind;
	if (x->priority != y->priority)
		return x->priority - y->priority;
	return x < y ? -1 : x > y;
}

static bool is_selected(const struct backup_request *q, const char *name)
{
	if (!q->stores || !*q->stores)
		return true;
	for (const char *const *s = q->stores; *s; s++)
		if (strcmp(*s, name) == 0)
			return true;
	return false;
}

int backup_choose_stores(struct backup_run *run, struct im_error *err)
{
	const struct im_config *c = run->config;
	for (const char *const *s = run->request->stores; s && *s; s++)
		if (!im_config_find_store(c, *s))
			return im_fail(err, IM_EUSAGE, "the configuration has no store named %s", *s);
	if (!c->store_count)
		return im_fail(err, IM_EUSAGE, "the configuration has no [store NAME] section: there is nothing to back up");
	struct backup_result *r = run->result;
	run->images = calloc(c->store_count, sizeof *run->images);
	r->stores = calloc(c->store_count, sizeof *r->stores);
	if (!run->images || !r->stores)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < c->store_count; i++)
		run->images[i] = (struct backup_image){ .store = &c->stores[i], .selected = is_selected(run->request, c->stores[i].name) };
	qsort(run->images, c->store_count, sizeof *run->images, reading_order);
	for (size_t i = 0; i < c->store_count; i++, r->store_count++) {
		const struct im_config_store *s = run->images[i].store;
		r->stores[i] = (struct backup_store){ .name = strdup(s->name), .type = strdup(s->type), .path = strdup(s->path),
			.status = "failed", .pause_us = -1 };
		if (!r->stores[i].name || !r->stores[i].type || !r->stores[i].path)
			return im_fail(err, IM_ENOMEM, "out of memory");
	}
	return 0;
}
