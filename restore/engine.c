/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: its stores, and what becomes of their files after the last window. Planning is one
 * thread; while a window is fetched nothing is planned. A piece knows its file and place; fetch
 * items carry the piece's number as their tag.
 */
#include "base/beneath.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "restore/beneath.h"
#include "restore/engine_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int engine_new(const struct engine_options *options, struct engine **ret, struct im_error *err)
{
	struct engine *e = calloc(1, sizeof *e);
	if (!e)
		return im_fail(err, IM_ENOMEM, "out of memory");
	e->options = *options;
	e->is_root = geteuid() == 0;
	built_init(&e->built);
	int rc = keyring_id_key(options->vault->keyring, "imvault chunk v1", e->chunk_key, err);
	if (rc == 0 && !options->dry_run)
		rc = writer_new(&e->writer, err);
	if (rc == 0 && options->lazy_bytes)
		rc = engine_lazy_init(e, err);
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
	content_free(e->content);
	for (size_t i = 0; i < e->store_count; i++) {
		struct engine_store *s = e->stores[i];
		for (size_t j = 0; j < s->damaged_map_count; j++)
			free(s->damaged_maps[j]);
		free(s->damaged_maps);
		free(s->name);
		free(s);
	}
	for (size_t i = 0; i < e->folder_count && i < ENGINE_FEW_FILES; i++)
		free(e->folders[i].path);
	built_clear(&e->built);
	crypto_wipe(e->chunk_key, sizeof e->chunk_key);
	free(e->stores);
	free(e->items);
	free(e->pieces);
	free(e->made);
	idlist_free(&e->ids);
	free(e->pack_seen);
	free(e);
}


static uint32_t base_of(struct engine *e, const struct snapshot *snapshot)
{
	for (size_t i = 0; i < e->store_count; i++)
		if (e->stores[i]->rebuild.snapshot == snapshot)
			return e->stores[i]->base;
	return e->pack_total;
}

static int make_room(
    struct engine *e, const struct snapshot *snapshot, uint32_t base, struct im_error *err)
{
	struct engine_store **grown = realloc(e->stores, (e->store_count + 1) * sizeof *grown);
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

int engine_add(struct engine *e, const struct snapshot *snapshot, json_t *manifest,
    const char *name, size_t unit, int root_fd, const char *path_filter,
    const struct rebuild_log *log, size_t *ret_store, struct im_error *err)
{
	const char *type = json_string_value(json_object_get(manifest, "type"));
	const struct store_ops *ops = type ? store_find(type) : NULL;
	if (!ops || !ops->plan)
		return im_fail(err, IM_EUSAGE,
		    "store %s is of type '%s', which this imvault does not know", name,
		    type ? type : "?");
	uint32_t base = base_of(e, snapshot);
	int rc = make_room(e, snapshot, base, err);
	struct engine_store *s = rc ? NULL : calloc(1, sizeof *s);
	if (!s || !(s->name = strdup(name))) {
		free(s);
		return rc ? rc : im_fail(err, IM_ENOMEM, "out of memory");
	}
	s->rebuild = (struct rebuild){ .snapshot = snapshot,
		.fetcher = e->options.fetcher,
		.manifest = manifest,
		.keyring = e->options.vault->keyring,
		.path_filter = path_filter,
		.events = e->options.store_events,
		.root_fd = root_fd,
		.log = log,
		.replay_us = &e->replay_us };
	engine_declare_init(&s->rebuild);
	s->engine = e;
	s->ops = ops;
	s->number = (uint32_t)e->store_count;
	s->base = base;
	s->unit = unit;
	e->stores[e->store_count] = s;
	*ret_store = e->store_count++;
	return 0;
}

static void drop_files(struct engine *e, const struct engine_store *s)
{
	for (size_t i = 0; i < e->built.count; i++)
		if (built_at(&e->built, i)->store == s->number)
			built_at(&e->built, i)->dropped = true;
}

int engine_plan(struct engine *e, size_t store, struct im_error *err)
{
	struct engine_store *s = e->stores[store];
	int rc = s->ops->plan(&s->rebuild, err);
	s->planned = true;
	if (rc == 0 && s->rebuild.log && !s->rebuild.log_taken)
		rc = im_fail(err, IM_EUSAGE,
		    "this imvault cannot lay the log of a store of this type over its snapshot; --at SNAPSHOT restores without the log");
	if (rc) {
		s->failed = true;
		drop_files(e, s);
	}
	return rc;
}

int engine_fetch(struct engine *e, struct im_error *err)
{
	e->sealed = true;
	return engine_window(e, err);
}

static int call_finish(struct engine *e, struct built_file *f, int fd, struct im_error *err)
{
	if ((!f->prove && !f->finish) || f->damaged)
		return 0;
	const char *slash = strrchr(f->writer.path, '/');
	auto_free char *folder = strndup(
	    f->writer.path, slash ? (size_t)(slash - f->writer.path) : 0);
	auto_close int parent_fd = -1;
	int rc = folder ?
	    beneath_folder(f->writer.root_fd, folder, false, false, &parent_fd, NULL, err) :
	    im_fail(err, IM_ENOMEM, "out of memory");
	if (rc)
		return rc;
	struct im_error why = { 0 };
	rc = built_prove(f, fd, &why);
	if (rc == 0 && f->finish)
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
		if (f->done || f->dropped || f->lazy)
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

int engine_dress(struct engine *e, size_t store, struct im_error *err)
{
	struct engine_store *s = e->stores[store];
	bool due = s->ops->complete && !s->dressed;
	s->dressed = true;
	return due ? s->ops->complete(&s->rebuild, err) : 0;
}

int engine_finish(struct engine *e, size_t store, bool failed, struct im_error *err)
{
	struct engine_store *s = e->stores[store];
	failed |= s->failed;
	int rc = s->planned && !failed ? engine_dress(e, store, err) : 0;
	struct im_error why = { 0 };
	int end = s->planned ? s->ops->finish(&s->rebuild, failed || rc, &why) : 0;
	if (end && rc == 0)
		rc = im_fail(err, end, "%s", why.text);
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
	auto_close int fd = im_beneath_open(root_fd, path, O_RDONLY | O_NOFOLLOW | flags, 0);
	if (fd < 0 || fsync(fd))
		return im_fail_errno(err, IM_EIO, errno, "cannot make /%s durable", path);
	return 0;
}

int engine_sync_few(struct engine *e, bool *ret_done, struct im_error *err)
{
	*ret_done = false;
	if (e->folder_count > ENGINE_FEW_FILES || e->built.count > ENGINE_FEW_FILES)
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

static void tell_file_damage(const struct built_file *f,
    void (*fn)(void *context, const struct engine_damage *d), void *context)
{
	auto_free char *path = im_format("/%s", f->writer.path);
	auto_free char *text = f->lost_bytes ?
	    im_format("%" PRIu64 " of %" PRIu64 " bytes are lost, the first at offset %" PRIu64
		      ": %s",
		f->lost_bytes, f->writer.size_bytes, f->lost_first,
		f->damage_text ? f->damage_text : "unknown") :
	    im_format("%s", f->damage_text ? f->damage_text : "damaged");
	struct engine_damage d = { path, text };
	fn(context, &d);
}

void engine_each_damage(const struct engine *e, size_t store,
    void (*fn)(void *context, const struct engine_damage *d), void *context)
{
	const struct engine_store *s = e->stores[store];
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

void engine_store_stats(
    const struct engine *e, size_t store, uint64_t *ret_files, uint64_t *ret_bytes)
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
	ret->replay_us = e->replay_us;
}
