/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of a store's log as JSON. It is written by this program only, but a disk can hold anything.
 */
#include "backup/spool.h"

#include <string.h>

#define HEAD_VERSION 1

void spool_head_copy(struct spool_head *ret, const struct spool_head *h)
{
	json_t *old = ret->position;
	*ret = *h;
	json_incref(ret->position);
	json_decref(old);
}

void spool_head_clear(struct spool_head *h)
{
	json_decref(h->position);
	*h = (struct spool_head){ 0 };
}

static void put_hex(json_t *j, const char *key, const void *data, size_t len)
{
	char hex[65];
	json_object_set_new(j, key, json_string(im_hex(hex, data, len)));
}

json_t *spool_head_encode(const struct spool_head *h, uint64_t sequence, const json_t *parts)
{
	json_t *j = json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "version", HEAD_VERSION, "epoch", h->epoch, "first",
	    (json_int_t)h->first, "point", (json_int_t)h->point, "complete_ms", (json_int_t)h->complete_ms, "latest_ms", (json_int_t)h->latest_ms, "sequence",
	    (json_int_t)sequence, "snapshot_due", h->snapshot_due, "joined", h->joined);
	if (!j)
		return NULL;
	put_hex(j, "hash", h->hash, 32);
	json_object_set(j, "position", h->position ? h->position : json_null());
	json_object_set_new(j, "parts", json_deep_copy(parts));
	if (h->has_anchor) {
		json_t *anchor = json_pack("{s:I, s:I}", "point", (json_int_t)h->anchor_point, "complete_ms", (json_int_t)h->anchor_ms);
		put_hex(anchor, "sum", h->anchor_sum, SPOOL_SUM_BYTES);
		put_hex(anchor, "checksum", h->anchor_checksum, SPOOL_SUM_BYTES);
		json_object_set_new(j, "anchor", anchor);
	}
	if (h->has_before)
		put_hex(j, "before", h->before_checksum, SPOOL_SUM_BYTES);
	return j;
}

static bool get_hex(const json_t *j, const char *key, void *ret, size_t len)
{
	const char *text = json_string_value(json_object_get(j, key));
	return text && im_unhex(ret, len, text);
}

static bool get_integer(const json_t *j, const char *key, int64_t min, int64_t max, int64_t *ret)
{
	const json_t *v = json_object_get(j, key);
	*ret = json_integer_value(v);
	return json_is_integer(v) && *ret >= min && *ret <= max;
}

static bool decode_anchor(const json_t *anchor, struct spool_head *h)
{
	int64_t point;
	if (!anchor)
		return true;
	h->has_anchor = get_integer(anchor, "point", 0, UINT32_MAX, &point) &&
	    get_integer(anchor, "complete_ms", 0, INT64_MAX, &h->anchor_ms) && get_hex(anchor, "sum", h->anchor_sum, SPOOL_SUM_BYTES) &&
	    get_hex(anchor, "checksum", h->anchor_checksum, SPOOL_SUM_BYTES);
	h->anchor_point = (uint32_t)point;
	return h->has_anchor;
}

static bool epoch_valid(const char *epoch)
{
	return epoch && strlen(epoch) == LOG_EPOCH_CHARS && strspn(epoch, "0123456789abcdef") == LOG_EPOCH_CHARS;
}

bool spool_head_decode(const json_t *j, struct spool_head *ret, uint64_t *ret_sequence, json_t **ret_parts)
{
	struct spool_head h = { 0 };
	int64_t version, first, point, sequence;
	const char *epoch = json_string_value(json_object_get(j, "epoch"));
	json_t *position = json_object_get(j, "position"), *parts = json_object_get(j, "parts");
	bool ok = get_integer(j, "version", HEAD_VERSION, HEAD_VERSION, &version) && get_integer(j, "point", 1, UINT32_MAX, &point) &&
	    get_integer(j, "first", 1, point, &first) &&
	    get_integer(j, "complete_ms", 0, INT64_MAX, &h.complete_ms) && get_integer(j, "latest_ms", h.complete_ms, INT64_MAX, &h.latest_ms) &&
	    get_integer(j, "sequence", 0, INT64_MAX, &sequence) && get_hex(j, "hash", h.hash, 32) && epoch_valid(epoch) &&
	    json_is_object(position) && json_is_array(parts) && decode_anchor(json_object_get(j, "anchor"), &h);
	h.has_before = get_hex(j, "before", h.before_checksum, SPOOL_SUM_BYTES);
	if (!ok || (json_object_get(j, "before") && !h.has_before))
		return false;
	strcpy(h.epoch, epoch);
	h.first = (uint32_t)first;
	h.point = (uint32_t)point;
	h.snapshot_due = json_is_true(json_object_get(j, "snapshot_due"));
	h.joined = json_is_true(json_object_get(j, "joined"));
	h.position = json_incref(position);
	*ret = h;
	*ret_sequence = (uint64_t)sequence;
	*ret_parts = json_incref(parts);
	return true;
}
