/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying a small real world with every kind of key, and what each kind of damage is called.
 */
#include "../fault/world.h"

#include "base/file.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct world w;
static struct verify_result result;
static struct im_error err;

static int setup(void **state)
{
	(void)state;
	err = (struct im_error){ 0 };
	world_start(&w);
	for (unsigned i = 1; i <= 3; i++) {
		assert_ok(world_backup(&w, &err), &err);
		world_change(&w, i);
	}
	result = (struct verify_result){ 0 };
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	verify_result_clear(&result);
	world_stop(&w);
	return 0;
}

static int run(const char *key, unsigned percent, const char *state_dir)
{
	struct vault *vault;
	verify_result_clear(&result);
	im_error_clear(&err);
	assert_ok(vault_open(w.vault, key, NULL, NULL, 0, &vault, &err), &err);
	struct verify_request q = {
		.vault = vault, .read_percent = percent, .state_dir = state_dir
	};
	int rc = verify_run(&q, &result, &err);
	vault_close(vault);
	return rc;
}

struct found {
	char paths[64][320];
	size_t count;
};

static void find_below(const char *folder, struct found *f)
{
	DIR *d = opendir(folder);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		char path[300];
		struct stat st;
		snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
		if (e->d_name[0] == '.' || stat(path, &st))
			continue;
		if (S_ISDIR(st.st_mode))
			find_below(path, f);
		else if (f->count < 64)
			snprintf(f->paths[f->count++], sizeof f->paths[0], "%s", path);
	}
	closedir(d);
}

static struct found objects(const char *kind)
{
	struct found f = { 0 };
	char folder[128];
	snprintf(folder, sizeof folder, "%s/%s", w.vault, kind);
	find_below(folder, &f);
	assert_true(f.count > 0);
	return f;
}

static void flip(const char *path, off_t offset)
{
	uint8_t b;
	struct stat st;
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	offset = offset < 0 ? st.st_size + offset : offset;
	assert_int_equal(pread(fd, &b, 1, offset), 1);
	b ^= 1;
	assert_int_equal(pwrite(fd, &b, 1, offset), 1);
	close(fd);
}

static const struct verify_damage *damage_of(const char *path)
{
	const char *object = path + strlen(w.vault) + 1;
	for (size_t i = 0; i < result.damaged_count; i++)
		if (strcmp(result.damaged[i].object, object) == 0)
			return &result.damaged[i];
	return NULL;
}

static void verify__finds_a_sound_vault_sound_with_any_key(void **state)
{
	(void)state;
	const char *const keys[] = { w.restore_key, w.node_key, NULL };
	for (size_t i = 0; i < 3; i++)
		for (unsigned percent = 0; percent <= 100; percent += 100) {
			assert_ok(run(keys[i], percent, NULL), &err);
			assert_int_equal(result.damaged_count, 0);
			assert_int_equal(result.snapshots, 3);
			assert_true(result.packs > 0 && result.fragments == 3);
			assert_int_equal(result.unreferenced, 0);
			assert_int_equal(result.bytes_read, percent ? result.bytes_total : 0);
			assert_int_equal(result.entries_decoded > 0, percent && i == 0);
		}
}

static void verify__names_what_a_missing_pack_harms(void **state)
{
	(void)state;
	struct found packs = objects("packs");
	assert_int_equal(unlink(packs.paths[0]), 0);
	assert_int_equal(run(w.restore_key, 0, NULL), IM_ECORRUPT);
	assert_int_equal(result.damaged_count, 1);
	const struct verify_damage *d = damage_of(packs.paths[0]);
	assert_non_null(d);
	assert_non_null(strstr(d->problem, "missing"));
	assert_true(d->snapshot_count > 0 && d->store_count > 0 && d->path_count > 0);
	assert_int_equal(run(w.node_key, 0, NULL), IM_ECORRUPT);
	assert_true(result.damaged[0].snapshot_count > 0);
}

static void verify__names_what_a_flipped_bit_harms(void **state)
{
	(void)state;
	struct found packs = objects("packs");
	static const off_t places[] = { 0, 60, 200, -10, -60 };
	for (size_t i = 0; i < packs.count; i++)
		for (size_t j = 0; j < sizeof places / sizeof *places; j++) {
			flip(packs.paths[i], places[j]);
			assert_ok(
			    run(w.node_key, 0, NULL), &err); /* presence alone cannot see it */
			assert_int_equal(run(w.restore_key, 100, NULL), IM_ECORRUPT);
			assert_non_null(damage_of(packs.paths[i]));
			assert_int_equal(result.damaged_count, 1);
			assert_int_equal(run(NULL, 100, NULL), IM_ECORRUPT);
			assert_non_null(damage_of(packs.paths[i]));
			flip(packs.paths[i], places[j]);
		}
	assert_ok(run(w.restore_key, 100, NULL), &err);
}

static void verify__goes_on_after_each_damage(void **state)
{
	(void)state;
	struct found packs = objects("packs"), snapshots = objects("snapshots"),
		     index = objects("index");
	for (size_t i = 0; i < packs.count; i++)
		flip(packs.paths[i], 150);
	flip(snapshots.paths[0], 100);
	flip(index.paths[0], 100);
	assert_int_equal(run(w.restore_key, 100, NULL), IM_ECORRUPT);
	for (size_t i = 0; i < packs.count; i++)
		assert_non_null(damage_of(packs.paths[i]));
	assert_non_null(damage_of(snapshots.paths[0]));
	assert_int_equal(damage_of(snapshots.paths[0])->snapshot_count, 1);
	assert_non_null(damage_of(index.paths[0]));
	assert_int_equal(run(NULL, 0, NULL), IM_ECORRUPT);
	assert_non_null(damage_of(snapshots.paths[0]));
	assert_non_null(damage_of(index.paths[0]));
}

static void verify__notices_a_removed_snapshot(void **state)
{
	(void)state;
	char path[300];
	struct found snapshots = objects("snapshots");
	for (size_t i = 0; i < snapshots.count; i++)
		if (strstr(snapshots.paths[i], "/00000002-")) {
			snprintf(path, sizeof path, "%s", snapshots.paths[i]);
			assert_int_equal(unlink(path), 0);
		}
	assert_int_equal(run(w.restore_key, 0, NULL), IM_ECORRUPT);
}

static void verify__changes_nothing(void **state)
{
	(void)state;
	struct found before = objects("");
	flip(objects("packs").paths[0], 150);
	assert_int_equal(run(w.restore_key, 100, NULL), IM_ECORRUPT);
	struct found after = objects("");
	assert_int_equal(before.count, after.count);
}

static void verify__a_share_moves_on_until_everything_was_read(void **state)
{
	(void)state;
	struct found packs = objects("packs");
	char state_dir[128];
	snprintf(state_dir, sizeof state_dir, "%s/verify-state", w.dir);
	for (size_t i = 0; i < packs.count; i++) {
		bool seen = false;
		flip(packs.paths[i], 150);
		for (unsigned n = 0; n < 4; n++) {
			int rc = run(w.node_key, 25, state_dir);
			assert_true(rc == 0 || rc == IM_ECORRUPT);
			assert_true(result.bytes_read > 0);
			seen |= damage_of(packs.paths[i]) != NULL;
		}
		assert_true(seen);
		flip(packs.paths[i], 150);
	}
}

static void verify__counts_what_a_dead_run_left(void **state)
{
	(void)state;
	char folder[256], path[400];
	uint8_t hash[32];
	char hex[65];
	crypto_hash(hash, "left", 4);
	im_hex(hex, hash, 32);
	snprintf(folder, sizeof folder, "%s/packs/%.2s", w.vault, hex);
	mkdir(folder, 0700);
	snprintf(path, sizeof path, "%s/%s", folder, hex);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs("left", f);
	fclose(f);
	assert_ok(run(w.restore_key, 0, NULL), &err);
	assert_int_equal(result.unreferenced, 1);
}

static void verify__refuses_an_unknown_node(void **state)
{
	(void)state;
	struct vault *vault;
	assert_ok(vault_open(w.vault, w.restore_key, NULL, NULL, 0, &vault, &err), &err);
	struct verify_request q = { .vault = vault, .node = "im-99" };
	assert_int_equal(verify_run(&q, &result, &err), IM_ENOTFOUND);
	vault_close(vault);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(verify__finds_a_sound_vault_sound_with_any_key),
		TEST(verify__names_what_a_missing_pack_harms),
		TEST(verify__names_what_a_flipped_bit_harms),
		TEST(verify__goes_on_after_each_damage),
		TEST(verify__notices_a_removed_snapshot),
		TEST(verify__changes_nothing),
		TEST(verify__a_share_moves_on_until_everything_was_read),
		TEST(verify__counts_what_a_dead_run_left),
		TEST(verify__refuses_an_unknown_node),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
