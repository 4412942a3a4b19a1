/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done before any thread runs: which stores, lock, key, vault, spools, and the first
 * comparison with the vault; and the undoing of it.
 */
#include "backup/backup.h"
#include "backup/coarse.h"
#include "backup/follow_internal.h"
#include "backup/wire.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* --- which stores --- */

static bool is_named(const struct follow_service_request *q, const char *name)
{
	for (const char *const *n = q->stores; n && *n; n++)
		if (strcmp(*n, name) == 0)
			return true;
	return false;
}

static void init_followed(struct service *s, struct followed *f, const struct im_config_store *store, const struct store_follow_ops *ops)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	*f = (struct followed){ .service = s, .store = store, .ops = ops, .wake = { -1, -1 } };
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->answered, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

static int choose_store(struct service *s, const struct im_config_store *store, struct im_error *err)
{
	const struct follow_service_request *q = s->request;
	const struct store_follow_ops *ops = q->find ? q->find(store->type) : store_find(store->type)->follow;
	const char *why = ops ? NULL : "stores of this type have no log";
	bool all = !q->stores || !*q->stores, named = is_named(q, store->name);
	if (!all && !named)
		return 0;
	if (ops && ops->wanted(store, &why)) {
		init_followed(s, &s->stores[s->store_count++], store, ops);
		return 0;
	}
	if (named)
		return im_fail(err, IM_EUSAGE, "store %s cannot be followed: %s", store->name, why ? why : "its configuration does not ask for it");
	if (why && !q->once) /* not with every round */
		follow_note(s, store->name, "not followed: %s", why);
	return 0;
}

static int choose_stores(struct service *s, struct im_error *err)
{
	const struct im_config *c = s->config;
	for (const char *const *n = s->request->stores; n && *n; n++)
		if (!im_config_find_store(c, *n))
			return im_fail(err, IM_EUSAGE, "the configuration has no store named %s", *n);
	s->stores = calloc(c->store_count + 1, sizeof *s->stores);
	if (!s->stores)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < c->store_count; i++) {
		int rc = choose_store(s, &c->stores[i], err);
		if (rc)
			return rc;
	}
	return s->store_count ? 0 : im_fail(err, IM_EUSAGE, "there is nothing to follow: no store of the configuration has a log");
}

/* --- folders, lock, spools --- */

static int make_pipe(int ends[2], struct im_error *err)
{
	return pipe2(ends, O_CLOEXEC | O_NONBLOCK) ? im_fail_errno(err, IM_EIO, errno, "cannot make a pipe") : 0;
}

static int take_lock(struct service *s, const char *state, struct im_error *err)
{
	auto_free char *file = im_format("%s/%s.follow.lock", state, s->node);
	auto_free char *what = im_format("follow of node %s", s->node);
	if (!file || !what)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = im_lock_take(file, what, &s->lock_fd, err);
	return rc ? rc : im_mkdirs(s->folder, 0700, err);
}

/* What the last process knew to be shipped, for status: the status file if it is of this epoch. */
static void recall_shipped(struct followed *f, const struct follow_state *before)
{
	struct follow_view *v = &f->view;
	for (size_t i = 0; i < before->count; i++) {
		const struct follow_state_row *row = &before->rows[i];
		if (strcmp(row->store, f->store->name) || !row->position)
			continue;
		v->shipped_ms = row->shipped_ms;
		v->shipped_position = json_dumps(row->position, JSON_COMPACT);
	}
	if (!f->head.point || spool_count(f->spool))
		return;
	v->shipped_point = f->head.point; /* nothing waits: everything is shipped */
	v->shipped_ms = f->head.complete_ms;
	free(v->shipped_position);
	v->shipped_position = json_dumps(f->head.position, JSON_COMPACT);
}

static void on_coarse_added(void *context)
{
	follow_ship_wake(((struct followed *)context)->service);
}

static void on_coarse_warn(void *context, const char *text)
{
	const struct followed *f = context;
	follow_note(f->service, f->store->name, "a minute or an hour of the log was not merged: %s", text);
}

static int start_coarse(struct followed *f, struct im_error *err)
{
	const struct service *s = f->service;
	const struct coarse_request q = { .ops = f->ops, .keyring = s->vault->keyring, .spool = f->spool, .folder = f->folder, .node = s->node,
		.store = f->store->name, .type = f->store->type, .limit_bytes = s->config->follow_spool_limit_bytes / 2 / s->store_count,
		.minute_ms = COARSE_MINUTE_MS, .hour_minutes = COARSE_HOUR_MINUTES, .added = on_coarse_added, .warn = on_coarse_warn, .context = f };
	/* A round of --once is over before a minute is. */
	return s->request->once ? 0 : coarse_start(&q, &f->coarse, err);
}

static int open_spool(struct service *s, struct followed *f, const struct follow_state *before, struct im_error *err)
{
	f->folder = im_path_join(s->folder, f->store->name);
	int rc = f->folder ? im_mkdirs(f->folder, 0700, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0)
		rc = make_pipe(f->wake, err);
	if (rc == 0)
		rc = spool_open(f->folder, s->node, f->store->name, &f->spool, &f->head, &f->head_lost, f->lost_why, err);
	if (rc)
		return rc;
	f->known_point = f->head.point;
	f->known_first = f->head.first;
	memcpy(f->known_hash, f->head.hash, 32);
	strcpy(f->shipped.epoch, f->head.epoch);
	f->shipped.floor = f->head.point;
	recall_shipped(f, before);
	follow_publish(f);
	return start_coarse(f, err);
}

/* While nothing is captured yet, a comparison with the vault may still choose a new epoch without harm. */
static int compare_with_vault(struct service *s, struct im_error *err)
{
	struct storage *storage = NULL;
	bool set_back = false;
	if (s->vault_cached)
		return 0;
	int rc = follow_open_storage(s, &storage, err);
	if (rc == 0)
		rc = follow_check_vault(s, storage, &set_back, err);
	for (size_t i = 0; rc == 0 && i < s->store_count; i++) {
		s->stores[i].head.snapshot_due |= set_back;
		rc = follow_check_first(&s->stores[i], storage, err);
		if (rc == 0)
			rc = follow_check_store(&s->stores[i], storage, err);
	}
	storage_close(storage);
	if (rc == IM_EUNREACHABLE || rc == IM_EIO) { /* it was there a moment ago; the shipper looks again */
		im_error_clear(err);
		return 0;
	}
	return rc;
}

/* Takes the key over. */
static int open_all(struct service *s, struct key_file *key, const char *state, struct im_error *err)
{
	struct follow_state before = { 0 };
	int rc = follow_open_vault(s, key, err);
	if (rc) {
		key_file_free(key);
		return rc;
	}
	follow_state_load(state, s->node, &before, NULL);
	for (size_t i = 0; rc == 0 && i < s->store_count; i++)
		rc = open_spool(s, &s->stores[i], &before, err);
	follow_state_clear(&before);
	return rc ? rc : compare_with_vault(s, err);
}

/* The vault's id, for the folder of the local state, is in the key file. Takes the key over. */
static int open_with_key(struct service *s, struct key_file *key, struct im_error *err)
{
	auto_free char *state = NULL;
	int rc = backup_state_folder(s->config, key->vault_id, &state, err);
	if (rc == 0)
		rc = im_mkdirs(state, 0700, err);
	if (rc == 0 && !(s->folder = wire_folder(state, s->node)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0)
		rc = take_lock(s, state, err);
	if (rc) {
		key_file_free(key);
		return rc;
	}
	return open_all(s, key, state, err);
}

static void init_locks(struct service *s)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&s->open_lock, NULL);
	pthread_mutex_init(&s->ship_lock, NULL);
	pthread_mutex_init(&s->snapshot_lock, NULL);
	pthread_cond_init(&s->ship_wake, &monotonic);
	pthread_cond_init(&s->snapshot_wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

int follow_setup(struct service *s, struct im_error *err)
{
	struct key_file *key = NULL;
	init_locks(s);
	int rc = make_pipe(s->wake, err);
	if (rc == 0)
		rc = backup_check_config(s->config, err);
	if (rc == 0)
		rc = choose_stores(s, err);
	if (rc == 0 && !s->url)
		rc = im_fail(err, IM_EUSAGE, "no vault is named: set url = in [vault], or give --vault URL");
	if (rc == 0)
		rc = crypto_init(err);
	if (rc == 0)
		rc = follow_load_key(s, &key, err);
	return rc ? rc : open_with_key(s, key, err);
}

static void clear_followed(struct followed *f)
{
	coarse_stop(f->coarse);
	spool_close(f->spool);
	spool_head_clear(&f->head);
	json_decref(f->began);
	follow_memory_clear(&f->shipped);
	for (int i = 0; i < 2; i++)
		if (f->wake[i] >= 0)
			close(f->wake[i]);
	free(f->folder);
	free(f->demand);
	free(f->view.shipped_position);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->answered);
}

void follow_teardown(struct service *s)
{
	for (size_t i = 0; i < s->store_count; i++)
		clear_followed(&s->stores[i]);
	free(s->stores);
	free(s->folder);
	vault_close(s->vault);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	for (int i = 0; i < 2; i++)
		if (s->wake[i] >= 0)
			close(s->wake[i]);
	pthread_mutex_destroy(&s->open_lock);
	pthread_mutex_destroy(&s->ship_lock);
	pthread_mutex_destroy(&s->snapshot_lock);
	pthread_cond_destroy(&s->ship_wake);
	pthread_cond_destroy(&s->snapshot_wake);
}
