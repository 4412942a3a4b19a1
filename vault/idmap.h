/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A map from entry ids to references, for entries whose pack is not durable yet: the packer asks
 * it so that one run never stores the same content twice. Not thread-safe.
 */
#ifndef IM_VAULT_IDMAP_H
#define IM_VAULT_IDMAP_H

#include "vault/pack.h"

struct idmap_slot;
struct idmap {
	struct idmap_slot *slots;
	size_t cap, count;
};

const struct im_ref *idmap_find(const struct idmap *m, const uint8_t id[32]); /* NULL if absent */
int idmap_add(struct idmap *m, const uint8_t id[32], struct im_ref ref, struct im_error *err);
void idmap_remove(struct idmap *m, const uint8_t id[32]);
void idmap_clear(struct idmap *m);

#endif
