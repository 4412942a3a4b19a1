/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file's mutex guards its blocks' states, its limit and the copying into it: an extension of the
 * file by the server waits for an event, and that event's handling waits for the mutex, so a file
 * can get shorter while we copy, but not longer again.
 */
#include "restore/instant/hydrate.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "restore/instant/lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define RUN_BLOCKS 64u                /* brought at once, by whoever looks ahead */
#define EXTEND_BYTES (2u << 20)       /* for pieces that reach further */
#define BUFFER_BYTES ((size_t)RUN_BLOCKS * TABLE_BLOCK_BYTES + 2 * EXTEND_BYTES)
#define TRIES 3
#define IDENTITY_MAX_BYTES (64u << 10)
#define AWAY_PAUSE_MS 200

struct lazy_file {
	pthread_mutex_t mutex;
	pthread_cond_t arrived;
	uint8_t *map;
};

struct hydrator {
	struct hydrate_options options;
	struct lazy_file *files;
	pthread_mutex_t whole_mutex;
	pthread_cond_t whole;
};

struct hydrate_lane {
	struct content_lane *content;
	uint8_t *buffer;
};

int hydrate_new(const struct hydrate_options *options, struct hydrator **ret, struct im_error *err)
{
	uint32_t count = options->table->head->file_count;
	struct hydrator *h = calloc(1, sizeof *h);
	struct lazy_file *files = calloc(count ? count : 1, sizeof *files);
	if (!h || !files) {
		free(h);
		free(files);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	h->options = *options;
	h->files = files;
	pthread_mutex_init(&h->whole_mutex, NULL);
	pthread_cond_init(&h->whole, NULL);
	for (uint32_t i = 0; i < count; i++) {
		pthread_mutex_init(&files[i].mutex, NULL);
		pthread_cond_init(&files[i].arrived, NULL);
	}
	*ret = h;
	return 0;
}

int hydrate_lane_new(unsigned number, struct hydrate_lane **ret, struct im_error *err)
{
	struct hydrate_lane *l = calloc(1, sizeof *l);
	if (!l || !(l->buffer = aligned_alloc(4096, BUFFER_BYTES))) {
		free(l);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	int rc = content_lane_new(number, &l->content, err);
	if (rc) {
		free(l->buffer);
		free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

void hydrate_free(struct hydrator *h)
{
	if (!h)
		return;
	for (uint32_t i = 0; i < h->options.table->head->file_count; i++) {
		lazy_unmap(h->files[i].map, h->options.table->files[i].size);
		pthread_mutex_destroy(&h->files[i].mutex);
		pthread_cond_destroy(&h->files[i].arrived);
	}
	free(h->files);
	free(h);
}

void hydrate_lane_free(struct hydrate_lane *l)
{
	if (!l)
		return;
	content_lane_free(l->content);
	free(l->buffer);
	free(l);
}

/* --- states --- */

static uint8_t state_of(const struct hydrator *h, uint32_t file, uint32_t block)
{
	return *table_block(h->options.table, file, block) & BLOCK_STATE;
}

static void set_state(struct hydrator *h, uint32_t file, uint32_t block, uint8_t state)
{
	_Atomic uint8_t *b = table_block(h->options.table, file, block);
	uint8_t old = *b;
	while (!atomic_compare_exchange_weak(b, &old, (uint8_t)((old & ~BLOCK_STATE) | state)))
		;
}

static void tell_whole(struct hydrator *h)
{
	pthread_mutex_lock(&h->whole_mutex);
	pthread_cond_broadcast(&h->whole);
	pthread_mutex_unlock(&h->whole_mutex);
}

/* With the file's mutex held: n blocks more are there. */
static void count_done(struct hydrator *h, uint32_t file, uint32_t n)
{
	struct table_file *f = &h->options.table->files[file];
	if (atomic_fetch_sub(&f->left, n) == n) {
		f->state = FILE_WHOLE;
		tell_whole(h);
	}
}

/* With the mutex held: was the file made shorter? Then what lies beyond is no longer ours. */
static int look_at_size(struct hydrator *h, uint32_t file, struct im_error *err)
{
	struct table_file *f = &h->options.table->files[file];
	struct stat st;
	if (fstat(h->options.fds[file], &st))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat a file that is restored");
	if ((uint64_t)st.st_size >= f->limit || f->state == FILE_ORDINARY)
		return 0;
	int rc = lazy_lower_limit(h->options.fds[file], (uint64_t)st.st_size, err);
	if (rc) { /* the kernel tells of a failed sync once: see hydrate_finish */
		f->unsafe = 1;
		return rc;
	}
	f->limit = (uint64_t)st.st_size;
	uint32_t gone = 0;
	for (uint32_t b = (uint32_t)((f->limit + TABLE_BLOCK_BYTES - 1) / TABLE_BLOCK_BYTES); b < f->blocks; b++)
		if (state_of(h, file, b) == BLOCK_NONE || state_of(h, file, b) == BLOCK_BAD) {
			if (state_of(h, file, b) == BLOCK_BAD)
				atomic_fetch_sub(&h->options.table->head->bad_blocks, 1);
			set_state(h, file, b, BLOCK_DONE);
			gone++;
		}
	if (gone)
		count_done(h, file, gone);
	return 0;
}

/* --- the vault --- */

static bool is_there(struct hydrator *h)
{
	auto_buf struct im_buf got = { 0 };
	struct im_error ignored = { 0 };
	return storage_read_object(h->options.storage, "vault.json", IDENTITY_MAX_BYTES, &got, &ignored) == 0 &&
	    (!h->options.identity || (got.len == h->options.identity_len && memcmp(got.data, h->options.identity, got.len) == 0));
}

static void note_away(struct hydrator *h, const char *text)
{
	struct table_head *head = h->options.table->head;
	int64_t none = 0;
	if (atomic_compare_exchange_strong(&head->away_since_us, &none, im_monotonic_us()))
		table_trouble(h->options.table, "the vault cannot be reached; whoever needs what has not arrived waits: %s", text);
}

/* Until it is read, or the vault is there and the content is not. */
static int read_content(struct hydrator *h, struct hydrate_lane *l, uint32_t file, uint64_t offset, uint64_t len, struct im_error *err)
{
	for (unsigned tries = 0;;) {
		struct im_error why = { 0 };
		int rc = content_read(h->options.content, l->content, file, offset, len, l->buffer, &why);
		if (rc == 0) {
			h->options.table->head->away_since_us = 0;
			return 0;
		}
		if (rc == IM_ENOMEM)
			return im_fail(err, rc, "%s", why.text);
		bool there = is_there(h);
		if (!there && storage_revive(h->options.storage, &why) == 0)
			there = is_there(h) && tries++ < TRIES; /* and now it may be had: once more */
		if (there) {
			h->options.table->head->away_since_us = 0;
			if (++tries == TRIES)
				return im_fail(err, IM_ECORRUPT, "%s", why.text);
			if (rc != IM_ECORRUPT)
				im_sleep_ms(AWAY_PAUSE_MS);
		} else {
			note_away(h, why.text);
			im_sleep_ms(AWAY_PAUSE_MS);
		}
	}
}

static void keep_digests(struct hydrator *h, uint32_t file, uint32_t first, uint32_t end, const uint8_t *data)
{
	struct table *t = h->options.table;
	const struct table_file *f = &t->files[file];
	const struct built_file *built = content_file(h->options.content, file);
	for (uint32_t b = first; f->has_digest && b < end; b++) {
		uint64_t offset = (uint64_t)b * TABLE_BLOCK_BYTES;
		size_t len = f->size - offset < TABLE_BLOCK_BYTES ? (size_t)(f->size - offset) : TABLE_BLOCK_BYTES;
		if (built->digest(built->context, offset, data + (offset - (uint64_t)first * TABLE_BLOCK_BYTES), len, t->digests[f->first_block + b]))
			atomic_fetch_or(table_block(t, file, b), BLOCK_DIGESTED);
	}
}

/* --- filling --- */

static int no_room(struct hydrator *h, uint32_t file, struct im_error *err)
{
	struct statvfs vfs;
	const char *path = content_file(h->options.content, file)->writer.path;
	bool full = fstatvfs(h->options.fds[file], &vfs) == 0 && vfs.f_bavail < 256;
	return im_fail(err, full ? IM_ENOSPACE : IM_EIO, "cannot fill /%s: %s", path,
	    full ? "its file system is full" : "its file system does not take it (read-only, or a disk that fails)");
}

static size_t block_len(size_t all, size_t at)
{
	return all - at < TABLE_BLOCK_BYTES ? all - at : TABLE_BLOCK_BYTES;
}

/* With the mutex held. */
static int copy_in(struct hydrator *h, uint32_t file, uint64_t offset, const uint8_t *data, size_t len, struct im_error *err)
{
	struct lazy_file *lf = &h->files[file];
	struct table_file *f = &h->options.table->files[file];
	int rc = lf->map ? 0 : lazy_map(h->options.fds[file], f->size, &lf->map, err);
	if (rc == 0)
		rc = look_at_size(h, file, err);
	if (rc || f->limit <= offset)
		return rc;
	size_t want = f->limit - offset < len ? (size_t)(f->limit - offset) : len;
	for (size_t at = 0, n; at < want && rc == 0; at += n) { /* what is a hole in the snapshot stays one */
		bool holds = content_holds(h->options.content, file, offset + at, block_len(want, at));
		for (n = block_len(want, at); at + n < want && content_holds(h->options.content, file, offset + at + n, block_len(want, at + n)) == holds;)
			n += block_len(want, at + n);
		ssize_t got = holds ? lazy_fill(h->options.fds[file], lf->map, offset + at, data + at, n, h->options.resumed) : (ssize_t)n;
		if (got == (ssize_t)n)
			continue;
		rc = look_at_size(h, file, err); /* it may have become shorter meanwhile */
		if (rc == 0 && f->limit > offset + at + (uint64_t)(got < 0 ? 0 : got))
			rc = no_room(h, file, err);
		break;
	}
	return rc;
}

static int bring(struct hydrator *h, struct hydrate_lane *l, uint32_t file, uint32_t first, uint32_t end, struct im_error *err)
{
	struct lazy_file *lf = &h->files[file];
	struct table_file *f = &h->options.table->files[file];
	uint64_t offset = (uint64_t)first * TABLE_BLOCK_BYTES;
	uint64_t to = (uint64_t)end * TABLE_BLOCK_BYTES < f->size ? (uint64_t)end * TABLE_BLOCK_BYTES : f->size;
	bool wanted = f->limit > offset && (!h->options.resumed || lazy_lacks(h->options.fds[file], offset, (size_t)(to - offset)));
	int rc = wanted ? read_content(h, l, file, offset, to - offset, err) : 0;
	if (rc == 0 && wanted)
		keep_digests(h, file, first, end, l->buffer);
	pthread_mutex_lock(&lf->mutex);
	if (rc == 0 && wanted)
		rc = copy_in(h, file, offset, l->buffer, (size_t)(to - offset), err);
	uint8_t state = rc == 0 ? BLOCK_DONE : rc == IM_ECORRUPT && end - first == 1 ? BLOCK_BAD : BLOCK_NONE;
	for (uint32_t b = first; b < end; b++)
		set_state(h, file, b, state);
	if (rc == 0) {
		atomic_fetch_add(&h->options.table->head->filled_bytes, to - offset);
		count_done(h, file, end - first);
	} else if (state == BLOCK_BAD && atomic_fetch_add(&h->options.table->head->bad_blocks, 1) == 0) {
		table_trouble(h->options.table, "/%s is damaged in the vault; whoever needs the damaged part gets an error: %s",
		    content_file(h->options.content, file)->writer.path, err ? err->text : "");
	}
	pthread_cond_broadcast(&lf->arrived);
	pthread_mutex_unlock(&lf->mutex);
	return rc;
}

/* With the mutex held: the blocks from b on that can be brought at once become busy, and those around them that the same pieces
 * hold. */
static void claim(struct hydrator *h, uint32_t file, uint32_t b, uint32_t last, bool alone, uint32_t *ret_first, uint32_t *ret_end)
{
	const struct table_file *f = &h->options.table->files[file];
	uint32_t first = b, end = b + 1;
	while (!alone && end <= last && end - first < RUN_BLOCKS && state_of(h, file, end) == BLOCK_NONE)
		end++;
	uint64_t from = (uint64_t)first * TABLE_BLOCK_BYTES, len = (uint64_t)(end - first) * TABLE_BLOCK_BYTES;
	len = f->size - from < len ? f->size - from : len;
	if (!alone)
		content_extend(h->options.content, file, &from, &len, EXTEND_BYTES);
	while (first > 0 && (uint64_t)(first - 1) * TABLE_BLOCK_BYTES >= from && state_of(h, file, first - 1) == BLOCK_NONE)
		first--;
	while (end < f->blocks && ((uint64_t)(end + 1) * TABLE_BLOCK_BYTES <= from + len || from + len == f->size) &&
	    (uint64_t)end * TABLE_BLOCK_BYTES < from + len && state_of(h, file, end) == BLOCK_NONE)
		end++;
	for (uint32_t i = first; i < end; i++)
		set_state(h, file, i, BLOCK_BUSY);
	*ret_first = first;
	*ret_end = end;
}

int hydrate_range(struct hydrator *h, struct hydrate_lane *l, uint32_t file, uint64_t offset, uint64_t len, enum hydrate_why why,
    struct im_error *err)
{
	struct lazy_file *lf = &h->files[file];
	if (!len)
		return 0;
	uint32_t last = (uint32_t)((offset + len - 1) / TABLE_BLOCK_BYTES);
	bool alone = false; /* block by block, to find the damaged ones */
	for (uint32_t b = (uint32_t)(offset / TABLE_BLOCK_BYTES); b <= last;) {
		uint32_t first, end;
		pthread_mutex_lock(&lf->mutex);
		while (why == HYDRATE_DEMAND && state_of(h, file, b) == BLOCK_BUSY)
			pthread_cond_wait(&lf->arrived, &lf->mutex);
		uint8_t state = state_of(h, file, b);
		if (state == BLOCK_NONE)
			claim(h, file, b, last, alone, &first, &end);
		pthread_mutex_unlock(&lf->mutex);
		if (state == BLOCK_BAD && why == HYDRATE_DEMAND)
			return im_fail(err, IM_ECORRUPT, "/%s is damaged in the vault", content_file(h->options.content, file)->writer.path);
		if (state != BLOCK_NONE) {
			b++;
			continue;
		}
		struct im_error problem = { 0 };
		int rc = bring(h, l, file, first, end, &problem);
		if (rc == IM_ECORRUPT && !alone && end - first > 1) {
			alone = true;
			continue;
		}
		if (rc && !(rc == IM_ECORRUPT && why == HYDRATE_AHEAD))
			return im_fail(err, rc, "%s", problem.text);
		b = end > b ? end : b + 1;
	}
	return 0;
}

int hydrate_touch(struct hydrator *h, uint32_t file, uint64_t *ret_limit, struct im_error *err)
{
	struct table_file *f = &h->options.table->files[file];
	pthread_mutex_lock(&h->files[file].mutex);
	f->touched = 1;
	int rc = look_at_size(h, file, err);
	*ret_limit = f->limit;
	pthread_mutex_unlock(&h->files[file].mutex);
	return rc;
}

/* --- the end of a file --- */

/* The digest of all of it as it came from the vault; false: not all of it came. */
static bool sum_up(const struct hydrator *h, uint32_t file, uint8_t ret[REBUILD_DIGEST_BYTES])
{
	const struct table *t = h->options.table;
	const struct table_file *f = &t->files[file];
	memset(ret, 0, REBUILD_DIGEST_BYTES);
	for (uint32_t b = 0; f->has_digest && b < f->blocks; b++) {
		if (!(*table_block(t, file, b) & BLOCK_DIGESTED))
			return false;
		for (unsigned k = 0; k < REBUILD_DIGEST_BYTES; k++)
			ret[k] ^= t->digests[f->first_block + b][k];
	}
	return f->has_digest;
}

static void prove(struct hydrator *h, uint32_t file)
{
	uint8_t sum[REBUILD_DIGEST_BYTES];
	struct built_file *built = content_file(h->options.content, file);
	struct im_error why = { 0 };
	if (!built->prove || !sum_up(h, file, sum) || built->prove(built->context, h->options.fds[file], sum, &why) == 0)
		return;
	h->options.table->files[file].differs = 1;
	table_trouble(h->options.table, "%s", why.text);
}

static void set_time(struct hydrator *h, uint32_t file)
{
	const struct built_file *built = content_file(h->options.content, file);
	struct timespec t = im_timespec(built->mtime_ns);
	futimens(h->options.fds[file], (struct timespec[2]){ t, t }); /* a wish */
}

int hydrate_finish(struct hydrator *h, uint32_t file, bool synced, struct im_error *err)
{
	struct lazy_file *lf = &h->files[file];
	struct table *t = h->options.table;
	struct table_file *f = &t->files[file];
	prove(h, file);
	int rc = synced ? 0 : lazy_sync(h->options.fds[file], err);
	if (rc) { /* a second sync would say yes without having written anything */
		f->unsafe = 1;
		return rc;
	}
	pthread_mutex_lock(&lf->mutex); /* nobody shall note a limit behind our back */
	if (!f->touched)
		set_time(h, file);
	rc = lazy_unmark(h->options.fds[file], err);
	if (rc == 0)
		rc = lazy_forget(content_file(h->options.content, file)->writer.root_fd, file, err);
	if (rc == 0 && h->options.group >= 0)
		rc = fan_unmark(h->options.group, (enum fan_kind)t->head->kind, h->options.fds[file], err);
	if (rc == 0) {
		f->state = FILE_ORDINARY;
		atomic_fetch_sub(&t->head->files_left, 1);
	}
	lazy_unmap(lf->map, f->size);
	lf->map = NULL;
	pthread_mutex_unlock(&lf->mutex);
	return rc;
}

void hydrate_wait(struct hydrator *h, unsigned timeout_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	until.tv_sec += timeout_ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&h->whole_mutex);
	pthread_cond_timedwait(&h->whole, &h->whole_mutex, &until);
	pthread_mutex_unlock(&h->whole_mutex);
}
