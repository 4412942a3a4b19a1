/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coarse segments: a minute's fine segments merged into one, an hour's minutes into another, so that
 * a restore reads few objects. Inputs are kept in a bounded, encrypted scratch file, so nothing
 * is ever read back from the vault; what does not fit is left out: coarse segments are a convenience.
 */
#ifndef IM_BACKUP_COARSE_H
#define IM_BACKUP_COARSE_H

#include "backup/spool.h"
#include "stores/store.h"

struct coarse; /* NULL everywhere: no coarse segments */
struct followed;

/* *ret is NULL if the store kind has no coarse segments. f: see follow_internal.h; must outlive it. */
int coarse_start(struct followed *f, struct coarse **ret, struct im_error *err);
/* Nothing more will be fed: its thread ends after what it is doing. */
void coarse_finish(struct coarse *c);
void coarse_stop(struct coarse *c);

/* A fine segment is in the spool: head is after it. On the store's thread; copies what it needs. */
void coarse_feed(struct coarse *c, const struct spool_head *head, const struct follow_batch *batch);
/* A snapshot stands at the newest point: minutes and hours begin there anew. */
void coarse_anchor(struct coarse *c);
/* A new epoch: forget everything. */
void coarse_restart(struct coarse *c);

#endif
