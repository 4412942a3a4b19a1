/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exhaustive damage of a small vault: bits flipped, objects cut, removed, swapped, rolled back.
 * Each case must be detected by verify, or be harmless: then everything restores equal. A damaged
 * object never makes what does not depend on it unrestorable. IMVAULT_DAMAGE_STRIDE sets how many
 * cases are skipped between two that are tried (1: all; default 97).
 */
#include "world.h"

#include "base/file.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_OBJECTS 128

struct object {
	char path[256], kind[16]; /* kind: first folder, or "vault.json" */
	struct im_buf content;
};

static struct world world;
static struct object objects[MAX_OBJECTS];
static size_t object_count;
static uint64_t digest_first, digest_latest;
static size_t stride;

static int take_object(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	struct im_error err = { 0 };
	(void)walk;
	if (type != FTW_F || strstr(path, "/.tmp-"))
		return 0;
	assert_true(object_count < MAX_OBJECTS);
	struct object *o = &objects[object_count++];
	snprintf(o->path, sizeof o->path, "%s", path);
	sscanf(path + strlen(world.vault) + 1, "%15[^/]", o->kind);
	(void)st;
	assert_ok(im_file_read(path, 1 << 24, &o->content, &err), &err);
	return 0;
}

static int start(void **state)
{
	struct im_error err = { 0 };
	(void)state;
	const char *text = getenv("IMVAULT_DAMAGE_STRIDE");
	stride = text ? strtoul(text, NULL, 10) : 97;
	world_start(&world);
	for (unsigned i = 0; i < 3; i++) {
		world_change(&world, i + 1);
		assert_ok(world_backup(&world, &err), &err);
		if (i == 0)
			digest_first = world_digest(&world, "");
	}
	digest_latest = world_digest(&world, "");
	nftw(world.vault, take_object, 8, FTW_PHYS);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	for (size_t i = 0; i < object_count; i++)
		im_buf_free(&objects[i].content);
	world_stop(&world);
	return 0;
}

static void store(const struct object *o, const void *data, size_t len)
{
	FILE *f = fopen(o->path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static void put_back(const struct object *o)
{
	store(o, o->content.data, o->content.len);
}

static bool restores_equal(const char *at, uint64_t expected)
{
	struct im_error err = { 0 };
	char to[96];
	snprintf(to, sizeof to, "%s/out", world.dir);
	int rc = world_restore(&world, at, to, &err);
	bool equal = rc == 0 && world_digest(&world, to) == expected;
	remove_tree(to);
	return equal;
}

/* The damage must show in verify, or harm nothing. */
static void judge(const struct object *o, const char *what, size_t at)
{
	struct im_error err = { 0 };
	int rc = world_verify(&world, &err);
	if (rc == 0 && !(restores_equal("latest", digest_latest) && restores_equal("1", digest_first)))
		fail_msg("%s of %s at %zu was not noticed and is not harmless", what, o->path, at);
	if (rc && (rc == IM_EFAIL || rc == IM_ENOMEM))
		fail_msg("%s of %s at %zu ended as \"%s\"", what, o->path, at, err.text);
}

static void flipping_any_bit__is_detected_or_harmless(void **state)
{
	(void)state;
	size_t next = 0, seen = 0, tried = 0;
	for (size_t i = 0; i < object_count; i++) {
		struct object *o = &objects[i];
		for (size_t bit = 0; bit < 8 * o->content.len; bit++, seen++) {
			if (seen < next)
				continue;
			next = seen + stride;
			o->content.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
			store(o, o->content.data, o->content.len);
			judge(o, "flipping a bit", bit);
			o->content.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
			tried++;
		}
		put_back(o);
	}
	print_message("%zu of %zu bits flipped\n", tried, seen);
}

static void cutting_any_object__is_detected_or_harmless(void **state)
{
	(void)state;
	size_t next = 0, seen = 0, tried = 0;
	for (size_t i = 0; i < object_count; i++) {
		for (size_t len = 0; len < objects[i].content.len; len++, seen++) {
			if (seen < next)
				continue;
			next = seen + stride / 8 + 1;
			store(&objects[i], objects[i].content.data, len);
			judge(&objects[i], "cutting", len);
			tried++;
		}
		put_back(&objects[i]);
	}
	print_message("%zu of %zu lengths tried\n", tried, seen);
}

static bool is_newest_snapshot(const struct object *o)
{
	return strstr(o->path, "/snapshots/im-01/00000003-") != NULL;
}

static void removing_any_object__is_detected_or_harmless(void **state)
{
	(void)state;
	for (size_t i = 0; i < object_count; i++) {
		assert_int_equal(unlink(objects[i].path), 0);
		if (!is_newest_snapshot(&objects[i])) /* the end of the chain is the node's to remember: below */
			judge(&objects[i], "removing", 0);
		put_back(&objects[i]);
	}
}

static void swapping_any_two_of_a_kind__is_detected(void **state)
{
	(void)state;
	for (size_t i = 0; i < object_count; i++)
		for (size_t k = i + 1; k < object_count; k++) {
			struct im_error err = { 0 };
			if (strcmp(objects[i].kind, objects[k].kind) != 0)
				continue;
			store(&objects[i], objects[k].content.data, objects[k].content.len);
			store(&objects[k], objects[i].content.data, objects[i].content.len);
			if (world_verify(&world, &err) == 0)
				fail_msg("swapping %s and %s was not noticed", objects[i].path, objects[k].path);
			put_back(&objects[i]);
			put_back(&objects[k]);
		}
}

static void losing_one_snapshot__leaves_the_others(void **state)
{
	(void)state;
	for (size_t i = 0; i < object_count; i++) {
		if (!strstr(objects[i].path, "/snapshots/"))
			continue;
		unlink(objects[i].path);
		if (!strstr(objects[i].path, "/00000001-"))
			assert_true(restores_equal("1", digest_first));
		if (!is_newest_snapshot(&objects[i]))
			assert_true(restores_equal("latest", digest_latest));
		put_back(&objects[i]);
	}
}

static void losing_the_index__harms_no_restore(void **state)
{
	(void)state;
	for (size_t i = 0; i < object_count; i++)
		if (strcmp(objects[i].kind, "index") == 0)
			store(&objects[i], "rubbish", 7);
	assert_true(restores_equal("latest", digest_latest));
	assert_true(restores_equal("1", digest_first));
	for (size_t i = 0; i < object_count; i++)
		put_back(&objects[i]);
}

static void rolling_the_vault_back__is_noticed_by_the_node(void **state)
{
	struct im_error err = { 0 };
	(void)state;
	for (size_t i = 0; i < object_count; i++)
		if (is_newest_snapshot(&objects[i]))
			unlink(objects[i].path);
	assert_int_equal(world_backup(&world, &err), IM_ECORRUPT);
	assert_true(restores_equal("latest", digest_latest)); /* the new snapshot is there all the same */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flipping_any_bit__is_detected_or_harmless),
		cmocka_unit_test(cutting_any_object__is_detected_or_harmless),
		cmocka_unit_test(removing_any_object__is_detected_or_harmless),
		cmocka_unit_test(swapping_any_two_of_a_kind__is_detected),
		cmocka_unit_test(losing_one_snapshot__leaves_the_others),
		cmocka_unit_test(losing_the_index__harms_no_restore),
		cmocka_unit_test(rolling_the_vault_back__is_noticed_by_the_node), /* last: it changes the vault */
	};
	return cmocka_run_group_tests(tests, start, stop);
}
