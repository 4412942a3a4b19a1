/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a files store leaves out: the `exclude =` patterns, files that other stores of the node
 * hold, and imvault's own vault and state.
 */
#ifndef IM_STORES_FILES_EXCLUDE_H
#define IM_STORES_FILES_EXCLUDE_H

#include "base/config.h"

#include <stddef.h>

struct files_exclude {
	const char **patterns; /* borrowed from the configuration */
	size_t pattern_count;
	char **paths; /* relative to the store's root; with all that is below */
	size_t path_count;
};

/* config may be NULL: patterns alone. */
int files_exclude_init(struct files_exclude *ret, const struct im_config *config, const struct im_config_store *store,
    struct im_error *err);
/* Only the store's values of key, which are patterns too. */
int files_exclude_init_key(
    struct files_exclude *ret, const struct im_config_store *store, const char *key, struct im_error *err);
/* Takes a copy of a path relative to the root. */
int files_exclude_add_path(struct files_exclude *x, const char *path, struct im_error *err);
bool files_exclude_match(const struct files_exclude *x, const char *path, bool is_folder);
void files_exclude_clear(struct files_exclude *x);

#endif
