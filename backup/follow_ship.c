/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipper: one thread takes what waits in the spools to the vault, for each store in its order.
 * Whatever keeps it from that is waited out: the spool holds what comes meanwhile.
 */
#include "backup/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { RETRY_MIN_MS = 500, RETRY_MAX_MS = 30000, IDLE_MS = 5000,
	TURN = 64 }; /* objects of one store before the next one's turn */

struct shipping {
	struct service *service;
	struct storage *storage; /* NULL: to be opened */
	int64_t retry_ms, checked_ms; /* monotonic */
	int64_t wait_ms;         /* the last back-off */
	uint64_t back_objects, back_bytes; /* shipped since the vault is back */
	bool coming_back;
};

void follow_ship_wake(struct service *s)
{
	pthread_mutex_lock(&s->ship_lock);
	s->ship_new = true;
	pthread_cond_signal(&s->ship_wake);
	pthread_mutex_unlock(&s->ship_lock);
}

uint64_t follow_spooled_bytes(const struct service *s)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < s->store_count; i++)
		bytes += spool_bytes(s->stores[i].spool);
	return bytes;
}

static bool anything_waits(const struct service *s)
{
	for (size_t i = 0; i < s->store_count; i++)
		if (spool_count(s->stores[i].spool))
			return true;
	return false;
}

/* --- the vault goes and comes --- */

static void vault_fails(struct shipping *x, const struct im_error *why)
{
	struct service *s = x->service;
	int64_t now = im_monotonic_ms();
	if (!s->away)
		follow_warn(s, NULL, "nothing can be shipped: %s; it waits in the spool", why->text);
	s->away = true;
	x->wait_ms = x->wait_ms * 2 < RETRY_MIN_MS ? RETRY_MIN_MS : x->wait_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : x->wait_ms * 2;
	x->retry_ms = now + x->wait_ms;
	storage_close(x->storage);
	x->storage = NULL;
}

static void vault_works(struct shipping *x, uint64_t bytes)
{
	if (x->service->away) {
		x->coming_back = true;
		x->back_objects = x->back_bytes = 0;
	}
	x->service->away = false;
	x->wait_ms = 0;
	x->back_objects++;
	x->back_bytes += bytes;
}

static void say_back(struct shipping *x)
{
	char size[24];
	if (!x->coming_back || anything_waits(x->service))
		return;
	x->coming_back = false;
	follow_note(x->service, NULL, "the vault is back: everything in the spool was shipped, %" PRIu64 " objects with %s", x->back_objects,
	    im_bytes_format(size, sizeof size, x->back_bytes));
}

/* --- shipping --- */

static void item_is_in(struct followed *f, const struct spool_item *item)
{
	pthread_mutex_lock(&f->lock);
	f->view.segments++;
	f->view.bytes_shipped += item->bytes;
	if (item->point) {
		f->view.shipped_point = item->point;
		f->view.shipped_ms = item->complete_ms;
		free(f->view.shipped_position);
		f->view.shipped_position = item->position ? strdup(item->position) : NULL;
	}
	f->view.dirty = true;
	pthread_mutex_unlock(&f->lock);
	spool_shipped(f->spool);
}

static int put(struct shipping *x, struct followed *f, const struct spool_item *item, const struct im_buf *object, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = follow_remember_put(f, item->object, err);
	if (rc)
		return rc;
	rc = storage_put_object(x->storage, item->object, object->data, object->len, &why);
	if (rc == IM_EUSAGE && storage_size(x->storage, item->object, &(uint64_t){ 0 }, NULL) == 0)
		rc = 0; /* there already: put before a crash. Its name has its hash */
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

static int ship_one(struct shipping *x, struct followed *f, const struct spool_item *item, struct im_error *err)
{
	auto_buf struct im_buf object = { 0 };
	struct im_error why = { 0 };
	int rc = spool_read(f->spool, item, &object, &why);
	if (rc == IM_ECORRUPT) {
		follow_warn(x->service, f->store->name, "%s; that stretch of the log is lost", why.text);
		follow_demand_epoch(f, "a segment in the spool was damaged, as after a power cut");
		spool_shipped(f->spool);
		return 0;
	}
	if (rc == 0)
		rc = put(x, f, item, &object, &why);
	if (rc)
		return im_fail(err, rc, "%s", why.text);
	item_is_in(f, item);
	vault_works(x, object.len);
	return 0;
}

static bool must_end(struct service *s)
{
	pthread_mutex_lock(&s->ship_lock);
	bool end = s->ship_end && im_monotonic_ms() >= s->ship_deadline_ms;
	pthread_mutex_unlock(&s->ship_lock);
	return end;
}

static int ship_store(struct shipping *x, struct followed *f, struct im_error *err)
{
	struct spool_item item;
	for (int n = 0; n < TURN && !must_end(x->service) && spool_front(f->spool, &item); n++) {
		int rc = f->shipped.looked ? 0 : follow_check_store(f, x->storage, err);
		if (rc == 0)
			rc = ship_one(x, f, &item, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* The regular look at the vault: other writers, newer keys, newer snapshots. */
static int check(struct shipping *x, struct im_error *err)
{
	struct service *s = x->service;
	if (im_monotonic_ms() - x->checked_ms < (s->request->check_ms ? s->request->check_ms : FOLLOW_CHECK_MS))
		return 0;
	bool set_back;
	int rc = follow_check_vault(s, x->storage, &set_back, err);
	for (size_t i = 0; set_back && i < s->store_count; i++)
		follow_want_snapshot(&s->stores[i]);
	for (size_t i = 0; rc == 0 && i < s->store_count; i++)
		rc = follow_check_store(&s->stores[i], x->storage, err);
	x->checked_ms = im_monotonic_ms();
	return rc;
}

static int ship_all(struct shipping *x, struct im_error *err)
{
	struct service *s = x->service;
	int rc = x->storage ? 0 : follow_open_storage(s, &x->storage, err);
	while (rc == 0 && anything_waits(s) && !must_end(s)) {
		for (size_t i = 0; rc == 0 && i < s->store_count; i++)
			rc = ship_store(x, &s->stores[i], err);
	}
	return rc ? rc : check(x, err);
}

/* --- the thread --- */

/* Until there is something to do. False: it is time to end. */
static bool wait_for_work(struct shipping *x)
{
	struct service *s = x->service;
	struct timespec until;
	int64_t now = im_monotonic_ms(), wait = s->away && x->retry_ms > now ? x->retry_ms - now : IDLE_MS;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait / 1000;
	until.tv_nsec += wait % 1000 * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&s->ship_lock);
	int rc = 0;
	while (rc == 0 && !s->ship_end && (!s->ship_new || s->away))
		rc = pthread_cond_timedwait(&s->ship_wake, &s->ship_lock, &until);
	s->ship_new = false;
	bool end = s->ship_end;
	int64_t deadline = s->ship_deadline_ms;
	pthread_mutex_unlock(&s->ship_lock);
	return !end || (anything_waits(s) && im_monotonic_ms() < deadline);
}

static bool is_ending(struct service *s)
{
	pthread_mutex_lock(&s->ship_lock);
	bool end = s->ship_end;
	pthread_mutex_unlock(&s->ship_lock);
	return end;
}

void *follow_ship_thread(void *context)
{
	struct service *s = context;
	struct shipping x = { .service = s, .checked_ms = im_monotonic_ms() };
	while (wait_for_work(&x)) {
		struct im_error why = { 0 };
		int rc = ship_all(&x, &why);
		if (rc)
			vault_fails(&x, &why);
		else
			say_back(&x);
		if (rc && is_ending(s))
			break; /* it had its chance */
	}
	storage_close(x.storage);
	s->ship_finished = true;
	follow_wake(s->wake[1]);
	return NULL;
}
