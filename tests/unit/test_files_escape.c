/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restores that try to leave their target: hostile names, links, and things planted while the
 * restore runs. Nothing outside may change, whatever happens inside.
 */
#include "files_forge.h"
#include "files_rig.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

static char outside[128];

static void make_outside(struct files_rig *r)
{
	snprintf(outside, sizeof outside, "%s/outside", r->f.dir);
	assert_int_equal(mkdir(outside, 0751), 0);
	auto_free char *secret = im_format("%s/secret", outside);
	assert_int_equal(im_file_write(secret, "secret", 6, 0640, IM_FILE_NEW, NULL), 0);
	auto_free char *folder = im_format("%s/d", outside);
	assert_int_equal(mkdir(folder, 0711), 0);
}

/* Restores what was forged; outside must be as before. Returns the code. */
static int restore_forged(struct files_rig *r, struct forge *f, void (*between)(void *context, int root_fd))
{
	struct im_error err = { 0 };
	auto_buf struct im_buf bytes = { 0 };
	forge_end(f, &bytes);
	files_rig_forge(r, bytes.data, bytes.len);
	auto_free char *before = files_rig_describe(outside);
	int rc = files_rig_restore_with(r, NULL, NULL, between, r, &err);
	auto_free char *after = files_rig_describe(outside);
	assert_string_equal(before, after);
	return rc;
}

static void begin(struct files_rig *r, struct forge *f)
{
	make_outside(r);
	forge_begin(f);
	forge_add(f, AE_IFDIR, ".", NULL, NULL, NULL, 0);
}

static void restore__refuses_names_that_lead_out(void **state)
{
	struct files_rig *r = *state;
	static const char *const names[] = { "../../outside/x", "..", "/tmp/imvault-escape", "a/../../x" };
	make_outside(r);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct forge f;
		forge_begin(&f);
		forge_add(&f, AE_IFDIR, ".", NULL, NULL, NULL, 0);
		forge_add(&f, AE_IFDIR, names[i], NULL, NULL, NULL, 0);
		restore_forged(r, &f, NULL);
		assert_string_not_equal(r->damage, "");
	}
	assert_int_not_equal(access("/tmp/imvault-escape", F_OK), 0);
}

static void restore__never_goes_through_its_own_symlinks(void **state)
{
	struct files_rig *r = *state;
	struct forge f;
	begin(r, &f);
	forge_add(&f, AE_IFLNK, "hop", "..", NULL, NULL, 0);
	forge_add(&f, AE_IFLNK, "link", outside, NULL, NULL, 0);
	forge_add(&f, AE_IFIFO, "link/fifo", NULL, NULL, NULL, 0);
	forge_add(&f, AE_IFLNK, "link/sym", "x", NULL, NULL, 0);
	forge_add(&f, AE_IFREG, "link/hard", NULL, "link/secret", NULL, 0);
	forge_add(&f, AE_IFREG, "stolen", NULL, "link/secret", NULL, 0);
	forge_add(&f, AE_IFREG, "stolen2", NULL, "hop/hop/outside/secret", NULL, 0);
	assert_int_equal(restore_forged(r, &f, NULL), 0);
	assert_non_null(strstr(r->damage, "link/fifo"));
	assert_non_null(strstr(r->damage, "stolen2"));
	auto_free char *stolen = im_format("%s%s/stolen", r->target, r->source);
	assert_int_not_equal(access(stolen, F_OK), 0);
}

static void restore__keeps_a_folder_where_a_symlink_wants_its_name(void **state)
{
	struct files_rig *r = *state;
	struct forge f;
	begin(r, &f);
	forge_add(&f, AE_IFDIR, "a", NULL, NULL, NULL, 0);
	forge_file(&f, "a/x", 0, 0, 0, 0, 0);
	forge_add(&f, AE_IFLNK, "a", outside, NULL, NULL, 0);
	forge_add(&f, AE_IFIFO, "a/d", NULL, NULL, NULL, 0);
	assert_int_equal(restore_forged(r, &f, NULL), 0);
	assert_non_null(strstr(r->damage, "symbolic link"));
}

/* Replaces the restored folder "d" by a link to the folder outside. */
static void plant_folder(void *context, int root_fd)
{
	struct files_rig *r = context;
	(void)root_fd;
	auto_free char *folder = im_format("%s%s/d", r->target, r->source);
	assert_int_equal(rmdir(folder), 0);
	assert_int_equal(symlink(outside, folder), 0);
}

static void restore__does_not_follow_a_folder_swapped_for_a_link(void **state)
{
	struct files_rig *r = *state;
	struct forge f;
	begin(r, &f);
	forge_add(&f, AE_IFDIR, "d", NULL, NULL, NULL, 0);
	forge_add(&f, AE_IFIFO, "d/fifo", NULL, NULL, NULL, 0);
	forge_add(&f, AE_IFREG, "d/hard", NULL, "d/secret", NULL, 0);
	assert_int_equal(restore_forged(r, &f, plant_folder), 0);
	assert_non_null(strstr(r->damage, "/d: cannot set its metadata"));
	assert_non_null(strstr(r->damage, "d/fifo"));
}

/* Replaces the restored file "f" by a link to the secret. */
static void plant_file(void *context, int root_fd)
{
	struct files_rig *r = context;
	(void)root_fd;
	auto_free char *file = im_format("%s%s/f", r->target, r->source);
	auto_free char *secret = im_format("%s/secret", outside);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(symlink(secret, file), 0);
}

static void restore__does_not_follow_a_file_swapped_for_a_link(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	make_outside(r);
	files_rig_write(r, "f", "x", 1);
	assert_int_equal(setxattr(files_rig_path(r, "f"), "user.a", "b", 1, 0), 0);
	assert_ok(files_rig_snapshot(r, false, &err), &err);
	auto_free char *before = files_rig_describe(outside);
	assert_ok(files_rig_restore_with(r, NULL, NULL, plant_file, r, &err), &err);
	auto_free char *after = files_rig_describe(outside);
	assert_string_equal(before, after);
	assert_non_null(strstr(r->damage, "/f: cannot set its metadata"));
}

static void restore__makes_hard_links_to_links_not_to_their_targets(void **state)
{
	struct files_rig *r = *state;
	struct forge f;
	begin(r, &f);
	auto_free char *secret = im_format("%s/secret", outside);
	forge_add(&f, AE_IFLNK, "sym", secret, NULL, NULL, 0);
	forge_add(&f, AE_IFREG, "hard", NULL, "sym", NULL, 0);
	assert_int_equal(restore_forged(r, &f, NULL), 0);
	struct stat st;
	auto_free char *hard = im_format("%s%s/hard", r->target, r->source);
	assert_int_equal(lstat(hard, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
}

static void restore__refuses_a_manifest_path_that_leads_out(void **state)
{
	struct files_rig *r = *state;
	static const char *const paths[] = { "relative", "/a/../b", "//", "/a//b", "/a/", "/." };
	struct forge f;
	struct im_error err = { 0 };
	auto_buf struct im_buf bytes = { 0 };
	forge_begin(&f);
	forge_add(&f, AE_IFDIR, ".", NULL, NULL, NULL, 0);
	forge_end(&f, &bytes);
	files_rig_forge(r, bytes.data, bytes.len);
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		json_object_set_new(r->result.manifest, "path", json_string(paths[i]));
		im_error_clear(&err);
		assert_int_equal(files_rig_restore(r, NULL, NULL, &err), IM_ECORRUPT);
	}
	json_object_set_new(r->result.manifest, "path", json_string(r->source));
	json_object_set_new(r->result.manifest, "segments", json_string("AAAA"));
	im_error_clear(&err);
	assert_int_equal(files_rig_restore(r, NULL, NULL, &err), IM_ECORRUPT);
}

static void restore__goes_on_after_a_damaged_segment(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	for (int i = 0; i < 3000; i++) {
		char name[64];
		snprintf(name, sizeof name, "f%04d", i);
		files_rig_write(r, name, "x", 1);
	}
	assert_ok(files_rig_snapshot(r, false, &err), &err);
	auto_buf struct im_buf refs = { 0 };
	assert_true(im_unbase64(&refs, json_string_value(json_object_get(r->result.manifest, "segments"))));
	assert_true(refs.len >= 2 * REF_BYTES);
	refs.data[REF_BYTES + 12]++; /* the second one's slot */
	auto_free char *text = im_base64(refs.data, refs.len);
	json_object_set_new(r->result.manifest, "segments", json_string(text));
	char root[512];
	assert_ok(files_rig_restore(r, NULL, root, &err), &err);
	assert_non_null(strstr(r->damage, "cannot be listed"));
	auto_free char *first = im_format("%s/f0000", root);
	assert_int_equal(access(first, F_OK), 0);
}

#define RIG(name) cmocka_unit_test_setup_teardown(name, files_rig_setup, files_rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG(restore__refuses_names_that_lead_out),
		RIG(restore__never_goes_through_its_own_symlinks),
		RIG(restore__keeps_a_folder_where_a_symlink_wants_its_name),
		RIG(restore__does_not_follow_a_folder_swapped_for_a_link),
		RIG(restore__does_not_follow_a_file_swapped_for_a_link),
		RIG(restore__makes_hard_links_to_links_not_to_their_targets),
		RIG(restore__refuses_a_manifest_path_that_leads_out),
		RIG(restore__goes_on_after_a_damaged_segment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
