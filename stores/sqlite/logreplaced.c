/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marking. Only the blocks' control streams are decoded for it, a small part of them.
 */
#include "stores/sqlite/logreplaced.h"

#include "base/cleanup.h"
#include "base/workers.h"

#include <stdlib.h>
#include <zstd.h>

enum { JOB_BLOCKS = 32 };

struct marking {
	struct loglayers *all;
	const struct loglayer_block *blocks;
	size_t count;
};

static void mark(struct loglayers *all, uint32_t page)
{
	if (page < all->image_pages)
		__atomic_fetch_or(&all->replaced[page / 8], (uint8_t)(1u << (page % 8)), __ATOMIC_RELAXED);
}

/* An extent is only left out if all of its pages are replaced: where most changes keep something of the page, looking closer does not pay. */
static bool may_replace(const struct loglayers *all, const struct loglayer_block *block)
{
	uint32_t records, literals;
	logbody_block_sizes(block->body, block->index, &records, &literals);
	return block->page < all->image_pages && literals >= (uint64_t)records * logbody_page_size(block->body) / 2;
}

static int mark_block(struct loglayers *all, const struct loglayer_block *block, ZSTD_DCtx *zstd, struct im_error *err)
{
	struct logbody_block b = { 0 };
	if (!may_replace(all, block))
		return 0;
	int rc = logbody_block_read(block->body, block->index, zstd, false, &b, err);
	for (size_t i = 0; rc == 0 && i < b.count; i++)
		if (!b.records[i].ops.has_base)
			mark(all, b.records[i].page);
	logbody_block_clear(&b);
	return rc;
}

static int mark_blocks(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	const struct marking *m = job;
	(void)worker;
	if (cancelled)
		return 0;
	ZSTD_DCtx *zstd = ZSTD_createDCtx();
	int rc = zstd ? 0 : im_fail(err, IM_ENOMEM, "out of memory for the log's blocks");
	for (size_t i = 0; rc == 0 && i < m->count; i++)
		rc = mark_block(m->all, &m->blocks[i], zstd, err);
	ZSTD_freeDCtx(zstd);
	return rc;
}

static size_t plan_jobs(struct loglayers *all, struct marking *ret)
{
	size_t n = 0;
	for (size_t i = 0; i < all->count; i++)
		for (size_t k = 0; k < all->items[i].block_count; k += JOB_BLOCKS, n++) {
			size_t left = all->items[i].block_count - k;
			if (ret)
				ret[n] = (struct marking){ all, &all->items[i].blocks[k], left < JOB_BLOCKS ? left : JOB_BLOCKS };
		}
	return n;
}

int logreplaced_mark(struct loglayers *all, struct im_error *err)
{
	struct im_workers *pool;
	all->replaced = calloc((size_t)all->image_pages / 8 + 1, 1);
	if (!all->replaced)
		return im_fail(err, IM_ENOMEM, "out of memory for a map of replaced pages");
	for (size_t i = 0; i < all->count; i++)
		for (uint32_t page = all->items[i].end.pages; page < all->image_pages; page++)
			mark(all, page);
	size_t count = plan_jobs(all, NULL);
	auto_free struct marking *jobs = calloc(count + 1, sizeof *jobs);
	if (!jobs)
		return im_fail(err, IM_ENOMEM, "out of memory for a map of replaced pages");
	plan_jobs(all, jobs);
	int rc = im_workers_new(0, 0, mark_blocks, &pool, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < count && !im_workers_failed(pool); i++)
		im_workers_submit(pool, &jobs[i]); /* its failure is seen below */
	rc = im_workers_wait(pool, err);
	im_workers_free(pool);
	return rc;
}
