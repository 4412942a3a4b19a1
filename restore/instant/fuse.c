/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A view's mount and its threads: receivers take requests and answer what needs nothing from the
 * vault; bringers (fuse_wait.c) do the rest.
 */
#include "restore/instant/fuse_internal.h"

#include "base/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

enum {
	RECEIVERS = 6,
	BRINGERS = 8,
	BACKGROUND_MAX = 512, /* reads ahead and writes of mapped pages under way: those that wait for the vault must not hold up others */
};


_Thread_local struct serving *fuse_self;

/* --- mounting --- */

static int mount_view(const char *target, unsigned long flags, int *ret_fd, struct im_error *err)
{
	char options[128];
	auto_close int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, IM_EUSAGE, errno, "no FUSE here: cannot open /dev/fuse (modprobe fuse, as root)");
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other,default_permissions", fd, geteuid(), getegid());
	if (mount("imvault", target, FUSE_VIEW_TYPE, flags, options))
		return im_fail_errno(err, IM_EUSAGE, errno, "cannot mount over %s through FUSE", target);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int fuse_view_probe(const char *folder, struct im_error *err)
{
	int status = 0;
	auto_close int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return im_fail_errno(err, IM_EUSAGE, errno, "no FUSE here: cannot open /dev/fuse (modprobe fuse, as root)");
	pid_t pid = fork();
	if (pid == 0) { /* the mount goes with its namespace */
		int unserved;
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
			_exit(errno);
		_exit(mount_view(folder, 0, &unserved, NULL) ? errno : 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return im_fail_errno(err, IM_EFAIL, errno, "cannot start a process");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return im_fail_errno(err, IM_EUSAGE, WIFEXITED(status) ? WEXITSTATUS(status) : EINTR, "cannot mount anything through FUSE here");
	return 0;
}

/* What the real folder forbids, the view does. */
static unsigned long mount_flags(int root_fd)
{
	struct statvfs st;
	unsigned long flags = 0;
	if (fstatvfs(root_fd, &st))
		return MS_NOSUID | MS_NODEV;
	flags |= st.f_flag & ST_NOSUID ? MS_NOSUID : 0;
	flags |= st.f_flag & ST_NODEV ? MS_NODEV : 0;
	flags |= st.f_flag & ST_NOEXEC ? MS_NOEXEC : 0;
	return flags;
}

static void do_init(void *context, struct fuse_conn_info *c)
{
	(void)context;
	/* sizes change under the kernel's lock of the file only if O_TRUNC is a change of size like others */
	c->want &= ~(unsigned)(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_READDIRPLUS);
	/* the times of a file change when it is filled: what the kernel has of it stays right */
	c->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	/* our writes would not take set-user-id bits away: the kernel does */
	c->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
	c->want |= c->capable & (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ);
	c->max_background = BACKGROUND_MAX;
	c->congestion_threshold = BACKGROUND_MAX / 4 * 3;
}

static void say_nothing(enum fuse_log_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
}

/* libfuse takes the descriptor over. */
static int begin_session(struct fuse_view *v, int fuse_fd, struct im_error *err)
{
	char *words[] = { "imvault", NULL }, name[32];
	struct fuse_args args = FUSE_ARGS_INIT(1, words);
	struct fuse_lowlevel_ops ops = { .init = do_init };
	names_operations(&ops);
	data_operations(&ops);
	fuse_set_log_func(say_nothing);
	v->session = fuse_session_new(&args, &ops, sizeof ops, v);
	fuse_opt_free_args(&args);
	snprintf(name, sizeof name, "/dev/fd/%d", fuse_fd);
	if (v->session && fuse_session_mount(v->session, name) == 0)
		return 0;
	close(fuse_fd);
	return im_fail(err, IM_EUSAGE, "libfuse does not take what was mounted");
}

int fuse_view_open(const struct fuse_view_options *o, struct fuse_view **ret, struct im_error *err)
{
	int fuse_fd;
	struct fuse_view *v = calloc(1, sizeof *v);
	if (!v || !(v->target = strdup(o->target))) {
		free(v);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	v->table = o->table;
	v->hydrator = o->hydrator;
	v->content = o->content;
	sem_init(&v->end, 0, 0);
	v->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	v->root_fd = open(o->staged, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = v->root_fd < 0 || v->proc_fd < 0 ? im_fail_errno(err, IM_EIO, errno, "cannot open %s", v->root_fd < 0 ? o->staged : "/proc/self/fd") : 0;
	int nodes = nodes_begin(v, rc ? NULL : err), waits = wait_begin(v, err);
	rc = rc ? rc : nodes ? nodes : waits;
	if (rc == 0)
		rc = mount_view(o->target, mount_flags(v->root_fd), &fuse_fd, err);
	v->mounted = rc == 0;
	if (rc == 0)
		rc = begin_session(v, fuse_fd, err);
	if (rc)
		fuse_view_close(v);
	else
		*ret = v;
	return rc;
}

/* --- threads --- */

static void *receive(void *context)
{
	struct serving *s = context;
	struct fuse_session *se = s->v->session;
	int n = 1;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	fuse_self = s;
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); /* memory that we need is not got by writing to ourselves */
	if (unshare(CLONE_FS))                /* an umask of its own */
		n = -errno;
	while (n > 0 && !fuse_session_exited(se)) {
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		n = fuse_session_receive_buf(se, &s->request);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		if (n > 0)
			fuse_session_process_buf(se, &s->request);
		n = n == -EINTR ? 1 : n;
	}
	s->result = n < 0 ? n : 0;
	sem_post(&s->v->end);
	return NULL;
}

static void *bring(void *context)
{
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	return wait_bring(context);
}

static int start(struct fuse_view *v, struct serving *s, void *(*run)(void *), struct im_error *err)
{
	s->v = v;
	s->buffer = aligned_alloc(FUSE_PAGE, FUSE_BUFFER_BYTES);
	if (!s->buffer || pthread_create(&s->thread, NULL, run, s)) {
		free(TAKE_PTR(s->buffer));
		return im_fail(err, IM_ENOMEM, "cannot start a thread");
	}
	return 0;
}

static void end(struct serving *s)
{
	pthread_join(s->thread, NULL);
	free(s->request.mem);
	free(s->buffer);
}

int fuse_view_serve(struct fuse_view *v, struct im_error *err)
{
	struct serving bringers[BRINGERS] = { 0 }, receivers[RECEIVERS] = { 0 };
	size_t b = 0, r = 0;
	int rc = 0;
	for (; b < BRINGERS && rc == 0; b += rc == 0)
		rc = start(v, &bringers[b], bring, err);
	for (; r < RECEIVERS && rc == 0; r += rc == 0)
		rc = start(v, &receivers[r], receive, err);
	while (rc == 0 && sem_wait(&v->end))
		;
	fuse_session_exit(v->session);
	for (size_t i = 0; i < r; i++)
		pthread_cancel(receivers[i].thread);
	for (size_t i = 0; i < r; i++) {
		end(&receivers[i]);
		if (rc == 0 && receivers[i].result)
			rc = im_fail_errno(err, IM_EIO, -receivers[i].result, "cannot serve %s through FUSE any more", v->target);
	}
	wait_stop(v);
	for (size_t i = 0; i < b; i++)
		end(&bringers[i]);
	return rc;
}

void fuse_view_stop(struct fuse_view *v)
{
	sem_post(&v->end);
}

void fuse_view_close(struct fuse_view *v)
{
	struct im_error ignored = { 0 };
	if (!v)
		return;
	if (v->session)
		fuse_session_destroy(v->session); /* first: unmounting what nobody serves would wait for ever */
	if (v->mounted)
		fuse_view_unmount(v->target, false, &ignored);
	wait_end(v);
	nodes_end(v);
	if (v->root_fd >= 0)
		close(v->root_fd);
	if (v->proc_fd >= 0)
		close(v->proc_fd);
	sem_destroy(&v->end);
	free(v->target);
	free(v);
}

/* --- what is mounted --- */

struct looking {
	const char *target;
	bool mounted;
};

static int look_at_mount(void *context, const struct im_mount *m)
{
	struct looking *l = context;
	if (strcmp(m->place, l->target) == 0)
		l->mounted = strcmp(m->type, FUSE_VIEW_TYPE) == 0; /* the last one is on top */
	return 0;
}

bool fuse_view_is_mounted(const char *target)
{
	struct looking l = { .target = target };
	im_mounts_each(0, look_at_mount, &l);
	return l.mounted;
}

int fuse_view_unmount(const char *target, bool lazily, struct im_error *err)
{
	while (fuse_view_is_mounted(target))
		if (umount2(target, UMOUNT_NOFOLLOW | (lazily ? MNT_DETACH : 0))) {
			if (errno == EBUSY)
				return im_fail(err, IM_ELOCKED, "%s is in use: stop the service first (fuser -vm %s tells who)", target, target);
			return im_fail_errno(err, IM_EIO, errno, "cannot unmount %s", target);
		}
	return 0;
}
