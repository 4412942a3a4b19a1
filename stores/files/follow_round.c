/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One round: what may have changed is looked at, names first (a rotation renames several files at
 * once), then content. All of it becomes one point.
 */
#include "stores/files/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <string.h>

enum kind { NOTHING, SAME, MOVED, NEW, ALIAS, LATER };

struct change {
	char *path;
	enum kind kind;
	struct follow_look look;
	uint32_t file; /* SAME, MOVED, ALIAS: its row */
};

struct round {
	struct follower *f;
	struct change *changes;
	size_t count;
};

static void round_clear(struct round *r)
{
	for (size_t i = 0; i < r->count; i++)
		free(r->changes[i].path);
	free(r->changes);
}

static int take_touched(struct round *r, struct im_error *err)
{
	struct follower *f = r->f;
	r->changes = calloc(f->touched_count + 1, sizeof *r->changes);
	if (!r->changes)
		return im_fail(err, IM_ENOMEM, "out of memory for the files that are followed");
	for (size_t i = 0; i < f->touched_count; i++)
		r->changes[i].path = TAKE_PTR(f->touched[i]);
	r->count = f->touched_count;
	files_follow_untouch(f);
	return 0;
}

/* Is the followed file that lives in this inode not at its old path any more? */
static bool has_left(struct follower *f, uint32_t file)
{
	struct follow_look now;
	const struct follow_file *e = &f->files[file];
	return !files_follow_look(f, e->path, &now) || !files_follow_same(&now.ident, &e->ident);
}

static void judge(struct follower *f, struct change *c)
{
	if (!files_follow_look(f, c->path, &c->look))
		return;
	uint32_t here = files_follow_find(f, c->path), there = files_follow_find_ident(f, &c->look.ident);
	c->file = there;
	if (here != FILES_NO_NAME && files_follow_same(&f->files[here].ident, &c->look.ident)) {
		c->kind = SAME;
		c->file = here;
		f->files[here].missing = false;
	} else if (there != FILES_NO_NAME && !f->files[there].moving && has_left(f, there) &&
	    (c->look.ident.born_ns || files_follow_proven(f, there, c->path, &c->look))) {
		c->kind = MOVED;
		f->files[there].moving = true;
	} else if (there != FILES_NO_NAME && !has_left(f, there)) {
		c->kind = ALIAS; /* another name of a file that is followed under its first */
	} else if (files_follow_is_wanted(f, c->path)) {
		c->kind = NEW;
	}
}

/* A file that left its path without a trace waits for one round: the event of its new name may be under way. */
static int wait_for_missing(struct round *r, struct im_error *err)
{
	struct follower *f = r->f;
	int rc = 0;
	for (size_t i = 0; i < r->count && !rc; i++) {
		struct change *c = &r->changes[i];
		uint32_t here = c->kind == NOTHING || c->kind == NEW || c->kind == ALIAS ? files_follow_find(f, c->path) : FILES_NO_NAME;
		if (here == FILES_NO_NAME || f->files[here].moving || f->files[here].missing)
			continue;
		f->files[here].missing = true;
		c->kind = LATER;
		rc = files_follow_touch(f, c->path, err);
	}
	return rc;
}

static int move(struct follower *f, struct change *c, struct im_error *err)
{
	uint32_t there = files_follow_find(f, c->path);
	struct files_log_record r = { .type = FILES_LOG_MOVED, .path = f->files[c->file].path, .to = c->path };
	int rc = files_follow_announce(f, c->path, err);
	if (!rc)
		rc = files_follow_put(f, &r, err);
	if (!rc && there != FILES_NO_NAME)
		files_follow_remove(f, there);
	if (!rc)
		rc = files_follow_rename(f, c->file, c->path, err);
	f->files[c->file].moving = f->files[c->file].missing = false;
	return rc;
}

/* In an order in which none lands on one that has yet to go; names that change in a circle begin again. */
static int move_all(struct round *r, struct im_error *err)
{
	struct follower *f = r->f;
	bool progress = true;
	int rc = 0;
	while (progress && !rc) {
		progress = false;
		for (size_t i = 0; i < r->count && !rc; i++) {
			struct change *c = &r->changes[i];
			if (c->kind != MOVED || !f->files[c->file].moving)
				continue;
			uint32_t there = files_follow_find(f, c->path);
			if (there != FILES_NO_NAME && f->files[there].moving)
				continue;
			rc = move(f, c, err);
			progress = true;
		}
	}
	for (size_t i = 0; i < r->count; i++) {
		struct change *c = &r->changes[i];
		if (c->kind == MOVED && f->files[c->file].path && f->files[c->file].moving) {
			f->files[c->file].moving = false;
			c->kind = NEW;
		}
	}
	return rc;
}

/* Rows whose path holds nothing any more, or nothing that is followed. */
static int end_gone(struct round *r, struct im_error *err)
{
	struct follower *f = r->f;
	int rc = 0;
	for (size_t i = 0; i < r->count && !rc; i++) {
		struct change *c = &r->changes[i];
		uint32_t here = c->kind == NOTHING || c->kind == ALIAS ? files_follow_find(f, c->path) : FILES_NO_NAME;
		if (here == FILES_NO_NAME)
			continue;
		struct files_log_record gone = { .type = FILES_LOG_GONE, .path = c->path };
		rc = files_follow_put(f, &gone, err);
		files_follow_remove(f, here);
	}
	return rc;
}

static int read_all(struct round *r, struct im_error *err)
{
	struct follower *f = r->f;
	int rc = 0;
	for (size_t i = 0; i < r->count && !rc; i++) {
		struct change *c = &r->changes[i];
		if (c->kind == NOTHING || c->kind == LATER)
			continue;
		if (f->more)
			rc = files_follow_touch(f, c->path, err);
		else if (c->kind == NEW)
			rc = files_follow_begin(f, c->path, &c->look, err);
		else if (f->files[c->file].path && (c->kind == ALIAS || !strcmp(f->files[c->file].path, c->path)))
			rc = files_follow_advance(f, c->file, &c->look, err);
	}
	return rc;
}

static int reconcile(struct follower *f, struct im_error *err)
{
	struct round r = { .f = f };
	int rc = take_touched(&r, err);
	for (size_t i = 0; i < r.count && !rc; i++)
		judge(f, &r.changes[i]);
	if (!rc)
		rc = wait_for_missing(&r, err);
	if (!rc)
		rc = move_all(&r, err);
	if (!rc)
		rc = end_gone(&r, err);
	if (!rc)
		rc = read_all(&r, err);
	round_clear(&r);
	return rc;
}

int files_follow_round(struct follower *f, bool scan, bool *ret_new, struct im_error *err)
{
	struct im_error why = { 0 };
	*ret_new = false;
	if (f->taken || f->more || f->point_count >= LOG_MAX_POINTS - 2)
		return 0;
	int64_t before_ms = im_now_ms(), scanned_ms = f->scanned_ms;
	files_parent_close(&f->parent); /* a folder may have been replaced */
	f->rescan |= scan;
	int rc = files_follow_watch_drain(f, &why);
	bool whole = rc == 0 && !f->rescan && (f->inotify >= 0 || f->scanned_ms != scanned_ms);
	if (rc && rc != IM_EINTERRUPTED)
		return im_fail(err, rc, "%s", why.text);
	if (f->touched_count)
		rc = reconcile(f, err);
	else
		rc = 0;
	if (rc)
		return rc;
	if (whole && !f->more && !f->touched_count) {
		f->seen_before_ms = before_ms;
		f->seen_after_ms = im_now_ms();
	}
	if (!f->open)
		return 0;
	*ret_new = true;
	/* a point in the middle of a larger change: everything up to when is not known */
	return files_follow_end_section(f, whole && !f->more && !f->touched_count ? before_ms : 0, im_now_ms(), err);
}
