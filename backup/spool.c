/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool on disk: "head", and below "spool/" objects under SEQUENCE-EPOCH-LEAF, with "tmp-" in
 * front until the head knows them. Everything is reached through two folder descriptors.
 */
#include "backup/spool_internal.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "vault/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void spool_item_clear(struct spool_item *i)
{
	free(i->name);
	free(i->object);
	free(i->position);
	*i = (struct spool_item){ 0 };
}

void spool_items_clear(struct spool_items *l)
{
	for (size_t i = 0; i < l->count; i++)
		spool_item_clear(&l->at[i]);
	free(l->at);
	*l = (struct spool_items){ 0 };
}

int spool_items_reserve(struct spool_items *l, size_t more, struct im_error *err)
{
	size_t room = l->room ? l->room : 16;
	while (room < l->count + more)
		room *= 2;
	struct spool_item *grown = room == l->room ? l->at : reallocarray(l->at, room, sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	l->at = grown;
	l->room = room;
	return 0;
}

/* --- names --- */

static char *queue_name(uint64_t sequence, const char *object)
{
	const char *leaf = strrchr(object, '/'), *shard = leaf ? memrchr(object, '/', (size_t)(leaf - object)) : NULL;
	if (!shard || shard - object < LOG_EPOCH_CHARS)
		return NULL;
	return im_format("%016" PRIx64 "-%.*s-%s", sequence, LOG_EPOCH_CHARS, shard - LOG_EPOCH_CHARS, leaf + 1);
}

char *spool_temporary_name(const char *name)
{
	return im_format(TEMPORARY "%s", name);
}

/* --- files --- */

static int sync_folder(int fd, struct im_error *err)
{
	return fsync(fd) ? im_fail_errno(err, IM_EIO, errno, "cannot make the spool's folder durable") : 0;
}

static int write_file(int folder, const char *name, const void *data, size_t len, bool sync, struct im_error *err)
{
	auto_close int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot create %s in the spool", name);
	int rc = im_write_full(fd, data, len, err, "the spool");
	if (rc == 0 && sync && fdatasync(fd))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot make %s durable in the spool", name);
	if (close(TAKE_FD(fd)) && rc == 0)
		rc = im_fail_errno(err, IM_EIO, errno, "cannot write %s in the spool", name);
	if (rc)
		unlinkat(folder, name, 0);
	return rc;
}

static int write_head(struct spool *s, const struct spool_head *head, const json_t *parts, bool sync, struct im_error *err)
{
	pthread_mutex_lock(&s->lock);
	json_t *j = spool_head_encode(head, s->sequence, parts);
	pthread_mutex_unlock(&s->lock);
	auto_free char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	if (!text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = write_file(s->folder, HEAD_TEMPORARY, text, strlen(text), sync, err);
	if (rc == 0 && renameat(s->folder, HEAD_TEMPORARY, s->folder, HEAD))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot rename the log's head");
	return rc || !sync ? rc : sync_folder(s->folder, err);
}

int spool_write_head(struct spool *s, const struct spool_head *head, bool sync, struct im_error *err)
{
	return write_head(s, head, s->newest, sync, err);
}

/* --- adding --- */

static int new_item(struct spool *s, const char *object, size_t len, struct spool_item *ret, struct im_error *err)
{
	pthread_mutex_lock(&s->lock);
	uint64_t sequence = s->sequence++; /* one that is not used does no harm */
	pthread_mutex_unlock(&s->lock);
	struct spool_item i = { .name = queue_name(sequence, object), .object = strdup(object), .bytes = len };
	if (!i.name || !i.object) {
		spool_item_clear(&i);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	*ret = i;
	return 0;
}

/* Under its temporary name. Always durable before a head names it: a power cut must not leave a head that promises what is not there. */
static int write_item(struct spool *s, const char *object, const void *data, size_t len, struct spool_item *ret, struct im_error *err)
{
	struct spool_item item = { 0 };
	int rc = new_item(s, object, len, &item, err);
	if (rc)
		return rc;
	auto_free char *temporary = spool_temporary_name(item.name);
	rc = temporary ? write_file(s->queue, temporary, data, len, true, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc) {
		spool_item_clear(&item);
		return rc;
	}
	item.unnamed = true;
	*ret = item;
	return 0;
}

int spool_part(struct spool *s, const char *object, const void *data, size_t len, struct im_error *err)
{
	struct spool_item item;
	int rc = spool_items_reserve(&s->parts, 1, err);
	if (rc == 0)
		rc = write_item(s, object, data, len, &item, err);
	if (rc)
		return rc;
	s->parts.at[s->parts.count++] = item;
	return 0;
}

void spool_drop(struct spool *s)
{
	for (size_t i = 0; i < s->parts.count; i++) {
		auto_free char *temporary = spool_temporary_name(s->parts.at[i].name);
		if (temporary)
			unlinkat(s->queue, temporary, 0);
	}
	spool_items_clear(&s->parts);
}

static void give_name(struct spool *s, struct spool_item *item)
{
	auto_free char *temporary = spool_temporary_name(item->name);
	/* If it fails the object is shipped from under its temporary name, or named at the next start. */
	item->unnamed = !temporary || renameat(s->queue, temporary, s->queue, item->name);
}

static int name_parts(const struct spool *s, json_t **ret, struct im_error *err)
{
	json_t *parts = json_array();
	for (size_t i = 0; parts && i < s->parts.count; i++)
		json_array_append_new(parts, json_string(s->parts.at[i].name));
	if (!parts || json_array_size(parts) != s->parts.count) {
		json_decref(parts);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	*ret = parts;
	return 0;
}

/* Room was reserved. */
static void enqueue(struct spool *s, const struct spool_item *item)
{
	s->reserved--;
	s->waiting.at[s->waiting.count++] = *item;
	s->bytes += item->bytes;
}

static void enqueue_parts(struct spool *s, bool sync)
{
	for (size_t i = 0; i < s->parts.count; i++)
		give_name(s, &s->parts.at[i]);
	if (sync)
		sync_folder(s->queue, NULL); /* the head knows the temporary names */
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->parts.count; i++)
		enqueue(s, &s->parts.at[i]);
	pthread_mutex_unlock(&s->lock);
	s->parts.count = 0;
}

static int reserve_waiting(struct spool *s, size_t more, struct im_error *err)
{
	pthread_mutex_lock(&s->lock);
	if (s->first && s->first >= s->waiting.count / 2) {
		s->waiting.count -= s->first;
		memmove(s->waiting.at, s->waiting.at + s->first, s->waiting.count * sizeof *s->waiting.at);
		s->first = 0;
	}
	int rc = spool_items_reserve(&s->waiting, s->reserved + more, err);
	s->reserved += rc ? 0 : more;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static void unreserve(struct spool *s, size_t count)
{
	pthread_mutex_lock(&s->lock);
	s->reserved -= count;
	pthread_mutex_unlock(&s->lock);
}

/* The temporary names must be on the disk before a head that relies on them is. */
static int prepare_commit(struct spool *s, bool sync, json_t **ret_parts, struct im_error *err)
{
	int rc = sync ? sync_folder(s->queue, err) : 0;
	return rc ? rc : name_parts(s, ret_parts, err);
}

int spool_commit(struct spool *s, const struct spool_head *head, bool sync, struct im_error *err)
{
	json_t *parts = NULL;
	struct spool_item *last = s->parts.count ? &s->parts.at[s->parts.count - 1] : NULL;
	IM_CHECK(last);
	last->position = json_dumps(head->position, JSON_COMPACT);
	last->point = head->point;
	last->complete_ms = head->complete_ms;
	size_t count = s->parts.count;
	int rc = reserve_waiting(s, count, err);
	if (rc) {
		spool_drop(s);
		return rc;
	}
	rc = prepare_commit(s, sync, &parts, err);
	if (rc == 0)
		rc = write_head(s, head, parts, sync, err);
	if (rc) {
		unreserve(s, count);
		json_decref(parts);
		spool_drop(s);
		return rc;
	}
	json_decref(s->newest);
	s->newest = parts;
	enqueue_parts(s, sync);
	return 0;
}

int spool_add(struct spool *s, const char *object, const void *data, size_t len, struct im_error *err)
{
	struct spool_item item;
	int rc = reserve_waiting(s, 1, err);
	if (rc)
		return rc;
	rc = write_item(s, object, data, len, &item, err);
	if (rc) {
		unreserve(s, 1);
		return rc;
	}
	give_name(s, &item);
	pthread_mutex_lock(&s->lock);
	enqueue(s, &item);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* --- shipping --- */

uint64_t spool_bytes(struct spool *s)
{
	pthread_mutex_lock(&s->lock);
	uint64_t bytes = s->bytes;
	pthread_mutex_unlock(&s->lock);
	return bytes;
}

size_t spool_count(struct spool *s)
{
	pthread_mutex_lock(&s->lock);
	size_t count = s->waiting.count - s->first;
	pthread_mutex_unlock(&s->lock);
	return count;
}

int spool_each(struct spool *s, int (*fn)(void *context, const char *object), void *context)
{
	int rc = 0;
	pthread_mutex_lock(&s->lock);
	for (size_t i = s->first; rc == 0 && i < s->waiting.count; i++)
		rc = fn(context, s->waiting.at[i].object);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

bool spool_front(struct spool *s, struct spool_item *ret)
{
	pthread_mutex_lock(&s->lock);
	bool any = s->first < s->waiting.count;
	if (any)
		*ret = s->waiting.at[s->first];
	pthread_mutex_unlock(&s->lock);
	return any;
}

/* The name ends with the first half of the object's hash. */
static bool is_whole(const struct spool_item *item, const uint8_t *data, size_t len)
{
	uint8_t hash[32];
	char hex[65];
	size_t name_len = strlen(item->name);
	crypto_hash(hash, data, len);
	return len == item->bytes && name_len > 16 && memcmp(im_hex(hex, hash, 32), item->name + name_len - 16, 16) == 0;
}

int spool_read(struct spool *s, const struct spool_item *item, struct im_buf *ret, struct im_error *err)
{
	auto_free char *temporary = item->unnamed ? spool_temporary_name(item->name) : NULL;
	auto_close int fd = openat(s->queue, temporary ? temporary : item->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, errno == ENOENT ? IM_ECORRUPT : IM_EIO, errno, "cannot read %s in the spool", item->name);
	uint8_t *p = item->bytes <= LOG_MAX_OBJECT_BYTES ? im_buf_grow(ret, (size_t)item->bytes) : NULL;
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory reading %s in the spool", item->name);
	ssize_t n = im_pread_full(fd, p, (size_t)item->bytes, 0, err, "the spool");
	if (n < 0)
		return (int)n;
	ret->len -= (size_t)item->bytes - (size_t)n;
	return is_whole(item, p, (size_t)n) ? 0 : im_fail(err, IM_ECORRUPT, "%s in the spool is damaged", item->name);
}

void spool_shipped(struct spool *s)
{
	pthread_mutex_lock(&s->lock);
	struct spool_item item = s->waiting.at[s->first++];
	s->bytes -= item.bytes;
	pthread_mutex_unlock(&s->lock);
	auto_free char *temporary = item.unnamed ? spool_temporary_name(item.name) : NULL;
	unlinkat(s->queue, temporary ? temporary : item.name, 0); /* if it stays it is shipped again, which does no harm */
	spool_item_clear(&item);
}

void spool_close(struct spool *s)
{
	if (!s)
		return;
	spool_drop(s);
	for (size_t i = s->first; i < s->waiting.count; i++)
		spool_item_clear(&s->waiting.at[i]);
	free(s->waiting.at);
	json_decref(s->newest);
	if (s->folder >= 0)
		close(s->folder);
	if (s->queue >= 0)
		close(s->queue);
	pthread_mutex_destroy(&s->lock);
	free(s->node);
	free(s->store);
	free(s);
}
