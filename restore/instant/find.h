/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instant restores of this machine that are under way, were cut off, or left an alias: found beside
 * the folders they fill, or by what they have mounted.
 */
#ifndef IM_RESTORE_INSTANT_FIND_H
#define IM_RESTORE_INSTANT_FIND_H

#include "restore/instant/arrange.h"
#include "restore/instant/record.h"
#include "restore/instant/table.h"

struct found { /* one folder */
	char *stage;
	enum record_phase phase;
	json_t *details;
};

struct found_list {
	struct found *items;
	size_t count;
};

/* Adds what is found at path or above it (absolute). Errors: only IM_ENOMEM and records that make no sense. */
int found_add_path(struct found_list *l, const char *path, struct im_error *err);
/* Adds what is mounted here now; records that make no sense are left out. */
int found_add_mounted(struct found_list *l, struct im_error *err);
/* Adds the other folders of the same restores. */
int found_complete(struct found_list *l, struct im_error *err);
/* Forgets those that are complete. */
void found_drop_switched(struct found_list *l);
/* IM_EUSAGE with their folders: they belong to more than one restore. An alias is nobody's business here. */
int found_check_one(const struct found_list *l, struct im_error *err);
void found_clear(struct found_list *l);

/* The arrangement that a record tells of. */
int found_arrangement(const struct found *f, struct arrangement *ret, struct im_error *err);
/* Its state, if some process still holds it. IM_ENOTFOUND: none does. */
int found_table(const struct found *f, bool writable, struct table *ret, struct im_error *err);
/* Do keepers live? */
bool found_is_at_work(const struct found *f);

#endif
