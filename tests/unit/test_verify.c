/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying a small real world with every kind of key, and what each kind of damage is called.
 */
#include "../fault/world.h"

#include "base/file.h"
#include "fixture.h"
#include "log_forge.h"

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

/* Logs. */

#define T0 INT64_C(1800000000000) /* 2027-01-15T08:00:00Z */
#define EPOCH "01a30b2cb80000000001"
#define NEXT_EPOCH "01a30b2cb90000000001"
#define LAST 8

static struct forge log_of, next_log;
static struct vault *node_vault, *restore_vault;

/* Points 1 … 8, a second apart; the newest snapshot stands at point 3. */
static int setup_log(void **state)
{
	setup(state);
	assert_ok(vault_open(w.vault, w.node_key, NULL, NULL, 0, &node_vault, &err), &err);
	assert_ok(vault_open(w.vault, w.restore_key, NULL, NULL, 0, &restore_vault, &err), &err);
	forge_begin(&log_of, node_vault, w.vault, "chat", EPOCH, w.database, T0 + 1000, "first start", NULL);
	for (unsigned i = 2; i <= LAST; i++) {
		world_change(&w, 10 + i);
		forge_take(&log_of, w.database, T0 + 1000 * i);
		forge_ship(&log_of);
	}
	forge_anchor(&log_of, restore_vault, 3, 3, false);
	next_log = (struct forge){ 0 };
	return 0;
}

static int teardown_log(void **state)
{
	forge_end(&log_of);
	forge_end(&next_log);
	vault_close(node_vault);
	vault_close(restore_vault);
	return teardown(state);
}

static const char *segment(uint32_t first, uint32_t last, unsigned level)
{
	for (size_t i = 0; i < log_of.object_count; i++)
		if (log_of.objects[i].first == first && log_of.objects[i].last == last && log_of.objects[i].level == level)
			return log_of.objects[i].path;
	fail_msg("no segment %u-%u", first, last);
	return NULL;
}

static void expect_sound(void)
{
	const char *const keys[] = { w.restore_key, w.node_key, NULL };
	for (size_t i = 0; i < 3; i++) {
		assert_ok(run(keys[i], i ? 0 : 100, NULL), &err);
		assert_int_equal(result.damaged_count, 0);
		assert_int_equal(result.warning_count, 0);
		assert_int_equal(result.segments, log_of.object_count + next_log.object_count);
	}
}

/* The only damage there is, with any key. */
static void expect_damage(const char *path, const char *problem, const char *lost)
{
	const char *const keys[] = { w.restore_key, w.node_key };
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(run(keys[i], i ? 0 : 100, NULL), IM_ECORRUPT);
		for (size_t j = 1; j < result.damaged_count; j++)
			print_error("also: %s: %s\n", result.damaged[j].object, result.damaged[j].problem);
		assert_int_equal(result.damaged_count, 1);
		const struct verify_damage *d = &result.damaged[0];
		assert_string_equal(d->object, path + strlen(w.vault) + 1);
		if (!strstr(d->problem, problem))
			fail_msg("%s", d->problem);
		assert_int_equal(d->store_count, 1);
		assert_string_equal(d->stores[0], "im-01/chat");
		if (*lost) {
			assert_int_equal(d->path_count, 1);
			if (!strstr(d->paths[0], lost))
				fail_msg("%s", d->paths[0]);
		}
	}
}

/* Writes the segment at path again with a field changed. Returns where. */
static const char *write_again(const char *path, const char *key, json_t *value)
{
	static char written[400];
	struct log_name n;
	struct log_segment *s;
	uint8_t hash[32];
	struct im_buf object = { 0 };
	char *name = NULL;
	assert_true(log_name_parse(path + strlen(w.vault) + 1, &n, NULL));
	assert_ok(log_read(restore_vault->storage, restore_vault->keyring, "im-01", &n, &s, &err), &err);
	json_object_set_new(s->record.meta, key, value);
	assert_ok(log_encode(node_vault->keyring, s->record.meta, s->record.private_bytes.data, s->record.private_bytes.len, &object, hash, &name, &err),
	    &err);
	assert_ok(storage_put_object(node_vault->storage, name, object.data, object.len, &err), &err);
	snprintf(written, sizeof written, "%s/%s", w.vault, name);
	free(name);
	im_buf_free(&object);
	log_segment_free(s);
	log_name_clear(&n);
	return written;
}

static void verify__finds_a_sound_log_sound(void **state)
{
	(void)state;
	expect_sound();
	forge_coarse(&log_of, 2, 5, 1);
	forge_coarse(&log_of, 6, 8, 1);
	forge_coarse(&log_of, 2, 8, 2);
	expect_sound();
	log_of.tiny_parts = true;
	forge_coarse(&log_of, 3, 8, 1);
	forge_begin(&next_log, node_vault, w.vault, "chat", NEXT_EPOCH, w.database, T0 + 20000, "it was away", &log_of);
	expect_sound();
}

static void verify__says_which_instants_damage_costs(void **state)
{
	(void)state;
	flip(segment(6, 6, 0), 300);
	expect_damage(segment(6, 6, 0), "signature", "no instant after 2027-01-15T08:00:05.000Z can be reached in epoch " EPOCH);
	forge_coarse(&log_of, 6, 7, 1);
	expect_damage(segment(6, 6, 0), "signature", "no instant between 2027-01-15T08:00:05.000Z and 2027-01-15T08:00:07.000Z");
	forge_coarse(&log_of, 6, 8, 1);
	expect_damage(segment(6, 6, 0), "signature", "no instant between 2027-01-15T08:00:05.000Z and 2027-01-15T08:00:07.000Z");
	assert_int_equal(run(NULL, 0, NULL), IM_ECORRUPT);
	assert_int_equal(result.damaged_count, 1);
	assert_non_null(damage_of(segment(6, 6, 0)));
	assert_int_equal(result.damaged[0].store_count, 1);
}

static void verify__says_that_a_damaged_coarse_segment_costs_nothing(void **state)
{
	(void)state;
	forge_coarse(&log_of, 4, 8, 1);
	flip(segment(4, 8, 1), -1);
	expect_damage(segment(4, 8, 1), "signature", "no instant is lost: other segments");
}

static void verify__says_that_damage_before_any_snapshot_costs_nothing(void **state)
{
	(void)state;
	flip(segment(2, 2, 0), -1);
	expect_damage(segment(2, 2, 0), "signature", "no snapshot stands before it");
}

static void verify__notices_a_removed_segment(void **state)
{
	(void)state;
	assert_int_equal(unlink(segment(6, 6, 0)), 0);
	expect_damage(segment(7, 7, 0), "points 6 to 6 were removed", "no instant after 2027-01-15T08:00:05.000Z");
	assert_int_equal(unlink(segment(5, 5, 0)), 0);
	forge_coarse(&log_of, 4, 8, 1);
	expect_damage(segment(7, 7, 0), "points 5 to 6 were removed", "between 2027-01-15T08:00:04.000Z and 2027-01-15T08:00:08.000Z");
}

static void verify__says_when_only_coarse_segments_are_left(void **state)
{
	(void)state;
	forge_coarse(&log_of, 5, 6, 1);
	assert_int_equal(unlink(segment(5, 5, 0)), 0);
	assert_int_equal(unlink(segment(6, 6, 0)), 0);
	assert_ok(run(w.node_key, 0, NULL), &err);
	assert_int_equal(result.warning_count, 1);
	assert_non_null(strstr(result.warnings[0], "of points 5 to 6, are not there"));
}

static void verify__notices_segments_removed_before_a_snapshot(void **state)
{
	(void)state;
	assert_int_equal(unlink(segment(3, 3, 0)), 0);
	expect_damage(segment(4, 4, 0), "points 3 to 3 were removed", "no instant is lost: other segments or a snapshot");
	assert_int_equal(unlink(segment(2, 2, 0)), 0);
	expect_damage(segment(4, 4, 0), "points 2 to 3 were removed", "no snapshot stands before it");
}

static void verify__notices_a_removed_end(void **state)
{
	(void)state;
	forge_begin(&next_log, node_vault, w.vault, "chat", NEXT_EPOCH, w.database, T0 + 20000, "it was away", &log_of);
	assert_int_equal(unlink(segment(8, 8, 0)), 0);
	expect_damage(next_log.objects[0].path, "went on to point 8, but ends at point 7", "no instant after 2027-01-15T08:00:07.000Z");
}

static void verify__notices_a_fork(void **state)
{
	(void)state;
	const char *other = write_again(segment(6, 6, 0), "host", json_string("twin"));
	const char *second = strcmp(other, segment(6, 6, 0)) > 0 ? other : segment(6, 6, 0);
	expect_damage(second, "fork", "a restore stops before it");
}

static void verify__notices_a_replaced_segment(void **state)
{
	(void)state;
	const char *other = write_again(segment(6, 6, 0), "host", json_string("twin"));
	assert_int_equal(unlink(segment(6, 6, 0)), 0);
	(void)other;
	expect_damage(segment(7, 7, 0), "does not follow the segment before it", "no instant after 2027-01-15T08:00:06.000Z");
}

static void verify__compares_coarse_segments_with_fine_ones(void **state)
{
	(void)state;
	char hash[65];
	memset(hash, '1', 64);
	hash[64] = '\0';
	forge_coarse(&log_of, 4, 7, 1);
	const char *other = write_again(segment(4, 7, 1), "ends", json_string(hash));
	assert_int_equal(unlink(segment(4, 7, 1)), 0);
	expect_damage(other, "does not end where the fine segment", "no instant is lost");
}

static void verify__notices_missing_parts(void **state)
{
	(void)state;
	log_of.tiny_parts = true;
	forge_coarse(&log_of, 4, 8, 1);
	assert_true(log_of.object_count > LAST + 2); /* several parts */
	const char *head = segment(4, 8, 1), *second = log_of.objects[LAST + 1].path;
	assert_int_equal(unlink(head), 0);
	expect_damage(second, "does not follow the part before it", "");
}

static void verify__says_nothing_of_what_is_on_its_way(void **state)
{
	(void)state;
	log_of.tiny_parts = true;
	forge_coarse(&log_of, 4, 8, 1);
	const char *final = log_of.objects[log_of.object_count - 1].path;
	assert_int_equal(unlink(final), 0);
	assert_ok(run(w.restore_key, 0, NULL), &err);
	assert_int_equal(result.damaged_count, 0);
	assert_int_equal(result.warning_count, 1);
	assert_non_null(strstr(result.warnings[0], "no instant is lost by it"));
}

static void verify__leaves_strange_objects_of_a_log_alone(void **state)
{
	(void)state;
	assert_ok(storage_put_object(node_vault->storage, "logs/im-01/chat/notes.txt", "x", 1, &err), &err);
	assert_ok(storage_put_object(node_vault->storage, "logs/readme", "x", 1, &err), &err);
	assert_ok(run(w.restore_key, 100, NULL), &err);
	assert_int_equal(result.warning_count, 2);
	assert_int_equal(result.segments, LAST);
}

static void verify__compares_a_snapshots_place_with_the_log(void **state)
{
	(void)state;
	log_of.points[3].hash[0] ^= 1;
	forge_anchor(&log_of, restore_vault, 3, 3, false);
	assert_int_equal(run(w.node_key, 0, NULL), IM_ECORRUPT);
	assert_int_equal(result.damaged_count, 1);
	assert_non_null(strstr(result.damaged[0].object, "snapshots/im-01/00000003-"));
	assert_non_null(strstr(result.damaged[0].problem, "stands at point 3"));
	assert_int_equal(result.damaged[0].snapshot_count, 1);
}

#define LOG_TEST(name) cmocka_unit_test_setup_teardown(name, setup_log, teardown_log)
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
		LOG_TEST(verify__finds_a_sound_log_sound),
		LOG_TEST(verify__says_which_instants_damage_costs),
		LOG_TEST(verify__says_that_a_damaged_coarse_segment_costs_nothing),
		LOG_TEST(verify__says_that_damage_before_any_snapshot_costs_nothing),
		LOG_TEST(verify__notices_a_removed_segment),
		LOG_TEST(verify__says_when_only_coarse_segments_are_left),
		LOG_TEST(verify__notices_segments_removed_before_a_snapshot),
		LOG_TEST(verify__notices_a_removed_end),
		LOG_TEST(verify__notices_a_fork),
		LOG_TEST(verify__notices_a_replaced_segment),
		LOG_TEST(verify__compares_coarse_segments_with_fine_ones),
		LOG_TEST(verify__notices_missing_parts),
		LOG_TEST(verify__says_nothing_of_what_is_on_its_way),
		LOG_TEST(verify__leaves_strange_objects_of_a_log_alone),
		LOG_TEST(verify__compares_a_snapshots_place_with_the_log),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
