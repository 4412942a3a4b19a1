/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interruption flag. A second signal gives the default action, so an operator is never held
 * hostage by a slow disk; what that leaves behind is what a crash leaves behind.
 */
#include "base/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

static atomic_int pending, hangup, wake_fd = -1;

static void wake(void)
{
	int saved = errno, fd = atomic_load(&wake_fd);
	ssize_t n = fd >= 0 ? write(fd, "", 1) : 0;
	(void)n; /* full: it is awake already */
	errno = saved;
}

static void on_signal(int number)
{
	atomic_store(&pending, number);
	signal(number, SIG_DFL);
	wake();
}

static void on_hangup(int number)
{
	(void)number;
	atomic_store(&hangup, 1);
	wake();
}

void im_interrupt_install(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a size limit is then an error of write, as a full disk is */
}

void im_interrupt_catch_hangup(void)
{
	struct sigaction action = { .sa_handler = on_hangup, .sa_flags = SA_RESTART };
	sigemptyset(&action.sa_mask);
	sigaction(SIGHUP, &action, NULL);
}

bool im_interrupt_take_hangup(void) { return atomic_exchange(&hangup, 0); }

void im_interrupt_wake(int fd) { atomic_store(&wake_fd, fd); }

int im_interrupt_signal(void) { return atomic_load(&pending); }

void im_interrupt_raise(int signal_number)
{
	atomic_store(&pending, signal_number);
	wake();
}

int im_interrupt_check(struct im_error *err)
{
	int number = im_interrupt_signal();
	if (!number)
		return 0;
	return im_fail(err, IM_EINTERRUPTED, "interrupted by signal %d; run the command again to continue",
	    number);
}
