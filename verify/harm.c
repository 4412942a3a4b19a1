/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What damage means: which snapshots and stores need a damaged pack and, with a restore key, which
 * pages and files of the newest harmed snapshot lie on the entries that cannot be decoded. Also
 * the maps of the snapshots themselves: does everything they name exist.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "vault/fetch.h"
#include "verify/internal.h"

#include <stdio.h>
#include <string.h>

struct look { /* one store of one snapshot, explained */
	struct verify *v;
	const struct snapshot *snapshot;
	struct fetcher *fetcher;
	const struct verify_pack *pack; /* the damaged one; NULL: the map itself is looked at */
	size_t damage;                  /* where findings go; VERIFY_NO_DAMAGE: not opened yet */
	const char *object, *store;
	struct im_ref last;
	bool last_bad, any_last;
};

static bool decodes(struct look *l, const struct im_ref *ref)
{
	static const enum entry_type types[] = { ENTRY_EXTENT, ENTRY_CHUNK, ENTRY_LEAF, ENTRY_TREE,
		ENTRY_AUX };
	const struct pack_info *info = snapshot_pack(l->snapshot, ref->pack);
	for (size_t i = 0; info && i < sizeof types / sizeof *types; i++) {
		auto_buf struct im_buf plain = { 0 };
		struct im_error why = { 0 };
		if (fetch_one(l->fetcher, info, types[i], ref, &plain, &why) == 0)
			return true;
	}
	return false;
}

static bool judge(struct look *l, const struct im_ref *ref)
{
	const struct verify_pack *p = l->pack;
	if (!p->found)
		return true;
	for (size_t i = 0; p->entries_known && i < p->bad_count; i++)
		if (p->bad[i] == ref->offset)
			return true;
	return p->entries_known ? false : !decodes(l, ref);
}

static bool is_bad(void *context, const struct im_ref *ref)
{
	struct look *l = context;
	const struct pack_info *info = snapshot_pack(l->snapshot, ref->pack);
	if (!l->pack)
		return !info || (uint64_t)ref->offset + ref->stored > info->size_bytes;
	if (!info || memcmp(info->name, l->pack->name, sizeof info->name))
		return false;
	if (l->any_last && !memcmp(&l->last, ref, sizeof *ref))
		return l->last_bad;
	l->last = *ref;
	l->any_last = true;
	l->last_bad = judge(l, ref);
	return l->last_bad;
}

static void take_text(void *context, const char *text)
{
	struct look *l = context;
	if (l->damage == VERIFY_NO_DAMAGE)
		l->damage = verify_damage_add(l->v, l->object,
		    "the map of store %s names what is not there or cannot be read", l->store);
	if (l->damage != VERIFY_NO_DAMAGE)
		verify_damage_path(l->v, l->damage, text);
}

static int no_file(
    struct rebuild *r, const struct rebuild_file *file, uint32_t *ret_number, struct im_error *err)
{
	(void)r, (void)file, (void)ret_number;
	return im_fail(err, IM_EFAIL, "a store tried to rebuild while it was asked to explain");
}

static int no_piece(struct rebuild *r, uint32_t file, uint64_t file_offset, uint32_t len,
    enum entry_type type, const struct im_ref *ref, uint32_t skip, const uint8_t id[32],
    struct im_error *err)
{
	(void)r, (void)file, (void)file_offset, (void)len, (void)type, (void)ref, (void)skip,
	    (void)id;
	return im_fail(err, IM_EFAIL, "a store tried to rebuild while it was asked to explain");
}

static int no_folder(struct rebuild *r, const char *path, struct im_error *err)
{
	(void)r, (void)path;
	return im_fail(err, IM_EFAIL, "a store tried to rebuild while it was asked to explain");
}

static void no_damage(struct rebuild *r, const char *text)
{
	(void)r, (void)text;
}

static int explain(struct look *l, struct im_error *err)
{
	json_t *manifest = snapshot_manifest(l->snapshot, l->store);
	const char *type = json_string_value(json_object_get(manifest, "type"));
	const struct store_ops *ops = type ? store_find(type) : NULL;
	if (!ops || !ops->explain)
		return 0;
	struct rebuild r = { .snapshot = l->snapshot,
		.fetcher = l->fetcher,
		.manifest = manifest,
		.keyring = l->v->keyring,
		.file = no_file,
		.piece = no_piece,
		.folder = no_folder,
		.damaged = no_damage,
		.root_fd = -1 };
	struct im_error why = { 0 };
	int rc = ops->explain(&r, is_bad, l, take_text, l, &why);
	if (rc == IM_EUNREACHABLE || rc == IM_EINTERRUPTED || rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	if (rc)
		take_text(l, why.text);
	return 0;
}

static bool needs(const struct verify_store *st, uint32_t row)
{
	size_t low = 0, high = st->pack_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (st->packs[middle] < row)
			low = middle + 1;
		else
			high = middle;
	}
	return low < st->pack_count && st->packs[low] == row;
}

static bool is_newest(const struct verify *v, size_t i)
{
	return i + 1 == v->list.count ||
	    strcmp(v->list.items[i].node, v->list.items[i + 1].node) != 0;
}

/* Paths and pages of one harmed snapshot. */
static int explain_pack(struct verify *v, struct fetcher *f, const struct verify_pack *p, size_t i,
    struct im_error *err)
{
	struct verify_snapshot *vs = &v->snapshots[i];
	struct snapshot *s = NULL;
	struct im_error why = { 0 };
	int rc = snapshot_read(v->storage, v->keyring, &vs->name, &s, &why);
	if (rc || !s->record.private_part) {
		snapshot_free(s);
		return 0;
	}
	for (size_t j = 0; j < vs->store_count && rc == 0; j++) {
		struct look l = { .v = v,
			.snapshot = s,
			.fetcher = f,
			.pack = p,
			.damage = p->damage,
			.object = vs->name.object,
			.store = vs->stores[j].name };
		if (needs(&vs->stores[j], (uint32_t)(p - v->packs)))
			rc = explain(&l, err);
	}
	snapshot_free(s);
	return rc;
}

static int harm_of_pack(
    struct verify *v, struct fetcher *f, const struct verify_pack *p, struct im_error *err)
{
	uint32_t row = (uint32_t)(p - v->packs);
	const char *explained = NULL; /* node */
	for (size_t i = v->list.count; i-- > 0;) {
		struct verify_snapshot *vs = &v->snapshots[i];
		bool harmed = false;
		for (size_t j = 0; j < vs->store_count; j++)
			if (needs(&vs->stores[j], row)) {
				harmed = true;
				verify_damage_store(
				    v, p->damage, vs->name.node, vs->stores[j].name);
			}
		if (!harmed)
			continue;
		verify_damage_snapshot(v, p->damage, vs->label);
		if (!f || (explained && !strcmp(explained, vs->name.node)))
			continue;
		explained = vs->name.node;
		int rc = im_interrupt_check(err);
		if (rc == 0)
			rc = explain_pack(v, f, p, i, err);
		if (rc)
			return rc;
	}
	return 0;
}

static bool is_harmed(const struct verify *v, const struct verify_store *st)
{
	for (size_t i = 0; i < st->pack_count; i++)
		if (v->packs[st->packs[i]].damage != VERIFY_NO_DAMAGE)
			return true;
	return false;
}

/* The maps of one snapshot; a store whose manifest is that of the snapshot before was looked at
 * with that. */
static int check_maps(
    struct verify *v, struct fetcher *f, size_t i, struct snapshot **previous, struct im_error *err)
{
	struct verify_snapshot *vs = &v->snapshots[i];
	struct snapshot *s = NULL;
	struct im_error why = { 0 };
	int rc = vs->readable ? snapshot_read(v->storage, v->keyring, &vs->name, &s, &why) :
				IM_ENOTFOUND;
	if (rc == IM_EUNREACHABLE || rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	if (rc && vs->readable)
		verify_damage_snapshot(v,
		    verify_damage_add(
			v, vs->name.object, "it could be read once but not again: %s", why.text),
		    vs->label);
	for (size_t j = 0; rc == 0 && s->record.private_part && j < vs->store_count; j++) {
		struct verify_store *st = &vs->stores[j];
		json_t *mine = snapshot_manifest(s, st->name),
		       *before = *previous ? snapshot_manifest(*previous, st->name) : NULL;
		if (!mine || is_harmed(v, st) || (before && json_equal(mine, before)))
			continue;
		struct look l = { .v = v,
			.snapshot = s,
			.fetcher = f,
			.damage = VERIFY_NO_DAMAGE,
			.object = vs->name.object,
			.store = st->name };
		rc = im_interrupt_check(err);
		if (rc == 0)
			rc = explain(&l, err);
		if (l.damage != VERIFY_NO_DAMAGE) {
			verify_damage_snapshot(v, l.damage, vs->label);
			verify_damage_store(v, l.damage, vs->name.node, st->name);
		}
		if (rc) {
			snapshot_free(s);
			return rc;
		}
	}
	if (s) {
		snapshot_free(*previous);
		*previous = s;
	}
	return 0;
}

static int check_all_maps(struct verify *v, struct fetcher *f, struct im_error *err)
{
	struct snapshot *previous = NULL;
	int rc = 0;
	verify_phase(v, "maps");
	for (size_t i = 0; i < v->list.count && rc == 0; i++)
		if (v->request->read_percent >= 100 || is_newest(v, i))
			rc = check_maps(v, f, i, &previous, err);
	snapshot_free(previous);
	return rc;
}

int verify_harm(struct verify *v, struct im_error *err)
{
	struct fetcher *f = NULL;
	int rc = v->can_decrypt ? fetcher_new(v->storage, v->keyring, &f, err) : 0;
	for (size_t i = 0; i < v->pack_count && rc == 0; i++)
		if (v->packs[i].damage != VERIFY_NO_DAMAGE)
			rc = harm_of_pack(v, f, &v->packs[i], err);
	if (rc == 0 && f && v->request->read_percent)
		rc = check_all_maps(v, f, err);
	fetcher_free(f);
	return rc;
}
