/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and cutting. Chunks lie at fixed offsets of the file; ranges under 64 KiB (small files,
 * tails, islands in sparse files) share bundles. A job owns its buffer and fills one row of its
 * segment's chunk table.
 */
#include "stores/files/content.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#define LARGE_CHUNK_BYTES (8u << 20)
#define LARGE_FROM_BYTES (UINT64_C(64) << 30)
#define SPARE_BUFFERS 8

struct files_encoders {
	struct packer *packer;
	struct im_workers *workers;
	struct codec **codecs; /* one per worker */
	unsigned count;
	uint8_t chunk_key[32];
	_Atomic uint64_t new_bytes;
	pthread_mutex_t mutex; /* guards spare */
	uint8_t *spare[SPARE_BUFFERS];
	unsigned spare_count;
};

struct files_content {
	struct files_encoders *encoders;
	pthread_mutex_t mutex; /* guards rows, pending, error */
	pthread_cond_t done;
	struct files_chunk *rows;
	size_t row_count, row_cap;
	unsigned pending;
	struct im_error error;
	uint8_t *bundle; /* the reader's own */
	size_t bundle_len;
	uint32_t bundle_row;
};

struct job {
	struct files_content *content;
	enum entry_type type;
	uint32_t row; /* of a chunk */
	struct im_ref *ref; /* of a segment */
	uint8_t *data;
	size_t len, cap; /* cap FILES_CHUNK_BYTES: the buffer is used again */
};

static uint8_t *buffer_take(struct files_encoders *e, size_t cap)
{
	uint8_t *p = NULL;
	if (cap != FILES_CHUNK_BYTES)
		return malloc(cap);
	pthread_mutex_lock(&e->mutex);
	if (e->spare_count)
		p = e->spare[--e->spare_count];
	pthread_mutex_unlock(&e->mutex);
	return p ? p : malloc(cap);
}

static void buffer_give(struct files_encoders *e, uint8_t *p, size_t cap)
{
	if (p && cap == FILES_CHUNK_BYTES) {
		pthread_mutex_lock(&e->mutex);
		if (e->spare_count < SPARE_BUFFERS)
			e->spare[e->spare_count++] = TAKE_PTR(p);
		pthread_mutex_unlock(&e->mutex);
	}
	free(p);
}

/* Tree ids live apart from chunk ids: the hashed bytes of a segment begin with a label (see put_segment). */
static int encode(struct files_encoders *e, struct job *j, unsigned worker, struct im_error *err)
{
	uint8_t id[32];
	struct files_chunk chunk;
	bool fresh = false;
	size_t label = j->type == ENTRY_TREE ? strlen(FILES_SEGMENT_LABEL) : 0;
	crypto_keyed(id, e->chunk_key, j->data, j->len);
	int rc = packer_put(
	    e->packer, e->codecs[worker], j->type, id, j->data + label, j->len - label, &chunk.ref, &fresh, err);
	if (rc)
		return rc;
	if (j->type == ENTRY_TREE) {
		*j->ref = chunk.ref;
		return 0;
	}
	if (fresh)
		atomic_fetch_add(&e->new_bytes, j->len);
	memcpy(chunk.id, id, sizeof id);
	pthread_mutex_lock(&j->content->mutex);
	j->content->rows[j->row] = chunk;
	pthread_mutex_unlock(&j->content->mutex);
	return 0;
}

static int run_job(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	struct job *j = job;
	struct files_content *c = j->content;
	int rc = cancelled ? im_fail(err, IM_EFAIL, "stopped after an earlier failure")
			   : encode(c->encoders, j, worker, err);
	buffer_give(c->encoders, j->data, j->cap);
	free(j);
	pthread_mutex_lock(&c->mutex);
	if (rc && !c->error.code)
		c->error = *err;
	if (!--c->pending)
		pthread_cond_broadcast(&c->done);
	pthread_mutex_unlock(&c->mutex);
	return cancelled ? 0 : rc;
}

int files_encoders_new(
    struct packer *packer, const uint8_t chunk_key[32], int level, struct files_encoders **ret, struct im_error *err)
{
	struct files_encoders *e = calloc(1, sizeof *e);
	if (!e)
		return im_fail(err, IM_ENOMEM, "out of memory");
	e->packer = packer;
	e->count = im_cpu_count();
	memcpy(e->chunk_key, chunk_key, sizeof e->chunk_key);
	pthread_mutex_init(&e->mutex, NULL);
	e->codecs = calloc(e->count, sizeof *e->codecs);
	int rc = e->codecs ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	for (unsigned i = 0; !rc && i < e->count; i++)
		rc = codec_new(level, &e->codecs[i], err);
	if (!rc)
		rc = im_workers_new(e->count, 2 * e->count, run_job, &e->workers, err);
	if (rc) {
		files_encoders_free(e);
		return rc;
	}
	*ret = e;
	return 0;
}

void files_encoders_free(struct files_encoders *e)
{
	if (!e)
		return;
	im_workers_free(e->workers);
	for (unsigned i = 0; e->codecs && i < e->count; i++)
		codec_free(e->codecs[i]);
	free(e->codecs);
	while (e->spare_count)
		free(e->spare[--e->spare_count]);
	crypto_wipe(e->chunk_key, sizeof e->chunk_key);
	pthread_mutex_destroy(&e->mutex);
	free(e);
}

unsigned files_encoders_count(const struct files_encoders *e) { return e->count; }

uint64_t files_encoders_new_bytes(const struct files_encoders *e) { return atomic_load(&e->new_bytes); }

int files_content_new(struct files_encoders *e, struct files_content **ret, struct im_error *err)
{
	struct files_content *c = calloc(1, sizeof *c);
	if (!c)
		return im_fail(err, IM_ENOMEM, "out of memory");
	c->encoders = e;
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->done, NULL);
	*ret = c;
	return 0;
}

static void wait_idle(struct files_content *c)
{
	pthread_mutex_lock(&c->mutex);
	while (c->pending)
		pthread_cond_wait(&c->done, &c->mutex);
	pthread_mutex_unlock(&c->mutex);
}

void files_content_free(struct files_content *c)
{
	if (!c)
		return;
	wait_idle(c);
	buffer_give(c->encoders, c->bundle, FILES_CHUNK_BYTES);
	pthread_mutex_destroy(&c->mutex);
	pthread_cond_destroy(&c->done);
	free(c->rows);
	free(c);
}

int files_content_error(struct files_content *c, struct im_error *err)
{
	pthread_mutex_lock(&c->mutex);
	int rc = c->error.code;
	if (rc)
		im_fail(err, rc, "%s", c->error.text);
	pthread_mutex_unlock(&c->mutex);
	return rc;
}

/* Takes over data. */
static int submit(struct files_content *c, struct job job, struct im_error *err)
{
	struct job *j = malloc(sizeof *j);
	if (!j) {
		buffer_give(c->encoders, job.data, job.cap);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	*j = job;
	j->content = c;
	pthread_mutex_lock(&c->mutex);
	c->pending++;
	pthread_mutex_unlock(&c->mutex);
	im_workers_submit(c->encoders->workers, j);
	return files_content_error(c, err);
}

static int add_row(struct files_content *c, const struct files_chunk *chunk, uint32_t *ret, struct im_error *err)
{
	int rc = 0;
	pthread_mutex_lock(&c->mutex);
	if (c->row_count == c->row_cap) {
		size_t cap = c->row_cap ? 2 * c->row_cap : 64;
		struct files_chunk *grown = realloc(c->rows, cap * sizeof *grown);
		if (grown) {
			c->rows = grown;
			c->row_cap = cap;
		} else {
			rc = im_fail(err, IM_ENOMEM, "out of memory");
		}
	}
	if (!rc) {
		c->rows[c->row_count] = chunk ? *chunk : (struct files_chunk){ 0 };
		*ret = (uint32_t)c->row_count++;
	}
	pthread_mutex_unlock(&c->mutex);
	return rc;
}

int files_content_reuse(
    struct files_content *c, const struct files_chunk *chunk, uint32_t *ret_row, struct im_error *err)
{
	return add_row(c, chunk, ret_row, err);
}

size_t files_content_rows(const struct files_content *c) { return c->row_count; }

static int flush_bundle(struct files_content *c, struct im_error *err)
{
	if (!c->bundle_len)
		return 0;
	struct job job = { .type = ENTRY_CHUNK,
		.row = c->bundle_row,
		.data = TAKE_PTR(c->bundle),
		.len = c->bundle_len,
		.cap = FILES_CHUNK_BYTES };
	c->bundle_len = 0;
	return submit(c, job, err);
}

static bool looks_like_sqlite(const uint8_t *data, size_t len)
{
	return len >= 16 && !memcmp(data, "SQLite format 3", 16);
}

static int add_piece(struct files_pieces *p, struct files_piece piece, struct im_error *err)
{
	if (p->count == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 16;
		struct files_piece *grown = realloc(p->items, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory");
		p->items = grown;
		p->cap = cap;
	}
	p->items[p->count++] = piece;
	return 0;
}

/* Fewer than FILES_SMALL_BYTES go to the bundle. */
static ssize_t read_small(struct files_content *c, int fd, uint64_t offset, size_t len, const char *what,
    struct files_pieces *ret, bool *ret_sqlite, struct im_error *err)
{
	int rc = c->bundle_len + len > FILES_BUNDLE_BYTES ? flush_bundle(c, err) : 0;
	if (!rc && !c->bundle && !(c->bundle = buffer_take(c->encoders, FILES_CHUNK_BYTES)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc)
		return rc;
	ssize_t n = im_pread_full(fd, c->bundle + c->bundle_len, len, offset, err, what);
	if (n <= 0)
		return n;
	*ret_sqlite |= !offset && looks_like_sqlite(c->bundle + c->bundle_len, (size_t)n);
	if (!c->bundle_len && (rc = add_row(c, NULL, &c->bundle_row, err)))
		return rc;
	rc = add_piece(ret,
	    (struct files_piece){
		.file_offset = offset, .chunk = c->bundle_row, .skip = (uint32_t)c->bundle_len, .len = (uint32_t)n },
	    err);
	c->bundle_len += (size_t)n;
	return rc ? rc : n;
}

static ssize_t read_chunk(struct files_content *c, int fd, uint64_t offset, size_t len, const char *what,
    struct files_pieces *ret, bool *ret_sqlite, struct im_error *err)
{
	uint32_t row;
	size_t cap = len > FILES_CHUNK_BYTES ? len : FILES_CHUNK_BYTES;
	uint8_t *data = buffer_take(c->encoders, cap);
	if (!data)
		return im_fail(err, IM_ENOMEM, "out of memory");
	ssize_t n = im_pread_full(fd, data, len, offset, err, what);
	int rc = n <= 0 ? (int)n : add_row(c, NULL, &row, err);
	if (n <= 0 || rc) {
		buffer_give(c->encoders, data, cap);
		return rc;
	}
	*ret_sqlite |= !offset && looks_like_sqlite(data, (size_t)n);
	rc = add_piece(ret, (struct files_piece){ .file_offset = offset, .chunk = row, .len = (uint32_t)n }, err);
	int rc2 =
	    submit(c, (struct job){ .type = ENTRY_CHUNK, .row = row, .data = data, .len = (size_t)n, .cap = cap }, err);
	return rc ? rc : rc2 ? rc2 : n;
}

/* The next stretch of data at or after *pos, up to end; false: only a hole follows. */
static bool next_data(int fd, bool sparse, uint64_t *pos, uint64_t size, uint64_t *ret_end)
{
	*ret_end = size;
	if (*pos >= size)
		return false;
	if (!sparse)
		return true;
	off_t data = lseek(fd, (off_t)*pos, SEEK_DATA);
	if (data < 0)
		return errno != ENXIO; /* ENXIO: no data is left; anything else: read it all */
	off_t hole = lseek(fd, data, SEEK_HOLE);
	if ((uint64_t)data >= size)
		return false;
	*pos = (uint64_t)data;
	if (hole > data && (uint64_t)hole < size)
		*ret_end = (uint64_t)hole;
	return true;
}

int files_content_read(struct files_content *c, int fd, const struct stat *st, const char *what,
    struct files_pieces *ret, struct files_read *ret_read, struct im_error *err)
{
	uint64_t size = (uint64_t)st->st_size, pos = 0, end;
	uint64_t chunk = size < LARGE_FROM_BYTES ? FILES_CHUNK_BYTES : LARGE_CHUNK_BYTES;
	bool sparse = (uint64_t)st->st_blocks * 512 < size;
	struct files_read read = { .size_bytes = size };
	size_t first = ret->count;
	if (size > FILES_SMALL_BYTES)
		posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	while (next_data(fd, sparse, &pos, size, &end)) {
		uint64_t stop = (pos / chunk + 1) * chunk;
		size_t len = (size_t)((stop < end ? stop : end) - pos);
		ssize_t n =
		    (len < FILES_SMALL_BYTES ? read_small : read_chunk)(c, fd, pos, len, what, ret, &read.sqlite, err);
		if (n < 0)
			return (int)n;
		pos += (size_t)n;
		read.read_bytes += (size_t)n;
		if ((size_t)n < len) { /* cut short while it was read */
			read.size_bytes = pos;
			break;
		}
		read.too_large = ret->count - first > FILES_MAX_PIECES;
		int rc = read.too_large ? 0 : im_interrupt_check(err);
		if (rc)
			return rc;
		if (read.too_large)
			break;
	}
	*ret_read = read;
	return 0;
}

int files_content_wait(struct files_content *c, const struct files_chunk **ret, size_t *ret_count, struct im_error *err)
{
	int rc = flush_bundle(c, err);
	wait_idle(c);
	if (!rc)
		rc = files_content_error(c, err);
	if (rc)
		return rc;
	*ret = c->rows;
	*ret_count = c->row_count;
	return 0;
}

void files_content_reset(struct files_content *c) { c->row_count = 0; }

int files_content_put_segment(
    struct files_content *c, struct im_buf *labelled, struct im_ref *ret, struct im_error *err)
{
	struct job job = { .type = ENTRY_TREE, .ref = ret, .data = TAKE_PTR(labelled->data), .len = labelled->len };
	labelled->len = labelled->cap = 0;
	int rc = submit(c, job, err);
	wait_idle(c);
	return rc ? rc : files_content_error(c, err);
}
