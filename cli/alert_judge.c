/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the end of a run to alerts. What the run did not look at it says nothing about: an alert is over
 * only when a run that would have found it again has not.
 */
#include "cli/alert_internal.h"

#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DETAILS_MAX 40
#define ITEMS_MAX 10

enum { PROOF_PLAIN, PROOF_SHARE, PROOF_WHOLE };

static bool is(const struct cli *cli, const char *command)
{
	return cli->command && strcmp(cli->command, command) == 0;
}

static int proof_of(const struct cli *cli)
{
	unsigned percent = is(cli, "verify") ? cli->options.read_percent : 0;
	return percent >= 100 ? PROOF_WHOLE : percent ? PROOF_SHARE : PROOF_PLAIN;
}

/* Mistakes of somebody who is there and reads them. */
static bool is_slip(const struct cli *cli, int rc)
{
	bool mistake = rc == IM_EUSAGE || rc == IM_EKEY || rc == IM_ENOTFOUND || rc == IM_ELOCKED;
	if (is(cli, "restore"))
		return mistake;
	return rc == IM_EUSAGE && isatty(STDERR_FILENO);
}

bool alert_judges(const struct cli *cli, int rc)
{
	static const char *const commands[] = { "backup", "follow", "verify", "drill", "status", "restore" };
	const struct options *o = &cli->options;
	if (rc == IM_EINTERRUPTED || o->help || o->version || o->dry_run || o->abort)
		return false;
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (is(cli, commands[i]))
			return !is_slip(cli, rc);
	return false;
}

/* --- raising --- */

static enum alert_kind own_kind(const struct cli *cli)
{
	enum alert_kind kind = ALERT_LOG; /* of follow */
	alert_kind_parse(cli->command, &kind);
	return kind;
}

static enum alert_kind kind_of(const struct cli *cli, int rc)
{
	switch (rc) {
	case IM_EUNREACHABLE: return ALERT_VAULT;
	case IM_ECORRUPT: return ALERT_DAMAGE;
	case IM_ENOSPACE: return ALERT_SPACE;
	case IM_ELOCKED: return ALERT_LOCKED;
	default: return own_kind(cli);
	}
}

/* The same kind has the same severity whichever command tells, or each of them would say it anew. */
static enum alert_severity severity_of(enum alert_kind kind, int rc)
{
	bool mild = kind == ALERT_LOCKED || kind == ALERT_VERIFY || (kind == ALERT_DRILL && rc != IM_EDIFFERENT);
	return mild ? ALERT_WARNING : ALERT_CRITICAL;
}

/* The figures of the answer; lists stay out, except the names of what is damaged and what a drill found. */
static json_t *details_of(const struct cli *cli)
{
	json_t *ret = json_object(), *value;
	const char *name;
	size_t i;
	json_object_foreach(cli->json, name, value) {
		bool told = strcmp(name, "command") == 0 || strcmp(name, "node") == 0 || strcmp(name, "error") == 0 || strcmp(name, "exit_code") == 0;
		if (!told && !json_is_object(value) && !json_is_array(value) && json_object_size(ret) < DETAILS_MAX)
			json_object_set(ret, name, value);
	}
	json_array_foreach(json_object_get(cli->json, "damaged"), i, value) {
		const json_t *object = json_object_get(value, "object"), *path = json_object_get(value, "path");
		if (i < ITEMS_MAX && (object || path))
			output_item(ret, "damaged", json_string_value(object ? object : path));
	}
	json_array_foreach(json_object_get(cli->json, "checks"), i, value) {
		const char *text = json_string_value(json_object_get(value, "text"));
		if (text && !json_is_true(json_object_get(value, "ok")) && json_array_size(json_object_get(ret, "differences")) < ITEMS_MAX)
			output_item(ret, "differences", text);
	}
	return ret;
}

static struct alert *add(const struct cli *cli, struct alert_list *l, enum alert_kind kind, enum alert_severity severity, int status,
    const char *store, const char *text)
{
	struct alert *a = alert_add(l, kind, severity, store, text);
	if (!a)
		return NULL;
	a->exit_code = status;
	a->proof = proof_of(cli);
	a->details = details_of(cli);
	return a;
}

static bool has_store_failed(const json_t *row)
{
	const char *status = json_string_value(json_object_get(row, "status"));
	return status && (strcmp(status, "failed") == 0 || strcmp(status, "gap") == 0 || strcmp(status, "refused") == 0);
}

static bool is_incomplete(const json_t *row)
{
	return json_is_true(json_object_get(row, "partial"));
}

static void add_store(const struct cli *cli, int status, const json_t *row, struct alert_list *l)
{
	const char *name = json_string_value(json_object_get(row, "name"));
	const char *reason = json_string_value(json_object_get(row, is(cli, "follow") ? "text" : "error"));
	bool failed = has_store_failed(row);
	const char *fallback = !failed ? "something was left out; the run's output names it" : is(cli, "follow") ? "the log has a gap" : "it failed";
	char text[IM_ERROR_TEXT_BYTES];
	if (!name || (!failed && !is_incomplete(row)))
		return;
	snprintf(text, sizeof text, "store %s: %s", name, reason ? reason : fallback);
	add(cli, l, own_kind(cli), failed ? ALERT_CRITICAL : ALERT_WARNING, status, name, text);
}

/* Where each store that failed has its own row, each is an alert of its own: a second one must not hide behind the first. */
static bool add_stores(const struct cli *cli, int status, struct alert_list *l)
{
	size_t i, before = l->count;
	const json_t *row;
	if (is(cli, "backup") || is(cli, "follow"))
		json_array_foreach(json_object_get(cli->json, "stores"), i, row)
			add_store(cli, status, row, l);
	return l->count > before;
}

/* Findings of status, one alert each. What tells them apart is their words without the quantities, which change each time. */
static void add_findings(const struct cli *cli, int status, const char *list, enum alert_severity severity, struct alert_list *l)
{
	const json_t *finding;
	size_t i;
	json_array_foreach(json_object_get(cli->json, list), i, finding) {
		const char *text = json_string_value(finding);
		struct alert *a = text ? add(cli, l, ALERT_STATUS, severity, status, "", text) : NULL;
		char *gist = a ? alert_gist(a->text) : NULL;
		if (gist) {
			free(a->about);
			a->about = gist;
		}
	}
}

static void judge_status(const struct cli *cli, int status, struct alert_list *l)
{
	add_findings(cli, status, "problems", ALERT_CRITICAL, l);
	add_findings(cli, status, "warnings", ALERT_WARNING, l);
}

void alert_judge(const struct cli *cli, int rc, int status, const struct im_error *err, struct alert_list *ret)
{
	enum alert_kind kind = kind_of(cli, rc);
	char text[2 * IM_ERROR_TEXT_BYTES];
	bool looked = is(cli, "status") && (rc == 0 || rc == IM_EPARTIAL);
	if (looked)
		judge_status(cli, status, ret);
	if (rc == 0 || looked || (kind == own_kind(cli) && add_stores(cli, status, ret)))
		return;
	snprintf(text, sizeof text, "imvault %s: %s", cli->command, err->text[0] ? err->text : im_exit_meaning(status));
	add(cli, ret, kind, severity_of(kind, rc), status, "", text);
}

/* --- settling --- */

static bool went_through(int rc)
{
	return rc == 0 || rc == IM_EPARTIAL || rc == IM_EGAP;
}

static bool was_reached(const struct cli *cli, int rc)
{
	bool opens_itself = is(cli, "backup") || is(cli, "follow");
	return rc != IM_EUNREACHABLE && (cli->vault || (opens_itself && went_through(rc)));
}

/* Was this store read and found well? One that is no longer configured is nobody's problem. */
static bool is_store_well(const struct cli *cli, const char *store)
{
	size_t i;
	const json_t *row;
	json_array_foreach(json_object_get(cli->json, "stores"), i, row) {
		const char *name = json_string_value(json_object_get(row, "name"));
		if (name && strcmp(name, store) == 0)
			return !has_store_failed(row) && !is_incomplete(row) && !json_is_true(json_object_get(row, "carried"));
	}
	return !im_config_find_store(cli->config, store);
}

bool alert_settles(const struct cli *cli, int rc, const struct alert_known *k)
{
	if (is(cli, "follow") && !cli->options.once)
		return false; /* that it ended well shows nothing; while it runs the watch judges */
	if (k->kind == ALERT_VAULT)
		return was_reached(cli, rc);
	if (strcmp(k->command, cli->command) != 0)
		return false;
	if (is(cli, "backup") || is(cli, "follow"))
		return went_through(rc) && (!*k->store || is_store_well(cli, k->store));
	if (is(cli, "status"))
		return rc == 0 || rc == IM_EPARTIAL;
	if (is(cli, "verify"))
		return rc == 0 && (k->proof == PROOF_PLAIN || proof_of(cli) == PROOF_WHOLE);
	return rc == 0;
}
