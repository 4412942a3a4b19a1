/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opened as immutable, so that nothing is written and no -wal or -shm is left beside it; only with
 * a journal to roll back (a pause snapshot taken within a transaction) is it opened for writing.
 */
#include "stores/sqlite/restored.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool lies_beside(const char *path, const char *suffix)
{
	auto_free char *name = im_format("%s%s", path, suffix);
	struct stat st;
	return name && lstat(name, &st) == 0 && st.st_size > 0;
}

/* file:…?immutable=1 with what a URI must not hold escaped. */
static char *immutable_uri(const char *path)
{
	static const char digits[] = "0123456789ABCDEF";
	char *uri = malloc(3 * strlen(path) + 32), *at = uri;
	if (!uri)
		return NULL;
	at = stpcpy(at, "file:");
	for (const char *p = path; *p; p++) {
		if (*p == '%' || *p == '?' || *p == '#') {
			*at++ = '%';
			*at++ = digits[(unsigned char)*p >> 4];
			*at++ = digits[*p & 15];
		} else {
			*at++ = *p;
		}
	}
	strcpy(at, "?immutable=1");
	return uri;
}

int restored_open(const char *path, sqlite3 **ret, struct im_error *err)
{
	bool journal = lies_beside(path, "-journal");
	bool live = lies_beside(path, "-wal"); /* a service may have started on it already */
	int flags = journal ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY;
	auto_free char *uri = journal || live ? strdup(path) : immutable_uri(path);
	if (!uri)
		return im_fail(err, IM_ENOMEM, "out of memory");
	sqlite3 *db = NULL;
	if (sqlite3_open_v2(uri, &db, flags | (journal || live ? 0 : SQLITE_OPEN_URI), NULL) != SQLITE_OK) {
		im_fail(err, IM_EFAIL, "cannot open the restored %s: %s", path, db ? sqlite3_errmsg(db) : "out of memory");
		sqlite3_close(db);
		return IM_EFAIL;
	}
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_busy_timeout(db, 5000);
	sqlite3_exec(db, "PRAGMA cache_size=-32768", NULL, NULL, NULL);
	*ret = db;
	return 0;
}
