/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite store: which way a database may be read without harm to its server, and the vtable.
 */
#include "stores/sqlite/sqlite_store.h"

#include "base/clock.h"
#include "base/file.h"
#include "stores/sqlite/follow.h"
#include "stores/sqlite/live.h"
#include "stores/sqlite/pause.h"
#include "stores/sqlite/sqlite_rebuild.h"
#include "stores/sqlite/survey.h"

#include <stdlib.h>
#include <string.h>

static const char *const keys[] = { "probe", "pause", "pause_limit", "locking", "timeout", "follow", "wal_limit", NULL };

static int get_duration(const struct im_config_store *store, const char *key, const char *fallback, int64_t low_ms, int64_t high_ms, int64_t *ret, struct im_error *err)
{
	const char *text = im_config_get(store, key, fallback);
	int64_t ms;
	if (!im_duration_parse(text, &ms) || ms < low_ms || ms > high_ms)
		return im_fail(err, IM_EUSAGE, "store %s: %s = %s must be a duration from %lld ms to %lld s", store->name, key, text,
		    (long long)low_ms, (long long)high_ms / 1000);
	*ret = ms;
	return 0;
}

static int get_timeout(const struct im_config_store *store, int64_t *ret, struct im_error *err)
{
	return get_duration(store, "timeout", "5s", 1, 3600 * 1000, ret, err);
}

static int get_pause_limit(const struct im_config_store *store, int64_t *ret, struct im_error *err)
{
	return get_duration(store, "pause_limit", "200ms", 1, 60 * 1000, ret, err);
}

static int sqlite_validate(const struct im_config_store *store, struct im_error *err)
{
	int64_t ms;
	uint64_t bytes;
	const char *locking = im_config_get(store, "locking", NULL), *pause = im_config_get(store, "pause", NULL);
	const char *follow = im_config_get(store, "follow", "yes");
	if (strcmp(follow, "yes") != 0 && strcmp(follow, "no") != 0)
		return im_fail(err, IM_EUSAGE, "store %s: follow = %s must be yes or no", store->name, follow);
	if (locking && strcmp(locking, "shared") != 0)
		return im_fail(err, IM_EUSAGE, "store %s: locking = %s is unknown; the only value is shared", store->name, locking);
	if (locking && pause)
		return im_fail(err, IM_EUSAGE, "store %s: pause and locking exclude each other", store->name);
	if (!pause && im_config_get(store, "pause_limit", NULL))
		return im_fail(err, IM_EUSAGE, "store %s: pause_limit means nothing without pause", store->name);
	int rc = pause ? pause_validate(store->name, pause, err) : 0;
	if (rc == 0)
		rc = get_timeout(store, &ms, err);
	if (rc == 0)
		rc = get_pause_limit(store, &ms, err);
	return rc ? rc : follow_wal_limit(store, &bytes, err);
}

static int refuse(const struct im_config_store *store, struct im_error *err)
{
	return im_fail(err, IM_EFAIL,
	    "%s uses a rollback journal: a lock to read it would make a server that does not wait lose messages it acknowledges. "
	    "Best switch it to WAL, once, while the server is stopped: sqlite3 %s 'PRAGMA journal_mode=wal'. "
	    "Or set pause = PID-FILE (or a systemd unit) to stop the server for some milliseconds, or locking = shared if the server waits for locks",
	    store->path, store->path);
}

static int snapshot_files(const struct snapshot_request *request, const struct pin_files *files, bool *ret_done, enum pin_mode *ret_mode, bool *ret_pause, struct snapshot_result *ret, struct im_error *err)
{
	struct dbheader header;
	bool empty;
	*ret_done = false;
	*ret_pause = false;
	int rc = pin_files_header(files, &header, &empty, err);
	if (rc)
		return rc;
	if (empty) {
		*ret_done = true;
		return live_snapshot_empty(request, files, ret, err);
	}
	*ret_mode = header.wal ? PIN_WAL : PIN_SHARED;
	*ret_pause = !header.wal && im_config_get(request->store, "pause", NULL);
	if (!header.wal && !*ret_pause && !im_config_get(request->store, "locking", NULL))
		return refuse(request->store, err);
	if (!header.wal && pin_files_journal(files))
		return 0;
	return live_unchanged(request, files, ret_done, ret, err);
}

static int take_snapshot(const struct snapshot_request *request, struct snapshot_result *ret, struct im_error *err)
{
	const struct im_config_store *store = request->store;
	struct pin_files files;
	int64_t timeout_ms = 0, limit_ms = 0;
	enum pin_mode mode = PIN_WAL;
	bool done, pause;
	int rc = get_timeout(store, &timeout_ms, err);
	if (rc == 0)
		rc = get_pause_limit(store, &limit_ms, err);
	if (rc == 0)
		rc = pin_files_open(store->path, &files, err);
	if (rc)
		return rc;
	rc = snapshot_files(request, &files, &done, &mode, &pause, ret, err);
	pin_files_close(&files); /* no connection is open yet, so no lock is lost */
	if (rc || done)
		return rc;
	if (pause)
		return pause_snapshot(request, im_config_get(store, "pause", NULL), limit_ms, ret, err);
	return live_snapshot(request, mode, timeout_ms, ret, err);
}

/* With a follower: it stands still until it knows at which commit the image stands. */
static int sqlite_snapshot(const struct snapshot_request *request, struct snapshot_result *ret, struct im_error *err)
{
	struct snapshot_request mine = *request;
	struct snapshot_anchor *a = request->anchor;
	struct im_error why = { 0 };
	if (a && a->freeze(a, request->store->name, &why))
		mine.anchor = NULL; /* it does not follow this store */
	int rc = take_snapshot(&mine, ret, err);
	json_t *none = NULL;
	if (mine.anchor && (rc || !ret->log)) {
		a->pinned(a, request->store->name, NULL, &none, NULL); /* no commit was pinned: it goes on */
		json_decref(none);
	}
	return rc;
}

static void sqlite_own_files(const struct im_config_store *store, void (*fn)(void *context, const char *path), void *context)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
	char *real = realpath(store->path, NULL);
	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
		char *path = im_format("%s%s", store->path, suffixes[i]);
		char *behind = real && strcmp(real, store->path) != 0 ? im_format("%s%s", real, suffixes[i]) : NULL;
		if (path)
			fn(context, path);
		if (behind)
			fn(context, behind);
		free(path);
		free(behind);
	}
	free(real);
}

const struct store_ops sqlite_store_ops = {
	.type = "sqlite",
	.keys = keys,
	.validate = sqlite_validate,
	.snapshot = sqlite_snapshot,
	.plan = sqlite_rebuild_plan,
	.finish = sqlite_rebuild_finish,
	.check = sqlite_check,
	.export_tar = sqlite_export_tar,
	.own_files = sqlite_own_files,
	.survey = sqlite_survey,
	.follow = &sqlite_follow_ops,
	.explain = sqlite_explain,
};
