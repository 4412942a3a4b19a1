/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the follower writes down for `imvault status`, per store: STATE/NODE.follow/STORE/status, and
 * reading it. Whether its writer still lives is asked of the control socket, not of a number.
 */
#include "backup/follow_internal.h"
#include "backup/wire.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STATUS "status"
#define STATUS_VERSION 1
#define STATUS_MAX_BYTES (1u << 20)

/* --- writing --- */

static void put_text(json_t *j, const char *key, const char *text)
{
	json_t *value = text && *text ? json_string(text) : NULL;
	json_object_set_new(j, key, value ? value : json_null());
}

/* Under the view's lock. */
static json_t *view_json(struct followed *f, uint64_t spooled)
{
	const struct follow_view *v = &f->view;
	json_t *j = json_pack("{s:i, s:i, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "version", STATUS_VERSION, "pid", (int)getpid(),
	    "following", v->following, "epoch", v->epoch, "point", (json_int_t)v->point, "shipped_point", (json_int_t)v->shipped_point,
	    "written_ms", (json_int_t)im_now_ms(), "captured_ms", (json_int_t)v->captured_ms, "shipped_ms", (json_int_t)v->shipped_ms,
	    "spooled_bytes", (json_int_t)spooled, "held_bytes", (json_int_t)v->held_bytes, "held_since_ms", (json_int_t)v->held_since_ms);
	if (!j)
		return NULL;
	put_text(j, "text", v->trouble[0] ? v->trouble : v->gap_text[0] ? v->gap_text : v->alarm);
	json_t *position = v->shipped_position ? json_loads(v->shipped_position, 0, NULL) : NULL;
	json_object_set_new(j, "position", position ? position : json_null());
	return j;
}

static void replace_file(const struct followed *f, const char *text)
{
	auto_free char *path = im_path_join(f->folder, STATUS), *temporary = im_path_join(f->folder, STATUS ".tmp");
	if (!path || !temporary)
		return;
	auto_close int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	/* No fsync: what a power cut takes is written again a second later. */
	if (fd >= 0 && im_write_full(fd, text, strlen(text), NULL, path) == 0)
		rename(temporary, path);
}

void follow_write_status(struct followed *f)
{
	uint64_t spooled = spool_bytes(f->spool);
	pthread_mutex_lock(&f->lock);
	f->view.dirty = false;
	json_t *j = view_json(f, spooled);
	pthread_mutex_unlock(&f->lock);
	auto_free char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	json_decref(j);
	if (text)
		replace_file(f, text);
}

/* --- reading --- */

static json_t *read_status(const char *folder, const char *store)
{
	auto_buf struct im_buf text = { 0 };
	auto_free char *path = im_format("%s/%s/" STATUS, folder, store);
	if (!path || im_file_read(path, STATUS_MAX_BYTES, &text, NULL))
		return NULL;
	json_t *j = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(j) && json_integer_value(json_object_get(j, "version")) == STATUS_VERSION)
		return j;
	json_decref(j);
	return NULL;
}

static char *copy_text(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));
	return text && *text ? strdup(text) : NULL;
}

static int64_t whole(const json_t *j, const char *key, int64_t max)
{
	int64_t v = json_integer_value(json_object_get(j, key));
	return v < 0 ? 0 : v > max ? max : v;
}

static void fill_row(struct follow_state_row *row, const json_t *j, int live_pid)
{
	json_t *position = json_object_get(j, "position");
	row->epoch = copy_text(j, "epoch");
	row->text = copy_text(j, "text");
	row->following = live_pid && json_integer_value(json_object_get(j, "pid")) == live_pid && json_is_true(json_object_get(j, "following"));
	row->point = (uint32_t)whole(j, "point", UINT32_MAX);
	row->written_ms = whole(j, "written_ms", INT64_MAX);
	row->captured_ms = whole(j, "captured_ms", INT64_MAX);
	row->shipped_ms = whole(j, "shipped_ms", INT64_MAX);
	row->spooled_bytes = (uint64_t)whole(j, "spooled_bytes", INT64_MAX);
	row->held_bytes = (uint64_t)whole(j, "held_bytes", INT64_MAX);
	row->position = json_is_object(position) ? json_incref(position) : NULL;
}

static int add_row(struct follow_state *s, const char *folder, const char *store, int live_pid, struct im_error *err)
{
	json_t *j = im_name_valid(store) ? read_status(folder, store) : NULL;
	if (!j)
		return 0;
	struct follow_state_row *grown = reallocarray(s->rows, s->count + 1, sizeof *grown);
	if (grown) {
		s->rows = grown;
		s->rows[s->count] = (struct follow_state_row){ .store = strdup(store) };
		fill_row(&s->rows[s->count++], j, live_pid);
	}
	json_decref(j);
	return grown && s->rows[s->count - 1].store ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

static int by_store(const void *a, const void *b)
{
	return strcmp(((const struct follow_state_row *)a)->store, ((const struct follow_state_row *)b)->store);
}

static int live_follower(const char *folder)
{
	struct wire wire;
	int pid = 0;
	if (wire_connect(folder, &wire, &pid, NULL))
		return 0;
	wire_close(&wire);
	return pid;
}

int follow_state_load(const char *folder, const char *node, struct follow_state *ret, struct im_error *err)
{
	struct follow_state s = { 0 };
	auto_free char *place = wire_folder(folder, node);
	if (!place)
		return im_fail(err, IM_ENOMEM, "out of memory");
	auto_closedir DIR *dir = opendir(place);
	if (!dir)
		return im_fail_errno(err, errno == ENOENT ? IM_ENOTFOUND : IM_EIO, errno, "cannot read %s", place);
	int pid = live_follower(place), rc = 0;
	for (const struct dirent *e; rc == 0 && (e = readdir(dir));)
		rc = add_row(&s, place, e->d_name, pid, err);
	if (rc == 0 && !s.count)
		rc = im_fail(err, IM_ENOTFOUND, "no store of node %s was ever followed from here", node);
	if (rc) {
		follow_state_clear(&s);
		return rc;
	}
	qsort(s.rows, s.count, sizeof *s.rows, by_store);
	*ret = s;
	return 0;
}

void follow_state_clear(struct follow_state *s)
{
	for (size_t i = 0; i < s->count; i++) {
		free(s->rows[i].store);
		free(s->rows[i].epoch);
		free(s->rows[i].text);
		json_decref(s->rows[i].position);
	}
	free(s->rows);
	*s = (struct follow_state){ 0 };
}
