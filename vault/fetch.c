/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading entries. The caller's thread plans ranges, two reader threads fetch them, one decoder
 * per CPU opens them. Ranges are at most 1 MiB (or one entry), queues hold a few, so memory is
 * flat. Opened packs (key, dictionary) are kept in a small cache shared by all threads.
 */
#include "vault/fetch.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "base/workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CACHED_PACKS 64
#define RANGE_BYTES (1u << 20)
#define RANGE_GAP_BYTES (32u << 10)
#define HEAD_READ_BYTES 4096
#define READERS 2

struct opened_pack {
	uint8_t name[32];
	struct pack_key key;
	struct pack_dict *dict;
	unsigned refs;
	uint64_t last_used;
	bool cached;
};

struct fetcher {
	struct storage *storage;
	const struct keyring *keyring;
	pthread_mutex_t mutex;
	struct opened_pack *packs[CACHED_PACKS];
	uint64_t clock;
	struct codec *codec; /* for dictionaries and fetch_one */
	pthread_mutex_t codec_mutex;
};

char *fetch_pack_object(char ret[80], const uint8_t name[32])
{
	char hex[65];
	im_hex(hex, name, 32);
	snprintf(ret, 80, "packs/%.2s/%s", hex, hex);
	return ret;
}

int fetcher_new(struct storage *s, const struct keyring *k, struct fetcher **ret, struct im_error *err)
{
	struct fetcher *f = calloc(1, sizeof *f);
	if (!f)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = codec_new(1, &f->codec, err);
	if (rc) {
		free(f);
		return rc;
	}
	f->storage = s;
	f->keyring = k;
	pthread_mutex_init(&f->mutex, NULL);
	pthread_mutex_init(&f->codec_mutex, NULL);
	*ret = f;
	return 0;
}

static void opened_free(struct opened_pack *o)
{
	crypto_wipe(&o->key, sizeof o->key);
	pack_dict_free(o->dict);
	free(o);
}

void fetcher_free(struct fetcher *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < CACHED_PACKS; i++)
		if (f->packs[i])
			opened_free(f->packs[i]);
	codec_free(f->codec);
	pthread_mutex_destroy(&f->mutex);
	pthread_mutex_destroy(&f->codec_mutex);
	free(f);
}

static int read_dict(struct fetcher *f, const char *object, const struct pack_header *h, struct opened_pack *o, struct im_error *err)
{
	auto_free uint8_t *sealed = malloc(h->dict_stored), *plain = malloc(h->dict_plain ? h->dict_plain : 1);
	if (!sealed || !plain)
		return im_fail(err, IM_ENOMEM, "out of memory for a dictionary");
	int rc = storage_read(f->storage, object, h->header_bytes, sealed, h->dict_stored, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&f->codec_mutex);
	rc = entry_decode(f->codec, &o->key, NULL, ENTRY_DICT, 0, sealed, h->dict_stored, plain, h->dict_plain, err);
	pthread_mutex_unlock(&f->codec_mutex);
	return rc ? rc : pack_dict_new(plain, h->dict_plain, 0, &o->dict, err);
}

static int open_new(struct fetcher *f, const struct pack_info *info, struct opened_pack *o, struct im_error *err)
{
	char object[80];
	struct pack_header h;
	auto_buf struct im_buf head = { 0 };
	fetch_pack_object(object, info->name);
	size_t len = info->size_bytes < HEAD_READ_BYTES ? (size_t)info->size_bytes : HEAD_READ_BYTES;
	for (int pass = 0;; pass++) {
		head.len = 0;
		uint8_t *p = im_buf_grow(&head, len);
		if (!p)
			return im_fail(err, IM_ENOMEM, "out of memory opening a pack");
		int rc = storage_read(f->storage, object, 0, p, len, err);
		if (rc == 0)
			rc = pack_header_decode(keyring_vault_id(f->keyring), p, len, &h, err);
		if (rc)
			return rc;
		if (h.recipients)
			break;
		if (pass || h.header_bytes > info->size_bytes)
			return im_fail(err, IM_ECORRUPT, "the pack is shorter than its header");
		len = h.header_bytes;
	}
	memcpy(o->name, info->name, 32);
	int rc = pack_key_open(f->keyring, &h, info->commitment, &o->key, err);
	return rc || !h.dict_stored ? rc : read_dict(f, object, &h, o, err);
}

static struct opened_pack *find_cached_locked(struct fetcher *f, const uint8_t name[32])
{
	for (size_t i = 0; i < CACHED_PACKS; i++)
		if (f->packs[i] && memcmp(f->packs[i]->name, name, 32) == 0) {
			f->packs[i]->last_used = ++f->clock;
			f->packs[i]->refs++;
			return f->packs[i];
		}
	return NULL;
}

/* Puts o into the cache in place of the longest unused; if all are in use, o is freed with its last reference. */
static void cache_locked(struct fetcher *f, struct opened_pack *o)
{
	size_t victim = CACHED_PACKS;
	for (size_t i = 0; i < CACHED_PACKS; i++) {
		if (!f->packs[i]) {
			victim = i;
			break;
		}
		if (!f->packs[i]->refs && (victim == CACHED_PACKS || f->packs[i]->last_used < f->packs[victim]->last_used))
			victim = i;
	}
	o->refs = 1;
	o->last_used = ++f->clock;
	if (victim == CACHED_PACKS)
		return;
	if (f->packs[victim])
		opened_free(f->packs[victim]);
	f->packs[victim] = o;
	o->cached = true;
}

static int pack_acquire(struct fetcher *f, const struct pack_info *info, struct opened_pack **ret, struct im_error *err)
{
	pthread_mutex_lock(&f->mutex);
	struct opened_pack *o = find_cached_locked(f, info->name);
	pthread_mutex_unlock(&f->mutex);
	if (o) {
		*ret = o;
		return 0;
	}
	o = calloc(1, sizeof *o);
	int rc = o ? open_new(f, info, o, err) : im_fail(err, IM_ENOMEM, "out of memory opening a pack");
	if (rc) {
		char object[80];
		if (o)
			opened_free(o);
		im_error_context(err, "%s", fetch_pack_object(object, info->name));
		return rc;
	}
	pthread_mutex_lock(&f->mutex);
	cache_locked(f, o);
	pthread_mutex_unlock(&f->mutex);
	*ret = o;
	return 0;
}

static void pack_release(struct fetcher *f, struct opened_pack *o)
{
	pthread_mutex_lock(&f->mutex);
	bool drop = --o->refs == 0 && !o->cached;
	pthread_mutex_unlock(&f->mutex);
	if (drop)
		opened_free(o);
}

int fetch_one(struct fetcher *f, const struct pack_info *pack, enum entry_type type, const struct im_ref *ref, struct im_buf *ret, struct im_error *err)
{
	struct opened_pack *o;
	char object[80];
	if ((uint64_t)ref->offset + ref->stored > pack->size_bytes)
		return im_fail(err, IM_ECORRUPT, "a reference points outside pack %s", fetch_pack_object(object, pack->name));
	int rc = pack_acquire(f, pack, &o, err);
	if (rc)
		return rc;
	auto_free uint8_t *sealed = malloc(ref->stored ? ref->stored : 1);
	size_t start = ret->len;
	uint8_t *plain = ref->plain <= ENTRY_MAX_META_BYTES ? im_buf_grow(ret, ref->plain ? ref->plain : 1) : NULL;
	if (!sealed || !plain)
		rc = im_fail(err, IM_ENOMEM, "out of memory for an entry of %u bytes", ref->plain);
	if (rc == 0)
		rc = storage_read(f->storage, fetch_pack_object(object, pack->name), ref->offset, sealed, ref->stored, err);
	if (rc == 0) {
		pthread_mutex_lock(&f->codec_mutex);
		rc = entry_decode(f->codec, &o->key, o->dict, type, ref->slot, sealed, ref->stored, plain, ref->plain, err);
		pthread_mutex_unlock(&f->codec_mutex);
		if (rc)
			im_error_context(err, "pack %s, offset %u", fetch_pack_object(object, pack->name), ref->offset);
	}
	ret->len = start + (rc ? 0 : ref->plain);
	pack_release(f, o);
	return rc;
}

/* Many entries. */

struct running {
	struct fetcher *fetcher;
	const struct fetch_plan *plan;
	struct im_workers *readers, *decoders;
	struct codec **codecs;
	uint8_t **plains; /* one buffer per decoder */
	size_t *plain_caps;
	_Atomic uint64_t read_bytes, plain_bytes, reads, read_us, decode_us, sink_us;
};

struct range { /* neighbours in one pack, read at once */
	struct running *run;
	const struct pack_info *pack;
	struct fetch_item *items;
	size_t count;
	uint32_t offset, len;
	struct opened_pack *opened;
	uint8_t *data;
};

static int compare_items(const void *a, const void *b)
{
	const struct fetch_item *x = a, *y = b;
	if (x->ref.pack != y->ref.pack)
		return x->ref.pack < y->ref.pack ? -1 : 1;
	if (x->ref.offset != y->ref.offset)
		return x->ref.offset < y->ref.offset ? -1 : 1;
	return x->tag < y->tag ? -1 : x->tag > y->tag;
}

static bool same_entry(const struct fetch_item *a, const struct fetch_item *b)
{
	return memcmp(&a->ref, &b->ref, sizeof a->ref) == 0 && a->type == b->type;
}

static void range_free(struct range *r)
{
	if (r->opened)
		pack_release(r->run->fetcher, r->opened);
	free(r->data);
	free(r);
}

/* IM_EKEY too: one pack whose recipients are damaged, or leave this key out, must not stop the others. */
static bool is_damage(int code)
{
	return code == IM_ECORRUPT || code == IM_ENOTFOUND || code == IM_EIO || code == IM_EKEY;
}

/* Tells the caller about every entry of [first, last) and goes on, if it may. */
static int report_damage(struct running *run, struct fetch_item *first, size_t count, const struct im_error *why, struct im_error *err)
{
	if (!run->plan->damage || !is_damage(why->code))
		return im_fail(err, why->code ? why->code : IM_EFAIL, "%s", why->text);
	for (size_t i = 0; i < count;) {
		size_t n = 1;
		while (i + n < count && same_entry(&first[i], &first[i + n]))
			n++;
		int rc = run->plan->damage(run->plan->context, first + i, n, why, err);
		if (rc)
			return rc;
		i += n;
	}
	return 0;
}

static int decode_entry(struct range *r, struct fetch_item *items, size_t count, unsigned worker, struct im_error *err)
{
	struct running *run = r->run;
	const struct im_ref *ref = &items->ref;
	int64_t start = im_monotonic_us();
	if (ref->plain > run->plain_caps[worker]) {
		uint8_t *p = ref->plain <= ENTRY_MAX_META_BYTES ? realloc(run->plains[worker], ref->plain) : NULL;
		if (!p)
			return im_fail(err, IM_ENOMEM, "out of memory for an entry of %u bytes", ref->plain);
		run->plains[worker] = p;
		run->plain_caps[worker] = ref->plain;
	}
	struct im_error why = { 0 };
	int rc = entry_decode(run->codecs[worker], &r->opened->key, r->opened->dict, items->type, ref->slot,
	    r->data + (ref->offset - r->offset), ref->stored, run->plains[worker], ref->plain, &why);
	int64_t decoded = im_monotonic_us();
	atomic_fetch_add(&run->decode_us, (uint64_t)(decoded - start));
	if (rc) {
		char object[80];
		im_error_context(&why, "pack %s, offset %u", fetch_pack_object(object, r->pack->name), ref->offset);
		return report_damage(run, items, count, &why, err);
	}
	atomic_fetch_add(&run->plain_bytes, ref->plain);
	rc = run->plan->sink(run->plan->context, worker, items, count, run->plains[worker], ref->plain, err);
	atomic_fetch_add(&run->sink_us, (uint64_t)(im_monotonic_us() - decoded));
	return rc;
}

static int decode_all(struct range *r, unsigned worker, bool cancelled, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; i < r->count && !cancelled && rc == 0;) {
		size_t n = 1;
		while (i + n < r->count && same_entry(&r->items[i], &r->items[i + n]))
			n++;
		rc = decode_entry(r, r->items + i, n, worker, err);
		i += n;
	}
	return rc;
}

static int decode_range(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	struct range *r = job;
	int rc = decode_all(r, worker, cancelled, err);
	range_free(r);
	return rc;
}

/* Reads the range, or, where that fails, its entries one by one, so that one bad sector harms only what lies on it. */
static int read_data(struct range *r, struct im_error *err)
{
	char object[80];
	fetch_pack_object(object, r->pack->name);
	struct storage *s = r->run->fetcher->storage;
	struct im_error why = { 0 };
	int rc = storage_read(s, object, r->offset, r->data, r->len, &why);
	if (rc == 0 || !is_damage(rc) || !r->run->plan->damage)
		return rc ? im_fail(err, rc, "%s", why.text) : 0;
	size_t kept = 0;
	for (size_t i = 0; i < r->count; i++) {
		const struct im_ref *ref = &r->items[i].ref;
		im_error_clear(&why);
		if (storage_read(s, object, ref->offset, r->data + (ref->offset - r->offset), ref->stored, &why) == 0) {
			r->items[kept++] = r->items[i];
			continue;
		}
		rc = report_damage(r->run, r->items + i, 1, &why, err);
		if (rc)
			return rc;
	}
	r->count = kept;
	return 0;
}

static int read_range(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	struct range *r = job;
	struct running *run = r->run;
	(void)worker;
	if (cancelled) {
		range_free(r);
		return 0;
	}
	int64_t start = im_monotonic_us();
	struct im_error why = { 0 };
	int rc = pack_acquire(run->fetcher, r->pack, &r->opened, &why);
	if (rc) {
		rc = report_damage(run, r->items, r->count, &why, err);
		range_free(r);
		return rc;
	}
	r->data = malloc(r->len ? r->len : 1);
	rc = r->data ? read_data(r, err) : im_fail(err, IM_ENOMEM, "out of memory reading a pack");
	atomic_fetch_add(&run->read_us, (uint64_t)(im_monotonic_us() - start));
	atomic_fetch_add(&run->read_bytes, r->len);
	atomic_fetch_add(&run->reads, 1);
	if (rc) {
		range_free(r);
		return rc;
	}
	im_workers_submit(run->decoders, r); /* its failure is the decoders' own and seen at the end */
	return 0;
}

/*
 * Takes neighbours from items[0..count) as long as they make one sensible read. Never backwards: entries are opened
 * where they lie, so one that came again behind another could not be opened a second time.
 */
static size_t gather(const struct fetch_item *items, size_t count, uint32_t *ret_len)
{
	uint64_t start = items->ref.offset, end = start + items->ref.stored;
	size_t n = 1;
	for (; n < count && items[n].ref.pack == items->ref.pack; n++) {
		uint64_t next = items[n].ref.offset, next_end = next + items[n].ref.stored;
		if (next < items[n - 1].ref.offset || next > end + RANGE_GAP_BYTES || (next_end > end && next_end - start > RANGE_BYTES))
			break;
		end = next_end > end ? next_end : end;
	}
	*ret_len = (uint32_t)(end - start);
	return n;
}

/* Without damage noted or an error, r->pack is there. */
static int find_pack(struct range *r, struct im_error *err)
{
	const struct fetch_plan *plan = r->run->plan;
	const struct pack_info *pack = plan->pack_of(plan->context, r->items->ref.pack);
	if (pack && (uint64_t)r->offset + r->len <= pack->size_bytes) {
		r->pack = pack;
		return 0;
	}
	struct im_error why = { 0 };
	im_fail(&why, IM_ECORRUPT, "a reference to pack number %u, offset %u points nowhere", r->items->ref.pack, r->offset);
	return report_damage(r->run, r->items, r->count, &why, err);
}

static int plan_ranges(struct running *run, struct im_error *err)
{
	const struct fetch_plan *plan = run->plan;
	for (size_t i = 0; i < plan->count;) {
		struct fetch_item *first = plan->items + i;
		uint32_t len;
		size_t n = gather(first, plan->count - i, &len);
		i += n;
		int rc = im_interrupt_check(err);
		if (rc || im_workers_failed(run->decoders))
			return rc;
		struct range found = { .run = run, .items = first, .count = n, .offset = first->ref.offset, .len = len };
		rc = find_pack(&found, err);
		if (rc)
			return rc;
		if (!found.pack)
			continue;
		struct range *r = malloc(sizeof *r);
		if (!r)
			return im_fail(err, IM_ENOMEM, "out of memory reading packs");
		*r = found;
		if (im_workers_submit(run->readers, r))
			break;
	}
	return 0;
}

unsigned fetch_workers(const struct fetch_plan *plan)
{
	return plan->workers ? plan->workers : im_cpu_count();
}

static void running_clear(struct running *run, unsigned workers)
{
	im_workers_free(run->readers);
	im_workers_free(run->decoders);
	for (unsigned i = 0; i < workers && run->codecs; i++)
		codec_free(run->codecs[i]);
	for (unsigned i = 0; i < workers && run->plains; i++)
		free(run->plains[i]);
	free(run->codecs);
	free(run->plains);
	free(run->plain_caps);
}

static int running_start(struct running *run, unsigned workers, struct im_error *err)
{
	run->codecs = calloc(workers, sizeof *run->codecs);
	run->plains = calloc(workers, sizeof *run->plains);
	run->plain_caps = calloc(workers, sizeof *run->plain_caps);
	if (!run->codecs || !run->plains || !run->plain_caps)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (unsigned i = 0; i < workers; i++) {
		int rc = codec_new(1, &run->codecs[i], err);
		if (rc)
			return rc;
	}
	int rc = im_workers_new(workers, 2 * workers, decode_range, &run->decoders, err);
	return rc ? rc : im_workers_new(READERS, READERS, read_range, &run->readers, err);
}

int fetch_run(struct fetcher *f, const struct fetch_plan *plan, struct fetch_stats *ret, struct im_error *err)
{
	struct running run = { .fetcher = f, .plan = plan };
	unsigned workers = fetch_workers(plan);
	if (plan->count && !plan->keep_order)
		qsort(plan->items, plan->count, sizeof *plan->items, compare_items);
	int rc = running_start(&run, workers, err);
	if (rc == 0)
		rc = plan_ranges(&run, err);
	if (run.readers) {
		int rc_read = im_workers_wait(run.readers, err);
		int rc_decode = im_workers_wait(run.decoders, err);
		rc = rc ? rc : rc_read ? rc_read : rc_decode;
	}
	if (ret)
		*ret = (struct fetch_stats){ .read_bytes = run.read_bytes, .plain_bytes = run.plain_bytes, .reads = run.reads,
			.read_us = run.read_us, .decode_us = run.decode_us, .sink_us = run.sink_us };
	running_clear(&run, workers);
	return rc;
}

/* Few entries, here and now. */

struct fetch_lane {
	struct codec *codec;
	uint8_t *plain, *data;
	size_t plain_cap, data_cap;
};

int fetch_lane_new(struct fetch_lane **ret, struct im_error *err)
{
	struct fetch_lane *l = calloc(1, sizeof *l);
	if (!l)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = codec_new(1, &l->codec, err);
	if (rc) {
		free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

void fetch_lane_free(struct fetch_lane *l)
{
	if (!l)
		return;
	codec_free(l->codec);
	free(l->plain);
	free(l->data);
	free(l);
}

static int range_here(struct range *r, struct fetch_lane *lane, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = pack_acquire(r->run->fetcher, r->pack, &r->opened, &why);
	if (rc)
		return report_damage(r->run, r->items, r->count, &why, err);
	if (r->len > lane->data_cap) {
		uint8_t *grown = realloc(lane->data, r->len);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory reading a pack");
		lane->data = grown;
		lane->data_cap = r->len;
	}
	r->data = lane->data;
	rc = read_data(r, err);
	return rc ? rc : decode_all(r, 0, false, err);
}

int fetch_here(struct fetcher *f, struct fetch_lane *lane, const struct fetch_plan *plan, struct im_error *err)
{
	struct running run = { .fetcher = f, .plan = plan, .codecs = &lane->codec, .plains = &lane->plain, .plain_caps = &lane->plain_cap };
	int rc = 0;
	if (plan->count && !plan->keep_order)
		qsort(plan->items, plan->count, sizeof *plan->items, compare_items);
	for (size_t i = 0; i < plan->count && rc == 0;) {
		struct range r = { .run = &run, .items = plan->items + i };
		r.count = gather(r.items, plan->count - i, &r.len);
		r.offset = r.items->ref.offset;
		i += r.count;
		rc = find_pack(&r, err);
		if (rc == 0 && r.pack)
			rc = range_here(&r, lane, err);
		if (r.opened)
			pack_release(f, r.opened);
	}
	return rc;
}
