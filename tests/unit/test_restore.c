/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring a small real world: both stores, choosing, damage, interruption, the service, verdicts.
 */
#include "../fault/world.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
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
#include <ftw.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct world w;
static char to[128];
static struct vault *vault;
static struct restore_result result;
static struct im_error err;

static int setup(void **state)
{
	(void)state;
	err = (struct im_error){ 0 };
	world_start(&w);
	assert_ok(world_backup(&w, &err), &err);
	assert_ok(vault_open(w.vault, w.restore_key, NULL, NULL, 0, &vault, &err), &err);
	snprintf(to, sizeof to, "%s/to", w.dir);
	result = (struct restore_result){ 0 };
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	restore_result_clear(&result);
	vault_close(vault);
	world_stop(&w);
	return 0;
}

static struct restore_request request(void)
{
	return (struct restore_request){ .vault = vault, .node = "im-01", .to = to };
}

static int run(const struct restore_request *q)
{
	restore_result_clear(&result);
	im_error_clear(&err);
	return restore_run(q, &result, &err);
}

static unsigned partials;

static int count_partial(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st, (void)type;
	partials += strstr(path + walk->base, ".imvault-partial") != NULL;
	return 0;
}

static unsigned count_partials(const char *root)
{
	partials = 0;
	nftw(root, count_partial, 8, FTW_PHYS);
	return partials;
}

static bool exists(const char *root, const char *path)
{
	char full[512];
	snprintf(full, sizeof full, "%s%s", root, path);
	return access(full, F_OK) == 0;
}

static const struct restore_store *row(const char *name)
{
	for (size_t i = 0; i < result.store_count; i++)
		if (strcmp(result.stores[i].name, name) == 0)
			return &result.stores[i];
	fail_msg("no row for store %s", name);
	return NULL;
}

static void restore__brings_everything_back(void **state)
{
	(void)state;
	struct restore_request q = request();
	assert_ok(run(&q), &err);
	assert_int_equal(world_digest(&w, to), world_digest(&w, ""));
	assert_int_equal(count_partials(to), 0);
	assert_string_equal(result.node, "im-01");
	assert_int_equal(result.seq, 1);
	assert_true(result.service_ready_ms >= 0 && result.data_complete_ms >= 0);
	assert_int_equal(result.rto_ms, im_tier_rto_ms("im"));
	assert_true(result.rto_met);
	assert_int_equal(result.store_count, 2);
	assert_string_equal(row("chat")->status, "ok");
	assert_non_null(row("chat")->text);
	assert_int_equal(result.exec_status, -1);
	assert_true(result.bytes_read > 0 && result.bytes_written > 0 && result.phase_count >= 6);
}

static void restore__takes_the_snapshot_asked_for(void **state)
{
	(void)state;
	uint64_t first = world_digest(&w, "");
	world_change(&w, 1);
	assert_ok(world_backup(&w, &err), &err);
	struct restore_request q = request();
	q.at = "1";
	assert_ok(run(&q), &err);
	assert_int_equal(world_digest(&w, to), first);
	q.at = "9";
	q.overwrite = true;
	assert_int_equal(run(&q), IM_ENOTFOUND);
	assert_int_equal(world_digest(&w, to), first);
}

static void restore__refuses_a_target_in_use_and_touches_nothing(void **state)
{
	(void)state;
	struct restore_request q = request();
	assert_ok(run(&q), &err);
	uint64_t before = world_digest(&w, to);
	assert_int_equal(run(&q), IM_EUSAGE);
	assert_int_equal(world_digest(&w, to), before);
	assert_int_equal(count_partials(to), 0);
}

static void restore__in_place_moves_the_old_aside(void **state)
{
	(void)state;
	uint64_t first = world_digest(&w, "");
	world_change(&w, 1);
	struct restore_request q = request();
	q.to = NULL;
	q.overwrite = true;
	assert_ok(run(&q), &err);
	assert_int_equal(world_digest(&w, ""), first);
	assert_int_equal(access(row("chat")->moved_aside, F_OK), 0);
	assert_int_equal(access(row("uploads")->moved_aside, F_OK), 0);
}

static void restore__one_store_or_one_path(void **state)
{
	(void)state;
	const char *const stores[] = { "chat", NULL };
	char path[256];
	struct restore_request q = request();
	q.stores = stores;
	assert_ok(run(&q), &err);
	assert_true(exists(to, w.database));
	assert_false(exists(to, w.tree));
	snprintf(path, sizeof path, "%s/file-0", w.tree);
	q.stores = NULL;
	q.path = path;
	assert_ok(run(&q), &err);
	assert_true(exists(to, path));
	snprintf(path, sizeof path, "%s/changing", w.tree);
	assert_false(exists(to, path));
	assert_ok(run(&q), &err); /* a second file into the same folder */
	assert_true(exists(to, path));
	assert_int_equal(count_partials(to), 0);
}

static void restore__says_what_it_does_not_know(void **state)
{
	(void)state;
	const char *const stores[] = { "chatt", NULL };
	char path[256];
	struct restore_request q = request();
	q.stores = stores;
	assert_int_equal(run(&q), IM_EUSAGE);
	q.stores = NULL;
	q.path = "/nowhere";
	assert_int_equal(run(&q), IM_ENOTFOUND);
	snprintf(path, sizeof path, "%s/never-there", w.tree);
	q.path = path;
	assert_int_equal(run(&q), IM_ENOTFOUND);
	q.path = NULL;
	q.node = "im-02";
	assert_int_equal(run(&q), IM_ENOTFOUND);
	assert_false(exists(to, w.database));
	assert_false(exists(to, w.tree));
}

static void restore__dry_run_writes_nothing(void **state)
{
	(void)state;
	struct restore_request q = request();
	q.dry_run = true;
	q.exec_command = "exit 1";
	assert_ok(run(&q), &err);
	assert_int_equal(access(to, F_OK), -1);
	assert_true(result.bytes_to_read > 0 && result.bytes_to_write > 0 && result.packs > 0 &&
	    result.files == 3);
	assert_string_equal(row("chat")->status, "planned");
	assert_true(row("chat")->bytes_free > 0);
}

static void restore__takes_a_failed_store_from_an_older_snapshot(void **state)
{
	(void)state;
	char hidden[192];
	uint64_t first = world_digest(&w, "");
	snprintf(hidden, sizeof hidden, "%s.hidden", w.database);
	assert_int_equal(rename(w.database, hidden), 0);
	assert_int_equal(world_backup(&w, &err), IM_EPARTIAL);
	assert_int_equal(rename(hidden, w.database), 0);
	struct restore_request q = request();
	assert_int_equal(run(&q), IM_EPARTIAL);
	assert_string_equal(row("chat")->status, "older");
	assert_true(result.warning_count > 0);
	assert_int_equal(world_digest(&w, to), first);
	q.at = "2"; /* by number: exactly that, without what it lacks */
	q.overwrite = true;
	assert_int_equal(run(&q), IM_EPARTIAL);
	assert_string_equal(row("chat")->status, "failed");
}

static bool needs(const struct snapshot *s, const char *store, uint32_t number)
{
	auto_buf struct im_buf numbers = { 0 };
	assert_true(im_unbase64(
	    &numbers, json_string_value(json_object_get(snapshot_store_meta(s, store), "packs"))));
	for (size_t i = 0; i < numbers.len / 4; i++)
		if (im_le32(numbers.data + 4 * i) == number)
			return true;
	return false;
}

/* Harms the packs that only the database needs. */
static unsigned harm_packs(const struct snapshot *s, bool removed)
{
	unsigned n = 0;
	for (size_t i = 0; i < s->pack_count; i++) {
		char object[80], path[256];
		if (!needs(s, "chat", s->packs[i].number) ||
		    needs(s, "uploads", s->packs[i].number))
			continue;
		snprintf(path, sizeof path, "%s/%s", w.vault,
		    fetch_pack_object(object, s->packs[i].name));
		assert_int_equal(removed ? unlink(path) : truncate(path, 200), 0);
		n++;
	}
	return n;
}

static void damage_stays_where_it_is(bool removed)
{
	char sentinel[256], command[300];
	struct snapshot *s = NULL;
	const char *const chat[] = { "chat", NULL }, *const uploads[] = { "uploads", NULL };
	struct backup_result backup = { 0 };
	struct backup_request only_chat = { .config = w.config, .stores = chat };
	world_change(&w, 1);
	int rc = backup_run(&only_chat, &backup, &err);
	backup_result_clear(&backup);
	assert_ok(rc, &err);
	assert_ok(
	    snapshot_choose(vault->storage, vault->keyring, "im-01", "2", NULL, NULL, &s, &err),
	    &err);
	assert_true(harm_packs(s, removed) > 0);
	snapshot_free(s);
	snprintf(sentinel, sizeof sentinel, "%s/started", w.dir);
	snprintf(command, sizeof command, "touch %s", sentinel);
	struct restore_request q = request();
	q.exec_command = command;
	assert_int_equal(run(&q), IM_ECORRUPT);
	assert_int_equal(access(sentinel, F_OK), -1);
	assert_true(result.service_ready_ms < 0 && result.data_complete_ms < 0);
	assert_false(exists(to, w.database));
	assert_string_equal(row("uploads")->status, "ok");
	assert_true(exists(to, w.tree));
	assert_int_equal(count_partials(to), 0);
	/* what is not harmed needs no option to come back */
	q.stores = uploads;
	q.exec_command = NULL;
	q.overwrite = true;
	assert_ok(run(&q), &err);
	q.stores = NULL;
	q.at = "1";
	assert_ok(run(&q), &err);
}

static void restore__missing_packs_harm_only_their_files(void **state)
{
	(void)state;
	damage_stays_where_it_is(true);
}

static void restore__damaged_packs_harm_only_their_files(void **state)
{
	(void)state;
	damage_stays_where_it_is(false);
}

static void restore__can_be_interrupted_and_started_again(void **state)
{
	(void)state;
	struct restore_request q = request();
	im_interrupt_raise(SIGTERM);
	assert_int_equal(run(&q), IM_EINTERRUPTED);
	im_interrupt_raise(0);
	assert_false(exists(to, w.database));
	assert_false(exists(to, w.tree));
	assert_ok(run(&q), &err);
	assert_int_equal(world_digest(&w, to), world_digest(&w, ""));
	assert_int_equal(count_partials(to), 0);
}

static void restore__cleans_up_when_the_disk_is_full(void **state)
{
	(void)state;
	struct rlimit old, small;
	struct restore_request q = request();
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small = (struct rlimit){ 3000, old.rlim_max };
	setrlimit(RLIMIT_FSIZE, &small);
	int rc = run(&q);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(rc, IM_ENOSPACE);
	assert_false(exists(to, w.database));
	assert_false(exists(to, w.tree));
	assert_int_equal(count_partials(to), 0);
	assert_ok(run(&q), &err);
}

static void restore__starts_the_service_and_lets_it_live(void **state)
{
	(void)state;
	char command[1024], path[256];
	struct restore_request q = request();
	/* no descriptor of ours, our target, and something that outlives the shell */
	int leak = open("/dev/null", O_RDONLY);
	snprintf(path, sizeof path, "%s/alive", w.dir);
	snprintf(command, sizeof command,
	    "test \"$IMVAULT_TARGET\" = \"%s\" && test -e \"%s%s\" && test ! -e /proc/self/fd/%d && test -z \"$(cat)\" || exit 9; "
	    "(sleep 0.3; echo yes > %s) &",
	    to, to, w.database, leak, path);
	q.exec_command = command;
	assert_ok(run(&q), &err);
	close(leak);
	assert_true(WIFEXITED(result.exec_status) && WEXITSTATUS(result.exec_status) == 0);
	assert_true(result.service_ready_ms >= result.data_complete_ms);
	for (int i = 0; i < 100 && access(path, F_OK); i++)
		usleep(50000);
	assert_int_equal(access(path, F_OK), 0);
}

static void restore__says_how_the_service_failed(void **state)
{
	(void)state;
	struct restore_request q = request();
	q.exec_command = "exit 3";
	assert_int_equal(run(&q), IM_EFAIL);
	assert_int_equal(WEXITSTATUS(result.exec_status), 3);
	assert_non_null(strstr(err.text, "exited with 3"));
	assert_true(result.data_complete_ms >= 0 && result.service_ready_ms < 0);
	assert_int_equal(world_digest(&w, to), world_digest(&w, ""));
}

static void restore__judges_by_the_target(void **state)
{
	(void)state;
	struct restore_request q = request();
	q.rto_ms = 1000;
	q.start_us = im_monotonic_us() - 5000000;
	assert_int_equal(run(&q), IM_EMISSED);
	assert_false(result.rto_met);
	assert_true(result.service_ready_ms >= 5000);
	assert_int_equal(world_digest(&w, to), world_digest(&w, ""));
}

static void restore__needs_the_restore_key(void **state)
{
	(void)state;
	struct vault *node;
	assert_ok(vault_open(w.vault, w.node_key, NULL, NULL, 0, &node, &err), &err);
	struct restore_request q = request();
	q.vault = node;
	assert_int_equal(run(&q), IM_EKEY);
	vault_close(node);
	assert_int_equal(access(to, F_OK), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(restore__brings_everything_back),
		TEST(restore__takes_the_snapshot_asked_for),
		TEST(restore__refuses_a_target_in_use_and_touches_nothing),
		TEST(restore__in_place_moves_the_old_aside),
		TEST(restore__one_store_or_one_path),
		TEST(restore__says_what_it_does_not_know),
		TEST(restore__dry_run_writes_nothing),
		TEST(restore__takes_a_failed_store_from_an_older_snapshot),
		TEST(restore__missing_packs_harm_only_their_files),
		TEST(restore__damaged_packs_harm_only_their_files),
		TEST(restore__can_be_interrupted_and_started_again),
		TEST(restore__cleans_up_when_the_disk_is_full),
		TEST(restore__starts_the_service_and_lets_it_live),
		TEST(restore__says_how_the_service_failed),
		TEST(restore__judges_by_the_target),
		TEST(restore__needs_the_restore_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
