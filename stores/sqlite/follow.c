/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite follower: attaching (and proving that it goes on exactly where the log ends), batches,
 * and what status wants to know. The rounds themselves are in follow_round.c.
 */
#include "stores/sqlite/follow_internal.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "stores/sqlite/logmerge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ALARM_AFTER_MS = 5000 };
#define SHM_ATTEMPTED_OFFSET 128 /* frames that a checkpoint has begun to write to the database */

int follow_wal_limit(const struct im_config_store *store, uint64_t *ret, struct im_error *err)
{
	const char *text = im_config_get(store, "wal_limit", FOLLOW_WAL_LIMIT);
	if (!im_size_parse(text, ret) || *ret < 2 * FOLLOW_WAL_SMALL)
		return im_fail(err, IM_EUSAGE, "store %s: wal_limit = %s must be a size of at least 8MiB", store->name, text);
	return 0;
}

static bool is_wanted(const struct im_config_store *store, const char **ret_why)
{
	*ret_why = NULL;
	if (strcmp(im_config_get(store, "follow", "yes"), "yes") != 0)
		return false;
	if (!im_config_get(store, "pause", NULL) && !im_config_get(store, "locking", NULL))
		return true;
	*ret_why = "it uses a rollback journal, which has no log: switch the database to WAL";
	return false;
}

/* --- attaching --- */

static int check_mode(const struct im_config_store *store, struct im_error *err)
{
	struct pin_files files;
	struct dbheader header;
	bool empty;
	int rc = pin_files_open(store->path, &files, err);
	if (rc)
		return rc;
	rc = pin_files_header(&files, &header, &empty, err);
	if (rc == 0 && empty)
		rc = im_fail(err, IM_EFAIL, "%s is empty", store->path);
	if (rc == 0 && !header.wal)
		rc = im_fail(err, IM_EFAIL, "%s uses a rollback journal, which has no log to follow. Switch it to WAL, once, while the server is "
		    "stopped: sqlite3 %s 'PRAGMA journal_mode=wal'; or set follow = no", store->path, store->path);
	pin_files_close(&files);
	return rc;
}

/* The database must be the very file that was followed. */
static int check_identity(struct follower *f, struct walpos *p, bool known, struct im_error *err)
{
	struct stat st;
	if (fstat(f->capture.files.db, &st))
		return im_fail(err, IM_EIO, "cannot stat %s", f->capture.files.path);
	if (known && (p->device != (uint64_t)st.st_dev || p->inode != (uint64_t)st.st_ino))
		return im_fail(err, IM_EGAP, "%s is another file than the one that was followed: it was replaced or restored", f->capture.files.path);
	p->device = (uint64_t)st.st_dev;
	p->inode = (uint64_t)st.st_ino;
	return 0;
}

static int take_first_pin(struct follower *f, struct im_error *err)
{
	return keeper_take(f->keeper, &f->held, err);
}

static int replay_section(void *context, const struct journal_section *s, struct im_error *err)
{
	struct follower *f = context;
	struct log_point point;
	if (s->head.point <= f->point)
		return 0; /* it got into the spool */
	if (s->head.point != f->point + 1)
		return im_fail(err, IM_EGAP, "what was captured of %s before does not fit the log", f->capture.files.path);
	int rc = follow_add_point(f, s->head.complete_ms, s->head.latest_ms, &point, err);
	if (rc == 0)
		rc = journal_section_write(s, f->writer, err);
	f->capture.at = s->after;
	f->bytes += s->bytes;
	f->commits += s->commits;
	return rc;
}

/* A keeper lives: nothing after its older pin can have gone. Does that pin lie at or before where the log ends? */
static int continue_held(struct follower *f, const struct walpos *p, struct im_error *err)
{
	f->capture.at = *p;
	int rc = journal_replay(f->journal, replay_section, f, err);
	if (rc)
		return rc == IM_ECORRUPT ? im_fail(err, IM_EGAP, "what was captured before is damaged") : rc;
	struct walpos at = f->capture.at;
	bool ordered = walpos_same_generation(&at, f->held.salt) ? f->held.frame <= at.frame :
	    f->held.all_backfilled && walpos_salt_follows(f->held.salt, at.salt);
	if (!ordered && f->held.frame != 0)
		return im_fail(err, IM_EGAP, "the source of %s was held at a later commit than the log ends at", f->capture.files.path);
	return capture_begin(&f->capture, &at, err);
}

static uint32_t attempted_now(const struct follower *f)
{
	uint32_t n = UINT32_MAX;
	return im_pread_full(f->capture.files.shm, &n, sizeof n, SHM_ATTEMPTED_OFFSET, NULL, "-shm") == (ssize_t)sizeof n ? n : UINT32_MAX;
}

/* With a WAL that never had a frame only the file's time of change tells. (Pinned in slot 0: nothing can be written to it now.) */
static bool was_untouched(const struct follower *f, const struct walpos *p)
{
	return p->changed_ns && p->changed_ns == walpos_changed_ns(f->capture.files.db);
}

/* Nobody held the source since. It goes on exactly if the WAL is still the same one, and nothing after
 * the log's end was written to the database (or pages' content before it would be lost). */
static int continue_unheld(struct follower *f, const struct walpos *p, struct im_error *err)
{
	int rc = take_first_pin(f, err);
	if (rc)
		return rc;
	if (walpos_is_blank(p) && f->held.frame == 0 && !was_untouched(f, p))
		return im_fail(err, IM_EGAP, "whether %s was written while nobody followed it cannot be told: its WAL is new, as it was before", f->capture.files.path);
	if (!walpos_same_generation(p, f->held.salt) || f->held.frame < p->frame)
		return im_fail(err, IM_EGAP, "the WAL of %s was restarted while nobody followed it", f->capture.files.path);
	if (f->held.frame > p->frame && attempted_now(f) > p->frame)
		return im_fail(err, IM_EGAP, "%s was checkpointed while nobody followed it", f->capture.files.path);
	return capture_begin(&f->capture, p, err);
}

static int begin_anew(struct follower *f, unsigned pins, const struct walpos *identity, struct im_error *err)
{
	int rc = 0;
	if (pins == 0) {
		rc = take_first_pin(f, err);
	} else {
		rc = keeper_take(f->keeper, &f->newer, err);
		if (rc == 0)
			rc = keeper_release(f->keeper, false, err);
		f->held = f->newer;
	}
	if (rc == 0)
		rc = journal_reset(f->journal, err);
	if (rc)
		return rc;
	struct walpos at = walpos_of_pin(&f->held, capture_pages_in_file(&f->capture, f->held.page_size));
	at.device = identity->device;
	at.inode = identity->inode;
	f->seen_before_ms = f->held.before_ms;
	f->seen_after_ms = f->held.after_ms;
	return capture_begin(&f->capture, &at, err);
}

static int attach(struct follower *f, const struct follow_request *q, unsigned pins, struct keeper_pin held[2], struct im_error *err)
{
	struct walpos p = { 0 };
	int rc = q->position ? walpos_decode(q->position, &p, err) : 0;
	if (rc == 0)
		rc = check_identity(f, &p, q->position != NULL, err);
	if (rc == 0 && pins == 2) /* of a round that did not end */
		rc = keeper_release(f->keeper, true, err);
	if (rc)
		return rc;
	f->held = held[0];
	f->point = q->point;
	f->complete_ms = p.complete_ms;
	f->latest_ms = p.latest_ms;
	if (!q->position)
		rc = begin_anew(f, pins, &p, err);
	else
		rc = pins ? continue_held(f, &p, err) : continue_unheld(f, &p, err);
	if (rc == 0 && pins == 0)
		rc = journal_reset(f->journal, err);
	return rc;
}

static int make(struct follower *f, const struct follow_request *q, struct im_error *err)
{
	struct keeper_options o = { .folder = q->folder, .database = q->store->path, .timeout_ms = 5000, .hold_ms = q->hold_ms };
	struct keeper_pin held[2];
	unsigned pins = 0;
	int rc = follow_wal_limit(q->store, &f->wal_limit, err);
	o.wal_limit_bytes = f->wal_limit;
	if (rc == 0)
		rc = keeper_open(&o, &f->keeper, held, &pins, &f->journal, err);
	if (rc == 0) /* after the keeper: only now there surely is a WAL */
		rc = capture_open(q->store->path, q->keyring, &f->capture, err);
	struct dbheader header;
	bool empty;
	if (rc == 0)
		rc = pin_files_header(&f->capture.files, &header, &empty, err);
	if (rc == 0)
		rc = pagediff_new(header.page_size, &f->diff, err);
	if (rc == 0)
		rc = logbody_writer_new(header.page_size, &f->writer, err);
	if (rc == 0)
		rc = attach(f, q, pins, held, err);
	if (rc == 0)
		watch_open(&f->watch, f->capture.files.path, f->capture.files.wal_path);
	return rc;
}

static void follower_close(struct follower *f, bool hold)
{
	if (!f)
		return;
	watch_close(&f->watch);
	keeper_close(f->keeper, hold);
	if (f->journal >= 0)
		close(f->journal);
	capture_close(&f->capture);
	pagediff_free(f->diff);
	logbody_writer_free(f->writer);
	for (size_t i = 0; i < f->part_count; i++)
		im_buf_free(&f->parts[i].data);
	free(f->parts);
	free(f->points);
	free(f);
}

static int follower_open(const struct follow_request *q, struct follower **ret, struct im_error *err)
{
	int rc = check_mode(q->store, err);
	struct follower *f = rc ? NULL : calloc(1, sizeof *f);
	if (!f)
		return rc ? rc : im_fail(err, IM_ENOMEM, "out of memory");
	f->store = q->store;
	f->journal = f->watch.inotify = -1;
	f->capture.files = (struct pin_files){ .db = -1, .wal = -1, .shm = -1 };
	f->free_ms = im_now_ms();
	rc = make(f, q, err);
	if (rc) {
		/* Without a position it was the new beginning that failed: nothing is worth being held. */
		follower_close(f, q->position && rc != IM_EGAP);
		return rc;
	}
	*ret = f;
	return 0;
}

/* --- batches --- */

static int follower_wait(struct follower *f, int wake_fd, int64_t timeout_ms, struct im_error *err)
{
	bool busy = f->too_much || f->more || (!f->held.all_backfilled && follow_wal_bytes(f) > FOLLOW_WAL_SMALL);
	return watch_wait(&f->watch, wake_fd, timeout_ms, busy, err);
}

static size_t follower_pending(const struct follower *f)
{
	return f->too_much || f->more ? SIZE_MAX : f->point_count ? logbody_size(f->writer) + 1 : 0;
}

static int add_heartbeat(struct follower *f, struct im_error *err)
{
	struct log_point point;
	int rc = follow_add_point(f, f->seen_before_ms, f->seen_after_ms, &point, err);
	if (rc)
		return rc;
	struct logbody_section s = follow_section(f, &point);
	return logbody_end_section(f->writer, &s, err);
}

static int hand_over(struct follower *f, struct follow_batch *ret, struct im_error *err)
{
	struct follow_batch b = { .points = f->points, .point_count = f->point_count, .bytes = f->bytes, .commits = f->commits };
	int rc = 0;
	if (f->part_count) {
		b.parts = TAKE_PTR(f->parts);
		b.part_count = f->part_count;
	} else {
		b.parts = calloc(1, sizeof *b.parts);
		rc = b.parts ? logbody_finish(f->writer, &b.parts[0].data, err) : im_fail(err, IM_ENOMEM, "out of memory");
		b.part_count = b.parts ? 1 : 0;
	}
	struct walpos at = f->capture.at;
	at.complete_ms = f->complete_ms;
	at.latest_ms = f->latest_ms;
	at.changed_ns = walpos_changed_ns(f->capture.files.db);
	b.position = rc ? NULL : walpos_encode(&at);
	if (rc == 0 && !b.position)
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	f->points = NULL;
	f->point_count = f->point_room = f->part_count = 0;
	f->bytes = f->commits = 0;
	f->taken = true;
	if (rc)
		follow_batch_clear(&b);
	else
		*ret = b;
	return rc;
}

static int follower_capture(struct follower *f, bool *ret_new, struct im_error *err)
{
	return follow_round(f, ret_new, err);
}

static int follower_take(struct follower *f, bool heartbeat, struct follow_batch *ret, bool *ret_any, struct im_error *err)
{
	bool ignored;
	IM_CHECK(!f->taken);
	int rc = follow_round(f, &ignored, err);
	if (rc == 0 && !f->point_count && heartbeat)
		rc = add_heartbeat(f, err);
	*ret_any = rc == 0 && f->point_count;
	return *ret_any ? hand_over(f, ret, err) : rc;
}

static int follower_take_to(struct follower *f, const json_t *position, struct follow_batch *ret, struct im_error *err)
{
	struct walpos mark = f->capture.at;
	IM_CHECK(!f->taken);
	int rc = position ? walpos_decode(position, &mark, err) : 0;
	if (rc == 0 && position)
		rc = follow_round_to(f, &mark, err);
	if (rc)
		return rc;
	if (f->capture.at.frame != mark.frame || !walpos_same_generation(&f->capture.at, mark.salt))
		return im_fail(err, IM_ENOTFOUND, "a large change is being stored");
	if (!f->point_count) {
		f->seen_before_ms = mark.complete_ms;
		f->seen_after_ms = mark.latest_ms;
		rc = add_heartbeat(f, err);
	}
	return rc ? rc : hand_over(f, ret, err);
}

static int follower_durable(struct follower *f, struct im_error *err)
{
	f->taken = f->too_much = false;
	return journal_reset(f->journal, err);
}

static void follower_health(struct follower *f, struct follow_health *ret)
{
	uint64_t used = follow_wal_bytes(f);
	char size[24], limit[24], since[40];
	*ret = (struct follow_health){ .held_bytes = used };
	bool near_limit = used > f->wal_limit / 4 * 3;
	if (used <= f->wal_limit / 4 || (!near_limit && im_now_ms() - f->free_ms < ALARM_AFTER_MS))
		return;
	ret->held_since_ms = f->free_ms;
	snprintf(f->alarm, sizeof f->alarm, "the WAL of %s has grown to %s: for %s its server left no pause between commits in which it could be "
	    "restarted; at %s (wal_limit) it is let go and a new snapshot taken", f->capture.files.path, im_bytes_format(size, sizeof size, used),
	    im_duration_format(since, sizeof since, im_now_ms() - f->free_ms), im_bytes_format(limit, sizeof limit, f->wal_limit));
	ret->alarm = f->alarm;
}

/* --- without a follower --- */

static int64_t modified_ms(int fd)
{
	struct stat st;
	return fd < 0 || fstat(fd, &st) ? 0 : (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
}

static int has_moved(const struct im_config_store *store, const json_t *position, bool *ret_moved, int64_t *ret_last_ms, struct im_error *err)
{
	struct walpos p;
	struct pin_files files;
	struct stat st;
	struct shm_head now;
	int rc = walpos_decode(position, &p, err);
	if (rc == 0)
		rc = pin_files_open(store->path, &files, err);
	if (rc)
		return rc;
	bool same_file = fstat(files.db, &st) == 0 && (uint64_t)st.st_dev == p.device && (uint64_t)st.st_ino == p.inode;
	bool same_commit = pin_files_shm(&files, &now) && walpos_same_generation(&p, now.salt) && now.max_frame == p.frame;
	if (walpos_is_blank(&p))
		same_commit = same_commit && p.changed_ns && p.changed_ns == walpos_changed_ns(files.db);
	*ret_moved = !same_file || !same_commit;
	int64_t db = modified_ms(files.db), wal = modified_ms(files.wal);
	*ret_last_ms = db > wal ? db : wal;
	pin_files_close(&files);
	return 0;
}

static int merge(const struct follow_source *bodies, size_t count, int (*part)(void *context, const void *data, size_t len, bool final, struct im_error *err), void *context, struct im_error *err)
{
	return logmerge_run(bodies, count, 0, UINT32_MAX, part, context, err);
}

const struct store_follow_ops sqlite_follow_ops = {
	.open = follower_open,
	.wait = follower_wait,
	.capture = follower_capture,
	.pending = follower_pending,
	.take = follower_take,
	.take_to = follower_take_to,
	.durable = follower_durable,
	.health = follower_health,
	.close = follower_close,
	.merge = merge,
	.moved = has_moved,
	.wanted = is_wanted,
};
