/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects "drills/NODE/SSSSSSSS-HHHHHHHHHHHHHHHH", a chain as of snapshots, except that two hosts may
 * drill at once: then two records have one number and the next one names both.
 */
#include "vault/drills.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "vault/record.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_MAX_BYTES = 32 << 20, NAME_CHARS = 8 + 1 + 16 };

static int add_finding(struct drill_list *l, struct im_error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int add_finding(struct drill_list *l, struct im_error *err, const char *format, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, format);
	int n = vasprintf(&text, format, ap);
	va_end(ap);
	char **grown = n < 0 ? NULL : reallocarray(l->findings, l->finding_count + 1, sizeof *grown);
	if (!grown) {
		if (n >= 0)
			free(text);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	l->findings = grown;
	grown[l->finding_count++] = text;
	return 0;
}

/* --- reading --- */

struct names {
	char **items;
	size_t count;
};

static int keep_name(void *context, const char *name, uint64_t size_bytes)
{
	struct names *n = context;
	(void)size_bytes;
	char **grown = reallocarray(n->items, n->count + 1, sizeof *grown);
	if (!grown)
		return IM_ENOMEM;
	n->items = grown;
	grown[n->count] = strdup(name);
	return grown[n->count] ? (n->count++, 0) : IM_ENOMEM;
}

/* "SSSSSSSS-HHHHHHHHHHHHHHHH": what a name promises of its record. */
static bool parse_name(const char *object, uint64_t *ret_seq, const char **ret_hash)
{
	const char *name = strrchr(object, '/') + 1;
	if (strlen(name) != NAME_CHARS || name[8] != '-')
		return false;
	for (int i = 0; i < NAME_CHARS; i++)
		if (i != 8 && !(isdigit((unsigned char)name[i]) || (i > 8 && name[i] >= 'a' && name[i] <= 'f')))
			return false;
	*ret_seq = strtoull(name, NULL, 10);
	*ret_hash = name + 9;
	return *ret_seq > 0;
}

static int64_t number(const json_t *meta, const char *name)
{
	const json_t *value = json_object_get(meta, name);
	return json_is_integer(value) && json_integer_value(value) >= 0 ? json_integer_value(value) : -1;
}

static const char *text(const json_t *meta, const char *name)
{
	const char *value = json_string_value(json_object_get(meta, name));
	return value ? value : "";
}

static void take_meta(struct drill_record *r)
{
	const json_t *m = r->meta, *forecast = json_object_get(m, "forecast");
	r->kind = text(m, "kind");
	r->is_drill = strcmp(r->kind, "drill") == 0;
	r->scenario = text(m, "scenario");
	r->verdict = text(m, "verdict");
	r->chosen = text(m, "chosen");
	r->operator_name = text(m, "operator");
	r->host = text(m, "host");
	r->version = text(m, "version");
	r->snapshot = text(m, "snapshot");
	r->time_ms = number(m, "time_ms");
	r->instant_reached_ms = number(m, "instant_reached_ms");
	r->rpo_ms = number(m, "rpo_ms");
	r->rpo_target_ms = number(m, "rpo_target_ms");
	r->rto_ms = number(m, "rto_ms");
	r->service_ready_ms = number(m, "service_ready_ms");
	r->data_complete_ms = number(m, "data_complete_ms");
	r->forecast_p50_ms = number(forecast, "p50_ms");
	r->forecast_p95_ms = number(forecast, "p95_ms");
	r->rto_met = json_is_true(json_object_get(m, "rto_met"));
	r->rpo_met = json_is_true(json_object_get(m, "rpo_met"));
	r->passed = strcmp(r->verdict, "passed") == 0 || strcmp(r->verdict, "missed") == 0;
}

static int read_one(const struct vault *v, const char *node, const char *object, struct drill_record *ret, struct im_error *err)
{
	auto_buf struct im_buf data = { 0 };
	struct record r = { 0 };
	uint64_t seq;
	const char *hash;
	char hex[65];
	if (!parse_name(object, &seq, &hash))
		return im_fail(err, IM_ECORRUPT, "%s is not the name of a recovery record", object);
	int rc = storage_read_object(v->storage, object, RECORD_MAX_BYTES, &data, err);
	if (rc == 0)
		rc = record_decode(v->keyring, RECORD_DRILL, data.data, data.len, &r, err);
	if (rc)
		return im_error_context(err, "%s", object);
	const struct key_entry *signer = keyring_find(v->keyring, r.signer);
	if (!signer || signer->role != KEY_RESTORE)
		rc = im_fail(err, IM_ECORRUPT, "%s was not signed by a restore key of this vault", object);
	else if (strcmp(text(r.meta, "node"), node) != 0 || number(r.meta, "seq") != (int64_t)seq || strncmp(im_hex(hex, r.hash, 32), hash, 16) != 0)
		rc = im_fail(err, IM_ECORRUPT, "%s is not what its name says: it was renamed or moved", object);
	if (rc == 0) {
		*ret = (struct drill_record){ .object = strdup(object), .seq = seq, .signer_active = signer->active, .meta = json_incref(r.meta),
			.private_part = r.private_part ? json_incref(r.private_part) : NULL };
		memcpy(ret->hash, r.hash, sizeof ret->hash);
		memcpy(ret->signer, r.signer, sizeof ret->signer);
		take_meta(ret);
		rc = ret->object ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	}
	record_clear(&r);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_hash(const struct drill_list *l, const char *hex)
{
	char one[65];
	for (size_t i = 0; i < l->count; i++)
		if (strcmp(im_hex(one, l->items[i].hash, 32), hex) == 0)
			return true;
	return false;
}

/* Every record that another one follows must be there. */
static int check_chain(struct drill_list *l, struct im_error *err)
{
	size_t k;
	json_t *prev;
	for (size_t i = 0; i < l->count; i++) {
		const json_t *all = json_object_get(l->items[i].meta, "prev");
		if (l->items[i].seq > 1 && !json_array_size(all) && add_finding(l, err, "%s names no record before it", l->items[i].object))
			return IM_ENOMEM;
		json_array_foreach(all, k, prev)
			if (!has_hash(l, json_is_string(prev) ? json_string_value(prev) : "") &&
			    add_finding(l, err, "the record before %s is missing or altered: recovery records were removed or damaged", l->items[i].object))
				return IM_ENOMEM;
	}
	return 0;
}

static int read_named(const struct vault *v, const char *node, const struct names *names, struct drill_list *ret, struct im_error *err)
{
	ret->items = calloc(names->count + 1, sizeof *ret->items);
	if (!ret->items)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < names->count; i++) {
		struct im_error why = { 0 };
		int rc = read_one(v, node, names->items[i], &ret->items[ret->count], &why);
		if (rc == 0)
			ret->count++;
		else if (rc != IM_ECORRUPT)
			return im_fail(err, rc, "%s", why.text);
		else if (add_finding(ret, err, "%s", why.text))
			return IM_ENOMEM;
	}
	return check_chain(ret, err);
}

int drills_read(const struct vault *v, const char *node, struct drill_list *ret, struct im_error *err)
{
	auto_free char *prefix = im_format("drills/%s/", node);
	struct names names = { 0 };
	*ret = (struct drill_list){ 0 };
	int rc = prefix ? storage_list(v->storage, prefix, keep_name, &names, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0 && names.count)
		qsort(names.items, names.count, sizeof *names.items, by_name);
	if (rc == 0)
		rc = read_named(v, node, &names, ret, err);
	for (size_t i = 0; i < names.count; i++)
		free(names.items[i]);
	free(names.items);
	if (rc)
		drill_list_clear(ret);
	return rc;
}

void drill_list_clear(struct drill_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].object);
		json_decref(l->items[i].meta);
		json_decref(l->items[i].private_part);
	}
	for (size_t i = 0; i < l->finding_count; i++)
		free(l->findings[i]);
	free(l->items);
	free(l->findings);
	*l = (struct drill_list){ 0 };
}

const struct drill_record *drills_last(const struct drill_list *l, bool passed)
{
	for (size_t i = l->count; i-- > 0;)
		if (l->items[i].is_drill && (l->items[i].passed || !passed))
			return &l->items[i];
	return NULL;
}

/* --- writing --- */

/* The records that no other one follows yet. */
static json_t *heads(const struct drill_list *l)
{
	json_t *all = json_array();
	char hex[65];
	for (size_t i = 0; i < l->count; i++) {
		bool followed = false;
		im_hex(hex, l->items[i].hash, 32);
		for (size_t k = 0; k < l->count && !followed; k++) {
			const json_t *prev = json_object_get(l->items[k].meta, "prev");
			for (size_t n = 0; n < json_array_size(prev); n++)
				followed |= strcmp(hex, json_is_string(json_array_get(prev, n)) ? json_string_value(json_array_get(prev, n)) : "") == 0;
		}
		if (!followed)
			json_array_append_new(all, json_string(hex));
	}
	return all;
}

int drills_append(const struct vault *v, const char *node, json_t *meta, json_t *private_part, char **ret_object, struct im_error *err)
{
	auto_buf struct im_buf data = { 0 };
	struct drill_list before;
	uint8_t hash[32];
	char hex[65];
	int rc = drills_read(v, node, &before, err);
	if (rc)
		return rc;
	uint64_t seq = before.count ? before.items[before.count - 1].seq + 1 : 1;
	if (json_object_set_new(meta, "node", json_string(node)) || json_object_set_new(meta, "seq", json_integer((json_int_t)seq)) ||
	    json_object_set_new(meta, "prev", heads(&before)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	drill_list_clear(&before);
	if (rc == 0)
		rc = record_encode(v->keyring, RECORD_DRILL, meta, private_part, &data, hash, err);
	if (rc)
		return rc;
	auto_free char *name = im_format("drills/%s/%08" PRIu64 "-%.16s", node, seq, im_hex(hex, hash, sizeof hash));
	rc = name ? storage_put_object(v->storage, name, data.data, data.len, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0 && ret_object) {
		*ret_object = name;
		name = NULL;
	}
	return rc;
}
