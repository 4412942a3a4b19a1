/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, folders and attributes: passed through. The kernel has checked permissions already
 * (default_permissions, with the files' own ACLs), so everything is done with our rights; what is
 * made belongs to whoever asked.
 */
#include "restore/instant/fuse_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#define HIDDEN_PREFIX "trusted.imvault."
#define TRUSTED_PREFIX "trusted."
#define ACL_PREFIX "system.posix_acl_"

static bool begins_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* --- as the caller --- */

/* This thread makes files as the caller would, his umask included (each thread has its own), and keeps its rights. */
static void act_as_caller(fuse_req_t req)
{
	const struct fuse_ctx *c = fuse_req_ctx(req);
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct rights[2];
	bool known = syscall(SYS_capget, &header, rights) == 0;
	umask(c->umask);
	setfsgid(c->gid);
	setfsuid(c->uid); /* takes rights over files away … */
	if (c->uid && known)
		syscall(SYS_capset, &header, rights);
}

static void act_as_ourselves(void)
{
	setfsuid(geteuid());
	setfsgid(getegid());
	umask(0);
}

/* --- looking --- */

static void reply_entry(fuse_req_t req, int error, const struct fuse_entry_param *e)
{
	struct fuse_view *v = view_of(req);
	if (error)
		fuse_reply_err(req, error);
	else if (fuse_reply_entry(req, e))
		node_forget(v, e->ino, 1);
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_view *v = view_of(req);
	struct fuse_entry_param e;
	auto_held struct held folder = node_hold(v, parent);
	int error = folder.error ? folder.error : node_look_up(v, folder.fd, name, &e);
	if (error == ENOENT && !folder.error) { /* that there is none is known as long */
		e = (struct fuse_entry_param){ .entry_timeout = FUSE_ENTRY_SECONDS };
		fuse_reply_entry(req, &e);
	} else {
		reply_entry(req, error, &e);
	}
}

static void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	node_forget(view_of(req), ino, count);
	fuse_reply_none(req);
}

static void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		node_forget(view_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_view *v = view_of(req);
	struct stat st;
	double seconds;
	auto_held struct held h = node_hold(v, ino);
	(void)fi;
	int error = h.error ? h.error : node_stat(v, h.node, h.fd, &st, &seconds);
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_attr(req, &st, seconds);
}

static void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char text[PATH_MAX + 1];
	auto_held struct held h = node_hold(view_of(req), ino);
	ssize_t n = h.error ? -1 : readlinkat(h.fd, "", text, sizeof text - 1);
	if (n < 0) {
		fuse_reply_err(req, h.error ? h.error : errno);
		return;
	}
	text[n] = 0;
	fuse_reply_readlink(req, text);
}

static void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	auto_held struct held h = node_hold(view_of(req), ino);
	int error = h.error ? h.error : fstatvfs(h.fd, &st) ? errno : 0;
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_statfs(req, &st);
}

/* --- making --- */

struct wanted { /* a new name */
	const char *name, *link;
	mode_t mode;
	dev_t rdev;
};

static int make(int folder_fd, const struct wanted *w)
{
	if (w->link)
		return symlinkat(w->link, folder_fd, w->name);
	return S_ISDIR(w->mode) ? mkdirat(folder_fd, w->name, w->mode & ~(mode_t)S_IFMT) : mknodat(folder_fd, w->name, w->mode, w->rdev);
}

static void do_make(fuse_req_t req, fuse_ino_t parent, const struct wanted *w)
{
	struct fuse_view *v = view_of(req);
	struct fuse_entry_param e;
	auto_held struct held folder = node_hold(v, parent);
	int error = folder.error;
	if (!error) {
		act_as_caller(req);
		error = make(folder.fd, w) ? errno : 0;
		act_as_ourselves();
	}
	if (!error)
		error = node_look_up(v, folder.fd, w->name, &e);
	reply_entry(req, error, &e);
}

static void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	do_make(req, parent, &(struct wanted){ .name = name, .mode = mode, .rdev = rdev });
}

static void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	do_make(req, parent, &(struct wanted){ .name = name, .mode = mode | S_IFDIR });
}

static void do_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	do_make(req, parent, &(struct wanted){ .name = name, .link = link });
}

static void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct fuse_view *v = view_of(req);
	struct fuse_entry_param e;
	auto_held struct held h = node_hold(v, ino);
	auto_held struct held folder = node_hold(v, parent);
	int error = h.error ? h.error : folder.error;
	if (!error && linkat(h.fd, "", folder.fd, name, AT_EMPTY_PATH))
		error = errno;
	if (!error)
		error = node_look_up(v, folder.fd, name, &e);
	reply_entry(req, error, &e);
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_view *v = view_of(req);
	struct fuse_entry_param e;
	auto_held struct held folder = node_hold(v, parent);
	auto_close int fd = -1;
	int error = folder.error;
	if (!error) {
		act_as_caller(req);
		fd = openat(folder.fd, name, (fi->flags & (O_ACCMODE | O_EXCL | O_DSYNC | O_SYNC)) | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode);
		error = fd < 0 ? errno : 0;
		act_as_ourselves();
	}
	if (!error)
		error = node_of_open(v, fd, &e);
	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	if (fi->flags & O_TRUNC && e.attr.st_size) /* somebody else was faster */
		error = data_resize(v, node_at(v, e.ino), fd, 0);
	fi->fh = (uint64_t)fd;
	fi->keep_cache = 1;
	if (error)
		fuse_reply_err(req, error);
	else if (fuse_reply_create(req, &e, fi) == 0)
		fd = -1; /* do_release's */
	if (fd >= 0) {
		node_close(v, node_at(v, e.ino));
		node_forget(v, e.ino, 1);
	}
}

/* --- taking away and renaming --- */

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	auto_held struct held folder = node_hold(view_of(req), parent);
	fuse_reply_err(req, folder.error ? folder.error : unlinkat(folder.fd, name, 0) ? errno : 0);
}

static void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	auto_held struct held folder = node_hold(view_of(req), parent);
	fuse_reply_err(req, folder.error ? folder.error : unlinkat(folder.fd, name, AT_REMOVEDIR) ? errno : 0);
}

static void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
	struct fuse_view *v = view_of(req);
	auto_held struct held from = node_hold(v, parent);
	auto_held struct held to = node_hold(v, new_parent);
	int error = from.error ? from.error : to.error;
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		error = EINVAL;
	if (!error && renameat2(from.fd, name, to.fd, new_name, flags))
		error = errno;
	fuse_reply_err(req, error);
}

/* --- folders --- */

struct folder { /* an open one */
	DIR *stream;
	off_t at; /* where the stream is; -1: elsewhere than it was told */
};

static struct folder *folder_of(const struct fuse_file_info *fi)
{
	return (struct folder *)(uintptr_t)fi->fh;
}

static void close_folder(struct folder *f)
{
	if (f->stream)
		closedir(f->stream);
	free(f);
}

static int open_folder(struct fuse_view *v, fuse_ino_t ino, struct folder *f)
{
	auto_held struct held h = node_hold(v, ino);
	auto_close int fd = h.error ? -1 : node_reopen(v, h.fd, O_RDONLY | O_DIRECTORY);
	if (h.error || fd < 0 || !(f->stream = fdopendir(fd)))
		return h.error ? h.error : errno;
	fd = -1; /* the stream's */
	return node_open(v, h.node);
}

static void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_view *v = view_of(req);
	struct folder *f = calloc(1, sizeof *f);
	int error = f ? open_folder(v, ino, f) : ENOMEM;
	fi->fh = (uintptr_t)f;
	if (!error && fuse_reply_open(req, fi) == 0)
		return;
	if (error)
		fuse_reply_err(req, error);
	else
		node_close(v, node_at(v, ino));
	if (f)
		close_folder(f);
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct folder *f = folder_of(fi);
	size_t len = 0, room = size < FUSE_BUFFER_BYTES ? size : FUSE_BUFFER_BYTES;
	char *buffer = (char *)fuse_self->buffer;
	struct dirent *d;
	(void)ino;
	if (!offset)
		rewinddir(f->stream);
	else if (f->at != offset)
		seekdir(f->stream, offset);
	f->at = offset;
	while (errno = 0, d = readdir(f->stream)) {
		struct stat st = { .st_ino = d->d_ino, .st_mode = DTTOIF(d->d_type) };
		size_t n = fuse_add_direntry(req, buffer + len, room - len, d->d_name, &st, d->d_off);
		if (n > room - len) {
			f->at = -1; /* read once more */
			break;
		}
		len += n;
		f->at = d->d_off;
	}
	if (!d && errno && !len)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, len);
}

static void do_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close_folder(folder_of(fi));
	node_close(view_of(req), node_at(view_of(req), ino));
	fuse_reply_err(req, 0);
}

static void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int only_data, struct fuse_file_info *fi)
{
	int fd = dirfd(folder_of(fi)->stream);
	(void)ino;
	fuse_reply_err(req, (only_data ? fdatasync(fd) : fsync(fd)) ? errno : 0);
}

/* --- extended attributes --- */

static bool is_in_group(fuse_req_t req, gid_t gid)
{
	gid_t groups[1024];
	int n = fuse_req_getgroups(req, sizeof groups / sizeof groups[0], groups);
	bool in = fuse_req_ctx(req)->gid == gid;
	for (int i = 0; i < n && i < (int)(sizeof groups / sizeof groups[0]) && !in; i++)
		in = groups[i] == gid;
	return in;
}

/* Who is not in the group of a file cannot leave it set-group-id when he changes its rights; ours would let him. */
static int drop_group_bit(fuse_req_t req, int fd, const char *path)
{
	struct stat st;
	if (fstatat(fd, "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return errno;
	if (!(st.st_mode & S_ISGID) || fuse_req_ctx(req)->uid == 0 || is_in_group(req, st.st_gid))
		return 0;
	return chmod(path, st.st_mode & 07777 & ~(mode_t)S_ISGID) ? errno : 0;
}

static void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	char path[FUSE_PROC_NAME_BYTES];
	auto_held struct held h = node_hold(view_of(req), ino);
	int error = begins_with(name, HIDDEN_PREFIX) ? EPERM : h.error;
	if (!error && setxattr(proc_path(path, h.fd), name, value, size, flags))
		error = errno;
	if (!error && strcmp(name, ACL_PREFIX "access") == 0)
		error = drop_group_bit(req, h.fd, path);
	fuse_reply_err(req, error);
}

static void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	char path[FUSE_PROC_NAME_BYTES];
	auto_held struct held h = node_hold(view_of(req), ino);
	int error = begins_with(name, HIDDEN_PREFIX) ? ENODATA : h.error;
	if (!error && removexattr(proc_path(path, h.fd), name))
		error = errno;
	fuse_reply_err(req, error);
}

static void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char path[FUSE_PROC_NAME_BYTES];
	size_t room = size < FUSE_BUFFER_BYTES ? size : FUSE_BUFFER_BYTES;
	auto_held struct held h = node_hold(view_of(req), ino);
	int error = begins_with(name, HIDDEN_PREFIX) ? ENODATA : h.error;
	ssize_t n = error ? -1 : getxattr(proc_path(path, h.fd), name, fuse_self->buffer, room);
	if (!error && n < 0) /* a file system without ACLs: the kernel asks all the same, and takes this error for one of its own */
		error = errno == EOPNOTSUPP && begins_with(name, ACL_PREFIX) ? ENODATA : errno;
	if (error)
		fuse_reply_err(req, error);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, (const char *)fuse_self->buffer, (size_t)n);
}

/* Takes what shall not be seen out of a list of names; the bytes left. */
static size_t filter_names(char *list, size_t len, bool privileged)
{
	size_t left = 0;
	for (size_t at = 0, n; at < len; at += n) {
		n = strnlen(list + at, len - at) + 1;
		if (begins_with(list + at, privileged ? HIDDEN_PREFIX : TRUSTED_PREFIX))
			continue;
		memmove(list + left, list + at, n);
		left += n;
	}
	return left;
}

static void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char path[FUSE_PROC_NAME_BYTES], *list = (char *)fuse_self->buffer;
	auto_held struct held h = node_hold(view_of(req), ino);
	ssize_t n = h.error ? -1 : listxattr(proc_path(path, h.fd), list, FUSE_BUFFER_BYTES - 1);
	if (n < 0) {
		fuse_reply_err(req, h.error ? h.error : errno);
		return;
	}
	list[n] = 0;
	size_t len = filter_names(list, (size_t)n, fuse_req_ctx(req)->uid == 0);
	if (!size)
		fuse_reply_xattr(req, len);
	else if (len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, list, len);
}

void names_operations(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = do_lookup;
	ops->forget = do_forget;
	ops->forget_multi = do_forget_multi;
	ops->getattr = do_getattr;
	ops->readlink = do_readlink;
	ops->statfs = do_statfs;
	ops->mknod = do_mknod;
	ops->mkdir = do_mkdir;
	ops->symlink = do_symlink;
	ops->link = do_link;
	ops->create = do_create;
	ops->unlink = do_unlink;
	ops->rmdir = do_rmdir;
	ops->rename = do_rename;
	ops->opendir = do_opendir;
	ops->readdir = do_readdir;
	ops->releasedir = do_releasedir;
	ops->fsyncdir = do_fsyncdir;
	ops->setxattr = do_setxattr;
	ops->removexattr = do_removexattr;
	ops->getxattr = do_getxattr;
	ops->listxattr = do_listxattr;
}
