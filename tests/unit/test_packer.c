/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs through a real vault: what is put comes back for the restore key and for nobody else,
 * content is stored once, slots and keys never repeat, damage and replacement are seen.
 */
#include "fixture.h"

#include "vault/fetch.h"
#include "vault/index.h"
#include "vault/record.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct rig {
	struct fixture f;
	struct packer *packer;
	struct codec *codec;
	struct im_error err;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	fixture_start(&r->f);
	assert_ok(packer_new(r->f.node->storage, r->f.node->keyring, r->f.state, "im-01", 1, &r->packer, &r->err), &r->err);
	assert_ok(codec_new(1, &r->codec, &r->err), &r->err);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	packer_free(r->packer);
	codec_free(r->codec);
	fixture_stop(&r->f);
	free(r);
	return 0;
}

static struct im_ref put(struct rig *r, enum entry_type type, const uint8_t *id, const void *data, size_t len)
{
	struct im_ref ref = { 0 };
	assert_ok(packer_put(r->packer, r->codec, type, id, data, len, &ref, NULL, &r->err), &r->err);
	return ref;
}

static void get(struct rig *r, struct vault *v, struct im_ref ref, enum entry_type type, struct im_buf *ret, int expected)
{
	struct pack_info info;
	struct fetcher *fetcher;
	struct im_error err = { 0 };
	assert_ok(state_pack_get(r->f.state, ref.pack, &info, &err), &err);
	assert_ok(fetcher_new(v->storage, v->keyring, &fetcher, &err), &err);
	assert_int_equal(fetch_one(fetcher, &info, type, &ref, ret, &err), expected);
	fetcher_free(fetcher);
}

static void packer_put__comes_back_for_the_restore_key(void **state)
{
	struct rig *r = *state;
	uint8_t data[5000];
	auto_buf struct im_buf out = { 0 };
	fill_bytes(data, sizeof data, 1);
	struct im_ref ref = put(r, ENTRY_CHUNK, NULL, data, sizeof data);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	get(r, r->f.restore, ref, ENTRY_CHUNK, &out, 0);
	assert_int_equal(out.len, sizeof data);
	assert_memory_equal(out.data, data, sizeof data);
}

static void packer_put__is_closed_to_the_node_key(void **state)
{
	struct rig *r = *state;
	auto_buf struct im_buf out = { 0 };
	struct im_ref ref = put(r, ENTRY_CHUNK, NULL, "secret", 6);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	get(r, r->f.node, ref, ENTRY_CHUNK, &out, IM_EKEY);
}

static void packer_put__binds_the_type(void **state)
{
	struct rig *r = *state;
	auto_buf struct im_buf out = { 0 };
	struct im_ref ref = put(r, ENTRY_EXTENT, NULL, "page", 4);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	get(r, r->f.restore, ref, ENTRY_CHUNK, &out, IM_ECORRUPT);
}

static void packer_put__stores_an_id_once(void **state)
{
	struct rig *r = *state;
	uint8_t id[32] = { 7 };
	bool fresh = true;
	struct im_ref first = put(r, ENTRY_CHUNK, id, "same", 4), again = { 0 };
	assert_ok(packer_put(r->packer, r->codec, ENTRY_CHUNK, id, "same", 4, &again, &fresh, &r->err), &r->err);
	assert_false(fresh);
	assert_memory_equal(&first, &again, sizeof first);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	assert_ok(packer_put(r->packer, r->codec, ENTRY_CHUNK, id, "same", 4, &again, &fresh, &r->err), &r->err);
	assert_false(fresh);
	assert_memory_equal(&first, &again, sizeof first);
}

static void packer_set_dict__entries_come_back(void **state)
{
	struct rig *r = *state;
	uint8_t dict[4096], data[4096];
	auto_buf struct im_buf out = { 0 }, plain = { 0 };
	fill_bytes(dict, sizeof dict, 3);
	memcpy(data, dict, sizeof data);
	data[17] ^= 1;
	struct im_ref without = put(r, ENTRY_EXTENT, NULL, data, sizeof data);
	assert_ok(packer_set_dict(r->packer, dict, sizeof dict, &r->err), &r->err);
	struct im_ref with = put(r, ENTRY_EXTENT, NULL, data, sizeof data);
	assert_ok(packer_set_dict(r->packer, NULL, 0, &r->err), &r->err);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	assert_int_not_equal(with.pack, without.pack);
	assert_true(with.stored * 4 < without.stored);
	get(r, r->f.restore, with, ENTRY_EXTENT, &out, 0);
	assert_memory_equal(out.data, data, sizeof data);
	get(r, r->f.restore, without, ENTRY_EXTENT, &plain, 0);
	assert_memory_equal(plain.data, data, sizeof data);
}

static void packer_finish__with_nothing_put_writes_nothing(void **state)
{
	struct rig *r = *state;
	struct packer_stats stats;
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	packer_get_stats(r->packer, &stats);
	assert_int_equal(stats.packs, 0);
	assert_int_equal(stats.stored_bytes, 0);
}

#define THREADS 4
#define PUTS 800

struct putter {
	struct rig *r;
	unsigned number;
	struct im_ref refs[PUTS];
};

static void *put_many(void *arg)
{
	struct putter *p = arg;
	struct codec *c;
	struct im_error err = { 0 };
	uint8_t *data = malloc(20000);
	if (!data || codec_new(1, &c, &err))
		abort();
	for (unsigned i = 0; i < PUTS; i++) {
		fill_bytes(data, 20000, p->number * PUTS + i);
		if (packer_put(p->r->packer, c, ENTRY_EXTENT, NULL, data, 20000, &p->refs[i], NULL, &err))
			abort();
	}
	codec_free(c);
	free(data);
	return NULL;
}

struct collect {
	struct rig *r;
	_Atomic unsigned seen;
	const struct pack_info *packs;
};

static const struct pack_info *pack_of(void *context, uint32_t number)
{
	return &((struct collect *)context)->packs[number];
}

static int check_item(void *context, unsigned worker, const struct fetch_item *items, size_t count, const uint8_t *plain, size_t len, struct im_error *err)
{
	struct collect *c = context;
	uint8_t expected[20000];
	(void)worker;
	for (size_t i = 0; i < count; i++) {
		fill_bytes(expected, sizeof expected, items[i].tag);
		if (len != sizeof expected || memcmp(expected, plain, len) != 0)
			return im_fail(err, IM_ECORRUPT, "entry %u differs", (unsigned)items[i].tag);
		c->seen++;
	}
	return 0;
}

static void fetch_run__returns_what_many_threads_put(void **state)
{
	struct rig *r = *state;
	struct putter putters[THREADS];
	pthread_t threads[THREADS];
	for (unsigned t = 0; t < THREADS; t++) {
		putters[t].r = r;
		putters[t].number = t;
		pthread_create(&threads[t], NULL, put_many, &putters[t]);
	}
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);

	struct pack_info packs[64] = { 0 };
	struct fetch_item *items = calloc(THREADS * PUTS + 1, sizeof *items);
	for (unsigned i = 0; i < THREADS * PUTS; i++) {
		items[i] = (struct fetch_item){ .ref = putters[i / PUTS].refs[i % PUTS], .tag = i, .type = ENTRY_EXTENT };
		assert_true(items[i].ref.pack < 64);
		assert_ok(state_pack_get(r->f.state, items[i].ref.pack, &packs[items[i].ref.pack], &r->err), &r->err);
	}
	items[THREADS * PUTS] = items[5]; /* asked for twice: decoded once, handed out twice */
	struct collect c = { .r = r, .packs = packs };
	struct fetcher *fetcher;
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &r->err), &r->err);
	struct fetch_plan plan = { .items = items, .count = THREADS * PUTS + 1, .pack_of = pack_of, .sink = check_item, .context = &c };
	struct fetch_stats stats;
	assert_ok(fetch_run(fetcher, &plan, &stats, &r->err), &r->err);
	assert_int_equal(c.seen, THREADS * PUTS + 1);
	assert_int_equal(stats.plain_bytes, THREADS * PUTS * 20000);
	fetcher_free(fetcher);
	free(items);
}

/* As a large file's parts may lie: in an entry, in another, and again in the first one. */
static void fetch_run__in_a_given_order_comes_back_to_an_entry(void **state)
{
	struct rig *r = *state;
	uint8_t data[20000];
	struct pack_info packs[64] = { 0 };
	struct fetch_item once[2], items[5];
	for (unsigned i = 0; i < 2; i++) {
		fill_bytes(data, sizeof data, i);
		once[i] = (struct fetch_item){ .ref = put(r, ENTRY_EXTENT, NULL, data, sizeof data), .tag = i, .type = ENTRY_EXTENT };
	}
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	uint32_t pack = once[0].ref.pack;
	assert_int_equal(once[1].ref.pack, pack);
	assert_true(once[0].ref.offset < once[1].ref.offset);
	assert_ok(state_pack_get(r->f.state, pack, &packs[pack], &r->err), &r->err);
	static const unsigned order[] = { 0, 0, 1, 0, 1 };
	for (unsigned i = 0; i < 5; i++)
		items[i] = once[order[i]];
	struct collect c = { .r = r, .packs = packs };
	struct fetcher *fetcher;
	struct fetch_lane *lane;
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &r->err), &r->err);
	assert_ok(fetch_lane_new(&lane, &r->err), &r->err);
	struct fetch_plan plan = { .items = items, .count = 5, .keep_order = true, .pack_of = pack_of, .sink = check_item, .context = &c };
	assert_ok(fetch_run(fetcher, &plan, NULL, &r->err), &r->err);
	assert_int_equal(c.seen, 5);
	assert_ok(fetch_here(fetcher, lane, &plan, &r->err), &r->err);
	assert_int_equal(c.seen, 10);
	fetch_lane_free(lane);
	fetcher_free(fetcher);
}

static int count_damage(void *context, const struct fetch_item *items, size_t count, const struct im_error *why, struct im_error *err)
{
	(void)items;
	(void)why;
	(void)err;
	((struct collect *)context)->seen += (unsigned)count * 1000;
	return 0;
}

static void fetch_run__one_damaged_entry_harms_only_itself(void **state)
{
	struct rig *r = *state;
	uint8_t data[20000];
	struct pack_info info;
	struct fetch_item items[3];
	for (unsigned i = 0; i < 3; i++) {
		fill_bytes(data, sizeof data, i);
		items[i] = (struct fetch_item){ .ref = put(r, ENTRY_EXTENT, NULL, data, sizeof data), .tag = i, .type = ENTRY_EXTENT };
	}
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	assert_ok(state_pack_get(r->f.state, items[0].ref.pack, &info, &r->err), &r->err);
	char object[80], path[256];
	snprintf(path, sizeof path, "%s/%s", r->f.vault_dir, fetch_pack_object(object, info.name));
	FILE *file = fopen(path, "r+");
	fseek(file, items[1].ref.offset + 100, SEEK_SET);
	int byte = fgetc(file);
	fseek(file, -1, SEEK_CUR);
	fputc(byte ^ 4, file);
	fclose(file);

	struct pack_info packs[64] = { 0 };
	packs[info.number] = info;
	struct collect c = { .r = r, .packs = packs };
	struct fetcher *fetcher;
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &r->err), &r->err);
	struct fetch_plan plan = { .items = items, .count = 3, .pack_of = pack_of, .sink = check_item, .damage = count_damage, .context = &c };
	assert_ok(fetch_run(fetcher, &plan, NULL, &r->err), &r->err);
	assert_int_equal(c.seen, 1002);
	plan.damage = NULL;
	assert_int_equal(fetch_run(fetcher, &plan, NULL, &r->err), IM_ECORRUPT);
	fetcher_free(fetcher);
}

static void fetch_one__refuses_a_pack_whose_key_the_snapshot_does_not_know(void **state)
{
	struct rig *r = *state;
	struct pack_info info;
	struct fetcher *fetcher;
	auto_buf struct im_buf out = { 0 };
	struct im_ref ref = put(r, ENTRY_CHUNK, NULL, "forged", 6);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	assert_ok(state_pack_get(r->f.state, ref.pack, &info, &r->err), &r->err);
	info.commitment[0] ^= 1;
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &r->err), &r->err);
	assert_int_equal(fetch_one(fetcher, &info, ENTRY_CHUNK, &ref, &out, &r->err), IM_ECORRUPT);
	assert_int_equal(out.len, 0);
	fetcher_free(fetcher);
}

static void index_load__finds_content_after_the_state_was_lost(void **state)
{
	struct rig *r = *state;
	uint8_t id[32] = { 9 };
	bool fresh = true;
	size_t bad = 99;
	struct im_ref ref;
	put(r, ENTRY_CHUNK, id, "kept", 4);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	packer_free(r->packer);
	r->packer = NULL;
	state_close(r->f.state);
	remove_tree(r->f.state_dir);
	assert_ok(state_open(r->f.state_dir, r->f.node->id, "im-01", &r->f.state, &r->err), &r->err);
	assert_ok(index_load(r->f.node->storage, r->f.node->keyring, "im-01", r->f.state, &bad, &r->err), &r->err);
	assert_int_equal(bad, 0);
	assert_ok(packer_new(r->f.node->storage, r->f.node->keyring, r->f.state, "im-01", 1, &r->packer, &r->err), &r->err);
	assert_ok(packer_put(r->packer, r->codec, ENTRY_CHUNK, id, "kept", 4, &ref, &fresh, &r->err), &r->err);
	assert_false(fresh);
	auto_buf struct im_buf out = { 0 };
	get(r, r->f.restore, ref, ENTRY_CHUNK, &out, 0);
	assert_memory_equal(out.data, "kept", 4);
}

/* Every (pack uid, slot) pair of several runs, cloned state included, is unique: with a random key per pack that means no (key, nonce) pair repeats. */
static int compare_pairs(const void *a, const void *b)
{
	return memcmp(a, b, 8);
}

static void packer_put__never_repeats_a_slot_of_a_pack(void **state)
{
	struct rig *r = *state;
	enum { TOTAL = 1000000 };
	uint32_t (*pairs)[2] = calloc(TOTAL, sizeof *pairs);
	for (uint32_t i = 0; i < TOTAL; i++) {
		struct im_ref ref = put(r, ENTRY_EXTENT, NULL, &i, sizeof i);
		pairs[i][0] = ref.pack;
		pairs[i][1] = ref.slot;
	}
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	qsort(pairs, TOTAL, sizeof *pairs, compare_pairs);
	for (uint32_t i = 1; i < TOTAL; i++)
		assert_memory_not_equal(pairs[i - 1], pairs[i], 8);
	free(pairs);
}

static void packer__cloned_state_makes_other_packs(void **state)
{
	struct rig *r = *state;
	char clone_dir[160], command[400];
	struct state *clone;
	struct packer *other;
	struct im_ref mine, theirs;
	snprintf(clone_dir, sizeof clone_dir, "%s/clone", r->f.dir);
	snprintf(command, sizeof command, "cp -a %s %s", r->f.state_dir, clone_dir);
	assert_ok(state_checkpoint(r->f.state, &r->err), &r->err);
	assert_int_equal(system(command), 0);
	assert_ok(state_open(clone_dir, r->f.node->id, "im-01", &clone, &r->err), &r->err);
	assert_ok(packer_new(r->f.node->storage, r->f.node->keyring, clone, "im-01", 1, &other, &r->err), &r->err);
	mine = put(r, ENTRY_CHUNK, NULL, "one content", 11);
	assert_ok(packer_put(other, r->codec, ENTRY_CHUNK, NULL, "one content", 11, &theirs, NULL, &r->err), &r->err);
	assert_ok(packer_finish(r->packer, &r->err), &r->err);
	assert_ok(packer_finish(other, &r->err), &r->err);
	struct pack_info a, b;
	assert_ok(state_pack_get(r->f.state, mine.pack, &a, &r->err), &r->err);
	assert_ok(state_pack_get(clone, theirs.pack, &b, &r->err), &r->err);
	assert_int_equal(mine.pack, theirs.pack);
	assert_memory_not_equal(a.commitment, b.commitment, 32);
	assert_memory_not_equal(a.name, b.name, 32);
	packer_free(other);
	state_close(clone);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(packer_put__comes_back_for_the_restore_key),
		T(packer_put__is_closed_to_the_node_key),
		T(packer_put__binds_the_type),
		T(packer_put__stores_an_id_once),
		T(packer_set_dict__entries_come_back),
		T(packer_finish__with_nothing_put_writes_nothing),
		T(fetch_run__returns_what_many_threads_put),
		T(fetch_run__in_a_given_order_comes_back_to_an_entry),
		T(fetch_run__one_damaged_entry_harms_only_itself),
		T(fetch_one__refuses_a_pack_whose_key_the_snapshot_does_not_know),
		T(index_load__finds_content_after_the_state_was_lost),
		T(packer_put__never_repeats_a_slot_of_a_pack),
		T(packer__cloned_state_makes_other_packs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
