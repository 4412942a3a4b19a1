/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots with a pause. Pass 1 copies and hashes every page while the server runs; pages may be
 * torn or from different instants, which does not matter: whatever is not exactly as it was read
 * when the server stands still is read again then. If nobody wrote during pass 1, no pause is needed.
 *
 * A pause that misses its deadline is given up and the server let go; what was found is stored
 * without a pause, and another one is tried.
 */
#include "stores/sqlite/pause.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "stores/sqlite/compare.h"
#include "stores/sqlite/dbmanifest.h"
#include "stores/sqlite/guard.h"
#include "stores/sqlite/live.h"
#include "stores/sqlite/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define ATTEMPTS 3
#define PAUSE_NICE (-20)
#define JOURNAL_MAX_BYTES (64u << 20)
#define QUIET_NS INT64_C(2000000000)
#define JOURNAL_MAGIC "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"

struct pausing {
	const struct snapshot_request *request;
	const char *who;
	int64_t limit_us;
	struct pin_files files;
	struct dbheader header;
	struct image *image;
	struct compare *compare;
	struct fasthash_key key;
	uint64_t *fast;
	uint32_t pages;          /* of the image so far; fast has as many */
	/* how the files were at the instant of the image */
	struct stat stat;
	uint8_t fingerprint[CRYPTO_HASH_BYTES];
	bool racy;
	int64_t instant_ms, pause_us;
	uint8_t *journal;
	size_t journal_bytes;
};

int pause_validate(const char *store, const char *who, struct im_error *err)
{
	return procs_validate(store, who, err);
}

/* Size, times and change counter now. */
static int look(struct pausing *p, struct stat *ret_stat, struct dbheader *ret_header, struct im_error *err)
{
	bool empty;
	if (fstat(p->files.db, ret_stat))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat %s", p->files.path);
	int rc = pin_files_header(&p->files, ret_header, &empty, err);
	if (rc)
		return rc;
	if (empty || (uint64_t)ret_stat->st_size / ret_header->page_size >= UINT32_MAX)
		return im_fail(err, IM_EFAIL, "the size of %s is impossible now", p->files.path);
	return 0;
}

static bool same_times(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	    a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int resize_fast(struct pausing *p, uint32_t pages, struct im_error *err)
{
	uint64_t *fast = realloc(p->fast, ((size_t)pages + 1) * sizeof *fast);
	if (!fast)
		return im_fail(err, IM_ENOMEM, "out of memory");
	p->fast = fast;
	p->pages = pages;
	return 0;
}

static int first_pass(struct pausing *p, struct im_error *err)
{
	uint32_t pages = (uint32_t)((uint64_t)p->stat.st_size / p->header.page_size);
	struct source source = { .page_size = p->header.page_size, .pages = pages, .path = p->files.path, .db = p->files.db,
		.wal = -1, .moving = true };
	crypto_random(&p->key, sizeof p->key);
	int rc = resize_fast(p, pages, err);
	if (rc == 0)
		rc = image_new(p->request, p->header.page_size, &p->image, err);
	if (rc)
		return rc;
	image_set_fast(p->image, p->fast, &p->key);
	return image_add(p->image, &source, err);
}

/* Nobody wrote since well before the first pass, and no transaction is open: the copy is an image as it is. */
static bool was_quiet(struct pausing *p, int64_t began_ms)
{
	struct stat st;
	struct dbheader header;
	int64_t mtime_ns = (int64_t)p->stat.st_mtim.tv_sec * 1000000000 + p->stat.st_mtim.tv_nsec;
	return mtime_ns < began_ms * 1000000 - QUIET_NS && look(p, &st, &header, NULL) == 0 && same_times(&st, &p->stat) &&
	    header.change_counter == p->header.change_counter && !pin_files_journal(&p->files);
}

/* Takes the journal if a transaction is open. IM_EMISSED: try another moment. */
static int copy_journal(struct pausing *p, struct im_error *err)
{
	p->journal_bytes = 0;
	auto_close int fd = open(p->files.journal_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	if (fd < 0)
		return errno == ENOENT ? 0 : im_fail_errno(err, IM_EFAIL, errno, "cannot open %s", p->files.journal_path);
	if (fstat(fd, &st))
		return im_fail_errno(err, IM_EIO, errno, "cannot stat %s", p->files.journal_path);
	if (!pin_files_journal(&p->files))
		return 0; /* empty, or of a transaction that ended */
	if ((uint64_t)st.st_size > JOURNAL_MAX_BYTES)
		return im_fail(err, IM_EMISSED, "the transaction in progress has a journal of %lld MB", (long long)st.st_size >> 20);
	ssize_t n = im_pread_full(fd, p->journal, (size_t)st.st_size, 0, err, p->files.journal_path);
	if (n < 0)
		return (int)n;
	if (n >= 8 && memcmp(p->journal + n - 8, JOURNAL_MAGIC, 8) == 0)
		return im_fail(err, IM_EMISSED, "a transaction over several databases is being committed");
	p->journal_bytes = (size_t)n;
	return 0;
}

/* While the server stands still. */
static int look_again(struct pausing *p, int64_t deadline_us, uint32_t *ret_pages, struct im_error *err)
{
	struct stat st;
	struct dbheader header;
	p->instant_ms = im_now_ms();
	int rc = look(p, &st, &header, err);
	if (rc == 0 && (header.wal || header.page_size != p->header.page_size))
		rc = im_fail(err, IM_EFAIL, "the form of %s changed while it was read; try again", p->files.path);
	if (rc == 0)
		rc = copy_journal(p, err);
	if (rc)
		return rc;
	bool told = remember_fingerprint(&p->files, NULL, p->request->store, p->fingerprint, &p->racy);
	p->racy = p->racy || !told || p->journal_bytes;
	p->stat = st;
	*ret_pages = (uint32_t)((uint64_t)st.st_size / p->header.page_size);
	enum compare_end end;
	rc = compare_run(p->compare, p->files.db, p->files.path, *ret_pages, p->fast, p->pages, &p->key, deadline_us, &end, err);
	if (rc == 0 && end == COMPARE_LATE)
		rc = im_fail(err, IM_EMISSED, "comparing %lld MB took longer", (long long)st.st_size / 1000000);
	if (rc == 0 && end == COMPARE_FULL)
		rc = im_fail(err, IM_EMISSED, "more than %u MB changed since the last pass", COMPARE_ROOM_BYTES >> 20);
	return rc;
}

/* The image now has `pages` pages; the comparison's changes among them are stored. */
static int store_changes(struct pausing *p, uint32_t pages, struct im_error *err)
{
	size_t count;
	const struct image_page *changed = compare_pages(p->compare, &count);
	while (count && changed[count - 1].number >= pages)
		count--;
	int rc = resize_fast(p, pages, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < count; i++)
		p->fast[changed[i].number] = fasthash(&p->key, changed[i].content, p->header.page_size);
	return image_patch(p->image, pages, changed, count, err);
}

/* When there was no room for all changes: as far as the appended pages are there without a gap. */
static uint32_t known_pages(struct pausing *p, uint32_t pages)
{
	size_t count;
	const struct image_page *changed = compare_pages(p->compare, &count);
	uint32_t known = p->pages < pages ? p->pages : pages;
	for (size_t i = 0; i < count; i++)
		known += changed[i].number == known && known < pages;
	return known;
}

/* Without a pause: stores what changed meanwhile, so that less is left for the next one. */
static int catch_up(struct pausing *p, struct im_error *err)
{
	for (int round = 0; round < 8; round++) {
		struct stat st;
		struct dbheader header;
		enum compare_end end;
		int rc = look(p, &st, &header, err);
		if (rc)
			return rc;
		uint32_t pages = (uint32_t)((uint64_t)st.st_size / p->header.page_size);
		rc = compare_run(p->compare, p->files.db, p->files.path, pages, p->fast, p->pages, &p->key, 0, &end, err);
		if (rc == 0)
			rc = store_changes(p, end == COMPARE_FULL ? known_pages(p, pages) : pages, err);
		if (rc || end == COMPARE_DONE)
			return rc;
	}
	return 0;
}

/* One pause. IM_EMISSED: it was in vain, but another may succeed. */
static int pause_once(struct pausing *p, struct im_error *err)
{
	struct procs procs = { 0 };
	struct guard *guard = NULL;
	uint32_t pages = 0;
	bool in_time;
	int64_t pause_us;
	int rc = procs_find(p->who, &procs, err);
	/* This thread, and the guard and the helper it starts, go first while somebody waits. Not allowed to all: then without. */
	int nice_before = getpriority(PRIO_PROCESS, 0);
	setpriority(PRIO_PROCESS, 0, PAUSE_NICE);
	int64_t deadline_us = 0;
	if (rc == 0)
		rc = guard_stop(procs.pids, procs.count, p->limit_us, &guard, &deadline_us, err);
	procs_clear(&procs);
	if (rc) {
		setpriority(PRIO_PROCESS, 0, nice_before);
		return rc;
	}
	rc = look_again(p, deadline_us, &pages, err);
	guard_release(guard, &in_time, &pause_us);
	setpriority(PRIO_PROCESS, 0, nice_before);
	if (pause_us > p->pause_us)
		p->pause_us = pause_us;
	if (rc == 0 && !in_time)
		rc = im_fail(err, IM_EMISSED, "the server went on before everything was compared");
	if (rc == 0)
		rc = im_interrupt_check(err);
	return rc ? rc : store_changes(p, pages, err);
}

static int pause_until_done(struct pausing *p, struct im_error *err)
{
	struct im_error why = { 0 };
	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		im_error_clear(&why);
		int rc = im_interrupt_check(err);
		if (rc == 0 && attempt)
			rc = catch_up(p, err);
		if (rc)
			return rc;
		rc = pause_once(p, &why);
		if (rc != IM_EMISSED)
			return rc ? im_fail(err, rc, "%s", why.text) : 0;
	}
	return im_fail(err, IM_EFAIL,
	    "%s: %d pauses of at most %lld ms were not enough (%s); raise pause_limit=, or switch the database to WAL, which needs no pause",
	    p->request->store->path, ATTEMPTS, (long long)p->limit_us / 1000, why.text);
}

static int describe(struct pausing *p, struct snapshot_result *ret, struct im_error *err)
{
	json_t *manifest;
	auto_buf struct im_buf refs = { 0 };
	int rc = dbmanifest_new(p->request->store, &p->stat, false, "pause", &manifest, err);
	if (rc)
		return rc;
	/* Probes would need a lock. */
	rc = json_object_set_new(manifest, "probes", json_array()) ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
	if (rc == 0 && p->journal_bytes) {
		rc = image_add_journal(p->image, p->journal, p->journal_bytes, &refs, err);
		auto_free char *text = rc ? NULL : im_base64(refs.data, refs.len);
		if (rc == 0 && (!text || json_object_set_new(manifest, "journal", json_string(text)) ||
		                   json_object_set_new(manifest, "journal_bytes", json_integer((json_int_t)p->journal_bytes))))
			rc = im_fail(err, IM_ENOMEM, "out of memory");
	}
	if (rc) {
		json_decref(manifest);
		return rc;
	}
	ret->instant_ms = p->instant_ms;
	ret->pause_us = p->pause_us;
	return live_conclude(p->image, p->fingerprint, p->racy, manifest, ret, err);
}

static int run(struct pausing *p, struct snapshot_result *ret, struct im_error *err)
{
	struct procs procs = { 0 };
	int rc = pin_files_open(p->request->store->path, &p->files, err);
	if (rc == 0)
		rc = procs_find(p->who, &procs, err);
	if (rc == 0)
		rc = procs_check_owner(&procs, p->files.db, p->files.path, p->who, err);
	procs_clear(&procs);
	p->instant_ms = im_now_ms();
	if (rc == 0)
		rc = look(p, &p->stat, &p->header, err);
	if (rc == 0 && !remember_fingerprint(&p->files, NULL, p->request->store, p->fingerprint, &p->racy))
		p->racy = true;
	int64_t began_ms = p->instant_ms;
	if (rc == 0)
		rc = first_pass(p, err);
	if (rc == 0)
		rc = compare_new(p->header.page_size, &p->compare, err);
	if (rc == 0 && !was_quiet(p, began_ms))
		rc = pause_until_done(p, err);
	return rc ? rc : describe(p, ret, err);
}

int pause_snapshot(const struct snapshot_request *request, const char *who, int64_t limit_ms, struct snapshot_result *ret, struct im_error *err)
{
	struct pausing p = { .request = request, .who = who, .limit_us = limit_ms * 1000, .files = { .db = -1, .wal = -1, .shm = -1 } };
	struct snapshot_result result = { 0 };
	p.journal = mmap(NULL, JOURNAL_MAX_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p.journal == MAP_FAILED)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = run(&p, &result, err);
	image_free(p.image);
	compare_free(p.compare);
	free(p.fast);
	pin_files_close(&p.files);
	munmap(p.journal, JOURNAL_MAX_BYTES);
	if (rc == 0)
		*ret = result;
	return rc;
}
