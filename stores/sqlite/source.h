/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an image's pages are read: the database file, overlaid by WAL frames up to a commit.
 */
#ifndef IM_STORES_SQLITE_SOURCE_H
#define IM_STORES_SQLITE_SOURCE_H

#include "base/error.h"
#include "stores/sqlite/wal.h"

struct source {
	uint32_t page_size, pages;
	const char *path;              /* for messages */
	int db, wal;                   /* descriptors; wal -1: not used */
	const struct wal_table *table; /* NULL: not used */
	bool moving; /* the file may change or shrink under the reader: what is missing reads as zeros */
};

/* Reads pages first … first+count-1 (numbered from 0). IM_ECORRUPT if one is nowhere. */
int source_read(const struct source *s, uint32_t first, uint32_t count, uint8_t *ret, struct im_error *err);

#endif
