/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restores that try to write elsewhere. A stolen node key can sign any snapshot, and whoever may
 * write into the target can plant links there: in every case nothing outside the target changes.
 */
#include "restore/restore.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "fixture.h"
#include "vault/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fixture f;
static char to[96], outside[96], precious[128];
static struct stat before;

static int setup(void **state)
{
	(void)state;
	fixture_start(&f);
	snprintf(to, sizeof to, "%s/to", f.dir);
	snprintf(outside, sizeof outside, "%s/outside", f.dir);
	snprintf(precious, sizeof precious, "%s/precious", outside);
	assert_int_equal(mkdir(outside, 0755), 0);
	FILE *p = fopen(precious, "w");
	assert_non_null(p);
	fputs("precious", p);
	fclose(p);
	assert_int_equal(stat(precious, &before), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_stop(&f);
	return 0;
}

static void assert_outside_unchanged(const char *what)
{
	struct stat now, folder;
	struct im_error err = { 0 };
	auto_buf struct im_buf text = { 0 };
	if (stat(precious, &now) || now.st_ino != before.st_ino || now.st_nlink != 1 ||
	    now.st_mode != before.st_mode || now.st_uid != before.st_uid ||
	    now.st_mtim.tv_sec != before.st_mtim.tv_sec ||
	    now.st_mtim.tv_nsec != before.st_mtim.tv_nsec)
		fail_msg("%s: the file outside was touched", what);
	assert_ok(im_file_read(precious, 100, &text, &err), &err);
	assert_memory_equal(text.data, "precious", 8);
	assert_int_equal(stat(outside, &folder), 0);
	if (folder.st_nlink != 2 || (folder.st_mode & 07777) != 0755)
		fail_msg("%s: the folder outside was touched", what);
	char evil[128];
	snprintf(evil, sizeof evil, "%s/evil", outside);
	if (access(evil, F_OK) == 0)
		fail_msg("%s: a file was made outside", what);
	snprintf(evil, sizeof evil, "%s/evil", f.dir);
	if (access(evil, F_OK) == 0)
		fail_msg("%s: a file was made beside the target", what);
}

struct member {
	const char *path;
	unsigned type; /* AE_IF… */
	const char *link; /* of a symlink, or (type 0) of a hard link */
	unsigned mode;
};

/* A segment made by hand: the project's own writer would refuse some of this. */
static void make_segment(const struct member *members, size_t count, struct im_buf *ret)
{
	static uint8_t bytes[1 << 16];
	size_t used = 0;
	struct archive *a = archive_write_new();
	archive_write_set_format_pax(a);
	archive_write_open_memory(a, bytes, sizeof bytes, &used);
	for (size_t i = 0; i < count; i++) {
		const struct member *m = &members[i];
		struct archive_entry *e = archive_entry_new();
		uint8_t body[12] = { 5 };
		archive_entry_set_pathname(e, m->path);
		archive_entry_set_filetype(e, m->type ? m->type : AE_IFREG);
		archive_entry_set_perm(e, m->mode ? (__LA_MODE_T)m->mode : 0755);
		archive_entry_set_mtime(e, 1, 0);
		if (m->type == AE_IFLNK)
			archive_entry_set_symlink(e, m->link);
		else if (m->link)
			archive_entry_set_hardlink(e, m->link);
		bool has_body = (m->type == AE_IFREG || !m->type) && !m->link;
		archive_entry_set_size(e, has_body ? (int)sizeof body : 0);
		assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
		if (has_body)
			assert_int_equal(
			    archive_write_data(a, body, sizeof body), (int)sizeof body);
		archive_entry_free(e);
	}
	assert_int_equal(archive_write_close(a), ARCHIVE_OK);
	archive_write_free(a);
	im_buf_put_u32(ret, 0); /* no chunks */
	im_buf_put(ret, bytes, used);
}

static json_t *pack_table(uint32_t number)
{
	struct im_error err = { 0 };
	struct pack_info p;
	auto_buf struct im_buf row = { 0 };
	assert_ok(state_pack_get(f.state, number, &p, &err), &err);
	im_buf_put_u32(&row, p.number);
	im_buf_put_u32(&row, (uint32_t)p.size_bytes);
	im_buf_put(&row, p.name, 32);
	im_buf_put(&row, p.commitment, 32);
	auto_free char *text = im_base64(row.data, row.len);
	return json_string(text);
}

/* A signed snapshot of one store: type files with this segment, or sqlite without anything. */
static void write_snapshot(
    const char *type, const char *path, const struct member *members, size_t count)
{
	static int seq;
	struct im_error err = { 0 };
	struct packer *packer;
	struct codec *codec;
	struct im_ref ref;
	bool is_new;
	auto_buf struct im_buf segment = { 0 }, refs = { 0 };
	char instant[IM_INSTANT_BYTES];
	uint8_t hash[32];
	make_segment(members, count, &segment);
	assert_ok(codec_new(1, &codec, &err), &err);
	assert_ok(
	    packer_new(f.node->storage, f.node->keyring, f.state, "im-01", 1, &packer, &err), &err);
	assert_ok(packer_put(packer, codec, ENTRY_TREE, NULL, segment.data, segment.len, &ref,
		      &is_new, &err),
	    &err);
	assert_ok(packer_finish(packer, &err), &err);
	packer_free(packer);
	codec_free(codec);
	ref_put(&refs, ref);
	auto_free char *segments = im_base64(refs.data, refs.len);
	json_t *meta = json_pack("{s:s,s:s,s:i,s:s,s:o,s:[{s:s,s:s,s:s,s:s}]}", "kind", "snapshot",
	    "node", "im-01", "seq", ++seq, "time", im_instant_format(instant, im_now_ms()), "packs",
	    pack_table(ref.pack), "stores", "name", "s", "type", type, "path", path, "status",
	    "ok");
	json_t *private_part = json_pack("{s:s,s:[{s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:i}]}", "config",
	    "", "stores", "name", "s", "type", type, "path", path, "segments", segments, "files", 1,
	    "dirs", 1, "others", 0, "bytes", 5);
	if (!strcmp(type, "sqlite")) {
		json_t *m = json_array_get(json_object_get(private_part, "stores"), 0);
		json_t *more = json_pack("{s:i,s:i,s:i,s:s,s:s,s:i,s:i,s:i,s:i,s:b,s:s,s:[]}",
		    "page_size", 4096, "pages", 0, "leaf_pages", 4096, "leaves", "", "checksum",
		    "00000000000000000000000000000000", "file_bytes", 0, "mode", 0644, "uid", 0,
		    "gid", 0, "wal", 0, "capture", "closed", "probes");
		json_object_update(m, more);
		json_decref(more);
	}
	assert_ok(
	    snapshot_write(f.node->storage, f.node->keyring, meta, private_part, hash, &err), &err);
	json_decref(meta);
	json_decref(private_part);
}

static int restore(bool overwrite)
{
	struct im_error err = { 0 };
	struct restore_result result;
	struct restore_request q = {
		.vault = f.restore, .node = "im-01", .to = to, .overwrite = overwrite
	};
	int rc = restore_run(&q, &result, &err);
	restore_result_clear(&result);
	return rc;
}

/* The hostile tree is restored twice: into a fresh target, then over what came of it. */
static void try_tree(const char *what, const struct member *members, size_t count)
{
	write_snapshot("files", "/srv/tree", members, count);
	for (int again = 0; again < 2; again++) {
		restore(again);
		assert_outside_unchanged(what);
	}
	remove_tree(to);
}

#define TRY(what, ...)                                                     \
	do {                                                               \
		const struct member members_[] = { __VA_ARGS__ };          \
		try_tree(what, members_, sizeof members_ / sizeof *members_); \
	} while (0)
#define ROOT { ".", AE_IFDIR, NULL, 0 }

static void names__stay_beneath_the_target(void **state)
{
	(void)state;
	char absolute[160], deep[200];
	snprintf(absolute, sizeof absolute, "%s/evil", outside);
	snprintf(deep, sizeof deep, "d/../../../../outside/evil");
	TRY("dot-dot", ROOT, { "../evil", AE_IFREG, NULL, 0 },
	    { "../../../evil", AE_IFREG, NULL, 0 });
	TRY("deep dot-dot", ROOT, { "d", AE_IFDIR, NULL, 0 }, { deep, AE_IFREG, NULL, 0 });
	TRY("absolute", ROOT, { absolute, AE_IFREG, NULL, 0 });
	TRY("dot-dot folder", ROOT, { "../../../outside", AE_IFDIR, NULL, 0700 });
	TRY("dot-dot symlink", ROOT, { "../../../outside/evil", AE_IFLNK, "x", 0 });
	TRY("dot-dot fifo", ROOT, { "../../../outside/evil", AE_IFIFO, NULL, 0 });
}

static void symlinks__are_never_walked_through(void **state)
{
	(void)state;
	TRY("link then file", ROOT, { "link", AE_IFLNK, outside, 0 },
	    { "link/evil", AE_IFREG, NULL, 0 });
	TRY("file then link", ROOT, { "link/evil", AE_IFREG, NULL, 0 },
	    { "link", AE_IFLNK, outside, 0 });
	TRY("two hops", ROOT, { "b", AE_IFLNK, outside, 0 }, { "a", AE_IFLNK, "b", 0 },
	    { "a/evil", AE_IFREG, NULL, 0 });
	TRY("folder turned link", ROOT, { "d", AE_IFDIR, NULL, 0 }, { "d", AE_IFLNK, outside, 0 },
	    { "d/evil", AE_IFREG, NULL, 0 });
	TRY("link turned folder", ROOT, { "d", AE_IFLNK, outside, 0 },
	    { "d", AE_IFDIR, NULL, 0700 });
	TRY("link named twice", ROOT, { "d", AE_IFLNK, precious, 0 },
	    { "d", AE_IFREG, NULL, 0600 });
	TRY("root is a link", { ".", AE_IFLNK, outside, 0 }, { "evil", AE_IFREG, NULL, 0 });
	TRY("relative link", ROOT, { "l", AE_IFLNK, "../../../outside", 0 },
	    { "l/evil", AE_IFREG, NULL, 0 });
	TRY("fifo below link", ROOT, { "l", AE_IFLNK, outside, 0 },
	    { "l/evil", AE_IFIFO, NULL, 0 });
	TRY("mode of a link's target", ROOT, { "l", AE_IFLNK, precious, 04777 });
}

static void hard_links__stay_beneath_the_target(void **state)
{
	(void)state;
	TRY("dot-dot", ROOT, { "hl", 0, "../../../outside/precious", 0 });
	TRY("absolute", ROOT, { "hl", 0, precious, 0 });
	TRY("through a link", ROOT, { "l", AE_IFLNK, outside, 0 },
	    { "hl", 0, "l/precious", 04777 });
	TRY("to a link", ROOT, { "l", AE_IFLNK, precious, 0 }, { "hl", 0, "l", 04777 });
	TRY("link's place below a link", ROOT, { "a", AE_IFREG, NULL, 0 },
	    { "l", AE_IFLNK, outside, 0 }, { "l/evil", 0, "a", 0 });
}

static void store_paths__stay_beneath_the_target(void **state)
{
	(void)state;
	char through[160];
	snprintf(through, sizeof through, "/srv/../../outside/tree");
	const char *const paths[] = { "/../outside", through, "outside", "", "/srv//tree",
		"/srv/./tree", "/srv/tree/" };
	static const struct member members[] = { ROOT, { "evil", AE_IFREG, NULL, 0 } };
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		for (int sqlite = 0; sqlite < 2; sqlite++) {
			write_snapshot(sqlite ? "sqlite" : "files", paths[i], members, 2);
			assert_int_not_equal(restore(true), 0);
			assert_outside_unchanged(paths[i]);
			remove_tree(to);
		}
}

static void planted_links__are_not_followed(void **state)
{
	(void)state;
	static const struct member members[] = { ROOT, { "evil", AE_IFREG, NULL, 0 } };
	char path[160];
	write_snapshot("files", "/srv/tree", members, 2);
	/* the parent */
	assert_int_equal(mkdir(to, 0755), 0);
	snprintf(path, sizeof path, "%s/srv", to);
	assert_int_equal(symlink(outside, path), 0);
	assert_int_not_equal(restore(false), 0);
	assert_int_not_equal(restore(true), 0);
	assert_outside_unchanged("planted parent");
	remove_tree(to);
	/* the place itself */
	assert_int_equal(mkdir(to, 0755), 0);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof path, "%s/srv/tree", to);
	assert_int_equal(symlink(outside, path), 0);
	assert_int_not_equal(restore(false), 0);
	assert_outside_unchanged("planted place");
	assert_int_equal(restore(true), 0); /* the link itself is moved aside */
	assert_outside_unchanged("planted place, moved aside");
	remove_tree(to);
	/* the stage */
	assert_int_equal(mkdir(to, 0755), 0);
	snprintf(path, sizeof path, "%s/srv", to);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof path, "%s/srv/.tree.imvault-partial", to);
	assert_int_equal(symlink(outside, path), 0);
	assert_int_not_equal(restore(true), 0);
	assert_outside_unchanged("planted stage");
}

static void honest_trees__come_back(void **state)
{
	(void)state;
	static const struct member members[] = { ROOT, { "a", AE_IFREG, NULL, 0640 },
		{ "l", AE_IFLNK, "a", 0 } };
	char path[160];
	struct stat st;
	write_snapshot("files", "/srv/tree", members, 2);
	assert_int_equal(restore(false), 0);
	snprintf(path, sizeof path, "%s/srv/tree/a", to);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 5);
	assert_int_equal(st.st_mode & 07777, 0640);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(honest_trees__come_back),
		TEST(names__stay_beneath_the_target),
		TEST(symlinks__are_never_walked_through),
		TEST(hard_links__stay_beneath_the_target),
		TEST(store_paths__stay_beneath_the_target),
		TEST(planted_links__are_not_followed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
