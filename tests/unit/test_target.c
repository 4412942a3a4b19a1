/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a restore goes: refusing, moving aside, nesting, leftovers, planted links.
 */
#include "restore/target.h"

#include "base/arriving.h"
#include "base/beneath.h"
#include "base/file.h"
#include "fixture.h"
#include "restore/beneath.h"
#include "restore/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/imvault-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	remove_tree(dir);
	return 0;
}

/* A path below the test's folder; valid until the next but three calls. */
static const char *in(const char *rest)
{
	static char paths[4][512];
	static unsigned next;
	char *p = paths[next++ % 4];
	snprintf(p, sizeof paths[0], "%s/%s", dir, rest);
	return p;
}

static void put(const char *rest, const char *text)
{
	struct im_error err = { 0 };
	auto_buf struct im_buf parent = { 0 };
	im_buf_put(&parent, in(rest), strlen(in(rest)) + 1);
	*strrchr((char *)parent.data, '/') = 0;
	assert_ok(im_mkdirs((char *)parent.data, 0755, &err), &err);
	FILE *f = fopen(in(rest), "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static bool holds_text(const char *rest, const char *text)
{
	auto_buf struct im_buf b = { 0 };
	if (im_file_read(in(rest), 4096, &b, NULL))
		return false;
	return b.len == strlen(text) && memcmp(b.data, text, b.len) == 0;
}

static unsigned count_entries(const char *rest)
{
	DIR *d = opendir(in(rest));
	unsigned n = 0;
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(d);
	return n;
}

static struct target *make(bool overwrite)
{
	struct im_error err = { 0 };
	struct target *t = NULL;
	assert_ok(target_new(in("to"), overwrite, &t, &err), &err);
	return t;
}

static size_t add(struct target *t, const char *path, const char *beside)
{
	struct im_error err = { 0 };
	size_t unit;
	assert_ok(target_add(t, path, &beside, beside ? 1 : 0, &unit, &err), &err);
	return unit;
}

static void stage_file(struct target *t, size_t unit, const char *path, const char *text)
{
	struct im_error err = { 0 };
	char folder[256];
	int fd;
	strcpy(folder, path);
	*strrchr(folder, '/') = 0;
	assert_ok(
	    beneath_folder(target_root_fd(t, unit), folder, false, true, &fd, NULL, &err), &err);
	int file = openat(fd, strrchr(path, '/') + 1, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(file >= 0);
	assert_int_equal(write(file, text, strlen(text)), (ssize_t)strlen(text));
	close(file);
	close(fd);
}

static void publish(struct target *t, int expected)
{
	struct im_error err = { 0 };
	bool wanted[8] = { true, true, true, true, true, true, true, true };
	int rc = target_publish(t, wanted, &err);
	if (rc != expected)
		fail_msg("publish: %d %s", rc, err.text);
	im_error_clear(&err);
	assert_ok(target_end(t, &err), &err);
	target_free(t);
}

static void target_publish__makes_parents_and_leaves_nothing_else(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	struct target *t = make(false);
	size_t unit = add(t, "/var/lib/chat.db", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	stage_file(t, unit, "var/lib/chat.db", "new");
	assert_int_equal(access(in("to/var/lib/chat.db"), F_OK), -1);
	publish(t, 0);
	assert_true(holds_text("to/var/lib/chat.db", "new"));
	assert_int_equal(count_entries("to/var/lib"), 1);
}

static void target_check__refuses_what_is_there(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("to/var/lib/chat.db", "old");
	struct target *t = make(false);
	add(t, "/var/lib/chat.db", NULL);
	assert_int_equal(target_check(t, &err), IM_EUSAGE);
	assert_non_null(strstr(err.text, "--overwrite"));
	target_free(t);
	assert_true(holds_text("to/var/lib/chat.db", "old"));
}

static void take_path(void *context, size_t unit, const char *path)
{
	char *all = context;
	assert_int_equal(unit, 0);
	strcat(strcat(all, path + strlen(in("to"))), " ");
}

static void target_each_obstacle__names_all_and_moves_none(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	char all[1000] = "";
	put("to/var/lib/chat.db", "old");
	put("to/var/lib/chat.db-wal", "old");
	struct target *t = make(true);
	add(t, "/var/lib/chat.db", "/var/lib/chat.db-wal");
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_each_obstacle(t, take_path, all, &err), &err);
	assert_string_equal(all, "/var/lib/chat.db /var/lib/chat.db-wal ");
	target_free(t);
	assert_true(holds_text("to/var/lib/chat.db", "old"));
}

static void target_check__refuses_a_stale_wal_alone(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("to/var/lib/chat.db-wal", "old");
	struct target *t = make(false);
	add(t, "/var/lib/chat.db", "/var/lib/chat.db-wal");
	assert_int_equal(target_check(t, &err), IM_EUSAGE);
	target_free(t);
}

static void target_check__accepts_empty_files_and_folders(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("to/var/lib/chat.db", "");
	assert_int_equal(mkdir(in("to/var/tree"), 0755), 0);
	struct target *t = make(false);
	size_t db = add(t, "/var/lib/chat.db", NULL), tree = add(t, "/var/tree", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	stage_file(t, db, "var/lib/chat.db", "new");
	stage_file(t, tree, "var/tree/a", "x");
	publish(t, 0);
	assert_true(holds_text("to/var/lib/chat.db", "new"));
	assert_true(holds_text("to/var/tree/a", "x"));
}

static void target_publish__moves_the_old_aside(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("to/var/lib/chat.db", "old");
	put("to/var/lib/chat.db-wal", "oldwal");
	struct target *t = make(true);
	size_t unit = add(t, "/var/lib/chat.db", "/var/lib/chat.db-wal");
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	stage_file(t, unit, "var/lib/chat.db", "new");
	bool wanted[1] = { true };
	assert_ok(target_publish(t, wanted, &err), &err);
	const char *aside = target_moved_aside(t, unit);
	assert_non_null(aside);
	auto_buf struct im_buf b = { 0 };
	assert_ok(im_file_read(aside, 100, &b, &err), &err);
	assert_memory_equal(b.data, "old", 3);
	assert_int_equal(access(in("to/var/lib/chat.db-wal"), F_OK), -1);
	assert_true(holds_text("to/var/lib/chat.db", "new"));
	assert_ok(target_end(t, &err), &err);
	target_free(t);
	assert_int_equal(count_entries("to/var/lib"), 3);
}

static void target_publish__never_replaces_what_came_meanwhile(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	struct target *t = make(false);
	size_t unit = add(t, "/var/lib/chat.db", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	stage_file(t, unit, "var/lib/chat.db", "new");
	put("to/var/lib/chat.db", "somebody's");
	publish(t, IM_EUSAGE);
	assert_true(holds_text("to/var/lib/chat.db", "somebody's"));
}

static void target_publish__keeps_a_damaged_file_apart(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("to/var/lib/chat.db", "old");
	struct target *t = make(true);
	size_t unit = add(t, "/var/lib/chat.db", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	stage_file(t, unit, "var/lib/chat.db.imvault-damaged", "half");
	publish(t, 0);
	assert_true(holds_text("to/var/lib/chat.db", "old"));
	assert_true(holds_text("to/var/lib/chat.db.imvault-damaged", "half"));
}

static void nested_units__are_published_together(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	struct target *t = make(false);
	size_t db = add(t, "/srv/data/chat.db", NULL), data = add(t, "/srv/data", NULL),
	       up = add(t, "/srv/data/up", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	assert_int_equal(target_root_fd(t, db), target_root_fd(t, data));
	assert_true(target_is_covered(t, data, "srv/data/up/x"));
	assert_true(target_is_covered(t, data, "srv/data/chat.db"));
	assert_false(target_is_covered(t, data, "srv/data/chat.db2"));
	assert_false(target_is_covered(t, up, "srv/data/up/x"));
	stage_file(t, data, "srv/data/conf", "c");
	stage_file(t, db, "srv/data/chat.db", "d");
	stage_file(t, up, "srv/data/up/x", "u");
	publish(t, 0);
	assert_true(holds_text("to/srv/data/conf", "c"));
	assert_true(holds_text("to/srv/data/chat.db", "d"));
	assert_true(holds_text("to/srv/data/up/x", "u"));
	assert_int_equal(count_entries("to/srv"), 1);
}

static void nested_units__come_alone_when_the_outer_failed(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	struct target *t = make(false);
	size_t data = add(t, "/srv/data", NULL), db = add(t, "/srv/data/chat.db", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	stage_file(t, data, "srv/data/half", "h");
	stage_file(t, db, "srv/data/chat.db", "d");
	bool wanted[2] = { false, true };
	assert_ok(target_publish(t, wanted, &err), &err);
	assert_false(target_is_published(t, data));
	assert_true(target_is_published(t, db));
	assert_ok(target_end(t, &err), &err);
	target_free(t);
	assert_true(holds_text("to/srv/data/chat.db", "d"));
	assert_int_equal(count_entries("to/srv/data"), 1);
}

static void target_begin__empties_what_a_dead_run_left(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	for (int round = 0; round < 2; round++) {
		struct target *t = make(false);
		size_t unit = add(t, "/srv/chat.db", NULL);
		assert_ok(target_check(t, &err), &err);
		assert_ok(target_begin(t, &err), &err);
		assert_int_equal(faccessat(target_root_fd(t, unit), "srv", F_OK, 0), -1);
		stage_file(t, unit, "srv/chat.db", "half");
		target_free(t); /* without target_end: as after a kill */
		assert_int_equal(access(in("to/srv/.chat.db.imvault-partial"), F_OK), 0);
		assert_int_equal(access(in("to/srv/chat.db"), F_OK), -1);
	}
}

static void target_begin__refuses_a_folder_that_is_not_ours(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("to/srv/.chat.db.imvault-partial/precious", "x");
	struct target *t = make(false);
	add(t, "/srv/chat.db", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_int_equal(target_begin(t, &err), IM_EUSAGE);
	target_free(t);
	assert_true(holds_text("to/srv/.chat.db.imvault-partial/precious", "x"));
}

static void target_begin__says_when_another_restore_works_there(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	struct target *a = make(false), *b = make(false);
	add(a, "/srv/chat.db", NULL);
	add(b, "/srv/chat.db", NULL);
	assert_ok(target_check(a, &err), &err);
	assert_ok(target_begin(a, &err), &err);
	assert_ok(target_check(b, &err), &err);
	assert_int_equal(target_begin(b, &err), IM_ELOCKED);
	im_error_clear(&err);
	target_free(b);
	assert_ok(target_end(a, &err), &err);
	target_free(a);
}

static void target_begin__does_not_follow_a_planted_stage(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("outside/precious", "x");
	assert_ok(im_mkdirs(in("to/srv"), 0755, &err), &err);
	assert_int_equal(symlink(in("outside"), in("to/srv/.chat.db.imvault-partial")), 0);
	struct target *t = make(false);
	add(t, "/srv/chat.db", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_int_not_equal(target_begin(t, &err), 0);
	target_free(t);
	assert_true(holds_text("outside/precious", "x"));
	assert_int_equal(count_entries("outside"), 1);
}

static void target_begin__does_not_follow_a_planted_parent(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("outside/precious", "x");
	assert_ok(im_mkdirs(in("to"), 0755, &err), &err);
	assert_int_equal(symlink(in("outside"), in("to/srv")), 0);
	struct target *t = make(true);
	add(t, "/srv/chat.db", NULL);
	assert_int_equal(target_check(t, &err), IM_EUSAGE);
	im_error_clear(&err);
	assert_int_equal(target_begin(t, &err), IM_EUSAGE);
	target_free(t);
	assert_int_equal(count_entries("outside"), 1);
}

static void target_publish__does_not_follow_a_parent_swapped_meanwhile(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("outside/precious", "x");
	struct target *t = make(false);
	size_t data = add(t, "/srv/data", NULL);
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	stage_file(t, data, "srv/data/a", "a");
	assert_int_equal(rename(in("to/srv"), in("to/srv2")), 0);
	assert_int_equal(symlink(in("outside"), in("to/srv")), 0);
	publish(t, IM_EUSAGE);
	assert_int_equal(count_entries("outside"), 1);
}

static void target_add__refuses_paths_that_are_not_plain(void **state)
{
	(void)state;
	static const char *const bad[] = { "relative", "", "/../etc/passwd", "/a/../b", "/a//b",
		"/a/./b", "/a/" };
	struct target *t = make(false);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct im_error err = { 0 };
		size_t unit;
		assert_int_equal(target_add(t, bad[i], NULL, 0, &unit, &err), IM_ECORRUPT);
	}
	target_free(t);
}

static void stage_name__fits_and_stays_distinct(void **state)
{
	(void)state;
	char a[256], b[256], name[256];
	memset(name, 'x', 255);
	name[255] = 0;
	im_stage_name(a, name, TARGET_PARTIAL_SUFFIX);
	name[254] = 'y';
	im_stage_name(b, name, TARGET_PARTIAL_SUFFIX);
	assert_in_range(strlen(a), 1, 255);
	assert_string_not_equal(a, b);
	assert_string_equal(im_stage_name(a, "chat.db", TARGET_PARTIAL_SUFFIX), ".chat.db.imvault-partial");
	target_damaged_name(a, name);
	assert_int_equal(strlen(a), 255);
}

static void im_beneath_path_valid__knows_plain_paths(void **state)
{
	(void)state;
	assert_true(im_beneath_path_valid("a/b c/…"));
	assert_true(im_beneath_path_valid("..a/b.."));
	static const char *const bad[] = { "", "/a", "a/", "a//b", ".", "..", "a/..", "../a",
		"a/./b" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(im_beneath_path_valid(bad[i]));
}

static void beneath_remove__removes_links_not_their_targets(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	put("outside/precious", "x");
	put("tree/sub/a", "a");
	assert_int_equal(symlink(in("outside"), in("tree/sub/link")), 0);
	assert_int_equal(chmod(in("tree/sub"), 0), 0);
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_ok(beneath_remove(fd, "tree", NULL, &err), &err);
	assert_ok(beneath_remove(fd, "tree", NULL, &err), &err);
	close(fd);
	assert_int_equal(access(in("tree"), F_OK), -1);
	assert_true(holds_text("outside/precious", "x"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(target_publish__makes_parents_and_leaves_nothing_else),
		TEST(target_check__refuses_what_is_there),
		TEST(target_check__refuses_a_stale_wal_alone),
		TEST(target_each_obstacle__names_all_and_moves_none),
		TEST(target_check__accepts_empty_files_and_folders),
		TEST(target_publish__moves_the_old_aside),
		TEST(target_publish__never_replaces_what_came_meanwhile),
		TEST(target_publish__keeps_a_damaged_file_apart),
		TEST(nested_units__are_published_together),
		TEST(nested_units__come_alone_when_the_outer_failed),
		TEST(target_begin__empties_what_a_dead_run_left),
		TEST(target_begin__refuses_a_folder_that_is_not_ours),
		TEST(target_begin__says_when_another_restore_works_there),
		TEST(target_begin__does_not_follow_a_planted_stage),
		TEST(target_begin__does_not_follow_a_planted_parent),
		TEST(target_publish__does_not_follow_a_parent_swapped_meanwhile),
		TEST(target_add__refuses_paths_that_are_not_plain),
		TEST(stage_name__fits_and_stays_distinct),
		TEST(im_beneath_path_valid__knows_plain_paths),
		TEST(beneath_remove__removes_links_not_their_targets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
