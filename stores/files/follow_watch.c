/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may have changed. The kernel tells of each folder (inotify); where it cannot, or says that it
 * lost count, the tree is walked. A folder is watched before it is listed, so nothing falls between.
 */
#include "stores/files/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "stores/files/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

enum { REST_MS = 20 }; /* the shortest wait: a log may be written thousands of times a second */

#define WATCH_MASK \
	(IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

int files_follow_touch(struct follower *f, const char *path, struct im_error *err)
{
	if (files_names_get(&f->touched_names, path) != FILES_NO_NAME)
		return 0;
	if (f->touched_count == f->touched_cap) {
		size_t cap = f->touched_cap ? 2 * f->touched_cap : 64;
		char **grown = realloc(f->touched, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory for the files that are followed");
		f->touched = grown;
		f->touched_cap = cap;
	}
	char *copy = strdup(path);
	if (!copy)
		return im_fail(err, IM_ENOMEM, "out of memory for the files that are followed");
	f->touched[f->touched_count++] = copy;
	return files_names_put(&f->touched_names, path, 1, err);
}

void files_follow_untouch(struct follower *f)
{
	for (size_t i = 0; i < f->touched_count; i++)
		free(f->touched[i]);
	f->touched_count = 0;
	files_names_clear(&f->touched_names);
}

/* --- folders --- */

static const char *watch_name(char ret[16], int watch)
{
	snprintf(ret, 16, "%d", watch);
	return ret;
}

struct follow_folder *files_follow_folder_find(struct follower *f, const char *path)
{
	uint32_t i = files_names_get(&f->folder_by_path, path);
	return i == FILES_NO_NAME ? NULL : &f->folders[i];
}

static void forget_watch(struct follower *f, struct follow_folder *x)
{
	char name[16];
	if (x->watch >= 0)
		files_names_drop(&f->folder_by_watch, watch_name(name, x->watch));
	x->watch = -1;
}

static void drop_folder(struct follower *f, struct follow_folder *x)
{
	if (x->watch >= 0 && f->inotify >= 0)
		inotify_rm_watch(f->inotify, x->watch);
	forget_watch(f, x);
	files_names_drop(&f->folder_by_path, x->path);
	free(x->path);
	*x = (struct follow_folder){ .watch = -1 };
}

static int add_folder(struct follower *f, const char *path, struct follow_folder **ret, struct im_error *err)
{
	size_t i = f->folder_count;
	if (i == f->folder_cap) /* rows of dropped folders are used again only then */
		for (i = 0; i < f->folder_count && f->folders[i].path;)
			i++;
	if (i == f->folder_cap) {
		size_t cap = f->folder_cap ? 2 * f->folder_cap : 64;
		struct follow_folder *grown = realloc(f->folders, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory for the folders that are watched");
		f->folders = grown;
		f->folder_cap = cap;
	}
	f->folders[i] = (struct follow_folder){ .path = strdup(path), .watch = -1 };
	if (!f->folders[i].path)
		return im_fail(err, IM_ENOMEM, "out of memory for the folders that are watched");
	f->folder_count += i == f->folder_count;
	*ret = &f->folders[i];
	return files_names_put(&f->folder_by_path, path, (uint32_t)i, err);
}

static void give_up_inotify(struct follower *f, int errno_value)
{
	for (size_t i = 0; i < f->folder_count; i++)
		f->folders[i].watch = -1;
	files_names_clear(&f->folder_by_watch);
	if (f->inotify >= 0)
		close(f->inotify);
	f->inotify = -1;
	if (!f->told_inotify)
		files_follow_warn(f,
		    "the kernel gives no more watches (%s; see fs.inotify.max_user_watches): the tree is looked through each %d s instead",
		    strerror(errno_value), FILES_FOLLOW_SCAN_MS / 1000);
	f->told_inotify = true;
}

static int watch_folder(struct follower *f, struct follow_folder *x, struct im_error *err)
{
	char at[32], name[16];
	auto_close int fd = files_beneath_open(f->root_fd, x->path, O_PATH | O_DIRECTORY);
	if (fd < 0) /* gone again */
		return 0;
	snprintf(at, sizeof at, "/proc/self/fd/%d", fd);
	int watch = inotify_add_watch(f->inotify, at, WATCH_MASK);
	if (watch < 0) {
		if (errno == ENOSPC || errno == ENOMEM)
			give_up_inotify(f, errno);
		return 0;
	}
	uint32_t before = files_names_get(&f->folder_by_watch, watch_name(name, watch));
	if (before != FILES_NO_NAME && &f->folders[before] != x) /* it had another name */
		f->folders[before].watch = -1;
	if (x->watch != watch)
		forget_watch(f, x);
	x->watch = watch;
	return files_names_put(&f->folder_by_watch, name, (uint32_t)(x - f->folders), err);
}

static int see_folder(struct follower *f, const char *path, const struct stat *st, struct im_error *err)
{
	struct follow_folder *x = files_follow_folder_find(f, path);
	struct follow_ident ident = { .dev = st->st_dev, .ino = st->st_ino };
	int rc = x ? 0 : add_folder(f, path, &x, err);
	if (rc)
		return rc;
	if (!files_follow_same(&x->ident, &ident)) {
		x->announced = f->state.point == 0 && f->scan_round == 1; /* there before the epoch */
		x->ident = ident;
	}
	x->round = f->scan_round;
	return f->inotify < 0 ? 0 : watch_folder(f, x, err);
}

/* --- looking through --- */

static int on_entry(void *context, const char *path, const struct stat *st, struct im_error *err)
{
	struct follower *f = context;
	if (S_ISDIR(st->st_mode))
		return see_folder(f, path, st, err);
	if (!S_ISREG(st->st_mode))
		return 0;
	struct follow_look look;
	/* by inode: one that was renamed to any name */
	bool known = files_follow_find(f, path) != FILES_NO_NAME || files_follow_is_wanted(f, path) ||
	    (f->live_count && files_follow_look(f, path, &look) && files_follow_find_ident(f, &look.ident) != FILES_NO_NAME);
	return known ? files_follow_touch(f, path, err) : 0;
}

static void on_fault(void *context, const char *path, int errno_value)
{
	struct follower *f = context;
	if (errno_value != ENOENT && errno_value != ENOTDIR && errno_value != ELOOP)
		files_follow_warn_once(f, path, errno_value);
}

static int walk(struct follower *f, const char *from, struct im_error *err)
{
	struct files_walk w = { .root_fd = f->root_fd, .from = from, .exclude = &f->exclude, .entry = on_entry, .fault = on_fault, .context = f };
	return files_walk_run(&w, err);
}

static int check_root(struct follower *f, struct im_error *err)
{
	struct follow_look now;
	auto_close int fd = open(f->store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && files_follow_look_fd(fd, &now) && files_follow_same(&now.ident, &f->state.root))
		return 0;
	return im_fail(err, IM_EGAP, "%s is not the folder any more that was followed: it was replaced, unmounted or removed", f->store->path);
}

int files_follow_scan(struct follower *f, struct im_error *err)
{
	int64_t start = im_monotonic_ms();
	int rc = check_root(f, err);
	f->scan_round++;
	if (!rc)
		rc = walk(f, NULL, err);
	for (size_t i = 0; !rc && i < f->folder_count; i++)
		if (f->folders[i].path && f->folders[i].round != f->scan_round)
			drop_folder(f, &f->folders[i]);
	for (size_t i = 0; !rc && i < f->file_count; i++)
		if (f->files[i].path)
			rc = files_follow_touch(f, f->files[i].path, err);
	if (!rc) {
		f->rescan = false;
		f->scanned_ms = im_monotonic_ms();
		f->scan_took_ms = f->scanned_ms - start;
	}
	return rc;
}

/* --- events --- */

static int take_name(struct follower *f, const struct follow_folder *x, const struct inotify_event *e, struct im_error *err)
{
	char path[FILES_PATH_MAX_BYTES + NAME_MAX + 2];
	if (strcmp(x->path, "."))
		snprintf(path, sizeof path, "%s/%s", x->path, e->name);
	else
		snprintf(path, sizeof path, "%s", e->name);
	if (!files_path_valid(path))
		return 0;
	if (e->mask & IN_ISDIR) {
		struct stat st;
		if (e->mask & (IN_MOVED_FROM | IN_MOVED_TO))
			f->rescan = true; /* everything below has another name */
		if (!(e->mask & IN_CREATE) || files_exclude_match(&f->exclude, path, true))
			return 0;
		auto_close int fd = files_beneath_open(f->root_fd, path, O_PATH | O_DIRECTORY);
		if (fd < 0 || fstat(fd, &st))
			return 0;
		int rc = see_folder(f, path, &st, err);
		return rc ? rc : walk(f, path, err);
	}
	/* any name: a followed file may have got it */
	bool moved = e->mask & IN_MOVED_TO;
	return moved || files_follow_find(f, path) != FILES_NO_NAME || files_follow_is_wanted(f, path) ? files_follow_touch(f, path, err) : 0;
}

static int take_event(struct follower *f, const struct inotify_event *e, struct im_error *err)
{
	char name[16];
	if (e->mask & (IN_Q_OVERFLOW | IN_UNMOUNT)) {
		f->rescan = true;
		return 0;
	}
	uint32_t i = files_names_get(&f->folder_by_watch, watch_name(name, e->wd));
	if (i == FILES_NO_NAME)
		return 0;
	struct follow_folder *x = &f->folders[i];
	if (e->mask & IN_IGNORED) {
		x->watch = -1;
		files_names_drop(&f->folder_by_watch, name);
	} else if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF)) {
		f->rescan |= !strcmp(x->path, ".");
	} else if (e->len) {
		return take_name(f, x, e, err);
	}
	return 0;
}

static int read_events(struct follower *f, struct im_error *err)
{
	char events[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	for (;;) {
		ssize_t n = f->inotify < 0 ? 0 : read(f->inotify, events, sizeof events);
		if (n <= 0)
			return 0;
		for (char *p = events; p < events + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;
			int rc = take_event(f, e, err);
			if (rc)
				return rc;
			p += sizeof *e + e->len;
		}
	}
}

int files_follow_watch_drain(struct follower *f, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = read_events(f, &why);
	if (rc == IM_EINTERRUPTED) /* within a new folder's walk; what is not seen now is seen by the next run */
		f->rescan = true;
	else if (rc)
		return im_fail(err, rc, "%s", why.text);
	bool due = f->inotify < 0 && im_monotonic_ms() - f->scanned_ms >= FILES_FOLLOW_SCAN_MS;
	return f->rescan || due ? files_follow_scan(f, err) : 0;
}

int files_follow_watch_open(struct follower *f, struct im_error *err)
{
	(void)err;
	f->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (f->inotify < 0)
		give_up_inotify(f, errno);
	return 0;
}

void files_follow_watch_close(struct follower *f)
{
	if (f->inotify >= 0)
		close(f->inotify);
	for (size_t i = 0; i < f->folder_count; i++)
		free(f->folders[i].path);
	free(f->folders);
	files_names_clear(&f->folder_by_path);
	files_names_clear(&f->folder_by_watch);
	files_follow_untouch(f);
	free(f->touched);
}

int files_follow_watch_wait(struct follower *f, int wake_fd, int64_t timeout_ms, struct im_error *err)
{
	struct pollfd polls[2] = { { wake_fd, POLLIN, 0 }, { f->inotify, POLLIN, 0 } };
	int64_t now = im_monotonic_ms(), rest = f->returned_ms + REST_MS - now;
	if (timeout_ms < 0 || timeout_ms > INT32_MAX)
		timeout_ms = INT32_MAX;
	if (rest > 0 && poll(polls, 1, (int)(rest < timeout_ms ? rest : timeout_ms)) > 0)
		timeout_ms = 0; /* woken */
	else if (rest > 0)
		timeout_ms -= rest < timeout_ms ? rest : timeout_ms;
	if (f->inotify < 0) {
		int64_t left = f->scanned_ms + FILES_FOLLOW_SCAN_MS - im_monotonic_ms();
		if (left < timeout_ms)
			timeout_ms = left < 0 ? 0 : left;
	}
	bool busy = f->rescan || f->more || f->touched_count;
	int rc = 0;
	if (!busy && timeout_ms > 0 && poll(polls, 2, (int)timeout_ms) < 0 && errno != EINTR)
		rc = im_fail_errno(err, IM_EFAIL, errno, "cannot wait for changes of a tree");
	f->returned_ms = im_monotonic_ms();
	return rc;
}
