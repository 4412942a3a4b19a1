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

static void send_to(const char *name, const char *text, size_t len)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t name_len = strlen(name);
	if ((*name != '/' && *name != '@') || name_len >= sizeof address.sun_path)
		return;
	memcpy(address.sun_path, name, name_len);
	if (*name == '@')
		address.sun_path[0] = '\0';
	auto_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		sendto(fd, text, len, MSG_NOSIGNAL, (struct sockaddr *)&address,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name_len));
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
		send_to(name, text, (size_t)len < sizeof text ? (size_t)len : sizeof text - 1);
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
