/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: raw bytes; the input as the name of an object; and the input as the meta of a well-signed
 * segment, put into the vault as an insider with the node's key could, listed, planned through and read back.
 */
#include "fuzz.h"

#include "base/cleanup.h"
#include "vault/logroute.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define EPOCH "018bcfe5680000000001"

static void read_name(const char *text)
{
	struct log_name name;
	char *node = NULL;
	if (!log_name_parse(text, &name, &node))
		return;
	free(node);
	log_name_clear(&name);
}

static void read_raw(struct fixture *f, const uint8_t *data, size_t size)
{
	static const char object[] = "logs/im-01/archive/" EPOCH "/00000/00000001-00000001-018bcfe5680a-0000e-0123456789abcdef";
	struct log_name name;
	struct log_segment *s = NULL;
	if (!log_name_parse(object, &name, NULL))
		return;
	if (log_decode(f->restore->keyring, "im-01", &name, data, size, &s, NULL) == 0)
		log_segment_free(s);
	log_name_clear(&name);
}

static uint64_t number_of(const json_t *meta, const char *key, uint64_t mask)
{
	return (uint64_t)json_integer_value(json_object_get(meta, key)) & mask;
}

/* Where a name could lead to it; what the meta says of itself does not have to be sound. */
static bool put_signed(struct fixture *f, json_t *meta)
{
	auto_buf struct im_buf object = { 0 };
	char name[200], hex[17];
	uint8_t hash[32];
	uint64_t first = number_of(meta, "first", UINT32_MAX), last = number_of(meta, "last", UINT32_MAX);
	const json_t *points = json_object_get(meta, "points"), *newest = json_array_get(points, json_array_size(points) - 1);
	uint64_t time = (uint64_t)json_integer_value(json_array_get(newest, 1)) & UINT64_C(0xffffffffffff);
	if (record_encode_bytes(f->node->keyring, RECORD_SEGMENT, meta, "body", 4, &object, hash, NULL))
		return false;
	snprintf(name, sizeof name, "logs/im-01/archive/" EPOCH "/%05" PRIx64 "/%08" PRIx64 "-%08" PRIx64 "-%012" PRIx64 "-%04" PRIx64 "%c-%s", first >> 12,
	    first, last, time, number_of(meta, "part", 0xffff), json_is_true(json_object_get(meta, "final")) ? 'e' : 'm', im_hex(hex, hash, 8));
	return storage_put_object(f->node->storage, name, object.data, object.len, NULL) == 0;
}

static void walk(struct fixture *f, const json_t *meta)
{
	struct log_route route;
	struct log_anchor anchor = { .epoch = EPOCH };
	uint32_t first = (uint32_t)number_of(meta, "first", UINT32_MAX);
	anchor.point = first ? first - 1 : 0;
	if (im_unhex(anchor.hash, 32, json_string_value(json_object_get(meta, "prev"))))
		anchor.has_hash = true;
	if (log_route_open(f->restore->storage, f->restore->keyring, "im-01", "archive", &anchor, &route, NULL))
		return;
	for (unsigned i = 0; i < 8 && log_route_plan(&route, i % 2 ? INT64_MAX : anchor.complete_ms, NULL) == 0; i++) {
		struct log_segment *s = NULL;
		if (route.count && log_route_read(&route, 0, anchor.hash, &s, NULL) == 0) {
			uint8_t next[32];
			log_route_link(s, next);
			log_segment_free(s);
		}
		if (route.count)
			log_route_exclude(&route, route.count - 1);
	}
	log_route_clear(&route);
}

static void read_signed(struct fixture *f, json_t *meta)
{
	auto_free char *folder = NULL;
	struct log_anchor anchor;
	log_anchor_read(meta, &anchor);
	json_object_set_new(meta, "node", json_string("im-01"));
	json_object_set_new(meta, "store", json_string("archive"));
	json_object_set_new(meta, "epoch", json_string(EPOCH));
	if (put_signed(f, meta))
		walk(f, meta);
	if (asprintf(&folder, "%s/logs", f->vault_dir) > 0)
		remove_tree(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fixture *f = fuzz_fixture();
	auto_free char *text = strndup((const char *)data, size);
	read_raw(f, data, size);
	if (text)
		read_name(text);
	json_t *meta = json_loadb((const char *)data, size, 0, NULL);
	if (json_is_object(meta))
		read_signed(f, meta);
	json_decref(meta);
	return 0;
}
