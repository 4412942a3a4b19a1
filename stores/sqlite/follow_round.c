/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hand over hand: take the new pin, capture up to its mark, make that safe, only then let the old
 * pin go. What is captured is safe in the journal; a change too large for it keeps the old pin until
 * the spool has it.
 *
 * So that the WAL does not grow for ever: a PASSIVE checkpoint while a pin above slot 0 is held (no
 * writer can restart the WAL meanwhile), then pin again. If no commit came between, everything is in
 * the database, the new pin stands in slot 0 and the next writer restarts the WAL; what it writes then
 * cannot be checkpointed before the pin moves on, so none of it can go unseen. Else try again.
 */
#include "stores/sqlite/follow_internal.h"

#include "base/bytes.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LARGE_BYTES = 32 << 20, /* a single commit of more goes round the journal */
	HUGE_BYTES = 160 << 20, /* and one of more than this (a VACUUM) is better told by a snapshot */
	BATCH_BYTES = 2 << 20,
	TRY_MS = 20, TRY_HARD_MS = 150, /* how long to try for a restart at once */
	TRY_EVERY_MS = 100 };

struct logbody_section follow_section(const struct follower *f, const struct log_point *point)
{
	struct logbody_section s = { .point = f->point, .pages = f->capture.at.pages, .complete_ms = point->complete_ms,
		.latest_ms = point->latest_ms };
	memcpy(s.sum, f->capture.at.sum, sizeof s.sum);
	return s;
}

int follow_add_point(struct follower *f, int64_t before_ms, int64_t after_ms, struct log_point *ret, struct im_error *err)
{
	if (f->point_count == f->point_room) {
		size_t room = f->point_room ? 2 * f->point_room : 64;
		struct log_point *points = realloc(f->points, room * sizeof *points);
		if (!points)
			return im_fail(err, IM_ENOMEM, "out of memory");
		f->points = points;
		f->point_room = room;
	}
	/* A clock that was set back must not make a later point look earlier. */
	f->complete_ms = before_ms > f->complete_ms ? before_ms : f->complete_ms;
	f->latest_ms = after_ms > f->latest_ms ? after_ms : f->latest_ms;
	f->latest_ms = f->latest_ms > f->complete_ms ? f->latest_ms : f->complete_ms;
	*ret = (struct log_point){ f->complete_ms, f->latest_ms };
	f->points[f->point_count++] = *ret;
	f->point++;
	return 0;
}

uint64_t follow_wal_bytes(const struct follower *f)
{
	struct shm_head now;
	if (!pin_files_shm(&f->capture.files, &now))
		return 0;
	return (uint64_t)now.max_frame * (f->capture.at.page_size + WAL_FRAME_HEADER_BYTES);
}

/* --- small changes: through the journal --- */

struct gather {
	struct follower *f;
	struct journal_section section;
};

static int gather_page(void *context, uint32_t page, const uint8_t *base, const uint8_t *content, struct im_error *err)
{
	struct gather *g = context;
	g->section.bytes += g->f->capture.at.page_size;
	return journal_section_add(&g->section, g->f->diff, page, base, content, err);
}

static int finish_section(struct follower *f, struct journal_section *s, const struct walpos *mark, struct im_error *err)
{
	struct log_point point;
	int rc = follow_add_point(f, mark->complete_ms, mark->latest_ms, &point, err);
	if (rc)
		return rc;
	s->head = follow_section(f, &point);
	s->after = f->capture.at;
	s->after.complete_ms = point.complete_ms;
	s->after.latest_ms = point.latest_ms;
	rc = journal_append(f->journal, s, err);
	if (rc == 0)
		rc = journal_section_write(s, f->writer, err);
	f->bytes += s->bytes;
	f->commits += s->commits;
	return rc;
}

static int capture_small(struct follower *f, const struct walpos *mark, bool may_restart, bool *ret_new, struct im_error *err)
{
	struct gather g = { .f = f };
	/* That the WAL began again is told even if nothing was committed to it yet: the pin moves there, and the log must not end before it. */
	bool fresh = !walpos_same_generation(&f->capture.at, mark->salt);
	int rc = capture_to(&f->capture, mark, may_restart, gather_page, &g, &g.section.commits, err);
	bool any = rc == 0 && (fresh || g.section.commits > 0);
	if (any)
		rc = finish_section(f, &g.section, mark, err);
	*ret_new |= any;
	journal_section_clear(&g.section);
	return rc;
}

/* --- large ones: in parts, page range by page range --- */

struct pour {
	struct follower *f;
	struct logbody_section section;
};

static int add_part(struct follower *f, struct im_buf *data, struct im_error *err)
{
	struct follow_body *parts = realloc(f->parts, (f->part_count + 1) * sizeof *parts);
	if (!parts)
		return im_fail(err, IM_ENOMEM, "out of memory");
	f->parts = parts;
	f->parts[f->part_count++].data = *data;
	*data = (struct im_buf){ 0 };
	return 0;
}

static int pour_page(void *context, uint32_t page, const uint8_t *base, const uint8_t *content, struct im_error *err)
{
	struct pour *p = context;
	struct follower *f = p->f;
	auto_buf struct im_buf body = { 0 };
	f->bytes += f->capture.at.page_size;
	int rc = 0;
	if (logbody_size(f->writer) >= LOGBODY_PART_BYTES) {
		rc = logbody_cut_part(f->writer, &p->section, page, &body, err);
		if (rc == 0)
			rc = add_part(f, &body, err);
	}
	return rc ? rc : logbody_put(f->writer, page, base, content, err);
}

/* The checksum is known only at the end: it stands in the last part. */
static int capture_large(struct follower *f, const struct walpos *mark, bool may_restart, struct im_error *err)
{
	struct log_point point;
	uint64_t commits = 0;
	int rc = follow_add_point(f, mark->complete_ms, mark->latest_ms, &point, err);
	struct pour p = { .f = f, .section = { .point = f->point, .pages = mark->pages, .complete_ms = f->complete_ms, .latest_ms = f->latest_ms } };
	if (rc == 0)
		rc = capture_to(&f->capture, mark, may_restart, pour_page, &p, &commits, err);
	if (rc)
		return rc;
	f->commits += commits;
	p.section = follow_section(f, &point);
	rc = logbody_end_section(f->writer, &p.section, err);
	auto_buf struct im_buf body = { 0 };
	if (rc == 0)
		rc = logbody_finish(f->writer, &body, err);
	return rc ? rc : add_part(f, &body, err);
}

/* --- rounds --- */

static bool pin_is_at(const struct follower *f)
{
	const struct walpos *at = &f->capture.at;
	return walpos_same_generation(at, f->held.salt) && f->held.frame == at->frame;
}

static bool may_restart(const struct follower *f)
{
	return f->held.all_backfilled && pin_is_at(f);
}

static int let_older_go(struct follower *f, struct im_error *err)
{
	int rc = keeper_release(f->keeper, false, err);
	if (rc == 0) {
		f->held = f->newer;
		f->two_pins = false;
	}
	return rc;
}

static int give_newer_back(struct follower *f, struct im_error *err)
{
	f->two_pins = false;
	return keeper_release(f->keeper, true, err);
}

static uint32_t frames_of(const struct follower *f, uint64_t bytes)
{
	return (uint32_t)(bytes / f->capture.at.page_size);
}

/* One step towards mark; more than the journal takes is left for the next batch (too_much). */
static int capture_towards(struct follower *f, const struct walpos *mark, uint32_t frames, bool allowed, bool *ret_new, struct im_error *err)
{
	struct walpos step = *mark;
	if (frames <= frames_of(f, LARGE_BYTES))
		return capture_small(f, mark, allowed, ret_new, err);
	int rc = capture_step(&f->capture, mark, frames_of(f, LARGE_BYTES), &step, err);
	if (rc)
		return rc;
	uint32_t from = walpos_same_generation(&f->capture.at, mark->salt) ? f->capture.at.frame : 0;
	uint32_t size = step.frame - from;
	if (step.frame != mark->frame)
		step.complete_ms = f->complete_ms; /* a commit on the way: when it was made is not known */
	if (size > frames_of(f, HUGE_BYTES))
		return im_fail(err, IM_EGAP, "a single commit changed more than %u MB of %s (VACUUM?): a snapshot tells that better",
		    HUGE_BYTES >> 20, f->capture.files.path);
	if (size <= frames_of(f, LARGE_BYTES))
		return capture_small(f, &step, allowed, ret_new, err);
	f->too_much = true;
	if (f->point_count)
		return 0;
	*ret_new = true;
	return capture_large(f, &step, allowed, err);
}

/* With the new pin taken: capture up to it, or as far as one batch goes. */
static int capture_pinned(struct follower *f, const struct walpos *mark, bool *ret_new, struct im_error *err)
{
	uint32_t frames = 0;
	bool fresh;
	int rc = 0;
	do {
		bool allowed = may_restart(f);
		rc = capture_distance(&f->capture, mark, allowed, &frames, &fresh, err);
		if (rc == 0)
			rc = capture_towards(f, mark, frames, allowed, ret_new, err);
		if (rc)
			return rc;
		f->too_much |= logbody_size(f->writer) > BATCH_BYTES && f->capture.at.frame != mark->frame;
	} while (!f->too_much && (f->capture.at.frame != mark->frame || !walpos_same_generation(&f->capture.at, mark->salt)));
	return 0;
}

static int advance(struct follower *f, bool *ret_new, struct im_error *err)
{
	int rc = keeper_take(f->keeper, &f->newer, err);
	if (rc)
		return rc;
	f->two_pins = true;
	struct walpos mark = walpos_of_pin(&f->newer, f->capture.at.pages);
	rc = capture_pinned(f, &mark, ret_new, err);
	if (rc)
		return rc;
	f->more = f->too_much;
	if (!f->too_much)
		return let_older_go(f, err);
	/* Not all of it yet, or not in the journal: the old pin stays until the batch is safe. */
	return give_newer_back(f, err);
}

/* Nothing of the WAL as it is now is wanted any more once a pin in slot 0 is had. */
static int let_wal_restart(struct follower *f, bool *ret_new, struct im_error *err)
{
	uint64_t used = follow_wal_bytes(f);
	int64_t now = im_monotonic_ms(), end = now + (used > f->wal_limit / 8 ? TRY_HARD_MS : TRY_MS);
	if (used <= FOLLOW_WAL_SMALL || f->held.all_backfilled) {
		f->free_ms = im_now_ms();
		return 0;
	}
	if (now - f->tried_ms < TRY_EVERY_MS)
		return 0;
	int rc = 0;
	while (rc == 0 && !f->too_much && !f->held.all_backfilled && im_monotonic_ms() < end) {
		struct im_error why = { 0 };
		if (keeper_checkpoint(f->keeper, &why)) /* no reason to stop following */
			break;
		rc = advance(f, ret_new, err);
	}
	f->tried_ms = im_monotonic_ms();
	if (rc == 0 && f->held.all_backfilled)
		f->free_ms = im_now_ms();
	return rc;
}

static bool nothing_new(struct follower *f)
{
	struct shm_head now;
	int64_t before = im_now_ms();
	const struct walpos *at = &f->capture.at;
	if (!pin_files_shm(&f->capture.files, &now) || !walpos_same_generation(at, now.salt) || now.max_frame != at->frame)
		return false;
	f->seen_before_ms = before;
	f->seen_after_ms = im_now_ms();
	return true;
}

/* Is what we look at still the database, and still held? A new file under the old name: what we and the keeper have open is nobody's any more. */
static int check_held(const struct follower *f, struct im_error *err)
{
	if (!keeper_is_alive(f->keeper)) /* then the files may have been closed and made anew while ours look unchanged */
		return im_fail(err, IM_EGAP, "the process that held %s is gone (it was killed, or the WAL grew beyond wal_limit)", f->capture.files.path);
	struct stat st;
	const struct walpos *at = &f->capture.at;
	if (stat(f->capture.files.path, &st) == 0 && (uint64_t)st.st_dev == at->device && (uint64_t)st.st_ino == at->inode)
		return 0;
	return im_fail(err, IM_EGAP, "%s was replaced or removed", f->capture.files.path);
}

int follow_round(struct follower *f, bool *ret_new, struct im_error *err)
{
	*ret_new = false;
	if (f->taken || f->too_much)
		return 0;
	int rc = check_held(f, err);
	/* The pin may still stand before what went round the journal and is safe by now. */
	if (rc == 0 && (!nothing_new(f) || !pin_is_at(f)))
		rc = advance(f, ret_new, err);
	return rc || f->too_much ? rc : let_wal_restart(f, ret_new, err);
}

int follow_round_to(struct follower *f, const struct walpos *mark, struct im_error *err)
{
	uint32_t frames;
	bool fresh, ignored = false;
	struct im_error why = { 0 };
	if (f->taken || f->too_much)
		return im_fail(err, IM_ENOTFOUND, "a large change is being stored");
	if (capture_distance(&f->capture, mark, may_restart(f), &frames, &fresh, &why))
		return im_fail(err, IM_ENOTFOUND, "the log does not reach that commit: %s", why.text);
	return capture_pinned(f, mark, &ignored, err);
}
