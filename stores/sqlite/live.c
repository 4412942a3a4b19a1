/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots under SQLite's locks, in this order: pin, fingerprint, read everything, run the
 * probes on the same transaction, make sure the pin held, only then let go. The fingerprint is taken
 * under the pin, so that any later change makes the next one differ.
 */
#include "stores/sqlite/live.h"

#include "base/clock.h"
#include "stores/sqlite/dbmanifest.h"
#include "stores/sqlite/probe.h"
#include "stores/sqlite/walpos.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EMPTY_PAGE_SIZE 4096

void live_anchor(const struct snapshot_request *request, const struct shm_head *shm, uint32_t page_size, uint32_t pages, int64_t before_ms, struct snapshot_result *ret)
{
	struct snapshot_anchor *a = request->anchor;
	struct walpos p = { .page_size = page_size, .pages = pages, .frame = shm->max_frame,
		.frame_checksum = { shm->frame_checksum[0], shm->frame_checksum[1] }, .complete_ms = before_ms, .latest_ms = im_now_ms() };
	struct im_error why = { 0 };
	memcpy(p.salt, shm->salt, sizeof p.salt);
	json_t *position = walpos_encode(&p);
	int rc = position ? a->pinned(a, request->store->name, position, &ret->log, &why) : im_fail(&why, IM_ENOMEM, "out of memory");
	json_decref(position);
	if (rc && request->events && request->events->warn) {
		char text[IM_ERROR_TEXT_BYTES + 60];
		snprintf(text, sizeof text, "this snapshot does not stand in the log: %s", why.text);
		request->events->warn(request->events->context, request->store->name, text);
	}
}

int live_conclude(struct image *image, const uint8_t *fingerprint, bool racy, json_t *manifest, struct snapshot_result *ret, struct im_error *err)
{
	static const uint8_t unknown[CRYPTO_HASH_BYTES];
	struct snapshot_result result = { .instant_ms = ret->instant_ms, .pause_us = ret->pause_us, .partial = ret->partial, .log = ret->log };
	int rc = image_describe(image, manifest, &result, err);
	if (rc == 0)
		rc = image_commit(image, fingerprint ? fingerprint : unknown, racy || !fingerprint, manifest, err);
	if (rc) {
		free(result.packs);
		json_decref(manifest);
		return rc;
	}
	*ret = result;
	ret->manifest = manifest;
	return 0;
}

static int read_image(struct image *image, struct pin *pin, const struct im_config_store *config, json_t **ret_probes, struct im_error *err)
{
	struct source source = { .page_size = pin->header.page_size, .pages = pin->pages, .path = pin->files.path,
		.db = pin->files.db, .wal = pin->files.wal, .table = pin->uses_wal ? &pin->table : NULL };
	/* Not beside the reading: on a cold cache a probe that scans an index makes the disk seek, and both wait. */
	json_t *probes = NULL;
	int rc = image_add(image, &source, err);
	if (rc == 0)
		rc = probe_run(pin->db, config, &probes, err);
	if (rc == 0)
		rc = pin_verify(pin, err);
	if (rc) {
		json_decref(probes);
		return rc;
	}
	*ret_probes = probes;
	return 0;
}

static int snapshot_pinned(const struct snapshot_request *request, struct pin *pin, struct image *image, struct snapshot_result *ret, struct im_error *err)
{
	/* Before the reading: what changes from here on must differ from it. */
	uint8_t fingerprint[CRYPTO_HASH_BYTES] = { 0 };
	bool racy = true;
	const struct shm_head *shm = pin->mode == PIN_WAL ? &pin->shm : NULL;
	bool known = remember_fingerprint(&pin->files, shm, request->store, fingerprint, &racy);
	json_t *probes = NULL, *manifest = NULL;
	int rc = read_image(image, pin, request->store, &probes, err);
	const char *capture = pin->mode == PIN_SHARED ? "shared" : pin->was_closed ? "closed" : "wal";
	if (rc == 0)
		rc = dbmanifest_new(request->store, &pin->stat, pin->header.wal, capture, &manifest, err);
	if (rc == 0 && json_object_set(manifest, "probes", probes))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	json_decref(probes);
	if (rc) {
		json_decref(manifest);
		return rc;
	}
	return live_conclude(image, known ? fingerprint : NULL, racy, manifest, ret, err);
}

int live_snapshot(const struct snapshot_request *request, enum pin_mode mode, int64_t timeout_ms, struct snapshot_result *ret, struct im_error *err)
{
	struct pin *pin = NULL;
	struct image *image = NULL;
	int rc = pin_open(request->store->path, mode, timeout_ms, &pin, err);
	if (rc)
		return rc;
	struct snapshot_result result = { .instant_ms = pin->instant_ms, .pause_us = -1 };
	if (request->anchor && mode == PIN_WAL)
		live_anchor(request, &pin->shm, pin->header.page_size, pin->pages, pin->instant_ms, &result);
	rc = image_new(request, pin->header.page_size, &image, err);
	if (rc == 0)
		rc = snapshot_pinned(request, pin, image, &result, err);
	image_free(image);
	pin_close(pin);
	if (rc == 0)
		*ret = result;
	else
		json_decref(result.log);
	return rc;
}

int live_snapshot_empty(const struct snapshot_request *request, const struct pin_files *files, struct snapshot_result *ret, struct im_error *err)
{
	struct stat st;
	struct snapshot_result result = { .instant_ms = im_now_ms(), .pause_us = -1 };
	struct source source = { .page_size = EMPTY_PAGE_SIZE, .path = files->path, .db = files->db, .wal = -1 };
	struct image *image = NULL;
	json_t *manifest = NULL;
	if (fstat(files->db, &st))
		return im_fail(err, IM_EIO, "cannot stat %s", files->path);
	int rc = dbmanifest_new(request->store, &st, false, "closed", &manifest, err);
	if (rc)
		return rc;
	rc = json_object_set_new(manifest, "probes", json_array()) ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
	if (rc == 0)
		rc = image_new(request, EMPTY_PAGE_SIZE, &image, err);
	if (rc == 0)
		rc = image_add(image, &source, err);
	if (rc == 0)
		rc = live_conclude(image, NULL, true, manifest, &result, err);
	else
		json_decref(manifest);
	image_free(image);
	if (rc == 0)
		*ret = result;
	return rc;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

/* The packs of the remembered image; false if one is no longer known. */
static bool list_known_packs(struct state *s, const struct remember_image *image, struct snapshot_result *ret)
{
	size_t count = 0, kept = 0;
	for (uint32_t i = 0; i < image->leaf_count; i++)
		count += image->leaves[i].use_count;
	uint32_t *packs = calloc(count ? count : 1, sizeof *packs);
	bool ok = packs != NULL;
	count = 0;
	for (uint32_t i = 0; ok && i < image->leaf_count; i++)
		for (uint32_t u = 0; u < image->leaves[i].use_count; u++)
			packs[count++] = image->leaves[i].uses[u].pack;
	if (ok)
		qsort(packs, count, sizeof *packs, by_number);
	for (size_t i = 0; ok && i < count; i++) {
		struct pack_info info;
		if (i && packs[i] == packs[i - 1])
			continue;
		packs[kept++] = packs[i];
		ok = state_pack_get(s, packs[i], &info, NULL) == 0;
	}
	if (!ok) {
		free(packs);
		return false;
	}
	ret->packs = packs;
	ret->pack_count = kept;
	return true;
}

int live_unchanged(const struct snapshot_request *request, const struct pin_files *files, bool *ret_same, struct snapshot_result *ret, struct im_error *err)
{
	uint8_t fingerprint[CRYPTO_HASH_BYTES];
	struct shm_head shm;
	bool racy;
	*ret_same = false;
	struct snapshot_result result = { .instant_ms = im_now_ms(), .pause_us = -1 };
	bool has_shm = pin_files_shm(files, &shm);
	if (request->full || !remember_fingerprint(files, has_shm ? &shm : NULL, request->store, fingerprint, &racy))
		return 0;
	struct remember_image image = { 0 };
	struct im_error why = { 0 };
	int rc = remember_image_load(request->state, request->store->name, &image, &why);
	if (rc)
		return rc == IM_ENOTFOUND ? 0 : im_fail(err, rc, "%s", why.text);
	if (!image.racy && memcmp(image.fingerprint, fingerprint, sizeof fingerprint) == 0)
		result.manifest = json_loads(image.manifest, 0, NULL);
	if (result.manifest && list_known_packs(request->state, &image, &result)) {
		result.bytes = (uint64_t)image.pages * image.page_size;
		if (request->anchor && has_shm)
			live_anchor(request, &shm, image.page_size, image.pages, result.instant_ms, &result);
		*ret = result;
		*ret_same = true;
	} else {
		json_decref(result.manifest);
	}
	remember_image_clear(&image);
	return 0;
}
