/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interruption flag. A second signal gives the default action, so an operator is never held
 * hostage by a slow disk; what that leaves behind is what a crash leaves behind.
 */
#include "base/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static atomic_int pending;

static void on_signal(int number)
{
	atomic_store(&pending, number);
	signal(number, SIG_DFL);
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

int im_interrupt_signal(void) { return atomic_load(&pending); }

void im_interrupt_raise(int signal_number) { atomic_store(&pending, signal_number); }

int im_interrupt_check(struct im_error *err)
{
	int number = im_interrupt_signal();
	if (!number)
		return 0;
	return im_fail(err, IM_EINTERRUPTED, "interrupted by signal %d; run the command again to continue",
	    number);
}
