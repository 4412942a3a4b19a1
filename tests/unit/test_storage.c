/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storage: what commit promises, that nothing is replaced or half there, that names stay inside,
 * that sweeping leaves the living alone, and that the fault layer does what a plan says.
 */
#include "fixture.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <cmocka.h>

struct rig {
	char dir[64], vault[96];
	int descriptors; /* open before the storage was */
	struct storage *s;
	struct im_error err;
};

static int open_descriptors(void)
{
	int count = 0;
	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof *r);
	r->descriptors = open_descriptors();
	strcpy(r->dir, "/tmp/imvault-test-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->vault, sizeof r->vault, "%s/a/vault", r->dir);
	assert_ok(storage_open(r->vault, true, &r->s, &r->err), &r->err);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	storage_close(r->s);
	assert_int_equal(open_descriptors(), r->descriptors);
	remove_tree(r->dir);
	free(r);
	return 0;
}

static void put_text(struct rig *r, const char *name, const char *text)
{
	assert_ok(storage_put_object(r->s, name, text, strlen(text), &r->err), &r->err);
}

static void assert_text(struct rig *r, const char *name, const char *expected)
{
	auto_buf struct im_buf b = { 0 };
	assert_ok(storage_read_object(r->s, name, 1 << 20, &b, &r->err), &r->err);
	assert_int_equal(b.len, strlen(expected));
	assert_memory_equal(b.data, expected, b.len);
}

/* Names in the vault's top folder that begin with ".tmp-". */
static int temporaries(const struct rig *r)
{
	auto_free char *command = im_format("ls -A %s | grep -c '^[.]tmp-'", r->vault);
	FILE *p = popen(command, "r");
	int count = -1;
	assert_int_equal(fscanf(p, "%d", &count), 1);
	pclose(p);
	return count;
}

static unsigned mode_of(const struct rig *r, const char *name)
{
	auto_free char *path = im_path_join(r->vault, name);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void storage_open__wants_the_folder_to_be_there(void **state)
{
	struct storage *s;
	(void)state;
	struct im_error err = { 0 };
	assert_int_equal(storage_open("/tmp/imvault-no-such-folder", false, &s, &err), IM_EUNREACHABLE);
	assert_non_null(strstr(err.text, "mounted"));
}

static void storage_open__refuses_schemes_it_lacks(void **state)
{
	static const char *const urls[] = { "s3://bucket/x", "sftp://host/x", "file://relative/x", "" };
	(void)state;
	for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
		struct storage *s;
		struct im_error err = { 0 };
		assert_int_equal(storage_open(urls[i], false, &s, &err), IM_EUSAGE);
	}
}

static void storage_open__takes_file_urls(void **state)
{
	struct rig *r = *state;
	struct storage *s;
	auto_free char *url = im_format("file://%s", r->vault);
	put_text(r, "a", "x");
	assert_ok(storage_open(url, false, &s, &r->err), &r->err);
	uint64_t size;
	assert_ok(storage_size(s, "a", &size, &r->err), &r->err);
	storage_close(s);
}

static void put_commit__makes_the_object_and_leaves_no_temporary(void **state)
{
	struct rig *r = *state;
	put_text(r, "packs/ab/abcd", "content");
	assert_text(r, "packs/ab/abcd", "content");
	assert_int_equal(temporaries(r), 0);
}

static void put_commit__never_replaces(void **state)
{
	struct rig *r = *state;
	struct im_error err = { 0 };
	put_text(r, "keys/00000001", "first");
	assert_int_equal(storage_put_object(r->s, "keys/00000001", "second", 6, &err), IM_EUSAGE);
	assert_non_null(strstr(err.text, "exists already"));
	assert_text(r, "keys/00000001", "first");
	assert_int_equal(temporaries(r), 0);
}

static void put_commit__is_for_the_owner_only_whatever_the_umask(void **state)
{
	struct rig *r = *state;
	mode_t old = umask(0);
	put_text(r, "index/n/1", "x");
	umask(0777);
	put_text(r, "packs/ab/2", "x");
	umask(old);
	assert_int_equal(mode_of(r, "index"), 0700);
	assert_int_equal(mode_of(r, "index/n/1"), 0600);
	assert_int_equal(mode_of(r, "packs/ab"), 0700);
	assert_int_equal(mode_of(r, "packs/ab/2"), 0600);
}

static void put_abandon__leaves_nothing(void **state)
{
	struct rig *r = *state;
	struct storage_put *p;
	assert_ok(r->s->ops->put_open(r->s, &p, &r->err), &r->err);
	assert_ok(r->s->ops->put_write(p, "abc", 3, &r->err), &r->err);
	assert_int_equal(temporaries(r), 1);
	r->s->ops->put_abandon(p);
	assert_int_equal(temporaries(r), 0);
}

static void put__follows_no_symbolic_link(void **state)
{
	struct rig *r = *state;
	struct im_error err = { 0 };
	auto_free char *outside = im_format("%s/outside", r->dir), *link = im_format("%s/packs", r->vault);
	assert_int_equal(mkdir(outside, 0700), 0);
	assert_int_equal(symlink(outside, link), 0);
	assert_int_not_equal(storage_put_object(r->s, "packs/ab/x", "x", 1, &err), 0);
	assert_int_equal(rmdir(outside), 0); /* still empty */
	assert_int_equal(temporaries(r), 0);
}

static void put_write__keeps_large_objects_whole(void **state)
{
	struct rig *r = *state;
	struct storage_put *p;
	size_t len = 5 << 20;
	auto_free uint8_t *data = malloc(len), *back = malloc(len);
	fill_bytes(data, len, 5);
	assert_ok(r->s->ops->put_open(r->s, &p, &r->err), &r->err);
	for (int i = 0; i < 4; i++)
		assert_ok(r->s->ops->put_write(p, data, len, &r->err), &r->err);
	assert_ok(r->s->ops->put_commit(p, "packs/aa/large", &r->err), &r->err);
	for (uint64_t i = 0; i < 4; i++) {
		assert_ok(storage_read(r->s, "packs/aa/large", i * len, back, len, &r->err), &r->err);
		assert_memory_equal(data, back, len);
	}
}

static void read__tells_missing_from_short(void **state)
{
	struct rig *r = *state;
	struct im_error missing = { 0 }, cut = { 0 };
	char c[8];
	put_text(r, "a", "12345");
	assert_int_equal(storage_read(r->s, "b", 0, c, 1, &missing), IM_ENOTFOUND);
	assert_int_equal(storage_read(r->s, "a", 3, c, 3, &cut), IM_ECORRUPT);
	assert_ok(storage_read(r->s, "a", 3, c, 2, &r->err), &r->err);
	assert_memory_equal(c, "45", 2);
}

static void read__sees_a_removed_or_replaced_object(void **state)
{
	struct rig *r = *state;
	struct im_error err = { 0 };
	char c;
	put_text(r, "a", "1");
	assert_ok(storage_read(r->s, "a", 0, &c, 1, &r->err), &r->err);
	assert_ok(r->s->ops->remove(r->s, "a", &r->err), &r->err);
	assert_int_equal(storage_read(r->s, "a", 0, &c, 1, &err), IM_ENOTFOUND);
	put_text(r, "a", "2");
	assert_ok(storage_read(r->s, "a", 0, &c, 1, &r->err), &r->err);
	assert_int_equal(c, '2');
}

#define OBJECTS 40 /* more than files are kept open */
#define READERS 4

static void *read_all(void *context)
{
	struct rig *r = context;
	for (unsigned i = 0; i < 10 * OBJECTS; i++) {
		char name[16], expected[16], got[16] = "";
		unsigned which = (i * 7) % OBJECTS;
		struct im_error err = { 0 };
		snprintf(name, sizeof name, "packs/%02u", which);
		snprintf(expected, sizeof expected, "object %02u", which);
		if (storage_read(r->s, name, 0, got, 9, &err) || memcmp(got, expected, 9))
			return context;
	}
	return NULL;
}

static void read__serves_many_threads_and_objects(void **state)
{
	struct rig *r = *state;
	pthread_t threads[READERS];
	for (unsigned i = 0; i < OBJECTS; i++) {
		char name[16], text[16];
		snprintf(name, sizeof name, "packs/%02u", i);
		snprintf(text, sizeof text, "object %02u", i);
		put_text(r, name, text);
	}
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_all, r), 0);
	for (int i = 0; i < READERS; i++) {
		void *failed;
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
}

static void read_object__keeps_its_limit(void **state)
{
	struct rig *r = *state;
	struct im_error err = { 0 };
	auto_buf struct im_buf b = { 0 };
	put_text(r, "a", "12345");
	assert_int_equal(storage_read_object(r->s, "a", 4, &b, &err), IM_ECORRUPT);
	assert_int_equal(b.len, 0);
}

static void wrappers__refuse_names_that_lead_out(void **state)
{
	static const char *const names[] = { "", "/etc/passwd", "../x", "packs/../../x", "a//b", "a/", ".hidden", "a/.tmp-x", "a b", "a\n" };
	struct rig *r = *state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct im_error err = { 0 };
		uint64_t size;
		char c;
		assert_int_equal(storage_put_object(r->s, names[i], "x", 1, &err), IM_EUSAGE);
		assert_int_equal(storage_read(r->s, names[i], 0, &c, 1, NULL), IM_EUSAGE);
		assert_int_equal(storage_size(r->s, names[i], &size, NULL), IM_EUSAGE);
	}
}

static void put_commit__refuses_names_that_lead_out(void **state)
{
	struct rig *r = *state;
	static const char *const names[] = { "../x", "/x", "packs/../x", ".tmp-x" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct storage_put *p;
		struct im_error err = { 0 };
		assert_ok(r->s->ops->put_open(r->s, &p, &r->err), &r->err);
		assert_int_not_equal(r->s->ops->put_commit(p, names[i], &err), 0);
	}
	assert_int_equal(temporaries(r), 0);
}

struct names {
	char text[512];
	int stop_after;
};

static int note_name(void *context, const char *name, uint64_t size_bytes)
{
	struct names *n = context;
	size_t len = strlen(n->text);
	snprintf(n->text + len, sizeof n->text - len, "%s:%u ", name, (unsigned)size_bytes);
	return --n->stop_after == 0 ? 77 : 0;
}

static void list__is_in_the_order_of_whole_names(void **state)
{
	struct rig *r = *state;
	static const char *const names[] = { "b", "a/z", "a/b/c", "a-b", "a.c", "a0", "vault.json" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		put_text(r, names[i], "x");
	struct names all = { "", 0 }, below = { "", 0 }, none = { "", 0 };
	assert_ok(storage_list(r->s, "", note_name, &all, &r->err), &r->err);
	assert_string_equal(all.text, "a-b:1 a.c:1 a/b/c:1 a/z:1 a0:1 b:1 vault.json:1 ");
	assert_ok(storage_list(r->s, "a/", note_name, &below, &r->err), &r->err);
	assert_string_equal(below.text, "a/b/c:1 a/z:1 ");
	assert_ok(storage_list(r->s, "nothing/here/", note_name, &none, &r->err), &r->err);
	assert_string_equal(none.text, "");
}

static void list__leaves_out_what_is_not_an_object(void **state)
{
	struct rig *r = *state;
	struct storage_put *p;
	struct names all = { "", 0 };
	auto_free char *command = im_format("cd %s && mkdir lost+found .snapshot && touch lost+found/x .snapshot/y .tmp-left 'a b' && "
	    "ln -s vault.json link && mkfifo pipe", r->vault);
	put_text(r, "vault.json", "{}");
	assert_int_equal(system(command), 0);
	assert_ok(r->s->ops->put_open(r->s, &p, &r->err), &r->err);
	assert_ok(storage_list(r->s, "", note_name, &all, &r->err), &r->err);
	r->s->ops->put_abandon(p);
	assert_string_equal(all.text, "vault.json:2 ");
}

static void list__stops_when_told(void **state)
{
	struct rig *r = *state;
	struct names some = { "", 2 };
	put_text(r, "a", "x");
	put_text(r, "b/c", "x");
	put_text(r, "d", "x");
	assert_int_equal(storage_list(r->s, "", note_name, &some, &r->err), 77);
	assert_string_equal(some.text, "a:1 b/c:1 ");
}

static void sweep__removes_only_what_nobody_holds(void **state)
{
	struct rig *r = *state;
	struct storage_put *p;
	auto_free char *command = im_format("touch %s/.tmp-dead", r->vault);
	put_text(r, "a", "x");
	assert_ok(r->s->ops->put_open(r->s, &p, &r->err), &r->err);
	assert_ok(r->s->ops->put_write(p, "alive", 5, &r->err), &r->err);
	assert_int_equal(system(command), 0);
	assert_int_equal(temporaries(r), 2);
	assert_ok(r->s->ops->sweep(r->s, &r->err), &r->err);
	assert_int_equal(temporaries(r), 1);
	assert_ok(r->s->ops->put_commit(p, "b", &r->err), &r->err);
	assert_text(r, "b", "alive");
	assert_text(r, "a", "x");
}

static void put_open__says_when_the_vault_was_removed(void **state)
{
	struct rig *r = *state;
	struct storage_put *p;
	struct im_error put = { 0 }, got = { 0 };
	char c;
	assert_int_equal(rmdir(r->vault), 0);
	assert_int_equal(r->s->ops->put_open(r->s, &p, &put), IM_EUNREACHABLE);
	assert_int_equal(storage_read(r->s, "a", 0, &c, 1, &got), IM_EUNREACHABLE);
}

static void space__is_known(void **state)
{
	struct rig *r = *state;
	uint64_t bytes = 0;
	assert_ok(r->s->ops->space(r->s, &bytes, &r->err), &r->err);
	assert_true(bytes > 0);
}

/* The fault layer. */

static struct storage_fault_plan *wrap(struct rig *r, enum storage_fault what, uint64_t at_call, bool sticky)
{
	static struct storage_fault_plan plan;
	plan = (struct storage_fault_plan){ .what = what, .at_call = at_call, .sticky = sticky };
	assert_ok(storage_fault_wrap(r->s, &plan, &r->s, &r->err), &r->err);
	return &plan;
}

static void resident__tells_memory_from_disk(void **state)
{
	struct rig *r = *state;
	enum { BYTES = 3 << 20 };
	auto_free uint8_t *data = malloc(BYTES);
	uint64_t resident = 77;
	char path[160];
	struct statfs fs;
	assert_non_null(data);
	fill_bytes(data, BYTES, 1);
	assert_ok(storage_put_object(r->s, "packs/aa/big", data, BYTES, &r->err), &r->err);
	assert_ok(storage_read(r->s, "packs/aa/big", 0, data, BYTES, &r->err), &r->err);
	assert_ok(storage_resident(r->s, "packs/aa/big", 0, BYTES, &resident, &r->err), &r->err);
	assert_int_equal(resident, BYTES);
	assert_ok(storage_resident(r->s, "packs/aa/big", 5000, 10, &resident, &r->err), &r->err);
	assert_int_equal(resident, 10);
	snprintf(path, sizeof path, "%s/packs/aa/big", r->vault);
	auto_close int fd = open(path, O_RDONLY);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	assert_ok(storage_resident(r->s, "packs/aa/big", 0, BYTES, &resident, &r->err), &r->err);
	assert_int_equal(fstatfs(fd, &fs), 0);
	assert_int_equal(resident, fs.f_type == TMPFS_MAGIC ? BYTES : 0); /* that one has no disk */
}

static void resident__knows_nothing_of_what_is_not_there(void **state)
{
	struct rig *r = *state;
	uint64_t resident;
	assert_ok(storage_put_object(r->s, "a", "12345678", 8, &r->err), &r->err);
	assert_int_equal(storage_resident(r->s, "b", 0, 1, &resident, NULL), IM_ENOTFOUND);
	assert_int_equal(storage_resident(r->s, "a", 4, 5, &resident, NULL), IM_ENOTFOUND);
	assert_int_equal(storage_resident(r->s, "a", UINT64_MAX, 2, &resident, NULL), IM_ENOTFOUND);
	assert_int_equal(storage_resident(r->s, "a", 0, UINT64_MAX, &resident, NULL), IM_ENOTFOUND);
	assert_int_equal(storage_resident(r->s, "../a", 0, 1, &resident, NULL), IM_EUSAGE);
}

static void fault__counts_and_passes_through(void **state)
{
	struct rig *r = *state;
	struct names all = { "", 0 };
	struct storage_fault_plan *plan = wrap(r, FAULT_EIO, 0, false);
	put_text(r, "a", "x"); /* open, write, commit */
	assert_text(r, "a", "x"); /* size, read */
	assert_ok(storage_list(r->s, "", note_name, &all, &r->err), &r->err);
	assert_int_equal(plan->calls, 6);
	assert_ok(r->s->ops->sweep(r->s, &r->err), &r->err);
}

static void fault__strikes_once_or_for_good(void **state)
{
	struct rig *r = *state;
	uint64_t size;
	put_text(r, "a", "x");
	struct storage_fault_plan *plan = wrap(r, FAULT_UNREACHABLE, 2, false);
	assert_int_equal(storage_size(r->s, "a", &size, NULL), 0);
	assert_int_equal(storage_size(r->s, "a", &size, NULL), IM_EUNREACHABLE);
	assert_int_equal(storage_size(r->s, "a", &size, NULL), 0);
	plan->calls = 0;
	plan->sticky = true;
	assert_int_equal(storage_size(r->s, "a", &size, NULL), 0);
	assert_int_equal(storage_size(r->s, "a", &size, NULL), IM_EUNREACHABLE);
	assert_int_equal(storage_size(r->s, "a", &size, NULL), IM_EUNREACHABLE);
}

static void fault__failed_put_leaves_nothing_at_any_call(void **state)
{
	static const struct {
		enum storage_fault what;
		int code;
	} faults[] = { { FAULT_EIO, IM_EIO }, { FAULT_ENOSPC, IM_ENOSPACE }, { FAULT_SHORT_WRITE, IM_ENOSPACE }, { FAULT_UNREACHABLE, IM_EUNREACHABLE } };
	struct rig *r = *state;
	struct storage_fault_plan *plan = wrap(r, FAULT_NONE, 0, false);
	for (size_t f = 0; f < sizeof faults / sizeof *faults; f++)
		for (uint64_t call = 1; call <= 3; call++) {
			struct im_error err = { 0 };
			uint64_t size;
			*plan = (struct storage_fault_plan){ .what = faults[f].what, .at_call = call };
			assert_int_equal(storage_put_object(r->s, "a", "text", 4, &err), faults[f].code);
			assert_int_equal(storage_size(r->s, "a", &size, NULL), IM_ENOTFOUND);
			assert_int_equal(temporaries(r), 0);
		}
}

static void fault__full_disk_does_not_fail_reads(void **state)
{
	struct rig *r = *state;
	put_text(r, "a", "x");
	wrap(r, FAULT_ENOSPC, 1, true);
	assert_text(r, "a", "x");
}

static void fault__flips_one_bit_of_a_read(void **state)
{
	struct rig *r = *state;
	char got[8];
	unsigned flipped = 0;
	put_text(r, "a", "12345678");
	wrap(r, FAULT_FLIP_BIT, 1, false);
	assert_ok(storage_read(r->s, "a", 0, got, 8, &r->err), &r->err);
	for (int i = 0; i < 8; i++)
		flipped += (unsigned)__builtin_popcount((unsigned)(got[i] ^ "12345678"[i]));
	assert_int_equal(flipped, 1);
	assert_text(r, "a", "12345678");
}

static void fault__die_at_any_call_leaves_at_most_what_sweep_removes(void **state)
{
	struct rig *r = *state;
	struct storage_fault_plan *plan = wrap(r, FAULT_NONE, 0, false);
	for (uint64_t call = 1; call <= 3; call++) {
		int status;
		uint64_t size;
		*plan = (struct storage_fault_plan){ .what = FAULT_DIE, .at_call = call };
		pid_t child = fork();
		if (child == 0) {
			storage_put_object(r->s, "a", "text", 4, NULL);
			_exit(0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 137);
		*plan = (struct storage_fault_plan){ 0 };
		assert_int_equal(storage_size(r->s, "a", &size, NULL), IM_ENOTFOUND);
		assert_ok(r->s->ops->sweep(r->s, &r->err), &r->err);
		assert_int_equal(temporaries(r), 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(storage_open__wants_the_folder_to_be_there),
		cmocka_unit_test(storage_open__refuses_schemes_it_lacks),
		TEST(storage_open__takes_file_urls),
		TEST(put_commit__makes_the_object_and_leaves_no_temporary),
		TEST(put_commit__never_replaces),
		TEST(put_commit__is_for_the_owner_only_whatever_the_umask),
		TEST(put_abandon__leaves_nothing),
		TEST(put__follows_no_symbolic_link),
		TEST(put_write__keeps_large_objects_whole),
		TEST(read__tells_missing_from_short),
		TEST(read__sees_a_removed_or_replaced_object),
		TEST(read__serves_many_threads_and_objects),
		TEST(read_object__keeps_its_limit),
		TEST(wrappers__refuse_names_that_lead_out),
		TEST(put_commit__refuses_names_that_lead_out),
		TEST(list__is_in_the_order_of_whole_names),
		TEST(list__leaves_out_what_is_not_an_object),
		TEST(list__stops_when_told),
		TEST(sweep__removes_only_what_nobody_holds),
		TEST(put_open__says_when_the_vault_was_removed),
		TEST(space__is_known),
		TEST(resident__tells_memory_from_disk),
		TEST(resident__knows_nothing_of_what_is_not_there),
		TEST(fault__counts_and_passes_through),
		TEST(fault__strikes_once_or_for_good),
		TEST(fault__failed_put_leaves_nothing_at_any_call),
		TEST(fault__full_disk_does_not_fail_reads),
		TEST(fault__flips_one_bit_of_a_read),
		TEST(fault__die_at_any_call_leaves_at_most_what_sweep_removes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
