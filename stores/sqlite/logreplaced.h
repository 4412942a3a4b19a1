/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of the image a restore need not read: the log replaces or drops them.
 */
#ifndef IM_STORES_SQLITE_LOGREPLACED_H
#define IM_STORES_SQLITE_LOGREPLACED_H

#include "stores/sqlite/loglayer.h"

/* Makes and fills l->replaced, on all CPUs. */
int logreplaced_mark(struct loglayers *l, struct im_error *err);

#endif
