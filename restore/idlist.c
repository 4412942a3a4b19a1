/* SPDX-License-Identifier: Apache-2.0 */
#include "restore/idlist.h"

#include <stdlib.h>
#include <string.h>

int idlist_keep(struct idlist *l, const uint8_t id[32], uint32_t *ret_row, struct im_error *err)
{
	bool again = l->count && memcmp(l->ids[l->count - 1], id, 32) == 0;
	if (!again && l->count == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 1024;
		uint8_t(*ids)[32] = realloc(l->ids, cap * sizeof *ids);
		if (!ids)
			return im_fail(err, IM_ENOMEM, "out of memory planning the restore");
		l->ids = ids;
		l->cap = cap;
	}
	if (!again)
		memcpy(l->ids[l->count++], id, 32);
	*ret_row = (uint32_t)l->count - 1;
	return 0;
}

void idlist_free(struct idlist *l)
{
	free(l->ids);
	*l = (struct idlist){ 0 };
}
