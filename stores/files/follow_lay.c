/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both readings. What a hostile log can do here is to write nonsense into files of its own store,
 * below the restore root: paths are plain, sizes bounded, gaps refused, and a byte is declared once.
 */
#include "stores/files/follow_lay.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <stdlib.h>
#include <string.h>

#define MAX_NAMED 20 /* of files that could not be had */

struct files_lay_check {
	struct files_lay_check *next;
	uint64_t base;
	uint8_t check[FILES_LOG_CHECK_BYTES];
	char *path;
};

struct laid { /* of a line */
	bool has_base, has_mtime, declared;
	uint32_t file;
	uint64_t base, size, written; /* base: the first byte the log tells of */
	int64_t mtime_ns;
	uint8_t check[FILES_LOG_CHECK_BYTES];
	char *trouble; /* why it is not what it was at the point */
};

struct files_lay {
	struct rebuild *r;
	struct files_lineage lines, again; /* of the first and the second reading */
	struct laid *laid; /* per line */
	size_t laid_cap;
	struct files_names folders; /* that the log makes -> is_made */
	struct files_lay_check *checks;
	/* second reading */
	int (*member)(void *context, const struct files_member *m, const char *path, uint32_t line, struct im_error *err);
	void *context;
};

void files_lay_checks_free(struct files_lay_check *c)
{
	while (c) {
		struct files_lay_check *next = c->next;
		free(c->path);
		free(c);
		c = next;
	}
}

struct files_lay_check *files_lay_checks(struct files_lay *l) { return TAKE_PTR(l->checks); }

void files_lay_free(struct files_lay *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->laid_cap; i++)
		free(l->laid[i].trouble);
	free(l->laid);
	files_lineage_clear(&l->lines);
	files_lineage_clear(&l->again);
	files_names_clear(&l->folders);
	files_lay_checks_free(l->checks);
	free(l);
}

static bool is_wanted(const struct files_lay *l, const struct files_log_record *record)
{
	return record->point > l->r->log->after && record->point <= l->r->log->until;
}

/* --- first reading --- */

static int make_room(struct files_lay *l, struct im_error *err)
{
	if (l->lines.count <= l->laid_cap)
		return 0;
	size_t cap = l->lines.cap;
	struct laid *grown = realloc(l->laid, cap * sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory for the files of a log");
	memset(grown + l->laid_cap, 0, (cap - l->laid_cap) * sizeof *grown);
	l->laid = grown;
	l->laid_cap = cap;
	return 0;
}

static void set_base(struct laid *x, const struct files_log_record *record)
{
	if (x->has_base)
		return;
	x->has_base = true;
	x->base = x->size = record->offset;
	memcpy(x->check, record->check, sizeof x->check);
}

static void take_size(struct laid *x, const struct files_log_record *record)
{
	if (x->has_base)
		return;
	set_base(x, record);
	x->mtime_ns = record->mtime_ns;
	x->has_mtime = true;
}

static void take_append(struct laid *x, const struct files_log_record *record)
{
	if (x->trouble)
		return;
	set_base(x, record);
	if (record->offset > x->size) {
		x->trouble = strdup("the log lacks a part of what was appended to it");
		return;
	}
	if (record->offset + record->len > x->size)
		x->size = record->offset + record->len;
	x->mtime_ns = record->mtime_ns;
	x->has_mtime = true;
}

static int first_reading(void *context, const struct files_log_record *record, struct im_error *err)
{
	struct files_lay *l = context;
	uint32_t line;
	if (!is_wanted(l, record))
		return 0;
	int rc = files_lineage_take(&l->lines, record, &line, err);
	if (!rc)
		rc = make_room(l, err);
	if (!rc && record->type == FILES_LOG_FOLDER)
		return files_names_put(&l->folders, record->path, false, err);
	if (rc || line == FILES_NO_LINE)
		return rc;
	struct laid *x = &l->laid[line];
	switch (record->type) {
	case FILES_LOG_BEGIN: x->has_base = true; break;
	case FILES_LOG_SIZE: take_size(x, record); break;
	case FILES_LOG_APPEND: take_append(x, record); break;
	case FILES_LOG_LOST:
		if (!x->trouble)
			x->trouble = strdup(record->reason);
		break;
	default: break;
	}
	return 0;
}

static int read_all(struct files_lay *l, files_log_fn *fn, struct im_error *err)
{
	const struct rebuild_log *log = l->r->log;
	auto_buf struct im_buf body = { 0 };
	int rc = 0;
	for (size_t i = 0; !rc && i < log->body_count; i++) {
		if (log->bodies[i].last <= log->after || log->bodies[i].first > log->until)
			continue;
		rc = im_interrupt_check(err);
		body.len = 0;
		if (!rc)
			rc = log->read(log, i, &body, err);
		struct follow_source source = files_log_memory(&body);
		if (!rc)
			rc = files_log_each(&source, fn, l, err);
	}
	return rc;
}

int files_lay_new(struct rebuild *r, struct files_lay **ret, struct im_error *err)
{
	*ret = NULL;
	if (!r->log)
		return 0;
	struct files_lay *l = calloc(1, sizeof *l);
	if (!l)
		return im_fail(err, IM_ENOMEM, "out of memory for the files of a log");
	l->r = r;
	r->log_taken = true;
	int rc = read_all(l, first_reading, err);
	if (rc) {
		files_lay_free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

/* --- the image's side --- */

bool files_lay_place(struct files_lay *l, const struct files_member *m, const char **ret_path, uint32_t *ret_line)
{
	bool is_folder = archive_entry_filetype(m->entry) == AE_IFDIR && !m->link;
	*ret_path = m->path;
	*ret_line = FILES_NO_LINE;
	if (files_names_get(&l->folders, m->path) != FILES_NO_NAME) {
		if (!is_folder)
			return false;
		files_names_put(&l->folders, m->path, true, NULL); /* it is there: cannot fail */
	}
	uint32_t line = files_names_get(&l->lines.origins, m->path);
	if (line == FILES_NO_LINE) /* but a file that moved may be in its place */
		return is_folder || files_names_get(&l->lines.now, m->path) == FILES_NO_LINE;
	*ret_line = line;
	*ret_path = l->lines.lines[line].path;
	return !is_folder && *ret_path;
}

const char *files_lay_where(const struct files_lay *l, const char *path)
{
	uint32_t line = files_names_get(&l->lines.origins, path);
	if (line == FILES_NO_LINE)
		return files_names_get(&l->lines.now, path) == FILES_NO_LINE ? path : NULL;
	return l->lines.lines[line].path;
}

static int prove_base(void *context, int fd, const uint8_t *sum, struct im_error *err)
{
	const struct files_lay_check *c = context;
	uint8_t tail[FILES_LOG_TAIL_BYTES], check[FILES_LOG_CHECK_BYTES];
	size_t len = c->base < sizeof tail ? (size_t)c->base : sizeof tail;
	(void)sum;
	ssize_t n = im_pread_full(fd, tail, len, c->base - len, err, c->path);
	if (n < 0)
		return (int)n;
	files_log_check(check, tail, (size_t)n);
	if ((size_t)n == len && !memcmp(check, c->check, sizeof check))
		return 0;
	return im_fail(err, IM_ECORRUPT,
	    "its log goes on from another content than the snapshot has: it was replaced or rewritten while the snapshot was taken");
}

static bool add_check(struct files_lay *l, uint32_t line, struct files_laid *laid)
{
	const struct laid *x = &l->laid[line];
	struct files_lay_check *c = calloc(1, sizeof *c);
	if (!c || !(c->path = strdup(l->lines.lines[line].path))) {
		free(c);
		return false;
	}
	c->base = x->base;
	memcpy(c->check, x->check, sizeof c->check);
	c->next = l->checks;
	l->checks = c;
	laid->prove = prove_base;
	laid->context = c;
	return true;
}

bool files_lay_file(struct files_lay *l, uint32_t line, bool has_body, uint64_t image_bytes, struct files_laid *ret)
{
	struct laid *x = &l->laid[line];
	struct files_laid laid = { .size_bytes = image_bytes, .keep_bytes = image_bytes };
	*ret = laid;
	if (!x->has_base) /* it only moved, or was lost at once */
		return true;
	if (!has_body || x->base > image_bytes || (l->lines.lines[line].origin && !add_check(l, line, &laid))) {
		free(x->trouble);
		x->trouble = strdup("the snapshot has another file there than the log goes on from");
		return false;
	}
	laid.size_bytes = x->size;
	laid.keep_bytes = x->written = x->base;
	laid.has_mtime = x->has_mtime;
	laid.mtime_ns = x->mtime_ns;
	*ret = laid;
	return true;
}

void files_lay_declared(struct files_lay *l, uint32_t line, uint32_t file)
{
	l->laid[line].declared = true;
	l->laid[line].file = file;
}

/* --- second reading --- */

static int write_append(struct files_lay *l, struct laid *x, const struct files_log_record *record, struct im_error *err)
{
	uint64_t end = record->offset + record->len;
	if (end > x->size)
		end = x->size;
	if (!x->declared || record->offset > x->written || end <= x->written)
		return 0;
	uint64_t skip = x->written - record->offset;
	uint32_t len = (uint32_t)(end - x->written);
	int rc = l->r->write(l->r, x->file, x->written, record->data + skip, len, err);
	x->written = end;
	return rc;
}

/* The one member of a meta. */
static int make_member(struct files_lay *l, const struct files_log_record *record, uint32_t line, struct im_error *err)
{
	struct files_segment *s;
	struct files_member m;
	bool more = false, is_folder = record->type == FILES_LOG_FOLDER;
	int rc = files_segment_open(record->data, record->len, &s, err);
	if (rc)
		return rc;
	rc = files_segment_next(s, &m, &more, err);
	if (!rc && (!more || (is_folder ? archive_entry_filetype(m.entry) != AE_IFDIR || m.link : !m.has_body)))
		rc = im_fail(err, IM_ECORRUPT, "%.200s: the log has no metadata for it", record->path);
	if (!rc) {
		m.pieces = NULL;
		m.piece_count = 0;
		m.size_bytes = 0;
		rc = l->member(l->context, &m, is_folder ? record->path : l->lines.lines[line].path, line, err);
	}
	files_segment_close(s);
	return rc;
}

static int second_reading(void *context, const struct files_log_record *record, struct im_error *err)
{
	struct files_lay *l = context;
	uint32_t line;
	if (!is_wanted(l, record))
		return 0;
	int rc = files_lineage_take(&l->again, record, &line, err);
	if (rc)
		return rc;
	IM_CHECK(l->again.count <= l->lines.count);
	if (record->type == FILES_LOG_FOLDER && !files_names_get(&l->folders, record->path)) {
		rc = files_names_put(&l->folders, record->path, true, err);
		return rc ? rc : make_member(l, record, FILES_NO_LINE, err);
	}
	if (line == FILES_NO_LINE || !l->lines.lines[line].path)
		return 0;
	if (record->type == FILES_LOG_BEGIN)
		return make_member(l, record, line, err);
	return record->type == FILES_LOG_APPEND ? write_append(l, &l->laid[line], record, err) : 0;
}

int files_lay_write(struct files_lay *l,
    int (*member)(void *context, const struct files_member *m, const char *path, uint32_t line, struct im_error *err),
    void *context, struct im_error *err)
{
	l->member = member;
	l->context = context;
	return read_all(l, second_reading, err);
}

void files_lay_warn(const struct files_lay *l, const char *store)
{
	const struct store_events *events = l->r->events;
	size_t count = 0;
	if (!events || !events->warn)
		return;
	for (size_t i = 0; i < l->lines.count; i++) {
		const struct laid *x = &l->laid[i];
		if (!x->trouble || !l->lines.lines[i].path || ++count > MAX_NAMED)
			continue;
		auto_free char *text = im_format("%s is not as it was at that instant, but older: %s", l->lines.lines[i].path, x->trouble);
		if (text)
			events->warn(events->context, store, text);
	}
	if (count <= MAX_NAMED)
		return;
	auto_free char *text = im_format("so are %zu more files", count - MAX_NAMED);
	if (text)
		events->warn(events->context, store, text);
}
