/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table from names (paths, or whatever stands for a thing) to numbers. It keeps hashes of 16 bytes
 * instead of the names: small, and nobody can make names that collide.
 */
#ifndef IM_STORES_FILES_FOLLOW_NAMES_H
#define IM_STORES_FILES_FOLLOW_NAMES_H

#include "stores/files/memory.h"

#define FILES_NO_NAME UINT32_MAX

struct files_name {
	uint8_t hash[FILES_NAME_HASH_BYTES];
	uint32_t value;
};

struct files_names { /* begin with zeros */
	struct files_name *slots;
	size_t used, cap; /* used: with what was dropped */
};

/* FILES_NO_NAME: not there. */
uint32_t files_names_get(const struct files_names *n, const char *name);
/* Replaces; value below UINT32_MAX - 1. IM_ENOMEM. */
int files_names_put(struct files_names *n, const char *name, uint32_t value, struct im_error *err);
void files_names_drop(struct files_names *n, const char *name);
void files_names_clear(struct files_names *n);

#endif
