/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local state: what it promises to remember, when, and that losing or damaging it is never worse
 * than a new beginning.
 */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t vault_id[16] = { 1 }, other_vault[16] = { 2 };
static char dir[64];
static struct im_error err;

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/imvault-state-XXXXXX");
	memset(&err, 0, sizeof err);
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	remove_tree(dir);
	return 0;
}

static struct state *reopen(struct state *old, const uint8_t vault[16])
{
	struct state *s;
	state_close(old);
	assert_ok(state_open(dir, vault, "im-01", &s, &err), &err);
	return s;
}

static bool remembers(struct state *s, const char *key, const char *value)
{
	auto_buf struct im_buf b = { 0 };
	return state_get(s, "archive", key, &b, NULL) == 0 && b.len == strlen(value) && memcmp(b.data, value, b.len) == 0;
}

static void commit(struct state *s, uint64_t seq)
{
	struct state_head head;
	state_head(s, &head);
	head.seq = seq;
	assert_ok(state_commit(s, &head, &err), &err);
}

static void state_put__is_forgotten_without_commit(void **state)
{
	(void)state;
	struct state *s = reopen(NULL, vault_id);
	assert_ok(state_put(s, "archive", "leaf", "old", 3, &err), &err);
	commit(s, 1);
	assert_ok(state_put(s, "archive", "leaf", "new", 3, &err), &err);
	assert_true(remembers(s, "leaf", "new"));
	s = reopen(s, vault_id);
	assert_true(remembers(s, "leaf", "old"));
	state_close(s);
}

static void state_checkpoint__keeps_ids_but_not_memory(void **state)
{
	(void)state;
	uint8_t id[32] = { 5 };
	struct im_ref ref = { 1, 2, 3, 4, 5 }, found;
	struct state *s = reopen(NULL, vault_id);
	assert_ok(state_id_add(s, id, &ref, &err), &err);
	assert_ok(state_put(s, "archive", "leaf", "x", 1, &err), &err);
	assert_ok(state_checkpoint(s, &err), &err);
	s = reopen(s, vault_id);
	assert_int_equal(state_id_find(s, id, &found, &err), 0);
	assert_memory_equal(&ref, &found, sizeof ref);
	assert_false(remembers(s, "leaf", "x"));
	state_close(s);
}

static void state_head__keeps_the_epoch_over_runs(void **state)
{
	(void)state;
	struct state_head first, later;
	struct state *s = reopen(NULL, vault_id);
	assert_false(state_head(s, &first));
	commit(s, 7);
	s = reopen(s, vault_id);
	assert_true(state_head(s, &later));
	assert_int_equal(later.seq, 7);
	assert_string_equal(first.epoch, later.epoch);
	state_close(s);
}

static void state_open__of_another_vault_begins_anew(void **state)
{
	(void)state;
	struct state_head first, other;
	struct state *s = reopen(NULL, vault_id);
	assert_ok(state_put(s, "archive", "leaf", "x", 1, &err), &err);
	commit(s, 1);
	state_head(s, &first);
	s = reopen(s, other_vault);
	assert_false(state_head(s, &other));
	assert_string_not_equal(first.epoch, other.epoch);
	assert_false(remembers(s, "leaf", "x"));
	state_close(s);
}

static void overwrite(const char *name)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "r+");
	assert_non_null(f);
	for (int i = 0; i < 4096; i++)
		fputc(0xa5, f);
	fclose(f);
}

static void state_open__moves_a_damaged_file_aside(void **state)
{
	(void)state;
	struct state_head head;
	static const char *const names[] = { "im-01.ids.db", "im-01.memory.db" };
	for (size_t i = 0; i < 2; i++) {
		struct state *s = reopen(NULL, vault_id);
		assert_ok(state_put(s, "archive", "leaf", "x", 1, &err), &err);
		commit(s, 1);
		state_close(s);
		overwrite(names[i]);
		s = reopen(NULL, vault_id);
		assert_false(state_head(s, &head));
		assert_false(remembers(s, "leaf", "x"));
		state_close(s);
	}
}

static void state_open__does_not_believe_one_half_of_another_state(void **state)
{
	(void)state;
	char command[256];
	struct state_head head;
	struct state *s = reopen(NULL, vault_id);
	commit(s, 1);
	state_close(s);
	snprintf(command, sizeof command, "mv %s/im-01.memory.db %s/kept && rm -f %s/im-01.*", dir, dir, dir);
	assert_int_equal(system(command), 0);
	s = reopen(NULL, vault_id);
	commit(s, 1);
	state_close(s);
	snprintf(command, sizeof command, "mv %s/kept %s/im-01.memory.db && rm -f %s/im-01.memory.db-*", dir, dir, dir);
	assert_int_equal(system(command), 0);
	s = reopen(NULL, vault_id);
	assert_false(state_head(s, &head));
	state_close(s);
}

static void state_pack_number__is_never_given_twice(void **state)
{
	(void)state;
	uint32_t a, b;
	struct state *s = reopen(NULL, vault_id);
	assert_ok(state_pack_number(s, &a, &err), &err);
	assert_ok(state_checkpoint(s, &err), &err);
	s = reopen(s, vault_id);
	assert_ok(state_pack_number(s, &b, &err), &err);
	assert_int_not_equal(a, b);
	state_close(s);
}

static void state_forget__leaves_the_ids(void **state)
{
	(void)state;
	uint8_t id[32] = { 5 };
	struct im_ref ref = { 1, 2, 3, 4, 5 }, found;
	struct state *s = reopen(NULL, vault_id);
	assert_ok(state_id_add(s, id, &ref, &err), &err);
	assert_ok(state_put(s, "archive", "leaf", "x", 1, &err), &err);
	commit(s, 1);
	assert_ok(state_forget(s, &err), &err);
	assert_false(remembers(s, "leaf", "x"));
	assert_int_equal(state_id_find(s, id, &found, &err), 0);
	state_close(s);
}

static void state_forget_ids__keeps_head_and_numbers(void **state)
{
	(void)state;
	uint8_t id[32] = { 5 };
	struct im_ref ref = { 1, 2, 3, 4, 5 }, found;
	struct state_head head;
	uint32_t a = 0, b = 0;
	struct state *s = reopen(NULL, vault_id);
	assert_ok(state_pack_number(s, &a, &err), &err);
	assert_ok(state_id_add(s, id, &ref, &err), &err);
	assert_ok(state_fragment_add(s, "index/im-01/x", &err), &err);
	commit(s, 7);
	assert_ok(state_forget_ids(s, &err), &err);
	assert_ok(state_checkpoint(s, &err), &err);
	s = reopen(s, vault_id);
	assert_int_equal(state_id_find(s, id, &found, &err), IM_ENOTFOUND);
	assert_false(state_fragment_known(s, "index/im-01/x"));
	assert_true(state_head(s, &head));
	assert_int_equal(head.seq, 7);
	assert_ok(state_pack_number(s, &b, &err), &err);
	assert_true(b > a);
	state_close(s);
}

static void state_delete__takes_exactly_the_prefix(void **state)
{
	(void)state;
	struct state *s = reopen(NULL, vault_id);
	assert_ok(state_put(s, "archive", "leaf/1", "x", 1, &err), &err);
	assert_ok(state_put(s, "archive", "leaf/2", "x", 1, &err), &err);
	assert_ok(state_put(s, "archive", "leaf", "x", 1, &err), &err);
	assert_ok(state_put(s, "archive", "leaf0", "x", 1, &err), &err);
	assert_ok(state_put(s, "other", "leaf/1", "x", 1, &err), &err);
	assert_ok(state_delete(s, "archive", "leaf/", &err), &err);
	assert_false(remembers(s, "leaf/1", "x"));
	assert_false(remembers(s, "leaf/2", "x"));
	assert_true(remembers(s, "leaf", "x"));
	assert_true(remembers(s, "leaf0", "x"));
	assert_ok(state_delete(s, "archive", "", &err), &err);
	assert_false(remembers(s, "leaf", "x"));
	auto_buf struct im_buf b = { 0 };
	assert_int_equal(state_get(s, "other", "leaf/1", &b, NULL), 0);
	state_close(s);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(state_put__is_forgotten_without_commit),
		T(state_checkpoint__keeps_ids_but_not_memory),
		T(state_head__keeps_the_epoch_over_runs),
		T(state_open__of_another_vault_begins_anew),
		T(state_open__moves_a_damaged_file_aside),
		T(state_open__does_not_believe_one_half_of_another_state),
		T(state_pack_number__is_never_given_twice),
		T(state_forget__leaves_the_ids),
		T(state_delete__takes_exactly_the_prefix),
		T(state_forget_ids__keeps_head_and_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
