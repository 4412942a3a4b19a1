/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges that come from no entry: their file's transform makes them (a database's pages that only
 * its log holds). They are made by the threads that decode, stretch by stretch with what is fetched,
 * so that the writer's blocks fill up; what is left when the last entry is in is made at the end.
 */
#include "base/interrupt.h"
#include "base/workers.h"
#include "restore/engine_internal.h"

#include <stdlib.h>

static uint64_t stretch_of(const struct engine *e, const struct engine_made *m)
{
	return engine_stretch(e, m->file, m->offset);
}

static int compare_made(const void *a, const void *b, void *engine)
{
	const struct engine_made *x = a, *y = b;
	uint64_t i = stretch_of(engine, x), j = stretch_of(engine, y);
	if (i != j)
		return i < j ? -1 : 1;
	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void engine_made_begin(struct engine *e)
{
	if (e->made_count)
		qsort_r(e->made, e->made_count, sizeof *e->made, compare_made, e);
	atomic_store(&e->made_next, 0);
}

int engine_make_due(struct engine *e, unsigned worker, uint64_t stretch, struct im_error *err)
{
	for (;;) {
		size_t i = atomic_load(&e->made_next);
		if (i >= e->made_count || stretch_of(e, &e->made[i]) > stretch)
			return 0;
		if (!atomic_compare_exchange_weak(&e->made_next, &i, i + 1))
			continue;
		const struct engine_made *m = &e->made[i];
		struct engine_piece p = { .offset = m->offset, .file = m->file, .len = m->len,
			.id = IDLIST_NONE };
		int rc = im_interrupt_check(err);
		if (rc == 0)
			rc = engine_put(e, worker, &p, NULL, err);
		if (rc)
			return rc;
	}
}

static int make_rest(void *job, unsigned worker, bool cancelled, struct im_error *err)
{
	return cancelled ? 0 : engine_make_due(job, worker, UINT64_MAX, err);
}

int engine_made_rest(struct engine *e, struct im_error *err)
{
	struct im_workers *pool;
	if (atomic_load(&e->made_next) >= e->made_count)
		return 0;
	int rc = im_workers_new(0, 0, make_rest, &pool, err);
	if (rc)
		return rc;
	for (unsigned i = 0; i < im_workers_count(pool); i++)
		im_workers_submit(pool, e); /* its failure is seen below */
	rc = im_workers_wait(pool, err);
	im_workers_free(pool);
	return rc;
}
