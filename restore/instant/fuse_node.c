/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which file the kernel means. A node keeps a descriptor (O_PATH) of its file, so names may change
 * as they like; beyond half of the descriptors we may have, files that are not open are found by
 * their handle instead (open_by_handle_at(2)). One file is one node under all its names: the kernel
 * caches its pages once.
 */
#include "restore/instant/fuse_internal.h"
#include "restore/instant/lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum { FIRST_BUCKETS = 1024 };

/* --- files of the table --- */

uint32_t node_lazy(const struct fuse_view *v, const struct node *n)
{
	return n->file != ACCESS_NO_FILE && v->table->files[n->file].state != FILE_ORDINARY ? n->file : ACCESS_NO_FILE;
}

/* --- handles --- */

/* Allocated; NULL: it has none. */
static struct file_handle *make_handle(int fd)
{
	int mount_id;
	struct file_handle *h = calloc(1, sizeof *h + MAX_HANDLE_SZ);
	if (!h)
		return NULL;
	h->handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(fd, "", h, &mount_id, AT_EMPTY_PATH)) {
		free(h);
		return NULL;
	}
	struct file_handle *fitting = realloc(h, sizeof *h + h->handle_bytes);
	return fitting ? fitting : h;
}

static bool same_handle(const struct file_handle *a, const struct file_handle *b)
{
	return a && b && a->handle_type == b->handle_type && a->handle_bytes == b->handle_bytes &&
	    memcmp(a->f_handle, b->f_handle, a->handle_bytes) == 0;
}

static int open_handle(const struct fuse_view *v, struct file_handle *h)
{
	return open_by_handle_at(v->root_fd, h, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

/* --- the table of nodes; its mutex is held --- */

static struct node **bucket_of(const struct nodes *ns, dev_t dev, ino_t ino)
{
	return &ns->buckets[((uint64_t)ino * 0x9e3779b97f4a7c15u ^ dev * 0xc2b2ae3d27d4eb4fu) >> 17 & (ns->bucket_count - 1)];
}

static void hash_in(struct nodes *ns, struct node *n)
{
	struct node **b = bucket_of(ns, n->dev, n->ino);
	n->next = *b;
	n->hashed = true;
	*b = n;
	ns->count++;
}

static void hash_out(struct nodes *ns, struct node *n)
{
	if (!n->hashed)
		return;
	struct node **at = bucket_of(ns, n->dev, n->ino);
	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	n->hashed = false;
	ns->count--;
}

/* More room if it is short; if there is no memory, chains get longer. */
static void widen(struct nodes *ns)
{
	if (ns->count < ns->bucket_count)
		return;
	struct node **old = ns->buckets, **wider = calloc(2 * ns->bucket_count, sizeof *wider);
	size_t old_count = ns->bucket_count;
	if (!wider)
		return;
	ns->buckets = wider;
	ns->bucket_count *= 2;
	ns->count = 0;
	for (size_t i = 0; i < old_count; i++)
		for (struct node *n = old[i], *next; n; n = next) {
			next = n->next;
			hash_in(ns, n);
		}
	free(old);
}

/* A node without a descriptor may be another file's by now, which got the same number. */
static bool is_still(const struct node *n, int fd)
{
	if (n->fd >= 0)
		return true;
	struct file_handle *now = make_handle(fd);
	bool same = same_handle(now, n->handle);
	free(now);
	return same;
}

static struct node *find_node(struct nodes *ns, const struct stat *st, int fd)
{
	struct node *n = *bucket_of(ns, st->st_dev, st->st_ino);
	while (n && (n->dev != st->st_dev || n->ino != st->st_ino))
		n = n->next;
	if (n && !is_still(n, fd)) {
		hash_out(ns, n);
		n = NULL;
	}
	return n;
}

static void free_node(struct nodes *ns, struct node *n)
{
	if (n->fd >= 0) {
		close(n->fd);
		ns->pinned--;
	}
	free(n->handle);
	free(n);
}

/* Takes fd over, also on failure. */
static struct node *add_node(struct fuse_view *v, const struct stat *st, int fd)
{
	struct nodes *ns = &v->nodes;
	struct node *n = calloc(1, sizeof *n);
	if (!n) {
		close(fd);
		return NULL;
	}
	*n = (struct node){ .dev = st->st_dev, .ino = st->st_ino, .fd = fd, .file = access_find(&ns->lazy_files, v->table, st) };
	if (ns->pinned >= ns->pinned_max && ns->handles && st->st_dev == ns->root.dev)
		n->handle = make_handle(fd);
	if (n->handle) {
		n->fd = -1;
		close(fd);
	} else {
		ns->pinned++;
	}
	widen(ns);
	hash_in(ns, n);
	return n;
}

/* --- */

struct node *node_at(struct fuse_view *v, fuse_ino_t number)
{
	return number == FUSE_ROOT_ID ? &v->nodes.root : (struct node *)(uintptr_t)number;
}

struct held node_hold(struct fuse_view *v, fuse_ino_t number)
{
	struct held h = { .v = v, .node = node_at(v, number) };
	pthread_mutex_lock(&v->nodes.mutex);
	h.node->holds++;
	h.fd = h.node->fd;
	pthread_mutex_unlock(&v->nodes.mutex);
	h.own = h.fd < 0;
	if (h.own)
		h.fd = open_handle(v, h.node->handle);
	h.error = h.fd < 0 ? errno : 0;
	return h;
}

/* With the mutex held, after one use less of it. */
static void settle(struct nodes *ns, struct node *n)
{
	if (n == &ns->root || n->holds)
		return;
	if (!n->lookups) {
		hash_out(ns, n);
		free_node(ns, n);
	} else if (!n->opens && n->handle && n->fd >= 0) {
		close(n->fd);
		n->fd = -1;
		ns->pinned--;
	}
}

void held_end(struct held *h)
{
	struct nodes *ns = &h->v->nodes;
	if (h->own && h->fd >= 0)
		close(h->fd);
	pthread_mutex_lock(&ns->mutex);
	h->node->holds--;
	settle(ns, h->node);
	pthread_mutex_unlock(&ns->mutex);
}

int node_open(struct fuse_view *v, struct node *n)
{
	int e = 0;
	pthread_mutex_lock(&v->nodes.mutex);
	if (n->fd < 0) {
		n->fd = open_handle(v, n->handle);
		e = n->fd < 0 ? errno : 0;
		v->nodes.pinned += !e;
	}
	n->opens += !e;
	pthread_mutex_unlock(&v->nodes.mutex);
	return e;
}

void node_close(struct fuse_view *v, struct node *n)
{
	pthread_mutex_lock(&v->nodes.mutex);
	n->opens--;
	settle(&v->nodes, n);
	pthread_mutex_unlock(&v->nodes.mutex);
}

const char *proc_path(char ret[FUSE_PROC_NAME_BYTES], int fd)
{
	snprintf(ret, FUSE_PROC_NAME_BYTES, "/proc/self/fd/%d", fd);
	return ret;
}

int node_reopen(const struct fuse_view *v, int fd, int flags)
{
	char name[FUSE_PROC_NAME_BYTES];
	snprintf(name, sizeof name, "%d", fd);
	return openat(v->proc_fd, name, flags | O_CLOEXEC);
}

/* Does it still have its second name, in the stage? Then what was counted before counts that one too. */
static bool has_second_name(const struct fuse_view *v, uint32_t file)
{
	char name[sizeof LAZY_FOLDER + 16];
	struct stat st;
	snprintf(name, sizeof name, "../" LAZY_FOLDER "/%" PRIu32, file);
	return fstatat(content_file(v->content, file)->writer.root_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* As the view shows it, and for how many seconds that holds. */
static double dress(const struct fuse_view *v, const struct node *n, struct stat *st)
{
	uint32_t file = node_lazy(v, n);
	if (file == ACCESS_NO_FILE)
		return FUSE_ENTRY_SECONDS;
	if (st->st_nlink && has_second_name(v, file))
		st->st_nlink--;
	if (v->table->files[file].touched)
		return FUSE_LAZY_SECONDS;
	/* filling it changes its time, which is nobody's business, and it will have its own again */
	int64_t ns = content_file(v->content, file)->mtime_ns, s = ns / 1000000000 - (ns % 1000000000 < 0);
	st->st_mtim = (struct timespec){ .tv_sec = s, .tv_nsec = ns - s * 1000000000 };
	return FUSE_LAZY_SECONDS;
}

int node_stat(const struct fuse_view *v, const struct node *n, int fd, struct stat *ret, double *ret_seconds)
{
	if (fstatat(fd, "", ret, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return errno;
	*ret_seconds = dress(v, n, ret);
	return 0;
}

/* fd (O_PATH) is taken over. */
static int enter(struct fuse_view *v, int fd, struct fuse_entry_param *ret)
{
	struct nodes *ns = &v->nodes;
	struct stat st;
	if (fstatat(fd, "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) {
		int e = errno;
		close(fd);
		return e;
	}
	pthread_mutex_lock(&ns->mutex);
	struct node *n = find_node(ns, &st, fd);
	int spare = n ? fd : -1;
	if (!n)
		n = add_node(v, &st, fd);
	if (n)
		n->lookups++;
	pthread_mutex_unlock(&ns->mutex);
	if (spare >= 0)
		close(spare);
	if (!n)
		return ENOMEM;
	*ret = (struct fuse_entry_param){ .ino = (uintptr_t)n, .attr = st, .entry_timeout = FUSE_ENTRY_SECONDS };
	ret->attr_timeout = dress(v, n, &ret->attr);
	return 0;
}

int node_look_up(struct fuse_view *v, int folder_fd, const char *name, struct fuse_entry_param *ret)
{
	int fd = openat(folder_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? errno : enter(v, fd, ret);
}

int node_of_open(struct fuse_view *v, int open_fd, struct fuse_entry_param *ret)
{
	int fd = node_reopen(v, open_fd, O_PATH);
	int e = fd < 0 ? errno : enter(v, fd, ret);
	if (e == 0 && (e = node_open(v, node_at(v, ret->ino))))
		node_forget(v, ret->ino, 1);
	return e;
}

void node_forget(struct fuse_view *v, fuse_ino_t number, uint64_t count)
{
	struct nodes *ns = &v->nodes;
	struct node *n = node_at(v, number);
	if (n == &ns->root)
		return;
	pthread_mutex_lock(&ns->mutex);
	n->lookups -= count < n->lookups ? count : n->lookups;
	settle(ns, n);
	pthread_mutex_unlock(&ns->mutex);
}

int nodes_begin(struct fuse_view *v, struct im_error *err)
{
	struct nodes *ns = &v->nodes;
	struct rlimit limit;
	struct stat st;
	pthread_mutex_init(&ns->mutex, NULL);
	ns->root.fd = v->root_fd;
	ns->root.file = ACCESS_NO_FILE;
	if (fstat(v->root_fd, &st) || getrlimit(RLIMIT_NOFILE, &limit))
		return im_fail_errno(err, IM_EIO, errno, "cannot look at the folder to be shown");
	ns->root.dev = st.st_dev;
	ns->root.ino = st.st_ino;
	ns->pinned_max = limit.rlim_cur == RLIM_INFINITY ? SIZE_MAX : (size_t)limit.rlim_cur / 2;
	struct file_handle *h = make_handle(v->root_fd);
	auto_close int again = h ? open_handle(v, h) : -1;
	ns->handles = again >= 0;
	free(h);
	ns->bucket_count = FIRST_BUCKETS;
	ns->buckets = calloc(ns->bucket_count, sizeof *ns->buckets);
	if (!ns->buckets)
		return im_fail(err, IM_ENOMEM, "out of memory");
	return access_index_new(v->table, &v->nodes.lazy_files, err);
}

void nodes_end(struct fuse_view *v)
{
	struct nodes *ns = &v->nodes;
	for (size_t i = 0; ns->buckets && i < ns->bucket_count; i++)
		for (struct node *n = ns->buckets[i], *next; n; n = next) {
			next = n->next;
			free_node(ns, n);
		}
	free(ns->buckets);
	access_index_clear(&ns->lazy_files);
	pthread_mutex_destroy(&ns->mutex);
}
