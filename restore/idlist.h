/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ids that chunks must have, by row: pieces of one chunk mostly follow each other and share a row.
 */
#ifndef IM_RESTORE_IDLIST_H
#define IM_RESTORE_IDLIST_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define IDLIST_NONE UINT32_MAX /* no row */

struct idlist {
	uint8_t (*ids)[32];
	size_t count, cap;
};

int idlist_keep(struct idlist *l, const uint8_t id[32], uint32_t *ret_row, struct im_error *err);
void idlist_free(struct idlist *l);

#endif
