/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The batch: sections, points, parts of a bounded size.
 */
#include "stores/files/follow_internal.h"

#include "base/cleanup.h"
#include "stores/files/segment.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void files_follow_warn(const struct follower *f, const char *format, ...)
{
	char text[IM_ERROR_TEXT_BYTES];
	va_list ap;
	if (!f->events || !f->events->warn)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	f->events->warn(f->events->context, f->store->name, text);
}

void files_follow_warn_once(struct follower *f, const char *path, int errno_value)
{
	if (files_names_get(&f->told, path) != FILES_NO_NAME || files_names_put(&f->told, path, 1, NULL))
		return;
	files_follow_warn(f, "%s cannot be followed: %s", path, strerror(errno_value));
}

static int cut_part(struct follower *f, struct im_error *err)
{
	struct follow_body *grown = realloc(f->parts, (f->part_count + 1) * sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	f->parts = grown;
	f->parts[f->part_count] = (struct follow_body){ 0 };
	return files_log_finish(f->writer, &f->parts[f->part_count++].data, err);
}

static int put(struct follower *f, const struct files_log_record *record, struct im_error *err)
{
	int rc = files_log_put(f->writer, record, err);
	return rc || files_log_plain(f->writer) < FILES_LOG_PART_BYTES ? rc : cut_part(f, err);
}

/* What an image that was anchored at the point before may hold too much of each file is then known. */
static int put_sizes(struct follower *f, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; !rc && i < f->file_count; i++) {
		const struct follow_file *e = &f->files[i];
		if (!e->path || e->lost)
			continue;
		struct files_log_record r = { .type = FILES_LOG_SIZE, .path = e->path, .offset = e->size, .mtime_ns = e->mtime_ns };
		memcpy(r.check, e->check, sizeof r.check);
		rc = put(f, &r, err);
	}
	f->tell_sizes = false;
	return rc;
}

int files_follow_open_section(struct follower *f, struct im_error *err)
{
	if (f->open)
		return 0;
	if (!f->point_count && !f->part_count && files_log_empty(f->writer))
		files_log_begin(f->writer, f->state.point + 1);
	f->open = true;
	return f->tell_sizes ? put_sizes(f, err) : 0;
}

int files_follow_put(struct follower *f, const struct files_log_record *record, struct im_error *err)
{
	int rc = files_follow_open_section(f, err);
	if (record->type != FILES_LOG_APPEND)
		f->state.structure++;
	f->bytes += record->len;
	return rc ? rc : put(f, record, err);
}

int files_follow_end_section(struct follower *f, int64_t complete_ms, int64_t latest_ms, struct im_error *err)
{
	struct follow_state *s = &f->state;
	int rc = files_follow_open_section(f, err);
	if (!rc && f->point_count == f->point_cap) {
		size_t cap = f->point_cap ? 2 * f->point_cap : 16;
		struct log_point *grown = realloc(f->points, cap * sizeof *grown);
		if (!grown)
			return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
		f->points = grown;
		f->point_cap = cap;
	}
	if (rc)
		return rc;
	if (complete_ms > s->complete_ms)
		s->complete_ms = complete_ms;
	if (latest_ms > s->latest_ms)
		s->latest_ms = latest_ms;
	if (s->latest_ms < s->complete_ms)
		s->latest_ms = s->complete_ms;
	struct files_log_record end = { .type = FILES_LOG_END, .complete_ms = s->complete_ms, .latest_ms = s->latest_ms };
	f->points[f->point_count++] = (struct log_point){ s->complete_ms, s->latest_ms };
	s->point++;
	f->open = false;
	return files_log_put(f->writer, &end, err); /* never cut here: a part would be left without a record */
}

size_t files_follow_batch_size(const struct follower *f)
{
	size_t size = files_log_size(f->writer);
	for (size_t i = 0; i < f->part_count; i++)
		size += f->parts[i].data.len;
	return size;
}

int files_follow_hand_over(struct follower *f, struct follow_batch *ret, struct im_error *err)
{
	int rc = cut_part(f, err);
	json_t *position = rc ? NULL : files_follow_position(f);
	if (!rc && !position)
		rc = im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	if (rc)
		return rc;
	*ret = (struct follow_batch){ .parts = f->parts,
		.part_count = f->part_count,
		.points = f->points,
		.point_count = f->point_count,
		.position = position,
		.bytes = f->bytes };
	f->parts = NULL;
	f->points = NULL;
	f->part_count = f->point_count = f->point_cap = 0;
	f->bytes = 0;
	f->taken = true;
	return 0;
}

void files_follow_drop_batch(struct follower *f)
{
	for (size_t i = 0; i < f->part_count; i++)
		im_buf_free(&f->parts[i].data);
	free(f->parts);
	free(f->points);
}

static int encode_meta(struct archive_entry *entry, struct im_buf *ret, struct im_error *err)
{
	struct files_segment_writer *w;
	int rc = files_segment_writer_new(&w, err);
	if (rc)
		return rc;
	rc = files_segment_add(w, entry, 0, NULL, 0, err);
	if (!rc)
		rc = files_segment_finish(w, NULL, 0, ret, err);
	files_segment_writer_free(w);
	return rc;
}

int files_follow_meta(struct follower *f, int fd, struct im_buf *ret, struct im_error *err)
{
	char source[32];
	struct stat st;
	struct archive_entry *entry = archive_entry_new();
	if (!entry || fstat(fd, &st)) {
		archive_entry_free(entry);
		return im_fail(err, IM_EIO, "cannot read the metadata of a file in store %s", f->store->name);
	}
	snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
	archive_entry_copy_pathname(entry, "it");
	archive_entry_copy_sourcepath(entry, source);
	archive_entry_copy_stat(entry, &st);
	archive_read_disk_entry_from_file(f->disk, entry, fd, &st); /* what it cannot read is left out */
	archive_entry_copy_sourcepath(entry, NULL);
	int rc = encode_meta(entry, ret, err);
	if (!rc && ret->len > FILES_LOG_META_BYTES) { /* huge attributes: the next snapshot has them */
		ret->len = 0;
		archive_entry_xattr_clear(entry);
		archive_entry_acl_clear(entry);
		rc = encode_meta(entry, ret, err);
	}
	archive_entry_free(entry);
	return rc;
}
