/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backup run: what it refuses, in which order it reads, and where in the chain it writes when
 * the vault or the local state is not what it was.
 */
#include "backup/backup.h"

#include "fixture.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "vault/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct fixture f;
static struct im_error err;
static char said[4096]; /* all warnings of the last run */

static void on_warn(void *context, const char *store, const char *text)
{
	(void)context;
	size_t n = strlen(said);
	snprintf(said + n, sizeof said - n, "%s: %s\n", store ? store : "run", text);
}

static const struct backup_events events = { .warn = on_warn };

static void put(const char *name, const char *text)
{
	auto_free char *path = im_path_join(f.dir, name);
	assert_ok(im_file_write(path, text, strlen(text), 0600, IM_FILE_REPLACE, &err), &err);
}

static struct im_config *config_of(const char *state, const char *stores)
{
	char text[1024];
	struct im_config *c = NULL;
	snprintf(text, sizeof text, "[node]\nname = im-01\nstate = %s/%s\n[vault]\nurl = %s\nkey = %s\n%s", f.dir, state, f.vault_dir,
	    f.node_key, stores);
	assert_ok(im_config_parse(text, "test.conf", &c, &err), &err);
	return c;
}

static struct im_config *one_store(const char *state)
{
	char stores[256];
	snprintf(stores, sizeof stores, "[store data]\ntype = files\npath = %s/data\n", f.dir);
	return config_of(state, stores);
}

static int run(struct im_config *c, struct backup_result *ret, const char *key)
{
	const struct backup_request request = { .config = c, .key_path = key, .events = &events };
	im_error_clear(&err);
	said[0] = '\0';
	return backup_run(&request, ret, &err);
}

/* Runs it with this state folder, expecting code; returns the sequence number. */
static uint64_t run_with(const char *state, int code)
{
	struct backup_result r;
	struct im_config *c = one_store(state);
	int rc = run(c, &r, NULL);
	uint64_t seq = r.seq;
	if (rc != code)
		fail_msg("expected %d, got %d: %s", code, rc, err.text);
	backup_result_clear(&r);
	im_config_free(c);
	return seq;
}

static int setup(void **state)
{
	(void)state;
	fixture_start(&f);
	auto_free char *data = im_path_join(f.dir, "data");
	mkdir(data, 0700);
	put("data/a", "one");
	im_error_clear(&err);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_stop(&f);
	return 0;
}

static void backup_run__refuses_a_restore_key(void **state)
{
	(void)state;
	struct backup_result r;
	struct im_config *c = one_store("state");
	assert_int_equal(run(c, &r, f.restore_key), IM_EKEY);
	assert_non_null(strstr(err.text, "node key"));
	assert_null(r.snapshot);
	backup_result_clear(&r);
	im_config_free(c);
}

static void backup_run__checks_the_configuration_first(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "[store a]\ntype = mongodb\npath = /a\n", "[store a]\ntype = files\npath = /a\ncolour = red\n",
		"; \xff\xfe\n[store a]\ntype = files\npath = /a\n" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct backup_result r;
		struct im_config *c = config_of("state", bad[i]);
		assert_int_equal(run(c, &r, NULL), IM_EUSAGE);
		backup_result_clear(&r);
		im_config_free(c);
	}
}

static void backup_run__reads_databases_before_files(void **state)
{
	(void)state;
	struct backup_result r;
	struct im_config *c = config_of("state", "[store f2]\ntype = files\npath = /nowhere/f2\npriority = 2\n"
	    "[store f1]\ntype = files\npath = /nowhere/f1\n[store d3]\ntype = sqlite\npath = /nowhere/d3\npriority = 3\n"
	    "[store d1]\ntype = sqlite\npath = /nowhere/d1\n");
	assert_int_equal(run(c, &r, NULL), IM_EFAIL); /* all are missing: never 0, and not "no such snapshot" */
	assert_int_equal(r.store_count, 4);
	assert_string_equal(r.stores[0].name, "d1");
	assert_string_equal(r.stores[1].name, "d3");
	assert_string_equal(r.stores[2].name, "f1");
	assert_string_equal(r.stores[3].name, "f2");
	assert_null(r.snapshot);
	backup_result_clear(&r);
	im_config_free(c);
}

static void backup_run__one_missing_store_leaves_the_others_safe(void **state)
{
	(void)state;
	struct backup_result r;
	char stores[256];
	snprintf(stores, sizeof stores, "[store data]\ntype = files\npath = %s/data\n[store gone]\ntype = files\npath = /nowhere/g\n", f.dir);
	struct im_config *c = config_of("state", stores);
	assert_int_equal(run(c, &r, NULL), IM_EPARTIAL);
	assert_non_null(r.snapshot);
	assert_string_equal(r.stores[0].status, "ok");
	assert_string_equal(r.stores[1].status, "failed");
	assert_non_null(strstr(said, "gone:"));
	backup_result_clear(&r);
	im_config_free(c);
}

static void backup_run__numbers_rise_and_chain(void **state)
{
	(void)state;
	struct snapshot_list list = { 0 };
	for (uint64_t n = 1; n <= 3; n++)
		assert_int_equal(run_with("state", 0), n);
	assert_ok(snapshot_list(f.restore->storage, "im-01", &list, &err), &err);
	char before[65] = "";
	for (size_t i = 0; i < list.count; i++) {
		struct snapshot *s = NULL;
		assert_ok(snapshot_read(f.restore->storage, f.restore->keyring, &list.items[i], &s, &err), &err);
		const char *prev = json_string_value(json_object_get(s->record.meta, "prev"));
		assert_string_equal(prev ? prev : "", before);
		im_hex(before, s->record.hash, 32);
		snapshot_free(s);
	}
	assert_int_equal(list.count, 3);
	snapshot_list_clear(&list);
}

static void backup_run__a_planted_object_does_not_move_the_chain(void **state)
{
	(void)state;
	assert_int_equal(run_with("state", 0), 1);
	assert_ok(storage_put_object(f.node->storage, "snapshots/im-01/00000099-aaaaaaaaaaaaaaaa", "rubbish", 7, &err), &err);
	assert_int_equal(run_with("state", 0), 2);
	assert_non_null(strstr(said, "stepping over"));
	assert_int_equal(run_with("other", 0), 3); /* nor for a node whose state is lost */
}

static void backup_run__a_second_writer_is_noticed(void **state)
{
	(void)state;
	assert_int_equal(run_with("state", 0), 1);
	assert_int_equal(run_with("clone", 0), 2);
	assert_int_equal(run_with("state", 0), 3);
	assert_non_null(strstr(said, "written elsewhere"));
}

static void backup_run__an_old_copy_of_the_state_goes_on(void **state)
{
	(void)state;
	char command[600];
	assert_int_equal(run_with("state", 0), 1);
	snprintf(command, sizeof command, "cp -a %s/state %s/old", f.dir, f.dir);
	assert_int_equal(system(command), 0);
	put("data/b", "two");
	assert_int_equal(run_with("state", 0), 2);
	put("data/c", "three");
	assert_int_equal(run_with("old", 0), 3);
	assert_non_null(strstr(said, "older copy of the local state"));
}

static void backup_run__a_rolled_back_vault_is_reported_and_healed(void **state)
{
	(void)state;
	char command[900];
	assert_int_equal(run_with("state", 0), 1);
	snprintf(command, sizeof command, "cp -a %s %s/before", f.vault_dir, f.dir);
	assert_int_equal(system(command), 0);
	put("data/b", "two");
	assert_int_equal(run_with("state", 0), 2);
	snprintf(command, sizeof command, "rm -r %s && mv %s/before %s", f.vault_dir, f.dir, f.vault_dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(run_with("state", IM_ECORRUPT), 3); /* number 2 is not used again: the gap is evidence */
	assert_non_null(strstr(said, "rolled back"));
	assert_int_equal(run_with("state", 0), 4);
}

static void backup_run__a_lost_pack_stops_one_run_only(void **state)
{
	(void)state;
	char command[300];
	assert_int_equal(run_with("state", 0), 1);
	snprintf(command, sizeof command, "rm -r %s/packs/*", f.vault_dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(run_with("state", IM_ECORRUPT), 0);
	assert_non_null(strstr(err.text, "no snapshot was written"));
	assert_int_equal(run_with("state", 0), 2);
}

static void backup_run__a_rolled_back_keyring_is_refused(void **state)
{
	(void)state;
	char path[200];
	struct key_file *k = NULL;
	assert_ok(key_file_new(f.restore->id, f.restore->authority, KEY_RESTORE, "second", NULL, &k, &err), &err);
	assert_ok(keyring_add(f.restore->storage, f.restore->keyring, k, &err), &err);
	key_file_free(k);
	assert_int_equal(run_with("state", 0), 1);
	snprintf(path, sizeof path, "%s/keys/00000002", f.vault_dir);
	assert_int_equal(unlink(path), 0);
	struct backup_result r;
	struct im_config *c = one_store("state");
	assert_int_not_equal(run(c, &r, NULL), 0);
	assert_null(r.snapshot);
	backup_result_clear(&r);
	im_config_free(c);
}

static void state_folder__follows_the_configuration(void **state)
{
	(void)state;
	uint8_t id[16] = { 0xab };
	char *folder = NULL;
	struct im_config *c = one_store("mine");
	assert_ok(backup_state_folder(c, id, &folder, &err), &err);
	assert_non_null(strstr(folder, "/mine/ab000000000000000000000000000000"));
	free(folder);
	im_config_free(c);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(backup_run__refuses_a_restore_key),
		T(backup_run__checks_the_configuration_first),
		T(backup_run__reads_databases_before_files),
		T(backup_run__one_missing_store_leaves_the_others_safe),
		T(backup_run__numbers_rise_and_chain),
		T(backup_run__a_planted_object_does_not_move_the_chain),
		T(backup_run__a_second_writer_is_noticed),
		T(backup_run__an_old_copy_of_the_state_goes_on),
		T(backup_run__a_rolled_back_vault_is_reported_and_healed),
		T(backup_run__a_lost_pack_stops_one_run_only),
		T(backup_run__a_rolled_back_keyring_is_refused),
		T(state_folder__follows_the_configuration),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
