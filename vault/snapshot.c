/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: names, reading with every check a stranger's bytes deserve, choosing, writing.
 */
#include "vault/snapshot.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RECORD_BYTES (512u << 20)
#define PACK_ROW_BYTES 72

struct listing {
	struct snapshot_list *list;
	size_t cap;
	struct im_error *err;
};

static void name_clear(struct snapshot_name *n)
{
	free(n->node);
	free(n->object);
}

void snapshot_list_clear(struct snapshot_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		name_clear(&l->items[i]);
	free(l->items);
	*l = (struct snapshot_list){ 0 };
}

/* "snapshots/NODE/SSSSSSSS-HHHHHHHHHHHHHHHH"; false for anything else. */
static bool parse_name(const char *object, struct snapshot_name *ret)
{
	const char *node = object + strlen("snapshots/");
	const char *slash = strncmp(object, "snapshots/", 10) == 0 ? strchr(node, '/') : NULL;
	char *end;
	uint8_t hash[8];
	if (!slash || slash == node || strlen(slash + 1) != 8 + 1 + 16 || slash[9] != '-' || !im_unhex(hash, 8, slash + 10))
		return false;
	uint64_t seq = strtoull(slash + 1, &end, 10);
	if (end != slash + 9 || seq == 0 || slash[1] == '-' || slash[1] == '+')
		return false;
	ret->seq = seq;
	memcpy(ret->hash_prefix, slash + 10, 17);
	ret->node = strndup(node, (size_t)(slash - node));
	ret->object = strdup(object);
	return true;
}

static int take_name(void *context, const char *object, uint64_t size_bytes)
{
	struct listing *l = context;
	struct snapshot_name name = { .size_bytes = size_bytes };
	if (!parse_name(object, &name))
		return 0;
	if (l->list->count == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 64;
		struct snapshot_name *items = realloc(l->list->items, l->cap * sizeof *items);
		if (!items) {
			name_clear(&name);
			return im_fail(l->err, IM_ENOMEM, "out of memory listing snapshots");
		}
		l->list->items = items;
	}
	l->list->items[l->list->count++] = name;
	return name.node && name.object ? 0 : im_fail(l->err, IM_ENOMEM, "out of memory listing snapshots");
}

static int by_name(const void *a, const void *b)
{
	const struct snapshot_name *x = a, *y = b;
	int c = strcmp(x->node, y->node);
	if (c)
		return c;
	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return strcmp(x->hash_prefix, y->hash_prefix);
}

int snapshot_list(struct storage *s, const char *node, struct snapshot_list *ret, struct im_error *err)
{
	struct snapshot_list list = { 0 };
	struct listing l = { .list = &list, .err = err };
	char prefix[96] = "snapshots/";
	if (node)
		snprintf(prefix, sizeof prefix, "snapshots/%s/", node);
	int rc = storage_list(s, prefix, take_name, &l, err);
	if (rc) {
		snapshot_list_clear(&list);
		return rc;
	}
	if (list.count)
		qsort(list.items, list.count, sizeof *list.items, by_name);
	*ret = list;
	return 0;
}

static int read_pack_table(struct snapshot *s, struct im_error *err)
{
	auto_buf struct im_buf table = { 0 };
	const char *text = json_string_value(json_object_get(s->record.meta, "packs"));
	if (!text || !im_unbase64(&table, text) || table.len % PACK_ROW_BYTES)
		return im_fail(err, IM_ECORRUPT, "%s: the pack table is malformed", s->object);
	s->pack_count = table.len / PACK_ROW_BYTES;
	s->packs = calloc(s->pack_count ? s->pack_count : 1, sizeof *s->packs);
	if (!s->packs)
		return im_fail(err, IM_ENOMEM, "out of memory for a pack table");
	struct im_reader r = im_reader_of(table.data, table.len);
	for (size_t i = 0; i < s->pack_count; i++) {
		s->packs[i].number = im_read_u32(&r);
		s->packs[i].size_bytes = im_read_u32(&r);
		im_read_copy(&r, s->packs[i].name, 32);
		im_read_copy(&r, s->packs[i].commitment, 32);
		if (i && s->packs[i].number <= s->packs[i - 1].number)
			return im_fail(err, IM_ECORRUPT, "%s: the pack table is out of order", s->object);
	}
	return 0;
}

/* The record must be what its name and its signer say. */
static int check_identity(struct snapshot *s, const struct keyring *k, const struct snapshot_name *name, struct im_error *err)
{
	char hash[17];
	const char *node = json_string_value(json_object_get(s->record.meta, "node"));
	const char *time = json_string_value(json_object_get(s->record.meta, "time"));
	json_int_t seq = json_integer_value(json_object_get(s->record.meta, "seq"));
	im_hex(hash, s->record.hash, 8);
	if (strcmp(hash, name->hash_prefix) != 0)
		return im_fail(err, IM_ECORRUPT, "%s does not have the hash its name says: it was damaged or replaced", s->object);
	if (!node || strcmp(node, name->node) != 0 || seq <= 0 || (uint64_t)seq != name->seq)
		return im_fail(err, IM_ECORRUPT, "%s was moved: it is snapshot %" JSON_INTEGER_FORMAT " of node %s", s->object, seq, node ? node : "?");
	if (!time || !im_instant_parse(time, &s->time_ms))
		return im_fail(err, IM_ECORRUPT, "%s has no valid time", s->object);
	if (!keyring_may_sign(k, s->record.signer, name->node, name->seq)) {
		char id[17];
		return im_fail(err, IM_ECORRUPT, "%s is signed by key %s, which may not write snapshots of node %s (revoked, or another node's key)",
		    s->object, im_hex(id, s->record.signer, 8), name->node);
	}
	return read_pack_table(s, err);
}

int snapshot_read(struct storage *s, const struct keyring *k, const struct snapshot_name *name, struct snapshot **ret, struct im_error *err)
{
	auto_buf struct im_buf object = { 0 };
	int rc = storage_read_object(s, name->object, MAX_RECORD_BYTES, &object, err);
	if (rc)
		return rc;
	struct snapshot *snapshot = calloc(1, sizeof *snapshot);
	if (!snapshot)
		return im_fail(err, IM_ENOMEM, "out of memory");
	snapshot->node = strdup(name->node);
	snapshot->object = strdup(name->object);
	snapshot->seq = name->seq;
	if (!snapshot->node || !snapshot->object)
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0 && (rc = record_decode(k, RECORD_SNAPSHOT, object.data, object.len, &snapshot->record, err)))
		im_error_context(err, "%s", name->object);
	if (rc == 0)
		rc = check_identity(snapshot, k, name, err);
	if (rc) {
		snapshot_free(snapshot);
		return rc;
	}
	*ret = snapshot;
	return 0;
}

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	record_clear(&s->record);
	free(s->packs);
	free(s->node);
	free(s->object);
	free(s);
}

const struct pack_info *snapshot_pack(const struct snapshot *s, uint32_t number)
{
	size_t low = 0, high = s->pack_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (s->packs[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low < s->pack_count && s->packs[low].number == number ? &s->packs[low] : NULL;
}

static json_t *find_named(json_t *array, const char *name)
{
	size_t i;
	json_t *item;
	json_array_foreach(array, i, item) {
		const char *text = json_string_value(json_object_get(item, "name"));
		if (text && strcmp(text, name) == 0)
			return item;
	}
	return NULL;
}

json_t *snapshot_manifest(const struct snapshot *s, const char *store)
{
	return find_named(json_object_get(s->record.private_part, "stores"), store);
}

json_t *snapshot_store_meta(const struct snapshot *s, const char *store)
{
	return find_named(json_object_get(s->record.meta, "stores"), store);
}

/* Choosing. */

static int refuse_several_nodes(const struct snapshot_list *l, struct im_error *err)
{
	char nodes[400] = "";
	size_t used = 0;
	for (size_t i = 0; i < l->count && used < sizeof nodes - 70; i++)
		if (i == 0 || strcmp(l->items[i].node, l->items[i - 1].node) != 0)
			used += (size_t)snprintf(nodes + used, sizeof nodes - used, "%s%s", used ? ", " : "", l->items[i].node);
	return im_fail(err, IM_EUSAGE, "the vault holds several nodes (%s); choose one with --node", nodes);
}

/* By its sequence number, or by its whole name as `backup --json` prints it: never ambiguous. */
static bool matches_exactly(const struct snapshot_name *n, const char *at)
{
	char *end;
	uint64_t seq = strtoull(at, &end, 10);
	return end != at && seq == n->seq && (!*end || (*end == '-' && strcmp(end + 1, n->hash_prefix) == 0));
}

static bool matches(const struct snapshot_name *n, const char *at)
{
	size_t len = strlen(at);
	return len >= 4 && len <= 16 && strncmp(n->hash_prefix, at, len) == 0;
}

static int choose_named(struct storage *s, const struct keyring *k, const struct snapshot_list *l, const char *at, struct snapshot **ret, struct im_error *err)
{
	const struct snapshot_name *found = NULL;
	for (size_t i = 0; i < l->count; i++)
		if (matches_exactly(&l->items[i], at))
			return snapshot_read(s, k, &l->items[i], ret, err);
	for (size_t i = 0; i < l->count; i++) {
		if (!matches(&l->items[i], at))
			continue;
		if (found)
			return im_fail(err, IM_EUSAGE, "\"%s\" fits both %s and %s; give more digits of the hash", at, found->object, l->items[i].object);
		found = &l->items[i];
	}
	if (!found)
		return im_fail(err, IM_ENOTFOUND, "there is no snapshot \"%s\" of node %s; `imvault list` shows what there is", at, l->items[0].node);
	return snapshot_read(s, k, found, ret, err);
}

/* The newest readable one whose time is at or before limit_ms. */
static int choose_newest(struct storage *s, const struct keyring *k, const struct snapshot_list *l, int64_t limit_ms, snapshot_note_fn *note, void *context, struct snapshot **ret, struct im_error *err)
{
	struct im_error first = { 0 };
	char instant[IM_INSTANT_BYTES];
	for (size_t i = l->count; i-- > 0;) {
		struct snapshot *snapshot = NULL;
		struct im_error why = { 0 };
		int rc = snapshot_read(s, k, &l->items[i], &snapshot, &why);
		if (rc == IM_ECORRUPT || rc == IM_EIO || rc == IM_ENOTFOUND) {
			if (note)
				note(context, why.text);
			im_fail(&first, (enum im_code)rc, "%s", why.text);
			continue;
		}
		if (rc)
			return im_fail(err, (enum im_code)rc, "%s", why.text);
		if (snapshot->time_ms <= limit_ms) {
			*ret = snapshot;
			return 0;
		}
		snapshot_free(snapshot);
	}
	if (first.code)
		return im_fail(err, first.code, "no readable snapshot is left: %s", first.text);
	return im_fail(err, IM_ENOTFOUND, "node %s has no snapshot at or before %s; `imvault list` shows what there is",
	    l->items[0].node, im_instant_format(instant, limit_ms));
}

int snapshot_list_of(struct storage *s, const char *node, struct snapshot_list *ret, struct im_error *err)
{
	struct snapshot_list l = { 0 };
	if (node && !im_name_valid(node))
		return im_fail(err, IM_EUSAGE, "\"%s\" is not a node name", node);
	int rc = snapshot_list(s, node, &l, err);
	if (rc)
		return rc;
	if (l.count == 0)
		rc = im_fail(err, IM_ENOTFOUND, "the vault holds no snapshot%s%s", node ? " of node " : "", node ? node : "");
	else if (strcmp(l.items[0].node, l.items[l.count - 1].node) != 0)
		rc = refuse_several_nodes(&l, err);
	if (rc) {
		snapshot_list_clear(&l);
		return rc;
	}
	*ret = l;
	return 0;
}

int snapshot_choose(struct storage *s, const struct keyring *k, const char *node, const char *at, snapshot_note_fn *note, void *context, struct snapshot **ret, struct im_error *err)
{
	struct snapshot_list l = { 0 };
	int64_t limit_ms;
	int rc = snapshot_list_of(s, node, &l, err);
	if (rc)
		return rc;
	if (!at || strcmp(at, "latest") == 0)
		rc = choose_newest(s, k, &l, INT64_MAX, note, context, ret, err);
	else if (im_instant_parse(at, &limit_ms))
		rc = choose_newest(s, k, &l, limit_ms, note, context, ret, err);
	else if (strchr(at, ':') || strchr(at, 'T'))
		rc = im_fail(err, IM_EUSAGE, "\"%s\" is not an instant; write it with its zone, as 2026-11-23T03:15:00Z or 2026-11-23T11:15:00+08:00", at);
	else
		rc = choose_named(s, k, &l, at, ret, err);
	snapshot_list_clear(&l);
	return rc;
}

int snapshot_write(struct storage *s, const struct keyring *k, json_t *meta, json_t *private_part, uint8_t ret_hash[32], struct im_error *err)
{
	auto_buf struct im_buf object = { 0 };
	char hex[17], name[128];
	const char *node = json_string_value(json_object_get(meta, "node"));
	json_int_t seq = json_integer_value(json_object_get(meta, "seq"));
	IM_CHECK(node && im_name_valid(node) && seq > 0 && seq <= 99999999);
	int rc = record_encode(k, RECORD_SNAPSHOT, meta, private_part, &object, ret_hash, err);
	if (rc)
		return rc;
	snprintf(name, sizeof name, "snapshots/%s/%08" JSON_INTEGER_FORMAT "-%s", node, seq, im_hex(hex, ret_hash, 8));
	return storage_put_object(s, name, object.data, object.len, err);
}
