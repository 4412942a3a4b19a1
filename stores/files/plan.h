/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What plan notes for finish: everything that is no plain regular file, as one byte string (a tree
 * of a million entries must not become a million allocations).
 */
#ifndef IM_STORES_FILES_PLAN_H
#define IM_STORES_FILES_PLAN_H

#include "stores/files/follow_lay.h"
#include "stores/files/meta.h"

enum files_later_kind {
	FILES_LATER_FILE = 1, /* a regular file with extras, or with a time the engine cannot set */
	FILES_LATER_FOLDER,
	FILES_LATER_SYMLINK,
	FILES_LATER_LINK, /* hard link */
	FILES_LATER_NODE, /* FIFO or device */
};

struct files_later_item {
	enum files_later_kind kind;
	struct files_meta meta;
	uint64_t device;
	const char *path, *target; /* below the restore root; target of a symlink: as it is */
	const void *extras;
	size_t extras_len;
};

struct files_later {
	struct archive *lookup;
	struct files_lay_check *checks; /* of files the log goes on with */
	struct im_buf records;
	struct im_buf folders; /* offsets[8] of folders in records, parents first */
};

void files_later_free(struct files_later *l);
/* The item at the reader; false at the end. Its texts are borrowed from the records. */
bool files_later_next(struct im_reader *r, struct files_later_item *ret);

#endif
