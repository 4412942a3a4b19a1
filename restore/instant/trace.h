/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which blocks a service touched until it was ready: to the vault, and back from there as the list of
 * what the background brings first.
 */
#ifndef IM_RESTORE_INSTANT_TRACE_H
#define IM_RESTORE_INSTANT_TRACE_H

#include "restore/instant/content.h"
#include "restore/instant/table.h"
#include "vault/vault.h"

/* Nothing if nothing was touched. */
int trace_keep(const struct vault *v, const char *node, const struct content *c, const struct table *t, struct im_error *err);
/* *ret: malloc'ed. None: count 0. Everything in it is within the table's files. */
int trace_recall(const struct vault *v, const char *node, const struct content *c, const struct table *t, struct table_touch **ret,
    size_t *ret_count, struct im_error *err);

#endif
