/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder whose files are being filled, shown through FUSE: what it gives, what it keeps, and that
 * it fails closed. The view is served by a process of its own, so that it can be killed and so that
 * nothing here waits for itself.
 */
#include "base/cleanup.h"
#include "fixture.h"
#include "restore/instant/lazy.h"
#include "view_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static unsigned blocks_there(uint32_t file)
{
	unsigned n = 0;
	for (uint32_t b = 0; b < rig.table.files[file].blocks; b++)
		n += (*table_block(&rig.table, file, b) & BLOCK_STATE) == BLOCK_DONE;
	return n;
}

/* --- what it gives --- */

static void view__brings_what_is_read(void **state)
{
	(void)state;
	auto_close int fd = open_in("big", O_RDONLY);
	assert_int_equal(blocks_there(FILE_BIG), 0);
	assert_holds(fd, 20 * BLOCK + 5, rig.sources[FILE_BIG].data + 20 * BLOCK + 5, 10);
	assert_true(blocks_there(FILE_BIG) > 0 && blocks_there(FILE_BIG) < 40);
	assert_holds(fd, 0, rig.sources[FILE_BIG].data, BIG);
	auto_close int small = open_in("sub/small", O_RDONLY);
	const uint8_t *map = mmap(NULL, SMALL, PROT_READ, MAP_PRIVATE, small, 0);
	assert_true(map != MAP_FAILED);
	assert_memory_equal(map, rig.sources[FILE_SMALL].data, SMALL);
	munmap((void *)map, SMALL);
	assert_true(rig.table.head->events > 0);
}

static void view__serves_direct_accesses_and_copies(void **state)
{
	uint8_t *bytes = aligned_alloc(4096, 8 * 4096);
	(void)state;
	auto_close int fd = open_in("big", O_RDWR | O_DIRECT);
	assert_int_equal(pread(fd, bytes, 8 * 4096, 4096), 8 * 4096);
	assert_memory_equal(bytes, rig.sources[FILE_BIG].data + 4096, 8 * 4096);
	memset(bytes, 'd', 4096);
	assert_int_equal(pwrite(fd, bytes, 4096, (off_t)(20 * BLOCK)), 4096);
	memset(rig.sources[FILE_BIG].data + 20 * BLOCK, 'd', 4096);
	auto_close int from = open_in("big", O_RDONLY), to = open_in("copy", O_RDWR | O_CREAT);
	for (ssize_t n = 1; n > 0;)
		n = copy_file_range(from, NULL, to, NULL, BIG, 0);
	assert_holds(to, 0, rig.sources[FILE_BIG].data, BIG);
	free(bytes);
}

static void view__shows_no_holes_and_the_times_of_the_snapshot(void **state)
{
	struct stat st;
	(void)state;
	auto_close int fd = open_in("big", O_RDONLY);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), BIG);
	assert_int_equal(lseek(fd, 12345, SEEK_DATA), 12345);
	assert_int_equal(lseek(fd, BIG, SEEK_DATA), -1);
	assert_int_equal(errno, ENXIO);
	assert_holds(fd, 0, rig.sources[FILE_BIG].data, BIG);
	assert_int_equal(stat(in("big"), &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, MTIME);
	assert_int_equal(st.st_mtim.tv_nsec, 5);
	assert_int_equal(st.st_size, BIG);
	assert_int_equal(st.st_nlink, 1); /* the one in the stage is ours */
	rig_wait_for_background();
	close(TAKE_FD(fd));
	rig_unmount();
	assert_int_equal(stat(below(rig.staged, "big"), &st), 0); /* read, but not changed */
	assert_int_equal(st.st_mtim.tv_sec, MTIME);
}

static void view__gives_an_error_for_what_is_damaged(void **state)
{
	char byte;
	struct timespec now[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1234 } };
	(void)state;
	auto_close int fd = open_in("bad", O_RDWR);
	assert_holds(fd, 4 * BLOCK, rig.sources[FILE_BAD].data + 4 * BLOCK, BLOCK);
	assert_int_equal(pread(fd, &byte, 1, (off_t)(5 * BLOCK)), -1);
	assert_int_equal(errno, EIO);
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)(5 * BLOCK + 9)), -1);
	assert_int_equal(errno, EIO);
	assert_int_equal(ftruncate(fd, (off_t)(5 * BLOCK + 9)), -1);
	assert_int_equal(errno, EIO);
	assert_int_equal(futimens(fd, now), -1);
	assert_int_equal(errno, EIO);
	assert_holds(fd, 6 * BLOCK, rig.sources[FILE_BAD].data + 6 * BLOCK, 4 * BLOCK);
	assert_int_equal(rig.table.head->bad_blocks, 1);
	assert_int_equal(ftruncate(fd, (off_t)(5 * BLOCK)), 0); /* then nobody needs it */
}

static void view__waits_for_the_vault_without_holding_up_others(void **state)
{
	char vault[128], away[128];
	(void)state;
	snprintf(vault, sizeof vault, "%s/vault.json", rig.vault);
	snprintf(away, sizeof away, "%s/away.json", rig.vault);
	rig.shared->away = true;
	assert_int_equal(rename(vault, away), 0);
	pid_t readers[20];
	for (unsigned i = 0; i < 20; i++)
		if (!(readers[i] = fork())) {
			int fd = open(in(i % 2 ? "big" : "sub/small"), O_RDWR);
			uint8_t byte = 0;
			uint64_t at = (uint64_t)i * 13000;
			_exit(fd < 0 || pread(fd, &byte, 1, (off_t)at) != 1 || byte != byte_at(at));
		}
	for (unsigned i = 0; rig.table.head->waiting < 10; i++) {
		assert_true(i < 5000);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	kill(readers[0], SIGKILL); /* who is killed does not wait */
	assert_int_equal(waitpid(readers[0], NULL, 0), readers[0]);
	for (unsigned i = 0; i < 50; i++) { /* meanwhile */
		auto_close int fd = open_in("new", O_RDWR | O_CREAT);
		assert_int_equal(pwrite(fd, "x", 1, i), 1);
		assert_int_equal(rename(in("new"), in("newer")), 0);
		assert_int_equal(unlink(in("newer")), 0);
	}
	assert_true(rig.table.head->away_since_us != 0);
	rig.shared->away = false;
	assert_int_equal(rename(away, vault), 0);
	for (unsigned i = 1; i < 20; i++) {
		int status;
		waitpid(readers[i], &status, 0);
		assert_int_equal(status, 0);
	}
}

/* --- what it keeps --- */

static void view__keeps_what_is_written(void **state)
{
	uint8_t *model = malloc(BIG + 100);
	struct stat st;
	(void)state;
	memcpy(model, rig.sources[FILE_BIG].data, BIG);
	auto_close int fd = open_in("big", O_RDWR), end = open_in("big", O_WRONLY | O_APPEND);
	memset(model + 5 * BLOCK - 50, 'w', 100);
	assert_int_equal(pwrite(fd, model + 5 * BLOCK - 50, 100, (off_t)(5 * BLOCK - 50)), 100);
	memset(model + BIG, 'a', 100);
	assert_int_equal(write(end, model + BIG, 60), 60);
	assert_int_equal(write(end, model + BIG + 60, 40), 40);
	assert_holds(fd, 4 * BLOCK, model + 4 * BLOCK, 2 * BLOCK);
	rig.shared->background = true;
	assert_holds(fd, 0, model, BIG + 100);
	assert_int_equal(fsync(fd), 0);
	rig_wait_for_background();
	assert_holds(fd, 0, model, BIG + 100);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_mtim.tv_sec > MTIME);
	close(TAKE_FD(fd));
	close(TAKE_FD(end));
	rig_unmount();
	auto_close int real = open(below(rig.staged, "big"), O_RDONLY);
	assert_holds(real, 0, model, BIG + 100);
	assert_true(fgetxattr(real, LAZY_ATTRIBUTE, NULL, 0) < 0);
	free(model);
}

static void view__never_brings_back_what_was_cut_off(void **state)
{
	static const uint8_t zeros[200000];
	uint64_t cut = 2 * BLOCK + 100;
	char limit[32] = "";
	(void)state;
	assert_int_equal(truncate(in("sub/small"), (off_t)cut), 0);
	auto_close int real = open(below(rig.staged, "sub/small"), O_RDONLY);
	assert_true(fgetxattr(real, LAZY_LIMIT, limit, sizeof limit - 1) > 0);
	assert_int_equal(strtoull(limit, NULL, 10), cut);
	auto_close int fd = open_in("sub/small", O_RDWR);
	assert_int_equal(ftruncate(fd, 250000), 0);
	assert_int_equal(pwrite(fd, "end", 3, 260000), 3);
	auto_close int other = open_in("big", O_RDWR | O_TRUNC);
	assert_int_equal(pwrite(other, "anew", 4, 300000), 4);
	rig_wait_for_background();
	assert_holds(fd, 0, rig.sources[FILE_SMALL].data, cut);
	assert_holds(fd, cut, zeros, 100000);
	assert_holds(fd, 260000, (const uint8_t *)"end", 3);
	assert_holds(other, 0, zeros, 200000);
	assert_holds(other, 300000, (const uint8_t *)"anew", 4);
	struct stat st;
	assert_int_equal(fstat(other, &st), 0);
	assert_int_equal(st.st_size, 300004);
	assert_int_equal(st.st_size, lseek(other, 0, SEEK_END));
}

static void view__reserves_space_but_punches_no_holes_into_what_is_still_arriving(void **state)
{
	(void)state;
	auto_close int fd = open_in("big", O_RDWR);
	int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	assert_int_equal(fallocate(fd, punch, 0, 8192), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(fallocate(fd, 0, BIG - 10, 100000), 0);
	assert_holds(fd, BIG - 10, rig.sources[FILE_BIG].data + BIG - 10, 10);
	rig_wait_for_background();
	assert_holds(fd, 0, rig.sources[FILE_BIG].data, BIG);
	assert_int_equal(fallocate(fd, punch, 0, 8192), 0);
	uint8_t byte;
	assert_int_equal(pread(fd, &byte, 1, 100), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), 0);
}

static void view__keeps_what_is_written_through_a_map(void **state)
{
	(void)state;
	auto_close int fd = open_in("big", O_RDWR);
	uint8_t *map = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	memset(map + 10 * BLOCK + 3, 'm', 5000);
	memset(rig.sources[FILE_BIG].data + 10 * BLOCK + 3, 'm', 5000); /* the server has its own copy */
	pid_t child = fork(); /* two processes, one page */
	if (child == 0) {
		int again = open(in("big"), O_RDWR);
		uint8_t *other = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0);
		bool right = other != MAP_FAILED && other[10 * BLOCK + 3] == 'm' && other[10 * BLOCK + 2] == byte_at(10 * BLOCK + 2);
		if (right)
			other[10 * BLOCK + 4] = 'n';
		_exit(!right);
	}
	int status;
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	rig.sources[FILE_BIG].data[10 * BLOCK + 4] = 'n';
	assert_memory_equal(map, rig.sources[FILE_BIG].data, BIG);
	assert_int_equal(msync(map, BIG, MS_SYNC), 0);
	auto_close int real = open(below(rig.staged, "big"), O_RDONLY);
	assert_holds(real, 10 * BLOCK, rig.sources[FILE_BIG].data + 10 * BLOCK, BLOCK);
	map[0] = 'z';
	munmap(map, BIG);
	close(TAKE_FD(fd));
	rig_unmount();
	assert_holds(real, 0, (const uint8_t *)"z", 1);
}

static void view__keeps_a_time_that_is_set(void **state)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1400000000, .tv_nsec = 7 } };
	struct stat st;
	(void)state;
	assert_int_equal(utimensat(AT_FDCWD, in("sub/small"), times, 0), 0);
	rig_wait_for_background();
	assert_int_equal(stat(in("sub/small"), &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, 1400000000);
	rig_unmount();
	assert_int_equal(stat(below(rig.staged, "sub/small"), &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, 1400000000);
	assert_int_equal(st.st_mtim.tv_nsec, 7);
}

/* What "big" must hold, whatever is done to it. */
struct model {
	uint8_t *data;
	uint64_t size, random;
};

enum { MODEL_MAX = BIG + 300000 };

static void model_begin(struct model *m, uint64_t seed)
{
	*m = (struct model){ .data = calloc(1, MODEL_MAX), .size = BIG, .random = seed };
	assert_non_null(m->data);
	memcpy(m->data, rig.sources[FILE_BIG].data, BIG);
}

static void cut(struct model *m, int fd, uint64_t to)
{
	assert_int_equal(m->random & 64 ? ftruncate(fd, (off_t)to) : truncate(in("big"), (off_t)to), 0);
	memset(m->data + to, 0, MODEL_MAX - to);
	m->size = to;
}

static void put(struct model *m, int fd, uint64_t at, uint64_t len, int byte)
{
	len = at + len < MODEL_MAX ? len : MODEL_MAX - at;
	memset(m->data + at, byte, len);
	assert_int_equal(pwrite(fd, m->data + at, len, (off_t)at), len);
	m->size = at + len > m->size ? at + len : m->size;
}

static void put_mapped(struct model *m, int fd, uint64_t at, uint64_t len, int byte)
{
	if (at >= m->size)
		return;
	len = len < m->size - at ? len : m->size - at;
	uint8_t *map = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	memset(map + at, byte, len);
	memset(m->data + at, byte, len);
	munmap(map, m->size);
}

/* One thing, by chance. */
static void model_step(struct model *m, int fd, unsigned step, bool maps)
{
	uint64_t r = m->random;
	r ^= r << 13, r ^= r >> 7, r ^= r << 17;
	m->random = r;
	uint64_t at = (r >> 8) % (m->size + 1000), len = (r >> 40) % (step % 7 ? 9000 : 150000) + 1;
	switch (r % 16) {
	case 0: /* shorter, now and then much */
		cut(m, fd, m->size - (r >> 20) % (r % 5 ? 70000 : m->size / 3 + 1) % (m->size + 1));
		break;
	case 1: /* longer */
	case 2:
		m->size = m->size + len < MODEL_MAX ? m->size + len : MODEL_MAX;
		assert_int_equal(ftruncate(fd, (off_t)m->size), 0);
		break;
	case 3:
		if (maps)
			put_mapped(m, fd, at, len, (int)step);
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		put(m, fd, at, len, (int)(step * 3));
		break;
	default:
		if (at < m->size)
			assert_holds(fd, at, m->data + at, len < m->size - at ? len : m->size - at);
	}
}

/* Anything, in any order, while the file arrives and becomes an ordinary one: always what an ordinary file would hold. */
static void view__equals_an_ordinary_file(void **state)
{
	enum { STEPS = 4000 };
	struct model m;
	(void)state;
	model_begin(&m, 88172645463325252u);
	auto_close int fd = open_in("big", O_RDWR);
	for (unsigned step = 0; step < STEPS; step++) {
		rig.shared->background = step > STEPS / 8;
		model_step(&m, fd, step, true);
	}
	assert_holds(fd, 0, m.data, m.size);
	assert_int_equal(lseek(fd, 0, SEEK_END), m.size);
	rig_wait_for_background();
	assert_holds(fd, 0, m.data, m.size);
	close(TAKE_FD(fd));
	rig_unmount();
	auto_close int real = open(below(rig.staged, "big"), O_RDONLY);
	assert_holds(real, 0, m.data, m.size);
	free(m.data);
}

static void view__goes_on_from_what_is_in_the_files(void **state)
{
	struct model m;
	struct im_error err = { 0 };
	(void)state;
	model_begin(&m, 424242);
	for (unsigned round = 0; round < 5; round++) {
		auto_close int fd = open_in("big", O_RDWR);
		for (unsigned step = 0; step < 15; step++)
			model_step(&m, fd, round * 15 + step, false);
		rig_kill();
		close(TAKE_FD(fd));
		assert_ok(fuse_view_unmount(rig.target, true, &err), &err);
		rig_forget_the_table();
		rig_serve();
	}
	auto_close int fd = open_in("big", O_RDWR);
	assert_holds(fd, 0, m.data, m.size);
	rig_wait_for_background();
	assert_holds(fd, 0, m.data, m.size);
	free(m.data);
}

/* --- names and attributes --- */

static void view__passes_names_through(void **state)
{
	struct stat st, again;
	char text[64] = "";
	unsigned seen = 0;
	(void)state;
	assert_int_equal(mkdir(in("d"), 0750), 0);
	assert_int_equal(stat(in("d"), &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0750);
	for (unsigned i = 0; i < 700; i++) {
		char name[64];
		snprintf(name, sizeof name, "d/%u of a name that takes some room", i);
		auto_close int fd = open_in(name, O_CREAT | O_EXCL | O_WRONLY);
	}
	DIR *dir = opendir(in("d"));
	for (struct dirent *e; (e = readdir(dir));)
		seen += e->d_name[0] != '.';
	closedir(dir);
	assert_int_equal(seen, 700);
	remove_tree(in("d"));
	assert_int_equal(access(in("d"), F_OK), -1);
	assert_int_equal(mkfifo(in("fifo"), 0600), 0);
	assert_int_equal(symlink("sub/small", in("link")), 0);
	assert_int_equal(readlink(in("link"), text, sizeof text - 1), 9);
	assert_string_equal(text, "sub/small");
	assert_int_equal(lchown(in("link"), 12, 13), 0);
	assert_int_equal(utimensat(AT_FDCWD, in("link"), (const struct timespec[2]){ { .tv_sec = 5 }, { .tv_sec = 6 } }, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(lstat(in("link"), &st), 0);
	assert_true(S_ISLNK(st.st_mode) && st.st_uid == 12 && st.st_mtim.tv_sec == 6);
	assert_int_equal(link(in("sub/small"), in("other name")), 0);
	assert_int_equal(stat(in("other name"), &st), 0);
	assert_int_equal(stat(in("link"), &again), 0);
	assert_true(st.st_nlink == 2 && st.st_ino == again.st_ino && again.st_uid == 0);
	assert_int_equal(rename(in("sub/small"), in("moved")), 0); /* it is the same file under all its names */
	auto_close int fd = open_in("moved", O_RDONLY);
	assert_holds(fd, 0, rig.sources[FILE_SMALL].data, SMALL);
	assert_int_equal(renameat2(AT_FDCWD, in("moved"), AT_FDCWD, in("big"), RENAME_NOREPLACE), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(renameat2(AT_FDCWD, in("moved"), AT_FDCWD, in("big"), RENAME_EXCHANGE), 0);
	assert_int_equal(stat(in("moved"), &st), 0);
	assert_int_equal(st.st_size, BIG);
	assert_int_equal(unlink(in("big")), 0);
	assert_int_equal(unlink(in("other name")), 0);
	assert_int_equal(fstat(fd, &st), 0); /* open without any name */
	assert_int_equal(st.st_nlink, 0);
	assert_holds(fd, 1000, rig.sources[FILE_SMALL].data + 1000, 1000);
	auto_close int top = open(rig.target, O_RDONLY | O_DIRECTORY);
	assert_int_equal(fsync(top), 0);
}

static int as_nobody(void)
{
	umask(027);
	if (setgid(65534) || setuid(65534))
		return 1;
	int fd = open(in("open/mine"), O_RDWR | O_CREAT | O_EXCL, 0666);
	if (fd < 0 || mkdir(in("open/folder"), 0777) || symlink("x", in("open/link")))
		return 2;
	if (open(in("sub/small"), O_RDWR) >= 0 || errno != EACCES)
		return 3;
	if (open(in("sub/mine"), O_RDWR | O_CREAT, 0600) >= 0 || errno != EACCES)
		return 4;
	return unlink(in("open/roots")) == 0 || errno != EPERM ? 5 : 0; /* sticky */
}

static void view__makes_files_as_their_owners(void **state)
{
	struct stat st;
	int status;
	(void)state;
	assert_int_equal(mkdir(in("open"), 0777), 0);
	assert_int_equal(chown(in("open"), 0, 4321), 0);
	assert_int_equal(chmod(in("open"), 03777), 0);
	close(open_in("open/roots", O_CREAT | O_WRONLY));
	pid_t child = fork();
	if (child == 0)
		_exit(as_nobody());
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(stat(in("open/mine"), &st), 0);
	assert_true(st.st_uid == 65534 && st.st_gid == 4321 && (st.st_mode & 07777) == 0640);
	assert_int_equal(stat(in("open/folder"), &st), 0);
	assert_true(st.st_uid == 65534 && st.st_gid == 4321 && (st.st_mode & 07777) == 02750);
	assert_int_equal(lstat(in("open/link"), &st), 0);
	assert_int_equal(st.st_uid, 65534);
	assert_int_equal(lstat(below(rig.staged, "open/mine"), &st), 0);
	assert_int_equal(st.st_uid, 65534);
	assert_int_equal(chmod(in("open/mine"), 06755), 0); /* whoever writes to it takes the bits away */
	child = fork();
	if (child == 0) {
		int fd = setgid(65534) || setuid(65534) ? -1 : open(in("open/mine"), O_WRONLY);
		_exit(write(fd, "x", 1) != 1);
	}
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(stat(in("open/mine"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
}

static bool lists(const char *path, const char *name)
{
	char list[4096];
	ssize_t n = listxattr(path, list, sizeof list);
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1)
		if (strcmp(list + at, name) == 0)
			return true;
	return false;
}

static void view__hides_our_attributes(void **state)
{
	char value[64];
	(void)state;
	assert_true(lists(below(rig.staged, "big"), LAZY_ATTRIBUTE));
	assert_false(lists(in("big"), LAZY_ATTRIBUTE));
	assert_int_equal(getxattr(in("big"), LAZY_ATTRIBUTE, value, sizeof value), -1);
	assert_int_equal(errno, ENODATA);
	assert_int_equal(setxattr(in("big"), LAZY_LIMIT, "5", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(removexattr(in("big"), LAZY_ATTRIBUTE), -1);
	assert_int_equal(errno, ENODATA);
	assert_int_equal(setxattr(in("big"), "user.colour", "blue", 4, 0), 0);
	assert_int_equal(setxattr(in("big"), "user.colour", "blue", 4, XATTR_CREATE), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(getxattr(in("big"), "user.colour", NULL, 0), 4);
	assert_int_equal(getxattr(in("big"), "user.colour", value, sizeof value), 4);
	assert_memory_equal(value, "blue", 4);
	assert_true(lists(in("big"), "user.colour"));
	assert_int_equal(listxattr(in("big"), value, 3), -1);
	assert_int_equal(errno, ERANGE);
	assert_int_equal(removexattr(in("big"), "user.colour"), 0);
	assert_false(lists(in("big"), "user.colour"));
	assert_true(lists(below(rig.staged, "big"), LAZY_ATTRIBUTE));
}

static void view__does_with_few_descriptors(void **state)
{
	struct stat st;
	char name[32];
	(void)state;
	for (unsigned i = 0; i < 400; i++) {
		snprintf(name, sizeof name, "many%u", i);
		auto_close int fd = open_in(name, O_CREAT | O_WRONLY);
		assert_int_equal(write(fd, name, strlen(name)), strlen(name));
	}
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < 400; i++) {
			snprintf(name, sizeof name, "many%u", i);
			assert_int_equal(chmod(in(name), 0600 + round), 0);
			assert_int_equal(stat(in(name), &st), 0);
			assert_int_equal(st.st_mode & 0777, 0600 + round);
			auto_close int fd = open_in(name, O_RDONLY);
			assert_holds(fd, 0, (const uint8_t *)name, strlen(name));
		}
	for (unsigned i = 0; i < 400; i++) { /* numbers of files that are gone are used again */
		snprintf(name, sizeof name, "many%u", i);
		assert_int_equal(unlink(in(name)), 0);
		snprintf(name, sizeof name, "again%u", i);
		auto_close int fd = open_in(name, O_CREAT | O_RDWR);
		assert_int_equal(write(fd, name, strlen(name)), strlen(name));
		assert_holds(fd, 0, (const uint8_t *)name, strlen(name));
		assert_int_equal(unlink(in(name)), 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_nlink, 0);
	}
	auto_close int fd = open_in("big", O_RDONLY);
	assert_holds(fd, 0, rig.sources[FILE_BIG].data, BIG);
}

/* --- databases --- */

static void write_rows(unsigned writer, unsigned count)
{
	sqlite3 *db;
	if (sqlite3_open(in("some.db"), &db) != SQLITE_OK)
		_exit(1);
	sqlite3_busy_timeout(db, 60000);
	for (unsigned i = 0; i < count; i++) {
		char text[160];
		snprintf(text, sizeof text, "BEGIN IMMEDIATE; INSERT INTO t(x) VALUES('new %u %u'); UPDATE t SET x = x || '!' WHERE id = %u; COMMIT", writer, i,
		    (writer * 1000 + i * 37) % 8000 + 1);
		if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK) {
			fprintf(stderr, "writer: %s\n", sqlite3_errmsg(db));
			_exit(2);
		}
	}
	sqlite3_close(db);
	_exit(0);
}

static void run_sqlite(const char *mode)
{
	sqlite3 *db;
	char text[64];
	pid_t writers[2];
	assert_int_equal(sqlite3_open(in("some.db"), &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 60000);
	snprintf(text, sizeof text, "PRAGMA journal_mode = %s", mode);
	sql(db, text);
	assert_int_equal(number(db, "SELECT count(*) FROM t WHERE x LIKE 'row 7%'"), 1111);
	for (unsigned i = 0; i < 2; i++)
		if (!(writers[i] = fork()))
			write_rows(i, 60);
	rig.shared->background = true;
	for (unsigned i = 0; i < 10; i++)
		assert_sound(db);
	for (unsigned i = 0; i < 2; i++) {
		int status;
		waitpid(writers[i], &status, 0);
		assert_int_equal(status, 0);
	}
	assert_int_equal(number(db, "SELECT count(*) FROM t"), 8120);
	assert_int_equal(number(db, "SELECT sum(length(x) - length(rtrim(x, '!'))) FROM t"), 120);
	rig_wait_for_background();
	assert_sound(db);
	sqlite3_close(db);
	rig_unmount();
	assert_int_equal(sqlite3_open(below(rig.staged, "some.db"), &db), SQLITE_OK);
	assert_sound(db);
	assert_int_equal(number(db, "SELECT count(*) FROM t"), 8120);
	sqlite3_close(db);
}

static void view__carries_sqlite_with_a_log(void **state)
{
	(void)state;
	run_sqlite("WAL");
}

static void view__carries_sqlite_with_a_journal(void **state)
{
	(void)state;
	run_sqlite("DELETE");
}

/* --- its end --- */

static void view__closes_when_its_server_dies(void **state)
{
	struct im_error err = { 0 };
	char byte = 0;
	(void)state;
	auto_close int fd = open_in("big", O_RDWR);
	assert_holds(fd, 0, rig.sources[FILE_BIG].data, 1);
	rig_kill();
	assert_int_equal(pread(fd, &byte, 1, (off_t)(30 * BLOCK)), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_int_equal(pwrite(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_int_equal(open(in("sub/small"), O_RDONLY), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_int_equal(open(in("new"), O_RDWR | O_CREAT, 0600), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_true(fuse_view_is_mounted(rig.target));
	assert_int_equal(fuse_view_unmount(rig.target, false, &err), IM_ELOCKED);
	close(TAKE_FD(fd));
	im_error_clear(&err);
	assert_ok(fuse_view_unmount(rig.target, false, &err), &err);
	assert_false(fuse_view_is_mounted(rig.target));
	rig_serve(); /* another one goes on */
	fd = open_in("big", O_RDWR);
	assert_holds(fd, 0, rig.sources[FILE_BIG].data, BIG);
}

static void view__stays_while_somebody_uses_it(void **state)
{
	struct im_error err = { 0 };
	(void)state;
	auto_close int fd = open_in("big", O_RDONLY);
	assert_int_equal(fuse_view_unmount(rig.target, false, &err), IM_ELOCKED);
	assert_holds(fd, 0, rig.sources[FILE_BIG].data, BIG);
	close(TAKE_FD(fd));
	rig_unmount();
	assert_false(fuse_view_is_mounted(rig.target));
	im_error_clear(&err);
	assert_ok(fuse_view_unmount(rig.target, false, &err), &err); /* there is none */
}

static void *serve_here(void *context)
{
	struct im_error err = { 0 };
	return fuse_view_serve(context, &err) ? context : NULL;
}

static void view__stops_when_told(void **state)
{
	struct im_error err = { 0 };
	struct hydrator *h = rig_hydrator();
	const struct fuse_view_options o = rig_options(h);
	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		struct fuse_view *v;
		pthread_t thread;
		void *failed;
		assert_ok(fuse_view_open(&o, &v, &err), &err);
		assert_int_equal(pthread_create(&thread, NULL, serve_here, v), 0);
		auto_close int fd = open_in("sub/small", O_RDONLY);
		assert_holds(fd, 0, rig.sources[FILE_SMALL].data, SMALL);
		close(TAKE_FD(fd));
		fuse_view_stop(v);
		pthread_join(thread, &failed);
		assert_null(failed);
		fuse_view_close(v);
		assert_false(fuse_view_is_mounted(rig.target));
	}
	hydrate_free(h);
}

static void open__needs_a_folder(void **state)
{
	struct im_error err = { 0 };
	struct fuse_view *v;
	struct fuse_view_options o = rig_options(NULL);
	(void)state;
	o.target = "/nowhere/at all";
	assert_int_equal(fuse_view_open(&o, &v, &err), IM_EUSAGE);
	im_error_clear(&err);
	o.staged = "/nowhere/at all";
	assert_int_equal(fuse_view_open(&o, &v, &err), IM_EIO);
}

int main(void)
{
	struct im_error err = { 0 };
	if (fuse_view_probe("/tmp", &err)) {
		printf("skipped: %s\n", err.text);
		return 77;
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(view__brings_what_is_read, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__serves_direct_accesses_and_copies, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__shows_no_holes_and_the_times_of_the_snapshot, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__gives_an_error_for_what_is_damaged, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__waits_for_the_vault_without_holding_up_others, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__keeps_what_is_written, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__never_brings_back_what_was_cut_off, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__reserves_space_but_punches_no_holes_into_what_is_still_arriving, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__keeps_what_is_written_through_a_map, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__keeps_a_time_that_is_set, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__equals_an_ordinary_file, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__goes_on_from_what_is_in_the_files, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__passes_names_through, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__makes_files_as_their_owners, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__hides_our_attributes, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__does_with_few_descriptors, rig_setup_few_descriptors, rig_teardown),
		cmocka_unit_test_setup_teardown(view__carries_sqlite_with_a_log, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__carries_sqlite_with_a_journal, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__closes_when_its_server_dies, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__stays_while_somebody_uses_it, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(view__stops_when_told, rig_setup_unserved, rig_teardown),
		cmocka_unit_test_setup_teardown(open__needs_a_folder, rig_setup_unserved, rig_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
