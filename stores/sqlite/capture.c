/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capturing. Why a page's content before the change can still be read: a checkpoint may not pass
 * the protecting pin, so a page without a frame up to the captured commit is in the file as it was
 * then, and one with a frame is taken from that frame. The change is complete when its last frame
 * ends the commit that was pinned, every new page came with a frame, and the chained checksum is the pinned one.
 */
#include "stores/sqlite/capture.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int capture_open(const char *path, const struct keyring *k, struct capture *ret, struct im_error *err)
{
	struct capture c = { 0 };
	int rc = pin_files_open(path, &c.files, err);
	if (rc)
		return rc;
	c.page_key = crypto_secret_new(CRYPTO_KEY_BYTES);
	c.base = malloc(65536);
	c.content = malloc(65536);
	if (!c.page_key || !c.base || !c.content)
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0)
		rc = keyring_id_key(k, "imvault page v1", c.page_key, err);
	if (rc) {
		capture_close(&c);
		return rc;
	}
	*ret = c;
	return 0;
}

void capture_close(struct capture *c)
{
	pin_files_close(&c->files);
	crypto_secret_free(c->page_key);
	wal_table_clear(&c->index);
	free(c->base);
	free(c->content);
	*c = (struct capture){ .files = { .db = -1, .wal = -1, .shm = -1 } };
}

uint32_t capture_pages_in_file(const struct capture *c, uint32_t page_size)
{
	struct stat st;
	return fstat(c->files.db, &st) == 0 && page_size ? (uint32_t)((uint64_t)st.st_size / page_size) : 0;
}

static ssize_t read_wal(void *context, void *ret, size_t len, uint64_t offset, struct im_error *err)
{
	struct capture *c = context;
	return im_pread_full(c->files.wal, ret, len, offset, err, c->files.wal_path);
}

/* The WAL does not hold what the pins promised: whatever the reason, what was committed may be lost to us. */
static int gap(const struct capture *c, const struct im_error *why, struct im_error *err)
{
	return im_fail(err, IM_EGAP, "the WAL of %s does not go on where it was captured: %s", c->files.path, why->text);
}

struct scan {
	struct wal_table table;
	size_t room;
	uint64_t commits;
};

static int scan_frame(void *context, uint32_t frame, uint32_t page, uint32_t commit_pages, struct im_error *err)
{
	struct scan *s = context;
	s->commits += commit_pages != 0;
	return wal_table_add(&s->table, &s->room, page, frame, err);
}

static int is_gap(int rc)
{
	return rc == IM_ECORRUPT || rc == IM_EIO;
}

/* Reads frames up to mark, which must be the pinned commit. */
static int scan_to(struct capture *c, const struct walpos *mark, struct scan *s, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = 0;
	if (!c->has_cursor)
		rc = wal_cursor_start(read_wal, c, c->files.wal_path, mark->page_size, mark->salt, &c->cursor, &why);
	if (rc == 0)
		rc = wal_cursor_advance(&c->cursor, read_wal, c, c->files.wal_path, mark->frame, scan_frame, s, &why);
	if (rc)
		return is_gap(rc) ? gap(c, &why, err) : im_fail(err, rc, "%s", why.text);
	c->has_cursor = true;
	if (memcmp(c->cursor.frame_checksum, mark->frame_checksum, sizeof c->cursor.frame_checksum) != 0 ||
	    (c->cursor.commit_pages != mark->pages))
		return im_fail(err, IM_EGAP, "frame %u of the WAL of %s is not the commit that was pinned", mark->frame, c->files.path);
	wal_table_sort(&s->table);
	return 0;
}

int capture_begin(struct capture *c, const struct walpos *at, struct im_error *err)
{
	struct scan s = { 0 };
	wal_table_clear(&c->index);
	c->at = *at;
	c->has_cursor = false;
	struct shm_head now;
	if (!at->frame || (pin_files_shm(&c->files, &now) && !walpos_same_generation(at, now.salt)))
		return 0; /* what is in the WAL comes after it */
	int rc = scan_to(c, at, &s, err);
	if (rc) {
		wal_table_clear(&s.table);
		return rc;
	}
	c->index = s.table;
	return 0;
}

int capture_distance(const struct capture *c, const struct walpos *mark, bool may_restart, uint32_t *ret_frames, bool *ret_new_generation, struct im_error *err)
{
	const struct walpos *at = &c->at;
	*ret_new_generation = false;
	if (mark->page_size != at->page_size && (mark->page_size || mark->frame))
		return im_fail(err, IM_EGAP, "the page size of %s changed", c->files.path);
	if (walpos_same_generation(at, mark->salt)) {
		if (mark->frame < at->frame)
			return im_fail(err, IM_EGAP, "the WAL of %s went back from frame %u to %u", c->files.path, at->frame, mark->frame);
		*ret_frames = mark->frame - at->frame;
		return 0;
	}
	*ret_new_generation = true;
	*ret_frames = mark->frame;
	/* An empty WAL may begin with any salts. */
	if (may_restart && (at->frame == 0 || walpos_salt_follows(at->salt, mark->salt)))
		return 0;
	return im_fail(err, IM_EGAP, may_restart ? "the WAL of %s was restarted more than once behind our back" :
	    "the WAL of %s was restarted although a read lock was held (another program ignores SQLite's locks)", c->files.path);
}

struct commits { /* seen on the way */
	uint32_t max_frame;          /* wanted at most */
	uint32_t frame, pages;       /* the last one up to max_frame, else the first one behind it; 0: none yet */
};

static int note_commit(void *context, uint32_t frame, uint32_t page, uint32_t commit_pages, struct im_error *err)
{
	struct commits *s = context;
	(void)page, (void)err;
	if (commit_pages && (frame <= s->max_frame || !s->frame)) {
		s->frame = frame;
		s->pages = commit_pages;
	}
	return 0;
}

int capture_step(struct capture *c, const struct walpos *mark, uint32_t max_frames, struct walpos *ret, struct im_error *err)
{
	struct im_error why = { 0 };
	struct wal_cursor start = c->cursor;
	int rc = 0;
	if (!c->has_cursor || !walpos_same_generation(&c->at, mark->salt))
		rc = wal_cursor_start(read_wal, c, c->files.wal_path, mark->page_size, mark->salt, &start, &why);
	struct wal_cursor ahead = start;
	struct commits s = { .max_frame = start.frame + max_frames };
	while (rc == 0 && ahead.frame < mark->frame && !(s.frame && ahead.frame >= s.max_frame)) {
		uint32_t left = mark->frame - ahead.frame;
		rc = wal_cursor_advance(&ahead, read_wal, c, c->files.wal_path, ahead.frame + (left < max_frames ? left : max_frames), note_commit, &s, &why);
	}
	if (rc == 0)
		rc = wal_cursor_advance(&start, read_wal, c, c->files.wal_path, s.frame, NULL, NULL, &why);
	if (rc)
		return is_gap(rc) ? gap(c, &why, err) : im_fail(err, rc, "%s", why.text);
	*ret = *mark;
	if (s.frame) {
		ret->frame = s.frame;
		ret->pages = s.pages;
		memcpy(ret->frame_checksum, start.frame_checksum, sizeof ret->frame_checksum);
	}
	return 0;
}

/* The content of a page (from 1) at the captured commit. */
static int read_base(struct capture *c, uint32_t number, struct im_error *err)
{
	uint32_t size = c->at.page_size, frame = wal_table_frame(&c->index, number);
	uint64_t offset = frame ? wal_frame_offset(size, frame) : (uint64_t)(number - 1) * size;
	ssize_t n = im_pread_full(frame ? c->files.wal : c->files.db, c->base, size, offset, err, frame ? c->files.wal_path : c->files.path);
	if (n < 0)
		return (int)n;
	if ((size_t)n == size)
		return 0;
	if (dbheader_lock_page(size, c->at.pages) != number - 1)
		return im_fail(err, IM_EGAP, "page %u of %s is neither in the file nor in the WAL", number, c->files.path);
	memset(c->base + n, 0, size - (size_t)n);
	return 0;
}

static void add_hash(struct capture *c, uint8_t sum[CRYPTO_PAGE_HASH_BYTES], const uint8_t *page, uint32_t number)
{
	uint8_t hash[CRYPTO_PAGE_HASH_BYTES];
	crypto_page_hash(hash, c->page_key, page, c->at.page_size, (uint64_t)number - 1);
	for (unsigned i = 0; i < sizeof hash; i++)
		sum[i] ^= hash[i];
}

/* content holds the page's new content. */
static int take_page(struct capture *c, uint32_t number, uint8_t sum[CRYPTO_PAGE_HASH_BYTES], capture_page_fn *fn, void *context, struct im_error *err)
{
	bool existed = number <= c->at.pages;
	int rc = existed ? read_base(c, number, err) : 0;
	if (rc)
		return rc;
	if (existed && memcmp(c->base, c->content, c->at.page_size) == 0)
		return 0;
	if (existed)
		add_hash(c, sum, c->base, number);
	add_hash(c, sum, c->content, number);
	return fn(context, number - 1, existed ? c->base : NULL, c->content, err);
}

/* New pages without a frame: only the one that SQLite never uses. */
static int take_lock_page(struct capture *c, const struct walpos *mark, uint32_t number, uint8_t sum[CRYPTO_PAGE_HASH_BYTES], capture_page_fn *fn, void *context, struct im_error *err)
{
	if (dbheader_lock_page(mark->page_size, mark->pages) != number - 1)
		return im_fail(err, IM_EGAP, "page %u of %s came into being without a frame in its WAL", number, c->files.path);
	memset(c->content, 0, mark->page_size);
	return take_page(c, number, sum, fn, context, err);
}

static int take_frames(struct capture *c, const struct walpos *mark, const struct wal_table *changed, uint8_t sum[CRYPTO_PAGE_HASH_BYTES], capture_page_fn *fn, void *context, struct im_error *err)
{
	uint32_t expected = c->at.pages + 1; /* the next new page */
	for (size_t i = 0; i < changed->count; i++) {
		uint32_t number = (uint32_t)(changed->items[i] >> 32), frame = (uint32_t)changed->items[i];
		if (number > mark->pages)
			break;
		int rc = 0;
		for (; rc == 0 && number > c->at.pages && expected < number; expected++)
			rc = take_lock_page(c, mark, expected, sum, fn, context, err);
		if (rc)
			return rc;
		if (number > c->at.pages)
			expected = number + 1;
		ssize_t n = im_pread_full(c->files.wal, c->content, mark->page_size, wal_frame_offset(mark->page_size, frame), err, c->files.wal_path);
		if (n < 0)
			return (int)n;
		if ((size_t)n < mark->page_size)
			return im_fail(err, IM_EGAP, "the WAL of %s ends within frame %u", c->files.path, frame);
		rc = take_page(c, number, sum, fn, context, err);
		if (rc)
			return rc;
	}
	int rc = 0;
	for (; rc == 0 && expected <= mark->pages; expected++)
		rc = take_lock_page(c, mark, expected, sum, fn, context, err);
	return rc;
}

static int drop_vanished(struct capture *c, const struct walpos *mark, uint8_t sum[CRYPTO_PAGE_HASH_BYTES], struct im_error *err)
{
	for (uint32_t number = mark->pages + 1; number <= c->at.pages; number++) {
		int rc = read_base(c, number, err);
		if (rc)
			return rc;
		add_hash(c, sum, c->base, number);
	}
	return 0;
}

/* Both ascending by page; the newer frame wins. */
static int join_index(struct capture *c, const struct wal_table *changed, struct im_error *err)
{
	const struct wal_table *old = &c->index;
	size_t count = old->count + changed->count, n = 0;
	uint64_t *items = malloc((count ? count : 1) * sizeof *items);
	if (!items)
		return im_fail(err, IM_ENOMEM, "out of memory for the pages of a write-ahead log");
	for (size_t i = 0, j = 0; i < old->count || j < changed->count;) {
		uint64_t x = i < old->count ? old->items[i] >> 32 : UINT64_MAX, y = j < changed->count ? changed->items[j] >> 32 : UINT64_MAX;
		items[n++] = y <= x ? changed->items[j] : old->items[i];
		i += x <= y;
		j += y <= x;
	}
	free(c->index.items);
	c->index = (struct wal_table){ items, n };
	return 0;
}

static int capture_scanned(struct capture *c, const struct walpos *mark, const struct scan *s, capture_page_fn *fn, void *context, struct im_error *err)
{
	uint8_t sum[CRYPTO_PAGE_HASH_BYTES];
	memcpy(sum, c->at.sum, sizeof sum);
	int rc = take_frames(c, mark, &s->table, sum, fn, context, err);
	if (rc == 0)
		rc = drop_vanished(c, mark, sum, err);
	if (rc == 0)
		rc = join_index(c, &s->table, err);
	if (rc)
		return rc;
	uint64_t device = c->at.device, inode = c->at.inode;
	c->at = *mark;
	c->at.device = device;
	c->at.inode = inode;
	memcpy(c->at.sum, sum, sizeof sum);
	return 0;
}

int capture_to(struct capture *c, const struct walpos *mark, bool may_restart, capture_page_fn *fn, void *context, uint64_t *ret_commits, struct im_error *err)
{
	uint32_t frames;
	bool fresh;
	struct scan s = { 0 };
	*ret_commits = 0;
	int rc = capture_distance(c, mark, may_restart, &frames, &fresh, err);
	if (rc)
		return rc;
	if (fresh) {
		wal_table_clear(&c->index);
		c->has_cursor = false;
		memcpy(c->at.salt, mark->salt, sizeof c->at.salt);
		c->at.frame = 0;
	}
	if (!frames)
		return 0;
	rc = scan_to(c, mark, &s, err);
	if (rc == 0)
		rc = capture_scanned(c, mark, &s, fn, context, err);
	wal_table_clear(&s.table);
	*ret_commits = s.commits;
	return rc;
}
