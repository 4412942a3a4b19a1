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
#define CHAIN_LINKS 300    /* segments that a power cut may take from the spool */

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
	snprintf(m->newest, sizeof m->newest, "%s", leaf_of(object));
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

/* --- is everything there? --- */

struct pieces { /* names of the epoch, in the vault and in the spool */
	struct log_name *at;
	size_t count, room;
	const char *epoch;
};

static int add_piece(struct pieces *p, const struct log_name *n)
{
	if (p->count == p->room) {
		size_t room = p->room ? 2 * p->room : 256;
		struct log_name *grown = reallocarray(p->at, room, sizeof *grown);
		if (!grown)
			return IM_ENOMEM;
		p->at = grown;
		p->room = room;
	}
	p->at[p->count] = *n;
	p->at[p->count].store = p->at[p->count].object = NULL; /* the caller's */
	p->count++;
	return 0;
}

static int add_waiting(void *context, const char *object)
{
	struct pieces *p = context;
	struct log_name n;
	char *node;
	if (!log_name_parse(object, &n, &node))
		return 0;
	free(node);
	int rc = strcmp(n.epoch, p->epoch) == 0 ? add_piece(p, &n) : 0;
	log_name_clear(&n);
	return rc;
}

/* First point of a segment with all its parts that ends at `last`; 0: there is none. */
static uint32_t segment_before(const struct pieces *p, uint32_t last)
{
	for (size_t i = 0; i < p->count; i++) {
		uint32_t parts = 0;
		if (p->at[i].last != last || !p->at[i].final)
			continue;
		for (size_t k = 0; k < p->count; k++)
			parts += p->at[k].last == last && p->at[k].first == p->at[i].first;
		if (parts > p->at[i].part)
			return p->at[i].first;
	}
	return 0;
}

/* From where the last process left off back, as far as what it had not made durable can reach. begin: what ends at or before is not in the list. */
static int walk_back(const struct followed *f, const struct log_list *list, uint32_t begin, bool *ret_missing, struct im_error *err)
{
	struct pieces p = { .epoch = f->shipped.epoch };
	uint32_t at = f->known_point;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < list->count; i++)
		rc = add_piece(&p, &list->items[i]);
	if (rc == 0)
		rc = spool_each(f->spool, add_waiting, &p);
	*ret_missing = false;
	for (int n = 0; rc == 0 && !*ret_missing && n < CHAIN_LINKS && at > begin; n++) {
		uint32_t first = segment_before(&p, at);
		*ret_missing = !first;
		at = first ? first - 1 : at;
	}
	free(p.at);
	return rc ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

/* A segment that begins in an earlier folder of names is not in the list: before anything is said to be missing, all are listed. */
static int is_broken(struct followed *f, struct storage *storage, const struct log_list *list, bool *ret_broken, struct im_error *err)
{
	uint32_t begin = f->known_first & ~UINT32_C(0xfff);
	struct log_list all = { 0 };
	int rc = walk_back(f, list, begin, ret_broken, err);
	if (rc || !*ret_broken || !begin)
		return rc;
	rc = log_list(storage, f->service->node, f->store->name, f->shipped.epoch, 0, &all, err);
	if (rc == 0)
		rc = walk_back(f, &all, 0, ret_broken, err);
	log_list_clear(&all);
	return rc;
}

/* Is the newest that we put still there? A vault that was rolled back lacks it. */
static bool is_rolled_back(const struct followed *f, const struct log_list *list)
{
	const struct ship_memory *m = &f->shipped;
	for (size_t i = list->count; m->count && i-- > 0;)
		if (strcmp(leaf_of(list->items[i].object), m->newest) == 0)
			return false;
	return m->count > 0;
}

static int found_missing(struct followed *f)
{
	memcpy(f->shipped.strangers, f->shipped.epoch, sizeof f->shipped.strangers);
	if (is_current(f, f->shipped.epoch))
		follow_demand_epoch(f, "the vault lacks segments that this node wrote: it was rolled back, or a power cut took them from the spool");
	return 0;
}

static int look(struct followed *f, struct storage *storage, const struct log_list *list, struct im_error *err)
{
	struct ship_memory *m = &f->shipped;
	uint32_t newest = 0;
	bool broken = false;
	if (m->count)
		qsort(m->leaves, m->count, sizeof *m->leaves, by_text);
	for (size_t i = 0; i < list->count; i++) {
		if (is_stranger(f, &list->items[i], i ? &list->items[i - 1] : NULL))
			return found_stranger(f, &list->items[i]);
		newest = list->items[i].last > newest ? list->items[i].last : newest;
	}
	int rc = m->looked || !f->known_point ? 0 : is_broken(f, storage, list, &broken, err);
	if (rc)
		return rc;
	if (broken || is_rolled_back(f, list))
		return found_missing(f);
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
	int rc = log_list(storage, f->service->node, f->store->name, m->epoch, m->looked ? m->floor : f->known_first, &list, err);
	if (rc == 0)
		rc = look(f, storage, &list, err);
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

/* Where the clock was set back since, an image without a place in the log would seem to be newer than all that follows. */
static int check_clock(struct service *s, struct storage *storage, const struct snapshot_name *newest, bool *ret_set_back, struct im_error *err)
{
	struct snapshot *snapshot = NULL;
	struct im_error why = { 0 };
	char then[IM_INSTANT_BYTES];
	int rc = snapshot_read(storage, s->vault->keyring, newest, &snapshot, &why);
	if (rc == IM_EUNREACHABLE || rc == IM_EIO || rc == IM_ENOMEM || rc == IM_EINTERRUPTED)
		return im_fail(err, rc, "%s", why.text);
	*ret_set_back = rc == 0 && snapshot->time_ms > im_now_ms(); /* a damaged one is for backup and verify to tell */
	if (*ret_set_back)
		follow_warn(s, NULL, "snapshot %" PRIu64 " says it was taken at %s, which is still to come: the clock was set back; another snapshot is taken",
		    snapshot->seq, im_instant_format(then, snapshot->time_ms));
	snapshot_free(snapshot);
	return 0;
}

int follow_check_vault(struct service *s, struct storage *storage, bool *ret_set_back, struct im_error *err)
{
	struct snapshot_list list = { 0 };
	uint32_t generations = 0;
	*ret_set_back = false;
	int rc = snapshot_list(storage, s->node, &list, err);
	if (rc == 0 && list.count && list.items[list.count - 1].seq != s->snapshot_seq)
		rc = check_clock(s, storage, &list.items[list.count - 1], ret_set_back, err);
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
