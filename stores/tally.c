/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting. Rows live in one array with an index of hashes beside it; when there are too many, every
 * second one goes, by the next bit of its hash.
 */
#include "stores/tally.h"

#include "base/bytes.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define DAYS_IN_MEMORY 100000
#define MAX_TIME_MS (INT64_C(4294967295) * 1000) /* 2106: later is no time of a message */

static const char *const schemas[] = { "prosody", "ejabberd" };

const char *tally_schema(const char *name)
{
	for (size_t i = 0; name && i < sizeof schemas / sizeof schemas[0]; i++)
		if (strcmp(name, schemas[i]) == 0)
			return schemas[i];
	return NULL;
}

void tally_init(struct tally *t, const char *schema)
{
	*t = (struct tally){ .schema = schema, .oldest_ms = -1, .newest_ms = -1, .last_id = -1, .counter = -1, .made_ms = im_now_ms() };
}

static void rows_clear(struct tally_rows *r)
{
	free(r->items);
	hash64_clear(&r->index);
	*r = (struct tally_rows){ 0 };
}

void tally_clear(struct tally *t)
{
	rows_clear(&t->conversations);
	rows_clear(&t->owners);
	free(t->days);
	free(t->absent);
	hash64_clear(&t->day_index);
	*t = (struct tally){ 0 };
}

/* The index looks at the lowest bits, the sample at the highest. */
uint64_t tally_owner_id(uint32_t owner) { return (uint64_t)owner << 32 | owner; }

bool tally_sampled(const struct tally_rows *rows, uint64_t id)
{
	return rows->bits == 0 || (rows->bits < 64 && id >> (64 - rows->bits) == 0);
}

const struct tally_row *tally_find(const struct tally_rows *rows, uint64_t id)
{
	const uint32_t *at = hash64_find(&rows->index, id);
	return at ? &rows->items[*at] : NULL;
}

static int thin_out(struct tally_rows *r, struct im_error *err)
{
	size_t kept = 0;
	int rc = 0;
	r->bits++;
	hash64_clear(&r->index);
	for (size_t i = 0; rc == 0 && i < r->count; i++)
		if (tally_sampled(r, r->items[i].id)) {
			r->items[kept] = r->items[i];
			rc = hash64_add(&r->index, r->items[kept].id, (uint32_t)kept, err);
			kept++;
		}
	r->count = kept;
	return rc;
}

/* The row of an id, new if need be; *ret NULL: it is not in the sample. */
static int row_of(struct tally_rows *r, uint64_t id, struct tally_row **ret, struct im_error *err)
{
	*ret = NULL;
	while (r->count >= TALLY_MAX_ROWS && tally_sampled(r, id) && !tally_find(r, id)) {
		int rc = thin_out(r, err);
		if (rc)
			return rc;
	}
	if (!tally_sampled(r, id))
		return 0;
	uint32_t *at = hash64_find(&r->index, id);
	if (at) {
		*ret = &r->items[*at];
		return 0;
	}
	if (r->count == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 256;
		struct tally_row *grown = reallocarray(r->items, cap, sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory");
		r->items = grown;
		r->cap = cap;
	}
	r->items[r->count] = (struct tally_row){ .id = id, .oldest_ms = INT64_MAX, .newest_ms = -1 };
	*ret = &r->items[r->count];
	return hash64_add(&r->index, id, (uint32_t)r->count++, err);
}

static void count_in(struct tally_row *r, int64_t ms)
{
	r->count += r->count < UINT32_MAX;
	if (ms < r->oldest_ms)
		r->oldest_ms = ms;
	if (ms > r->newest_ms)
		r->newest_ms = ms;
}

static int count_conversation(struct tally *t, const struct tally_message *m, uint32_t group, struct im_error *err)
{
	struct tally_row *r;
	int rc = row_of(&t->conversations, m->conversation, &r, err);
	if (rc || !r)
		return rc;
	if (!r->count) {
		const uint32_t *at = t->before ? hash64_find(&t->before->conversations.index, m->conversation) : NULL;
		r->owner = (uint32_t)m->owner;
		r->group = group;
		r->before = at ? *at + 1 : 0;
	}
	count_in(r, m->time_ms);
	if (r->before) {
		const struct tally_row *b = &t->before->conversations.items[r->before - 1];
		r->then += m->time_ms >= b->oldest_ms && m->time_ms <= b->newest_ms;
	}
	return 0;
}

static int count_owner(struct tally *t, const struct tally_message *m, uint32_t group, struct im_error *err)
{
	struct tally_row *r;
	int rc = row_of(&t->owners, tally_owner_id((uint32_t)m->owner), &r, err);
	if (rc || !r)
		return rc;
	r->group = group;
	count_in(r, m->time_ms);
	return 0;
}

int tally_find_group(const struct tally *t, uint64_t id)
{
	for (size_t i = 0; i < t->group_count; i++)
		if (t->groups[i].id == id)
			return (int)i;
	return -1;
}

static int count_group(struct tally *t, const struct tally_message *m)
{
	int at = tally_find_group(t, m->group);
	if (at < 0 && t->group_count == TALLY_MAX_GROUPS)
		return -1;
	if (at < 0) {
		at = (int)t->group_count++;
		t->groups[at] = (struct tally_group){ .id = m->group, .oldest_ms = m->time_ms, .newest_ms = m->time_ms };
	}
	struct tally_group *g = &t->groups[at];
	g->messages++;
	g->oldest_ms = m->time_ms < g->oldest_ms ? m->time_ms : g->oldest_ms;
	g->newest_ms = m->time_ms > g->newest_ms ? m->time_ms : g->newest_ms;
	return at;
}

/* An odd factor spreads what are no hashes over all bits. */
static uint64_t day_key(uint32_t group, uint32_t day)
{
	uint64_t key = ((uint64_t)group << 32 | day) * UINT64_C(0x9e3779b97f4a7c15);
	return key ^ key >> 32;
}

static int count_day(struct tally *t, uint32_t group, uint32_t day, uint32_t count, struct im_error *err)
{
	uint32_t *at = hash64_find(&t->day_index, day_key(group, day));
	if (at) {
		struct tally_day *d = &t->days[*at];
		d->count += d->count <= UINT32_MAX - count ? count : 0;
		return 0;
	}
	if (t->day_count == DAYS_IN_MEMORY) {
		t->days_cut = true;
		return 0;
	}
	if (t->day_count == t->day_cap) {
		size_t cap = t->day_cap ? 2 * t->day_cap : 64;
		struct tally_day *grown = reallocarray(t->days, cap, sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory");
		t->days = grown;
		t->day_cap = cap;
	}
	t->days[t->day_count] = (struct tally_day){ .group = group, .day = day, .count = count };
	return hash64_add(&t->day_index, day_key(group, day), (uint32_t)t->day_count++, err);
}

uint32_t tally_count_of_day(const struct tally *t, uint32_t group, uint32_t day)
{
	const uint32_t *at = hash64_find(&t->day_index, day_key(group, day));
	return at ? t->days[*at].count : 0;
}

int tally_add(struct tally *t, const struct tally_message *m, struct im_error *err)
{
	t->messages++;
	int group = m->time_ms < 0 || m->time_ms > MAX_TIME_MS ? -1 : count_group(t, m);
	if (group < 0) {
		t->unplaced++;
		return 0;
	}
	if (t->oldest_ms < 0 || m->time_ms < t->oldest_ms)
		t->oldest_ms = m->time_ms;
	if (m->time_ms > t->newest_ms)
		t->newest_ms = m->time_ms;
	int rc = count_day(t, (uint32_t)group, (uint32_t)(m->time_ms / TALLY_DAY_MS), 1, err);
	if (rc == 0)
		rc = count_owner(t, m, (uint32_t)group, err);
	return rc ? rc : count_conversation(t, m, (uint32_t)group, err);
}

/* --- attachments that are not there --- */

/* Beyond the limit nothing is known any more: a later survey must not take the others for present. */
int tally_add_absent(struct tally *t, uint64_t id, struct im_error *err)
{
	if (t->absent_count == TALLY_MAX_ABSENT) {
		t->uploads_until_ms = 0;
		return 0;
	}
	uint64_t *grown = reallocarray(t->absent, t->absent_count + 1, sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	t->absent = grown;
	grown[t->absent_count++] = id;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

void tally_sort_absent(struct tally *t)
{
	if (t->absent_count)
		qsort(t->absent, t->absent_count, sizeof *t->absent, by_number);
}

bool tally_is_absent(const struct tally *t, uint64_t id)
{
	return t->absent_count && bsearch(&id, t->absent, t->absent_count, sizeof *t->absent, by_number);
}

/* --- FORMAT §10.1 --- */

enum { ROW_BYTES = 29 };

static void put_time(struct im_buf *b, int64_t ms)
{
	im_buf_put_u32(b, (uint32_t)ms);
	im_buf_put_u16(b, (uint16_t)(ms >> 32));
}

static int64_t read_time(struct im_reader *r)
{
	int64_t low = im_read_u32(r);
	return low | (int64_t)im_read_u16(r) << 32;
}

static json_t *encode_rows(const struct tally_rows *rows)
{
	auto_buf struct im_buf b = { 0 };
	for (size_t i = 0; i < rows->count; i++) {
		const struct tally_row *r = &rows->items[i];
		im_buf_put_u64(&b, r->id);
		im_buf_put_u32(&b, r->owner);
		im_buf_put_u8(&b, (uint8_t)r->group);
		put_time(&b, r->oldest_ms);
		put_time(&b, r->newest_ms);
		im_buf_put_u32(&b, r->count);
	}
	char *text = b.failed ? NULL : im_base64(b.data, b.len);
	json_t *j = text ? json_string(text) : NULL;
	free(text);
	return j;
}

static json_t *encode_uploads(const struct tally *t)
{
	auto_buf struct im_buf b = { 0 };
	for (size_t i = 0; i < t->absent_count; i++)
		im_buf_put_u64(&b, t->absent[i]);
	char *text = b.failed ? NULL : im_base64(b.data, b.len), store[17];
	uint8_t hash[8];
	im_put_le64(hash, t->uploads_store);
	json_t *j = text ? json_pack("{sI ss sI ss}", "found", (json_int_t)t->uploads_found, "store", im_hex(store, hash, sizeof hash),
	    "until_ms", (json_int_t)t->uploads_until_ms, "absent", text) : NULL;
	free(text);
	return j;
}

static int newer_day_first(const void *a, const void *b)
{
	const struct tally_day *x = a, *y = b;
	return x->day != y->day ? (x->day < y->day) - (x->day > y->day) : (x->group > y->group) - (x->group < y->group);
}

static json_t *encode_days(const struct tally *t)
{
	size_t count = t->day_count < TALLY_MAX_DAYS ? t->day_count : TALLY_MAX_DAYS;
	struct tally_day *sorted = calloc(t->day_count + 1, sizeof *sorted);
	json_t *list = json_array();
	if (sorted && t->day_count)
		memcpy(sorted, t->days, t->day_count * sizeof *sorted);
	if (sorted)
		qsort(sorted, t->day_count, sizeof *sorted, newer_day_first);
	bool bad = !sorted || !list;
	for (size_t i = 0; !bad && i < count; i++)
		bad = json_array_append_new(list, json_pack("[III]", (json_int_t)sorted[i].group, (json_int_t)sorted[i].day,
		    (json_int_t)sorted[i].count));
	free(sorted);
	if (bad)
		json_decref(list);
	return bad ? NULL : list;
}

static json_t *encode_groups(const struct tally *t)
{
	json_t *list = json_array();
	char hex[17];
	bool bad = !list;
	for (size_t i = 0; !bad && i < t->group_count; i++) {
		const struct tally_group *g = &t->groups[i];
		uint8_t id[8];
		im_put_le64(id, g->id);
		bad = json_array_append_new(list, json_pack("[sIII]", im_hex(hex, id, sizeof id), (json_int_t)g->messages, (json_int_t)g->oldest_ms,
		    (json_int_t)g->newest_ms));
	}
	if (bad)
		json_decref(list);
	return bad ? NULL : list;
}

json_t *tally_encode(const struct tally *t)
{
	json_t *groups = encode_groups(t), *days = encode_days(t), *rows = encode_rows(&t->conversations), *uploads = encode_uploads(t);
	return json_pack("{ss sI sI sI sI sI sI sI sI so si so so so sb}", "schema", t->schema, "messages", (json_int_t)t->messages,
	    "unplaced", (json_int_t)t->unplaced, "oldest_ms", (json_int_t)t->oldest_ms, "newest_ms", (json_int_t)t->newest_ms,
	    "last_id", (json_int_t)t->last_id, "counter", (json_int_t)t->counter, "instant_ms", (json_int_t)t->instant_ms,
	    "made_ms", (json_int_t)t->made_ms, "uploads", uploads, "sample_bits", (int)t->conversations.bits,
	    "groups", groups, "days", days, "conversations", rows, "days_cut", t->days_cut || t->day_count > TALLY_MAX_DAYS);
}

static int malformed(struct im_error *err) { return im_fail(err, IM_ECORRUPT, "the survey of an earlier drill is malformed"); }

static int decode_rows(const json_t *j, struct tally *t, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	const char *text = json_string_value(j);
	if (!text || json_string_length(j) > (TALLY_MAX_ROWS * ROW_BYTES + 2) / 3 * 4 || !im_unbase64(&b, text) || b.len % ROW_BYTES)
		return malformed(err);
	struct im_reader r = im_reader_of(b.data, b.len);
	while (im_read_left(&r)) {
		struct tally_row *row;
		int rc = row_of(&t->conversations, im_read_u64(&r), &row, err);
		if (rc || !row || row->count)
			return rc ? rc : malformed(err);
		row->owner = im_read_u32(&r);
		row->group = im_read_u8(&r);
		row->oldest_ms = read_time(&r);
		row->newest_ms = read_time(&r);
		row->count = im_read_u32(&r);
		if (r.failed || !row->count || row->oldest_ms > row->newest_ms || row->newest_ms > MAX_TIME_MS || row->group >= t->group_count)
			return malformed(err);
	}
	return 0;
}

static int decode_groups(const json_t *list, struct tally *t, struct im_error *err)
{
	size_t i;
	json_t *item;
	if (!json_is_array(list) || json_array_size(list) > TALLY_MAX_GROUPS)
		return malformed(err);
	json_array_foreach(list, i, item) {
		struct tally_group *g = &t->groups[i];
		const char *id = json_string_value(json_array_get(item, 0));
		uint8_t bytes[8];
		if (!id || !im_unhex(bytes, sizeof bytes, id))
			return malformed(err);
		*g = (struct tally_group){ .id = im_le64(bytes), .messages = (uint64_t)json_integer_value(json_array_get(item, 1)),
			.oldest_ms = json_integer_value(json_array_get(item, 2)), .newest_ms = json_integer_value(json_array_get(item, 3)) };
		if (g->oldest_ms < 0 || g->oldest_ms > g->newest_ms || g->newest_ms > MAX_TIME_MS)
			return malformed(err);
		t->group_count = i + 1;
	}
	return 0;
}

static int decode_days(const json_t *list, struct tally *t, struct im_error *err)
{
	size_t i;
	json_t *item;
	if (!json_is_array(list) || json_array_size(list) > TALLY_MAX_DAYS)
		return malformed(err);
	json_array_foreach(list, i, item) {
		json_int_t group = json_integer_value(json_array_get(item, 0)), day = json_integer_value(json_array_get(item, 1));
		json_int_t count = json_integer_value(json_array_get(item, 2));
		if (group < 0 || (size_t)group >= t->group_count || day < 0 || day > MAX_TIME_MS / TALLY_DAY_MS || count < 1 || count > UINT32_MAX)
			return malformed(err);
		int rc = count_day(t, (uint32_t)group, (uint32_t)day, (uint32_t)count, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int decode_uploads(const json_t *j, struct tally *t, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	const char *text = json_string_value(json_object_get(j, "absent")), *store = json_string_value(json_object_get(j, "store"));
	uint8_t hash[8];
	if (!store || !im_unhex(hash, sizeof hash, store))
		return malformed(err);
	t->uploads_store = im_le64(hash);
	if (!text || strlen(text) > (TALLY_MAX_ABSENT * 8 + 2) / 3 * 4 || !im_unbase64(&b, text) || b.len % 8 || b.len / 8 > TALLY_MAX_ABSENT)
		return malformed(err);
	t->uploads_found = (uint64_t)json_integer_value(json_object_get(j, "found"));
	t->uploads_until_ms = json_integer_value(json_object_get(j, "until_ms"));
	struct im_reader r = im_reader_of(b.data, b.len);
	int rc = 0;
	while (rc == 0 && im_read_left(&r))
		rc = tally_add_absent(t, im_read_u64(&r), err);
	tally_sort_absent(t);
	return rc;
}

static int64_t number(const json_t *j, const char *key) { return json_integer_value(json_object_get(j, key)); }

int tally_decode(const json_t *j, struct tally *ret, struct im_error *err)
{
	tally_init(ret, tally_schema(json_string_value(json_object_get(j, "schema"))));
	int64_t bits = number(j, "sample_bits");
	if (!ret->schema || bits < 0 || bits > 64 || number(j, "messages") < 0)
		return malformed(err);
	ret->messages = (uint64_t)number(j, "messages");
	ret->unplaced = (uint64_t)number(j, "unplaced");
	ret->oldest_ms = number(j, "oldest_ms");
	ret->newest_ms = number(j, "newest_ms");
	ret->last_id = number(j, "last_id");
	ret->counter = number(j, "counter");
	ret->instant_ms = number(j, "instant_ms");
	ret->made_ms = number(j, "made_ms");
	ret->days_cut = json_is_true(json_object_get(j, "days_cut"));
	if (ret->newest_ms > MAX_TIME_MS || ret->oldest_ms > ret->newest_ms)
		return malformed(err);
	ret->conversations.bits = (unsigned)bits;
	int rc = decode_groups(json_object_get(j, "groups"), ret, err);
	if (rc == 0)
		rc = decode_days(json_object_get(j, "days"), ret, err);
	if (rc == 0)
		rc = decode_uploads(json_object_get(j, "uploads"), ret, err);
	return rc ? rc : decode_rows(json_object_get(j, "conversations"), ret, err);
}
