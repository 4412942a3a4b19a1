/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a batch to a segment (FORMAT §7): meta, encoding part by part, the spool, the new head. Until
 * the head is written nothing has happened, and the batch is tried again; then the source may let go.
 */
#include "backup/coarse.h"
#include "backup/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool follow_position_sum(const json_t *position, uint8_t ret[SPOOL_SUM_BYTES])
{
	const char *text = json_string_value(json_object_get(position, "sum"));
	return text && im_unhex(ret, SPOOL_SUM_BYTES, text);
}

/* Instants never go back within an epoch, whatever the store kind and the clock do. */
static json_t *points_json(const struct spool_head *before, const struct follow_batch *b, struct spool_head *after)
{
	json_t *points = json_array();
	int64_t complete = before->complete_ms, latest = before->latest_ms;
	for (size_t i = 0; i < b->point_count; i++) {
		complete = b->points[i].complete_ms > complete ? b->points[i].complete_ms : complete;
		latest = b->points[i].latest_ms > latest ? b->points[i].latest_ms : latest;
		latest = complete > latest ? complete : latest;
		json_array_append_new(points, json_pack("[I, I]", (json_int_t)complete, (json_int_t)latest));
	}
	after->complete_ms = complete;
	after->latest_ms = latest;
	return points;
}

static json_t *make_meta(const struct followed *f, const struct follow_batch *b, struct spool_head *after)
{
	char host[256] = "";
	const struct spool_head *h = &f->head;
	gethostname(host, sizeof host - 1);
	json_t *meta = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:I, s:s*, s:s, s:I, s:I}", "kind", "segment", "node",
	    f->service->node, "store", f->store->name, "type", f->store->type, "epoch", h->epoch, "first", (json_int_t)after->first, "last",
	    (json_int_t)after->point, "level", 0, "snapshot_seq", (json_int_t)f->service->snapshot_seq, "host", host, "version", IMVAULT_VERSION,
	    "bytes", (json_int_t)b->bytes, "commits", (json_int_t)b->commits);
	if (!meta)
		return NULL;
	json_object_set_new(meta, "points", points_json(h, b, after));
	json_object_set(meta, "position", b->position);
	if (f->began && h->point == 0)
		json_object_set(meta, "began", f->began);
	return meta;
}

static void set_part(json_t *meta, size_t part, bool final, const uint8_t *prev)
{
	char hex[65];
	json_object_set_new(meta, "part", json_integer((json_int_t)part));
	json_object_set_new(meta, "final", json_boolean(final));
	if (prev)
		json_object_set_new(meta, "prev", json_string(im_hex(hex, prev, 32)));
}

static int spool_parts(struct followed *f, json_t *meta, uint8_t ret_hash[32], struct im_error *err)
{
	const struct follow_batch *b = &f->batch;
	uint8_t prev[32];
	memcpy(prev, f->head.hash, 32);
	for (size_t i = 0; i < b->part_count; i++) {
		auto_buf struct im_buf object = { 0 };
		auto_free char *name = NULL;
		set_part(meta, i, i + 1 == b->part_count, i || f->head.point ? prev : NULL);
		int rc = log_encode(f->service->vault->keyring, meta, b->parts[i].data.data, b->parts[i].data.len, &object, prev, &name, err);
		if (rc == 0)
			rc = spool_part(f->spool, name, object.data, object.len, err);
		if (rc)
			return rc;
		f->ticked_ms = im_monotonic_ms();
	}
	memcpy(ret_hash, prev, 32);
	return 0;
}

static int check_batch(const struct followed *f, struct im_error *err)
{
	const struct follow_batch *b = &f->batch;
	bool sound = b->part_count && b->part_count <= LOG_MAX_PARTS && b->point_count && b->point_count <= LOG_MAX_POINTS &&
	    json_is_object(b->position);
	if (!sound || b->point_count >= UINT32_MAX - f->head.point)
		return im_fail(err, IM_EGAP, "a batch has %zu points in %zu parts, which no segment can hold", b->point_count, b->part_count);
	return 0;
}

static int spool_batch(struct followed *f, struct spool_head *after, struct im_error *err)
{
	int rc = check_batch(f, err);
	if (rc)
		return rc;
	after->first = f->head.point + 1;
	after->point = f->head.point + (uint32_t)f->batch.point_count;
	json_t *meta = make_meta(f, &f->batch, after);
	if (!meta)
		return im_fail(err, IM_ENOMEM, "out of memory");
	rc = spool_parts(f, meta, after->hash, err);
	json_decref(meta);
	if (rc == 0)
		rc = spool_commit(f->spool, after, f->service->away, err);
	else
		spool_drop(f->spool);
	return rc;
}

static void batch_is_in(struct followed *f, struct spool_head *after)
{
	uint64_t bytes = f->batch.bytes, commits = f->batch.commits;
	uint8_t prev[32];
	memcpy(prev, f->head.hash, 32);
	spool_head_clear(&f->head);
	f->head = *after;
	coarse_feed(f->coarse, &f->head, prev, &f->batch);
	json_decref(f->began);
	f->began = NULL;
	follow_batch_clear(&f->batch);
	f->has_batch = false;
	f->last_segment_ms = im_monotonic_ms();
	pthread_mutex_lock(&f->lock);
	f->view.bytes_changed += bytes;
	f->view.commits += commits;
	pthread_mutex_unlock(&f->lock);
	follow_publish(f);
	follow_ship_wake(f->service);
}

int follow_deliver(struct followed *f, struct im_error *err)
{
	struct spool_head after = { 0 };
	if (!f->has_batch)
		return 0;
	spool_head_copy(&after, &f->head);
	json_decref(after.position);
	after.position = json_incref(f->batch.position);
	int rc = spool_batch(f, &after, err);
	if (rc) {
		spool_head_clear(&after);
		return rc;
	}
	batch_is_in(f, &after);
	return f->ops->durable(f->follower, err);
}
