/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stores call while they plan: files, pieces, folders, damaged maps. Everything declared is
 * checked here: paths are plain, pieces lie within their file and their entry.
 */
#include "base/beneath.h"
#include "base/cleanup.h"
#include "restore/beneath.h"
#include "restore/engine_internal.h"
#include "restore/target.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum {
	WINDOW_PIECES = 512 << 10, /* about 60 MB of plan */
};

static int declare_file(
    struct rebuild *r, const struct rebuild_file *file, uint32_t *ret_number, struct im_error *err)
{
	struct engine_store *s = (struct engine_store *)r;
	struct engine *e = s->engine;
	int rc = built_add(&e->built, file, s->number, r->root_fd, ret_number, err);
	if (rc)
		return rc;
	struct built_file *f = built_at(&e->built, *ret_number);
	f->dropped = e->options.target && target_is_covered(e->options.target, s->unit, file->path);
	f->set_owner = f->set_owner && e->is_root;
	s->files += !f->dropped;
	return engine_lazy_file(e, f, file->at_once, err);
}

static int grow_pieces(struct engine *e, struct im_error *err)
{
	size_t cap = e->piece_cap ? 2 * e->piece_cap : 4096;
	struct fetch_item *items = realloc(e->items, cap * sizeof *items);
	if (items)
		e->items = items;
	struct engine_piece *pieces = realloc(e->pieces, cap * sizeof *pieces);
	if (pieces)
		e->pieces = pieces;
	if (!items || !pieces)
		return im_fail(err, IM_ENOMEM, "out of memory planning the restore");
	e->piece_cap = cap;
	return 0;
}

static bool is_aligned(const struct built_file *f, uint64_t offset, uint32_t len)
{
	return offset % 4096 == 0 && (len % 4096 == 0 || offset + len == f->writer.size_bytes);
}

/* Whose file it is, and whether the range lies in it. *ret NULL: not wanted. */
static int check_range(struct engine_store *s, uint32_t file, uint64_t offset, uint32_t len,
    struct built_file **ret, struct im_error *err)
{
	struct engine *e = s->engine;
	struct built_file *f = file < e->built.count ? built_at(&e->built, file) : NULL;
	if (!f || f->store != s->number)
		return im_fail(err, IM_EFAIL,
		    "store %s declared a piece of a file it did not declare", s->name);
	if (offset > f->writer.size_bytes || len > f->writer.size_bytes - offset)
		return im_fail(
		    err, IM_ECORRUPT, "the map of /%s reaches beyond its end", f->writer.path);
	*ret = f->dropped || len == 0 ? NULL : f;
	return 0;
}

static void count_range(
    struct engine_store *s, struct built_file *f, uint64_t offset, uint32_t len)
{
	f->declared_bytes += len;
	f->writer.whole = f->declared_bytes >= f->writer.size_bytes;
	f->writer.unaligned |= !is_aligned(f, offset, len);
	s->bytes += len;
	s->engine->stats.planned_bytes += len;
}

static int add_piece(struct engine_store *s, struct built_file *f, const struct engine_piece *p,
    enum entry_type type, const struct im_ref *ref, const uint8_t id[32], struct im_error *err)
{
	struct engine *e = s->engine;
	if (e->options.only_lazy && !f->lazy)
		return 0;
	const struct pack_info *pack = snapshot_pack(s->rebuild.snapshot, ref->pack);
	struct im_ref where = *ref;
	where.pack = s->base + (uint32_t)(pack - s->rebuild.snapshot->packs);
	if (!e->pack_seen[where.pack]) {
		e->pack_seen[where.pack] = 1;
		e->stats.packs++;
	}
	if (f->lazy) {
		count_range(s, f, p->offset, p->len);
		e->stats.read_bytes_planned += ref->stored;
		return content_piece(e->content, f->lazy - 1, p->offset, p->len, type, &where, p->skip, e->options.check_ids ? id : NULL, err);
	}
	int rc = e->piece_count == e->piece_cap ? grow_pieces(e, err) : 0;
	struct engine_piece *mine = rc ? NULL : &e->pieces[e->piece_count];
	if (mine)
		*mine = *p;
	if (mine && id && e->options.check_ids)
		rc = idlist_keep(&e->ids, id, &mine->id, err);
	if (rc)
		return rc;
	e->items[e->piece_count] = (struct fetch_item){ .ref = where, .tag = e->piece_count, .type = (uint8_t)type };
	e->piece_count++;
	count_range(s, f, p->offset, p->len);
	f->pending++;
	return e->piece_count >= WINDOW_PIECES ? engine_window(e, err) : 0;
}

static int declare_piece(struct rebuild *r, uint32_t file, uint64_t file_offset, uint32_t len,
    enum entry_type type, const struct im_ref *ref, uint32_t skip, const uint8_t id[32],
    struct im_error *err)
{
	struct engine_store *s = (struct engine_store *)r;
	struct built_file *f;
	int rc = check_range(s, file, file_offset, len, &f, err);
	if (rc || !f)
		return rc;
	const struct pack_info *pack = snapshot_pack(r->snapshot, ref->pack);
	if (!pack || skip > ref->plain || len > ref->plain - skip) {
		built_damage(&s->engine->built, f, file_offset, len,
		    pack ? "its map points outside an entry" :
			   "its map names a pack the snapshot does not have");
		return 0;
	}
	struct engine_piece p = {
		.offset = file_offset, .file = file, .len = len, .skip = skip, .id = IDLIST_NONE
	};
	return add_piece(s, f, &p, type, ref, id, err);
}

static int declare_made(struct rebuild *r, uint32_t file, uint64_t file_offset, uint32_t len,
    struct im_error *err)
{
	struct engine_store *s = (struct engine_store *)r;
	struct engine *e = s->engine;
	struct built_file *f;
	int rc = check_range(s, file, file_offset, len, &f, err);
	if (rc || !f)
		return rc;
	IM_CHECK(f->transform);
	if (e->options.only_lazy && !f->lazy)
		return 0;
	if (f->lazy) {
		count_range(s, f, file_offset, len);
		return content_made(e->content, f->lazy - 1, file_offset, len, err);
	}
	if (e->made_count == e->made_cap) {
		size_t cap = e->made_cap ? 2 * e->made_cap : 256;
		struct engine_made *grown = realloc(e->made, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory planning the restore");
		e->made = grown;
		e->made_cap = cap;
	}
	e->made[e->made_count++] =
	    (struct engine_made){ .offset = file_offset, .file = file, .len = len };
	count_range(s, f, file_offset, len);
	f->pending++;
	return e->made_count >= WINDOW_PIECES ? engine_window(e, err) : 0;
}

static int write_now(struct rebuild *r, uint32_t file, uint64_t file_offset, const void *data,
    uint32_t len, struct im_error *err)
{
	struct engine_store *s = (struct engine_store *)r;
	struct engine *e = s->engine;
	struct built_file *f;
	int rc = check_range(s, file, file_offset, len, &f, err);
	if (rc || !f)
		return rc;
	IM_CHECK(!f->lazy);
	count_range(s, f, file_offset, len);
	if (e->options.dry_run || e->options.only_lazy)
		return 0;
	built_digest(f, 0, file_offset, data, len);
	return writer_put(e->writer, &f->writer, file_offset, data, len, err);
}

/* What is not kept is synced with the whole file system. */
static void keep_folder(struct engine *e, int root_fd, const char *path)
{
	if (e->folder_count < ENGINE_FEW_FILES) {
		char *copy = strdup(path);
		e->folders[e->folder_count] = (struct engine_folder){ copy, root_fd };
		e->folder_count = copy ? e->folder_count : ENGINE_FEW_FILES;
	}
	e->folder_count++;
}

static int declare_folder(struct rebuild *r, const char *path, struct im_error *err)
{
	struct engine_store *s = (struct engine_store *)r;
	if (!im_beneath_path_valid(path))
		return im_fail(err, IM_ECORRUPT,
		    "the snapshot names a folder '%s', which is not a plain path; it is not made",
		    path);
	if (s->engine->options.dry_run || s->engine->options.only_lazy)
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
		fd = im_beneath_open(r->root_fd, parent, O_PATH | O_DIRECTORY, 0);
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
	struct engine_store *s = (struct engine_store *)r;
	char **grown = realloc(s->damaged_maps, (s->damaged_map_count + 1) * sizeof *grown);
	if (!grown)
		return;
	s->damaged_maps = grown;
	s->damaged_maps[s->damaged_map_count] = strdup(text);
	s->damaged_map_count += s->damaged_maps[s->damaged_map_count] != NULL;
}

void engine_declare_init(struct rebuild *r)
{
	r->file = declare_file;
	r->piece = declare_piece;
	r->made = declare_made;
	r->write = write_now;
	r->folder = declare_folder;
	r->damaged = declare_damage;
}
