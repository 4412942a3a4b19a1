/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links are cut out of a message's XML without parsing it: from "://" to the first character that
 * ends an attribute or a word. What comes before is of no interest, and a link that is broken by an
 * entity is none of the servers' own: they escape what would need one.
 */
#include "stores/sqlite/uploads.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_MAX_CHARS 64
#define SITE_MAX_CHARS 511
#define RANDOM_MIN_CHARS 32 /* ejabberd: secret_length, 40 unless configured */
#define RANDOM_MAX_CHARS 128

static int add(struct uploads *u, uint64_t key, const struct store_attachment *a, struct im_error *err)
{
	if (u->count == UPLOADS_MAX) {
		u->cut = true;
		free(a->tail);
		return 0;
	}
	if (u->count == u->cap) {
		size_t cap = u->cap ? 2 * u->cap : 64;
		struct store_attachment *grown = reallocarray(u->items, cap, sizeof *grown);
		if (!grown) {
			free(a->tail);
			return im_fail(err, IM_ENOMEM, "out of memory");
		}
		u->items = grown;
		u->cap = cap;
	}
	u->items[u->count] = *a;
	return hash64_add(&u->index, key, (uint32_t)u->count++, err);
}

void uploads_clear(struct uploads *u)
{
	for (size_t i = 0; i < u->count; i++)
		free(u->items[i].tail);
	free(u->items);
	hash64_clear(&u->index);
	*u = (struct uploads){ 0 };
}

/* SLOT.bin as util.datamanager names it: what is not a letter or digit becomes %xx. */
static char *file_of_slot(const char *slot)
{
	static const char digits[] = "0123456789abcdef";
	char *name = malloc(3 * strlen(slot) + sizeof ".bin"), *at = name;
	for (const unsigned char *p = (const unsigned char *)slot; name && *p; p++) {
		if (*p < 128 && isalnum(*p)) {
			*at++ = (char)*p;
		} else {
			*at++ = '%';
			*at++ = digits[*p >> 4];
			*at++ = digits[*p & 15];
		}
	}
	if (name)
		strcpy(at, ".bin");
	return name;
}

static int64_t size_in_request(const char *request)
{
	const char *at = request ? strstr(request, " size=") : NULL;
	if (!at || (at[6] != '\'' && at[6] != '"') || !isdigit((unsigned char)at[7]))
		return -1;
	char *end;
	long long n = strtoll(at + 7, &end, 10);
	return *end == at[6] && n < INT64_MAX ? n : -1;
}

int uploads_register(struct uploads *u, const char *host, const char *slot, const char *request, int64_t time_ms, struct im_error *err)
{
	if (!slot || !slot[0] || strlen(slot) > SLOT_MAX_CHARS)
		return 0;
	uint64_t key = hash64_of(&slot, 1);
	if (hash64_find(&u->index, key))
		return 0;
	struct store_attachment a = { .tail = file_of_slot(slot), .folder = "http_file_share", .site = hash64_of(&host, 1),
		.bytes = size_in_request(request), .registered_ms = time_ms, .referred_ms = -1 };
	return a.tail ? add(u, key, &a, err) : im_fail(err, IM_ENOMEM, "out of memory");
}

static void note(struct store_attachment *a, int64_t time_ms)
{
	if (a->referred_ms < 0 || time_ms < a->referred_ms)
		a->referred_ms = time_ms;
}

/* The next link behind *at, from its host on. False at the end. */
static bool next_link(const char **at, size_t *ret_len)
{
	const char *found = strstr(*at, "://");
	if (!found)
		return false;
	*at = found + 3;
	*ret_len = strcspn(*at, "<>\"'&?# \t\r\n");
	return true;
}

void uploads_refer_to_slots(struct uploads *u, const char *text, int64_t time_ms)
{
	const char *at = text;
	char slot[SLOT_MAX_CHARS + 1];
	for (size_t len; text && u->count && next_link(&at, &len); at += len)
		for (size_t from = 0, part; from < len; from += part + 1) {
			part = strcspn(at + from, "/");
			part = part < len - from ? part : len - from;
			if (from == 0 || part == 0 || part > SLOT_MAX_CHARS)
				continue;
			memcpy(slot, at + from, part);
			slot[part] = 0;
			const uint32_t *known = hash64_find(&u->index, hash64_of((const char *const[]){ slot }, 1));
			if (known)
				note(&u->items[*known], time_ms);
		}
}

static bool alphanumeric(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] >= 128 || !isalnum((unsigned char)text[i]))
			return false;
	return true;
}

/* HOST/…/USER/RANDOM/NAME: its RANDOM; false if it is no such link. */
static bool random_part(const char *link, size_t len, size_t *ret_at, size_t *ret_len)
{
	size_t slash[3] = { 0 }, count = 0; /* the last three */
	for (size_t i = len; i > 0 && count < 3; i--)
		if (link[i - 1] == '/')
			slash[count++] = i - 1;
	if (count < 3 || slash[2] == 0 || slash[0] + 1 == len || slash[2] + 1 == slash[1])
		return false;
	*ret_at = slash[1] + 1;
	*ret_len = slash[0] - *ret_at;
	return *ret_len >= RANDOM_MIN_CHARS && *ret_len <= RANDOM_MAX_CHARS && alphanumeric(link + *ret_at, *ret_len);
}

/* Where the file is offered: HOST/… without USER. */
static uint64_t site_of(const char *link, size_t random)
{
	char site[SITE_MAX_CHARS + 1];
	size_t len = random - 1; /* up to USER, which is cut off */
	while (link[len - 1] != '/')
		len--;
	len = len < SITE_MAX_CHARS ? len : SITE_MAX_CHARS;
	memcpy(site, link, len);
	site[len] = 0;
	return hash64_of((const char *const[]){ site }, 1);
}

/* RANDOM alone tells the file: what follows it in a text may be more than its name. */
static int refer_to_path(struct uploads *u, const char *link, size_t random, size_t len, int64_t time_ms, struct im_error *err)
{
	char *tail = strndup(link + random, len + 1); /* with the slash */
	if (!tail)
		return im_fail(err, IM_ENOMEM, "out of memory");
	uint64_t key = hash64_of((const char *const[]){ tail }, 1);
	const uint32_t *known = hash64_find(&u->index, key);
	if (known) {
		note(&u->items[*known], time_ms);
		free(tail);
		return 0;
	}
	return add(u, key, &(struct store_attachment){ .tail = tail, .site = site_of(link, random), .bytes = -1, .registered_ms = -1,
	    .referred_ms = time_ms }, err);
}

int uploads_refer_to_paths(struct uploads *u, const char *text, int64_t time_ms, struct im_error *err)
{
	const char *at = text;
	int rc = 0;
	for (size_t len; rc == 0 && text && next_link(&at, &len); at += len) {
		size_t random, random_len;
		if (random_part(at, len, &random, &random_len))
			rc = refer_to_path(u, at, random, random_len, time_ms, err);
	}
	return rc;
}
