/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content: reading, writing, changing a size. Each request becomes a job that says what has to be
 * there first (fuse_wait.c).
 *
 * A file may be made shorter and longer again while its blocks arrive, and nothing of what it held
 * before may come back. So shortening a file and noting that it is shorter are one step for whoever
 * writes to it (lazy_state.lock). Nobody waits for the vault with that lock held: what has arrived
 * before stays, and what lies beyond the limit only grows.
 */
#include "restore/instant/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

int data_errno(int code)
{
	return code == 0 ? 0 : code == IM_ENOSPACE ? ENOSPC : code == IM_ENOMEM ? ENOMEM : EIO;
}

/* Whole pages: after a crash a page that anybody wrote to counts as arrived. */
static void need_pages(struct job *j, uint64_t offset, uint64_t size)
{
	j->offset = offset / FUSE_PAGE * FUSE_PAGE;
	j->end = (offset + size + FUSE_PAGE - 1) / FUSE_PAGE * FUSE_PAGE;
}

/* --- changing a file that is being filled --- */

/* The server is about to change it. Followed by changed(). */
static int change(struct fuse_view *v, uint32_t file, bool shorter)
{
	struct im_error why = { 0 };
	uint64_t limit;
	struct lazy_state *s = &v->lazy[file];
	if (shorter)
		pthread_rwlock_wrlock(&s->lock);
	else
		pthread_rwlock_rdlock(&s->lock);
	int rc = hydrate_touch(v->hydrator, file, &limit, &why);
	if (rc) {
		pthread_rwlock_unlock(&s->lock);
		table_trouble(v->table, "%s", why.text);
	}
	return data_errno(rc);
}

/* … and has changed it: if it is shorter now, that is known (and durable) before anybody can make it longer. */
static int changed(struct fuse_view *v, uint32_t file, bool shorter)
{
	struct im_error why = { 0 };
	uint64_t limit;
	int rc = shorter ? hydrate_touch(v->hydrator, file, &limit, &why) : 0;
	pthread_rwlock_unlock(&v->lazy[file].lock);
	if (rc)
		table_trouble(v->table, "%s", why.text);
	return data_errno(rc);
}

static int resize_open(struct fuse_view *v, struct node *n, int fd, uint64_t size)
{
	uint32_t file = node_lazy(v, n);
	if (file == ACCESS_NO_FILE)
		return ftruncate(fd, (off_t)size) ? errno : 0;
	int e = change(v, file, true);
	if (e)
		return e;
	e = ftruncate(fd, (off_t)size) ? errno : 0;
	int noted = changed(v, file, true);
	return e ? e : noted;
}

int data_resize(struct fuse_view *v, struct node *n, int fd, uint64_t size)
{
	if (fd >= 0)
		return resize_open(v, n, fd, size);
	auto_held struct held h = node_hold(v, n == &v->nodes.root ? FUSE_ROOT_ID : (uintptr_t)n);
	auto_close int writable = h.error ? -1 : node_reopen(v, h.fd, O_WRONLY | O_NONBLOCK);
	if (h.error || writable < 0)
		return h.error ? h.error : errno;
	return resize_open(v, n, writable, size);
}

/* --- the jobs; nothing of the node is used after the answer --- */

static void read_job(struct job *j)
{
	auto_free uint8_t *large = j->size > FUSE_BUFFER_BYTES ? malloc(j->size) : NULL;
	uint8_t *buffer = j->size > FUSE_BUFFER_BYTES ? large : fuse_self->buffer;
	size_t done = 0;
	ssize_t n = 1;
	while (buffer && done < j->size && n) { /* the kernel takes less for the end of the file */
		n = pread(j->fd, buffer + done, j->size - done, (off_t)(j->at + done));
		if (n < 0 && errno != EINTR)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	if (!buffer || n < 0)
		fuse_reply_err(j->req, buffer ? errno : ENOMEM);
	else
		fuse_reply_buf(j->req, (const char *)buffer, done);
}

static void write_job(struct fuse_view *v, struct job *j)
{
	uint32_t file = node_lazy(v, j->node);
	int e = file == ACCESS_NO_FILE ? 0 : change(v, file, false);
	size_t done = 0;
	if (e) {
		fuse_reply_err(j->req, e);
		return;
	}
	while (done < j->size && !e) {
		ssize_t n = pwrite(j->fd, j->data + done, j->size - done, (off_t)(j->at + done));
		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			e = n ? errno : EIO;
	}
	if (file != ACCESS_NO_FILE)
		changed(v, file, false);
	if (e && (!done || j->writeback)) /* nobody would write the rest of mapped pages */
		fuse_reply_err(j->req, e);
	else
		fuse_reply_write(j->req, done);
}

static void allocate_job(struct fuse_view *v, struct job *j)
{
	uint32_t file = node_lazy(v, j->node);
	int e = file == ACCESS_NO_FILE ? 0 : change(v, file, false);
	if (e) {
		fuse_reply_err(j->req, e);
		return;
	}
	/* A hole would be filled again after a crash, and so would be space that is only reserved. Whoever punches holes can do without. */
	bool ours = file != ACCESS_NO_FILE && j->offset < v->table->files[file].limit;
	if (ours && j->mode & ~FALLOC_FL_KEEP_SIZE)
		e = EOPNOTSUPP;
	else if (ours && fdatasync(j->fd))
		e = errno;
	if (!e && fallocate(j->fd, j->mode, (off_t)j->at, (off_t)j->size))
		e = errno;
	if (file != ACCESS_NO_FILE)
		changed(v, file, false);
	fuse_reply_err(j->req, e);
}

static struct timespec time_of(const struct job *j, int set, int now, struct timespec t)
{
	return j->mode & now ? (struct timespec){ .tv_nsec = UTIME_NOW } : j->mode & set ? t : (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int set_times(struct fuse_view *v, const struct job *j, const char *path)
{
	const struct timespec times[2] = { time_of(j, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, j->attr.st_atim),
		time_of(j, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, j->attr.st_mtim) };
	uint32_t file = node_lazy(v, j->node);
	int e = file == ACCESS_NO_FILE ? 0 : change(v, file, false); /* its time is its own from now on */
	if (e)
		return e;
	e = utimensat(AT_FDCWD, path, times, 0) ? errno : 0;
	if (file != ACCESS_NO_FILE)
		changed(v, file, false);
	return e;
}

static int set_all(struct fuse_view *v, struct job *j, int fd)
{
	char name[FUSE_PROC_NAME_BYTES];
	const char *path = proc_path(name, fd);
	int e = 0;
	if (j->mode & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) { /* first: it may take mode bits away */
		uid_t uid = j->mode & FUSE_SET_ATTR_UID ? j->attr.st_uid : (uid_t)-1;
		gid_t gid = j->mode & FUSE_SET_ATTR_GID ? j->attr.st_gid : (gid_t)-1;
		e = fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? errno : 0;
	}
	if (!e && j->mode & FUSE_SET_ATTR_MODE)
		e = chmod(path, j->attr.st_mode & 07777) ? errno : 0;
	if (!e && j->mode & FUSE_SET_ATTR_SIZE)
		e = data_resize(v, j->node, j->fd, (uint64_t)j->attr.st_size);
	if (!e && j->mode & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))
		e = set_times(v, j, path);
	return e;
}

static void set_job(struct fuse_view *v, struct job *j)
{
	struct stat st;
	double seconds;
	auto_held struct held h = node_hold(v, j->node == &v->nodes.root ? FUSE_ROOT_ID : (uintptr_t)j->node);
	int e = h.error ? h.error : set_all(v, j, h.fd);
	if (!e)
		e = node_stat(v, j->node, h.fd, &st, &seconds);
	if (e)
		fuse_reply_err(j->req, e);
	else
		fuse_reply_attr(j->req, &st, seconds);
}

void data_run(struct fuse_view *v, struct job *j)
{
	switch (j->kind) {
	case JOB_READ: read_job(j); break;
	case JOB_WRITE: write_job(v, j); break;
	case JOB_SET: set_job(v, j); break;
	case JOB_ALLOCATE: allocate_job(v, j); break;
	}
}

/* --- the operations --- */

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_view *v = view_of(req);
	auto_held struct held h = node_hold(v, ino);
	/* the kernel says where an append goes, and we need no aligned buffers */
	auto_close int fd = h.error ? -1 : node_reopen(v, h.fd, fi->flags & (O_ACCMODE | O_DSYNC | O_SYNC));
	int e = h.error ? h.error : fd < 0 ? errno : node_open(v, h.node);
	if (e) {
		fuse_reply_err(req, e);
		return;
	}
	fi->fh = (uint64_t)fd;
	fi->keep_cache = 1; /* nobody changes it but through us */
	if (fuse_reply_open(req, fi))
		node_close(v, h.node);
	else
		fd = -1; /* do_release's */
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct job j = { .kind = JOB_READ, .node = node_at(view_of(req), ino), .fd = (int)fi->fh, .at = (uint64_t)offset, .size = size };
	need_pages(&j, j.at, size);
	wait_for(req, &j);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct job j = { .kind = JOB_WRITE, .node = node_at(view_of(req), ino), .fd = (int)fi->fh, .at = (uint64_t)offset, .size = size,
		.writeback = fi->writepage, .data = (const uint8_t *)data };
	need_pages(&j, j.at, size);
	wait_for(req, &j);
}

static void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len, struct fuse_file_info *fi)
{
	struct job j = { .kind = JOB_ALLOCATE, .node = node_at(view_of(req), ino), .fd = (int)fi->fh, .at = (uint64_t)offset, .size = (uint64_t)len,
		.mode = mode };
	need_pages(&j, j.at, j.size);
	wait_for(req, &j);
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int which, struct fuse_file_info *fi)
{
	struct job j = { .kind = JOB_SET, .node = node_at(view_of(req), ino), .fd = fi ? (int)fi->fh : -1, .mode = which, .attr = *attr };
	if (which & FUSE_SET_ATTR_SIZE && (uint64_t)attr->st_size % FUSE_PAGE)
		need_pages(&j, (uint64_t)attr->st_size, 0);
	if (which & FUSE_SET_ATTR_MTIME && !(which & FUSE_SET_ATTR_MTIME_NOW)) { /* filling it would change its time again */
		j.offset = 0;
		j.end = UINT64_MAX;
	}
	wait_for(req, &j);
}

static void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int copy = fcntl((int)fi->fh, F_DUPFD_CLOEXEC, 3); /* some file systems tell at a close what went wrong */
	(void)ino;
	fuse_reply_err(req, copy >= 0 && close(copy) ? errno : 0);
}

static void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close((int)fi->fh);
	node_close(view_of(req), node_at(view_of(req), ino));
	fuse_reply_err(req, 0);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int only_data, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_reply_err(req, (only_data ? fdatasync((int)fi->fh) : fsync((int)fi->fh)) ? errno : 0);
}

/* What has not arrived is no hole: it only is not there yet. */
static void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct fuse_view *v = view_of(req);
	struct stat st;
	bool lazy = node_lazy(v, node_at(v, ino)) != ACCESS_NO_FILE && (whence == SEEK_DATA || whence == SEEK_HOLE);
	off_t at = lazy ? -1 : lseek((int)fi->fh, offset, whence);
	int e = at < 0 && !lazy ? errno : 0;
	if (lazy && fstat((int)fi->fh, &st))
		e = errno;
	else if (lazy && (offset < 0 || offset >= st.st_size))
		e = ENXIO;
	else if (lazy)
		at = whence == SEEK_DATA ? offset : st.st_size;
	if (e)
		fuse_reply_err(req, e);
	else
		fuse_reply_lseek(req, at);
}

void data_operations(struct fuse_lowlevel_ops *ops)
{
	ops->open = do_open;
	ops->read = do_read;
	ops->write = do_write;
	ops->fallocate = do_fallocate;
	ops->setattr = do_setattr;
	ops->flush = do_flush;
	ops->release = do_release;
	ops->fsync = do_fsync;
	ops->lseek = do_lseek;
}
