/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec of tree segments over libarchive. Names are stored as the bytes they are
 * (hdrcharset=BINARY), whatever the locale; attributes as SCHILY.xattr, whose names
 * libarchive percent-encodes when it writes and leaves encoded when it reads. Fields that differ from run to run
 * without meaning (device, inode, link count, access and change times) are left out, so equal trees make equal
 * segments.
 */
#include "stores/files/segment.h"

#include "base/cleanup.h"
#include "stores/files/beneath.h"

#include <string.h>
#include <sys/stat.h>

#define MAX_MEMBERS (1u << 20)

struct files_segment_writer {
	struct archive *archive;
	struct im_buf bytes, body;
};

struct files_segment {
	struct archive *archive;
	struct files_chunk *chunks;
	size_t chunk_count;
	struct im_buf body;
	struct files_piece *pieces;
	size_t piece_cap, members;
	size_t archive_bytes;
	char *path;
};

static la_ssize_t write_bytes(struct archive *a, void *context, const void *data, size_t len)
{
	struct files_segment_writer *w = context;
	im_buf_put(&w->bytes, data, len);
	if (w->bytes.failed) {
		archive_set_error(a, 0, "out of memory");
		return -1;
	}
	return (la_ssize_t)len;
}

int files_segment_writer_new(struct files_segment_writer **ret, struct im_error *err)
{
	struct files_segment_writer *w = calloc(1, sizeof *w);
	if (!w || !(w->archive = archive_write_new())) {
		files_segment_writer_free(w);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	if (archive_write_set_format_pax(w->archive) || archive_write_add_filter_none(w->archive) ||
	    archive_write_set_options(w->archive, "hdrcharset=BINARY,xattrheader=SCHILY") ||
	    archive_write_set_bytes_per_block(w->archive, 1 << 16) ||
	    archive_write_set_bytes_in_last_block(w->archive, 1) ||
	    archive_write_open2(w->archive, w, NULL, write_bytes, NULL, NULL)) {
		im_fail(err, IM_EFAIL, "cannot begin a tree segment: %s", archive_error_string(w->archive));
		files_segment_writer_free(w);
		return IM_EFAIL;
	}
	*ret = w;
	return 0;
}

void files_segment_writer_free(struct files_segment_writer *w)
{
	if (!w)
		return;
	archive_write_free(w->archive);
	im_buf_free(&w->bytes);
	im_buf_free(&w->body);
	free(w);
}

size_t files_segment_written(const struct files_segment_writer *w) { return w->bytes.len; }

static void clean_entry(struct archive_entry *e)
{
	archive_entry_unset_atime(e);
	archive_entry_unset_ctime(e);
	archive_entry_unset_birthtime(e);
	archive_entry_set_dev(e, 0);
	archive_entry_set_ino64(e, 0);
	archive_entry_set_nlink(e, 1);
	archive_entry_sparse_clear(e);
	archive_entry_set_size(e, 0);
}

static void encode_body(struct im_buf *b, uint64_t size, const struct files_piece *pieces, size_t count)
{
	b->len = 0;
	im_buf_put_u64(b, size);
	im_buf_put_u32(b, (uint32_t)count);
	for (size_t i = 0; i < count; i++) {
		im_buf_put_u64(b, pieces[i].file_offset);
		im_buf_put_u32(b, pieces[i].chunk);
		im_buf_put_u32(b, pieces[i].skip);
		im_buf_put_u32(b, pieces[i].len);
	}
}

int files_segment_add(struct files_segment_writer *w, struct archive_entry *entry, uint64_t size_bytes,
    const struct files_piece *pieces, size_t piece_count, struct im_error *err)
{
	bool has_body = archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry);
	clean_entry(entry);
	w->body.len = 0;
	if (has_body) {
		encode_body(&w->body, size_bytes, pieces, piece_count);
		if (w->body.failed)
			return im_fail(err, IM_ENOMEM, "out of memory");
		archive_entry_set_size(entry, (la_int64_t)w->body.len);
	}
	int rc = archive_write_header(w->archive, entry);
	if (rc < ARCHIVE_WARN || (rc == ARCHIVE_OK && w->bytes.failed))
		return im_fail(err, IM_EFAIL, "cannot record %s: %s", archive_entry_pathname(entry),
		    archive_error_string(w->archive));
	if (has_body && archive_write_data(w->archive, w->body.data, w->body.len) != (la_ssize_t)w->body.len)
		return im_fail(err, IM_EFAIL, "cannot record %s: %s", archive_entry_pathname(entry),
		    archive_error_string(w->archive));
	return 0;
}

int files_segment_finish(struct files_segment_writer *w, const struct files_chunk *chunks, size_t chunk_count,
    struct im_buf *ret, struct im_error *err)
{
	if (archive_write_close(w->archive) != ARCHIVE_OK)
		return im_fail(err, IM_EFAIL, "cannot end a tree segment: %s", archive_error_string(w->archive));
	im_buf_put_u32(ret, (uint32_t)chunk_count);
	for (size_t i = 0; i < chunk_count; i++) {
		ref_put(ret, chunks[i].ref);
		im_buf_put(ret, chunks[i].id, 32);
	}
	im_buf_put(ret, w->bytes.data, w->bytes.len);
	return ret->failed ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

static int read_table(struct files_segment *s, struct im_reader *r, struct im_error *err)
{
	uint32_t count = im_read_u32(r);
	if (r->failed || count > im_read_left(r) / FILES_CHUNK_ROW_BYTES)
		return im_fail(err, IM_ECORRUPT, "a tree segment's chunk table is cut short");
	s->chunks = calloc(count + 1u, sizeof *s->chunks);
	if (!s->chunks)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < count; i++) {
		s->chunks[i].ref = ref_read(r);
		im_read_copy(r, s->chunks[i].id, 32);
		if (s->chunks[i].ref.plain > ENTRY_MAX_PLAIN_BYTES)
			return im_fail(err, IM_ECORRUPT, "a tree segment names a chunk larger than any may be");
	}
	s->chunk_count = count;
	return 0;
}

int files_segment_open(const void *data, size_t len, struct files_segment **ret, struct im_error *err)
{
	struct files_segment *s = calloc(1, sizeof *s);
	struct im_reader r = im_reader_of(data, len);
	if (!s || !(s->archive = archive_read_new())) {
		files_segment_close(s);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	int rc = read_table(s, &r, err);
	s->archive_bytes = im_read_left(&r);
	if (!rc &&
	    (archive_read_support_format_tar(s->archive) ||
		archive_read_open_memory(s->archive, r.at, s->archive_bytes)))
		rc = im_fail(err, IM_ECORRUPT, "a tree segment holds no archive: %s", archive_error_string(s->archive));
	if (rc) {
		files_segment_close(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void files_segment_close(struct files_segment *s)
{
	if (!s)
		return;
	archive_read_free(s->archive);
	free(s->chunks);
	free(s->pieces);
	free(s->path);
	im_buf_free(&s->body);
	free(s);
}

size_t files_segment_chunks(const struct files_segment *s, const struct files_chunk **ret)
{
	*ret = s->chunks;
	return s->chunk_count;
}

/* A folder's name ends in '/' in an archive. */
static int take_path(struct files_segment *s, struct archive_entry *e, struct im_error *err)
{
	const char *name = archive_entry_pathname(e);
	free(s->path);
	s->path = name ? strdup(name) : NULL;
	if (!s->path)
		return im_fail(err, IM_ECORRUPT, "a tree segment has an entry without a name");
	size_t len = strlen(s->path);
	if (len > 1 && s->path[len - 1] == '/')
		s->path[len - 1] = 0;
	if (!files_path_valid(s->path))
		return im_fail(err, IM_ECORRUPT,
		    "a tree segment has an entry with a name that is not allowed: \"%.200s\"", s->path);
	return 0;
}

static int check_pieces(const struct files_segment *s, const struct files_member *m, struct im_error *err)
{
	uint64_t end = 0;
	for (size_t i = 0; i < m->piece_count; i++) {
		const struct files_piece *p = &m->pieces[i];
		if (p->file_offset < end || p->file_offset > m->size_bytes || !p->len ||
		    p->len > m->size_bytes - p->file_offset)
			return im_fail(err, IM_ECORRUPT, "%.200s: a piece lies outside the file", m->path);
		if (p->chunk >= s->chunk_count || p->skip > s->chunks[p->chunk].ref.plain ||
		    p->len > s->chunks[p->chunk].ref.plain - p->skip)
			return im_fail(err, IM_ECORRUPT, "%.200s: a piece lies outside its chunk", m->path);
		end = p->file_offset + p->len;
	}
	return 0;
}

static int read_body(struct files_segment *s, struct files_member *m, struct im_error *err)
{
	int64_t len = archive_entry_size(m->entry);
	if (len < 12 || (uint64_t)len > s->archive_bytes || archive_entry_sparse_count(m->entry))
		return im_fail(err, IM_ECORRUPT, "%.200s: its piece list has an impossible size", m->path);
	s->body.len = 0;
	uint8_t *p = im_buf_grow(&s->body, (size_t)len);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (archive_read_data(s->archive, p, (size_t)len) != len)
		return im_fail(err, IM_ECORRUPT, "%.200s: its piece list is cut short", m->path);
	struct im_reader r = im_reader_of(p, (size_t)len);
	m->size_bytes = im_read_u64(&r);
	m->piece_count = im_read_u32(&r);
	if (m->piece_count * (uint64_t)FILES_PIECE_BYTES != im_read_left(&r) || m->size_bytes > FILES_MAX_FILE_BYTES)
		return im_fail(err, IM_ECORRUPT, "%.200s: its piece list is malformed", m->path);
	if (m->piece_count > s->piece_cap) {
		struct files_piece *grown = realloc(s->pieces, m->piece_count * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory");
		s->pieces = grown;
		s->piece_cap = m->piece_count;
	}
	for (size_t i = 0; i < m->piece_count; i++) {
		s->pieces[i].file_offset = im_read_u64(&r);
		s->pieces[i].chunk = im_read_u32(&r);
		s->pieces[i].skip = im_read_u32(&r);
		s->pieces[i].len = im_read_u32(&r);
	}
	m->pieces = s->pieces;
	return check_pieces(s, m, err);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0'
	    : c >= 'A' && c <= 'F'  ? c - 'A' + 10
	    : c >= 'a' && c <= 'f'  ? c - 'a' + 10
				    : -1;
}

static void percent_decode(char *text)
{
	char *to = text;
	for (const char *p = text; *p; p++) {
		int high = p[0] == '%' ? hex_digit(p[1]) : -1, low = high < 0 ? -1 : hex_digit(p[2]);
		*to++ = low < 0 || !(high | low) ? *p : (char)(high << 4 | low);
		p += low < 0 || !(high | low) ? 0 : 2;
	}
	*to = 0;
}

/* Gives the attributes of an entry that was read their real names. */
static int decode_names(struct archive_entry *e, struct im_error *err)
{
	const char *name;
	const void *value;
	size_t len;
	bool any = false;
	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK)
		any |= name && strchr(name, '%');
	if (!any)
		return 0;
	struct archive_entry *copy = archive_entry_clone(e);
	if (!copy)
		return im_fail(err, IM_ENOMEM, "out of memory");
	archive_entry_xattr_clear(e);
	archive_entry_xattr_reset(copy);
	while (archive_entry_xattr_next(copy, &name, &value, &len) == ARCHIVE_OK) {
		auto_free char *decoded = name ? strdup(name) : NULL;
		if (!decoded)
			continue;
		percent_decode(decoded);
		archive_entry_xattr_add_entry(e, decoded, value, len);
	}
	archive_entry_free(copy);
	return 0;
}

static int check_type(const struct files_member *m, struct im_error *err)
{
	switch (archive_entry_filetype(m->entry)) {
	case AE_IFREG:
	case AE_IFDIR:
	case AE_IFIFO:
	case AE_IFCHR:
	case AE_IFBLK: return 0;
	case AE_IFLNK:
		if (archive_entry_symlink(m->entry))
			return 0;
		break;
	default:
		if (m->link)
			return 0;
		break;
	}
	return im_fail(err, IM_ECORRUPT, "%.200s: an entry of a kind that does not belong in a tree", m->path);
}

int files_segment_next(struct files_segment *s, struct files_member *ret, bool *ret_more, struct im_error *err)
{
	struct archive_entry *e;
	int rc = archive_read_next_header(s->archive, &e);
	if (rc == ARCHIVE_EOF) {
		*ret_more = false;
		return 0;
	}
	if (rc < ARCHIVE_WARN || ++s->members > MAX_MEMBERS)
		return im_fail(err, IM_ECORRUPT, "a tree segment is malformed: %s", archive_error_string(s->archive));
	rc = take_path(s, e, err);
	struct files_member m = { .entry = e, .path = s->path, .link = archive_entry_hardlink(e) };
	if (!rc && m.link && (!files_path_valid(m.link) || !strcmp(m.link, ".")))
		rc = im_fail(err, IM_ECORRUPT, "%.200s: a hard link to a name that is not allowed", m.path);
	if (!rc)
		rc = check_type(&m, err);
	if (!rc)
		rc = decode_names(e, err);
	m.has_body = !rc && !m.link && archive_entry_filetype(e) == AE_IFREG;
	if (m.has_body)
		rc = read_body(s, &m, err);
	if (rc)
		return rc;
	*ret = m;
	*ret_more = true;
	return 0;
}
