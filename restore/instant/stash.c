/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message may carry 253 descriptors, so the socket's only message carries more sockets ("bags"),
 * each with one message that carries the descriptors themselves.
 */
#include "restore/instant/stash.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { BAG = 200 };

uint64_t stash_raise_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return 0;
	uint64_t before = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	return before;
}

static int send_all(const int *fds, size_t count, int *ret_fd, struct im_error *err)
{
	int pair[2];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(BAG * sizeof(int))];
	} control = { 0 };
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot make a socket");
	uint32_t n = (uint32_t)count;
	struct iovec body = { &n, sizeof n };
	struct msghdr m = { .msg_iov = &body, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	ssize_t sent = sendmsg(pair[0], &m, MSG_NOSIGNAL);
	int e = errno;
	close(pair[0]);
	if (sent == sizeof n) {
		*ret_fd = pair[1];
		return 0;
	}
	close(pair[1]);
	return im_fail_errno(err, IM_EFAIL, e, "cannot put descriptors into a socket");
}

/* What a socket's message carries, or with MSG_PEEK copies of it; at most BAG. */
static int receive(int fd, int flags, int ret[BAG], size_t *ret_count, struct im_error *err)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(BAG * sizeof(int))];
	} control = { 0 };
	uint32_t n = 0;
	struct iovec body = { &n, sizeof n };
	struct msghdr m = { .msg_iov = &body, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	*ret_count = 0;
	if (recvmsg(fd, &m, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof n)
		return im_fail(err, IM_EUSAGE, "there are no descriptors in this socket");
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		*ret_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(ret, CMSG_DATA(c), *ret_count * sizeof(int));
	}
	return *ret_count == n ? 0 : im_fail(err, IM_EFAIL, "not all descriptors can be had: too many open files");
}

static void close_all(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

int stash_make(const int *fds, size_t count, int *ret_fd, struct im_error *err)
{
	int bags[BAG] = { 0 };
	size_t bag_count = 0;
	int rc = count > STASH_MAX ? im_fail(err, IM_EUSAGE, "too many files to be kept open") : 0;
	for (size_t at = 0; at < count && rc == 0; at += BAG) {
		rc = send_all(fds + at, count - at < BAG ? count - at : BAG, &bags[bag_count], err);
		bag_count += rc == 0;
	}
	if (rc == 0)
		rc = send_all(bags, bag_count, ret_fd, err);
	close_all(bags, bag_count);
	return rc;
}

int stash_look(int fd, int **ret_fds, size_t *ret_count, struct im_error *err)
{
	int bags[BAG];
	size_t bag_count, count = 0;
	int rc = receive(fd, MSG_PEEK, bags, &bag_count, err);
	auto_free int *all = calloc(bag_count ? bag_count * BAG : 1, sizeof *all);
	if (rc == 0 && !all)
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < bag_count && rc == 0; i++) {
		size_t n;
		rc = receive(bags[i], MSG_PEEK, all + count, &n, err);
		count += n;
	}
	close_all(bags, bag_count);
	if (rc) {
		if (all)
			close_all(all, count);
		return rc;
	}
	*ret_fds = TAKE_PTR(all);
	*ret_count = count;
	return 0;
}

void stash_empty(int fd)
{
	int fds[BAG];
	size_t count;
	struct im_error ignored = { 0 };
	while (receive(fd, 0, fds, &count, &ignored) == 0 || count) /* bags go with what is in them */
		close_all(fds, count);
}

uint64_t stash_number(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static int look_at_process(uint64_t number, pid_t pid, int (*fn)(void *context, pid_t pid, int its_fd), void *context)
{
	char path[64], link[64], wanted[64];
	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	int n = snprintf(wanted, sizeof wanted, "socket:[%llu]", (unsigned long long)number);
	auto_closedir DIR *dir = opendir(path);
	for (struct dirent *e; dir && (e = readdir(dir));) {
		ssize_t len = isdigit((unsigned char)e->d_name[0]) ? readlinkat(dirfd(dir), e->d_name, link, sizeof link) : -1;
		if (len != n || memcmp(link, wanted, (size_t)n) != 0)
			continue;
		return fn(context, pid, atoi(e->d_name));
	}
	return 0;
}

int stash_each_holder(uint64_t number, int (*fn)(void *context, pid_t pid, int its_fd), void *context)
{
	auto_closedir DIR *dir = opendir("/proc");
	int rc = 0;
	for (struct dirent *e; rc == 0 && dir && (e = readdir(dir));) {
		pid_t pid = isdigit((unsigned char)e->d_name[0]) ? (pid_t)atoi(e->d_name) : 0;
		if (pid && pid != getpid())
			rc = look_at_process(number, pid, fn, context);
	}
	return rc;
}

static int copy_from(void *context, pid_t pid, int its_fd)
{
	auto_close int process = (int)syscall(SYS_pidfd_open, pid, 0);
	int fd = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, its_fd, 0);
	if (fd < 0)
		return 0;
	*(int *)context = fd;
	return 1;
}

int stash_find(uint64_t number, int *ret_fd, struct im_error *err)
{
	int fd = -1;
	if (!number || !stash_each_holder(number, copy_from, &fd))
		return im_fail(err, IM_ENOTFOUND, "no process holds this restore any more");
	if (stash_number(fd) == number) {
		*ret_fd = fd;
		return 0;
	}
	close(fd);
	return im_fail(err, IM_ENOTFOUND, "no process holds this restore any more");
}
