/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One segment, from the walker's list to its refs: if nothing of it changed by the stat data the
 * walker saw, the remembered one is used; else its entries are captured, written (as several
 * segments if there is too much of it) and remembered.
 */
#include "stores/files/capture_entry.h"

#include "base/cleanup.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SPLIT_ARCHIVE_BYTES (16u << 20)
#define SPLIT_ROWS 150000u
#define MAX_WARNINGS 50u

void files_job_clear_entries(struct files_job *j)
{
	for (size_t i = 0; i < j->entry_count; i++)
		free(j->entries[i].path);
	free(j->entries);
	j->entries = NULL;
	j->entry_count = 0;
}

void files_job_free(struct files_job *j)
{
	if (!j)
		return;
	files_job_clear_entries(j);
	free(j->refs);
	free(j->packs);
	free(j);
}

void files_capture_warn(struct files_capture *c, bool partial, const char *format, ...)
{
	const struct store_events *events = c->request->events;
	char text[IM_ERROR_TEXT_BYTES];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	for (char *p = text; *p; p++)
		if (*p == '\n' || *p == '\r')
			*p = '?';
	pthread_mutex_lock(&c->mutex);
	bool silent = c->warned++ >= MAX_WARNINGS;
	c->partial |= partial;
	pthread_mutex_unlock(&c->mutex);
	if (!silent && events && events->warn)
		events->warn(events->context, c->request->store->name, text);
}

void files_capture_vanished(struct files_capture *c, const char *path)
{
	pthread_mutex_lock(&c->mutex);
	if (!c->vanished++)
		c->first_vanished = strdup(path);
	pthread_mutex_unlock(&c->mutex);
}

/* Turns a failure that concerns one entry into a warning; others stop the store. */
static int forgive(struct files_segment_capture *s, const struct files_entry *e, int rc, const struct im_error *why,
    struct im_error *err)
{
	if (rc != IM_ENOTFOUND && rc != IM_EIO)
		return im_fail(err, rc, "%s", why->text);
	s->trusted = false;
	if (rc == IM_ENOTFOUND) {
		if (S_ISREG(e->key.mode))
			files_capture_vanished(s->c, e->path);
	} else
		files_capture_warn(s->c, true, "%s", why->text);
	if (e->nlink > 1 && !e->link && !S_ISDIR(e->key.mode))
		files_capture_warn(
		    s->c, true, "other names of %.300s (hard links) lead nowhere in this snapshot", e->path);
	return 0;
}

static int begin_writer(struct files_segment_capture *s, struct im_error *err)
{
	files_segment_writer_free(s->writer);
	s->writer = NULL;
	return files_segment_writer_new(&s->writer, err);
}

static int add_ref(struct files_job *j, struct im_ref ref, struct im_error *err)
{
	struct im_ref *grown = realloc(j->refs, (j->ref_count + 1) * sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	j->refs = grown;
	j->refs[j->ref_count++] = ref;
	return 0;
}

static int keep_chunks(
    struct files_segment_capture *s, const struct files_chunk *chunks, size_t count, struct im_error *err)
{
	struct files_memory *m = &s->fresh;
	if (!count)
		return 0;
	struct files_chunk *grown = realloc(m->chunks, (m->chunk_count + count) * sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	memcpy(grown + m->chunk_count, chunks, count * sizeof *grown);
	m->chunks = grown;
	m->chunk_count += count;
	return 0;
}

/* Writes what has been gathered so far as a segment. */
static int put_segment(struct files_segment_capture *s, struct im_error *err)
{
	auto_buf struct im_buf bytes = { 0 };
	const struct files_chunk *chunks;
	size_t count;
	struct im_ref ref;
	int rc = files_content_wait(s->content, &chunks, &count, err);
	im_buf_put(&bytes, FILES_SEGMENT_LABEL, strlen(FILES_SEGMENT_LABEL));
	if (!rc)
		rc = files_segment_finish(s->writer, chunks, count, &bytes, err);
	if (!rc && bytes.len > ENTRY_MAX_META_BYTES)
		rc = im_fail(err, IM_EFAIL, "the file list near %.300s is too large for one segment",
		    s->job->entry_count ? s->job->entries[0].path : ".");
	if (!rc)
		rc = keep_chunks(s, chunks, count, err);
	if (!rc)
		rc = files_content_put_segment(s->content, &bytes, &ref, err);
	return rc ? rc : add_ref(s->job, ref, err);
}

/* Rows are numbered per written segment, but remembered as one table: shift those of this part. */
static void shift_known(struct files_segment_capture *s, size_t first_known)
{
	for (size_t i = first_known; i < s->fresh.known_count; i++) {
		size_t at = (size_t)(uintptr_t)s->fresh.known[i].pieces;
		for (size_t j = 0; j < s->fresh.known[i].piece_count; j++)
			s->pieces.items[at + j].chunk += (uint32_t)s->chunk_base;
	}
	s->chunk_base = s->fresh.chunk_count;
}

static int capture_entries(struct files_segment_capture *s, struct im_error *err)
{
	size_t first_known = 0;
	int rc = begin_writer(s, err);
	for (size_t i = 0; !rc && i < s->job->entry_count; i++) {
		struct im_error why = { 0 };
		size_t pieces = s->pieces.count;
		rc = files_capture_entry(s, &s->job->entries[i], &why);
		if (rc) {
			s->pieces.count = pieces;
			int vault_rc = files_content_error(s->content, err);
			rc = vault_rc ? vault_rc : forgive(s, &s->job->entries[i], rc, &why, err);
		}
		bool last = i + 1 == s->job->entry_count;
		if (rc ||
		    (!last && files_segment_written(s->writer) < SPLIT_ARCHIVE_BYTES &&
			files_content_rows(s->content) < SPLIT_ROWS))
			continue;
		rc = put_segment(s, err);
		shift_known(s, first_known);
		first_known = s->fresh.known_count;
		files_content_reset(s->content);
		free(s->old_rows);
		s->old_rows = NULL;
		if (!rc && !last)
			rc = begin_writer(s, err);
	}
	return rc;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

/* The packs a segment needs: its own and those of its chunks. */
static int gather_packs(struct files_job *j, const struct files_memory *m, struct im_error *err)
{
	size_t n = 0, kept = 0;
	uint32_t *packs = calloc(j->ref_count + m->chunk_count + 1, sizeof *packs);
	if (!packs)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < j->ref_count; i++)
		packs[n++] = j->refs[i].pack;
	for (size_t i = 0; i < m->chunk_count; i++)
		packs[n++] = m->chunks[i].ref.pack;
	qsort(packs, n, sizeof *packs, compare_u32);
	for (size_t i = 0; i < n; i++)
		if (!kept || packs[kept - 1] != packs[i])
			packs[kept++] = packs[i];
	j->packs = packs;
	j->pack_count = kept;
	return 0;
}

static int store_memory(struct files_segment_capture *s, struct im_error *err)
{
	auto_buf struct im_buf blob = { 0 };
	struct files_memory *m = &s->fresh;
	const struct snapshot_request *q = s->c->request;
	for (size_t i = 0; i < m->known_count; i++)
		m->known[i].pieces = s->pieces.items + (size_t)(uintptr_t)m->known[i].pieces;
	files_memory_sort(m->known, m->known_count);
	if (s->trusted)
		memcpy(m->digest, s->job->digest, sizeof m->digest);
	m->counts = s->job->counts;
	m->refs = s->job->refs;
	m->ref_count = s->job->ref_count;
	int rc = files_memory_encode(m, &blob, err);
	m->refs = NULL; /* the job's */
	m->ref_count = 0;
	return rc ? rc : state_put(q->state, q->store->name, s->job->key, blob.data, blob.len, err);
}

static void load_memory(struct files_segment_capture *s)
{
	auto_buf struct im_buf blob = { 0 };
	const struct snapshot_request *q = s->c->request;
	if (!q->full && !state_get(q->state, q->store->name, s->job->key, &blob, NULL))
		(void)!files_memory_decode(blob.data, blob.len, &s->old, NULL);
}

/* Nothing of the segment changed: what is in the vault is it. */
static int take_remembered(struct files_segment_capture *s, struct im_error *err)
{
	struct files_job *j = s->job;
	j->counts = s->old.counts;
	j->refs = TAKE_PTR(s->old.refs);
	j->ref_count = s->old.ref_count;
	for (size_t i = 0; i < s->old.sqlite_count; i++)
		files_capture_warn_sqlite(s->c, s->old.sqlite[i]);
	return gather_packs(j, &s->old, err);
}

static int capture_segment(struct files_segment_capture *s, struct im_error *err)
{
	static const uint8_t zeros[32];
	load_memory(s);
	if (memcmp(s->old.digest, zeros, sizeof zeros) && !memcmp(s->old.digest, s->job->digest, sizeof zeros))
		return take_remembered(s, err);
	s->trusted = true;
	int rc = files_content_new(s->c->encoders, &s->content, err);
	if (!rc)
		rc = capture_entries(s, err);
	if (!rc)
		rc = gather_packs(s->job, &s->fresh, err);
	return rc ? rc : store_memory(s, err);
}

int files_job_run(struct files_job *j, unsigned reader, struct im_error *err)
{
	struct files_capture *c = j->capture;
	struct files_segment_capture s = { .c = c, .job = j, .disk = c->disks[reader], .parent = { .fd = -1 } };
	int rc = capture_segment(&s, err);
	files_content_free(s.content);
	files_segment_writer_free(s.writer);
	files_parent_close(&s.parent);
	files_memory_clear(&s.old);
	s.fresh.refs = NULL;
	files_memory_clear(&s.fresh);
	free(s.old_rows);
	free(s.pieces.items);
	files_job_clear_entries(j);
	if (rc)
		return rc;
	pthread_mutex_lock(&c->mutex);
	c->done_bytes += j->counts.bytes;
	uint64_t done = c->done_bytes, total = c->total_bytes;
	pthread_mutex_unlock(&c->mutex);
	const struct store_events *events = c->request->events;
	if (events && events->progress)
		events->progress(events->context, c->request->store->name, done, total > done ? total : done);
	return 0;
}
