/* SPDX-License-Identifier: Apache-2.0 */
#include "restore/instant/look.h"

#include "base/clock.h"
#include "restore/instant/find.h"

static int64_t since(const struct table_head *h, int64_t us)
{
	return us ? (us - h->begin_us) / 1000 : -1;
}

static void look_at_table(const struct table *t, struct instant_look *l)
{
	const struct table_head *h = t->head;
	int64_t now_us = im_monotonic_us(), served_us = h->ready_us ? now_us - h->ready_us : 0;
	l->known = true;
	l->filled_bytes = h->filled_bytes;
	l->total_bytes = h->total_bytes;
	l->bad_bytes = h->bad_blocks * TABLE_BLOCK_BYTES;
	l->files_left = h->files_left;
	l->unsafe_files = table_unsafe_files(t);
	l->trouble = h->trouble_count ? h->trouble : NULL;
	l->waiting = h->waiting;
	l->ready_ms = since(h, h->ready_us);
	l->service_ms = since(h, h->service_us);
	l->rto_ms = h->rto_ms;
	l->away_ms = h->away_since_us ? (now_us - h->away_since_us) / 1000 : 0;
	l->worker_starts = h->worker_starts;
	l->keeper_starts = h->keeper_starts;
	uint64_t left = h->total_bytes - (h->filled_bytes < h->total_bytes ? h->filled_bytes : h->total_bytes);
	if (h->filled_bytes && served_us > 0)
		l->left_ms = (int64_t)((double)served_us / 1000 / (double)h->filled_bytes * (double)left);
}

static void look_at(const struct found *f, void (*fn)(void *context, const struct instant_look *l), void *context)
{
	struct table t;
	struct im_error ignored = { 0 };
	struct instant_look l = { .stage = f->stage, .ready_ms = -1, .service_ms = -1, .left_ms = -1 };
	const char *target = json_string_value(json_object_get(f->details, "target")), *node = json_string_value(json_object_get(f->details, "node"));
	l.target = target ? target : f->stage;
	l.node = node ? node : "?";
	l.since_ms = json_integer_value(json_object_get(f->details, "begin_ms"));
	l.state = f->phase == RECORD_SWITCHED ? INSTANT_ALIAS : found_is_at_work(f) ? INSTANT_AT_WORK : INSTANT_CUT_OFF;
	bool open = l.state != INSTANT_ALIAS && found_table(f, false, &t, &ignored) == 0;
	if (open) {
		l.held = l.state == INSTANT_CUT_OFF;
		look_at_table(&t, &l);
	}
	fn(context, &l); /* the trouble's text is in the table */
	if (open)
		table_close(&t);
}

int instant_look(const char *const *paths, void (*fn)(void *context, const struct instant_look *l), void *context, struct im_error *err)
{
	struct found_list list = { 0 };
	int rc = found_add_mounted(&list, err);
	for (size_t i = 0; paths && paths[i] && rc == 0; i++)
		rc = found_add_path(&list, paths[i], err);
	if (rc == 0)
		rc = found_complete(&list, err);
	for (size_t i = 0; i < list.count && rc == 0; i++)
		look_at(&list.items[i], fn, context);
	found_clear(&list);
	return rc;
}
