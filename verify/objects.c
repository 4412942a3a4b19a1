/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Presence: packs by listing, snapshots by reading each record, chains, index fragments. Nothing
 * here opens a pack.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "vault/fetch.h"
#include "vault/index.h"
#include "vault/drills.h"
#include "vault/runlog.h"
#include "verify/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { OBJECT_MAX_BYTES = 512 << 20 };

struct listing {
	struct verify *v;
	struct im_error *err;
};

static bool pack_name(const char *object, uint8_t ret[32])
{
	char canonical[80];
	if (strncmp(object, "packs/", 6) || strlen(object) != 6 + 3 + 64 ||
	    !im_unhex(ret, 32, object + 9))
		return false;
	return strcmp(fetch_pack_object(canonical, ret), object) == 0;
}

static struct verify_pack *add_pack(struct verify *v, struct im_error *err)
{
	if (v->pack_count == v->pack_cap) {
		size_t cap = v->pack_cap ? 2 * v->pack_cap : 256;
		struct verify_pack *grown = realloc(v->packs, cap * sizeof *grown);
		if (!grown) {
			im_fail(err, IM_ENOMEM, "out of memory for the list of packs");
			return NULL;
		}
		v->packs = grown;
		v->pack_cap = cap;
	}
	v->packs[v->pack_count] = (struct verify_pack){ .damage = VERIFY_NO_DAMAGE };
	return &v->packs[v->pack_count++];
}

static int take_pack(void *context, const char *object, uint64_t size_bytes)
{
	struct listing *l = context;
	uint8_t name[32];
	if (!pack_name(object, name)) {
		verify_warn(l->v, "%s is no object of this vault; it is left alone", object);
		return 0;
	}
	struct verify_pack *p = add_pack(l->v, l->err);
	if (!p)
		return IM_ENOMEM;
	memcpy(p->name, name, sizeof name);
	p->size_bytes = p->found_bytes = size_bytes;
	p->found = true;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return memcmp(
	    ((const struct verify_pack *)a)->name, ((const struct verify_pack *)b)->name, 32);
}

int verify_list_packs(struct verify *v, struct im_error *err)
{
	struct listing l = { v, err };
	int rc = storage_list(v->storage, "packs/", take_pack, &l, err);
	qsort(v->packs, v->pack_count, sizeof *v->packs, by_name);
	return rc;
}

struct verify_pack *verify_find_pack(struct verify *v, const uint8_t name[32])
{
	struct verify_pack key;
	memcpy(key.name, name, sizeof key.name);
	return v->pack_count ? bsearch(&key, v->packs, v->pack_count, sizeof key, by_name) : NULL;
}

/* Notes that the snapshot needs these packs. Missing ones are added behind the sorted rows. */
static int need_packs(struct verify *v, const struct snapshot *s, struct verify_pack **missing,
    size_t *missing_count, struct im_error *err)
{
	for (size_t i = 0; i < s->pack_count; i++) {
		struct verify_pack *p = verify_find_pack(v, s->packs[i].name);
		if (!p) {
			struct verify_pack *grown = realloc(
			    *missing, (*missing_count + 1) * sizeof *grown);
			if (!grown)
				return im_fail(err, IM_ENOMEM, "out of memory");
			*missing = grown;
			p = &grown[(*missing_count)++];
			*p = (struct verify_pack){ .damage = VERIFY_NO_DAMAGE };
			memcpy(p->name, s->packs[i].name, 32);
		}
		p->needed = true;
		p->size_bytes = s->packs[i].size_bytes;
		p->size_differs = p->found && p->found_bytes != p->size_bytes;
		memcpy(p->commitment, s->packs[i].commitment, 32);
		p->has_commitment = true;
	}
	return 0;
}

/* The list stays sorted and without doubles. */
static int merge_missing(
    struct verify *v, struct verify_pack *missing, size_t count, struct im_error *err)
{
	for (size_t i = 0; i < count; i++) {
		struct verify_pack *p = add_pack(v, err);
		if (!p)
			return IM_ENOMEM;
		*p = missing[i];
	}
	if (count)
		qsort(v->packs, v->pack_count, sizeof *v->packs, by_name);
	return 0;
}

static int compare_rows(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

/* What one store of the snapshot needs, as pack numbers for now. */
static int take_store(struct verify_snapshot *vs, json_t *row, struct im_error *err)
{
	struct verify_store *st = &vs->stores[vs->store_count++];
	const char *name = json_string_value(json_object_get(row, "name"));
	const char *packs = json_string_value(json_object_get(row, "packs"));
	auto_buf struct im_buf numbers = { 0 };
	st->name = strdup(name ? name : "?");
	if (packs && !im_unbase64(&numbers, packs))
		return im_fail(err, IM_ECORRUPT, "the packs of store %s are not readable",
		    st->name ? st->name : "?");
	st->pack_count = numbers.len / 4;
	st->packs = calloc(st->pack_count + 1, sizeof *st->packs);
	if (!st->name || !st->packs)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < st->pack_count; i++)
		st->packs[i] = im_le32(numbers.data + 4 * i);
	return 0;
}

static int take_stores(struct verify_snapshot *vs, const struct snapshot *s, struct im_error *err)
{
	json_t *rows = json_object_get(s->record.meta, "stores"), *row;
	size_t i;
	vs->stores = calloc(json_array_size(rows) + 1, sizeof *vs->stores);
	if (!vs->stores)
		return im_fail(err, IM_ENOMEM, "out of memory");
	json_array_foreach(rows, i, row) {
		int rc = take_store(vs, row, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* Pack numbers become rows of v->packs. */
static void resolve_stores(struct verify *v, struct verify_snapshot *vs, const struct snapshot *s)
{
	for (size_t i = 0; i < vs->store_count; i++) {
		struct verify_store *st = &vs->stores[i];
		size_t n = 0;
		for (size_t j = 0; j < st->pack_count; j++) {
			const struct pack_info *info = snapshot_pack(s, st->packs[j]);
			struct verify_pack *p = info ? verify_find_pack(v, info->name) : NULL;
			if (p)
				st->packs[n++] = (uint32_t)(p - v->packs);
			else
				verify_damage_add(v, vs->name.object,
				    "store %s needs pack number %u, which the snapshot does not list",
				    st->name, st->packs[j]);
		}
		st->pack_count = n;
		qsort(st->packs, n, sizeof *st->packs, compare_rows);
	}
}

/* The name holds the hash of the content: shows damage without any key. */
int verify_named_hash(
    struct verify *v, const char *object, const char *digits, bool *ret_same, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	uint8_t hash[32];
	char hex[65];
	struct im_error why = { 0 };
	*ret_same = false;
	int rc = storage_read_object(v->storage, object, OBJECT_MAX_BYTES, &b, &why);
	if (rc == IM_EUNREACHABLE || rc == IM_EINTERRUPTED || rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	if (rc) {
		verify_damage_add(v, object, "%s", why.text);
		return 0;
	}
	crypto_hash(hash, b.data, b.len);
	im_hex(hex, hash, 32);
	*ret_same = strncmp(hex, digits, strlen(digits)) == 0;
	if (!*ret_same)
		verify_damage_add(
		    v, object, "its content is not what its name says: it was changed or damaged");
	return 0;
}

/* First pass: read every record, note what is needed. */
static int read_snapshot(struct verify *v, size_t i, struct snapshot **ret, struct im_error *err)
{
	struct verify_snapshot *vs = &v->snapshots[i];
	struct im_error why = { 0 };
	const char *slash = strrchr(vs->name.object, '/');
	vs->label = im_format("%s/%s", vs->name.node, slash ? slash + 1 : "?");
	if (!vs->label)
		return im_fail(err, IM_ENOMEM, "out of memory");
	v->result->snapshots++;
	*ret = NULL;
	if (v->keyless) {
		bool same;
		return verify_named_hash(v, vs->name.object, vs->name.hash_prefix, &same, err);
	}
	int rc = snapshot_read(v->storage, v->keyring, &vs->name, ret, &why);
	if (rc == 0)
		return 0;
	if (rc == IM_EUNREACHABLE || rc == IM_EINTERRUPTED || rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	v->all_readable = false;
	if (rc == IM_EKEY) {
		verify_warn(v, "%s: %s", vs->name.object, why.text);
		return 0;
	}
	size_t row = verify_damage_add(v, vs->name.object, "%s", why.text);
	if (row != VERIFY_NO_DAMAGE)
		verify_damage_snapshot(v, row, vs->label);
	return 0;
}

static int take_snapshot(struct verify *v, size_t i, struct im_error *err)
{
	struct snapshot *s = NULL;
	struct verify_pack *missing = NULL;
	size_t missing_count = 0;
	int rc = read_snapshot(v, i, &s, err);
	if (rc || !s)
		return rc;
	struct im_error why = { 0 };
	rc = take_stores(&v->snapshots[i], s, &why);
	if (rc == IM_ECORRUPT) {
		size_t row = verify_damage_add(v, v->snapshots[i].name.object, "%s", why.text);
		if (row != VERIFY_NO_DAMAGE)
			verify_damage_snapshot(v, row, v->snapshots[i].label);
		rc = 0;
	}
	if (rc == 0)
		rc = need_packs(v, s, &missing, &missing_count, &why);
	if (rc == 0)
		rc = merge_missing(v, missing, missing_count, &why);
	free(missing);
	if (rc == 0)
		rc = verify_take_images(v, i, s, &why);
	v->snapshots[i].readable = rc == 0;
	snapshot_free(s);
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

/* Rows of v->packs move while missing ones are merged in, so stores are resolved in a second pass.
 */
static int resolve_snapshot(struct verify *v, size_t i, struct im_error *err)
{
	struct verify_snapshot *vs = &v->snapshots[i];
	struct snapshot *s = NULL;
	struct im_error why = { 0 };
	if (!vs->readable)
		return 0;
	int rc = snapshot_read(v->storage, v->keyring, &vs->name, &s, &why);
	if (rc) {
		vs->readable = false;
		size_t row = verify_damage_add(v, vs->name.object, "%s", why.text);
		return row == VERIFY_NO_DAMAGE ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
	}
	resolve_stores(v, vs, s);
	snapshot_free(s);
	return 0;
}

int verify_snapshots(struct verify *v, struct im_error *err)
{
	verify_phase(v, "snapshots");
	v->all_readable = !v->keyless;
	int rc = snapshot_list(v->storage, v->request->node, &v->list, err);
	if (rc)
		return rc;
	if (v->request->node && !v->list.count)
		return im_fail(
		    err, IM_ENOTFOUND, "the vault holds no snapshot of node %s", v->request->node);
	v->snapshots = calloc(v->list.count + 1, sizeof *v->snapshots);
	if (!v->snapshots)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < v->list.count && rc == 0; i++) {
		v->snapshots[i].name = v->list.items[i];
		rc = im_interrupt_check(err);
		if (rc == 0)
			rc = take_snapshot(v, i, err);
	}
	for (size_t i = 0; i < v->list.count && rc == 0; i++)
		rc = resolve_snapshot(v, i, err);
	return rc;
}

static void take_finding(void *context, const char *object, const char *text)
{
	verify_damage_add(context, object, "%s", text);
}

/* No snapshot needs them, but they are evidence. */
static int check_drills(struct verify *v, const char *node, struct im_error *err)
{
	struct drill_list drills;
	auto_free char *object = im_format("drills/%s", node);
	int rc = object ? drills_read(v->request->vault, node, &drills, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc)
		return rc;
	for (size_t i = 0; i < drills.finding_count; i++)
		verify_damage_add(v, object, "%s", drills.findings[i]);
	drill_list_clear(&drills);
	return 0;
}

int verify_chains(struct verify *v, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; i < v->list.count && rc == 0 && !v->keyless; i++) {
		const char *node = v->list.items[i].node;
		if (i && !strcmp(node, v->list.items[i - 1].node))
			continue;
		rc = snapshot_check_chain(v->storage, v->keyring, node, take_finding, v, err);
		if (rc == 0)
			rc = check_drills(v, node, err);
	}
	return rc;
}

static int ignore_entry(void *context, const struct pack_info *pack, const struct pack_entry *entry,
    struct im_error *err)
{
	(void)context, (void)pack, (void)entry, (void)err;
	return 0;
}

/* A bad fragment harms no data: it only saves work. It is damage all the same. */
static int check_fragment(struct verify *v, const char *object, struct im_error *err)
{
	const char *slash = strrchr(object, '/');
	bool same = false;
	v->result->fragments++;
	int rc = verify_named_hash(v, object, slash ? slash + 1 : object, &same, err);
	if (rc || !same || v->keyless)
		return rc;
	auto_buf struct im_buf b = { 0 };
	struct im_error why = { 0 };
	uint8_t signer[8];
	rc = storage_read_object(v->storage, object, OBJECT_MAX_BYTES, &b, err);
	if (rc)
		return rc;
	rc = index_decode(v->keyring, b.data, b.len, signer, ignore_entry, NULL, &why);
	if (rc == IM_EKEY)
		verify_warn(v, "%s: %s", object, why.text);
	else if (rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	else if (rc)
		verify_damage_add(v, object,
		    "%s (no snapshot needs it; deduplication loses what it knew)", why.text);
	return 0;
}

struct names {
	char **items;
	size_t count;
};

static int take_name(void *context, const char *object, uint64_t size_bytes)
{
	struct names *n = context;
	(void)size_bytes;
	char **grown = realloc(n->items, (n->count + 1) * sizeof *grown);
	if (!grown)
		return IM_ENOMEM;
	n->items = grown;
	return (grown[n->count] = strdup(object)) ? (n->count++, 0) : IM_ENOMEM;
}

int verify_index(struct verify *v, struct im_error *err)
{
	struct names names = { 0 };
	auto_free char *prefix = v->request->node ? im_format("index/%s/", v->request->node) :
						    strdup("index/");
	verify_phase(v, "index");
	int rc = prefix ? storage_list(v->storage, prefix, take_name, &names, err) :
			  im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < names.count && rc == 0; i++) {
		rc = im_interrupt_check(err);
		if (rc == 0)
			rc = check_fragment(v, names.items[i], err);
	}
	for (size_t i = 0; i < names.count; i++)
		free(names.items[i]);
	free(names.items);
	return rc == IM_ENOMEM ? im_fail(err, IM_ENOMEM, "out of memory") : rc;
}

/* No data depends on run records: what is wrong with one is said, and no damage. */
static int check_run(void *context, const char *object, uint64_t size_bytes)
{
	struct listing *l = context;
	struct im_error why = { 0 };
	(void)size_bytes;
	l->v->result->runs++;
	int rc = im_interrupt_check(l->err);
	if (rc || l->v->keyless)
		return rc;
	rc = runlog_check(l->v->request->vault, object, im_now_ms(), &why);
	if (rc == IM_EUNREACHABLE || rc == IM_ENOMEM)
		return im_fail(l->err, rc, "%s", why.text);
	if (rc && rc != IM_ENOTFOUND)
		verify_warn(l->v, "%s; it counts for nothing", why.text);
	return 0;
}

int verify_runs(struct verify *v, struct im_error *err)
{
	struct listing l = { v, err };
	auto_free char *prefix = v->request->node ? im_format("runs/%s/", v->request->node) : strdup("runs/");
	return prefix ? storage_list(v->storage, prefix, check_run, &l, err) : im_fail(err, IM_ENOMEM, "out of memory");
}

int verify_presence(struct verify *v, struct im_error *err)
{
	(void)err;
	for (size_t i = 0; i < v->pack_count; i++) {
		struct verify_pack *p = &v->packs[i];
		char object[80];
		fetch_pack_object(object, p->name);
		v->result->packs++;
		v->result->unreferenced += !p->needed && v->all_readable && !v->request->node;
		if (p->needed || v->keyless)
			v->result->bytes_total += p->size_bytes;
		if (!p->found)
			p->damage = verify_damage_add(v, object, "it is missing");
		else if (p->size_differs)
			p->damage = verify_damage_add(v, object,
			    "it has %" PRIu64 " bytes instead of %" PRIu64, p->found_bytes,
			    p->size_bytes);
	}
	return 0;
}
