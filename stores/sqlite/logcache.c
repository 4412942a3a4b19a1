/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache: a list of what is loaded, under one mutex that is held for moments only.
 */
#include "stores/sqlite/logcache.h"

#include <pthread.h>
#include <stdlib.h>
#include <zstd.h>

#define IDLE_MAX 16

struct logcache {
	pthread_mutex_t mutex;
	pthread_cond_t loaded; /* or failed to be */
	struct loglayer_block **blocks;
	size_t count, room, bytes;
	uint64_t tick;
	ZSTD_DCtx *idle[IDLE_MAX]; /* contexts nobody uses now */
	unsigned idle_count;
};

int logcache_new(struct logcache **ret, struct im_error *err)
{
	struct logcache *c = calloc(1, sizeof *c);
	if (!c)
		return im_fail(err, IM_ENOMEM, "out of memory");
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->loaded, NULL);
	*ret = c;
	return 0;
}

static size_t bytes_of(const struct loglayer_block *b)
{
	return b->decoded.control.cap + b->decoded.literals.cap + b->decoded.count * sizeof *b->decoded.records;
}

static void drop(struct loglayer_block *b)
{
	logbody_block_clear(&b->decoded);
	b->loaded = false;
}

void logcache_free(struct logcache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->count; i++)
		drop(c->blocks[i]);
	for (unsigned i = 0; i < c->idle_count; i++)
		ZSTD_freeDCtx(c->idle[i]);
	free(c->blocks);
	pthread_cond_destroy(&c->loaded);
	pthread_mutex_destroy(&c->mutex);
	free(c);
}

/* What is in use is kept, even if that is more than the budget. */
static void make_room_locked(struct logcache *c)
{
	while (c->bytes > LOGCACHE_BYTES) {
		size_t victim = c->count;
		for (size_t i = 0; i < c->count; i++)
			if (!c->blocks[i]->users && (victim == c->count || c->blocks[i]->tick < c->blocks[victim]->tick))
				victim = i;
		if (victim == c->count)
			return;
		c->bytes -= bytes_of(c->blocks[victim]);
		drop(c->blocks[victim]);
		c->blocks[victim] = c->blocks[--c->count];
	}
}

static int keep_locked(struct logcache *c, struct loglayer_block *block, struct im_error *err)
{
	if (c->count == c->room) {
		size_t room = c->room ? 2 * c->room : 256;
		struct loglayer_block **grown = realloc(c->blocks, room * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory for the log's blocks");
		c->blocks = grown;
		c->room = room;
	}
	c->blocks[c->count++] = block;
	c->bytes += bytes_of(block);
	block->loaded = true;
	return 0;
}

static int load_locked(struct logcache *c, struct loglayer_block *block, struct im_error *err)
{
	block->loading = true;
	ZSTD_DCtx *zstd = c->idle_count ? c->idle[--c->idle_count] : NULL;
	pthread_mutex_unlock(&c->mutex);
	if (!zstd)
		zstd = ZSTD_createDCtx();
	int rc = zstd ? logbody_block_read(block->body, block->index, zstd, true, &block->decoded, err) :
	    im_fail(err, IM_ENOMEM, "out of memory for the log's blocks");
	pthread_mutex_lock(&c->mutex);
	block->loading = false;
	if (zstd && c->idle_count < IDLE_MAX)
		c->idle[c->idle_count++] = zstd;
	else
		ZSTD_freeDCtx(zstd);
	if (rc == 0)
		rc = keep_locked(c, block, err);
	if (rc)
		logbody_block_clear(&block->decoded);
	pthread_cond_broadcast(&c->loaded);
	return rc;
}

int logcache_acquire(struct logcache *c, struct loglayer_block *block, struct im_error *err)
{
	int rc = 0;
	pthread_mutex_lock(&c->mutex);
	while (block->loading)
		pthread_cond_wait(&c->loaded, &c->mutex);
	if (!block->loaded)
		rc = load_locked(c, block, err);
	if (rc == 0) {
		block->users++;
		block->tick = ++c->tick;
		make_room_locked(c);
	}
	pthread_mutex_unlock(&c->mutex);
	return rc;
}

void logcache_release(struct logcache *c, struct loglayer_block *block)
{
	pthread_mutex_lock(&c->mutex);
	block->users--;
	pthread_mutex_unlock(&c->mutex);
}
