/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry of a segment: its metadata is read again, its content only if its own stat data
 * changed. What may have changed within the clock's grain while we looked is not remembered.
 */
#include "stores/files/capture_entry.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define RACY_SECONDS 2
#define READ_TRIES 3

/* Could it change again without its times showing it? (A modification time set far into the future is no sign of that.)
 */
static bool is_racy(const struct stat *st, const struct timespec *now)
{
	return st->st_ctim.tv_sec > now->tv_sec - RACY_SECONDS ||
	    (st->st_mtim.tv_sec > now->tv_sec - RACY_SECONDS && st->st_mtim.tv_sec < now->tv_sec + RACY_SECONDS);
}

static bool same_content(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	    a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	    a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Fills entry from the file itself. fd is -1 for what is not opened. */
static int read_metadata(struct files_segment_capture *s, const struct files_entry *e, int fd, const char *name,
    const struct stat *st, struct archive_entry *entry, struct im_error *err)
{
	char source[64 + 256];
	archive_entry_copy_pathname(entry, e->path);
	if (fd >= 0)
		snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
	else
		snprintf(source, sizeof source, "/proc/self/fd/%d/%s", s->parent.fd, name);
	archive_entry_copy_sourcepath(entry, source);
	archive_entry_copy_stat(entry, st);
	int rc = archive_read_disk_entry_from_file(s->disk, entry, fd, st);
	if (rc != ARCHIVE_OK && !S_ISLNK(st->st_mode))
		files_capture_warn(s->c, true, "some metadata of %.300s could not be read: %s", e->path,
		    archive_error_string(s->disk));
	if (S_ISLNK(st->st_mode)) {
		char target[PATH_MAX];
		ssize_t n = readlinkat(s->parent.fd, name, target, sizeof target - 1);
		if (n < 0)
			return im_fail_errno(err, errno == ENOENT || errno == EINVAL ? IM_ENOTFOUND : IM_EIO, errno,
			    "cannot read the link %.300s", e->path);
		target[n] = 0;
		archive_entry_copy_symlink(entry, target);
	}
	archive_entry_copy_sourcepath(entry, NULL);
	return 0;
}

static int add_entry(struct files_segment_capture *s, struct archive_entry *entry, uint64_t size, size_t first_piece,
    struct im_error *err)
{
	if (archive_entry_filetype(entry) == AE_IFDIR)
		s->job->counts.dirs++;
	else if (archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry)) {
		s->job->counts.files++;
		s->job->counts.bytes += size;
	} else
		s->job->counts.others++;
	return files_segment_add(
	    s->writer, entry, size, s->pieces.items + first_piece, s->pieces.count - first_piece, err);
}

/* Uses the pieces of the run before, if the file is the same by its stat data. */
static int reuse_pieces(struct files_segment_capture *s, const struct files_known *k, struct im_error *err)
{
	if (!s->old_rows && !(s->old_rows = calloc(s->old.chunk_count + 1, sizeof *s->old_rows)))
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < k->piece_count; i++) {
		struct files_piece p = k->pieces[i];
		uint32_t *row = &s->old_rows[p.chunk], fresh = 0;
		if (!*row) {
			int rc = files_content_reuse(s->content, &s->old.chunks[p.chunk], &fresh, err);
			if (rc)
				return rc;
			*row = fresh + 1;
		}
		p.chunk = *row - 1;
		if (s->pieces.count == s->pieces.cap) {
			size_t cap = s->pieces.cap ? 2 * s->pieces.cap : 256;
			struct files_piece *grown = realloc(s->pieces.items, cap * sizeof *grown);
			if (!grown)
				return im_fail(err, IM_ENOMEM, "out of memory");
			s->pieces.items = grown;
			s->pieces.cap = cap;
		}
		s->pieces.items[s->pieces.count++] = p;
	}
	return 0;
}

static int remember(struct files_segment_capture *s, const struct files_entry *e, const struct files_key *key,
    uint64_t size, size_t first_piece, struct im_error *err)
{
	struct files_memory *m = &s->fresh;
	if (m->known_count == s->fresh_cap) {
		size_t cap = s->fresh_cap ? 2 * s->fresh_cap : 128;
		struct files_known *grown = realloc(m->known, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory");
		m->known = grown;
		s->fresh_cap = cap;
	}
	struct files_known *k = &m->known[m->known_count++];
	files_name_hash(k->name, e->path);
	files_key_hash(k->key, key);
	k->size_bytes = size;
	k->pieces = (const struct files_piece *)(uintptr_t)first_piece; /* becomes a pointer in store_memory */
	k->piece_count = s->pieces.count - first_piece;
	return 0;
}

static int note_sqlite(struct files_segment_capture *s, const char *path, struct im_error *err)
{
	struct files_memory *m = &s->fresh;
	char **grown = realloc(m->sqlite, (m->sqlite_count + 1) * sizeof *grown);
	if (!grown || !(grown[m->sqlite_count] = strdup(path))) {
		m->sqlite = grown ? grown : m->sqlite;
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	m->sqlite = grown;
	m->sqlite_count++;
	return 0;
}

void files_capture_warn_sqlite(struct files_capture *c, const char *path)
{
	files_capture_warn(c, false,
	    "%.300s is an SQLite database: copied while in use it may be damaged; give it a store of its own (type = "
	    "sqlite)",
	    path);
}

static bool was_sqlite(const struct files_segment_capture *s, const char *path)
{
	for (size_t i = 0; i < s->old.sqlite_count; i++)
		if (!strcmp(s->old.sqlite[i], path))
			return true;
	return false;
}

struct content_result {
	struct files_read read;
	struct stat st; /* as it was when the kept content was read */
	bool changing; /* it changed under us each time */
};

/* Reads until the file stands still, READ_TRIES times at most. A file that only grew keeps the size it had when
 * it was opened: for a log or an upload in progress that is a state it really had. */
static int read_content(struct files_segment_capture *s, const struct files_entry *e, int fd, size_t first_piece,
    struct content_result *ret, struct im_error *err)
{
	for (int tries = 0; tries < READ_TRIES; tries++) {
		struct stat after;
		s->pieces.count = first_piece;
		if (tries && fstat(fd, &ret->st))
			return im_fail_errno(err, IM_EIO, errno, "cannot stat %.300s", e->path);
		int rc = files_content_read(s->content, fd, &ret->st, e->path, &s->pieces, &ret->read, err);
		if (rc)
			return rc;
		pthread_mutex_lock(&s->c->mutex);
		s->c->read_bytes += ret->read.read_bytes;
		pthread_mutex_unlock(&s->c->mutex);
		if (fstat(fd, &after))
			return im_fail_errno(err, IM_EIO, errno, "cannot stat %.300s", e->path);
		ret->changing = !same_content(&ret->st, &after);
		if (!ret->changing)
			return 0;
		s->trusted = false;
		if (after.st_size > ret->st.st_size && ret->read.size_bytes == (uint64_t)ret->st.st_size) {
			ret->changing = false;
			return 0;
		}
	}
	return 0;
}

/* A regular file that is open. IM_ENOTFOUND, IM_EIO: this entry only. */
static int capture_regular(struct files_segment_capture *s, const struct files_entry *e, int fd, const char *name,
    const struct stat *st, struct im_error *err)
{
	struct content_result r = { .st = *st };
	struct timespec now;
	struct files_key key;
	uint8_t name_hash[FILES_NAME_HASH_BYTES], key_hash[FILES_NAME_HASH_BYTES];
	size_t first = s->pieces.count;
	clock_gettime(CLOCK_REALTIME_COARSE, &now); /* after st, at most microseconds: far less than the doubt */
	files_key_of(&key, &r.st);
	files_name_hash(name_hash, e->path);
	files_key_hash(key_hash, &key);
	const struct files_known *k = files_memory_find(&s->old, name_hash);
	int rc;
	if (k && !memcmp(k->key, key_hash, sizeof key_hash)) {
		r.read.size_bytes = k->size_bytes;
		r.read.sqlite = was_sqlite(s, e->path);
		rc = reuse_pieces(s, k, err);
	} else {
		rc = read_content(s, e, fd, first, &r, err);
		files_key_of(&key, &r.st);
	}
	if (rc)
		return rc;
	if (r.read.too_large) {
		s->pieces.count = first;
		return im_fail(err, IM_EIO, "%.300s is left out: it is too large or has too many holes", e->path);
	}
	struct archive_entry *entry = archive_entry_new();
	if (!entry)
		return im_fail(err, IM_ENOMEM, "out of memory");
	rc = read_metadata(s, e, fd, name, &r.st, entry, err);
	if (!rc)
		rc = add_entry(s, entry, r.read.size_bytes, first, err);
	archive_entry_free(entry);
	struct files_key seen = e->key;
	if (memcmp(&key, &seen, sizeof key) || is_racy(&r.st, &now) || r.changing)
		s->trusted = false;
	if (!rc && r.changing)
		files_capture_warn(s->c, true,
		    "%.300s changed each of the %d times it was read; the last reading is kept and may mix old and new",
		    e->path, READ_TRIES);
	if (!rc && r.read.sqlite) {
		files_capture_warn_sqlite(s->c, e->path);
		rc = note_sqlite(s, e->path, err);
	}
	if (!rc && !r.changing && !is_racy(&r.st, &now) && r.read.size_bytes == (uint64_t)r.st.st_size)
		rc = remember(s, e, &key, r.read.size_bytes, first, err);
	return rc;
}

static int capture_other(
    struct files_segment_capture *s, const struct files_entry *e, int fd, const char *name, struct im_error *err)
{
	struct stat st;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	if (fd >= 0 ? fstat(fd, &st) : fstatat(s->parent.fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return im_fail_errno(
		    err, errno == ENOENT ? IM_ENOTFOUND : IM_EIO, errno, "cannot stat %.300s", e->path);
	if ((st.st_mode & S_IFMT) != (e->key.mode & S_IFMT))
		return im_fail(err, IM_ENOTFOUND, "%.300s was replaced while the tree was read", e->path);
	struct files_key key;
	files_key_of(&key, &st);
	if (memcmp(&key, &e->key, sizeof key) || is_racy(&st, &now))
		s->trusted = false;
	struct archive_entry *entry = archive_entry_new();
	if (!entry)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = 0;
	if (e->link) {
		archive_entry_copy_pathname(entry, e->path);
		archive_entry_copy_stat(entry, &st);
		archive_entry_copy_hardlink(entry, e->link);
	} else
		rc = read_metadata(s, e, fd, name, &st, entry, err);
	if (!rc)
		rc = add_entry(s, entry, 0, s->pieces.count, err);
	archive_entry_free(entry);
	return rc;
}

/* O_NOATIME: a backup should leave no trace; only owner and root may ask for it. */
static int open_quietly(int at_fd, const char *name, int flags)
{
	flags |= O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	int fd = openat(at_fd, name, flags | O_NOATIME);
	return fd >= 0 || errno != EPERM ? fd : openat(at_fd, name, flags);
}

/* The root itself: a folder or a single file. */
static int capture_root(struct files_segment_capture *s, const struct files_entry *e, struct im_error *err)
{
	struct stat st;
	if (fstat(s->c->root_fd, &st))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat the root of the tree");
	return S_ISREG(st.st_mode) ? capture_regular(s, e, s->c->root_fd, "", &st, err)
				   : capture_other(s, e, s->c->root_fd, "", err);
}

int files_capture_entry(struct files_segment_capture *s, const struct files_entry *e, struct im_error *err)
{
	const char *name;
	if (!strcmp(e->path, "."))
		return capture_root(s, e, err);
	int parent_fd = files_parent_open(&s->parent, s->c->root_fd, e->path, &name);
	if (parent_fd == -ENOENT || parent_fd == -ENOTDIR || parent_fd == -ELOOP)
		return im_fail(err, IM_ENOTFOUND, "%.300s is gone", e->path);
	if (parent_fd < 0)
		return im_fail_errno(err, IM_EIO, -parent_fd, "cannot open the folder of %.300s", e->path);
	bool is_regular = S_ISREG(e->key.mode) && !e->link, is_folder = S_ISDIR(e->key.mode);
	if (!is_regular && !is_folder)
		return capture_other(s, e, -1, name, err);
	auto_close int fd = open_quietly(parent_fd, name, is_folder ? O_DIRECTORY : 0);
	if (fd < 0 && is_folder && errno == EACCES) /* the walk has said so; keep what stat gives */
		return capture_other(s, e, -1, name, err);
	if (fd < 0)
		return im_fail_errno(err, errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? IM_ENOTFOUND : IM_EIO,
		    errno, "cannot open %.300s", e->path);
	struct stat st;
	if (is_regular && (fstat(fd, &st) || !S_ISREG(st.st_mode)))
		return im_fail(err, IM_ENOTFOUND, "%.300s was replaced while the tree was read", e->path);
	return is_regular ? capture_regular(s, e, fd, name, &st, err) : capture_other(s, e, fd, name, err);
}
