/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log in the vault: names, segments that are not what they claim, and routes through segments
 * that are there, missing, damaged, coarse, cut into parts, or written by two machines.
 */
#include "fixture.h"

#include "base/cleanup.h"
#include "vault/logroute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#define T0 INT64_C(1700000000000)
#define EPOCH "018bcfe5680000000001"
#define POINTS 100

struct rig {
	struct fixture f;
	uint8_t ends[POINTS + 1][32]; /* of the final part of the fine segment that ends at a point */
	char object[200];             /* the one written last */
	char body[16];
	char way[400];                /* see walk */
	struct im_error err;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	fixture_start(&r->f);
	strcpy(r->body, "what changed");
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	fixture_stop(&r->f);
	free(r);
	return 0;
}

static int64_t complete_of(uint32_t point) { return T0 + point * 1000; }
static int64_t latest_of(uint32_t point) { return complete_of(point) + 10; }

static void set_hash(json_t *meta, const char *key, const uint8_t hash[32])
{
	char hex[65];
	json_object_set_new(meta, key, json_string(im_hex(hex, hash, 32)));
}

static json_t *meta_of(uint32_t first, uint32_t last, unsigned part, bool final, unsigned level)
{
	json_t *points = json_array();
	for (uint32_t i = level ? last : first; i <= last; i++)
		json_array_append_new(points, json_pack("[II]", (json_int_t)complete_of(i), (json_int_t)latest_of(i)));
	return json_pack("{ss ss ss ss ss sI sI si sb si so s{sI}}", "kind", "segment", "node", "im-01", "store", "archive", "type", "sqlite", "epoch",
	    EPOCH, "first", (json_int_t)first, "last", (json_int_t)last, "part", (int)part, "final", (int)final, "level", (int)level, "points",
	    points, "position", "at", (json_int_t)last);
}

static void put(struct rig *r, json_t *meta, uint8_t ret_hash[32])
{
	auto_buf struct im_buf object = { 0 };
	auto_free char *name = NULL;
	struct vault *v = r->f.node;
	assert_ok(log_encode(v->keyring, meta, r->body, strlen(r->body), &object, ret_hash, &name, &r->err), &r->err);
	assert_ok(storage_put_object(v->storage, name, object.data, object.len, &r->err), &r->err);
	snprintf(r->object, sizeof r->object, "%s", name);
	json_decref(meta);
}

static void write_parts(struct rig *r, uint32_t first, uint32_t last, unsigned level, unsigned parts, uint8_t ret_hash[32])
{
	uint8_t before[32];
	memcpy(before, r->ends[first - 1], 32);
	for (unsigned i = 0; i < parts; i++) {
		json_t *meta = meta_of(first, last, i, i + 1 == parts, level);
		if (i || first > 1)
			set_hash(meta, "prev", before);
		if (level)
			set_hash(meta, "ends", r->ends[last]);
		put(r, meta, before);
	}
	memcpy(ret_hash, before, 32);
}

static void fine(struct rig *r, uint32_t first, uint32_t last, unsigned parts)
{
	write_parts(r, first, last, 0, parts, r->ends[last]);
}

static void coarse(struct rig *r, uint32_t first, uint32_t last, unsigned level, unsigned parts)
{
	uint8_t ignored[32];
	write_parts(r, first, last, level, parts, ignored);
}

static void ten_fine(struct rig *r)
{
	for (uint32_t i = 1; i <= 10; i++)
		fine(r, i, i, 1);
}

static char *path_of(const struct rig *r, const char *object)
{
	char *path = NULL;
	assert_true(asprintf(&path, "%s/%s", r->f.vault_dir, object) > 0);
	return path;
}

static void list(struct rig *r, uint32_t from, struct log_list *ret)
{
	assert_ok(log_list(r->f.node->storage, "im-01", "archive", EPOCH, from, ret, &r->err), &r->err);
}

/* Removes, or makes unreadable, one part of every segment of this range. */
static void harm(struct rig *r, uint32_t first, uint32_t last, unsigned part, bool removed)
{
	struct log_list l;
	bool any = false;
	list(r, 0, &l);
	for (size_t i = 0; i < l.count; i++) {
		auto_free char *path = path_of(r, l.items[i].object);
		if (l.items[i].first != first || l.items[i].last != last || l.items[i].part != part)
			continue;
		assert_int_equal(removed ? unlink(path) : truncate(path, 200), 0);
		any = true;
	}
	assert_true(any);
	log_list_clear(&l);
}

/* --- names and segments --- */

static int read_back(struct rig *r, const struct vault *v, const char *object, struct log_segment **ret)
{
	struct log_name name;
	assert_true(log_name_parse(object, &name, NULL));
	r->err = (struct im_error){ 0 };
	int rc = log_read(v->storage, v->keyring, "im-01", &name, ret, &r->err);
	log_name_clear(&name);
	return rc;
}

static void log_read__gives_the_body_to_the_restore_key_only(void **state)
{
	struct rig *r = *state;
	struct log_segment *s;
	fine(r, 1, 3, 1);
	assert_ok(read_back(r, r->f.restore, r->object, &s), &r->err);
	assert_int_equal(s->point_count, 3);
	assert_int_equal(s->points[2].latest_ms, latest_of(3));
	assert_true(s->record.has_private);
	assert_int_equal(s->record.private_bytes.len, strlen(r->body));
	assert_memory_equal(s->record.private_bytes.data, r->body, strlen(r->body));
	assert_memory_equal(s->hash, r->ends[3], 32);
	log_segment_free(s);
	assert_ok(read_back(r, r->f.node, r->object, &s), &r->err);
	assert_false(s->record.has_private);
	assert_int_equal(s->record.private_bytes.len, 0);
	log_segment_free(s);
}

static void log_read__takes_an_empty_body(void **state)
{
	struct rig *r = *state;
	struct log_segment *s;
	r->body[0] = '\0';
	fine(r, 1, 1, 1);
	assert_ok(read_back(r, r->f.restore, r->object, &s), &r->err);
	assert_true(s->record.has_private);
	assert_int_equal(s->record.private_bytes.len, 0);
	log_segment_free(s);
}

/* Moves the object to where `change` says it belongs, and expects that to be seen. */
static void refuse_moved(struct rig *r, const char *from, const char *to)
{
	char moved[200], *at;
	struct log_segment *s = NULL;
	strcpy(moved, r->object);
	assert_non_null(at = strstr(moved, from));
	assert_int_equal(strlen(from), strlen(to));
	memcpy(at, to, strlen(to));
	auto_free char *old_path = path_of(r, r->object), *new_path = path_of(r, moved), *folder = path_of(r, moved);
	for (char *slash = folder + strlen(r->f.vault_dir) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = '\0';
		mkdir(folder, 0700);
	}
	assert_int_equal(rename(old_path, new_path), 0);
	assert_int_equal(read_back(r, r->f.restore, moved, &s), IM_ECORRUPT);
	assert_int_equal(rename(new_path, old_path), 0);
}

static void log_read__refuses_a_segment_under_another_name(void **state)
{
	struct rig *r = *state;
	char time[16], later[16];
	ten_fine(r);
	snprintf(time, sizeof time, "-%012" PRIx64 "-", (uint64_t)latest_of(10));
	snprintf(later, sizeof later, "-%012" PRIx64 "-", (uint64_t)latest_of(11));
	refuse_moved(r, "/archive/", "/another/");
	refuse_moved(r, EPOCH, "018bcfe5680000000002");
	refuse_moved(r, "0000000a-0000000a", "0000000a-0000000b");
	refuse_moved(r, "0000000a-0000000a", "00000009-0000000a");
	refuse_moved(r, "-0000e-", "-0000m-");
	refuse_moved(r, "-0000e-", "-0001e-");
	refuse_moved(r, time, later);
	refuse_moved(r, r->object + strlen(r->object) - 16, "0000000000000000");
}

static void log_read__refuses_a_key_that_may_not_write_this_log(void **state)
{
	struct rig *r = *state;
	struct log_segment *s = NULL;
	uint8_t hash[32];
	auto_buf struct im_buf object = { 0 };
	auto_free char *name = NULL;
	json_t *meta = meta_of(1, 1, 0, true, 0);
	assert_ok(log_encode(r->f.restore->keyring, meta, "", 0, &object, hash, &name, &r->err), &r->err);
	assert_ok(storage_put_object(r->f.node->storage, name, object.data, object.len, &r->err), &r->err);
	json_decref(meta);
	assert_int_equal(read_back(r, r->f.restore, name, &s), IM_ECORRUPT);
	assert_non_null(strstr(r->err.text, "may not write this log"));
}

static void log_read__trusts_a_revoked_key_up_to_its_last_point(void **state)
{
	struct rig *r = *state;
	struct vault *again;
	struct log_segment *s = NULL;
	char tenth[200];
	ten_fine(r);
	strcpy(tenth, r->object);
	fine(r, 11, 11, 1);
	assert_ok(keyring_revoke(r->f.restore->storage, r->f.restore->keyring, r->f.node->key->id, "{\"im-01/archive/" EPOCH "\":10}", &r->err),
	    &r->err);
	assert_ok(vault_open(r->f.vault_dir, r->f.restore_key, NULL, NULL, 0, &again, &r->err), &r->err);
	assert_ok(read_back(r, again, tenth, &s), &r->err);
	log_segment_free(s);
	assert_int_equal(read_back(r, again, r->object, &s), IM_ECORRUPT);
	vault_close(again);
}

/* One field at a time; NULL: the field is taken away. */
static void log_encode__refuses_what_no_segment_says(void **state)
{
	struct rig *r = *state;
	static const struct {
		const char *key, *value;
	} cases[] = { { "kind", "\"snapshot\"" }, { "kind", NULL }, { "node", "\"../x\"" }, { "store", "\"\"" }, { "type", NULL },
		{ "epoch", "\"018bcfe568000000000\"" }, { "epoch", "\"018BCFE5680000000001\"" }, { "first", "0" }, { "first", "4" },
		{ "first", "-1" }, { "first", "\"2\"" }, { "last", "4294967296" }, { "last", NULL }, { "part", "65536" }, { "part", "1.5" },
		{ "level", "3" }, { "level", "1" }, { "prev", NULL }, { "prev", "\"00\"" }, { "prev", "7" }, { "ends", "\"00\"" },
		{ "points", "[]" }, { "points", "[[1,2]]" }, { "points", "[[1,2],[3,2]]" }, { "points", "[[5,6],[4,7]]" },
		{ "points", "[[5,9],[6,8]]" }, { "points", "[[-5,9],[6,10]]" }, { "points", "[[1,2],[3,4,5]]" }, { "points", "[[\"1\",2],[3,4]]" },
		{ "points", "[[1,2],[3,200000000000000]]" }, { "position", NULL }, { "position", "[]" } };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		auto_buf struct im_buf object = { 0 };
		auto_free char *name = NULL;
		uint8_t hash[32] = { 0 };
		json_t *meta = meta_of(2, 3, 0, true, 0);
		set_hash(meta, "prev", hash);
		if (cases[i].value)
			json_object_set_new(meta, cases[i].key, json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
		else
			json_object_del(meta, cases[i].key);
		if (log_encode(r->f.node->keyring, meta, "", 0, &object, hash, &name, NULL) != IM_EFAIL)
			fail_msg("%s = %s", cases[i].key, cases[i].value ? cases[i].value : "(absent)");
		json_decref(meta);
	}
}

static void log_name_parse__takes_nothing_else(void **state)
{
	static const char good[] = "logs/im-01/archive/" EPOCH "/00001/00001000-00001002-018bcfe5680a-0000e-0123456789abcdef";
	static const char *const bad[] = { "", "logs/", "logs/im-01", "logs/im-01/archive/", "logs/im-01/archive/" EPOCH,
		"logs/im-01/archive/" EPOCH "/00001/",
		"logs/im-01/archive/" EPOCH "/00000/00001000-00001002-018bcfe5680a-0000e-0123456789abcdef",
		"logs/im-01/archive/" EPOCH "/00001/00001000-00000fff-018bcfe5680a-0000e-0123456789abcdef",
		"logs/im-01/archive/" EPOCH "/00000/00000000-00000001-018bcfe5680a-0000e-0123456789abcdef",
		"logs/im-01/archive/" EPOCH "/00001/00001000-00001002-018bcfe5680a-0000x-0123456789abcdef",
		"logs/im-01/archive/" EPOCH "/00001/00001000-00001002-018bcfe5680a-0000e-0123456789abcde",
		"logs/im-01/archive/" EPOCH "/00001/00001000-00001002-018bcfe5680a-0000e-0123456789abcdef0",
		"logs/im-01/archive/" EPOCH "/00001/00001000-00001002-018BCFE5680A-0000e-0123456789abcdef",
		"logs/im-01/archive/" EPOCH "/00001/+0001000-00001002-018bcfe5680a-0000e-0123456789abcdef",
		"logs/im-01/.hidden/" EPOCH "/00001/00001000-00001002-018bcfe5680a-0000e-0123456789abcdef",
		"logs//archive/" EPOCH "/00001/00001000-00001002-018bcfe5680a-0000e-0123456789abcdef",
		"packs/im-01/archive/" EPOCH "/00001/00001000-00001002-018bcfe5680a-0000e-0123456789abcdef" };
	struct log_name n;
	char *node = NULL;
	(void)state;
	assert_true(log_name_parse(good, &n, &node));
	assert_string_equal(node, "im-01");
	assert_string_equal(n.store, "archive");
	assert_string_equal(n.epoch, EPOCH);
	assert_int_equal(n.first, 0x1000);
	assert_int_equal(n.last, 0x1002);
	assert_int_equal(n.latest_ms, INT64_C(0x018bcfe5680a));
	assert_true(n.final);
	free(node);
	log_name_clear(&n);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (log_name_parse(bad[i], &n, NULL))
			fail_msg("%s", bad[i]);
	for (size_t len = 0; len < sizeof good - 1; len++) {
		auto_free char *cut = strndup(good, len); /* its own memory, so that nothing reads on unseen */
		assert_false(log_name_parse(cut, &n, NULL));
	}
}

/* --- listing --- */

static void put_name(struct rig *r, uint32_t first, uint32_t last)
{
	char name[200];
	snprintf(name, sizeof name, "logs/im-01/archive/" EPOCH "/%05x/%08x-%08x-%012" PRIx64 "-0000e-0123456789abcdef", first >> 12, first, last,
	    (uint64_t)latest_of(last));
	assert_ok(storage_put_object(r->f.node->storage, name, "x", 1, &r->err), &r->err);
}

static size_t listed(struct rig *r, uint32_t from)
{
	struct log_list l;
	list(r, from, &l);
	size_t count = l.count;
	for (size_t i = 1; i < count; i++)
		assert_true(l.items[i - 1].first <= l.items[i].first);
	log_list_clear(&l);
	return count;
}

static void log_list__leaves_out_folders_before_from(void **state)
{
	struct rig *r = *state;
	assert_int_equal(listed(r, 0), 0);
	put_name(r, 1, 4095);
	put_name(r, 4096, 8191);
	put_name(r, 8192, 8200);
	put_name(r, 8201, 8201);
	assert_int_equal(listed(r, 0), 4);
	assert_int_equal(listed(r, 4096), 3);
	assert_int_equal(listed(r, 8201), 2);
	assert_int_equal(listed(r, 12288), 0);
}

static void log_list__goes_over_folders_that_one_segment_covers(void **state)
{
	struct rig *r = *state;
	put_name(r, 4097, 30000);
	put_name(r, 30001, 30001);
	assert_int_equal(listed(r, 4097), 2);
	put_name(r, 30002, UINT32_MAX); /* nobody walks through a million folders */
	assert_int_equal(listed(r, 4097), 3);
}

/* --- routes --- */

static struct log_anchor anchor_at(const struct rig *r, uint32_t point)
{
	struct log_anchor a = { .epoch = EPOCH, .point = point, .has_hash = point > 0, .complete_ms = complete_of(point) };
	memcpy(a.hash, r->ends[point], 32);
	return a;
}

/* Plans, reads, leaves out what is bad and plans again, as a restore does. Returns what was read, as "1-3 4-10c/0 4-10c/1 11-12 =11". */
static const char *walk_to(struct rig *r, uint32_t from, int64_t until_ms, char *ret_stopped)
{
	struct log_route route;
	struct log_anchor a = anchor_at(r, from);
	const struct vault *v = r->f.restore;
	assert_ok(log_route_open(v->storage, v->keyring, "im-01", "archive", &a, &route, &r->err), &r->err);
	bool again = true;
	for (unsigned plans = 0; again; plans++) {
		uint8_t prev[32];
		assert_true(plans < 50);
		assert_ok(log_route_plan(&route, until_ms, &r->err), &r->err);
		again = false;
		r->way[0] = '\0';
		memcpy(prev, a.hash, 32);
		for (size_t i = 0; i < route.count && !again; i++) {
			struct log_segment *s = NULL;
			size_t n = strlen(r->way);
			int rc = log_route_read(&route, i, prev, &s, NULL);
			if (rc) {
				assert_true(rc == IM_ECORRUPT || rc == IM_ENOTFOUND);
				log_route_exclude(&route, i);
				again = true;
				continue;
			}
			bool parts = s->part || !s->final;
			snprintf(r->way + n, sizeof r->way - n, "%u-%u%s", s->first, s->last, s->level ? "c" : "");
			n = strlen(r->way);
			snprintf(r->way + n, sizeof r->way - n, parts ? "/%u " : " ", s->part);
			log_route_link(s, prev);
			log_segment_free(s);
		}
	}
	size_t n = strlen(r->way);
	snprintf(r->way + n, sizeof r->way - n, "=%u", route.until);
	assert_int_equal(route.reached.complete_ms, complete_of(route.until));
	assert_int_equal(route.broken, route.stopped != NULL);
	if (route.position)
		assert_int_equal(json_integer_value(json_object_get(route.position, "at")), route.until);
	snprintf(ret_stopped, 200, "%s", route.stopped ? route.stopped : "");
	log_route_clear(&route);
	return r->way;
}

static void expect(struct rig *r, uint32_t from, int64_t until_ms, const char *way, const char *stopped)
{
	char why[200];
	assert_string_equal(walk_to(r, from, until_ms, why), way);
	if (!*stopped)
		assert_string_equal(why, "");
	else if (!strstr(why, stopped))
		fail_msg("stopped: %s", why);
}

static void log_route__goes_to_the_end_of_the_log(void **state)
{
	struct rig *r = *state;
	expect(r, 0, INT64_MAX, "=0", "");
	fine(r, 1, 1, 1);
	fine(r, 2, 4, 1);
	fine(r, 5, 5, 3);
	expect(r, 0, INT64_MAX, "1-1 2-4 5-5/0 5-5/1 5-5/2 =5", "");
	expect(r, 4, INT64_MAX, "5-5/0 5-5/1 5-5/2 =5", "");
	expect(r, 5, INT64_MAX, "=5", "");
}

static void log_route__cuts_where_the_instant_lies(void **state)
{
	struct rig *r = *state;
	fine(r, 1, 1, 1);
	fine(r, 2, 6, 2);
	expect(r, 0, latest_of(1), "1-1 =1", "");
	expect(r, 0, latest_of(2) - 1, "1-1 =1", "");
	expect(r, 0, latest_of(4), "1-1 2-6/0 2-6/1 =4", "");
	expect(r, 0, latest_of(5) - 1, "1-1 2-6/0 2-6/1 =4", "");
	expect(r, 0, latest_of(6), "1-1 2-6/0 2-6/1 =6", "");
}

static void log_route__prefers_coarse_segments_that_fit(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	coarse(r, 2, 5, 1, 1);
	coarse(r, 6, 9, 1, 2);
	coarse(r, 2, 9, 2, 1);
	expect(r, 1, INT64_MAX, "2-9c 10-10 =10", "");
	expect(r, 1, latest_of(8), "2-5c 6-6 7-7 8-8 =8", "");
	expect(r, 5, latest_of(9), "6-9c/0 6-9c/1 =9", "");
	expect(r, 3, INT64_MAX, "4-4 5-5 6-9c/0 6-9c/1 10-10 =10", "");
}

static void log_route__goes_around_what_is_damaged(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	coarse(r, 2, 5, 1, 1);
	coarse(r, 6, 9, 1, 2);
	coarse(r, 2, 9, 2, 1);
	harm(r, 2, 9, 0, false);
	expect(r, 1, INT64_MAX, "2-5c 6-9c/0 6-9c/1 10-10 =10", "");
	harm(r, 6, 9, 1, true);
	expect(r, 1, INT64_MAX, "2-5c 6-6 7-7 8-8 9-9 10-10 =10", "");
	harm(r, 3, 3, 0, true);
	expect(r, 1, INT64_MAX, "2-5c 6-6 7-7 8-8 9-9 10-10 =10", "");
	expect(r, 1, latest_of(4), "2-2 =2", "behind point 2");
	harm(r, 2, 5, 0, false);
	expect(r, 1, INT64_MAX, "2-2 =2", "behind point 2");
}

static void log_route__says_what_is_missing(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	harm(r, 7, 7, 0, true);
	expect(r, 1, INT64_MAX, "2-2 3-3 4-4 5-5 6-6 =6", "behind point 6");
	expect(r, 1, latest_of(6), "2-2 3-3 4-4 5-5 6-6 =6", "");
	harm(r, 2, 2, 0, false);
	expect(r, 1, INT64_MAX, "=1", "behind point 1");
}

static void log_route__sees_that_only_a_coarse_segment_knows_more(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	coarse(r, 2, 10, 1, 1);
	for (uint32_t i = 6; i <= 10; i++)
		harm(r, i, i, 0, true);
	expect(r, 3, INT64_MAX, "4-4 5-5 =5", "behind point 5");
	expect(r, 1, INT64_MAX, "2-10c =10", "");
}

static void log_route__refuses_what_does_not_follow(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	memset(r->ends[10], 1, 32);
	fine(r, 11, 11, 1);
	expect(r, 8, INT64_MAX, "9-9 10-10 =10", "behind point 10");
	memset(r->ends[5], 1, 32); /* another image's place */
	expect(r, 5, INT64_MAX, "=5", "behind point 5");
}

static void log_route__takes_the_branch_the_image_stands_on(void **state)
{
	struct rig *r = *state;
	uint8_t ours[32];
	ten_fine(r);
	memcpy(ours, r->ends[10], 32);
	memset(r->ends[9], 2, 32);
	fine(r, 10, 10, 1); /* another's point 10 … */
	fine(r, 11, 12, 1); /* … and what follows it */
	memcpy(r->ends[10], ours, 32);
	fine(r, 11, 11, 1);
	expect(r, 10, INT64_MAX, "11-11 =11", "behind point 11"); /* a longer one is there, but not of this branch */
}

static void log_route__stops_at_a_fork(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	fine(r, 11, 11, 1);
	fine(r, 11, 13, 2);
	expect(r, 8, INT64_MAX, "9-9 10-10 =10", "two different segments follow point 10");
	expect(r, 8, latest_of(9), "9-9 =9", "");
}

static void log_route__stops_at_a_fork_of_equal_length(void **state)
{
	struct rig *r = *state;
	ten_fine(r);
	fine(r, 11, 11, 1);
	fine(r, 11, 11, 1);
	expect(r, 8, INT64_MAX, "9-9 10-10 =10", "two different segments follow point 10");
}

static void log_route__tells_parts_of_equal_ranges_apart(void **state)
{
	struct rig *r = *state;
	fine(r, 1, 1, 1);
	fine(r, 2, 4, 5);
	for (unsigned i = 0; i < 4; i++)
		coarse(r, 2, 4, 1, 5);
	char why[200];
	const char *way = walk_to(r, 1, INT64_MAX, why);
	assert_string_equal(why, "");
	assert_non_null(strstr(way, "/0 "));
	assert_non_null(strstr(way, "/4 =4"));
	expect(r, 1, latest_of(3), "2-4/0 2-4/1 2-4/2 2-4/3 2-4/4 =3", "");
}

static void log_route__finds_the_one_whole_segment_among_equals(void **state)
{
	struct rig *r = *state;
	char why[200];
	fine(r, 1, 1, 1);
	fine(r, 2, 4, 3);
	harm(r, 2, 4, 1, true);
	coarse(r, 2, 4, 1, 3);
	assert_string_equal(walk_to(r, 1, INT64_MAX, why), "2-4c/0 2-4c/1 2-4c/2 =4");
}

static void log_anchor_read__takes_sound_ones_only(void **state)
{
	static const struct {
		const char *text;
		bool sound;
	} cases[] = { { "{\"log\":{\"epoch\":\"" EPOCH "\",\"point\":0,\"complete_ms\":5,\"joined\":true}}", true }, { "{}", false },
		{ "{\"log\":7}", false }, { "{\"log\":{\"epoch\":\"" EPOCH "\",\"point\":3,\"complete_ms\":5}}", false },
		{ "{\"log\":{\"epoch\":\"" EPOCH "\",\"point\":-1,\"complete_ms\":5}}", false },
		{ "{\"log\":{\"epoch\":\"../../../../../../xx\",\"point\":0,\"complete_ms\":5}}", false },
		{ "{\"log\":{\"epoch\":\"" EPOCH "\",\"point\":4294967296,\"complete_ms\":5}}", false } };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct log_anchor a;
		json_t *meta = json_loads(cases[i].text, 0, NULL);
		assert_non_null(meta);
		if (log_anchor_read(meta, &a) != cases[i].sound)
			fail_msg("%s", cases[i].text);
		json_decref(meta);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(log_read__gives_the_body_to_the_restore_key_only),
		T(log_read__takes_an_empty_body),
		T(log_read__refuses_a_segment_under_another_name),
		T(log_read__refuses_a_key_that_may_not_write_this_log),
		T(log_read__trusts_a_revoked_key_up_to_its_last_point),
		T(log_encode__refuses_what_no_segment_says),
		cmocka_unit_test(log_name_parse__takes_nothing_else),
		T(log_list__leaves_out_folders_before_from),
		T(log_list__goes_over_folders_that_one_segment_covers),
		T(log_route__goes_to_the_end_of_the_log),
		T(log_route__cuts_where_the_instant_lies),
		T(log_route__prefers_coarse_segments_that_fit),
		T(log_route__goes_around_what_is_damaged),
		T(log_route__says_what_is_missing),
		T(log_route__sees_that_only_a_coarse_segment_knows_more),
		T(log_route__refuses_what_does_not_follow),
		T(log_route__takes_the_branch_the_image_stands_on),
		T(log_route__stops_at_a_fork),
		T(log_route__stops_at_a_fork_of_equal_length),
		T(log_route__tells_parts_of_equal_ranges_apart),
		T(log_route__finds_the_one_whole_segment_among_equals),
		cmocka_unit_test(log_anchor_read__takes_sound_ones_only),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
