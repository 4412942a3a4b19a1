/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One body of many: appends to a file are joined, and what belongs to a file that does not live to
 * the end is left out. The bodies are read twice: first to see which files that are.
 */
#include "stores/files/follow_internal.h"

#include "base/cleanup.h"
#include "stores/files/follow_lineage.h"

#include <stdlib.h>
#include <string.h>

#define PENDING_BYTES (4u << 20)

struct pending { /* appends to one line, not written yet */
	uint32_t line;
	struct files_log_record first; /* its path is owned */
	struct im_buf data;
};

struct merge {
	struct files_lineage before, lines; /* of the first and of this pass */
	struct files_log_record end; /* the last */
	bool any_end, open; /* open: records without an END after them */
	bool began;         /* something but sizes was written */
	struct files_log_writer *writer;
	struct files_names by_line;
	struct pending *pending;
	size_t pending_count, pending_cap, pending_bytes;
	int (*part)(void *context, const void *data, size_t len, bool final, struct im_error *err);
	void *context;
};

static void clear_pending(struct merge *m)
{
	for (size_t i = 0; i < m->pending_count; i++) {
		free((char *)m->pending[i].first.path);
		im_buf_free(&m->pending[i].data);
	}
	m->pending_count = m->pending_bytes = 0;
	files_names_clear(&m->by_line);
}

static void merge_clear(struct merge *m)
{
	clear_pending(m);
	free(m->pending);
	files_lineage_clear(&m->before);
	files_lineage_clear(&m->lines);
	files_log_writer_free(m->writer);
}

static int hand_out(struct merge *m, bool final, struct im_error *err)
{
	auto_buf struct im_buf body = { 0 };
	int rc = files_log_finish(m->writer, &body, err);
	return rc ? rc : m->part(m->context, body.data, body.len, final, err);
}

static int put(struct merge *m, const struct files_log_record *record, struct im_error *err)
{
	int rc = files_log_put(m->writer, record, err);
	return rc || files_log_plain(m->writer) < FILES_LOG_PART_BYTES ? rc : hand_out(m, false, err);
}

static int flush_one(struct merge *m, const struct pending *p, struct im_error *err)
{
	struct files_log_record record = p->first;
	int rc = 0;
	for (size_t at = 0; !rc && at < p->data.len; at += record.len) {
		size_t left = p->data.len - at;
		record.len = left < FILES_LOG_DATA_BYTES ? (uint32_t)left : FILES_LOG_DATA_BYTES;
		record.offset = p->first.offset + at;
		record.data = p->data.data + at;
		if (at)
			files_log_check(record.check, record.data - FILES_LOG_TAIL_BYTES, FILES_LOG_TAIL_BYTES);
		rc = put(m, &record, err);
	}
	return rc;
}

static int flush(struct merge *m, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; !rc && i < m->pending_count; i++)
		rc = flush_one(m, &m->pending[i], err);
	clear_pending(m);
	return rc;
}

static int add_pending(struct merge *m, uint32_t line, const char *name, const struct files_log_record *r, struct im_error *err)
{
	if (m->pending_count == m->pending_cap) {
		size_t cap = m->pending_cap ? 2 * m->pending_cap : 64;
		struct pending *grown = realloc(m->pending, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory merging a log");
		m->pending = grown;
		m->pending_cap = cap;
	}
	struct pending *p = &m->pending[m->pending_count];
	*p = (struct pending){ .line = line, .first = *r };
	p->first.path = strdup(r->path);
	if (!p->first.path)
		return im_fail(err, IM_ENOMEM, "out of memory merging a log");
	m->pending_bytes += sizeof *p + strlen(r->path);
	return files_names_put(&m->by_line, name, (uint32_t)m->pending_count++, err);
}

static int append(struct merge *m, uint32_t line, const struct files_log_record *r, struct im_error *err)
{
	char name[16];
	snprintf(name, sizeof name, "%u", line);
	int rc = 0;
	uint32_t i = files_names_get(&m->by_line, name);
	if (i != FILES_NO_NAME && m->pending[i].first.offset + m->pending[i].data.len != r->offset) {
		rc = flush(m, err); /* bytes that were captured twice */
		i = FILES_NO_NAME;
	}
	if (!rc && i == FILES_NO_NAME) {
		rc = add_pending(m, line, name, r, err);
		i = (uint32_t)m->pending_count - 1;
	}
	if (rc)
		return rc;
	struct pending *p = &m->pending[i];
	p->first.mtime_ns = r->mtime_ns;
	im_buf_put(&p->data, r->data, r->len);
	if (p->data.failed)
		return im_fail(err, IM_ENOMEM, "out of memory merging a log");
	m->pending_bytes += r->len;
	return m->pending_bytes < PENDING_BYTES ? 0 : flush(m, err);
}

static int put_after_flush(struct merge *m, const struct files_log_record *record, struct im_error *err)
{
	int rc = flush(m, err);
	return rc ? rc : put(m, record, err);
}

static int second_pass(void *context, const struct files_log_record *record, struct im_error *err)
{
	struct merge *m = context;
	uint32_t line;
	int rc = files_lineage_take(&m->lines, record, &line, err);
	if (rc || record->type == FILES_LOG_END)
		return rc;
	if (record->type == FILES_LOG_SIZE) /* of use only to images that stand where the merged body begins */
		return m->began ? 0 : put(m, record, err);
	m->began = true;
	bool lives = line != FILES_NO_LINE && m->before.lines[line].path;
	bool born = line != FILES_NO_LINE && !m->before.lines[line].origin;
	/* of a file that began and ended within: only that it took the place of another */
	struct files_log_record gone = { .type = FILES_LOG_GONE, .path = record->type == FILES_LOG_MOVED ? record->to : record->path };
	switch (record->type) {
	case FILES_LOG_APPEND: return lives ? append(m, line, record, err) : 0;
	case FILES_LOG_BEGIN: return put_after_flush(m, lives ? record : &gone, err);
	case FILES_LOG_MOVED: return put_after_flush(m, born && !lives ? &gone : record, err);
	default: return put_after_flush(m, record, err);
	}
}

static int first_pass(void *context, const struct files_log_record *record, struct im_error *err)
{
	struct merge *m = context;
	uint32_t line;
	m->open = record->type != FILES_LOG_END;
	if (!m->open) {
		m->end = *record;
		m->any_end = true;
	}
	return files_lineage_take(&m->before, record, &line, err);
}

static int run(struct merge *m, const struct follow_source *bodies, size_t count, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; !rc && i < count; i++)
		rc = files_log_each(&bodies[i], first_pass, m, err);
	if (!rc && m->open)
		return im_fail(err, IM_ECORRUPT, "a log segment of a tree ends within a point");
	if (!rc && !m->any_end) /* an epoch's first segment */
		return m->part(m->context, "", 0, true, err);
	if (!rc)
		rc = files_log_writer_new(&m->writer, err);
	if (!rc)
		files_log_begin(m->writer, m->end.point);
	for (size_t i = 0; !rc && i < count; i++)
		rc = files_log_each(&bodies[i], second_pass, m, err);
	if (!rc)
		rc = flush(m, err);
	if (!rc)
		rc = files_log_put(m->writer, &m->end, err);
	return rc ? rc : hand_out(m, true, err);
}

int files_follow_merge(const struct follow_source *bodies, size_t count,
    int (*part)(void *context, const void *data, size_t len, bool final, struct im_error *err), void *context,
    struct im_error *err)
{
	struct merge m = { .part = part, .context = context };
	int rc = run(&m, bodies, count, err);
	merge_clear(&m);
	return rc;
}
