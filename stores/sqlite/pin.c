/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pinning. Which commit a WAL reader sees is not told by SQLite's API (sqlite3_snapshot_get is not
 * compiled into Debian's library), so the -shm header is read before and after BEGIN: if it did
 * not change, it is the snapshot's.
 *
 * Where its pages are: if a checkpoint has written all of its frames to the database, then the
 * database alone is the image and stays so (as slot-0 readers we keep checkpoints out; as others
 * they may not pass our mark), and the WAL may be restarted under us, so it is not read. Otherwise
 * we hold a mark above 0: the WAL cannot be restarted, and pages that have frames come from it.
 */
#include "stores/sqlite/pin.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define JOURNAL_MAGIC "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"

static int open_beside(const char *path)
{
	return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

int pin_files_open(const char *path, struct pin_files *ret, struct im_error *err)
{
	struct pin_files f = { .db = -1, .wal = -1, .shm = -1 };
	f.path = realpath(path, NULL);
	if (!f.path)
		return im_fail_errno(err, errno == ENOENT || errno == ENOTDIR ? IM_ENOTFOUND : IM_EFAIL, errno,
		    "cannot find the database %s", path);
	f.wal_path = im_format("%s-wal", f.path);
	f.shm_path = im_format("%s-shm", f.path);
	f.journal_path = im_format("%s-journal", f.path);
	int rc = f.wal_path && f.shm_path && f.journal_path ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	struct stat st;
	if (rc == 0 && (f.db = open(f.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0)
		rc = im_fail_errno(err, IM_EFAIL, errno, "cannot open the database %s", path);
	if (rc == 0 && (fstat(f.db, &st) || !S_ISREG(st.st_mode)))
		rc = im_fail(err, IM_EFAIL, "%s is not a regular file", path);
	if (rc == 0) {
		f.wal = open_beside(f.wal_path);
		f.shm = open_beside(f.shm_path);
		*ret = f;
		return 0;
	}
	pin_files_close(&f);
	return rc;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void pin_files_close(struct pin_files *f)
{
	close_fd(&f->db);
	close_fd(&f->wal);
	close_fd(&f->shm);
	free(f->path);
	free(f->wal_path);
	free(f->shm_path);
	free(f->journal_path);
	*f = (struct pin_files){ .db = -1, .wal = -1, .shm = -1 };
}

int pin_files_header(const struct pin_files *f, struct dbheader *ret, bool *ret_empty, struct im_error *err)
{
	uint8_t data[DBHEADER_BYTES];
	ssize_t n = im_pread_full(f->db, data, sizeof data, 0, err, f->path);
	if (n < 0)
		return (int)n;
	*ret_empty = n == 0;
	if (n == 0)
		return 0;
	if (n < (ssize_t)sizeof data)
		return im_fail(err, IM_EFAIL, "%s is too short to be an SQLite database", f->path);
	return dbheader_decode(data, f->path, ret, err);
}

bool pin_files_shm(const struct pin_files *f, struct shm_head *ret)
{
	uint8_t data[SHM_HEAD_BYTES];
	for (int i = 0; i < 3; i++)
		if (f->shm >= 0 && im_pread_full(f->shm, data, sizeof data, 0, NULL, "-shm") == (ssize_t)sizeof data &&
		    shm_decode(data, ret))
			return true;
	return false;
}

bool pin_files_journal(const struct pin_files *f)
{
	auto_close int fd = open_beside(f->journal_path);
	uint8_t magic[8];
	return fd >= 0 && im_pread_full(fd, magic, sizeof magic, 0, NULL, "-journal") == 8 &&
	    memcmp(magic, JOURNAL_MAGIC, 8) == 0;
}

/* What SQLite's refusal means to the operator. */
static int fail_sqlite(const struct pin *p, int64_t timeout_ms, struct im_error *err)
{
	int code = sqlite3_errcode(p->db), extended = sqlite3_extended_errcode(p->db);
	const char *path = p->files.path;
	if (code == SQLITE_BUSY || code == SQLITE_LOCKED || code == SQLITE_PROTOCOL)
		return im_fail(err, IM_EFAIL,
		    "%s is locked by another process (EXCLUSIVE locking mode, or a long write transaction?): waited %lld ms; "
		    "end it, switch locking_mode to NORMAL, or raise timeout=",
		    path, (long long)timeout_ms);
	if (extended == SQLITE_READONLY_ROLLBACK || pin_files_journal(&p->files))
		return im_fail(err, IM_EFAIL,
		    "%s has a hot rollback journal: its server died in the middle of a transaction; start the server, or open "
		    "the database once with sqlite3, so that SQLite rolls it back (%s)",
		    path, sqlite3_errmsg(p->db));
	return im_fail(err, code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? IM_ECORRUPT : IM_EFAIL,
	    "cannot read %s: %s", path, sqlite3_errmsg(p->db));
}

static int connect_reader(struct pin *p, int64_t timeout_ms, struct im_error *err)
{
	int rc = sqlite3_open_v2(p->files.path, &p->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_FULLMUTEX, NULL);
	if (rc != SQLITE_OK)
		return im_fail(err, IM_EFAIL, "cannot open %s: %s", p->files.path,
		    p->db ? sqlite3_errmsg(p->db) : "out of memory");
	sqlite3_busy_timeout(p->db, (int)timeout_ms);
	sqlite3_db_config(p->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_db_config(p->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(p->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_wal_autocheckpoint(p->db, 0);
	sqlite3_exec(p->db, "PRAGMA query_only=1", NULL, NULL, NULL);
	return 0;
}

static int begin_read(struct pin *p, int64_t timeout_ms, struct im_error *err)
{
	if (sqlite3_exec(p->db, "BEGIN; SELECT 1 FROM sqlite_master LIMIT 1", NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	int rc = fail_sqlite(p, timeout_ms, err);
	sqlite3_exec(p->db, "ROLLBACK", NULL, NULL, NULL);
	return rc;
}

static int end_read(struct pin *p, struct im_error *err)
{
	if (sqlite3_exec(p->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	return im_fail(err, IM_EFAIL, "cannot end a read of %s: %s", p->files.path, sqlite3_errmsg(p->db));
}

static bool same_file(int fd, const char *path)
{
	struct stat a, b;
	return fd >= 0 && fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* The mode SQLite works in must be the one the header told. */
static int check_mode(struct pin *p, struct im_error *err)
{
	sqlite3_stmt *q = NULL;
	bool wal = false;
	if (sqlite3_prepare_v2(p->db, "PRAGMA main.journal_mode", -1, &q, NULL) == SQLITE_OK &&
	    sqlite3_step(q) == SQLITE_ROW) {
		const char *mode = (const char *)sqlite3_column_text(q, 0);
		wal = mode && strcmp(mode, "wal") == 0;
	}
	sqlite3_finalize(q);
	if (wal == (p->mode == PIN_WAL))
		return 0;
	return im_fail(err, IM_EFAIL, "the journal mode of %s changed while it was opened; try again", p->files.path);
}

/* The first read lets SQLite make or recover the -shm; only then are there files to look into. */
static int attach_wal_files(struct pin *p, int64_t timeout_ms, struct im_error *err)
{
	struct pin_files *f = &p->files;
	p->was_closed = f->wal < 0 && f->shm < 0;
	int rc = begin_read(p, timeout_ms, err);
	if (rc == 0)
		rc = check_mode(p, err);
	if (rc == 0)
		rc = end_read(p, err);
	if (rc)
		return rc;
	/* A descriptor of a file that is no longer the one in use stays open until the end, in place. */
	if (f->wal < 0)
		f->wal = open_beside(f->wal_path);
	if (f->shm < 0)
		f->shm = open_beside(f->shm_path);
	if (!same_file(f->db, f->path) || !same_file(f->wal, f->wal_path) || !same_file(f->shm, f->shm_path))
		return im_fail(err, IM_EFAIL, "%s or its -wal was replaced while it was opened; try again", f->path);
	if (access(f->shm_path, W_OK))
		return im_fail_errno(err, IM_EFAIL, errno,
		    "cannot mark %s as being read, which keeps the server from overwriting what is read: run as root or as "
		    "the server's user", f->shm_path);
	return 0;
}

/* Read on its own and before the head: a restart of the WAL changes the head first, so that a count
 * read before an unchanged head belongs to it. */
static uint32_t backfilled_now(const struct pin *p)
{
	uint32_t count = 0;
	return im_pread_full(p->files.shm, &count, sizeof count, 96, NULL, "-shm") == (ssize_t)sizeof count ? count : 0;
}

/* Begins a read whose -shm head is known for certain. */
static int pin_commit(struct pin *p, int64_t timeout_ms, struct im_error *err)
{
	int64_t deadline = im_monotonic_ms() + timeout_ms;
	for (unsigned attempt = 0;; attempt++) {
		struct shm_head before, after;
		bool known = pin_files_shm(&p->files, &before);
		p->instant_ms = im_now_ms();
		int rc = begin_read(p, timeout_ms, err);
		if (rc)
			return rc;
		uint32_t backfilled = backfilled_now(p);
		if (known && pin_files_shm(&p->files, &after) &&
		    memcmp(before.raw, after.raw, SHM_HEADER_BYTES) == 0) {
			p->shm = after;
			p->shm.backfilled = backfilled;
			return 0;
		}
		rc = end_read(p, err);
		if (rc)
			return rc;
		if (attempt > 20 && im_monotonic_ms() > deadline)
			return im_fail(err, IM_EFAIL, "%s is written so fast that no commit could be pinned within %lld ms; raise timeout=",
			    p->files.path, (long long)timeout_ms);
		if (attempt >= 20)
			im_sleep_ms(1);
	}
}

static ssize_t read_wal(void *context, void *ret, size_t len, uint64_t offset, struct im_error *err)
{
	struct pin *p = context;
	return im_pread_full(p->files.wal, ret, len, offset, err, p->files.wal_path);
}

static int learn_wal(struct pin *p, struct im_error *err)
{
	const struct shm_head *s = &p->shm;
	if (s->max_frame && s->page_size != p->header.page_size)
		return im_fail(err, IM_EFAIL, "the page size of %s changed while it was opened; try again", p->files.path);
	p->uses_wal = s->backfilled < s->max_frame;
	p->pages = s->pages ? s->pages : (uint32_t)((uint64_t)p->stat.st_size / p->header.page_size);
	if (!p->uses_wal)
		return 0;
	struct wal_expect expect = { .page_size = s->page_size, .max_frame = s->max_frame, .pages = s->pages,
		.frame_checksum = { s->frame_checksum[0], s->frame_checksum[1] } };
	memcpy(expect.salt, s->salt, sizeof expect.salt);
	return wal_load(read_wal, p, p->files.wal_path, &expect, &p->table, err);
}

static int learn_stat(struct pin *p, struct im_error *err)
{
	if (fstat(p->files.db, &p->stat))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat %s", p->files.path);
	return (uint64_t)p->stat.st_size / p->header.page_size > UINT32_MAX - 1 ?
	    im_fail(err, IM_EFAIL, "%s is larger than an SQLite database can be", p->files.path) : 0;
}

int pin_begin(struct pin *p, int64_t timeout_ms, struct im_error *err)
{
	if (!same_file(p->files.db, p->files.path) || !same_file(p->files.wal, p->files.wal_path) ||
	    !same_file(p->files.shm, p->files.shm_path))
		return im_fail(err, IM_EGAP, "%s or its -wal was replaced", p->files.path);
	return pin_commit(p, timeout_ms, err);
}

int pin_end(struct pin *p, struct im_error *err)
{
	return end_read(p, err);
}

static int pin_wal(struct pin *p, int64_t timeout_ms, struct im_error *err)
{
	int rc = attach_wal_files(p, timeout_ms, err);
	if (rc == 0)
		rc = pin_commit(p, timeout_ms, err);
	if (rc == 0)
		rc = learn_stat(p, err);
	return rc ? rc : learn_wal(p, err);
}

static int pin_shared(struct pin *p, int64_t timeout_ms, struct im_error *err)
{
	p->instant_ms = im_now_ms();
	int rc = begin_read(p, timeout_ms, err);
	if (rc == 0)
		rc = check_mode(p, err);
	bool empty = false;
	if (rc == 0)
		rc = pin_files_header(&p->files, &p->header, &empty, err);
	if (rc == 0 && (empty || !same_file(p->files.db, p->files.path)))
		rc = im_fail(err, IM_EFAIL, "%s was replaced while it was opened; try again", p->files.path);
	if (rc == 0)
		rc = learn_stat(p, err);
	if (rc == 0)
		p->pages = (uint32_t)((uint64_t)p->stat.st_size / p->header.page_size);
	return rc;
}

static int connect_pin(const char *path, enum pin_mode mode, int64_t timeout_ms, struct pin **ret, struct im_error *err)
{
	struct pin *p = calloc(1, sizeof *p);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory");
	p->files = (struct pin_files){ .db = -1, .wal = -1, .shm = -1 };
	p->mode = mode;
	bool empty = false;
	int rc = pin_files_open(path, &p->files, err);
	if (rc == 0)
		rc = pin_files_header(&p->files, &p->header, &empty, err);
	if (rc == 0 && empty)
		rc = im_fail(err, IM_EFAIL, "%s is empty", path);
	if (rc == 0)
		rc = connect_reader(p, timeout_ms, err);
	if (rc) {
		pin_close(p);
		return rc;
	}
	*ret = p;
	return 0;
}

int pin_connect(const char *path, int64_t timeout_ms, struct pin **ret, struct im_error *err)
{
	struct pin *p = NULL;
	int rc = connect_pin(path, PIN_WAL, timeout_ms, &p, err);
	if (rc == 0)
		rc = attach_wal_files(p, timeout_ms, err);
	if (rc) {
		pin_close(p);
		return rc;
	}
	*ret = p;
	return 0;
}

int pin_open(const char *path, enum pin_mode mode, int64_t timeout_ms, struct pin **ret, struct im_error *err)
{
	struct pin *p = NULL;
	int rc = connect_pin(path, mode, timeout_ms, &p, err);
	if (rc == 0)
		rc = mode == PIN_WAL ? pin_wal(p, timeout_ms, err) : pin_shared(p, timeout_ms, err);
	if (rc) {
		pin_close(p);
		return rc;
	}
	*ret = p;
	return 0;
}

/*
 * A lock that was lost unnoticed is the worst that can happen here, so look for what it would have
 * allowed: a restarted WAL, or a checkpoint past our commit.
 */
static bool still_protected(struct pin *p)
{
	struct shm_head now;
	if (p->mode == PIN_SHARED) {
		struct stat st;
		return fstat(p->files.db, &st) == 0 && st.st_size == p->stat.st_size &&
		    st.st_mtim.tv_sec == p->stat.st_mtim.tv_sec && st.st_mtim.tv_nsec == p->stat.st_mtim.tv_nsec;
	}
	for (int i = 0; i < 100 && !pin_files_shm(&p->files, &now); i++) {
		if (i == 99)
			return false;
		im_sleep_ms(1);
	}
	if (!same_file(p->files.wal, p->files.wal_path) || !same_file(p->files.shm, p->files.shm_path))
		return false;
	if (memcmp(now.salt, p->shm.salt, sizeof now.salt) == 0)
		return now.backfilled <= p->shm.max_frame;
	return !p->uses_wal && now.backfilled == 0;
}

int pin_verify(struct pin *p, struct im_error *err)
{
	if (still_protected(p))
		return 0;
	return im_fail(err, IM_EFAIL,
	    "%s changed under its read lock (another program ignores SQLite's locks, or closed the file within this process); "
	    "this image is thrown away", p->files.path);
}

void pin_close(struct pin *p)
{
	if (!p)
		return;
	if (p->db) {
		sqlite3_exec(p->db, "ROLLBACK", NULL, NULL, NULL);
		IM_CHECK(sqlite3_close(p->db) == SQLITE_OK);
	}
	wal_table_clear(&p->table);
	pin_files_close(&p->files);
	free(p);
}
