/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec of tree segments and of a segment's memory: what was encoded comes back, and nothing
 * malformed gets through or crashes.
 */
#include "files_forge.h"

#include "base/cleanup.h"
#include "stores/files/beneath.h"
#include "stores/files/exclude.h"
#include "stores/files/memory.h"
#include "stores/files/segment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_pieces_equal(const struct files_piece *a, const struct files_piece *b, size_t count)
{
	for (size_t i = 0; i < count; i++)
		assert_true(a[i].file_offset == b[i].file_offset && a[i].chunk == b[i].chunk &&
		    a[i].skip == b[i].skip && a[i].len == b[i].len);
}

/* The code of reading all of it. */
static int read_all(const void *data, size_t len)
{
	struct files_segment *s;
	struct files_member m;
	bool more = true;
	int rc = files_segment_open(data, len, &s, NULL);
	if (rc)
		return rc;
	while (!rc && more)
		rc = files_segment_next(s, &m, &more, NULL);
	files_segment_close(s);
	return rc;
}

static int read_forged(struct forge *f)
{
	auto_buf struct im_buf bytes = { 0 };
	forge_end(f, &bytes);
	return read_all(bytes.data, bytes.len);
}

static void segment__round_trip(void **state)
{
	(void)state;
	struct files_segment_writer *w;
	struct files_segment *s;
	struct files_member m;
	const struct files_chunk *rows;
	auto_buf struct im_buf bytes = { 0 };
	bool more;
	struct files_chunk chunks[2] = { { .ref = { 1, 2, 3, 4, 1000 }, .id = { 9 } }, { .ref = { 5, 6, 7, 8, 50 } } };
	struct files_piece pieces[2] = { { 0, 1, 10, 40 }, { 4096, 0, 0, 1000 } };
	struct archive_entry *e = archive_entry_new();
	archive_entry_copy_pathname(e, "a/b");
	archive_entry_set_mode(e, AE_IFREG | 0640);
	archive_entry_set_mtime(e, -5, 7);
	assert_int_equal(files_segment_writer_new(&w, NULL), 0);
	assert_int_equal(files_segment_add(w, e, 100000, pieces, 2, NULL), 0);
	assert_int_equal(files_segment_finish(w, chunks, 2, &bytes, NULL), 0);
	files_segment_writer_free(w);
	archive_entry_free(e);
	assert_int_equal(files_segment_open(bytes.data, bytes.len, &s, NULL), 0);
	assert_int_equal(files_segment_chunks(s, &rows), 2);
	assert_memory_equal(rows, chunks, sizeof chunks);
	assert_int_equal(files_segment_next(s, &m, &more, NULL), 0);
	assert_true(more && m.has_body && !m.link);
	assert_string_equal(m.path, "a/b");
	assert_int_equal(m.size_bytes, 100000);
	assert_int_equal(m.piece_count, 2);
	assert_pieces_equal(m.pieces, pieces, 2);
	assert_int_equal(archive_entry_mtime(m.entry), -5);
	assert_int_equal(archive_entry_mtime_nsec(m.entry), 7);
	assert_int_equal(files_segment_next(s, &m, &more, NULL), 0);
	assert_false(more);
	files_segment_close(s);
}

static void segment__equal_trees_make_equal_bytes(void **state)
{
	(void)state;
	struct im_buf bytes[2] = { { 0 }, { 0 } };
	for (int i = 0; i < 2; i++) {
		struct files_segment_writer *w;
		struct archive_entry *e = archive_entry_new();
		archive_entry_copy_pathname(e, "x");
		archive_entry_set_mode(e, AE_IFREG | 0640);
		archive_entry_set_ino64(e, 100 + i);
		archive_entry_set_dev(e, (dev_t)(5 + i));
		archive_entry_set_atime(e, 1000 + i, 0);
		archive_entry_set_ctime(e, 2000 + i, 0);
		archive_entry_set_nlink(e, (unsigned)i + 1);
		assert_int_equal(files_segment_writer_new(&w, NULL), 0);
		assert_int_equal(files_segment_add(w, e, 0, NULL, 0, NULL), 0);
		assert_int_equal(files_segment_finish(w, NULL, 0, &bytes[i], NULL), 0);
		files_segment_writer_free(w);
		archive_entry_free(e);
	}
	assert_int_equal(bytes[0].len, bytes[1].len);
	assert_memory_equal(bytes[0].data, bytes[1].data, bytes[0].len);
	im_buf_free(&bytes[0]);
	im_buf_free(&bytes[1]);
}

static void segment__refuses_bad_paths(void **state)
{
	(void)state;
	static const char *const bad[] = { "..", "../x", "a/../b", "/etc/passwd", "a//b", "./a", "a/.", "a/./b", "a/..",
		"//", "/" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct forge f;
		forge_begin(&f);
		forge_file(&f, bad[i], 0, 0, 0, 0, 0);
		assert_int_equal(read_forged(&f), IM_ECORRUPT);
		forge_begin(&f);
		forge_add(&f, AE_IFREG, "fine", NULL, bad[i], NULL, 0);
		assert_int_equal(read_forged(&f), IM_ECORRUPT);
	}
	auto_free char *longest = malloc(5000);
	memset(longest, 'a', 4999);
	longest[4999] = 0;
	struct forge f;
	forge_begin(&f);
	forge_add(&f, AE_IFDIR, longest, NULL, NULL, NULL, 0);
	assert_int_equal(read_forged(&f), IM_ECORRUPT);
}

static void segment__refuses_bad_pieces(void **state)
{
	(void)state;
	static const struct {
		uint64_t size, offset;
		uint32_t chunk, skip, len;
	} bad[] = {
		{ 10, 0, 1, 0, 10 }, /* no such row */
		{ 10, 0, 0, 0, 11 }, /* beyond the file */
		{ 1000, 0, 0, 0, 101 }, /* beyond the chunk */
		{ 1000, 0, 0, 100, 1 },
		{ 1000, 0, 0, 0xffffffff, 2 }, /* overflows */
		{ 1000, UINT64_MAX, 0, 0, 1 },
		{ UINT64_MAX, 0, 0, 0, 1 }, /* impossible size */
		{ (UINT64_C(1) << 60) + 1, 0, 0, 0, 1 },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct forge f;
		forge_begin(&f);
		forge_chunk(&f, 100);
		forge_file(&f, "x", bad[i].size, bad[i].offset, bad[i].chunk, bad[i].skip, bad[i].len);
		assert_int_equal(read_forged(&f), IM_ECORRUPT);
	}
}

static void segment__refuses_overlapping_pieces(void **state)
{
	(void)state;
	auto_buf struct im_buf body = { 0 };
	struct forge f;
	im_buf_put_u64(&body, 100);
	im_buf_put_u32(&body, 2);
	for (int i = 0; i < 2; i++) {
		im_buf_put_u64(&body, 10);
		im_buf_put_u32(&body, 0);
		im_buf_put_u32(&body, 0);
		im_buf_put_u32(&body, 10);
	}
	forge_begin(&f);
	forge_chunk(&f, 100);
	forge_add(&f, AE_IFREG, "x", NULL, NULL, body.data, body.len);
	assert_int_equal(read_forged(&f), IM_ECORRUPT);
}

static void segment__refuses_malformed_bodies(void **state)
{
	(void)state;
	static const uint8_t bytes[32] = { 5, 0, 0, 0, 0, 0, 0, 0, 1 };
	static const size_t lengths[] = { 0, 1, 11, 12, 31 };
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		struct forge f;
		forge_begin(&f);
		forge_chunk(&f, 100);
		forge_add(&f, AE_IFREG, "x", NULL, NULL, bytes, lengths[i]);
		assert_int_equal(read_forged(&f), IM_ECORRUPT);
	}
}

static void segment__refuses_bad_tables(void **state)
{
	(void)state;
	static const uint8_t huge[8] = { 0xff, 0xff, 0xff, 0xff };
	assert_int_equal(read_all(huge, 8), IM_ECORRUPT);
	assert_int_equal(read_all(huge, 3), IM_ECORRUPT);
	struct forge f;
	forge_begin(&f);
	forge_chunk(&f, ENTRY_MAX_PLAIN_BYTES + 1);
	forge_add(&f, AE_IFDIR, ".", NULL, NULL, NULL, 0);
	assert_int_equal(read_forged(&f), IM_ECORRUPT);
}

static void segment__survives_every_cut_and_flip(void **state)
{
	(void)state;
	struct forge f;
	auto_buf struct im_buf bytes = { 0 };
	forge_begin(&f);
	forge_chunk(&f, 100);
	forge_add(&f, AE_IFDIR, ".", NULL, NULL, NULL, 0);
	forge_file(&f, "file", 10, 0, 0, 0, 10);
	forge_add(&f, AE_IFLNK, "sym", "file", NULL, NULL, 0);
	forge_add(&f, AE_IFREG, "hard", NULL, "file", NULL, 0);
	forge_end(&f, &bytes);
	for (size_t len = 0; len < bytes.len; len += 7) {
		auto_free uint8_t *copy = malloc(len + 1); /* exact, so that a sanitizer sees reads beyond */
		memcpy(copy, bytes.data, len);
		read_all(copy, len);
	}
	for (size_t i = 0; i < bytes.len; i++) {
		bytes.data[i] ^= (uint8_t)(1u << (i % 8));
		read_all(bytes.data, bytes.len);
		bytes.data[i] ^= (uint8_t)(1u << (i % 8));
	}
	assert_int_equal(read_all(bytes.data, bytes.len), 0);
}

static void memory__round_trip_and_damage(void **state)
{
	(void)state;
	auto_buf struct im_buf bytes = { 0 };
	struct files_memory m;
	struct im_ref ref = { 1, 2, 3, 4, 5 };
	struct files_chunk chunk = { .ref = { 9, 8, 7, 6, 5 } };
	struct files_piece pieces[2] = { { 0, 0, 0, 3 }, { 10, 0, 3, 2 } };
	struct files_known known[2] = { { .name = { 1 }, .size_bytes = 100, .pieces = pieces, .piece_count = 2 },
		{ .name = { 2 } } };
	char *sqlite[] = { "some/db" };
	struct files_memory in = { .digest = { 7 },
		.refs = &ref,
		.ref_count = 1,
		.counts = { 1, 2, 3, 4 },
		.chunks = &chunk,
		.chunk_count = 1,
		.known = known,
		.known_count = 2,
		.sqlite = sqlite,
		.sqlite_count = 1 };
	assert_int_equal(files_memory_encode(&in, &bytes, NULL), 0);
	assert_int_equal(files_memory_decode(bytes.data, bytes.len, &m, NULL), 0);
	assert_int_equal(m.known_count, 2);
	const struct files_known *k = files_memory_find(&m, known[0].name);
	assert_non_null(k);
	assert_int_equal(k->piece_count, 2);
	assert_pieces_equal(k->pieces, pieces, 2);
	assert_string_equal(m.sqlite[0], "some/db");
	assert_int_equal(m.counts.bytes, 4);
	files_memory_clear(&m);
	for (size_t len = 0; len < bytes.len; len++) {
		auto_free uint8_t *copy = malloc(len + 1);
		memcpy(copy, bytes.data, len);
		assert_int_equal(files_memory_decode(copy, len, &m, NULL), IM_ECORRUPT);
	}
	for (size_t i = 0; i < bytes.len * 8; i++) {
		bytes.data[i / 8] ^= (uint8_t)(1u << (i % 8));
		if (!files_memory_decode(bytes.data, bytes.len, &m, NULL))
			files_memory_clear(&m);
		bytes.data[i / 8] ^= (uint8_t)(1u << (i % 8));
	}
}

static void path_valid__knows_good_from_bad(void **state)
{
	(void)state;
	assert_true(files_path_valid("."));
	assert_true(files_path_valid("a"));
	assert_true(files_path_valid("a/..b/...c/."
				     "x"));
	assert_false(files_path_valid(""));
	assert_false(files_path_valid("/"));
	assert_false(files_path_valid("a/"));
	assert_false(files_path_valid(".."));
}

static void exclude__matches_as_documented(void **state)
{
	(void)state;
	struct im_config_pair pairs[] = { { "exclude", "*.log" }, { "exclude", "a/*/c" }, { "exclude", "/root only" },
		{ "exclude", "folder/" }, { "pre", "x" } };
	struct im_config_store store = { .name = "x", .type = "files", .path = "/x", .pairs = pairs, .pair_count = 5 };
	struct files_exclude x;
	assert_int_equal(files_exclude_init(&x, NULL, &store, NULL), 0);
	assert_true(files_exclude_match(&x, "deep/down/y.log", false));
	assert_true(files_exclude_match(&x, "a/b/c", false));
	assert_false(files_exclude_match(&x, "a/b/b/c", false));
	assert_false(files_exclude_match(&x, "z/a/b/c", false));
	assert_true(files_exclude_match(&x, "root only", false));
	assert_false(files_exclude_match(&x, "sub/root only", false));
	assert_true(files_exclude_match(&x, "sub/folder", true));
	assert_false(files_exclude_match(&x, "sub/folder", false));
	assert_false(files_exclude_match(&x, "x", false));
	files_exclude_clear(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(segment__round_trip),
		cmocka_unit_test(segment__equal_trees_make_equal_bytes),
		cmocka_unit_test(segment__refuses_bad_paths),
		cmocka_unit_test(segment__refuses_bad_pieces),
		cmocka_unit_test(segment__refuses_overlapping_pieces),
		cmocka_unit_test(segment__refuses_malformed_bodies),
		cmocka_unit_test(segment__refuses_bad_tables),
		cmocka_unit_test(segment__survives_every_cut_and_flip),
		cmocka_unit_test(memory__round_trip_and_damage),
		cmocka_unit_test(path_valid__knows_good_from_bad),
		cmocka_unit_test(exclude__matches_as_documented),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
