/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to an opened keyring. It is immutable, so any thread may ask.
 */
#include "vault/keyring_internal.h"

#include <inttypes.h>
#include "base/cleanup.h"
#include "base/file.h"

#include <string.h>

uint32_t keyring_generation(const struct keyring *k) { return k->newest.number; }
const uint8_t *keyring_vault_id(const struct keyring *k) { return k->vault_id; }
const struct key_file *keyring_own(const struct keyring *k) { return k->own; }
size_t keyring_count(const struct keyring *k) { return k->newest.count; }

const struct key_entry *keyring_at(const struct keyring *k, size_t i)
{
	return i < k->newest.count ? &k->newest.entries[i] : NULL;
}

const struct key_entry *keyring_find(const struct keyring *k, const uint8_t id[8])
{
	return keyring_generation_find(&k->newest, id);
}

size_t keyring_recipients(const struct keyring *k, const struct key_entry **ret, size_t max)
{
	size_t count = 0;
	for (size_t i = 0; i < k->newest.count && count < max; i++)
		if (k->newest.entries[i].active && k->newest.entries[i].role == KEY_RESTORE)
			ret[count++] = &k->newest.entries[i];
	return count;
}

int keyring_meta_key(const struct keyring *k, uint32_t generation, const char *label, uint8_t ret[32], struct im_error *err)
{
	if (!k->meta_keys)
		return im_fail(err, IM_EKEY, "a key file is needed for this");
	if (generation < 1 || generation > k->newest.number)
		return im_fail(err, IM_ECORRUPT, "keyring generation %" PRIu32 " is needed, but the newest of this vault is %" PRIu32
		    " (damage, or newer generations were removed)", generation, k->newest.number);
	crypto_derive(ret, k->meta_keys + (size_t)(generation - 1) * 32, label);
	return 0;
}

int keyring_id_key(const struct keyring *k, const char *label, uint8_t ret[32], struct im_error *err)
{
	if (!k->own)
		return im_fail(err, IM_EKEY, "a key file is needed for this");
	if (!k->id_key)
		return im_fail(err, IM_EKEY, "the key \"%s\" has the role %s, which may not do this", k->own->name, key_role_name(k->own->role));
	crypto_derive(ret, k->id_key, label);
	return 0;
}

int keyring_unseal(const struct keyring *k, const uint8_t *recipients, size_t count, void *ret, size_t len, struct im_error *err)
{
	size_t row = 8 + CRYPTO_SEAL_BYTES + len;
	bool is_ours = false;
	for (size_t i = 0; i < count; i++)
		for (size_t b = 0; b < k->box_count; b++) {
			const uint8_t *at = recipients + i * row;
			if (memcmp(at, k->boxes[b].id, 8))
				continue;
			if (crypto_box_open(ret, k->boxes[b].secret, at + 8, row - 8))
				return 0;
			is_ours = true;
		}
	if (is_ours)
		return im_fail(err, IM_ECORRUPT, "what is sealed to the key \"%s\" cannot be opened (damage)", k->own->name);
	if (!k->own)
		return im_fail(err, IM_EKEY, "a restore key is needed to read content");
	if (k->own->role != KEY_RESTORE)
		return im_fail(err, IM_EKEY, "the key \"%s\" is a %s key: only restore keys read content", k->own->name, key_role_name(k->own->role));
	return im_fail(err, IM_EKEY, "this content was not sealed to the restore key \"%s\" nor to any it inherits", k->own->name);
}

/* Is a the key that b led to by replacements? Bounded, since a hostile chain might turn in circles. */
static bool descends(const struct keyring *k, const uint8_t a[8], const uint8_t b[8])
{
	const struct key_entry *e = keyring_find(k, a);
	for (size_t steps = 0; e && steps <= k->newest.count; steps++) {
		if (!memcmp(e->id, b, 8))
			return true;
		e = e->has_replaces ? keyring_find(k, e->replaces) : NULL;
	}
	return false;
}

bool keyring_same_lineage(const struct keyring *k, const uint8_t a[8], const uint8_t b[8])
{
	return !memcmp(a, b, 8) || descends(k, a, b) || descends(k, b, a);
}

/* A key bound to another node never writes this one; an unbound key leaves alone what is bound to others. */
static bool may_write_node(const struct keyring *k, const struct key_entry *e, const char *node)
{
	if (e->node)
		return !strcmp(e->node, node);
	for (size_t i = 0; i < k->newest.count; i++) {
		const struct key_entry *other = &k->newest.entries[i];
		if (other->node && !strcmp(other->node, node) && !keyring_same_lineage(k, e->id, other->id))
			return false;
	}
	return true;
}

/* name: what a revoked key's `last` calls it, up to `seq`. */
static bool may_sign(const struct keyring *k, const uint8_t key_id[8], const char *node, const char *name, uint64_t seq)
{
	const struct key_entry *e = keyring_find(k, key_id);
	if (!e || e->role != KEY_NODE)
		return false;
	if (!e->active) {
		json_t *last = json_object_get(json_object_get(keyring_generation_row(&k->newest, key_id), "last"), name);
		if (!last || seq > (uint64_t)json_integer_value(last))
			return false;
	}
	return may_write_node(k, e, node);
}

bool keyring_may_sign(const struct keyring *k, const uint8_t key_id[8], const char *node, uint64_t seq)
{
	return may_sign(k, key_id, node, node, seq);
}

bool keyring_may_sign_log(const struct keyring *k, const uint8_t key_id[8], const char *node, const char *store, const char *epoch, uint32_t last)
{
	auto_free char *name = im_format("%s/%s/%s", node, store, epoch);
	return name && may_sign(k, key_id, node, name, last);
}
