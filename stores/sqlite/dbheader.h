/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first 100 bytes of an SQLite database (https://www.sqlite.org/fileformat2.html §1.3), as far
 * as a capture needs them. Pure; the bytes may be hostile or torn.
 */
#ifndef IM_STORES_SQLITE_DBHEADER_H
#define IM_STORES_SQLITE_DBHEADER_H

#include "base/error.h"

#include <stdint.h>

#define DBHEADER_BYTES 100
/* SQLite never uses the page that holds byte 1 GiB: POSIX locks live there. */
#define DBHEADER_LOCK_BYTE (UINT64_C(1) << 30)

struct dbheader {
	uint32_t page_size;
	bool wal; /* the database is in WAL mode */
	uint32_t change_counter;
};

bool dbheader_page_size_valid(uint64_t page_size);
/* path is for the message. IM_EFAIL if this is no SQLite database. */
int dbheader_decode(const uint8_t data[DBHEADER_BYTES], const char *path, struct dbheader *ret, struct im_error *err);
/* Number (from 0) of the page that is never used, or UINT32_MAX if page 0 … pages-1 has none. */
uint32_t dbheader_lock_page(uint32_t page_size, uint32_t pages);

#endif
