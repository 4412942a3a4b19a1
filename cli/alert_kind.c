/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an alert is: the table of kinds, and the texts, which may quote hostile names and are made
 * harmless here, once, for every way they are sent.
 */
#include "cli/alert_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/output.h"

#include <ctype.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX_BYTES 1500

/* docs/ALERTS.md has the same table. */
static const struct {
	const char *name, *advice, *command;
} kinds[ALERT_KIND_COUNT] = {
	[ALERT_BACKUP] = { "backup", "What failed is only as safe as its last good snapshot. Run the backup by hand and see what it says.", "backup" },
	[ALERT_LOG] = { "log", "A recovery now would lose more than it should. See whether the follower runs, and what it says.", "status" },
	[ALERT_VAULT] = { "vault", "Nothing new is protected while the vault is away. Is its machine up, is it mounted, is the network there?", "status" },
	[ALERT_DAMAGE] = { "damage", "Copy the vault away before anything else; nothing is repaired or deleted by itself. Then see exactly what is harmed.",
	    "verify --read" },
	[ALERT_SPACE] = { "space", "Make room where the message says; then run it again.", "status" },
	[ALERT_LOCKED] = { "locked", "One run has been keeping out all others. See whether it still gets on; it may be killed at any time.", "status" },
	[ALERT_VERIFY] = { "verify", "The vault could not be checked. Run the check by hand and see what it says.", "verify" },
	[ALERT_DRILL] = { "drill", "The rehearsal says that a recovery now would not go as planned. See what it found.", "drill" },
	[ALERT_RESTORE] = { "restore", "A recovery did not end as it should. Whoever runs it may need help; docs/EMERGENCY.md is the page.", "status" },
	[ALERT_STATUS] = { "status", "The message says what to do. See the whole picture.", "status" },
	[ALERT_TEST] = { "test", "Nothing: somebody tried whether alerts arrive, and they do.", "alert" },
};

static const char *const severities[] = { [ALERT_RESOLVED] = "resolved", [ALERT_WARNING] = "warning", [ALERT_CRITICAL] = "critical" };

const char *alert_kind_name(enum alert_kind kind)
{
	return kinds[kind].name;
}

bool alert_kind_parse(const char *name, enum alert_kind *ret)
{
	for (int i = 0; name && i < ALERT_KIND_COUNT; i++)
		if (strcmp(kinds[i].name, name) == 0) {
			*ret = (enum alert_kind)i;
			return true;
		}
	return false;
}

const char *alert_severity_name(enum alert_severity severity)
{
	return severities[severity];
}

bool alert_is_configured(const struct im_config *c)
{
	for (size_t i = 0; c && i < ALERT_WAY_COUNT; i++)
		if (alert_ways[i].is_set(c))
			return true;
	return false;
}

/* --- texts --- */

/* One line of valid UTF-8, not too long, without control characters of either set. */
static char *clean(const char *text)
{
	size_t len = strnlen(text, TEXT_MAX_BYTES);
	while (text[len] && len && ((unsigned char)text[len] & 0xc0) == 0x80)
		len--;
	char *copy = strndup(text, len);
	json_t *valid = copy ? json_stringn(copy, len) : NULL;
	for (unsigned char *p = (unsigned char *)copy; p && *p; p++) {
		bool second_set = p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0;
		if (*p < 0x20 || *p == 0x7f || (!valid && *p >= 0x80))
			*p = '?';
		else if (second_set)
			p[0] = p[1] = '?';
	}
	json_decref(valid);
	return copy;
}

static void alert_clear(struct alert *a)
{
	free(a->store);
	free(a->about);
	free(a->text);
	json_decref(a->details);
	*a = (struct alert){ 0 };
}

struct alert *alert_add(struct alert_list *l, enum alert_kind kind, enum alert_severity severity, const char *store, const char *text)
{
	struct alert *grown = reallocarray(l->items, l->count + 1, sizeof *grown);
	if (!grown)
		return NULL;
	l->items = grown;
	struct alert *a = &grown[l->count];
	*a = (struct alert){ .kind = kind, .severity = severity, .store = clean(store ? store : ""), .about = strdup(""), .text = clean(text),
		.exit_code = -1 };
	l->count++;
	if (a->store && a->about && a->text)
		return a;
	alert_clear(a);
	l->count--;
	return NULL;
}

void alert_list_clear(struct alert_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		alert_clear(&l->items[i]);
	free(l->items);
	*l = (struct alert_list){ 0 };
}

static bool is_unit(const char *word, size_t len)
{
	static const char *const units[] = { "ms", "s", "min", "h", "d", "B", "kB", "KB", "MB", "GB", "TB", "PB" };
	while (len && ispunct((unsigned char)word[len - 1]))
		len--;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (strlen(units[i]) == len && strncmp(units[i], word, len) == 0)
			return true;
	return false;
}

char *alert_gist(const char *text)
{
	char *ret = malloc(strlen(text) + 2), *to = ret;
	bool after_number = false;
	for (const char *at = text + strspn(text, " "); to && *at; at += strspn(at, " ")) {
		size_t len = strcspn(at, " ");
		bool number = isdigit((unsigned char)at[strspn(at, "(+-")]);
		if (!number && !(after_number && is_unit(at, len))) {
			memcpy(to, at, len);
			to += len;
			*to++ = ' ';
		}
		after_number = number;
		at += len;
	}
	if (to)
		*to = '\0';
	return ret;
}

/* --- the message --- */

const char *alert_advice(const struct alert *a)
{
	return a->severity == ALERT_RESOLVED ? "Nothing: it is over." : kinds[a->kind].advice;
}

char *alert_run_hint(const struct alert_origin *o, const struct alert *a)
{
	return im_format("imvault %s%s%s%s", o->config_path ? "-c " : "", o->config_path ? o->config_path : "", o->config_path ? " " : "",
	    kinds[a->kind].command);
}

json_t *alert_json(const struct alert_origin *o, const struct alert *a, int64_t now_ms)
{
	char host[256] = "";
	auto_free char *hint = alert_run_hint(o, a);
	json_t *j = json_object();
	gethostname(host, sizeof host - 1);
	output_text(j, "kind", kinds[a->kind].name);
	output_text(j, "severity", severities[a->severity]);
	output_text(j, "node", o->node);
	output_text(j, "store", *a->store ? a->store : NULL);
	output_text(j, "text", a->text);
	output_text(j, "advice", alert_advice(a));
	output_text(j, "run", hint);
	output_text(j, "command", o->command);
	if (a->exit_code >= 0)
		output_integer(j, "exit_code", a->exit_code);
	output_instant(j, "time", now_ms);
	output_instant(j, "since", a->since_ms ? a->since_ms : now_ms);
	output_text(j, "host", host);
	json_object_set_new(j, "details", a->details ? json_deep_copy(a->details) : json_object());
	return j;
}
