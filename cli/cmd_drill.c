/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault drill: the rehearsal. The drill runs enclosed in processes of its own (verify/enclosure.h), which
 * print as they go; their part of the answer comes back as JSON.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/restore_answer.h"
#include "verify/drill.h"
#include "verify/enclosure.h"
#include "verify/sandbox.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CPUS_MAX = 1024 };

static const enum option_id options[] = { OPTION_AT, OPTION_STORE, OPTION_INSTANT, OPTION_EXEC, OPTION_READY, OPTION_SCRATCH, OPTION_OPERATOR,
	OPTION_REASON, OPTION_CPUS, OPTION_KEEP, OPTION_RTO, OPTION_END };

static const char help[] =
    "imvault drill: restore into scratch for real; check it, time it, record it.\n"
    "\n"
    "  imvault drill --vault URL --key FILE [--node NAME] [OPTION...]\n"
    "\n"
    "  --at WHEN      latest (default), random, or as of imvault restore\n"
    "  --store NAME   only this store (may be repeated)\n"
    "  --instant      rehearse an instant restore (--instant=MODE)\n"
    "  --exec CMD     start the server on it, log in, send a message: success is\n"
    "                 \"service ready\". In a sandbox: own network, nothing lasts\n"
    "  --ready CMD    asked until it succeeds; --exec may then stay in the foreground\n"
    "  --scratch DIR  where (default /var/tmp); all is removed, --keep leaves it\n"
    "  --cpus N       use at most N processors (it is nice to others anyway)\n"
    "  --operator WHO, --reason TEXT   for the record in the vault\n"
    "  --rto TIME     the recovery target to judge by, such as 10m\n"
    "\n"
    "Never touches production's paths. Exit 0: recovered in time, and all checks\n"
    "passed. 10: too slow, or too old for rpo. 11: something differs. 6: damage.\n"
    "\n"
    "Example, weekly on a drill host that has its own restore key:\n"
    "  imvault drill --vault /mnt/im --key drill.key --at random --exec drill-prosody\n";

struct enclosed {
	struct cli *cli;
	struct drill_request request;
};

static void on_warn(void *context, const char *text)
{
	(void)context;
	output_problem("%s", text);
}

static void result_json(json_t *j, const struct drill_result *r)
{
	restore_answer_json(j, &r->restore);
	output_text(j, "verdict", r->verdict);
	output_text(j, "record", r->object);
	output_text(j, "chosen", r->chosen);
	output_text(j, "at", r->at);
	if (r->rpo_target_ms) {
		output_integer(j, "rpo_target_ms", r->rpo_target_ms);
		output_boolean(j, "rpo_met", r->rpo_met);
	}
	if (r->forecast.ready_p50_ms) {
		output_integer(j, "forecast_p50_ms", r->forecast.ready_p50_ms);
		output_integer(j, "forecast_p95_ms", r->forecast.ready_p95_ms);
	}
	output_integer(j, "differences", (int64_t)r->difference_count);
	output_array(j, "checks");
	for (size_t i = 0; i < r->check_count; i++) {
		json_t *row = output_row(j, "checks");
		output_text(row, "store", r->checks[i].store);
		output_text(row, "check", r->checks[i].check);
		output_boolean(row, "ok", r->checks[i].ok);
		output_text(row, "text", r->checks[i].text);
	}
}

static void say_checks(const struct cli *cli, const struct drill_result *r)
{
	for (size_t i = 0; i < r->check_count; i++) {
		const struct drill_check *c = &r->checks[i];
		if (c->ok)
			output_line(cli, "  %-14s %-9s %s", c->store ? c->store : "", c->check, c->text);
		else
			output_problem("%s%s%s: %s", c->store ? "store " : "", c->store ? c->store : "", c->store ? "" : c->check, c->text);
	}
	for (size_t i = 0; i < r->finding_count; i++)
		output_problem("%s", r->findings[i]);
}

static void say_forecast(const struct cli *cli, const struct drill_result *r)
{
	char p50[40], p95[40];
	if (r->forecast.ready_p50_ms && r->restore.service_ready_ms >= 0)
		output_line(cli, "forecast was %s, at worst %s", im_duration_format(p50, sizeof p50, r->forecast.ready_p50_ms),
		    im_duration_format(p95, sizeof p95, r->forecast.ready_p95_ms));
}

static const char *word_of(int rc)
{
	return rc == 0 ? "DRILL PASSED" : rc == IM_EMISSED ? "DRILL TOO SLOW OR TOO OLD" : rc == IM_EDIFFERENT || rc == IM_ECORRUPT ? "DRILL FOUND A DIFFERENCE" : "DRILL FAILED";
}

static void say(const struct cli *cli, const struct drill_result *r, int rc)
{
	if (!r->restore.snapshot)
		return;
	restore_say_stores(cli, &r->restore);
	restore_say_phases(cli, &r->restore);
	restore_say_instant(cli, &r->restore);
	restore_say_damage(&r->restore);
	say_checks(cli, r);
	say_forecast(cli, r);
	restore_say_verdict(cli, word_of(rc), &r->restore);
	if (r->object)
		output_line(cli, "record %s", r->object);
}

/* In the enclosure. */
static json_t *run_enclosed(void *context, const char *folder)
{
	struct enclosed *e = context;
	struct cli *cli = e->cli;
	struct drill_result result;
	struct im_error err = { 0 };
	e->request.folder = folder;
	int64_t rto_ms = e->request.rto_ms;
	progress_begin(!cli->options.quiet, rto_ms ? im_monotonic_us() + rto_ms * 1000 : 0);
	int rc = drill_run(&e->request, &result, &err);
	progress_hide();
	json_t *answer = json_object();
	result_json(answer, &result);
	say(cli, &result, rc);
	drill_result_clear(&result);
	json_t *all = json_object();
	json_object_set_new(all, "answer", answer);
	output_integer(all, "code", rc);
	output_text(all, "error", err.text);
	return all;
}

static int take_cpus(const struct cli *cli, unsigned *ret, struct im_error *err)
{
	const char *text = cli->options.cpus;
	char *end = NULL;
	errno = 0;
	long n = text ? strtol(text, &end, 10) : cli->config ? cli->config->drill_cpus : 0;
	if (text && (errno || *end || n < 1 || n > CPUS_MAX))
		return im_fail(err, IM_EUSAGE, "drill: --cpus %s is not a number from 1 to %d", text, CPUS_MAX);
	*ret = (unsigned)n;
	return 0;
}

static int run_in_scratch(struct cli *cli, struct enclosed *e, struct im_error *err)
{
	const struct im_config *c = cli->config;
	const char *scratch = cli->options.scratch ? cli->options.scratch : c ? c->drill_scratch : "/var/tmp", *key;
	json_t *all = NULL, *value;
	auto_free char *kept = NULL;
	int rc = enclosure_run(scratch, cli->options.keep, run_enclosed, e, &all, &kept, err);
	if (rc)
		return rc;
	json_object_foreach(json_object_get(all, "answer"), key, value)
		json_object_set(cli->json, key, value);
	rc = (int)json_integer_value(json_object_get(all, "code"));
	if (rc)
		im_fail(err, rc, "%s", json_string_value(json_object_get(all, "error")));
	json_decref(all);
	output_text(cli->json, "kept", kept);
	if (kept)
		output_line(cli, "what was restored is in %s: it holds messages in the clear, remove it when you have looked", kept);
	return rc;
}

static int run(struct cli *cli, struct im_error *err)
{
	const struct options *o = &cli->options;
	const struct restore_events events = { .phase = progress_on_phase, .planned = restore_on_planned, .progress = progress_on_bytes, .note = progress_on_note, .warn = on_warn, .context = cli };
	enum restore_mode mode;
	unsigned cpus = 0;
	int rc = restore_mode_of(o, "drill", &mode, err);
	if (rc == 0)
		rc = session_open(cli, SESSION_RESTORE_KEY, err);
	if (rc == 0)
		rc = take_cpus(cli, &cpus, err);
	if (rc)
		return rc;
	const struct im_config *c = cli->config;
	const char *exec = o->exec ? o->exec : c ? c->drill_exec : NULL;
	if (o->ready && !exec)
		return im_fail(err, IM_EUSAGE, "drill: --ready needs --exec");
	struct enclosed e = { cli, { .vault = cli->vault, .node = session_node(cli), .at = o->at ? o->at : c ? c->drill_at : NULL,
		.stores = (const char *const *)o->stores, .mode = mode, .exec_command = exec, .ready_command = o->ready,
		.operator_name = o->operator_name, .reason = o->reason, .cpus = cpus, .space_bytes = c ? c->drill_space_bytes : 0, .rto_ms = o->rto_ms,
		.start_us = cli->start_us, .opened_us = cli->opened_us, .events = &events } };
	return run_in_scratch(cli, &e, err);
}

static int run_service(struct cli *cli, struct im_error *err)
{
	(void)cli;
	return sandbox_enter(err);
}

static const enum option_id no_options[] = { OPTION_END };

const struct command cmd_drill = { "drill", "rehearse a restore", help, options, 0, run };
/* Run by a drill itself, within the restored node's sandbox. */
const struct command cmd_drill_service = { SANDBOX_COMMAND, "part of drill", "imvault " SANDBOX_COMMAND ": run by imvault drill itself.\n", no_options, 0, run_service };
