/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of an instant restore one by one: the stash, the table, what files will hold, files that
 * are filled later, bringing blocks, records, making room and undoing it, what is mounted.
 */
#include "base/arriving.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mounts.h"
#include "fixture.h"
#include "restore/instant/arrange.h"
#include "restore/instant/find.h"
#include "restore/instant/holder.h"
#include "restore/instant/hydrate.h"
#include "restore/instant/lazy.h"
#include "restore/instant/stash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BLOCK TABLE_BLOCK_BYTES

static char dir[64];
static int root_fd;

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/imvault-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	auto_free char *root = im_format("%s/root", dir);
	assert_int_equal(mkdir(root, 0700), 0);
	root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(root_fd >= 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(root_fd);
	remove_tree(dir);
	return 0;
}

static void need_root(void)
{
	if (geteuid()) {
		print_message("skipped: trusted attributes need root\n");
		skip();
	}
}

/* --- stash --- */

static void stash__holds_many_descriptors_and_gives_copies(void **state)
{
	enum { MANY = 450 };
	int fds[MANY], stash = -1, *found;
	size_t count;
	struct im_error err = { 0 };
	(void)state;
	for (int i = 0; i < MANY; i++) {
		fds[i] = memfd_create("test", MFD_CLOEXEC);
		assert_int_equal(ftruncate(fds[i], i), 0);
	}
	assert_ok(stash_make(fds, MANY, &stash, &err), &err);
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	for (int round = 0; round < 2; round++) { /* looking takes nothing out */
		assert_ok(stash_look(stash, &found, &count, &err), &err);
		assert_int_equal(count, MANY);
		for (int i = 0; i < MANY; i++) {
			struct stat st;
			assert_int_equal(fstat(found[i], &st), 0);
			assert_int_equal(st.st_size, i);
			close(found[i]);
		}
		free(found);
	}
	stash_empty(stash);
	assert_int_equal(stash_look(stash, &found, &count, &err), IM_EUSAGE);
	close(stash);
}

static void stash__lets_go_of_what_it_held(void **state)
{
	int ends[2], stash = -1;
	char byte;
	struct im_error err = { 0 };
	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_ok(stash_make(&ends[1], 1, &stash, &err), &err);
	close(ends[1]);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(read(ends[0], &byte, 1), -1); /* somebody could still write: the stash */
	stash_empty(stash);
	assert_int_equal(read(ends[0], &byte, 1), 0);
	close(ends[0]);
	close(stash);
}

/* --- table --- */

static void table__is_the_same_for_whoever_opens_it(void **state)
{
	const uint64_t sizes[] = { 1, BLOCK, 3 * BLOCK + 5 };
	const bool digests[] = { false, true, false };
	struct table a, b;
	struct im_error err = { 0 };
	(void)state;
	assert_ok(table_new(sizes, digests, 3, &a, &err), &err);
	assert_ok(table_open(a.fd, true, &b, &err), &err);
	assert_int_equal(b.head->block_count, 1 + 1 + 4);
	*table_block(&a, 2, 3) = BLOCK_DONE;
	assert_int_equal(*table_block(&b, 2, 3), BLOCK_DONE);
	*table_block(&a, 0, 0) = BLOCK_BUSY;
	*table_block(&a, 1, 0) = BLOCK_BAD | BLOCK_TOUCHED;
	table_take_over(&b);
	assert_int_equal(*table_block(&a, 0, 0), BLOCK_NONE);
	assert_int_equal(*table_block(&a, 1, 0), BLOCK_NONE | BLOCK_TOUCHED);
	assert_int_equal(a.files[2].left, 3);
	table_close(&a);
	table_close(&b);
}

static void table__refuses_what_is_none(void **state)
{
	const uint64_t sizes[] = { 10 * BLOCK };
	const bool digests[] = { true };
	struct table t, other;
	struct im_error err = { 0 };
	(void)state;
	auto_close int empty = memfd_create("x", MFD_CLOEXEC), foreign = memfd_create("x", MFD_CLOEXEC), cut = memfd_create("x", MFD_CLOEXEC);
	assert_int_equal(table_open(empty, false, &other, &err), IM_EUSAGE);
	assert_int_equal(ftruncate(foreign, 1 << 20), 0);
	assert_int_equal(table_open(foreign, false, &other, &err), IM_EUSAGE);
	assert_ok(table_new(sizes, digests, 1, &t, &err), &err);
	struct table_head *copy = malloc(sizeof *copy);
	memcpy(copy, t.head, sizeof *copy);
	const uint64_t counts[] = { 0, 1000, UINT64_MAX, UINT64_MAX / 16 };
	for (size_t i = 0; i < 4; i++) {
		copy->block_count = counts[i];
		assert_int_equal(ftruncate(cut, (off_t)t.bytes), 0);
		assert_int_equal(pwrite(cut, copy, sizeof *copy, 0), sizeof *copy);
		assert_int_equal(table_open(cut, false, &other, &err), IM_EUSAGE);
	}
	free(copy);
	t.files[0].first_block = 1;
	assert_int_equal(table_open(t.fd, false, &other, &err), IM_EUSAGE);
	t.files[0].first_block = 0;
	t.files[0].size++;
	assert_int_equal(table_open(t.fd, false, &other, &err), IM_EUSAGE);
	table_close(&t);
}

/* --- content, with bytes that a transform makes --- */

static const char *broken_why; /* not NULL: block 2 cannot be had */

static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)(offset / 512 * 7 + offset % 251 + 1);
}

static int make_bytes(void *context, unsigned worker, uint64_t offset, const uint8_t **data, size_t len, struct im_error *err)
{
	static _Thread_local uint8_t bytes[4 * BLOCK];
	(void)context, (void)worker;
	if (broken_why && offset / BLOCK == 2)
		return im_fail(err, IM_ECORRUPT, "%s", broken_why);
	for (size_t i = 0; i < len; i++)
		bytes[i] = byte_at(offset + i);
	*data = bytes;
	return 0;
}

struct rig {
	struct fixture f;
	struct im_buf identity;
	struct hydrate_options options;
	struct built_file built;
	struct content *content;
	struct table table;
	struct hydrator *h;
	struct hydrate_lane *lane;
	uint32_t file;
	int fd;
};

static const struct pack_info *no_pack(void *context, uint32_t number)
{
	(void)context, (void)number;
	return NULL;
}

/* A lazy file of which [hole, hole + BLOCK) is nowhere in the vault. */
static void rig_start(struct rig *r, uint64_t size, uint64_t hole)
{
	struct im_error err = { 0 };
	const uint8_t key[32] = { 0 };
	const bool digest = false;
	memset(r, 0, sizeof *r);
	fixture_start(&r->f);
	r->built = (struct built_file){ .writer = { .path = "data/file", .root_fd = root_fd, .size_bytes = size }, .transform = make_bytes };
	const struct content_options o = { .chunk_key = key, .pack_of = no_pack };
	assert_ok(content_new(&o, &r->content, &err), &err);
	assert_ok(content_add(r->content, &r->built, &r->file, &err), &err);
	for (uint64_t at = 0; at < size; at += BLOCK)
		if (at != hole)
			assert_ok(content_made(r->content, r->file, at, (uint32_t)(size - at < BLOCK ? size - at : BLOCK), &err), &err);
	assert_ok(content_seal(r->content, &err), &err);
	assert_ok(table_new(&size, &digest, 1, &r->table, &err), &err);
	assert_ok(lazy_make(root_fd, r->built.writer.path, 0, size, &r->fd, &err), &err);
	assert_ok(storage_read_object(r->f.restore->storage, "vault.json", 65536, &r->identity, &err), &err);
	r->options = (struct hydrate_options){ .content = r->content, .table = &r->table, .storage = r->f.restore->storage, .identity = r->identity.data,
		.identity_len = r->identity.len, .fds = &r->fd, .group = -1 };
	assert_ok(hydrate_new(&r->options, &r->h, &err), &err);
	assert_ok(hydrate_lane_new(0, &r->lane, &err), &err);
}

/* The machine starts anew: what has arrived is known from the file alone. */
static void rig_restart(struct rig *r)
{
	const uint64_t size = r->built.writer.size_bytes;
	const bool digest = false;
	struct im_error err = { 0 };
	hydrate_free(r->h);
	table_close(&r->table);
	assert_ok(table_new(&size, &digest, 1, &r->table, &err), &err);
	r->options.resumed = true;
	assert_ok(hydrate_new(&r->options, &r->h, &err), &err);
}

static void rig_stop(struct rig *r)
{
	hydrate_free(r->h);
	hydrate_lane_free(r->lane);
	content_free(r->content);
	im_buf_free(&r->identity);
	table_close(&r->table);
	close(r->fd);
	fixture_stop(&r->f);
	broken_why = NULL;
}

static void assert_bytes(int fd, uint64_t offset, size_t len, bool zeros)
{
	uint8_t *bytes = malloc(len);
	assert_int_equal(pread(fd, bytes, len, (off_t)offset), len);
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != (zeros ? 0 : byte_at(offset + i)))
			fail_msg("byte %llu is %u", (unsigned long long)(offset + i), bytes[i]);
	free(bytes);
}

static void content__refuses_pieces_in_one_place(void **state)
{
	struct built_file built = { .writer = { .path = "x", .size_bytes = 100 } };
	struct content *c;
	const uint8_t key[32] = { 0 };
	const struct content_options o = { .chunk_key = key, .pack_of = no_pack };
	struct im_error err = { 0 };
	uint32_t file;
	(void)state;
	assert_ok(content_new(&o, &c, &err), &err);
	assert_ok(content_add(c, &built, &file, &err), &err);
	assert_ok(content_made(c, file, 50, 50, &err), &err);
	assert_ok(content_made(c, file, 0, 51, &err), &err);
	assert_int_equal(content_seal(c, &err), IM_ECORRUPT);
	content_free(c);
}

static void hydrate__brings_what_is_asked_for_and_no_hole(void **state)
{
	struct rig r;
	struct stat st;
	struct im_error err = { 0 };
	(void)state;
	need_root();
	rig_start(&r, 5 * BLOCK + 1000, 3 * BLOCK);
	assert_ok(hydrate_range(r.h, r.lane, 0, BLOCK + 5, 10, HYDRATE_DEMAND, &err), &err);
	assert_bytes(r.fd, BLOCK, BLOCK, false);
	assert_bytes(r.fd, 4 * BLOCK, BLOCK, true);
	assert_int_equal(r.table.files[0].left, 5);
	assert_ok(hydrate_range(r.h, r.lane, 0, 0, 5 * BLOCK + 1000, HYDRATE_DEMAND, &err), &err);
	assert_bytes(r.fd, 0, 3 * BLOCK, false);
	assert_bytes(r.fd, 3 * BLOCK, BLOCK, true);
	assert_bytes(r.fd, 4 * BLOCK, BLOCK + 1000, false);
	assert_int_equal(r.table.files[0].state, FILE_WHOLE);
	assert_ok(hydrate_finish(r.h, 0, false, &err), &err);
	assert_int_equal(r.table.files[0].state, FILE_ORDINARY);
	assert_int_equal(fstat(r.fd, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 < 5 * BLOCK + 4096 + 1000);
	assert_int_equal(fgetxattr(r.fd, LAZY_ATTRIBUTE, NULL, 0), -1);
	rig_stop(&r);
}

static void hydrate__finds_the_damaged_block_among_good_ones(void **state)
{
	struct rig r;
	struct im_error err = { 0 };
	(void)state;
	need_root();
	rig_start(&r, 6 * BLOCK, UINT64_MAX);
	broken_why = "broken on purpose";
	assert_int_equal(hydrate_range(r.h, r.lane, 0, 0, 6 * BLOCK, HYDRATE_DEMAND, &err), IM_ECORRUPT);
	assert_ok(hydrate_range(r.h, r.lane, 0, 0, 6 * BLOCK, HYDRATE_AHEAD, &err), &err);
	assert_int_equal(r.table.head->bad_blocks, 1);
	assert_int_equal(r.table.files[0].left, 1);
	assert_true(table_is_stuck(&r.table));
	assert_bytes(r.fd, 0, 2 * BLOCK, false);
	assert_bytes(r.fd, 3 * BLOCK, 3 * BLOCK, false);
	broken_why = NULL; /* repaired: the next worker tries again */
	table_take_over(&r.table);
	assert_ok(hydrate_range(r.h, r.lane, 0, 0, 6 * BLOCK, HYDRATE_DEMAND, &err), &err);
	assert_bytes(r.fd, 2 * BLOCK, BLOCK, false);
	rig_stop(&r);
}

static void hydrate__leaves_to_the_server_what_it_cut_off(void **state)
{
	struct rig r;
	uint64_t size, limit;
	char *path;
	struct im_error err = { 0 };
	(void)state;
	need_root();
	rig_start(&r, 6 * BLOCK, UINT64_MAX);
	assert_int_equal(ftruncate(r.fd, BLOCK + 100), 0);
	assert_ok(hydrate_touch(r.h, 0, &limit, &err), &err);
	assert_int_equal(limit, BLOCK + 100);
	assert_int_equal(ftruncate(r.fd, 4 * BLOCK), 0); /* made longer again: zeros are right there */
	assert_ok(hydrate_range(r.h, r.lane, 0, 0, 4 * BLOCK, HYDRATE_DEMAND, &err), &err);
	assert_bytes(r.fd, 0, BLOCK + 100, false);
	assert_bytes(r.fd, BLOCK + 100, 3 * BLOCK - 100, true);
	assert_int_equal(r.table.files[0].state, FILE_WHOLE);
	assert_ok(lazy_read(r.fd, &path, &size, &limit, &err), &err); /* and is known after a crash */
	assert_int_equal(limit, BLOCK + 100);
	assert_string_equal(path, "data/file");
	free(path);
	rig_stop(&r);
}

static void hydrate__never_makes_a_shorter_file_longer(void **state)
{
	struct rig r;
	struct stat st;
	struct im_error err = { 0 };
	(void)state;
	need_root();
	rig_start(&r, 6 * BLOCK, UINT64_MAX);
	assert_int_equal(ftruncate(r.fd, 0), 0); /* as open with O_TRUNC does: no event tells of it */
	assert_ok(hydrate_range(r.h, r.lane, 0, 0, 6 * BLOCK, HYDRATE_AHEAD, &err), &err);
	assert_int_equal(fstat(r.fd, &st), 0);
	assert_int_equal(st.st_size, 0);
	rig_stop(&r);
}

/* A page that is dirtied takes its whole folio along, and readahead makes folios of many pages of zeros: here the file system is told so. */
static void hydrate__brings_after_a_crash_what_is_zeros_and_no_hole(void **state)
{
	static const uint8_t zeros[3 * BLOCK];
	struct rig r;
	struct im_error err = { 0 };
	(void)state;
	need_root();
	rig_start(&r, 6 * BLOCK, 4 * BLOCK);
	assert_ok(hydrate_range(r.h, r.lane, 0, BLOCK, BLOCK, HYDRATE_DEMAND, &err), &err);
	assert_int_equal(pwrite(r.fd, zeros, BLOCK, 0), BLOCK);
	assert_int_equal(pwrite(r.fd, zeros, 3 * BLOCK, 2 * BLOCK), 3 * BLOCK);
	assert_int_equal(pwrite(r.fd, "server", 6, 3 * BLOCK + 4096), 6); /* the rest of this page is its own */
	assert_int_equal(fsync(r.fd), 0);
	assert_true(lseek(r.fd, 0, SEEK_HOLE) >= 5 * (off_t)BLOCK);
	rig_restart(&r);
	assert_ok(hydrate_range(r.h, r.lane, 0, 0, 6 * BLOCK, HYDRATE_DEMAND, &err), &err);
	assert_bytes(r.fd, 0, 3 * BLOCK + 4096, false);
	assert_bytes(r.fd, 3 * BLOCK + 4096 + 6, 4090, true);
	assert_bytes(r.fd, 3 * BLOCK + 8192, BLOCK - 8192, false);
	assert_bytes(r.fd, 4 * BLOCK, BLOCK, true); /* in the snapshot, too */
	assert_bytes(r.fd, 5 * BLOCK, BLOCK, false);
	assert_int_equal(r.table.files[0].state, FILE_WHOLE);
	rig_stop(&r);
}

/* --- lazy --- */

static void lazy__fills_only_empty_pages_after_a_crash(void **state)
{
	enum { SIZE = 16 * 4096 };
	uint8_t *map, ours[SIZE], server[4096], got[SIZE];
	struct im_error err = { 0 };
	int fd;
	(void)state;
	need_root();
	memset(ours, 'v', sizeof ours);
	memset(server, 's', sizeof server);
	assert_ok(lazy_make(root_fd, "f", 3, SIZE, &fd, &err), &err);
	assert_int_equal(pwrite(fd, server, sizeof server, 5 * 4096), sizeof server);
	assert_true(lazy_lacks(fd, 0, SIZE));
	assert_false(lazy_lacks(fd, 5 * 4096, 4096));
	assert_ok(lazy_map(fd, SIZE, &map, &err), &err);
	assert_int_equal(lazy_fill(fd, map, 0, ours, SIZE, true), SIZE);
	assert_int_equal(pread(fd, got, SIZE, 0), SIZE);
	for (int i = 0; i < SIZE; i++)
		assert_int_equal(got[i], i / 4096 == 5 ? 's' : 'v');
	assert_false(lazy_lacks(fd, 0, SIZE));
	lazy_unmap(map, SIZE);
	close(fd);
}

static void lazy__a_copy_with_its_attributes_is_none(void **state)
{
	char text[4096], *path;
	uint64_t size, limit;
	struct im_error err = { 0 };
	int fd;
	(void)state;
	need_root();
	assert_ok(lazy_make(root_fd, "f", 3, 1 << 20, &fd, &err), &err);
	ssize_t n = fgetxattr(fd, LAZY_ATTRIBUTE, text, sizeof text);
	auto_close int copy = openat(root_fd, "copy", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_int_equal(fsetxattr(copy, LAZY_ATTRIBUTE, text, (size_t)n, 0), 0);
	assert_int_equal(lazy_read(copy, &path, &size, &limit, &err), IM_ENOTFOUND);
	static const char *const hostile[] = { "", "1", "1 5", "1 5 6 ", "1 -5 6 a", "2 5 6 a", "1 99999999999999999999 6 a", "1 5 x a" };
	for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
		assert_int_equal(fsetxattr(copy, LAZY_ATTRIBUTE, hostile[i], strlen(hostile[i]), 0), 0);
		assert_int_equal(lazy_read(copy, &path, &size, &limit, &err), IM_ECORRUPT);
	}
	close(fd);
}

static int count_names(void *context, int fd, uint32_t number, struct im_error *err)
{
	struct stat st;
	(void)err;
	assert_int_equal(number, 3);
	assert_int_equal(fstat(fd, &st), 0);
	*(nlink_t *)context += st.st_nlink;
	close(fd);
	return 0;
}

static void lazy__keeps_a_name_until_it_is_complete(void **state)
{
	struct im_error err = { 0 };
	nlink_t names = 0;
	int fd;
	(void)state;
	need_root();
	assert_ok(lazy_make(root_fd, "f", 3, 1 << 20, &fd, &err), &err);
	assert_int_equal(linkat(root_fd, "f", root_fd, "g", 0), 0);
	assert_int_equal(unlinkat(root_fd, "f", 0), 0);
	assert_int_equal(unlinkat(root_fd, "g", 0), 0);
	assert_ok(lazy_each(root_fd, count_names, &names, &err), &err);
	assert_int_equal(names, 1);
	assert_ok(lazy_forget(root_fd, 3, &err), &err);
	assert_ok(lazy_forget(root_fd, 3, &err), &err);
	names = 0;
	assert_ok(lazy_each(root_fd, count_names, &names, &err), &err);
	assert_int_equal(names, 0);
	close(fd);
}

/* --- fan --- */

static void fan__probe_finds_what_this_machine_can(void **state)
{
	struct im_error err = { 0 };
	(void)state;
	int blocks = fan_probe(FAN_BLOCKS, root_fd, &err), files = fan_probe(FAN_FILES, root_fd, &err);
	assert_true(blocks == 0 || blocks == IM_EUSAGE);
	assert_true(files == 0 || files == IM_EUSAGE);
	if (geteuid() == 0)
		print_message("blocks: %s, files: %s\n", blocks ? "no" : "yes", files ? "no" : "yes");
	else
		assert_int_equal(blocks, IM_EUSAGE);
}

/* --- holder --- */

static void holder__knows_commands_that_ask_an_init_system(void **state)
{
	(void)state;
	assert_true(holder_is_handed_over("systemctl start prosody"));
	assert_true(holder_is_handed_over("sleep 1; /usr/bin/systemctl start prosody"));
	assert_true(holder_is_handed_over("(service prosody start)"));
	assert_false(holder_is_handed_over("prosodyctl start"));
	assert_false(holder_is_handed_over("/opt/my-service/run"));
	assert_false(holder_is_handed_over(""));
}

/* --- records --- */

static void record__tells_arriving_from_complete(void **state)
{
	struct im_error err = { 0 };
	enum record_phase phase;
	json_t *details = json_pack("{s:s}", "target", "/x"), *got;
	auto_free char *stage = im_format("%s/.data.imvault-instant", dir), *below = im_format("%s/data/deep/er", dir);
	(void)state;
	assert_int_equal(mkdir(stage, 0700), 0);
	auto_free char *folders = im_format("%s/data/deep", dir);
	assert_ok(im_mkdirs(folders, 0700, &err), &err);
	assert_null(im_arriving_find(below));
	assert_ok(record_write(stage, RECORD_SERVING, details, &err), &err);
	auto_free char *found = im_arriving_find(below);
	assert_string_equal(found, stage);
	assert_ok(record_read(stage, &phase, &got, &err), &err);
	assert_int_equal(phase, RECORD_SERVING);
	json_decref(got);
	assert_ok(record_write(stage, RECORD_SWITCHED, details, &err), &err);
	assert_null(im_arriving_find(below));
	assert_ok(record_read(stage, &phase, &got, &err), &err);
	assert_int_equal(phase, RECORD_SWITCHED);
	json_decref(got);
	assert_ok(record_write(stage, RECORD_SERVING, details, &err), &err); /* as a crash may bring it back */
	assert_null(im_arriving_find(below));
	assert_ok(record_read(stage, &phase, &got, &err), &err);
	assert_int_equal(phase, RECORD_SWITCHED);
	json_decref(got);
	json_decref(details);
}

static void record__that_makes_no_sense_is_refused(void **state)
{
	static const char *const hostile[] = { "", "{", "[]", "{}", "{\"format\":2,\"phase\":\"serving\"}", "{\"format\":1,\"phase\":\"x\"}" };
	struct im_error err = { 0 };
	(void)state;
	auto_free char *path = im_format("%s/instant.json", dir);
	for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
		enum record_phase phase;
		json_t *got = NULL;
		assert_ok(im_file_write(path, hostile[i], strlen(hostile[i]), 0600, IM_FILE_REPLACE, &err), &err);
		assert_int_equal(record_read(dir, &phase, &got, &err), IM_ECORRUPT);
	}
}

static void record__paths_that_lead_out_of_the_stage_are_refused(void **state)
{
	static const char *const staged[] = { "/etc", "/stage/rootx/a", "/stage", "relative" };
	struct im_error err = { 0 };
	(void)state;
	for (size_t i = 0; i < sizeof staged / sizeof staged[0]; i++) {
		struct arrangement a;
		struct found f = { .stage = (char *)"/stage", .details = json_pack("{s:s, s:s, s:[]}", "target", "/t", "staged", staged[i], "moves") };
		assert_int_equal(found_arrangement(&f, &a, &err), IM_ECORRUPT);
		json_decref(f.details);
	}
}

/* --- making room --- */

static void put(const char *name, const char *text)
{
	struct im_error err = { 0 };
	auto_free char *path = im_format("%s/%s", dir, name);
	assert_ok(im_file_write(path, text, strlen(text), 0600, IM_FILE_NEW, &err), &err);
}

static void assert_file(const char *name, const char *text)
{
	struct im_error err = { 0 };
	auto_buf struct im_buf got = { 0 };
	auto_free char *path = im_format("%s/%s", dir, name);
	assert_ok(im_file_read(path, 1000, &got, &err), &err);
	assert_int_equal(got.len, strlen(text));
	assert_memory_equal(got.data, text, got.len);
}

static void arrange__takes_siblings_along_and_puts_them_back(void **state)
{
	struct im_error err = { 0 };
	struct target *t;
	struct arrangement a;
	size_t unit;
	(void)state;
	need_root();
	auto_free char *data = im_format("%s/data", dir), *db = im_format("%s/data/chat.db", dir), *wal = im_format("%s/data/chat.db-wal", dir);
	const char *beside[] = { wal };
	assert_int_equal(mkdir(data, 0750), 0);
	put("data/other", "sibling");
	put("data/chat.db", "old");
	put("data/chat.db-wal", "old wal");
	assert_ok(target_new(NULL, true, &t, &err), &err);
	target_set_instant(t);
	assert_ok(target_add(t, db, beside, 1, &unit, &err), &err);
	assert_ok(target_add_folder(t, data, &err), &err);
	assert_ok(target_check(t, &err), &err);
	assert_ok(target_begin(t, &err), &err);
	struct target_whole w;
	assert_ok(target_get_whole(t, 0, &w, &err), &err);
	assert_true(w.is_folder);
	assert_ok(im_mkdirs(w.staged, 0755, &err), &err);
	auto_free char *staged_db = im_format("%s/chat.db", w.staged), *staged_other = im_format("%s/other", w.staged);
	assert_ok(im_file_write(staged_db, "new", 3, 0600, IM_FILE_NEW, &err), &err);
	assert_ok(arrange_plan(t, 0, &a, &err), &err);
	assert_int_equal(json_array_size(a.moves), 3);
	assert_file("data/chat.db", "old"); /* planning changes nothing */
	assert_ok(arrange_do(&a, &err), &err);
	assert_int_equal(access(db, F_OK), -1);
	assert_int_equal(access(staged_other, F_OK), 0);
	auto_free char *staged_wal = im_format("%s/chat.db-wal", w.staged);
	assert_int_equal(access(staged_wal, F_OK), -1); /* an old log would be replayed into the new database */
	struct stat st;
	assert_int_equal(stat(w.staged, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	if (!a.loose) {
		auto_free char *probe = im_format("%s/data/probe", dir);
		assert_int_equal(mkdir(probe, 0700), -1);
		assert_int_equal(errno, EPERM);
	}
	assert_ok(arrange_undo(&a, &err), &err);
	assert_file("data/chat.db", "old");
	assert_file("data/chat.db-wal", "old wal");
	assert_file("data/other", "sibling");
	arrange_clear(&a);
	target_whole_clear(&w);
	assert_ok(target_end(t, &err), &err);
	target_free(t);
}

/* --- mounts --- */

static int is_place(void *place, const struct im_mount *m)
{
	return strcmp(m->place, place) == 0;
}

static void mounts__a_place_with_blanks_and_backslashes_is_found(void **state)
{
	auto_free char *place = im_format("%s/my \\ files\\040\t%%s\n#", dir);
	(void)state;
	need_root();
	assert_int_equal(mkdir(place, 0700), 0);
	assert_int_equal(im_mounts_each(0, is_place, place), 0);
	if (mount(place, place, NULL, MS_BIND, NULL)) {
		print_message("skipped: nothing can be mounted here: %s\n", strerror(errno));
		skip();
	}
	int ours = im_mounts_each(0, is_place, place), by_number = im_mounts_each(getpid(), is_place, place);
	assert_int_equal(umount(place), 0);
	assert_int_equal(ours, 1);
	assert_int_equal(by_number, 1);
	assert_int_equal(im_mounts_each(0, is_place, place), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stash__holds_many_descriptors_and_gives_copies),
		TEST(stash__lets_go_of_what_it_held),
		TEST(table__is_the_same_for_whoever_opens_it),
		TEST(table__refuses_what_is_none),
		TEST(content__refuses_pieces_in_one_place),
		TEST(hydrate__brings_what_is_asked_for_and_no_hole),
		TEST(hydrate__finds_the_damaged_block_among_good_ones),
		TEST(hydrate__leaves_to_the_server_what_it_cut_off),
		TEST(hydrate__never_makes_a_shorter_file_longer),
		TEST(hydrate__brings_after_a_crash_what_is_zeros_and_no_hole),
		TEST(lazy__fills_only_empty_pages_after_a_crash),
		TEST(lazy__a_copy_with_its_attributes_is_none),
		TEST(lazy__keeps_a_name_until_it_is_complete),
		TEST(fan__probe_finds_what_this_machine_can),
		TEST(holder__knows_commands_that_ask_an_init_system),
		TEST(record__tells_arriving_from_complete),
		TEST(record__that_makes_no_sense_is_refused),
		TEST(record__paths_that_lead_out_of_the_stage_are_refused),
		TEST(arrange__takes_siblings_along_and_puts_them_back),
		TEST(mounts__a_place_with_blanks_and_backslashes_is_found),
	};
	crypto_init(NULL);
	return cmocka_run_group_tests_name("instant", tests, NULL, NULL);
}
