/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which inodes with several names have been seen, and under which path first.
 */
#ifndef IM_STORES_FILES_LINKS_H
#define IM_STORES_FILES_LINKS_H

#include <stddef.h>
#include <sys/stat.h>

struct files_links {
	struct files_link *slots;
	size_t count, cap;
};

/* The first path of this inode, borrowed until clear; NULL if this one is the first (it is then noted). -1 when out of
 * memory. */
int files_links_note(struct files_links *l, const struct stat *st, const char *path, char **ret_first);
void files_links_clear(struct files_links *l);

#endif
