/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What damaged entries mean to people: which pages of which database, numbered from 1 as SQLite
 * numbers them, neighbours joined.
 */
#include "stores/sqlite/sqlite_rebuild.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "stores/sqlite/dbmanifest.h"

#include <stdlib.h>

struct report {
	const struct dbmanifest *m;
	void (*fn)(void *context, const char *text);
	void *context;
	uint64_t first, end; /* the range being joined; empty if equal */
};

static void flush(struct report *p)
{
	if (p->first < p->end) {
		auto_free char *text = im_format("pages %llu-%llu of %s", (unsigned long long)p->first + 1, (unsigned long long)p->end, p->m->path);
		p->fn(p->context, text ? text : p->m->path);
	}
	p->first = p->end = 0;
}

static void add(struct report *p, uint64_t first, uint64_t count)
{
	if (p->first == p->end || first != p->end) {
		flush(p);
		p->first = first;
	}
	p->end = first + count;
}

static int explain_leaf(struct report *p, const struct rebuild *r, uint32_t leaf, bool (*is_bad)(void *context, const struct im_ref *ref), void *bad_context, struct im_error *err)
{
	struct leafmap_list runs = { 0 };
	struct im_error why = { 0 };
	uint64_t first = (uint64_t)leaf * LEAFMAP_PAGES;
	bool lost = is_bad(bad_context, &p->m->leaves[leaf]);
	int rc = lost ? 0 : dbmanifest_leaf(p->m, r, leaf, &runs, &why);
	if (rc && rc != IM_ECORRUPT && rc != IM_ENOTFOUND)
		return im_fail(err, rc, "%s", why.text);
	if (lost || rc)
		add(p, first, dbmanifest_leaf_pages(p->m, leaf));
	for (size_t i = 0; i < runs.count; i++)
		if (is_bad(bad_context, &runs.runs[i].ref))
			add(p, first + runs.runs[i].first, runs.runs[i].count);
	leafmap_clear(&runs);
	return 0;
}

int sqlite_explain(struct rebuild *r, bool (*is_bad)(void *context, const struct im_ref *ref), void *bad_context, void (*fn)(void *context, const char *text), void *context, struct im_error *err)
{
	struct dbmanifest m;
	int rc = dbmanifest_decode(r->manifest, &m, err);
	if (rc)
		return rc;
	struct report report = { .m = &m, .fn = fn, .context = context };
	bool wanted = dbmanifest_wanted(&m, r->path_filter);
	for (uint32_t leaf = 0; wanted && rc == 0 && leaf < m.leaf_count; leaf++)
		rc = explain_leaf(&report, r, leaf, is_bad, bad_context, err);
	flush(&report);
	for (size_t i = 0; wanted && rc == 0 && i < m.journal_count; i++)
		if (is_bad(bad_context, &m.journal[i])) {
			auto_free char *text = im_format("the rollback journal of %s", m.path);
			fn(context, text ? text : m.path);
			break;
		}
	dbmanifest_clear(&m);
	return rc;
}
