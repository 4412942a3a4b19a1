/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What damaged entries mean for a tree: the paths of the files whose chunks are bad.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "stores/files/files_store.h"
#include "stores/files/tree.h"

struct explainer {
	struct files_tree tree;
	bool (*is_bad)(void *context, const struct im_ref *ref);
	void *bad_context;
	void (*fn)(void *context, const char *text);
	void *fn_context;
};

static bool is_bad_segment(void *context, const struct im_ref *ref)
{
	struct explainer *x = context;
	return x->is_bad(x->bad_context, ref);
}

static void say(void *context, const char *text)
{
	struct explainer *x = context;
	x->fn(x->fn_context, text);
}

static int on_member(
    void *context, const struct files_chunk *chunks, const struct files_member *m, struct im_error *err)
{
	struct explainer *x = context;
	for (size_t i = 0; i < m->piece_count; i++) {
		if (!x->is_bad(x->bad_context, &chunks[m->pieces[i].chunk].ref))
			continue;
		auto_free char *path = files_tree_path(&x->tree, m->path);
		auto_free char *text = path ? im_format("/%s", path) : NULL;
		if (!text)
			return im_fail(err, IM_ENOMEM, "out of memory");
		x->fn(x->fn_context, text);
		break;
	}
	return 0;
}

int files_explain(struct rebuild *r, bool (*is_bad)(void *context, const struct im_ref *ref), void *bad_context,
    void (*fn)(void *context, const char *text), void *context, struct im_error *err)
{
	struct explainer x = { .is_bad = is_bad, .bad_context = bad_context, .fn = fn, .fn_context = context };
	int rc = files_tree_init(&x.tree, r, err);
	if (!rc)
		rc = files_tree_each_but(&x.tree, is_bad_segment, on_member, say, &x, err);
	files_tree_clear(&x.tree);
	return rc;
}
