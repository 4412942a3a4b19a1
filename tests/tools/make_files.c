/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File trees for imvault-make-store: uploads as mod_http_file_share keeps them (incompressible, of
 * very different sizes) with everything odd that Linux lets into a folder, and a crowd of small
 * files. What the file system refuses (xattrs, FIFOs) is left out; whoever compares the trees
 * compares what is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "make_rng.h"
#include "make_store.h"

enum {
	BUFFER_BYTES = 1 << 20,
	FILES_PER_FOLDER = 200,
};

static int create_at(int folder, const char *name)
{
	int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

	if (fd < 0)
		make_die("cannot create %s: %s", name, strerror(errno));
	return fd;
}

static void write_all(int fd, const void *data, size_t length)
{
	const char *at = data;

	while (length) {
		ssize_t wrote = write(fd, at, length);

		if (wrote < 0)
			make_die("cannot write: %s", strerror(errno));
		at += wrote;
		length -= (size_t)wrote;
	}
}

static void write_random(int fd, struct rng *rng, uint64_t bytes)
{
	static uint64_t buffer[BUFFER_BYTES / 8];

	while (bytes) {
		size_t part = bytes < BUFFER_BYTES ? (size_t)bytes : BUFFER_BYTES;

		for (size_t i = 0; i < (part + 7) / 8; i++)
			buffer[i] = rng_next(rng);
		write_all(fd, buffer, part);
		bytes -= part;
	}
}

/* Sizes spread evenly over their logarithm. */
static uint64_t draw_size(struct rng *rng, double low, double high)
{
	return (uint64_t)(low * pow(high / low, rng_unit(rng)));
}

static void set_time(int folder, const char *name, struct rng *rng)
{
	struct timespec times[2];

	times[0].tv_sec = times[1].tv_sec = 1700000000 + rng_below(rng, 34560000);
	times[0].tv_nsec = times[1].tv_nsec = rng_below(rng, 1000000000);
	utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW);
}

static int open_folder(int parent, const char *name)
{
	int fd;

	if (mkdirat(parent, name, 0750) != 0 && errno != EEXIST)
		make_die("cannot create folder %s: %s", name, strerror(errno));
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		make_die("cannot open folder %s: %s", name, strerror(errno));
	return fd;
}

static void make_named(int folder, const char *name, struct rng *rng, uint64_t bytes)
{
	int fd = create_at(folder, name);

	write_random(fd, rng, bytes);
	close(fd);
	set_time(folder, name, rng);
}

static void make_sparse(int folder, struct rng *rng)
{
	int fd = create_at(folder, "sparse.img");

	if (ftruncate(fd, 64 << 20) != 0)
		make_die("cannot grow sparse.img: %s", strerror(errno));
	lseek(fd, 5 << 20, SEEK_SET);
	write_random(fd, rng, 100000);
	lseek(fd, 40 << 20, SEEK_SET);
	write_random(fd, rng, 4096);
	close(fd);
}

static void make_links(int folder)
{
	if (symlinkat("plain.bin", folder, "link-to-plain") != 0 ||
	    symlinkat("/nowhere/at/all", folder, "dangling") != 0 ||
	    symlinkat("../odd", folder, "loop") != 0 ||
	    linkat(folder, "plain.bin", folder, "second-name.bin", 0) != 0)
		make_die("cannot make links: %s", strerror(errno));
}

/* One folder with all that has ever surprised a backup tool. */
static void make_odd(int top, struct rng *rng)
{
	int folder = open_folder(top, "odd"), fd;
	char longest[256];

	memset(longest, 'n', 255);
	longest[255] = '\0';
	make_named(folder, "plain.bin", rng, 70000);
	make_named(folder, "empty", rng, 0);
	make_named(folder, " leading and trailing ", rng, 10);
	make_named(folder, "-rf", rng, 10);
	make_named(folder, "new\nline\ttab", rng, 10);
	make_named(folder, "quote'\"\\back*?[x]$(id)", rng, 10);
	make_named(folder, "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x91\x8b.txt", rng, 10);
	make_named(folder, "not-utf8-\xff\xfe", rng, 10);
	make_named(folder, longest, rng, 10);
	make_named(folder, "exactly-64k", rng, 65536);
	make_named(folder, "exactly-1m", rng, 1048576);
	make_named(folder, "setgid", rng, 10);
	fchmodat(folder, "setgid", 02750, 0);
	make_named(folder, "read-only", rng, 10);
	fchmodat(folder, "read-only", 0400, 0);
	make_sparse(folder, rng);
	make_links(folder);
	(void)mkfifoat(folder, "fifo", 0600);
	close(open_folder(folder, "empty-folder"));
	fchmodat(folder, "empty-folder", 01777, 0);
	fd = openat(folder, "plain.bin", O_RDONLY | O_CLOEXEC);
	(void)!fsetxattr(fd, "user.imvault.note", "kept\0with zero", 14, 0);
	(void)!fsetxattr(fd, "user.empty", "", 0, 0);
	close(fd);
	close(folder);
	set_time(top, "odd", rng);
}

int files_make_uploads(const char *path, uint64_t bytes, uint64_t seed)
{
	double largest = bytes < (32u << 20) ? (double)bytes / 8 + 30000 : (double)(32u << 20);
	uint64_t done = 0, files = 0;
	int top = open_folder(AT_FDCWD, path), host, share, folder = -1;
	struct rng rng;
	char name[40];

	rng_seed(&rng, seed ^ 0x75706c6f6164);
	make_odd(top, &rng);
	host = open_folder(top, "im%2eexample%2eorg");
	share = open_folder(host, "http_file_share");
	for (; done < bytes; files++) {
		uint64_t size = draw_size(&rng, 20000, largest);

		if (files % FILES_PER_FOLDER == 0) {
			if (folder >= 0)
				close(folder);
			snprintf(name, sizeof(name), "%04" PRIu64, files / FILES_PER_FOLDER);
			folder = open_folder(share, name);
		}
		if (size > bytes - done)
			size = bytes - done;
		snprintf(name, sizeof(name), "%016" PRIx64 "%08x.bin", rng_next(&rng),
			 rng_below(&rng, UINT32_MAX));
		make_named(folder, name, &rng, size);
		done += size;
	}
	printf("files=%" PRIu64 " bytes=%" PRIu64 "\n", files, done);
	if (folder >= 0)
		close(folder);
	close(share);
	close(host);
	close(top);
	return 0;
}

/* Small files: two in three are text records, the others thumbnails. */
static uint64_t make_small_file(int folder, const char *name, struct rng *rng, struct text *text,
				struct str *body)
{
	uint64_t size = draw_size(rng, 200, 16000);
	int fd = create_at(folder, name);

	if (rng_below(rng, 3) == 0) {
		write_random(fd, rng, size);
	} else {
		for (body->length = 0; body->length < size;) {
			str_puts(body, "{\"type\":\"message\",\"body\":\"");
			text_body(text, rng, rng_below(rng, 2), body);
			str_puts(body, "\"}\n");
		}
		size = body->length;
		write_all(fd, body->data, size);
	}
	close(fd);
	return size;
}

int files_make_small(const char *path, uint64_t count, uint64_t seed)
{
	int top = open_folder(AT_FDCWD, path), folder = -1;
	struct text *text = text_new(NULL);
	struct str body = { 0 };
	uint64_t bytes = 0;
	struct rng rng;
	char name[40];

	rng_seed(&rng, seed ^ 0x736d616c6c);
	for (uint64_t i = 0; i < count; i++) {
		if (i % FILES_PER_FOLDER == 0) {
			if (folder >= 0)
				close(folder);
			snprintf(name, sizeof(name), "%05" PRIu64, i / FILES_PER_FOLDER);
			folder = open_folder(top, name);
		}
		snprintf(name, sizeof(name), "%08" PRIx64 "-%" PRIu64 ".dat", rng_next(&rng) >> 32, i);
		bytes += make_small_file(folder, name, &rng, text, &body);
	}
	printf("files=%" PRIu64 " bytes=%" PRIu64 "\n", count, bytes);
	if (folder >= 0)
		close(folder);
	close(top);
	text_free(text);
	free(body.data);
	return 0;
}
