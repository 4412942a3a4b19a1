/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathering layers. Two threads read segments; each thing to do (a part of a large segment, a run of
 * small ones) is a job with a place of its own, so that order comes from places.
 */
#include "stores/sqlite/loglayer.h"

#include "base/cleanup.h"
#include "base/interrupt.h"
#include "base/workers.h"
#include "stores/sqlite/logmerge.h"
#include "stores/sqlite/logreplaced.h"
#include "stores/sqlite/logstore.h"

#include <stdlib.h>
#include <string.h>

enum {
	LARGE_BYTES = 4 << 20, /* a segment from this size on is a layer of its own */
	RUN_BYTES = 4 << 20,
	RUN_BODIES = 256,
	READERS = 2,
	LAYERS_MAX = 48,       /* beyond, neighbouring small layers are merged */
};

struct gather {
	const struct rebuild *r;
	const struct rebuild_log *log;
	struct loglayers *layers;
	uint32_t page_size;
};

struct job {
	struct gather *gather;
	struct loglayer *layer;
	size_t first, count; /* bodies: of a run; or one part of a large segment */
	size_t part;
	bool large;
};

/* --- parts --- */

static int check_body(const struct gather *g, const struct logbody *b, struct im_error *err)
{
	if (logbody_page_size(b) != g->page_size)
		return im_fail(err, IM_ECORRUPT, "the log is of a database with pages of %u bytes, the snapshot of one with %u", logbody_page_size(b), g->page_size);
	if (!logbody_section_count(b))
		return im_fail(err, IM_ECORRUPT, "a segment of the log holds no point");
	return 0;
}

/* Stores a body as part i of the layer, which has room for it. */
static int put_part(struct gather *g, struct loglayer *l, size_t i, const void *data, size_t len, struct im_error *err)
{
	int rc = logstore_put(g->layers->store, data, len, &l->sources[i], err);
	if (rc == 0)
		rc = logbody_open(&l->sources[i], &l->bodies[i], err);
	return rc ? rc : check_body(g, l->bodies[i], err);
}

static int make_parts(struct loglayer *l, size_t count, struct im_error *err)
{
	struct logbody **bodies = realloc(l->bodies, count * sizeof *bodies);
	if (bodies)
		l->bodies = bodies;
	struct follow_source *sources = realloc(l->sources, count * sizeof *sources);
	if (sources)
		l->sources = sources;
	if (!bodies || !sources)
		return im_fail(err, IM_ENOMEM, "out of memory for the log's layers");
	memset(l->bodies + l->body_count, 0, (count - l->body_count) * sizeof *l->bodies);
	l->body_count = count;
	return 0;
}

static void drop_parts(struct loglayer *l)
{
	for (size_t i = 0; i < l->body_count; i++)
		logbody_free(l->bodies[i]);
	free(l->bodies);
	free(l->sources);
	free(l->blocks);
	*l = (struct loglayer){ 0 };
}

/* One change, and of points that are wanted? */
static bool is_one_change(const struct rebuild_log *log, const struct logbody *b)
{
	const struct logbody_section *s = logbody_section_at(b, 0);
	return logbody_section_count(b) == 1 && s->point > log->after && s->point <= log->until;
}

struct merging {
	struct gather *gather;
	struct loglayer *layer;
};

static int take_merged(void *context, const void *data, size_t len, bool final, struct im_error *err)
{
	struct merging *m = context;
	size_t i = m->layer->body_count;
	(void)final;
	int rc = make_parts(m->layer, i + 1, err);
	return rc ? rc : put_part(m->gather, m->layer, i, data, len, err);
}

static int merge(struct gather *g, const struct follow_source *sources, size_t count, struct loglayer *ret, struct im_error *err)
{
	struct merging m = { g, ret };
	return logmerge_run(sources, count, g->log->after, g->log->until, take_merged, &m, err);
}

/* --- jobs --- */

static int read_body(struct gather *g, size_t i, struct im_buf *ret, struct im_error *err)
{
	int rc = im_interrupt_check(err);
	return rc ? rc : g->log->read(g->log, i, ret, err);
}

static int gather_part(const struct job *j, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	int rc = read_body(j->gather, j->first, &b, err);
	return rc ? rc : put_part(j->gather, j->layer, j->part, b.data, b.len, err);
}

static int gather_run(const struct job *j, struct im_error *err)
{
	struct gather *g = j->gather;
	struct im_buf bodies[RUN_BODIES] = { 0 };
	struct follow_source sources[RUN_BODIES];
	struct logbody *first = NULL;
	int rc = 0;
	IM_CHECK(j->count <= RUN_BODIES);
	for (size_t i = 0; rc == 0 && i < j->count; i++) {
		rc = read_body(g, j->first + i, &bodies[i], err);
		sources[i] = logbody_memory(&bodies[i]);
	}
	if (rc == 0 && j->count == 1)
		rc = logbody_open(&sources[0], &first, err);
	if (rc == 0 && first && is_one_change(g->log, first)) {
		rc = make_parts(j->layer, 1, err);
		if (rc == 0)
			rc = put_part(g, j->layer, 0, bodies[0].data, bodies[0].len, err);
	} else if (rc == 0) {
		rc = merge(g, sources, j->count, j->layer, err);
	}
	logbody_free(first);
	for (size_t i = 0; i < j->count; i++)
		im_buf_free(&bodies[i]);
	return rc;
}

static int run_job(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	const struct job *j = job;
	(void)worker;
	if (cancelled)
		return 0;
	return j->large ? gather_part(j, err) : gather_run(j, err);
}

/* Bodies of the segment that begins at body i. */
static size_t segment_bodies(const struct rebuild_log *log, size_t i, uint64_t *ret_bytes)
{
	size_t n = 0;
	*ret_bytes = 0;
	do
		*ret_bytes += log->bodies[i + n].bytes;
	while (!log->bodies[i + n++].final && i + n < log->body_count);
	return n;
}

/* Calls fn(first, count, large) for each layer to be. */
static size_t each_layer(const struct rebuild_log *log, void (*fn)(void *context, size_t first, size_t count, bool large), void *context)
{
	size_t layers = 0, run = 0, run_count = 0;
	uint64_t bytes, run_bytes = 0;
	for (size_t i = 0, n; i < log->body_count; i += n) {
		n = segment_bodies(log, i, &bytes);
		bool large = bytes > LARGE_BYTES || n > RUN_BODIES;
		if (run_count && (large || run_bytes + bytes > RUN_BYTES || run_count + n > RUN_BODIES)) {
			fn(context, run, run_count, false);
			layers++;
			run_count = run_bytes = 0;
		}
		if (large) {
			fn(context, i, n, true);
			layers++;
			continue;
		}
		run = run_count ? run : i;
		run_count += n;
		run_bytes += bytes;
	}
	if (run_count) {
		fn(context, run, run_count, false);
		layers++;
	}
	return layers;
}

struct planning {
	struct gather *gather;
	struct job *jobs;
	size_t job_count, layer;
	int rc;
	struct im_error *err;
};

static void plan_layer(void *context, size_t first, size_t count, bool large)
{
	struct planning *p = context;
	struct loglayer *l = &p->gather->layers->items[p->layer++];
	if (large && p->rc == 0)
		p->rc = make_parts(l, count, p->err);
	if (!large)
		p->jobs[p->job_count++] = (struct job){ p->gather, l, first, count, 0, false };
	for (size_t i = 0; large && i < count; i++)
		p->jobs[p->job_count++] = (struct job){ p->gather, l, first + i, 1, i, true };
}

static void count_layer(void *context, size_t first, size_t count, bool large)
{
	(void)context, (void)first, (void)count, (void)large;
}

static int run_jobs(struct gather *g, struct im_error *err)
{
	struct loglayers *all = g->layers;
	struct im_workers *pool;
	all->count = each_layer(g->log, count_layer, NULL);
	all->items = calloc(all->count, sizeof *all->items);
	auto_free struct job *jobs = calloc(g->log->body_count, sizeof *jobs);
	if (!all->items || !jobs)
		return im_fail(err, IM_ENOMEM, "out of memory for the log's layers");
	struct planning p = { .gather = g, .jobs = jobs, .err = err };
	each_layer(g->log, plan_layer, &p);
	if (p.rc)
		return p.rc;
	int rc = im_workers_new(READERS, 0, run_job, &pool, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < p.job_count && !im_workers_failed(pool); i++)
		im_workers_submit(pool, &jobs[i]); /* its failure is seen below */
	rc = im_workers_wait(pool, err);
	im_workers_free(pool);
	return rc;
}

/* --- what they are together --- */

/* The parts are one change of ascending ranges of pages. */
static bool parts_agree(const struct rebuild_log *log, const struct loglayer *l)
{
	uint32_t from, to, end = 0;
	for (size_t i = 0; i < l->body_count; i++) {
		const struct logbody_section *s = logbody_section_at(l->bodies[i], 0), *t = logbody_section_at(l->bodies[0], 0);
		logbody_range(l->bodies[i], &from, &to);
		if (!is_one_change(log, l->bodies[i]) || from < end || to < from || s->point != t->point || s->pages != t->pages ||
		    memcmp(s->sum, t->sum, sizeof s->sum) != 0)
			return false;
		end = to;
	}
	return l->body_count > 0;
}

static int merge_layers(struct gather *g, struct loglayer *layers, size_t count, struct im_error *err)
{
	struct loglayer merged = { 0 };
	size_t bodies = 0, n = 0;
	for (size_t i = 0; i < count; i++)
		bodies += layers[i].body_count;
	auto_free struct follow_source *sources = calloc(bodies + 1, sizeof *sources);
	if (!sources)
		return im_fail(err, IM_ENOMEM, "out of memory for the log's layers");
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < layers[i].body_count; k++)
			sources[n++] = layers[i].sources[k];
	int rc = merge(g, sources, bodies, &merged, err);
	if (rc) {
		drop_parts(&merged);
		return rc;
	}
	for (size_t i = 0; i < count; i++)
		drop_parts(&layers[i]);
	layers[0] = merged;
	return 0;
}

static void close_ranks(struct loglayers *all)
{
	size_t kept = 0;
	for (size_t i = 0; i < all->count; i++)
		if (all->items[i].body_count)
			all->items[kept++] = all->items[i];
	all->count = kept;
}

static uint64_t layer_bytes(const struct loglayer *l)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < l->body_count; i++)
		bytes += l->sources[i].len;
	return bytes;
}

/* Very many small layers: merged again, so that finding a page stays cheap. */
static int thin_out(struct gather *g, struct im_error *err)
{
	struct loglayers *all = g->layers;
	for (size_t i = 0, n; all->count > LAYERS_MAX && i < all->count; i += n) {
		uint64_t bytes = 0;
		for (n = 0; i + n < all->count && n < RUN_BODIES; n++) {
			bytes += layer_bytes(&all->items[i + n]);
			if (n && (layer_bytes(&all->items[i + n]) > 2 * LARGE_BYTES || bytes > 16 * LARGE_BYTES))
				break;
		}
		int rc = n > 1 ? merge_layers(g, &all->items[i], n, err) : im_interrupt_check(err);
		if (rc)
			return rc;
	}
	close_ranks(all);
	return 0;
}

static int settle(struct gather *g, struct im_error *err)
{
	struct loglayers *all = g->layers;
	for (size_t i = 0; i < all->count; i++) {
		int rc = parts_agree(g->log, &all->items[i]) ? 0 : merge_layers(g, &all->items[i], 1, err);
		if (rc)
			return rc;
	}
	close_ranks(all); /* what lies beyond `until` alone merges to nothing */
	return thin_out(g, err);
}

static int list_blocks(struct loglayer *l, struct im_error *err)
{
	size_t count = 0, n = 0;
	for (size_t i = 0; i < l->body_count; i++)
		count += logbody_block_count(l->bodies[i]);
	l->blocks = calloc(count ? count : 1, sizeof *l->blocks);
	if (!l->blocks)
		return im_fail(err, IM_ENOMEM, "out of memory for the log's blocks");
	for (size_t i = 0; i < l->body_count; i++)
		for (size_t k = 0; k < logbody_block_count(l->bodies[i]); k++) {
			uint32_t page = logbody_block_page(l->bodies[i], k);
			if (n && page <= l->blocks[n - 1].page)
				return im_fail(err, IM_ECORRUPT, "the blocks of a log segment are out of order");
			l->blocks[n++] = (struct loglayer_block){ .body = l->bodies[i], .index = (uint32_t)k, .page = page };
		}
	l->block_count = n;
	l->end = *logbody_section_at(l->bodies[0], 0);
	l->bytes = layer_bytes(l);
	return 0;
}

static int check_order(const struct gather *g, struct im_error *err)
{
	const struct loglayers *all = g->layers;
	uint32_t point = g->log->after;
	for (size_t i = 0; i < all->count; i++) {
		if (all->items[i].end.point <= point)
			return im_fail(err, IM_ECORRUPT, "the log's points are out of order");
		point = all->items[i].end.point;
	}
	if (point != g->log->until)
		return im_fail(err, IM_ECORRUPT, "the log's segments end at point %u and not at %u, as their names say", point, g->log->until);
	return 0;
}

int loglayers_gather(const struct rebuild *r, uint32_t page_size, uint32_t image_pages, struct loglayers *ret, struct im_error *err)
{
	struct loglayers all = { .image_pages = image_pages };
	struct gather g = { .r = r, .log = r->log, .layers = &all, .page_size = page_size };
	int rc = logstore_open(r->root_fd, &all.store, err);
	if (rc == 0)
		rc = run_jobs(&g, err);
	if (rc == 0)
		rc = settle(&g, err);
	for (size_t i = 0; rc == 0 && i < all.count; i++)
		rc = list_blocks(&all.items[i], err);
	if (rc == 0)
		rc = check_order(&g, err);
	if (rc == 0)
		rc = logreplaced_mark(&all, err);
	if (rc) {
		loglayers_clear(&all);
		return rc;
	}
	*ret = all;
	return 0;
}

void loglayers_clear(struct loglayers *l)
{
	for (size_t i = 0; i < l->count; i++)
		drop_parts(&l->items[i]);
	free(l->items);
	free(l->replaced);
	logstore_close(l->store);
	*l = (struct loglayers){ 0 };
}

int loglayer_target(const struct rebuild_log *log, uint32_t page_size, struct logbody_section *ret, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	struct logbody *body = NULL;
	int rc = log->read(log, log->body_count - 1, &b, err);
	struct follow_source source = logbody_memory(&b);
	if (rc == 0)
		rc = logbody_open(&source, &body, err);
	if (rc)
		return rc;
	rc = IM_ECORRUPT;
	for (size_t i = 0; i < logbody_section_count(body); i++)
		if (logbody_section_at(body, i)->point == log->until) {
			*ret = *logbody_section_at(body, i);
			rc = 0;
		}
	if (rc == 0 && logbody_page_size(body) != page_size)
		rc = IM_ECORRUPT;
	logbody_free(body);
	return rc ? im_fail(err, rc, "the last segment of the log does not fit the snapshot") : 0;
}
