/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest of an sqlite store (FORMAT §5), decoded and checked: what restore, check, export and
 * explain work from. It comes from a vault: hostile until it is here.
 */
#ifndef IM_STORES_SQLITE_DBMANIFEST_H
#define IM_STORES_SQLITE_DBMANIFEST_H

#include "stores/sqlite/leafmap.h"
#include "stores/store.h"
#include "vault/snapshot.h"

#include <sys/stat.h>

struct dbmanifest {
	const char *path;     /* original, absolute; borrowed from the JSON, as all strings are */
	const char *user, *group; /* NULL if not recorded */
	uint32_t page_size, pages;
	uint64_t file_bytes;
	struct im_ref *leaves;
	uint32_t leaf_count;
	uint8_t checksum[CRYPTO_PAGE_HASH_BYTES];
	unsigned mode;
	uint32_t uid, gid;
	int64_t mtime_ns;
	bool wal;
	struct im_ref *journal;
	size_t journal_count;
	uint64_t journal_bytes;
	const json_t *probes; /* borrowed; NULL */
};

int dbmanifest_decode(const json_t *manifest, struct dbmanifest *ret, struct im_error *err);
void dbmanifest_clear(struct dbmanifest *m);
/* New manifest with name, type, path, metadata, wal, capture; image_describe adds the rest. */
int dbmanifest_new(const struct im_config_store *config, const struct stat *st, bool wal, const char *capture, json_t **ret, struct im_error *err);
/* Pages of one leaf. */
uint32_t dbmanifest_leaf_pages(const struct dbmanifest *m, uint32_t leaf);
/* Fetches and checks a leaf's runs. */
int dbmanifest_leaf(const struct dbmanifest *m, const struct rebuild *r, uint32_t leaf, struct leafmap_list *ret, struct im_error *err);
/* Is path, or what lies below filter, meant? filter NULL: everything. */
bool dbmanifest_wanted(const struct dbmanifest *m, const char *filter);

#endif
