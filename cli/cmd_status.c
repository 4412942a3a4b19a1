/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault status: is this node protected, at a glance and by exit code. Facts are gathered
 * (status_facts.c), judged (status_judge.c) and shown (status_show.c, status_json.c); every finding says
 * what to do. Any key will do.
 */
#include "cli/output.h"
#include "cli/status.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const enum option_id options[] = { OPTION_END };

static const char help[] =
    "imvault status: is this node protected? Exit 0: yes. 3: no, and it says why.\n"
    "\n"
    "  imvault [-c FILE] status\n"
    "  imvault status --vault URL --key FILE --node NAME     from another machine\n"
    "\n"
    "On one screen: the last snapshot, each store with how far its log is behind the\n"
    "source and to which instants it can be restored, the last drill, how long a\n"
    "recovery would take now (half of all; 95 % of all) against rto, the vault's\n"
    "size, growth and free space, whether it agrees with the local state, and what is\n"
    "to run next by [schedule].\n"
    "\n"
    "Red: not protected as it is meant to be; exit 3. Amber: protected, but somebody\n"
    "should look; exit 0. Each says what to do, on stderr. Colours only on a terminal\n"
    "and without NO_COLOR. Exit 4: no vault. Exit 7: there is no snapshot yet.\n"
    "\n"
    "Example:\n"
    "  imvault status --quiet || echo \"im-01 is not protected\" | mail -s backup root\n";

static void say_findings(const struct verdict *v)
{
	output_array(v->cli->json, "problems");
	output_array(v->cli->json, "warnings");
	fflush(stdout);
	for (size_t i = 0; i < v->count; i++) {
		const struct status_finding *x = &v->items[i];
		const char *text = x->text ? x->text : "out of memory";
		output_item(v->cli->json, x->red ? "problems" : "warnings", text);
		fputs(status_colour(STDERR_FILENO, x->red ? STATUS_RED : STATUS_AMBER), stderr);
		output_problem("%s", text);
		fputs(status_colour(STDERR_FILENO, STATUS_PLAIN), stderr);
	}
}

/* On a machine that is just being rebuilt there may be no configuration, and nothing to judge but that. */
static int judge_restores_only(const struct verdict *v, struct im_error *err)
{
	struct cli *cli = v->cli;
	say_findings(v);
	output_boolean(cli->json, "green", false);
	cli->error_shown = v->red > 0;
	return im_fail(err, IM_EPARTIAL, "an instant restore is not complete");
}

static int conclude(const struct verdict *v, const struct status_facts *f, struct im_error *err)
{
	if (!f->list.count)
		return im_fail(err, IM_ENOTFOUND, "node %s has no snapshot yet: run imvault backup", f->node);
	if (!v->red && !v->restoring)
		return 0;
	v->cli->error_shown = v->red > 0;
	if (!v->red)
		return im_fail(err, IM_EPARTIAL, "an instant restore is not complete");
	return im_fail(err, IM_EPARTIAL, "node %s is not fully protected: %zu problem%s", f->node, v->red, v->red == 1 ? "" : "s");
}

static int judge_node(struct verdict *v, struct im_error *err)
{
	struct cli *cli = v->cli;
	struct status_facts facts = { 0 };
	int rc = session_open(cli, SESSION_ANY_KEY, err);
	const char *node = session_node(cli);
	if (rc == 0 && !node)
		rc = im_fail(err, IM_EUSAGE, "status: which node? Give --node NAME");
	if (rc == 0)
		rc = status_facts_gather(cli, node, &facts, err);
	if (rc == 0) {
		status_judge(v, &facts);
		status_show(v, &facts);
		status_json(cli->json, &facts);
		rc = conclude(v, &facts, err);
	}
	say_findings(v);
	status_facts_clear(&facts);
	return rc;
}

static int run(struct cli *cli, struct im_error *err)
{
	struct verdict v = { .cli = cli };
	int rc = session_config(cli, false, err);
	if (rc)
		return rc;
	status_judge_restores(&v);
	rc = !session_url(cli) && v.restoring ? judge_restores_only(&v, err) : judge_node(&v, err);
	output_boolean(cli->json, "green", rc == 0);
	verdict_clear(&v);
	return rc;
}

const struct command cmd_status = { "status", "is this node protected?", help, options, 0, run };
