/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of up to 32 bits in 1 to 5 bytes, 7 bits each, lowest first; the top bit says that more
 * follow (FORMAT §7).
 */
#ifndef IM_STORES_SQLITE_VARINT_H
#define IM_STORES_SQLITE_VARINT_H

#include "base/bytes.h"

#define VARINT_MAX_BYTES 5

static inline void varint_put(struct im_buf *b, uint32_t v)
{
	uint8_t bytes[VARINT_MAX_BYTES];
	size_t len = 0;
	for (; v > 127; v >>= 7)
		bytes[len++] = (uint8_t)(v | 128);
	bytes[len++] = (uint8_t)v;
	im_buf_put(b, bytes, len);
}

/* The reader fails for more than 32 bits. */
static inline uint32_t varint_read(struct im_reader *r)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < VARINT_MAX_BYTES; i++) {
		uint8_t byte = im_read_u8(r);
		v |= (uint64_t)(byte & 127) << (7 * i);
		if (byte < 128)
			break;
		if (i == VARINT_MAX_BYTES - 1)
			r->failed = true;
	}
	if (v > UINT32_MAX)
		r->failed = true;
	return (uint32_t)v;
}

#endif
