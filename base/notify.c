/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sd_notify without libsystemd. A socket name that begins with '@' is in the abstract name space.
 */
#include "base/notify.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* fd: -1, or to be sent along. */
static void send_to(const char *name, const char *text, size_t len, int sent_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t name_len = strlen(name);
	if ((*name != '/' && *name != '@') || name_len >= sizeof address.sun_path)
		return;
	memcpy(address.sun_path, name, name_len);
	if (*name == '@')
		address.sun_path[0] = '\0';
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) } };
	memcpy(CMSG_DATA(&control.header), &sent_fd, sizeof sent_fd);
	struct iovec body = { (void *)text, len };
	struct msghdr m = { .msg_name = &address, .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name_len), .msg_iov = &body, .msg_iovlen = 1 };
	if (sent_fd >= 0) {
		m.msg_control = control.bytes;
		m.msg_controllen = sizeof control.bytes;
	}
	auto_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		sendmsg(fd, &m, MSG_NOSIGNAL);
}

void im_notify_fd(const char *text, int fd)
{
	const char *name = getenv("NOTIFY_SOCKET");
	if (name)
		send_to(name, text, strlen(text), fd);
}

void im_notify(const char *format, ...)
{
	const char *name = getenv("NOTIFY_SOCKET");
	char text[2048];
	if (!name)
		return;
	va_list ap;
	va_start(ap, format);
	int len = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (len > 0)
		send_to(name, text, (size_t)len < sizeof text ? (size_t)len : sizeof text - 1, -1);
}

void im_notify_reloading(void)
{
	im_notify("RELOADING=1\nMONOTONIC_USEC=%" PRId64, im_monotonic_us());
}

int64_t im_notify_watchdog_ms(void)
{
	const char *interval = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	if (!interval || (pid && strtol(pid, NULL, 10) != (long)getpid()))
		return 0;
	int64_t us = strtoll(interval, NULL, 10);
	return us > 0 ? us / 1000 : 0;
}
