/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of JSON over a unix socket. Socket names are limited to 107 bytes, paths are not: the folder
 * is opened and named through /proc/self/fd.
 */
#include "backup/wire.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SOCKET_NAME "_control" /* no store can have that name */
#define SEND_TIMEOUT_S 30

char *wire_folder(const char *folder, const char *node)
{
	return im_format("%s/%s.follow", folder, node);
}

static int make_socket(const char *folder, int *ret_folder, struct sockaddr_un *ret_address, struct im_error *err)
{
	*ret_folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*ret_folder < 0)
		return im_fail_errno(err, errno == ENOENT ? IM_ENOTFOUND : IM_EIO, errno, "cannot open %s", folder);
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(ret_address->sun_path, sizeof ret_address->sun_path, "/proc/self/fd/%d/" SOCKET_NAME, *ret_folder);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 ? im_fail_errno(err, IM_EIO, errno, "cannot make a socket") : fd;
}

static int peer_pid(int fd)
{
	struct ucred who = { 0 };
	socklen_t len = sizeof who;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) ? 0 : who.pid;
}

int wire_connect(const char *folder, struct wire *ret, int *ret_pid, struct im_error *err)
{
	struct sockaddr_un address;
	auto_close int folder_fd = -1;
	auto_close int fd = make_socket(folder, &folder_fd, &address, err);
	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&address, sizeof address))
		return im_fail_errno(err, errno == ENOENT || errno == ECONNREFUSED ? IM_ENOTFOUND : IM_EIO, errno,
		    "cannot reach the follower in %s", folder);
	const struct timeval limit = { .tv_sec = SEND_TIMEOUT_S };
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	if (ret_pid)
		*ret_pid = peer_pid(fd);
	*ret = (struct wire){ .fd = TAKE_FD(fd) };
	return 0;
}

int wire_listen(const char *folder, int *ret_fd, struct im_error *err)
{
	struct sockaddr_un address;
	auto_close int folder_fd = -1;
	auto_close int fd = make_socket(folder, &folder_fd, &address, err);
	if (fd < 0)
		return fd;
	unlinkat(folder_fd, SOCKET_NAME, 0); /* of a follower that died: this one holds the lock */
	if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 8))
		return im_fail_errno(err, IM_EIO, errno, "cannot listen in %s", folder);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int wire_send(struct wire *w, const json_t *message, struct im_error *err)
{
	auto_free char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	auto_free char *line = text ? im_format("%s\n", text) : NULL;
	if (!line)
		return im_fail(err, IM_ENOMEM, "out of memory");
	size_t len = strlen(line);
	for (size_t done = 0; done < len;) {
		ssize_t n = send(w->fd, line + done, len - done, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return im_fail_errno(err, IM_EIO, errno, "cannot write to the control socket");
		done += (size_t)n;
	}
	return 0;
}

/* A line's length without its end, or -1. */
static ssize_t line_end(const struct im_buf *in)
{
	const uint8_t *end = in->len ? memchr(in->data, '\n', in->len) : NULL;
	return end ? end - in->data : -1;
}

static int take_line(struct wire *w, size_t len, json_t **ret, struct im_error *err)
{
	json_t *j = json_loadb((const char *)w->in.data, len, JSON_REJECT_DUPLICATES, NULL);
	w->in.len -= len + 1;
	memmove(w->in.data, w->in.data + len + 1, w->in.len);
	if (!json_is_object(j)) {
		json_decref(j);
		return im_fail(err, IM_ECORRUPT, "what came over the control socket is not JSON");
	}
	*ret = j;
	return 0;
}

static int receive_some(struct wire *w, struct im_error *err)
{
	char chunk[4096];
	ssize_t n = recv(w->fd, chunk, sizeof chunk, MSG_DONTWAIT);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0)
		return im_fail(err, IM_ENOTFOUND, "the other side of the control socket closed it");
	if (w->in.len + (size_t)n > WIRE_MAX_LINE_BYTES)
		return im_fail(err, IM_ECORRUPT, "a line on the control socket is too long");
	im_buf_put(&w->in, chunk, (size_t)n);
	return w->in.failed ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

int wire_receive(struct wire *w, int wake_fd, int64_t timeout_ms, json_t **ret, struct im_error *err)
{
	int64_t end = im_monotonic_ms() + timeout_ms;
	for (;;) {
		ssize_t len = line_end(&w->in);
		if (len >= 0)
			return take_line(w, (size_t)len, ret, err);
		int64_t left = end - im_monotonic_ms();
		if (left <= 0)
			return im_fail(err, IM_EMISSED, "no answer on the control socket in time");
		struct pollfd fds[2] = { { .fd = w->fd, .events = POLLIN }, { .fd = wake_fd, .events = POLLIN } };
		if (poll(fds, 2, left > 1000000 ? 1000000 : (int)left) < 0 && errno != EINTR)
			return im_fail_errno(err, IM_EIO, errno, "cannot wait for the control socket");
		if (fds[1].revents)
			return im_fail(err, IM_EINTERRUPTED, "the follower stops");
		int rc = fds[0].revents ? receive_some(w, err) : 0;
		if (rc)
			return rc;
	}
}

void wire_close(struct wire *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	im_buf_free(&w->in);
}
