/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification as a story: list the packs, read the snapshots, check chains, logs and index, compare
 * what is needed with what is there, read the share that is due, say what damage harms.
 */
#include "verify/verify.h"

#include "base/clock.h"
#include "verify/internal.h"

#include <inttypes.h>
#include <stdlib.h>

static void verify_clear(struct verify *v)
{
	for (size_t i = 0; v->snapshots && i < v->list.count; i++) {
		struct verify_snapshot *vs = &v->snapshots[i];
		for (size_t j = 0; j < vs->store_count; j++) {
			free(vs->stores[j].name);
			free(vs->stores[j].packs);
		}
		free(vs->stores);
		free(vs->label);
	}
	free(v->snapshots);
	for (size_t i = 0; i < v->pack_count; i++)
		free(v->packs[i].bad);
	free(v->packs);
	for (size_t i = 0; i < v->image_count; i++)
		free(v->images[i].store);
	free(v->images);
	snapshot_list_clear(&v->list);
	pthread_mutex_destroy(&v->mutex);
}

static int run(struct verify *v, struct im_error *err)
{
	verify_phase(v, "list");
	int rc = verify_list_packs(v, err);
	if (rc == 0)
		rc = verify_snapshots(v, err);
	if (rc == 0)
		rc = verify_chains(v, err);
	if (rc == 0)
		rc = verify_logs(v, err);
	if (rc == 0)
		rc = verify_index(v, err);
	if (rc == 0)
		rc = verify_runs(v, err);
	if (rc == 0)
		rc = verify_presence(v, err);
	if (rc == 0)
		rc = verify_content(v, err);
	if (rc == 0)
		rc = verify_harm(v, err);
	return rc;
}

int verify_run(
    const struct verify_request *request, struct verify_result *ret, struct im_error *err)
{
	const struct vault *vault = request->vault;
	*ret = (struct verify_result){ 0 };
	struct verify v = { .request = request,
		.result = ret,
		.storage = vault->storage,
		.keyring = vault->keyring,
		.keyless = !vault->key,
		.can_decrypt = vault->key && vault->key->role == KEY_RESTORE };
	int64_t start = im_monotonic_ms();
	pthread_mutex_init(&v.mutex, NULL);
	int rc = run(&v, err);
	verify_clear(&v);
	ret->duration_ms = im_monotonic_ms() - start;
	if (rc == 0 && ret->damaged_count)
		rc = im_fail(err, IM_ECORRUPT,
		    "%zu object%s of the vault %s damaged or missing; copy the vault away before anything else",
		    ret->damaged_count, ret->damaged_count == 1 ? "" : "s",
		    ret->damaged_count == 1 ? "is" : "are");
	return rc;
}

static void free_texts(char **texts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(texts[i]);
	free(texts);
}

void verify_result_clear(struct verify_result *r)
{
	for (size_t i = 0; i < r->damaged_count; i++) {
		struct verify_damage *d = &r->damaged[i];
		free(d->object);
		free(d->problem);
		free_texts(d->snapshots, d->snapshot_count);
		free_texts(d->stores, d->store_count);
		free_texts(d->paths, d->path_count);
	}
	free(r->damaged);
	free_texts(r->warnings, r->warning_count);
	*r = (struct verify_result){ 0 };
}
