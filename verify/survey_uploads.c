/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is every attachment there? Those that messages refer to are looked for in all restored trees at
 * once. Not missing without proof: what is older than the oldest that is there has expired; what was
 * referred to after the tree's instant was not captured yet; what no message refers to may never
 * have been sent (a slot is registered first), unless it was there in the drill before; what is
 * offered where none was found is another server's. What the drill before missed is told no second time.
 */
#include "verify/survey_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMED 3
#define UPLOAD_MS 600000 /* from a slot to its file, at most: Prosody's tokens end after 5 minutes, an upload takes a while */

struct wanted {
	const struct store_attachment *a; /* borrowed */
	size_t surveyed;                  /* row */
	bool found, same_size;
};

struct site { /* where a server offers its files */
	uint64_t found;
	int64_t oldest_ms; /* of those found */
};

struct lookup {
	struct survey_run *run;
	struct wanted *items; /* by tail */
	size_t count;
	struct hash64 site_index;
	struct site *sites;
	size_t site_count;
	bool any_tree;
	bool in_tree;         /* the tree being walked holds attachments */
	const char *tree;     /* its path */
	const char *folder;   /* a server's folder that was found, although perhaps empty */
	int64_t until_ms;     /* the trees hold all that was there up to here; 0: not known yet */
	int64_t newest_file_ms;
	bool no_instant;      /* a tree does not know */
	uint64_t store;       /* hash of the name of the last tree that holds attachments */
};

struct verdict { /* of one message store */
	uint64_t found, missing, wrong, unsent, elsewhere, later, expired, known;
	const struct store_attachment *named[NAMED];
};

static int64_t known_since(const struct store_attachment *a) { return a->registered_ms >= 0 ? a->registered_ms : a->referred_ms; }

static int by_tail(const void *a, const void *b)
{
	return strcmp(((const struct wanted *)a)->a->tail, ((const struct wanted *)b)->a->tail);
}

static struct site *site_of(const struct lookup *l, const struct store_attachment *a) { return &l->sites[*hash64_find(&l->site_index, a->site)]; }

static int collect(struct lookup *l, struct im_error *err)
{
	const struct survey_run *r = l->run;
	size_t total = 0;
	for (size_t i = 0; i < r->surveyed_count; i++)
		total += r->surveyed[i].found.attachment_count;
	l->items = calloc(total + 1, sizeof *l->items);
	l->sites = calloc(total + 1, sizeof *l->sites);
	if (!l->items || !l->sites)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < r->surveyed_count; i++)
		for (size_t k = 0; k < r->surveyed[i].found.attachment_count; k++) {
			const struct store_attachment *a = &r->surveyed[i].found.attachments[k];
			l->items[l->count++] = (struct wanted){ .a = a, .surveyed = i };
			int rc = hash64_find(&l->site_index, a->site) ? 0 : hash64_add(&l->site_index, a->site, (uint32_t)l->site_count++, err);
			if (rc)
				return rc;
		}
	qsort(l->items, l->count, sizeof *l->items, by_tail);
	return 0;
}

/* --- the trees --- */

static void mark(struct lookup *l, const char *tail, const struct stat *st)
{
	const struct wanted key = { .a = &(struct store_attachment){ .tail = (char *)tail } };
	struct wanted *w = bsearch(&key, l->items, l->count, sizeof *l->items, by_tail);
	if (!w)
		return;
	while (w > l->items && by_tail(w - 1, &key) == 0)
		w--;
	for (; w < l->items + l->count && by_tail(w, &key) == 0; w++) {
		struct site *s = site_of(l, w->a);
		if (!w->found && (s->found++ == 0 || known_since(w->a) < s->oldest_ms))
			s->oldest_ms = known_since(w->a);
		w->found = true;
		w->same_size |= w->a->bytes < 0 || w->a->bytes == st->st_size;
	}
	int64_t changed_ms = (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;
	l->newest_file_ms = changed_ms > l->newest_file_ms ? changed_ms : l->newest_file_ms;
	l->in_tree = true;
}

static void note_folder(struct lookup *l, const char *relative)
{
	char *path = strdup(strcmp(relative, ".") == 0 ? l->tree : relative);
	const char *name = path ? basename(path) : "";
	for (size_t i = 0; i < l->count && !l->folder; i++)
		if (l->items[i].a->folder && strcmp(l->items[i].a->folder, name) == 0)
			l->folder = l->items[i].a->folder;
	l->in_tree |= l->folder && strcmp(l->folder, name) == 0;
	free(path);
}

static int on_entry(void *context, const char *relative, const struct stat *st, struct im_error *err)
{
	struct lookup *l = context;
	if (S_ISDIR(st->st_mode))
		note_folder(l, relative);
	if (!S_ISREG(st->st_mode))
		return 0;
	const char *slash = strrchr(relative, '/'), *folder = slash;
	mark(l, slash ? slash + 1 : relative, st);
	while (folder && folder > relative && folder[-1] != '/')
		folder--;
	char *tail = slash ? strndup(folder, (size_t)(slash + 1 - folder)) : NULL;
	if (slash && !tail)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (tail)
		mark(l, tail, st);
	free(tail);
	return 0;
}

static int walk_trees(struct lookup *l, struct im_error *err)
{
	for (size_t i = 0; i < l->run->count; i++) {
		const struct survey_store *store = &l->run->stores[i];
		const struct store_ops *ops = store_find(store->type);
		struct im_error why = { 0 };
		if (!ops || !ops->each_entry)
			continue;
		l->any_tree = true;
		l->in_tree = false;
		l->tree = store->path;
		int rc = ops->each_entry(store->path, on_entry, l, &why);
		if (rc == IM_ENOMEM || rc == IM_EINTERRUPTED)
			return im_fail(err, rc, "%s", why.text);
		if (rc)
			survey_say(l->run, store->name, "attachments", false, "attachments could not be looked for: %s", why.text);
		if (!l->in_tree)
			continue;
		l->store = hash64_of(&store->name, 1);
		l->no_instant |= !store->instant_ms;
		l->until_ms = !l->until_ms || store->instant_ms < l->until_ms ? store->instant_ms : l->until_ms;
	}
	/* Without an instant, what was there when the newest file was made was captured. */
	if (l->no_instant)
		l->until_ms = l->newest_file_ms;
	return 0;
}

/* --- the verdict --- */

enum fate { FOUND, WRONG, MISSING, KNOWN, UNSENT, ELSEWHERE, LATER, EXPIRED };

/* Of what no message refers to: was it there in the drill before? */
static bool was_there(const struct survey_surveyed *s, const struct store_attachment *a, uint64_t id)
{
	return s->has_before && a->registered_ms >= 0 && a->registered_ms + UPLOAD_MS <= s->before.uploads_until_ms &&
	    !tally_is_absent(&s->before, id);
}

static enum fate fate_of(const struct lookup *l, const struct wanted *w, uint64_t id)
{
	const struct store_attachment *a = w->a;
	const struct survey_surveyed *s = &l->run->surveyed[w->surveyed];
	const struct site *site = site_of(l, a);
	if (w->found)
		return w->same_size ? FOUND : WRONG;
	if (a->referred_ms < 0 && !was_there(s, a, id))
		return UNSENT;
	if (!site->found && !(l->folder && a->folder))
		return ELSEWHERE;
	if (site->found && known_since(a) < site->oldest_ms)
		return EXPIRED;
	if (l->until_ms && (a->referred_ms >= 0 ? a->referred_ms : a->registered_ms) > l->until_ms)
		return LATER;
	return s->has_before && tally_is_absent(&s->before, id) ? KNOWN : MISSING;
}

static int judge(const struct lookup *l, const struct wanted *w, struct verdict *v, struct im_error *err)
{
	uint64_t id = hash64_of((const char *const[]){ w->a->tail }, 1);
	enum fate fate = fate_of(l, w, id);
	uint64_t *const counts[] = { &v->found, &v->wrong, &v->missing, &v->known, &v->unsent, &v->elsewhere, &v->later, &v->expired };
	++*counts[fate];
	if ((fate == MISSING || fate == WRONG) && v->missing + v->wrong <= NAMED)
		v->named[v->missing + v->wrong - 1] = w->a;
	return w->found ? 0 : tally_add_absent(&l->run->surveyed[w->surveyed].found.tally, id, err);
}

static void name_some(const struct verdict *v, char *ret, size_t size)
{
	char at[IM_INSTANT_BYTES];
	size_t len = 0;
	*ret = 0;
	for (size_t i = 0; i < NAMED && v->named[i] && len < size; i++) {
		const struct store_attachment *a = v->named[i];
		len += (size_t)snprintf(ret + len, size - len, "%s%.120s (%s %s)", i ? ", " : "", a->tail, a->referred_ms >= 0 ? "message of" : "registered",
		    im_instant_format(at, a->referred_ms >= 0 ? a->referred_ms : known_since(a)));
	}
	if (v->missing + v->wrong > NAMED && len < size)
		snprintf(ret + len, size - len, " and %" PRIu64 " more", v->missing + v->wrong - NAMED);
}

static void say_more(char *text, size_t size, uint64_t n, const char *what)
{
	size_t len = strlen(text);
	if (n)
		snprintf(text + len, size - len, "; %s: %" PRIu64, what, n);
}

/* Was the store restored that held the attachments in the drill before? */
static bool is_restored(const struct survey_run *r, uint64_t name)
{
	for (size_t i = 0; i < r->count; i++)
		if (hash64_of(&r->stores[i].name, 1) == name)
			return true;
	return false;
}

static void say_verdict(struct survey_run *r, const struct survey_surveyed *s, const struct verdict *v)
{
	const char *name = s->store->name;
	char text[768], some[512];
	if (v->missing || v->wrong) {
		name_some(v, some, sizeof some);
		survey_say(r, name, "attachments", false, "missing: %" PRIu64 ", with another size: %" PRIu64 ", of %" PRIu64 " attachments: %s",
		    v->missing, v->wrong, v->found + v->missing + v->wrong, some);
	} else if (!v->found && s->has_before && s->before.uploads_found && v->elsewhere && !s->older && is_restored(r, s->before.uploads_store)) {
		survey_say(r, name, "attachments", false,
		    "no attachment that messages refer to (%" PRIu64 ") is in a restored store; found in the drill before: %" PRIu64, v->elsewhere,
		    s->before.uploads_found);
		return;
	}
	snprintf(text, sizeof text, "attachments found, with their sizes: %" PRIu64, v->found);
	say_more(text, sizeof text, v->elsewhere, "offered where none was found (by another server, or the folder is in no restored store)");
	say_more(text, sizeof text, v->unsent, "registered, but without a file or a message that can be read and refers to it");
	say_more(text, sizeof text, v->known, "missing in the drill before already");
	say_more(text, sizeof text, v->later, "sent after the instant of the files");
	say_more(text, sizeof text, v->expired, "older than all that are kept");
	if (s->found.attachments_cut)
		say_more(text, sizeof text, s->found.attachment_count, "only the first were looked for");
	survey_say(r, name, "attachments", true, "%s", text);
}

/* Nothing was seen of the attachments: what the drill before knew of them stays known. */
static void hand_on(struct survey_surveyed *s)
{
	struct tally *t = &s->found.tally, *before = &s->before;
	free(t->absent);
	t->uploads_found = before->uploads_found;
	t->uploads_store = before->uploads_store;
	t->uploads_until_ms = before->uploads_until_ms;
	t->absent = TAKE_PTR(before->absent);
	t->absent_count = before->absent_count;
	before->absent_count = 0;
}

static int say_all(struct lookup *l, struct im_error *err)
{
	struct survey_run *r = l->run;
	struct verdict *v = calloc(r->surveyed_count + 1, sizeof *v);
	if (!v)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = 0;
	for (size_t i = 0; i < r->surveyed_count; i++)
		r->surveyed[i].found.tally.uploads_until_ms = l->until_ms;
	for (size_t i = 0; rc == 0 && l->any_tree && i < l->count; i++)
		rc = judge(l, &l->items[i], &v[l->items[i].surveyed], err);
	for (size_t i = 0; rc == 0 && i < r->surveyed_count; i++) {
		struct survey_surveyed *s = &r->surveyed[i];
		s->found.tally.uploads_found = v[i].found;
		s->found.tally.uploads_store = v[i].found ? l->store : 0;
		tally_sort_absent(&s->found.tally);
		if (!s->found.attachment_count)
			continue;
		if (l->any_tree)
			say_verdict(r, s, &v[i]);
		else
			survey_say(r, s->store->name, "attachments", true, "not looked for, since no store of files was restored; attachments that messages refer to: %zu",
			    s->found.attachment_count);
		if (!l->until_ms && s->has_before)
			hand_on(s);
	}
	free(v);
	return rc;
}

int survey_uploads(struct survey_run *r, struct im_error *err)
{
	struct lookup l = { .run = r };
	int rc = collect(&l, err);
	if (rc == 0 && l.count)
		rc = walk_trees(&l, err);
	if (rc == 0)
		rc = say_all(&l, err);
	hash64_clear(&l.site_index);
	free(l.sites);
	free(l.items);
	return rc;
}
