/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands from the configuration: /bin/sh -c with a time-out, in a process group of its own, which is ended
 * with it. What it writes to stdout goes nowhere, since imvault's own stdout may be JSON.
 */
#ifndef IM_BASE_SHELL_H
#define IM_BASE_SHELL_H

#include "base/error.h"

#include <stdint.h>

struct im_shell {
	const char *command;
	char *const *variables;  /* "NAME=VALUE", NULL-terminated, in front of the environment's own; NULL: none */
	int input_fd;            /* -1: nothing */
	int64_t timeout_ms;
	const char *timeout_key; /* what sets the time-out, for the message; NULL: nothing does */
	bool to_the_end;         /* a signal to us does not end it */
};

/* 0 if it exited with 0. IM_EFAIL: what became of it, with the last line that it wrote to stderr, to be read after the
 * command's name ("ended with status 3: no such unit"). IM_EINTERRUPTED. */
int im_shell_run(const struct im_shell *s, struct im_error *err);

#endif
