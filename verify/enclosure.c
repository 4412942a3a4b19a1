/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four processes. The caller waits. The guard, in a session of its own, waits for the first one and removes
 * the folder, also when the caller is killed. The first one is the init of a PID namespace: with it the kernel
 * ends whatever runs in there, and it dies with the guard. Its child does the work. If caller and guard
 * are killed together, only files are left, and the next drill removes them: nobody locks the folder any more.
 */
#include "verify/enclosure.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "restore/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PREFIX "imvault-drill-"
#define KEPT_PREFIX "imvault-kept-" /* which no later drill sweeps */

enum { LOOK_EVERY_MS = 200, ANSWER_MAX_BYTES = 256 << 20, NO_NAMESPACES = 2 };

struct enclosure {
	int scratch_fd, folder_fd, answer_fd; /* folder_fd: locked as long as any of the processes lives */
	char *folder;
	bool keep, own_tree;
	enclosure_fn *fn;
	void *context;
};

/* --- the folder --- */

/* Ours, and of no living drill. */
static bool is_left_over(int scratch_fd, const char *name)
{
	struct stat st;
	auto_close int fd = openat(scratch_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static void sweep(int scratch_fd)
{
	int copy = openat(scratch_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_closedir DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct im_error ignored = { 0 };
	for (struct dirent *e; dir && (e = readdir(dir));)
		if (strncmp(e->d_name, PREFIX, sizeof PREFIX - 1) == 0 && is_left_over(scratch_fd, e->d_name))
			beneath_remove(scratch_fd, e->d_name, NULL, &ignored);
}

static int make_folder(struct enclosure *e, const char *scratch, struct im_error *err)
{
	e->scratch_fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e->scratch_fd < 0)
		return im_fail_errno(err, IM_EUSAGE, errno, "cannot use %s as scratch (--scratch, or scratch = in [drill])", scratch);
	/* nobody takes a folder for a leftover before its own drill has locked it; who holds this for long is no drill */
	for (int tries = 0; flock(e->scratch_fd, LOCK_EX | LOCK_NB) && tries < 250; tries++)
		im_sleep_ms(20);
	sweep(e->scratch_fd);
	auto_free char *real = realpath(scratch, NULL);
	e->folder = real ? im_path_join(real, PREFIX "XXXXXX") : NULL;
	if (!e->folder)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (!mkdtemp(e->folder))
		return im_fail_errno(err, IM_EIO, errno, "cannot make a folder in %s", scratch);
	e->folder_fd = open(e->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (e->folder_fd < 0 || flock(e->folder_fd, LOCK_EX | LOCK_NB))
		return im_fail_errno(err, IM_EIO, errno, "cannot lock %s", e->folder);
	flock(e->scratch_fd, LOCK_UN);
	return 0;
}

static int keep_folder(struct enclosure *e, struct im_error *err)
{
	const char *name = strrchr(e->folder, '/') + 1;
	auto_free char *kept = im_format("%.*s" KEPT_PREFIX "%s", (int)(name - e->folder), e->folder, name + sizeof PREFIX - 1);
	if (!kept)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (rename(e->folder, kept))
		return im_fail_errno(err, IM_EIO, errno, "cannot rename %s", e->folder);
	free(e->folder);
	e->folder = TAKE_PTR(kept);
	return 0;
}

/* The lock goes with the last process that has it, however that one dies. */
static void wait_until_alone(struct enclosure *e)
{
	close(e->folder_fd);
	e->folder_fd = open(e->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	for (int tries = 0; e->folder_fd >= 0 && tries < 500 && flock(e->folder_fd, LOCK_EX | LOCK_NB); tries++)
		im_sleep_ms(20);
}

static int remove_folder(const struct enclosure *e, struct im_error *err)
{
	return e->keep ? 0 : beneath_remove(e->scratch_fd, strrchr(e->folder, '/') + 1, NULL, err);
}

/* --- the processes --- */

/* Signals that wait until see_through looks. */
static sigset_t held(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	return set;
}

static void hold_signals(int how)
{
	const sigset_t set = held();
	sigprocmask(how, &set, NULL);
}

static int next_signal(void)
{
	const struct timespec patience = im_timespec(INT64_C(1000000) * LOOK_EVERY_MS);
	const sigset_t set = held();
	return sigtimedwait(&set, NULL, &patience);
}

/* Until child has ended; whatever else is a child of ours is reaped meanwhile. Interruptions are handed on; with our parent
 * (0: no matter who) the child ends too. Signals are held. */
static int see_through(pid_t child, pid_t parent)
{
	int status = 0;
	for (pid_t got;;) {
		while ((got = waitpid(-1, &status, WNOHANG)) > 0)
			if (got == child)
				return status;
		if (got < 0 && errno == ECHILD)
			return status;
		int number = next_signal();
		if (parent && getppid() != parent)
			kill(child, SIGKILL);
		else if (number == SIGINT || number == SIGTERM) {
			im_interrupt_raise(number);
			kill(child, number);
		}
	}
}

/* Without a namespace: all that became ours because its own parent ended. */
static void end_orphans(void)
{
	auto_free char *list = im_format("/proc/self/task/%d/children", (int)getpid());
	for (int tries = 0; list && tries < 100; tries++) {
		auto_buf struct im_buf text = { 0 };
		if (im_file_read(list, 1 << 20, &text, NULL) || !text.len)
			return;
		im_buf_put_u8(&text, 0);
		for (char *at = (char *)text.data, *next; text.data && *at; at = next) {
			long pid = strtol(at, &next, 10);
			if (next == at || pid <= 0)
				break;
			kill((pid_t)pid, SIGKILL);
			next += *next == ' ';
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		im_sleep_ms(10);
	}
}

static int write_answer(const struct enclosure *e, const json_t *answer)
{
	auto_free char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	return text ? im_write_full(e->answer_fd, text, strlen(text), NULL, "the answer") : -1;
}

static void work(const struct enclosure *e)
{
	prctl(PR_SET_NAME, "imvault");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	hold_signals(SIG_UNBLOCK);
	json_t *answer = e->fn(e->context, e->folder);
	int rc = write_answer(e, answer);
	json_decref(answer);
	fflush(NULL);
	_exit(rc ? 1 : 0);
}

static void be_first(const struct enclosure *e)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (e->own_tree && (unshare(CLONE_NEWNS) || mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)))
		_exit(NO_NAMESPACES);
	pid_t child = fork();
	if (child == 0)
		work(e);
	int status = child < 0 ? 1 << 8 : see_through(child, 0);
	if (!e->own_tree)
		end_orphans();
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void guard(struct enclosure *e, pid_t parent)
{
	prctl(PR_SET_NAME, "imvault-guard");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setsid(); /* the terminal's signals go to the caller, who hands them on */
	/* where mounts could be seen from outside (a root folder that is no mount point) there is none */
	e->own_tree = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && unshare(CLONE_NEWPID) == 0;
	pid_t first = fork();
	if (first == 0)
		be_first(e);
	int status = first < 0 ? 1 << 8 : see_through(first, parent);
	end_orphans();
	remove_folder(e, NULL);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static int read_answer(const struct enclosure *e, int status, json_t **ret, struct im_error *err)
{
	auto_buf struct im_buf text = { 0 };
	struct stat st;
	json_error_t why;
	uint8_t *at = fstat(e->answer_fd, &st) == 0 && st.st_size > 0 && st.st_size <= ANSWER_MAX_BYTES ? im_buf_grow(&text, (size_t)st.st_size) : NULL;
	bool read = at && im_pread_full(e->answer_fd, at, (size_t)st.st_size, 0, NULL, "the answer") == st.st_size;
	*ret = read ? json_loadb((const char *)text.data, text.len, 0, &why) : NULL;
	if (*ret)
		return 0;
	int rc = im_interrupt_check(err);
	if (rc)
		return rc;
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_NAMESPACES)
		return im_fail(err, IM_EFAIL, "cannot make mount namespace and /proc for the drill");
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return im_fail(err, IM_EFAIL, "the drill's process died (%s %d); nothing of it is left", code > 128 ? "signal" : "status", code > 128 ? code - 128 : code);
}

static int run(struct enclosure *e, json_t **ret, struct im_error *err)
{
	struct im_error why = { 0 };
	e->answer_fd = memfd_create("imvault-answer", MFD_CLOEXEC);
	if (e->answer_fd < 0)
		return im_fail_errno(err, IM_EFAIL, errno, "cannot make an unnamed file");
	fflush(NULL); /* or both would write it */
	hold_signals(SIG_BLOCK);
	pid_t me = getpid(), child = fork();
	if (child == 0)
		guard(e, me);
	int status = child < 0 ? 1 << 8 : see_through(child, 0);
	hold_signals(SIG_UNBLOCK);
	int rc = read_answer(e, status, ret, err);
	wait_until_alone(e);
	if (remove_folder(e, &why))
		fprintf(stderr, "imvault: %s is left: %s; the next drill tries again\n", e->folder, why.text);
	if (e->keep && keep_folder(e, &why))
		fprintf(stderr, "imvault: %s; the next drill removes it\n", why.text);
	return rc;
}

int enclosure_run(const char *scratch, bool keep, enclosure_fn *fn, void *context, json_t **ret, char **ret_folder, struct im_error *err)
{
	struct enclosure e = { .scratch_fd = -1, .folder_fd = -1, .answer_fd = -1, .keep = keep, .fn = fn, .context = context };
	int rc = make_folder(&e, scratch, err);
	if (rc == 0)
		rc = run(&e, ret, err);
	const int fds[] = { e.scratch_fd, e.folder_fd, e.answer_fd };
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	*ret_folder = keep && rc == 0 ? e.folder : NULL;
	if (!*ret_folder)
		free(e.folder);
	return rc;
}
