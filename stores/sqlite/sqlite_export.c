/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A database as one tar entry, streamed in page order: windows of 16 MiB are fetched in parallel
 * and written one after the other. The checksum is kept on the way.
 */
#include "stores/sqlite/sqlite_rebuild.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "stores/sqlite/dbmanifest.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define WINDOW_BYTES (16u << 20)

struct export {
	struct rebuild *r;
	struct dbmanifest m;
	struct archive *archive;
	uint8_t *page_key;
	uint8_t *window;
	const struct leafmap_run *runs; /* of this window; an item's tag is its index here */
	uint32_t window_first;          /* page of the leaf */
	uint8_t sum[CRYPTO_PAGE_HASH_BYTES];
};

static const struct pack_info *pack_of(void *context, uint32_t number)
{
	return snapshot_pack(((struct export *)context)->r->snapshot, number);
}

static int place(void *context, unsigned worker, const struct fetch_item *items, size_t count, const uint8_t *plain, size_t len, struct im_error *err)
{
	struct export *e = context;
	(void)worker;
	for (size_t i = 0; i < count; i++) {
		const struct leafmap_run *run = &e->runs[items[i].tag];
		size_t skip = (size_t)run->skip * e->m.page_size, bytes = (size_t)run->count * e->m.page_size;
		if (skip + bytes > len)
			return im_fail(err, IM_ECORRUPT, "an extent is shorter than its map says");
		memcpy(e->window + (size_t)(run->first - e->window_first) * e->m.page_size, plain + skip, bytes);
	}
	return 0;
}

static int write_data(struct export *e, const void *data, size_t len, struct im_error *err)
{
	la_ssize_t n = archive_write_data(e->archive, data, len);
	return n == (la_ssize_t)len ? 0 : im_fail(err, IM_EIO, "cannot write the archive: %s", archive_error_string(e->archive));
}

static int export_window(struct export *e, const struct leafmap_list *runs, uint64_t first_page, uint32_t pages, struct im_error *err)
{
	auto_free struct fetch_item *items = calloc(runs->count, sizeof *items);
	if (!items)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < runs->count; i++)
		items[i] = (struct fetch_item){ .ref = runs->runs[i].ref, .tag = i, .type = ENTRY_EXTENT };
	e->runs = runs->runs;
	e->window_first = runs->runs[0].first;
	struct fetch_plan plan = { .items = items, .count = runs->count, .pack_of = pack_of, .sink = place, .context = e };
	struct fetch_stats stats;
	int rc = fetch_run(e->r->fetcher, &plan, &stats, err);
	for (uint32_t i = 0; rc == 0 && i < pages; i++) {
		uint8_t hash[CRYPTO_PAGE_HASH_BYTES];
		crypto_page_hash(hash, e->page_key, e->window + (size_t)i * e->m.page_size, e->m.page_size, first_page + i);
		for (unsigned k = 0; k < sizeof hash; k++)
			e->sum[k] ^= hash[k];
	}
	return rc ? rc : write_data(e, e->window, (size_t)pages * e->m.page_size, err);
}

static int export_leaf(struct export *e, uint32_t leaf, struct im_error *err)
{
	struct leafmap_list all = { 0 };
	uint32_t pages = dbmanifest_leaf_pages(&e->m, leaf), step = WINDOW_BYTES / e->m.page_size;
	int rc = dbmanifest_leaf(&e->m, e->r, leaf, &all, err);
	for (uint32_t first = 0; rc == 0 && first < pages; first += step) {
		struct leafmap_list window = { 0 };
		uint32_t count = pages - first < step ? pages - first : step;
		rc = leafmap_clip(&window, &all, first, count, err);
		if (rc == 0)
			rc = im_interrupt_check(err);
		if (rc == 0)
			rc = export_window(e, &window, (uint64_t)leaf * LEAFMAP_PAGES + first, count, err);
		leafmap_clear(&window);
	}
	leafmap_clear(&all);
	return rc;
}

static int write_header(struct export *e, const char *path, uint64_t size, struct im_error *err)
{
	struct archive_entry *entry = archive_entry_new();
	if (!entry)
		return im_fail(err, IM_ENOMEM, "out of memory");
	archive_entry_set_pathname(entry, path);
	archive_entry_set_filetype(entry, S_IFREG);
	archive_entry_set_perm(entry, (mode_t)e->m.mode);
	archive_entry_set_size(entry, (la_int64_t)size);
	archive_entry_set_uid(entry, e->m.uid);
	archive_entry_set_gid(entry, e->m.gid);
	archive_entry_set_uname(entry, e->m.user);
	archive_entry_set_gname(entry, e->m.group);
	int64_t ns = e->m.mtime_ns % 1000000000, seconds = e->m.mtime_ns / 1000000000;
	if (ns < 0) {
		ns += 1000000000;
		seconds--;
	}
	archive_entry_set_mtime(entry, (time_t)seconds, (long)ns);
	int said = archive_write_header(e->archive, entry);
	archive_entry_free(entry);
	return said >= ARCHIVE_WARN ? 0 : im_fail(err, IM_EIO, "cannot write the archive: %s", archive_error_string(e->archive));
}

static int export_journal(struct export *e, struct im_error *err)
{
	auto_free char *path = im_format("%s-journal", e->m.path + 1);
	int rc = path ? write_header(e, path, e->m.journal_bytes, err) : im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; rc == 0 && i < e->m.journal_count; i++) {
		auto_buf struct im_buf b = { 0 };
		const struct pack_info *pack = snapshot_pack(e->r->snapshot, e->m.journal[i].pack);
		rc = pack ? fetch_one(e->r->fetcher, pack, ENTRY_AUX, &e->m.journal[i], &b, err) :
		            im_fail(err, IM_ECORRUPT, "the journal of %s lies in a pack the snapshot does not list", e->m.path);
		if (rc == 0)
			rc = write_data(e, b.data, b.len, err);
	}
	return rc;
}

static int export_all(struct export *e, struct im_error *err)
{
	int rc = keyring_id_key(e->r->keyring, "imvault page v1", e->page_key, err);
	if (rc == 0 && e->m.journal_count)
		rc = export_journal(e, err);
	if (rc == 0)
		rc = write_header(e, e->m.path + 1, e->m.file_bytes, err);
	for (uint32_t leaf = 0; rc == 0 && leaf < e->m.leaf_count; leaf++)
		rc = export_leaf(e, leaf, err);
	if (rc == 0 && memcmp(e->sum, e->m.checksum, sizeof e->sum) != 0)
		rc = im_fail(err, IM_ECORRUPT, "%s: what was exported does not have the snapshot's checksum", e->m.path);
	return rc;
}

int sqlite_export_tar(struct rebuild *r, void *archive, struct im_error *err)
{
	struct export e = { .r = r, .archive = archive };
	int rc = dbmanifest_decode(r->manifest, &e.m, err);
	if (rc)
		return rc;
	e.page_key = crypto_secret_new(CRYPTO_KEY_BYTES);
	e.window = malloc(WINDOW_BYTES);
	if (!e.page_key || !e.window)
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	else if (dbmanifest_wanted(&e.m, r->path_filter))
		rc = export_all(&e, err);
	crypto_secret_free(e.page_key);
	free(e.window);
	dbmanifest_clear(&e.m);
	return rc;
}
