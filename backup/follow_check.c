/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at the vault for what only the vault can tell: whether somebody else continued this log
 * (a cloned machine, a local state that went back), whether there are newer keys, which snapshot is
 * the newest. Only names are listed, and only of the newest part of the epoch.
 */
#include "backup/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "vault/snapshot.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MEMORY_POINTS 4096 /* of what we put, this much is remembered at least */

/* --- what we put --- */

void follow_memory_clear(struct ship_memory *m)
{
	for (size_t i = 0; i < m->count; i++)
		free(m->leaves[i]);
	free(m->leaves);
	*m = (struct ship_memory){ 0 };
}

/* "logs/NODE/STORE/EPOCH/SSSSS/LEAF" */
static const char *leaf_of(const char *object)
{
	const char *slash = strrchr(object, '/');
	return slash ? slash + 1 : object;
}

/* Of an object's name; not ended by a NUL. */
static const char *epoch_of(const char *object)
{
	return leaf_of(object) - 1 - 5 - 1 - LOG_EPOCH_CHARS;
}

static bool is_current(struct followed *f, const char *epoch)
{
	pthread_mutex_lock(&f->lock);
	bool same = strncmp(f->view.epoch, epoch, LOG_EPOCH_CHARS) == 0;
	pthread_mutex_unlock(&f->lock);
	return same;
}

int follow_remember_put(struct followed *f, const char *object, struct im_error *err)
{
	struct ship_memory *m = &f->shipped;
	if (strncmp(m->epoch, epoch_of(object), LOG_EPOCH_CHARS) != 0) {
		if (!is_current(f, epoch_of(object)))
			return 0; /* what is left of an earlier one */
		follow_memory_clear(m);
		memcpy(m->epoch, epoch_of(object), LOG_EPOCH_CHARS);
		m->looked = true; /* this process began it */
		f->known_first = 0;
	}
	if (m->count == m->room) {
		size_t room = m->room ? 2 * m->room : 64;
		char **grown = reallocarray(m->leaves, room, sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory");
		m->leaves = grown;
		m->room = room;
	}
	m->leaves[m->count] = strdup(leaf_of(object));
	if (!m->leaves[m->count])
		return im_fail(err, IM_ENOMEM, "out of memory");
	m->count++;
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_ours(const struct ship_memory *m, const char *leaf)
{
	return m->count && bsearch(&leaf, m->leaves, m->count, sizeof *m->leaves, by_text);
}

/* So that memory and listing stay bounded: beyond this nobody looks any more. */
static void forget_old(struct ship_memory *m, uint32_t newest)
{
	size_t n = 0;
	if (newest < m->floor + 2 * MEMORY_POINTS)
		return;
	m->floor = newest - MEMORY_POINTS;
	for (size_t i = 0; i < m->count; i++) {
		if (strtoul(m->leaves[i] + 9, NULL, 16) > m->floor) /* "FIRST-LAST-…" */
			m->leaves[n++] = m->leaves[i];
		else
			free(m->leaves[i]);
	}
	m->count = n;
}

/* --- other writers --- */

void follow_demand_epoch(struct followed *f, const char *format, ...)
{
	char text[400];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	pthread_mutex_lock(&f->lock);
	if (!f->demand)
		f->demand = strdup(text);
	pthread_mutex_unlock(&f->lock);
	follow_wake(f->wake[1]);
}

static int found_stranger(struct followed *f, const struct log_name *n)
{
	char time[IM_INSTANT_BYTES];
	memcpy(f->shipped.strangers, f->shipped.epoch, sizeof f->shipped.strangers);
	if (is_current(f, f->shipped.epoch))
		follow_demand_epoch(f, "another machine writes under this node's name and continued the same log, or this machine's local state went "
		    "back: the vault has point %" PRIu32 " of %s, which is not ours", n->last, im_instant_format(time, n->latest_ms));
	return 0;
}

/* What nobody but us can have written is ours: what we put (above the floor), and where the last process left off. */
static bool is_stranger(const struct followed *f, const struct log_name *n, const struct log_name *before)
{
	char prefix[65];
	if (n->last > f->shipped.floor && !is_ours(&f->shipped, leaf_of(n->object)))
		return true;
	/* One writer never writes the same part twice. */
	if (before && before->first == n->first && before->last == n->last && before->part == n->part)
		return true;
	return f->known_first && n->final && n->first == f->known_first && n->last == f->known_point &&
	    strncmp(im_hex(prefix, f->known_hash, 32), n->hash_prefix, 16) != 0;
}

static int look(struct followed *f, const struct log_list *list)
{
	struct ship_memory *m = &f->shipped;
	uint32_t newest = 0;
	if (m->count)
		qsort(m->leaves, m->count, sizeof *m->leaves, by_text);
	for (size_t i = 0; i < list->count; i++) {
		if (is_stranger(f, &list->items[i], i ? &list->items[i - 1] : NULL))
			return found_stranger(f, &list->items[i]);
		newest = list->items[i].last > newest ? list->items[i].last : newest;
	}
	m->looked = true;
	forget_old(m, newest);
	return 0;
}

int follow_check_store(struct followed *f, struct storage *storage, struct im_error *err)
{
	struct ship_memory *m = &f->shipped;
	struct log_list list = { 0 };
	if (!m->epoch[0] || strcmp(m->strangers, m->epoch) == 0)
		return 0; /* nothing was ever put; or it is known already */
	int rc = log_list(storage, f->service->node, f->store->name, m->epoch, m->floor, &list, err);
	if (rc == 0)
		rc = look(f, &list);
	log_list_clear(&list);
	return rc;
}

static int found_any(void *context, const char *name, uint64_t size_bytes)
{
	(void)context;
	(void)name;
	(void)size_bytes;
	return 1;
}

int follow_check_first(struct followed *f, struct storage *storage, struct im_error *err)
{
	auto_free char *prefix = im_format("logs/%s/%s/", f->service->node, f->store->name);
	if (!prefix)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = f->head.epoch[0] || f->head_lost ? 0 : storage_list(storage, prefix, found_any, NULL, err);
	if (rc <= 0)
		return rc;
	f->head_lost = true;
	snprintf(f->lost_why, sizeof f->lost_why, "the vault has a log of this store, but the local record of where it ended is gone");
	return 0;
}

/* --- keys and snapshots --- */

static int count_one(void *context, const char *name, uint64_t size_bytes)
{
	(void)name;
	(void)size_bytes;
	++*(uint32_t *)context;
	return 0;
}

int follow_check_vault(struct service *s, struct storage *storage, struct im_error *err)
{
	struct snapshot_list list = { 0 };
	uint32_t generations = 0;
	int rc = snapshot_list(storage, s->node, &list, err);
	if (rc == 0 && list.count)
		s->snapshot_seq = list.items[list.count - 1].seq;
	snapshot_list_clear(&list);
	if (rc == 0)
		rc = storage_list(storage, "keys/", count_one, &generations, err);
	if (rc == 0 && generations > keyring_generation(s->vault->keyring) && s->state == FOLLOW_RUN) {
		follow_note(s, NULL, "the vault's keys have changed: starting over with the new ones");
		s->state = FOLLOW_RELOAD;
		follow_wake(s->wake[1]);
	}
	return rc;
}
