/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a hook. Its stderr comes through a pipe, of which the last line is kept for the error;
 * its stdout goes nowhere, since imvault's own stdout may be JSON.
 */
#include "stores/files/hooks.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
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

/* A copy of the environment with two variables in front; the strings are borrowed. */
static char **make_environment(char *store, char *path)
{
	size_t count = 0, n = 0;
	while (environ[count])
		count++;
	char **env = calloc(count + 3, sizeof *env);
	if (!env)
		return NULL;
	env[n++] = store;
	env[n++] = path;
	for (size_t i = 0; i < count; i++)
		if (strncmp(environ[i], "IMVAULT_STORE=", 14) && strncmp(environ[i], "IMVAULT_PATH=", 13))
			env[n++] = environ[i];
	return env;
}

static int spawn(const char *command, char **env, int stderr_fd, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, usual;
	char *argv[] = { "/bin/sh", "-c", (char *)command, NULL };
	sigemptyset(&none);
	sigemptyset(&usual);
	for (int s = 1; s < 32; s++)
		if (s != SIGKILL && s != SIGSTOP)
			sigaddset(&usual, s);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
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

/* Waits for the shell itself, not for what it may have left running with our pipe. post runs to its end
 * even when we were interrupted: it may be what lets the server go on. */
static int wait_for(pid_t pid, int fd, int64_t timeout_ms, bool heed_interrupt, struct tail *tail, int *ret_status,
    struct im_error *err)
{
	int64_t until = im_monotonic_ms() + timeout_ms;
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (poll(&p, 1, TICK_MS) > 0 && (p.revents & (POLLHUP | POLLERR)) && !(p.revents & POLLIN))
			poll(NULL, 0, 5);
		drain(fd, tail);
		if (waitpid(pid, ret_status, WNOHANG) == pid) {
			drain(fd, tail);
			return 0;
		}
		int rc = heed_interrupt ? im_interrupt_check(err) : 0;
		if (!rc && im_monotonic_ms() >= until)
			rc = im_fail(err, IM_EFAIL, "did not end within %lld s and was killed (hook_timeout)",
			    (long long)(timeout_ms / 1000));
		if (rc) {
			end_group(pid, ret_status);
			return rc;
		}
	}
}

static int run(const struct im_config_store *store, const char *key, const char *command, struct im_error *err)
{
	int64_t timeout_ms;
	if (!im_duration_parse(im_config_get(store, "hook_timeout", FILES_HOOK_TIMEOUT_DEFAULT), &timeout_ms))
		return im_fail(err, IM_EUSAGE, "hook_timeout is not a duration");
	auto_free char *name = im_format("IMVAULT_STORE=%s", store->name);
	auto_free char *path = im_format("IMVAULT_PATH=%s", store->path);
	auto_free char **env = name && path ? make_environment(name, path) : NULL;
	int pipe_fds[2];
	if (!env)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (pipe2(pipe_fds, O_CLOEXEC))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot make a pipe");
	auto_close int in = pipe_fds[0];
	pid_t pid;
	int status = 0;
	struct tail tail = { .len = 0 };
	fcntl(in, F_SETFL, O_NONBLOCK);
	int e = spawn(command, env, pipe_fds[1], &pid);
	close(pipe_fds[1]);
	if (e)
		return im_fail_errno(err, IM_EFAIL, e, "cannot run /bin/sh");
	int rc = wait_for(pid, in, timeout_ms, strcmp(key, "post") != 0, &tail, &status, err);
	if (rc)
		return rc;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	const char *line = tail_line(&tail), *colon = *line ? ": " : "";
	if (WIFSIGNALED(status))
		return im_fail(err, IM_EFAIL, "was killed by signal %d%s%s", WTERMSIG(status), colon, line);
	return im_fail(err, IM_EFAIL, "ended with status %d%s%s", WEXITSTATUS(status), colon, line);
}

int files_hook_run(const struct im_config_store *store, const char *key, struct im_error *err)
{
	const char *command = im_config_get(store, key, NULL);
	if (!command)
		return 0;
	struct im_error why = { 0 };
	int rc = run(store, key, command, &why);
	return rc ? im_fail(err, rc, "the %s hook \"%.100s\" %s", key, command, why.text) : 0;
}
