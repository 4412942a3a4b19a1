/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault layer: counts the calls of put_open, put_write, put_commit, read, size and list, and at
 * the planned one misbehaves as disks, networks and power do. A fault strikes only where it can in
 * life: a full disk does not fail a read, a flipped bit needs bytes. FAULT_DIE ends the process.
 */
#include "vault/storage/storage.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEATH_STATUS 137 /* as a shell reports kill -9 */

struct fault_storage {
	struct storage base;
	struct storage_ops ops; /* optional ones only where inner has them */
	struct storage *inner;
	struct storage_fault_plan *plan;
};

struct fault_put {
	struct storage_put base, *inner;
};

static struct fault_storage *fault_of(struct storage *s)
{
	return (struct fault_storage *)s;
}

static struct fault_storage *fault_of_put(struct storage_put *p)
{
	return (struct fault_storage *)p->storage;
}

/* Counts one call; the fault to act out now. */
static enum storage_fault next_fault(struct storage *s)
{
	struct storage_fault_plan *plan = fault_of(s)->plan;
	uint64_t call = __atomic_add_fetch(&plan->calls, 1, __ATOMIC_RELAXED);
	uint64_t at_call = __atomic_load_n(&plan->at_call, __ATOMIC_RELAXED); /* a test may change its plan */
	bool now = at_call && (plan->sticky ? call >= at_call : call == at_call);
	return now ? plan->what : FAULT_NONE;
}

/* The faults that every call may have. 0: go on. */
static int strike(enum storage_fault fault, bool is_write, struct im_error *err)
{
	switch (fault) {
	case FAULT_EIO:
		return im_fail(err, IM_EIO, "planned fault: input/output error");
	case FAULT_UNREACHABLE:
		return im_fail(err, IM_EUNREACHABLE, "planned fault: the vault cannot be reached");
	case FAULT_ENOSPC:
	case FAULT_SHORT_WRITE:
		return is_write ? im_fail(err, IM_ENOSPACE, "planned fault: no space left") : 0;
	case FAULT_DIE:
		_exit(DEATH_STATUS);
	default:
		return 0;
	}
}

static int fault_put_open(struct storage *s, struct storage_put **ret, struct im_error *err)
{
	int rc = strike(next_fault(s), true, err);
	if (rc)
		return rc;
	struct fault_put *p = calloc(1, sizeof *p);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory");
	rc = fault_of(s)->inner->ops->put_open(fault_of(s)->inner, &p->inner, err);
	if (rc) {
		free(p);
		return rc;
	}
	p->base.storage = s;
	*ret = &p->base;
	return 0;
}

static int fault_put_write(struct storage_put *put, const void *data, size_t len, struct im_error *err)
{
	struct fault_put *p = (struct fault_put *)put;
	const struct storage_ops *ops = fault_of_put(put)->inner->ops;
	enum storage_fault fault = next_fault(put->storage);
	if (fault == FAULT_SHORT_WRITE || fault == FAULT_DIE) {
		int rc = ops->put_write(p->inner, data, len / 2, err);
		if (rc)
			return rc;
	}
	int rc = strike(fault, true, err);
	return rc ? rc : ops->put_write(p->inner, data, len, err);
}

static int fault_put_commit(struct storage_put *put, const char *name, struct im_error *err)
{
	struct fault_put *p = (struct fault_put *)put;
	const struct storage_ops *ops = fault_of_put(put)->inner->ops;
	int rc = strike(next_fault(put->storage), true, err);
	if (rc)
		ops->put_abandon(p->inner);
	else
		rc = ops->put_commit(p->inner, name, err);
	free(p);
	return rc;
}

static void fault_put_abandon(struct storage_put *put)
{
	struct fault_put *p = (struct fault_put *)put;
	fault_of_put(put)->inner->ops->put_abandon(p->inner);
	free(p);
}

static int fault_read(struct storage *s, const char *name, uint64_t offset, void *ret, size_t len, struct im_error *err)
{
	struct storage *inner = fault_of(s)->inner;
	enum storage_fault fault = next_fault(s);
	int rc = strike(fault, false, err);
	if (rc == 0)
		rc = inner->ops->read(inner, name, offset, ret, len, err);
	if (rc == 0 && fault == FAULT_FLIP_BIT && len)
		((uint8_t *)ret)[len / 2] ^= (uint8_t)(1u << (len % 8));
	return rc;
}

static int fault_size(struct storage *s, const char *name, uint64_t *ret_bytes, struct im_error *err)
{
	struct storage *inner = fault_of(s)->inner;
	int rc = strike(next_fault(s), false, err);
	return rc ? rc : inner->ops->size(inner, name, ret_bytes, err);
}

static int fault_list(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err)
{
	struct storage *inner = fault_of(s)->inner;
	int rc = strike(next_fault(s), false, err);
	return rc ? rc : inner->ops->list(inner, prefix, fn, context, err);
}

static int fault_folders(struct storage *s, const char *prefix, storage_list_fn *fn, void *context, struct im_error *err)
{
	struct storage *inner = fault_of(s)->inner;
	int rc = strike(next_fault(s), false, err);
	return rc ? rc : storage_list_folders(inner, prefix, fn, context, err);
}

static int fault_remove(struct storage *s, const char *name, struct im_error *err)
{
	return fault_of(s)->inner->ops->remove(fault_of(s)->inner, name, err);
}

static int fault_sweep(struct storage *s, struct im_error *err)
{
	return fault_of(s)->inner->ops->sweep(fault_of(s)->inner, err);
}

static int fault_space(struct storage *s, uint64_t *ret_free_bytes, struct im_error *err)
{
	return fault_of(s)->inner->ops->space(fault_of(s)->inner, ret_free_bytes, err);
}

static void fault_close(struct storage *s)
{
	storage_close(fault_of(s)->inner);
	free(s->url);
	free(s);
}

int storage_fault_wrap(struct storage *inner, struct storage_fault_plan *plan, struct storage **ret, struct im_error *err)
{
	struct fault_storage *f = calloc(1, sizeof *f);
	char *url = strdup(inner->url);
	if (!f || !url) {
		free(f);
		free(url);
		storage_close(inner);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	f->ops = (struct storage_ops){
		.put_open = fault_put_open,
		.put_write = fault_put_write,
		.put_commit = fault_put_commit,
		.put_abandon = fault_put_abandon,
		.read = fault_read,
		.size = fault_size,
		.list = fault_list,
		.folders = fault_folders,
		.close = fault_close,
		.remove = inner->ops->remove ? fault_remove : NULL,
		.sweep = inner->ops->sweep ? fault_sweep : NULL,
		.space = inner->ops->space ? fault_space : NULL,
	};
	f->base = (struct storage){ .ops = &f->ops, .url = url };
	f->inner = inner;
	f->plan = plan;
	*ret = (struct storage *)f;
	return 0;
}
