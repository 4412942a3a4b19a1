/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces of each file by offset. A read takes those that overlap the range, in the order of the
 * packs, so that neighbours are read at once.
 */
#include "restore/instant/content.h"

#include "base/cleanup.h"
#include "restore/idlist.h"

#include <stdlib.h>
#include <string.h>

#define MADE 0xff /* not an entry type */

struct piece {
	uint64_t offset;
	struct im_ref ref;
	uint32_t len, skip, id;
	uint8_t type;
};

struct planned {
	struct built_file *built;
	struct piece *pieces;
	size_t count, cap;
	bool sorted;
};

struct content {
	struct content_options options;
	uint8_t chunk_key[32];
	struct planned *files;
	size_t count, cap;
	struct idlist ids;
	uint64_t stored;
};

struct content_lane {
	struct fetch_lane *fetch;
	struct fetch_item *items;
	size_t cap;
	unsigned number;
};

static int no_memory(struct im_error *err)
{
	return im_fail(err, IM_ENOMEM, "out of memory planning the restore");
}

int content_new(const struct content_options *options, struct content **ret, struct im_error *err)
{
	struct content *c = calloc(1, sizeof *c);
	if (!c)
		return no_memory(err);
	c->options = *options;
	memcpy(c->chunk_key, options->chunk_key, sizeof c->chunk_key);
	*ret = c;
	return 0;
}

void content_free(struct content *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->count; i++)
		free(c->files[i].pieces);
	crypto_wipe(c->chunk_key, sizeof c->chunk_key);
	free(c->files);
	idlist_free(&c->ids);
	free(c);
}

/* One more element: *array may move. */
static int grow(void **array, size_t count, size_t *cap, size_t size, struct im_error *err)
{
	if (count < *cap)
		return 0;
	size_t more = *cap ? 2 * *cap : 64;
	void *grown = reallocarray(*array, more, size);
	if (!grown)
		return no_memory(err);
	*array = grown;
	*cap = more;
	return 0;
}

int content_add(struct content *c, struct built_file *f, uint32_t *ret_number, struct im_error *err)
{
	int rc = grow((void **)&c->files, c->count, &c->cap, sizeof *c->files, err);
	if (rc)
		return rc;
	c->files[c->count] = (struct planned){ .built = f, .sorted = true };
	*ret_number = (uint32_t)c->count++;
	return 0;
}

static int add(struct content *c, uint32_t file, const struct piece *p, struct im_error *err)
{
	struct planned *f = &c->files[file];
	int rc = grow((void **)&f->pieces, f->count, &f->cap, sizeof *f->pieces, err);
	if (rc)
		return rc;
	f->sorted &= !f->count || f->pieces[f->count - 1].offset < p->offset;
	f->pieces[f->count++] = *p;
	return 0;
}

int content_piece(struct content *c, uint32_t file, uint64_t offset, uint32_t len, enum entry_type type, const struct im_ref *ref,
    uint32_t skip, const uint8_t id[32], struct im_error *err)
{
	struct piece p = { .offset = offset, .ref = *ref, .len = len, .skip = skip, .id = IDLIST_NONE, .type = (uint8_t)type };
	int rc = id ? idlist_keep(&c->ids, id, &p.id, err) : 0;
	c->stored += ref->stored;
	return rc ? rc : add(c, file, &p, err);
}

int content_made(struct content *c, uint32_t file, uint64_t offset, uint32_t len, struct im_error *err)
{
	struct piece p = { .offset = offset, .len = len, .id = IDLIST_NONE, .type = MADE };
	return add(c, file, &p, err);
}

static int compare_pieces(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

int content_seal(struct content *c, struct im_error *err)
{
	for (size_t i = 0; i < c->count; i++) {
		struct planned *f = &c->files[i];
		if (!f->sorted)
			qsort(f->pieces, f->count, sizeof *f->pieces, compare_pieces);
		f->sorted = true;
		for (size_t k = 1; k < f->count; k++)
			if (f->pieces[k].offset < f->pieces[k - 1].offset + f->pieces[k - 1].len)
				return im_fail(err, IM_ECORRUPT, "the map of /%s has two things in one place", f->built->writer.path);
	}
	return 0;
}

size_t content_count(const struct content *c)
{
	return c->count;
}

struct built_file *content_file(const struct content *c, uint32_t file)
{
	return c->files[file].built;
}

uint64_t content_stored_bytes(const struct content *c)
{
	return c->stored;
}

/* The first piece that ends behind offset. */
static size_t find(const struct planned *f, uint64_t offset)
{
	size_t low = 0, high = f->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (f->pieces[middle].offset + f->pieces[middle].len <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void content_extend(const struct content *c, uint32_t file, uint64_t *offset, uint64_t *len, uint64_t max_bytes)
{
	const struct planned *f = &c->files[file];
	uint64_t start = *offset, end = start + *len;
	size_t i = find(f, start), k = find(f, end - 1);
	if (i < f->count && f->pieces[i].offset < start && start - f->pieces[i].offset <= max_bytes)
		start = f->pieces[i].offset;
	if (k < f->count && f->pieces[k].offset < end && f->pieces[k].offset + f->pieces[k].len - end <= max_bytes)
		end = f->pieces[k].offset + f->pieces[k].len;
	*offset = start;
	*len = end - start;
}

bool content_holds(const struct content *c, uint32_t file, uint64_t offset, uint64_t len)
{
	const struct planned *f = &c->files[file];
	size_t i = find(f, offset);
	return i < f->count && f->pieces[i].offset < offset + len;
}

/* --- reading --- */

int content_lane_new(unsigned number, struct content_lane **ret, struct im_error *err)
{
	struct content_lane *l = calloc(1, sizeof *l);
	if (!l)
		return no_memory(err);
	l->number = number;
	int rc = fetch_lane_new(&l->fetch, err);
	if (rc) {
		free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

void content_lane_free(struct content_lane *l)
{
	if (!l)
		return;
	fetch_lane_free(l->fetch);
	free(l->items);
	free(l);
}

struct reading {
	const struct content *c;
	const struct content_lane *lane;
	const struct planned *f;
	uint64_t offset, len;
	uint8_t *ret;
};

/* A piece's bytes (NULL: to be made) into the part of the range it covers. */
static int take(const struct reading *r, const struct piece *p, const uint8_t *data, struct im_error *err)
{
	const struct built_file *f = r->f->built;
	if (f->transform) {
		int rc = f->transform(f->context, r->lane->number, p->offset, &data, p->len, err);
		if (rc)
			return rc;
	}
	if (!data)
		return im_fail(err, IM_ECORRUPT, "a part of /%s comes from nowhere", f->writer.path);
	uint64_t from = p->offset > r->offset ? p->offset : r->offset;
	uint64_t end = p->offset + p->len, to = end < r->offset + r->len ? end : r->offset + r->len;
	if (to > from)
		memcpy(r->ret + (from - r->offset), data + (from - p->offset), to - from);
	return 0;
}

static int sink(void *context, unsigned worker, const struct fetch_item *items, size_t count, const uint8_t *plain, size_t len,
    struct im_error *err)
{
	const struct reading *r = context;
	uint8_t id[32];
	bool have_id = false;
	(void)worker;
	for (size_t i = 0; i < count; i++) {
		const struct piece *p = &r->f->pieces[items[i].tag];
		if (p->id != IDLIST_NONE && !have_id) {
			crypto_keyed(id, r->c->chunk_key, plain, len);
			have_id = true;
		}
		if (p->id != IDLIST_NONE && !crypto_equal(id, r->c->ids.ids[p->id], sizeof id))
			return im_fail(err, IM_ECORRUPT, "a chunk in the vault is not the one the snapshot names");
		int rc = take(r, p, plain + p->skip, err);
		if (rc)
			return rc;
	}
	return 0;
}

static const struct pack_info *pack_of(void *context, uint32_t number)
{
	const struct content_options *o = &((const struct reading *)context)->c->options;
	return o->pack_of(o->context, number);
}

int content_read(const struct content *c, struct content_lane *l, uint32_t file, uint64_t offset, uint64_t len, uint8_t *ret,
    struct im_error *err)
{
	const struct planned *f = &c->files[file];
	struct reading r = { c, l, f, offset, len, ret };
	size_t count = 0;
	uint64_t at = offset; /* up to here pieces or zeros */
	for (size_t i = find(f, offset); i < f->count && f->pieces[i].offset < offset + len; i++) {
		const struct piece *p = &f->pieces[i];
		if (p->offset > at)
			memset(ret + (at - offset), 0, p->offset - at);
		at = p->offset + p->len;
		int rc = p->type == MADE ? take(&r, p, NULL, err) : grow((void **)&l->items, count, &l->cap, sizeof *l->items, err);
		if (rc)
			return rc;
		if (p->type != MADE)
			l->items[count++] = (struct fetch_item){ .ref = p->ref, .tag = i, .type = p->type };
	}
	if (at < offset + len)
		memset(ret + (at - offset), 0, offset + len - at);
	struct fetch_plan plan = { .items = l->items, .count = count, .pack_of = pack_of, .sink = sink, .context = &r };
	return count ? fetch_here(c->options.fetcher, l->fetch, &plan, err) : 0;
}
