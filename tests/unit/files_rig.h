/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the files store share: a source tree, snapshots of it through a real vault, and a
 * plain rebuild without the restore engine.
 */
#ifndef IM_TESTS_FILES_RIG_H
#define IM_TESTS_FILES_RIG_H

#include "fixture.h"

#include "stores/files/files_store.h"
#include "vault/snapshot.h"

struct files_rig {
	struct fixture f;
	char source[128], target[128];
	struct im_config config;
	struct im_config_store stores[4];
	struct im_config_pair pairs[8];
	struct snapshot_result result; /* of the last files_rig_snapshot */
	struct snapshot snapshot;
	struct store_events events;
	char warnings[8192], damage[8192]; /* one per line */
	void (*on_warning)(struct files_rig *r, const char *text); /* called while the tree is being read */
	unsigned rounds;
	struct snapshot_anchor *anchor; /* for the snapshots to come, or NULL */
	const struct rebuild_log *log; /* for the restores to come, or NULL */
	struct rebuild rebuild;
	struct rig_file *files;
	size_t file_count;
};

int files_rig_setup(void **state);
int files_rig_teardown(void **state);
/* The store's option, for the snapshots to come. */
void files_rig_option(struct files_rig *r, const char *key, const char *value);
/* Makes source/path with these bytes, and the folders on the way. */
void files_rig_write(struct files_rig *r, const char *path, const void *data, size_t len);
char *files_rig_path(struct files_rig *r, const char *path); /* source/path; a static buffer */
/* Turns back the clocks' doubt: waits until nothing in the tree is racy. */
void files_rig_settle(void);
/* Takes a snapshot with a new packer and commits the state. */
int files_rig_snapshot(struct files_rig *r, bool full, struct im_error *err);
/* Rebuilds the last snapshot into a new target folder; path_filter may be NULL. root: where the source now is. */
int files_rig_restore(struct files_rig *r, const char *path_filter, char *ret_root, struct im_error *err);
/* As restore, but between plan and finish calls between(context). */
int files_rig_restore_with(struct files_rig *r, const char *path_filter, char *ret_root,
    void (*between)(void *context, int root_fd), void *context, struct im_error *err);
/* Everything about a tree as text, to be freed: names, types, modes, owners, times, attributes, links, contents. */
char *files_rig_describe(const char *root);
/* A manifest of these segments, as a hostile node would sign it; the segment is put as given. */
void files_rig_forge(struct files_rig *r, const void *segment, size_t len);

#endif
