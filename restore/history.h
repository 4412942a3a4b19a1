/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshots of a node as a restore looks at them: newest first, each read once and only when it
 * is needed; one that cannot be read is stepped over and remembered.
 */
#ifndef IM_RESTORE_HISTORY_H
#define IM_RESTORE_HISTORY_H

#include "vault/snapshot.h"
#include "vault/vault.h"

struct history {
	struct vault *vault;
	struct snapshot_list names; /* oldest first */
	struct snapshot **read;     /* owned; NULL: not read, or bad */
	char **bad;                 /* why one cannot be read; NULL: it can, or nobody tried */
	bool *told;
};

/* node NULL: the vault's only one. Errors as snapshot_list_of. */
int history_open(struct history *h, struct vault *vault, const char *node, struct im_error *err);
void history_clear(struct history *h);
/* Snapshot i of names. *ret NULL: it cannot be read, h->bad[i] says why. */
int history_get(struct history *h, size_t i, struct snapshot **ret, struct im_error *err);
/* The store's image in s is there and whole; *ret_instant_ms: when it was true. */
bool history_has_image(const struct snapshot *s, const char *store, int64_t *ret_instant_ms);

#endif
