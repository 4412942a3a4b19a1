/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault runbook: the emergency page of a node. Facts are those of `status`; what people have to be
 * told comes from the node's configuration: the file, or the copy that the newest snapshot carries.
 */
#include "verify/runbook.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/output.h"
#include "cli/status_facts.h"

#include <stdio.h>
#include <string.h>

static const enum option_id options[] = { OPTION_OUTPUT, OPTION_HTML, OPTION_END };

static const char help[] =
    "imvault runbook: the emergency page of this node, to be printed.\n"
    "\n"
    "  imvault [-c FILE] runbook [-o FILE|-] [--html]\n"
    "  imvault runbook --vault URL --key FILE [--node NAME] [-o FILE|-] [--html]\n"
    "\n"
    "Who to call, where the vault is, which key and passphrase are needed (never the\n"
    "secrets), and the exact commands for a lost machine, a damaged database,\n"
    "something deleted by mistake, a damaged vault and a lost key, each with its\n"
    "forecast and when it last worked in a drill. People, places and the commands\n"
    "that stop and start the server come from [runbook] in imvault.conf; what is not\n"
    "there is a gap to fill in by hand.\n"
    "  -o, --output FILE|-   default imvault-runbook-NODE.md; - is standard output\n"
    "  --html                HTML instead of Markdown; also if FILE ends with .html\n"
    "Any key will do on the node. Without its configuration it takes the restore key:\n"
    "the newest snapshot carries a copy.\n"
    "\n"
    "Examples:\n"
    "  imvault runbook -o im-01.html\n"
    "  imvault runbook --vault /mnt/im --key restore.key --node im-01\n";

struct making {
	struct cli *cli;
	const char *node;
	struct im_config *own;         /* out of the snapshot; NULL: the file is used */
	const struct im_config *config;
	struct status_facts facts;
	struct runbook_store *stores;
	size_t store_count;
	struct runbook *book;
};

/* --- the node's configuration --- */

/* A drill host has a configuration of its own, with the node's name and a restore key. */
static bool is_of_node(const struct cli *cli, const char *node)
{
	const struct im_config *c = cli->config;
	return c && strcmp(c->node_name, node) == 0 && (cli->options.key || cli->vault->key->role == KEY_NODE);
}

static int take_config(struct making *m, struct im_error *err)
{
	const struct snapshot *s = m->facts.newest;
	if (m->facts.cli->config) {
		m->config = m->facts.cli->config;
		return 0;
	}
	if (!s->record.private_part)
		return im_fail(err, IM_EUSAGE, "runbook: a node key cannot read the configuration that the snapshots carry; give the node's file with -c FILE, "
		    "or the restore key with --key FILE");
	const char *text = json_string_value(json_object_get(s->record.private_part, "config"));
	if (!text)
		return im_fail(err, IM_ENOTFOUND, "runbook: %s carries no configuration; give the node's file with -c FILE", s->object);
	int rc = im_config_parse(text, s->object, &m->own, err);
	m->config = m->own;
	return rc;
}

/* --- facts --- */

static void forecast_store(const struct making *m, json_t *meta, struct runbook_store *ret)
{
	const struct status_facts *f = &m->facts;
	struct snapshot one = *f->newest;
	struct forecast_sizes sizes;
	one.record.meta = json_pack("{s:[O]}", "stores", meta);
	if (!one.record.meta)
		return;
	forecast_sizes_of_snapshot(&one, &sizes);
	sizes.service = m->config->runbook_start != NULL;
	ret->has_forecast = f->has_forecast && forecast_sizes_add_logs(m->cli->vault, &one, FORECAST_NOW, &sizes, NULL) == 0;
	if (ret->has_forecast)
		forecast_make(FORECAST_FULL, &sizes, &f->forecast.machine, &f->drills, &ret->full);
	json_decref(one.record.meta);
}

static void take_store(struct making *m, const struct status_store *s)
{
	json_t *meta = snapshot_store_meta(m->facts.newest, s->name);
	const char *type = json_string_value(json_object_get(meta, "type")), *path = json_string_value(json_object_get(meta, "path"));
	const char *status = json_string_value(json_object_get(meta, "status"));
	json_int_t bytes = json_integer_value(json_object_get(meta, "bytes"));
	if (!type || !path || *path != '/')
		return;
	struct runbook_store *ret = &m->stores[m->store_count++];
	*ret = (struct runbook_store){ .name = s->name, .type = type, .path = path, .bytes = bytes > 0 ? (uint64_t)bytes : 0, .has_window = s->has_window,
		.failed = status && strcmp(status, "ok") != 0, .logged = s->logged, .from_ms = s->from_ms, .to_ms = s->to_ms };
	forecast_store(m, meta, ret);
}

static uint64_t older_of(const struct status_facts *f)
{
	uint64_t ret = 0;
	for (size_t i = 0; i < f->list.count; i++)
		if (f->list.items[i].seq < f->newest->seq)
			ret = f->list.items[i].seq;
	return ret ? ret : f->newest->seq;
}

static int gather(struct making *m, struct cli *view, struct im_error *err)
{
	int rc = status_facts_gather(view, m->node, &m->facts, err);
	if (rc == 0 && !m->facts.newest)
		rc = im_fail(err, IM_ENOTFOUND, m->facts.list.count ? "runbook: no snapshot of node %s can be read; imvault list says why"
		                                                    : "runbook: node %s has no snapshot yet: run imvault backup", m->node);
	if (rc == 0)
		rc = take_config(m, err);
	if (rc)
		return rc;
	m->stores = calloc(m->facts.store_count + 1, sizeof *m->stores);
	if (!m->stores)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < m->facts.store_count; i++)
		take_store(m, &m->facts.stores[i]);
	return 0;
}

static char *whole_path(const char *url)
{
	const char *path = strncmp(url, "file://", 7) == 0 ? url + 7 : url;
	char *ret = realpath(path, NULL);
	return ret ? ret : strdup(path);
}

/* The page's commands name a configuration only where it is not the usual one. */
static char *config_path(const struct making *m)
{
	const char *path = m->own ? NULL : m->cli->options.config;
	char *whole = path ? whole_path(path) : NULL;
	if (whole && strcmp(whole, OPTIONS_DEFAULT_CONFIG) == 0) {
		free(whole);
		return NULL;
	}
	return whole;
}

static int make(struct making *m, struct im_error *err)
{
	const struct status_facts *f = &m->facts;
	auto_free char *url = whole_path(session_url(m->cli)), *config = config_path(m);
	if (!url)
		return im_fail(err, IM_ENOMEM, "out of memory");
	const struct runbook_facts facts = { .vault = m->cli->vault, .node = m->node, .url = url, .config_path = config, .config = m->config,
		.config_is_vaults = m->own != NULL, .now_ms = f->now_ms, .rto_ms = f->rto_ms, .rpo_ms = f->rpo_ms, .newest = f->newest,
		.older_seq = older_of(f), .drills = &f->drills, .verified = &f->verify_log, .forecast = f->has_forecast ? &f->forecast : NULL, .stores = m->stores,
		.store_count = m->store_count };
	return runbook_make(&facts, &m->book, err);
}

/* --- the answer --- */

static void tell(const struct making *m, const char *path)
{
	json_t *json = m->cli->json;
	output_text(json, "node", m->node);
	output_text(json, "output", path);
	output_array(json, "scenarios");
	for (size_t i = 0; i < runbook_scenario_count(m->book); i++) {
		const struct runbook_scenario *s = runbook_scenario_at(m->book, i);
		json_t *row = output_row(json, "scenarios");
		output_text(row, "name", s->name);
		output_text(row, "store", s->store);
		if (s->has_forecast) {
			output_integer(row, "forecast_p50_ms", s->forecast.ready_p50_ms);
			output_integer(row, "forecast_p95_ms", s->forecast.ready_p95_ms);
		} else {
			json_object_set_new(row, "forecast_p50_ms", json_null());
			json_object_set_new(row, "forecast_p95_ms", json_null());
		}
		if (s->worked)
			output_instant(row, "last_worked", s->worked->time_ms);
		else
			json_object_set_new(row, "last_worked", json_null());
		if (s->failed)
			output_instant(row, "last_failed", s->failed->time_ms);
	}
	output_array(json, "gaps");
	for (size_t i = 0; i < runbook_gap_count(m->book); i++) {
		output_item(json, "gaps", runbook_gap(m->book, i));
		output_note(m->cli, "%s", runbook_gap(m->book, i));
	}
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), len = strlen(end);
	return n >= len && strcmp(text + n - len, end) == 0;
}

/* It holds no secret, and is of use only if people can read it. */
static int put_page(struct making *m, struct im_error *err)
{
	const struct options *o = &m->cli->options;
	bool html = o->html || (o->output && (ends_with(o->output, ".html") || ends_with(o->output, ".htm")));
	auto_buf struct im_buf page = { 0 };
	auto_free char *path = o->output ? strdup(o->output) : im_format("imvault-runbook-%s.%s", m->node, html ? "html" : "md");
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = html ? runbook_html(m->book, &page, err) : runbook_markdown(m->book, &page, err);
	if (rc == 0 && strcmp(path, "-") == 0)
		rc = im_write_full(STDOUT_FILENO, page.data, page.len, err, "standard output");
	else if (rc == 0)
		rc = im_file_write(path, page.data, page.len, 0644, IM_FILE_REPLACE, err);
	if (rc)
		return rc;
	if (strcmp(path, "-") != 0)
		output_line(m->cli, "%s", path);
	tell(m, path);
	return 0;
}

static void clear(struct making *m)
{
	runbook_free(m->book);
	free(m->stores);
	im_config_free(m->own);
	status_facts_clear(&m->facts);
}

static int run(struct cli *cli, struct im_error *err)
{
	struct making m = { .cli = cli };
	struct session_only only = { .count = 0 };
	if (cli->options.json && cli->options.output && strcmp(cli->options.output, "-") == 0)
		return im_fail(err, IM_EUSAGE, "runbook: --json needs --output FILE, since the page would take standard output");
	int rc = session_open(cli, SESSION_ANY_KEY, err);
	if (rc == 0)
		rc = session_choose_node(cli, &only, &m.node, err);
	if (rc)
		return rc;
	struct cli view = *cli; /* without a configuration that is not this node's */
	if (!is_of_node(cli, m.node))
		view.config = NULL;
	rc = gather(&m, &view, err);
	if (rc == 0)
		rc = make(&m, err);
	if (rc == 0)
		rc = put_page(&m, err);
	clear(&m);
	return rc;
}

const struct command cmd_runbook = { "runbook", "the emergency page of a node", help, options, 0, run };
