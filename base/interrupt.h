/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGINT and SIGTERM set a flag; long loops ask for it and return IM_EINTERRUPTED, so that every
 * cleanup runs and nothing half-written keeps a final name.
 */
#ifndef IM_BASE_INTERRUPT_H
#define IM_BASE_INTERRUPT_H

#include "base/error.h"

void im_interrupt_install(void); /* once, in main, before threads */
int im_interrupt_signal(void);   /* 0 or the signal's number */
void im_interrupt_raise(int signal_number); /* for tests */
/* 0, or IM_EINTERRUPTED with err filled. */
int im_interrupt_check(struct im_error *err);

#endif
