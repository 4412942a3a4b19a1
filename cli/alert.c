/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what is to be said to whom has heard it: claim, send, remember. Every way is tried; one is enough
 * for the alert to count as heard. What nobody has heard is tried again by the next run.
 */
#include "cli/alert.h"

#include "base/clock.h"
#include "base/interrupt.h"
#include "cli/alert_internal.h"
#include "cli/output.h"

#define REFUSED_MAX 2 /* so often in a row a run may find another one at work before that is news */

struct sending {
	const struct alert_origin *origin;
	bool failed[ALERT_WAY_COUNT]; /* a way that failed is not waited for again in this run */
};

static bool say(struct sending *s, const struct alert *a)
{
	bool heard = false;
	for (size_t i = 0; i < ALERT_WAY_COUNT; i++) {
		struct im_error why = { 0 };
		if (s->failed[i] || !alert_ways[i].is_set(s->origin->config))
			continue;
		s->failed[i] = alert_ways[i].send(s->origin, a, &why) != 0;
		if (s->failed[i])
			output_problem("the alert could not be sent by %s: %s", alert_ways[i].name, why.text);
		heard |= !s->failed[i];
	}
	return heard;
}

/* --- what is to be sent --- */

static void claim(struct alert_memory *m, const struct alert_origin *o, struct alert_list *raised, int64_t now_ms)
{
	bool refused = false;
	for (size_t i = 0; i < raised->count; i++)
		refused |= raised->items[i].kind == ALERT_LOCKED;
	bool patient = alert_memory_refused(m, refused) <= REFUSED_MAX;
	for (size_t i = 0; i < raised->count; i++)
		if (raised->items[i].kind != ALERT_LOCKED || !patient)
			alert_memory_claim(m, &raised->items[i], now_ms, o->config->alert_repeat_ms);
}

static void claim_all(struct alert_list *raised)
{
	for (size_t i = 0; i < raised->count; i++)
		raised->items[i].claimed = raised->items[i].kind != ALERT_LOCKED;
}

/* Without a memory everything is new each time, which is the lesser evil. */
static bool choose(const struct alert_origin *o, struct alert_list *raised, alert_settles_fn *settles, void *context, struct alert_list *ret_over)
{
	struct alert_memory *m = NULL;
	struct im_error why = { 0 };
	bool open = true;
	int rc = alert_memory_open(o, &m, &why);
	if (rc == 0) {
		int64_t now_ms = im_now_ms(); /* under the lock: not before what others have just written down */
		claim(m, o, raised, now_ms);
		alert_memory_settle(m, raised, settles, context, now_ms, ret_over);
		open = json_array_size(alert_memory_rows(m)) > 0;
		rc = alert_memory_close(m, &why);
	} else {
		claim_all(raised);
	}
	if (rc && raised->count)
		output_problem("what was said in alerts cannot be remembered: %s", why.text);
	return open;
}

/* --- and sending it --- */

static bool send_claimed(struct sending *s, struct alert_list *l, bool *ret_heard)
{
	bool any = false;
	for (size_t i = 0; i < l->count; i++)
		if (l->items[i].claimed) {
			any = true;
			ret_heard[i] = say(s, &l->items[i]);
		}
	return any;
}

static void remember(struct alert_memory *m, const struct alert_list *l, const bool *heard)
{
	for (size_t i = 0; i < l->count; i++)
		if (l->items[i].claimed)
			alert_memory_sent(m, &l->items[i], heard[i], im_now_ms());
}

bool alert_deliver(const struct alert_origin *o, struct alert_list *raised, alert_settles_fn *settles, void *context)
{
	struct alert_list over = { 0 };
	struct sending s = { .origin = o };
	struct alert_memory *m = NULL;
	struct im_error why = { 0 };
	bool open = choose(o, raised, settles, context, &over);
	bool *heard_raised = calloc(raised->count + 1, sizeof *heard_raised), *heard_over = calloc(over.count + 1, sizeof *heard_over);
	if (heard_raised && heard_over) {
		bool any = send_claimed(&s, raised, heard_raised);
		any |= send_claimed(&s, &over, heard_over);
		if (any && alert_memory_open(o, &m, &why) == 0) {
			remember(m, raised, heard_raised);
			remember(m, &over, heard_over);
			open = json_array_size(alert_memory_rows(m)) > 0;
			alert_memory_close(m, &why); /* if it fails, the claim ends by itself and it is said again */
		}
	}
	free(heard_raised);
	free(heard_over);
	alert_list_clear(&over);
	return open;
}

/* --- after a run --- */

struct ended {
	const struct cli *cli;
	int rc;
};

static bool settles(void *context, const struct alert_known *k)
{
	const struct ended *e = context;
	return alert_settles(e->cli, e->rc, k);
}

void alert_after_run(const struct cli *cli, int rc, int status, const struct im_error *err)
{
	const struct alert_origin origin = { .config = cli->config, .config_path = cli->options.config, .node = session_node(cli),
		.vault = session_url(cli), .command = cli->command };
	struct alert_list raised = { 0 };
	struct ended ended = { cli, rc };
	alert_ping_end(cli, rc);
	if (!alert_is_configured(cli->config) || im_interrupt_signal() || !alert_judges(cli, rc) || !im_name_valid(origin.node))
		return;
	alert_judge(cli, rc, status, err, &raised);
	alert_deliver(&origin, &raised, settles, &ended);
	alert_list_clear(&raised);
}
