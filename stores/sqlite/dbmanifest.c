/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests of databases. Every number is bounded before it is used: page sizes are powers of two,
 * leaves are exactly as many as the pages need, paths cannot leave the restore root.
 */
#include "stores/sqlite/dbmanifest.h"

#include "stores/sqlite/dbheader.h"
#include "stores/sqlite/remember.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#define JOURNAL_MAX_BYTES (UINT64_C(1) << 40)

static bool path_valid(const char *path)
{
	if (!path || path[0] != '/' || !path[1] || strlen(path) >= PATH_MAX - 16)
		return false;
	for (const char *p = path; *p;) {
		const char *part = p + 1, *end = strchrnul(part, '/');
		size_t n = (size_t)(end - part);
		if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
			return false;
		p = end;
	}
	return true;
}

static bool get_uint(const json_t *o, const char *key, uint64_t max, uint64_t *ret)
{
	const json_t *v = json_object_get(o, key);
	json_int_t n = json_integer_value(v);
	if (!json_is_integer(v) || n < 0 || (uint64_t)n > max)
		return false;
	*ret = (uint64_t)n;
	return true;
}

static int get_refs(const json_t *o, const char *key, struct im_ref **ret, size_t *ret_count, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	const char *text = json_string_value(json_object_get(o, key));
	if (!text || !im_unbase64(&b, text) || b.len % REF_BYTES)
		return im_fail(err, IM_ECORRUPT, "the snapshot's %s are malformed", key);
	size_t count = b.len / REF_BYTES;
	struct im_ref *refs = calloc(count ? count : 1, sizeof *refs);
	if (!refs)
		return im_fail(err, IM_ENOMEM, "out of memory");
	struct im_reader r = im_reader_of(b.data, b.len);
	for (size_t i = 0; i < count; i++)
		refs[i] = ref_read(&r);
	*ret = refs;
	*ret_count = count;
	return 0;
}

static bool decode_metadata(const json_t *o, struct dbmanifest *m)
{
	uint64_t mode, uid, gid;
	if (!get_uint(o, "mode", 07777, &mode) || !get_uint(o, "uid", UINT32_MAX, &uid) || !get_uint(o, "gid", UINT32_MAX, &gid))
		return false;
	m->mode = (unsigned)mode;
	m->uid = (uint32_t)uid;
	m->gid = (uint32_t)gid;
	m->user = json_string_value(json_object_get(o, "user"));
	m->group = json_string_value(json_object_get(o, "group"));
	m->mtime_ns = json_integer_value(json_object_get(o, "mtime_ns"));
	m->wal = json_is_true(json_object_get(o, "wal"));
	m->probes = json_object_get(o, "probes");
	return true;
}

static bool decode_sizes(const json_t *o, struct dbmanifest *m)
{
	uint64_t page_size, pages, leaf_pages, bytes;
	if (!get_uint(o, "page_size", 65536, &page_size) || !dbheader_page_size_valid(page_size) ||
	    !get_uint(o, "pages", UINT32_MAX - 1, &pages) ||
	    !get_uint(o, "leaf_pages", LEAFMAP_PAGES, &leaf_pages) || leaf_pages != LEAFMAP_PAGES ||
	    !get_uint(o, "file_bytes", INT64_MAX, &bytes) || bytes != pages * page_size)
		return false;
	m->page_size = (uint32_t)page_size;
	m->pages = (uint32_t)pages;
	m->file_bytes = bytes;
	return true;
}

static int decode_journal(const json_t *o, struct dbmanifest *m, struct im_error *err)
{
	if (!json_object_get(o, "journal"))
		return 0;
	int rc = get_refs(o, "journal", &m->journal, &m->journal_count, err);
	if (rc)
		return rc;
	uint64_t sum = 0;
	for (size_t i = 0; i < m->journal_count; i++)
		sum += m->journal[i].plain;
	if (!get_uint(o, "journal_bytes", JOURNAL_MAX_BYTES, &m->journal_bytes) || sum != m->journal_bytes)
		return im_fail(err, IM_ECORRUPT, "the snapshot's journal of %s is malformed", m->path);
	return 0;
}

static int decode(const json_t *o, struct dbmanifest *m, struct im_error *err)
{
	m->path = json_string_value(json_object_get(o, "path"));
	if (!path_valid(m->path))
		return im_fail(err, IM_ECORRUPT, "the snapshot names an impossible path for a database");
	const char *checksum = json_string_value(json_object_get(o, "checksum"));
	if (!decode_sizes(o, m) || !decode_metadata(o, m) || !checksum || !im_unhex(m->checksum, sizeof m->checksum, checksum))
		return im_fail(err, IM_ECORRUPT, "the snapshot's description of %s is malformed", m->path);
	size_t count = 0;
	int rc = get_refs(o, "leaves", &m->leaves, &count, err);
	if (rc == 0 && count != remember_leaf_count(m->pages))
		rc = im_fail(err, IM_ECORRUPT, "the snapshot has %zu map leaves for %u pages of %s", count, m->pages, m->path);
	m->leaf_count = (uint32_t)count;
	return rc ? rc : decode_journal(o, m, err);
}

int dbmanifest_decode(const json_t *manifest, struct dbmanifest *ret, struct im_error *err)
{
	struct dbmanifest m = { 0 };
	int rc = decode(manifest, &m, err);
	if (rc) {
		dbmanifest_clear(&m);
		return rc;
	}
	*ret = m;
	return 0;
}

void dbmanifest_clear(struct dbmanifest *m)
{
	free(m->leaves);
	free(m->journal);
	*m = (struct dbmanifest){ 0 };
}

int dbmanifest_new(const struct im_config_store *config, const struct stat *st, bool wal, const char *capture, json_t **ret, struct im_error *err)
{
	struct passwd *user = getpwuid(st->st_uid);
	struct group *group = getgrgid(st->st_gid);
	int64_t mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
	json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:s*, s:s*, s:I, s:b, s:s}", "name", config->name, "type",
	    config->type, "path", config->path, "mode", (int)(st->st_mode & 07777), "uid", (json_int_t)st->st_uid, "gid",
	    (json_int_t)st->st_gid, "user", user ? user->pw_name : NULL, "group", group ? group->gr_name : NULL, "mtime_ns",
	    (json_int_t)mtime_ns, "wal", (int)wal, "capture", capture);
	if (!o)
		return im_fail(err, IM_EFAIL, "cannot describe %s: its path is not UTF-8, or memory ran out", config->path);
	*ret = o;
	return 0;
}

uint32_t dbmanifest_leaf_pages(const struct dbmanifest *m, uint32_t leaf)
{
	uint32_t left = m->pages - leaf * LEAFMAP_PAGES;
	return left < LEAFMAP_PAGES ? left : LEAFMAP_PAGES;
}

int dbmanifest_leaf(const struct dbmanifest *m, const struct rebuild *r, uint32_t leaf, struct leafmap_list *ret, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	const struct im_ref *ref = &m->leaves[leaf];
	const struct pack_info *pack = snapshot_pack(r->snapshot, ref->pack);
	if (!pack)
		return im_fail(err, IM_ECORRUPT, "map leaf %u of %s lies in pack %u, which the snapshot does not list", leaf,
		    m->path, ref->pack);
	int rc = fetch_one(r->fetcher, pack, ENTRY_LEAF, ref, &b, err);
	return rc ? rc : leafmap_decode(b.data, b.len, m->page_size, dbmanifest_leaf_pages(m, leaf), ret, err);
}

bool dbmanifest_wanted(const struct dbmanifest *m, const char *filter)
{
	size_t n = filter ? strlen(filter) : 0;
	while (n > 1 && filter[n - 1] == '/')
		n--;
	if (n <= 1)
		return true;
	return strncmp(m->path, filter, n) == 0 && (m->path[n] == '\0' || m->path[n] == '/');
}
