/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passphrases: from the terminal without echo, or from a file's first line; never from argv or the
 * environment. Results are malloc'ed; passphrase_free wipes them.
 */
#ifndef IM_CLI_PASSPHRASE_H
#define IM_CLI_PASSPHRASE_H

#include "base/error.h"

#include <stdbool.h>

/* Is there a person to ask? */
bool passphrase_terminal(void);
/* Asks once, for opening path. NULL without a terminal. */
char *passphrase_ask(const char *path);
/* Asks twice for a new one; ret stays NULL for an empty answer (unprotected). */
int passphrase_ask_new(const char *what, char **ret, struct im_error *err);
/* The file's first line. NULL and err filled (err may be NULL) if it cannot be had or is empty. */
char *passphrase_from_file(const char *path, struct im_error *err);
void passphrase_free(char *p);

#endif
