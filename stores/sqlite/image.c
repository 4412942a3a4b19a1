/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images. The caller's thread reads; the workers hash, compare, compress and encrypt; the packer's
 * own thread writes. What a failure leaves: entries in packs that nothing refers to, and the old
 * memory, untouched.
 */
#include "stores/sqlite/image.h"

#include "base/cleanup.h"
#include "base/interrupt.h"
#include "base/workers.h"
#include "stores/sqlite/dict.h"
#include "stores/sqlite/leafwork.h"
#include "stores/sqlite/victims.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORKERS 8
#define DICT_FIRST_BYTES (16u << 20)
#define DICT_CHANGE_BYTES (2u << 20)
#define JOURNAL_ENTRY_BYTES (4u << 20)

struct image {
	const struct snapshot_request *request;
	struct leafwork_env env;
	struct remember_image old; /* without leaves, which are in `leaves` */
	bool has_old;
	uint32_t page_size, pages;
	struct remember_leaf *leaves;
	char *old_slots;
	uint32_t leaf_room, old_leaf_count;
	uint32_t *victims;
	uint8_t *keys; /* page key, chunk key */
	struct im_workers *workers;
	struct codec *codecs[MAX_WORKERS];
	struct codec *codec;  /* the caller's thread's */
	pthread_mutex_t mutex;
	uint8_t *free_buffers[2 * MAX_WORKERS];
	unsigned free_count;
	uint32_t *journal_packs;
	size_t journal_count;
	uint64_t read_bytes;
	bool dict_set, committed;
};

struct job {
	struct image *image;
	struct leafwork *leaf;
	uint32_t part;
	uint8_t *data, *present;
};

/* --- buffers and jobs --- */

static uint8_t *buffer_take(struct image *m)
{
	uint8_t *b = NULL;
	pthread_mutex_lock(&m->mutex);
	if (m->free_count)
		b = m->free_buffers[--m->free_count];
	pthread_mutex_unlock(&m->mutex);
	return b ? b : malloc(BLOCK_BYTES);
}

static void buffer_give(struct image *m, uint8_t *b)
{
	pthread_mutex_lock(&m->mutex);
	if (b && m->free_count < sizeof m->free_buffers / sizeof m->free_buffers[0]) {
		m->free_buffers[m->free_count++] = b;
		b = NULL;
	}
	pthread_mutex_unlock(&m->mutex);
	free(b);
}

static int run_job(void *arg, unsigned worker, bool cancelled, struct im_error *err)
{
	struct job *j = arg;
	struct image *m = j->image;
	bool skip = cancelled || atomic_load(&j->leaf->failed);
	int rc = skip ? 0 : leafwork_run(j->leaf, j->part, j->data, j->present, m->codecs[worker], err);
	int done = leafwork_done(j->leaf, 1, rc == 0 && !skip, m->codecs[worker], err);
	buffer_give(m, j->data);
	free(j->present);
	free(j);
	return rc ? rc : done;
}

/* Takes over data and present. */
static int submit(struct image *m, struct leafwork *leaf, uint32_t part, uint8_t *data, uint8_t *present, struct im_error *err)
{
	struct job *j = calloc(1, sizeof *j);
	if (!j) {
		buffer_give(m, data);
		free(present);
		leafwork_done(leaf, 1, false, m->codec, NULL);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	*j = (struct job){ m, leaf, part, data, present };
	return im_workers_submit(m->workers, j);
}

/* --- beginning --- */

static int reserve_leaves(struct image *m, uint32_t count, struct im_error *err)
{
	if (count <= m->leaf_room)
		return 0;
	struct remember_leaf *leaves = realloc(m->leaves, count * sizeof *leaves);
	if (leaves)
		m->leaves = m->env.leaves = leaves;
	char *slots = realloc(m->old_slots, count);
	if (slots)
		m->env.old_slots = m->old_slots = slots;
	if (!leaves || !slots)
		return im_fail(err, IM_ENOMEM, "out of memory");
	memset(leaves + m->leaf_room, 0, (count - m->leaf_room) * sizeof *leaves);
	memset(slots + m->leaf_room, 0, count - m->leaf_room);
	m->leaf_room = count;
	return 0;
}

/* What is remembered becomes the leaves' starting point. */
static int recall(struct image *m, struct im_error *err)
{
	struct im_error why = { 0 };
	const char *store = m->request->store->name;
	int rc = remember_image_load(m->request->state, store, &m->old, &why);
	bool usable = rc == 0 && m->old.page_size == m->page_size;
	if (rc && rc != IM_ENOTFOUND)
		return im_fail(err, rc, "%s", why.text);
	if (!usable) {
		remember_image_clear(&m->old);
		return state_delete(m->request->state, store, "", err);
	}
	m->has_old = true;
	m->old_leaf_count = m->old.leaf_count;
	rc = reserve_leaves(m, m->old.leaf_count, err);
	for (uint32_t i = 0; rc == 0 && i < m->old.leaf_count; i++) {
		m->old_slots[i] = m->old.leaves[i].slot;
		m->leaves[i] = m->old.leaves[i];
		m->old.leaves[i].uses = NULL;
	}
	if (rc || m->request->full)
		return rc;
	m->env.block.move_credit = m->old.changed_bytes / BLOCK_MOVE_SHARE;
	return victims_choose(m->request->state, m->leaves, m->old.leaf_count, 2 * m->env.block.move_credit, &m->victims,
	    &m->env.block.victim_count, err);
}

static int derive_keys(struct image *m, struct im_error *err)
{
	m->keys = crypto_secret_new(2 * CRYPTO_KEY_BYTES);
	if (!m->keys)
		return im_fail(err, IM_ENOMEM, "out of memory for keys");
	m->env.block.page_key = m->keys;
	m->env.block.chunk_key = m->keys + CRYPTO_KEY_BYTES;
	int rc = keyring_id_key(m->request->keyring, "imvault page v1", m->keys, err);
	return rc ? rc : keyring_id_key(m->request->keyring, "imvault chunk v1", m->keys + CRYPTO_KEY_BYTES, err);
}

static int start_workers(struct image *m, struct im_error *err)
{
	int level = m->request->config->compression_level;
	int rc = im_workers_new(0, 0, run_job, &m->workers, err);
	for (unsigned i = 0; rc == 0 && i < im_workers_count(m->workers); i++)
		rc = i < MAX_WORKERS ? codec_new(level, &m->codecs[i], err) : im_fail(err, IM_EFAIL, "too many workers");
	return rc ? rc : codec_new(level, &m->codec, err);
}

int image_new(const struct snapshot_request *request, uint32_t page_size, struct image **ret, struct im_error *err)
{
	struct image *m = calloc(1, sizeof *m);
	if (!m)
		return im_fail(err, IM_ENOMEM, "out of memory");
	pthread_mutex_init(&m->mutex, NULL);
	m->request = request;
	m->page_size = page_size;
	m->env.state = request->state;
	m->env.store = request->store->name;
	m->env.block.packer = request->packer;
	m->env.block.page_size = page_size;
	m->env.block.group_pages = block_group_pages(page_size);
	int rc = recall(m, err);
	m->env.block.victims = m->victims;
	if (rc == 0)
		rc = derive_keys(m, err);
	if (rc == 0)
		rc = start_workers(m, err);
	if (rc) {
		image_free(m);
		return rc;
	}
	*ret = m;
	return 0;
}

/* The memory this run wrote, or the one it replaced, goes away. */
static int drop_slots(struct image *m, bool drop_old, struct im_error *err)
{
	uint32_t count = remember_leaf_count(m->pages);
	int rc = 0;
	for (uint32_t i = 0; rc == 0 && i < m->leaf_room; i++) {
		char old = m->old_slots[i], now = drop_old && i >= count ? 0 : m->leaves[i].slot;
		char gone = old == now ? 0 : drop_old ? old : now;
		char extra = drop_old && now == 0 ? m->leaves[i].slot : 0; /* written before the image shrank */
		if (gone)
			rc = remember_pages_forget(m->request->state, m->request->store->name, i, gone, err);
		if (rc == 0 && extra && extra != gone)
			rc = remember_pages_forget(m->request->state, m->request->store->name, i, extra, err);
	}
	return rc;
}

void image_free(struct image *m)
{
	if (!m)
		return;
	im_workers_free(m->workers);
	if (m->dict_set)
		packer_set_dict(m->request->packer, NULL, 0, NULL);
	if (!m->committed && drop_slots(m, false, NULL))
		state_delete(m->request->state, m->request->store->name, "", NULL);
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		codec_free(m->codecs[i]);
	codec_free(m->codec);
	while (m->free_count)
		free(m->free_buffers[--m->free_count]);
	for (uint32_t i = 0; i < m->leaf_room; i++)
		free(m->leaves[i].uses);
	free(m->leaves);
	free(m->old_slots);
	free(m->victims);
	free(m->journal_packs);
	remember_image_clear(&m->old);
	crypto_secret_free(m->keys);
	pthread_mutex_destroy(&m->mutex);
	free(m);
}

void image_set_fast(struct image *m, uint64_t *fast, const struct fasthash_key *key)
{
	m->env.block.fast = fast;
	m->env.block.fast_key = *key;
}

/* --- all pages --- */

static int set_dict(struct image *m, const struct source *s, struct im_error *err)
{
	uint64_t bytes = (uint64_t)s->pages * s->page_size, expected = bytes;
	if (m->has_old && !m->request->full) {
		uint64_t growth = s->pages > m->old.pages ? (uint64_t)(s->pages - m->old.pages) * s->page_size : 0;
		uint64_t in_wal = s->table ? (uint64_t)s->table->count * s->page_size : 0;
		expected = m->old.changed_bytes > growth ? m->old.changed_bytes : growth;
		expected = expected > in_wal ? expected : in_wal;
	}
	if (bytes < DICT_FIRST_BYTES || expected < DICT_CHANGE_BYTES)
		return 0;
	auto_buf struct im_buf dict = { 0 };
	int rc = dict_train(s, &dict, err);
	if (rc || dict.len == 0)
		return rc;
	m->dict_set = true;
	return packer_set_dict(m->request->packer, dict.data, dict.len, err);
}

static int load_old(struct image *m, uint32_t leaf, struct remember_pages *ret, bool *ret_found, struct im_error *err)
{
	*ret_found = false;
	if (!m->leaves[leaf].slot)
		return 0;
	struct im_error why = { 0 };
	int rc = remember_pages_load(m->request->state, m->request->store->name, leaf, m->leaves[leaf].slot,
	    m->page_size, ret, &why);
	if (rc && rc != IM_ENOTFOUND)
		return im_fail(err, rc, "%s", why.text);
	*ret_found = rc == 0;
	return 0;
}

static uint32_t leaf_pages(uint32_t leaf, uint32_t pages)
{
	uint32_t left = pages - leaf * LEAFMAP_PAGES;
	return left < LEAFMAP_PAGES ? left : LEAFMAP_PAGES;
}

static int read_part(struct image *m, const struct source *s, struct leafwork *leaf, uint32_t part, uint8_t **ret, struct im_error *err)
{
	uint32_t first, count = leafwork_part(leaf, part, &first);
	int rc = im_interrupt_check(err);
	if (rc)
		return rc;
	uint8_t *data = buffer_take(m);
	if (!data)
		return im_fail(err, IM_ENOMEM, "out of memory");
	rc = source_read(s, leaf->index * LEAFMAP_PAGES + first, count, data, err);
	if (rc) {
		buffer_give(m, data);
		return rc;
	}
	m->read_bytes += (uint64_t)count * s->page_size;
	const struct store_events *events = m->request->events;
	if (events && events->progress)
		events->progress(events->context, m->request->store->name, m->read_bytes, (uint64_t)s->pages * s->page_size);
	*ret = data;
	return 0;
}

static int add_leaf(struct image *m, const struct source *s, uint32_t index, struct im_error *err)
{
	struct remember_pages old = { 0 };
	bool found = false;
	int rc = m->request->full ? 0 : load_old(m, index, &old, &found, err);
	struct leafwork *leaf;
	if (rc == 0)
		rc = leafwork_new(&m->env, index, leaf_pages(index, s->pages), found ? &old : NULL, &leaf, err);
	remember_pages_clear(&old);
	uint32_t parts = rc ? 0 : leaf->part_count;
	for (uint32_t part = 0; part < parts; part++) {
		uint8_t *data = NULL;
		rc = read_part(m, s, leaf, part, &data, err);
		if (rc) {
			leafwork_done(leaf, parts - part, false, m->codec, NULL);
			return rc;
		}
		rc = submit(m, leaf, part, data, NULL, err);
		if (rc) {
			if (part + 1 < parts)
				leafwork_done(leaf, parts - part - 1, false, m->codec, NULL);
			return rc;
		}
	}
	return rc;
}

/* The workers' first failure says more than the submitter's. */
static int settle(struct image *m, int rc, struct im_error *err)
{
	struct im_error why = { 0 };
	int failed = im_workers_wait(m->workers, &why);
	if (!failed)
		return rc;
	im_error_clear(err);
	return im_fail(err, failed, "%s", why.text);
}

int image_add(struct image *m, const struct source *s, struct im_error *err)
{
	uint32_t count = remember_leaf_count(s->pages);
	int rc = reserve_leaves(m, count, err);
	m->pages = s->pages;
	if (rc == 0)
		rc = set_dict(m, s, err);
	for (uint32_t i = 0; rc == 0 && i < count; i++)
		rc = add_leaf(m, s, i, err);
	return settle(m, rc, err);
}

/* --- corrections --- */

struct patch {
	const struct image_page *pages;
	size_t count, next;
};

/* Copies the patch's pages of one block; data and present stay NULL if there are none. */
static int fill_part(struct image *m, struct patch *p, uint32_t first, uint32_t count, uint8_t **ret_data, uint8_t **ret_present, struct im_error *err)
{
	uint8_t *data = buffer_take(m), *present = calloc(count, 1);
	if (!data || !present) {
		buffer_give(m, data);
		free(present);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	for (; p->next < p->count && p->pages[p->next].number < first + count; p->next++) {
		uint32_t i = p->pages[p->next].number - first;
		memcpy(data + (size_t)i * m->page_size, p->pages[p->next].content, m->page_size);
		present[i] = 1;
	}
	*ret_data = data;
	*ret_present = present;
	return 0;
}

static int patch_leaf(struct image *m, struct patch *p, uint32_t index, uint32_t pages, struct im_error *err)
{
	struct remember_pages old = { 0 };
	bool found;
	int rc = load_old(m, index, &old, &found, err);
	struct leafwork *leaf;
	if (rc == 0)
		rc = leafwork_new(&m->env, index, pages, found ? &old : NULL, &leaf, err);
	remember_pages_clear(&old);
	uint32_t parts = rc ? 0 : leaf->part_count;
	for (uint32_t part = 0; part < parts; part++) {
		uint32_t first, count = leafwork_part(leaf, part, &first);
		uint8_t *data = NULL, *present = NULL;
		rc = fill_part(m, p, index * LEAFMAP_PAGES + first, count, &data, &present, err);
		if (rc) {
			leafwork_done(leaf, parts - part, false, m->codec, NULL);
			return rc;
		}
		rc = submit(m, leaf, part, data, present, err);
		if (rc) {
			if (part + 1 < parts)
				leafwork_done(leaf, parts - part - 1, false, m->codec, NULL);
			return rc;
		}
	}
	return rc;
}

int image_patch(struct image *m, uint32_t pages, const struct image_page *changed, size_t count, struct im_error *err)
{
	struct patch p = { changed, count, 0 };
	uint32_t leaves = remember_leaf_count(pages);
	int rc = reserve_leaves(m, leaves, err);
	m->env.block.victim_count = 0;
	m->env.block.fast = NULL;
	for (uint32_t i = 0; rc == 0 && i < leaves; i++) {
		uint32_t now = leaf_pages(i, pages);
		uint32_t before = i < remember_leaf_count(m->pages) ? leaf_pages(i, m->pages) : 0;
		bool touched = p.next < p.count && p.pages[p.next].number < i * LEAFMAP_PAGES + now;
		if (touched || now != before)
			rc = patch_leaf(m, &p, i, now, err);
	}
	m->pages = pages;
	return settle(m, rc, err);
}

int image_add_journal(struct image *m, const uint8_t *data, size_t len, struct im_buf *ret, struct im_error *err)
{
	size_t entries = (len + JOURNAL_ENTRY_BYTES - 1) / JOURNAL_ENTRY_BYTES;
	m->journal_packs = calloc(entries ? entries : 1, sizeof *m->journal_packs);
	if (!m->journal_packs)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t at = 0; at < len; at += JOURNAL_ENTRY_BYTES) {
		size_t n = len - at < JOURNAL_ENTRY_BYTES ? len - at : JOURNAL_ENTRY_BYTES;
		struct im_ref ref;
		bool is_new;
		int rc = packer_put(m->request->packer, m->codec, ENTRY_AUX, NULL, data + at, n, &ref, &is_new, err);
		if (rc)
			return rc;
		ref_put(ret, ref);
		m->journal_packs[m->journal_count++] = ref.pack;
	}
	return ret->failed ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

/* --- the end --- */

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static int list_packs(struct image *m, struct snapshot_result *ret, struct im_error *err)
{
	uint32_t leaves = remember_leaf_count(m->pages);
	size_t count = m->journal_count, kept = 0;
	for (uint32_t i = 0; i < leaves; i++)
		count += m->leaves[i].use_count;
	uint32_t *packs = calloc(count ? count : 1, sizeof *packs);
	if (!packs)
		return im_fail(err, IM_ENOMEM, "out of memory");
	count = 0;
	for (uint32_t i = 0; i < leaves; i++)
		for (uint32_t u = 0; u < m->leaves[i].use_count; u++)
			packs[count++] = m->leaves[i].uses[u].pack;
	for (size_t i = 0; i < m->journal_count; i++)
		packs[count++] = m->journal_packs[i];
	qsort(packs, count, sizeof *packs, by_number);
	for (size_t i = 0; i < count; i++)
		if (i == 0 || packs[i] != packs[i - 1])
			packs[kept++] = packs[i];
	ret->packs = packs;
	ret->pack_count = kept;
	return 0;
}

static int describe_leaves(struct image *m, json_t *manifest, struct im_error *err)
{
	auto_buf struct im_buf refs = { 0 };
	uint8_t checksum[CRYPTO_PAGE_HASH_BYTES] = { 0 };
	char hex[2 * CRYPTO_PAGE_HASH_BYTES + 1];
	for (uint32_t i = 0; i < remember_leaf_count(m->pages); i++) {
		IM_CHECK(m->leaves[i].slot);
		ref_put(&refs, m->leaves[i].ref);
		for (unsigned k = 0; k < sizeof checksum; k++)
			checksum[k] ^= m->leaves[i].checksum[k];
	}
	auto_free char *text = refs.failed ? NULL : im_base64(refs.data, refs.len);
	if (!text || json_object_set_new(manifest, "leaves", json_string(text)) ||
	    json_object_set_new(manifest, "checksum", json_string(im_hex(hex, checksum, sizeof checksum))) ||
	    json_object_set_new(manifest, "leaf_pages", json_integer(LEAFMAP_PAGES)) ||
	    json_object_set_new(manifest, "page_size", json_integer(m->page_size)) ||
	    json_object_set_new(manifest, "pages", json_integer(m->pages)) ||
	    json_object_set_new(manifest, "file_bytes", json_integer((json_int_t)m->pages * m->page_size)))
		return im_fail(err, IM_ENOMEM, "out of memory");
	return 0;
}

int image_describe(struct image *m, json_t *manifest, struct snapshot_result *ret, struct im_error *err)
{
	int rc = describe_leaves(m, manifest, err);
	if (rc == 0)
		rc = list_packs(m, ret, err);
	ret->bytes = (uint64_t)m->pages * m->page_size;
	ret->bytes_read = m->read_bytes;
	ret->bytes_changed = atomic_load(&m->env.block.changed_bytes);
	return rc;
}

int image_commit(struct image *m, const uint8_t fingerprint[CRYPTO_HASH_BYTES], bool racy, const json_t *manifest, struct im_error *err)
{
	struct remember_image now = { .page_size = m->page_size, .pages = m->pages, .racy = racy,
		.changed_bytes = atomic_load(&m->env.block.changed_bytes), .leaves = m->leaves,
		.leaf_count = remember_leaf_count(m->pages) };
	memcpy(now.fingerprint, fingerprint, sizeof now.fingerprint);
	auto_free char *text = json_dumps(manifest, JSON_COMPACT);
	if (!text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	now.manifest = text;
	int rc = remember_image_save(m->request->state, m->request->store->name, &now, err);
	if (rc == 0)
		rc = drop_slots(m, true, err);
	m->committed = rc == 0;
	return rc;
}
