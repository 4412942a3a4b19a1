/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard. The child runs between fork and _exit in a process that had threads: it calls nothing
 * but system calls and uses memory allocated before the fork.
 *
 * What can go wrong half-way: the child is killed (the kernel releases the server, we see the end
 * of the pipe), imvault is killed (the child sees the end of its pipe and lets go), both are killed
 * (the kernel releases), imvault hangs (the child's deadline).
 */
#include "stores/sqlite/guard.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 65536
#define POLL_NS 50000
#define SEIZE_OPTIONS (PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK)

enum answer_kind { ANSWER_STOPPED = 1, ANSWER_RELEASED, ANSWER_LATE, ANSWER_REFUSED, ANSWER_SLOW };

struct answer {
	int32_t kind, error, tid;
	int64_t pause_us;
};

struct tracee {
	pid_t tid;
	int8_t stopped, gone;
	int32_t signal; /* one that was on its way when it stopped: handed on at release */
};

struct guard {
	pid_t child;
	int to_child, from_child;
	int64_t began_us;
};

struct tracer { /* the child's */
	const pid_t *pids;
	size_t pid_count;
	struct tracee *tracees;
	size_t count;
	int64_t began_us, limit_us;
	int64_t paused_us; /* when the first thread stood still; 0: none does yet */
	int from_parent, to_parent;
};

/* --- the child --- */

static struct tracee *find(struct tracer *t, pid_t tid)
{
	for (size_t i = t->count; i-- > 0;)
		if (t->tracees[i].tid == tid)
			return &t->tracees[i];
	return NULL;
}

static struct tracee *remember_tracee(struct tracer *t, pid_t tid)
{
	if (t->count == MAX_THREADS)
		return NULL;
	struct tracee *x = &t->tracees[t->count++];
	*x = (struct tracee){ .tid = tid };
	return x;
}

/* A thread that waits for its own disk write stops only when that is done: the pause begins with the first that stands still. */
static int64_t left_us(const struct tracer *t)
{
	return (t->paused_us ? t->paused_us : t->began_us) + t->limit_us - im_monotonic_us();
}

static void say(const struct tracer *t, enum answer_kind kind, int error, pid_t tid)
{
	struct answer a = { kind, error, tid, t->paused_us ? im_monotonic_us() - t->paused_us : 0 };
	while (write(t->to_parent, &a, sizeof a) < 0 && errno == EINTR)
		;
}

/* Everything still traced goes on; the rest of the threads when this process ends. */
static void let_go(struct tracer *t)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->tracees[i].stopped && !t->tracees[i].gone)
			ptrace(PTRACE_DETACH, t->tracees[i].tid, 0, (void *)(intptr_t)t->tracees[i].signal);
}

static void give_up(struct tracer *t, enum answer_kind kind, int error, pid_t tid)
{
	let_go(t);
	say(t, kind, error, tid);
	_exit(0);
}

/* Decimal, without stdio. */
static char *put_number(char *at, pid_t n)
{
	char digits[16];
	int count = 0;
	do
		digits[count++] = (char)('0' + n % 10);
	while (n /= 10);
	while (count)
		*at++ = digits[--count];
	return at;
}

/* A zombie cannot be traced, and need not be. */
static bool is_dead(pid_t tid)
{
	char path[64] = "/proc/", text[512];
	strcpy(put_number(path + 6, tid), "/stat");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : 0;
	if (fd >= 0)
		close(fd);
	while (n > 0 && text[n - 1] != ')')
		n--;
	return n <= 0 || n + 1 >= (ssize_t)sizeof text || text[n + 1] == 'Z' || text[n + 1] == 'X';
}

static void take_thread(struct tracer *t, pid_t tid)
{
	if (find(t, tid))
		return;
	if (ptrace(PTRACE_SEIZE, tid, 0, (void *)(intptr_t)SEIZE_OPTIONS)) {
		int failed = errno;
		if (failed != ESRCH && !is_dead(tid))
			give_up(t, ANSWER_REFUSED, failed, tid);
		return;
	}
	if (!remember_tracee(t, tid))
		give_up(t, ANSWER_REFUSED, EAGAIN, tid);
	ptrace(PTRACE_INTERRUPT, tid, 0, 0);
}

struct kernel_dirent {
	uint64_t ino;
	int64_t off;
	unsigned short len;
	unsigned char type;
	char name[];
};

static void take_threads_of(struct tracer *t, pid_t pid)
{
	char path[64] = "/proc/", buffer[4096] __attribute__((aligned(8)));
	strcpy(put_number(path + 6, pid), "/task");
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	for (long n; (n = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;)
		for (long at = 0; at < n;) {
			const struct kernel_dirent *e = (const struct kernel_dirent *)(buffer + at);
			pid_t tid = 0;
			for (const char *p = e->name; *p >= '0' && *p <= '9'; p++)
				tid = tid * 10 + (*p - '0');
			if (tid > 0)
				take_thread(t, tid);
			at += e->len;
		}
	close(fd);
}

/* Takes in what stopped. False when nothing more is to be had now. */
static bool reap(struct tracer *t)
{
	int status;
	pid_t tid = waitpid(-1, &status, __WALL | WNOHANG);
	if (tid <= 0)
		return false;
	struct tracee *x = find(t, tid);
	if (!x)
		x = remember_tracee(t, tid); /* forked by one we trace: traced from birth */
	if (!x)
		give_up(t, ANSWER_REFUSED, EAGAIN, tid);
	x->gone = !WIFSTOPPED(status);
	if (!x->gone && !t->paused_us)
		t->paused_us = im_monotonic_us();
	x->stopped = 1;
	x->signal = WIFSTOPPED(status) && status >> 16 == 0 ? WSTOPSIG(status) : 0;
	return true;
}

static pid_t running_one(const struct tracer *t)
{
	for (size_t i = 0; i < t->count; i++)
		if (!t->tracees[i].stopped)
			return t->tracees[i].tid;
	return 0;
}

static void stop_all(struct tracer *t)
{
	for (size_t before = SIZE_MAX; before != t->count;) { /* until no new thread shows up */
		before = t->count;
		for (size_t i = 0; i < t->pid_count; i++)
			take_threads_of(t, t->pids[i]);
		for (pid_t tid; (tid = running_one(t));) {
			if (reap(t))
				continue;
			struct pollfd parent = { .fd = t->from_parent, .events = POLLIN };
			if (left_us(t) <= 0 || poll(&parent, 1, 0) > 0)
				give_up(t, ANSWER_SLOW, 0, tid);
			nanosleep(&(struct timespec){ 0, POLL_NS }, NULL);
		}
		while (reap(t))
			;
	}
}

static void child_main(struct tracer *t)
{
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	t->began_us = im_monotonic_us();
	stop_all(t);
	say(t, ANSWER_STOPPED, 0, 0);
	enum answer_kind kind = ANSWER_LATE;
	for (int64_t left; kind == ANSWER_LATE && (left = left_us(t)) > 0;) {
		struct pollfd parent = { .fd = t->from_parent, .events = POLLIN };
		struct timespec wait = { left / 1000000, left % 1000000 * 1000 };
		if (ppoll(&parent, 1, &wait, NULL) > 0)
			kind = ANSWER_RELEASED; /* asked to, or imvault is gone */
	}
	let_go(t);
	say(t, kind, 0, 0);
	_exit(0);
}

/* --- the parent --- */

static bool hear(const struct guard *g, struct answer *ret)
{
	ssize_t n;
	while ((n = read(g->from_child, ret, sizeof *ret)) < 0 && errno == EINTR)
		;
	return n == (ssize_t)sizeof *ret;
}

static void guard_free(struct guard *g)
{
	if (g->to_child >= 0)
		close(g->to_child); /* the child's sign to let go */
	close(g->from_child);
	while (waitpid(g->child, NULL, 0) < 0 && errno == EINTR)
		;
	free(g);
}

static int start_child(struct tracer *t, struct guard *g, struct im_error *err)
{
	int down[2], up[2];
	if (pipe2(down, O_CLOEXEC))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot start the guard of a pause");
	if (pipe2(up, O_CLOEXEC)) {
		close(down[0]);
		close(down[1]);
		return im_fail_errno(err, IM_EFAIL, errno, "cannot start the guard of a pause");
	}
	t->from_parent = down[0];
	t->to_parent = up[1];
	g->began_us = im_monotonic_us();
	g->child = fork();
	if (g->child == 0) {
		close(down[1]);
		close(up[0]);
		child_main(t);
	}
	int failed = g->child < 0 ? errno : 0;
	close(down[0]);
	close(up[1]);
	g->to_child = down[1];
	g->from_child = up[0];
	if (failed) {
		close(down[1]);
		close(up[0]);
		return im_fail_errno(err, IM_EFAIL, failed, "cannot start the guard of a pause");
	}
	return 0;
}

static int fail_stop(const struct answer *a, int64_t limit_us, struct im_error *err)
{
	if (a->kind == ANSWER_SLOW)
		return im_fail(err, IM_EMISSED, "thread %d did not stop within %lld ms (waiting for a disk?)", a->tid, (long long)limit_us / 1000);
	if (a->kind == ANSWER_REFUSED && a->error == EPERM)
		return im_fail(err, IM_EFAIL,
		    "not permitted to pause process %d: run imvault as root or with CAP_SYS_PTRACE, and let no debugger hold that process", a->tid);
	if (a->kind == ANSWER_REFUSED)
		return im_fail_errno(err, IM_EFAIL, a->error, "cannot pause process %d", a->tid);
	return im_fail(err, IM_EMISSED, "the guard of a pause was killed");
}

int guard_stop(const pid_t *pids, size_t count, int64_t limit_us, struct guard **ret, int64_t *ret_deadline_us, struct im_error *err)
{
	struct guard *g = calloc(1, sizeof *g);
	struct tracer t = { .pids = pids, .pid_count = count, .limit_us = limit_us };
	t.tracees = calloc(MAX_THREADS, sizeof *t.tracees);
	if (!g || !t.tracees) {
		free(g);
		free(t.tracees);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	int rc = start_child(&t, g, err);
	free(t.tracees); /* the child has its own copy */
	if (rc) {
		free(g);
		return rc;
	}
	struct answer a = { 0 };
	if (!hear(g, &a) || a.kind != ANSWER_STOPPED) {
		rc = fail_stop(&a, limit_us, err);
		guard_free(g);
		return rc;
	}
	*ret_deadline_us = im_monotonic_us() + limit_us - a.pause_us;
	*ret = g;
	return 0;
}

void guard_release(struct guard *g, bool *ret_in_time, int64_t *ret_pause_us)
{
	struct answer a = { 0 };
	close(g->to_child);
	g->to_child = -1;
	bool heard = hear(g, &a);
	*ret_in_time = heard && a.kind == ANSWER_RELEASED;
	*ret_pause_us = heard ? a.pause_us : im_monotonic_us() - g->began_us;
	guard_free(g);
}
