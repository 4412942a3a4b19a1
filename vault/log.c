/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments as objects: their names, and reading them with every check a stranger's bytes deserve.
 */
#include "vault/log.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "base/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARD_SHIFT 12 /* so many points' segments share a folder of names */
#define MAX_MS (INT64_C(1) << 47)

/* --- names --- */

void log_name_clear(struct log_name *n)
{
	free(n->store);
	free(n->object);
	*n = (struct log_name){ 0 };
}

void log_list_clear(struct log_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		log_name_clear(&l->items[i]);
	free(l->items);
	*l = (struct log_list){ 0 };
}

/* Exactly count lower-case hexadecimal digits. */
static bool read_hex(const char **at, unsigned count, uint64_t *ret)
{
	*ret = 0;
	for (unsigned i = 0; i < count; i++, ++*at) {
		char c = **at;
		unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 16;
		if (digit > 15)
			return false;
		*ret = *ret << 4 | digit;
	}
	return true;
}

static bool read_char(const char **at, char c)
{
	return *(*at)++ == c;
}

static bool epoch_valid(const char *text)
{
	uint64_t ignored;
	const char *at = text;
	return strlen(text) == LOG_EPOCH_CHARS && read_hex(&at, 10, &ignored) && read_hex(&at, 10, &ignored);
}

/* "EPOCH/SSSSS/FIRST-LAST-TIME-PARTx-HASH" */
static bool parse_tail(const char *at, struct log_name *n)
{
	uint64_t a, b, shard, first, last, time, part, hash;
	const char *epoch = at;
	if (!read_hex(&at, 10, &a) || !read_hex(&at, 10, &b) || !read_char(&at, '/') || !read_hex(&at, 5, &shard) || !read_char(&at, '/') ||
	    !read_hex(&at, 8, &first) || !read_char(&at, '-') || !read_hex(&at, 8, &last) || !read_char(&at, '-') || !read_hex(&at, 12, &time) ||
	    !read_char(&at, '-') || !read_hex(&at, 4, &part) || (*at != 'm' && *at != 'e'))
		return false;
	n->final = *at++ == 'e';
	const char *prefix = at + 1;
	if (!read_char(&at, '-') || !read_hex(&at, 16, &hash) || *at || first == 0 || first > last || shard != first >> SHARD_SHIFT)
		return false;
	memcpy(n->epoch, epoch, LOG_EPOCH_CHARS);
	memcpy(n->hash_prefix, prefix, 17);
	n->first = (uint32_t)first;
	n->last = (uint32_t)last;
	n->part = (uint32_t)part;
	n->latest_ms = (int64_t)time;
	return true;
}

bool log_name_parse(const char *object, struct log_name *ret, char **ret_node)
{
	struct log_name n = { 0 };
	if (strncmp(object, "logs/", 5) != 0)
		return false;
	const char *node = object + 5, *store = strchr(node, '/');
	const char *tail = store ? strchr(store + 1, '/') : NULL;
	if (!tail || !parse_tail(tail + 1, &n))
		return false;
	auto_free char *node_name = strndup(node, (size_t)(store - node));
	n.store = strndup(store + 1, (size_t)(tail - store - 1));
	n.object = strdup(object);
	if (!node_name || !n.store || !n.object || !im_name_valid(node_name) || !im_name_valid(n.store)) {
		log_name_clear(&n);
		return false;
	}
	*ret = n;
	if (ret_node)
		*ret_node = TAKE_PTR(node_name);
	return true;
}

static char *object_name(const char *node, const char *store, const struct log_segment *s, int64_t latest_ms)
{
	char hash[17];
	return im_format("logs/%s/%s/%s/%05x/%08x-%08x-%012" PRIx64 "-%04x%c-%s", node, store, s->epoch, s->first >> SHARD_SHIFT, s->first,
	    s->last, (uint64_t)latest_ms, s->part, s->final ? 'e' : 'm', im_hex(hash, s->hash, 8));
}

/* --- listing --- */

struct listing {
	struct log_list list;
	size_t cap;
	size_t seen;   /* names, whether segments or not */
	uint32_t last; /* the furthest point of all */
	struct im_error *err;
};

static int take_name(void *context, const char *object, uint64_t size_bytes)
{
	struct listing *l = context;
	struct log_name n;
	l->seen++;
	if (!log_name_parse(object, &n, NULL))
		return 0;
	n.size_bytes = size_bytes;
	if (l->list.count == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		struct log_name *items = realloc(l->list.items, cap * sizeof *items);
		if (!items) {
			log_name_clear(&n);
			return im_fail(l->err, IM_ENOMEM, "out of memory listing the log");
		}
		l->list.items = items;
		l->cap = cap;
	}
	l->list.items[l->list.count++] = n;
	l->last = n.last > l->last ? n.last : l->last;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct log_name *x = a, *y = b;
	int c = strcmp(x->store, y->store);
	if (c == 0)
		c = strcmp(x->epoch, y->epoch);
	if (c == 0)
		c = (x->first > y->first) - (x->first < y->first);
	if (c == 0)
		c = (x->last > y->last) - (x->last < y->last);
	if (c == 0)
		c = (x->part > y->part) - (x->part < y->part);
	return c ? c : strcmp(x->hash_prefix, y->hash_prefix);
}

/* Folder by folder from the one that holds `from`, to the first without names. If a segment reaches
 * into or over that one (it is coarse, and its fine ones are gone), more may follow: then everything is listed. */
static int list_shards(struct storage *s, const char *prefix, uint32_t from, struct listing *l, struct im_error *err)
{
	for (uint32_t shard = from >> SHARD_SHIFT; shard <= UINT32_MAX >> SHARD_SHIFT; shard++) {
		auto_free char *folder = im_format("%s%05x/", prefix, shard);
		size_t before = l->seen;
		int rc = folder ? storage_list(s, folder, take_name, l, err) : im_fail(err, IM_ENOMEM, "out of memory");
		if (rc)
			return rc;
		if (l->seen != before || shard == from >> SHARD_SHIFT)
			continue;
		if (shard > l->last >> SHARD_SHIFT)
			return 0;
		log_list_clear(&l->list);
		l->cap = 0;
		return storage_list(s, prefix, take_name, l, err);
	}
	return 0;
}

int log_list(struct storage *s, const char *node, const char *store, const char *epoch, uint32_t from, struct log_list *ret, struct im_error *err)
{
	struct listing l = { .err = err };
	if (!im_name_valid(node) || (store && !im_name_valid(store)) || (epoch && (!store || !epoch_valid(epoch))))
		return im_fail(err, IM_EUSAGE, "no log can have these names");
	auto_free char *prefix = !store ? im_format("logs/%s/", node) : !epoch ? im_format("logs/%s/%s/", node, store) :
	    im_format("logs/%s/%s/%s/", node, store, epoch);
	int rc = !prefix ? im_fail(err, IM_ENOMEM, "out of memory") : epoch && from ? list_shards(s, prefix, from, &l, err) :
	    storage_list(s, prefix, take_name, &l, err);
	if (rc) {
		log_list_clear(&l.list);
		return rc;
	}
	if (l.list.count)
		qsort(l.list.items, l.list.count, sizeof *l.list.items, by_name);
	*ret = l.list;
	return 0;
}

/* --- the meta part --- */

static bool get_number(const json_t *meta, const char *key, uint64_t max, uint64_t *ret)
{
	const json_t *v = json_object_get(meta, key);
	json_int_t n = json_integer_value(v);
	if (!json_is_integer(v) || n < 0 || (uint64_t)n > max)
		return false;
	*ret = (uint64_t)n;
	return true;
}

static bool get_hash(const json_t *meta, const char *key, bool *ret_has, uint8_t ret[32])
{
	const json_t *v = json_object_get(meta, key);
	*ret_has = v != NULL;
	return !v || (json_is_string(v) && im_unhex(ret, 32, json_string_value(v)));
}

static bool read_points(const json_t *meta, struct log_segment *s)
{
	const json_t *list = json_object_get(meta, "points");
	size_t count = json_array_size(list), wanted = s->level ? 1 : (size_t)(s->last - s->first) + 1;
	if (count != wanted || count > LOG_MAX_POINTS || !(s->points = calloc(count, sizeof *s->points)))
		return false;
	s->point_count = count;
	for (size_t i = 0; i < count; i++) {
		const json_t *pair = json_array_get(list, i), *a = json_array_get(pair, 0), *b = json_array_get(pair, 1);
		json_int_t complete = json_integer_value(a), latest = json_integer_value(b);
		s->points[i] = (struct log_point){ complete, latest };
		if (json_array_size(pair) != 2 || !json_is_integer(a) || !json_is_integer(b) || complete < 0 || latest < complete || latest >= MAX_MS ||
		    (i && (complete < s->points[i - 1].complete_ms || latest < s->points[i - 1].latest_ms)))
			return false;
	}
	return true;
}

static const char *text_of(const json_t *meta, const char *key)
{
	const char *text = json_string_value(json_object_get(meta, key));
	return text ? text : "";
}

/* NULL, or what is wrong. */
static const char *read_meta(const json_t *meta, struct log_segment *s)
{
	uint64_t first, last, part, level;
	if (strcmp(text_of(meta, "kind"), "segment") != 0 || !epoch_valid(text_of(meta, "epoch")) || !*text_of(meta, "type"))
		return "it does not say what it is";
	memcpy(s->epoch, text_of(meta, "epoch"), LOG_EPOCH_CHARS);
	if (!get_number(meta, "first", UINT32_MAX, &first) || !get_number(meta, "last", UINT32_MAX, &last) || first == 0 || first > last ||
	    !get_number(meta, "part", LOG_MAX_PARTS - 1, &part) || !get_number(meta, "level", 2, &level) ||
	    (level == 0 && last - first >= LOG_MAX_POINTS))
		return "its numbers are impossible";
	s->first = (uint32_t)first;
	s->last = (uint32_t)last;
	s->part = (uint32_t)part;
	s->level = (unsigned)level;
	s->final = json_is_true(json_object_get(meta, "final"));
	if (!get_hash(meta, "prev", &s->has_prev, s->prev) || !get_hash(meta, "ends", &s->has_ends, s->ends) ||
	    s->has_prev != (first > 1 || part > 0) || s->has_ends != (level > 0))
		return "its place in the chain is malformed";
	if (!json_is_object(json_object_get(meta, "position")))
		return "it has no position";
	return read_points(meta, s) ? NULL : "its instants are malformed";
}

static int64_t latest_of(const struct log_segment *s)
{
	return s->points[s->point_count - 1].latest_ms;
}

/* --- writing and reading --- */

int log_encode(const struct keyring *k, json_t *meta, const void *body, size_t body_len, struct im_buf *ret, uint8_t ret_hash[32], char **ret_object, struct im_error *err)
{
	struct log_segment s = { 0 };
	const char *node = text_of(meta, "node"), *store = text_of(meta, "store");
	const char *wrong = read_meta(meta, &s);
	int64_t latest_ms = wrong ? 0 : latest_of(&s);
	free(s.points);
	if (wrong || !im_name_valid(node) || !im_name_valid(store))
		return im_fail(err, IM_EFAIL, "cannot write a segment of the log: %s", wrong ? wrong : "its names are not allowed");
	if (body_len > LOG_MAX_OBJECT_BYTES - (1u << 20))
		return im_fail(err, IM_EFAIL, "a segment of the log exceeds %u MiB", LOG_MAX_OBJECT_BYTES >> 20);
	int rc = record_encode_bytes(k, RECORD_SEGMENT, meta, body, body_len, ret, s.hash, err);
	if (rc == 0 && ret->len > LOG_MAX_OBJECT_BYTES)
		rc = im_fail(err, IM_EFAIL, "a segment of the log exceeds %u MiB", LOG_MAX_OBJECT_BYTES >> 20);
	if (rc)
		return rc;
	memcpy(ret_hash, s.hash, 32);
	*ret_object = object_name(node, store, &s, latest_ms);
	return *ret_object ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

static int check_identity(const struct log_segment *s, const struct keyring *k, const char *node, const struct log_name *name, struct im_error *err)
{
	char hash[17];
	const json_t *meta = s->record.meta;
	if (strcmp(im_hex(hash, s->record.hash, 8), name->hash_prefix) != 0)
		return im_fail(err, IM_ECORRUPT, "%s does not have the hash its name says: it was damaged or replaced", name->object);
	if (strcmp(text_of(meta, "node"), node) != 0 || strcmp(text_of(meta, "store"), name->store) != 0 || strcmp(s->epoch, name->epoch) != 0 ||
	    s->first != name->first || s->last != name->last || s->part != name->part || s->final != name->final || latest_of(s) != name->latest_ms)
		return im_fail(err, IM_ECORRUPT, "%s was moved: it says that it is another segment", name->object);
	if (!keyring_may_sign_log(k, s->record.signer, node, name->store, name->epoch, s->last))
		return im_fail(err, IM_ECORRUPT, "%s is signed by key %s, which may not write this log (revoked, or another node's key)", name->object,
		    im_hex(hash, s->record.signer, 8));
	return 0;
}

int log_decode(const struct keyring *k, const char *node, const struct log_name *name, const void *data, size_t len, struct log_segment **ret, struct im_error *err)
{
	struct log_segment *s = calloc(1, sizeof *s);
	if (!s)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = record_decode(k, RECORD_SEGMENT, data, len, &s->record, err);
	if (rc) {
		free(s);
		im_error_context(err, "%s", name->object);
		return rc;
	}
	memcpy(s->hash, s->record.hash, 32);
	const char *wrong = read_meta(s->record.meta, s);
	if (wrong)
		rc = im_fail(err, IM_ECORRUPT, "%s is malformed: %s", name->object, wrong);
	if (rc == 0)
		rc = check_identity(s, k, node, name, err);
	if (rc) {
		log_segment_free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

int log_read(struct storage *s, const struct keyring *k, const char *node, const struct log_name *name, struct log_segment **ret, struct im_error *err)
{
	auto_buf struct im_buf object = { 0 };
	int rc = storage_read_object(s, name->object, LOG_MAX_OBJECT_BYTES, &object, err);
	return rc ? rc : log_decode(k, node, name, object.data, object.len, ret, err);
}

void log_segment_free(struct log_segment *s)
{
	if (!s)
		return;
	record_clear(&s->record);
	free(s->points);
	free(s);
}
