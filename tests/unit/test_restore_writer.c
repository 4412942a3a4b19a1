/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer against a model in memory: pieces of many files in random order, from two threads.
 */
#include "restore/writer.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static int dir_fd;
static struct writer *writer;

static int setup(void **state)
{
	struct im_error err = { 0 };
	(void)state;
	strcpy(dir, "/tmp/imvault-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_ok(writer_new(&writer, &err), &err);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	writer_free(writer);
	close(dir_fd);
	remove_tree(dir);
	return 0;
}

static struct writer_file file_of(const char *path, uint64_t size, bool unaligned)
{
	return (struct writer_file){ .path = path,
		.root_fd = dir_fd,
		.size_bytes = size,
		.whole = true,
		.unaligned = unaligned,
		.slot = -1 };
}

static void assert_content(struct writer_file *f, const uint8_t *expected)
{
	struct im_error err = { 0 };
	struct stat st;
	auto_close int fd = -1;
	assert_ok(writer_reopen(writer, f, &fd, &err), &err);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, f->size_bytes);
	auto_free uint8_t *got = malloc(f->size_bytes + 1);
	assert_int_equal(pread(fd, got, f->size_bytes, 0), (ssize_t)f->size_bytes);
	assert_memory_equal(got, expected, f->size_bytes);
}

struct piece {
	struct writer_file *file;
	const uint8_t *content;
	uint64_t offset;
	size_t len;
};

struct half {
	const struct piece *pieces;
	size_t count;
	int rc;
};

static void *put_half(void *context)
{
	struct half *h = context;
	struct im_error err = { 0 };
	for (size_t i = 0; i < h->count && h->rc == 0; i++)
		h->rc = writer_put(writer, h->pieces[i].file, h->pieces[i].offset,
		    h->pieces[i].content + h->pieces[i].offset, h->pieces[i].len, &err);
	return NULL;
}

static void put_from_two_threads(const struct piece *pieces, size_t count)
{
	struct im_error err = { 0 };
	struct half halves[2] = { { pieces, count / 2, 0 },
		{ pieces + count / 2, count - count / 2, 0 } };
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, put_half, &halves[i]);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(halves[i].rc, 0);
	}
	assert_ok(writer_drain(writer, &err), &err);
}

static void shuffle(struct piece *pieces, size_t count)
{
	uint64_t x = 88172645463325252u;
	for (size_t i = count; i > 1; i--) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		struct piece t = pieces[i - 1];
		pieces[i - 1] = pieces[x % i];
		pieces[x % i] = t;
	}
}

static size_t cut(struct piece *ret, struct writer_file *f, const uint8_t *content, size_t step)
{
	size_t n = 0;
	for (uint64_t at = 0; at < f->size_bytes; at += step, n++)
		ret[n] = (struct piece){ f, content, at,
			f->size_bytes - at < step ? (size_t)(f->size_bytes - at) : step };
	return n;
}

static void writer_put__arrives_in_any_order(void **state)
{
	(void)state;
	/* over the number of blocks, so that some must make room; tails of every kind */
	enum { BIG = 80 << 20 };
	struct writer_file files[] = {
		file_of("big", BIG + 12288, false),
		file_of("sub/odd-tail", (3 << 20) + 4097, false),
		file_of("unaligned", (5 << 20) + 77, true),
		file_of("small", 70000, true),
		file_of("two-mib", 2 << 20, false),
	};
	static const size_t steps[] = { 65536, 4096, 3000, 9999, 1 << 20 };
	auto_free uint8_t *content = malloc(BIG + 12288);
	fill_bytes(content, BIG + 12288, 7);
	auto_free struct piece *pieces = calloc(10000, sizeof *pieces);
	size_t count = 0;
	for (size_t i = 0; i < 5; i++)
		count += cut(pieces + count, &files[i], content, steps[i]);
	shuffle(pieces, count);
	put_from_two_threads(pieces, count);
	for (size_t i = 0; i < 5; i++)
		assert_content(&files[i], content);
}

static void writer_put__many_files_need_few_descriptors(void **state)
{
	(void)state;
	enum { FILES = 600 };
	auto_free struct writer_file *files = calloc(FILES, sizeof *files);
	auto_free struct piece *pieces = calloc(FILES * 2, sizeof *pieces);
	static char names[FILES][16];
	uint8_t content[200];
	struct rlimit old, few = { 400, 400 };
	fill_bytes(content, sizeof content, 3);
	for (size_t i = 0; i < FILES; i++) {
		snprintf(names[i], sizeof names[i], "d%zu/f%zu", i % 7, i);
		files[i] = file_of(names[i], sizeof content, true);
		pieces[2 * i] = (struct piece){ &files[i], content, 0, 100 };
		pieces[2 * i + 1] = (struct piece){ &files[i], content, 100, 100 };
	}
	shuffle(pieces, FILES * 2);
	getrlimit(RLIMIT_NOFILE, &old);
	few.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	put_from_two_threads(pieces, FILES * 2);
	setrlimit(RLIMIT_NOFILE, &old);
	for (size_t i = 0; i < FILES; i++)
		assert_content(&files[i], content);
}

static void writer_put__leaves_holes_where_nothing_came(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	struct writer_file f = file_of("sparse", 32 << 20, false);
	f.whole = false;
	auto_free uint8_t *expected = calloc(1, 32 << 20);
	memset(expected + (8 << 20), 'x', 8192);
	assert_ok(writer_put(writer, &f, 8 << 20, expected + (8 << 20), 8192, &err), &err);
	assert_ok(writer_drain(writer, &err), &err);
	assert_content(&f, expected);
	struct stat st;
	assert_int_equal(fstatat(dir_fd, "sparse", &st, 0), 0);
	assert_in_range(st.st_blocks * 512, 8192, 4 << 20);
}

static void writer_reopen__makes_files_nothing_was_written_to(void **state)
{
	(void)state;
	struct writer_file empty = file_of("empty", 0, false), hole = file_of("hole", 10000, false);
	uint8_t zeros[10000] = { 0 };
	assert_content(&empty, zeros);
	assert_content(&hole, zeros);
}

static void writer_put__reports_a_full_disk(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	struct rlimit old, small = { 1 << 20, 1 << 20 };
	auto_free uint8_t *content = calloc(1, 4 << 20);
	struct writer_file f = file_of("large", 4 << 20, false);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	int rc = 0;
	for (uint64_t at = 0; at < 4 << 20 && rc == 0; at += 1 << 20)
		rc = writer_put(writer, &f, at, content, 1 << 20, &err);
	im_error_clear(&err);
	rc = writer_drain(writer, &err);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(rc, IM_ENOSPACE);
	assert_non_null(strstr(err.text, "large"));
}

static void writer_put__does_not_follow_a_planted_link(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	uint8_t content[100] = { 0 };
	struct writer_file direct = file_of("link", sizeof content, true),
			   through = file_of("way/file", sizeof content, true);
	assert_int_equal(symlinkat("/tmp/imvault-test-not-there", dir_fd, "link"), 0);
	assert_int_equal(symlinkat("/tmp", dir_fd, "way"), 0);
	assert_int_not_equal(writer_put(writer, &direct, 0, content, sizeof content, &err), 0);
	im_error_clear(&err);
	assert_int_not_equal(writer_put(writer, &through, 0, content, sizeof content, &err), 0);
	assert_int_equal(access("/tmp/imvault-test-not-there", F_OK), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(writer_put__arrives_in_any_order),
		TEST(writer_put__many_files_need_few_descriptors),
		TEST(writer_put__leaves_holes_where_nothing_came),
		TEST(writer_reopen__makes_files_nothing_was_written_to),
		TEST(writer_put__reports_a_full_disk),
		TEST(writer_put__does_not_follow_a_planted_link),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
