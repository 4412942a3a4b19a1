/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which record proves which way back. A record counts only for what it did: all stores that the node
 * has now, or this store, or another instant than the newest. What failed since is said as well.
 */
#include "verify/runbook_internal.h"

#include "verify/report_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool restored(const struct drill_record *d, const char *store, bool well)
{
	size_t i;
	json_t *row;
	json_array_foreach(json_object_get(d->meta, "stores"), i, row) {
		const char *name = json_string_value(json_object_get(row, "name")), *status = json_string_value(json_object_get(row, "status"));
		if (name && strcmp(name, store) == 0)
			return !well || (status && strcmp(status, "ok") == 0);
	}
	return false;
}

static bool restored_all(const struct runbook *r, const struct drill_record *d, bool well)
{
	for (size_t i = 0; i < r->f.store_count; i++)
		if (!restored(d, r->f.stores[i].name, well))
			return false;
	return true;
}

/* A try that never came to its stores says nothing about which it would have restored: it counts as one of all. */
static bool came_to_nothing(const struct drill_record *d)
{
	return !json_array_size(json_object_get(d->meta, "stores"));
}

/* Did the record try what the scenario is about? well: and did it work, as far as its stores go? */
static bool is_about(const struct runbook *r, const struct runbook_scenario *s, const struct drill_record *d, bool well)
{
	if (strcmp(s->name, "machine_lost") == 0 || strcmp(s->name, "machine_lost_instant") == 0) {
		const char *scenario = strcmp(s->name, "machine_lost") == 0 ? "full" : "instant";
		return strcmp(d->scenario, scenario) == 0 && ((!well && came_to_nothing(d)) || restored_all(r, d, well));
	}
	if (s->store)
		return restored(d, s->store, well);
	if (strcmp(s->name, "deleted_by_mistake") == 0)
		return *d->chosen && strcmp(d->chosen, "latest") != 0;
	if (strcmp(s->name, "vault_damaged") == 0)
		return well && strcmp(d->verdict, "damaged") == 0;
	return well; /* key_lost: whatever was restored, a restore key opened the vault */
}

/* Damage is what the scenario of a damaged vault is about: everything else came back. */
static bool worked(const struct runbook_scenario *s, const struct drill_record *d)
{
	return d->passed || strcmp(s->name, "vault_damaged") == 0;
}

static void prove(const struct runbook *r, struct runbook_scenario *s)
{
	for (size_t i = r->f.drills->count; i-- > 0 && !s->worked;) {
		const struct drill_record *d = &r->f.drills->items[i];
		if (worked(s, d) && is_about(r, s, d, true))
			s->worked = d;
		else if (!s->failed && !worked(s, d) && strcmp(d->verdict, "interrupted") != 0 && is_about(r, s, d, false))
			s->failed = d;
	}
}

void runbook_prove(struct runbook *r)
{
	for (size_t i = 0; i < r->scenario_count; i++)
		prove(r, &r->scenarios[i]);
}

/* --- as words --- */

char *runbook_duration(char *ret, int64_t ms)
{
	const struct page english = { .lang = REPORT_EN };
	return report_duration(&english, ret, ms);
}

static const char *kind_of(const struct drill_record *d)
{
	return d->is_drill ? "drill" : "restore";
}

static void number(char ret[REPORT_VALUE_BYTES], const struct drill_record *d)
{
	snprintf(ret, REPORT_VALUE_BYTES, "%" PRIu64, d->seq);
}

static void say_worked(struct runbook *r, const struct drill_record *d)
{
	char when[REPORT_VALUE_BYTES], seq[REPORT_VALUE_BYTES], took[REPORT_VALUE_BYTES], target[REPORT_VALUE_BYTES];
	const char *host = *d->host ? d->host : "?";
	report_minute(when, d->time_ms);
	number(seq, d);
	if (d->service_ready_ms < 0) {
		doc_say(&r->doc, DOC_TEXT, "Last worked: [1] in [2] [3] on {4}.", when, kind_of(d), seq, host, NULL);
		return;
	}
	runbook_duration(took, d->service_ready_ms);
	if (d->rto_ms <= 0) {
		doc_say(&r->doc, DOC_TEXT, "Last worked: [1] in [2] [3] on {4}, took [5] (no target was set).", when, kind_of(d), seq, host, took, NULL);
		return;
	}
	doc_say(&r->doc, DOC_TEXT, d->rto_met ? "Last worked: [1] in [2] [3] on {4}, took [5] (target [6]: met)."
	                                      : "Last worked: [1] in [2] [3] on {4}, took [5] (target [6]: MISSED).",
	    when, kind_of(d), seq, host, took, runbook_duration(target, d->rto_ms), NULL);
}

static void say_failed(struct runbook *r, const struct drill_record *d)
{
	char when[REPORT_VALUE_BYTES], seq[REPORT_VALUE_BYTES];
	report_minute(when, d->time_ms);
	number(seq, d);
	doc_say(&r->doc, DOC_ALARM, "the last try FAILED on [1]: [2] [3] on {4} ended with [5].", when, kind_of(d), seq, *d->host ? d->host : "?",
	    *d->verdict ? d->verdict : "no verdict", NULL);
}

static const char *never(const struct runbook_scenario *s)
{
	static const char *const words[][2] = {
		{ "machine_lost", "Never tried with all of today's stores. This tries it: {1}" },
		{ "machine_lost_instant", "Never tried with all of today's stores. This tries it: {1}" },
		{ "database_damaged", "Never tried with this store. This tries it: {1}" },
		{ "deleted_by_mistake", "Never tried. This tries it: {1}" },
		{ "vault_damaged", "No record of a recovery from a damaged vault. A damaged vault cannot be rehearsed with {1}" },
		{ "key_lost", "No record shows yet that a restore key opened this vault. This shows it: {1}" },
	};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcmp(words[i][0], s->name) == 0)
			return words[i][1];
	return "";
}

static const char *rehearsal(const struct runbook_scenario *s)
{
	if (strcmp(s->name, "machine_lost_instant") == 0)
		return "imvault drill --instant";
	return strcmp(s->name, "deleted_by_mistake") == 0 ? "imvault drill --at random" : "imvault drill";
}

void runbook_say_proof(struct runbook *r, const struct runbook_scenario *s)
{
	if (s->failed)
		say_failed(r, s->failed);
	if (s->worked)
		say_worked(r, s->worked);
	else
		doc_say(&r->doc, DOC_TEXT, never(s), rehearsal(s), NULL);
}

void runbook_say_forecast(struct runbook *r, const char *what, const struct forecast *f)
{
	char p50[REPORT_VALUE_BYTES], p95[REPORT_VALUE_BYTES];
	if (!f) {
		doc_say(&r->doc, DOC_TEXT, "[1]: no forecast could be made.", what, NULL);
		return;
	}
	runbook_duration(p50, f->ready_p50_ms);
	runbook_duration(p95, f->ready_p95_ms);
	doc_say(&r->doc, DOC_TEXT, "[1]: about [2], hardly more than [3].", what, p50, p95, NULL);
}
