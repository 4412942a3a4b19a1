/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault report: one HTML page that shows whether a node's recovery targets are proven. The page is
 * written whatever it says; the exit code tells whether the evidence in the vault could be believed.
 */
#include "verify/report.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "cli/output.h"
#include "cli/runs.h"

#include <stdio.h>
#include <string.h>

static const enum option_id options[] = { OPTION_OUTPUT, OPTION_LANG, OPTION_END };

static const char help[] =
    "imvault report: one HTML page that proves the recovery targets, or does not.\n"
    "\n"
    "  imvault [-c FILE] report [-o FILE|-] [--lang en|zh]\n"
    "  imvault report --vault URL --key FILE [--node NAME] [-o FILE|-]\n"
    "\n"
    "Shows the verdict; recovery time and data loss of each drill and real restore\n"
    "against the targets; where the time went; the forecast and how good it was;\n"
    "what can be restored; growth; incidents; and the evidence for auditors, with\n"
    "hashes and signatures. The page loads nothing and needs no script.\n"
    "  -o, --output FILE|-   default imvault-report-NODE.html; - is standard output\n"
    "  --lang en|zh          its language\n"
    "With the node key what the drills' checks said cannot be read; with the restore\n"
    "key it is in the page, which is therefore readable by its owner only.\n"
    "Exit 0: written, whatever the verdict. 6: written, but records or snapshots\n"
    "are missing, damaged or cannot be trusted; the page says which.\n"
    "\n"
    "Examples:\n"
    "  imvault report --key /media/usb/restore.key -o im-01.html\n"
    "  imvault report --json | jq -r '.verdict'\n";

static int parse_lang(const struct cli *cli, enum report_lang *ret, struct im_error *err)
{
	const char *lang = cli->options.lang;
	*ret = lang && strcmp(lang, "zh") == 0 ? REPORT_ZH : REPORT_EN;
	if (!lang || strcmp(lang, "zh") == 0 || strcmp(lang, "en") == 0)
		return 0;
	return im_fail(err, IM_EUSAGE, "report: --lang %s is neither en nor zh", lang);
}

static void tell_share(json_t *json, const char *name, struct report_share share)
{
	json_t *row = json_object();
	output_integer(row, "met", (int64_t)share.met);
	output_integer(row, "of", (int64_t)share.of);
	json_object_set_new(json, name, row);
}

static void tell(struct cli *cli, const struct report *r, const char *node, const char *path)
{
	const struct report_summary *s = report_summary_of(r);
	json_t *json = cli->json;
	output_text(json, "node", node);
	output_text(json, "output", path);
	output_text(json, "verdict", report_verdict_name(s->verdict));
	output_array(json, "reasons");
	for (int i = 0; i < REPORT_REASON_COUNT; i++)
		if (s->reasons[i])
			output_item(json, "reasons", report_reason_name((enum report_reason)i));
	output_integer(json, "drills", (int64_t)s->drill_count);
	output_integer(json, "restores", (int64_t)s->restore_count);
	tell_share(json, "drills_within_rto", s->drills);
	tell_share(json, "restores_within_rto", s->restores);
	tell_share(json, "within_rpo", s->rpo);
	if (s->rto_ms)
		output_integer(json, "rto_ms", s->rto_ms);
	if (s->rpo_ms)
		output_integer(json, "rpo_ms", s->rpo_ms);
	if (s->last_drill) {
		output_instant(json, "last_drill", s->last_drill->time_ms);
		output_text(json, "last_drill_verdict", s->last_drill->verdict);
	}
	if (s->has_forecast) {
		output_integer(json, "forecast_p50_ms", s->forecast_p50_ms);
		output_integer(json, "forecast_p95_ms", s->forecast_p95_ms);
	}
	output_array(json, "findings");
	for (size_t i = 0; i < s->finding_count; i++)
		output_item(json, "findings", report_finding(r, i));
}

/* What the checks said was sealed in the vault: the file is its owner's. */
static int put_page(struct cli *cli, const struct im_buf *page, const char *path, struct im_error *err)
{
	if (strcmp(path, "-") == 0)
		return im_write_full(STDOUT_FILENO, page->data, page->len, err, "standard output");
	int rc = im_file_write(path, page->data, page->len, 0600, IM_FILE_REPLACE, err);
	if (rc == 0)
		output_line(cli, "%s", path);
	return rc;
}

static int write_page(struct cli *cli, const char *node, enum report_lang lang, struct im_error *err)
{
	const struct im_config *c = cli->config;
	const struct report_request request = { .node = node, .rto_ms = c ? c->rto_ms : 0, .rpo_ms = c ? c->rpo_ms : 0,
		.drill_every_ms = c ? c->drill_every_ms : 0, .target = c ? c->drill_scratch : "/var/tmp" };
	auto_buf struct im_buf page = { 0 };
	auto_free char *path = cli->options.output ? strdup(cli->options.output) : im_format("imvault-report-%s.html", node);
	struct report *r = NULL;
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = report_gather(cli->vault, &request, &r, err);
	if (rc == 0)
		rc = report_write(r, lang, &page, err);
	if (rc == 0)
		rc = put_page(cli, &page, path, err);
	if (rc == 0) {
		tell(cli, r, node, path);
		size_t findings = report_summary_of(r)->finding_count;
		for (size_t i = 0; i < findings; i++)
			output_problem("%s", report_finding(r, i));
		cli->error_shown = findings > 0;
		if (findings)
			rc = im_fail(err, IM_ECORRUPT, "%zu problems in the chains of records and snapshots; imvault verify says what they harm", findings);
		runs_tell_vault(cli, node, rc, -1, 0);
	}
	report_free(r);
	return rc;
}

static int run(struct cli *cli, struct im_error *err)
{
	struct session_only only = { .count = 0 };
	enum report_lang lang;
	const char *node;
	int rc = parse_lang(cli, &lang, err);
	if (rc)
		return rc;
	if (cli->options.json && cli->options.output && strcmp(cli->options.output, "-") == 0)
		return im_fail(err, IM_EUSAGE, "report: --json needs --output FILE, since the page would take standard output");
	rc = session_open(cli, SESSION_ANY_KEY, err);
	if (rc == 0)
		rc = session_choose_node(cli, &only, &node, err);
	return rc ? rc : write_page(cli, node, lang, err);
}

const struct command cmd_report = { "report", "one page that proves the recovery targets", help, options, 0, run };
