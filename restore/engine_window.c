/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching a window: entries come decoded from fetch_run, on several threads, and go to the
 * writer. A piece that cannot be had harms its file only.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "restore/engine_internal.h"

#include <string.h>

enum { PROGRESS_BYTES = 4 << 20, STRETCH_BYTES = 32 << 20 };

const struct pack_info *engine_pack(void *context, uint32_t number)
{
	struct engine *e = context;
	for (size_t i = 0; i < e->store_count; i++) {
		const struct engine_store *s = e->stores[i];
		if (number >= s->base && number - s->base < s->rebuild.snapshot->pack_count)
			return &s->rebuild.snapshot->packs[number - s->base];
	}
	return NULL;
}

static void progress(struct engine *e, uint64_t len)
{
	uint64_t before = atomic_fetch_add(&e->done_bytes, len);
	const struct restore_events *ev = e->options.events;
	if (ev && ev->progress && before / PROGRESS_BYTES != (before + len) / PROGRESS_BYTES)
		ev->progress(ev->context, before + len, e->options.total_bytes);
}

/* A small file that came in one piece is finished at once. */
static int write_whole(
    struct engine *e, struct built_file *f, const uint8_t *data, size_t len, struct im_error *err)
{
	auto_close int fd = -1;
	int rc = writer_put_whole(e->writer, &f->writer, data, len, &fd, err);
	if (rc == 0)
		rc = built_set_metadata(&e->built, f, fd, err);
	f->done = rc == 0;
	return rc;
}

static void lose(struct engine *e, const struct engine_piece *p, const char *text)
{
	struct built_file *f = built_at(&e->built, p->file);
	built_damage(&e->built, f, p->offset, p->len, text);
	atomic_fetch_sub(&f->pending, 1);
}

int engine_put(struct engine *e, unsigned worker, const struct engine_piece *p, const uint8_t *data,
    struct im_error *err)
{
	struct built_file *f = built_at(&e->built, p->file);
	if (f->dropped)
		return 0;
	if (f->transform) {
		struct im_error why = { 0 };
		int64_t start_us = im_monotonic_us();
		int rc = f->transform(f->context, worker, p->offset, &data, p->len, &why);
		e->replay_us += (uint64_t)(im_monotonic_us() - start_us);
		if (rc == IM_ECORRUPT) {
			lose(e, p, why.text);
			return 0;
		}
		if (rc)
			return im_fail(err, rc, "%s", why.text);
	}
	built_digest(f, worker, p->offset, data, p->len);
	progress(e, p->len);
	/* made is the only piece's to read: with more of them another thread may be making the
	 * file. */
	bool whole = !f->finish && !f->prove && p->len == f->writer.size_bytes && f->pending == 1 &&
	    !f->writer.made;
	int rc = whole ? write_whole(e, f, data, p->len, err) :
	                 writer_put(e->writer, &f->writer, p->offset, data, p->len, err);
	atomic_fetch_sub(&f->pending, 1);
	return rc;
}

/* What must be made in the same stretch first: its blocks then fill up together. */
static int write_piece(struct engine *e, unsigned worker, const struct engine_piece *p,
    const uint8_t *plain, struct im_error *err)
{
	int rc = e->made_count ?
	    engine_make_due(e, worker, engine_stretch(e, p->file, p->offset), err) :
	    0;
	return rc ? rc : engine_put(e, worker, p, plain + p->skip, err);
}

static int sink(void *context, unsigned worker, const struct fetch_item *items, size_t count,
    const uint8_t *plain, size_t len, struct im_error *err)
{
	struct engine *e = context;
	uint8_t id[32];
	bool have_id = false;
	for (size_t i = 0; i < count; i++) {
		const struct engine_piece *p = &e->pieces[items[i].tag];
		if (p->id != IDLIST_NONE && !have_id) {
			crypto_keyed(id, e->chunk_key, plain, len);
			have_id = true;
		}
		if (p->id != IDLIST_NONE && !crypto_equal(id, e->ids.ids[p->id], sizeof id)) {
			lose(e, p, "a chunk in the vault is not the one the snapshot names");
			continue;
		}
		int rc = write_piece(e, worker, p, plain, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int on_damage(void *context, const struct fetch_item *items, size_t count,
    const struct im_error *why, struct im_error *err)
{
	struct engine *e = context;
	(void)err;
	for (size_t i = 0; i < count; i++)
		lose(e, &e->pieces[items[i].tag], why->text);
	return 0;
}

static int compare_refs(const void *a, const void *b)
{
	const struct fetch_item *x = a, *y = b;
	if (x->ref.pack != y->ref.pack)
		return x->ref.pack < y->ref.pack ? -1 : 1;
	return x->ref.offset < y->ref.offset ? -1 : x->ref.offset > y->ref.offset;
}

static void count_reads(struct engine *e)
{
	if (e->piece_count)
		qsort(e->items, e->piece_count, sizeof *e->items, compare_refs);
	for (size_t i = 0; i < e->piece_count; i++)
		if (i == 0 || compare_refs(&e->items[i - 1], &e->items[i]))
			e->stats.read_bytes_planned += e->items[i].ref.stored;
}

static void add_stats(struct fetch_stats *sum, const struct fetch_stats *s)
{
	sum->read_bytes += s->read_bytes;
	sum->plain_bytes += s->plain_bytes;
	sum->reads += s->reads;
	sum->read_us += s->read_us;
	sum->decode_us += s->decode_us;
	sum->sink_us += s->sink_us;
}

/* Small files are taken as they lie in packs. */
uint64_t engine_stretch(const struct engine *e, uint32_t file, uint64_t offset)
{
	if (built_at(&e->built, file)->writer.size_bytes < STRETCH_BYTES)
		return 0;
	return ((uint64_t)file << 32 | offset / STRETCH_BYTES) + 1;
}

static uint64_t stretch_of(const struct engine *e, const struct fetch_item *item)
{
	const struct engine_piece *p = &e->pieces[item->tag];
	return engine_stretch(e, p->file, p->offset);
}

static int compare_stretches(const void *a, const void *b, void *engine)
{
	uint64_t x = stretch_of(engine, a), y = stretch_of(engine, b);
	return x != y ? (x < y ? -1 : 1) : compare_refs(a, b);
}

static int fetch_window(struct engine *e, struct im_error *err)
{
	/* Large files stretch by stretch: increments scatter a file over packs, and the writer's blocks
	 * must fill up before it runs out of them. Within a stretch reads stay sequential. */
	if (e->piece_count)
		qsort_r(e->items, e->piece_count, sizeof *e->items, compare_stretches, e);
	struct fetch_plan plan = { .items = e->items, .count = e->piece_count, .keep_order = true, .pack_of = engine_pack,
		.sink = sink, .damage = on_damage, .context = e };
	struct fetch_stats stats = { 0 };
	struct im_error fetching = { 0 }, writing = { 0 };
	engine_made_begin(e);
	int rc = e->piece_count ? fetch_run(e->options.fetcher, &plan, &stats, &fetching) : 0;
	if (rc == 0)
		rc = engine_made_rest(e, &fetching);
	int rc_write = writer_drain(e->writer, &writing);
	add_stats(&e->stats.fetch, &stats);
	if (rc_write) /* the cause; fetching then only reports that it was stopped */
		return im_fail(err, rc_write, "%s", writing.text);
	return rc ? im_fail(err, rc, "%s", fetching.text) : 0;
}

static void tell_first_window(struct engine *e)
{
	if (e->told || e->options.dry_run || !e->options.first_window)
		return;
	e->told = true;
	if (e->sealed) /* before the one fetch of a plan that is whole: nothing of it was counted */
		count_reads(e);
	e->options.first_window(e->options.context, e->sealed);
}

int engine_window(struct engine *e, struct im_error *err)
{
	tell_first_window(e);
	int64_t start = im_monotonic_us();
	int rc = im_interrupt_check(err);
	if (rc == 0 && e->options.dry_run)
		count_reads(e);
	else if (rc == 0 && (e->piece_count || e->made_count))
		rc = fetch_window(e, err);
	else if (rc == 0 && e->writer) /* what stores wrote while they planned */
		rc = writer_drain(e->writer, err);
	e->piece_count = e->ids.count = e->made_count = 0;
	e->stats.fetch_us += (uint64_t)(im_monotonic_us() - start);
	return rc;
}
