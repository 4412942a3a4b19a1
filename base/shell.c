/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a command of the configuration. Its stderr comes through a pipe, of which the last line is
 * kept for the error.
 */
#include "base/shell.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#define TICK_MS 50
#define GRACE_MS 2000

extern char **environ;

struct tail { /* the last bytes of stderr */
	char text[512];
	size_t len;
};

static void tail_add(struct tail *t, const char *data, size_t len)
{
	size_t room = sizeof t->text - 1;
	if (len > room) {
		data += len - room;
		len = room;
	}
	if (t->len + len > room) {
		size_t drop = t->len + len - room;
		memmove(t->text, t->text + drop, t->len - drop);
		t->len -= drop;
	}
	memcpy(t->text + t->len, data, len);
	t->len += len;
	t->text[t->len] = 0;
}

static const char *tail_line(struct tail *t)
{
	while (t->len && strchr("\n\r ", t->text[t->len - 1]))
		t->text[--t->len] = 0;
	char *newline = strrchr(t->text, '\n');
	return newline ? newline + 1 : t->text;
}

static bool is_among(const char *variable, char *const *variables)
{
	for (size_t length = strcspn(variable, "=") + 1; *variables; variables++)
		if (strncmp(*variables, variable, length) == 0)
			return true;
	return false;
}

/* A copy of the environment with these in front; the strings are borrowed. */
static char **make_environment(char *const *variables)
{
	size_t count = 0, n = 0;
	for (char *const *v = variables; *v; v++)
		count++;
	for (char *const *v = environ; *v; v++)
		count++;
	char **env = calloc(count + 1, sizeof *env);
	if (!env)
		return NULL;
	for (char *const *v = variables; *v; v++)
		env[n++] = *v;
	for (char *const *v = environ; *v; v++)
		if (!is_among(*v, variables))
			env[n++] = *v;
	return env;
}

static int spawn(const struct im_shell *s, char **env, int stderr_fd, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, usual;
	char *argv[] = { "/bin/sh", "-c", (char *)s->command, NULL };
	sigemptyset(&none);
	sigemptyset(&usual);
	for (int number = 1; number < 32; number++)
		if (number != SIGKILL && number != SIGSTOP)
			sigaddset(&usual, number);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	if (s->input_fd < 0)
		posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	else
		posix_spawn_file_actions_adddup2(&actions, s->input_fd, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, stderr_fd, 2);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &usual);
	int e = posix_spawn(ret, argv[0], &actions, &attr, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return e;
}

static void end_group(pid_t pid, int *ret_status)
{
	kill(-pid, SIGTERM);
	for (int64_t until = im_monotonic_ms() + GRACE_MS; im_monotonic_ms() < until;) {
		if (waitpid(pid, ret_status, WNOHANG) == pid) {
			kill(-pid, SIGKILL); /* whoever of the group is left */
			return;
		}
		poll(NULL, 0, TICK_MS);
	}
	kill(-pid, SIGKILL);
	while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
		;
}

static void drain(int fd, struct tail *tail)
{
	char text[4096];
	for (ssize_t n; (n = read(fd, text, sizeof text)) > 0;)
		tail_add(tail, text, (size_t)n);
}

static int timed_out(const struct im_shell *s, struct im_error *err)
{
	char limit[40];
	im_duration_format(limit, sizeof limit, s->timeout_ms);
	return s->timeout_key ? im_fail(err, IM_EFAIL, "did not end within %s and was killed (%s)", limit, s->timeout_key)
	                      : im_fail(err, IM_EFAIL, "did not end within %s and was killed", limit);
}

/* Waits for the shell itself, not for what it may have left running with our pipe. */
static int wait_for(const struct im_shell *s, pid_t pid, int fd, struct tail *tail, int *ret_status, struct im_error *err)
{
	int64_t until = im_monotonic_ms() + s->timeout_ms;
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (poll(&p, 1, TICK_MS) > 0 && (p.revents & (POLLHUP | POLLERR)) && !(p.revents & POLLIN))
			poll(NULL, 0, 5);
		drain(fd, tail);
		if (waitpid(pid, ret_status, WNOHANG) == pid) {
			drain(fd, tail);
			return 0;
		}
		int rc = s->to_the_end ? 0 : im_interrupt_check(err);
		if (!rc && im_monotonic_ms() >= until)
			rc = timed_out(s, err);
		if (rc) {
			end_group(pid, ret_status);
			return rc;
		}
	}
}

int im_shell_run(const struct im_shell *s, struct im_error *err)
{
	char *const none[] = { NULL };
	auto_free char **env = make_environment(s->variables ? s->variables : none);
	int pipe_fds[2], status = 0;
	struct tail tail = { .len = 0 };
	pid_t pid;
	if (!env)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (pipe2(pipe_fds, O_CLOEXEC))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot make a pipe");
	auto_close int in = pipe_fds[0];
	fcntl(in, F_SETFL, O_NONBLOCK);
	int e = spawn(s, env, pipe_fds[1], &pid);
	close(pipe_fds[1]);
	if (e)
		return im_fail_errno(err, IM_EFAIL, e, "cannot run /bin/sh");
	int rc = wait_for(s, pid, in, &tail, &status, err);
	if (rc)
		return rc;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	const char *line = tail_line(&tail), *colon = *line ? ": " : "";
	if (WIFSIGNALED(status))
		return im_fail(err, IM_EFAIL, "was killed by signal %d%s%s", WTERMSIG(status), colon, line);
	return im_fail(err, IM_EFAIL, "ended with status %d%s%s", WEXITSTATUS(status), colon, line);
}
