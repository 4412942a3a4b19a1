/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding the -shm head:
 *
 *   0 version[4] = 3007000 | 8 change[4] | 12 initialised[1] | 13 big-endian checksums[1] | 14 page size[2]
 *   16 max frame[4] | 20 pages[4] | 24 frame checksum[8] | 32 salts[8] | 40 checksum of bytes 0..39[8]
 *   48 the same again | 96 backfilled[4] | 100 read marks[5×4] | 120 locks[8] | 128 backfill attempted[4]
 */
#include "stores/sqlite/shm.h"

#include <string.h>

static uint32_t native32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return v;
}

bool shm_decode(const uint8_t data[SHM_HEAD_BYTES], struct shm_head *ret)
{
	if (memcmp(data, data + SHM_HEADER_BYTES, SHM_HEADER_BYTES) != 0 || native32(data) != 3007000 || !data[12])
		return false;
	uint32_t s0 = 0, s1 = 0;
	for (unsigned i = 0; i < 40; i += 8) {
		s0 += native32(data + i) + s1;
		s1 += native32(data + i + 4) + s0;
	}
	if (s0 != native32(data + 40) || s1 != native32(data + 44))
		return false;
	uint16_t size;
	memcpy(&size, data + 14, sizeof size);
	*ret = (struct shm_head){
		.page_size = (size & 0xfe00u) + ((uint32_t)(size & 1) << 16),
		.max_frame = native32(data + 16),
		.pages = native32(data + 20),
		.frame_checksum = { native32(data + 24), native32(data + 28) },
		.big_endian_checksums = data[13],
		.backfilled = native32(data + 96),
	};
	memcpy(ret->raw, data, SHM_HEADER_BYTES);
	memcpy(ret->salt, data + 32, 8);
	return true;
}
