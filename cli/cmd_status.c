/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault status: is this node protected, at a glance and by exit code. Every finding that is not
 * green says what to do. It reads the newest snapshot, the vault's object list and the local state.
 */
#include "backup/backup.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/output.h"
#include "cli/status.h"
#include "vault/snapshot.h"
#include "vault/state.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SPACE_MIN_BYTES (UINT64_C(64) << 20)
#define LOGGED_MAX_AGE_MS (INT64_C(24) * 3600 * 1000)

static const enum option_id options[] = { OPTION_END };

static const char help[] =
    "imvault status: is this node protected? Exit 0: yes. 3: no, and it says why.\n"
    "\n"
    "  imvault [-c FILE] status\n"
    "  imvault status --vault URL --key FILE --node NAME     from another machine\n"
    "\n"
    "Shows the last snapshot, each store, and how far the log is behind its source\n"
    "against rpo (without a log: the snapshot's age); the vault's size, free space,\n"
    "whether vault and local state agree, and the last verify.\n"
    "Exit 4: the vault cannot be reached. Exit 7: there is no snapshot yet.\n"
    "\n"
    "Example:\n"
    "  imvault status --quiet || echo \"im-01 is not protected\" | mail -s backup root\n";

void status_red(struct verdict *v, const char *format, ...)
{
	char text[600];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	v->red++;
	output_item(v->cli->json, "problems", text);
	output_problem("%s", text);
}

static void show_age(struct verdict *v, const struct snapshot *s)
{
	char time[IM_INSTANT_BYTES], age[40], rpo[40];
	v->age_ms = v->now_ms - s->time_ms;
	v->rpo_ms = v->cli->config ? v->cli->config->rpo_ms : json_integer_value(json_object_get(s->record.meta, "rpo_ms"));
	output_text(v->cli->json, "snapshot", strrchr(s->object, '/') + 1);
	output_integer(v->cli->json, "seq", (int64_t)s->seq);
	output_instant(v->cli->json, "time", s->time_ms);
	output_integer(v->cli->json, "age_ms", v->age_ms);
	output_integer(v->cli->json, "rto_ms", json_integer_value(json_object_get(s->record.meta, "rto_ms")));
	if (v->rpo_ms)
		output_integer(v->cli->json, "rpo_ms", v->rpo_ms);
	im_duration_format(age, sizeof age, v->age_ms);
	im_duration_format(rpo, sizeof rpo, v->rpo_ms);
	output_line(v->cli, "last snapshot  %" PRIu64 " at %s, %s old%s%s", s->seq, im_instant_format(time, s->time_ms), age,
	    v->rpo_ms ? "; rpo " : "", v->rpo_ms ? rpo : "");
}

/* Where a log is shipped, the snapshot may be older than rpo: it is what the rest stands on. But not for ever. */
static void judge_age(struct verdict *v)
{
	char age[40], rpo[40];
	int64_t limit_ms = v->logged && v->rpo_ms < LOGGED_MAX_AGE_MS ? LOGGED_MAX_AGE_MS : v->rpo_ms;
	if (!v->rpo_ms || v->age_ms <= limit_ms)
		return;
	im_duration_format(age, sizeof age, v->age_ms);
	im_duration_format(rpo, sizeof rpo, v->rpo_ms);
	status_red(v, "the last snapshot of %s is %s old, older than %s%s: is the timer running? Run imvault backup", v->node, age,
	    v->logged ? "a day" : "rpo = ", v->logged ? "" : rpo);
}

static json_t *judge_store(struct verdict *v, const char *name, const json_t *meta)
{
	const char *status = json_string_value(json_object_get(meta, "status"));
	const char *error = json_string_value(json_object_get(meta, "error"));
	const char *instant = json_string_value(json_object_get(meta, "instant"));
	bool partial = json_is_true(json_object_get(meta, "partial"));
	char size[24];
	json_t *row = output_row(v->cli->json, "stores");
	output_text(row, "name", name);
	output_text(row, "status", meta ? status : "missing");
	output_text(row, "error", error);
	output_text(row, "instant", instant);
	output_integer(row, "bytes", json_integer_value(json_object_get(meta, "bytes")));
	output_line(v->cli, "store          %-14s %-8s %9s%s", name, meta && status ? status : "missing",
	    im_bytes_format(size, sizeof size, (uint64_t)json_integer_value(json_object_get(meta, "bytes"))),
	    partial ? "  incomplete" : "");
	if (!meta)
		status_red(v, "store %s is in the configuration but not in the last snapshot: run imvault backup", name);
	else if (!status || strcmp(status, "ok") != 0)
		status_red(v, "store %s failed in the last snapshot: %s", name, error ? error : "no reason recorded");
	else if (partial)
		status_red(v, "store %s is incomplete in the last snapshot: run imvault backup on a terminal and see what it says", name);
	return row;
}

static void judge_stores(struct verdict *v, const struct snapshot *s)
{
	const struct im_config *c = v->cli->config;
	size_t i;
	json_t *meta;
	output_array(v->cli->json, "stores");
	for (size_t n = 0; c && n < c->store_count; n++)
		status_judge_log(v, &c->stores[n], judge_store(v, c->stores[n].name, snapshot_store_meta(s, c->stores[n].name)));
	json_array_foreach(json_object_get(s->record.meta, "stores"), i, meta) {
		const char *name = json_string_value(json_object_get(meta, "name"));
		if (name && !(c && im_config_find_store(c, name)))
			judge_store(v, name, meta);
	}
}

static int add_size(void *context, const char *name, uint64_t size_bytes)
{
	(void)name;
	uint64_t *sum = context;
	sum[0] += size_bytes;
	sum[1]++;
	return 0;
}

static int judge_vault(struct verdict *v, const struct snapshot *newest, struct im_error *err)
{
	struct storage *s = v->cli->vault->storage;
	uint64_t sum[2] = { 0 }, free_bytes = 0;
	char size[24], space[24] = "unknown";
	int rc = storage_list(s, "", add_size, sum, err);
	if (rc)
		return rc;
	output_text(v->cli->json, "vault", s->url);
	output_integer(v->cli->json, "vault_bytes", (int64_t)sum[0]);
	output_integer(v->cli->json, "vault_objects", (int64_t)sum[1]);
	uint64_t wanted = newest ? 3 * (uint64_t)json_integer_value(json_object_get(newest->record.meta, "bytes_stored")) : 0;
	wanted = wanted > SPACE_MIN_BYTES ? wanted : SPACE_MIN_BYTES;
	if (s->ops->space && s->ops->space(s, &free_bytes, NULL) == 0) {
		output_integer(v->cli->json, "vault_free_bytes", (int64_t)free_bytes);
		im_bytes_format(space, sizeof space, free_bytes);
		if (free_bytes < wanted)
			status_red(v, "the vault has only %s left: make room before the next backup fails", space);
	}
	output_line(v->cli, "vault          %s: %s in %" PRIu64 " objects, %s free", s->url, im_bytes_format(size, sizeof size, sum[0]),
	    sum[1], space);
	return 0;
}

/* The local state is a second witness of what this node wrote. */
static void judge_state(struct verdict *v, const char *folder, const struct snapshot_list *list)
{
	auto_free char *file = im_format("%s/%s.ids.db", folder, v->node);
	struct state *state = NULL;
	struct state_head head;
	struct im_error why = { 0 };
	if (!file || access(file, R_OK)) {
		output_line(v->cli, "local state    none here: %s", folder);
		return;
	}
	if (state_open(folder, v->cli->vault->id, v->node, &state, &why)) {
		output_note(v->cli, "%s", why.text);
		return;
	}
	bool known = state_head(state, &head), found = !known;
	state_close(state);
	for (size_t i = 0; i < list->count && !found; i++) {
		char hex[65];
		found = list->items[i].seq == head.seq && strncmp(im_hex(hex, head.hash, 32), list->items[i].hash_prefix, 16) == 0;
	}
	output_boolean(v->cli->json, "state_agrees", found);
	if (!found)
		status_red(v, "the vault lacks snapshot %" PRIu64 ", which this node wrote: it was rolled back or snapshots were removed; run "
		    "imvault backup and find out who did it", head.seq);
	else if (known)
		output_line(v->cli, "local state    agrees with the vault up to snapshot %" PRIu64, head.seq);
}

static void show_verify(struct verdict *v, const char *folder)
{
	auto_free char *file = im_path_join(folder, "verify-cursor");
	struct stat st;
	char age[40];
	if (!file || stat(file, &st)) {
		output_line(v->cli, "verify         no part of the vault was read back from here yet: imvault verify --read=10");
		return;
	}
	int64_t age_ms = v->now_ms - (int64_t)st.st_mtim.tv_sec * 1000;
	output_integer(v->cli->json, "verify_age_ms", age_ms);
	output_line(v->cli, "verify         a share of the vault was read %s ago", im_duration_format(age, sizeof age, age_ms));
}

static int judge(struct verdict *v, const struct snapshot_list *list, struct im_error *err)
{
	struct cli *cli = v->cli;
	struct snapshot *newest = NULL;
	auto_free char *folder = NULL;
	struct im_error why = { 0 };
	for (size_t i = list->count; i-- > 0 && !newest;)
		if (snapshot_read(cli->vault->storage, cli->vault->keyring, &list->items[i], &newest, &why)) {
			status_red(v, "snapshot %s cannot be read: %s; run imvault verify", list->items[i].object, why.text);
			im_error_clear(&why);
		}
	bool has_folder = backup_state_folder(cli->config, cli->vault->id, &folder, NULL) == 0;
	if (has_folder)
		follow_state_load(folder, v->node, &v->follow, NULL);
	if (newest) {
		show_age(v, newest);
		judge_stores(v, newest);
		judge_age(v);
	}
	follow_state_clear(&v->follow);
	int rc = judge_vault(v, newest, err);
	snapshot_free(newest);
	if (rc == 0 && has_folder) {
		judge_state(v, folder, list);
		show_verify(v, folder);
	}
	return rc;
}

/* On a machine that is just being rebuilt there may be no configuration, and nothing to judge but that. */
static int judge_restores_only(struct verdict *v, struct im_error *err)
{
	struct cli *cli = v->cli;
	if (session_url(cli) || !v->restoring)
		return 0;
	output_boolean(cli->json, "green", false);
	cli->error_shown = v->red > 0;
	return im_fail(err, IM_EPARTIAL, "an instant restore is not complete");
}

static int judge_node(struct verdict *v, struct im_error *err)
{
	struct cli *cli = v->cli;
	struct snapshot_list list = { 0 };
	int rc = session_open(cli, SESSION_ANY_KEY, err);
	if (rc)
		return rc;
	v->node = session_node(cli);
	if (!v->node)
		return im_fail(err, IM_EUSAGE, "status: which node? Give --node NAME");
	rc = snapshot_list(cli->vault->storage, v->node, &list, err);
	if (rc == 0)
		rc = judge(v, &list, err);
	size_t count = list.count;
	snapshot_list_clear(&list);
	return rc == 0 && !count ? im_fail(err, IM_ENOTFOUND, "node %s has no snapshot yet: run imvault backup", v->node) : rc;
}

static int run(struct cli *cli, struct im_error *err)
{
	struct verdict v = { .cli = cli, .now_ms = im_now_ms() };
	output_array(cli->json, "problems");
	int rc = session_config(cli, false, err);
	if (rc == 0)
		status_judge_restores(&v);
	if (rc == 0)
		rc = judge_restores_only(&v, err);
	if (rc == 0)
		rc = judge_node(&v, err);
	if (rc == 0 && (v.red || v.restoring)) {
		rc = im_fail(err, IM_EPARTIAL, "node %s is not fully protected: %zu problem%s", v.node, v.red, v.red == 1 ? "" : "s");
		cli->error_shown = v.red > 0;
	}
	output_boolean(cli->json, "green", rc == 0);
	if (rc == 0)
		output_line(cli, "GREEN          node %s is protected", v.node);
	return rc;
}

const struct command cmd_status = { "status", "is this node protected?", help, options, 0, run };
