/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scratch file: sealed units of one size, given out lowest first, so that the file shrinks again.
 * Each writing of a unit has its own nonce (a counter), and the unit's number is bound to it.
 */
#include "backup/scratch.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "vault/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#define UNIT_BYTES 16384 /* plain; a reader keeps one in memory */
#define HEAD_BYTES (CRYPTO_NONCE_BYTES + 4)
#define SLOT_BYTES (HEAD_BYTES + UNIT_BYTES + CRYPTO_TAG_BYTES)

struct scratch {
	int fd;
	uint8_t *key; /* crypto_secret */
	pthread_mutex_t lock; /* of what follows */
	uint64_t counter;
	uint8_t *used; /* per unit */
	size_t units, in_use, lowest; /* lowest: none free below it */
	size_t limit;
};

int scratch_new(const char *folder, uint64_t limit_bytes, struct scratch **ret, struct im_error *err)
{
	struct scratch *s = calloc(1, sizeof *s);
	if (!s)
		return im_fail(err, IM_ENOMEM, "out of memory");
	s->limit = (size_t)(limit_bytes / SLOT_BYTES < UINT32_MAX ? limit_bytes / SLOT_BYTES : UINT32_MAX);
	s->key = crypto_secret_new(CRYPTO_KEY_BYTES);
	pthread_mutex_init(&s->lock, NULL);
	s->fd = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (s->fd < 0) { /* a file system without it */
		auto_free char *path = im_path_join(folder, "scratch-XXXXXX");
		s->fd = path ? mkostemp(path, O_CLOEXEC) : -1;
		if (s->fd >= 0)
			unlink(path);
	}
	if (s->fd < 0 || !s->key) {
		int rc = s->key ? im_fail_errno(err, IM_EIO, errno, "cannot make a scratch file in %s", folder) : im_fail(err, IM_ENOMEM, "out of memory");
		scratch_free(s);
		return rc;
	}
	crypto_random(s->key, CRYPTO_KEY_BYTES);
	*ret = s;
	return 0;
}

void scratch_free(struct scratch *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		close(s->fd);
	crypto_secret_free(s->key);
	free(s->used);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* --- units --- */

static bool grow(struct scratch *s)
{
	size_t units = s->units ? 2 * s->units : 256;
	units = units < s->limit ? units : s->limit;
	uint8_t *used = units > s->units ? realloc(s->used, units) : NULL;
	if (!used)
		return false;
	memset(used + s->units, 0, units - s->units);
	s->used = used;
	s->units = units;
	return true;
}

/* Takes count units, or none. */
static bool take_units(struct scratch *s, uint32_t *ret, size_t count)
{
	size_t n = 0;
	pthread_mutex_lock(&s->lock);
	bool room = count <= s->limit - s->in_use;
	while (room && s->units - s->in_use < count && (room = grow(s)))
		continue;
	for (size_t i = s->lowest; room && n < count; i++) {
		if (s->used[i])
			continue;
		s->used[i] = 1;
		ret[n++] = (uint32_t)i;
		s->lowest = i + 1;
	}
	s->in_use += n;
	pthread_mutex_unlock(&s->lock);
	return room;
}

void scratch_drop(struct scratch *s, struct scratch_body *b)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < b->unit_count; i++) {
		s->used[b->units[i]] = 0;
		s->lowest = b->units[i] < s->lowest ? b->units[i] : s->lowest;
	}
	s->in_use -= b->unit_count;
	int rc = s->in_use ? 0 : ftruncate(s->fd, 0);
	(void)rc; /* it only stays larger */
	pthread_mutex_unlock(&s->lock);
	free(b->units);
	*b = (struct scratch_body){ 0 };
}

uint64_t scratch_bytes(struct scratch *s)
{
	pthread_mutex_lock(&s->lock);
	uint64_t bytes = (uint64_t)s->in_use * SLOT_BYTES;
	pthread_mutex_unlock(&s->lock);
	return bytes;
}

static void next_nonce(struct scratch *s, uint8_t nonce[CRYPTO_NONCE_BYTES])
{
	memset(nonce, 0, CRYPTO_NONCE_BYTES);
	pthread_mutex_lock(&s->lock);
	im_put_le64(nonce, s->counter++);
	pthread_mutex_unlock(&s->lock);
}

/* --- bodies --- */

static int write_unit(struct scratch *s, uint8_t *slot, uint32_t unit, const uint8_t *data, size_t len, struct im_error *err)
{
	next_nonce(s, slot);
	im_put_le32(slot + CRYPTO_NONCE_BYTES, unit);
	crypto_aead_seal(slot + HEAD_BYTES, s->key, slot, slot + CRYPTO_NONCE_BYTES, 4, data, len);
	return im_pwrite_full(s->fd, slot, HEAD_BYTES + len + CRYPTO_TAG_BYTES, (uint64_t)unit * SLOT_BYTES, err, "the scratch file");
}

int scratch_put(struct scratch *s, const void *data, size_t len, struct scratch_body *ret, struct im_error *err)
{
	struct scratch_body b = { .unit_count = (len + UNIT_BYTES - 1) / UNIT_BYTES, .len = len };
	auto_free uint8_t *slot = malloc(SLOT_BYTES);
	b.units = calloc(b.unit_count + 1, sizeof *b.units);
	if (!b.units || !slot) {
		free(b.units);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	if (!take_units(s, b.units, b.unit_count)) {
		free(b.units);
		return im_fail(err, IM_ENOSPACE, "the scratch file is full");
	}
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < b.unit_count; i++) {
		size_t at = i * UNIT_BYTES, n = len - at < UNIT_BYTES ? len - at : UNIT_BYTES;
		rc = write_unit(s, slot, b.units[i], (const uint8_t *)data + at, n, err);
	}
	if (rc)
		scratch_drop(s, &b);
	else
		*ret = b;
	return rc;
}

static int read_unit(struct scratch_reader *r, size_t index, struct im_error *err)
{
	uint32_t unit = r->body->units[index];
	size_t start = index * UNIT_BYTES, len = r->body->len - start < UNIT_BYTES ? r->body->len - start : UNIT_BYTES;
	auto_free uint8_t *slot = malloc(SLOT_BYTES);
	if (!r->unit)
		r->unit = malloc(UNIT_BYTES);
	if (!slot || !r->unit)
		return im_fail(err, IM_ENOMEM, "out of memory");
	r->unit_len = 0;
	size_t sealed = HEAD_BYTES + len + CRYPTO_TAG_BYTES;
	ssize_t n = im_pread_full(r->scratch->fd, slot, sealed, (uint64_t)unit * SLOT_BYTES, err, "the scratch file");
	if (n < 0)
		return (int)n;
	if ((size_t)n != sealed || im_le32(slot + CRYPTO_NONCE_BYTES) != unit || !crypto_aead_open(r->unit, r->scratch->key, slot,
	    slot + CRYPTO_NONCE_BYTES, 4, slot + HEAD_BYTES, len + CRYPTO_TAG_BYTES))
		return im_fail(err, IM_ECORRUPT, "the scratch file was changed by somebody else");
	r->unit_index = index;
	r->unit_len = len;
	return 0;
}

int scratch_read(void *reader, uint64_t offset, void *ret, size_t len, struct im_error *err)
{
	struct scratch_reader *r = reader;
	if (offset > r->body->len || len > r->body->len - offset)
		return im_fail(err, IM_ECORRUPT, "a body is shorter than it should be");
	for (uint8_t *out = ret; len;) {
		size_t index = offset / UNIT_BYTES, skip = offset % UNIT_BYTES;
		int rc = r->unit_len && r->unit_index == index ? 0 : read_unit(r, index, err);
		if (rc)
			return rc;
		size_t n = r->unit_len - skip < len ? r->unit_len - skip : len;
		memcpy(out, r->unit + skip, n);
		out += n;
		offset += n;
		len -= n;
	}
	return 0;
}

void scratch_reader_clear(struct scratch_reader *r)
{
	free(r->unit);
	*r = (struct scratch_reader){ 0 };
}
