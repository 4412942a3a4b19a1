/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads: readers take events; what is there already is answered at once, the rest goes to the
 * answerers; the background threads bring everything in order, giving way to demand but never quite
 * stopping; the main thread finishes whole files.
 *
 * An event lies in a slot of the shared table from the moment the kernel hands it out until it is
 * answered. A worker that dies leaves its slots; the next one serves them first, before it takes new
 * events, since a new event may get the same descriptor number.
 */
#include "restore/instant/worker.h"

#include "base/clock.h"
#include "restore/instant/access.h"
#include "restore/instant/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

enum {
	READERS = 2,
	ANSWERERS = 8,
	BACKGROUND = 3,
	BACKGROUND_BYTES = 4 << 20,
	GIVE_WAY_US = 10000,     /* after a demand */
	GIVE_WAY_MAX_MS = 50,
	NICE = 5,
	PATIENCE_US = 30000000,  /* for a service that is about to be ready */
	HOT_RUN = 16,
	SYNC_MANY = 8,
	BACKGROUND_SMALL_BYTES = 1 << 20, /* while somebody waits now and then */
};

struct worker {
	const struct worker_options *o;
	struct table *table;
	struct hydrator *h;
	int group;
	pthread_mutex_t mutex;
	pthread_cond_t work, room; /* an event to answer; a slot to read into */
	unsigned free_slots[TABLE_SLOTS], free_count;
	unsigned queue[TABLE_SLOTS], queue_first, queue_count;
	int64_t since_us[TABLE_SLOTS]; /* when it was read */
	struct access_index index;
	_Atomic uint32_t *last_block; /* by file: of the last demand */
	_Atomic size_t next_hot;
	_Atomic unsigned demands;
	_Atomic int64_t last_demand_us;
	pthread_mutex_t place_mutex;
	size_t place_file;
	uint64_t place_offset;
};

struct thread {
	struct worker *w;
	struct hydrate_lane *lane;
	unsigned number;
};

/* --- answering --- */

/* The part of the event's range that is ours to bring. */
static void clamp(const struct fan_event *e, uint64_t limit, uint64_t *ret_offset, uint64_t *ret_end)
{
	uint64_t end = e->count && e->count < UINT64_MAX - e->offset ? e->offset + e->count : limit;
	*ret_offset = e->offset;
	*ret_end = end < limit ? end : limit;
}

static int errno_of(int code)
{
	return code == 0 ? 0 : code == IM_ENOSPACE ? ENOSPC : EIO;
}

static void clear_slot(struct table_slot *s)
{
	memset(s->event, 0, sizeof s->event);
	s->file = 0;
	atomic_thread_fence(memory_order_seq_cst);
}

static void let_slot_go(struct worker *w, unsigned slot)
{
	pthread_mutex_lock(&w->mutex);
	w->free_slots[w->free_count++] = slot;
	pthread_cond_signal(&w->room);
	pthread_mutex_unlock(&w->mutex);
}

static void answer(struct worker *w, unsigned slot, const struct fan_event *e, int code, int64_t since_us)
{
	struct table_head *head = w->table->head;
	if (fan_answer(w->group, e->fd, errno_of(code)))
		table_trouble(w->table, "an access could not be answered: %s", strerror(errno));
	/* in this order: as soon as the number is free, another event may get it, and a successor must not answer that by this slot */
	clear_slot(&head->slots[slot]);
	close(e->fd);
	let_slot_go(w, slot);
	access_count(w->table, since_us);
}

static void serve(struct thread *t, unsigned slot, uint32_t file, const struct fan_event *e, uint64_t limit, int64_t since_us)
{
	struct worker *w = t->w;
	struct im_error why = { 0 };
	uint64_t offset, end;
	clamp(e, limit, &offset, &end);
	atomic_fetch_add(&w->demands, 1);
	int rc = end > offset ? hydrate_range(w->h, t->lane, file, offset, end - offset, HYDRATE_DEMAND, &why) : 0;
	atomic_fetch_sub(&w->demands, 1);
	w->last_demand_us = im_monotonic_us();
	atomic_fetch_add(&w->table->head->demand_bytes, end > offset ? end - offset : 0);
	if (rc && rc != IM_ECORRUPT)
		table_trouble(w->table, "%s", why.text);
	answer(w, slot, e, rc, since_us);
	atomic_fetch_sub(&w->table->head->waiting, 1);
	if (rc == 0 && end > offset)
		access_look_ahead(w->h, t->lane, w->table, file, offset, end, &w->last_block[file]);
}

static void *run_answerer(void *context)
{
	struct thread *t = context;
	struct worker *w = t->w;
	for (;;) {
		pthread_mutex_lock(&w->mutex);
		while (!w->queue_count)
			pthread_cond_wait(&w->work, &w->mutex);
		unsigned slot = w->queue[w->queue_first];
		w->queue_first = (w->queue_first + 1) % TABLE_SLOTS;
		w->queue_count--;
		pthread_mutex_unlock(&w->mutex);
		struct table_slot *s = &w->table->head->slots[slot];
		struct fan_event e;
		fan_decode(s->event, &e);
		uint32_t file = s->file - 1;
		serve(t, slot, file, &e, w->table->files[file].limit, w->since_us[slot]);
	}
	return NULL;
}

static void enqueue(struct worker *w, unsigned slot)
{
	atomic_fetch_add(&w->table->head->waiting, 1);
	pthread_mutex_lock(&w->mutex);
	w->queue[(w->queue_first + w->queue_count++) % TABLE_SLOTS] = slot;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->mutex);
}

/* Reads of nothing, and truncations, have a count of 0; so has FICLONE, which takes the whole file, but does not exist on ext4. */
static bool is_empty_access(const struct worker *w, const struct fan_event *e)
{
	struct statfs fs;
	return w->table->head->kind == TABLE_BLOCKS && e->count == 0 && fstatfs(e->fd, &fs) == 0 && fs.f_type == EXT4_SUPER_MAGIC;
}

/* An event just read into a slot. */
static void sort_event(struct worker *w, unsigned slot, const struct fan_event *e)
{
	int64_t now_us = im_monotonic_us();
	struct stat st;
	uint32_t file = fstat(e->fd, &st) ? ACCESS_NO_FILE : access_find(&w->index, w->table, &st);
	struct im_error why = { 0 };
	uint64_t limit, offset, end;
	if (file == ACCESS_NO_FILE || e->pid == getpid()) {
		answer(w, slot, e, 0, now_us);
		return;
	}
	if (w->table->files[file].unsafe) { /* what the disk holds of it is not known */
		answer(w, slot, e, IM_EIO, now_us);
		return;
	}
	w->table->head->slots[slot].file = file + 1;
	w->since_us[slot] = now_us;
	int rc = hydrate_touch(w->h, file, &limit, &why);
	if (rc) {
		table_trouble(w->table, "%s", why.text);
		answer(w, slot, e, rc, now_us);
		return;
	}
	clamp(e, limit, &offset, &end);
	if (is_empty_access(w, e))
		end = offset;
	access_trace(w->table, file, offset, end);
	if (access_is_there(w->table, file, offset, end))
		answer(w, slot, e, 0, now_us);
	else
		enqueue(w, slot);
}

static unsigned take_slot(struct worker *w)
{
	pthread_mutex_lock(&w->mutex);
	while (!w->free_count)
		pthread_cond_wait(&w->room, &w->mutex);
	unsigned slot = w->free_slots[--w->free_count];
	pthread_mutex_unlock(&w->mutex);
	return slot;
}

static void *run_reader(void *context)
{
	struct thread *t = context;
	struct worker *w = t->w;
	unsigned slot = take_slot(w);
	for (;;) {
		struct fan_event e;
		struct im_error why = { 0 };
		int rc = fan_read(w->group, (enum fan_kind)w->table->head->kind, w->table->head->slots[slot].event, &e, &why);
		if (rc < 0) {
			table_trouble(w->table, "%s", why.text);
			_exit(1); /* the next worker may fare better; accesses wait */
		}
		if (rc == 0)
			continue;
		sort_event(w, slot, &e);
		slot = take_slot(w);
	}
	return NULL;
}

/* --- what a predecessor left --- */

/* An event whose file nobody noted: every file gets its range. */
static int serve_all(struct worker *w, struct hydrate_lane *l, const struct fan_event *e, struct im_error *err)
{
	int rc = 0;
	for (uint32_t i = 0; i < w->table->head->file_count && rc == 0; i++) {
		uint64_t limit, offset, end;
		if (w->table->files[i].state == FILE_ORDINARY)
			continue;
		rc = hydrate_touch(w->h, i, &limit, err);
		clamp(e, limit, &offset, &end);
		if (rc == 0 && end > offset)
			rc = hydrate_range(w->h, l, i, offset, end - offset, HYDRATE_DEMAND, err);
	}
	return rc;
}

static void serve_stale(struct worker *w, struct hydrate_lane *l)
{
	for (unsigned i = 0; i < TABLE_SLOTS; i++) {
		struct table_slot *s = &w->table->head->slots[i];
		struct fan_event e;
		struct im_error why = { 0 };
		if (fan_decode(s->event, &e)) {
			uint64_t limit, offset, end;
			uint32_t file = s->file - 1;
			int rc = 0;
			if (s->file && file < w->table->head->file_count) {
				rc = hydrate_touch(w->h, file, &limit, &why);
				clamp(&e, limit, &offset, &end);
				if (rc == 0 && end > offset)
					rc = hydrate_range(w->h, l, file, offset, end - offset, HYDRATE_DEMAND, &why);
			} else {
				rc = serve_all(w, l, &e, &why);
			}
			fan_answer(w->group, e.fd, errno_of(rc)); /* the descriptor itself died with its process */
		}
		clear_slot(s);
		w->free_slots[w->free_count++] = i;
	}
}

/* --- the background --- */

static bool is_busy(const struct worker *w)
{
	return w->demands || im_monotonic_us() - w->last_demand_us < GIVE_WAY_US;
}

/* Somebody waits for the vault: let them go first, but not for ever. */
static void give_way(struct worker *w)
{
	for (int64_t until_us = im_monotonic_us() + GIVE_WAY_MAX_MS * 1000; im_monotonic_us() < until_us;) {
		if (!is_busy(w))
			return;
		im_sleep_ms(1);
	}
}

/* The next stretch in order. false: there is none. */
static bool next_place(struct worker *w, uint64_t max_bytes, uint32_t *ret_file, uint64_t *ret_offset, uint64_t *ret_len)
{
	bool found = false;
	pthread_mutex_lock(&w->place_mutex);
	while (!found && w->place_file < w->table->head->file_count) {
		const struct table_file *f = &w->table->files[w->o->order[w->place_file]];
		if (w->place_offset >= f->size || f->state != FILE_LAZY) {
			w->place_file++;
			w->place_offset = 0;
			continue;
		}
		*ret_file = w->o->order[w->place_file];
		*ret_offset = w->place_offset;
		*ret_len = f->size - w->place_offset < max_bytes ? f->size - w->place_offset : max_bytes;
		w->place_offset += *ret_len;
		found = true;
	}
	pthread_mutex_unlock(&w->place_mutex);
	return found;
}

/* Once more from the beginning, for what failed. */
static void begin_again(struct worker *w)
{
	im_sleep_ms(500);
	pthread_mutex_lock(&w->place_mutex);
	if (w->place_file >= w->table->head->file_count)
		w->place_file = w->place_offset = 0;
	pthread_mutex_unlock(&w->place_mutex);
}

static void bring_hot(struct thread *t)
{
	struct worker *w = t->w;
	for (size_t i; (i = atomic_fetch_add(&w->next_hot, HOT_RUN)) < w->o->hot_count;) {
		size_t end = i + HOT_RUN < w->o->hot_count ? i + HOT_RUN : w->o->hot_count;
		for (size_t n; i < end; i += n) { /* neighbours together */
			const struct table_touch *x = &w->o->hot[i];
			struct im_error ignored = { 0 };
			uint64_t offset = (uint64_t)x->block * TABLE_BLOCK_BYTES, left = w->table->files[x->file].size - offset;
			for (n = 1; i + n < end && x[n].file == x->file && x[n].block == x->block + n;)
				n++;
			uint64_t len = n * (uint64_t)TABLE_BLOCK_BYTES;
			hydrate_range(w->h, t->lane, x->file, offset, left < len ? left : len, HYDRATE_AHEAD, &ignored);
		}
	}
}

static void *run_background(void *context)
{
	struct thread *t = context;
	struct worker *w = t->w;
	setpriority(PRIO_PROCESS, (id_t)gettid(), NICE); /* on Linux: of this thread */
	bring_hot(t);
	for (;;) {
		uint32_t file;
		uint64_t offset, len;
		struct im_error why = { 0 };
		if (t->number % BACKGROUND && w->table->head->awaits_service) { /* the service's start needs the processors, too */
			im_sleep_ms(5);
			continue;
		}
		if (t->number % BACKGROUND)
			give_way(w); /* all but one */
		if (!next_place(w, is_busy(w) ? BACKGROUND_SMALL_BYTES : BACKGROUND_BYTES, &file, &offset, &len)) {
			begin_again(w);
			continue;
		}
		if (hydrate_range(w->h, t->lane, file, offset, len, HYDRATE_AHEAD, &why)) {
			table_trouble(w->table, "%s", why.text);
			im_sleep_ms(200);
		} else {
			sync_file_range(w->o->hydrate.fds[file], (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE); /* no burst at the end */
		}
	}
	return NULL;
}

/* --- */

static int start(struct worker *w, void *(*run)(void *), unsigned number, struct im_error *err)
{
	pthread_t thread;
	struct thread *t = calloc(1, sizeof *t); /* for as long as the process lives */
	if (!t)
		return im_fail(err, IM_ENOMEM, "out of memory");
	t->w = w;
	t->number = number;
	int rc = run == run_reader ? 0 : hydrate_lane_new(number, &t->lane, err);
	if (rc == 0 && pthread_create(&thread, NULL, run, t))
		rc = im_fail(err, IM_ENOMEM, "cannot start a thread");
	return rc;
}

static int start_all(struct worker *w, struct im_error *err)
{
	int rc = 0;
	for (unsigned i = 0; i < READERS && w->group >= 0 && rc == 0; i++)
		rc = start(w, run_reader, i, err);
	for (unsigned i = 0; i < ANSWERERS && w->group >= 0 && rc == 0; i++)
		rc = start(w, run_answerer, 1 + i, err);
	for (unsigned i = 0; i < BACKGROUND && rc == 0; i++)
		rc = start(w, run_background, 1 + ANSWERERS + i, err);
	return rc;
}

/* Where many files have become whole at once, their file systems are synced, not each file. */
static void sync_many(struct worker *w, bool *synced)
{
	const struct table *t = w->table;
	uint32_t many = 0;
	for (uint32_t i = 0; i < t->head->file_count; i++)
		many += t->files[i].state == FILE_WHOLE && !synced[i];
	for (uint32_t i = 0; many >= SYNC_MANY && i < t->head->file_count; i++) {
		if (t->files[i].state != FILE_WHOLE || synced[i])
			continue;
		/* noted first: what becomes whole meanwhile is not meant */
		for (uint32_t k = i; k < t->head->file_count; k++)
			synced[k] = synced[k] || (t->files[k].state == FILE_WHOLE && t->files[k].device == t->files[i].device);
		if (syncfs(w->o->hydrate.fds[i]))
			for (uint32_t k = i; k < t->head->file_count; k++)
				synced[k] = synced[k] && t->files[k].device != t->files[i].device;
	}
}

/* Until every file is ordinary. A file that cannot be made durable now is tried again. */
static void finish_files(struct worker *w, bool *synced)
{
	struct table_head *head = w->table->head;
	int64_t patient_until_us = 0;
	while (head->files_left) {
		bool failed = false;
		if (head->awaits_service && head->filled_bytes >= head->total_bytes && !patient_until_us)
			patient_until_us = im_monotonic_us() + PATIENCE_US;
		if (head->awaits_service && (!patient_until_us || im_monotonic_us() < patient_until_us)) {
			hydrate_wait(w->h, 20);
			continue;
		}
		sync_many(w, synced);
		for (uint32_t i = 0; i < head->file_count; i++) {
			struct im_error why = { 0 };
			if (w->table->files[i].state == FILE_WHOLE && !w->table->files[i].unsafe && hydrate_finish(w->h, i, synced[i], &why)) {
				table_trouble(w->table, "%s", why.text);
				failed = true;
			}
		}
		if (head->files_left)
			hydrate_wait(w->h, failed ? 1000 : 100);
	}
}

/* What was asked before a file became ordinary is answered before we end. */
static void answer_rest(struct worker *w)
{
	struct pollfd more = { .fd = w->group, .events = POLLIN };
	for (bool quiet = false; !quiet && w->group >= 0;) {
		bool empty = poll(&more, 1, 10) == 0;
		pthread_mutex_lock(&w->mutex);
		quiet = empty && w->free_count == TABLE_SLOTS - READERS; /* each reader has one */
		pthread_mutex_unlock(&w->mutex);
	}
}

static void *run_view(void *context)
{
	struct im_error why = { 0 };
	struct fuse_view *v = context;
	if (fuse_view_serve(v, &why))
		_exit(1);
	fuse_view_close(v);
	return NULL;
}

static int show_view(struct worker *w, const struct worker_view *shown, pthread_t *ret, struct im_error *err)
{
	const struct fuse_view_options view = { .staged = shown->staged, .target = shown->target, .hydrator = w->h, .table = w->table,
		.content = w->o->hydrate.content };
	struct fuse_view *v;
	int rc = fuse_view_unmount(shown->target, true, err); /* a predecessor's, which is dead */
	if (rc == 0)
		rc = fuse_view_open(&view, &v, err);
	if (rc == 0 && pthread_create(ret, NULL, run_view, v))
		rc = im_fail(err, IM_ENOMEM, "cannot start a thread");
	return rc;
}

static int show_views(struct worker *w, pthread_t *threads, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; i < w->o->view_count && rc == 0; i++)
		rc = show_view(w, &w->o->views[i], &threads[i], err);
	return rc;
}

int worker_run(const struct worker_options *options, struct im_error *err)
{
	struct worker *w = calloc(1, sizeof *w);
	struct hydrate_lane *lane;
	bool *synced = calloc(options->hydrate.table->head->file_count + 1, sizeof *synced);
	pthread_t *views = calloc(options->view_count + 1, sizeof *views);
	_Atomic uint32_t *last_block = calloc(options->hydrate.table->head->file_count + 1, sizeof *last_block);
	if (!w || !synced || !views || !last_block)
		return im_fail(err, IM_ENOMEM, "out of memory");
	w->o = options;
	w->last_block = last_block;
	w->table = options->hydrate.table;
	w->group = options->hydrate.group;
	pthread_mutex_init(&w->mutex, NULL);
	pthread_mutex_init(&w->place_mutex, NULL);
	pthread_cond_init(&w->work, NULL);
	pthread_cond_init(&w->room, NULL);
	table_take_over(w->table);
	int rc = hydrate_new(&options->hydrate, &w->h, err);
	if (rc == 0)
		rc = access_index_new(w->table, &w->index, err);
	if (rc == 0)
		rc = hydrate_lane_new(0, &lane, err);
	if (rc)
		return rc;
	serve_stale(w, lane);
	rc = show_views(w, views, err);
	if (rc == 0)
		rc = start_all(w, err);
	if (rc)
		return rc;
	finish_files(w, synced);
	w->table->head->hydrated_us = im_monotonic_us();
	if (options->view_count)
		w->table->head->phase = TABLE_HYDRATED; /* now somebody stops the service and unmounts the views */
	else
		answer_rest(w);
	for (size_t i = 0; i < options->view_count; i++)
		pthread_join(views[i], NULL);
	return 0;
}
