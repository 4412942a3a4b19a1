/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Export: the tree as real tar entries with real bodies, in order. A chunk that cannot be read
 * becomes zeros and is reported, so that the archive stays readable and the rest of it whole.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "stores/files/files_store.h"
#include "stores/files/tree.h"
#include "vault/snapshot.h"

#include <errno.h>
#include <string.h>

#define ZERO_BYTES (64u << 10)

struct exporter {
	struct files_tree tree;
	struct archive *archive;
	uint8_t chunk_key[32];
	struct im_buf chunk; /* the last one read: neighbours share bundles */
	struct im_ref chunk_ref;
};

static int write_bytes(struct exporter *x, const void *data, size_t len, struct im_error *err)
{
	for (size_t done = 0; done < len;) {
		la_ssize_t n = archive_write_data(x->archive, (const uint8_t *)data + done, len - done);
		if (n <= 0)
			return im_fail(err, archive_errno(x->archive) == ENOSPC ? IM_ENOSPACE : IM_EIO,
			    "cannot write the archive: %s", archive_error_string(x->archive));
		done += (size_t)n;
	}
	return 0;
}

static int write_zeros(struct exporter *x, uint64_t len, struct im_error *err)
{
	static const uint8_t zeros[ZERO_BYTES];
	int rc = 0;
	for (; len && !rc; len -= len < sizeof zeros ? len : sizeof zeros)
		rc = write_bytes(x, zeros, len < sizeof zeros ? (size_t)len : sizeof zeros, err);
	return rc;
}

static int load_chunk(struct exporter *x, const struct files_chunk *c, struct im_error *err)
{
	uint8_t id[32];
	const struct pack_info *pack = snapshot_pack(x->tree.r->snapshot, c->ref.pack);
	x->chunk.len = 0;
	x->chunk_ref = c->ref;
	if (!pack)
		return im_fail(err, IM_ECORRUPT, "the snapshot's pack table lacks pack %u", c->ref.pack);
	int rc = fetch_one(x->tree.r->fetcher, pack, ENTRY_CHUNK, &c->ref, &x->chunk, err);
	if (rc)
		return rc;
	crypto_keyed(id, x->chunk_key, x->chunk.data, x->chunk.len);
	if (!crypto_equal(id, c->id, sizeof id))
		return im_fail(err, IM_ECORRUPT, "a chunk is not what the file list says");
	return 0;
}

static int write_piece(struct exporter *x, const struct files_chunk *c, const struct files_piece *p, bool *bad,
    char **ret_why, struct im_error *err)
{
	struct im_error why = { 0 };
	if (!x->chunk.len || memcmp(&x->chunk_ref, &c->ref, sizeof c->ref)) {
		int rc = load_chunk(x, c, &why);
		if (rc && rc != IM_ECORRUPT && rc != IM_ENOTFOUND && rc != IM_EIO)
			return im_fail(err, rc, "%s", why.text);
		if (rc)
			x->chunk.len = 0;
	}
	if (x->chunk.len >= (size_t)p->skip + p->len)
		return write_bytes(x, x->chunk.data + p->skip, p->len, err);
	if (!*bad)
		*ret_why = strdup(why.text);
	*bad = true;
	return write_zeros(x, p->len, err);
}

static int write_body(struct exporter *x, const struct files_chunk *chunks, const struct files_member *m,
    const char *path, struct im_error *err)
{
	uint64_t at = 0;
	bool bad = false;
	auto_free char *why = NULL;
	int rc = 0;
	for (size_t i = 0; i < m->piece_count && !rc; i++) {
		const struct files_piece *p = &m->pieces[i];
		rc = write_zeros(x, p->file_offset - at, err);
		if (!rc)
			rc = write_piece(x, &chunks[p->chunk], p, &bad, &why, err);
		at = p->file_offset + p->len;
	}
	if (!rc)
		rc = write_zeros(x, m->size_bytes - at, err);
	if (bad) {
		auto_free char *text = im_format("/%s: damaged, zeros in its place: %s", path, why ? why : "");
		x->tree.r->damaged(x->tree.r, text ? text : path);
	}
	return rc;
}

/* Holes stay holes for whoever unpacks it. */
static void describe_holes(struct archive_entry *e, const struct files_member *m)
{
	uint64_t covered = 0;
	for (size_t i = 0; i < m->piece_count; i++)
		covered += m->pieces[i].len;
	if (covered == m->size_bytes)
		return;
	for (size_t i = 0; i < m->piece_count; i++)
		archive_entry_sparse_add_entry(e, (la_int64_t)m->pieces[i].file_offset, m->pieces[i].len);
	if (!m->piece_count)
		archive_entry_sparse_add_entry(e, (la_int64_t)m->size_bytes, 0);
}

static int write_member(struct exporter *x, struct archive_entry *e, const struct files_chunk *chunks,
    const struct files_member *m, const char *path, struct im_error *err)
{
	archive_entry_copy_pathname(e, path);
	archive_entry_set_size(e, 0);
	if (m->link) {
		auto_free char *target = files_tree_path(&x->tree, m->link);
		if (!target)
			return im_fail(err, IM_ENOMEM, "out of memory");
		archive_entry_copy_hardlink(e, target);
	}
	if (m->has_body) {
		archive_entry_set_size(e, (la_int64_t)m->size_bytes);
		describe_holes(e, m);
	}
	int rc = archive_write_header(x->archive, e);
	if (rc < ARCHIVE_WARN)
		return im_fail(
		    err, IM_EIO, "cannot write %s to the archive: %s", path, archive_error_string(x->archive));
	return m->has_body ? write_body(x, chunks, m, path, err) : 0;
}

static int on_member(
    void *context, const struct files_chunk *chunks, const struct files_member *m, struct im_error *err)
{
	struct exporter *x = context;
	if (files_tree_select(&x->tree, m->path) != FILES_SELECTED)
		return 0;
	auto_free char *path = files_tree_path(&x->tree, m->path);
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (!*path)
		return 0;
	struct archive_entry *e = archive_entry_clone(m->entry);
	if (!e)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = write_member(x, e, chunks, m, path, err);
	archive_entry_free(e);
	return rc;
}

int files_export_tar(struct rebuild *r, void *archive, struct im_error *err)
{
	struct exporter x = { .archive = archive };
	int rc = keyring_id_key(r->keyring, "imvault chunk v1", x.chunk_key, err);
	if (!rc)
		rc = files_tree_init(&x.tree, r, err);
	if (!rc)
		rc = files_tree_each(&x.tree, on_member, &x, err);
	crypto_wipe(x.chunk_key, sizeof x.chunk_key);
	im_buf_free(&x.chunk);
	files_tree_clear(&x.tree);
	return rc;
}
