/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each file system of the machine is shown through an overlay whose upper side is memory, what cannot be overlaid
 * read-only; /run and /dev/shm are new. Then the folders of the restored stores cover their original paths.
 * Production's sockets, ports, processes (see enclosure.c) and files are out of reach.
 */
#include "verify/sandbox.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/mounts.h"
#include "verify/drill.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER_VARIABLE "IMVAULT_DRILL_FOLDER"
#define COMMAND_VARIABLE "IMVAULT_DRILL_COMMAND"

enum { NOTES_MAX_BYTES = 1 << 20 };

struct sandbox {
	const char *folder; /* the drill's scratch */
	char *memory, *top; /* where the upper sides lie, and the new root */
	unsigned layers;
	struct im_error *err;
};

/* --- before --- */

int sandbox_command(const char *folder, const char *const *paths, const char *command, char **ret, struct im_error *err)
{
	auto_buf struct im_buf notes = { 0 };
	if (geteuid())
		return im_fail(err, IM_EUSAGE, "a drill starts a service in a network namespace of its own, which needs root; leave drill_exec and --exec out, or run it as root");
	for (; *paths; paths++)
		im_buf_put(&notes, *paths, strlen(*paths) + 1);
	auto_free char *file = im_path_join(folder, "stores"), *self = im_format("/proc/%d/exe", (int)getpid());
	if (notes.failed || !file || !self || setenv(FOLDER_VARIABLE, folder, 1) || setenv(COMMAND_VARIABLE, command, 1))
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = im_file_write(file, notes.data, notes.len, 0600, IM_FILE_REPLACE, err);
	/* its path need not lead there in a mount namespace of one's own; the comment is for people who see it fail */
	if (rc == 0 && !(*ret = im_format("exec %s " SANDBOX_COMMAND " # %.*s", self, (int)strcspn(command, "\n"), command)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	return rc;
}

/* --- within --- */

static int fail(struct sandbox *s, const char *what, const char *on)
{
	return im_fail_errno(s->err, IM_EFAIL, errno, "sandbox of the drill's service: cannot %s %s", what, on);
}

static int raise_loopback(struct sandbox *s)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	auto_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) ? fail(s, "bring up", "lo") : 0;
}

static bool is_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);
	return strncmp(path, folder, n) == 0 && (!path[n] || path[n] == '/');
}

static int make_memory(struct sandbox *s)
{
	s->memory = im_path_join(s->folder, "sandbox");
	s->top = s->memory ? im_path_join(s->memory, "top") : NULL;
	if (!s->top)
		return im_fail(s->err, IM_ENOMEM, "out of memory");
	if ((mkdir(s->memory, 0755) && errno != EEXIST) || mount("tmpfs", s->memory, "tmpfs", MS_NOSUID, "mode=0755,size=25%"))
		return fail(s, "mount memory at", s->memory);
	return mkdir(s->top, 0755) ? fail(s, "make", s->top) : 0;
}

/* Writable for the service, and for nobody else. */
static int overlay(struct sandbox *s, const char *place, const char *shown)
{
	auto_free char *upper = im_format("%s/%u.upper", s->memory, s->layers), *work = im_format("%s/%u.work", s->memory, s->layers);
	auto_free char *options = upper && work ? im_format("lowerdir=%s,upperdir=%s,workdir=%s", place, upper, work) : NULL;
	s->layers++;
	if (!options)
		return IM_ENOMEM;
	if (strpbrk(place, ",:\\") || mkdir(upper, 0755) || mkdir(work, 0755))
		return IM_EFAIL;
	return mount("overlay", shown, "overlay", 0, options) ? IM_EFAIL : 0;
}

static int show_read_only(struct sandbox *s, const char *place, const char *shown)
{
	if (mount(place, shown, NULL, MS_BIND, NULL))
		return fail(s, "show", place);
	return mount(NULL, shown, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) ? fail(s, "protect", place) : 0;
}

static int show_new(struct sandbox *s, const char *path, const char *mode)
{
	auto_free char *shown = im_format("%s%s", s->top, path);
	return !shown || (access(shown, F_OK) == 0 && mount("tmpfs", shown, "tmpfs", MS_NOSUID | MS_NODEV, mode)) ? fail(s, "mount memory at", path) : 0;
}

static bool is_special(const char *place)
{
	static const char *const own[] = { "/proc", "/sys", "/dev", "/run" };
	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		if (is_below(place, own[i]))
			return true;
	return false;
}

static int show_one(void *context, const struct im_mount *m)
{
	struct sandbox *s = context;
	struct stat st;
	if (strcmp(m->place, "/") == 0 || is_special(m->place) || is_below(m->place, s->folder) || stat(m->place, &st))
		return 0;
	auto_free char *shown = im_format("%s%s", s->top, m->place);
	if (!shown)
		return im_fail(s->err, IM_ENOMEM, "out of memory");
	return (S_ISDIR(st.st_mode) && overlay(s, m->place, shown) == 0) || access(shown, F_OK) ? 0 : show_read_only(s, m->place, shown);
}

static int show_machine(struct sandbox *s)
{
	auto_free char *dev = im_path_join(s->top, "dev"), *proc = im_path_join(s->top, "proc"), *sys = im_path_join(s->top, "sys");
	if (!dev || !proc || !sys)
		return im_fail(s->err, IM_ENOMEM, "out of memory");
	if (overlay(s, "/", s->top))
		return fail(s, "lay an overlay over", "/");
	int rc = im_mounts_each(0, show_one, s);
	if (rc)
		return rc;
	if (mount("/dev", dev, NULL, MS_BIND | MS_REC, NULL))
		return fail(s, "show", "/dev");
	if (mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return fail(s, "mount", "/proc");
	if (access("/sys/kernel", F_OK) == 0 && (rc = show_read_only(s, "/sys", sys)))
		return rc;
	rc = show_new(s, "/run", "mode=0755");
	return rc ? rc : show_new(s, "/dev/shm", "mode=1777");
}

/* mkdir -p within the new root, which is memory. */
static int make_folders(struct sandbox *s, char *path)
{
	for (char *p = path + strlen(s->top) + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = 0;
		bool fine = mkdir(path, 0755) == 0 || errno == EEXIST;
		if (!fine)
			return fail(s, "make", path);
	}
	return mkdir(path, 0755) && errno != EEXIST ? fail(s, "make", path) : 0;
}

/* The restored store covers its original path: its folder, since a server has its journals beside a database. */
static int show_store(struct sandbox *s, const char *path)
{
	struct stat st;
	auto_free char *restored = im_format("%s/root%s", s->folder, path), *shown = im_format("%s%s", s->top, path);
	if (!restored || !shown)
		return im_fail(s->err, IM_ENOMEM, "out of memory");
	if (stat(restored, &st))
		return 0; /* it could not be restored, and is named elsewhere */
	if (!S_ISDIR(st.st_mode)) {
		*strrchr(restored, '/') = 0;
		*strrchr(shown, '/') = 0;
	}
	if (strcmp(shown, s->top) == 0)
		return im_fail(s->err, IM_EUSAGE, "store %s lies in the root folder: its service cannot run in a sandbox", path);
	int rc = make_folders(s, shown);
	return rc || mount(restored, shown, NULL, MS_BIND | MS_REC, NULL) == 0 ? rc : fail(s, "show the restored", path);
}

static int show_stores(struct sandbox *s)
{
	auto_free char *file = im_path_join(s->folder, "stores");
	auto_buf struct im_buf notes = { 0 };
	int rc = file ? im_file_read(file, NOTES_MAX_BYTES, &notes, s->err) : im_fail(s->err, IM_ENOMEM, "out of memory");
	for (size_t at = 0; rc == 0 && at < notes.len; at += strlen((char *)notes.data + at) + 1)
		rc = show_store(s, (char *)notes.data + at);
	return rc;
}

static int enter(struct sandbox *s)
{
	if (unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return fail(s, "make", "namespaces");
	int rc = raise_loopback(s);
	if (rc == 0)
		rc = make_memory(s);
	if (rc == 0)
		rc = show_machine(s);
	if (rc == 0)
		rc = show_stores(s);
	return rc || (chroot(s->top) == 0 && chdir("/") == 0) ? rc : fail(s, "enter", s->top);
}

int sandbox_enter(struct im_error *err)
{
	struct sandbox s = { .folder = getenv(FOLDER_VARIABLE), .err = err };
	const char *command = getenv(COMMAND_VARIABLE);
	if (!s.folder || !command || *s.folder != '/')
		return im_fail(err, IM_EUSAGE, SANDBOX_COMMAND " is run by imvault drill only");
	int rc = enter(&s);
	free(s.memory);
	free(s.top);
	if (rc)
		return rc;
	drill_be_nice(); /* the service has a session of its own */
	umask(022);
	setenv("IMVAULT_TARGET", "/", 1);
	setenv("IMVAULT_DRILL", "1", 1);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	return im_fail_errno(err, IM_EFAIL, errno, "cannot run /bin/sh");
}
