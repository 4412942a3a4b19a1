/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of a tree's log segments: the reader, the lines of files, and merging two of them. What comes out of a merge
 * must be a body again. Input that begins with 'R' is records (after a byte: how many ENDs), which are made a body here. */
#include "fuzz.h"

#include "base/bytes.h"
#include "stores/files/follow_internal.h"
#include "stores/files/follow_lineage.h"
#include "stores/files/segment.h"

#include <string.h>
#include <zstd.h>

static int on_record(void *context, const struct files_log_record *record, struct im_error *err)
{
	struct files_lineage *l = context;
	uint32_t line;
	if (record->type != FILES_LOG_END)
		IM_CHECK(files_path_valid(record->path) && strcmp(record->path, "."));
	if (record->type == FILES_LOG_APPEND)
		IM_CHECK(record->len && record->offset + record->len <= FILES_MAX_FILE_BYTES);
	int rc = files_lineage_take(l, record, &line, err);
	IM_CHECK(rc || line == FILES_NO_LINE || line < l->count);
	return rc;
}

static int on_part(void *context, const void *data, size_t len, bool final, struct im_error *err)
{
	struct im_buf body = { .data = (uint8_t *)data, .len = len };
	struct follow_source source = files_log_memory(&body);
	(void)final;
	IM_CHECK(files_log_each(&source, on_record, context, err) == 0);
	return 0;
}

static void make_body(const uint8_t *data, size_t size, struct im_buf *ret)
{
	size_t bound = ZSTD_compressBound(size - 2);
	auto_buf struct im_buf frame = { 0 };
	uint8_t *p = im_buf_grow(&frame, bound);
	size_t stored = ZSTD_compress(p, bound, data + 2, size - 2, 1);
	const uint32_t head[] = { 1, 7, data[1], 1, 0, 0, 0, 0, (uint32_t)(size - 2), (uint32_t)stored };
	for (size_t i = 0; i < sizeof head / sizeof *head; i++)
		im_buf_put_u32(ret, head[i]);
	im_buf_put(ret, p, stored);
}

static void run(const struct im_buf *body)
{
	struct follow_source sources[2] = { files_log_memory(body), files_log_memory(body) };
	struct files_lineage lines = { 0 }, merged = { 0 };
	if (files_log_each(&sources[0], on_record, &lines, NULL) == 0)
		files_follow_merge(sources, 2, on_part, &merged, NULL);
	files_lineage_clear(&lines);
	files_lineage_clear(&merged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct im_buf body = { .data = (uint8_t *)data, .len = size };
	auto_buf struct im_buf made = { 0 };
	if (size > 2 && data[0] == 'R')
		make_body(data, size, &made);
	run(made.len ? &made : &body);
	return 0;
}
