/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault backup: made for cron. Silent when all is well and nobody watches; one line per problem
 * on stderr in any case.
 */
#include "backup/backup.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/outlook.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const enum option_id options[] = { OPTION_FULL, OPTION_END };

static const char help[] =
    "imvault backup: take one incremental snapshot of this node.\n"
    "\n"
    "  imvault [-c FILE] backup [STORE...] [--full]\n"
    "\n"
    "  STORE...    read only these stores; the others keep their last image\n"
    "  --full      read everything, believe no memory of the last run\n"
    "\n"
    "Made for cron: silent on success without a terminal, one line per problem,\n"
    "never two at once (the second exits 9). It can be interrupted or killed at any\n"
    "time and simply run again. A store that fails does not stop the others (exit 3).\n"
    "Live databases are read without locks that could make the server lose messages.\n"
    "\n"
    "Examples:\n"
    "  imvault backup                  every store of /etc/imvault/imvault.conf\n"
    "  imvault -c im.conf backup archive\n"
    "  */15 * * * * root imvault backup       in /etc/cron.d/imvault\n";


static void on_warn(void *context, const char *store, const char *text)
{
	(void)context;
	if (store)
		output_problem("store %s: %s", store, text);
	else
		output_problem("%s", text);
}

static void on_progress(void *context, const char *store, uint64_t done, uint64_t total)
{
	(void)context;
	progress_label(store);
	progress_update(done, total);
}

static void store_json(json_t *row, const struct backup_store *s)
{
	output_text(row, "name", s->name);
	output_text(row, "type", s->type);
	output_text(row, "path", s->path);
	output_text(row, "status", s->status);
	output_text(row, "error", s->error);
	output_integer(row, "bytes", (int64_t)s->bytes);
	output_integer(row, "bytes_read", (int64_t)s->bytes_read);
	output_integer(row, "bytes_changed", (int64_t)s->bytes_changed);
	if (!s->error)
		output_instant(row, "instant", s->instant_ms);
	if (s->pause_us >= 0) {
		output_integer(row, "pause_us", s->pause_us);
		output_integer(row, "pause_ms", (s->pause_us + 999) / 1000);
	}
	output_boolean(row, "partial", s->partial);
	output_boolean(row, "carried", s->carried);
}

static void result_json(json_t *j, const struct backup_result *r)
{
	output_text(j, "node", r->node);
	output_text(j, "snapshot", r->snapshot);
	if (r->snapshot) {
		output_integer(j, "seq", (int64_t)r->seq);
		output_instant(j, "instant", r->instant_ms);
	}
	output_integer(j, "bytes", (int64_t)r->bytes);
	output_integer(j, "bytes_read", (int64_t)r->bytes_read);
	output_integer(j, "bytes_changed", (int64_t)r->bytes_changed);
	output_integer(j, "bytes_stored", (int64_t)r->bytes_stored);
	output_integer(j, "duration_ms", r->duration_ms);
	output_array(j, "stores");
	for (size_t i = 0; i < r->store_count; i++)
		store_json(output_row(j, "stores"), &r->stores[i]);
}

static void store_line(const struct cli *cli, const struct backup_store *s)
{
	char size[24], read[24], changed[24], pause[40] = "";
	im_bytes_format(size, sizeof size, s->bytes);
	im_bytes_format(read, sizeof read, s->bytes_read);
	im_bytes_format(changed, sizeof changed, s->bytes_changed);
	if (s->pause_us >= 0)
		snprintf(pause, sizeof pause, "  server paused %.1f ms", (double)s->pause_us / 1000);
	if (s->code)
		output_line(cli, "  %-14s %-7s FAILED", s->name, s->type);
	else if (s->carried)
		output_line(cli, "  %-14s %-7s %8s  not read; its last image was kept", s->name, s->type, size);
	else
		output_line(cli, "  %-14s %-7s %8s  read %8s  changed %8s%s%s", s->name, s->type, size, read, changed, pause,
		    s->partial ? "  INCOMPLETE" : "");
}

static void say(const struct cli *cli, const struct backup_result *r)
{
	char read[24], changed[24], stored[24], took[40];
	if (!isatty(STDOUT_FILENO) || !r->snapshot)
		return;
	output_line(cli, "snapshot %" PRIu64 " of %s in %s: read %s, changed %s, stored %s", r->seq, r->node,
	    im_duration_format(took, sizeof took, r->duration_ms), im_bytes_format(read, sizeof read, r->bytes_read),
	    im_bytes_format(changed, sizeof changed, r->bytes_changed), im_bytes_format(stored, sizeof stored, r->bytes_stored));
	for (size_t i = 0; i < r->store_count; i++)
		store_line(cli, &r->stores[i]);
}

/* A restore without the server's keys and configuration is no restore. */
static void hint_at_missing_config(const struct cli *cli)
{
	const struct im_config *c = cli->config;
	bool prosody = false;
	if (!isatty(STDOUT_FILENO))
		return;
	for (size_t i = 0; i < c->store_count; i++) {
		const struct im_config_store *s = &c->stores[i];
		prosody |= strcmp(s->type, "sqlite") == 0 && strncmp(s->path, "/var/lib/prosody/", 17) == 0;
		if (strcmp(s->type, "files") == 0 && (strcmp(s->path, "/etc") == 0 || strcmp(s->path, "/") == 0 ||
		    strncmp(s->path, "/etc/prosody", 12) == 0))
			return;
	}
	if (prosody)
		output_note(cli, "hint: no store holds /etc/prosody (configuration and certificates); add [store config] with "
		    "type = files and path = /etc/prosody, or the restored server cannot start");
}

/* True if every problem has had its own line already. */
static bool all_said(int rc, const struct backup_result *r)
{
	bool store_failed = false, partial = false;
	for (size_t i = 0; i < r->store_count; i++) {
		store_failed |= r->stores[i].code != 0;
		partial |= r->stores[i].partial;
	}
	return rc == IM_EPARTIAL ? store_failed || partial : rc != IM_ECORRUPT && !r->snapshot && store_failed &&
	    rc != IM_EINTERRUPTED && rc != IM_EUNREACHABLE && rc != IM_ENOSPACE;
}

/* Nobody is asked a second time for what opens the key. */
static char *ask_nobody(void *context, const char *path)
{
	return ((const struct cli *)context)->options.passphrase_file ? session_ask(context, path) : NULL;
}

static int forecast_newest(const struct cli *cli, const char *node, struct forecast_node *ret)
{
	const struct vault *v = cli->vault;
	struct snapshot *s = NULL;
	struct drill_list history;
	int rc = drills_read(v, node, &history, NULL);
	if (rc)
		return rc;
	rc = snapshot_choose(v->storage, v->keyring, node, "latest", NULL, NULL, &s, NULL);
	if (rc == 0)
		rc = forecast_of_node(v, s, FORECAST_NOW, &history, forecast_target_of(s), cli->config->drill_exec != NULL, ret, NULL);
	snapshot_free(s);
	drill_list_clear(&history);
	return rc;
}

/* How long it would take to get this back. The snapshot is safe: what fails here is not the backup's business. */
static void tell_forecast(struct cli *cli, const struct backup_result *r)
{
	struct forecast_node f;
	char text[240], ground[120];
	int64_t rto_ms = cli->config->rto_ms;
	if (!r->snapshot || cli->options.quiet || (!cli->options.json && !isatty(STDOUT_FILENO)) ||
	    vault_open(session_url(cli), session_key(cli), ask_nobody, cli, 0, &cli->vault, NULL) || forecast_newest(cli, r->node, &f))
		return;
	outlook_json(cli->json, &f);
	output_integer(cli->json, "rto_ms", rto_ms);
	output_line(cli, "a recovery would now take %s", outlook_text(text, sizeof text, &f, rto_ms));
	output_line(cli, "  %s", outlook_ground(ground, sizeof ground, &f.full));
	if (outlook_warning(&f.full, rto_ms))
		output_problem("warning: %s; restore --instant %s", outlook_warning(&f.full, rto_ms), outlook_warning(&f.instant, rto_ms) ? "too" : "would not");
}

static int run(struct cli *cli, struct im_error *err)
{
	struct options *o = &cli->options;
	struct backup_result result;
	const struct backup_events events = { on_warn, on_progress, cli };
	int rc = session_config(cli, true, err);
	if (rc)
		return rc;
	struct backup_request request = {
		.config = cli->config, .vault_url = o->vault, .key_path = o->key, .node = o->node, .full = o->full,
		.ask = session_ask, .ask_context = cli, .events = &events,
		.stores = o->operand_count ? (const char *const *)o->operands : NULL, /* argv ends with NULL */
	};
	progress_begin(!o->quiet, 0);
	rc = backup_run(&request, &result, err);
	progress_hide();
	result_json(cli->json, &result);
	say(cli, &result);
	tell_forecast(cli, &result);
	if (rc == 0 && !o->json)
		hint_at_missing_config(cli);
	cli->error_shown = rc && all_said(rc, &result);
	backup_result_clear(&result);
	return rc;
}

const struct command cmd_backup = { "backup", "take one snapshot", help, options, -1, run };
