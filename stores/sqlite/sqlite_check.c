/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a restored database sound? SQLite's own check, then the probes recorded with the snapshot.
 */
#include "stores/sqlite/sqlite_rebuild.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "stores/sqlite/dbmanifest.h"
#include "stores/sqlite/probe.h"
#include "stores/sqlite/restored.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PROGRESS_STEPS 1000000
#define WARM_BYTES (4u << 20)

/*
 * SQLite walks its trees page by page; a restore may have written past the page cache. So a thread
 * reads ahead in file order. Its descriptor is closed after the connection is (POSIX locks).
 */
struct warmer {
	pthread_t thread;
	bool started;
	int fd;
	atomic_bool stop;
};

static void *warm_main(void *arg)
{
	struct warmer *w = arg;
	struct stat st;
	if (fstat(w->fd, &st))
		return NULL;
	for (off_t at = 0; at < st.st_size && !atomic_load(&w->stop); at += WARM_BYTES)
		readahead(w->fd, at, WARM_BYTES);
	return NULL;
}

static void warm_start(struct warmer *w, const char *path)
{
	w->fd = open(path, O_RDONLY | O_CLOEXEC);
	w->started = w->fd >= 0 && pthread_create(&w->thread, NULL, warm_main, w) == 0;
}

static void warm_end(struct warmer *w)
{
	atomic_store(&w->stop, true);
	if (w->started)
		pthread_join(w->thread, NULL);
	if (w->fd >= 0)
		close(w->fd);
}

static int interrupted(void *context)
{
	(void)context;
	return im_interrupt_signal() != 0;
}

static int run_check(sqlite3 *db, const char *path, const char *pragma, struct im_error *err)
{
	auto_free char *sql = im_format("PRAGMA %s(1)", pragma);
	sqlite3_stmt *q = NULL;
	if (!sql)
		return im_fail(err, IM_ENOMEM, "out of memory");
	sqlite3_progress_handler(db, PROGRESS_STEPS, interrupted, NULL);
	int step = sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK ? sqlite3_step(q) : sqlite3_errcode(db);
	const char *said = step == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : sqlite3_errmsg(db);
	int rc = 0;
	if (step == SQLITE_INTERRUPT && im_interrupt_signal())
		rc = im_interrupt_check(err);
	else if (step != SQLITE_ROW || !said || strcmp(said, "ok") != 0)
		rc = im_fail(err, IM_ECORRUPT, "%s of the restored %s: %s", pragma, path, said ? said : "no answer");
	sqlite3_finalize(q);
	sqlite3_progress_handler(db, 0, NULL, NULL);
	return rc;
}

/* What the probes proved, or "". With a log behind the image their figures have moved on. */
static char *probes_text(size_t count, bool log_laid)
{
	if (!count)
		return strdup("");
	if (log_laid)
		return im_format(", %zu probe%s ran (the log changed the database, so they were not compared)", count, count == 1 ? "" : "s");
	return im_format(", %zu probe%s equal", count, count == 1 ? "" : "s");
}

static int check_open(sqlite3 *db, const struct dbmanifest *m, bool log_laid, const char *path, const char *level, char **ret_text, struct im_error *err)
{
	const char *pragma = strcmp(level, "full") == 0 ? "integrity_check" : "quick_check";
	size_t probes = 0;
	int rc = run_check(db, path, pragma, err);
	if (rc == 0 && m->probes)
		rc = probe_compare(db, m->probes, log_laid, &probes, err);
	if (rc)
		return rc;
	auto_free char *text = probes_text(probes, log_laid);
	*ret_text = text ? im_format("%s ok%s", pragma, text) : NULL;
	return *ret_text ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

int sqlite_check(json_t *manifest, const char *path, const char *level, char **ret_text, struct im_error *err)
{
	struct dbmanifest m;
	struct stat st;
	sqlite3 *db = NULL;
	struct warmer warmer = { .fd = -1 };
	if (strcmp(level, "none") == 0) {
		*ret_text = strdup("not checked");
		return *ret_text ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	}
	int rc = dbmanifest_decode(manifest, &m, err);
	if (rc)
		return rc;
	if (stat(path, &st))
		rc = im_fail_errno(err, IM_EDIFFERENT, errno, "the restored %s is not there", path);
	else if (st.st_size == 0)
		rc = (*ret_text = strdup("empty")) ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	else
		rc = restored_open(path, &db, err);
	if (db)
		warm_start(&warmer, path);
	if (db)
		rc = check_open(db, &m, json_is_true(json_object_get(manifest, "log_laid")), path, level, ret_text, err);
	sqlite3_close(db);
	warm_end(&warmer);
	dbmanifest_clear(&m);
	return rc;
}
