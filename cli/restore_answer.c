/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer of a restore, for people and for programs. A drill is a restore and answers alike.
 */
#include "cli/restore_answer.h"

#include "base/clock.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

void restore_say_plan(const struct cli *cli, const struct restore_result *r)
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
void restore_on_planned(void *context, const struct restore_result *so_far)
{
	progress_hide();
	restore_say_plan(context, so_far);
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

void restore_answer_json(json_t *j, const struct restore_result *r)
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

void restore_say_stores(const struct cli *cli, const struct restore_result *r)
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

void restore_say_phases(const struct cli *cli, const struct restore_result *r)
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

static const char *tier_of(int64_t rto_ms)
{
	static const char *const tiers[] = { "core", "im", "collab", "noncore" };
	for (size_t i = 0; i < 4; i++)
		if (im_tier_rto_ms(tiers[i]) == rto_ms)
			return tiers[i];
	return NULL;
}

/* "15 min (im)" */
void restore_format_target(char *ret, size_t size, int64_t rto_ms)
{
	char plain[40];
	const char *tier = tier_of(rto_ms);
	if (rto_ms % 3600000 == 0)
		snprintf(plain, sizeof plain, "%" PRId64 " h", rto_ms / 3600000);
	else if (rto_ms % 60000 == 0)
		snprintf(plain, sizeof plain, "%" PRId64 " min", rto_ms / 60000);
	else
		im_duration_format(plain, sizeof plain, rto_ms);
	snprintf(ret, size, tier ? "%s (%s)" : "%s", plain, tier);
}

void restore_say_instant(const struct cli *cli, const struct restore_result *r)
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

void restore_say_verdict(const struct cli *cli, const char *word, const struct restore_result *r)
{
	char instant[IM_INSTANT_BYTES], ready[60] = "", complete[60] = "", target[80] = "", log[80], t[40];
	if (r->service_ready_ms >= 0)
		snprintf(ready, sizeof ready, "  service ready %s", im_duration_format(t, sizeof t, r->service_ready_ms));
	if (r->data_complete_ms >= 0)
		snprintf(complete, sizeof complete, "  data complete %s", im_duration_format(t, sizeof t, r->data_complete_ms));
	if (r->rto_ms && r->data_complete_ms >= 0) {
		restore_format_target(t, sizeof t, r->rto_ms);
		snprintf(target, sizeof target, "  target %s: %s", t, r->rto_met ? "MET" : "MISSED");
	}
	im_instant_format(instant, r->instant_reached_ms);
	if (r->data_complete_ms >= 0)
		output_line(cli, "recovered to %s (everything acknowledged before it is there); %s before this restore began", instant,
		    im_duration_format(t, sizeof t, r->rpo_ms));
	format_log(log, sizeof log, r);
	output_line(cli, "%s  %s to %s (snapshot %" PRIu64 "%s)%s%s%s", word, r->node, instant, r->seq, log, ready, complete, target);
}

void restore_say_room(const struct cli *cli, const struct restore_result *r)
{
	char free_text[24];
	for (size_t i = 0; i < r->store_count; i++)
		if (r->stores[i].bytes_free && r->stores[i].bytes_free < r->stores[i].bytes)
			output_line(cli, "  %-14s only %s free at %s", r->stores[i].name,
			    im_bytes_format(free_text, sizeof free_text, r->stores[i].bytes_free), r->stores[i].path ? r->stores[i].path : "");
}

void restore_say_damage(const struct restore_result *r)
{
	for (size_t i = 0; i < r->damaged_count; i++) {
		const struct restore_damage *d = &r->damaged[i];
		output_problem("store %s: %s%s%s", d->store ? d->store : "?", d->path ? d->path : "", d->path && d->text ? ": " : "",
		    d->text ? d->text : d->path ? "" : "damaged");
	}
}

static const struct {
	const char *name;
	enum restore_mode mode;
} modes[] = { { "", RESTORE_INSTANT }, { "auto", RESTORE_INSTANT }, { "blocks", RESTORE_BLOCKS }, { "files", RESTORE_FILES }, { "fuse", RESTORE_VIEW }, { "ordered", RESTORE_ORDINARY } };

int restore_mode_of(const struct options *o, const char *command, enum restore_mode *ret, struct im_error *err)
{
	*ret = RESTORE_ORDINARY;
	for (size_t i = 0; o->instant && i < sizeof modes / sizeof modes[0]; i++)
		if (strcmp(o->instant, modes[i].name) == 0) {
			*ret = modes[i].mode;
			return 0;
		}
	if (o->instant)
		return im_fail(err, IM_EUSAGE, "%s: --instant=%s is unknown; there are auto, blocks, files, fuse and ordered", command, o->instant);
	return 0;
}
