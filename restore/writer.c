/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer: a table of open files, a pool of blocks being filled, two threads that write them.
 * A block is FREE, FILLING (found by file and number) or QUEUED (a writing thread owns it). A full
 * block is written directly; one that had to make room before it was full, or is left at the
 * drain, goes through the page cache run by run, since its gaps may still come. Direct and
 * buffered writes never meet in one block at the same time: a block's number is either FILLING or
 * QUEUED, and put waits for a QUEUED one to be written before it fills that number again.
 */
#include "restore/writer.h"

#include "base/beneath.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/workers.h"
#include "restore/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	GRAIN_BYTES = 4096,
	GRAINS = WRITER_BLOCK_BYTES / GRAIN_BYTES,
	WRITER_THREADS = 2,
	WRITER_SLOTS = 128,
	DIRECT_MIN_BYTES = 2 << 20
};

enum block_state { BLOCK_FREE, BLOCK_FILLING, BLOCK_QUEUED };

struct block {
	struct writer *writer;
	struct writer_file *file;
	uint64_t number; /* in the file */
	uint8_t *data;
	enum block_state state;
	unsigned users, filled;
	uint64_t tick;
	uint64_t have[GRAINS / 64];
};

struct slot {
	struct writer_file *file;
	int fd, direct_fd;
	unsigned users;
	uint64_t tick;
};

struct writer {
	pthread_mutex_t mutex;
	pthread_cond_t changed; /* a block or slot became free */
	struct im_workers *threads;
	uint8_t *memory;
	struct block blocks[WRITER_BLOCKS];
	struct slot slots[WRITER_SLOTS];
	uint64_t tick;
	_Atomic uint64_t busy_us;
};

static int write_block_job(void *job, unsigned worker, bool cancelled, struct im_error *err);

int writer_new(struct writer **ret, struct im_error *err)
{
	struct writer *w = calloc(1, sizeof *w);
	if (!w)
		return im_fail(err, IM_ENOMEM, "out of memory");
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->changed, NULL);
	size_t bytes = (size_t)WRITER_BLOCKS * WRITER_BLOCK_BYTES;
	void *memory = mmap(
	    NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	w->memory = memory == MAP_FAILED ? NULL : memory;
	for (size_t i = 0; i < WRITER_SLOTS; i++)
		w->slots[i] = (struct slot){ .fd = -1, .direct_fd = -1 };
	for (size_t i = 0; i < WRITER_BLOCKS; i++)
		w->blocks[i] = (struct block){ .writer = w,
			.data = w->memory ? w->memory + i * WRITER_BLOCK_BYTES : NULL };
	int rc = w->memory ?
	    im_workers_new(WRITER_THREADS, WRITER_BLOCKS, write_block_job, &w->threads, err) :
	    im_fail(err, IM_ENOMEM, "out of memory for %d MiB of write buffers", WRITER_BLOCKS);
	if (rc) {
		writer_free(w);
		return rc;
	}
	*ret = w;
	return 0;
}

static void slot_close(struct slot *s)
{
	if (s->fd >= 0)
		close(s->fd);
	if (s->direct_fd >= 0)
		close(s->direct_fd);
	if (s->file)
		s->file->slot = -1;
	*s = (struct slot){ .fd = -1, .direct_fd = -1 };
}

void writer_free(struct writer *w)
{
	if (!w)
		return;
	im_workers_free(w->threads);
	for (size_t i = 0; i < WRITER_SLOTS; i++)
		slot_close(&w->slots[i]);
	if (w->memory)
		munmap(w->memory, (size_t)WRITER_BLOCKS * WRITER_BLOCK_BYTES);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->mutex);
	free(w);
}

uint64_t writer_busy_us(const struct writer *w)
{
	return w->busy_us;
}

/* Opens f, making it and its folders where they are missing. */
static int open_file(struct writer_file *f, int flags, struct im_error *err)
{
	int fd = im_beneath_open(f->root_fd, f->path, O_RDWR | O_CREAT | O_NOFOLLOW | flags, 0600);
	if (fd < 0 && errno == ENOENT) {
		const char *slash = strrchr(f->path, '/');
		auto_free char *folder = slash ? strndup(f->path, (size_t)(slash - f->path)) : NULL;
		auto_close int folder_fd = -1;
		int rc = folder ?
		    beneath_folder(f->root_fd, folder, false, true, &folder_fd, NULL, err) :
		    0;
		if (rc)
			return rc;
		fd = im_beneath_open(
		    f->root_fd, f->path, O_RDWR | O_CREAT | O_NOFOLLOW | flags, 0600);
	}
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot make /%s", f->path);
	return fd;
}

static int reserve(int fd, struct writer_file *f, struct im_error *err)
{
	if (f->made)
		return 0;
	if (f->whole && f->size_bytes >= DIRECT_MIN_BYTES &&
	    fallocate(fd, 0, 0, (off_t)f->size_bytes) == 0)
		return 0;
	if (f->whole && (errno == ENOSPC || errno == EDQUOT) && f->size_bytes >= DIRECT_MIN_BYTES)
		return im_fail_errno(err, IM_ENOSPACE, errno, "cannot reserve %llu bytes for /%s",
		    (unsigned long long)f->size_bytes, f->path);
	if (ftruncate(fd, (off_t)f->size_bytes))
		return im_fail_errno(err, IM_EIO, errno, "cannot give /%s its size of %llu bytes",
		    f->path, (unsigned long long)f->size_bytes);
	return 0;
}

static struct slot *find_slot_locked(struct writer *w)
{
	struct slot *best = NULL;
	for (size_t i = 0; i < WRITER_SLOTS; i++) {
		struct slot *s = &w->slots[i];
		if (!s->file)
			return s;
		if (!s->users && (!best || s->tick < best->tick))
			best = s;
	}
	return best;
}

/* The file's slot, opened if need be; users keeps it. */
static int slot_acquire(
    struct writer *w, struct writer_file *f, struct slot **ret, struct im_error *err)
{
	int rc = 0;
	pthread_mutex_lock(&w->mutex);
	struct slot *s = NULL;
	while (f->slot < 0 && !(s = find_slot_locked(w)))
		pthread_cond_wait(&w->changed, &w->mutex);
	if (f->slot < 0) {
		slot_close(s);
		int fd = open_file(f, 0, err);
		rc = fd < 0 ? fd : reserve(fd, f, err);
		if (rc && fd >= 0)
			close(fd);
		if (rc == 0) {
			*s = (struct slot){ .file = f, .fd = fd, .direct_fd = -1 };
			f->slot = (int16_t)(s - w->slots);
			f->made = true;
		}
	}
	if (rc == 0) {
		s = &w->slots[f->slot];
		if (s->direct_fd < 0 && !f->no_direct && !f->unaligned &&
		    f->size_bytes >= DIRECT_MIN_BYTES) {
			s->direct_fd = im_beneath_open(
			    f->root_fd, f->path, O_WRONLY | O_DIRECT | O_NOFOLLOW, 0);
			f->no_direct = s->direct_fd < 0; /* tmpfs and others have none */
		}
		s->users++;
		s->tick = ++w->tick;
		*ret = s;
	}
	pthread_mutex_unlock(&w->mutex);
	return rc;
}

static void slot_release(struct writer *w, struct slot *s)
{
	pthread_mutex_lock(&w->mutex);
	s->users--;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->mutex);
}

static int write_buffered(struct writer *w, struct writer_file *f, uint64_t offset,
    const uint8_t *data, size_t len, struct im_error *err)
{
	struct slot *s;
	int rc = slot_acquire(w, f, &s, err);
	if (rc)
		return rc;
	rc = im_pwrite_full(s->fd, data, len, offset, err, f->path);
	slot_release(w, s);
	return rc;
}

/* Bytes of the file that lie in this block. */
static size_t block_len(const struct block *b)
{
	uint64_t left = b->file->size_bytes - b->number * WRITER_BLOCK_BYTES;
	return left < WRITER_BLOCK_BYTES ? (size_t)left : WRITER_BLOCK_BYTES;
}

static unsigned block_grains(const struct block *b)
{
	return (unsigned)((block_len(b) + GRAIN_BYTES - 1) / GRAIN_BYTES);
}

static bool has_grain(const struct block *b, unsigned g)
{
	return b->have[g / 64] >> (g % 64) & 1;
}

static int write_runs(const struct block *b, int fd, struct im_error *err)
{
	size_t len = block_len(b);
	unsigned grains = block_grains(b);
	for (unsigned g = 0; g < grains;) {
		unsigned end = g;
		while (end < grains && has_grain(b, end))
			end++;
		size_t from = (size_t)g * GRAIN_BYTES, to = (size_t)end * GRAIN_BYTES;
		to = to > len ? len : to;
		if (end > g) {
			int rc = im_pwrite_full(fd, b->data + from, to - from,
			    b->number * WRITER_BLOCK_BYTES + from, err, b->file->path);
			if (rc)
				return rc;
		}
		g = end + 1;
	}
	return 0;
}

static int write_block(struct writer *w, struct block *b, struct im_error *err)
{
	struct slot *s;
	int rc = slot_acquire(w, b->file, &s, err);
	if (rc)
		return rc;
	size_t len = block_len(b), padded = (size_t)block_grains(b) * GRAIN_BYTES;
	uint64_t offset = b->number * WRITER_BLOCK_BYTES;
	if (b->filled < block_grains(b)) {
		rc = write_runs(b, s->fd, err);
	} else if (s->direct_fd >= 0) {
		memset(b->data + len, 0,
		    padded - len); /* beyond the end: cut off when the file is finished */
		rc = im_pwrite_full(s->direct_fd, b->data, padded, offset, err, b->file->path);
	} else {
		rc = im_pwrite_full(s->fd, b->data, len, offset, err, b->file->path);
	}
	slot_release(w, s);
	return rc;
}

static int write_block_job(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	struct block *b = job;
	struct writer *w = b->writer;
	(void)worker;
	int64_t start = im_monotonic_us();
	int rc = cancelled ? 0 : write_block(w, b, err);
	atomic_fetch_add(&w->busy_us, (uint64_t)(im_monotonic_us() - start));
	pthread_mutex_lock(&w->mutex);
	b->state = BLOCK_FREE;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->mutex);
	return rc;
}

/* To the writing threads. The queue has room for every block, so this never waits. */
static int queue_locked(struct writer *w, struct block *b)
{
	b->state = BLOCK_QUEUED;
	return im_workers_submit(w->threads, b);
}

/* A block to fill: the one already begun, a free one, or the oldest, sent off to make room. */
static struct block *block_begin_locked(struct writer *w, struct writer_file *f, uint64_t number)
{
	for (;;) {
		struct block *unused = NULL, *oldest = NULL;
		bool in_flight = false, busy = false;
		for (size_t i = 0; i < WRITER_BLOCKS; i++) {
			struct block *b = &w->blocks[i];
			if (b->state == BLOCK_FREE)
				unused = b;
			else if (b->file == f && b->number == number && b->state == BLOCK_FILLING)
				return b;
			else if (b->file == f && b->number == number)
				busy = true;
			else if (b->state == BLOCK_QUEUED)
				in_flight = true;
			else if (!b->users && (!oldest || b->tick < oldest->tick))
				oldest = b;
		}
		if (unused && !busy) {
			unused->state = BLOCK_FILLING;
			unused->file = f;
			unused->number = number;
			unused->users = unused->filled = 0;
			unused->tick = ++w->tick;
			memset(unused->have, 0, sizeof unused->have);
			return unused;
		}
		if (!busy && !in_flight && oldest)
			queue_locked(w, oldest);
		pthread_cond_wait(&w->changed, &w->mutex);
	}
}

static void mark_locked(struct block *b, size_t from, size_t len)
{
	for (size_t g = from / GRAIN_BYTES; g < (from + len + GRAIN_BYTES - 1) / GRAIN_BYTES; g++)
		if (!has_grain(b, (unsigned)g)) {
			b->have[g / 64] |= UINT64_C(1) << (g % 64);
			b->filled++;
		}
}

/* One piece that lies in one block. */
static int put_in_block(struct writer *w, struct writer_file *f, uint64_t offset,
    const uint8_t *data, size_t len, struct im_error *err)
{
	size_t from = (size_t)(offset % WRITER_BLOCK_BYTES);
	pthread_mutex_lock(&w->mutex);
	struct block *b = block_begin_locked(w, f, offset / WRITER_BLOCK_BYTES);
	b->users++;
	pthread_mutex_unlock(&w->mutex);
	memcpy(b->data + from, data, len);
	pthread_mutex_lock(&w->mutex);
	mark_locked(b, from, len);
	int rc = --b->users == 0 && b->filled >= block_grains(b) ? queue_locked(w, b) : 0;
	if (!rc && !b->users)
		pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->mutex);
	return rc ? im_fail(err, rc, "writing %s failed", f->path) : 0;
}

static bool is_gathered(const struct writer_file *f)
{
	return f->size_bytes >= DIRECT_MIN_BYTES && !f->unaligned;
}

int writer_put(struct writer *w, struct writer_file *f, uint64_t offset, const uint8_t *data,
    size_t len, struct im_error *err)
{
	if (!is_gathered(f))
		return write_buffered(w, f, offset, data, len, err);
	while (len) {
		size_t room = WRITER_BLOCK_BYTES - (size_t)(offset % WRITER_BLOCK_BYTES);
		size_t n = len < room ? len : room;
		int rc = put_in_block(w, f, offset, data, n, err);
		if (rc)
			return rc;
		offset += n;
		data += n;
		len -= n;
	}
	return 0;
}

int writer_put_whole(struct writer *w, struct writer_file *f, const uint8_t *data, size_t len,
    int *ret_fd, struct im_error *err)
{
	(void)w;
	auto_close int fd = open_file(f, O_TRUNC, err);
	if (fd < 0)
		return fd;
	f->made = true;
	int rc = im_pwrite_full(fd, data, len, 0, err, f->path);
	if (rc == 0)
		*ret_fd = TAKE_FD(fd);
	return rc;
}

int writer_reopen(struct writer *w, struct writer_file *f, int *ret_fd, struct im_error *err)
{
	pthread_mutex_lock(&w->mutex);
	if (f->slot >= 0 && !w->slots[f->slot].users)
		slot_close(&w->slots[f->slot]);
	pthread_mutex_unlock(&w->mutex);
	auto_close int fd = open_file(f, 0, err);
	if (fd < 0)
		return fd;
	f->made = true;
	if (ftruncate(fd, (off_t)f->size_bytes))
		return im_fail_errno(err, IM_EIO, errno, "cannot give /%s its size", f->path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int writer_drain(struct writer *w, struct im_error *err)
{
	int rc = 0;
	pthread_mutex_lock(&w->mutex);
	for (size_t i = 0; i < WRITER_BLOCKS; i++)
		if (w->blocks[i].state == BLOCK_FILLING)
			rc = queue_locked(w, &w->blocks[i]);
	pthread_mutex_unlock(&w->mutex);
	(void)rc; /* the pool keeps its first failure */
	return im_workers_wait(w->threads, err);
}
