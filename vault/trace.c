/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects "traces/NODE/TIME-HASH": TIME in hexadecimal, so that names sort by age.
 */
#include "vault/trace.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "vault/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRACE_MAX_BYTES = 4 << 20, TRACES_TRIED = 8 };

int trace_write(const struct vault *v, const char *node, int64_t time_ms, json_t *touches, struct im_error *err)
{
	auto_buf struct im_buf data = { 0 };
	uint8_t hash[32];
	char hex[65];
	json_t *meta = json_pack("{s:s, s:I}", "node", node, "time_ms", (json_int_t)time_ms);
	int rc = meta ? record_encode(v->keyring, RECORD_TRACE, meta, touches, &data, hash, err) : im_fail(err, IM_ENOMEM, "out of memory");
	json_decref(meta);
	if (rc)
		return rc;
	auto_free char *name = im_format("traces/%s/%016" PRIx64 "-%.16s", node, (uint64_t)time_ms, im_hex(hex, hash, sizeof hash));
	return name ? storage_put_object(v->storage, name, data.data, data.len, err) : im_fail(err, IM_ENOMEM, "out of memory");
}

struct names { /* the last few */
	char *items[TRACES_TRIED];
	size_t count;
};

static int keep_name(void *context, const char *name, uint64_t size_bytes)
{
	struct names *n = context;
	char *copy = size_bytes <= TRACE_MAX_BYTES ? strdup(name) : NULL;
	if (!copy)
		return 0;
	if (n->count == TRACES_TRIED) {
		free(n->items[0]);
		memmove(n->items, n->items + 1, (TRACES_TRIED - 1) * sizeof *n->items);
		n->count--;
	}
	n->items[n->count++] = copy;
	return 0;
}

static int read_one(const struct vault *v, const char *node, const char *name, json_t **ret, struct im_error *err)
{
	auto_buf struct im_buf data = { 0 };
	struct record r = { 0 };
	int rc = storage_read_object(v->storage, name, TRACE_MAX_BYTES, &data, err);
	if (rc == 0)
		rc = record_decode(v->keyring, RECORD_TRACE, data.data, data.len, &r, err);
	if (rc)
		return rc;
	const struct key_entry *signer = keyring_find(v->keyring, r.signer);
	const char *whose = json_string_value(json_object_get(r.meta, "node"));
	if (!signer || !signer->active || signer->role != KEY_RESTORE || !whose || strcmp(whose, node) != 0 || !r.private_part)
		rc = im_fail(err, IM_ECORRUPT, "%s was not written by a restore key of this vault", name);
	else
		*ret = json_incref(r.private_part);
	record_clear(&r);
	return rc;
}

int trace_read(const struct vault *v, const char *node, json_t **ret, struct im_error *err)
{
	auto_free char *prefix = im_format("traces/%s/", node);
	struct names names = { 0 };
	int rc = prefix ? storage_list(v->storage, prefix, keep_name, &names, err) : im_fail(err, IM_ENOMEM, "out of memory");
	bool found = false;
	for (size_t i = names.count; rc == 0 && !found && i-- > 0;) {
		struct im_error ignored = { 0 };
		found = read_one(v, node, names.items[i], ret, &ignored) == 0;
	}
	for (size_t i = 0; i < names.count; i++)
		free(names.items[i]);
	return rc || found ? rc : im_fail(err, IM_ENOTFOUND, "there is no start trace of node %s", node);
}
