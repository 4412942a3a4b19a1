/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathering. All of it together has to take well under a second however much the vault holds: names
 * are cheap, and of snapshots' metas as many are read, newest first, as fit into a part of that.
 */
#include "cli/status_facts.h"

#include "backup/backup.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "stores/store.h"
#include "vault/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { READ_BUDGET_MS = 200 };
#define DAY_MS (INT64_C(24) * 3600 * 1000)
#define SCHEDULE_MAX_MS (36500 * DAY_MS)
#define GROWTH_MAX_MS (30 * DAY_MS)
#define GROWTH_MIN_MS (INT64_C(3600) * 1000)

static int64_t figure(const json_t *meta, const char *name)
{
	int64_t value = json_integer_value(json_object_get(meta, name));
	return value < 0 ? 0 : value;
}

/* --- snapshots --- */

struct reading { /* from the newest back */
	struct status_facts *facts;
	struct log_images images;
	uint64_t stored; /* by the snapshots newer than the one just read */
	uint64_t growth_bytes;
	int64_t growth_ms;
};

static int add_unreadable(struct status_facts *f, const char *object, const char *why, struct im_error *err)
{
	char **grown = reallocarray(f->unreadable, f->unreadable_count + 1, sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	f->unreadable = grown;
	grown[f->unreadable_count] = im_format("%s cannot be read: %s", object, why);
	return grown[f->unreadable_count] ? (f->unreadable_count++, 0) : im_fail(err, IM_ENOMEM, "out of memory");
}

/* Takes the snapshot over. */
static int take_snapshot(struct reading *r, struct snapshot *s, struct im_error *err)
{
	struct status_facts *f = r->facts;
	int64_t span_ms = f->newest ? f->newest->time_ms - s->time_ms : 0;
	int rc = log_images_take(&r->images, s, err);
	if (span_ms >= GROWTH_MIN_MS && span_ms <= GROWTH_MAX_MS) {
		r->growth_bytes = r->stored;
		r->growth_ms = span_ms;
	}
	r->stored += (uint64_t)figure(s->record.meta, "bytes_stored");
	f->oldest_ms = s->time_ms;
	f->read_count++;
	if (f->newest)
		snapshot_free(s);
	else
		f->newest = s;
	return rc;
}

static int read_snapshot(struct reading *r, const struct snapshot_name *name, struct im_error *err)
{
	const struct vault *v = r->facts->cli->vault;
	struct snapshot *s = NULL;
	struct im_error why = { 0 };
	int rc = snapshot_read(v->storage, v->keyring, name, &s, &why);
	if (rc == 0)
		return take_snapshot(r, s, err);
	if (rc != IM_ECORRUPT && rc != IM_EKEY && rc != IM_ENOTFOUND)
		return im_fail(err, rc, "%s", why.text);
	/* an old one is the business of verify and list */
	return r->facts->newest ? 0 : add_unreadable(r->facts, name->object, why.text, err);
}

static void check_numbers(struct status_facts *f)
{
	for (size_t i = 1; i < f->list.count; i++)
		f->chain_findings += f->list.items[i].seq != f->list.items[i - 1].seq + 1;
}

static int read_snapshots(struct reading *r, struct im_error *err)
{
	struct status_facts *f = r->facts;
	int64_t start_ms = im_monotonic_ms();
	size_t i = f->list.count;
	int rc = 0;
	check_numbers(f);
	while (rc == 0 && i > 0 && (!f->newest || im_monotonic_ms() - start_ms < READ_BUDGET_MS))
		rc = read_snapshot(r, &f->list.items[--i], err);
	if (rc || !f->newest || i == 0)
		return rc;
	struct snapshot *oldest = NULL; /* the ones between are not needed to know how far back it goes */
	if (snapshot_read(f->cli->vault->storage, f->cli->vault->keyring, &f->list.items[0], &oldest, NULL) == 0)
		f->oldest_ms = oldest->time_ms;
	snapshot_free(oldest);
	return 0;
}

/* --- stores and their logs --- */

static const struct follow_state_row *find_row(const struct follow_state *s, const char *store)
{
	for (size_t i = 0; i < s->count; i++)
		if (strcmp(s->rows[i].store, store) == 0)
			return &s->rows[i];
	return NULL;
}

/* What counts is the source: as long as nothing was committed after the last shipped point nothing can be lost, however old
 * that point is; from then on the clock runs. */
static void measure_log(const struct status_facts *f, const struct im_config_store *store, struct status_store *ret)
{
	const struct store_ops *kind = store_find(store->type);
	const struct store_follow_ops *ops = kind ? kind->follow : NULL;
	struct im_error err = { 0 };
	const char *why;
	bool moved = true;
	int64_t last_ms = 0;
	if (!ops || !ops->wanted(store, &why))
		return;
	ret->row = find_row(&f->follow, store->name);
	ret->log = ret->row && ret->row->position ? STATUS_LOG_THERE : STATUS_LOG_MISSING;
	if (ret->log == STATUS_LOG_MISSING)
		return;
	int rc = ops->moved(store, ret->row->position, &moved, &last_ms, &err);
	ret->lag_ms = rc || (moved && last_ms > ret->row->shipped_ms) ? f->now_ms - ret->row->shipped_ms : 0;
	ret->lag_ms = ret->lag_ms < 0 ? 0 : ret->lag_ms;
	ret->trouble = rc ? strdup(err.text) : NULL;
}

static int list_stores(struct status_facts *f, struct im_error *err)
{
	const struct im_config *c = f->cli->config;
	const json_t *metas = f->newest ? json_object_get(f->newest->record.meta, "stores") : NULL;
	size_t i;
	json_t *meta;
	f->stores = calloc((c ? c->store_count : 0) + json_array_size(metas) + 1, sizeof *f->stores);
	if (!f->stores)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t n = 0; c && n < c->store_count; n++) {
		struct status_store *s = &f->stores[f->store_count++];
		*s = (struct status_store){ .name = c->stores[n].name, .configured = true,
			.meta = f->newest ? snapshot_store_meta(f->newest, c->stores[n].name) : NULL };
		measure_log(f, &c->stores[n], s);
		f->logged += s->log == STATUS_LOG_THERE;
	}
	json_array_foreach(metas, i, meta) {
		const char *name = json_string_value(json_object_get(meta, "name"));
		if (name && im_name_valid(name) && !(c && im_config_find_store(c, name)))
			f->stores[f->store_count++] = (struct status_store){ .name = name, .meta = meta };
	}
	return 0;
}

/* --- recovery windows --- */

static void widen(struct status_store *s, int64_t from_ms, int64_t to_ms)
{
	s->from_ms = !s->has_window || from_ms < s->from_ms ? from_ms : s->from_ms;
	s->to_ms = !s->has_window || to_ms > s->to_ms ? to_ms : s->to_ms;
	s->has_window = true;
}

static void add_window(struct status_store *s, const struct log_window *w)
{
	s->forks += w->forked;
	if (!w->restorable)
		return;
	widen(s, w->from_ms, w->to_ms);
	s->logged = true;
	s->gaps += w->has_before && !w->closed;
	for (size_t i = 0; i < w->hole_count; i++)
		s->holes += !w->holes[i].at_end;
}

/* A store without a log goes back to its snapshots' instants. */
static void add_images(const struct status_facts *f, struct status_store *s)
{
	const char *instant = json_string_value(json_object_get(s->meta, "instant"));
	int64_t ms;
	if (instant && im_instant_parse(instant, &ms))
		widen(s, s->logged || !f->oldest_ms || f->oldest_ms > ms ? ms : f->oldest_ms, ms);
}

static int read_windows(struct status_facts *f, struct log_images *images, struct im_error *err)
{
	const struct vault *v = f->cli->vault;
	struct im_error why = { 0 };
	int rc = log_windows_read(v->storage, v->keyring, f->node, images, &f->windows, &why);
	if (rc == IM_EUNREACHABLE || rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	f->windows_trouble = rc ? strdup(why.text) : NULL;
	for (size_t i = 0; i < f->store_count; i++) {
		for (size_t n = 0; n < f->windows.count; n++)
			if (strcmp(f->windows.items[n].store, f->stores[i].name) == 0)
				add_window(&f->stores[i], &f->windows.items[n]);
		add_images(f, &f->stores[i]);
	}
	return 0;
}

/* --- the vault --- */

static int add_size(void *context, const char *name, uint64_t size_bytes)
{
	struct status_facts *f = context;
	(void)name;
	f->vault_bytes += size_bytes;
	f->vault_objects++;
	return 0;
}

static uint64_t per_day(uint64_t bytes, int64_t span_ms)
{
	return (uint64_t)((double)bytes / (double)span_ms * (double)DAY_MS);
}

/* What the node's snapshots of the last month stored, and its log for as long as it goes back. */
static void find_growth(struct status_facts *f, const struct reading *r)
{
	uint64_t bytes = 0;
	int64_t from_ms = f->now_ms, to_ms = 0;
	for (size_t i = 0; i < f->windows.count; i++) {
		const struct log_window *w = &f->windows.items[i];
		bytes += w->bytes;
		from_ms = w->restorable && w->from_ms < from_ms ? w->from_ms : from_ms;
		to_ms = w->restorable && w->to_ms > to_ms ? w->to_ms : to_ms;
	}
	if (f->read_count < f->list.count && f->oldest_ms && f->oldest_ms < from_ms)
		from_ms = f->oldest_ms;
	f->has_growth = r->growth_ms > 0;
	if (f->has_growth)
		f->growth_per_day = per_day(r->growth_bytes, r->growth_ms);
	if (f->has_growth && to_ms - from_ms >= GROWTH_MIN_MS)
		f->growth_per_day += per_day(bytes, to_ms - from_ms);
}

double status_facts_days_left(const struct status_facts *f)
{
	return f->has_growth && f->has_free && f->growth_per_day ? (double)f->vault_free_bytes / (double)f->growth_per_day : -1;
}

static int read_vault(struct status_facts *f, struct im_error *err)
{
	struct storage *s = f->cli->vault->storage;
	int rc = storage_list(s, "", add_size, f, err);
	f->has_free = rc == 0 && s->ops->space && s->ops->space(s, &f->vault_free_bytes, NULL) == 0;
	return rc;
}

static int read_drills(struct status_facts *f, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = drills_read(f->cli->vault, f->node, &f->drills, &why);
	if (rc == IM_EUNREACHABLE || rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	f->drills_trouble = rc ? strdup(why.text) : NULL;
	return 0;
}

static int read_runlog(struct status_facts *f, enum run_command command, struct runlog *ret, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = runlog_read(f->cli->vault, f->node, runs_name(command), f->now_ms, ret, &why);
	if (rc == IM_EUNREACHABLE || rc == IM_ENOMEM)
		return im_fail(err, rc, "%s", why.text);
	if (rc && !f->runlog_trouble)
		f->runlog_trouble = strdup(why.text);
	return 0;
}

const struct drill_record *status_facts_drill(const struct status_facts *f, const char *scenario)
{
	for (size_t i = f->drills.count; i-- > 0;)
		if (f->drills.items[i].is_drill && strcmp(f->drills.items[i].scenario, scenario) == 0)
			return &f->drills.items[i];
	return NULL;
}

/* Cron may ask every minute: nothing is written for it to production's disk, past probes know how fast that is. */
static void make_forecast(struct status_facts *f)
{
	bool service = f->cli->config && f->cli->config->drill_exec;
	f->has_forecast = f->newest && forecast_of_node(f->cli->vault, f->newest, FORECAST_NOW, &f->drills, NULL, service, &f->forecast, NULL) == 0;
}

static int gather_vault(struct status_facts *f, struct im_error *err)
{
	struct reading r = { .facts = f };
	int rc = snapshot_list(f->cli->vault->storage, f->node, &f->list, err);
	if (rc == 0)
		rc = read_snapshots(&r, err);
	if (rc == 0)
		rc = list_stores(f, err);
	if (rc == 0)
		rc = read_windows(f, &r.images, err);
	if (rc == 0)
		rc = read_vault(f, err);
	if (rc == 0)
		rc = read_drills(f, err);
	if (rc == 0)
		rc = read_runlog(f, RUN_VERIFY, &f->verify_log, err);
	if (rc == 0)
		rc = read_runlog(f, RUN_REPORT, &f->report_log, err);
	if (rc == 0) {
		find_growth(f, &r);
		make_forecast(f);
	}
	log_images_clear(&r.images);
	return rc;
}

/* --- the local state --- */

/* It is a second witness of what this node wrote. */
static void read_state(struct status_facts *f)
{
	auto_free char *file = im_format("%s/%s.ids.db", f->folder, f->node);
	struct state *state = NULL;
	struct state_head head;
	char hex[65];
	if (!file || access(file, R_OK) || state_open(f->folder, f->cli->vault->id, f->node, &state, NULL))
		return;
	f->has_state = state_head(state, &head);
	state_close(state);
	f->state_seq = f->has_state ? head.seq : 0;
	for (size_t i = 0; f->has_state && i < f->list.count && !f->state_agrees; i++)
		f->state_agrees = f->list.items[i].seq == head.seq && strncmp(im_hex(hex, head.hash, 32), f->list.items[i].hash_prefix, 16) == 0;
}

static void read_local(struct status_facts *f)
{
	struct stat st;
	auto_free char *cursor = im_path_join(f->folder, "verify-cursor");
	follow_state_load(f->folder, f->node, &f->follow, NULL);
	for (int i = 0; i < RUN_COUNT; i++)
		runs_load(f->folder, f->node, (enum run_command)i, &f->runs[i]);
	f->verified_ms = runs_last_ms(&f->runs[RUN_VERIFY]);
	if (cursor && stat(cursor, &st) == 0 && (int64_t)st.st_mtim.tv_sec * 1000 > f->verified_ms)
		f->verified_ms = (int64_t)st.st_mtim.tv_sec * 1000;
}

/* --- what is due --- */

/* A run that takes a while, or a timer that is a little late, is no alarm. */
static void add_next(struct status_facts *f, enum run_command command, int64_t every_ms, int64_t last_ms)
{
	int64_t grace_ms = every_ms / 10 > 60000 ? every_ms / 10 : 60000;
	int64_t due_ms = last_ms ? last_ms + every_ms : f->now_ms;
	if (!every_ms)
		return;
	f->next[f->next_count++] = (struct status_next){ .command = command, .every_ms = every_ms, .last_ms = last_ms, .due_ms = due_ms,
		.overdue = !last_ms || f->now_ms > due_ms + grace_ms + f->runs[command].success_duration_ms };
}

/* Of the node's own configuration; elsewhere of the one that its newest snapshot was taken with. */
static int64_t every(const struct status_facts *f, int64_t configured_ms, const char *name)
{
	const struct im_config *c = f->cli->config;
	const json_t *schedule = f->newest ? json_object_get(f->newest->record.meta, "schedule") : NULL;
	if (c && strcmp(c->node_name, f->node) == 0)
		return configured_ms;
	int64_t ms = figure(schedule, name);
	return ms <= SCHEDULE_MAX_MS ? ms : 0;
}

static void find_next(struct status_facts *f)
{
	static const struct im_config none;
	const struct im_config *c = f->cli->config ? f->cli->config : &none;
	const struct drill_record *drill = drills_last(&f->drills, false);
	if (!f->has_vault)
		return;
	add_next(f, RUN_BACKUP, every(f, c->backup_every_ms, "backup_ms"), f->newest ? f->newest->time_ms : 0);
	add_next(f, RUN_VERIFY, every(f, c->verify_every_ms, "verify_ms"), f->verified_ms);
	add_next(f, RUN_DRILL, every(f, c->drill_every_ms, "drill_ms"), drill ? drill->time_ms : 0);
	add_next(f, RUN_REPORT, every(f, c->report_every_ms, "report_ms"), f->reported_ms);
}

/* What this machine remembers and what the vault has of all machines are two witnesses: the newer one counts. A clock that was
 * ahead must not make a run that is never due again. */
static int64_t newer_of(const struct status_facts *f, int64_t here_ms, const struct runlog *vault)
{
	int64_t ms = here_ms <= f->now_ms ? here_ms : 0;
	if (vault->known && vault->last.time_ms > ms)
		ms = vault->last.time_ms;
	return ms < f->now_ms ? ms : f->now_ms;
}

static void find_runs(struct status_facts *f)
{
	const struct runlog *verify = &f->verify_log;
	int64_t here_ms = f->runs[RUN_VERIFY].damage_ms;
	f->verified_ms = newer_of(f, f->verified_ms, verify);
	f->reported_ms = newer_of(f, runs_last_ms(&f->runs[RUN_REPORT]), &f->report_log);
	f->damage_ms = here_ms > verify->clean_ms && here_ms > verify->damage_ms ? here_ms : verify->damage_ms;
	if (f->damage_ms > f->now_ms)
		f->damage_ms = f->now_ms;
}

/* --- all of it --- */

static void find_targets(struct status_facts *f)
{
	const struct im_config *c = f->cli->config;
	const json_t *meta = f->newest ? f->newest->record.meta : NULL;
	f->rpo_ms = c ? c->rpo_ms : figure(meta, "rpo_ms");
	f->rto_ms = c ? c->rto_ms : figure(meta, "rto_ms");
	f->age_ms = f->newest && f->now_ms > f->newest->time_ms ? f->now_ms - f->newest->time_ms : 0;
}

int status_facts_gather(struct cli *cli, const char *node, struct status_facts *ret, struct im_error *err)
{
	*ret = (struct status_facts){ .cli = cli, .node = node, .now_ms = im_now_ms(), .folder = runs_folder(cli) };
	if (ret->folder)
		read_local(ret);
	int rc = cli->vault ? gather_vault(ret, err) : 0;
	ret->has_vault = rc == 0 && cli->vault;
	if (!ret->stores && list_stores(ret, rc ? NULL : err))
		return rc ? rc : IM_ENOMEM;
	find_targets(ret);
	if (ret->has_vault && ret->folder)
		read_state(ret);
	find_runs(ret);
	find_next(ret);
	return rc;
}

void status_facts_clear(struct status_facts *f)
{
	for (size_t i = 0; i < f->unreadable_count; i++)
		free(f->unreadable[i]);
	for (size_t i = 0; i < f->store_count; i++)
		free(f->stores[i].trouble);
	free(f->unreadable);
	free(f->stores);
	snapshot_list_clear(&f->list);
	snapshot_free(f->newest);
	log_windows_clear(&f->windows);
	follow_state_clear(&f->follow);
	drill_list_clear(&f->drills);
	free(f->windows_trouble);
	free(f->drills_trouble);
	free(f->runlog_trouble);
	free(f->folder);
	*f = (struct status_facts){ 0 };
}
