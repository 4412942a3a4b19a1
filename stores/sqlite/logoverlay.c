/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laying over. Each worker keeps one block of each layer in use while pages ascend, which they
 * mostly do; with very many layers only during a call, so that what is in use stays within the
 * cache's budget.
 */
#include "stores/sqlite/logoverlay.h"

#include "stores/sqlite/logcache.h"
#include "stores/sqlite/pagediff.h"

#include <stdlib.h>
#include <string.h>

#define KEEP_LAYERS_MAX 16 /* with so many, a worker's blocks stay in use between calls */
#define NO_BLOCK SIZE_MAX

struct hold { /* where a worker is in a layer */
	size_t block; /* in use; or NO_BLOCK */
	size_t at;    /* record */
};

struct lane { /* a worker's own */
	struct hold *holds;
	const struct pagediff_ops **chain;
	uint8_t *steps[2]; /* a page each */
	uint8_t *bytes;
	size_t room;
};

struct logoverlay {
	struct loglayers layers;
	struct logcache *cache;
	uint32_t page_size;
	struct lane *lanes[LOGOVERLAY_MAX_WORKERS];
};

int logoverlay_new(const struct rebuild *r, uint32_t page_size, uint32_t image_pages, struct logoverlay **ret, struct im_error *err)
{
	struct logoverlay *o = calloc(1, sizeof *o);
	if (!o)
		return im_fail(err, IM_ENOMEM, "out of memory");
	o->page_size = page_size;
	int rc = logcache_new(&o->cache, err);
	if (rc == 0)
		rc = loglayers_gather(r, page_size, image_pages, &o->layers, err);
	if (rc) {
		logoverlay_free(o);
		return rc;
	}
	*ret = o;
	return 0;
}

static void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	free(lane->holds);
	free(lane->chain);
	free(lane->steps[0]);
	free(lane->steps[1]);
	free(lane->bytes);
	free(lane);
}

void logoverlay_free(struct logoverlay *o)
{
	if (!o)
		return;
	for (unsigned i = 0; i < LOGOVERLAY_MAX_WORKERS; i++)
		lane_free(o->lanes[i]);
	logcache_free(o->cache);
	loglayers_clear(&o->layers);
	free(o);
}

const struct logbody_section *logoverlay_end(const struct logoverlay *o)
{
	return &o->layers.items[o->layers.count - 1].end;
}

bool logoverlay_replaces(const struct logoverlay *o, uint32_t first, uint32_t count)
{
	for (uint32_t page = first; page < first + count; page++)
		if (!(o->layers.replaced[page / 8] >> (page % 8) & 1))
			return false;
	return true;
}

static int lane_new(const struct logoverlay *o, struct lane **ret, struct im_error *err)
{
	size_t layers = o->layers.count;
	struct lane *lane = calloc(1, sizeof *lane);
	if (lane) {
		lane->holds = calloc(layers, sizeof *lane->holds);
		lane->chain = calloc(layers, sizeof *lane->chain);
		lane->steps[0] = malloc(o->page_size);
		lane->steps[1] = malloc(o->page_size);
	}
	if (!lane || !lane->holds || !lane->chain || !lane->steps[0] || !lane->steps[1]) {
		lane_free(lane);
		return im_fail(err, IM_ENOMEM, "out of memory for a worker of the restore");
	}
	for (size_t i = 0; i < layers; i++)
		lane->holds[i].block = NO_BLOCK;
	*ret = lane;
	return 0;
}

static int reserve(struct lane *lane, size_t bytes, struct im_error *err)
{
	if (bytes <= lane->room)
		return 0;
	uint8_t *grown = realloc(lane->bytes, bytes);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory for a worker of the restore");
	lane->bytes = grown;
	lane->room = bytes;
	return 0;
}

/* --- finding a page's change in a layer --- */

static void let_go(struct logoverlay *o, struct loglayer *l, struct hold *h)
{
	if (h->block != NO_BLOCK)
		logcache_release(o->cache, &l->blocks[h->block]);
	h->block = NO_BLOCK;
}

/* The block that would hold the page; NO_BLOCK: it comes before all of them. */
static size_t find_block(const struct loglayer *l, uint32_t page)
{
	size_t low = 0, high = l->block_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (l->blocks[middle].page <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? low - 1 : NO_BLOCK;
}

static bool covers(const struct loglayer *l, size_t block, uint32_t page)
{
	return block != NO_BLOCK && l->blocks[block].page <= page && (block + 1 == l->block_count || page < l->blocks[block + 1].page);
}

static int hold_block(struct logoverlay *o, struct loglayer *l, struct hold *h, uint32_t page, struct im_error *err)
{
	if (covers(l, h->block, page))
		return 0;
	let_go(o, l, h);
	size_t block = find_block(l, page);
	int rc = block == NO_BLOCK ? 0 : logcache_acquire(o->cache, &l->blocks[block], err);
	if (rc == 0)
		*h = (struct hold){ block, 0 };
	return rc;
}

/* The first record at or after the page: mostly the next one, or the one after. */
static size_t find_record(const struct logbody_block *b, size_t at, uint32_t page)
{
	if (at < b->count && b->records[at].page < page && (at + 1 == b->count || b->records[at + 1].page >= page))
		return at + 1;
	size_t low = 0, high = b->count;
	if (at < b->count && b->records[at].page >= page && (at == 0 || b->records[at - 1].page < page))
		return at;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (b->records[middle].page < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* *ret NULL: the layer does not change the page. */
static int find_change(struct logoverlay *o, size_t layer, struct hold *h, uint32_t page, const struct pagediff_ops **ret, struct im_error *err)
{
	struct loglayer *l = &o->layers.items[layer];
	*ret = NULL;
	int rc = hold_block(o, l, h, page, err);
	if (rc || h->block == NO_BLOCK)
		return rc;
	const struct logbody_block *b = &l->blocks[h->block].decoded;
	h->at = find_record(b, h->at, page);
	if (h->at < b->count && b->records[h->at].page == page)
		*ret = &b->records[h->at].ops;
	return 0;
}

/* --- one page --- */

/* What is needed of the page's changes, newest first. */
static int find_chain(struct logoverlay *o, struct lane *lane, uint32_t page, size_t *ret_count, struct im_error *err)
{
	size_t n = 0;
	for (size_t i = o->layers.count; i-- > 0;) {
		const struct pagediff_ops *ops;
		int rc = find_change(o, i, &lane->holds[i], page, &ops, err);
		if (rc)
			return rc;
		if (ops)
			lane->chain[n++] = ops;
		if (ops && !ops->has_base)
			break;
		if (page >= o->layers.items[i].end.pages)
			return im_fail(err, IM_ECORRUPT, "page %u is gone at point %u of the log and nothing after it brings it back", page + 1, o->layers.items[i].end.point);
	}
	*ret_count = n;
	return 0;
}

static int apply_chain(struct logoverlay *o, struct lane *lane, uint32_t page, size_t count, const uint8_t *base, uint8_t *ret, struct im_error *err)
{
	if (!base && lane->chain[count - 1]->has_base)
		return im_fail(err, IM_ECORRUPT, "the log changes page %u, which is not in the snapshot", page + 1);
	for (size_t i = count; i-- > 0;) {
		uint8_t *to = i ? lane->steps[i % 2] : ret;
		int rc = pagediff_apply(o->page_size, lane->chain[i], base, to, err);
		if (rc)
			return rc;
		base = to;
	}
	return 0;
}

/* Page number i of those at data. *begun: the worker's bytes hold the pages before it. */
static int lay_over_page(struct logoverlay *o, struct lane *lane, uint32_t first, uint32_t i, const uint8_t *data, bool *begun, struct im_error *err)
{
	size_t size = o->page_size, count = 0;
	const uint8_t *base = data ? data + i * size : NULL;
	int rc = find_chain(o, lane, first + i, &count, err);
	if (rc)
		return rc;
	if (!count && !base)
		return im_fail(err, IM_ECORRUPT, "page %u is neither in the snapshot nor in its log", first + i + 1);
	if (count && !*begun && i)
		memcpy(lane->bytes, data, i * size);
	*begun |= count != 0;
	if (count)
		return apply_chain(o, lane, first + i, count, base, lane->bytes + i * size, err);
	if (*begun)
		memcpy(lane->bytes + i * size, base, size);
	return 0;
}

int logoverlay_apply(struct logoverlay *o, unsigned worker, uint32_t first, uint32_t count, const uint8_t **data, struct im_error *err)
{
	IM_CHECK(worker < LOGOVERLAY_MAX_WORKERS);
	int rc = o->lanes[worker] ? 0 : lane_new(o, &o->lanes[worker], err);
	struct lane *lane = o->lanes[worker];
	if (rc == 0)
		rc = reserve(lane, (size_t)count * o->page_size, err);
	bool begun = false;
	for (uint32_t i = 0; rc == 0 && i < count; i++)
		rc = lay_over_page(o, lane, first, i, *data, &begun, err);
	for (size_t i = 0; lane && o->layers.count > KEEP_LAYERS_MAX && i < o->layers.count; i++)
		let_go(o, &o->layers.items[i], &lane->holds[i]);
	if (rc == 0 && begun)
		*data = lane->bytes;
	return rc;
}
