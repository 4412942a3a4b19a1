/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree follower's operations: attaching, batches, what an operator should know. Nothing is held
 * at the source: what files grew by while nobody followed is still in them.
 */
#include "stores/files/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "vault/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define ANCHOR_ROUNDS 3

static bool is_wanted(const struct im_config_store *store, const char **ret_why)
{
	*ret_why = NULL;
	return im_config_get(store, "follow", NULL) != NULL;
}

/* --- attaching --- */

static int open_root(struct follower *f, struct im_error *err)
{
	struct follow_look look;
	const char *path = f->store->path;
	f->root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->root_fd < 0 && errno == ENOTDIR)
		return im_fail(err, IM_EUSAGE, "%s is a single file: to follow it, give its folder a store with follow = its name", path);
	if (f->root_fd < 0)
		return im_fail_errno(err, errno == ENOENT ? IM_ENOTFOUND : IM_EIO, errno, "cannot open %s", path);
	if (!files_follow_look_fd(f->root_fd, &look))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat %s", path);
	f->state.root = look.ident;
	return 0;
}

static int prepare(struct follower *f, const struct follow_request *q, struct im_error *err)
{
	int rc = open_root(f, err);
	if (!rc)
		rc = files_exclude_init(&f->exclude, q->config, q->store, err);
	if (!rc)
		rc = files_exclude_init_key(&f->patterns, q->store, "follow", err);
	if (!rc)
		rc = files_log_writer_new(&f->writer, err);
	if (rc)
		return rc;
	f->folder = strdup(q->folder);
	f->disk = archive_read_disk_new();
	if (!f->disk || !f->folder)
		return im_fail(err, IM_ENOMEM, "out of memory");
	archive_read_disk_set_symlink_physical(f->disk);
	archive_read_disk_set_behavior(f->disk, ARCHIVE_READDISK_NO_SPARSE | ARCHIVE_READDISK_NO_FFLAGS);
	archive_read_disk_set_standard_lookup(f->disk);
	return files_follow_watch_open(f, err);
}

static int begin_anew(struct follower *f, struct im_error *err)
{
	f->state.complete_ms = f->seen_before_ms = im_now_ms();
	crypto_random(f->state.id, sizeof f->state.id);
	int rc = files_follow_scan(f, err);
	if (!rc)
		rc = files_follow_adopt_all(f, err);
	f->state.latest_ms = f->seen_after_ms = im_now_ms();
	return rc ? rc : files_follow_save(f, true, err);
}

static int go_on(struct follower *f, const struct follow_request *q, struct im_error *err)
{
	int rc = files_follow_load(f, q->position, q->point, err);
	f->seen_before_ms = f->state.complete_ms;
	f->seen_after_ms = f->state.latest_ms;
	f->rescan = f->tell_sizes = true;
	return rc;
}

static void follower_close(struct follower *f, bool hold)
{
	(void)hold;
	if (!f)
		return;
	files_follow_register(f, false);
	if (f->saved_is_old && !f->taken && !f->point_count && !f->open)
		files_follow_save(f, true, NULL); /* else bytes are captured twice */
	files_follow_watch_close(f);
	files_follow_drop_batch(f);
	files_log_writer_free(f->writer);
	for (size_t i = 0; i < f->file_count; i++)
		free(f->files[i].path);
	free(f->files);
	files_names_clear(&f->by_path);
	files_names_clear(&f->by_ident);
	files_names_clear(&f->told);
	im_buf_free(&f->free_rows);
	files_exclude_clear(&f->exclude);
	files_exclude_clear(&f->patterns);
	files_parent_close(&f->parent);
	archive_read_free(f->disk);
	if (f->root_fd >= 0)
		close(f->root_fd);
	free(f->folder);
	free(f);
}

static int follower_open(const struct follow_request *q, struct follower **ret, struct im_error *err)
{
	struct follower *f = calloc(1, sizeof *f);
	if (!f)
		return im_fail(err, IM_ENOMEM, "out of memory");
	f->store = q->store;
	f->events = q->events;
	f->root_fd = f->inotify = f->parent.fd = -1;
	int rc = prepare(f, q, err);
	if (!rc)
		rc = q->position ? go_on(f, q, err) : begin_anew(f, err);
	if (rc) {
		f->saved_is_old = false;
		follower_close(f, false);
		return rc;
	}
	files_follow_register(f, true);
	*ret = f;
	return 0;
}

/* --- batches --- */

static int follower_capture(struct follower *f, bool *ret_new, struct im_error *err)
{
	return files_follow_round(f, false, ret_new, err);
}

static size_t follower_pending(const struct follower *f)
{
	return f->more ? SIZE_MAX : f->point_count ? files_follow_batch_size(f) + 1 : 0;
}

static bool is_scan_due(const struct follower *f)
{
	int64_t rest = f->scan_took_ms * 1000; /* a thousandth of the time may go into it */
	rest = rest > FILES_FOLLOW_RESCAN_MS ? FILES_FOLLOW_RESCAN_MS : rest;
	return f->inotify < 0 || im_monotonic_ms() - f->scanned_ms > rest;
}

static int take(struct follower *f, bool heartbeat, struct follow_batch *ret, bool *ret_any, struct im_error *err)
{
	bool ignored;
	IM_CHECK(!f->taken);
	int rc = files_follow_round(f, heartbeat && is_scan_due(f), &ignored, err);
	if (!rc && !f->point_count && heartbeat)
		rc = files_follow_end_section(f, f->seen_before_ms, f->seen_after_ms, err);
	*ret_any = !rc && f->point_count;
	return *ret_any ? files_follow_hand_over(f, ret, err) : rc;
}

static int take_to(struct follower *f, const json_t *position, struct follow_batch *ret, struct im_error *err)
{
	bool any;
	int rc = 0;
	if (position && !json_is_true(json_object_get(position, "here")))
		return im_fail(err, IM_ENOTFOUND, "a tree is only anchored at what its follower has just seen");
	for (int i = 0; i < ANCHOR_ROUNDS && !rc && (!i || f->touched_count); i++) /* until no change is in the middle */
		rc = files_follow_round(f, false, &any, err);
	if (!rc)
		rc = take(f, true, ret, &any, err);
	if (!rc) { /* the image that is read from now on has them as they are by then */
		files_follow_adopt_lost(f);
		f->tell_sizes = true;
	}
	return rc;
}

static int follower_durable(struct follower *f, struct im_error *err)
{
	f->taken = f->more = false;
	return files_follow_save(f, false, err);
}

static void follower_health(struct follower *f, struct follow_health *ret)
{
	*ret = (struct follow_health){ 0 };
	if (!f->lost_count)
		return;
	const char *first = "";
	for (size_t i = 0; i < f->file_count; i++)
		if (f->files[i].path && f->files[i].lost) {
			first = f->files[i].path;
			break;
		}
	snprintf(f->alarm, sizeof f->alarm, "%zu file%s of %s %s not followed until the next snapshot, since %s changed otherwise than by growing (%.200s)",
	    f->lost_count, f->lost_count == 1 ? "" : "s", f->store->name, f->lost_count == 1 ? "is" : "are",
	    f->lost_count == 1 ? "it" : "they", first);
	ret->alarm = f->alarm;
}

const struct store_follow_ops files_follow_ops = {
	.open = follower_open,
	.wait = files_follow_watch_wait,
	.capture = follower_capture,
	.pending = follower_pending,
	.take = take,
	.take_to = take_to,
	.durable = follower_durable,
	.health = follower_health,
	.close = follower_close,
	.merge = files_follow_merge,
	.moved = files_follow_moved,
	.wanted = is_wanted,
};
