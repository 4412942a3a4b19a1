/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of a snapshot, read back: all members of all segments of a manifest, in order. A segment
 * that cannot be read is reported as damage and skipped.
 */
#ifndef IM_STORES_FILES_TREE_H
#define IM_STORES_FILES_TREE_H

#include "stores/files/segment.h"
#include "stores/store.h"

struct files_tree {
	struct rebuild *r;
	const char *name; /* of the store */
	char *prefix; /* the store's path without the leading slash; may be "" */
	char *filter; /* relative to the store, or NULL: everything */
	bool nothing; /* the filter leads elsewhere */
	struct im_ref *refs;
	size_t ref_count;
	size_t damaged_count; /* segments skipped so far */
};

int files_tree_init(struct files_tree *t, struct rebuild *r, struct im_error *err);
void files_tree_clear(struct files_tree *t);

enum files_selection { FILES_NOT_SELECTED, FILES_ON_THE_WAY, FILES_SELECTED };
enum files_selection files_tree_select(const struct files_tree *t, const char *path);

/* "srv/uploads/a/b" for the member "a/b"; allocated, NULL when out of memory. */
char *files_tree_path(const struct files_tree *t, const char *path);

/* chunks: the member's segment's table. Non-zero stops. */
typedef int files_tree_fn(
    void *context, const struct files_chunk *chunks, const struct files_member *m, struct im_error *err);
int files_tree_each(struct files_tree *t, files_tree_fn *fn, void *context, struct im_error *err);
/* As each, but without fetching segments for which skip says so (they count as damaged): text names where they are. */
typedef bool files_tree_skip_fn(void *context, const struct im_ref *ref);
int files_tree_each_but(struct files_tree *t, files_tree_skip_fn *skip, files_tree_fn *fn,
    void (*damaged)(void *context, const char *text), void *context, struct im_error *err);

#endif
