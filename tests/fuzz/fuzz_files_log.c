/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of a tree's log segments: the reader, the lines of files, and merging two of them. What comes out of a merge must be a body again. */
#include "fuzz.h"

#include "stores/files/follow_internal.h"
#include "stores/files/follow_lineage.h"
#include "stores/files/segment.h"

#include <string.h>

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct im_buf body = { .data = (uint8_t *)data, .len = size };
	struct follow_source sources[2] = { files_log_memory(&body), files_log_memory(&body) };
	struct files_lineage lines = { 0 }, merged = { 0 };
	if (files_log_each(&sources[0], on_record, &lines, NULL) == 0)
		files_follow_merge(sources, 2, on_part, &merged, NULL);
	files_lineage_clear(&lines);
	files_lineage_clear(&merged);
	return 0;
}
