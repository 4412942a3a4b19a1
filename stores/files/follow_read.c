/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of bodies. They come from a vault: every count, length and path is checked before it
 * is used, and a record that does not end with its block is damage.
 */
#include "base/cleanup.h"
#include "stores/files/follow_body.h"
#include "stores/files/follow_body_format.h"
#include "stores/files/segment.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

struct body {
	const struct follow_source *source;
	uint32_t point, sections, blocks;
	struct im_buf table, stored, plain;
	char path[FILES_PATH_MAX_BYTES + 1], to[FILES_PATH_MAX_BYTES + 1], reason[FILES_LOG_REASON_BYTES + 1];
};

static void body_free(struct body *b)
{
	im_buf_free(&b->table);
	im_buf_free(&b->stored);
	im_buf_free(&b->plain);
	free(b);
}
IM_DEFINE_AUTO(body, struct body, body_free)

static int malformed(struct im_error *err, const char *what)
{
	return im_fail(err, IM_ECORRUPT, "a log segment of a tree is malformed: %s", what);
}

static int read_head(struct body *b, struct im_error *err)
{
	uint8_t head[FILES_LOG_HEAD_BYTES];
	const struct follow_source *s = b->source;
	if (s->len < sizeof head)
		return malformed(err, "it is cut short");
	int rc = s->read(s->context, 0, head, sizeof head, err);
	if (rc)
		return rc;
	b->point = im_le32(head + 4);
	b->sections = im_le32(head + 8);
	b->blocks = im_le32(head + 12);
	if (im_le32(head) != FILES_LOG_VERSION)
		return im_fail(err, IM_ECORRUPT, "a log segment of a tree has version %u, which this imvault does not know",
		    im_le32(head));
	if (b->sections > LOG_MAX_POINTS || b->point > UINT32_MAX - LOG_MAX_POINTS - 1)
		return malformed(err, "it has too many points");
	if (b->blocks > FILES_LOG_MAX_BLOCKS || b->blocks > (s->len - sizeof head) / FILES_LOG_ROW_BYTES)
		return malformed(err, "it has too many blocks");
	size_t len = (size_t)b->blocks * FILES_LOG_ROW_BYTES;
	uint8_t *table = im_buf_grow(&b->table, len ? len : 1);
	if (!table)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	return s->read(s->context, sizeof head, table, len, err);
}

static int check_table(const struct body *b, struct im_error *err)
{
	uint64_t end = FILES_LOG_HEAD_BYTES + (uint64_t)b->blocks * FILES_LOG_ROW_BYTES;
	for (uint32_t i = 0; i < b->blocks; i++) {
		uint32_t plain = im_le32(b->table.data + (size_t)i * FILES_LOG_ROW_BYTES);
		uint32_t stored = im_le32(b->table.data + (size_t)i * FILES_LOG_ROW_BYTES + 4);
		if (!plain || plain > FILES_LOG_BLOCK_MAX_BYTES || !stored || stored > ZSTD_compressBound(plain))
			return malformed(err, "a block has an impossible size");
		end += stored;
	}
	return end == b->source->len ? 0 : malformed(err, "its blocks do not fill it");
}

/* Into a field of size limit + 1, as text. */
static bool read_text(struct im_reader *r, char *ret, size_t limit)
{
	size_t len = im_read_u16(r);
	if (len > limit || !im_read_copy(r, ret, len) || memchr(ret, 0, len))
		return false;
	ret[len] = 0;
	return true;
}

static bool read_path(struct im_reader *r, char *ret)
{
	return read_text(r, ret, FILES_PATH_MAX_BYTES) && files_path_valid(ret) && strcmp(ret, ".") != 0;
}

static bool read_data(struct im_reader *r, struct files_log_record *record, size_t limit)
{
	record->len = im_read_u32(r);
	if (record->len > limit)
		return false;
	record->data = im_read_view(r, record->len);
	return !r->failed;
}

static bool read_place(struct im_reader *r, struct files_log_record *record)
{
	record->offset = im_read_u64(r);
	record->mtime_ns = (int64_t)im_read_u64(r);
	return im_read_copy(r, record->check, sizeof record->check) && record->offset <= FILES_MAX_FILE_BYTES;
}

static bool read_end(struct im_reader *r, struct files_log_record *record)
{
	record->complete_ms = (int64_t)im_read_u64(r);
	record->latest_ms = (int64_t)im_read_u64(r);
	return record->complete_ms >= 0 && record->latest_ms >= record->complete_ms;
}

static bool decode(struct body *b, struct im_reader *r, struct files_log_record *record)
{
	uint8_t type = im_read_u8(r);
	if (type > FILES_LOG_LOST)
		return false;
	*record = (struct files_log_record){ .type = type, .point = b->point, .path = b->path, .to = b->to, .reason = b->reason };
	if (type == FILES_LOG_END)
		return read_end(r, record) && !r->failed;
	if (!read_path(r, b->path))
		return false;
	switch ((enum files_log_type)type) {
	case FILES_LOG_SIZE: return read_place(r, record) && !r->failed;
	case FILES_LOG_APPEND:
		return read_place(r, record) && read_data(r, record, FILES_LOG_DATA_BYTES) && record->len &&
		    record->offset + record->len <= FILES_MAX_FILE_BYTES;
	case FILES_LOG_BEGIN:
	case FILES_LOG_FOLDER: return read_data(r, record, FILES_LOG_META_BYTES);
	case FILES_LOG_MOVED: return read_path(r, b->to) && strcmp(b->path, b->to) != 0;
	case FILES_LOG_LOST: return read_text(r, b->reason, FILES_LOG_REASON_BYTES);
	default: return !r->failed;
	}
}

static int read_block(struct body *b, uint32_t i, uint64_t offset, struct im_error *err)
{
	const struct follow_source *s = b->source;
	uint32_t plain = im_le32(b->table.data + (size_t)i * FILES_LOG_ROW_BYTES);
	uint32_t stored = im_le32(b->table.data + (size_t)i * FILES_LOG_ROW_BYTES + 4);
	b->stored.len = b->plain.len = 0;
	uint8_t *from = im_buf_grow(&b->stored, stored), *to = im_buf_grow(&b->plain, plain);
	if (!from || !to)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	int rc = s->read(s->context, offset, from, stored, err);
	if (rc)
		return rc;
	size_t n = ZSTD_decompress(to, plain, from, stored);
	return ZSTD_isError(n) || n != plain ? malformed(err, "a block cannot be decompressed") : 0;
}

/* *sections: ENDs so far. */
static int each_of_block(struct body *b, uint32_t *sections, files_log_fn *fn, void *context, struct im_error *err)
{
	struct im_reader r = im_reader_of(b->plain.data, b->plain.len);
	struct files_log_record record;
	int rc = 0;
	while (!rc && im_read_left(&r)) {
		if (!decode(b, &r, &record) || r.failed)
			return malformed(err, "a record makes no sense");
		if (record.type == FILES_LOG_END && ++*sections > b->sections)
			return malformed(err, "it has more points than it says");
		rc = fn(context, &record, err);
		b->point += record.type == FILES_LOG_END;
	}
	return rc;
}

int files_log_each(const struct follow_source *body, files_log_fn *fn, void *context, struct im_error *err)
{
	if (!body->len)
		return 0;
	IM_CLEANUP(im_auto_body) struct body *b = calloc(1, sizeof *b);
	if (!b)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	b->source = body;
	int rc = read_head(b, err);
	if (!rc)
		rc = check_table(b, err);
	uint64_t offset = FILES_LOG_HEAD_BYTES + (uint64_t)b->blocks * FILES_LOG_ROW_BYTES;
	uint32_t sections = 0;
	for (uint32_t i = 0; !rc && i < b->blocks; i++) {
		rc = read_block(b, i, offset, err);
		offset += rc ? 0 : im_le32(b->table.data + (size_t)i * FILES_LOG_ROW_BYTES + 4);
		if (!rc)
			rc = each_of_block(b, &sections, fn, context, err);
	}
	return rc || sections == b->sections ? rc : malformed(err, "it has fewer points than it says");
}

static int read_memory(void *context, uint64_t offset, void *ret, size_t len, struct im_error *err)
{
	const struct im_buf *b = context;
	if (offset > b->len || len > b->len - offset)
		return im_fail(err, IM_ECORRUPT, "a log segment is cut short");
	if (len)
		memcpy(ret, b->data + offset, len);
	return 0;
}

struct follow_source files_log_memory(const struct im_buf *b)
{
	return (struct follow_source){ .read = read_memory, .context = (void *)b, .len = b->len };
}
