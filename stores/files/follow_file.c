/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file: what it grew by is appended to the log; if what is before has changed, it begins again.
 * A file is read to the size it had when it was looked at, so each point has a state it really was in.
 */
#include "stores/files/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define BATCH_BYTES (64u << 20) /* plain; more waits for the next batch */
#define AGAIN_SMALL_BYTES (1u << 20)
#define AGAIN_REST_MS 600000 /* a larger file that begins again more often than that does not only grow */

static int lose(struct follower *f, uint32_t file, const char *reason, struct im_error *err)
{
	struct follow_file *e = &f->files[file];
	struct files_log_record r = { .type = FILES_LOG_LOST, .path = e->path, .reason = reason };
	files_follow_warn(f, "%s is not followed any more until the next snapshot: %s", e->path, reason);
	int rc = files_follow_put(f, &r, err);
	e->lost = true;
	f->lost_count++;
	return rc;
}

static void slide(uint8_t *tail, size_t *tail_len, const uint8_t *data, size_t len)
{
	size_t keep = len < FILES_LOG_TAIL_BYTES ? FILES_LOG_TAIL_BYTES - len : 0;
	if (keep > *tail_len)
		keep = *tail_len;
	memmove(tail, tail + *tail_len - keep, keep);
	if (len > FILES_LOG_TAIL_BYTES) {
		data += len - FILES_LOG_TAIL_BYTES;
		len = FILES_LOG_TAIL_BYTES;
	}
	memcpy(tail + keep, data, len);
	*tail_len = keep + len;
}

/* From the captured size to look's. tail: what is before. */
static int read_growth(struct follower *f, uint32_t file, int fd, const struct follow_look *look, uint8_t *tail, size_t tail_len,
    struct im_error *err)
{
	struct follow_file *e = &f->files[file];
	auto_free uint8_t *buffer = malloc(FILES_LOG_DATA_BYTES);
	if (!buffer)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	while (e->size < look->size) {
		uint64_t left = look->size - e->size;
		if (f->bytes >= BATCH_BYTES) {
			f->more = true;
			return files_follow_touch(f, e->path, err);
		}
		size_t want = left < FILES_LOG_DATA_BYTES ? (size_t)left : FILES_LOG_DATA_BYTES;
		ssize_t n = im_pread_full(fd, buffer, want, e->size, NULL, e->path);
		if (n < 0)
			return lose(f, file, "it cannot be read", err);
		if (!n) /* cut short meanwhile: an event will come, or the next scan */
			break;
		struct files_log_record r = { .type = FILES_LOG_APPEND, .path = e->path, .offset = e->size,
			.mtime_ns = look->mtime_ns, .data = buffer, .len = (uint32_t)n };
		memcpy(r.check, e->check, sizeof r.check);
		int rc = files_follow_put(f, &r, err);
		if (rc)
			return rc;
		e->size += (uint64_t)n;
		f->total_bytes += (uint64_t)n;
		slide(tail, &tail_len, buffer, (size_t)n);
		files_log_check(e->check, tail, tail_len);
	}
	e->mtime_ns = look->mtime_ns;
	return 0;
}

int files_follow_announce(struct follower *f, const char *path, struct im_error *err)
{
	auto_free char *folder = strdup(path);
	if (!folder)
		return im_fail(err, IM_ENOMEM, "out of memory for a log segment");
	int rc = 0;
	for (char *p = folder; !rc && (p = strchr(p, '/')); *p++ = '/') {
		*p = 0;
		struct follow_folder *x = files_follow_folder_find(f, folder);
		if (!x || x->announced)
			continue;
		auto_close int fd = files_beneath_open(f->root_fd, folder, O_RDONLY | O_DIRECTORY);
		auto_buf struct im_buf meta = { 0 };
		if (fd < 0) /* gone again, or closed to us: it will be made with plain rights */
			continue;
		rc = files_follow_meta(f, fd, &meta, err);
		struct files_log_record r = { .type = FILES_LOG_FOLDER, .path = folder, .data = meta.data, .len = (uint32_t)meta.len };
		if (!rc)
			rc = files_follow_put(f, &r, err);
		x->announced = true;
	}
	return rc;
}

static int begin_content(struct follower *f, uint32_t file, int fd, const struct follow_look *look, struct im_error *err)
{
	uint8_t tail[FILES_LOG_TAIL_BYTES];
	struct follow_file *e = &f->files[file];
	auto_buf struct im_buf meta = { 0 };
	int rc = files_follow_meta(f, fd, &meta, err);
	struct files_log_record r = { .type = FILES_LOG_BEGIN, .path = e->path, .data = meta.data, .len = (uint32_t)meta.len };
	if (!rc)
		rc = files_follow_put(f, &r, err);
	if (rc)
		return rc;
	f->total_bytes -= e->size;
	f->lost_count -= e->lost;
	e->size = 0;
	e->lost = false;
	files_log_check(e->check, "", 0);
	return read_growth(f, file, fd, look, tail, 0, err);
}

/* What is before the captured size is not what it was: cut short, rewritten or replaced. */
static int begin_again(struct follower *f, uint32_t file, int fd, const struct follow_look *look, struct im_error *err)
{
	struct follow_file *e = &f->files[file];
	int64_t now = im_monotonic_ms();
	if (look->size > AGAIN_SMALL_BYTES && e->again_ms && now - e->again_ms < AGAIN_REST_MS)
		return lose(f, file, "it is rewritten again and again, so it does not only grow", err);
	e->again_ms = now;
	return begin_content(f, file, fd, look, err);
}

int files_follow_advance(struct follower *f, uint32_t file, const struct follow_look *look, struct im_error *err)
{
	struct follow_file *e = &f->files[file];
	uint8_t tail[FILES_LOG_TAIL_BYTES], check[FILES_LOG_CHECK_BYTES];
	size_t tail_len;
	if (e->lost || (look->size == e->size && look->mtime_ns == e->mtime_ns))
		return 0;
	auto_close int fd = files_follow_open_file(f, e->path, &e->ident);
	struct follow_look now;
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
		return files_follow_touch(f, e->path, err); /* it has just gone: the next look knows more */
	if (fd < 0 || !files_follow_look_fd(fd, &now) || !files_follow_tail(e, fd, tail, &tail_len))
		return lose(f, file, "it cannot be read", err);
	files_log_check(check, tail, tail_len);
	if (now.size < e->size || memcmp(check, e->check, sizeof check) != 0)
		return begin_again(f, file, fd, &now, err);
	return read_growth(f, file, fd, &now, tail, tail_len, err);
}

static int give_up(struct follower *f, const char *path, uint32_t old, int errno_value, struct im_error *err)
{
	struct files_log_record gone = { .type = FILES_LOG_GONE, .path = path };
	files_follow_warn_once(f, path, errno_value);
	int rc = old == FILES_NO_NAME ? 0 : files_follow_put(f, &gone, err);
	if (old != FILES_NO_NAME)
		files_follow_remove(f, old);
	return rc;
}

int files_follow_begin(struct follower *f, const char *path, const struct follow_look *look, struct im_error *err)
{
	uint32_t old = files_follow_find(f, path), file;
	struct follow_look now;
	auto_close int fd = files_follow_open_file(f, path, &look->ident);
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
		return files_follow_touch(f, path, err);
	if (fd < 0 || !files_follow_look_fd(fd, &now))
		return give_up(f, path, old, fd < 0 ? -fd : EIO, err);
	int64_t again_ms = old == FILES_NO_NAME ? 0 : f->files[old].again_ms, time_ms = im_monotonic_ms();
	if (again_ms && time_ms - again_ms < AGAIN_REST_MS && now.size > AGAIN_SMALL_BYTES) {
		int rc = f->files[old].lost ? 0 : lose(f, old, "it is replaced again and again, so it does not only grow", err);
		return rc ? rc : files_follow_rebind(f, old, &now.ident, err);
	}
	int rc = files_follow_open_section(f, err); /* while the table is as it was */
	if (!rc)
		rc = files_follow_announce(f, path, err);
	if (!rc && old != FILES_NO_NAME)
		files_follow_remove(f, old);
	if (!rc)
		rc = files_follow_add(f, path, &now, &file, err);
	if (rc)
		return rc;
	f->files[file].again_ms = old == FILES_NO_NAME ? 0 : time_ms;
	return begin_content(f, file, fd, &now, err);
}

bool files_follow_proven(struct follower *f, uint32_t file, const char *path, const struct follow_look *look)
{
	const struct follow_file *e = &f->files[file];
	uint8_t tail[FILES_LOG_TAIL_BYTES], check[FILES_LOG_CHECK_BYTES];
	size_t len;
	if (look->size < e->size)
		return false;
	auto_close int fd = files_follow_open_file(f, path, &look->ident);
	if (fd < 0 || !files_follow_tail(e, fd, tail, &len))
		return false;
	files_log_check(check, tail, len);
	return !memcmp(check, e->check, sizeof check);
}
