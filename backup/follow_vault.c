/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vault's keyring must be at hand even while the vault is not, or a node that restarts during an
 * outage would lose what happens meanwhile. So vault.json and the keyring's objects are copied beside
 * the spool: they hold nothing secret that the node key does not open, and the chain from the
 * authority pinned in the key file is checked as always.
 */
#include "backup/follow_internal.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <stdio.h>
#include <string.h>

#define CACHE "_keyring" /* no store can have that name */
#define MAX_OBJECT_BYTES (16u << 20)


int follow_load_key(const struct service *s, struct key_file **ret, struct im_error *err)
{
	const struct follow_service_request *q = s->request;
	const char *path = q->key_path ? q->key_path : s->config->vault_key;
	if (!path)
		return im_fail(err, IM_EUSAGE, "no node key is named: set key = in [vault], or give --key FILE");
	struct key_file *key = NULL;
	int rc = key_file_load(path, q->ask, q->ask_context, &key, err);
	if (rc)
		return rc == IM_ENOTFOUND ? (err->code = IM_EUSAGE) : rc;
	if (key->role != KEY_NODE)
		rc = im_fail(err, IM_EKEY, "%s is a %s key; the log is signed with a node key (a restore key belongs offline, not on the "
		    "node)", path, key_role_name(key->role));
	else if (key->node && strcmp(key->node, s->node) != 0)
		rc = im_fail(err, IM_EKEY, "%s is the key of node %s and may not write for node %s", path, key->node, s->node);
	if (rc) {
		key_file_free(key);
		return rc;
	}
	*ret = key;
	return 0;
}

static int open_cache(const struct service *s, struct storage **ret, struct im_error *err)
{
	auto_free char *path = im_path_join(s->folder, CACHE);
	return path ? storage_dir_open(path, true, ret, err) : im_fail(err, IM_ENOMEM, "out of memory");
}

struct copying {
	struct storage *from, *to;
	struct im_error *err;
};

static int copy_one(struct copying *c, const char *name)
{
	auto_buf struct im_buf content = { 0 };
	uint64_t size;
	if (storage_size(c->to, name, &size, NULL) == 0)
		return 0;
	int rc = storage_read_object(c->from, name, MAX_OBJECT_BYTES, &content, c->err);
	return rc ? rc : storage_put_object(c->to, name, content.data, content.len, c->err);
}

static int copy_listed(void *context, const char *name, uint64_t size_bytes)
{
	(void)size_bytes;
	return copy_one(context, name);
}

static int fill_cache(struct storage *from, struct storage *cache, struct im_error *err)
{
	struct copying c = { from, cache, err };
	int rc = copy_one(&c, "vault.json");
	return rc ? rc : storage_list(from, "keys/", copy_listed, &c, err);
}

static int count_one(void *context, const char *name, uint64_t size_bytes)
{
	(void)name;
	(void)size_bytes;
	++*(uint32_t *)context;
	return 0;
}

/* Generations are numbered from 1: a vault with fewer than we have seen was rolled back. */
static uint32_t known_generation(struct storage *cache)
{
	uint32_t count = 0;
	return storage_list(cache, "keys/", count_one, &count, NULL) ? 0 : count;
}

/* Takes the key over on success. */
static int open_real(struct service *s, struct key_file *key, struct storage *cache, struct im_error *err)
{
	struct storage *storage = NULL;
	struct im_error why = { 0 };
	int rc = storage_open(s->url, false, &storage, err);
	if (rc == 0)
		rc = vault_open_storage(storage, key, known_generation(cache), &s->vault, err);
	if (rc)
		return rc;
	if (fill_cache(s->vault->storage, cache, &why))
		follow_warn(s, NULL, "no copy of the keyring could be made, so a restart while the vault is away would have to wait for it: %s",
		    why.text);
	return 0;
}

int follow_open_vault(struct service *s, struct key_file *key, struct im_error *err)
{
	struct storage *cache = NULL;
	struct im_error why = { 0 };
	int rc = open_cache(s, &cache, err);
	if (rc)
		return rc;
	rc = open_real(s, key, cache, &why);
	if (rc == IM_EUNREACHABLE && known_generation(cache)) {
		s->vault_cached = true;
		rc = vault_open_storage(cache, key, 0, &s->vault, err);
		if (rc == 0)
			follow_warn(s, NULL, "%s; what is captured waits in the spool", why.text);
		return rc;
	}
	storage_close(cache);
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

int follow_open_storage(const struct service *s, struct storage **ret, struct im_error *err)
{
	struct vault *seen = NULL;
	struct storage *storage = NULL;
	int rc = storage_open(s->url, false, &storage, err);
	if (rc == 0)
		rc = vault_open_storage(storage, NULL, 0, &seen, err);
	if (rc)
		return rc;
	bool same = memcmp(seen->id, s->vault->id, sizeof seen->id) == 0 && memcmp(seen->authority, s->vault->authority, sizeof seen->authority) == 0;
	if (same)
		*ret = TAKE_PTR(seen->storage);
	vault_close(seen);
	return same ? 0 : im_fail(err, IM_EUNREACHABLE, "%s is another vault now", s->url);
}
