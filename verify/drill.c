/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The drill as a story: choose a recovery point, forecast, restore, look closely, judge, record.
 */
#include "verify/drill.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "verify/sandbox.h"
#include "verify/survey.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NICE = 10, IOPRIO_WHO_PROCESS = 1, IOPRIO_BEST_EFFORT_LOWEST = (2 << 13) | 7, SPARE_PERCENT = 5 };

struct drill {
	const struct drill_request *request;
	struct drill_result *result;
	struct snapshot *snapshot;   /* the newest one at or before what is asked for */
	struct drill_list history;
	struct forecast_node forecast;
	const char *at;
	int64_t at_ms;               /* the instant asked for; 0: the latest */
	bool of_old;                 /* a snapshot was named: how much would be lost now is no question */
	int64_t began_ms, heartbeat_ms;
	unsigned limit_cpus;
	char **paths;                /* the stores' original ones, NULL-terminated */
	json_t *surveys;
};

/* --- what was found --- */

static int add_check(struct drill *d, const char *store, const char *check, bool ok, const char *text)
{
	struct drill_result *r = d->result;
	struct drill_check *grown = reallocarray(r->checks, r->check_count + 1, sizeof *grown);
	if (!grown)
		return IM_ENOMEM;
	r->checks = grown;
	grown[r->check_count++] = (struct drill_check){ .store = store ? strdup(store) : NULL, .check = strdup(check), .text = strdup(text), .ok = ok };
	r->difference_count += !ok;
	return 0;
}

/* What an emergency would not wait for. */
static int examine(void *context, const struct restore_store *row, json_t *manifest, bool touched, char **ret_text, struct im_error *err)
{
	struct drill *d = context;
	struct im_error why = { 0 };
	json_t *mine = json_copy(manifest);
	if (touched) /* the service has written: what was recorded with the snapshot is a lower bound */
		json_object_set_new(mine, "log_laid", json_true());
	auto_free char *text = NULL;
	int rc = store_find(row->type)->check(mine, row->path, touched ? "quick" : "full", &text, &why);
	json_decref(mine);
	if (rc && rc != IM_EDIFFERENT && rc != IM_ECORRUPT)
		return im_fail(err, rc, "%s", why.text);
	if (add_check(d, row->name, "content", rc == 0, rc ? why.text : text))
		return im_fail(err, IM_ENOMEM, "out of memory");
	*ret_text = TAKE_PTR(text);
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

static void take_finding(void *context, const char *store, const char *check, bool ok, const char *text)
{
	add_check(context, store, check, ok, text);
}

/* --- before --- */

/* A session is a scheduling group of its own, among which only the group's niceness counts: sched(7). */
void drill_be_nice(void)
{
	auto_close int group = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
	char text[8];
	ssize_t n = snprintf(text, sizeof text, "%d", NICE);
	if (group >= 0)
		n = write(group, text, (size_t)n);
	setpriority(PRIO_PROCESS, 0, NICE);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_BEST_EFFORT_LOWEST);
}

static void hold_back(struct drill *d)
{
	cpu_set_t all, some;
	unsigned want = d->request->cpus, got = 0;
	drill_be_nice();
	if (!want || sched_getaffinity(0, sizeof all, &all))
		return;
	CPU_ZERO(&some);
	for (int i = 0; i < CPU_SETSIZE && got < want; i++)
		if (CPU_ISSET(i, &all)) {
			CPU_SET(i, &some);
			got++;
		}
	if (got == want && CPU_COUNT(&all) > (int)want && sched_setaffinity(0, sizeof some, &some) == 0)
		d->limit_cpus = want;
}

/* Any instant from the first snapshot on, evenly. */
static int choose_instant(struct drill *d, struct im_error *err)
{
	const struct drill_request *q = d->request;
	struct snapshot *first = NULL;
	char instant[IM_INSTANT_BYTES];
	struct snapshot_list list = { 0 };
	uint64_t random;
	int rc = snapshot_list_of(q->vault->storage, q->node, &list, err);
	for (size_t i = 0; rc == 0 && i < list.count && !first; i++) {
		struct im_error why = { 0 };
		snapshot_read(q->vault->storage, q->vault->keyring, &list.items[i], &first, &why);
	}
	snapshot_list_clear(&list);
	if (rc)
		return rc;
	if (!first)
		return im_fail(err, IM_ENOTFOUND, "none of the node's snapshots can be read; run imvault verify");
	crypto_random(&random, sizeof random);
	int64_t span = d->began_ms > first->time_ms ? d->began_ms - first->time_ms : 1;
	d->at_ms = first->time_ms + (int64_t)(random % (uint64_t)span);
	snapshot_free(first);
	d->result->chosen = "random";
	d->of_old = false;
	d->result->at = strdup(im_instant_format(instant, d->at_ms));
	d->at = d->result->at;
	return d->at ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
}

static void skip_note(void *context, const char *text)
{
	(void)context, (void)text; /* the restore itself tells */
}

static int choose(struct drill *d, struct im_error *err)
{
	const struct drill_request *q = d->request;
	d->at = q->at && strcmp(q->at, "latest") != 0 ? q->at : NULL;
	d->of_old = d->at && !im_instant_parse(d->at, &d->at_ms);
	int rc = d->at && strcmp(d->at, "random") == 0 ? choose_instant(d, err) : 0;
	if (rc == 0)
		rc = snapshot_choose(q->vault->storage, q->vault->keyring, q->node, d->at ? d->at : "latest", skip_note, NULL, &d->snapshot, err);
	if (rc)
		return rc;
	d->result->rpo_target_ms = d->of_old ? 0 : json_integer_value(json_object_get(d->snapshot->record.meta, "rpo_ms"));
	const char *text = json_string_value(json_object_get(d->snapshot->record.private_part, "config"));
	struct im_config *config = NULL;
	d->heartbeat_ms = IM_FOLLOW_HEARTBEAT_MS;
	if (text && im_config_parse(text, "the snapshot's configuration", &config, NULL) == 0)
		d->heartbeat_ms = config->follow_heartbeat_ms;
	im_config_free(config);
	return 0;
}

static int take_paths(struct drill *d, struct im_error *err)
{
	size_t i, n = 0;
	json_t *store, *stores = json_object_get(d->snapshot->record.meta, "stores");
	d->paths = calloc(json_array_size(stores) + 1, sizeof *d->paths);
	if (!d->paths)
		return im_fail(err, IM_ENOMEM, "out of memory");
	json_array_foreach(stores, i, store) {
		const char *path = json_string_value(json_object_get(store, "path"));
		if (path && *path == '/' && !(d->paths[n++] = strdup(path)))
			return im_fail(err, IM_ENOMEM, "out of memory");
	}
	return 0;
}

/* The scratch may be production's own disk: it must not be filled up. */
static int check_space(struct drill *d, struct im_error *err)
{
	const struct drill_request *q = d->request;
	struct statvfs fs;
	char need[24], have[24];
	uint64_t wanted = d->forecast.sizes.write_bytes;
	im_bytes_format(need, sizeof need, wanted);
	if (q->space_bytes && wanted > q->space_bytes)
		return im_fail(err, IM_ENOSPACE, "a drill of this snapshot needs %s of scratch, but space = %s; name fewer stores with --store, or allow more", need,
		    im_bytes_format(have, sizeof have, q->space_bytes));
	if (statvfs(q->folder, &fs))
		return 0;
	uint64_t spare = (uint64_t)fs.f_blocks * fs.f_frsize / 100 * SPARE_PERCENT, left = (uint64_t)fs.f_bavail * fs.f_frsize;
	return wanted + spare <= left ? 0 : im_fail(err, IM_ENOSPACE, "a drill of this snapshot needs %s of scratch, and %d %% of the file system of %s must stay free, but it has only %s; name another --scratch",
	    need, SPARE_PERCENT, q->folder, im_bytes_format(have, sizeof have, left));
}

static int prepare(struct drill *d, struct im_error *err)
{
	const struct drill_request *q = d->request;
	int rc = choose(d, err);
	if (rc == 0)
		rc = drills_read(q->vault, d->snapshot->node, &d->history, err);
	if (rc == 0)
		rc = forecast_of_node(q->vault, d->snapshot, d->of_old ? 0 : d->at_ms ? d->at_ms : FORECAST_NOW, &d->history, q->folder, q->exec_command != NULL,
		    &d->forecast, err);
	if (rc == 0)
		rc = take_paths(d, err);
	if (rc)
		return rc;
	d->result->findings = d->history.findings;
	d->result->finding_count = d->history.finding_count;
	d->history.findings = NULL;
	d->history.finding_count = 0;
	return check_space(d, err);
}

/* Of the last drill that looked into message stores. */
static const struct drill_record *last_survey(const struct drill *d)
{
	for (size_t i = d->history.count; i-- > 0;)
		if (d->history.items[i].is_drill && json_object_size(json_object_get(d->history.items[i].private_part, "surveys")))
			return &d->history.items[i];
	return NULL;
}

static int survey(void *context, const struct restore_result *r, bool touched, struct im_error *err)
{
	struct drill *d = context;
	const struct drill_record *before = last_survey(d);
	auto_free struct survey_store *stores = calloc(r->store_count + 1, sizeof *stores);
	char when[IM_INSTANT_BYTES];
	size_t n = 0;
	if (!stores)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < r->store_count; i++)
		if (strcmp(r->stores[i].status, "ok") == 0)
			stores[n++] = (struct survey_store){ .name = r->stores[i].name, .type = r->stores[i].type, .path = r->stores[i].path,
				.instant_ms = r->stores[i].instant_reached_ms, .until_ms = touched ? d->began_ms : 0 };
	size_t differences = d->result->difference_count;
	int rc = survey_run(stores, n, before ? json_object_get(before->private_part, "surveys") : NULL,
	    before ? im_instant_format(when, before->time_ms) : NULL, take_finding, d, &d->surveys, err);
	return rc || d->result->difference_count == differences ? rc : im_fail(err, IM_EDIFFERENT, "message stores lack what should be there");
}

/* --- the recovery --- */

static int recover(struct drill *d, struct im_error *err)
{
	const struct drill_request *q = d->request;
	auto_free char *root = im_path_join(q->folder, "root"), *command = NULL;
	int rc = root ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0 && q->exec_command)
		rc = sandbox_command(q->folder, (const char *const *)d->paths, q->exec_command, &command, err);
	if (rc)
		return rc;
	/* what was done since the vault was open is the drill's own */
	int64_t now_us = im_monotonic_us(), open_us = q->opened_us - q->start_us;
	const struct restore_request restore = { .vault = q->vault, .node = q->node, .at = d->at, .stores = q->stores, .to = root, .mode = q->mode,
		.exec_command = command, .ready_command = q->ready_command, .rto_ms = q->rto_ms, .start_us = now_us - open_us, .opened_us = now_us,
		.examine = examine, .examine_all = survey, .examine_context = d, .events = q->events };
	return restore_run(&restore, &d->result->restore, err);
}

/* --- the verdict --- */

/* Of what is followed, everything up to the last heartbeat is known to be there. */
static void judge_rpo(struct drill *d)
{
	struct drill_result *r = d->result;
	int64_t allowed = r->rpo_target_ms;
	for (size_t i = 0; i < r->restore.store_count; i++)
		if (r->restore.stores[i].has_log)
			allowed = r->rpo_target_ms > d->heartbeat_ms ? r->rpo_target_ms : d->heartbeat_ms + r->rpo_target_ms;
	if (d->at_ms)
		r->restore.rpo_ms = d->at_ms > r->restore.instant_reached_ms ? d->at_ms - r->restore.instant_reached_ms : 0;
	r->rpo_met = r->rpo_target_ms > 0 && r->restore.rpo_ms <= allowed;
}

static int judge(struct drill *d, int rc, struct im_error *err)
{
	char lost[40], target[40];
	judge_rpo(d);
	if (rc || !d->result->rpo_target_ms || d->result->rpo_met)
		return rc;
	return im_fail(err, IM_EMISSED, "what was acknowledged in the last %s before the loss is missing, but rpo = %s", im_duration_format(lost, sizeof lost, d->result->restore.rpo_ms),
	    im_duration_format(target, sizeof target, d->result->rpo_target_ms));
}

static json_t *checks_json(const struct drill_result *r)
{
	json_t *all = json_array();
	for (size_t i = 0; i < r->check_count; i++) {
		const struct drill_check *c = &r->checks[i];
		json_t *row = json_pack("{s:s*, s:s, s:b, s:s*}", "store", c->store, "check", c->check, "ok", (int)c->ok, "text", c->text);
		json_array_append_new(all, row ? row : json_pack("{s:s, s:b, s:s}", "check", c->check, "ok", (int)c->ok, "text", "(not text)"));
	}
	return all;
}

static int record(struct drill *d, int code, const struct im_error *why, struct im_error *err)
{
	const struct drill_request *q = d->request;
	struct drill_result *r = d->result;
	auto_free char *me = q->operator_name ? strdup(q->operator_name) : drill_operator();
	const struct drill_facts facts = { .kind = "drill", .chosen = r->chosen, .at = d->at, .operator_name = me, .reason = q->reason, .began_ms = d->began_ms,
		.rpo_target_ms = r->rpo_target_ms, .rpo_ms = r->restore.rpo_ms, .rpo_met = r->rpo_met, .forecast = &r->forecast, .sizes = &d->forecast.sizes,
		.machine = &d->forecast.machine, .limit_cpus = d->limit_cpus, .nice = NICE, .code = code, .difference_count = r->difference_count };
	json_t *meta = drill_record_meta(&facts, &r->restore);
	json_t *own = json_pack("{s:o, s:O*}", "checks", checks_json(r), "surveys", d->surveys), *error = code ? json_string(why->text) : NULL;
	if (code)
		json_object_set_new(own, "error", error ? error : json_string("(not text)"));
	int rc = meta && own ? drills_append(q->vault, d->snapshot->node, meta, own, &r->object, err) : im_fail(err, IM_ENOMEM, "out of memory");
	json_decref(meta);
	json_decref(own);
	return rc;
}

static void drill_clear(struct drill *d)
{
	snapshot_free(d->snapshot);
	drill_list_clear(&d->history);
	for (size_t i = 0; d->paths && d->paths[i]; i++)
		free(d->paths[i]);
	free(d->paths);
	json_decref(d->surveys);
}

static int run(struct drill *d, struct im_error *err)
{
	struct im_error why = { 0 }, unwritten = { 0 };
	hold_back(d);
	int rc = prepare(d, err);
	if (rc)
		return rc;
	rc = recover(d, &why);
	d->result->forecast = drill_was_instant(&d->result->restore) ? d->forecast.instant : d->forecast.full;
	rc = judge(d, rc, &why);
	d->result->verdict = drill_verdict(rc);
	int written = rc == IM_EINTERRUPTED || !d->result->restore.snapshot ? 0 : record(d, rc, &why, &unwritten);
	if (written && rc == 0)
		return im_fail(err, written, "the drill passed, but its record could not be written: %s", unwritten.text);
	if (written && d->request->events && d->request->events->warn)
		d->request->events->warn(d->request->events->context, unwritten.text);
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}

int drill_run(const struct drill_request *q, struct drill_result *ret, struct im_error *err)
{
	struct drill d = { .request = q, .result = ret, .began_ms = im_now_ms() };
	*ret = (struct drill_result){ .verdict = "failed", .chosen = q->at && strcmp(q->at, "latest") != 0 ? "asked" : "latest" };
	ret->restore.service_ready_ms = ret->restore.data_complete_ms = ret->restore.exec_status = -1;
	int rc = run(&d, err);
	drill_clear(&d);
	return rc;
}

void drill_result_clear(struct drill_result *r)
{
	restore_result_clear(&r->restore);
	free(r->object);
	free(r->at);
	for (size_t i = 0; i < r->check_count; i++) {
		free(r->checks[i].store);
		free(r->checks[i].check);
		free(r->checks[i].text);
	}
	for (size_t i = 0; i < r->finding_count; i++)
		free(r->findings[i]);
	free(r->checks);
	free(r->findings);
}
