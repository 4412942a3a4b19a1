/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault restore: the command of the emergency. It says what it will do, what it is doing, what
 * it proved, and how the two clocks stand against the target.
 */
#include "restore/restore.h"
#include "restore/instant/abort.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/outlook.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/restore_answer.h"
#include "verify/drill.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static const enum option_id options[] = { OPTION_AT, OPTION_STORE, OPTION_PATH, OPTION_TO, OPTION_OVERWRITE, OPTION_EXEC, OPTION_READY,
	OPTION_INSTANT, OPTION_DETACH, OPTION_STOP, OPTION_RESUME, OPTION_ABORT, OPTION_DRY_RUN, OPTION_CHECK, OPTION_RTO,
	OPTION_OPERATOR, OPTION_REASON, OPTION_END };

static const char help[] =
    "imvault restore: rebuild a node from the vault, and time it.\n"
    "\n"
    "  imvault restore --vault URL --key FILE [--node NAME] [OPTION...]\n"
    "\n"
    "  --at WHEN     latest (default), a time such as 2026-11-23T00:50:54.250Z, or a\n"
    "                snapshot's number or name (that, without its log)\n"
    "  --store NAME  only this store (may be repeated)\n"
    "  --path PATH   only this file or folder, by its original absolute path\n"
    "  --to DIR      below DIR instead of at the original paths\n"
    "  --overwrite   move aside what is in the way (nothing is ever deleted)\n"
    "  --exec CMD    start the service; its success is \"service ready\"\n"
    "  --ready CMD   asked until it succeeds; --exec may then stay in the foreground\n"
    "  --instant     start it at once, fetch what it needs first (--instant=MODE;\n"
    "                --detach: return when it is ready; --stop CMD: for mode fuse)\n"
    "  --resume, --abort [FOLDER]: go on with one that was cut off; give one up\n"
    "  --dry-run     the plan and a forecast; writes nothing\n"
    "  --check HOW   quick (default), full or none: the check of what was rebuilt\n"
    "  --rto TIME    the target to judge by; --reason WHY, --operator WHO: its record\n"
    "\n"
    "Needs the restore key, and no configuration. Interrupted? Start it again.\n"
    "\n"
    "Examples, on a bare machine:\n"
    "  imvault restore --vault /mnt/im --key restore.key --exec 'prosodyctl start'\n"
    "  imvault restore --vault /mnt/im --key restore.key --store archive --to /tmp/x\n";

static void on_warn(void *context, const char *text)
{
	(void)context;
	output_problem("%s", text);
}

static const char *verdict_word(int rc)
{
	switch (rc) {
	case 0:
	case IM_EMISSED: return "RECOVERED";
	case IM_EPARTIAL: return "RECOVERED IN PART";
	case IM_ECORRUPT: return "RECOVERED WITH DAMAGE";
	case IM_EDIFFERENT: return "RECOVERED, BUT A CHECK FAILED";
	default: return "NOT RECOVERED";
	}
}

static void say(const struct cli *cli, const struct restore_result *r, int rc)
{
	if (r->mode && strcmp(r->mode, "joined") == 0 && rc == 0)
		output_line(cli, "COMPLETE  the restore that was under way is complete");
	if (!r->snapshot)
		return;
	if (cli->options.dry_run) {
		restore_say_plan(cli, r);
		restore_say_stores(cli, r);
		restore_say_room(cli, r);
		return;
	}
	restore_say_stores(cli, r);
	restore_say_phases(cli, r);
	restore_say_instant(cli, r);
	restore_say_damage(r);
	restore_say_verdict(cli, verdict_word(rc), r);
}

static int check_options(const struct options *o, struct im_error *err)
{
	if (o->check && strcmp(o->check, "quick") != 0 && strcmp(o->check, "full") != 0 && strcmp(o->check, "none") != 0)
		return im_fail(err, IM_EUSAGE, "restore: --check %s is unknown; there are quick, full and none", o->check);
	if (o->detach && !o->instant && !o->resume)
		return im_fail(err, IM_EUSAGE, "restore: --detach needs --instant");
	if (o->ready && !o->exec)
		return im_fail(err, IM_EUSAGE, "restore: --ready needs --exec");
	if (o->path && *o->path != '/')
		return im_fail(err, IM_EUSAGE, "restore: --path %s must be the original absolute path", o->path);
	return 0;
}

static void on_aborted(void *context, const char *text)
{
	output_line(context, "%s", text);
}

/* Folders that --resume and --abort are about; NULL: those that are mounted. */
static int take_paths(const struct options *o, const char ***ret, struct im_error *err)
{
	if (!o->resume && !o->abort && o->operand_count)
		return im_fail(err, IM_EUSAGE, "restore: unexpected argument %s", o->operands[0]);
	if (!o->operand_count)
		return 0;
	const char **paths = calloc((size_t)o->operand_count + 1, sizeof *paths);
	if (!paths)
		return im_fail(err, IM_ENOMEM, "out of memory");
	*ret = paths;
	for (int i = 0; i < o->operand_count; i++) {
		if (o->operands[i][0] != '/')
			return im_fail(err, IM_EUSAGE, "restore: %s must be an absolute path", o->operands[i]);
		paths[i] = o->operands[i];
	}
	return 0;
}

/* More exact than what a snapshot's metadata says. */
static void sizes_of_result(const struct cli *cli, const struct restore_result *r, struct forecast_sizes *ret)
{
	bool checked = !cli->options.check || strcmp(cli->options.check, "none") != 0;
	*ret = (struct forecast_sizes){ .write_bytes = r->bytes_to_write, .files = r->files, .packs = r->packs, .stores = r->store_count };
	for (size_t i = 0; i < r->store_count; i++) {
		const struct restore_store *s = &r->stores[i];
		ret->database_bytes += checked && strcmp(s->type, "sqlite") == 0 ? s->bytes : 0;
		if (strcmp(s->type, "sqlite") != 0)
			forecast_sizes_count_small(s->files, s->bytes, ret);
		ret->log_bytes += s->log_bytes;
		ret->log_segments += s->log_segments;
	}
	ret->service = cli->options.exec != NULL;
	ret->read_bytes = r->bytes_to_read > ret->log_bytes ? r->bytes_to_read - ret->log_bytes : 0;
}

static const char *largest_place(const struct restore_result *r)
{
	const struct restore_store *most = NULL;
	for (size_t i = 0; i < r->store_count; i++)
		if (r->stores[i].path && (!most || r->stores[i].bytes > most->bytes))
			most = &r->stores[i];
	return most ? most->path : NULL;
}

/* Whatever keeps it from being made, the plan stands. */
static bool forecast_plan(const struct cli *cli, const struct restore_result *r, struct forecast_node *ret)
{
	struct drill_list history;
	struct snapshot *s = NULL;
	if (!r->bytes_to_write || drills_read(cli->vault, r->node, &history, NULL))
		return false;
	snapshot_choose(cli->vault->storage, cli->vault->keyring, r->node, r->snapshot, NULL, NULL, &s, NULL);
	sizes_of_result(cli, r, &ret->sizes);
	forecast_probe(cli->vault, s, largest_place(r), &ret->machine);
	forecast_make(FORECAST_FULL, &ret->sizes, &ret->machine, &history, &ret->full);
	forecast_make(FORECAST_INSTANT, &ret->sizes, &ret->machine, &history, &ret->instant);
	snapshot_free(s);
	drill_list_clear(&history);
	return true;
}

static void tell_forecast(const struct cli *cli, const struct restore_result *r, enum restore_mode mode)
{
	struct forecast_node f;
	const struct forecast *asked = mode == RESTORE_ORDINARY ? &f.full : &f.instant;
	char text[240], ground[120];
	if (!forecast_plan(cli, r, &f))
		return;
	output_integer(cli->json, "forecast_p50_ms", asked->ready_p50_ms);
	output_integer(cli->json, "forecast_p95_ms", asked->ready_p95_ms);
	outlook_json(cli->json, &f);
	output_line(cli, "forecast: %s", outlook_text(text, sizeof text, &f, r->rto_ms));
	output_line(cli, "  %s", outlook_ground(ground, sizeof ground, asked));
	if (outlook_warning(asked, r->rto_ms))
		output_problem("%s", outlook_warning(asked, r->rto_ms));
}

/* What it took, for the node's history. The clocks have stopped; not to be able to write it changes nothing. */
static void keep_record(const struct cli *cli, const struct restore_result *r, int64_t began_ms, int code)
{
	const struct options *o = &cli->options;
	auto_free char *me = drill_operator();
	struct im_error why = { 0 };
	struct forecast_sizes sizes;
	sizes_of_result(cli, r, &sizes);
	const struct drill_facts facts = { .kind = "restore", .at = o->at, .operator_name = o->operator_name ? o->operator_name : me,
		.reason = o->reason, .began_ms = began_ms, .rpo_ms = r->rpo_ms,
		.sizes = &sizes, .code = code };
	json_t *meta = drill_record_meta(&facts, r), *own = json_object();
	if (drills_append(cli->vault, r->node, meta, own, NULL, &why))
		output_note(cli, "the vault keeps no record of this restore: %s", why.text);
	json_decref(meta);
	json_decref(own);
}

static int run(struct cli *cli, struct im_error *err)
{
	const struct options *o = &cli->options;
	const struct restore_events events = { .phase = progress_on_phase, .planned = restore_on_planned, .progress = progress_on_bytes, .note = progress_on_note, .warn = on_warn, .context = cli };
	struct restore_result result;
	enum restore_mode mode;
	auto_free const char **paths = NULL;
	int rc = check_options(o, err);
	if (rc == 0)
		rc = restore_mode_of(o, "restore", &mode, err);
	if (rc == 0)
		rc = take_paths(o, &paths, err);
	if (rc == 0 && o->abort)
		return instant_abort(paths, on_aborted, cli, err);
	if (rc == 0)
		rc = session_open(cli, SESSION_RESTORE_KEY, err);
	if (rc)
		return rc;
	const struct restore_request request = {
		.vault = cli->vault, .node = session_node(cli), .at = o->at, .stores = (const char *const *)o->stores,
		.path = o->path, .to = o->to, .overwrite = o->overwrite, .exec_command = o->exec, .ready_command = o->ready, .stop_command = o->stop, .dry_run = o->dry_run, .mode = mode, .detach = o->detach, .resume = o->resume, .paths = paths,
		.check_level = o->check, .rto_ms = o->rto_ms, .start_us = cli->start_us, .opened_us = cli->opened_us, .events = &events,
	};
	/* The snapshot's own target is not known yet; counting down needs --rto or a configuration. */
	int64_t rto_ms = o->rto_ms ? o->rto_ms : cli->config ? cli->config->rto_ms : 0;
	int64_t began_ms = im_now_ms();
	progress_begin(!o->quiet, rto_ms ? cli->start_us + rto_ms * 1000 : 0);
	rc = restore_run(&request, &result, err);
	progress_hide();
	restore_answer_json(cli->json, &result);
	say(cli, &result, rc);
	if (o->dry_run && result.snapshot)
		tell_forecast(cli, &result, mode);
	fflush(stdout);
	if (result.snapshot && !o->dry_run && !o->path && !o->detach && rc != IM_EINTERRUPTED && rc != IM_EUSAGE)
		keep_record(cli, &result, began_ms, rc);
	restore_result_clear(&result);
	return rc;
}

const struct command cmd_restore = { "restore", "rebuild a node and time it", help, options, -1, run };
