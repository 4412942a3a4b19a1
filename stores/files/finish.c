/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a rebuild: links, FIFOs and devices are made, extras set, and folders get their
 * metadata last, deepest first, since every change below would spoil their times. All of it
 * happens beneath the restore root, by descriptor or in a parent opened without following links.
 * A crash in here leaves the stage folder of the restore, nothing under a final name.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "stores/files/beneath.h"
#include "stores/files/files_store.h"
#include "stores/files/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct finisher {
	struct rebuild *r;
	struct files_parent parent; /* of what is made */
	struct files_parent from; /* of hard links' targets */
	struct files_meta_refused refused;
};

static bool is_fatal(int e)
{
	return e == ENOSPC || e == EDQUOT || e == EIO || e == EROFS || e == ENOMEM || e == EMFILE || e == ENFILE;
}

/* One entry could not be made: the rest goes on, unless nothing would. */
static int give_up(struct finisher *f, const char *path, const char *what, int e, struct im_error *err)
{
	if (is_fatal(e))
		return im_fail_errno(err, IM_EIO, e, "%s: cannot %s", path, what);
	auto_free char *text = im_format("/%s: cannot %s: %s", path, what, strerror(e));
	f->r->damaged(f->r, text ? text : path);
	return 0;
}

/* Owner first: a change of owner clears capabilities and set-id bits. */
static int describe_fd(struct finisher *f, int fd, const struct files_later_item *item, struct im_error *err)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, item->meta.mtime };
	if (item->kind == FILES_LATER_FOLDER) {
		if (item->meta.set_owner && fchown(fd, item->meta.uid, item->meta.gid))
			files_meta_refuse(&f->refused, item->path, "owner", errno);
		if (fchmod(fd, item->meta.mode & 07777))
			return give_up(f, item->path, "set its mode", errno, err);
	}
	files_meta_set_extras(fd, NULL, item->path, item->extras, item->extras_len, &f->refused);
	if (futimens(fd, times))
		files_meta_refuse(&f->refused, item->path, "time", errno);
	return 0;
}

static int finish_opened(struct finisher *f, const struct files_later_item *item, struct im_error *err)
{
	bool is_folder = item->kind == FILES_LATER_FOLDER;
	int fd = files_beneath_open(f->r->root_fd, item->path, O_RDONLY | O_NONBLOCK | (is_folder ? O_DIRECTORY : 0));
	if (fd == -ENOENT && !is_folder)
		return 0; /* a damaged file has another name, and is reported by the engine */
	if (fd < 0)
		return give_up(f, item->path, "set its metadata", -fd, err);
	struct stat st;
	int rc = 0;
	if (!is_folder && (fstat(fd, &st) || !S_ISREG(st.st_mode)))
		rc = give_up(f, item->path, "set its metadata", EINVAL, err);
	else
		rc = describe_fd(f, fd, item, err);
	close(fd);
	return rc;
}

/* A thing that cannot be opened: symlink, FIFO or device, just made as name in the parent. */
static void describe_name(struct finisher *f, const char *name, const struct files_later_item *item)
{
	char at[64 + 256];
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, item->meta.mtime };
	if (item->meta.set_owner && fchownat(f->parent.fd, name, item->meta.uid, item->meta.gid, AT_SYMLINK_NOFOLLOW))
		files_meta_refuse(&f->refused, item->path, "owner", errno);
	if (item->kind == FILES_LATER_NODE) {
		auto_close int fd = openat(f->parent.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		snprintf(at, sizeof at, "/proc/self/fd/%d", fd);
		struct stat st;
		if (fd < 0 || fstat(fd, &st) || S_ISLNK(st.st_mode) || chmod(at, item->meta.mode & 07777))
			files_meta_refuse(&f->refused, item->path, "mode", errno);
	}
	snprintf(at, sizeof at, "/proc/self/fd/%d/%s", f->parent.fd, name);
	files_meta_set_extras(-1, at, item->path, item->extras, item->extras_len, &f->refused);
	if (utimensat(f->parent.fd, name, times, AT_SYMLINK_NOFOLLOW))
		files_meta_refuse(&f->refused, item->path, "time", errno);
}

static int make_link(struct finisher *f, const char *name, const struct files_later_item *item, struct im_error *err)
{
	const char *from_name;
	struct stat st;
	int from_fd = files_parent_open(&f->from, f->r->root_fd, item->target, &from_name);
	int e = from_fd < 0 ? -from_fd : 0;
	if (!e && fstatat(from_fd, from_name, &st, AT_SYMLINK_NOFOLLOW))
		e = errno;
	if (!e && S_ISDIR(st.st_mode))
		e = EISDIR;
	if (!e && linkat(from_fd, from_name, f->parent.fd, name, 0))
		e = errno;
	if (!e)
		return 0;
	auto_free char *what = im_format("make a hard link to /%s", item->target);
	return give_up(f, item->path, what ? what : "make a hard link", e, err);
}

static int make_named(struct finisher *f, const struct files_later_item *item, struct im_error *err)
{
	const char *name;
	int fd = files_parent_open(&f->parent, f->r->root_fd, item->path, &name);
	if (fd < 0)
		return give_up(f, item->path, "open its folder", -fd, err);
	if (item->kind == FILES_LATER_LINK)
		return make_link(f, name, item, err);
	if (item->kind == FILES_LATER_SYMLINK) {
		if (symlinkat(item->target, fd, name))
			return give_up(f, item->path, "make the symbolic link", errno, err);
	} else if (mknodat(fd, name, (item->meta.mode & S_IFMT) | 0600, (dev_t)item->device)) {
		if (errno == EPERM && !S_ISFIFO(item->meta.mode)) {
			files_meta_refuse(&f->refused, item->path, "device", EPERM);
			return 0;
		}
		return give_up(f, item->path, "make it", errno, err);
	}
	describe_name(f, name, item);
	return 0;
}

/* Hard links come last: a link may be to a symlink or FIFO made here, and extras belong to the first name. */
static int finish_files(struct finisher *f, const struct files_later *l, bool links, struct im_error *err)
{
	struct im_reader reader = im_reader_of(l->records.data, l->records.len);
	struct files_later_item item;
	int rc = 0;
	for (unsigned n = 0; !rc && im_read_left(&reader) && files_later_next(&reader, &item); n++) {
		if (n % 256 == 0)
			rc = im_interrupt_check(err);
		if (rc || item.kind == FILES_LATER_FOLDER || (item.kind == FILES_LATER_LINK) != links)
			continue;
		rc = item.kind == FILES_LATER_FILE ? finish_opened(f, &item, err) : make_named(f, &item, err);
	}
	return rc;
}

static int finish_folders(struct finisher *f, const struct files_later *l, struct im_error *err)
{
	int rc = 0;
	for (size_t i = l->folders.len / 8; i-- > 0 && !rc;) {
		uint64_t at = im_le64(l->folders.data + 8 * i);
		struct im_reader reader = im_reader_of(l->records.data + at, l->records.len - at);
		struct files_later_item item;
		if (files_later_next(&reader, &item))
			rc = finish_opened(f, &item, err);
	}
	return rc;
}

static void report_refused(struct finisher *f)
{
	const struct store_events *events = f->r->events;
	if (!f->refused.count || !events || !events->warn)
		return;
	const char *name = json_string_value(json_object_get(f->r->manifest, "name"));
	auto_free char *text = im_format("%llu owners, attributes or devices could not be set as they were (%s)",
	    (unsigned long long)f->refused.count, f->refused.first);
	if (text)
		events->warn(events->context, name ? name : "?", text);
}

int files_complete(struct rebuild *r, struct im_error *err)
{
	const struct files_later *l = r->store_data;
	struct finisher f = { .r = r, .parent = { .fd = -1 }, .from = { .fd = -1 } };
	int rc = finish_files(&f, l, false, err);
	if (!rc)
		rc = finish_files(&f, l, true, err);
	if (!rc)
		rc = finish_folders(&f, l, err);
	report_refused(&f);
	files_parent_close(&f.parent);
	files_parent_close(&f.from);
	return rc;
}

int files_finish(struct rebuild *r, bool failed, struct im_error *err)
{
	(void)failed, (void)err;
	files_later_free(r->store_data);
	r->store_data = NULL;
	return 0;
}
