/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index fragments (FORMAT §6): which ids lie where. Written once per run; read only to rebuild the
 * local state after it was lost. A restore never needs one, so a bad fragment harms nobody's data.
 */
#ifndef IM_VAULT_INDEX_H
#define IM_VAULT_INDEX_H

#include "vault/pack.h"
#include "vault/state.h"

/* entries[i].ref.pack is a row of packs. Sorts entries. Writes index/NODE/NAME durably. */
int index_write(struct storage *s, const struct keyring *k, const char *node, const struct pack_info *packs, size_t pack_count, struct pack_entry *entries, size_t entry_count, struct im_error *err);

typedef int index_entry_fn(void *context, const struct pack_info *pack, const struct pack_entry *entry, struct im_error *err);
/* Decodes and checks one fragment (signature, bounds). signer gets the signing key id. */
int index_decode(const struct keyring *k, const void *data, size_t len, uint8_t ret_signer[8], index_entry_fn *fn, void *context, struct im_error *err);
/* Takes every fragment of this node not yet known, signed by our own lineage, into the state, leaving out entries of packs that are no longer there. A bad fragment
 * is skipped and counted. */
int index_load(struct storage *s, const struct keyring *k, const char *node, struct state *st, size_t *ret_bad, struct im_error *err);

#endif
