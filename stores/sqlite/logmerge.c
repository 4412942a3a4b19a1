/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging: each point taken is a stream of records, read block by block from wherever its body
 * lies; streams are merged by page as in a log-structured tree. Points of a busy store come by
 * the thousands and are small, so runs of small streams are first merged into one in memory: the
 * number of blocks held at once grows with the logarithm of the number of points only.
 */
#include "stores/sqlite/logmerge.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <string.h>

#define FAN_IN 32                  /* small streams merged into one at a time */
#define SMALL_BYTES (256u << 10)   /* stored */

struct opened {
	struct logbody *body;
	uint64_t len;
};

struct stream { /* the change of one point, or of several merged ones */
	struct logbody_section section;
	const struct opened *parts; /* of merge.bodies; unused if it has its own */
	size_t part_count, index;   /* index: its section in them */
	uint64_t bytes;             /* stored, about */
	unsigned level;             /* how often merged already */
	struct im_buf *memory;      /* NULL, or what its own body lies in */
	struct logbody *own;
	/* While it is being merged: */
	size_t next_part;
	struct logbody_cursor *cursor;
	struct logbody_record record;
	uint32_t lowest;            /* pages of the smallest database among the streams before it */
};

struct merge {
	struct opened *bodies;
	size_t body_count;
	struct stream *streams; /* oldest first */
	size_t count, room;     /* room: of the streams, heap and same */
	struct logbody_writer *writer;
	struct pagediff *diff;
	struct im_buf control[2], literals[2]; /* composed changes, by turns */
	size_t *heap, heap_count; /* streams by their record's page, then by age */
	size_t *same;             /* streams with the lowest page, oldest first */
	int (*part)(void *context, const void *data, size_t len, bool final, struct im_error *err);
	void *context;
};

static int no_memory(struct im_error *err)
{
	return im_fail(err, IM_ENOMEM, "out of memory for merging log segments");
}

static void stream_clear(struct stream *s)
{
	logbody_cursor_free(s->cursor);
	logbody_free(s->own);
	if (s->memory)
		im_buf_free(s->memory);
	free(s->memory);
	*s = (struct stream){ 0 };
}

static void merge_clear(struct merge *m)
{
	for (size_t i = 0; i < m->count; i++)
		stream_clear(&m->streams[i]);
	for (size_t i = 0; i < m->body_count; i++)
		logbody_free(m->bodies[i].body);
	for (size_t i = 0; i < 2; i++) {
		im_buf_free(&m->control[i]);
		im_buf_free(&m->literals[i]);
	}
	logbody_writer_free(m->writer);
	pagediff_free(m->diff);
	free(m->streams);
	free(m->bodies);
	free(m->heap);
	free(m->same);
}

/* --- reading a stream --- */

/* *ret_more false: it has ended. */
static int advance(struct stream *s, bool *ret_more, struct im_error *err)
{
	int rc = 0;
	*ret_more = false;
	while (rc == 0 && (s->cursor || s->next_part < s->part_count)) {
		if (!s->cursor) {
			struct logbody *body = s->own ? s->own : s->parts[s->next_part].body;
			s->next_part++;
			if (!logbody_section_at(body, s->index)->records)
				continue;
			rc = logbody_cursor_new(body, &s->cursor, err);
			if (rc == 0)
				rc = logbody_seek_section(s->cursor, s->index, err);
		}
		if (rc == 0)
			rc = logbody_next(s->cursor, &s->record, ret_more, err);
		if (rc == 0 && *ret_more && s->record.section == s->index)
			return 0;
		*ret_more = false;
		logbody_cursor_free(s->cursor);
		s->cursor = NULL;
	}
	return rc;
}

static bool comes_before(const struct merge *m, size_t a, size_t b)
{
	uint32_t page_a = m->streams[a].record.page, page_b = m->streams[b].record.page;
	return page_a != page_b ? page_a < page_b : a < b;
}

static void heap_push(struct merge *m, size_t stream)
{
	size_t at = m->heap_count++;
	for (; at && comes_before(m, stream, m->heap[(at - 1) / 2]); at = (at - 1) / 2)
		m->heap[at] = m->heap[(at - 1) / 2];
	m->heap[at] = stream;
}

static size_t heap_pop(struct merge *m)
{
	size_t top = m->heap[0], last = m->heap[--m->heap_count], at = 0;
	for (size_t child; (child = 2 * at + 1) < m->heap_count; at = child) {
		if (child + 1 < m->heap_count && comes_before(m, m->heap[child + 1], m->heap[child]))
			child++;
		if (!comes_before(m, m->heap[child], last))
			break;
		m->heap[at] = m->heap[child];
	}
	m->heap[at] = last;
	return top;
}

/* --- merging streams --- */

/* A change of a page that had vanished in between would change what is no longer there. */
static int check_base(const struct merge *m, size_t from, size_t stream, struct im_error *err)
{
	uint32_t page = m->streams[stream].record.page;
	if (m->streams[stream].lowest > page)
		return 0;
	for (size_t i = from; i < stream; i++)
		if (m->streams[i].section.pages <= page)
			return im_fail(err, IM_ECORRUPT, "the log changes page %u, which its database did not have", page);
	return 0;
}

/* The records of one page as one change, borrowed until the next call. */
static int combine(struct merge *m, size_t first, size_t count, struct pagediff_ops *ret, struct im_error *err)
{
	size_t at = count - 1;
	while (at && m->streams[m->same[at]].record.ops.has_base)
		at--; /* nothing before the newest without a base matters */
	*ret = m->streams[m->same[at]].record.ops;
	int rc = ret->has_base ? check_base(m, first, m->same[at], err) : 0;
	for (at++; rc == 0 && at < count; at++) {
		struct im_buf *control = &m->control[at % 2], *literals = &m->literals[at % 2];
		const struct pagediff_ops *newer = &m->streams[m->same[at]].record.ops;
		bool has_base;
		control->len = literals->len = 0;
		rc = check_base(m, m->same[at - 1], m->same[at], err);
		if (rc == 0)
			rc = pagediff_compose(m->diff, ret, newer, control, literals, &has_base, err);
		if (rc == 0 && (control->failed || literals->failed))
			rc = no_memory(err);
		if (rc == 0)
			*ret = (struct pagediff_ops){ has_base, control->data, literals->data, control->len, literals->len };
	}
	return rc;
}

static int give_part(struct merge *m, const struct logbody_section *section, uint32_t page, struct im_error *err)
{
	auto_buf struct im_buf data = { 0 };
	int rc = logbody_cut_part(m->writer, section, page, &data, err);
	return rc ? rc : m->part(m->context, data.data, data.len, false, err);
}

static int start_streams(struct merge *m, size_t first, struct im_error *err)
{
	int rc = 0;
	uint32_t lowest = UINT32_MAX;
	m->heap_count = 0;
	for (size_t i = first; rc == 0 && i < m->count; i++) {
		struct stream *s = &m->streams[i];
		bool more;
		s->lowest = lowest;
		if (s->section.pages < lowest)
			lowest = s->section.pages;
		rc = advance(s, &more, err);
		if (rc == 0 && more)
			heap_push(m, i);
	}
	return rc;
}

/* Puts the streams from first on into the writer, as one section. in_parts: full parts are given out. */
static int merge_streams(struct merge *m, size_t first, bool in_parts, struct im_error *err)
{
	const struct logbody_section *section = &m->streams[m->count - 1].section;
	int rc = start_streams(m, first, err);
	while (rc == 0 && m->heap_count) {
		uint32_t page = m->streams[m->heap[0]].record.page;
		size_t count = 0;
		while (m->heap_count && m->streams[m->heap[0]].record.page == page)
			m->same[count++] = heap_pop(m);
		if (page < section->pages) { /* else the database has shrunk */
			struct pagediff_ops ops;
			rc = combine(m, first, count, &ops, err);
			if (rc == 0 && in_parts && logbody_size(m->writer) >= LOGBODY_PART_BYTES)
				rc = give_part(m, section, page, err);
			if (rc == 0)
				rc = logbody_put_ops(m->writer, page, &ops, err);
		}
		for (size_t i = 0; rc == 0 && i < count; i++) {
			bool more;
			rc = advance(&m->streams[m->same[i]], &more, err);
			if (rc == 0 && more)
				heap_push(m, m->same[i]);
		}
	}
	return rc ? rc : logbody_end_section(m->writer, section, err);
}

/* --- few streams out of many --- */

static bool is_small(const struct stream *s, unsigned level)
{
	return s->bytes <= SMALL_BYTES && s->level == level;
}

/* The streams from first on become one, in memory. */
static int fold(struct merge *m, size_t first, struct im_error *err)
{
	struct stream folded = { .section = m->streams[m->count - 1].section, .level = m->streams[first].level + 1, .part_count = 1 };
	folded.memory = calloc(1, sizeof *folded.memory);
	int rc = folded.memory ? merge_streams(m, first, false, err) : no_memory(err);
	if (rc == 0)
		rc = logbody_finish(m->writer, folded.memory, err);
	if (rc == 0) {
		struct follow_source source = logbody_memory(folded.memory);
		folded.bytes = folded.memory->len;
		rc = logbody_open(&source, &folded.own, err);
	}
	if (rc) {
		stream_clear(&folded);
		return rc;
	}
	while (m->count > first)
		stream_clear(&m->streams[--m->count]);
	m->streams[m->count++] = folded;
	return 0;
}

static int make_room(struct merge *m, struct im_error *err)
{
	size_t room = m->room ? 2 * m->room : 64;
	void *streams = realloc(m->streams, room * sizeof *m->streams);
	m->streams = streams ? streams : m->streams;
	void *heap = realloc(m->heap, room * sizeof *m->heap);
	m->heap = heap ? heap : m->heap;
	void *same = realloc(m->same, room * sizeof *m->same);
	m->same = same ? same : m->same;
	if (!streams || !heap || !same)
		return no_memory(err);
	m->room = room;
	return 0;
}

static int add_stream(struct merge *m, const struct stream *s, struct im_error *err)
{
	int rc = m->count == m->room ? make_room(m, err) : 0;
	if (rc)
		return rc;
	m->streams[m->count++] = *s;
	for (;;) {
		unsigned level = m->streams[m->count - 1].level;
		size_t first = m->count;
		while (first && m->count - first < FAN_IN && is_small(&m->streams[first - 1], level))
			first--;
		if (m->count - first < FAN_IN)
			return 0;
		rc = fold(m, first, err);
		if (rc)
			return rc;
	}
}

/* --- which streams there are --- */

static int disordered(struct im_error *err, const char *what)
{
	return im_fail(err, IM_ECORRUPT, "log segments do not follow one another: %s", what);
}

static bool same_point(const struct logbody_section *a, const struct logbody_section *b)
{
	return a->point == b->point && a->pages == b->pages && a->complete_ms == b->complete_ms && a->latest_ms == b->latest_ms &&
	    memcmp(a->sum, b->sum, sizeof a->sum) == 0;
}

static int open_bodies(struct merge *m, const struct follow_source *sources, size_t count, struct im_error *err)
{
	int rc = 0;
	m->bodies = calloc(count ? count : 1, sizeof *m->bodies);
	if (!m->bodies)
		return no_memory(err);
	for (size_t i = 0; rc == 0 && i < count; i++) {
		if (!sources[i].len)
			continue; /* an epoch's first segment may hold nothing at all */
		struct opened *o = &m->bodies[m->body_count];
		rc = logbody_open(&sources[i], &o->body, err);
		if (rc)
			break;
		o->len = sources[i].len;
		m->body_count++;
		if (logbody_page_size(o->body) != logbody_page_size(m->bodies[0].body))
			rc = disordered(err, "their page sizes differ");
	}
	return rc;
}

/* How many bodies are parts of the same change as the first. */
static int count_parts(const struct opened *bodies, size_t count, size_t *ret_parts, struct im_error *err)
{
	uint32_t from, to, next = 0;
	for (size_t i = 0; i < count; i++) {
		logbody_range(bodies[i].body, &from, &to);
		if (from != next || !same_point(logbody_section_at(bodies[0].body, 0), logbody_section_at(bodies[i].body, 0)))
			break;
		if (to == LOGBODY_OPEN_END) {
			*ret_parts = i + 1;
			return 0;
		}
		next = to;
	}
	return disordered(err, "a part is missing");
}

/* The streams of one segment, whose parts are given. */
static int add_segment(struct merge *m, const struct opened *parts, size_t count, uint32_t after, uint32_t until, uint32_t *last_point, struct im_error *err)
{
	size_t sections = logbody_section_count(parts[0].body);
	uint64_t records = 0, bytes = 0;
	int rc = 0;
	for (size_t i = 0; i < sections; i++)
		records += logbody_section_at(parts[0].body, i)->records;
	for (size_t i = 0; i < count; i++)
		bytes += parts[i].len;
	for (size_t i = 0; rc == 0 && i < sections; i++) {
		const struct logbody_section *section = logbody_section_at(parts[0].body, i);
		if (section->point <= *last_point)
			return disordered(err, "points are out of order");
		*last_point = section->point;
		if (section->point <= after || section->point > until)
			continue;
		struct stream s = { .section = *section, .parts = parts, .part_count = count, .index = i, .bytes = bytes };
		if (sections > 1)
			s.bytes = records ? bytes * section->records / records : 0;
		rc = add_stream(m, &s, err);
	}
	return rc;
}

static int run(struct merge *m, const struct follow_source *sources, size_t count, uint32_t after, uint32_t until, struct im_error *err)
{
	auto_buf struct im_buf data = { 0 };
	uint32_t last_point = 0;
	int rc = open_bodies(m, sources, count, err);
	if (rc)
		return rc;
	if (m->body_count) {
		uint32_t page_size = logbody_page_size(m->bodies[0].body);
		rc = logbody_writer_new(page_size, &m->writer, err);
		if (rc == 0)
			rc = pagediff_new(page_size, &m->diff, err);
	}
	for (size_t i = 0, parts; rc == 0 && i < m->body_count; i += parts) {
		parts = 0;
		rc = count_parts(m->bodies + i, m->body_count - i, &parts, err);
		if (rc == 0)
			rc = add_segment(m, m->bodies + i, parts, after, until, &last_point, err);
	}
	if (rc == 0 && !m->count)
		rc = im_fail(err, IM_ENOTFOUND, "the log has no point after %u up to %u here", after, until);
	if (rc == 0)
		rc = merge_streams(m, 0, true, err);
	if (rc == 0)
		rc = logbody_finish(m->writer, &data, err);
	return rc ? rc : m->part(m->context, data.data, data.len, true, err);
}

int logmerge_run(const struct follow_source *bodies, size_t count, uint32_t after, uint32_t until,
    int (*part)(void *context, const void *data, size_t len, bool final, struct im_error *err), void *context, struct im_error *err)
{
	struct merge m = { .part = part, .context = context };
	int rc = run(&m, bodies, count, after, until, err);
	merge_clear(&m);
	return rc;
}
