/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker must be dead before the next begins: it may be copying a block that the server is about
 * to change. The second keeper waits for its own child; the first is the reaper of everything below
 * it and waits until nothing is left.
 */
#include "restore/instant/keeper.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAUSE_MAX_MS = 1000, RELEASE_EVERY_MS = 100 };

static bool is_over(const struct keeper_options *o)
{
	uint32_t phase = table_phase(o->table);
	return phase == TABLE_SWITCHED || phase == TABLE_GIVEN_UP;
}

/* The kernel shall take anything else first when memory is short. */
static void stay_alive(void)
{
	auto_close int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "-1000", 5) < 0)
		return; /* a wish */
}

/* Nobody's terminal, nobody's pipe. */
static void leave_the_front(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	setsid();
	for (int i = 0; i < 3 && fd >= 0; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
	for (int n = 1; n < NSIG; n++)
		signal(n, SIG_DFL);
	static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE };
	for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		signal(ignored[i], SIG_IGN);
	if (chdir("/"))
		return; /* then it stays where it was */
}

static void name_process(const char *name)
{
	prctl(PR_SET_NAME, name);
}

static void work(const struct keeper_options *o, pid_t parent)
{
	struct im_error why = { 0 };
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	name_process("imvault-worker");
	o->table->head->worker = getpid();
	atomic_fetch_add(&o->table->head->worker_starts, 1);
	int rc = worker_run(o->worker, &why);
	if (rc)
		table_trouble(o->table, "%s", why.text);
	else
		o->table->head->phase = TABLE_HYDRATED;
	_exit(rc ? 1 : 0);
}

static int open_process(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* True: the first keeper has ended, the worker with us. */
static bool watch_worker(const struct keeper_options *o, pid_t worker, int first)
{
	auto_close int process = open_process(worker);
	struct pollfd ends[2] = { { .fd = process, .events = POLLIN }, { .fd = first, .events = POLLIN } };
	for (int n; (n = poll(ends, 2, o->release ? RELEASE_EVERY_MS : -1)) <= 0;)
		if (n == 0 && table_phase(o->table) == TABLE_HYDRATED)
			o->release(o->context);
	bool alone = ends[1].revents != 0;
	if (alone)
		kill(worker, SIGKILL);
	waitpid(worker, NULL, 0);
	return alone;
}

static void finish(const struct keeper_options *o)
{
	struct im_error why = { 0 };
	for (;;) {
		int rc = o->finish(o->context, &why);
		if (rc == 0)
			break;
		table_trouble(o->table, "%s", why.text);
		im_sleep_ms(PAUSE_MAX_MS);
	}
	o->table->head->switched_us = im_monotonic_us();
	o->table->head->phase = TABLE_SWITCHED;
	_exit(0);
}

/* Returns when the first keeper is gone: then we are it. */
static void be_second(const struct keeper_options *o, pid_t first_pid)
{
	auto_close int first = open_process(first_pid);
	unsigned wait_ms = 1;
	name_process("imvault-keeper2");
	while (first >= 0 && getppid() == first_pid) {
		if (is_over(o))
			_exit(0);
		if (table_phase(o->table) == TABLE_HYDRATED)
			finish(o);
		int64_t begun = im_monotonic_ms();
		pid_t me = getpid(), worker = fork();
		if (worker == 0)
			work(o, me);
		if (worker > 0 && watch_worker(o, worker, first))
			return;
		wait_ms = im_monotonic_ms() - begun > PAUSE_MAX_MS ? 1 : wait_ms * 2 < PAUSE_MAX_MS ? wait_ms * 2 : PAUSE_MAX_MS;
		if (table_phase(o->table) == TABLE_HYDRATING)
			im_sleep_ms(wait_ms);
	}
}

static void be_first(const struct keeper_options *o)
{
	for (;;) {
		if (is_over(o))
			_exit(0);
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		name_process("imvault-keeper");
		pid_t me = getpid();
		o->table->head->keepers[0] = me;
		atomic_fetch_add(&o->table->head->keeper_starts, 1);
		pid_t second = fork();
		if (second == 0) {
			prctl(PR_SET_CHILD_SUBREAPER, 0);
			be_second(o, me);
			continue;
		}
		o->table->head->keepers[1] = second;
		if (second < 0)
			im_sleep_ms(PAUSE_MAX_MS);
		/* a service that the second started in the end may have become ours, too */
		while ((waitpid(-1, NULL, 0) >= 0 || errno == EINTR) && !is_over(o))
			;
	}
}

int keeper_start(const struct keeper_options *o, pid_t *ret_pid, struct im_error *err)
{
	pid_t pid = fork();
	if (pid < 0)
		return im_fail_errno(err, IM_ENOMEM, errno, "cannot start a process");
	if (pid == 0) {
		leave_the_front();
		stay_alive();
		be_first(o);
		_exit(0);
	}
	*ret_pid = pid;
	return 0;
}

void keeper_end(struct table *t)
{
	struct table_head *h = t->head;
	h->phase = TABLE_GIVEN_UP; /* first: whoever takes over in between ends by himself */
	int32_t pids[] = { h->keepers[0], h->keepers[1], h->worker };
	for (size_t i = 0; i < sizeof pids / sizeof pids[0]; i++)
		if (pids[i] > 1 && pids[i] != getpid())
			kill(pids[i], SIGKILL);
}
