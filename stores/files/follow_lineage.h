/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which file a record of the log is about: names change hands (rotation), so content belongs to a
 * line: one file from its beginning to its end, whatever it is called meanwhile. The same records
 * give the same numbers each time they are taken.
 */
#ifndef IM_STORES_FILES_FOLLOW_LINEAGE_H
#define IM_STORES_FILES_FOLLOW_LINEAGE_H

#include "stores/files/follow_body.h"
#include "stores/files/follow_names.h"

#define FILES_NO_LINE FILES_NO_NAME

struct files_line {
	char *origin; /* it was at this path before the first record; NULL: it began in the log */
	char *path;   /* where it is; NULL: not any more */
};

struct files_lineage { /* begin with zeros */
	struct files_names now, origins; /* path -> line */
	struct files_line *lines;
	size_t count, cap;
};

/* *ret: the line it is about (BEGIN: the new one; MOVED: the one that moved), or FILES_NO_LINE: none (END, FOLDER), or a
 * path where nothing is, which honest logs do not have. */
int files_lineage_take(
    struct files_lineage *l, const struct files_log_record *record, uint32_t *ret, struct im_error *err);
void files_lineage_clear(struct files_lineage *l);

#endif
