/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's form: committed length[8], then per section a fixed head and its records, in native
 * byte order: only another process on the same machine reads it. A writer that dies leaves at
 * most bytes beyond the committed length.
 */
#include "stores/sqlite/journal.h"

#include "base/file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_JOURNAL_BYTES (UINT64_C(256) << 20)

struct fixed {
	uint64_t magic, record_bytes, bytes, commits;
	struct logbody_section head;
	struct walpos after;
	uint32_t count;
};
#define MAGIC UINT64_C(0x314c4e4a564d49)

void journal_section_clear(struct journal_section *s)
{
	im_buf_free(&s->records);
	*s = (struct journal_section){ 0 };
}

int journal_section_add(struct journal_section *s, struct pagediff *d, uint32_t page, const uint8_t *base, const uint8_t *content, struct im_error *err)
{
	auto_buf struct im_buf control = { 0 }, literals = { 0 };
	pagediff_make(d, base, content, &control, &literals);
	uint32_t row[4] = { page, base != NULL, (uint32_t)control.len, (uint32_t)literals.len };
	im_buf_put(&s->records, row, sizeof row);
	im_buf_put(&s->records, control.data, control.len);
	im_buf_put(&s->records, literals.data, literals.len);
	s->count++;
	return control.failed || literals.failed || s->records.failed ? im_fail(err, IM_ENOMEM, "out of memory") : 0;
}

int journal_section_write(const struct journal_section *s, struct logbody_writer *w, struct im_error *err)
{
	struct im_reader r = im_reader_of(s->records.data, s->records.len);
	for (uint32_t i = 0; i < s->count; i++) {
		uint32_t row[4];
		im_read_copy(&r, row, sizeof row);
		struct pagediff_ops ops = { .has_base = row[1], .control_len = row[2], .literals_len = row[3] };
		ops.control = im_read_view(&r, row[2]);
		ops.literals = im_read_view(&r, row[3]);
		if (r.failed)
			return im_fail(err, IM_ECORRUPT, "the journal of a follower is damaged");
		int rc = logbody_put_ops(w, row[0], &ops, err);
		if (rc)
			return rc;
	}
	return logbody_end_section(w, &s->head, err);
}

static int committed(int fd, uint64_t *ret, struct im_error *err)
{
	struct stat st;
	*ret = 0;
	ssize_t n = im_pread_full(fd, ret, sizeof *ret, 0, err, "the journal");
	if (n < 0)
		return (int)n;
	if (fstat(fd, &st) || *ret > MAX_JOURNAL_BYTES || (*ret && (uint64_t)st.st_size < sizeof *ret + *ret))
		return im_fail(err, IM_ECORRUPT, "the journal of a follower is damaged");
	return 0;
}

int journal_append(int fd, const struct journal_section *s, struct im_error *err)
{
	uint64_t len;
	int rc = committed(fd, &len, err);
	struct fixed f = { .magic = MAGIC, .record_bytes = s->records.len, .bytes = s->bytes, .commits = s->commits,
		.head = s->head, .after = s->after, .count = s->count };
	uint64_t at = sizeof len + len, total = len + sizeof f + s->records.len;
	if (rc == 0 && total > MAX_JOURNAL_BYTES)
		rc = im_fail(err, IM_EFAIL, "the journal is full: nothing was taken out of it");
	if (rc == 0)
		rc = im_pwrite_full(fd, &f, sizeof f, at, err, "the journal");
	if (rc == 0)
		rc = im_pwrite_full(fd, s->records.data, s->records.len, at + sizeof f, err, "the journal");
	return rc ? rc : im_pwrite_full(fd, &total, sizeof total, 0, err, "the journal");
}

static int replay_one(const uint8_t *data, size_t left, size_t *ret_used, int (*fn)(void *context, const struct journal_section *s, struct im_error *err), void *context, struct im_error *err)
{
	struct fixed f;
	if (left < sizeof f)
		return im_fail(err, IM_ECORRUPT, "the journal of a follower is damaged");
	memcpy(&f, data, sizeof f);
	if (f.magic != MAGIC || f.record_bytes > left - sizeof f)
		return im_fail(err, IM_ECORRUPT, "the journal of a follower is damaged");
	struct journal_section s = { .head = f.head, .after = f.after, .bytes = f.bytes, .commits = f.commits, .count = f.count };
	s.records = (struct im_buf){ .data = (uint8_t *)data + sizeof f, .len = (size_t)f.record_bytes };
	*ret_used = sizeof f + (size_t)f.record_bytes;
	return fn(context, &s, err);
}

int journal_replay(int fd, int (*fn)(void *context, const struct journal_section *s, struct im_error *err), void *context, struct im_error *err)
{
	uint64_t len;
	auto_buf struct im_buf b = { 0 };
	int rc = committed(fd, &len, err);
	if (rc || !len)
		return rc;
	uint8_t *data = im_buf_grow(&b, (size_t)len);
	if (!data)
		return im_fail(err, IM_ENOMEM, "out of memory");
	ssize_t n = im_pread_full(fd, data, (size_t)len, sizeof len, err, "the journal");
	if (n < 0)
		return (int)n;
	for (size_t at = 0, used = 0; rc == 0 && at < len; at += used)
		rc = replay_one(data + at, (size_t)len - at, &used, fn, context, err);
	return rc;
}

int journal_reset(int fd, struct im_error *err)
{
	uint64_t none = 0;
	int rc = im_pwrite_full(fd, &none, sizeof none, 0, err, "the journal");
	if (rc == 0 && ftruncate(fd, sizeof none))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot empty the journal");
	return rc;
}
