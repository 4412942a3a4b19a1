/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instant restores in the eyes of `imvault status`.
 */
#include "base/clock.h"
#include "cli/output.h"
#include "cli/status.h"
#include "restore/instant/abort.h"
#include "restore/instant/look.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const states[] = { "at work", "cut off", "complete" };

static void row_json(struct cli *cli, const struct instant_look *l)
{
	json_t *row = output_row(cli->json, "restores");
	output_text(row, "target", l->target);
	output_text(row, "node", l->node);
	output_text(row, "state", states[l->state]);
	output_integer(row, "since_ms", l->since_ms);
	if (!l->known)
		return;
	output_integer(row, "filled_bytes", (int64_t)l->filled_bytes);
	output_integer(row, "total_bytes", (int64_t)l->total_bytes);
	output_integer(row, "damaged_bytes", (int64_t)l->bad_bytes);
	output_integer(row, "waiting", l->waiting);
	output_integer(row, "service_ready_ms", l->service_ms);
	output_integer(row, "left_ms", l->left_ms);
	output_integer(row, "vault_away_ms", l->away_ms);
	output_integer(row, "rto_ms", l->rto_ms);
	output_integer(row, "unsafe_files", l->unsafe_files);
	output_text(row, "trouble", l->trouble);
	output_integer(row, "worker_starts", l->worker_starts);
	output_integer(row, "keeper_starts", l->keeper_starts);
}

static void say_progress(const struct cli *cli, const struct instant_look *l)
{
	char filled[24], total[24], left[40] = "?", ready[40];
	if (l->left_ms >= 0)
		im_duration_format(left, sizeof left, l->left_ms);
	output_line(cli, "instant restore %s: %u %%, %s of %s, about %s left%s", l->target,
	    (unsigned)(l->total_bytes ? 100 * l->filled_bytes / l->total_bytes : 100), im_bytes_format(filled, sizeof filled, l->filled_bytes),
	    im_bytes_format(total, sizeof total, l->total_bytes), left, l->waiting ? "; accesses wait for content" : "");
	if (l->trouble)
		output_line(cli, "                %s", l->trouble);
	if (l->service_ms >= 0)
		output_line(cli, "                service ready after %s", im_duration_format(ready, sizeof ready, l->service_ms));
}

static void on_look(void *context, const struct instant_look *l)
{
	struct verdict *v = context;
	char away[40], bad[24];
	row_json(v->cli, l);
	if (l->state == INSTANT_ALIAS) {
		output_line(v->cli, "instant restore %s: complete; its second name %s goes when the service has ended (do not remove it: it is the live folder)", l->target,
		    l->stage);
		return;
	}
	if (l->known)
		say_progress(v->cli, l);
	if (session_node(v->cli) && strcmp(session_node(v->cli), l->node) != 0)
		return; /* another node's; shown, not judged */
	if (l->state == INSTANT_CUT_OFF)
		status_red(v, "the instant restore of %s was cut off: %s; imvault restore --resume goes on with it, --abort gives it up", l->target,
		    l->held ? "the service waits for what has not arrived" : "do not start its service before");
	else if (l->unsafe_files)
		status_red(v, "the disk did not take all of the instant restore of %s: reading %u of its files is an error; give it up (imvault restore --abort) and restore to another disk",
		    l->target, l->unsafe_files);
	else if (l->bad_bytes)
		status_red(v, "%s of %s are damaged in the vault: reading them is an error", im_bytes_format(bad, sizeof bad, l->bad_bytes), l->target);
	else if (l->away_ms)
		status_red(v, "the instant restore of %s cannot reach the vault for %s; who needs what has not arrived waits", l->target,
		    im_duration_format(away, sizeof away, l->away_ms));
	v->restoring++;
}

void status_judge_restores(struct verdict *v)
{
	struct im_error why = { 0 };
	const struct im_config *c = v->cli->config;
	const char **paths = c ? calloc(c->store_count + 1, sizeof *paths) : NULL;
	for (size_t i = 0; paths && i < c->store_count; i++)
		paths[i] = c->stores[i].path;
	output_array(v->cli->json, "restores");
	instant_sweep();
	/* a record may be changing just now, or be somebody else's: the node is judged all the same */
	if (instant_look(paths, on_look, v, &why))
		output_note(v->cli, "%s", why.text);
	free(paths);
}
