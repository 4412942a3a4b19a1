/* SPDX-License-Identifier: Apache-2.0 */
#include "restore/instant/holder.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/notify.h"
#include "restore/instant/stash.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

bool holder_is_handed_over(const char *command)
{
	static const char *const programs[] = { "systemctl", "service", "invoke-rc.d", "rc-service", "initctl", "machinectl", "docker", "podman" };
	static const char between[] = " \t\n;&|()'\"";
	for (const char *p = command; *p;) {
		size_t n = strcspn(p, between);
		const char *name = p;
		for (const char *c = p; c < p + n; c++)
			name = *c == '/' ? c + 1 : name;
		size_t len = (size_t)(p + n - name);
		for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
			if (strlen(programs[i]) == len && memcmp(programs[i], name, len) == 0)
				return true;
		p += n;
		p += strspn(p, between);
	}
	return false;
}

static void read_name(pid_t pid, char *ret)
{
	char path[40];
	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	FILE *f = fopen(path, "re");
	*ret = 0;
	if (f && fgets(ret, 16, f))
		ret[strcspn(ret, "\n")] = 0;
	if (f)
		fclose(f);
}

static bool is_ours(pid_t pid)
{
	char path[40], ours[PATH_MAX] = "", its[PATH_MAX] = "";
	snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
	return readlink("/proc/self/exe", ours, sizeof ours - 1) > 0 && readlink(path, its, sizeof its - 1) > 0 && strcmp(ours, its) == 0;
}

static int take_stranger(void *context, pid_t pid, int its_fd)
{
	(void)its_fd;
	if (is_ours(pid))
		return 0;
	*(pid_t *)context = pid;
	return 1;
}

pid_t holder_find(int stash)
{
	pid_t pid = 0;
	stash_each_holder(stash_number(stash), take_stranger, &pid);
	return pid;
}

void holder_store(int stash)
{
	im_notify_fd("FDSTORE=1\nFDNAME=imvault-instant", stash);
	/* the manager reads it when it gets to it */
	for (int i = 0; getenv("NOTIFY_SOCKET") && i < 20 && !holder_find(stash); i++)
		im_sleep_ms(5);
}

static bool is_below(const char *folder, size_t len, int dir_fd, const char *name)
{
	char link[PATH_MAX];
	ssize_t n = readlinkat(dir_fd, name, link, sizeof link - 1);
	if (n < (ssize_t)len)
		return false;
	link[n] = 0;
	return memcmp(link, folder, len) == 0 && (link[len] == 0 || link[len] == '/');
}

static bool uses(pid_t pid, const char *folder)
{
	char path[40];
	size_t len = strlen(folder);
	snprintf(path, sizeof path, "/proc/%d", (int)pid);
	auto_closedir DIR *process = opendir(path);
	if (process && is_below(folder, len, dirfd(process), "cwd"))
		return true;
	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	auto_closedir DIR *fds = opendir(path);
	for (struct dirent *e; fds && (e = readdir(fds));)
		if (isdigit((unsigned char)e->d_name[0]) && is_below(folder, len, dirfd(fds), e->d_name))
			return true;
	return false;
}

pid_t holder_find_user(const char *folder, char *ret_name)
{
	auto_free char *real = realpath(folder, NULL);
	auto_closedir DIR *dir = real ? opendir("/proc") : NULL;
	for (struct dirent *e; dir && (e = readdir(dir));) {
		pid_t pid = isdigit((unsigned char)e->d_name[0]) ? (pid_t)atoi(e->d_name) : 0;
		if (pid && pid != getpid() && uses(pid, real)) {
			read_name(pid, ret_name);
			return pid;
		}
	}
	return 0;
}
