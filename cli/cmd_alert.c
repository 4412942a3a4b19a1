/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault alert: which ways alerts go, what is open, and a try of each way before the day it is needed.
 */
#include "cli/alert_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/output.h"

#include <stdio.h>
#include <string.h>

static const enum option_id options[] = { OPTION_TEST, OPTION_END };

static const char help[] =
    "imvault alert: which ways alerts go, and what has been said and is not over.\n"
    "\n"
    "  imvault [-c FILE] alert [--test]\n"
    "\n"
    "  --test      sends an alert of kind \"test\" each way and says which arrived.\n"
    "              Exit 3: one way failed. Do this before the day it is needed.\n"
    "\n"
    "Section [alert] of imvault.conf(5) names a command, a webhook, mail, or several.\n"
    "backup, follow, verify, drill, status and restore then tell when they did not\n"
    "end well: once, again after `repeat` (4 h), and once when it is over.\n"
    "\n"
    "Example:\n"
    "  imvault alert --test\n";

/* --- what is open --- */

static void show_row(const struct cli *cli, const json_t *row)
{
	int64_t sent_ms = json_integer_value(json_object_get(row, "sent_ms"));
	char since[IM_INSTANT_BYTES], sent[IM_INSTANT_BYTES];
	const char *severity = json_string_value(json_object_get(row, "severity")), *text = json_string_value(json_object_get(row, "text"));
	json_t *open = output_row(cli->json, "open");
	output_text(open, "kind", json_string_value(json_object_get(row, "kind")));
	output_text(open, "severity", severity);
	output_text(open, "store", json_string_value(json_object_get(row, "store")));
	output_text(open, "command", json_string_value(json_object_get(row, "command")));
	output_text(open, "text", text);
	output_instant(open, "since", json_integer_value(json_object_get(row, "since_ms")));
	if (sent_ms)
		output_instant(open, "sent", sent_ms);
	output_line(cli, "open        since %s, %s%s: %s", im_instant_format(since, json_integer_value(json_object_get(row, "since_ms"))),
	    sent_ms ? "said " : "NOT HEARD YET", sent_ms ? im_instant_format(sent, sent_ms) : "", text ? text : "");
}

static int show_open(const struct cli *cli, const struct alert_origin *o, struct im_error *err)
{
	struct alert_memory *m = NULL;
	const json_t *row;
	size_t i;
	int rc = alert_memory_open(o, &m, err);
	if (rc)
		return rc;
	output_array(cli->json, "open");
	json_array_foreach(alert_memory_rows(m), i, row)
		show_row(cli, row);
	if (!json_array_size(alert_memory_rows(m)))
		output_line(cli, "open        nothing");
	return alert_memory_close(m, err);
}

static void show_way(const struct cli *cli, const char *name, const char *target)
{
	json_t *row = output_row(cli->json, "ways");
	output_text(row, "name", name);
	output_text(row, "target", target);
	output_line(cli, "%-11s %s", name, target);
}

static void show_ping(const struct cli *cli, const char *command)
{
	const char *url = alert_ping_url(cli->config, command);
	auto_free char *host = url ? alert_curl_host(url) : NULL, *name = im_format("ping_%s", command);
	if (host && name)
		show_way(cli, name, host);
}

static void show_ways(const struct cli *cli)
{
	char repeat[40];
	output_array(cli->json, "ways");
	for (size_t i = 0; i < ALERT_WAY_COUNT; i++) {
		const struct alert_way *w = &alert_ways[i];
		auto_free char *target = w->is_set(cli->config) ? w->target(cli->config) : NULL;
		if (target)
			show_way(cli, w->name, target);
	}
	show_ping(cli, "backup");
	show_ping(cli, "verify");
	show_ping(cli, "drill");
	output_integer(cli->json, "repeat_ms", cli->config->alert_repeat_ms);
	output_line(cli, "repeat      %s", im_duration_format(repeat, sizeof repeat, cli->config->alert_repeat_ms));
}

/* --- the test --- */

static bool try_way(const struct cli *cli, const struct alert_origin *o, const struct alert_way *w, const struct alert *a)
{
	struct im_error why = { 0 };
	auto_free char *target = w->target(cli->config);
	json_t *row = output_row(cli->json, "ways");
	int rc = w->send(o, a, &why);
	output_text(row, "name", w->name);
	output_text(row, "target", target);
	output_boolean(row, "delivered", rc == 0);
	output_text(row, "error", rc ? why.text : NULL);
	if (rc == 0)
		output_line(cli, "%-11s delivered: %s", w->name, target ? target : "");
	else
		output_problem("%s: not delivered: %s", w->name, why.text);
	return rc == 0;
}

static int try_all(const struct cli *cli, const struct alert_origin *o, struct im_error *err)
{
	struct alert_list l = { 0 };
	size_t tried = 0, delivered = 0;
	const struct alert *a = alert_add(&l, ALERT_TEST, ALERT_WARNING, "", "this is a test of imvault's alerts; all is well");
	if (!a)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < ALERT_WAY_COUNT; i++)
		if (alert_ways[i].is_set(cli->config)) {
			tried++;
			delivered += try_way(cli, o, &alert_ways[i], a);
		}
	alert_list_clear(&l);
	return delivered == tried ? 0 : im_fail(err, IM_EPARTIAL, "%zu of %zu ways delivered the test", delivered, tried);
}

static int run(struct cli *cli, struct im_error *err)
{
	int rc = session_config(cli, true, err);
	if (rc)
		return rc;
	const struct alert_origin origin = { .config = cli->config, .config_path = cli->options.config, .node = session_node(cli),
		.vault = session_url(cli), .command = cli->command };
	if (!im_name_valid(origin.node))
		return im_fail(err, IM_EUSAGE, "\"%s\" is not a node name", origin.node);
	if (!alert_is_configured(cli->config))
		return im_fail(err, IM_EUSAGE, "the configuration has no section [alert] with command =, webhook = or mail =, so nobody is told anything");
	output_text(cli->json, "node", origin.node);
	if (cli->options.test)
		return try_all(cli, &origin, err);
	show_ways(cli);
	return show_open(cli, &origin, err);
}

const struct command cmd_alert = { "alert", "where alerts go; try them", help, options, 0, run };
