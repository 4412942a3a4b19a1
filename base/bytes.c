/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffer, reader and text codecs of bytes.h. Little-endian by shifts, so the same on every
 * machine; no struct is ever cast over foreign bytes.
 */
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

void im_buf_free(struct im_buf *b)
{
	free(b->data);
	*b = (struct im_buf){ 0 };
}

uint8_t *im_buf_grow(struct im_buf *b, size_t len)
{
	if (b->failed || len > SIZE_MAX / 2 - b->len) {
		b->failed = true;
		return NULL;
	}
	if (b->len + len > b->cap || !b->data) { /* so that growing by 0 is no failure */
		size_t cap = b->cap ? b->cap : 256;
		while (cap < b->len + len)
			cap += cap / 2 + 64;
		uint8_t *data = realloc(b->data, cap);
		if (!data) {
			b->failed = true;
			return NULL;
		}
		b->data = data;
		b->cap = cap;
	}
	uint8_t *p = b->data + b->len;
	b->len += len;
	return p;
}

void im_buf_put(struct im_buf *b, const void *data, size_t len)
{
	uint8_t *p = im_buf_grow(b, len);
	if (p && len)
		memcpy(p, data, len);
}

static void put_le(struct im_buf *b, uint64_t v, size_t len)
{
	uint8_t *p = im_buf_grow(b, len);
	for (size_t i = 0; p && i < len; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

void im_buf_put_u8(struct im_buf *b, uint8_t v) { put_le(b, v, 1); }
void im_buf_put_u16(struct im_buf *b, uint16_t v) { put_le(b, v, 2); }
void im_buf_put_u32(struct im_buf *b, uint32_t v) { put_le(b, v, 4); }
void im_buf_put_u64(struct im_buf *b, uint64_t v) { put_le(b, v, 8); }

struct im_reader im_reader_of(const void *data, size_t len)
{
	const uint8_t *at = data;
	return (struct im_reader){ .at = at, .end = at ? at + len : at };
}

static uint64_t read_le(struct im_reader *r, size_t len)
{
	const uint8_t *p = im_read_view(r, len);
	uint64_t v = 0;
	for (size_t i = 0; p && i < len; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint16_t im_read_u16(struct im_reader *r) { return (uint16_t)read_le(r, 2); }
uint32_t im_read_u32(struct im_reader *r) { return (uint32_t)read_le(r, 4); }
uint64_t im_read_u64(struct im_reader *r) { return read_le(r, 8); }

bool im_read_copy(struct im_reader *r, void *ret, size_t len)
{
	const uint8_t *p = im_read_view(r, len);
	if (p)
		memcpy(ret, p, len);
	else
		memset(ret, 0, len);
	return p != NULL;
}

size_t im_read_left(const struct im_reader *r)
{
	return r->failed ? 0 : (size_t)(r->end - r->at);
}

uint32_t im_le32(const void *p)
{
	const uint8_t *b = p;
	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t im_le64(const void *p)
{
	return im_le32(p) | (uint64_t)im_le32((const uint8_t *)p + 4) << 32;
}

uint32_t im_be32(const void *p)
{
	const uint8_t *b = p;
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

void im_put_le32(void *p, uint32_t v)
{
	uint8_t *b = p;
	for (int i = 0; i < 4; i++)
		b[i] = (uint8_t)(v >> (8 * i));
}

void im_put_le64(void *p, uint64_t v)
{
	im_put_le32(p, (uint32_t)v);
	im_put_le32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

char *im_hex(char *ret, const void *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = data;
	for (size_t i = 0; i < len; i++) {
		ret[2 * i] = digits[p[i] >> 4];
		ret[2 * i + 1] = digits[p[i] & 15];
	}
	ret[2 * len] = '\0';
	return ret;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool im_unhex(void *ret, size_t len, const char *text)
{
	uint8_t *out = ret;
	if (!text || strlen(text) != 2 * len)
		return false;
	for (size_t i = 0; i < len; i++) {
		int hi = hex_value(text[2 * i]), lo = hex_value(text[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return false;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *im_base64(const void *data, size_t len)
{
	const uint8_t *p = data;
	char *out = malloc(len / 3 * 4 + 5), *o = out;
	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t v = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);
		*o++ = base64_digits[v >> 18];
		*o++ = base64_digits[v >> 12 & 63];
		*o++ = n > 1 ? base64_digits[v >> 6 & 63] : '=';
		*o++ = n > 2 ? base64_digits[v & 63] : '=';
	}
	*o = '\0';
	return out;
}

static int base64_value(char c)
{
	const char *p = c ? strchr(base64_digits, c) : NULL;
	return p ? (int)(p - base64_digits) : -1;
}

bool im_unbase64(struct im_buf *ret, const char *text)
{
	size_t len = text ? strlen(text) : 1;
	if (len % 4)
		return false;
	for (size_t i = 0; i < len; i += 4) {
		int pad = i + 4 == len ? (text[i + 3] == '=') + (text[i + 2] == '=') : 0;
		int v[4] = { 0 };
		for (int k = 0; k < 4 - pad; k++)
			if ((v[k] = base64_value(text[i + (size_t)k])) < 0)
				return false;
		if (pad == 2 && text[i + 3] != '=')
			return false;
		uint32_t w = (uint32_t)v[0] << 18 | (uint32_t)v[1] << 12 | (uint32_t)v[2] << 6 | (uint32_t)v[3];
		uint8_t out[3] = { (uint8_t)(w >> 16), (uint8_t)(w >> 8), (uint8_t)w };
		im_buf_put(ret, out, (size_t)(3 - pad));
	}
	return !ret->failed;
}
