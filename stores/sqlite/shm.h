/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of a -shm file (https://www.sqlite.org/walformat.html §2): which commit a reader that
 * begins now would see. Native byte order, as SQLite has it. Pure.
 */
#ifndef IM_STORES_SQLITE_SHM_H
#define IM_STORES_SQLITE_SHM_H

#include <stdbool.h>
#include <stdint.h>

#define SHM_HEADER_BYTES 48
#define SHM_HEAD_BYTES 136 /* two headers, checkpoint info, locks */

struct shm_head {
	uint8_t raw[SHM_HEADER_BYTES];
	uint32_t page_size, max_frame, pages; /* page_size, pages: 0 if the WAL never had a frame */
	uint32_t frame_checksum[2];           /* of frame max_frame */
	uint8_t salt[8];                      /* as in the WAL's header */
	bool big_endian_checksums;
	uint32_t backfilled;                  /* frames a checkpoint has written to the database */
};

/* False if the two copies differ or the checksum is wrong: somebody is writing it, or nobody ever did. */
bool shm_decode(const uint8_t data[SHM_HEAD_BYTES], struct shm_head *ret);

#endif
