/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shows a folder through FUSE as if it lay far away: each request waits, all share one narrow
 * wire, and the whole can be out of reach for a while. For tests and benchmarks of remote vaults.
 *
 * usage: imvault-slow-folder [--latency-us N] [--rate-mb N] [--writable] [--away=fail|hang]
 *                            SOURCE MOUNTPOINT
 *
 * Prints "ready" when mounted; SIGTERM or SIGINT unmounts and ends it. From SIGUSR1 to SIGUSR2
 * every request fails with ENOTCONN or, with --away=hang, waits (whoever is signalled meanwhile
 * gets EINTR).
 *
 * Latency: once per pread or pwrite, in parallel. Files are opened for direct I/O: the kernel
 * caches and reads ahead nothing, a pread is one request up to 1 MiB. It cuts a longer one (or one
 * into a buffer that is not page-aligned) into requests that follow each other; so a request that
 * begins where one as large as can be ended on the same open file less than 1 ms ago is taken for
 * more of the same pread. Of whole-MiB preads in sequence, only the first pays therefore: 5% at
 * 100 MB/s. A path that is looked up pays once, whether it exists or not and whether it is then
 * opened or not; the folders on the way pay only when they are opened. The rest pays nothing: names
 * are looked up anew each time, attributes are remembered for a second (an fstat may succeed that
 * long when away).
 *
 * Rate: one wire carries the bytes of all reads and writes, each after its latency, one after the
 * other. It stores up nothing while idle; only more of the same pread may use the last millisecond,
 * so that late wake-ups cost no rate. MB are 10^6 bytes.
 *
 * Not here: shared mmap (ENODEV), xattrs, devices, making symlinks. Locks are the kernel's, local.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#include <fuse_lowlevel.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS INT64_C(1000000000)
#define ATTRIBUTES_VALID_S 1.0

enum {
	MS_NS = 1000000,
	FOLLOWS_NS = MS_NS,         /* a request this soon belongs to the one before */
	HANG_POLL_NS = 10 * MS_NS,
	NAP_NS = 50 * MS_NS,        /* an end is noticed after this long */
	FULL_BYTES = (1 << 20) - 4095, /* 256 pages, the first of them may be used in part */
	THREADS = 256,              /* requests at a time */
	BUCKETS = 4096,
	ENDS = 32,
};

/* A file or folder that the kernel knows: its address is the kernel's number for it. */
struct node {
	struct node *next;
	int fd; /* O_PATH */
	dev_t dev;
	ino_t ino;
	uint64_t lookups;
	_Atomic int64_t paid_ns; /* when its lookup waited: the open that follows need not */
};

struct slow {
	struct fuse_session *session;
	int64_t latency_ns, rate_mb; /* 0: no limit */
	bool writable, away_hangs;
	struct node root;
	pthread_mutex_t nodes_lock, wire_lock;
	struct node *nodes[BUCKETS];
	int64_t wire_free_ns;
};

struct file {
	int fd;
	pthread_mutex_t lock;
	struct {
		off_t offset;
		int64_t at_ns;
	} ends[ENDS]; /* of requests that may be continued, a ring */
	unsigned end_count;
};

static atomic_bool away;

static void on_away(int number)
{
	away = number == SIGUSR1;
}

/* Waiting. */

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static void sleep_until(const struct slow *s, int64_t until_ns)
{
	int64_t now;
	while ((now = now_ns()) < until_ns && !fuse_session_exited(s->session)) {
		int64_t at = until_ns - now > NAP_NS ? now + NAP_NS : until_ns;
		struct timespec t = { .tv_sec = at / SECOND_NS, .tv_nsec = at % SECOND_NS };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	}
}

static struct slow *slow_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* Else the request has been answered. */
static bool reachable(fuse_req_t req)
{
	const struct slow *s = slow_of(req);
	while (away && s->away_hangs && !fuse_session_exited(s->session) &&
	    !fuse_req_interrupted(req))
		sleep_until(s, now_ns() + HANG_POLL_NS);
	if (!away)
		return true;
	fuse_reply_err(req, s->away_hangs && fuse_req_interrupted(req) ? EINTR : ENOTCONN);
	return false;
}

static bool reachable_after(fuse_req_t req, int64_t delay_ns)
{
	if (!reachable(req))
		return false;
	sleep_until(slow_of(req), now_ns() + delay_ns);
	return reachable(req);
}

/* Returns when the last of the bytes has come through; the first is not sent before earliest. */
static int64_t take_wire(struct slow *s, size_t bytes, int64_t earliest)
{
	if (s->rate_mb == 0)
		return 0;
	pthread_mutex_lock(&s->wire_lock);
	if (s->wire_free_ns < earliest)
		s->wire_free_ns = earliest;
	s->wire_free_ns += (int64_t)bytes * 1000 / s->rate_mb;
	int64_t done = s->wire_free_ns;
	pthread_mutex_unlock(&s->wire_lock);
	return done;
}

static bool continues(struct file *f, off_t offset, int64_t now)
{
	bool found = false;
	pthread_mutex_lock(&f->lock);
	for (int i = 0; i < ENDS && !found; i++) {
		found = f->ends[i].at_ns && f->ends[i].offset == offset &&
			now - f->ends[i].at_ns < FOLLOWS_NS;
		if (found)
			f->ends[i].at_ns = 0;
	}
	pthread_mutex_unlock(&f->lock);
	return found;
}

static void note_end(struct file *f, off_t end)
{
	pthread_mutex_lock(&f->lock);
	unsigned i = f->end_count++ % ENDS;
	f->ends[i].offset = end;
	f->ends[i].at_ns = now_ns();
	pthread_mutex_unlock(&f->lock);
}

/* Waits as long as these bytes take; else the request has been answered. */
static bool carry(fuse_req_t req, struct file *f, off_t offset, size_t bytes, int64_t arrived)
{
	struct slow *s = slow_of(req);
	bool more = continues(f, offset, arrived);
	if (!more)
		sleep_until(s, arrived + s->latency_ns);
	sleep_until(s, take_wire(s, bytes, more ? arrived - FOLLOWS_NS : now_ns()));
	if (!reachable(req))
		return false;
	if (bytes >= FULL_BYTES)
		note_end(f, offset + (off_t)bytes);
	return true;
}

/* Nodes. */

static struct node *node_of(fuse_req_t req, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &slow_of(req)->root : (struct node *)(uintptr_t)ino;
}

static struct file *file_of(const struct fuse_file_info *info)
{
	return (struct file *)(uintptr_t)info->fh;
}

static struct node **bucket_of(struct slow *s, const struct stat *st)
{
	return &s->nodes[(st->st_ino ^ st->st_dev) % BUCKETS];
}

/* Takes over the fd. NULL: no memory. */
static struct node *remember(struct slow *s, int fd, const struct stat *st)
{
	struct node **bucket = bucket_of(s, st);
	pthread_mutex_lock(&s->nodes_lock);
	struct node *n = *bucket;
	while (n && (n->ino != st->st_ino || n->dev != st->st_dev))
		n = n->next;
	if (n) {
		close(fd);
	} else if ((n = calloc(1, sizeof *n))) {
		n->fd = fd;
		n->dev = st->st_dev;
		n->ino = st->st_ino;
		n->next = *bucket;
		*bucket = n;
	} else {
		close(fd);
	}
	if (n)
		n->lookups++;
	pthread_mutex_unlock(&s->nodes_lock);
	return n;
}

static void forget(struct slow *s, struct node *n, uint64_t lookups)
{
	struct stat key = { .st_dev = n->dev, .st_ino = n->ino };
	pthread_mutex_lock(&s->nodes_lock);
	n->lookups -= lookups;
	bool last = n->lookups == 0;
	struct node **at = bucket_of(s, &key);
	while (last && *at != n)
		at = &(*at)->next;
	if (last)
		*at = n->next;
	pthread_mutex_unlock(&s->nodes_lock);
	if (last) {
		close(n->fd);
		free(n);
	}
}

static void forget_all(struct slow *s)
{
	for (int i = 0; i < BUCKETS; i++)
		while (s->nodes[i])
			forget(s, s->nodes[i], s->nodes[i]->lookups);
}

/* Returns 0 or an errno. */
static int find(fuse_req_t req, fuse_ino_t parent, const char *name, struct fuse_entry_param *ret)
{
	int fd = openat(node_of(req, parent)->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno;
	*ret = (struct fuse_entry_param){ .attr_timeout = ATTRIBUTES_VALID_S };
	if (fstat(fd, &ret->attr)) {
		int error = errno;
		close(fd);
		return error;
	}
	struct node *n = remember(slow_of(req), fd, &ret->attr);
	ret->ino = (uintptr_t)n;
	return n ? 0 : ENOMEM;
}

static void reply_found(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	int error = find(req, parent, name, &entry);
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_entry(req, &entry);
}

static void reply_done(fuse_req_t req, int result)
{
	fuse_reply_err(req, result ? errno : 0);
}

/* Looking. */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct slow *s = slow_of(req);
	struct fuse_entry_param entry;
	int error = find(req, parent, name, &entry);
	bool pays = error || !S_ISDIR(entry.attr.st_mode);
	if (!reachable_after(req, pays ? s->latency_ns : 0)) {
		if (!error)
			forget(s, node_of(req, entry.ino), 1);
		return;
	}
	if (error) {
		fuse_reply_err(req, error);
		return;
	}
	if (pays)
		node_of(req, entry.ino)->paid_ns = now_ns();
	fuse_reply_entry(req, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	if (ino != FUSE_ROOT_ID)
		forget(slow_of(req), node_of(req, ino), lookups);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct stat st;
	(void)info;
	if (!reachable(req))
		return;
	if (fstat(node_of(req, ino)->fd, &st))
		fuse_reply_err(req, errno);
	else
		fuse_reply_attr(req, &st, ATTRIBUTES_VALID_S);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[4097];
	if (!reachable(req))
		return;
	ssize_t n = readlinkat(node_of(req, ino)->fd, "", target, sizeof target - 1);
	if (n < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	target[n] = '\0';
	fuse_reply_readlink(req, target);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs v;
	if (!reachable(req))
		return;
	if (fstatvfs(node_of(req, ino)->fd, &v))
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &v);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	if (!reachable_after(req, slow_of(req)->latency_ns))
		return;
	int fd = openat(node_of(req, ino)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	info->fh = (uintptr_t)dir;
	if (!dir) {
		fuse_reply_err(req, errno);
		if (fd >= 0)
			close(fd);
	} else if (fuse_reply_open(req, info)) {
		closedir(dir);
	}
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
    struct fuse_file_info *info)
{
	DIR *dir = (DIR *)(uintptr_t)info->fh;
	(void)ino;
	if (!reachable(req))
		return;
	char *list = malloc(size);
	size_t used = 0;
	seekdir(dir, offset);
	for (const struct dirent *e; list && (e = readdir(dir));) {
		struct stat st = { .st_ino = e->d_ino, .st_mode = DTTOIF(e->d_type) };
		size_t more = fuse_add_direntry(req, list + used, size - used, e->d_name, &st, e->d_off);
		if (more > size - used)
			break;
		used += more;
	}
	if (list)
		fuse_reply_buf(req, list, used);
	else
		fuse_reply_err(req, ENOMEM);
	free(list);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	(void)ino;
	closedir((DIR *)(uintptr_t)info->fh);
	fuse_reply_err(req, 0);
}

/* Reading and writing. */

static struct file *file_new(int fd, struct fuse_file_info *info)
{
	struct file *f = fd < 0 ? NULL : calloc(1, sizeof *f);
	if (!f) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	f->fd = fd;
	pthread_mutex_init(&f->lock, NULL);
	info->fh = (uintptr_t)f;
	info->direct_io = 1;
	return f;
}

static void file_free(struct file *f)
{
	close(f->fd);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static int reopen(const struct node *n, int flags)
{
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", n->fd);
	return open(path, (flags & (O_ACCMODE | O_TRUNC)) | O_CLOEXEC);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct node *n = node_of(req, ino);
	bool paid = now_ns() - n->paid_ns < FOLLOWS_NS;
	if (!reachable_after(req, paid ? 0 : slow_of(req)->latency_ns))
		return;
	struct file *f = file_new(reopen(n, info->flags), info);
	if (!f)
		fuse_reply_err(req, errno);
	else if (fuse_reply_open(req, info))
		file_free(f);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
    struct fuse_file_info *info)
{
	struct file *f = file_of(info);
	(void)ino;
	if (!reachable(req))
		return;
	int64_t arrived = now_ns();
	char *data = malloc(size);
	ssize_t n = data ? pread(f->fd, data, size, offset) : -1;
	if (n < 0)
		fuse_reply_err(req, errno);
	else if (carry(req, f, offset, (size_t)n, arrived))
		fuse_reply_buf(req, data, (size_t)n);
	free(data);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
    struct fuse_file_info *info)
{
	struct file *f = file_of(info);
	(void)ino;
	if (!reachable(req) || !carry(req, f, offset, size, now_ns()))
		return;
	ssize_t n = pwrite(f->fd, data, size, offset);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	(void)ino;
	file_free(file_of(info));
	fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *info)
{
	int fd = file_of(info)->fd;
	(void)ino;
	if (reachable(req))
		reply_done(req, data_only ? fdatasync(fd) : fsync(fd));
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *info)
{
	(void)ino;
	(void)data_only;
	if (reachable(req))
		reply_done(req, fsync(dirfd((DIR *)(uintptr_t)info->fh)));
}

/* Changing: the lookup before has paid. */

/* What root makes for another belongs to the other. */
static int give_away(fuse_req_t req, int folder, const char *name)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);
	return geteuid() ? 0 : fchownat(folder, name, caller->uid, caller->gid, AT_SYMLINK_NOFOLLOW);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *info)
{
	int folder = node_of(req, parent)->fd;
	struct fuse_entry_param entry;
	if (!reachable(req))
		return;
	int flags = (info->flags & (O_ACCMODE | O_EXCL | O_TRUNC)) | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
	struct file *f = file_new(openat(folder, name, flags, mode), info);
	int error = !f || give_away(req, folder, name) ? errno : find(req, parent, name, &entry);
	if (error)
		fuse_reply_err(req, error);
	else if (fuse_reply_create(req, &entry, info) == 0)
		return;
	if (f)
		file_free(f);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	int folder = node_of(req, parent)->fd;
	if (!reachable(req))
		return;
	if (mkdirat(folder, name, mode) || give_away(req, folder, name))
		fuse_reply_err(req, errno);
	else
		reply_found(req, parent, name);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	char path[40];
	if (!reachable(req))
		return;
	snprintf(path, sizeof path, "/proc/self/fd/%d", node_of(req, ino)->fd);
	if (linkat(AT_FDCWD, path, node_of(req, parent)->fd, name, AT_SYMLINK_FOLLOW))
		fuse_reply_err(req, errno);
	else
		reply_found(req, parent, name);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (reachable(req))
		reply_done(req, unlinkat(node_of(req, parent)->fd, name, 0));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (reachable(req))
		reply_done(req, unlinkat(node_of(req, parent)->fd, name, AT_REMOVEDIR));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
    const char *new_name, unsigned flags)
{
	int from = node_of(req, parent)->fd, to = node_of(req, new_parent)->fd;
	if (reachable(req))
		reply_done(req, renameat2(from, name, to, new_name, flags));
}

static struct timespec time_to_set(int valid, int set, int set_now, struct timespec given)
{
	if (valid & set_now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	return valid & set ? given : (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int set_attributes(const struct node *n, const struct stat *st, int valid)
{
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", n->fd);
	uid_t uid = valid & FUSE_SET_ATTR_UID ? st->st_uid : (uid_t)-1;
	gid_t gid = valid & FUSE_SET_ATTR_GID ? st->st_gid : (gid_t)-1;
	struct timespec times[2] = {
		time_to_set(valid, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, st->st_atim),
		time_to_set(valid, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, st->st_mtim),
	};
	if (valid & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) &&
	    fchownat(n->fd, "", uid, gid, AT_EMPTY_PATH))
		return -1;
	if (valid & FUSE_SET_ATTR_MODE && chmod(path, st->st_mode))
		return -1;
	if (valid & FUSE_SET_ATTR_SIZE && truncate(path, st->st_size))
		return -1;
	if (valid & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME) &&
	    utimensat(AT_FDCWD, path, times, 0))
		return -1;
	return 0;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int valid,
    struct fuse_file_info *info)
{
	if (!reachable(req))
		return;
	if (set_attributes(node_of(req, ino), st, valid))
		fuse_reply_err(req, errno);
	else
		op_getattr(req, ino, info);
}

static void op_init(void *context, struct fuse_conn_info *connection)
{
	(void)context;
	connection->max_background = THREADS;
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.statfs = op_statfs,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
	.open = op_open,
	.create = op_create,
	.read = op_read,
	.write = op_write,
	.release = op_release,
	.fsync = op_fsync,
	.fsyncdir = op_fsyncdir,
	.mkdir = op_mkdir,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
};

/* Running. */

static void usage(void)
{
	fprintf(stderr, "usage: imvault-slow-folder [--latency-us N] [--rate-mb N] [--writable] "
			"[--away=fail|hang] SOURCE MOUNTPOINT\n");
	exit(2);
}

static int64_t number(const char *text)
{
	char *end;
	errno = 0;
	long n = strtol(text, &end, 10);
	if (errno || end == text || *end || n < 0 || n > 1000000000)
		usage();
	return n;
}

static void parse(struct slow *s, int argc, char **argv)
{
	static const struct option options[] = {
		{ "latency-us", required_argument, NULL, 'l' },
		{ "rate-mb", required_argument, NULL, 'r' },
		{ "writable", no_argument, NULL, 'w' },
		{ "away", required_argument, NULL, 'a' },
		{ 0 },
	};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 'l')
			s->latency_ns = number(optarg) * 1000;
		else if (c == 'r')
			s->rate_mb = number(optarg);
		else if (c == 'w')
			s->writable = true;
		else if (c == 'a' && (strcmp(optarg, "fail") == 0 || strcmp(optarg, "hang") == 0))
			s->away_hangs = optarg[0] == 'h';
		else
			usage();
	}
	if (argc - optind != 2)
		usage();
}

static void prepare(void)
{
	struct sigaction action = { .sa_handler = on_away, .sa_flags = SA_RESTART };
	struct rlimit files; /* one per node and open file */
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	prctl(PR_SET_TIMERSLACK, 1UL);
	umask(0);
}

/* Returns 0 after an end by signal. */
static int serve(struct slow *s)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	fuse_loop_cfg_set_max_threads(config, THREADS);
	puts("ready");
	fflush(stdout);
	int rc = fuse_session_loop_mt(s->session, config);
	fuse_loop_cfg_destroy(config);
	return rc < 0;
}

int main(int argc, char **argv)
{
	static struct slow s = {
		.nodes_lock = PTHREAD_MUTEX_INITIALIZER,
		.wire_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	int rc = 1;
	parse(&s, argc, argv);
	prepare();
	s.root.fd = open(argv[optind], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s.root.fd < 0) {
		perror(argv[optind]);
		return 1;
	}
	char options[128];
	snprintf(options, sizeof options, "default_permissions,fsname=imvault-slow-folder%s%s",
	    s.writable ? "" : ",ro", geteuid() ? "" : ",allow_other");
	struct fuse_args args = FUSE_ARGS_INIT(3, ((char *[]){ argv[0], "-o", options, NULL }));
	s.session = fuse_session_new(&args, &ops, sizeof ops, &s);
	if (s.session && fuse_set_signal_handlers(s.session) == 0) {
		if (fuse_session_mount(s.session, argv[optind + 1]) == 0) {
			rc = serve(&s);
			fuse_session_unmount(s.session);
		}
		fuse_remove_signal_handlers(s.session);
	}
	if (s.session)
		fuse_session_destroy(s.session);
	fuse_opt_free_args(&args);
	forget_all(&s);
	close(s.root.fd);
	return rc;
}
