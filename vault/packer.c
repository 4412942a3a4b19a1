/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packer. A put reserves a slot in the current pack, encodes in its own thread, then appends
 * to the pack's buffer; full buffers go to the writer thread, which hashes and writes them in
 * order and commits the pack when its last entry is in. What a crash leaves: temporaries that the
 * next sweep removes, and durable packs that nothing refers to yet.
 */
#include "vault/packer.h"

#include "base/cleanup.h"
#include "vault/fetch.h"
#include "vault/idmap.h"
#include "vault/index.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PACK_TARGET_BYTES (32u << 20)
#define BLOCK_BYTES (1u << 20)
#define QUEUE_LIMIT_BYTES (24u << 20)
#define FRAGMENT_ENTRIES (1u << 16)

struct open_pack {
	struct storage_put *put;
	struct pack_key key;
	const struct pack_dict *dict;
	struct pack_info info;
	struct crypto_hasher hasher;
	struct im_buf pending;
	struct pack_entry *entries;
	size_t entry_count, entry_cap;
	uint64_t bytes;
	uint32_t next_slot;
	unsigned encoding; /* reserved, not appended yet */
	bool closed;
};

struct block { /* a unit of work for the writer; data NULL: finish the pack */
	struct block *next;
	struct open_pack *pack;
	uint8_t *data;
	size_t len;
};

struct packer {
	struct storage *storage;
	const struct keyring *keyring;
	struct state *state;
	char *node;
	int level;

	pthread_mutex_t mutex;
	pthread_cond_t work, progress;
	pthread_t writer;
	bool writer_started, stop;
	struct im_error error;

	struct codec *codec; /* for dictionaries, under the mutex */
	struct pack_dict **dicts;
	size_t dict_count;
	uint8_t *dict_bytes;
	size_t dict_len;
	const struct pack_dict *dict;

	struct open_pack *current;
	unsigned open_packs;
	struct block *head, **tail;
	uint64_t queued_bytes;
	struct idmap pending_ids;
	struct packer_stats stats;

	/* Of durable packs, for the next index fragment; the writer's own until finish. */
	struct pack_info *packs;
	struct pack_entry *indexed;
	size_t pack_count, pack_cap, indexed_count, indexed_cap;
};

/* Makes room for one more element. */
static bool room(void **array, size_t *cap, size_t count, size_t size)
{
	if (count < *cap)
		return true;
	size_t wanted = *cap ? 2 * *cap : 64;
	void *p = realloc(*array, wanted * size);
	if (!p)
		return false;
	*array = p;
	*cap = wanted;
	return true;
}

static void open_pack_free(struct packer *p, struct open_pack *o)
{
	if (o->put)
		p->storage->ops->put_abandon(o->put);
	crypto_wipe(&o->key, sizeof o->key);
	im_buf_free(&o->pending);
	free(o->entries);
	free(o);
}

static void fail_locked(struct packer *p, const struct im_error *err)
{
	if (!p->error.code)
		p->error = *err;
	pthread_cond_broadcast(&p->progress);
}

static int enqueue_locked(struct packer *p, struct open_pack *o, uint8_t *data, size_t len, struct im_error *err)
{
	struct block *b = calloc(1, sizeof *b);
	if (!b) {
		free(data);
		return im_fail(err, IM_ENOMEM, "out of memory for a pack");
	}
	*b = (struct block){ .pack = o, .data = data, .len = len };
	*p->tail = b;
	p->tail = &b->next;
	p->queued_bytes += len;
	pthread_cond_signal(&p->work);
	return 0;
}

static int flush_pending_locked(struct packer *p, struct open_pack *o, struct im_error *err)
{
	if (o->pending.failed)
		return im_fail(err, IM_ENOMEM, "out of memory for a pack");
	if (!o->pending.len)
		return 0;
	uint8_t *data = o->pending.data;
	size_t len = o->pending.len;
	o->pending = (struct im_buf){ 0 };
	return enqueue_locked(p, o, data, len, err);
}

/* No more entries for this pack; the last encoder (or this call) hands it to the writer. */
static int close_pack_locked(struct packer *p, struct open_pack *o, struct im_error *err)
{
	o->closed = true;
	if (p->current == o)
		p->current = NULL;
	if (o->encoding)
		return 0;
	int rc = flush_pending_locked(p, o, err);
	return rc ? rc : enqueue_locked(p, o, NULL, 0, err);
}

static int add_entry(struct open_pack *o, const struct pack_entry *entry, struct im_error *err)
{
	if (!room((void **)&o->entries, &o->entry_cap, o->entry_count, sizeof *o->entries))
		return im_fail(err, IM_ENOMEM, "out of memory for a pack's listing");
	o->entries[o->entry_count++] = *entry;
	return 0;
}

static int write_dict_entry(struct packer *p, struct open_pack *o, struct im_error *err)
{
	auto_free uint8_t *sealed = p->dict ? malloc(codec_bound(p->dict_len)) : NULL;
	size_t sealed_len = 0;
	int rc = 0;
	if (p->dict && !sealed)
		return im_fail(err, IM_ENOMEM, "out of memory for a dictionary");
	if (p->dict)
		rc = entry_encode(p->codec, &o->key, NULL, ENTRY_DICT, 0, p->dict_bytes, p->dict_len, sealed, &sealed_len, err);
	if (rc == 0)
		rc = pack_header_encode(p->keyring, &o->key, (uint32_t)sealed_len, (uint32_t)(p->dict ? p->dict_len : 0), &o->pending, err);
	if (rc || !p->dict)
		return rc;
	struct pack_entry entry = { .type = ENTRY_DICT,
		.ref = { o->info.number, (uint32_t)o->pending.len, (uint32_t)sealed_len, 0, (uint32_t)p->dict_len } };
	im_buf_put(&o->pending, sealed, sealed_len);
	return add_entry(o, &entry, err);
}

static int open_pack_locked(struct packer *p, struct im_error *err)
{
	struct open_pack *o = calloc(1, sizeof *o);
	if (!o)
		return im_fail(err, IM_ENOMEM, "out of memory for a pack");
	pack_key_new(keyring_vault_id(p->keyring), &o->key);
	memcpy(o->info.commitment, o->key.commitment, 32);
	o->dict = p->dict;
	o->next_slot = 1;
	crypto_hasher_begin(&o->hasher);
	int rc = state_pack_number(p->state, &o->info.number, err);
	if (rc == 0)
		rc = write_dict_entry(p, o, err);
	if (rc == 0)
		rc = p->storage->ops->put_open(p->storage, &o->put, err);
	if (rc) {
		open_pack_free(p, o);
		return rc;
	}
	o->bytes = o->pending.len;
	p->current = o;
	p->open_packs++;
	return 0;
}

static int register_pack(struct packer *p, struct open_pack *o, struct im_error *err)
{
	int rc = state_pack_add(p->state, &o->info, err);
	if (rc == 0 && !room((void **)&p->packs, &p->pack_cap, p->pack_count, sizeof *p->packs))
		rc = im_fail(err, IM_ENOMEM, "out of memory for the index");
	for (size_t i = 0; i < o->entry_count && rc == 0; i++) {
		struct pack_entry *e = &o->entries[i];
		if (!e->has_id)
			continue;
		rc = state_id_add(p->state, e->id, &e->ref, err);
		if (rc == 0 && !room((void **)&p->indexed, &p->indexed_cap, p->indexed_count, sizeof *p->indexed))
			rc = im_fail(err, IM_ENOMEM, "out of memory for the index");
		if (rc)
			break;
		p->indexed[p->indexed_count] = *e;
		p->indexed[p->indexed_count++].ref.pack = (uint32_t)p->pack_count;
		pthread_mutex_lock(&p->mutex);
		idmap_remove(&p->pending_ids, e->id);
		pthread_mutex_unlock(&p->mutex);
	}
	if (rc == 0)
		p->packs[p->pack_count++] = o->info;
	return rc;
}

static int write_fragment(struct packer *p, struct im_error *err)
{
	if (!p->indexed_count)
		return 0;
	int rc = index_write(p->storage, p->keyring, p->node, p->packs, p->pack_count, p->indexed, p->indexed_count, err);
	p->indexed_count = 0;
	p->pack_count = 0;
	return rc ? rc : state_checkpoint(p->state, err);
}

static int write_bytes(struct packer *p, struct open_pack *o, const void *data, size_t len, struct im_error *err)
{
	crypto_hasher_add(&o->hasher, data, len);
	o->info.size_bytes += len;
	return p->storage->ops->put_write(o->put, data, len, err);
}

/* The pack becomes durable under the name of its hash, and known. */
static int commit_pack(struct packer *p, struct open_pack *o, struct im_error *err)
{
	auto_buf struct im_buf trailer = { 0 };
	int rc = pack_trailer_encode(p->keyring, &o->key, o->entries, o->entry_count, o->info.size_bytes, &trailer, err);
	if (rc == 0)
		rc = write_bytes(p, o, trailer.data, trailer.len, err);
	if (rc)
		return rc;
	crypto_hasher_end(&o->hasher, o->info.name);
	char object[80];
	rc = p->storage->ops->put_commit(TAKE_PTR(o->put), fetch_pack_object(object, o->info.name), err);
	if (rc == 0)
		rc = register_pack(p, o, err);
	if (rc == 0 && p->indexed_count >= FRAGMENT_ENTRIES)
		rc = write_fragment(p, err);
	pthread_mutex_lock(&p->mutex);
	p->stats.packs++;
	p->stats.stored_bytes += o->info.size_bytes;
	p->stats.entries += o->entry_count;
	pthread_mutex_unlock(&p->mutex);
	return rc;
}

static void handle_block(struct packer *p, struct block *b)
{
	struct im_error err = { 0 };
	pthread_mutex_lock(&p->mutex);
	bool failed = p->error.code != 0;
	pthread_mutex_unlock(&p->mutex);
	int rc = 0;
	if (!failed)
		rc = b->data ? write_bytes(p, b->pack, b->data, b->len, &err) : commit_pack(p, b->pack, &err);
	pthread_mutex_lock(&p->mutex);
	if (rc) {
		im_fail(&err, rc, "a pack could not be written");
		fail_locked(p, &err);
	}
	if (!b->data) {
		open_pack_free(p, b->pack);
		p->open_packs--;
	}
	p->queued_bytes -= b->len;
	pthread_cond_broadcast(&p->progress);
	pthread_mutex_unlock(&p->mutex);
	free(b->data);
	free(b);
}

static void *writer_main(void *arg)
{
	struct packer *p = arg;
	for (;;) {
		pthread_mutex_lock(&p->mutex);
		while (!p->head && !p->stop)
			pthread_cond_wait(&p->work, &p->mutex);
		struct block *b = p->head;
		if (b && !(p->head = b->next))
			p->tail = &p->head;
		pthread_mutex_unlock(&p->mutex);
		if (!b)
			return NULL;
		handle_block(p, b);
	}
}

int packer_new(struct storage *s, const struct keyring *k, struct state *st, const char *node, int level, struct packer **ret, struct im_error *err)
{
	struct packer *p = calloc(1, sizeof *p);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory");
	p->storage = s;
	p->keyring = k;
	p->state = st;
	p->level = level;
	p->tail = &p->head;
	pthread_mutex_init(&p->mutex, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_cond_init(&p->progress, NULL);
	p->node = strdup(node);
	int rc = p->node ? codec_new(level, &p->codec, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0) {
		int e = pthread_create(&p->writer, NULL, writer_main, p);
		p->writer_started = e == 0;
		if (e)
			rc = im_fail_errno(err, IM_EFAIL, e, "cannot start the pack writer");
	}
	if (rc) {
		packer_free(p);
		return rc;
	}
	*ret = p;
	return 0;
}

void packer_free(struct packer *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->mutex);
	if (!p->error.code)
		im_fail(&p->error, IM_EFAIL, "the packer was stopped");
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->mutex);
	if (p->writer_started)
		pthread_join(p->writer, NULL);
	if (p->current)
		open_pack_free(p, p->current);
	for (size_t i = 0; i < p->dict_count; i++)
		pack_dict_free(p->dicts[i]);
	free(p->dicts);
	free(p->dict_bytes);
	codec_free(p->codec);
	idmap_clear(&p->pending_ids);
	free(p->packs);
	free(p->indexed);
	free(p->node);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->progress);
	pthread_mutex_destroy(&p->mutex);
	free(p);
}

int packer_set_dict(struct packer *p, const void *dict, size_t len, struct im_error *err)
{
	struct pack_dict *digested = NULL;
	uint8_t *copy = NULL;
	struct pack_dict **dicts = realloc(p->dicts, (p->dict_count + 1) * sizeof *dicts);
	if (!dicts)
		return im_fail(err, IM_ENOMEM, "out of memory for a dictionary");
	p->dicts = dicts;
	if (len) {
		copy = malloc(len);
		int rc = copy ? pack_dict_new(dict, len, p->level, &digested, err) : im_fail(err, IM_ENOMEM, "out of memory for a dictionary");
		if (rc) {
			free(copy);
			return rc;
		}
		memcpy(copy, dict, len);
		p->dicts[p->dict_count++] = digested;
	}
	pthread_mutex_lock(&p->mutex);
	int rc = p->current && p->dict != digested ? close_pack_locked(p, p->current, err) : 0;
	free(p->dict_bytes);
	p->dict_bytes = copy;
	p->dict_len = len;
	p->dict = digested;
	pthread_mutex_unlock(&p->mutex);
	return rc;
}

/* Finds an id in this run or in durable packs. */
static bool find_known(struct packer *p, const uint8_t id[32], size_t len, struct im_ref *ret)
{
	pthread_mutex_lock(&p->mutex);
	const struct im_ref *pending = idmap_find(&p->pending_ids, id);
	if (pending)
		*ret = *pending;
	pthread_mutex_unlock(&p->mutex);
	bool found = pending || state_id_find(p->state, id, ret, NULL) == 0;
	if (!found || ret->plain != len)
		return false;
	pthread_mutex_lock(&p->mutex);
	p->stats.deduplicated_bytes += len;
	pthread_mutex_unlock(&p->mutex);
	return true;
}

static int reserve_slot(struct packer *p, struct open_pack **ret_pack, uint32_t *ret_slot, struct im_error *err)
{
	pthread_mutex_lock(&p->mutex);
	while (p->queued_bytes > QUEUE_LIMIT_BYTES && !p->error.code)
		pthread_cond_wait(&p->progress, &p->mutex);
	int rc = p->error.code ? im_fail(err, p->error.code, "%s", p->error.text) : 0;
	if (rc == 0 && !p->current)
		rc = open_pack_locked(p, err);
	if (rc == 0) {
		*ret_pack = p->current;
		*ret_slot = p->current->next_slot++;
		p->current->encoding++;
	}
	pthread_mutex_unlock(&p->mutex);
	return rc;
}

static int append_locked(struct packer *p, struct open_pack *o, struct pack_entry *entry, const uint8_t *sealed, size_t len, struct im_error *err)
{
	entry->ref.offset = (uint32_t)o->bytes;
	im_buf_put(&o->pending, sealed, len);
	o->bytes += len;
	int rc = add_entry(o, entry, err);
	if (rc == 0 && entry->has_id)
		rc = idmap_add(&p->pending_ids, entry->id, entry->ref, err);
	if (rc == 0 && o->pending.len >= BLOCK_BYTES)
		rc = flush_pending_locked(p, o, err);
	return rc;
}

int packer_put(struct packer *p, struct codec *c, enum entry_type type, const uint8_t id[32], const void *plain, size_t len, struct im_ref *ret, bool *ret_new, struct im_error *err)
{
	if (id && find_known(p, id, len, ret)) {
		if (ret_new)
			*ret_new = false;
		return 0;
	}
	struct open_pack *o = NULL;
	struct pack_entry entry = { .type = (uint8_t)type, .has_id = id != NULL };
	auto_free uint8_t *sealed = malloc(codec_bound(len));
	if (!sealed)
		return im_fail(err, IM_ENOMEM, "out of memory for %zu bytes", len);
	int rc = reserve_slot(p, &o, &entry.ref.slot, err);
	if (rc)
		return rc;
	size_t sealed_len = 0;
	rc = entry_encode(c, &o->key, o->dict, type, entry.ref.slot, plain, len, sealed, &sealed_len, err);
	entry.ref.pack = o->info.number;
	entry.ref.stored = (uint32_t)sealed_len;
	entry.ref.plain = (uint32_t)len;
	if (id)
		memcpy(entry.id, id, 32);

	pthread_mutex_lock(&p->mutex);
	if (rc == 0)
		rc = append_locked(p, o, &entry, sealed, sealed_len, err);
	o->encoding--;
	if (o->closed || o->bytes >= PACK_TARGET_BYTES) {
		int rc_close = close_pack_locked(p, o, err);
		rc = rc ? rc : rc_close;
	}
	if (rc && err)
		fail_locked(p, err);
	pthread_mutex_unlock(&p->mutex);
	if (rc)
		return rc;
	*ret = entry.ref;
	if (ret_new)
		*ret_new = true;
	return 0;
}

int packer_finish(struct packer *p, struct im_error *err)
{
	pthread_mutex_lock(&p->mutex);
	int rc = p->current ? close_pack_locked(p, p->current, err) : 0;
	while (rc == 0 && p->open_packs && !p->error.code)
		pthread_cond_wait(&p->progress, &p->mutex);
	if (p->error.code)
		rc = im_fail(err, p->error.code, "%s", p->error.text);
	pthread_mutex_unlock(&p->mutex);
	if (rc == 0)
		rc = write_fragment(p, err);
	if (rc == 0)
		p->pack_count = 0;
	return rc ? rc : state_checkpoint(p->state, err);
}

void packer_get_stats(struct packer *p, struct packer_stats *ret)
{
	pthread_mutex_lock(&p->mutex);
	*ret = p->stats;
	pthread_mutex_unlock(&p->mutex);
}
