/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGINT and SIGTERM set a flag; long loops ask for it and return IM_EINTERRUPTED, so that every
 * cleanup runs and nothing half-written keeps a final name. A service may also catch SIGHUP, and
 * have a pipe written to whenever one of them comes.
 */
#ifndef IM_BASE_INTERRUPT_H
#define IM_BASE_INTERRUPT_H

#include "base/error.h"

void im_interrupt_install(void); /* once, in main, before threads */
int im_interrupt_signal(void);   /* 0 or the signal's number */
void im_interrupt_raise(int signal_number); /* for tests; 0 takes it back */
/* 0, or IM_EINTERRUPTED with err filled. */
int im_interrupt_check(struct im_error *err);

void im_interrupt_catch_hangup(void); /* from now on SIGHUP sets a flag instead of ending the process */
bool im_interrupt_take_hangup(void);  /* was there one since the last call? */
/* Each signal writes a byte to fd, which should not block; -1: no more. */
void im_interrupt_wake(int fd);

#endif
