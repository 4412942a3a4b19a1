/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a restore goes. Each thing to be restored (a store, or one path of it) is a *unit* with its
 * original absolute path; units inside each other form one group that is built in one hidden stage
 * folder beside the outermost one, on the same file system:
 *
 *     PARENT/.NAME.imvault-partial/marker      says whose this is
 *     PARENT/.NAME.imvault-partial/root/...    original paths without the leading slash
 *
 * (a unit that is a mount point is staged inside itself). Publishing renames each outermost unit
 * that succeeded to its final name; what stands there was moved to NAME.before-restore-TIME.
 * A crash leaves stage folders and moved-aside names, never half of anything under a final name.
 * The stage is 0700 and locked while in use; one left by a dead run is emptied and used again.
 */
#ifndef IM_RESTORE_TARGET_H
#define IM_RESTORE_TARGET_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TARGET_PARTIAL_SUFFIX ".imvault-partial"
#define TARGET_DAMAGED_SUFFIX ".imvault-damaged"
#define TARGET_ASIDE_INFIX ".before-restore-"

struct target;

/* to: folder for re-rooted paths, NULL: in place. Touches nothing. */
int target_new(const char *to, bool overwrite, struct target **ret, struct im_error *err);
void target_free(struct target *t); /* leaves stages as they are; see target_end */

/* Stages get the other name, and single files bring their folder along (see target_add_folder). Before the first add. */
void target_set_instant(struct target *t);
/* A folder that is to change places as a whole though not all in it is restored. What is in it now is no obstacle. */
int target_add_folder(struct target *t, const char *path, struct im_error *err);
/* path: absolute, checked here (IM_ECORRUPT for one that is not plain). beside: absolute paths that
 * belong to it (PATH-wal); copied. */
int target_add(struct target *t, const char *path, const char *const *beside, size_t beside_count,
    size_t *ret_unit, struct im_error *err);
/* After the last add: forms groups; IM_EUSAGE if something is in the way and may not be moved.
 * Touches nothing. */
int target_check(struct target *t, struct im_error *err);
/* Calls fn for each thing in the way, with its absolute path. After target_check; touches nothing.
 */
int target_each_obstacle(struct target *t, void (*fn)(void *context, size_t unit, const char *path),
    void *context, struct im_error *err);
/* Free bytes for unprivileged use, and the device they are on. */
int target_space(struct target *t, size_t unit, uint64_t *ret_free_bytes, uint64_t *ret_device,
    struct im_error *err);
/* Makes the stages (and missing parents). IM_ELOCKED if another restore works there. */
int target_begin(struct target *t, struct im_error *err);

/* The same for stages that are there already: nothing is emptied. IM_ENOTFOUND: one is not. */
int target_begin_again(struct target *t, struct im_error *err);

int target_root_fd(const struct target *t, size_t unit); /* the stage's root/, borrowed */
/* Does relative path belong to another unit of the group, nested deeper than this one? */
bool target_is_covered(const struct target *t, size_t unit, const char *path);
/* Absolute final path of an original absolute path; allocated, NULL when out of memory. */
char *target_place(const struct target *t, const char *path);

struct target_whole { /* what has a stage of its own: an outermost unit; strings are absolute, allocated */
	char *original, *target, *stage, *staged; /* in the snapshot; its final place; the stage folder; where it lies in there */
	size_t unit;      /* the outermost; any unit inside has the same whole */
	bool is_folder;   /* made by target_add_folder */
	bool is_mount;    /* its place is a mount point: it is staged inside and cannot be renamed */
	int parent_fd, stage_fd, root_fd; /* borrowed; after target_begin */
};
size_t target_whole_count(const struct target *t);
int target_get_whole(const struct target *t, size_t i, struct target_whole *ret, struct im_error *err);
void target_whole_clear(struct target_whole *w);
/* Is this a name in the folder at path (original, absolute) that is restored, or belongs to something restored there? */
bool target_owns(const struct target *t, const char *path, const char *name);
const char *target_stamp(const struct target *t); /* for names of what is moved aside */

/* All staged bytes become durable. */
int target_sync(struct target *t, struct im_error *err);
/* Gives units their final names, outermost first; wanted[unit]. A unit inside a published one goes
 * with it. One that fails does not stop the others; the first failure is returned. */
int target_publish(struct target *t, const bool *wanted, struct im_error *err);
bool target_is_published(const struct target *t, size_t unit);
const char *target_moved_aside(
    const struct target *t, size_t unit); /* final path of the old one, or NULL */
/* Calls fn for each name directly in a published unit that is there without having been restored:
 * in a mount point, which was filled and not replaced. */
void target_each_stranger(const struct target *t, size_t unit,
    void (*fn)(void *context, const char *name), void *context);
/* From now on the stages are somebody else's to remove. */
void target_keep(struct target *t);
/* Removes the stages. */
int target_end(struct target *t, struct im_error *err);

/* NAME.imvault-damaged, shortened to fit; ret has NAME_MAX + 1 bytes. */
char *target_damaged_name(char *ret, const char *name);

#endif
