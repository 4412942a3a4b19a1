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

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static const enum option_id options[] = { OPTION_AT, OPTION_STORE, OPTION_PATH, OPTION_TO, OPTION_OVERWRITE, OPTION_EXEC, OPTION_READY,
	OPTION_INSTANT, OPTION_DETACH, OPTION_STOP, OPTION_RESUME, OPTION_ABORT, OPTION_DRY_RUN, OPTION_CHECK, OPTION_RTO, OPTION_END };

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
    "  --rto TIME    the recovery target to judge by, such as 10m\n"
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

/* " + 12 segments, 3.4 MB of log", or "". */
static void format_log(char *ret, size_t size, const struct restore_result *r)
{
	uint64_t segments = 0, bytes = 0;
	char text[24];
	for (size_t i = 0; i < r->store_count; i++) {
		segments += r->stores[i].log_segments;
		bytes += r->stores[i].log_bytes;
	}
	*ret = 0;
	if (segments)
		snprintf(ret, size, " + %" PRIu64 " segment%s, %s of log", segments, segments == 1 ? "" : "s", im_bytes_format(text, sizeof text, bytes));
}

static void say_plan(const struct cli *cli, const struct restore_result *r)
{
	char read[24], write[24], instant[IM_INSTANT_BYTES], age[40], log[80];
	im_bytes_format(write, sizeof write, r->bytes_to_write);
	im_instant_format(instant, r->instant_reached_ms);
	im_duration_format(age, sizeof age, r->rpo_ms);
	format_log(log, sizeof log, r);
	if (r->bytes_to_read)
		output_line(cli, "plan: node %s, snapshot %" PRIu64 "%s (%s, %s old): read %s from %" PRIu64 " packs%s, write %s in %" PRIu64
		    " file%s", r->node, r->seq, log, instant, age, im_bytes_format(read, sizeof read, r->bytes_to_read), r->packs,
		    *log ? " and the log" : "", write, r->files, r->files == 1 ? "" : "s");
	else
		output_line(cli, "plan: node %s, snapshot %" PRIu64 "%s (%s, %s old): write about %s", r->node, r->seq, log, instant, age, write);
}

/* Flushed: whoever watches a pipe or a log wants it now, not at the end. */
static void on_planned(void *context, const struct restore_result *so_far)
{
	progress_hide();
	say_plan(context, so_far);
	fflush(stdout);
}

static void clocks_json(json_t *j, const struct restore_result *r)
{
	output_integer(j, "rpo_ms", r->rpo_ms);
	if (r->service_ready_ms >= 0)
		output_integer(j, "service_ready_ms", r->service_ready_ms);
	if (r->data_complete_ms >= 0)
		output_integer(j, "data_complete_ms", r->data_complete_ms);
	if (r->rto_ms) {
		output_integer(j, "rto_ms", r->rto_ms);
		output_boolean(j, "rto_met", r->rto_met);
	}
	output_array(j, "phases");
	for (size_t i = 0; i < r->phase_count; i++) {
		json_t *row = output_row(j, "phases");
		output_text(row, "name", r->phases[i].name);
		output_integer(row, "ms", r->phases[i].ms);
		output_integer(row, "bytes", (int64_t)r->phases[i].bytes);
		if (r->phases[i].of_threads)
			output_boolean(row, "of_threads", true);
	}
}

static void log_json(json_t *row, const struct restore_store *s)
{
	json_t *log = json_object();
	output_text(log, "epoch", s->log_epoch);
	output_integer(log, "after", s->log_after);
	output_integer(log, "until", s->log_until);
	output_integer(log, "segments", (int64_t)s->log_segments);
	output_integer(log, "bytes", (int64_t)s->log_bytes);
	json_object_set_new(row, "log", log);
}

static void store_json(json_t *row, const struct restore_result *r, const struct restore_store *s)
{
	int64_t rpo_ms = r->rpo_ms + r->instant_reached_ms - s->instant_reached_ms;
	output_text(row, "name", s->name);
	output_text(row, "type", s->type);
	output_text(row, "path", s->path);
	output_text(row, "status", s->status);
	output_text(row, "text", s->text);
	output_integer(row, "files", (int64_t)s->files);
	output_integer(row, "bytes", (int64_t)s->bytes);
	output_text(row, "moved_aside", s->moved_aside);
	output_text(row, "in_the_way", s->in_the_way);
	if (!s->seq)
		return;
	output_integer(row, "seq", (int64_t)s->seq);
	output_instant(row, "instant_reached", s->instant_reached_ms);
	output_integer(row, "instant_reached_ms", s->instant_reached_ms);
	output_integer(row, "rpo_ms", rpo_ms > 0 ? rpo_ms : 0);
	output_text(row, "stopped", s->stopped);
	if (s->has_log)
		log_json(row, s);
}

static void instant_json(json_t *j, const struct restore_instant *x)
{
	json_t *o = json_object();
	output_integer(o, "accesses", (int64_t)x->events);
	output_integer(o, "demand_bytes", (int64_t)x->demand_bytes);
	output_integer(o, "longest_wait_ms", x->longest_wait_ms);
	output_integer(o, "worker_starts", x->worker_starts);
	output_integer(o, "keeper_starts", x->keeper_starts);
	output_text(o, "alias", x->alias);
	json_object_set_new(j, "instant", o);
}

static void result_json(json_t *j, const struct restore_result *r)
{
	output_text(j, "node", r->node);
	output_text(j, "snapshot", r->snapshot);
	if (r->snapshot) {
		output_integer(j, "seq", (int64_t)r->seq);
		output_instant(j, "instant_reached", r->instant_reached_ms);
		output_integer(j, "instant_reached_ms", r->instant_reached_ms);
		clocks_json(j, r);
	}
	output_text(j, "mode", r->mode);
	if (r->instant.keeper_starts)
		instant_json(j, &r->instant);
	output_integer(j, "bytes_to_read", (int64_t)r->bytes_to_read);
	output_integer(j, "bytes_to_write", (int64_t)r->bytes_to_write);
	output_integer(j, "bytes_read", (int64_t)r->bytes_read);
	output_integer(j, "bytes_written", (int64_t)r->bytes_written);
	output_integer(j, "files", (int64_t)r->files);
	if (r->exec_status >= 0)
		output_integer(j, "exec_status", r->exec_status);
	output_array(j, "stores");
	for (size_t i = 0; i < r->store_count; i++)
		store_json(output_row(j, "stores"), r, &r->stores[i]);
	output_array(j, "damaged");
	for (size_t i = 0; i < r->damaged_count; i++) {
		json_t *row = output_row(j, "damaged");
		output_text(row, "store", r->damaged[i].store);
		output_text(row, "path", r->damaged[i].path);
		output_text(row, "text", r->damaged[i].text);
	}
	for (size_t i = 0; i < r->warning_count; i++)
		output_item(j, "warnings", r->warnings[i]);
}

/* Where a store comes from, unless that goes without saying. */
static void say_way(const struct cli *cli, const struct restore_result *r, const struct restore_store *s)
{
	char size[24], instant[IM_INSTANT_BYTES], log[120] = "";
	if (!s->has_log && s->seq == r->seq && s->instant_reached_ms == r->instant_reached_ms)
		return;
	if (s->has_log)
		snprintf(log, sizeof log, " + %" PRIu64 " segment%s, %s of log", s->log_segments, s->log_segments == 1 ? "" : "s",
		    im_bytes_format(size, sizeof size, s->log_bytes));
	output_line(cli, "  %-14s as of %s: snapshot %" PRIu64 "%s", "", im_instant_format(instant, s->instant_reached_ms), s->seq, log);
}

static void say_stores(const struct cli *cli, const struct restore_result *r)
{
	for (size_t i = 0; i < r->store_count; i++) {
		const struct restore_store *s = &r->stores[i];
		char size[24];
		output_line(cli, "  %-14s %-9s %8s  %s%s%s", s->name, s->status ? s->status : "", im_bytes_format(size, sizeof size, s->bytes),
		    s->path ? s->path : "", s->text ? ": " : "", s->text ? s->text : "");
		if (s->seq)
			say_way(cli, r, s);
		if (s->moved_aside)
			output_line(cli, "  %-14s what was there is now %s", "", s->moved_aside);
		if (s->in_the_way)
			output_line(cli, "  %-14s %s is in the way: %s", "", s->in_the_way,
			    cli->options.overwrite ? "it will be moved aside" : "the restore will need --overwrite (or --to DIR)");
	}
}

static void say_phases(const struct cli *cli, const struct restore_result *r)
{
	if (r->phase_count)
		output_line(cli, "  %-14s %9s %10s %12s", "phase", "time", "bytes", "rate");
	for (size_t i = 0; i < r->phase_count; i++) {
		const struct restore_phase *p = &r->phases[i];
		char took[40], bytes[24] = "", rate[24] = "", label[32];
		if (p->bytes)
			im_bytes_format(bytes, sizeof bytes, p->bytes);
		if (p->bytes && p->ms > 0) {
			im_bytes_format(rate, sizeof rate - 3, p->bytes * 1000 / (uint64_t)p->ms);
			strcat(rate, "/s");
		}
		snprintf(label, sizeof label, "%s%s", p->of_threads ? "  of it " : "", p->name);
		output_line(cli, "  %-14s %9s %10s %12s", label, im_duration_format(took, sizeof took, p->ms), bytes, rate);
	}
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

static void say_instant(const struct cli *cli, const struct restore_result *r)
{
	const struct restore_instant *x = &r->instant;
	char bytes[24], longest[40];
	if (!x->keeper_starts)
		return;
	output_line(cli, "meanwhile the service's %" PRIu64 " accesses to incomplete files needed %s; the longest took %s%s", x->events,
	    im_bytes_format(bytes, sizeof bytes, x->demand_bytes), im_duration_format(longest, sizeof longest, x->longest_wait_ms),
	    x->worker_starts > 1 || x->keeper_starts > 1 ? "; processes of imvault died and were replaced" : "");
	if (x->alias)
		output_line(cli, "until the service ends its folder has a second name; never remove that, it is the live folder: %s", x->alias);
}

static void say_verdict(const struct cli *cli, const struct restore_result *r, int rc)
{
	char instant[IM_INSTANT_BYTES], ready[60] = "", complete[60] = "", target[80] = "", log[80], t[40];
	if (r->service_ready_ms >= 0)
		snprintf(ready, sizeof ready, "  service ready %s", im_duration_format(t, sizeof t, r->service_ready_ms));
	if (r->data_complete_ms >= 0)
		snprintf(complete, sizeof complete, "  data complete %s", im_duration_format(t, sizeof t, r->data_complete_ms));
	if (r->rto_ms && r->data_complete_ms >= 0) {
		outlook_target(t, sizeof t, r->rto_ms);
		snprintf(target, sizeof target, "  target %s: %s", t, r->rto_met ? "MET" : "MISSED");
	}
	im_instant_format(instant, r->instant_reached_ms);
	if (r->data_complete_ms >= 0)
		output_line(cli, "recovered to %s (everything acknowledged before it is there); %s before this restore began", instant,
		    im_duration_format(t, sizeof t, r->rpo_ms));
	format_log(log, sizeof log, r);
	output_line(cli, "%s  %s to %s (snapshot %" PRIu64 "%s)%s%s%s", verdict_word(rc), r->node, instant, r->seq, log, ready, complete, target);
}

static void say_room(const struct cli *cli, const struct restore_result *r)
{
	char free_text[24];
	for (size_t i = 0; i < r->store_count; i++)
		if (r->stores[i].bytes_free && r->stores[i].bytes_free < r->stores[i].bytes)
			output_line(cli, "  %-14s only %s free at %s", r->stores[i].name,
			    im_bytes_format(free_text, sizeof free_text, r->stores[i].bytes_free), r->stores[i].path ? r->stores[i].path : "");
}

/* What the plan of a dry run says is more exact than what a snapshot's metadata does. */
static void sizes_of_plan(const struct cli *cli, const struct restore_result *r, struct forecast_sizes *ret)
{
	bool checked = !cli->options.check || strcmp(cli->options.check, "none") != 0;
	*ret = (struct forecast_sizes){ .write_bytes = r->bytes_to_write, .files = r->files, .packs = r->packs, .stores = r->store_count };
	for (size_t i = 0; i < r->store_count; i++) {
		const struct restore_store *s = &r->stores[i];
		ret->database_bytes += checked && strcmp(s->type, "sqlite") == 0 ? s->bytes : 0;
		ret->log_bytes += s->log_bytes;
		ret->log_segments += s->log_segments;
	}
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
	sizes_of_plan(cli, r, &ret->sizes);
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

static void say_damage(const struct restore_result *r)
{
	for (size_t i = 0; i < r->damaged_count; i++) {
		const struct restore_damage *d = &r->damaged[i];
		output_problem("store %s: %s%s%s", d->store ? d->store : "?", d->path ? d->path : "", d->path && d->text ? ": " : "",
		    d->text ? d->text : d->path ? "" : "damaged");
	}
}

static void say(const struct cli *cli, const struct restore_result *r, int rc)
{
	if (r->mode && strcmp(r->mode, "joined") == 0 && rc == 0)
		output_line(cli, "COMPLETE  the restore that was under way is complete");
	if (!r->snapshot)
		return;
	if (cli->options.dry_run) {
		say_plan(cli, r);
		say_stores(cli, r);
		say_room(cli, r);
		return;
	}
	say_stores(cli, r);
	say_phases(cli, r);
	say_instant(cli, r);
	say_damage(r);
	say_verdict(cli, r, rc);
}

static const struct {
	const char *name;
	enum restore_mode mode;
} modes[] = { { "", RESTORE_INSTANT }, { "auto", RESTORE_INSTANT }, { "blocks", RESTORE_BLOCKS }, { "files", RESTORE_FILES }, { "fuse", RESTORE_VIEW }, { "ordered", RESTORE_ORDINARY } };

static int mode_of(const struct options *o, enum restore_mode *ret, struct im_error *err)
{
	*ret = RESTORE_ORDINARY;
	for (size_t i = 0; o->instant && i < sizeof modes / sizeof modes[0]; i++)
		if (strcmp(o->instant, modes[i].name) == 0) {
			*ret = modes[i].mode;
			return 0;
		}
	if (o->instant)
		return im_fail(err, IM_EUSAGE, "restore: --instant=%s is unknown; there are auto, blocks, files, fuse and ordered", o->instant);
	return o->detach && !o->resume ? im_fail(err, IM_EUSAGE, "restore: --detach needs --instant") : 0;
}

static int check_options(const struct options *o, struct im_error *err)
{
	if (o->check && strcmp(o->check, "quick") != 0 && strcmp(o->check, "full") != 0 && strcmp(o->check, "none") != 0)
		return im_fail(err, IM_EUSAGE, "restore: --check %s is unknown; there are quick, full and none", o->check);
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

static int run(struct cli *cli, struct im_error *err)
{
	const struct options *o = &cli->options;
	const struct restore_events events = { .phase = progress_on_phase, .planned = on_planned, .progress = progress_on_bytes, .note = progress_on_note, .warn = on_warn, .context = cli };
	struct restore_result result;
	enum restore_mode mode;
	auto_free const char **paths = NULL;
	int rc = check_options(o, err);
	if (rc == 0)
		rc = mode_of(o, &mode, err);
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
	progress_begin(!o->quiet, rto_ms ? cli->start_us + rto_ms * 1000 : 0);
	rc = restore_run(&request, &result, err);
	progress_hide();
	result_json(cli->json, &result);
	say(cli, &result, rc);
	if (o->dry_run && result.snapshot)
		tell_forecast(cli, &result, mode);
	restore_result_clear(&result);
	return rc;
}

const struct command cmd_restore = { "restore", "rebuild a node and time it", help, options, -1, run };
