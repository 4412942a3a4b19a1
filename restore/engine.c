/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine. Planning is one thread; while a window is fetched nothing is planned. A piece knows
 * its file and place; fetch items carry the piece's number as their tag.
 */
#include "restore/engine.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "restore/beneath.h"
#include "restore/built.h"
#include "restore/target.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
	WINDOW_PIECES = 512 << 10,       /* about 60 MB of plan */
	WINDOW_BYTES = 48 << 20,         /* fits the writer's blocks */
	WINDOW_SWITCHES = 16,            /* from pack to pack: more than this is no sequential plan */
	PROGRESS_BYTES = 4 << 20,
	FEW_FILES = 256,                 /* up to this many files and folders are fsynced one by one */
	SAMPLE_BYTES = 8 << 20
};

struct piece {
	uint64_t offset;
	uint32_t file, len, skip;
	uint32_t id; /* row of ids, or NO_ID */
};
#define NO_ID UINT32_MAX

struct store {
	struct rebuild rebuild; /* first: the store kinds see only this */
	struct engine *engine;
	const struct store_ops *ops;
	char *name;
	uint32_t number, base; /* base: engine's number of the first pack of its snapshot */
	size_t unit;
	uint64_t files, bytes;
	bool failed, planned;
	char **damaged_maps;
	size_t damaged_map_count;
};

struct folder {
	char *path;
	int root_fd;
};

struct engine {
	struct engine_options options;
	struct store **stores;
	size_t store_count;
	struct built built;
	struct writer *writer;
	uint8_t chunk_key[32];
	struct fetch_item *items;
	struct piece *pieces;
	size_t piece_count, piece_cap;
	uint8_t (*ids)[32];
	size_t id_count, id_cap;
	uint64_t window_bytes, switches;
	uint32_t last_pack;
	bool sealed; /* nothing more will be declared */
	bool told;   /* of the first window */
	struct folder folders[FEW_FILES];
	size_t folder_count; /* may be more than are kept */
	uint8_t *pack_seen; /* by the engine's pack numbers */
	uint32_t pack_total;
	_Atomic uint64_t done_bytes;
	struct fetch_item *sample;
	size_t sample_count;
	struct engine_stats stats;
};

int engine_new(const struct engine_options *options, struct engine **ret, struct im_error *err)
{
	struct engine *e = calloc(1, sizeof *e);
	if (!e)
		return im_fail(err, IM_ENOMEM, "out of memory");
	e->options = *options;
	built_init(&e->built);
	int rc = keyring_id_key(options->vault->keyring, "imvault chunk v1", e->chunk_key, err);
	if (rc == 0 && !options->dry_run)
		rc = writer_new(&e->writer, err);
	if (rc) {
		engine_free(e);
		return rc;
	}
	*ret = e;
	return 0;
}

void engine_free(struct engine *e)
{
	if (!e)
		return;
	writer_free(e->writer);
	for (size_t i = 0; i < e->store_count; i++) {
		struct store *s = e->stores[i];
		for (size_t j = 0; j < s->damaged_map_count; j++)
			free(s->damaged_maps[j]);
		free(s->damaged_maps);
		free(s->name);
		free(s);
	}
	for (size_t i = 0; i < e->folder_count && i < FEW_FILES; i++)
		free(e->folders[i].path);
	built_clear(&e->built);
	crypto_wipe(e->chunk_key, sizeof e->chunk_key);
	free(e->stores);
	free(e->items);
	free(e->pieces);
	free(e->ids);
	free(e->pack_seen);
	free(e->sample);
	free(e);
}

/* Fetching a window. */

static const struct pack_info *pack_of(void *context, uint32_t number)
{
	struct engine *e = context;
	for (size_t i = 0; i < e->store_count; i++) {
		const struct store *s = e->stores[i];
		if (number >= s->base && number - s->base < s->rebuild.snapshot->pack_count)
			return &s->rebuild.snapshot->packs[number - s->base];
	}
	return NULL;
}

static void progress(struct engine *e, uint64_t len)
{
	uint64_t before = atomic_fetch_add(&e->done_bytes, len);
	const struct restore_events *ev = e->options.events;
	if (ev && ev->progress && before / PROGRESS_BYTES != (before + len) / PROGRESS_BYTES)
		ev->progress(ev->context, before + len, e->options.total_bytes);
}

/* A small file that came in one piece is finished at once. */
static int write_whole(struct engine *e, struct built_file *f, const uint8_t *data, size_t len, struct im_error *err)
{
	auto_close int fd = -1;
	int rc = writer_put_whole(e->writer, &f->writer, data, len, &fd, err);
	if (rc == 0)
		rc = built_set_metadata(&e->built, f, fd, err);
	f->done = rc == 0;
	return rc;
}

static int write_piece(struct engine *e, unsigned worker, const struct piece *p, const uint8_t *plain, struct im_error *err)
{
	struct built_file *f = built_at(&e->built, p->file);
	if (f->dropped)
		return 0;
	if (f->on_bytes)
		f->on_bytes(f->context, worker, p->offset, plain + p->skip, p->len);
	progress(e, p->len);
	bool whole = e->sealed && !f->finish && !f->writer.made && p->len == f->writer.size_bytes && f->pending == 1;
	int rc = whole ? write_whole(e, f, plain + p->skip, p->len, err) :
	                 writer_put(e->writer, &f->writer, p->offset, plain + p->skip, p->len, err);
	atomic_fetch_sub(&f->pending, 1);
	return rc;
}

static void lose(struct engine *e, const struct piece *p, const char *text)
{
	struct built_file *f = built_at(&e->built, p->file);
	built_damage(&e->built, f, p->offset, p->len, text);
	atomic_fetch_sub(&f->pending, 1);
}

static int sink(void *context, unsigned worker, const struct fetch_item *items, size_t count, const uint8_t *plain, size_t len, struct im_error *err)
{
	struct engine *e = context;
	uint8_t id[32];
	bool have_id = false;
	for (size_t i = 0; i < count; i++) {
		const struct piece *p = &e->pieces[items[i].tag];
		if (p->id != NO_ID && !have_id) {
			crypto_keyed(id, e->chunk_key, plain, len);
			have_id = true;
		}
		if (p->id != NO_ID && !crypto_equal(id, e->ids[p->id], sizeof id)) {
			lose(e, p, "a chunk in the vault is not the one the snapshot names");
			continue;
		}
		int rc = write_piece(e, worker, p, plain, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int on_damage(void *context, const struct fetch_item *items, size_t count, const struct im_error *why, struct im_error *err)
{
	struct engine *e = context;
	(void)err;
	for (size_t i = 0; i < count; i++)
		lose(e, &e->pieces[items[i].tag], why->text);
	return 0;
}

static int compare_refs(const void *a, const void *b)
{
	const struct fetch_item *x = a, *y = b;
	if (x->ref.pack != y->ref.pack)
		return x->ref.pack < y->ref.pack ? -1 : 1;
	return x->ref.offset < y->ref.offset ? -1 : x->ref.offset > y->ref.offset;
}

/* Keeps a stretch from the middle of the plan: what lies at its start is often special. */
static int keep_sample(struct engine *e, size_t count, struct im_error *err)
{
	size_t first = count / 3, n = 0;
	uint64_t bytes = 0;
	while (first + n < count && bytes < SAMPLE_BYTES)
		bytes += e->items[first + n++].ref.stored;
	e->sample = calloc(n ? n : 1, sizeof *e->sample);
	if (!e->sample)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (n)
		memcpy(e->sample, e->items + first, n * sizeof *e->sample);
	e->sample_count = n;
	return 0;
}

static void count_reads(struct engine *e)
{
	qsort(e->items, e->piece_count, sizeof *e->items, compare_refs);
	for (size_t i = 0; i < e->piece_count; i++)
		if (i == 0 || compare_refs(&e->items[i - 1], &e->items[i]))
			e->stats.read_bytes_planned += e->items[i].ref.stored;
}

static int count_window(struct engine *e, struct im_error *err)
{
	count_reads(e);
	return e->sample ? 0 : keep_sample(e, e->piece_count, err);
}

static void add_stats(struct fetch_stats *sum, const struct fetch_stats *s)
{
	sum->read_bytes += s->read_bytes;
	sum->plain_bytes += s->plain_bytes;
	sum->reads += s->reads;
	sum->read_us += s->read_us;
	sum->decode_us += s->decode_us;
	sum->sink_us += s->sink_us;
}

static int fetch_window(struct engine *e, struct im_error *err)
{
	struct fetch_plan plan = { .items = e->items, .count = e->piece_count, .pack_of = pack_of,
		.sink = sink, .damage = on_damage, .context = e };
	struct fetch_stats stats = { 0 };
	struct im_error fetching = { 0 }, writing = { 0 };
	int rc = fetch_run(e->options.fetcher, &plan, &stats, &fetching);
	int rc_write = writer_drain(e->writer, &writing);
	add_stats(&e->stats.fetch, &stats);
	if (rc_write) /* the cause; fetching then only reports that it was stopped */
		return im_fail(err, rc_write, "%s", writing.text);
	return rc ? im_fail(err, rc, "%s", fetching.text) : 0;
}

static void tell_first_window(struct engine *e)
{
	if (e->told || e->options.dry_run || !e->options.first_window)
		return;
	e->told = true;
	if (e->sealed) /* before the one fetch of a plan that is whole: nothing of it was counted */
		count_reads(e);
	e->options.first_window(e->options.context, e->sealed);
}

static int flush(struct engine *e, struct im_error *err)
{
	tell_first_window(e);
	int64_t start = im_monotonic_us();
	int rc = im_interrupt_check(err);
	if (rc == 0 && e->piece_count)
		rc = e->options.dry_run ? count_window(e, err) : fetch_window(e, err);
	e->piece_count = e->id_count = 0;
	e->window_bytes = e->switches = 0;
	e->stats.fetch_us += (uint64_t)(im_monotonic_us() - start);
	return rc;
}

/* struct rebuild. */

static int declare_file(struct rebuild *r, const struct rebuild_file *file, uint32_t *ret_number, struct im_error *err)
{
	struct store *s = (struct store *)r;
	struct engine *e = s->engine;
	int rc = built_add(&e->built, file, s->number, r->root_fd, ret_number, err);
	if (rc)
		return rc;
	struct built_file *f = built_at(&e->built, *ret_number);
	f->dropped = e->options.target && target_is_covered(e->options.target, s->unit, file->path);
	f->set_owner = f->set_owner && geteuid() == 0;
	s->files += !f->dropped;
	return 0;
}

static int grow_pieces(struct engine *e, struct im_error *err)
{
	size_t cap = e->piece_cap ? 2 * e->piece_cap : 4096;
	struct fetch_item *items = realloc(e->items, cap * sizeof *items);
	if (items)
		e->items = items;
	struct piece *pieces = realloc(e->pieces, cap * sizeof *pieces);
	if (pieces)
		e->pieces = pieces;
	if (!items || !pieces)
		return im_fail(err, IM_ENOMEM, "out of memory planning the restore");
	e->piece_cap = cap;
	return 0;
}

static int keep_id(struct engine *e, const uint8_t id[32], uint32_t *ret, struct im_error *err)
{
	/* pieces of one chunk mostly follow each other */
	if (e->id_count && memcmp(e->ids[e->id_count - 1], id, 32) == 0) {
		*ret = (uint32_t)e->id_count - 1;
		return 0;
	}
	if (e->id_count == e->id_cap) {
		size_t cap = e->id_cap ? 2 * e->id_cap : 1024;
		uint8_t(*ids)[32] = realloc(e->ids, cap * sizeof *ids);
		if (!ids)
			return im_fail(err, IM_ENOMEM, "out of memory planning the restore");
		e->ids = ids;
		e->id_cap = cap;
	}
	memcpy(e->ids[e->id_count], id, 32);
	*ret = (uint32_t)e->id_count++;
	return 0;
}

static bool is_aligned(const struct built_file *f, uint64_t offset, uint32_t len)
{
	return offset % 4096 == 0 && (len % 4096 == 0 || offset + len == f->writer.size_bytes);
}

static int add_piece(struct store *s, struct built_file *f, const struct piece *p, enum entry_type type, const struct im_ref *ref,
    const uint8_t id[32], struct im_error *err)
{
	struct engine *e = s->engine;
	int rc = e->piece_count == e->piece_cap ? grow_pieces(e, err) : 0;
	struct piece *mine = rc ? NULL : &e->pieces[e->piece_count];
	if (mine)
		*mine = *p;
	if (mine && id && e->options.check_ids)
		rc = keep_id(e, id, &mine->id, err);
	if (rc)
		return rc;
	const struct pack_info *pack = snapshot_pack(s->rebuild.snapshot, ref->pack);
	struct fetch_item *item = &e->items[e->piece_count];
	*item = (struct fetch_item){ .ref = *ref, .tag = e->piece_count, .type = (uint8_t)type };
	item->ref.pack = s->base + (uint32_t)(pack - s->rebuild.snapshot->packs);
	e->switches += item->ref.pack != e->last_pack;
	e->last_pack = item->ref.pack;
	if (!e->pack_seen[item->ref.pack]) {
		e->pack_seen[item->ref.pack] = 1;
		e->stats.packs++;
	}
	e->piece_count++;
	e->window_bytes += p->len;
	f->declared_bytes += p->len;
	f->writer.whole = f->declared_bytes >= f->writer.size_bytes;
	f->writer.unaligned |= !is_aligned(f, p->offset, p->len);
	f->pending++;
	s->bytes += p->len;
	e->stats.planned_bytes += p->len;
	bool full = e->piece_count >= WINDOW_PIECES || (e->window_bytes >= WINDOW_BYTES && e->switches > WINDOW_SWITCHES);
	return full ? flush(e, err) : 0;
}

static int declare_piece(struct rebuild *r, uint32_t file, uint64_t file_offset, uint32_t len, enum entry_type type,
    const struct im_ref *ref, uint32_t skip, const uint8_t id[32], struct im_error *err)
{
	struct store *s = (struct store *)r;
	struct engine *e = s->engine;
	struct built_file *f = file < e->built.count ? built_at(&e->built, file) : NULL;
	if (!f || f->store != s->number)
		return im_fail(err, IM_EFAIL, "store %s declared a piece of a file it did not declare", s->name);
	if (f->dropped || len == 0)
		return 0;
	if (file_offset > f->writer.size_bytes || len > f->writer.size_bytes - file_offset)
		return im_fail(err, IM_ECORRUPT, "the map of /%s reaches beyond its end", f->writer.path);
	const struct pack_info *pack = snapshot_pack(r->snapshot, ref->pack);
	if (!pack || skip > ref->plain || len > ref->plain - skip) {
		built_damage(&e->built, f, file_offset, len, pack ? "its map points outside an entry" : "its map names a pack the snapshot does not have");
		return 0;
	}
	struct piece p = { .offset = file_offset, .file = file, .len = len, .skip = skip, .id = NO_ID };
	return add_piece(s, f, &p, type, ref, id, err);
}

/* What is not kept is synced with the whole file system. */
static void keep_folder(struct engine *e, int root_fd, const char *path)
{
	if (e->folder_count < FEW_FILES) {
		char *copy = strdup(path);
		e->folders[e->folder_count] = (struct folder){ copy, root_fd };
		e->folder_count = copy ? e->folder_count : FEW_FILES;
	}
	e->folder_count++;
}

static int declare_folder(struct rebuild *r, const char *path, struct im_error *err)
{
	struct store *s = (struct store *)r;
	if (!beneath_path_valid(path))
		return im_fail(err, IM_ECORRUPT, "the snapshot names a folder '%s', which is not a plain path; it is not made", path);
	if (s->engine->options.dry_run)
		return 0;
	keep_folder(s->engine, r->root_fd, path);
	const char *slash = strrchr(path, '/');
	auto_free char *parent = strndup(path, slash ? (size_t)(slash - path) : 0);
	auto_close int fd = -1;
	if (!parent)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (!*parent)
		fd = dup(r->root_fd);
	else
		fd = beneath_open(r->root_fd, parent, O_PATH | O_DIRECTORY, 0);
	if (fd < 0 && errno == ENOENT) {
		int rc = beneath_folder(r->root_fd, parent, false, true, &fd, NULL, err);
		if (rc)
			return rc;
	}
	if (fd < 0 || (mkdirat(fd, slash ? slash + 1 : path, 0700) && errno != EEXIST))
		return im_fail_errno(err, IM_EIO, errno, "cannot make folder /%s", path);
	return 0;
}

static void declare_damage(struct rebuild *r, const char *text)
{
	struct store *s = (struct store *)r;
	char **grown = realloc(s->damaged_maps, (s->damaged_map_count + 1) * sizeof *grown);
	if (!grown)
		return;
	s->damaged_maps = grown;
	s->damaged_maps[s->damaged_map_count] = strdup(text);
	s->damaged_map_count += s->damaged_maps[s->damaged_map_count] != NULL;
}

static uint32_t base_of(struct engine *e, const struct snapshot *snapshot)
{
	for (size_t i = 0; i < e->store_count; i++)
		if (e->stores[i]->rebuild.snapshot == snapshot)
			return e->stores[i]->base;
	return e->pack_total;
}

static int make_room(struct engine *e, const struct snapshot *snapshot, uint32_t base, struct im_error *err)
{
	struct store **grown = realloc(e->stores, (e->store_count + 1) * sizeof *grown);
	if (grown)
		e->stores = grown;
	size_t total = base + snapshot->pack_count;
	total = total > e->pack_total ? total : e->pack_total;
	uint8_t *seen = total < UINT32_MAX ? realloc(e->pack_seen, total + 1) : NULL;
	if (seen) {
		memset(seen + e->pack_total, 0, total + 1 - e->pack_total);
		e->pack_seen = seen;
		e->pack_total = (uint32_t)total;
	}
	return grown && seen ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

int engine_add(struct engine *e, const struct snapshot *snapshot, json_t *manifest, const char *name, size_t unit,
    int root_fd, const char *path_filter, size_t *ret_store, struct im_error *err)
{
	const char *type = json_string_value(json_object_get(manifest, "type"));
	const struct store_ops *ops = type ? store_find(type) : NULL;
	if (!ops || !ops->plan)
		return im_fail(err, IM_EUSAGE, "store %s is of type '%s', which this imvault does not know", name, type ? type : "?");
	uint32_t base = base_of(e, snapshot);
	int rc = make_room(e, snapshot, base, err);
	struct store *s = rc ? NULL : calloc(1, sizeof *s);
	if (!s || !(s->name = strdup(name))) {
		free(s);
		return rc ? rc : im_fail(err, IM_ENOMEM, "out of memory");
	}
	s->rebuild = (struct rebuild){ .snapshot = snapshot, .fetcher = e->options.fetcher, .manifest = manifest,
		.keyring = e->options.vault->keyring, .path_filter = path_filter, .events = e->options.store_events, .file = declare_file, .piece = declare_piece,
		.folder = declare_folder, .damaged = declare_damage, .root_fd = root_fd };
	s->engine = e;
	s->ops = ops;
	s->number = (uint32_t)e->store_count;
	s->base = base;
	s->unit = unit;
	e->stores[e->store_count] = s;
	*ret_store = e->store_count++;
	return 0;
}

static void drop_files(struct engine *e, const struct store *s)
{
	for (size_t i = 0; i < e->built.count; i++)
		if (built_at(&e->built, i)->store == s->number)
			built_at(&e->built, i)->dropped = true;
}

int engine_plan(struct engine *e, size_t store, struct im_error *err)
{
	struct store *s = e->stores[store];
	int rc = s->ops->plan(&s->rebuild, err);
	s->planned = true;
	if (rc) {
		s->failed = true;
		drop_files(e, s);
	}
	return rc;
}

int engine_fetch(struct engine *e, struct im_error *err)
{
	e->sealed = true;
	return flush(e, err);
}

static int call_finish(struct engine *e, struct built_file *f, int fd, struct im_error *err)
{
	if (!f->finish || f->damaged)
		return 0;
	const char *slash = strrchr(f->writer.path, '/');
	auto_free char *folder = strndup(f->writer.path, slash ? (size_t)(slash - f->writer.path) : 0);
	auto_close int parent_fd = -1;
	int rc = folder ? beneath_folder(f->writer.root_fd, folder, false, false, &parent_fd, NULL, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc)
		return rc;
	struct im_error why = { 0 };
	rc = f->finish(f->context, fd, parent_fd, slash ? slash + 1 : f->writer.path, &why);
	if (rc == IM_ECORRUPT || rc == IM_EDIFFERENT) {
		built_damage(&e->built, f, 0, 0, why.text);
		return 0;
	}
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

int engine_complete(struct engine *e, struct im_error *err)
{
	for (size_t i = 0; i < e->built.count; i++) {
		struct built_file *f = built_at(&e->built, i);
		if (f->done || f->dropped)
			continue;
		auto_close int fd = -1;
		int rc = im_interrupt_check(err);
		if (rc == 0)
			rc = writer_reopen(e->writer, &f->writer, &fd, err);
		if (rc == 0)
			rc = call_finish(e, f, fd, err);
		if (rc == 0)
			rc = built_set_metadata(&e->built, f, fd, err);
		if (rc)
			return rc;
		f->done = true;
	}
	return 0;
}

int engine_finish(struct engine *e, size_t store, bool failed, struct im_error *err)
{
	struct store *s = e->stores[store];
	int rc = s->planned && s->ops->finish ? s->ops->finish(&s->rebuild, failed || s->failed, err) : 0;
	s->planned = false;
	for (size_t i = 0; i < e->built.count && rc == 0 && !failed; i++) {
		struct built_file *f = built_at(&e->built, i);
		if (f->store == s->number && f->damaged && !f->dropped)
			rc = built_rename_damaged(f, err);
	}
	return rc;
}

static int sync_path(int root_fd, const char *path, int flags, struct im_error *err)
{
	auto_close int fd = beneath_open(root_fd, path, O_RDONLY | O_NOFOLLOW | flags, 0);
	if (fd < 0 || fsync(fd))
		return im_fail_errno(err, IM_EIO, errno, "cannot make /%s durable", path);
	return 0;
}

int engine_sync_few(struct engine *e, bool *ret_done, struct im_error *err)
{
	*ret_done = false;
	if (e->folder_count > FEW_FILES || e->built.count > FEW_FILES)
		return 0;
	int rc = 0;
	for (size_t i = 0; i < e->built.count && rc == 0; i++) {
		const struct built_file *f = built_at(&e->built, i);
		/* a damaged file has another name by now and is no success anyway */
		if (!f->dropped && !f->damaged)
			rc = sync_path(f->writer.root_fd, f->writer.path, O_NONBLOCK, err);
	}
	for (size_t i = e->folder_count; i-- > 0 && rc == 0;)
		rc = sync_path(e->folders[i].root_fd, e->folders[i].path, O_DIRECTORY, err);
	*ret_done = rc == 0;
	return rc;
}

static void tell_file_damage(const struct built_file *f, void (*fn)(void *context, const struct engine_damage *d), void *context)
{
	auto_free char *path = im_format("/%s", f->writer.path);
	auto_free char *text = f->lost_bytes ?
	    im_format("%" PRIu64 " of %" PRIu64 " bytes are lost, the first at offset %" PRIu64 ": %s", f->lost_bytes, f->writer.size_bytes,
	        f->lost_first, f->damage_text ? f->damage_text : "unknown") :
	    im_format("%s", f->damage_text ? f->damage_text : "damaged");
	struct engine_damage d = { path, text };
	fn(context, &d);
}

void engine_each_damage(const struct engine *e, size_t store, void (*fn)(void *context, const struct engine_damage *d), void *context)
{
	const struct store *s = e->stores[store];
	for (size_t i = 0; i < s->damaged_map_count; i++)
		fn(context, &(struct engine_damage){ NULL, s->damaged_maps[i] });
	for (size_t i = 0; i < e->built.count; i++) {
		const struct built_file *f = built_at(&e->built, i);
		if (f->store == s->number && f->damaged && !f->dropped)
			tell_file_damage(f, fn, context);
	}
}

static void count_damage(void *context, const struct engine_damage *d)
{
	(void)d;
	++*(uint64_t *)context;
}

uint64_t engine_damage_count(const struct engine *e, size_t store)
{
	uint64_t n = 0;
	engine_each_damage(e, store, count_damage, &n);
	return n;
}

void engine_store_stats(const struct engine *e, size_t store, uint64_t *ret_files, uint64_t *ret_bytes)
{
	*ret_files = e->stores[store]->files;
	*ret_bytes = e->stores[store]->bytes;
}

void engine_get_stats(const struct engine *e, struct engine_stats *ret)
{
	*ret = e->stats;
	ret->files = e->built.count;
	ret->write_us = e->stats.fetch.sink_us + (e->writer ? writer_busy_us(e->writer) : 0);
	ret->refused_owners = e->built.refused_owners;
}

static int drop_sample(void *context, unsigned worker, const struct fetch_item *items, size_t count, const uint8_t *plain, size_t len, struct im_error *err)
{
	(void)context, (void)worker, (void)items, (void)count, (void)plain, (void)len, (void)err;
	return 0;
}

static int drop_sample_damage(void *context, const struct fetch_item *items, size_t count, const struct im_error *why, struct im_error *err)
{
	(void)context, (void)items, (void)count, (void)why, (void)err;
	return 0;
}

int engine_sample(struct engine *e, double *ret_plain_rate, double *ret_read_rate, struct im_error *err)
{
	struct fetch_plan plan = { .items = e->sample, .count = e->sample_count, .pack_of = pack_of,
		.sink = drop_sample, .damage = drop_sample_damage, .context = e };
	struct fetch_stats stats = { 0 };
	int64_t start = im_monotonic_us();
	int rc = e->sample_count ? fetch_run(e->options.fetcher, &plan, &stats, err) : 0;
	double us = (double)(im_monotonic_us() - start + 1);
	*ret_plain_rate = (double)stats.plain_bytes * 1e6 / us;
	*ret_read_rate = (double)stats.read_bytes * 1e6 / us;
	return rc;
}
