/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk. Pages as they are at the point reached lie in an unnamed sparse file once they differ
 * from the image's; all others are fetched from the image one by one.
 */
#include "stores/sqlite/logaudit.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "stores/sqlite/logbody.h"
#include "stores/sqlite/logstore.h"

#include <stdlib.h>
#include <string.h>

struct audit {
	const struct rebuild *r;
	const struct dbmanifest *m;
	const uint8_t *page_key;
	int fd;
	uint8_t *changed;      /* a bit per page: it lies in fd */
	uint64_t changed_bits;
	uint32_t pages;        /* at the point reached */
	uint8_t sum[CRYPTO_PAGE_HASH_BYTES];
	uint8_t *before, *after;
	/* of the image, what was read last */
	struct leafmap_list leaf;
	uint32_t leaf_number;
	struct im_buf extent;
	struct im_ref extent_ref;
	struct good {
		bool any;
		uint32_t point;
		int64_t ms;
	} good, earlier; /* the last good point; the last of an earlier millisecond */
	struct logaudit result;
	bool done;
};

static bool is_changed(const struct audit *a, uint32_t page)
{
	return page < a->changed_bits && a->changed[page / 8] >> (page % 8) & 1;
}

static int set_changed(struct audit *a, uint32_t page, struct im_error *err)
{
	if (page >= a->changed_bits) {
		uint64_t bits = ((uint64_t)page / 8 * 8 + 8) * 2, old = a->changed_bits / 8;
		uint8_t *grown = realloc(a->changed, bits / 8);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory looking for the last good point of the log");
		memset(grown + old, 0, bits / 8 - old);
		a->changed = grown;
		a->changed_bits = bits;
	}
	a->changed[page / 8] |= (uint8_t)(1u << (page % 8));
	return 0;
}

static int read_image_page(struct audit *a, uint32_t page, uint8_t *ret, struct im_error *err)
{
	uint32_t leaf = page / LEAFMAP_PAGES;
	int rc = 0;
	if (!a->leaf.count || leaf != a->leaf_number) {
		leafmap_clear(&a->leaf);
		rc = dbmanifest_leaf(a->m, a->r, leaf, &a->leaf, err);
		a->leaf_number = leaf;
	}
	const struct leafmap_run *run = rc ? NULL : leafmap_find(&a->leaf, page % LEAFMAP_PAGES);
	const struct pack_info *pack = run ? snapshot_pack(a->r->snapshot, run->ref.pack) : NULL;
	if (rc)
		return rc;
	if (!pack)
		return im_fail(err, IM_ECORRUPT, "page %u is not in the snapshot", page + 1);
	if (!a->extent.len || memcmp(&a->extent_ref, &run->ref, sizeof run->ref) != 0) {
		a->extent.len = 0;
		a->extent_ref = run->ref;
		rc = fetch_one(a->r->fetcher, pack, ENTRY_EXTENT, &run->ref, &a->extent, err);
	}
	size_t at = ((size_t)run->skip + page % LEAFMAP_PAGES - run->first) * a->m->page_size;
	if (rc == 0 && at + a->m->page_size > a->extent.len)
		rc = im_fail(err, IM_ECORRUPT, "an extent is shorter than its map says");
	if (rc == 0)
		memcpy(ret, a->extent.data + at, a->m->page_size);
	return rc;
}

static int read_page(struct audit *a, uint32_t page, uint8_t *ret, struct im_error *err)
{
	if (!is_changed(a, page))
		return page < a->m->pages ? read_image_page(a, page, ret, err) :
		    im_fail(err, IM_ECORRUPT, "page %u is neither in the snapshot nor in its log", page + 1);
	ssize_t n = im_pread_full(a->fd, ret, a->m->page_size, (uint64_t)page * a->m->page_size, err, "a temporary file");
	return n < 0 ? (int)n : (size_t)n == a->m->page_size ? 0 : im_fail(err, IM_EIO, "a temporary file became shorter");
}

static void add_hash(struct audit *a, uint32_t page, const uint8_t *content)
{
	uint8_t hash[CRYPTO_PAGE_HASH_BYTES];
	crypto_page_hash(hash, a->page_key, content, a->m->page_size, page);
	for (unsigned i = 0; i < sizeof hash; i++)
		a->sum[i] ^= hash[i];
}

static int take_record(struct audit *a, const struct logbody_record *record, struct im_error *err)
{
	uint32_t page = record->page;
	bool existed = page < a->pages;
	int rc = existed ? read_page(a, page, a->before, err) : 0;
	if (rc == 0 && existed)
		add_hash(a, page, a->before);
	if (rc == 0 && record->ops.has_base && !existed)
		rc = im_fail(err, IM_ECORRUPT, "the log changes page %u, which is not there", page + 1);
	if (rc == 0)
		rc = pagediff_apply(a->m->page_size, &record->ops, record->ops.has_base ? a->before : NULL, a->after, err);
	if (rc == 0)
		rc = im_pwrite_full(a->fd, a->after, a->m->page_size, (uint64_t)page * a->m->page_size, err, "a temporary file");
	if (rc == 0)
		rc = set_changed(a, page, err);
	if (rc == 0)
		add_hash(a, page, a->after);
	return rc;
}

static int drop_vanished(struct audit *a, uint32_t pages, struct im_error *err)
{
	int rc = 0;
	for (uint32_t page = pages; rc == 0 && page < a->pages; page++) {
		rc = read_page(a, page, a->before, err);
		if (rc == 0)
			add_hash(a, page, a->before);
	}
	a->pages = pages;
	return rc;
}

static void found_bad(struct audit *a, uint32_t point, int64_t latest_ms)
{
	/* a point of the same millisecond as the bad one cannot be asked for */
	const struct good *good = a->good.ms < latest_ms ? &a->good : &a->earlier;
	a->result = (struct logaudit){ .bad_point = point, .any = good->any, .good_point = good->point, .good_ms = good->ms };
	a->done = true;
}

static void found_good(struct audit *a, const struct logbody_section *s)
{
	if (!a->good.any || s->latest_ms > a->good.ms)
		a->earlier = a->good;
	a->good = (struct good){ true, s->point, s->latest_ms };
}

/* All records of the section are in. */
static int end_section(struct audit *a, const struct logbody_section *s, struct im_error *err)
{
	int rc = drop_vanished(a, s->pages, err);
	if (rc == 0 && memcmp(a->sum, s->sum, sizeof a->sum) == 0)
		found_good(a, s);
	else if (rc == 0)
		found_bad(a, s->point, s->latest_ms);
	return rc;
}

static int take_body(struct audit *a, struct logbody *b, bool final, struct im_error *err)
{
	const struct rebuild_log *log = a->r->log;
	struct logbody_cursor *c = NULL;
	struct logbody_record record;
	struct im_error why = { 0 };
	bool more = false;
	uint32_t section = 0;
	if (logbody_page_size(b) != a->m->page_size)
		return im_fail(err, IM_ECORRUPT, "the log's page size is not the snapshot's");
	int rc = logbody_cursor_new(b, &c, &why);
	if (rc == 0)
		rc = logbody_next(c, &record, &more, &why);
	for (; rc == 0 && !a->done && section < logbody_section_count(b); section++) {
		const struct logbody_section *s = logbody_section_at(b, section);
		bool wanted = s->point > log->after && s->point <= log->until;
		while (rc == 0 && more && record.section == section) {
			rc = wanted ? take_record(a, &record, &why) : 0;
			if (rc == 0)
				rc = logbody_next(c, &record, &more, &why);
		}
		/* the last section of a part goes on in the next part */
		if (rc == 0 && wanted && (final || section + 1 < logbody_section_count(b)))
			rc = end_section(a, s, &why);
		if (rc == IM_ECORRUPT) { /* whatever it is: this point cannot be had */
			found_bad(a, s->point, s->latest_ms);
			rc = 0;
		}
		if (rc == 0)
			rc = im_interrupt_check(&why);
	}
	logbody_cursor_free(c);
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

static int walk(struct audit *a, struct im_error *err)
{
	const struct rebuild_log *log = a->r->log;
	int rc = 0;
	for (size_t i = 0; rc == 0 && !a->done && i < log->body_count; i++) {
		auto_buf struct im_buf data = { 0 };
		struct logbody *b = NULL;
		struct im_error why = { 0 };
		rc = log->read(log, i, &data, &why);
		struct follow_source source = logbody_memory(&data);
		if (rc == 0)
			rc = logbody_open(&source, &b, &why);
		if (rc == 0)
			rc = take_body(a, b, log->bodies[i].final, &why);
		logbody_free(b);
		if (rc == IM_ECORRUPT || rc == IM_ENOTFOUND) {
			found_bad(a, log->bodies[i].first, INT64_MAX);
			rc = 0;
		}
		if (rc)
			return im_fail(err, rc, "%s", why.text);
	}
	return 0;
}

static int start(struct audit *a, struct im_error *err)
{
	const char *sum = json_string_value(json_object_get(a->r->log->anchor, "sum"));
	if (!sum || !im_unhex(a->sum, sizeof a->sum, sum))
		return im_fail(err, IM_ECORRUPT, "the snapshot's place in the log has no sum");
	a->before = malloc(a->m->page_size);
	a->after = malloc(a->m->page_size);
	if (!a->before || !a->after)
		return im_fail(err, IM_ENOMEM, "out of memory");
	a->fd = logstore_unnamed(a->r->root_fd, err);
	return a->fd < 0 ? a->fd : 0;
}

int logaudit_run(const struct rebuild *r, const struct dbmanifest *m, const uint8_t *page_key, struct logaudit *ret, struct im_error *err)
{
	struct audit a = { .r = r, .m = m, .page_key = page_key, .fd = -1, .pages = m->pages, .result = { .agrees = true } };
	int rc = start(&a, err);
	if (rc == 0)
		rc = walk(&a, err);
	if (a.fd >= 0)
		close(a.fd);
	free(a.before);
	free(a.after);
	free(a.changed);
	leafmap_clear(&a.leaf);
	im_buf_free(&a.extent);
	if (rc == 0)
		*ret = a.result;
	return rc;
}
