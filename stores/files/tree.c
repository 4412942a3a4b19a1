/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From manifest to members. The manifest comes from a signed record, yet is checked like
 * everything else: a stolen node key can sign anything.
 */
#include "stores/files/tree.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "stores/files/beneath.h"
#include "vault/snapshot.h"

#include <string.h>

static int read_refs(struct files_tree *t, const char *text, struct im_error *err)
{
	auto_buf struct im_buf bytes = { 0 };
	if (!text || !im_unbase64(&bytes, text) || bytes.len % REF_BYTES)
		return im_fail(err, IM_ECORRUPT, "store %s: the manifest's list of segments is malformed", t->name);
	struct im_reader r = im_reader_of(bytes.data, bytes.len);
	t->ref_count = bytes.len / REF_BYTES;
	t->refs = calloc(t->ref_count + 1, sizeof *t->refs);
	if (!t->refs)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < t->ref_count; i++)
		t->refs[i] = ref_read(&r);
	return 0;
}

/* Is inner outer itself or below it? Both absolute, without a trailing slash but for "/". */
static bool is_within(const char *outer, const char *inner)
{
	size_t n = strcmp(outer, "/") ? strlen(outer) : 0;
	return !strncmp(inner, outer, n) && (!inner[n] || inner[n] == '/');
}

static int set_filter(struct files_tree *t, const char *path, struct im_error *err)
{
	auto_free char *filter = t->r->path_filter ? strdup(t->r->path_filter) : NULL;
	if (!filter)
		return t->r->path_filter ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
	for (size_t n = strlen(filter); n > 1 && filter[n - 1] == '/'; n--)
		filter[n - 1] = 0;
	if (is_within(filter, path))
		return 0;
	t->nothing = !is_within(path, filter);
	if (t->nothing)
		return 0;
	const char *rest = filter + (strcmp(path, "/") ? strlen(path) : 0) + 1;
	t->filter = strdup(rest);
	return t->filter ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

int files_tree_init(struct files_tree *t, struct rebuild *r, struct im_error *err)
{
	*t = (struct files_tree){ .r = r };
	const char *path = json_string_value(json_object_get(r->manifest, "path"));
	t->name = json_string_value(json_object_get(r->manifest, "name"));
	if (!t->name)
		t->name = "?";
	if (!path || path[0] != '/' || (path[1] && (!files_path_valid(path + 1) || !strcmp(path + 1, "."))))
		return im_fail(err, IM_ECORRUPT, "store %s: its path is not a plain absolute path", t->name);
	int rc = read_refs(t, json_string_value(json_object_get(r->manifest, "segments")), err);
	if (!rc)
		rc = set_filter(t, path, err);
	if (!rc && !(t->prefix = strdup(path + 1)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc)
		files_tree_clear(t);
	return rc;
}

void files_tree_clear(struct files_tree *t)
{
	free(t->prefix);
	free(t->filter);
	free(t->refs);
	*t = (struct files_tree){ 0 };
}

enum files_selection files_tree_select(const struct files_tree *t, const char *path)
{
	if (t->nothing)
		return FILES_NOT_SELECTED;
	if (!t->filter)
		return FILES_SELECTED;
	if (!strcmp(path, "."))
		return FILES_ON_THE_WAY;
	size_t have = strlen(path), want = strlen(t->filter);
	if (have >= want)
		return !strncmp(path, t->filter, want) && (have == want || path[want] == '/') ? FILES_SELECTED
											      : FILES_NOT_SELECTED;
	return !strncmp(path, t->filter, have) && t->filter[have] == '/' ? FILES_ON_THE_WAY : FILES_NOT_SELECTED;
}

char *files_tree_path(const struct files_tree *t, const char *path)
{
	if (!strcmp(path, "."))
		return strdup(t->prefix);
	return t->prefix[0] ? im_path_join(t->prefix, path) : strdup(path);
}

struct pass {
	struct files_tree *t;
	files_tree_skip_fn *skip;
	files_tree_fn *fn;
	void (*damaged)(void *context, const char *text);
	void *context;
	char *last; /* path of the last member of a readable segment */
	bool fn_failed; /* the failure is fn's, not the segment's */
};

static int read_segment(struct pass *p, const struct im_ref *ref, struct im_error *err)
{
	auto_buf struct im_buf bytes = { 0 };
	const struct files_chunk *chunks;
	struct files_segment *s;
	struct files_member m;
	bool more;
	const struct pack_info *pack = snapshot_pack(p->t->r->snapshot, ref->pack);
	if (!pack)
		return im_fail(err, IM_ECORRUPT, "the snapshot's pack table lacks pack %u", ref->pack);
	int rc = fetch_one(p->t->r->fetcher, pack, ENTRY_TREE, ref, &bytes, err);
	if (!rc)
		rc = files_segment_open(bytes.data, bytes.len, &s, err);
	if (rc)
		return rc;
	files_segment_chunks(s, &chunks);
	while (!(rc = files_segment_next(s, &m, &more, err)) && more) {
		free(p->last);
		p->last = strdup(m.path);
		rc = p->fn(p->context, chunks, &m, err);
		p->fn_failed = rc != 0;
		if (rc)
			break;
	}
	files_segment_close(s);
	return rc;
}

static bool is_damage(int rc) { return rc == IM_ECORRUPT || rc == IM_ENOTFOUND || rc == IM_EIO; }

static void report(struct pass *p, const char *why)
{
	p->t->damaged_count++;
	auto_free char *text = p->last && strcmp(p->last, ".")
	    ? im_format("store %s: the files that come after %s (some hundred) cannot be listed: %s", p->t->name,
		  p->last, why)
	    : im_format("store %s: the first files (some hundred) cannot be listed: %s", p->t->name, why);
	if (p->damaged)
		p->damaged(p->context, text ? text : why);
	else
		p->t->r->damaged(p->t->r, text ? text : why);
}

static int run_pass(struct pass *p, struct im_error *err)
{
	for (size_t i = 0; i < p->t->ref_count && !p->t->nothing; i++) {
		struct im_error why = { 0 };
		if (p->skip && p->skip(p->context, &p->t->refs[i])) {
			report(p, "damaged");
			continue;
		}
		int rc = im_interrupt_check(&why);
		if (!rc)
			rc = read_segment(p, &p->t->refs[i], &why);
		if (rc && (p->fn_failed || !is_damage(rc)))
			return im_fail(err, rc, "%s", why.text);
		if (rc)
			report(p, why.text);
	}
	return 0;
}

int files_tree_each_but(struct files_tree *t, files_tree_skip_fn *skip, files_tree_fn *fn,
    void (*damaged)(void *context, const char *text), void *context, struct im_error *err)
{
	struct pass p = { .t = t, .skip = skip, .fn = fn, .damaged = damaged, .context = context };
	int rc = run_pass(&p, err);
	free(p.last);
	return rc;
}

int files_tree_each(struct files_tree *t, files_tree_fn *fn, void *context, struct im_error *err)
{
	return files_tree_each_but(t, NULL, fn, NULL, context, err);
}
