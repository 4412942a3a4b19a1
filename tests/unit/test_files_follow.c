/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following the files of a tree: a real tree, a real follower, real snapshots. After each batch the
 * tree's files are written down; every point must give exactly these, by itself and out of merged bodies.
 */
#include "files_rig.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "stores/files/follow_internal.h"
#include "stores/files/segment.h"
#include "stores/files/walk.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_BODIES 512

struct body {
	uint32_t first, last, part;
	bool final;
	struct im_buf data;
};

struct rig {
	struct snapshot_anchor anchor; /* first */
	struct files_rig *r;
	char folder[128];
	struct follower *f;
	json_t *position;
	uint32_t point, anchored;
	struct body bodies[MAX_BODIES];
	size_t body_count;
	char *states[MAX_BODIES]; /* by point */
	void (*after_pin)(struct rig *t);
	int64_t complete_ms, latest_ms;
};

/* --- the tree as text: its regular files --- */

struct describer {
	int fd;
	struct im_buf text;
};

static int describe_file(void *context, const char *path, const struct stat *st, struct im_error *err)
{
	struct describer *d = context;
	char line[8192], hex[17];
	uint8_t hash[32], bytes[65536];
	if (!S_ISREG(st->st_mode))
		return 0;
	struct crypto_hasher h;
	auto_close int fd = files_beneath_open(d->fd, path, O_RDONLY);
	(void)err;
	crypto_hasher_begin(&h);
	for (ssize_t n; (n = read(fd, bytes, sizeof bytes)) > 0;)
		crypto_hasher_add(&h, bytes, (size_t)n);
	crypto_hasher_end(&h, hash);
	int n = snprintf(line, sizeof line, "%s: %o %u:%u %lld.%09ld size %lld content %s\n", path, st->st_mode, st->st_uid, st->st_gid,
	    (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (long long)st->st_size, im_hex(hex, hash, 8));
	im_buf_put(&d->text, line, (size_t)n);
	return 0;
}

static void no_fault(void *context, const char *path, int errno_value)
{
	(void)context;
	fail_msg("%s: %s", path, strerror(errno_value));
}

static char *describe(const char *root)
{
	struct im_error err = { 0 };
	auto_close int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct describer d = { .fd = fd };
	struct files_walk w = { .root_fd = fd, .entry = describe_file, .fault = no_fault, .context = &d };
	assert_true(fd >= 0);
	assert_ok(files_walk_run(&w, &err), &err);
	im_buf_put_u8(&d.text, 0);
	return (char *)d.text.data;
}

/* --- the follower --- */

static void open_follower(struct rig *t, struct im_error *err, int want)
{
	struct follow_request q = { .config = &t->r->config, .store = &t->r->stores[0], .keyring = t->r->f.node->keyring,
		.folder = t->folder, .position = t->position, .point = t->point, .events = &t->r->events };
	assert_null(t->f);
	int rc = files_follow_ops.open(&q, &t->f, err);
	if (rc != want)
		fprintf(stderr, "%s\n", err->text);
	assert_int_equal(rc, want);
}

static void open_ok(struct rig *t)
{
	struct im_error err = { 0 };
	open_follower(t, &err, 0);
}

static void stop(struct rig *t)
{
	files_follow_ops.close(t->f, false);
	t->f = NULL;
}

static void keep_batch(struct rig *t, struct follow_batch *b)
{
	struct im_error err = { 0 };
	for (size_t i = 0; i < b->part_count; i++) {
		assert_true(t->body_count < MAX_BODIES);
		t->bodies[t->body_count++] = (struct body){ t->point + 1, t->point + (uint32_t)b->point_count, (uint32_t)i,
			i + 1 == b->part_count, b->parts[i].data };
		b->parts[i].data = (struct im_buf){ 0 };
	}
	for (size_t i = 0; i < b->point_count; i++) {
		assert_true(b->points[i].complete_ms >= t->complete_ms && b->points[i].latest_ms >= t->latest_ms &&
		    b->points[i].latest_ms >= b->points[i].complete_ms);
		t->complete_ms = b->points[i].complete_ms;
		t->latest_ms = b->points[i].latest_ms;
	}
	t->point += (uint32_t)b->point_count;
	assert_true(t->point < MAX_BODIES);
	json_decref(t->position);
	t->position = json_incref(b->position);
	follow_batch_clear(b);
	assert_ok(files_follow_ops.durable(t->f, &err), &err);
	free(t->states[t->point]);
	t->states[t->point] = describe(t->r->source);
}

static bool take_once(struct rig *t, bool heartbeat)
{
	struct im_error err = { 0 };
	struct follow_batch b = { 0 };
	bool any = false;
	assert_ok(files_follow_ops.take(t->f, heartbeat, &b, &any, &err), &err);
	if (any)
		keep_batch(t, &b);
	return any;
}

/* Everything that is there is captured afterwards. */
static void take(struct rig *t)
{
	struct im_error err = { 0 };
	for (int i = 0; i < 3 || t->f->touched_count; i++) {
		bool any;
		assert_ok(files_follow_ops.capture(t->f, &any, &err), &err);
		if (files_follow_ops.pending(t->f) == SIZE_MAX)
			take_once(t, false);
	}
	take_once(t, false);
}

static int freeze(struct snapshot_anchor *a, const char *store, struct im_error *err)
{
	(void)a, (void)store, (void)err;
	return 0;
}

static int pinned(struct snapshot_anchor *a, const char *store, const json_t *position, json_t **ret_log, struct im_error *err)
{
	struct rig *t = (struct rig *)a;
	struct follow_batch b = { 0 };
	assert_string_equal(store, "uploads");
	int rc = files_follow_ops.take_to(t->f, position, &b, err);
	assert_ok(rc, err);
	keep_batch(t, &b);
	t->anchored = t->point;
	*ret_log = json_pack("{s:i}", "point", (int)t->point);
	if (t->after_pin)
		t->after_pin(t);
	return 0;
}

static void snapshot(struct rig *t)
{
	struct im_error err = { 0 };
	assert_ok(files_rig_snapshot(t->r, false, &err), &err);
	assert_int_equal(json_integer_value(json_object_get(t->r->result.log, "point")), t->anchored);
}

static int setup(void **state)
{
	struct rig *t = calloc(1, sizeof *t);
	void *r = NULL;
	files_rig_setup(&r);
	t->r = r;
	t->anchor = (struct snapshot_anchor){ freeze, pinned };
	t->r->anchor = &t->anchor;
	snprintf(t->folder, sizeof t->folder, "%s/follow", t->r->f.dir);
	assert_int_equal(mkdir(t->folder, 0700), 0);
	files_rig_option(t->r, "follow", "*.log");
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct rig *t = *state;
	void *r = t->r;
	files_follow_ops.close(t->f, false);
	json_decref(t->position);
	for (size_t i = 0; i < t->body_count; i++)
		im_buf_free(&t->bodies[i].data);
	for (size_t i = 0; i < MAX_BODIES; i++)
		free(t->states[i]);
	free(t);
	return files_rig_teardown(&r);
}

/* --- restoring --- */

struct log {
	struct rebuild_log base; /* first */
	struct body *bodies[MAX_BODIES];
	struct rebuild_log_body rows[MAX_BODIES];
};

static int read_body(const struct rebuild_log *log, size_t i, struct im_buf *ret, struct im_error *err)
{
	const struct log *l = (const struct log *)log;
	(void)err;
	im_buf_put(ret, l->bodies[i]->data.data, l->bodies[i]->data.len);
	return 0;
}

static void add_body(struct log *l, struct body *b)
{
	l->rows[l->base.body_count] = (struct rebuild_log_body){ b->first, b->last, b->part, b->final, b->data.len };
	l->bodies[l->base.body_count++] = b;
}

static int restore_log(struct rig *t, struct log *l, const char *filter, char *root, struct im_error *err)
{
	l->base.read = read_body;
	l->base.bodies = l->rows;
	t->r->log = &l->base;
	int rc = files_rig_restore(t->r, filter, root, err);
	t->r->log = NULL;
	return rc;
}

static void prepare_log(struct rig *t, struct log *l, uint32_t until)
{
	*l = (struct log){ .base = { .after = t->anchored, .until = until } };
	for (size_t i = 0; i < t->body_count; i++)
		if (t->bodies[i].last > t->anchored && t->bodies[i].first <= until)
			add_body(l, &t->bodies[i]);
}

static void assert_state(struct rig *t, uint32_t point, const char *root)
{
	auto_free char *now = describe(root);
	if (strcmp(now, t->states[point]))
		fprintf(stderr, "point %u of %u (image at %u): want\n%s\ngot\n%s\n%s\n", point, t->point, t->anchored, t->states[point], now, t->r->damage);
	assert_true(!strcmp(now, t->states[point]));
	assert_string_equal(t->r->damage, "");
}

static void assert_point(struct rig *t, uint32_t point)
{
	struct im_error err = { 0 };
	char root[512];
	auto_free struct log *l = malloc(sizeof *l);
	prepare_log(t, l, point);
	t->r->warnings[0] = 0;
	assert_ok(restore_log(t, l, NULL, root, &err), &err);
	assert_state(t, point, root);
	assert_string_equal(t->r->warnings, "");
	auto_free char *text = NULL;
	assert_ok(files_check(t->r->result.manifest, root, "full", &text, &err), &err);
}

static int source_read(void *context, uint64_t offset, void *ret, size_t len, struct im_error *err)
{
	const struct body *b = context;
	(void)err;
	assert_true(offset <= b->data.len && len <= b->data.len - offset);
	if (len)
		memcpy(ret, b->data.data + offset, len);
	return 0;
}

struct merged {
	struct body bodies[64];
	size_t count;
	uint32_t first, last;
};

static int on_part(void *context, const void *data, size_t len, bool final, struct im_error *err)
{
	struct merged *m = context;
	(void)err;
	assert_true(m->count < 64);
	struct body *b = &m->bodies[m->count];
	*b = (struct body){ m->first, m->last, (uint32_t)m->count, final, { 0 } };
	m->count++;
	im_buf_put(&b->data, data, len);
	return 0;
}

static void merge_range(struct rig *t, uint32_t first, uint32_t last, struct merged *m)
{
	struct follow_source sources[MAX_BODIES];
	struct im_error err = { 0 };
	size_t count = 0;
	*m = (struct merged){ .first = first, .last = last };
	for (size_t i = 0; i < t->body_count; i++)
		if (t->bodies[i].first >= first && t->bodies[i].last <= last)
			sources[count++] = (struct follow_source){ source_read, &t->bodies[i], t->bodies[i].data.len };
	assert_ok(files_follow_ops.merge(sources, count, on_part, m, &err), &err);
	assert_true(m->count && m->bodies[m->count - 1].final);
}

/* (anchored, middle] and (middle, last] each as one; 0: all as one. */
static void assert_merged(struct rig *t, uint32_t middle)
{
	struct im_error err = { 0 };
	char root[512];
	auto_free struct log *l = calloc(1, sizeof *l);
	auto_free struct merged *m = calloc(2, sizeof *m);
	l->base = (struct rebuild_log){ .after = t->anchored, .until = t->point };
	if (middle > t->anchored)
		merge_range(t, t->anchored + 1, middle, &m[0]);
	else
		middle = t->anchored;
	merge_range(t, middle + 1, t->point, &m[1]);
	for (int k = 0; k < 2; k++)
		for (size_t i = 0; i < m[k].count; i++)
			add_body(l, &m[k].bodies[i]);
	assert_ok(restore_log(t, l, NULL, root, &err), &err);
	assert_state(t, t->point, root);
	for (int k = 0; k < 2; k++)
		for (size_t i = 0; i < m[k].count; i++)
			im_buf_free(&m[k].bodies[i].data);
}

static void assert_all(struct rig *t)
{
	for (uint32_t p = t->anchored + 1; p <= t->point; p++)
		if (t->states[p])
			assert_point(t, p);
	assert_merged(t, 0);
	for (uint32_t p = t->anchored + 1; p < t->point; p++)
		if (t->states[p]) /* a batch ends there */
			assert_merged(t, p);
}

/* --- changing the tree --- */

static void append(struct rig *t, const char *path, const char *text)
{
	char *at = files_rig_path(t->r, path);
	auto_close int fd = open(at, O_WRONLY | O_CREAT | O_APPEND, 0640);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void append_bytes(struct rig *t, const char *path, size_t len, uint64_t seed)
{
	auto_free uint8_t *data = malloc(len);
	fill_bytes(data, len, seed);
	auto_close int fd = open(files_rig_path(t->r, path), O_WRONLY | O_CREAT | O_APPEND, 0640);
	assert_ok(im_write_full(fd, data, len, NULL, path), &(struct im_error){ 0 });
}

static void move(struct rig *t, const char *from, const char *to)
{
	auto_free char *a = strdup(files_rig_path(t->r, from));
	assert_int_equal(rename(a, files_rig_path(t->r, to)), 0);
}

static void make_folder(struct rig *t, const char *path) { assert_int_equal(mkdir(files_rig_path(t->r, path), 0750), 0); }

/* A tree with two logs and a stranger, followed, with a snapshot. */
static void begin(struct rig *t)
{
	files_rig_write(t->r, "im/a.log", "one\n", 4);
	append_bytes(t, "im/b.log", 20000, 1);
	files_rig_write(t->r, "im/config", "x = 1\n", 6);
	open_ok(t);
	snapshot(t);
}

/* --- tests --- */

static void wanted__needs_a_pattern(void **state)
{
	struct rig *t = *state;
	const char *why = "unset";
	assert_true(files_follow_ops.wanted(&t->r->stores[0], &why));
	assert_null(why);
	t->r->stores[0].pair_count = 0;
	assert_false(files_follow_ops.wanted(&t->r->stores[0], &why));
	assert_null(why);
}

static void grow__every_point_is_restored(void **state)
{
	struct rig *t = *state;
	begin(t);
	append(t, "im/a.log", "two\n");
	take(t);
	append(t, "im/b.log", "three\n");
	append(t, "im/a.log", "four\n");
	take(t);
	append_bytes(t, "im/b.log", 300000, 7);
	take(t);
	assert_int_equal(t->point, t->anchored + 3);
	assert_all(t);
}

static void grow__nothing_new_makes_no_batch(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	bool any;
	begin(t);
	uint32_t point = t->point;
	append(t, "im/config", "y = 2\n"); /* not followed */
	take(t);
	assert_int_equal(t->point, point);
	assert_true(take_once(t, true));
	assert_int_equal(t->point, point + 1);
	assert_ok(files_follow_ops.capture(t->f, &any, &err), &err);
	assert_false(any);
}

static void wait__returns_when_a_log_grows(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	begin(t);
	take(t);
	usleep(30000);
	int64_t start = im_monotonic_ms();
	assert_ok(files_follow_ops.wait(t->f, -1, 200, &err), &err);
	assert_true(im_monotonic_ms() - start >= 150);
	append(t, "im/a.log", "two\n");
	start = im_monotonic_ms();
	assert_ok(files_follow_ops.wait(t->f, -1, 5000, &err), &err);
	assert_true(im_monotonic_ms() - start < 1000);
}

static void new_file__is_restored_with_its_metadata(void **state)
{
	struct rig *t = *state;
	begin(t);
	append(t, "im/c.log", "new\n");
	assert_int_equal(chmod(files_rig_path(t->r, "im/c.log"), 0604), 0);
	take(t);
	append(t, "im/c.log", "more\n");
	append(t, "im/d.txt", "not followed\n");
	take(t);
	assert_int_equal(unlink(files_rig_path(t->r, "im/d.txt")), 0); /* states have followed files only */
	free(t->states[t->point]);
	t->states[t->point] = describe(t->r->source);
	append(t, "im/empty.log", "");
	take(t);
	assert_all(t);
}

static void new_folder__comes_with_its_metadata(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	struct stat st;
	char root[512], path[600];
	begin(t);
	make_folder(t, "room");
	make_folder(t, "room/2026");
	append(t, "room/2026/x.log", "first\n");
	take(t);
	append(t, "room/2026/x.log", "second\n");
	make_folder(t, "room/2027");
	take(t);
	append(t, "room/2027/y.log", "third\n");
	take(t);
	assert_all(t);
	auto_free struct log *l = malloc(sizeof *l);
	prepare_log(t, l, t->point);
	assert_ok(restore_log(t, l, NULL, root, &err), &err);
	snprintf(path, sizeof path, "%s/room/2026", root);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
}

static void rotation__content_keeps_its_names(void **state)
{
	struct rig *t = *state;
	begin(t);
	append(t, "im/a.log", "two\n");
	take(t);
	move(t, "im/a.log", "im/a.log.1"); /* a name that no pattern has */
	append(t, "im/a.log", "new one\n");
	take(t);
	append(t, "im/a.log.1", "late\n"); /* the server has not opened the new one yet */
	append(t, "im/a.log", "new two\n");
	take(t);
	move(t, "im/a.log.1", "im/a.log.2");
	move(t, "im/a.log", "im/a.log.1");
	append(t, "im/a.log", "newest\n");
	take(t);
	assert_int_equal(unlink(files_rig_path(t->r, "im/a.log.2")), 0);
	take(t);
	assert_all(t);
}

static void rotation__names_that_swap(void **state)
{
	struct rig *t = *state;
	begin(t);
	move(t, "im/a.log", "im/tmp");
	move(t, "im/b.log", "im/a.log");
	move(t, "im/tmp", "im/b.log");
	take(t);
	append(t, "im/a.log", "to what was b\n");
	take(t);
	assert_all(t);
}

static void truncation__begins_again(void **state)
{
	struct rig *t = *state;
	begin(t);
	append(t, "im/a.log", "two\n");
	take(t);
	assert_int_equal(truncate(files_rig_path(t->r, "im/a.log"), 0), 0);
	take(t);
	append(t, "im/a.log", "after\n");
	take(t);
	assert_int_equal(truncate(files_rig_path(t->r, "im/b.log"), 100), 0);
	append(t, "im/b.log", "after\n");
	take(t);
	/* longer than before by the time it is looked at */
	assert_int_equal(truncate(files_rig_path(t->r, "im/a.log"), 0), 0);
	append(t, "im/a.log", "a text that is longer than all that it had\n");
	take(t);
	assert_all(t);
}

static void rewrite__of_a_small_file_begins_again(void **state)
{
	struct rig *t = *state;
	begin(t);
	for (int i = 0; i < 4; i++) {
		files_rig_write(t->r, "im/new", "atomically replaced 0\n", (size_t)(18 + i));
		move(t, "im/new", "im/a.log");
		take(t);
	}
	assert_all(t);
}

static void rewrite__of_a_large_file_is_lost_until_the_next_snapshot(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	struct follow_health health;
	char root[512];
	begin(t);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(truncate(files_rig_path(t->r, "im/a.log"), 0), 0);
		append_bytes(t, "im/a.log", 2u << 20, (uint64_t)i + 50);
		take(t);
	}
	append(t, "im/b.log", "goes on\n");
	take(t);
	files_follow_ops.health(t->f, &health);
	assert_non_null(health.alarm);
	assert_non_null(strstr(health.alarm, "im/a.log"));
	assert_non_null(strstr(t->r->warnings, "im/a.log"));
	auto_free struct log *l = malloc(sizeof *l);
	prepare_log(t, l, t->point);
	t->r->warnings[0] = 0;
	assert_ok(restore_log(t, l, NULL, root, &err), &err);
	assert_non_null(strstr(t->r->warnings, "im/a.log is not as it was"));
	assert_null(strstr(t->r->warnings, "im/b.log"));
	snapshot(t);
	append(t, "im/a.log", "followed again\n");
	take(t);
	files_follow_ops.health(t->f, &health);
	assert_null(health.alarm);
	assert_all(t);
}

static void deletion__leaves_nothing(void **state)
{
	struct rig *t = *state;
	begin(t);
	append(t, "im/a.log", "two\n");
	take(t);
	assert_int_equal(unlink(files_rig_path(t->r, "im/a.log")), 0);
	take(t);
	append(t, "im/a.log", "reborn, perhaps in the same inode\n");
	take(t);
	assert_int_equal(unlink(files_rig_path(t->r, "im/a.log")), 0);
	append(t, "im/a.log", "one\n");
	take(t);
	assert_all(t);
}

static void folder__that_is_renamed(void **state)
{
	struct rig *t = *state;
	begin(t);
	make_folder(t, "other");
	append(t, "other/c.log", "c\n");
	take(t);
	move(t, "other", "another");
	append(t, "another/c.log", "c again\n");
	take(t);
	append(t, "another/c.log", "and again\n");
	take(t);
	assert_all(t);
}

static void restart__takes_what_grew_meanwhile(void **state)
{
	struct rig *t = *state;
	begin(t);
	append(t, "im/a.log", "two\n");
	take(t);
	stop(t);
	append(t, "im/a.log", "while it was down\n");
	append(t, "im/c.log", "new\n");
	move(t, "im/b.log", "im/b.log.1");
	append(t, "im/b.log", "rotated\n");
	open_ok(t);
	take(t);
	append(t, "im/b.log", "up again\n");
	take(t);
	assert_all(t);
}

static void restart__after_a_kill_captures_twice_and_harms_nothing(void **state)
{
	struct rig *t = *state;
	begin(t);
	for (int i = 0; i < 4; i++) { /* saved at most each 5 s: the state file is older than the log */
		append(t, "im/a.log", "more\n");
		append_bytes(t, "im/b.log", 5000, (uint64_t)i);
		take(t);
	}
	t->f->saved_is_old = false; /* as if it was killed */
	stop(t);
	append(t, "im/a.log", "while it was down\n");
	open_ok(t);
	take(t);
	append(t, "im/a.log", "up again\n");
	take(t);
	assert_all(t);
}

static void restart__with_another_tree_or_memory_is_a_gap(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	begin(t);
	append(t, "im/c.log", "new\n");
	auto_buf struct im_buf old = { 0 };
	auto_free char *file = im_path_join(t->folder, "files");
	assert_ok(im_file_read(file, SIZE_MAX, &old, &err), &err);
	take(t);
	stop(t);
	assert_ok(im_file_write(file, old.data, old.len, 0600, IM_FILE_REPLACE, &err), &err);
	open_follower(t, &err, IM_EGAP); /* from before im/c.log */
	im_error_clear(&err);
	assert_int_equal(unlink(file), 0);
	open_follower(t, &err, IM_EGAP);
	im_error_clear(&err);
	auto_free char *aside = im_format("%s.old", t->r->source);
	assert_int_equal(rename(t->r->source, aside), 0);
	assert_int_equal(mkdir(t->r->source, 0755), 0);
	open_follower(t, &err, IM_EGAP);
}

static void replaced_tree__is_a_gap(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	bool any;
	begin(t);
	auto_free char *aside = im_format("%s.old", t->r->source);
	assert_int_equal(rename(t->r->source, aside), 0);
	assert_int_equal(mkdir(t->r->source, 0755), 0);
	assert_int_equal(files_follow_ops.capture(t->f, &any, &err), IM_EGAP);
}

static void many_files__without_events(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	char path[64];
	for (int i = 0; i < 3000; i++) {
		snprintf(path, sizeof path, "d%d/%d.log", i % 30, i);
		files_rig_write(t->r, path, path, strlen(path));
	}
	begin(t);
	char events[65536];
	for (int i = 0; i < 3000; i += 7) {
		snprintf(path, sizeof path, "d%d/%d.log", i % 30, i);
		append(t, path, "more\n");
	}
	append(t, "d5/new.log", "new\n");
	while (read(t->f->inotify, events, sizeof events) > 0) /* lost, as in an overflow */
		;
	take(t);
	t->f->rescan = true;
	take(t);
	/* and with no watches at all */
	close(t->f->inotify);
	t->f->inotify = -1;
	append(t, "d6/6.log", "more\n");
	take(t);
	uint32_t point = t->point;
	t->f->scanned_ms -= FILES_FOLLOW_SCAN_MS;
	take(t);
	assert_int_equal(t->point, point + 1);
	assert_true(take_once(t, true)); /* a heartbeat looks by itself */
	assert_point(t, t->point);
	assert_merged(t, 0);
	assert_ok(files_follow_ops.wait(t->f, -1, 10, &err), &err);
}

static void big_growth__comes_in_parts_and_batches(void **state)
{
	struct rig *t = *state;
	begin(t);
	append_bytes(t, "im/a.log", 30u << 20, 3);
	append_bytes(t, "im/big.log", 150u << 20, 4);
	size_t before = t->body_count;
	for (int i = 0; i < 8; i++)
		take(t);
	assert_true(t->body_count - before >= 180 / 8);
	for (size_t i = 0; i < t->body_count; i++)
		assert_true(t->bodies[i].data.len < 9u << 20);
	assert_true(t->point >= t->anchored + 3);
	assert_point(t, t->point);
	assert_merged(t, t->point - 1);
}

static void grow_while_pinned(struct rig *t)
{
	auto_free char *at = strdup(t->states[t->point]);
	append(t, "im/a.log", "while the image is read\n");
	append(t, "im/c.log", "new by then\n");
	assert_true(take_once(t, true)); /* a point before the image has it */
	append(t, "im/a.log", "and more\n");
	append_bytes(t, "im/b.log", 9000, 3);
}

static void image__may_be_later_than_its_point(void **state)
{
	struct rig *t = *state;
	begin(t);
	append(t, "im/a.log", "two\n");
	t->after_pin = grow_while_pinned;
	snapshot(t);
	t->after_pin = NULL;
	take(t);
	append(t, "im/a.log", "last\n");
	take(t);
	assert_all(t);
}

static void rotate_while_pinned(struct rig *t)
{
	append(t, "im/a.log", "before the rotation\n");
	assert_true(take_once(t, false));
	move(t, "im/a.log", "im/a.log.1");
	append(t, "im/a.log", "an entirely new file, longer than the one before, so that nobody can tell by its size\n");
}

static void image__of_another_file_is_noticed(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	char root[512];
	begin(t);
	t->after_pin = rotate_while_pinned;
	snapshot(t);
	t->after_pin = NULL;
	take(t);
	auto_free struct log *l = malloc(sizeof *l);
	prepare_log(t, l, t->anchored + 1);
	assert_ok(restore_log(t, l, NULL, root, &err), &err);
	assert_non_null(strstr(t->r->damage, "another content"));
}

static void filter__restores_one_file(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	char root[512], path[600];
	begin(t);
	append(t, "im/a.log", "two\n");
	move(t, "im/b.log", "im/b.log.1");
	append(t, "im/c.log", "new\n");
	take(t);
	auto_free struct log *l = malloc(sizeof *l);
	const char *names[] = { "im/a.log", "im/b.log.1", "im/c.log" };
	for (size_t i = 0; i < 3; i++) {
		auto_buf struct im_buf got = { 0 }, want = { 0 };
		auto_free char *filter = strdup(files_rig_path(t->r, names[i]));
		prepare_log(t, l, t->point);
		assert_ok(restore_log(t, l, filter, root, &err), &err);
		snprintf(path, sizeof path, "%s/%s", root, names[i]);
		assert_ok(im_file_read(path, SIZE_MAX, &got, &err), &err);
		assert_ok(im_file_read(filter, SIZE_MAX, &want, &err), &err);
		assert_int_equal(got.len, want.len);
		assert_memory_equal(got.data, want.data, want.len);
		auto_free char *all = describe(root);
		assert_ptr_equal(strchr(all, '\n') + 1, all + strlen(all)); /* nothing else */
	}
}

static void hard_link__grows_under_both_names(void **state)
{
	struct rig *t = *state;
	files_rig_write(t->r, "im/a.log", "one\n", 4);
	auto_free char *a = strdup(files_rig_path(t->r, "im/a.log"));
	assert_int_equal(link(a, files_rig_path(t->r, "im/z.log")), 0);
	open_ok(t);
	snapshot(t);
	append(t, "im/z.log", "two\n");
	take(t);
	append(t, "im/a.log", "three\n");
	take(t);
	assert_int_equal(unlink(a), 0);
	append(t, "im/z.log", "four\n");
	take(t);
	assert_int_equal(t->point, t->anchored + 3);
	assert_all(t);
}

/* --- a writer at the same time --- */

struct writer {
	struct rig *t;
	atomic_bool stop;
	struct written { /* after each write */
		int64_t before_ms, after_ms;
		uint64_t size;
	} *log;
	size_t count;
};

#define STREAM_BYTES (8u << 20)
#define MAX_WRITES 200000

static void *write_lines(void *context)
{
	struct writer *w = context;
	auto_free uint8_t *stream = malloc(STREAM_BYTES);
	uint64_t seed = 5, at = 0;
	fill_bytes(stream, STREAM_BYTES, 77);
	auto_free char *path = im_path_join(w->t->r->source, "im/live.log");
	auto_close int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	while (!atomic_load(&w->stop) && w->count < MAX_WRITES) {
		size_t len = (size_t)(seed = seed * 6364136223846793005u + 1) % 331 + 1;
		if (at + len > STREAM_BYTES)
			break;
		int64_t before_ms = im_now_ms();
		if (write(fd, stream + at, len) != (ssize_t)len)
			break;
		at += len;
		w->log[w->count++] = (struct written){ before_ms, im_now_ms(), at };
		if (w->count % 50 == 0)
			usleep(1000);
	}
	return NULL;
}

/* What was surely there by complete_ms is in, and nothing that began after latest_ms. */
static void check_size(const struct writer *w, uint64_t size, const struct log_point *p)
{
	for (size_t i = 0; i < w->count; i++) {
		if (w->log[i].after_ms < p->complete_ms)
			assert_true(size >= w->log[i].size);
		if (w->log[i].before_ms > p->latest_ms && i)
			assert_true(size <= w->log[i - 1].size);
	}
}

static void live_writer__points_are_prefixes_in_time(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	struct log_point points[MAX_BODIES];
	begin(t);
	struct writer w = { .t = t, .log = calloc(MAX_WRITES, sizeof *w.log) };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, write_lines, &w), 0);
	for (int i = 0; i < 60; i++) {
		assert_ok(files_follow_ops.wait(t->f, -1, 100, &err), &err);
		if (take_once(t, false))
			points[t->point] = (struct log_point){ t->complete_ms, t->latest_ms };
	}
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	take(t);
	points[t->point] = (struct log_point){ t->complete_ms, t->latest_ms };
	assert_true(t->point > t->anchored + 20);
	auto_free uint8_t *stream = malloc(STREAM_BYTES);
	fill_bytes(stream, STREAM_BYTES, 77);
	auto_free struct log *l = malloc(sizeof *l);
	uint64_t last = 0;
	for (uint32_t p = t->anchored + 1; p <= t->point; p++) {
		char root[512], path[600];
		auto_buf struct im_buf got = { 0 };
		prepare_log(t, l, p);
		assert_ok(restore_log(t, l, NULL, root, &err), &err);
		snprintf(path, sizeof path, "%s/im/live.log", root);
		if (access(path, F_OK)) /* not made yet */
			continue;
		assert_ok(im_file_read(path, SIZE_MAX, &got, &err), &err);
		assert_true(got.len >= last && got.len <= STREAM_BYTES);
		assert_memory_equal(got.data, stream, got.len);
		if (t->states[p])
			check_size(&w, got.len, &points[p]);
		last = got.len;
	}
	assert_int_equal(last, w.log[w.count - 1].size);
	free(w.log);
}

static void unreadable__is_told_once(void **state)
{
	struct rig *t = *state;
	if (geteuid() == 0)
		skip();
	begin(t);
	append(t, "im/c.log", "closed\n");
	assert_int_equal(chmod(files_rig_path(t->r, "im/c.log"), 0), 0);
	t->r->warnings[0] = 0;
	take(t);
	t->f->rescan = true;
	take(t);
	const char *first = strstr(t->r->warnings, "im/c.log");
	assert_non_null(first);
	assert_null(strstr(first + 1, "im/c.log"));
}

static bool has_moved(struct rig *t)
{
	struct im_error err = { 0 };
	bool moved = false;
	int64_t last_ms = 0;
	assert_ok(files_follow_ops.moved(&t->r->stores[0], t->position, &moved, &last_ms, &err), &err);
	assert_true(!moved || last_ms + 1000 > im_now_ms());
	return moved;
}

static void moved__tells_whether_files_changed(void **state)
{
	struct rig *t = *state;
	begin(t);
	usleep(100000);
	assert_true(take_once(t, true));
	stop(t);
	assert_false(has_moved(t));
	append(t, "im/config", "y\n");
	assert_false(has_moved(t));
	append(t, "im/a.log", "y\n");
	assert_true(has_moved(t));
	open_ok(t);
	assert_false(has_moved(t)); /* the follower is here and will see to it */
}

static void exclude__wins_over_follow(void **state)
{
	struct rig *t = *state;
	files_rig_option(t->r, "exclude", "debug*");
	begin(t);
	append(t, "im/debug.log", "noise\n");
	make_folder(t, "debugs");
	append(t, "debugs/x.log", "noise\n");
	uint32_t point = t->point;
	take(t);
	assert_int_equal(t->point, point);
}

/* --- random histories --- */

static unsigned dice(uint64_t *seed, unsigned sides)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(*seed >> 33) % sides;
}

static void random_change(struct rig *t, uint64_t *seed)
{
	char a[64], b[64];
	snprintf(a, sizeof a, "d%u/%u.log", dice(seed, 3), dice(seed, 4));
	snprintf(b, sizeof b, "d%u/%u.log%s", dice(seed, 3), dice(seed, 4), dice(seed, 2) ? ".1" : "");
	auto_free char *from = strdup(files_rig_path(t->r, a)), *to = strdup(files_rig_path(t->r, b));
	struct stat st;
	bool there = stat(from, &st) == 0;
	switch (dice(seed, 8)) {
	case 0: if (there && strcmp(a, b)) rename(from, to); break;
	case 1: if (there) unlink(from); break;
	case 2: if (there && st.st_size > 10) assert_int_equal(truncate(from, dice(seed, 2) ? 0 : 10), 0); break;
	case 3: if (there && strcmp(a, b)) { rename(from, to); append(t, a, "fresh\n"); } break;
	default: append_bytes(t, a, 1 + dice(seed, 9000), *seed); break;
	}
}

static void random__all_points_and_merges(void **state)
{
	struct rig *t = *state;
	const char *fixed = getenv("FILES_FOLLOW_SEED");
	uint64_t seed = fixed ? strtoull(fixed, NULL, 0) : 12345;
	files_rig_option(t->r, "follow", "*.log.1"); /* one that was never seen under its first name would not be followed */
	make_folder(t, "d0");
	make_folder(t, "d1");
	make_folder(t, "d2");
	for (int i = 0; i < 6; i++)
		random_change(t, &seed);
	begin(t);
	for (int i = 0; i < 40; i++) {
		for (unsigned k = dice(&seed, 4) + 1; k; k--)
			random_change(t, &seed);
		take(t);
		if (i == 20) {
			assert_all(t);
			snapshot(t);
		}
		if (i % 9 == 8) {
			stop(t);
			random_change(t, &seed);
			open_ok(t);
		}
	}
	assert_all(t);
}

/* --- hostile bodies --- */

static void forge(struct rig *t, struct files_log_writer *w)
{
	struct im_error err = { 0 };
	struct files_log_record end = { .type = FILES_LOG_END, .complete_ms = 1, .latest_ms = 2 };
	struct body *b = &t->bodies[t->body_count++];
	assert_ok(files_log_put(w, &end, &err), &err);
	t->point++;
	*b = (struct body){ t->point, t->point, 0, true, { 0 } };
	assert_ok(files_log_finish(w, &b->data, &err), &err);
}

static void forge_append(struct files_log_writer *w, const char *path, uint64_t offset, const char *text)
{
	struct im_error err = { 0 };
	struct files_log_record r = { .type = FILES_LOG_APPEND, .path = path, .offset = offset, .data = (const uint8_t *)text, .len = (uint32_t)strlen(text) };
	assert_ok(files_log_put(w, &r, &err), &err);
}

static int restore_forged(struct rig *t, void (*fill)(struct files_log_writer *w), struct im_error *err)
{
	struct files_log_writer *w;
	char root[512];
	assert_ok(files_log_writer_new(&w, err), err);
	files_log_begin(w, t->point + 1);
	fill(w);
	forge(t, w);
	files_log_writer_free(w);
	auto_free struct log *l = malloc(sizeof *l);
	prepare_log(t, l, t->point);
	t->r->warnings[0] = 0;
	int rc = restore_log(t, l, NULL, root, err);
	im_buf_free(&t->bodies[--t->body_count].data);
	t->point--;
	return rc;
}

static void fill_dots(struct files_log_writer *w) { forge_append(w, "../../etc/cron.d/x", 0, "evil"); }
static void fill_absolute(struct files_log_writer *w) { forge_append(w, "/etc/cron.d/x", 0, "evil"); }
static void fill_root(struct files_log_writer *w) { forge_append(w, ".", 0, "evil"); }
static void fill_beyond(struct files_log_writer *w) { forge_append(w, "im/a.log", UINT64_MAX - 1, "evil"); }
static void fill_gap(struct files_log_writer *w)
{
	forge_append(w, "im/a.log", 4, "good");
	forge_append(w, "im/a.log", 1000000, "evil");
}
static void fill_hole(struct files_log_writer *w) { forge_append(w, "im/a.log", 1000000, "evil"); }
static void fill_nothing_there(struct files_log_writer *w)
{
	struct files_log_record gone = { .type = FILES_LOG_GONE, .path = "im/a.log" };
	struct files_log_record moved = { .type = FILES_LOG_MOVED, .path = "im/a.log", .to = "im/b.log" };
	assert_int_equal(files_log_put(w, &gone, NULL), 0);
	forge_append(w, "im/a.log", 4, "evil");
	assert_int_equal(files_log_put(w, &moved, NULL), 0);
}
static void fill_folder(struct files_log_writer *w) { forge_append(w, "im", 0, "evil"); }
static void fill_meta(struct files_log_writer *w)
{
	struct files_log_record r = { .type = FILES_LOG_BEGIN, .path = "im/x.log", .data = (const uint8_t *)"nonsense", .len = 8 };
	assert_int_equal(files_log_put(w, &r, NULL), 0);
}

static void hostile__paths_and_offsets_are_refused(void **state)
{
	struct rig *t = *state;
	void (*const refused[])(struct files_log_writer *) = { fill_dots, fill_absolute, fill_root, fill_beyond, fill_meta };
	begin(t);
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		struct im_error err = { 0 };
		assert_int_equal(restore_forged(t, refused[i], &err), IM_ECORRUPT);
	}
}

static void hostile__gaps_leave_files_older_and_named(void **state)
{
	struct rig *t = *state;
	struct im_error err = { 0 };
	begin(t);
	assert_ok(restore_forged(t, fill_gap, &err), &err);
	assert_non_null(strstr(t->r->warnings, "im/a.log"));
	assert_ok(restore_forged(t, fill_hole, &err), &err);
	assert_non_null(strstr(t->r->warnings, "im/a.log"));
	assert_ok(restore_forged(t, fill_nothing_there, &err), &err);
	restore_forged(t, fill_folder, &err);
}

static int count_records(void *context, const struct files_log_record *record, struct im_error *err)
{
	(void)err;
	++*(unsigned *)context;
	assert_true(record->type == FILES_LOG_END || (files_path_valid(record->path) && strcmp(record->path, ".")));
	return 0;
}

static void hostile__every_changed_byte_is_survived(void **state)
{
	struct rig *t = *state;
	begin(t);
	append(t, "im/c.log", "new\n");
	move(t, "im/a.log", "im/z.log");
	take(t);
	struct im_buf *b = &t->bodies[t->body_count - 1].data;
	unsigned count = 0;
	struct follow_source s = files_log_memory(b);
	assert_int_equal(files_log_each(&s, count_records, &count, NULL), 0);
	assert_true(count > 3);
	for (size_t i = 0; i < b->len; i++) {
		uint8_t old = b->data[i];
		for (unsigned k = 0; k < 8; k++) {
			b->data[i] = (uint8_t)(old ^ 1u << k);
			int rc = files_log_each(&s, count_records, &count, NULL);
			assert_true(rc == 0 || rc == IM_ECORRUPT);
		}
		b->data[i] = old;
		struct follow_source cut = { s.read, s.context, i };
		assert_true(!i || files_log_each(&cut, count_records, &count, NULL) == IM_ECORRUPT);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(wanted__needs_a_pattern),
		T(grow__every_point_is_restored),
		T(grow__nothing_new_makes_no_batch),
		T(wait__returns_when_a_log_grows),
		T(new_file__is_restored_with_its_metadata),
		T(new_folder__comes_with_its_metadata),
		T(rotation__content_keeps_its_names),
		T(rotation__names_that_swap),
		T(truncation__begins_again),
		T(rewrite__of_a_small_file_begins_again),
		T(rewrite__of_a_large_file_is_lost_until_the_next_snapshot),
		T(deletion__leaves_nothing),
		T(folder__that_is_renamed),
		T(restart__takes_what_grew_meanwhile),
		T(restart__after_a_kill_captures_twice_and_harms_nothing),
		T(restart__with_another_tree_or_memory_is_a_gap),
		T(replaced_tree__is_a_gap),
		T(many_files__without_events),
		T(big_growth__comes_in_parts_and_batches),
		T(image__may_be_later_than_its_point),
		T(image__of_another_file_is_noticed),
		T(filter__restores_one_file),
		T(hard_link__grows_under_both_names),
		T(live_writer__points_are_prefixes_in_time),
		T(unreadable__is_told_once),
		T(moved__tells_whether_files_changed),
		T(exclude__wins_over_follow),
		T(random__all_points_and_merges),
		T(hostile__paths_and_offsets_are_refused),
		T(hostile__gaps_leave_files_older_and_named),
		T(hostile__every_changed_byte_is_survived),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
