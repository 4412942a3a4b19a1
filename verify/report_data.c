/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathering: the node's records, snapshots, logs and the vault's sizes. Nothing here needs more than
 * the meta parts. What cannot be read or believed becomes a finding, so that one damaged object
 * never costs the whole report.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "verify/report_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct im_error *err)
{
	return im_fail(err, IM_ENOMEM, "out of memory for the report");
}

static int add_finding(struct report *r, const char *text, struct im_error *err)
{
	auto_free char *copy = strdup(text);
	char **grown = copy ? reallocarray(r->findings, r->finding_count + 1, sizeof *grown) : NULL;
	if (!grown)
		return no_memory(err);
	r->findings = grown;
	grown[r->finding_count++] = TAKE_PTR(copy);
	return 0;
}

/* --- snapshots --- */

static struct report_store *store_of(struct report *r, const char *name, struct im_error *err)
{
	for (size_t i = 0; i < r->store_count; i++)
		if (strcmp(r->stores[i].name, name) == 0)
			return &r->stores[i];
	auto_free char *copy = strdup(name);
	struct report_store *grown = copy ? reallocarray(r->stores, r->store_count + 1, sizeof *grown) : NULL;
	if (!grown) {
		no_memory(err);
		return NULL;
	}
	r->stores = grown;
	grown[r->store_count] = (struct report_store){ .name = TAKE_PTR(copy) };
	return &grown[r->store_count++];
}

static int take_image(struct report *r, const json_t *meta, int64_t snapshot_ms, struct im_error *err)
{
	const char *name = json_string_value(json_object_get(meta, "name"));
	const char *status = json_string_value(json_object_get(meta, "status")), *instant = json_string_value(json_object_get(meta, "instant"));
	int64_t at_ms = snapshot_ms;
	if (!name)
		return 0;
	struct report_store *s = store_of(r, name, err);
	if (!s)
		return IM_ENOMEM;
	if (!status || strcmp(status, "ok") != 0 || json_is_true(json_object_get(meta, "carried")))
		return 0;
	if (instant)
		im_instant_parse(instant, &at_ms);
	int64_t *grown = reallocarray(s->images, s->image_count + 1, sizeof *grown);
	if (!grown)
		return no_memory(err);
	s->images = grown;
	grown[s->image_count++] = at_ms;
	return 0;
}

static uint64_t figure(const json_t *object, const char *name)
{
	json_int_t v = json_integer_value(json_object_get(object, name));
	return v > 0 ? (uint64_t)v : 0;
}

static int take_snapshot(struct report *r, const struct snapshot *s, struct im_error *err)
{
	struct report_snapshot *grown = reallocarray(r->snapshots, r->snapshot_count + 1, sizeof *grown);
	if (!grown)
		return no_memory(err);
	r->snapshots = grown;
	struct report_snapshot *row = &grown[r->snapshot_count++];
	*row = (struct report_snapshot){ .seq = s->seq, .time_ms = s->time_ms, .changed_bytes = figure(s->record.meta, "bytes_changed"),
		.stored_bytes = figure(s->record.meta, "bytes_stored") };
	size_t i;
	json_t *store;
	r->newest_store_count = json_array_size(json_object_get(s->record.meta, "stores"));
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, store) {
		int rc = take_image(r, store, s->time_ms, err);
		if (rc)
			return rc;
		r->snapshots[r->snapshot_count - 1].source_bytes += figure(store, "bytes");
	}
	return 0;
}

static int read_snapshot(struct report *r, const struct snapshot_name *name, struct log_images *images, struct snapshot **newest, struct im_error *err)
{
	struct snapshot *s = NULL;
	struct im_error why = { 0 };
	int rc = im_interrupt_check(err);
	if (rc)
		return rc;
	rc = snapshot_read(r->vault->storage, r->vault->keyring, name, &s, &why);
	if (rc == IM_ECORRUPT || rc == IM_EKEY || rc == IM_ENOTFOUND || rc == IM_EIO)
		return 0; /* a finding of the chain */
	if (rc)
		return im_fail(err, rc, "%s", why.text);
	rc = take_snapshot(r, s, err);
	if (rc == 0)
		rc = log_images_take(images, s, err);
	snapshot_free(*newest);
	*newest = s;
	return rc;
}

struct finder {
	struct report *r;
	struct im_error *err;
	int rc;
};

static void take_finding(void *context, const char *object, const char *text)
{
	struct finder *f = context;
	auto_free char *sentence = im_format("%s: %s", object, text);
	if (f->rc == 0)
		f->rc = sentence ? add_finding(f->r, sentence, f->err) : no_memory(f->err);
}

static int read_snapshots(struct report *r, const struct report_request *request, struct im_error *err)
{
	struct log_images images = { 0 };
	struct snapshot_list list = { 0 };
	struct snapshot *newest = NULL;
	struct finder finder = { .r = r, .err = err };
	int rc = snapshot_list(r->vault->storage, r->node, &list, err);
	for (size_t i = 0; rc == 0 && i < list.count; i++)
		rc = read_snapshot(r, &list.items[i], &images, &newest, err);
	if (rc == 0)
		rc = snapshot_check_chain(r->vault->storage, r->vault->keyring, r->node, take_finding, &finder, err);
	if (rc == 0)
		rc = finder.rc;
	if (rc == 0)
		rc = log_windows_read(r->vault->storage, r->vault->keyring, r->node, &images, &r->windows, err);
	if (rc == 0 && newest) {
		struct im_error why = { 0 };
		r->summary.rto_ms = request->rto_ms ? request->rto_ms : (int64_t)figure(newest->record.meta, "rto_ms");
		r->summary.rpo_ms = request->rpo_ms ? request->rpo_ms : (int64_t)figure(newest->record.meta, "rpo_ms");
		r->summary.has_forecast =
		    forecast_of_node(r->vault, newest, FORECAST_NOW, &r->drills, request->target, false, &r->forecast, &why) == 0;
	}
	snapshot_free(newest);
	snapshot_list_clear(&list);
	log_images_clear(&images);
	return rc;
}

/* A log may hold stores that no readable snapshot names. */
static int name_followed_stores(struct report *r, struct im_error *err)
{
	for (size_t i = 0; i < r->windows.count; i++)
		if (!store_of(r, r->windows.items[i].store, err))
			return IM_ENOMEM;
	return 0;
}

/* --- the vault --- */

static int add_object(void *context, const char *name, uint64_t size_bytes)
{
	static const char *const folders[] = { [REPORT_PACKS] = "packs/", [REPORT_INDEX] = "index/", [REPORT_SNAPSHOTS] = "snapshots/",
		[REPORT_LOGS] = "logs/", [REPORT_DRILLS] = "drills/", [REPORT_TRACES] = "traces/", [REPORT_RUNS] = "runs/",
		[REPORT_KEYS] = "keys/", [REPORT_OTHER] = "" };
	struct report *r = context;
	int kind = 0;
	while (strncmp(name, folders[kind], strlen(folders[kind])) != 0)
		kind++;
	r->kinds[kind].bytes += size_bytes;
	r->kinds[kind].objects++;
	return 0;
}

/* Nothing of this node in a vault of others: a slip of the pen, not an empty vault. */
static int check_node(const struct report *r, struct im_error *err)
{
	bool others = r->kinds[REPORT_SNAPSHOTS].objects || r->kinds[REPORT_DRILLS].objects;
	if (r->snapshot_count || r->drills.count || r->finding_count || !others)
		return 0;
	return im_fail(err, IM_ENOTFOUND, "the vault has nothing of node %s; imvault list names the nodes it has", r->node);
}

static int gather(struct report *r, const struct report_request *request, struct im_error *err)
{
	int rc = drills_read(r->vault, r->node, &r->drills, err);
	for (size_t i = 0; rc == 0 && i < r->drills.finding_count; i++)
		rc = add_finding(r, r->drills.findings[i], err);
	if (rc == 0)
		rc = read_snapshots(r, request, err);
	if (rc == 0)
		rc = name_followed_stores(r, err);
	if (rc == 0)
		rc = storage_list(r->vault->storage, "", add_object, r, err);
	return rc ? rc : check_node(r, err);
}

int report_gather(const struct vault *v, const struct report_request *request, struct report **ret, struct im_error *err)
{
	struct report *r = calloc(1, sizeof *r);
	if (!r)
		return no_memory(err);
	*r = (struct report){ .vault = v, .node = strdup(request->node), .now_ms = im_now_ms(), .drill_every_ms = request->drill_every_ms,
		.has_private = v->key && v->key->role == KEY_RESTORE,
		.summary = { .rto_ms = request->rto_ms, .rpo_ms = request->rpo_ms } };
	int rc = r->node ? gather(r, request, err) : no_memory(err);
	if (rc) {
		report_free(r);
		return rc;
	}
	report_judge(r);
	*ret = r;
	return 0;
}

void report_free(struct report *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->store_count; i++) {
		free(r->stores[i].name);
		free(r->stores[i].images);
	}
	for (size_t i = 0; i < r->finding_count; i++)
		free(r->findings[i]);
	free(r->findings);
	free(r->stores);
	free(r->snapshots);
	drill_list_clear(&r->drills);
	log_windows_clear(&r->windows);
	free(r->node);
	free(r);
}

const struct report_summary *report_summary_of(const struct report *r)
{
	return &r->summary;
}

const char *report_finding(const struct report *r, size_t i)
{
	return r->findings[i];
}
