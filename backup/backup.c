/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run, as a story: key, lock, local state, vault, the chain's end, each store, packs, the
 * snapshot, the local state. Whatever fails or dies half-way leaves the vault as it was plus
 * unreferenced packs, and the local state as it was or as a truth that still holds.
 */
#include "backup/internal.h"

#include "base/arriving.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/lock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void backup_warn(const struct backup_run *run, const char *store, const char *format, ...)
{
	const struct backup_events *events = run->request->events;
	char text[IM_ERROR_TEXT_BYTES];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (events && events->warn)
		events->warn(events->context, store, text);
}

static void on_store_warn(void *context, const char *store, const char *text)
{
	backup_warn(context, store, "%s", text);
}

static void on_store_progress(void *context, const char *store, uint64_t done, uint64_t total)
{
	const struct backup_run *run = context;
	const struct backup_events *events = run->request->events;
	if (events && events->progress)
		events->progress(events->context, store, done, total);
}

/* 1. Key, lock, state, vault */

static int load_node_key(struct backup_run *run, struct key_file **ret, struct im_error *err)
{
	const struct backup_request *q = run->request;
	const char *path = q->key_path ? q->key_path : run->config->vault_key;
	if (!path)
		return im_fail(err, IM_EUSAGE, "no node key is named: set key = in [vault], or give --key FILE");
	struct key_file *key = NULL;
	int rc = key_file_load(path, q->ask, q->ask_context, &key, err);
	if (rc)
		return rc == IM_ENOTFOUND ? (int)IM_EUSAGE : rc;
	if (key->role != KEY_NODE)
		rc = im_fail(err, IM_EKEY, "%s is a %s key; backups are signed with a node key (a restore key belongs offline, "
		    "not on the node)", path, key_role_name(key->role));
	else if (key->node && strcmp(key->node, run->node) != 0)
		rc = im_fail(err, IM_EKEY, "%s is the key of node %s and may not write for node %s", path, key->node, run->node);
	if (rc) {
		key_file_free(key);
		return rc;
	}
	*ret = key;
	return 0;
}

static int take_lock(struct backup_run *run, const char *folder, int *ret_fd, struct im_error *err)
{
	auto_free char *file = im_format("%s/%s.lock", folder, run->node);
	auto_free char *what = im_format("backup of node %s", run->node);
	if (!file || !what)
		return im_fail(err, IM_ENOMEM, "out of memory");
	return im_lock_take(file, what, ret_fd, err);
}

/* Takes the key over. */
static int open_vault(struct backup_run *run, struct key_file *key, struct im_error *err)
{
	const char *url = run->request->vault_url ? run->request->vault_url : run->config->vault_url;
	struct storage *storage = NULL;
	int rc = url ? storage_open(url, false, &storage, err)
	             : im_fail(err, IM_EUSAGE, "no vault is named: set url = in [vault], or give --vault URL");
	if (rc == 0)
		rc = vault_open_storage(storage, key, run->has_state_head ? run->state_head.keyring_generation : 0, &run->vault, err);
	if (rc)
		key_file_free(key);
	return rc;
}

/* What is gone from the vault must be gone from the memory of it, or a later snapshot would refer to it. */
static int take_in_index(struct backup_run *run, struct im_error *err)
{
	size_t bad = 0;
	if (run->has_state_head && !run->head.rolled_back)
		return 0;
	int rc = index_load(run->vault->storage, run->vault->keyring, run->node, run->state, &bad, err);
	if (rc == 0 && bad)
		backup_warn(run, NULL, "%zu index objects are unreadable; what they list is stored again", bad);
	return rc;
}

static void sweep(struct backup_run *run)
{
	struct storage *s = run->vault->storage;
	struct im_error why = { 0 };
	if (s->ops->sweep && s->ops->sweep(s, &why))
		backup_warn(run, NULL, "leftovers in the vault stay: %s", why.text);
}

/* 2. Stores */

static void failed_row(struct backup_run *run, struct backup_store *row, int rc, const struct im_error *why)
{
	row->status = "failed";
	row->code = rc;
	row->error = strdup(why->text[0] ? why->text : "failed without a reason");
	backup_warn(run, row->name, "%s", row->error ? row->error : "out of memory");
}

/* The follower compares its rolling checksum with what was read. */
static void tell_follower(struct backup_run *run, struct backup_image *image)
{
	const char *checksum = json_string_value(json_object_get(image->result.manifest, "checksum"));
	struct im_error why = { 0 };
	bool joined = false;
	if (!image->result.log)
		return;
	if (anchor_image(run->anchor, image->store->name, checksum, &joined, &why))
		backup_warn(run, image->store->name, "%s", why.text);
	else if (joined)
		json_object_set_new(image->result.log, "joined", json_true());
}

/* What a restore is still filling has holes where content is to come. */
static int refuse_arriving(const struct im_config_store *store, struct im_error *err)
{
	auto_free char *stage = im_arriving_find(store->path);
	return stage ? im_fail(err, IM_ELOCKED, "%s is still being restored (imvault status shows how far it is), and is backed up when it is complete; left there: %s",
	                   store->path, stage) :
	               0;
}

static int read_store(struct backup_run *run, struct backup_image *image, struct backup_store *row, struct im_error *err)
{
	const struct store_events events = { on_store_warn, on_store_progress, run };
	const struct snapshot_request request = {
		.config = run->config, .store = image->store, .packer = run->packer, .state = run->state,
		.keyring = run->vault->keyring, .full = run->request->full, .anchor = anchor_hooks(run->anchor), .events = &events,
	};
	struct im_error why = { 0 };
	image->result.pause_us = -1;
	int rc = refuse_arriving(image->store, &why);
	if (rc == 0)
		rc = store_find(image->store->type)->snapshot(&request, &image->result, &why);
	if (rc == 0) {
		const struct snapshot_result *r = &image->result;
		row->status = "ok";
		row->bytes = r->bytes;
		row->bytes_read = r->bytes_read;
		row->bytes_changed = r->bytes_changed;
		row->instant_ms = r->instant_ms;
		row->pause_us = r->pause_us;
		row->partial = r->partial;
		tell_follower(run, image);
		return backup_remember(run, image, row, err);
	}
	image->result = (struct snapshot_result){ 0 };
	if (rc == IM_EINTERRUPTED || rc == IM_EUNREACHABLE)
		return im_fail(err, rc, "store %s: %s", row->name, why.text);
	failed_row(run, row, rc, &why);
	return 0;
}

static int leave_out(struct backup_run *run, struct backup_image *image, struct backup_store *row, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = backup_carry_over(run, image, row, &why);
	if (rc == 0) {
		row->status = "ok";
		return 0;
	}
	if (rc != IM_ENOTFOUND)
		return im_fail(err, rc, "%s", why.text);
	row->status = "absent"; /* never imaged by this state: it has no place in the snapshot */
	return 0;
}

static void drop_absent(struct backup_run *run)
{
	struct backup_result *r = run->result;
	size_t n = 0;
	for (size_t i = 0; i < r->store_count; i++) {
		if (strcmp(r->stores[i].status, "absent") == 0) {
			backup_warn(run, r->stores[i].name, "not in this snapshot: it was left out and this node knows no earlier image of it");
			free(r->stores[i].name);
			free(r->stores[i].type);
			free(r->stores[i].path);
			continue;
		}
		r->stores[n] = r->stores[i];
		run->images[n++] = run->images[i];
	}
	r->store_count = n;
}

static int read_stores(struct backup_run *run, struct im_error *err)
{
	struct backup_result *r = run->result;
	for (size_t i = 0; i < r->store_count; i++) {
		int rc = im_interrupt_check(err);
		if (rc == 0)
			rc = run->images[i].selected ? read_store(run, &run->images[i], &r->stores[i], err)
			                             : leave_out(run, &run->images[i], &r->stores[i], err);
		if (rc)
			return rc;
	}
	drop_absent(run);
	return 0;
}

/* Of the stores read this time. A store's code that would mean something else as an exit status becomes IM_EFAIL. */
static int judge_stores(const struct backup_run *run, bool *ret_any_ok, struct im_error *err)
{
	int first = 0;
	size_t failed = 0, partial = 0;
	const struct backup_result *r = run->result;
	*ret_any_ok = false;
	for (size_t i = 0; i < r->store_count; i++) {
		const struct backup_store *row = &r->stores[i];
		if (row->code && !first) {
			first = row->code;
			im_fail(err, IM_EFAIL, "store %s: %s", row->name, row->error ? row->error : "");
		}
		failed += row->code != 0;
		partial += row->partial && !row->carried;
		*ret_any_ok |= !row->code && !row->carried;
	}
	if (failed && !*ret_any_ok) {
		bool foreign = first == IM_ENOTFOUND || first == IM_ELOCKED || first == IM_EPARTIAL || first == IM_EMISSED;
		first = foreign ? (int)IM_EFAIL : first;
		if (err)
			err->code = (enum im_code)first;
		return first;
	}
	if (!failed && !partial)
		return 0;
	if (!failed)
		return im_fail(err, IM_EPARTIAL, "%zu of %zu stores are incomplete in this snapshot", partial, r->store_count);
	if (err)
		err->code = IM_EPARTIAL;
	return IM_EPARTIAL;
}

/* 3. Packs and the snapshot */

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static int unite_packs(struct backup_run *run, struct im_error *err)
{
	size_t total = 0, n = 0;
	for (size_t i = 0; i < run->result->store_count; i++)
		total += run->images[i].result.pack_count;
	auto_free uint32_t *numbers = calloc(total + 1, sizeof *numbers);
	run->packs = calloc(total + 1, sizeof *run->packs);
	if (!numbers || !run->packs)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < run->result->store_count; i++) {
		const struct snapshot_result *r = &run->images[i].result;
		if (r->pack_count)
			memcpy(numbers + n, r->packs, r->pack_count * sizeof *numbers);
		n += r->pack_count;
	}
	qsort(numbers, n, sizeof *numbers, by_number);
	for (size_t i = 0; i < n; i++) {
		if (i && numbers[i] == numbers[i - 1])
			continue;
		int rc = state_pack_get(run->state, numbers[i], &run->packs[run->pack_count], err);
		if (rc)
			return rc;
		run->pack_count++;
	}
	return 0;
}

static void add_up(struct backup_run *run)
{
	struct backup_result *r = run->result;
	struct packer_stats stats = { 0 };
	packer_get_stats(run->packer, &stats);
	r->bytes_stored = stats.stored_bytes;
	r->bytes_deduplicated = stats.deduplicated_bytes;
	r->packs_written = stats.packs;
	r->instant_ms = 0;
	for (size_t i = 0; i < r->store_count; i++) {
		const struct backup_store *row = &r->stores[i];
		r->bytes += row->bytes;
		r->bytes_read += row->bytes_read;
		r->bytes_changed += row->bytes_changed;
		if (!row->code && row->instant_ms > r->instant_ms)
			r->instant_ms = row->instant_ms;
	}
	r->duration_ms = (im_monotonic_us() - run->started_us) / 1000;
}

static int write_snapshot(struct backup_run *run, struct im_error *err)
{
	struct backup_result *r = run->result;
	struct state_head head = run->state_head;
	char hex[65];
	int rc = packer_finish(run->packer, err);
	if (rc == 0)
		rc = unite_packs(run, err);
	if (rc == 0)
		rc = backup_check_packs(run, err);
	if (rc == 0)
		rc = im_interrupt_check(err);
	if (rc)
		return rc;
	add_up(run);
	rc = backup_write_record(run, head.hash, err);
	if (rc)
		return rc;
	r->seq = head.seq = run->head.seq;
	r->snapshot = im_format("%08" PRIu64 "-%.16s", r->seq, im_hex(hex, head.hash, 32));
	head.keyring_generation = keyring_generation(run->vault->keyring);
	r->duration_ms = (im_monotonic_us() - run->started_us) / 1000;
	struct im_error why = { 0 };
	if (state_commit(run->state, &head, &why))
		backup_warn(run, NULL, "the snapshot is safe, but the local state could not be saved (%s): the next run reads more", why.text);
	return 0;
}

static int take_snapshot(struct backup_run *run, struct im_error *err)
{
	int rc = backup_find_head(run, err);
	if (rc == 0)
		rc = take_in_index(run, err);
	if (rc)
		return rc;
	sweep(run);
	rc = packer_new(run->vault->storage, run->vault->keyring, run->state, run->node, run->config->compression_level,
	    &run->packer, err);
	if (rc == 0)
		rc = read_stores(run, err);
	if (rc)
		return rc;
	bool any_ok;
	struct im_error why = { 0 };
	int verdict = judge_stores(run, &any_ok, &why);
	if (!any_ok)
		return im_fail(err, verdict ? verdict : IM_EFAIL, "%s; no snapshot was written", why.text);
	rc = write_snapshot(run, err);
	if (rc)
		return rc;
	if (run->head.rolled_back)
		return im_fail(err, IM_ECORRUPT, "the vault was rolled back or snapshots were removed; snapshot %" PRIu64
		    " is complete again, earlier ones may be lost: find out who did it", run->head.seq);
	return verdict ? im_fail(err, verdict, "%s", why.text) : 0;
}

static int run_locked(struct backup_run *run, struct key_file *key, const char *folder, struct im_error *err)
{
	int rc = state_open(folder, key->vault_id, run->node, &run->state, err);
	if (rc) {
		key_file_free(key);
		return rc;
	}
	run->has_state_head = state_head(run->state, &run->state_head);
	run->anchor = anchor_connect(folder, run->node);
	rc = open_vault(run, key, err);
	return rc ? rc : take_snapshot(run, err);
}

static int run_all(struct backup_run *run, struct im_error *err)
{
	struct key_file *key = NULL;
	auto_free char *folder = NULL;
	int rc = backup_check_config(run->config, err);
	if (rc == 0)
		rc = backup_choose_stores(run, err);
	if (rc == 0)
		rc = crypto_init(err);
	if (rc == 0)
		rc = load_node_key(run, &key, err);
	if (rc)
		return rc;
	rc = backup_state_folder(run->config, key->vault_id, &folder, err);
	if (rc == 0)
		rc = im_mkdirs(folder, 0700, err);
	if (rc == 0)
		rc = take_lock(run, folder, &run->lock_fd, err);
	if (rc) {
		key_file_free(key);
		return rc;
	}
	return run_locked(run, key, folder, err);
}

static void clear_run(struct backup_run *run)
{
	packer_free(run->packer);
	anchor_close(run->anchor);
	for (size_t i = 0; run->images && i < run->config->store_count; i++) {
		if (i >= run->result->store_count)
			break;
		json_decref(run->images[i].result.manifest);
		json_decref(run->images[i].result.log);
		free(run->images[i].result.packs);
	}
	free(run->images);
	free(run->packs);
	state_close(run->state);
	vault_close(run->vault);
	if (run->lock_fd >= 0)
		close(run->lock_fd);
}

int backup_run(const struct backup_request *request, struct backup_result *ret, struct im_error *err)
{
	struct backup_run run = {
		.request = request, .config = request->config, .result = ret,
		.node = request->node ? request->node : request->config->node_name,
		.started_ms = im_now_ms(), .started_us = im_monotonic_us(), .lock_fd = -1,
	};
	*ret = (struct backup_result){ 0 };
	if (!im_name_valid(run.node))
		return im_fail(err, IM_EUSAGE, "node name \"%s\" is not allowed", run.node);
	ret->node = strdup(run.node);
	int rc = run_all(&run, err);
	ret->duration_ms = (im_monotonic_us() - run.started_us) / 1000;
	clear_run(&run);
	return rc;
}

void backup_result_clear(struct backup_result *r)
{
	for (size_t i = 0; i < r->store_count; i++) {
		free(r->stores[i].name);
		free(r->stores[i].type);
		free(r->stores[i].path);
		free(r->stores[i].error);
	}
	free(r->stores);
	free(r->node);
	free(r->snapshot);
	*r = (struct backup_result){ 0 };
}
