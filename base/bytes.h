/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes: a growable buffer to encode into, a bounded reader to decode from, hex and base64.
 * Everything decoded from a vault goes through the reader: it never reads past its end, and once
 * it has failed it returns zeros and stays failed, so one check at the end is enough.
 */
#ifndef IM_BASE_BYTES_H
#define IM_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct im_buf {
	uint8_t *data;
	size_t len, cap;
	bool failed; /* out of memory: data is incomplete */
};

void im_buf_free(struct im_buf *b); /* frees the content, not b; b is usable again */
void im_buf_put(struct im_buf *b, const void *data, size_t len);
/* Appends len uninitialised bytes and returns where they begin; NULL when out of memory. */
uint8_t *im_buf_grow(struct im_buf *b, size_t len);
void im_buf_put_u8(struct im_buf *b, uint8_t v);
void im_buf_put_u16(struct im_buf *b, uint16_t v);
void im_buf_put_u32(struct im_buf *b, uint32_t v);
void im_buf_put_u64(struct im_buf *b, uint64_t v);
#define auto_buf __attribute__((cleanup(im_buf_free)))

struct im_reader {
	const uint8_t *at, *end;
	bool failed;
};

struct im_reader im_reader_of(const void *data, size_t len);
uint16_t im_read_u16(struct im_reader *r);
uint32_t im_read_u32(struct im_reader *r);
uint64_t im_read_u64(struct im_reader *r);

/* A view of the next len bytes, borrowed from the source; NULL (and failed) if there are fewer. */
static inline const uint8_t *im_read_view(struct im_reader *r, size_t len)
{
	if (r->failed || (size_t)(r->end - r->at) < len) {
		r->failed = true;
		return NULL;
	}
	const uint8_t *p = r->at;
	r->at += len;
	return p;
}

static inline uint8_t im_read_u8(struct im_reader *r)
{
	const uint8_t *p = im_read_view(r, 1);
	return p ? *p : 0;
}

bool im_read_copy(struct im_reader *r, void *ret, size_t len); /* zeros when failed */
size_t im_read_left(const struct im_reader *r);

uint32_t im_le32(const void *p);
uint64_t im_le64(const void *p);
uint32_t im_be32(const void *p);
void im_put_le32(void *p, uint32_t v);
void im_put_le64(void *p, uint64_t v);

/* ret has room for 2*len+1 characters; returns ret. */
char *im_hex(char *ret, const void *data, size_t len);
/* Exactly len bytes from exactly 2*len hex digits of text. */
bool im_unhex(void *ret, size_t len, const char *text);

/* Allocated, NUL-terminated base64; NULL when out of memory. */
char *im_base64(const void *data, size_t len);
/* Appends the decoded bytes; false on malformed text. */
bool im_unbase64(struct im_buf *ret, const char *text);

#endif
