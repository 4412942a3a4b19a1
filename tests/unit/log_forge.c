/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forge. Everything goes through the project's own writers, so that what restore reads is what
 * a follower would have written.
 */
#include "log_forge.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "stores/sqlite/logbody.h"
#include "vault/storage/storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <unistd.h>

static struct im_error err;

static uint32_t pages_of(const struct forge *f, uint32_t point)
{
	return (uint32_t)(f->points[point].content.len / f->page_size);
}

static const uint8_t *page_at(const struct forge *f, uint32_t point, uint32_t page)
{
	return page < pages_of(f, point) ? f->points[point].content.data + (size_t)page * f->page_size : NULL;
}

static bool differs(const struct forge *f, uint32_t a, uint32_t b, uint32_t page)
{
	const uint8_t *x = page_at(f, a, page), *y = page_at(f, b, page);
	return !x || !y ? x != y : memcmp(x, y, f->page_size) != 0;
}

static void add_hash(const struct forge *f, uint8_t sum[16], const uint8_t *page, uint32_t number)
{
	uint8_t hash[16];
	if (!page)
		return;
	crypto_page_hash(hash, f->page_key, page, f->page_size, number);
	for (unsigned i = 0; i < 16; i++)
		sum[i] ^= hash[i];
}

static void read_database(const char *path, struct im_buf *ret)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	assert_ok(im_file_read(path, SIZE_MAX, ret, &err), &err);
}

static json_t *meta_of(const struct forge *f, uint32_t first, uint32_t last, uint32_t part, bool final, unsigned level)
{
	json_t *points = json_array();
	for (uint32_t i = level ? last : first; i <= last; i++)
		json_array_append_new(points, json_pack("[II]", (json_int_t)f->points[i].ms, (json_int_t)f->points[i].ms));
	char sum[33];
	return json_pack("{ss ss ss ss ss si si si sb si so s{si si ss} si ss ss si si}", "kind", "segment", "node", "im-01", "store", f->store,
	    "type", "sqlite", "epoch", f->epoch, "first", (int)first, "last", (int)last, "part", (int)part, "final", (int)final, "level", (int)level,
	    "points", points, "position", "page_size", (int)f->page_size, "pages", (int)pages_of(f, last), "sum",
	    im_hex(sum, f->points[last].sum, 16), "snapshot_seq", 0, "host", "forge", "version", "0", "bytes", 0, "commits", 0);
}

static void put(struct forge *f, json_t *meta, const struct im_buf *body, uint8_t ret_hash[32])
{
	auto_buf struct im_buf object = { 0 };
	auto_free char *name = NULL;
	struct forge_object *o = &f->objects[f->object_count++];
	assert_true(f->object_count <= FORGE_OBJECTS);
	assert_ok(log_encode(f->node->keyring, meta, body->data, body->len, &object, ret_hash, &name, &err), &err);
	assert_ok(storage_put_object(f->node->storage, name, object.data, object.len, &err), &err);
	snprintf(o->path, sizeof o->path, "%s/%s", f->vault_dir, name);
	o->first = (uint32_t)json_integer_value(json_object_get(meta, "first"));
	o->last = (uint32_t)json_integer_value(json_object_get(meta, "last"));
	o->part = (uint32_t)json_integer_value(json_object_get(meta, "part"));
	o->level = (unsigned)json_integer_value(json_object_get(meta, "level"));
	json_decref(meta);
}

static struct logbody_section section_of(const struct forge *f, uint32_t point)
{
	struct logbody_section s = { .point = point, .pages = pages_of(f, point), .complete_ms = f->points[point].ms, .latest_ms = f->points[point].ms };
	memcpy(s.sum, f->points[point].sum, 16);
	if (f->spoil_sum)
		s.sum[3] ^= 1;
	return s;
}

/* Puts what changed; cuts parts if asked to. */
static void put_change(struct forge *f, struct logbody_writer *w, uint32_t from, uint32_t to, void (*cut)(struct forge *f, struct logbody_writer *w, uint32_t from, uint32_t to, uint32_t page))
{
	unsigned n = 0;
	for (uint32_t page = 0; page < pages_of(f, to); page++) {
		/* a page that went and came back in between has nothing to go by */
		bool kept = true;
		for (uint32_t i = from; i <= to; i++)
			kept = kept && page < pages_of(f, i);
		if (kept && !differs(f, from, to, page))
			continue;
		assert_ok(logbody_put(w, page, kept ? page_at(f, from, page) : NULL, page_at(f, to, page), &err), &err);
		if (cut && ++n % 3 == 0)
			cut(f, w, from, to, page + 1);
	}
}

void forge_ship(struct forge *f)
{
	struct logbody_writer *w;
	auto_buf struct im_buf body = { 0 };
	char hex[65];
	uint32_t first = f->shipped + 1, last = f->point;
	assert_ok(logbody_writer_new(f->page_size, &w, &err), &err);
	for (uint32_t i = first; i <= last; i++) {
		struct logbody_section s = section_of(f, i);
		if (i > 1)
			put_change(f, w, i - 1, i, NULL);
		assert_ok(logbody_end_section(w, &s, &err), &err);
	}
	assert_ok(logbody_finish(w, &body, &err), &err);
	logbody_writer_free(w);
	json_t *meta = meta_of(f, first, last, 0, true, 0);
	if (first > 1)
		json_object_set_new(meta, "prev", json_string(im_hex(hex, f->points[first - 1].hash, 32)));
	put(f, meta, &body, f->points[last].hash);
	f->shipped = last;
}

static uint32_t part_number;
static uint8_t part_hash[32];
static uint32_t coarse_first;
static unsigned coarse_level;

static void put_part(struct forge *f, const struct im_buf *body, uint32_t last, bool final)
{
	char hex[65];
	json_t *meta = meta_of(f, coarse_first, last, part_number, final, coarse_level);
	const uint8_t *prev = part_number ? part_hash : coarse_first > 1 ? f->points[coarse_first - 1].hash : NULL;
	if (prev)
		json_object_set_new(meta, "prev", json_string(im_hex(hex, prev, 32)));
	json_object_set_new(meta, "ends", json_string(im_hex(hex, f->points[last].hash, 32)));
	put(f, meta, body, part_hash);
	part_number++;
}

static void cut_part(struct forge *f, struct logbody_writer *w, uint32_t from, uint32_t to, uint32_t page)
{
	auto_buf struct im_buf body = { 0 };
	struct logbody_section s = section_of(f, to);
	(void)from;
	assert_ok(logbody_cut_part(w, &s, page, &body, &err), &err);
	put_part(f, &body, to, false);
}

void forge_coarse(struct forge *f, uint32_t first, uint32_t last, unsigned level)
{
	struct logbody_writer *w;
	auto_buf struct im_buf body = { 0 };
	struct logbody_section s = section_of(f, last);
	part_number = 0;
	coarse_first = first;
	coarse_level = level;
	assert_ok(logbody_writer_new(f->page_size, &w, &err), &err);
	put_change(f, w, first - 1, last, f->tiny_parts ? cut_part : NULL);
	assert_ok(logbody_end_section(w, &s, &err), &err);
	assert_ok(logbody_finish(w, &body, &err), &err);
	logbody_writer_free(w);
	put_part(f, &body, last, true);
}

static void began(json_t *meta, const char *reason, const struct forge *before)
{
	char hex[65];
	json_t *o = json_pack("{ss}", "reason", reason);
	if (before)
		json_object_set_new(o, "after", json_pack("{ss si ss sI}", "epoch", before->epoch, "point", (int)before->shipped, "hash",
		    im_hex(hex, before->points[before->shipped].hash, 32), "complete_ms", (json_int_t)before->points[before->shipped].ms));
	json_object_set_new(meta, "began", o);
}

void forge_begin(struct forge *f, struct vault *node, const char *vault_dir, const char *store, const char *epoch, const char *database, int64_t ms, const char *reason, const struct forge *before)
{
	auto_buf struct im_buf body = { 0 };
	struct logbody_writer *w;
	memset(f, 0, sizeof *f);
	f->node = node;
	f->vault_dir = vault_dir;
	f->store = store;
	strcpy(f->epoch, epoch);
	assert_ok(keyring_id_key(node->keyring, "imvault page v1", f->page_key, &err), &err);
	read_database(database, &f->points[0].content);
	im_buf_put(&f->points[1].content, f->points[0].content.data, f->points[0].content.len);
	f->page_size = (uint32_t)f->points[0].content.data[16] << 8 | f->points[0].content.data[17];
	f->page_size = f->page_size == 1 ? 65536 : f->page_size;
	f->points[0].ms = f->points[1].ms = ms;
	f->point = f->shipped = 1;
	struct logbody_section s = section_of(f, 1);
	assert_ok(logbody_writer_new(f->page_size, &w, &err), &err);
	assert_ok(logbody_end_section(w, &s, &err), &err);
	assert_ok(logbody_finish(w, &body, &err), &err);
	logbody_writer_free(w);
	json_t *meta = meta_of(f, 1, 1, 0, true, 0);
	began(meta, reason, before);
	put(f, meta, &body, f->points[1].hash);
}

void forge_end(struct forge *f)
{
	for (unsigned i = 0; i < FORGE_POINTS; i++)
		im_buf_free(&f->points[i].content);
}

uint32_t forge_take(struct forge *f, const char *database, int64_t ms)
{
	uint32_t point = ++f->point;
	assert_true(point < FORGE_POINTS);
	struct forge_point *p = &f->points[point];
	read_database(database, &p->content);
	p->ms = ms;
	memcpy(p->sum, f->points[point - 1].sum, 16);
	for (uint32_t page = 0; page < pages_of(f, point) || page < pages_of(f, point - 1); page++)
		if (differs(f, point - 1, point, page)) {
			add_hash(f, p->sum, page_at(f, point - 1, page), page);
			add_hash(f, p->sum, page_at(f, point, page), page);
		}
	return point;
}

void forge_remove(struct forge *f, uint32_t first, uint32_t last, unsigned level)
{
	bool any = false;
	for (size_t i = 0; i < f->object_count; i++)
		if (f->objects[i].first == first && f->objects[i].last == last && f->objects[i].level == level) {
			assert_int_equal(unlink(f->objects[i].path), 0);
			any = true;
		}
	assert_true(any);
}

static json_t *store_named(json_t *list, const char *name)
{
	size_t i;
	json_t *row;
	json_array_foreach(list, i, row)
		if (strcmp(json_string_value(json_object_get(row, "name")), name) == 0)
			return row;
	return NULL;
}

void forge_anchor(const struct forge *f, struct vault *restore, uint64_t seq, uint32_t point, bool joined)
{
	struct snapshot_list list = { 0 };
	struct snapshot *s = NULL;
	char path[400], hex[65], sum[33];
	uint8_t hash[32];
	assert_ok(snapshot_list(restore->storage, "im-01", &list, &err), &err);
	for (size_t i = 0; i < list.count; i++)
		if (list.items[i].seq == seq) {
			assert_ok(snapshot_read(restore->storage, restore->keyring, &list.items[i], &s, &err), &err);
			snprintf(path, sizeof path, "%s/%s", f->vault_dir, list.items[i].object);
		}
	assert_non_null(s);
	json_object_set_new(store_named(json_object_get(s->record.meta, "stores"), f->store), "log",
	    json_pack("{ss si ss sI ss sb}", "epoch", f->epoch, "point", (int)point, "hash", im_hex(hex, f->points[point].hash, 32), "complete_ms",
	        (json_int_t)f->points[point].ms, "sum", im_hex(sum, f->points[point].sum, 16), "joined", (int)joined));
	assert_int_equal(unlink(path), 0);
	assert_ok(snapshot_write(f->node->storage, f->node->keyring, s->record.meta, s->record.private_part, hash, &err), &err);
	snapshot_free(s);
	snapshot_list_clear(&list);
}

bool forge_same(const struct forge *f, uint32_t point, const char *database)
{
	auto_buf struct im_buf b = { 0 };
	assert_ok(im_file_read(database, SIZE_MAX, &b, &err), &err);
	const struct im_buf *c = &f->points[point].content;
	return b.len == c->len && memcmp(b.data, c->data, c->len) == 0;
}
