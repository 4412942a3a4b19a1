/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local memory of a database. Its form is nobody's business but this file's: what does not
 * decode is forgotten, and the next backup reads everything.
 */
#include "stores/sqlite/remember.h"

#include "base/clock.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

#define IMAGE_MAGIC "IMSQMEM1"
/* How soon after a write another one may leave the same times: file systems that stamp finer than a millisecond do it
 * at every tick of the kernel; others may count in seconds. */
#define RACY_FINE_NS INT64_C(100000000)
#define RACY_COARSE_NS INT64_C(2000000000)

uint32_t remember_leaf_count(uint32_t pages)
{
	return pages / LEAFMAP_PAGES + (pages % LEAFMAP_PAGES != 0);
}

static int64_t ns_of(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t settled_at(struct timespec t)
{
	return ns_of(t) + (t.tv_nsec % 1000000 ? RACY_FINE_NS : RACY_COARSE_NS);
}

/* ret_settled: when the times will tell any later change; only ever raised. */
static bool put_stat(struct im_buf *b, int fd, int64_t *ret_settled)
{
	struct stat st;
	if (fd < 0 || fstat(fd, &st) || st.st_nlink == 0)
		return false;
	im_buf_put_u64(b, (uint64_t)st.st_dev);
	im_buf_put_u64(b, (uint64_t)st.st_ino);
	im_buf_put_u64(b, (uint64_t)st.st_size);
	im_buf_put_u64(b, (uint64_t)ns_of(st.st_mtim));
	im_buf_put_u64(b, (uint64_t)ns_of(st.st_ctim));
	int64_t modified = settled_at(st.st_mtim), changed = settled_at(st.st_ctim);
	if (modified > *ret_settled)
		*ret_settled = modified;
	if (changed > *ret_settled)
		*ret_settled = changed;
	return true;
}

static bool has_bytes(int fd)
{
	struct stat st;
	return fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0;
}

bool remember_fingerprint(const struct pin_files *f, const struct shm_head *shm, const struct im_config_store *config, uint8_t ret[CRYPTO_HASH_BYTES], bool *ret_racy)
{
	auto_buf struct im_buf b = { 0 };
	uint8_t header[DBHEADER_BYTES] = { 0 };
	int64_t now_ns = im_now_ms() * 1000000, settled = 0;
	im_buf_put(&b, f->path, strlen(f->path) + 1);
	if (!put_stat(&b, f->db, &settled) || im_pread_full(f->db, header, sizeof header, 0, NULL, f->path) < 0)
		return false;
	im_buf_put(&b, header, sizeof header);
	/* A -wal counts whatever the index says: after a power cut the index may be older than it. */
	bool has_wal = has_bytes(f->wal);
	im_buf_put_u8(&b, has_wal);
	if (has_wal && !put_stat(&b, f->wal, &settled))
		return false;
	bool has_frames = has_wal && shm && shm->max_frame;
	im_buf_put_u8(&b, has_frames);
	if (has_frames)
		im_buf_put(&b, shm->raw, SHM_HEADER_BYTES);
	for (size_t i = 0; i < config->pair_count; i++) {
		im_buf_put(&b, config->pairs[i].key, strlen(config->pairs[i].key) + 1);
		im_buf_put(&b, config->pairs[i].value, strlen(config->pairs[i].value) + 1);
	}
	if (b.failed)
		return false;
	crypto_hash(ret, b.data, b.len);
	/* Salts and a running checksum name a commit for certain; times only once they are old. */
	*ret_racy = !has_frames && settled > now_ns;
	return true;
}

void remember_image_clear(struct remember_image *image)
{
	for (uint32_t i = 0; image->leaves && i < image->leaf_count; i++)
		free(image->leaves[i].uses);
	free(image->leaves);
	free(image->manifest);
	*image = (struct remember_image){ 0 };
}

static bool leaf_read(struct im_reader *r, struct remember_leaf *leaf)
{
	leaf->ref = ref_read(r);
	leaf->slot = (char)im_read_u8(r);
	im_read_copy(r, leaf->checksum, sizeof leaf->checksum);
	uint32_t count = im_read_u32(r);
	if (r->failed || (leaf->slot != 'a' && leaf->slot != 'b') || count > im_read_left(r) / 8)
		return false;
	leaf->uses = calloc(count ? count : 1, sizeof *leaf->uses);
	if (!leaf->uses)
		return false;
	leaf->use_count = count;
	for (uint32_t i = 0; i < count; i++) {
		leaf->uses[i].pack = im_read_u32(r);
		leaf->uses[i].bytes = im_read_u32(r);
	}
	return !r->failed;
}

static bool image_read(struct im_reader *r, struct remember_image *image)
{
	const uint8_t *magic = im_read_view(r, 8);
	if (!magic || memcmp(magic, IMAGE_MAGIC, 8) != 0)
		return false;
	image->page_size = im_read_u32(r);
	image->pages = im_read_u32(r);
	image->racy = im_read_u8(r);
	im_read_copy(r, image->fingerprint, sizeof image->fingerprint);
	image->changed_bytes = im_read_u64(r);
	uint32_t text_len = im_read_u32(r);
	const uint8_t *text = im_read_view(r, text_len);
	image->manifest = text ? strndup((const char *)text, text_len) : NULL;
	uint32_t count = im_read_u32(r);
	if (!image->manifest || r->failed || !dbheader_page_size_valid(image->page_size) ||
	    count != remember_leaf_count(image->pages))
		return false;
	image->leaves = calloc(count ? count : 1, sizeof *image->leaves);
	if (!image->leaves)
		return false;
	image->leaf_count = count;
	for (uint32_t i = 0; i < count; i++)
		if (!leaf_read(r, &image->leaves[i]))
			return false;
	return !r->failed && im_read_left(r) == 0;
}

int remember_image_load(struct state *s, const char *store, struct remember_image *ret, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	int rc = state_get(s, store, "image", &b, err);
	if (rc)
		return rc;
	struct im_reader r = im_reader_of(b.data, b.len);
	struct remember_image image = { 0 };
	if (!image_read(&r, &image)) {
		remember_image_clear(&image);
		return im_fail(err, IM_ENOTFOUND, "what was remembered of store %s cannot be used", store);
	}
	*ret = image;
	return 0;
}

int remember_image_save(struct state *s, const char *store, const struct remember_image *image, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	im_buf_put(&b, IMAGE_MAGIC, 8);
	im_buf_put_u32(&b, image->page_size);
	im_buf_put_u32(&b, image->pages);
	im_buf_put_u8(&b, image->racy);
	im_buf_put(&b, image->fingerprint, sizeof image->fingerprint);
	im_buf_put_u64(&b, image->changed_bytes);
	im_buf_put_u32(&b, (uint32_t)strlen(image->manifest));
	im_buf_put(&b, image->manifest, strlen(image->manifest));
	im_buf_put_u32(&b, image->leaf_count);
	for (uint32_t i = 0; i < image->leaf_count; i++) {
		const struct remember_leaf *leaf = &image->leaves[i];
		ref_put(&b, leaf->ref);
		im_buf_put_u8(&b, (uint8_t)leaf->slot);
		im_buf_put(&b, leaf->checksum, sizeof leaf->checksum);
		im_buf_put_u32(&b, leaf->use_count);
		for (uint32_t u = 0; u < leaf->use_count; u++) {
			im_buf_put_u32(&b, leaf->uses[u].pack);
			im_buf_put_u32(&b, leaf->uses[u].bytes);
		}
	}
	return b.failed ? im_fail(err, IM_ENOMEM, "out of memory") : state_put(s, store, "image", b.data, b.len, err);
}

static const char *leaf_key(char ret[32], uint32_t leaf, char slot)
{
	static const char digits[] = "0123456789abcdef";
	memcpy(ret, "leaf/00000000/?", 16);
	for (int i = 0; i < 8; i++)
		ret[12 - i] = digits[leaf >> (4 * i) & 15];
	ret[14] = slot;
	return ret;
}

void remember_pages_clear(struct remember_pages *p)
{
	free(p->hashes);
	leafmap_clear(&p->runs);
	*p = (struct remember_pages){ 0 };
}

int remember_pages_load(struct state *s, const char *store, uint32_t leaf, char slot, uint32_t page_size, struct remember_pages *ret, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	char key[32];
	int rc = state_get(s, store, leaf_key(key, leaf, slot), &b, err);
	if (rc)
		return rc;
	struct im_reader r = im_reader_of(b.data, b.len);
	struct remember_pages p = { .pages = im_read_u32(&r) };
	size_t hash_bytes = (size_t)p.pages * CRYPTO_PAGE_HASH_BYTES;
	const uint8_t *hashes = p.pages <= LEAFMAP_PAGES ? im_read_view(&r, hash_bytes) : NULL;
	if (!hashes)
		return im_fail(err, IM_ENOTFOUND, "what was remembered of a leaf of store %s cannot be used", store);
	rc = leafmap_decode(r.at, im_read_left(&r), page_size, p.pages, &p.runs, NULL);
	if (rc)
		return im_fail(err, IM_ENOTFOUND, "what was remembered of a leaf of store %s cannot be used", store);
	p.hashes = malloc(hash_bytes);
	if (!p.hashes) {
		remember_pages_clear(&p);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	memcpy(p.hashes, hashes, hash_bytes);
	*ret = p;
	return 0;
}

int remember_pages_save(struct state *s, const char *store, uint32_t leaf, char slot, const struct remember_pages *p, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	char key[32];
	im_buf_put_u32(&b, p->pages);
	im_buf_put(&b, p->hashes, (size_t)p->pages * CRYPTO_PAGE_HASH_BYTES);
	leafmap_encode(&p->runs, &b);
	return b.failed ? im_fail(err, IM_ENOMEM, "out of memory") :
	                  state_put(s, store, leaf_key(key, leaf, slot), b.data, b.len, err);
}

int remember_pages_forget(struct state *s, const char *store, uint32_t leaf, char slot, struct im_error *err)
{
	char key[32];
	return state_delete(s, store, leaf_key(key, leaf, slot), err);
}
