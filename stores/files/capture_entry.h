/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between segment_job.c and capture.c: the segment being captured, and its entries one by one.
 */
#ifndef IM_STORES_FILES_CAPTURE_ENTRY_H
#define IM_STORES_FILES_CAPTURE_ENTRY_H

#include "stores/files/beneath.h"
#include "stores/files/capture.h"

struct files_segment_capture {
	struct files_capture *c;
	struct files_job *job;
	struct archive *disk;
	struct files_parent parent;
	struct files_content *content;
	struct files_segment_writer *writer;
	struct files_memory old; /* of the run before */
	uint32_t *old_rows; /* old chunk row -> row + 1, of the segment being written */
	struct files_pieces pieces; /* of all files so far; known.pieces hold offsets until the end */
	struct files_memory fresh;
	size_t fresh_cap, chunk_base; /* rows of segments already split off */
	bool trusted;
};

/* Adds the entry to the segment. IM_ENOTFOUND: it is gone; IM_EIO: it cannot be read; both concern this entry only. */
int files_capture_entry(struct files_segment_capture *s, const struct files_entry *e, struct im_error *err);
void files_capture_warn_sqlite(struct files_capture *c, const char *path);

#endif
