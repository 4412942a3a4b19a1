/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding processes through /proc and the cgroup tree. Processes come and go while we look: what
 * vanished is skipped, what is forked later is caught by the guard.
 */
#include "stores/sqlite/procs.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PID_FILE_MAX_BYTES 64
#define CGROUP_MAX_BYTES (1u << 20)
#define CGROUP_MAX_DEPTH 8

extern char **environ;

int procs_validate(const char *store, const char *who, struct im_error *err)
{
	if (who[0] == '/' && who[1])
		return 0;
	size_t n = strlen(who);
	bool ok = n > 0 && n < 256 && who[0] != '-';
	for (size_t i = 0; i < n; i++)
		ok = ok && (isalnum((unsigned char)who[i]) || strchr(":_.@-\\", who[i]));
	return ok ? 0 : im_fail(err, IM_EUSAGE, "store %s: pause = %s is neither the absolute path of a PID file nor the name of a systemd unit", store, who);
}

void procs_clear(struct procs *p)
{
	free(p->pids);
	*p = (struct procs){ 0 };
}

static bool has(const struct procs *p, pid_t pid)
{
	for (size_t i = 0; i < p->count; i++)
		if (p->pids[i] == pid)
			return true;
	return false;
}

static int add(struct procs *p, pid_t pid, struct im_error *err)
{
	if (has(p, pid))
		return 0;
	if (p->count == p->room) {
		size_t room = p->room ? 2 * p->room : 16;
		pid_t *pids = realloc(p->pids, room * sizeof *pids);
		if (!pids)
			return im_fail(err, IM_ENOMEM, "out of memory");
		p->pids = pids;
		p->room = room;
	}
	p->pids[p->count++] = pid;
	return 0;
}

/* Digits and nothing else; 0 if text is no process number. */
static pid_t parse_pid(const char *text, const char **ret_end)
{
	long long n = 0;
	const char *p = text;
	for (; isdigit((unsigned char)*p) && p - text < 10; p++)
		n = n * 10 + (*p - '0');
	*ret_end = p;
	return p == text || n > INT32_MAX ? 0 : (pid_t)n;
}

static int read_pid_file(const char *path, pid_t *ret, struct im_error *err)
{
	auto_buf struct im_buf b = { 0 };
	im_buf_put_u8(&b, 0); /* an empty file must find a buffer */
	b.len = 0;
	int rc = im_file_read(path, PID_FILE_MAX_BYTES, &b, err);
	if (rc)
		return im_error_context(err, "cannot tell which process to pause");
	im_buf_put_u8(&b, 0);
	if (b.failed)
		return im_fail(err, IM_ENOMEM, "out of memory");
	const char *end;
	pid_t pid = parse_pid((const char *)b.data, &end);
	if (pid <= 1 || end[strspn(end, " \t\r\n")])
		return im_fail(err, IM_EFAIL, "the PID file %s does not hold one process number", path);
	auto_free char *proc = im_format("/proc/%d", (int)pid);
	if (!proc || access(proc, F_OK))
		return im_fail(err, IM_EFAIL, "the PID file %s names process %d, which does not run: is the server up?", path, (int)pid);
	*ret = pid;
	return 0;
}

static pid_t parent_of(pid_t pid)
{
	auto_free char *path = im_format("/proc/%d/stat", (int)pid);
	char text[512];
	auto_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
	if (n <= 0)
		return 0;
	text[n] = 0;
	const char *name_end = strrchr(text, ')'); /* the name may hold anything */
	int parent;
	return name_end && sscanf(name_end + 1, " %*c %d", &parent) == 1 ? (pid_t)parent : 0;
}

typedef int each_fn(void *context, pid_t pid, struct im_error *err);

static int each_process(each_fn *fn, void *context, struct im_error *err)
{
	auto_closedir DIR *d = opendir("/proc");
	if (!d)
		return im_fail_errno(err, IM_EFAIL, errno, "cannot list the processes in /proc");
	int rc = 0;
	for (struct dirent *e; rc == 0 && (e = readdir(d));) {
		const char *end;
		pid_t pid = parse_pid(e->d_name, &end);
		if (pid > 0 && !*end)
			rc = fn(context, pid, err);
	}
	return rc;
}

static int add_child(void *context, pid_t pid, struct im_error *err)
{
	struct procs *p = context;
	return has(p, parent_of(pid)) ? add(p, pid, err) : 0;
}

static int add_descendants(struct procs *p, struct im_error *err)
{
	for (size_t before = 0; before != p->count;) {
		before = p->count;
		int rc = each_process(add_child, p, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* The unit's control group, as systemd names it. */
static int unit_group(const char *unit, struct im_buf *ret, struct im_error *err)
{
	int pipe_fds[2];
	if (pipe2(pipe_fds, O_CLOEXEC))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot ask systemd about %s", unit);
	auto_close int from = pipe_fds[0];
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 1);
	const char *const argv[] = { "systemctl", "show", "--property=ControlGroup", "--value", "--", unit, NULL };
	pid_t child;
	int e = posix_spawnp(&child, "systemctl", &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(pipe_fds[1]);
	if (e)
		return im_fail_errno(err, IM_EFAIL, e, "cannot ask systemctl for the processes of unit %s", unit);
	uint8_t text[4096];
	for (ssize_t n; (n = read(from, text, sizeof text)) > 0 && ret->len < sizeof text;)
		im_buf_put(ret, text, (size_t)n);
	int status;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	while (ret->len && isspace(ret->data[ret->len - 1]))
		ret->len--;
	im_buf_put_u8(ret, 0);
	if (ret->failed || status || ret->data[0] != '/' || strstr((char *)ret->data, ".."))
		return im_fail(err, IM_EFAIL, "systemd knows no running unit %s (systemctl show --property=ControlGroup %s)", unit, unit);
	return 0;
}

static int add_group(struct procs *p, const char *path, int depth, struct im_error *err)
{
	auto_free char *list = im_format("%s/cgroup.procs", path);
	auto_buf struct im_buf b = { 0 };
	auto_close int fd = list ? open(list, O_RDONLY | O_CLOEXEC) : -1;
	uint8_t text[4096];
	for (ssize_t n; fd >= 0 && (n = read(fd, text, sizeof text)) > 0 && b.len < CGROUP_MAX_BYTES;)
		im_buf_put(&b, text, (size_t)n);
	im_buf_put_u8(&b, 0);
	int rc = b.failed ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
	for (const char *at = (const char *)b.data; rc == 0 && *at; at += *at == '\n') {
		pid_t pid = parse_pid(at, &at);
		if (pid <= 1)
			break;
		rc = add(p, pid, err);
	}
	auto_closedir DIR *d = rc == 0 && depth < CGROUP_MAX_DEPTH ? opendir(path) : NULL;
	for (struct dirent *e; rc == 0 && d && (e = readdir(d));) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		auto_free char *below = im_path_join(path, e->d_name);
		rc = below ? add_group(p, below, depth + 1, err) : im_fail(err, IM_ENOMEM, "out of memory");
	}
	return rc;
}

static int find_unit(const char *unit, struct procs *p, struct im_error *err)
{
	static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified" };
	auto_buf struct im_buf group = { 0 };
	int rc = unit_group(unit, &group, err);
	for (size_t i = 0; rc == 0 && p->count == 0 && i < sizeof roots / sizeof roots[0]; i++) {
		auto_free char *path = im_format("%s%s", roots[i], (char *)group.data);
		rc = path ? add_group(p, path, 0, err) : im_fail(err, IM_ENOMEM, "out of memory");
	}
	if (rc == 0 && p->count == 0)
		rc = im_fail(err, IM_EFAIL, "unit %s has no running process", unit);
	return rc;
}

int procs_find(const char *who, struct procs *ret, struct im_error *err)
{
	struct procs p = { 0 };
	pid_t pid = 0;
	int rc = who[0] == '/' ? read_pid_file(who, &pid, err) : find_unit(who, &p, err);
	if (rc == 0 && pid)
		rc = add(&p, pid, err);
	if (rc == 0 && pid)
		rc = add_descendants(&p, err);
	for (pid_t own = getpid(); rc == 0 && own > 1; own = parent_of(own))
		if (has(&p, own))
			rc = im_fail(err, IM_EFAIL, "%s names process %d, which runs imvault itself: it cannot be paused", who, (int)own);
	if (rc) {
		procs_clear(&p);
		return rc;
	}
	*ret = p;
	return 0;
}

struct search {
	const struct procs *inside;
	struct stat file;
	bool found;
	pid_t stranger;
};

static int look_at(void *context, pid_t pid, struct im_error *err)
{
	struct search *s = context;
	bool inside = has(s->inside, pid);
	if (pid == getpid())
		return 0;
	auto_free char *path = im_format("/proc/%d/fd", (int)pid);
	auto_closedir DIR *d = path ? opendir(path) : NULL;
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (struct dirent *e; d && (e = readdir(d));) {
		struct stat st, link;
		if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) || st.st_dev != s->file.st_dev || st.st_ino != s->file.st_ino)
			continue;
		if (inside)
			s->found = true;
		else if (fstatat(dirfd(d), e->d_name, &link, AT_SYMLINK_NOFOLLOW) == 0 && link.st_mode & S_IWUSR)
			s->stranger = pid;
	}
	return 0;
}

int procs_check_owner(const struct procs *p, int fd, const char *path, const char *who, struct im_error *err)
{
	struct search s = { .inside = p };
	if (fstat(fd, &s.file))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat %s", path);
	int rc = each_process(look_at, &s, err);
	if (rc)
		return rc;
	if (!s.found)
		return im_fail(err, IM_EFAIL,
		    "no process of %s (process %d and what it started) has %s open: is it stale, or is imvault not allowed to look?",
		    who, (int)p->pids[0], path);
	if (s.stranger)
		return im_fail(err, IM_EFAIL, "process %d, which is not one of %s, has %s open for writing: pausing the server would not be enough",
		    (int)s.stranger, who, path);
	return 0;
}
