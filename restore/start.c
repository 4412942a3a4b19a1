/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the service. The command gets a session of its own, no input and none of our
 * descriptors, so that what it leaves running survives us. Its output goes to our stderr where
 * that is a terminal or a file; a pipe would keep its reader waiting for the service's end, so
 * then it goes to an unnamed file and its end is quoted if the command fails.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "restore/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POLL_MAX_MS = 20, TAIL_BYTES = 300 };

extern char **environ;

static int output_fd(void)
{
	struct stat st;
	if (fstat(STDERR_FILENO, &st) == 0 && (isatty(STDERR_FILENO) || S_ISREG(st.st_mode)))
		return fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd >= 0 ? fd : memfd_create("imvault-exec", MFD_CLOEXEC);
}

/* Our environment with IMVAULT_TARGET; the array is allocated, its strings but the first are
 * borrowed. */
static char **environment(char *target)
{
	size_t n = 0;
	while (environ[n])
		n++;
	char **all = calloc(n + 2, sizeof *all);
	if (!all)
		return NULL;
	size_t at = 0;
	all[at++] = target;
	for (size_t i = 0; i < n; i++)
		if (strncmp(environ[i], "IMVAULT_TARGET=", 15) != 0)
			all[at++] = environ[i];
	return all;
}

/* Just beyond the service's limit, where one that closes all it might have open does not look, if that is possible; but small, since
 * each of its processes pays for the table. */
static int inherited_number(const struct start_options *o)
{
	struct rlimit limit;
	bool beyond = getrlimit(RLIMIT_NOFILE, &limit) == 0 && o->files_soft < limit.rlim_cur && o->files_soft <= 4096;
	return beyond ? (int)o->files_soft : o->files_soft > 1000 ? 1000 : (int)o->files_soft - 1;
}

static int spawn(const struct start_options *o, const char *what, int out, pid_t *ret, struct im_error *err)
{
	auto_free char *variable = im_format("IMVAULT_TARGET=%s", o->target);
	auto_free char **env = variable ? environment(variable) : NULL;
	auto_free char *command = o->inherit_fd < 0 ? strdup(what) :
	    im_format("ulimit -S -n %llu\n%s", (unsigned long long)o->files_soft, what);
	if (!env || !command)
		return im_fail(err, IM_ENOMEM, "out of memory");
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO);
	int e = o->inherit_fd < 0 ? 0 : posix_spawn_file_actions_adddup2(&files, o->inherit_fd, 3);
	posix_spawn_file_actions_addclosefrom_np(&files, o->inherit_fd < 0 ? 3 : 4);
	if (o->inherit_fd >= 0) {
		e = e ? e : posix_spawn_file_actions_adddup2(&files, 3, inherited_number(o));
		posix_spawn_file_actions_addclose(&files, 3);
	}
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(
	    &attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	char *argv[] = { "sh", "-c", command, NULL };
	e = e ? e : posix_spawn(ret, "/bin/sh", &files, &attr, argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return e ? im_fail_errno(err, IM_EFAIL, e, "cannot run /bin/sh -c '%s'", what) : 0;
}

static bool is_fine(int status)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Asks whether the service is ready: begins to, or looks for the answer. *asking: process id, 0 if none. */
static int ask_ready(const struct start_options *o, int out, pid_t *asking, bool *ret_ready, struct im_error *err)
{
	struct start_options plain = *o;
	int status;
	plain.inherit_fd = -1;
	*ret_ready = false;
	if (!*asking)
		return spawn(&plain, o->ready, out, asking, err);
	if (waitpid(*asking, &status, WNOHANG) == *asking) {
		*ret_ready = is_fine(status);
		*asking = 0;
	}
	return 0;
}

/* Until the command ends, or the service is ready. */
static int wait_for(const struct start_options *o, pid_t pid, int out, int *ret_status, struct im_error *err)
{
	pid_t asking = 0;
	bool ready = false, ended = false;
	*ret_status = 0;
	for (unsigned pause_ms = 1;; pause_ms = pause_ms < POLL_MAX_MS ? pause_ms * 2 : POLL_MAX_MS) {
		pid_t got = ended ? 0 : waitpid(pid, ret_status, WNOHANG);
		if (got < 0 && errno != EINTR)
			return im_fail_errno(
			    err, IM_EFAIL, errno, "cannot wait for the --exec command");
		ended |= got == pid;
		if (ended && (!o->ready || !is_fine(*ret_status)))
			return 0;
		int rc = o->ready ? ask_ready(o, out, &asking, &ready, err) : 0;
		if (rc || ready)
			return rc;
		if (im_interrupt_signal()) {
			if (asking)
				kill(-asking, SIGTERM);
			if (!ended) {
				kill(-pid, SIGTERM);
				waitpid(pid, ret_status, 0);
			}
			return im_interrupt_check(err);
		}
		if (o->tick)
			o->tick(o->context);
		im_sleep_ms(pause_ms);
	}
}

static const char *last_words(int fd, char ret[TAIL_BYTES + 1])
{
	struct stat st;
	off_t from = fstat(fd, &st) == 0 && st.st_size > TAIL_BYTES ? st.st_size - TAIL_BYTES : 0;
	ssize_t n = pread(fd, ret, TAIL_BYTES, from);
	ret[n > 0 ? n : 0] = 0;
	while (n > 0 && ret[n - 1] == '\n')
		ret[--n] = 0;
	return ret;
}

int restore_start(const struct start_options *o, int *ret_status, struct im_error *err)
{
	auto_close int out = output_fd();
	if (out < 0)
		return im_fail_errno(
		    err, IM_EFAIL, errno, "cannot keep the output of the --exec command");
	pid_t pid = -1;
	int status;
	int rc = spawn(o, o->command, out, &pid, err);
	if (rc == 0)
		rc = wait_for(o, pid, out, &status, err);
	if (rc)
		return rc;
	*ret_status = status;
	if (is_fine(status))
		return 0;
	struct stat st;
	char words[TAIL_BYTES + 1] = "";
	bool quoted = fstat(out, &st) == 0 && st.st_nlink == 0;
	return im_fail(err, IM_EFAIL, "the data is restored, but '%s' %s %d%s%s", o->command,
	    WIFEXITED(status) ? "exited with" : "died of signal",
	    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), quoted ? ": " : "",
	    quoted ? last_words(out, words) : "");
}
