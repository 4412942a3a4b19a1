/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of each section of the configuration, and their values.
 */
#include "base/config_internal.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX_PAIRS 1024
#define FLUSH_MIN_MS 50
#define FLUSH_MAX_MS 60000
#define HEARTBEAT_MIN_MS 1000
#define HEARTBEAT_MAX_MS 86400000
#define HOLD_MAX_MS 86400000
#define SPOOL_MIN_BYTES (UINT64_C(1) << 20)

static struct im_config_store *last_store(struct parser *p)
{
	return &p->config->stores[p->config->store_count - 1];
}

static int set_text(struct parser *p, char **field, const char *key, const char *value)
{
	if (*field)
		return config_wrong(p, "%s is given twice", key);
	*field = strdup(value);
	return *field ? 0 : config_no_memory(p);
}

static int set_duration(struct parser *p, int64_t *field, const char *key, const char *value)
{
	int64_t ms;
	if (!im_duration_parse(value, &ms) || ms == 0)
		return config_wrong(p, "%s = %s is not a duration such as 30s, 10m or 2h", key, value);
	*field = ms;
	return 0;
}

static int set_number(struct parser *p, int *field, const char *key, const char *value, int min, int max)
{
	char *end;
	long v = strtol(value, &end, 10);
	if (!isdigit((unsigned char)*value) || *end || v < min || v > max)
		return config_wrong(p, "%s = %s is not a number from %d to %d", key, value, min, max);
	*field = (int)v;
	return 0;
}

/* An absolute path without "..", doubled or trailing slashes. */
static int set_path(struct parser *p, char **field, const char *key, const char *value)
{
	if (*value != '/')
		return config_wrong(p, "%s = %s must be an absolute path", key, value);
	auto_free char *clean = malloc(strlen(value) + 2);
	if (!clean)
		return config_no_memory(p);
	size_t n = 0;
	for (const char *at = value; *at;) {
		at += strspn(at, "/");
		size_t len = strcspn(at, "/");
		if (len == 2 && memcmp(at, "..", 2) == 0)
			return config_wrong(p, "%s = %s must not contain \"..\"", key, value);
		if (len && !(len == 1 && *at == '.')) {
			clean[n++] = '/';
			memcpy(clean + n, at, len);
			n += len;
		}
		at += len;
	}
	memcpy(clean + n, n ? "" : "/", n ? 1 : 2);
	return set_text(p, field, key, clean);
}

static int node_key(struct parser *p, const char *key, const char *value)
{
	struct im_config *c = p->config;
	if (strcmp(key, "name") == 0) {
		if (!im_name_valid(value))
			return config_wrong(p, "node name \"%s\" is not allowed; use 1 to 64 letters, digits, '.', '_', '-', "
			    "beginning with a letter or digit", value);
		return set_text(p, &c->node_name, key, value);
	}
	if (strcmp(key, "tier") == 0) {
		if (!im_tier_rto_ms(value))
			return config_wrong(p, "tier = %s is unknown; there are core (5 min), im (15), collab (30), noncore (120)", value);
		return set_text(p, &c->tier, key, value);
	}
	if (strcmp(key, "rto") == 0) {
		p->has_rto = true;
		return set_duration(p, &c->rto_ms, key, value);
	}
	if (strcmp(key, "rpo") == 0)
		return set_duration(p, &c->rpo_ms, key, value);
	if (strcmp(key, "state") == 0)
		return set_path(p, &c->state_dir, key, value);
	return config_wrong(p, "unknown key %s in [node]; there are name, tier, rto, rpo, state", key);
}

static int vault_key(struct parser *p, const char *key, const char *value)
{
	struct im_config *c = p->config;
	if (strcmp(key, "url") == 0)
		return set_text(p, &c->vault_url, key, value);
	if (strcmp(key, "key") == 0)
		return set_text(p, &c->vault_key, key, value);
	if (strcmp(key, "compression") == 0) {
		p->has_level = true;
		return set_number(p, &c->compression_level, key, value, 1, 19);
	}
	if (strcmp(key, "dedupe") == 0) {
		if (strcmp(value, "own") != 0)
			return config_wrong(p, "dedupe = %s is unknown; there is only own (what this node's key stored itself)", value);
		return set_text(p, &c->dedupe, key, value);
	}
	return config_wrong(p, "unknown key %s in [vault]; there are url, key, compression", key);
}

static int add_pair(struct parser *p, struct im_config_pair **pairs, size_t *count, const char *key, const char *value)
{
	if (*count == CONFIG_MAX_PAIRS)
		return config_wrong(p, "more than %d keys in one section", CONFIG_MAX_PAIRS);
	struct im_config_pair *grown = reallocarray(*pairs, *count + 1, sizeof *grown);
	if (!grown)
		return config_no_memory(p);
	*pairs = grown;
	struct im_config_pair *pair = &grown[(*count)++];
	*pair = (struct im_config_pair){ strdup(key), strdup(value) };
	return pair->key && pair->value ? 0 : config_no_memory(p);
}

static int store_key(struct parser *p, const char *key, const char *value)
{
	struct im_config_store *s = last_store(p);
	if (strcmp(key, "type") == 0)
		return set_text(p, &s->type, key, value);
	if (strcmp(key, "path") == 0)
		return set_path(p, &s->path, key, value);
	if (strcmp(key, "priority") == 0)
		return set_number(p, &s->priority, key, value, 1, 9);
	return add_pair(p, &s->pairs, &s->pair_count, key, value);
}

/* Checked, and carried in each snapshot with the rest of the text, for the command that will prune: until
 * there is one everything is kept, which fulfils any retention. */
static int retention_key(struct parser *p, const char *key, const char *value)
{
	static const char *const counts[] = { "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly" };
	int64_t window_ms;
	int count;
	if (strcmp(key, "log_window") == 0)
		return set_duration(p, &window_ms, key, value);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		if (strcmp(key, counts[i]) == 0)
			return set_number(p, &count, key, value, 0, 100000);
	return config_wrong(p, "unknown key %s in [retention]; there are keep_last, keep_hourly, keep_daily, keep_weekly, "
	    "keep_monthly, keep_yearly, log_window", key);
}

static int set_bounded_duration(struct parser *p, int64_t *field, const char *key, const char *value, int64_t min_ms, int64_t max_ms)
{
	char least[40], most[40];
	int64_t ms = 0;
	int rc = set_duration(p, &ms, key, value);
	if (rc)
		return rc;
	if (ms < min_ms || ms > max_ms)
		return config_wrong(p, "%s = %s is out of bounds: from %s to %s", key, value, im_duration_format(least, sizeof least, min_ms),
		    im_duration_format(most, sizeof most, max_ms));
	*field = ms;
	return 0;
}

static int set_size(struct parser *p, uint64_t *field, const char *key, const char *value, uint64_t min_bytes)
{
	char least[24];
	uint64_t bytes;
	if (!im_size_parse(value, &bytes))
		return config_wrong(p, "%s = %s is not a size such as 512M or 2GiB", key, value);
	if (bytes < min_bytes || bytes > INT64_MAX)
		return config_wrong(p, "%s = %s is out of bounds: at least %s", key, value, im_bytes_format(least, sizeof least, min_bytes));
	*field = bytes;
	return 0;
}

static int follow_key(struct parser *p, const char *key, const char *value)
{
	struct im_config *c = p->config;
	int64_t none;
	if (strcmp(key, "flush") == 0)
		return set_bounded_duration(p, &c->follow_flush_ms, key, value, FLUSH_MIN_MS, FLUSH_MAX_MS);
	if (strcmp(key, "heartbeat") == 0)
		return set_bounded_duration(p, &c->follow_heartbeat_ms, key, value, HEARTBEAT_MIN_MS, HEARTBEAT_MAX_MS);
	if (strcmp(key, "spool_limit") == 0)
		return set_size(p, &c->follow_spool_limit_bytes, key, value, SPOOL_MIN_BYTES);
	if (strcmp(key, "hold") == 0 && im_duration_parse(value, &none) && none == 0) {
		c->follow_hold_ms = 0;
		return 0;
	}
	if (strcmp(key, "hold") == 0)
		return set_bounded_duration(p, &c->follow_hold_ms, key, value, 1000, HOLD_MAX_MS);
	return config_wrong(p, "unknown key %s in [follow]; there are flush, heartbeat, spool_limit, hold", key);
}

static int drill_key(struct parser *p, const char *key, const char *value)
{
	struct im_config *c = p->config;
	if (strcmp(key, "scratch") == 0)
		return set_path(p, &c->drill_scratch, key, value);
	if (strcmp(key, "drill_exec") == 0)
		return set_text(p, &c->drill_exec, key, value);
	if (strcmp(key, "at") == 0) {
		if (strcmp(value, "latest") != 0 && strcmp(value, "random") != 0)
			return config_wrong(p, "at = %s is unknown; there are latest and random", value);
		return set_text(p, &c->drill_at, key, value);
	}
	if (strcmp(key, "cpus") == 0)
		return set_number(p, &c->drill_cpus, key, value, 1, 1024);
	if (strcmp(key, "space") == 0)
		return set_size(p, &c->drill_space_bytes, key, value, 1);
	return config_wrong(p, "unknown key %s in [drill]; there are scratch, drill_exec, at, cpus, space", key);
}

static int schedule_key(struct parser *p, const char *key, const char *value)
{
	struct im_config *c = p->config;
	if (strcmp(key, "backup") == 0)
		return set_duration(p, &c->backup_every_ms, key, value);
	if (strcmp(key, "verify") == 0)
		return set_duration(p, &c->verify_every_ms, key, value);
	if (strcmp(key, "drill") == 0)
		return set_duration(p, &c->drill_every_ms, key, value);
	if (strcmp(key, "report") == 0)
		return set_duration(p, &c->report_every_ms, key, value);
	return config_wrong(p, "unknown key %s in [schedule]; there are backup, verify, drill, report", key);
}

/* Its value is not quoted: a webhook's URL is often a secret. */
static int set_url(struct parser *p, char **field, const char *key, const char *value, const char *scheme, const char *with_tls)
{
	const char *rest = strncmp(value, scheme, strlen(scheme)) == 0   ? value + strlen(scheme)
	    : strncmp(value, with_tls, strlen(with_tls)) == 0 ? value + strlen(with_tls)
	                                                      : "";
	if (strchr("/?#:@", *rest)) /* also the end */
		return config_wrong(p, "%s must begin with %s or %s and the name of a host", key, with_tls, scheme);
	for (const char *at = value; *at; at++)
		if (*at <= ' ' || *at > '~')
			return config_wrong(p, "%s holds a character that must be written as %%XX in a URL", key);
	return set_text(p, field, key, value);
}

static int set_smtp(struct parser *p, char **field, const char *key, const char *value)
{
	if (strchr(value, '@'))
		return config_wrong(p, "%s must not hold a user or password: write them into a file and name it with credentials =", key);
	return set_url(p, field, key, value, "smtp://", "smtps://");
}

/* What may stand between < and > without quoting: user@host. */
static bool is_address(const char *text, size_t len)
{
	const char *at = memchr(text, '@', len);
	if (!at || at == text || at + 1 == text + len || len > 254)
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~' || strchr("<>()[],;:\\\"", text[i]) || (text[i] == '@' && text + i != at))
			return false;
	return true;
}

/* One address, or several with commas between. */
static int set_addresses(struct parser *p, char **field, const char *key, const char *value, bool several)
{
	for (const char *at = value;; at++) {
		at += strspn(at, " \t");
		size_t len = strcspn(at, several ? ", \t" : "");
		if (!is_address(at, len))
			return config_wrong(p, "%s = %s is not %s such as ops@example.org", key, value, several ? "a list of addresses" : "an address");
		at += len + strspn(at + len, " \t");
		if (!*at)
			return set_text(p, field, key, value);
		if (*at != ',')
			return config_wrong(p, "%s = %s: addresses are separated by commas", key, value);
	}
}

static int alert_key(struct parser *p, const char *key, const char *value)
{
	struct im_config *c = p->config;
	if (strcmp(key, "command") == 0)
		return set_text(p, &c->alert_command, key, value);
	if (strcmp(key, "webhook") == 0)
		return set_url(p, &c->alert_webhook, key, value, "http://", "https://");
	if (strcmp(key, "mail") == 0)
		return set_addresses(p, &c->alert_mail, key, value, true);
	if (strcmp(key, "smtp") == 0)
		return set_smtp(p, &c->alert_smtp, key, value);
	if (strcmp(key, "from") == 0)
		return set_addresses(p, &c->alert_from, key, value, false);
	if (strcmp(key, "credentials") == 0)
		return set_path(p, &c->alert_credentials, key, value);
	if (strcmp(key, "repeat") == 0)
		return set_duration(p, &c->alert_repeat_ms, key, value);
	if (strcmp(key, "ping_backup") == 0)
		return set_url(p, &c->alert_ping_backup, key, value, "http://", "https://");
	if (strcmp(key, "ping_verify") == 0)
		return set_url(p, &c->alert_ping_verify, key, value, "http://", "https://");
	if (strcmp(key, "ping_drill") == 0)
		return set_url(p, &c->alert_ping_drill, key, value, "http://", "https://");
	return config_wrong(p, "unknown key %s in [alert]; there are command, webhook, mail, smtp, from, credentials, repeat, ping_backup, ping_verify, "
	    "ping_drill", key);
}

/* They stand unquoted in a command that is meant to be copied. */
static int set_packages(struct parser *p, char **field, const char *key, const char *value)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.+-: ";
	const char *wrong = value + strspn(value, allowed);
	if (*wrong || *value == '-' || strstr(value, " -"))
		return config_wrong(p, "%s = %s is not a list of Debian packages with blanks between, such as prosody lua-dbi-sqlite3", key, value);
	return set_text(p, field, key, value);
}

static int runbook_key(struct parser *p, const char *key, const char *value)
{
	struct im_config *c = p->config;
	if (strcmp(key, "contact") == 0 || strcmp(key, "note") == 0)
		return add_pair(p, &c->runbook_lines, &c->runbook_line_count, key, value);
	if (strcmp(key, "restore_key") == 0)
		return set_text(p, &c->runbook_restore_key, key, value);
	if (strcmp(key, "passphrase") == 0)
		return set_text(p, &c->runbook_passphrase, key, value);
	if (strcmp(key, "packages") == 0)
		return set_packages(p, &c->runbook_packages, key, value);
	if (strcmp(key, "stop") == 0)
		return set_text(p, &c->runbook_stop, key, value);
	if (strcmp(key, "start") == 0)
		return set_text(p, &c->runbook_start, key, value);
	return config_wrong(p, "unknown key %s in [runbook]; there are contact, restore_key, passphrase, packages, stop, start, note", key);
}

int config_take_key(struct parser *p, const char *key, const char *value)
{
	static int (*const sections[])(struct parser *p, const char *key, const char *value) = { [SECTION_NODE] = node_key, [SECTION_VAULT] = vault_key,
		[SECTION_STORE] = store_key, [SECTION_RETENTION] = retention_key, [SECTION_FOLLOW] = follow_key, [SECTION_DRILL] = drill_key,
		[SECTION_SCHEDULE] = schedule_key, [SECTION_ALERT] = alert_key, [SECTION_RUNBOOK] = runbook_key };
	if (!*key)
		return config_wrong(p, "a key is missing before the =");
	if (!*value)
		return config_wrong(p, "%s has no value", key);
	if (p->section == SECTION_NONE)
		return config_wrong(p, "%s stands before the first section", key);
	return sections[p->section](p, key, value);
}
