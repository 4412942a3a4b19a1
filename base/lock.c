/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run lock. The text inside is information for people only; the lock itself is the flock.
 */
#include "base/lock.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int refuse(int fd, const char *path, const char *what, struct im_error *err)
{
	char holder[256] = "";
	ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
	if (n > 0 && holder[n - 1] == '\n')
		holder[n - 1] = '\0';
	return im_fail(err, IM_ELOCKED, "%s is running already: %s holds %s; nothing was done",
	    what, n > 0 ? holder : "another process", path);
}

int im_lock_take(const char *path, const char *what, int *ret_fd, struct im_error *err)
{
	auto_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot open the lock file %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			return refuse(fd, path, what, err);
		return im_fail_errno(err, IM_EIO, errno, "cannot lock %s", path);
	}
	char since[IM_INSTANT_BYTES], text[256];
	int n = snprintf(text, sizeof text, "process %d (%s, since %s)\n", (int)getpid(), what,
	    im_instant_format(since, im_now_ms()));
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		return im_fail_errno(err, IM_EIO, errno, "cannot write the lock file %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}
