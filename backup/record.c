/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot's JSON (docs/FORMAT.md §5), and the memory of each store's last image, by which a
 * store that is left out this time keeps its place in the snapshot. That memory holds references
 * and figures, never content.
 */
#include "backup/internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_STORE "@backup" /* no store can have this name */

static void free_json(json_t **j)
{
	json_decref(*j);
}
#define auto_json IM_CLEANUP(free_json)

static json_t *instant_json(int64_t ms)
{
	char text[IM_INSTANT_BYTES];
	return json_string(im_instant_format(text, ms));
}

char *backup_pack_table(const struct pack_info *packs, size_t count)
{
	auto_buf struct im_buf b = { 0 };
	for (size_t i = 0; i < count; i++) {
		im_buf_put_u32(&b, packs[i].number);
		im_buf_put_u32(&b, (uint32_t)packs[i].size_bytes);
		im_buf_put(&b, packs[i].name, 32);
		im_buf_put(&b, packs[i].commitment, 32);
	}
	return b.failed ? NULL : im_base64(b.data, b.len);
}

static json_t *numbers_json(const uint32_t *numbers, size_t count)
{
	auto_buf struct im_buf b = { 0 };
	for (size_t i = 0; i < count; i++)
		im_buf_put_u32(&b, numbers[i]);
	auto_free char *text = b.failed ? NULL : im_base64(b.data, b.len);
	return text ? json_string(text) : NULL;
}

/* Error texts may quote file names of any bytes. */
static json_t *text_json(const char *text)
{
	json_t *j = json_string(text);
	auto_free char *plain = j ? NULL : strdup(text);
	for (char *p = plain; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return j ? j : json_string(plain ? plain : "out of memory");
}

static json_t *store_meta(const struct backup_image *image, const struct backup_store *row)
{
	json_t *j = json_pack("{ss ss ss ss}", "name", row->name, "type", row->type, "path", row->path, "status", row->status);
	if (!j)
		return NULL;
	int bad = 0;
	if (row->error) {
		json_object_set_new(j, "error", text_json(row->error));
		return j;
	}
	bad |= json_object_set_new(j, "instant", instant_json(row->instant_ms));
	bad |= json_object_set_new(j, "bytes", json_integer((json_int_t)row->bytes));
	bad |= json_object_set_new(j, "bytes_read", json_integer((json_int_t)row->bytes_read));
	bad |= json_object_set_new(j, "bytes_changed", json_integer((json_int_t)row->bytes_changed));
	if (json_is_integer(json_object_get(image->result.manifest, "files")))
		bad |= json_object_set(j, "files", json_object_get(image->result.manifest, "files"));
	bad |= json_object_set_new(j, "packs", numbers_json(image->result.packs, image->result.pack_count));
	if (row->pause_us >= 0)
		bad |= json_object_set_new(j, "pause_us", json_integer(row->pause_us));
	if (row->partial)
		bad |= json_object_set_new(j, "partial", json_true());
	if (row->carried)
		bad |= json_object_set_new(j, "carried", json_true());
	if (image->result.log)
		bad |= json_object_set(j, "log", image->result.log);
	if (bad) {
		json_decref(j);
		return NULL;
	}
	return j;
}

int backup_remember(struct backup_run *run, const struct backup_image *image, const struct backup_store *row, struct im_error *err)
{
	auto_json json_t *j = json_pack("{so sO}", "meta", store_meta(image, row), "manifest", image->result.manifest);
	auto_free char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	if (!text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	return state_put(run->state, MEMORY_STORE, row->name, text, strlen(text), err);
}

static bool take_numbers(struct snapshot_result *image, const json_t *meta)
{
	auto_buf struct im_buf b = { 0 };
	const char *text = json_string_value(json_object_get(meta, "packs"));
	if (!text || !im_unbase64(&b, text) || b.len % 4)
		return false;
	image->pack_count = b.len / 4;
	image->packs = calloc(image->pack_count + 1, sizeof *image->packs);
	for (size_t i = 0; image->packs && i < image->pack_count; i++)
		image->packs[i] = im_le32(b.data + 4 * i);
	return image->packs != NULL;
}

int backup_carry_over(struct backup_run *run, struct backup_image *image, struct backup_store *row, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	int rc = state_get(run->state, MEMORY_STORE, row->name, &b, err);
	if (rc)
		return rc;
	auto_json json_t *j = json_loadb((const char *)b.data, b.len, 0, NULL);
	const json_t *meta = json_object_get(j, "meta"), *manifest = json_object_get(j, "manifest");
	const char *type = json_string_value(json_object_get(meta, "type"));
	const char *path = json_string_value(json_object_get(meta, "path"));
	const char *instant = json_string_value(json_object_get(meta, "instant"));
	if (!json_is_object(manifest) || !type || !path || !instant || strcmp(type, row->type) != 0 ||
	    strcmp(path, row->path) != 0 || !im_instant_parse(instant, &row->instant_ms) || !take_numbers(&image->result, meta))
		return IM_ENOTFOUND;
	image->result.manifest = json_incref((json_t *)manifest);
	image->result.log = json_incref(json_object_get(meta, "log"));
	row->bytes = (uint64_t)json_integer_value(json_object_get(meta, "bytes"));
	row->partial = json_is_true(json_object_get(meta, "partial"));
	row->carried = true;
	row->pause_us = -1;
	return 0;
}

/* So that another host with any key knows what is overdue: the configuration itself is sealed. */
static int describe_schedule(const struct im_config *c, json_t *meta)
{
	const struct { const char *name; int64_t ms; } all[] = { { "backup_ms", c->backup_every_ms }, { "verify_ms", c->verify_every_ms },
		{ "drill_ms", c->drill_every_ms }, { "report_ms", c->report_every_ms } };
	auto_json json_t *schedule = json_object();
	int bad = schedule ? 0 : -1;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (all[i].ms)
			bad |= json_object_set_new(schedule, all[i].name, json_integer(all[i].ms));
	return bad || !json_object_size(schedule) ? bad : json_object_set(meta, "schedule", schedule);
}

static int describe_run(const struct backup_run *run, json_t *meta)
{
	const struct backup_result *r = run->result;
	const struct im_config *c = run->config;
	char host[256] = "", hex[65];
	gethostname(host, sizeof host - 1);
	int bad = 0;
	bad |= json_object_set_new(meta, "kind", json_string("snapshot"));
	bad |= json_object_set_new(meta, "node", json_string(run->node));
	bad |= json_object_set_new(meta, "seq", json_integer((json_int_t)run->head.seq));
	bad |= json_object_set_new(meta, "epoch", json_string(run->state_head.epoch));
	if (run->head.has_prev)
		bad |= json_object_set_new(meta, "prev", json_string(im_hex(hex, run->head.prev, 32)));
	bad |= json_object_set_new(meta, "time", instant_json(r->instant_ms));
	bad |= json_object_set_new(meta, "started", instant_json(run->started_ms));
	bad |= json_object_set_new(meta, "duration_ms", json_integer(r->duration_ms));
	bad |= json_object_set_new(meta, "host", json_string(host));
	bad |= json_object_set_new(meta, "version", json_string(IMVAULT_VERSION));
	bad |= json_object_set_new(meta, "tier", json_string(c->tier));
	bad |= json_object_set_new(meta, "rto_ms", json_integer(c->rto_ms));
	if (c->rpo_ms)
		bad |= json_object_set_new(meta, "rpo_ms", json_integer(c->rpo_ms));
	bad |= describe_schedule(c, meta);
	bad |= json_object_set_new(meta, "bytes_read", json_integer((json_int_t)r->bytes_read));
	bad |= json_object_set_new(meta, "bytes_changed", json_integer((json_int_t)r->bytes_changed));
	bad |= json_object_set_new(meta, "bytes_stored", json_integer((json_int_t)r->bytes_stored));
	return bad;
}

/* The manifest under its store's name, whatever the store kind wrote there. */
static int add_manifest(json_t *list, const struct backup_store *row, json_t *manifest)
{
	int bad = json_object_set_new(manifest, "name", json_string(row->name));
	bad |= json_object_set_new(manifest, "type", json_string(row->type));
	bad |= json_object_set_new(manifest, "path", json_string(row->path));
	return bad | json_array_append(list, manifest);
}

int backup_write_record(struct backup_run *run, uint8_t ret_hash[32], struct im_error *err)
{
	auto_json json_t *meta = json_object();
	auto_json json_t *private_part = json_object();
	auto_json json_t *metas = json_array();
	auto_json json_t *manifests = json_array();
	auto_free char *table = backup_pack_table(run->packs, run->pack_count);
	int bad = describe_run(run, meta);
	bad |= json_object_set_new(meta, "packs", json_string(table ? table : ""));
	for (size_t i = 0; i < run->result->store_count; i++) {
		const struct backup_image *image = &run->images[i];
		bad |= json_array_append_new(metas, store_meta(image, &run->result->stores[i]));
		if (image->result.manifest)
			bad |= add_manifest(manifests, &run->result->stores[i], image->result.manifest);
	}
	bad |= json_object_set(meta, "stores", metas);
	bad |= json_object_set_new(private_part, "config", json_string(run->config->text));
	bad |= json_object_set(private_part, "stores", manifests);
	if (bad || !table)
		return im_fail(err, IM_ENOMEM, "cannot describe the snapshot: out of memory, or the configuration is not UTF-8");
	return snapshot_write(run->vault->storage, run->vault->keyring, meta, private_part, ret_hash, err);
}
