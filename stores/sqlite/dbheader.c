/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding the database header. Only what decides how to read the rest is looked at: SQLite itself
 * judges everything else when the restored file is checked.
 */
#include "stores/sqlite/dbheader.h"

#include "base/bytes.h"

#include <string.h>

bool dbheader_page_size_valid(uint64_t page_size)
{
	return page_size >= 512 && page_size <= 65536 && (page_size & (page_size - 1)) == 0;
}

int dbheader_decode(const uint8_t data[DBHEADER_BYTES], const char *path, struct dbheader *ret, struct im_error *err)
{
	if (memcmp(data, "SQLite format 3", 16) != 0)
		return im_fail(err, IM_EFAIL, "%s is not an SQLite database, or is encrypted", path);
	uint32_t page_size = (uint32_t)data[16] << 8 | data[17];
	if (page_size == 1)
		page_size = 65536;
	if (!dbheader_page_size_valid(page_size))
		return im_fail(err, IM_EFAIL, "%s has an impossible page size of %u", path, page_size);
	if (data[18] < 1 || data[18] > 2 || data[19] < 1 || data[19] > 2)
		return im_fail(err, IM_EFAIL, "%s has journal version %u/%u, which this imvault does not know",
		    path, data[18], data[19]);
	*ret = (struct dbheader){ page_size, data[19] == 2, im_be32(data + 24) };
	return 0;
}

uint32_t dbheader_lock_page(uint32_t page_size, uint32_t pages)
{
	uint64_t page = DBHEADER_LOCK_BYTE / page_size;
	return page < pages ? (uint32_t)page : UINT32_MAX;
}
