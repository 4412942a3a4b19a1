/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vault in a directory. An object is written to ".tmp-RANDOM" in the top folder, which its writer
 * holds with flock, made durable, and renamed to its name without ever replacing one. A crash leaves
 * at most a temporary that nobody holds; sweep() removes those. Below the top folder no symbolic
 * link is followed. Reads share a small cache of open files, since a restore reads a pack in many
 * ranges.
 */
#include "vault/storage/storage.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define OPEN_FILES 16
#define BLOCK_BYTES (1u << 20)
#define BLOCK_ALIGNMENT 4096
#define MAX_OBJECT_BYTES (UINT64_C(2) << 30)
#define TEMPORARY_PREFIX ".tmp-"
#define MAX_DEPTH 8
#define PART_BYTES 256 /* one component of a name */

struct open_file {
	char *name;
	int fd;
	unsigned users;
	uint64_t used_at;
	bool is_stray; /* no slot was free: closed by its only user */
};

struct dir_storage {
	struct storage base;
	int top; /* the number stays the same for ever, so that threads need no lock */
	char *place; /* absolute */
	pthread_mutex_t files_lock; /* guards files and clock */
	struct open_file files[OPEN_FILES];
	uint64_t clock;
	pthread_mutex_t folders_lock; /* guards the rest */
	char **durable; /* folders whose entries up to the top are known to be durable */
	size_t durable_count;
};

struct dir_put {
	struct storage_put base;
	int fd;
	uint64_t written; /* block's content included */
	uint8_t *block;   /* what does not fill a block yet */
	size_t filled;
	char temporary[sizeof TEMPORARY_PREFIX + 16];
};

static struct dir_storage *dir_of(struct storage *s)
{
	return (struct dir_storage *)s;
}

static int fail_io(const struct dir_storage *d, int errno_value, struct im_error *err, const char *doing, const char *name)
{
	struct stat st;
	switch (errno_value) {
	case ESTALE:
	case ENOTCONN:
	case ENODEV:
	case ENXIO:
	case ETIMEDOUT:
	case EHOSTDOWN:
	case EHOSTUNREACH:
		return im_fail_errno(err, IM_EUNREACHABLE, errno_value, "the vault %s went away while %s %s", d->base.url, doing, name);
	}
	if (errno_value == ENOENT && fstat(d->top, &st) == 0 && st.st_nlink == 0)
		return im_fail(err, IM_EUNREACHABLE, "the vault %s was removed or unmounted while %s %s", d->base.url, doing, name);
	if (errno_value == ENOENT)
		return im_fail(err, IM_ENOTFOUND, "the vault %s has no %s", d->base.url, name);
	return im_fail_errno(err, IM_EIO, errno_value, "%s %s in the vault %s failed", doing, name, d->base.url);
}

/* Copies the component at *at and moves on; false for what may not be one. */
static bool next_part(const char **at, char ret[PART_BYTES], bool *ret_last)
{
	size_t len = strcspn(*at, "/");
	if (len == 0 || len >= PART_BYTES || **at == '.')
		return false;
	memcpy(ret, *at, len);
	ret[len] = '\0';
	*ret_last = (*at)[len] == '\0';
	*at += len + !*ret_last;
	return true;
}

static int open_folder(int parent, const char *name)
{
	return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The folder of name without making any; leaf gets the last component. Returns a descriptor or -errno. */
static int walk(const struct dir_storage *d, const char *name, char leaf[PART_BYTES])
{
	auto_close int folder = openat(d->top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool last;
	if (folder < 0)
		return -errno;
	for (const char *at = name; next_part(&at, leaf, &last);) {
		if (last)
			return TAKE_FD(folder);
		int next = open_folder(folder, leaf);
		if (next < 0)
			return errno == ENOTDIR || errno == ELOOP ? -ENOENT : -errno;
		close(folder);
		folder = next;
	}
	return -EINVAL;
}

/* Reading: the cache of open files. */

static int open_object(const struct dir_storage *d, const char *name)
{
	char leaf[PART_BYTES];
	struct stat st;
	int folder = walk(d, name, leaf);
	if (folder < 0)
		return folder;
	int fd = openat(folder, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int error = fd < 0 ? (errno == ELOOP ? ENOENT : errno) : 0;
	close(folder);
	if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode))) {
		close(fd);
		return -ENOENT;
	}
	return fd < 0 ? -error : fd;
}

static void forget_file(struct open_file *f)
{
	if (f->name)
		close(f->fd);
	free(f->name);
	*f = (struct open_file){ .fd = -1 };
}

/* A cached file whose name is gone (pruned, or replaced by hand) must not be read for ever. */
static struct open_file *find_file(struct dir_storage *d, const char *name)
{
	for (size_t i = 0; i < OPEN_FILES; i++) {
		struct open_file *f = &d->files[i];
		struct stat st;
		if (!f->name || strcmp(f->name, name))
			continue;
		if (fstat(f->fd, &st) == 0 && st.st_nlink > 0)
			return f;
		if (f->users == 0)
			forget_file(f);
	}
	return NULL;
}

static struct open_file *free_slot(struct dir_storage *d)
{
	struct open_file *oldest = NULL;
	for (size_t i = 0; i < OPEN_FILES; i++) {
		struct open_file *f = &d->files[i];
		if (f->users == 0 && (!oldest || f->used_at < oldest->used_at))
			oldest = f;
	}
	if (oldest)
		forget_file(oldest);
	return oldest;
}

/* stray is used when every slot is busy. Returns NULL with *ret_errno set. */
static struct open_file *file_take(struct dir_storage *d, const char *name, struct open_file *stray, int *ret_errno)
{
	pthread_mutex_lock(&d->files_lock);
	struct open_file *f = find_file(d, name);
	if (!f) {
		int fd = open_object(d, name);
		char *copy = fd >= 0 ? strdup(name) : NULL;
		if (fd >= 0 && copy) {
			f = free_slot(d);
			if (!f)
				f = stray;
			*f = (struct open_file){ .name = copy, .fd = fd, .is_stray = f == stray };
		} else {
			*ret_errno = fd < 0 ? -fd : ENOMEM;
			if (fd >= 0)
				close(fd);
		}
	}
	if (f) {
		f->users++;
		f->used_at = ++d->clock;
	}
	pthread_mutex_unlock(&d->files_lock);
	return f;
}

static void file_give_back(struct dir_storage *d, struct open_file *f)
{
	pthread_mutex_lock(&d->files_lock);
	f->users--;
	if (f->is_stray)
		forget_file(f);
	pthread_mutex_unlock(&d->files_lock);
}

static int dir_read(struct storage *s, const char *name, uint64_t offset, void *ret, size_t len, struct im_error *err)
{
	struct dir_storage *d = dir_of(s);
	struct open_file stray = { .fd = -1 };
	int error = 0, rc = 0;
	struct open_file *f = file_take(d, name, &stray, &error);
	if (!f)
		return fail_io(d, error, err, "opening", name);
	for (size_t done = 0; rc == 0 && done < len;) {
		ssize_t n = pread(f->fd, (char *)ret + done, len - done, (off_t)(offset + done));
		if (n > 0)
			done += (size_t)n;
		else if (n == 0)
			rc = im_fail(err, IM_ECORRUPT, "%s in the vault %s is shorter than it should be (damaged or cut off)",
			    name, s->url);
		else if (errno != EINTR)
			rc = fail_io(d, errno, err, "reading", name);
	}
	file_give_back(d, f);
	return rc;
}

/* The kernel tells only those who could write the file; to others it says that everything is in memory. */
static bool may_ask(int fd, uint64_t *ret_bytes)
{
	struct stat st;
	bool ok = fstat(fd, &st) == 0 && (st.st_uid == geteuid() || geteuid() == 0);
	*ret_bytes = ok ? (uint64_t)st.st_size : 0;
	return ok;
}

static uint64_t count_resident(const void *at, size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (len + page - 1) / page, n = 0;
	auto_free unsigned char *there = malloc(pages);
	if (!there || mincore((void *)at, len, there))
		return UINT64_MAX;
	for (size_t i = 0; i < pages; i++)
		n += there[i] & 1;
	return n == pages ? len : (uint64_t)n * page;
}

static int dir_resident(struct storage *s, const char *name, uint64_t offset, uint64_t len, uint64_t *ret_bytes, struct im_error *err)
{
	struct dir_storage *d = dir_of(s);
	struct open_file stray = { .fd = -1 };
	uint64_t size = 0, page = (uint64_t)sysconf(_SC_PAGESIZE), from = offset / page * page, count = UINT64_MAX;
	int error = 0;
	struct open_file *f = file_take(d, name, &stray, &error);
	if (!f)
		return fail_io(d, error, err, "opening", name);
	if (len && len <= MAX_OBJECT_BYTES && may_ask(f->fd, &size) && offset < size && len <= size - offset) {
		size_t span = (size_t)(offset + len - from);
		void *at = mmap(NULL, span, PROT_READ, MAP_SHARED, f->fd, (off_t)from);
		count = at == MAP_FAILED ? UINT64_MAX : count_resident(at, span);
		if (at != MAP_FAILED)
			munmap(at, span);
	}
	file_give_back(d, f);
	if (count == UINT64_MAX)
		return im_fail(err, IM_ENOTFOUND, "what of %s lies in memory is not known", name);
	*ret_bytes = count < len ? count : len;
	return 0;
}

static int dir_size(struct storage *s, const char *name, uint64_t *ret_bytes, struct im_error *err)
{
	struct dir_storage *d = dir_of(s);
	char leaf[PART_BYTES];
	struct stat st;
	int folder = walk(d, name, leaf);
	int error = folder < 0 ? -folder : 0;
	if (folder >= 0) {
		if (fstatat(folder, leaf, &st, AT_SYMLINK_NOFOLLOW))
			error = errno;
		else if (!S_ISREG(st.st_mode))
			error = ENOENT;
		close(folder);
	}
	if (error)
		return fail_io(d, error, err, "looking at", name);
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

/* Writing. */

/* A sweeper may have caught the new file before it was locked: then it has no name left. */
static int lock_temporary(int fd)
{
	struct stat st;
	while (flock(fd, LOCK_EX))
		if (errno != EINTR)
			break; /* no locks here: sweep cannot lock either, so it leaves the file alone */
	return fstat(fd, &st) ? -errno : st.st_nlink > 0;
}

static int open_temporary(struct dir_storage *d, char name[sizeof TEMPORARY_PREFIX + 16])
{
	for (int tries = 0; tries < 100; tries++) {
		uint8_t random[8];
		char digits[17];
		if (getrandom(random, sizeof random, 0) != sizeof random)
			return -EIO;
		strcpy(name, TEMPORARY_PREFIX);
		strcat(name, im_hex(digits, random, sizeof random));
		int fd = openat(d->top, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0 && errno != EEXIST)
			return -errno;
		if (fd < 0)
			continue;
		fchmod(fd, 0600);
		int held = lock_temporary(fd);
		if (held > 0)
			return fd;
		close(fd);
		if (held < 0)
			return held;
	}
	return -EEXIST;
}

/* A folder that was moved away is still open to us, but it is no longer the vault that the configuration names. */
static int check_place(const struct dir_storage *d, struct im_error *err)
{
	struct stat named, held;
	if (fstat(d->top, &held) == 0 && stat(d->base.url, &named) == 0 && named.st_dev == held.st_dev && named.st_ino == held.st_ino)
		return 0;
	return im_fail(err, IM_EUNREACHABLE, "the vault %s was moved, replaced or unmounted: nothing more is written into the old folder", d->base.url);
}

static int dir_put_open(struct storage *s, struct storage_put **ret, struct im_error *err)
{
	int placed = check_place(dir_of(s), err);
	if (placed)
		return placed;
	struct dir_storage *d = dir_of(s);
	auto_free struct dir_put *p = calloc(1, sizeof *p);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory");
	p->base.storage = s;
	p->fd = open_temporary(d, p->temporary);
	if (p->fd == -ENOENT)
		return im_fail(err, IM_EUNREACHABLE, "the vault %s was removed or unmounted", s->url);
	if (p->fd < 0)
		return fail_io(d, -p->fd, err, "creating", "a new object");
	*ret = &TAKE_PTR(p)->base;
	return 0;
}

static int write_all(struct dir_put *p, const uint8_t *data, size_t len, struct im_error *err)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(p->fd, data + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL && fcntl(p->fd, F_GETFL) & O_DIRECT && fcntl(p->fd, F_SETFL, 0) == 0)
			continue; /* a file system that takes O_DIRECT but not this write */
		if (n < 0)
			return fail_io(dir_of(p->base.storage), errno, err, "writing", "a new object");
		done += (size_t)n;
	}
	return 0;
}

/* Full blocks go past the page cache where the file system allows it: a backup should not push the
 * server's pages out of memory, and copying them there costs more time than writing them. */
static int write_block(struct dir_put *p, struct im_error *err)
{
	if (p->written == BLOCK_BYTES)
		fcntl(p->fd, F_SETFL, O_DIRECT);
	p->filled = 0;
	return write_all(p, p->block, BLOCK_BYTES, err);
}

static int dir_put_write(struct storage_put *put, const void *data, size_t len, struct im_error *err)
{
	struct dir_put *p = (struct dir_put *)put;
	if (len > MAX_OBJECT_BYTES - p->written)
		return im_fail(err, IM_EFAIL, "an object of the vault %s would exceed 2 GiB", put->storage->url);
	if (!p->block && !(p->block = aligned_alloc(BLOCK_ALIGNMENT, BLOCK_BYTES)))
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t done = 0; done < len;) {
		size_t n = len - done < BLOCK_BYTES - p->filled ? len - done : BLOCK_BYTES - p->filled;
		memcpy(p->block + p->filled, (const uint8_t *)data + done, n);
		p->filled += n;
		p->written += n;
		done += n;
		int rc = p->filled == BLOCK_BYTES ? write_block(p, err) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

static int make_durable(struct dir_put *p, const char *name, struct im_error *err)
{
	int flags = fcntl(p->fd, F_GETFL);
	if (p->filled && flags & O_DIRECT)
		fcntl(p->fd, F_SETFL, flags & ~O_DIRECT);
	int rc = write_all(p, p->block, p->filled, err);
	if (rc == 0 && fsync(p->fd))
		rc = fail_io(dir_of(p->base.storage), errno, err, "making durable", name);
	return rc;
}

static void dir_put_abandon(struct storage_put *put)
{
	struct dir_put *p = (struct dir_put *)put;
	unlinkat(dir_of(put->storage)->top, p->temporary, 0);
	close(p->fd);
	free(p->block);
	free(p);
}

static bool is_durable(const struct dir_storage *d, const char *name, size_t len)
{
	for (size_t i = 0; i < d->durable_count; i++)
		if (strlen(d->durable[i]) == len && !memcmp(d->durable[i], name, len))
			return true;
	return false;
}

static void note_durable(struct dir_storage *d, const char *name, size_t len)
{
	char **grown = realloc(d->durable, (d->durable_count + 1) * sizeof *grown);
	if (!grown)
		return; /* it is only made durable once more */
	d->durable = grown;
	if ((grown[d->durable_count] = strndup(name, len)))
		d->durable_count++;
}

/* One folder down, making it if need be. Another process may have made it and not yet synced its
 * entry, so the first use here always syncs the parent. */
static int enter_folder(struct dir_storage *d, int parent, const char *name, size_t len, const char *part)
{
	if (mkdirat(parent, part, 0700) == 0)
		fchmodat(parent, part, 0700, 0);
	else if (errno != EEXIST)
		return -errno;
	auto_close int folder = open_folder(parent, part);
	if (folder < 0)
		return -errno;
	if (!is_durable(d, name, len)) {
		if (fsync(parent))
			return -errno;
		note_durable(d, name, len);
	}
	return TAKE_FD(folder);
}

static int make_folders(struct dir_storage *d, const char *name, char leaf[PART_BYTES])
{
	auto_close int folder = openat(d->top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool last;
	if (folder < 0)
		return -errno;
	for (const char *at = name; next_part(&at, leaf, &last);) {
		if (last)
			return TAKE_FD(folder);
		pthread_mutex_lock(&d->folders_lock);
		int next = enter_folder(d, folder, name, (size_t)(at - name), leaf);
		pthread_mutex_unlock(&d->folders_lock);
		if (next < 0)
			return next;
		close(folder);
		folder = next;
	}
	return -EINVAL;
}

/* rename that never replaces; where the file system cannot, link and unlink. */
static int place(int top, const char *temporary, int folder, const char *leaf)
{
	if (renameat2(top, temporary, folder, leaf, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
		return -errno;
	if (linkat(top, temporary, folder, leaf, 0))
		return -errno;
	unlinkat(top, temporary, 0);
	return 0;
}

static int dir_put_commit(struct storage_put *put, const char *name, struct im_error *err)
{
	struct dir_put *p = (struct dir_put *)put;
	struct dir_storage *d = dir_of(put->storage);
	char leaf[PART_BYTES];
	int rc = make_durable(p, name, err);
	if (rc == 0)
		rc = check_place(d, err);
	if (rc) {
		dir_put_abandon(put);
		return rc;
	}
	auto_close int folder = make_folders(d, name, leaf);
	rc = folder < 0 ? folder : place(d->top, p->temporary, folder, leaf);
	if (rc) {
		rc = rc == -EEXIST ? im_fail(err, IM_EUSAGE, "%s exists already in the vault %s; objects are never replaced", name, d->base.url) :
		                     fail_io(d, -rc, err, "placing", name);
		dir_put_abandon(put);
		return rc;
	}
	if (fsync(folder))
		rc = fail_io(d, errno, err, "making durable", name);
	close(p->fd);
	free(p->block);
	free(p);
	return rc;
}

static int dir_remove(struct storage *s, const char *name, struct im_error *err)
{
	struct dir_storage *d = dir_of(s);
	char leaf[PART_BYTES];
	auto_close int folder = walk(d, name, leaf);
	if (folder < 0)
		return fail_io(d, -folder, err, "removing", name);
	if (unlinkat(folder, leaf, 0) || fsync(folder))
		return fail_io(d, errno, err, "removing", name);
	return 0;
}

/* Listing: in the order of whole names, so a folder sorts as if its name ended in '/'. */

struct listed {
	char *name; /* of a folder: with the '/' */
	uint64_t size_bytes;
	bool is_folder;
};
struct listing {
	struct listed *items;
	size_t count, cap;
};

static void listing_clear(struct listing *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->items[i].name);
	free(l->items);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct listed *)a)->name, ((const struct listed *)b)->name);
}

/* What cannot be an object's name (temporaries, lost+found, .snapshot) is somebody else's. */
static bool may_be_object(const char *name)
{
	static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	return name[0] != '.' && name[0] != '_' && name[0] != '-' && name[strspn(name, chars)] == '\0';
}

static int listing_add(struct listing *l, const char *name, const struct stat *st)
{
	if (l->count == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		struct listed *items = reallocarray(l->items, cap, sizeof *items);
		if (!items)
			return -ENOMEM;
		l->items = items;
		l->cap = cap;
	}
	bool is_folder = S_ISDIR(st->st_mode);
	char *copy = im_format("%s%s", name, is_folder ? "/" : "");
	if (!copy)
		return -ENOMEM;
	l->items[l->count++] = (struct listed){ copy, (uint64_t)st->st_size, is_folder };
	return 0;
}

/* Takes over the descriptor. */
static int listing_read(int folder, struct listing *l)
{
	auto_closedir DIR *dir = fdopendir(folder);
	if (!dir) {
		int error = errno;
		close(folder);
		return -error;
	}
	for (;;) {
		errno = 0;
		const struct dirent *e = readdir(dir);
		struct stat st;
		if (!e)
			break;
		if (!may_be_object(e->d_name) || fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		    !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
			continue;
		int rc = listing_add(l, e->d_name, &st);
		if (rc)
			return rc;
	}
	if (errno)
		return -errno;
	if (l->count)
		qsort(l->items, l->count, sizeof *l->items, by_name);
	return 0;
}

static int list_folder(struct dir_storage *d, const char *prefix, struct listing *ret, struct im_error *err)
{
	auto_free char *inside = im_format("%sx", prefix); /* any leaf: what is wanted is its folder */
	if (!inside)
		return im_fail(err, IM_ENOMEM, "out of memory");
	char leaf[PART_BYTES];
	int folder = walk(d, inside, leaf);
	if (folder == -ENOENT)
		return fail_io(d, ENOENT, NULL, "listing", prefix) == IM_EUNREACHABLE ?
		           fail_io(d, ENOENT, err, "listing", prefix) : 0;
	int rc = folder < 0 ? folder : listing_read(folder, ret);
	return rc ? fail_io(d, -rc, err, "listing", *prefix ? prefix : "objects") : 0;
}

static int list_below(struct dir_storage *d, const char *prefix, unsigned depth, bool folders, storage_list_fn *fn, void *context, struct im_error *err)
{
	__attribute__((cleanup(listing_clear))) struct listing l = { 0 };
	int rc = list_folder(d, prefix, &l, err);
	for (size_t i = 0; rc == 0 && i < l.count; i++) {
		auto_free char *name = im_format("%s%s", prefix, l.items[i].name);
		if (!name)
			return im_fail(err, IM_ENOMEM, "out of memory");
		if (folders)
			rc = l.items[i].is_folder ? fn(context, name, 0) : 0;
		else if (!l.items[i].is_folder)
			rc = fn(context, name, l.items[i].size_bytes);
		else if (depth < MAX_DEPTH)
			rc = list_below(d, name, depth + 1, false, fn, context, err);
	}
	return rc;
}

static int dir_folders(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err)
{
	return list_below(dir_of(s), prefix, 0, true, fn, context, err);
}

static int dir_list(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err)
{
	return list_below(dir_of(s), prefix, 0, false, fn, context, err);
}

/* Removes a temporary if nobody holds it. */
static void sweep_one(struct dir_storage *d, const char *name)
{
	struct stat st;
	auto_close int fd = openat(d->top, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlinkat(d->top, name, 0);
}

static int dir_sweep(struct storage *s, struct im_error *err)
{
	struct dir_storage *d = dir_of(s);
	int fd = openat(d->top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int error = errno;
		if (fd >= 0)
			close(fd);
		return fail_io(d, error, err, "sweeping", "temporaries");
	}
	for (const struct dirent *e; (e = readdir(dir));)
		if (!strncmp(e->d_name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)))
			sweep_one(d, e->d_name);
	return 0;
}

static int dir_space(struct storage *s, uint64_t *ret_free_bytes, struct im_error *err)
{
	struct statvfs v;
	if (fstatvfs(dir_of(s)->top, &v))
		return fail_io(dir_of(s), errno, err, "asking for", "free space");
	*ret_free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
	return 0;
}

static void dir_close(struct storage *s)
{
	struct dir_storage *d = dir_of(s);
	for (size_t i = 0; i < OPEN_FILES; i++)
		forget_file(&d->files[i]);
	for (size_t i = 0; i < d->durable_count; i++)
		free(d->durable[i]);
	free(d->durable);
	if (d->top >= 0)
		close(d->top);
	pthread_mutex_destroy(&d->files_lock);
	pthread_mutex_destroy(&d->folders_lock);
	free(d->base.url);
	free(d->place);
	free(d);
}

static int dir_revive(struct storage *s, struct im_error *err)
{
	struct dir_storage *d = dir_of(s);
	auto_close int fd = open(d->place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || dup3(fd, d->top, O_CLOEXEC) < 0)
		return im_fail_errno(err, IM_EUNREACHABLE, errno, "cannot open the vault's folder %s", d->place);
	pthread_mutex_lock(&d->files_lock); /* those of the old mount answer no more */
	for (size_t i = 0; i < OPEN_FILES; i++)
		if (d->files[i].name && d->files[i].users == 0)
			forget_file(&d->files[i]);
	pthread_mutex_unlock(&d->files_lock);
	return 0;
}

static const struct storage_ops dir_ops = {
	.put_open = dir_put_open,
	.put_write = dir_put_write,
	.put_commit = dir_put_commit,
	.put_abandon = dir_put_abandon,
	.read = dir_read,
	.size = dir_size,
	.list = dir_list,
	.folders = dir_folders,
	.close = dir_close,
	.remove = dir_remove,
	.sweep = dir_sweep,
	.space = dir_space,
	.resident = dir_resident,
	.revive = dir_revive,
};

static int open_top(const char *path, bool create, struct im_error *err)
{
	struct stat st;
	if (create && stat(path, &st) && errno == ENOENT) {
		int rc = im_mkdirs(path, 0700, err);
		if (rc)
			return rc;
		if (chmod(path, 0700)) /* whatever the umask */
			return im_fail_errno(err, IM_EIO, errno, "cannot set the permissions of %s", path);
	}
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOTDIR)
		return im_fail(err, IM_EUSAGE, "the vault %s is not a folder", path);
	if (errno == ENOENT)
		return im_fail(err, IM_EUNREACHABLE, "the vault's folder %s is not there; is it mounted? (imvault init makes a new vault)", path);
	return im_fail_errno(err, IM_EUNREACHABLE, errno, "cannot open the vault's folder %s", path);
}

int storage_dir_open(const char *path, bool create, struct storage **ret, struct im_error *err)
{
	int top = open_top(path, create, err);
	if (top < 0)
		return top;
	struct dir_storage *d = calloc(1, sizeof *d);
	char *url = strdup(path), *place = realpath(path, NULL);
	if (!d || !url || !place) {
		free(d);
		free(url);
		free(place);
		close(top);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	d->base = (struct storage){ .ops = &dir_ops, .url = url };
	d->top = top;
	d->place = place;
	pthread_mutex_init(&d->files_lock, NULL);
	pthread_mutex_init(&d->folders_lock, NULL);
	*ret = &d->base;
	return 0;
}
