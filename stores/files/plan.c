/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Planning the rebuild of a tree: regular files and their pieces are declared to the restore
 * engine, folders are made, and everything that can only be done afterwards is noted for finish.
 */
#include "stores/files/plan.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "stores/files/files_store.h"
#include "stores/files/follow_lay.h"
#include "stores/files/tree.h"

#include <string.h>
#include <sys/stat.h>

/* A hard link whose first name is not among what is restored: its content must come from there. */
struct promoted {
	char *from, *path; /* member path; path below the restore root */
	size_t order;
	bool done;
};

struct planner {
	struct files_tree tree;
	struct files_later *later;
	struct promoted *promoted;
	size_t promoted_count;
	uint64_t found;
	struct im_buf extras;
	struct files_lay *lay; /* NULL: the image as it is */
	struct files_counts counts; /* of what is planned */
};

void files_later_free(struct files_later *l)
{
	if (!l)
		return;
	files_meta_lookup_free(l->lookup);
	files_lay_checks_free(l->checks);
	im_buf_free(&l->records);
	im_buf_free(&l->folders);
	free(l);
}

static void put_text(struct im_buf *b, const char *text)
{
	im_buf_put_u32(b, (uint32_t)strlen(text));
	im_buf_put(b, text, strlen(text) + 1);
}

static int note(struct planner *p, const struct files_later_item *item, struct im_error *err)
{
	struct im_buf *b = &p->later->records;
	if (item->kind == FILES_LATER_FOLDER)
		im_buf_put_u64(&p->later->folders, b->len);
	im_buf_put_u8(b, (uint8_t)item->kind);
	im_buf_put_u32(b, item->meta.mode);
	im_buf_put_u32(b, item->meta.uid);
	im_buf_put_u32(b, item->meta.gid);
	im_buf_put_u64(b, (uint64_t)item->meta.mtime.tv_sec);
	im_buf_put_u32(b, (uint32_t)item->meta.mtime.tv_nsec);
	im_buf_put_u64(b, item->device);
	put_text(b, item->path);
	put_text(b, item->target ? item->target : "");
	im_buf_put_u32(b, (uint32_t)item->extras_len);
	im_buf_put(b, item->extras, item->extras_len);
	return b->failed || p->later->folders.failed ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

bool files_later_next(struct im_reader *r, struct files_later_item *ret)
{
	struct files_later_item item = { .kind = (enum files_later_kind)im_read_u8(r) };
	item.meta.mode = im_read_u32(r);
	item.meta.uid = im_read_u32(r);
	item.meta.gid = im_read_u32(r);
	item.meta.mtime.tv_sec = (time_t)im_read_u64(r);
	item.meta.mtime.tv_nsec = (long)im_read_u32(r);
	item.device = im_read_u64(r);
	item.path = (const char *)im_read_view(r, (size_t)im_read_u32(r) + 1);
	item.target = (const char *)im_read_view(r, (size_t)im_read_u32(r) + 1);
	item.extras_len = im_read_u32(r);
	item.extras = im_read_view(r, item.extras_len);
	item.meta.set_owner = geteuid() == 0;
	if (r->failed)
		return false;
	*ret = item;
	return true;
}

/* The file's bytes that are the image's: below keep. */
static int plan_pieces(struct planner *p, const struct files_chunk *chunks, const struct files_member *m,
    uint32_t number, uint64_t keep, struct im_error *err)
{
	struct rebuild *r = p->tree.r;
	int rc = 0;
	for (size_t i = 0; i < m->piece_count && !rc; i++) {
		const struct files_piece *piece = &m->pieces[i];
		const struct files_chunk *c = &chunks[piece->chunk];
		if (piece->file_offset >= keep)
			break;
		uint32_t len = keep - piece->file_offset < piece->len ? (uint32_t)(keep - piece->file_offset) : piece->len;
		rc = r->piece(r, number, piece->file_offset, len, ENTRY_CHUNK, &c->ref, piece->skip, c->id, err);
	}
	return rc;
}

static int plan_file(struct planner *p, const struct files_chunk *chunks, const struct files_member *m,
    const char *path, uint32_t line, struct files_later_item *item, struct im_error *err)
{
	bool exact;
	uint32_t number;
	struct rebuild *r = p->tree.r;
	struct files_laid laid = { .size_bytes = m->size_bytes, .keep_bytes = m->size_bytes };
	bool is_laid = line != FILES_NO_LINE && files_lay_file(p->lay, line, true, m->size_bytes, &laid);
	if (laid.has_mtime)
		item->meta.mtime = im_timespec(laid.mtime_ns);
	struct rebuild_file file = { .path = path,
		.size_bytes = laid.size_bytes,
		.mode = item->meta.mode & 07777,
		.uid = item->meta.uid,
		.gid = item->meta.gid,
		.set_owner = item->meta.set_owner,
		.mtime_ns = files_meta_ns(&item->meta.mtime, &exact),
		.at_once = is_laid,
		.prove = laid.prove,
		.context = laid.context };
	int rc = r->file(r, &file, &number, err);
	if (!rc)
		rc = plan_pieces(p, chunks, m, number, laid.keep_bytes, err);
	if (!rc && is_laid)
		files_lay_declared(p->lay, line, number);
	if (!rc && (item->extras_len || !exact))
		rc = note(p, item, err);
	p->counts.files++;
	p->counts.bytes += laid.size_bytes;
	return rc;
}

static int promote(struct planner *p, const char *from, const char *path, struct im_error *err)
{
	struct promoted *grown = realloc(p->promoted, (p->promoted_count + 1) * sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	p->promoted = grown;
	struct promoted *x = &grown[p->promoted_count];
	*x = (struct promoted){ .from = strdup(from), .path = strdup(path), .order = p->promoted_count };
	p->promoted_count++;
	return x->from && x->path ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

static int plan_link(struct planner *p, const struct files_member *m, uint32_t line, struct files_later_item *item,
    struct im_error *err)
{
	struct files_laid laid;
	const char *where = p->lay ? files_lay_where(p->lay, m->link) : m->link;
	if (line != FILES_NO_LINE)
		files_lay_file(p->lay, line, false, 0, &laid); /* the log knows the file under its other name */
	if (!where || files_tree_select(&p->tree, where) != FILES_SELECTED)
		return promote(p, m->link, item->path, err);
	auto_free char *target = files_tree_path(&p->tree, where);
	if (!target)
		return im_fail(err, IM_ENOMEM, "out of memory");
	p->counts.others++;
	item->kind = FILES_LATER_LINK;
	item->target = target;
	return note(p, item, err);
}

/* The member m is to be made at path; line: of the log. */
static int plan_member(struct planner *p, const struct files_chunk *chunks, const struct files_member *m,
    const char *path, uint32_t line, struct im_error *err)
{
	struct files_later_item item = { .kind = FILES_LATER_FILE, .path = path };
	struct rebuild *r = p->tree.r;
	files_meta_of(&item.meta, m->entry, p->later->lookup);
	if (m->link)
		return plan_link(p, m, line, &item, err);
	p->extras.len = 0;
	files_meta_extras(&p->extras, m->entry, p->later->lookup);
	if (p->extras.failed)
		return im_fail(err, IM_ENOMEM, "out of memory");
	item.extras = p->extras.data;
	item.extras_len = p->extras.len;
	if (m->has_body)
		return plan_file(p, chunks, m, path, line, &item, err);
	if (archive_entry_filetype(m->entry) == AE_IFDIR) {
		item.kind = FILES_LATER_FOLDER;
		p->counts.dirs++;
		int rc = r->folder(r, path, err);
		return rc ? rc : note(p, &item, err);
	}
	if (archive_entry_filetype(m->entry) == AE_IFLNK) {
		item.kind = FILES_LATER_SYMLINK;
		item.target = archive_entry_symlink(m->entry);
	} else {
		item.kind = FILES_LATER_NODE;
		item.device = archive_entry_rdev(m->entry);
	}
	p->counts.others++;
	return note(p, &item, err);
}

/* The log may have it in a folder that is new, too. */
static int make_parent(struct planner *p, const char *path, struct im_error *err)
{
	const char *slash = strrchr(path, '/');
	auto_free char *parent = slash ? strndup(path, (size_t)(slash - path)) : NULL;
	if (slash && !parent)
		return im_fail(err, IM_ENOMEM, "out of memory");
	return slash ? p->tree.r->folder(p->tree.r, parent, err) : 0;
}

static int on_member(
    void *context, const struct files_chunk *chunks, const struct files_member *m, struct im_error *err)
{
	struct planner *p = context;
	const char *place = m->path;
	uint32_t line = FILES_NO_LINE;
	if (p->lay && !files_lay_place(p->lay, m, &place, &line))
		return 0;
	enum files_selection selection = files_tree_select(&p->tree, place);
	if (selection == FILES_NOT_SELECTED)
		return 0;
	auto_free char *path = files_tree_path(&p->tree, place);
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (!*path) { /* the root of everything is there already */
		p->counts.dirs++;
		return 0;
	}
	if (selection == FILES_ON_THE_WAY)
		return archive_entry_filetype(m->entry) == AE_IFDIR ? p->tree.r->folder(p->tree.r, path, err) : 0;
	p->found++;
	int rc = place == m->path ? 0 : make_parent(p, path, err);
	return rc ? rc : plan_member(p, chunks, m, path, line, err);
}

/* A file or folder that the image does not have. */
static int on_new_member(
    void *context, const struct files_member *m, const char *place, uint32_t line, struct im_error *err)
{
	struct planner *p = context;
	if (files_tree_select(&p->tree, place) != FILES_SELECTED)
		return 0;
	auto_free char *path = files_tree_path(&p->tree, place);
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	p->found++;
	int rc = make_parent(p, path, err);
	return rc ? rc : plan_member(p, NULL, m, path, line, err);
}

static int compare_promoted(const void *a, const void *b)
{
	const struct promoted *x = a, *y = b;
	int c = strcmp(x->from, y->from);
	return c ? c : x->order < y->order ? -1 : x->order > y->order;
}

/* The first name of promoted links: made at the first of them; the others become links to that. */
static int on_promoted(
    void *context, const struct files_chunk *chunks, const struct files_member *m, struct im_error *err)
{
	struct planner *p = context;
	size_t low = 0, high = p->promoted_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strcmp(p->promoted[middle].from, m->path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (m->link || low == p->promoted_count || strcmp(p->promoted[low].from, m->path) || p->promoted[low].done)
		return 0;
	p->promoted[low].done = true;
	int rc = plan_member(p, chunks, m, p->promoted[low].path, FILES_NO_LINE, err);
	for (size_t i = low + 1; !rc && i < p->promoted_count && !strcmp(p->promoted[i].from, m->path); i++) {
		struct files_later_item item = {
			.kind = FILES_LATER_LINK, .path = p->promoted[i].path, .target = p->promoted[low].path
		};
		files_meta_of(&item.meta, m->entry, p->later->lookup);
		p->counts.others++;
		rc = note(p, &item, err);
	}
	return rc;
}

/* What the check of the rebuilt tree compares with. */
static void update_counts(struct planner *p)
{
	json_t *m = p->tree.r->manifest;
	json_object_set_new(m, "files", json_integer((json_int_t)p->counts.files));
	json_object_set_new(m, "dirs", json_integer((json_int_t)p->counts.dirs));
	json_object_set_new(m, "others", json_integer((json_int_t)p->counts.others));
	json_object_set_new(m, "bytes", json_integer((json_int_t)p->counts.bytes));
}

static int plan_log(struct planner *p, struct im_error *err)
{
	int64_t start_us = im_monotonic_us();
	int rc = files_lay_write(p->lay, on_new_member, p, err);
	rebuild_replayed(p->tree.r, start_us);
	if (rc)
		return rc;
	files_lay_warn(p->lay, p->tree.name);
	p->later->checks = files_lay_checks(p->lay);
	if (!p->tree.filter && !p->tree.nothing)
		update_counts(p);
	return 0;
}

static int plan_all(struct planner *p, struct im_error *err)
{
	int64_t start_us = im_monotonic_us();
	int rc = files_lay_new(p->tree.r, &p->lay, err);
	rebuild_replayed(p->tree.r, start_us);
	if (!rc)
		rc = files_tree_each(&p->tree, on_member, p, err);
	if (!rc && p->promoted_count) {
		size_t damaged = p->tree.damaged_count;
		qsort(p->promoted, p->promoted_count, sizeof *p->promoted, compare_promoted);
		rc = files_tree_each(&p->tree, on_promoted, p, err);
		p->tree.damaged_count = damaged;
	}
	if (!rc && p->lay)
		rc = plan_log(p, err);
	if (!rc && p->tree.filter && !p->found && !p->tree.damaged_count)
		rc = im_fail(
		    err, IM_ENOTFOUND, "%s is not in store %s of this snapshot", p->tree.r->path_filter, p->tree.name);
	return rc;
}

int files_plan(struct rebuild *r, struct im_error *err)
{
	struct planner p = { .later = calloc(1, sizeof *p.later) };
	if (!p.later || !(p.later->lookup = files_meta_lookup_new())) {
		files_later_free(p.later);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	int rc = files_tree_init(&p.tree, r, err);
	if (!rc)
		rc = plan_all(&p, err);
	for (size_t i = 0; i < p.promoted_count; i++) {
		free(p.promoted[i].from);
		free(p.promoted[i].path);
	}
	free(p.promoted);
	im_buf_free(&p.extras);
	files_lay_free(p.lay);
	files_tree_clear(&p.tree);
	if (rc) {
		files_later_free(p.later);
		return rc;
	}
	r->store_data = p.later;
	return 0;
}
