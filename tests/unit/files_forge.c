/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forger writes through libarchive, which lets any name pass.
 */
#include "files_forge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static la_ssize_t take(struct archive *a, void *context, const void *data, size_t len)
{
	(void)a;
	im_buf_put(context, data, len);
	return (la_ssize_t)len;
}

void forge_begin(struct forge *f)
{
	*f = (struct forge){ .archive = archive_write_new() };
	archive_write_set_format_pax(f->archive);
	archive_write_set_options(f->archive, "hdrcharset=BINARY,xattrheader=SCHILY");
	archive_write_set_bytes_in_last_block(f->archive, 1);
	assert_int_equal(archive_write_open2(f->archive, &f->bytes, NULL, take, NULL, NULL), 0);
}

void forge_chunk(struct forge *f, uint32_t plain_bytes)
{
	uint8_t row[52] = { 1 };
	im_put_le32(row + 16, plain_bytes);
	im_buf_put(&f->table, row, sizeof row);
	f->chunks++;
}

void forge_add(struct forge *f, unsigned type, const char *path, const char *target, const char *link, const void *body,
    size_t len)
{
	struct archive_entry *e = archive_entry_new();
	archive_entry_copy_pathname(e, path);
	archive_entry_set_filetype(e, type);
	archive_entry_set_perm(e, type == AE_IFDIR ? 0755 : 0644);
	archive_entry_set_mtime(e, 1000000000, 0);
	archive_entry_set_size(e, (la_int64_t)len);
	if (target)
		archive_entry_copy_symlink(e, target);
	if (link)
		archive_entry_copy_hardlink(e, link);
	assert_int_equal(archive_write_header(f->archive, e), ARCHIVE_OK);
	if (len)
		assert_int_equal(archive_write_data(f->archive, body, len), len);
	archive_entry_free(e);
}

void forge_file(
    struct forge *f, const char *path, uint64_t size, uint64_t file_offset, uint32_t chunk, uint32_t skip, uint32_t len)
{
	auto_buf struct im_buf body = { 0 };
	im_buf_put_u64(&body, size);
	im_buf_put_u32(&body, len ? 1 : 0);
	if (len) {
		im_buf_put_u64(&body, file_offset);
		im_buf_put_u32(&body, chunk);
		im_buf_put_u32(&body, skip);
		im_buf_put_u32(&body, len);
	}
	forge_add(f, AE_IFREG, path, NULL, NULL, body.data, body.len);
}

void forge_end(struct forge *f, struct im_buf *ret)
{
	archive_write_close(f->archive);
	archive_write_free(f->archive);
	im_buf_put_u32(ret, f->chunks);
	im_buf_put(ret, f->table.data, f->table.len);
	im_buf_put(ret, f->bytes.data, f->bytes.len);
	im_buf_free(&f->table);
	im_buf_free(&f->bytes);
}
