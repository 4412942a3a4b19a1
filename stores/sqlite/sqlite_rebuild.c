/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Planning a database's restore. The XOR of the hashes of all pages written must in the end equal the
 * snapshot's, or what the log makes of that.
 * A stale -wal beside the new file would be replayed into it by SQLite, so it is moved aside (never
 * deleted).
 */
#include "stores/sqlite/sqlite_rebuild.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "stores/sqlite/dbmanifest.h"
#include "stores/sqlite/logaudit.h"
#include "stores/sqlite/logoverlay.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES (1u << 20)
#define MADE_BYTES (256u << 10) /* pages that only the log has are made in ranges of this size */

struct plan {
	struct dbmanifest m;
	const struct rebuild *r;
	uint32_t pages;          /* of the restored database, as file_bytes and checksum: */
	uint64_t file_bytes;
	uint8_t checksum[CRYPTO_PAGE_HASH_BYTES];
	struct logoverlay *overlay; /* NULL: the image as it is, or a dry run */
	atomic_bool doubtful;    /* the log could not be laid over a page */
	uint8_t *page_key;
	char *db_path, *journal_path;
};

static void plan_free(struct plan *p)
{
	if (!p)
		return;
	logoverlay_free(p->overlay);
	dbmanifest_clear(&p->m);
	crypto_secret_free(p->page_key);
	free(p->db_path);
	free(p->journal_path);
	free(p);
}

static void add_pages(const struct plan *p, uint8_t sum[CRYPTO_PAGE_HASH_BYTES], uint64_t offset, const uint8_t *data, size_t len)
{
	for (size_t at = 0; at < len; at += p->m.page_size) {
		uint8_t hash[CRYPTO_PAGE_HASH_BYTES];
		crypto_page_hash(hash, p->page_key, data + at, p->m.page_size, (offset + at) / p->m.page_size);
		for (unsigned i = 0; i < sizeof hash; i++)
			sum[i] ^= hash[i];
	}
}

_Static_assert(CRYPTO_PAGE_HASH_BYTES == REBUILD_DIGEST_BYTES, "a range's digest is the XOR of its pages' hashes");

static bool digest_db(void *context, uint64_t offset, const uint8_t *data, size_t len, uint8_t ret[REBUILD_DIGEST_BYTES])
{
	const struct plan *p = context;
	if (offset % p->m.page_size || len % p->m.page_size)
		return false;
	memset(ret, 0, REBUILD_DIGEST_BYTES);
	add_pages(p, ret, offset, data, len);
	return true;
}

static int on_db_piece(void *context, unsigned worker, uint64_t offset, const uint8_t **data, size_t len, struct im_error *err)
{
	struct plan *p = context;
	uint32_t size = p->m.page_size;
	int rc = offset % size || len % size ? im_fail(err, IM_ECORRUPT, "a range of %s does not hold whole pages", p->m.path) :
	    logoverlay_apply(p->overlay, worker, (uint32_t)(offset / size), (uint32_t)(len / size), data, err);
	if (rc == IM_ECORRUPT)
		atomic_store(&p->doubtful, true);
	return rc;
}

/* Where to restore to when the log does not do what it should; allocated. */
static char *good_advice(const struct plan *p)
{
	struct logaudit found;
	struct im_error why = { 0 };
	char instant[IM_INSTANT_BYTES];
	unsigned long long seq = (unsigned long long)p->r->snapshot->seq;
	if (logaudit_run(p->r, &p->m, p->page_key, &found, &why))
		return im_format("the last good instant could not be found out: %s; --at %llu restores the snapshot without its log", why.text, seq);
	if (found.agrees)
		return im_format("each point of the log agrees with its own sum, so the snapshot is in doubt; --at %llu restores it without its log", seq);
	if (!found.any)
		return im_format("nothing of the log behind the snapshot is good; --at %llu restores the snapshot without it", seq);
	return im_format("the last good instant is %s: restore --at %s", im_instant_format(instant, found.good_ms), instant);
}

static int refuse_log(const struct plan *p, const char *what, struct im_error *err)
{
	auto_free char *advice = good_advice(p);
	return im_fail(err, IM_ECORRUPT, "%s: %s; %s", p->m.path, what, advice ? advice : "out of memory");
}

static int sum_file(const struct plan *p, int fd, uint8_t sum[CRYPTO_PAGE_HASH_BYTES], struct im_error *err)
{
	auto_free uint8_t *buffer = malloc(READ_BYTES);
	if (!buffer)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (uint64_t at = 0; at < p->file_bytes;) {
		uint64_t left = p->file_bytes - at;
		size_t want = left < READ_BYTES ? (size_t)left : READ_BYTES;
		ssize_t n = im_pread_full(fd, buffer, want, at, err, p->m.path);
		if (n < 0)
			return (int)n;
		if ((size_t)n < want)
			return im_fail(err, IM_ECORRUPT, "%s was restored too short", p->m.path);
		add_pages(p, sum, at, buffer, want);
		at += want;
	}
	return 0;
}

static int move_aside(int parent_fd, const char *name, const char *suffix, struct im_error *err)
{
	auto_free char *old = im_format("%s%s", name, suffix);
	auto_free char *aside = im_format("%s%s.before-restore-%lld", name, suffix, (long long)im_now_ms());
	if (!old || !aside)
		return im_fail(err, IM_ENOMEM, "out of memory");
	if (faccessat(parent_fd, old, F_OK, AT_SYMLINK_NOFOLLOW) && errno == ENOENT)
		return 0;
	if (renameat2(parent_fd, old, parent_fd, aside, RENAME_NOREPLACE))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot move the old %s aside (SQLite would apply it to the restored database)", old);
	return 0;
}

static int prove_db(void *context, int fd, const uint8_t *sum, struct im_error *err)
{
	struct plan *p = context;
	uint8_t own[CRYPTO_PAGE_HASH_BYTES] = { 0 };
	int rc = sum ? 0 : sum_file(p, fd, own, err);
	if (rc || memcmp(sum ? sum : own, p->checksum, sizeof own) == 0)
		return rc;
	return p->overlay ? refuse_log(p, "what was restored does not have the checksum the log arrives at", err) :
	                    im_fail(err, IM_ECORRUPT, "%s: what was restored does not have the snapshot's checksum", p->m.path);
}

static int finish_db(void *context, int fd, int parent_fd, const char *final_name, struct im_error *err)
{
	struct plan *p = context;
	(void)fd, (void)final_name; /* it may be a temporary one: what lies beside the database is named after the database */
	const char *name = strrchr(p->m.path, '/') + 1;
	int rc = move_aside(parent_fd, name, "-wal", err);
	if (rc == 0)
		rc = move_aside(parent_fd, name, "-shm", err);
	if (rc == 0 && !p->m.journal_count)
		rc = move_aside(parent_fd, name, "-journal", err);
	return rc;
}

static void set_owner(const struct dbmanifest *m, struct rebuild_file *file)
{
	struct passwd *user = m->user ? getpwnam(m->user) : NULL;
	file->uid = user ? user->pw_uid : m->uid;
	struct group *group = m->group ? getgrnam(m->group) : NULL;
	file->gid = group ? group->gr_gid : m->gid;
	file->mode = m->mode;
	file->mtime_ns = m->mtime_ns;
	file->set_owner = geteuid() == 0;
}

/* Declared before the database, so that it is there when the database appears. */
static int plan_journal(struct rebuild *r, struct plan *p, struct im_error *err)
{
	struct rebuild_file file = { .path = p->journal_path, .size_bytes = p->m.journal_bytes };
	uint32_t number;
	set_owner(&p->m, &file);
	int rc = r->file(r, &file, &number, err);
	uint64_t offset = 0;
	for (size_t i = 0; rc == 0 && i < p->m.journal_count; i++) {
		const struct im_ref *ref = &p->m.journal[i];
		rc = r->piece(r, number, offset, ref->plain, ENTRY_AUX, ref, 0, NULL, err);
		offset += ref->plain;
	}
	return rc;
}

/* Pages first … of the image, as far as they are still there; nothing is fetched of what the log replaces. */
static int plan_run(struct rebuild *r, struct plan *p, uint32_t first, const struct leafmap_run *run, uint32_t number, struct im_error *err)
{
	uint32_t size = p->m.page_size, count = p->pages - first < run->count ? p->pages - first : run->count;
	if (p->overlay && logoverlay_replaces(p->overlay, first, count))
		return r->made(r, number, (uint64_t)first * size, count * size, err);
	return r->piece(r, number, (uint64_t)first * size, count * size, ENTRY_EXTENT, &run->ref, (uint32_t)run->skip * size, NULL, err);
}

/* Pages the image does not have. */
static int plan_growth(struct rebuild *r, const struct plan *p, uint32_t number, struct im_error *err)
{
	uint32_t size = p->m.page_size, step = MADE_BYTES / size;
	int rc = 0;
	for (uint64_t first = p->m.pages; rc == 0 && first < p->pages; first += step) {
		uint32_t count = p->pages - first < step ? (uint32_t)(p->pages - first) : step;
		rc = r->made(r, number, first * size, count * size, err);
	}
	return rc;
}

static int plan_leaf(struct rebuild *r, struct plan *p, uint32_t leaf, uint32_t number, struct im_error *err)
{
	struct leafmap_list runs = { 0 };
	struct im_error why = { 0 };
	uint64_t first = (uint64_t)leaf * LEAFMAP_PAGES;
	int rc = dbmanifest_leaf(&p->m, r, leaf, &runs, &why);
	if (rc == IM_ECORRUPT || rc == IM_ENOTFOUND) {
		auto_free char *text = im_format("pages %llu-%llu of %s: their map cannot be read: %s", (unsigned long long)first + 1,
		    (unsigned long long)first + dbmanifest_leaf_pages(&p->m, leaf), p->m.path, why.text);
		r->damaged(r, text ? text : why.text);
		return 0;
	}
	if (rc)
		return im_fail(err, rc, "%s", why.text);
	for (size_t i = 0; rc == 0 && i < runs.count && first + runs.runs[i].first < p->pages; i++)
		rc = plan_run(r, p, (uint32_t)(first + runs.runs[i].first), &runs.runs[i], number, err);
	leafmap_clear(&runs);
	return rc;
}

static int plan_db(struct rebuild *r, struct plan *p, struct im_error *err)
{
	struct rebuild_file file = { .path = p->db_path, .size_bytes = p->file_bytes, .digest = digest_db, .prove = prove_db,
		.transform = r->log && r->log->body_count ? on_db_piece : NULL, .finish = finish_db, .context = p };
	uint32_t number;
	set_owner(&p->m, &file);
	int rc = r->file(r, &file, &number, err);
	for (uint32_t leaf = 0; rc == 0 && leaf < p->m.leaf_count && (uint64_t)leaf * LEAFMAP_PAGES < p->pages; leaf++)
		rc = plan_leaf(r, p, leaf, number, err);
	return rc ? rc : plan_growth(r, p, number, err);
}

/* The database at the log's end: its size, and the checksum it must have. */
static int aim(struct plan *p, const struct logbody_section *end, struct im_error *err)
{
	uint8_t anchor[CRYPTO_PAGE_HASH_BYTES];
	const char *sum = json_string_value(json_object_get(p->r->log->anchor, "sum"));
	if (!sum || !im_unhex(anchor, sizeof anchor, sum))
		return im_fail(err, IM_ECORRUPT, "the snapshot's place in the log of %s has no sum", p->m.path);
	for (unsigned i = 0; i < sizeof anchor; i++)
		p->checksum[i] ^= anchor[i] ^ end->sum[i];
	p->pages = end->pages;
	p->file_bytes = (uint64_t)end->pages * p->m.page_size;
	return 0;
}

static int take_log(struct rebuild *r, struct plan *p, struct im_error *err)
{
	struct logbody_section end;
	struct im_error why = { 0 };
	if (p->m.journal_count)
		return im_fail(err, IM_ECORRUPT, "the snapshot of %s has a rollback journal and a place in a log: only one can be right", p->m.path);
	if (r->root_fd < 0) {
		int rc = loglayer_target(r->log, p->m.page_size, &end, err);
		return rc ? rc : aim(p, &end, err);
	}
	int64_t start_us = im_monotonic_us();
	int rc = logoverlay_new(r, p->m.page_size, p->m.pages, &p->overlay, &why);
	rebuild_replayed(r, start_us);
	if (rc == IM_ECORRUPT)
		return refuse_log(p, why.text, err);
	return rc ? im_fail(err, rc, "%s", why.text) : aim(p, logoverlay_end(p->overlay), err);
}

static int prepare(struct rebuild *r, struct plan *p, struct im_error *err)
{
	int rc = dbmanifest_decode(r->manifest, &p->m, err);
	if (rc)
		return rc;
	p->r = r;
	p->pages = p->m.pages;
	p->file_bytes = p->m.file_bytes;
	memcpy(p->checksum, p->m.checksum, sizeof p->checksum);
	p->page_key = crypto_secret_new(CRYPTO_KEY_BYTES);
	p->db_path = strdup(p->m.path + 1);
	p->journal_path = im_format("%s-journal", p->m.path + 1);
	if (!p->page_key || !p->db_path || !p->journal_path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	return keyring_id_key(r->keyring, "imvault page v1", p->page_key, err);
}

int sqlite_rebuild_plan(struct rebuild *r, struct im_error *err)
{
	struct plan *p = calloc(1, sizeof *p);
	if (!p)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = prepare(r, p, err);
	bool wanted = rc == 0 && dbmanifest_wanted(&p->m, r->path_filter);
	r->log_taken = r->log != NULL;
	if (wanted && r->log && r->log->body_count)
		rc = take_log(r, p, err);
	if (wanted && rc == 0 && p->m.journal_count)
		rc = plan_journal(r, p, err);
	if (wanted && rc == 0)
		rc = plan_db(r, p, err);
	r->store_data = p; /* also after a failure: finish frees it */
	return rc;
}

int sqlite_rebuild_finish(struct rebuild *r, bool failed, struct im_error *err)
{
	struct plan *p = r->store_data;
	(void)err; /* owners, modes and times came with the files */
	if (p && !failed && atomic_load(&p->doubtful)) {
		auto_free char *advice = good_advice(p);
		r->damaged(r, advice ? advice : "the log could not be laid over the snapshot");
	}
	plan_free(p);
	r->store_data = NULL;
	return 0;
}
