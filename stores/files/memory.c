/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blob of a segment's memory. It is read back with the same care as anything else: a wrong
 * blob may only cost work, so every bound is checked and any doubt forgets it.
 */
#include "stores/files/memory.h"

#include "base/cleanup.h"
#include "vault/crypto.h"

#include <stdlib.h>
#include <string.h>

#define MEMORY_VERSION 1
#define KNOWN_MIN_BYTES (2 * FILES_NAME_HASH_BYTES + 12)

void files_key_of(struct files_key *ret, const struct stat *st)
{
	*ret = (struct files_key){ .dev = st->st_dev,
		.ino = st->st_ino,
		.size_bytes = (uint64_t)st->st_size,
		.rdev = st->st_rdev,
		.mtime_s = st->st_mtim.tv_sec,
		.ctime_s = st->st_ctim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
		.ctime_ns = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid };
	if (S_ISDIR(st->st_mode)) /* differs between file systems without meaning */
		ret->size_bytes = 0;
}

void files_key_put(struct im_buf *b, const struct files_key *k)
{
	im_buf_put_u64(b, k->dev);
	im_buf_put_u64(b, k->ino);
	im_buf_put_u64(b, k->size_bytes);
	im_buf_put_u64(b, k->rdev);
	im_buf_put_u64(b, (uint64_t)k->mtime_s);
	im_buf_put_u64(b, (uint64_t)k->ctime_s);
	im_buf_put_u32(b, k->mtime_ns);
	im_buf_put_u32(b, k->ctime_ns);
	im_buf_put_u32(b, k->mode);
	im_buf_put_u32(b, k->uid);
	im_buf_put_u32(b, k->gid);
}

void files_key_hash(uint8_t ret[FILES_NAME_HASH_BYTES], const struct files_key *k)
{
	auto_buf struct im_buf b = { 0 };
	uint8_t hash[32];
	files_key_put(&b, k);
	crypto_hash(hash, b.data, b.failed ? 0 : b.len);
	memcpy(ret, hash, FILES_NAME_HASH_BYTES);
}

void files_name_hash(uint8_t ret[FILES_NAME_HASH_BYTES], const char *path)
{
	uint8_t hash[32];
	crypto_hash(hash, path, strlen(path));
	memcpy(ret, hash, FILES_NAME_HASH_BYTES);
}

static int compare_known(const void *a, const void *b)
{
	return memcmp(
	    ((const struct files_known *)a)->name, ((const struct files_known *)b)->name, FILES_NAME_HASH_BYTES);
}

void files_memory_sort(struct files_known *known, size_t count)
{
	if (count)
		qsort(known, count, sizeof *known, compare_known);
}

const struct files_known *files_memory_find(const struct files_memory *m, const uint8_t name[FILES_NAME_HASH_BYTES])
{
	struct files_known wanted;
	memcpy(wanted.name, name, sizeof wanted.name);
	return m->known_count ? bsearch(&wanted, m->known, m->known_count, sizeof wanted, compare_known) : NULL;
}

static void put_known(struct im_buf *b, const struct files_known *k)
{
	im_buf_put(b, k->name, sizeof k->name);
	im_buf_put(b, k->key, sizeof k->key);
	im_buf_put_u64(b, k->size_bytes);
	im_buf_put_u32(b, (uint32_t)k->piece_count);
	for (size_t i = 0; i < k->piece_count; i++) {
		im_buf_put_u64(b, k->pieces[i].file_offset);
		im_buf_put_u32(b, k->pieces[i].chunk);
		im_buf_put_u32(b, k->pieces[i].skip);
		im_buf_put_u32(b, k->pieces[i].len);
	}
}

int files_memory_encode(const struct files_memory *m, struct im_buf *ret, struct im_error *err)
{
	im_buf_put_u8(ret, MEMORY_VERSION);
	im_buf_put(ret, m->digest, sizeof m->digest);
	im_buf_put_u64(ret, m->counts.files);
	im_buf_put_u64(ret, m->counts.dirs);
	im_buf_put_u64(ret, m->counts.others);
	im_buf_put_u64(ret, m->counts.bytes);
	im_buf_put_u32(ret, (uint32_t)m->ref_count);
	for (size_t i = 0; i < m->ref_count; i++)
		ref_put(ret, m->refs[i]);
	im_buf_put_u32(ret, (uint32_t)m->chunk_count);
	for (size_t i = 0; i < m->chunk_count; i++) {
		ref_put(ret, m->chunks[i].ref);
		im_buf_put(ret, m->chunks[i].id, 32);
	}
	im_buf_put_u32(ret, (uint32_t)m->known_count);
	for (size_t i = 0; i < m->known_count; i++)
		put_known(ret, &m->known[i]);
	im_buf_put_u32(ret, (uint32_t)m->sqlite_count);
	for (size_t i = 0; i < m->sqlite_count; i++) {
		im_buf_put_u32(ret, (uint32_t)strlen(m->sqlite[i]));
		im_buf_put(ret, m->sqlite[i], strlen(m->sqlite[i]));
	}
	return ret->failed ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

/* A count of rows of at least row_bytes each that can really follow; else the reader fails. */
static size_t read_count(struct im_reader *r, size_t row_bytes)
{
	uint32_t n = im_read_u32(r);
	if (n > im_read_left(r) / row_bytes) {
		r->failed = true;
		return 0;
	}
	return n;
}

static bool read_refs(struct im_reader *r, struct files_memory *m)
{
	m->ref_count = read_count(r, REF_BYTES);
	m->refs = calloc(m->ref_count + 1, sizeof *m->refs);
	for (size_t i = 0; m->refs && i < m->ref_count; i++)
		m->refs[i] = ref_read(r);
	m->chunk_count = read_count(r, FILES_CHUNK_ROW_BYTES);
	m->chunks = calloc(m->chunk_count + 1, sizeof *m->chunks);
	for (size_t i = 0; m->chunks && i < m->chunk_count; i++) {
		m->chunks[i].ref = ref_read(r);
		im_read_copy(r, m->chunks[i].id, 32);
	}
	return m->refs && m->chunks && !r->failed;
}

static bool read_pieces(struct im_reader *r, struct files_memory *m, struct files_known *k, struct files_piece **at,
    const struct files_piece *end)
{
	k->piece_count = read_count(r, FILES_PIECE_BYTES);
	if (k->piece_count > (size_t)(end - *at))
		return false;
	k->pieces = *at;
	for (size_t i = 0; i < k->piece_count; i++, ++*at) {
		(*at)->file_offset = im_read_u64(r);
		(*at)->chunk = im_read_u32(r);
		(*at)->skip = im_read_u32(r);
		(*at)->len = im_read_u32(r);
		if ((*at)->chunk >= m->chunk_count)
			return false;
	}
	return true;
}

static bool read_known(struct im_reader *r, struct files_memory *m)
{
	m->known_count = read_count(r, KNOWN_MIN_BYTES);
	size_t cap = im_read_left(r) / FILES_PIECE_BYTES + 1;
	m->known = calloc(m->known_count + 1, sizeof *m->known);
	m->pieces = malloc(cap * sizeof *m->pieces);
	if (!m->known || !m->pieces)
		return false;
	struct files_piece *at = m->pieces;
	for (size_t i = 0; i < m->known_count; i++) {
		struct files_known *k = &m->known[i];
		im_read_copy(r, k->name, sizeof k->name);
		im_read_copy(r, k->key, sizeof k->key);
		k->size_bytes = im_read_u64(r);
		if (!read_pieces(r, m, k, &at, m->pieces + cap))
			return false;
		if (i && compare_known(k - 1, k) >= 0)
			return false;
	}
	return !r->failed;
}

static bool read_sqlite(struct im_reader *r, struct files_memory *m)
{
	size_t count = read_count(r, 4);
	m->sqlite = calloc(count + 1, sizeof *m->sqlite);
	for (size_t i = 0; m->sqlite && i < count; i++) {
		uint32_t len = im_read_u32(r);
		const uint8_t *text = im_read_view(r, len);
		if (!text || !(m->sqlite[i] = strndup((const char *)text, len)))
			return false;
		m->sqlite_count++;
	}
	return m->sqlite && !r->failed && !im_read_left(r);
}

int files_memory_decode(const void *data, size_t len, struct files_memory *ret, struct im_error *err)
{
	struct files_memory m = { 0 };
	struct im_reader r = im_reader_of(data, len);
	bool ok = im_read_u8(&r) == MEMORY_VERSION;
	im_read_copy(&r, m.digest, sizeof m.digest);
	m.counts.files = im_read_u64(&r);
	m.counts.dirs = im_read_u64(&r);
	m.counts.others = im_read_u64(&r);
	m.counts.bytes = im_read_u64(&r);
	if (!ok || !read_refs(&r, &m) || !read_known(&r, &m) || !read_sqlite(&r, &m)) {
		files_memory_clear(&m);
		return im_fail(err, IM_ECORRUPT, "what was remembered of a tree segment is malformed");
	}
	*ret = m;
	return 0;
}

void files_memory_clear(struct files_memory *m)
{
	for (size_t i = 0; i < m->sqlite_count; i++)
		free(m->sqlite[i]);
	free(m->sqlite);
	free(m->refs);
	free(m->chunks);
	free(m->known);
	free(m->pieces);
	*m = (struct files_memory){ 0 };
}
