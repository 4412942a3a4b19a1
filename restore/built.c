/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of files, in chunks that stay where they are.
 */
#include "restore/built.h"

#include "base/beneath.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "restore/beneath.h"
#include "restore/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK_FILES = 1024, LINK_MAX_DEPTH = 256 };

void built_init(struct built *b)
{
	*b = (struct built){ 0 };
	pthread_mutex_init(&b->mutex, NULL);
}

struct built_file *built_at(const struct built *b, size_t number)
{
	return &b->chunks[number / CHUNK_FILES][number % CHUNK_FILES];
}

void built_clear(struct built *b)
{
	for (size_t i = 0; i < b->count; i++) {
		free((char *)built_at(b, i)->writer.path);
		free(built_at(b, i)->damage_text);
		free(built_at(b, i)->lanes);
	}
	for (size_t i = 0; i < b->chunk_count; i++)
		free(b->chunks[i]);
	free(b->chunks);
	pthread_mutex_destroy(&b->mutex);
}

static int add_chunk(struct built *b, struct im_error *err)
{
	struct built_file **grown = realloc(b->chunks, (b->chunk_count + 1) * sizeof *grown);
	if (grown)
		b->chunks = grown;
	struct built_file *chunk = grown ? calloc(CHUNK_FILES, sizeof *chunk) : NULL;
	if (!chunk)
		return im_fail(err, IM_ENOMEM, "out of memory for the table of files");
	b->chunks[b->chunk_count++] = chunk;
	return 0;
}

int built_add(struct built *b, const struct rebuild_file *file, uint32_t store, int root_fd,
    uint32_t *ret_number, struct im_error *err)
{
	if (!im_beneath_path_valid(file->path))
		return im_fail(err, IM_ECORRUPT,
		    "the snapshot names a file '%s', which is not a plain path; it is not made",
		    file->path);
	if (file->size_bytes > INT64_MAX)
		return im_fail(
		    err, IM_ECORRUPT, "the snapshot gives /%s an impossible size", file->path);
	if (b->count == UINT32_MAX)
		return im_fail(err, IM_ECORRUPT, "the snapshot holds too many files");
	if (b->count == b->chunk_count * CHUNK_FILES) {
		int rc = add_chunk(b, err);
		if (rc)
			return rc;
	}
	auto_free struct built_lane *lanes =
	    file->digest ? aligned_alloc(64, BUILT_LANES * sizeof *lanes) : NULL;
	char *path = strdup(file->path);
	if (!path || (file->digest && !lanes)) {
		free(path);
		return im_fail(err, IM_ENOMEM, "out of memory for the table of files");
	}
	if (lanes)
		memset(lanes, 0, BUILT_LANES * sizeof *lanes);
	struct built_file *f = built_at(b, b->count);
	*f = (struct built_file){
		.writer = { .path = path,
		    .root_fd = root_fd,
		    .size_bytes = file->size_bytes,
		    .slot = -1 },
		.mtime_ns = file->mtime_ns,
		.mode = file->mode & 07777,
		.uid = file->uid,
		.gid = file->gid,
		.set_owner = file->set_owner,
		.store = store,
		.transform = file->transform,
		.digest = file->digest,
		.lanes = lanes,
		.prove = file->prove,
		.finish = file->finish,
		.context = file->context,
	};
	lanes = NULL;
	*ret_number = (uint32_t)b->count++;
	return 0;
}

void built_damage(
    struct built *b, struct built_file *f, uint64_t offset, uint64_t len, const char *text)
{
	pthread_mutex_lock(&b->mutex);
	if (!f->lost_bytes || offset < f->lost_first)
		f->lost_first = offset;
	f->lost_bytes += len;
	if (!f->damage_text)
		f->damage_text = strdup(text);
	f->damaged = true;
	pthread_mutex_unlock(&b->mutex);
}

void built_digest(
    struct built_file *f, unsigned worker, uint64_t offset, const uint8_t *data, size_t len)
{
	uint8_t one[REBUILD_DIGEST_BYTES];
	if (!f->digest)
		return;
	IM_CHECK(worker < BUILT_LANES);
	if (!f->digest(f->context, offset, data, len, one)) {
		atomic_store(&f->ragged, true);
		return;
	}
	struct built_lane *lane = &f->lanes[worker];
	for (unsigned i = 0; i < sizeof one; i++)
		lane->sum[i] ^= one[i];
	lane->bytes += len;
}

int built_prove(struct built_file *f, int fd, struct im_error *err)
{
	uint8_t sum[REBUILD_DIGEST_BYTES] = { 0 };
	uint64_t bytes = 0;
	if (!f->prove)
		return 0;
	for (unsigned i = 0; f->lanes && i < BUILT_LANES; i++) {
		bytes += f->lanes[i].bytes;
		for (unsigned k = 0; k < sizeof sum; k++)
			sum[k] ^= f->lanes[i].sum[k];
	}
	bool known = f->lanes && !atomic_load(&f->ragged) && bytes == f->writer.size_bytes;
	return f->prove(f->context, fd, known ? sum : NULL, err);
}

int built_set_metadata(struct built *b, struct built_file *f, int fd, struct im_error *err)
{
	struct timespec times[2] = { im_timespec(f->mtime_ns), im_timespec(f->mtime_ns) };
	struct stat st;
	/* asking is far cheaper than a change that changes nothing: that is journalled all the same
	 */
	bool is_owner = fstat(fd, &st) == 0 && st.st_uid == f->uid && st.st_gid == f->gid;
	if (f->set_owner && !is_owner && fchown(fd, f->uid, f->gid)) {
		if (errno != EPERM)
			return im_fail_errno(
			    err, IM_EIO, errno, "cannot set the owner of /%s", f->writer.path);
		f->mode &= 0777; /* never setuid for somebody else */
		atomic_fetch_add(&b->refused_owners, 1);
	}
	if (fchmod(fd, f->mode))
		return im_fail_errno(
		    err, IM_EIO, errno, "cannot set the mode of /%s", f->writer.path);
	if (futimens(fd, times))
		return im_fail_errno(
		    err, IM_EIO, errno, "cannot set the time of /%s", f->writer.path);
	return 0;
}

static int rename_one(int dir_fd, const char *name, struct im_error *err)
{
	char damaged[NAME_MAX + 1];
	target_damaged_name(damaged, name);
	if (renameat(dir_fd, name, dir_fd, damaged))
		return im_fail_errno(err, IM_EIO, errno, "cannot rename damaged %s", name);
	return 0;
}

/* Every name of the inode below fd. */
static int rename_links(int fd, const struct stat *wanted, unsigned depth, struct im_error *err)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	IM_CLEANUP(im_auto_closedir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir || depth > LINK_MAX_DEPTH)
		return im_fail(err, IM_EIO, "cannot look for hard links to a damaged file");
	int rc = 0;
	for (struct dirent *e; rc == 0 && (e = readdir(dir));) {
		struct stat st;
		size_t n = strlen(e->d_name), suffix = strlen(TARGET_DAMAGED_SUFFIX);
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (S_ISDIR(st.st_mode)) {
			auto_close int child = im_beneath_open(
			    fd, e->d_name, O_RDONLY | O_DIRECTORY, 0);
			rc = child < 0 ? 0 : rename_links(child, wanted, depth + 1, err);
		} else if (st.st_ino == wanted->st_ino && st.st_dev == wanted->st_dev &&
		    (n < suffix || strcmp(e->d_name + n - suffix, TARGET_DAMAGED_SUFFIX))) {
			rc = rename_one(fd, e->d_name, err);
		}
	}
	return rc;
}

int built_rename_damaged(const struct built_file *f, struct im_error *err)
{
	const char *slash = strrchr(f->writer.path, '/');
	auto_free char *folder = strndup(
	    f->writer.path, slash ? (size_t)(slash - f->writer.path) : 0);
	const char *name = slash ? slash + 1 : f->writer.path;
	auto_close int fd = -1;
	if (!folder)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = beneath_folder(f->writer.root_fd, folder, false, false, &fd, NULL, err);
	if (rc)
		return rc;
	struct stat st;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ?
		    0 :
		    im_fail_errno(err, IM_EIO, errno, "cannot stat damaged /%s", f->writer.path);
	rc = rename_one(fd, name, err);
	return rc || st.st_nlink < 2 ? rc : rename_links(f->writer.root_fd, &st, 0, err);
}
