/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake source and its follower. A body is the text "first-last\n", so that a test can add up
 * what arrived; the rest of a large part is filler.
 */
#include "fake_source.h"

#include "base/clock.h"
#include "vault/crypto.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_source fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct follower {
	uint64_t at, generation, taken_at;
	uint64_t first; /* of the batch */
	uint8_t sum[16];
	struct log_point points[1024];
	size_t point_count;
	bool taken;
	char alarm[100];
};

static void mix(uint8_t sum[16], uint64_t n)
{
	uint8_t hash[32];
	crypto_hash(hash, &n, sizeof n);
	for (int i = 0; i < 16; i++)
		sum[i] ^= hash[i];
}

void fake_reset(void)
{
	pthread_mutex_lock(&fake.lock);
	pthread_mutex_t lock = fake.lock;
	fake = (struct fake_source){ .generation = 1, .parts = 1, .last_ms = im_now_ms() - 5000 };
	fake.lock = lock;
	pthread_mutex_unlock(&fake.lock);
}

void fake_commit(uint64_t count)
{
	pthread_mutex_lock(&fake.lock);
	for (uint64_t i = 0; i < count; i++)
		mix(fake.checksum, ++fake.commits);
	fake.last_ms = im_now_ms();
	pthread_mutex_unlock(&fake.lock);
}

void fake_checksum(char ret[33])
{
	pthread_mutex_lock(&fake.lock);
	im_hex(ret, fake.checksum, 16);
	pthread_mutex_unlock(&fake.lock);
}

uint64_t fake_let_go(void)
{
	pthread_mutex_lock(&fake.lock);
	uint64_t durable = fake.durable;
	pthread_mutex_unlock(&fake.lock);
	return durable;
}

json_t *fake_position(uint64_t commits)
{
	return json_pack("{s:I, s:I}", "generation", (json_int_t)fake.generation, "commits", (json_int_t)commits);
}

static json_t *position_of(const struct follower *f)
{
	char hex[33];
	return json_pack("{s:I, s:I, s:s}", "generation", (json_int_t)f->generation, "commits", (json_int_t)f->at, "sum", im_hex(hex, f->sum, 16));
}

static int fake_open(const struct follow_request *q, struct follower **ret, struct im_error *err)
{
	int rc = 0;
	struct follower *f = calloc(1, sizeof *f);
	pthread_mutex_lock(&fake.lock);
	fake.opens++;
	f->generation = fake.generation;
	f->at = q->position ? (uint64_t)json_integer_value(json_object_get(q->position, "commits")) : fake.commits;
	if (q->position)
		im_unhex(f->sum, 16, json_string_value(json_object_get(q->position, "sum")));
	if (fake.missing)
		rc = im_fail(err, IM_ENOTFOUND, "the source is not there");
	else if (q->position && (fake.gap_at_open || (uint64_t)json_integer_value(json_object_get(q->position, "generation")) != fake.generation))
		rc = im_fail(err, IM_EGAP, "the source was reset behind our back");
	fake.gap_at_open = false;
	if (fake.stall_ends_at_open)
		fake.stalled = false;
	pthread_mutex_unlock(&fake.lock);
	f->first = f->at + 1;
	if (rc)
		free(f);
	else
		*ret = f;
	return rc;
}

static bool has_news(const struct follower *f)
{
	pthread_mutex_lock(&fake.lock);
	bool news = (fake.commits > f->at && !fake.stalled) || fake.gap_at_capture;
	pthread_mutex_unlock(&fake.lock);
	return news;
}

static int fake_wait(struct follower *f, int wake_fd, int64_t timeout_ms, struct im_error *err)
{
	int64_t end = im_monotonic_ms() + timeout_ms;
	(void)err;
	while (!has_news(f) && im_monotonic_ms() < end) {
		struct pollfd fd = { .fd = wake_fd, .events = POLLIN };
		if (poll(&fd, 1, 5) > 0)
			break;
	}
	return 0;
}

static int advance(struct follower *f, uint64_t until, bool *ret_new)
{
	int64_t now = im_now_ms();
	if (f->taken || f->at >= until || f->point_count == 1024)
		return 0;
	while (f->at < until) {
		f->at++;
		if (f->at == fake.hidden)
			continue;
		mix(f->sum, f->at);
	}
	f->points[f->point_count++] = (struct log_point){ now, now };
	*ret_new = true;
	return 0;
}

static int fake_capture(struct follower *f, bool *ret_new, struct im_error *err)
{
	int rc = 0;
	*ret_new = false;
	pthread_mutex_lock(&fake.lock);
	if (fake.gap_at_capture)
		rc = im_fail(err, IM_EGAP, "commits were lost at the source");
	else if (!fake.stalled)
		rc = advance(f, fake.commits, ret_new);
	fake.gap_at_capture = false;
	pthread_mutex_unlock(&fake.lock);
	return rc;
}

static size_t fake_pending(const struct follower *f)
{
	return f->point_count * 10;
}

static void make_batch(struct follower *f, struct follow_batch *ret)
{
	pthread_mutex_lock(&fake.lock);
	size_t parts = f->point_count && fake.parts > 1 ? fake.parts : 1, part_bytes = fake.part_bytes;
	pthread_mutex_unlock(&fake.lock);
	*ret = (struct follow_batch){ .parts = calloc(parts, sizeof *ret->parts), .part_count = parts, .position = position_of(f),
		.bytes = f->at + 1 - f->first, .commits = f->at + 1 - f->first };
	for (size_t i = 0; i < parts; i++) {
		char text[64];
		snprintf(text, sizeof text, "%" PRIu64 "-%" PRIu64 "\n", f->first, f->at);
		im_buf_put(&ret->parts[i].data, text, strlen(text));
		if (part_bytes)
			crypto_random(im_buf_grow(&ret->parts[i].data, part_bytes), part_bytes);
	}
	if (!f->point_count)
		f->points[f->point_count++] = (struct log_point){ im_now_ms(), im_now_ms() };
	ret->points = malloc(f->point_count * sizeof *ret->points);
	memcpy(ret->points, f->points, f->point_count * sizeof *ret->points);
	ret->point_count = f->point_count;
	f->point_count = 0;
	f->first = f->at + 1;
	f->taken = true;
	f->taken_at = f->at;
}

static int fake_take(struct follower *f, bool heartbeat, struct follow_batch *ret, bool *ret_any, struct im_error *err)
{
	bool fresh;
	int rc = fake_capture(f, &fresh, err);
	*ret_any = rc == 0 && (f->point_count || heartbeat);
	if (*ret_any)
		make_batch(f, ret);
	return rc;
}

static int fake_take_to(struct follower *f, const json_t *position, struct follow_batch *ret, struct im_error *err)
{
	bool fresh = false;
	uint64_t to = (uint64_t)json_integer_value(json_object_get(position, "commits"));
	pthread_mutex_lock(&fake.lock);
	bool there = to >= f->at && to <= fake.commits;
	if (there)
		advance(f, to, &fresh);
	pthread_mutex_unlock(&fake.lock);
	if (!there)
		return im_fail(err, IM_ENOTFOUND, "that position is not to be had");
	make_batch(f, ret);
	return 0;
}

static int fake_durable(struct follower *f, struct im_error *err)
{
	(void)err;
	pthread_mutex_lock(&fake.lock);
	f->taken = false;
	fake.durable = f->taken_at;
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

static void fake_health(struct follower *f, struct follow_health *ret)
{
	pthread_mutex_lock(&fake.lock);
	*ret = (struct follow_health){ .held_bytes = fake.held_bytes };
	if (fake.alarm) {
		snprintf(f->alarm, sizeof f->alarm, "%s", fake.alarm);
		ret->alarm = f->alarm;
	}
	pthread_mutex_unlock(&fake.lock);
}

static void fake_close(struct follower *f, bool hold)
{
	pthread_mutex_lock(&fake.lock);
	fake.closes++;
	fake.holds += hold;
	pthread_mutex_unlock(&fake.lock);
	free(f);
}

/* Texts one after the other: enough to see what was merged. */
static int fake_merge(const struct follow_source *bodies, size_t count, int (*part)(void *context, const void *data, size_t len, bool final,
    struct im_error *err), void *context, struct im_error *err)
{
	auto_buf struct im_buf all = { 0 };
	for (size_t i = 0; i < count; i++) {
		int rc = bodies[i].read(bodies[i].context, 0, im_buf_grow(&all, bodies[i].len), bodies[i].len, err);
		if (rc)
			return rc;
	}
	return part(context, all.data, all.len, true, err);
}

static int fake_moved(const struct im_config_store *store, const json_t *position, bool *ret_moved, int64_t *ret_last_ms, struct im_error *err)
{
	(void)store;
	(void)err;
	pthread_mutex_lock(&fake.lock);
	*ret_moved = (uint64_t)json_integer_value(json_object_get(position, "commits")) != fake.commits;
	*ret_last_ms = fake.last_ms;
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

static bool fake_wanted(const struct im_config_store *store, const char **ret_why)
{
	*ret_why = "it is not asked for";
	return !im_config_get(store, "exclude", NULL);
}

const struct store_follow_ops fake_follow_ops = {
	.open = fake_open,
	.wait = fake_wait,
	.capture = fake_capture,
	.pending = fake_pending,
	.take = fake_take,
	.take_to = fake_take_to,
	.durable = fake_durable,
	.health = fake_health,
	.close = fake_close,
	.merge = fake_merge,
	.moved = fake_moved,
	.wanted = fake_wanted,
};

const struct store_follow_ops *fake_find(const char *type)
{
	(void)type;
	return &fake_follow_ops;
}
