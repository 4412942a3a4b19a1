/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rig of the follower service's tests, and a reader that believes nothing.
 */
#include "follow_service.h"

#include "backup/anchor.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <inttypes.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 20000

void rig_nap_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static void nap(void)
{
	rig_nap_ms(5);
}

/* --- what it says --- */

static void hear(struct rig *r, const char *kind, const char *store, const char *text)
{
	struct heard *h = &r->heard;
	pthread_mutex_lock(&h->lock);
	if (h->count < sizeof h->lines / sizeof *h->lines)
		h->lines[h->count++] = im_format("%s %s: %s", kind, store ? store : "-", text);
	pthread_mutex_unlock(&h->lock);
	if (getenv("IMVAULT_TEST_LOUD"))
		fprintf(stderr, "%s %s: %s\n", kind, store ? store : "-", text);
}

static void on_warn(void *context, const char *store, const char *text)
{
	hear(context, "warn", store, text);
}

static void on_note(void *context, const char *store, const char *text)
{
	hear(context, "note", store, text);
}

static void on_ready(void *context)
{
	struct rig *r = context;
	pthread_mutex_lock(&r->heard.lock);
	r->heard.ready++;
	pthread_mutex_unlock(&r->heard.lock);
}

unsigned rig_said_times(struct rig *r, const char *part)
{
	unsigned n = 0;
	pthread_mutex_lock(&r->heard.lock);
	for (size_t i = 0; i < r->heard.count; i++)
		n += strstr(r->heard.lines[i], part) != NULL;
	pthread_mutex_unlock(&r->heard.lock);
	return n;
}

bool rig_said(struct rig *r, const char *part)
{
	return rig_said_times(r, part) > 0;
}

void rig_wait_said(struct rig *r, const char *part)
{
	int64_t end = im_monotonic_ms() + WAIT_MS;
	while (!rig_said(r, part)) {
		if (im_monotonic_ms() > end)
			fail_msg("\"%s\" was not said", part);
		nap();
	}
}

void rig_wait_snapshots(struct rig *r, unsigned count)
{
	int64_t end = im_monotonic_ms() + WAIT_MS;
	while (__atomic_load_n(&r->snapshots_done, __ATOMIC_SEQ_CST) < count) {
		if (im_monotonic_ms() > end)
			fail_msg("%u snapshots were not taken", count);
		nap();
	}
}

/* --- snapshots --- */

static int take_snapshot(struct rig *r, struct anchor *anchor, struct im_error *err)
{
	struct snapshot_anchor *a = anchor_hooks(anchor);
	char checksum[33];
	bool joined = false;
	json_t *log = NULL;
	int rc = a->freeze(a, "chat", err);
	if (rc)
		return rc;
	pthread_mutex_lock(&fake.lock);
	json_t *position = fake_position(fake.commits);
	im_hex(checksum, fake.checksum, 16);
	pthread_mutex_unlock(&fake.lock);
	rc = a->pinned(a, "chat", position, &log, err);
	json_decref(position);
	if (rc)
		return rc;
	if (r->snapshot_forged)
		memset(checksum, '5', 32);
	rc = log ? anchor_image(anchor, "chat", checksum, &joined, err) : 0;
	json_object_set_new(log, "joined", json_boolean(joined));
	json_decref(r->log);
	r->log = log;
	return rc;
}

int rig_snapshot(struct rig *r, struct im_error *err)
{
	char *slash = strrchr(r->follow_dir, '/');
	char folder[256];
	snprintf(folder, sizeof folder, "%.*s", (int)(slash - r->follow_dir), r->follow_dir);
	struct anchor *a = anchor_connect(folder, "im-01");
	if (!a)
		return im_fail(err, IM_ENOTFOUND, "nobody follows");
	int rc = take_snapshot(r, a, err);
	anchor_close(a);
	return rc;
}

static int on_snapshot(void *context, const char *const *stores, struct im_error *err)
{
	struct rig *r = context;
	(void)stores;
	__atomic_add_fetch(&r->snapshots, 1, __ATOMIC_SEQ_CST);
	int rc = r->snapshot_rc  ? im_fail(err, (enum im_code)r->snapshot_rc, "the snapshot fails, as told")
	    : r->snapshot_anchors ? rig_snapshot(r, err)
	                          : 0;
	__atomic_add_fetch(&r->snapshots_done, 1, __ATOMIC_SEQ_CST);
	return rc;
}

/* --- running --- */

static void make_config(struct rig *r, const char *follow)
{
	char text[1024], id[33];
	struct im_error err = { 0 };
	snprintf(text, sizeof text, "[node]\nname = im-01\nstate = %s\n[vault]\nurl = %s\nkey = %s\n[store chat]\ntype = files\npath = %s\n"
	    "[follow]\nflush = 50ms\n%s\n", r->state_dir, r->f.vault_dir, r->f.node_key, r->f.dir, follow ? follow : "");
	assert_ok(im_config_parse(text, "test", &r->config, &err), &err);
	snprintf(r->follow_dir, sizeof r->follow_dir, "%s/%s/im-01.follow", r->state_dir, im_hex(id, r->f.node->id, 16));
	snprintf(r->store_dir, sizeof r->store_dir, "%s/chat", r->follow_dir);
}

void rig_start(struct rig *r, const char *follow)
{
	memset(r, 0, sizeof *r);
	pthread_mutex_init(&r->heard.lock, NULL);
	fixture_start(&r->f);
	snprintf(r->state_dir, sizeof r->state_dir, "%s", r->f.state_dir);
	fake_reset();
	im_interrupt_raise(0);
	im_interrupt_take_hangup();
	r->faults = (struct storage_fault_plan){ .what = FAULT_UNREACHABLE, .sticky = true };
	storage_open_with_faults(&r->faults);
	make_config(r, follow);
}

void rig_clone(struct rig *r, struct rig *of)
{
	char command[512];
	memset(r, 0, sizeof *r);
	pthread_mutex_init(&r->heard.lock, NULL);
	r->f = of->f; /* its folder and its vault, not its state */
	r->is_clone = true;
	assert_true(snprintf(r->state_dir, sizeof r->state_dir, "%s-clone", of->state_dir) < (int)sizeof r->state_dir);
	snprintf(command, sizeof command, "cp -r %s %s", of->state_dir, r->state_dir);
	assert_int_equal(system(command), 0);
	make_config(r, NULL);
}

void rig_stop(struct rig *r)
{
	if (r->running)
		rig_end(r);
	if (!r->is_clone)
		storage_open_with_faults(NULL);
	follow_result_clear(&r->result);
	im_config_free(r->config);
	for (size_t i = 0; i < r->heard.count; i++)
		free(r->heard.lines[i]);
	json_decref(r->log);
	if (!r->is_clone)
		fixture_stop(&r->f);
}

static void follow(struct rig *r, bool once)
{
	const struct follow_events events = { .warn = on_warn, .note = on_note, .ready = on_ready, .snapshot = on_snapshot, .context = r };
	const struct follow_service_request q = { .config = r->config, .once = once, .find = fake_find, .check_ms = r->check_ms, .events = &events };
	im_error_clear(&r->err);
	follow_result_clear(&r->result);
	r->rc = follow_run(&q, &r->reload, &r->result, &r->err);
}

int rig_once(struct rig *r)
{
	follow(r, true);
	return r->rc;
}

static void *run(void *context)
{
	follow(context, false);
	return NULL;
}

void rig_run(struct rig *r)
{
	r->running = true;
	r->heard.ready = 0;
	assert_int_equal(pthread_create(&r->thread, NULL, run, r), 0);
	int64_t end = im_monotonic_ms() + WAIT_MS;
	for (bool ready = false; !ready; nap()) {
		pthread_mutex_lock(&r->heard.lock);
		ready = r->heard.ready;
		pthread_mutex_unlock(&r->heard.lock);
		if (im_monotonic_ms() > end)
			fail_msg("the service does not get ready");
	}
}

static void join(struct rig *r)
{
	pthread_join(r->thread, NULL);
	r->running = false;
}

void rig_end(struct rig *r)
{
	im_interrupt_raise(SIGTERM);
	join(r);
	im_interrupt_raise(0);
}

void rig_reload(struct rig *r)
{
	im_interrupt_catch_hangup();
	raise(SIGHUP);
	join(r);
}

void rig_vault(struct rig *r, bool there)
{
	__atomic_store_n(&r->faults.at_call, there ? 0 : 1, __ATOMIC_SEQ_CST);
}

/* --- reading --- */

void chain_clear(struct chain *c)
{
	free(c->reason);
	free(c->after_epoch);
	*c = (struct chain){ 0 };
}

struct reader {
	struct chain *c;
	uint8_t prev[32];
	int64_t complete_ms, latest_ms;
};

static void begin_epoch(struct reader *x, const struct log_segment *s)
{
	struct chain *c = x->c;
	const json_t *began = json_object_get(s->record.meta, "began"), *after = json_object_get(began, "after");
	assert_int_equal(s->first, 1);
	assert_false(s->has_prev);
	assert_non_null(began);
	c->epochs++;
	free(c->reason);
	free(c->after_epoch);
	strcpy(c->epoch, s->epoch);
	c->reason = strdup(json_string_value(json_object_get(began, "reason")));
	c->after_epoch = after ? strdup(json_string_value(json_object_get(after, "epoch"))) : NULL;
	c->after_point = (uint32_t)json_integer_value(json_object_get(after, "point"));
	c->point = 0;
	x->complete_ms = x->latest_ms = 0;
}

static void check_points(struct reader *x, const struct log_segment *s)
{
	assert_int_equal(s->point_count, s->last - s->first + 1);
	for (size_t i = 0; i < s->point_count; i++) {
		assert_true(s->points[i].complete_ms >= x->complete_ms && s->points[i].latest_ms >= x->latest_ms);
		assert_true(s->points[i].latest_ms >= s->points[i].complete_ms);
		x->complete_ms = s->points[i].complete_ms;
		x->latest_ms = s->points[i].latest_ms;
	}
}

static void check_body(struct reader *x, const struct log_segment *s, bool begins)
{
	uint64_t first = 0, last = 0;
	assert_true(s->record.has_private);
	char text[65] = "";
	snprintf(text, sizeof text, "%.*s", (int)(s->record.private_bytes.len < 64 ? s->record.private_bytes.len : 64),
	    (const char *)s->record.private_bytes.data);
	assert_int_equal(sscanf(text, "%" SCNu64 "-%" SCNu64, &first, &last), 2);
	if (!begins)
		assert_int_equal(first, x->c->commits + 1);
	if (s->final)
		x->c->commits = last;
}

static void read_one(struct rig *r, struct reader *x, const struct log_name *n)
{
	struct log_segment *s = NULL;
	struct im_error err = { 0 };
	struct chain *c = x->c;
	assert_ok(log_read(r->f.restore->storage, r->f.restore->keyring, "im-01", n, &s, &err), &err);
	c->parts++;
	if (s->level) {
		c->coarse++;
		log_segment_free(s);
		return;
	}
	bool begins = strcmp(s->epoch, c->epoch) != 0;
	if (begins)
		begin_epoch(x, s);
	else
		assert_true(s->has_prev && memcmp(s->prev, x->prev, 32) == 0);
	assert_int_equal(s->first, c->point + 1);
	check_body(x, s, begins);
	memcpy(x->prev, s->hash, 32);
	if (s->final) {
		check_points(x, s);
		c->point = s->last;
		c->segments++;
	}
	log_segment_free(s);
}

void chain_read(struct rig *r, struct chain *ret)
{
	struct log_list list = { 0 };
	struct im_error err = { 0 };
	struct reader x = { .c = ret };
	*ret = (struct chain){ 0 };
	assert_ok(log_list(r->f.restore->storage, "im-01", "chat", NULL, 0, &list, &err), &err);
	for (size_t i = 0; i < list.count; i++)
		read_one(r, &x, &list.items[i]);
	log_list_clear(&list);
}

void rig_wait_shipped(struct rig *r, uint64_t commits)
{
	int64_t end = im_monotonic_ms() + WAIT_MS;
	for (;;) {
		struct chain c;
		chain_read(r, &c);
		bool there = c.commits >= commits;
		chain_clear(&c);
		if (there)
			return;
		if (im_monotonic_ms() > end)
			fail_msg("%" PRIu64 " commits are not in the vault", commits);
		nap();
	}
}
