/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Positions: their JSON, and the arithmetic of salts.
 */
#include "stores/sqlite/walpos.h"

#include "base/bytes.h"
#include "stores/sqlite/dbheader.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define RACY_NS INT64_C(2000000000) /* file systems may count in seconds */

json_t *walpos_encode(const struct walpos *p)
{
	char salt[17], check[17], sum[2 * CRYPTO_PAGE_HASH_BYTES + 1];
	uint8_t words[8];
	im_put_le32(words, p->frame_checksum[0]);
	im_put_le32(words + 4, p->frame_checksum[1]);
	return json_pack("{s:I s:I s:s s:I s:s s:s s:I s:I s:I s:I s:I}", "page_size", (json_int_t)p->page_size, "pages", (json_int_t)p->pages,
	    "salt", im_hex(salt, p->salt, 8), "frame", (json_int_t)p->frame, "check", im_hex(check, words, 8), "sum",
	    im_hex(sum, p->sum, sizeof p->sum), "dev", (json_int_t)p->device, "ino", (json_int_t)p->inode,
	    "complete_ms", (json_int_t)p->complete_ms, "latest_ms", (json_int_t)p->latest_ms, "changed_ns", (json_int_t)p->changed_ns);
}

static bool get_number(const json_t *j, const char *key, uint64_t max, uint64_t *ret)
{
	const json_t *v = json_object_get(j, key);
	json_int_t n = json_integer_value(v);
	*ret = (uint64_t)n;
	return json_is_integer(v) && (max == UINT64_MAX || (n >= 0 && (uint64_t)n <= max));
}

static bool get_bytes(const json_t *j, const char *key, void *ret, size_t len)
{
	const char *text = json_string_value(json_object_get(j, key));
	return text && im_unhex(ret, len, text);
}

int walpos_decode(const json_t *j, struct walpos *ret, struct im_error *err)
{
	struct walpos p = { 0 };
	uint64_t page_size = 0, pages = 0, frame = 0;
	uint8_t words[8];
	if (!get_number(j, "page_size", 65536, &page_size) || !dbheader_page_size_valid(page_size) ||
	    !get_number(j, "pages", UINT32_MAX - 1, &pages) || !get_number(j, "frame", UINT32_MAX, &frame) ||
	    !get_bytes(j, "salt", p.salt, 8) || !get_bytes(j, "check", words, 8) || !get_bytes(j, "sum", p.sum, sizeof p.sum) ||
	    !get_number(j, "dev", UINT64_MAX, &p.device) || !get_number(j, "ino", UINT64_MAX, &p.inode))
		return im_fail(err, IM_ECORRUPT, "a position in a database's log is malformed");
	p.complete_ms = json_integer_value(json_object_get(j, "complete_ms"));
	p.latest_ms = json_integer_value(json_object_get(j, "latest_ms"));
	p.changed_ns = json_integer_value(json_object_get(j, "changed_ns"));
	p.page_size = (uint32_t)page_size;
	p.pages = (uint32_t)pages;
	p.frame = (uint32_t)frame;
	p.frame_checksum[0] = im_le32(words);
	p.frame_checksum[1] = im_le32(words + 4);
	*ret = p;
	return 0;
}

struct walpos walpos_of_pin(const struct keeper_pin *pin, uint32_t pages_in_file)
{
	struct walpos p = { .page_size = pin->page_size, .pages = pin->pages ? pin->pages : pages_in_file, .frame = pin->frame,
		.frame_checksum = { pin->frame_checksum[0], pin->frame_checksum[1] }, .complete_ms = pin->before_ms, .latest_ms = pin->after_ms };
	memcpy(p.salt, pin->salt, sizeof p.salt);
	return p;
}

bool walpos_is_blank(const struct walpos *p)
{
	static const uint8_t none[sizeof p->salt];
	return p->frame == 0 && memcmp(p->salt, none, sizeof none) == 0;
}

int64_t walpos_changed_ns(int db_fd)
{
	struct stat st;
	struct timespec now;
	if (fstat(db_fd, &st) || clock_gettime(CLOCK_REALTIME, &now))
		return 0;
	int64_t changed = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
	int64_t age = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - changed;
	return age > RACY_NS ? changed : 0;
}

bool walpos_same_generation(const struct walpos *a, const uint8_t salt[8])
{
	return memcmp(a->salt, salt, 8) == 0;
}

bool walpos_salt_follows(const uint8_t a[8], const uint8_t b[8])
{
	return im_be32(b) == im_be32(a) + 1;
}
