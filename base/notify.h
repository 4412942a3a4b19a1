/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling the service manager how it goes: the sd_notify protocol (one datagram of VARIABLE=VALUE
 * lines to $NOTIFY_SOCKET), so that nothing of systemd need be linked. Without a manager: nothing.
 */
#ifndef IM_BASE_NOTIFY_H
#define IM_BASE_NOTIFY_H

#include <stdint.h>

/* printf; lines separated by \n: "READY=1\nSTATUS=…". A manager that does not listen is not waited for. */
void im_notify(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The manager's "RELOADING=1" needs the monotonic clock beside it. */
/* The same words together with a descriptor, which the manager gets a copy of. */
void im_notify_fd(const char *text, int fd);
void im_notify_reloading(void);
/* How often the manager wants to hear WATCHDOG=1 ($WATCHDOG_USEC, if it is meant for this process); 0: not at all. */
int64_t im_notify_watchdog_ms(void);

#endif
