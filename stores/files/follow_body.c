/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of bodies. Records are gathered in blocks of about 128 KiB, which are compressed as
 * soon as they are full, so that memory holds what goes to the vault and no more.
 */
#include "stores/files/follow_body.h"

#include "base/cleanup.h"
#include "stores/files/follow_body_format.h"
#include "vault/crypto.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

struct files_log_writer {
	ZSTD_CCtx *zstd;
	struct im_buf block, table, stored;
	uint32_t first, point; /* point: of the section being made */
	uint32_t sections, blocks;
	uint64_t plain;
};

void files_log_check(uint8_t ret[FILES_LOG_CHECK_BYTES], const void *tail, size_t len)
{
	uint8_t hash[CRYPTO_HASH_BYTES];
	crypto_hash(hash, tail, len);
	memcpy(ret, hash, FILES_LOG_CHECK_BYTES);
}

int files_log_writer_new(struct files_log_writer **ret, struct im_error *err)
{
	struct files_log_writer *w = calloc(1, sizeof *w);
	if (!w || !(w->zstd = ZSTD_createCCtx())) {
		free(w);
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	}
	*ret = w;
	return 0;
}

void files_log_writer_free(struct files_log_writer *w)
{
	if (!w)
		return;
	ZSTD_freeCCtx(w->zstd);
	im_buf_free(&w->block);
	im_buf_free(&w->table);
	im_buf_free(&w->stored);
	free(w);
}

void files_log_begin(struct files_log_writer *w, uint32_t point)
{
	IM_CHECK(files_log_empty(w));
	w->first = w->point = point;
}

bool files_log_empty(const struct files_log_writer *w) { return !w->plain && !w->sections; }

uint64_t files_log_plain(const struct files_log_writer *w) { return w->plain; }

size_t files_log_size(const struct files_log_writer *w) { return w->block.len + w->table.len + w->stored.len; }

static int close_block(struct files_log_writer *w, struct im_error *err)
{
	size_t begin = w->stored.len, bound = ZSTD_compressBound(w->block.len);
	if (!w->block.len)
		return 0;
	uint8_t *p = im_buf_grow(&w->stored, bound);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	size_t n = ZSTD_compressCCtx(w->zstd, p, bound, w->block.data, w->block.len, FILES_LOG_LEVEL);
	if (ZSTD_isError(n))
		return im_fail(err, IM_EFAIL, "cannot compress a log segment: %s", ZSTD_getErrorName(n));
	w->stored.len = begin + n;
	im_buf_put_u32(&w->table, (uint32_t)w->block.len);
	im_buf_put_u32(&w->table, (uint32_t)n);
	w->block.len = 0;
	w->blocks++;
	return 0;
}

static void put_text(struct im_buf *b, const char *text, size_t limit)
{
	size_t len = strnlen(text, limit);
	im_buf_put_u16(b, (uint16_t)len);
	im_buf_put(b, text, len);
}

static void encode(struct im_buf *b, const struct files_log_record *r)
{
	im_buf_put_u8(b, (uint8_t)r->type);
	if (r->type == FILES_LOG_END) {
		im_buf_put_u64(b, (uint64_t)r->complete_ms);
		im_buf_put_u64(b, (uint64_t)r->latest_ms);
		return;
	}
	put_text(b, r->path, FILES_PATH_MAX_BYTES);
	if (r->type == FILES_LOG_MOVED)
		put_text(b, r->to, FILES_PATH_MAX_BYTES);
	if (r->type == FILES_LOG_LOST)
		put_text(b, r->reason, FILES_LOG_REASON_BYTES);
	if (r->type == FILES_LOG_SIZE || r->type == FILES_LOG_APPEND) {
		im_buf_put_u64(b, r->offset);
		im_buf_put_u64(b, (uint64_t)r->mtime_ns);
		im_buf_put(b, r->check, sizeof r->check);
	}
	if (r->type == FILES_LOG_APPEND || r->type == FILES_LOG_BEGIN || r->type == FILES_LOG_FOLDER) {
		im_buf_put_u32(b, r->len);
		im_buf_put(b, r->data, r->len);
	}
}

int files_log_put(struct files_log_writer *w, const struct files_log_record *record, struct im_error *err)
{
	size_t before = w->block.len;
	IM_CHECK(record->len <= FILES_LOG_DATA_BYTES);
	encode(&w->block, record);
	if (w->block.failed || w->table.failed)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	w->plain += w->block.len - before;
	if (record->type == FILES_LOG_END) {
		w->sections++;
		w->point++;
	}
	return w->block.len < FILES_LOG_BLOCK_BYTES ? 0 : close_block(w, err);
}

int files_log_finish(struct files_log_writer *w, struct im_buf *ret, struct im_error *err)
{
	int rc = close_block(w, err);
	if (rc)
		return rc;
	im_buf_put_u32(ret, FILES_LOG_VERSION);
	im_buf_put_u32(ret, w->first);
	im_buf_put_u32(ret, w->sections);
	im_buf_put_u32(ret, w->blocks);
	im_buf_put_u64(ret, 0);
	im_buf_put_u64(ret, 0);
	im_buf_put(ret, w->table.data, w->table.len);
	im_buf_put(ret, w->stored.data, w->stored.len);
	if (ret->failed || w->table.failed)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	w->table.len = w->stored.len = 0;
	w->sections = w->blocks = 0;
	w->plain = 0;
	w->first = w->point;
	return 0;
}
