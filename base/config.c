/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the configuration. inih does the INI; what it would do silently is caught before it sees
 * a line: indentation (which it takes for a continuation), lines over its buffer (which it splits),
 * and section names over 49 bytes (which it cuts). Every message names file and line.
 */
#include "base/config.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#include <ctype.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_MAX_BYTES (256u << 10)
#define CONFIG_MAX_STORES 256
#define CONFIG_MAX_PAIRS 1024
#define FLUSH_MIN_MS 50
#define FLUSH_MAX_MS 60000
#define HEARTBEAT_MIN_MS 1000
#define HEARTBEAT_MAX_MS 86400000
#define HOLD_MAX_MS 86400000
#define SPOOL_MIN_BYTES (UINT64_C(1) << 20)

enum section { SECTION_NONE, SECTION_NODE, SECTION_VAULT, SECTION_STORE, SECTION_RETENTION, SECTION_FOLLOW, SECTION_DRILL, SECTION_SCHEDULE, SECTION_ALERT };

struct parser {
	struct im_config *config;
	const char *source, *rest; /* rest: text not read yet */
	int line;
	enum section section;
	bool seen_node, seen_vault, seen_retention, seen_follow, seen_drill, seen_schedule, seen_alert, has_rto, has_level;
	struct im_error *err;
	int rc;
};

static const struct {
	const char *name;
	int64_t minutes;
} tiers[] = { { "core", 5 }, { "im", 15 }, { "collab", 30 }, { "noncore", 120 } };

int64_t im_tier_rto_ms(const char *tier)
{
	for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++)
		if (strcmp(tier, tiers[i].name) == 0)
			return tiers[i].minutes * 60000;
	return 0;
}

bool im_name_valid(const char *name)
{
	static const char more[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t len = strspn(name, more);
	return len >= 1 && len <= 64 && !name[len] && name[0] != '.' && name[0] != '_' && name[0] != '-';
}

static __attribute__((format(printf, 2, 3))) int wrong(struct parser *p, const char *format, ...)
{
	char text[600];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (!p->rc)
		p->rc = im_fail(p->err, IM_EUSAGE, "%s, line %d: %s", p->source, p->line, text);
	return p->rc;
}

static int no_memory(struct parser *p)
{
	if (!p->rc)
		p->rc = im_fail(p->err, IM_ENOMEM, "out of memory reading %s", p->source);
	return p->rc;
}

static struct im_config_store *last_store(struct parser *p)
{
	return &p->config->stores[p->config->store_count - 1];
}

static int begin_store(struct parser *p, const char *name)
{
	struct im_config *c = p->config;
	if (!im_name_valid(name))
		return wrong(p, "store name \"%s\" is not allowed; use 1 to 64 letters, digits, '.', '_', '-', "
		    "beginning with a letter or digit", name);
	if (im_config_find_store(c, name))
		return wrong(p, "there are two stores named %s", name);
	if (c->store_count == CONFIG_MAX_STORES)
		return wrong(p, "more than %d stores", CONFIG_MAX_STORES);
	struct im_config_store *grown = reallocarray(c->stores, c->store_count + 1, sizeof *grown);
	if (!grown)
		return no_memory(p);
	c->stores = grown;
	grown[c->store_count] = (struct im_config_store){ .name = strdup(name), .priority = 1 };
	if (!grown[c->store_count].name)
		return no_memory(p);
	c->store_count++;
	p->section = SECTION_STORE;
	return 0;
}

static int begin_single(struct parser *p, enum section section, bool *seen, const char *name)
{
	if (*seen)
		return wrong(p, "there are two sections [%s]", name);
	*seen = true;
	p->section = section;
	return 0;
}

/* line begins with '['. */
static int begin_section(struct parser *p, const char *line)
{
	const char *close = strchr(line, ']');
	if (!close)
		return wrong(p, "a section begins with [ and must end with ]");
	const char *tail = close + 1 + strspn(close + 1, " \t\r\n");
	if (*tail && *tail != ';' && *tail != '#')
		return wrong(p, "something follows the section's ]");
	auto_free char *name = strndup(line + 1, (size_t)(close - line - 1));
	if (!name)
		return no_memory(p);
	if (strcmp(name, "node") == 0)
		return begin_single(p, SECTION_NODE, &p->seen_node, name);
	if (strcmp(name, "vault") == 0)
		return begin_single(p, SECTION_VAULT, &p->seen_vault, name);
	if (strncmp(name, "store ", 6) == 0)
		return begin_store(p, name + 6 + strspn(name + 6, " "));
	if (strcmp(name, "retention") == 0)
		return begin_single(p, SECTION_RETENTION, &p->seen_retention, name);
	if (strcmp(name, "follow") == 0)
		return begin_single(p, SECTION_FOLLOW, &p->seen_follow, name);
	if (strcmp(name, "drill") == 0)
		return begin_single(p, SECTION_DRILL, &p->seen_drill, name);
	if (strcmp(name, "schedule") == 0)
		return begin_single(p, SECTION_SCHEDULE, &p->seen_schedule, name);
	if (strcmp(name, "alert") == 0)
		return begin_single(p, SECTION_ALERT, &p->seen_alert, name);
	return wrong(p, "unknown section [%s]; there are [node], [vault], [store NAME], [follow], [retention], [drill], [schedule] and [alert]", name);
}

/* fgets for inih. Returns NULL at the end and at the first mistake. */
static char *next_line(char *ret, int size, void *context)
{
	struct parser *p = context;
	if (p->rc || !*p->rest)
		return NULL;
	p->line++;
	size_t len = strcspn(p->rest, "\n"), next = len + (p->rest[len] == '\n');
	const char *start = p->rest;
	if (p->line == 1 && len >= 3 && memcmp(start, "\xEF\xBB\xBF", 3) == 0) {
		start += 3;
		len -= 3;
	}
	while (len && isblank((unsigned char)*start)) {
		start++;
		len--;
	}
	p->rest += next;
	if (len && (*start == ';' || *start == '#'))
		len = 0; /* comments may be as long as they like */
	if (len + 2 > (size_t)size) {
		wrong(p, "the line has %zu bytes; at most %d are allowed", len, size - 2);
		return NULL;
	}
	memcpy(ret, start, len);
	memcpy(ret + len, "\n", 2);
	if (*ret == '[' && begin_section(p, ret))
		return NULL;
	return ret;
}

static int set_text(struct parser *p, char **field, const char *key, const char *value)
{
	if (*field)
		return wrong(p, "%s is given twice", key);
	*field = strdup(value);
	return *field ? 0 : no_memory(p);
}

static int set_duration(struct parser *p, int64_t *field, const char *key, const char *value)
{
	int64_t ms;
	if (!im_duration_parse(value, &ms) || ms == 0)
		return wrong(p, "%s = %s is not a duration such as 30s, 10m or 2h", key, value);
	*field = ms;
	return 0;
}

static int set_number(struct parser *p, int *field, const char *key, const char *value, int min, int max)
{
	char *end;
	long v = strtol(value, &end, 10);
	if (!isdigit((unsigned char)*value) || *end || v < min || v > max)
		return wrong(p, "%s = %s is not a number from %d to %d", key, value, min, max);
	*field = (int)v;
	return 0;
}

/* An absolute path without "..", doubled or trailing slashes. */
static int set_path(struct parser *p, char **field, const char *key, const char *value)
{
	if (*value != '/')
		return wrong(p, "%s = %s must be an absolute path", key, value);
	auto_free char *clean = malloc(strlen(value) + 2);
	if (!clean)
		return no_memory(p);
	size_t n = 0;
	for (const char *at = value; *at;) {
		at += strspn(at, "/");
		size_t len = strcspn(at, "/");
		if (len == 2 && memcmp(at, "..", 2) == 0)
			return wrong(p, "%s = %s must not contain \"..\"", key, value);
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
			return wrong(p, "node name \"%s\" is not allowed; use 1 to 64 letters, digits, '.', '_', '-', "
			    "beginning with a letter or digit", value);
		return set_text(p, &c->node_name, key, value);
	}
	if (strcmp(key, "tier") == 0) {
		if (!im_tier_rto_ms(value))
			return wrong(p, "tier = %s is unknown; there are core (5 min), im (15), collab (30), noncore (120)", value);
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
	return wrong(p, "unknown key %s in [node]; there are name, tier, rto, rpo, state", key);
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
			return wrong(p, "dedupe = %s is unknown; there is only own (what this node's key stored itself)", value);
		return set_text(p, &c->dedupe, key, value);
	}
	return wrong(p, "unknown key %s in [vault]; there are url, key, compression", key);
}

static int add_pair(struct parser *p, struct im_config_store *s, const char *key, const char *value)
{
	if (s->pair_count == CONFIG_MAX_PAIRS)
		return wrong(p, "more than %d keys in [store %s]", CONFIG_MAX_PAIRS, s->name);
	struct im_config_pair *grown = reallocarray(s->pairs, s->pair_count + 1, sizeof *grown);
	if (!grown)
		return no_memory(p);
	s->pairs = grown;
	struct im_config_pair *pair = &grown[s->pair_count++];
	*pair = (struct im_config_pair){ strdup(key), strdup(value) };
	return pair->key && pair->value ? 0 : no_memory(p);
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
	return add_pair(p, s, key, value);
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
	return wrong(p, "unknown key %s in [retention]; there are keep_last, keep_hourly, keep_daily, keep_weekly, "
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
		return wrong(p, "%s = %s is out of bounds: from %s to %s", key, value, im_duration_format(least, sizeof least, min_ms),
		    im_duration_format(most, sizeof most, max_ms));
	*field = ms;
	return 0;
}

static int set_size(struct parser *p, uint64_t *field, const char *key, const char *value, uint64_t min_bytes)
{
	char least[24];
	uint64_t bytes;
	if (!im_size_parse(value, &bytes))
		return wrong(p, "%s = %s is not a size such as 512M or 2GiB", key, value);
	if (bytes < min_bytes || bytes > INT64_MAX)
		return wrong(p, "%s = %s is out of bounds: at least %s", key, value, im_bytes_format(least, sizeof least, min_bytes));
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
	return wrong(p, "unknown key %s in [follow]; there are flush, heartbeat, spool_limit, hold", key);
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
			return wrong(p, "at = %s is unknown; there are latest and random", value);
		return set_text(p, &c->drill_at, key, value);
	}
	if (strcmp(key, "cpus") == 0)
		return set_number(p, &c->drill_cpus, key, value, 1, 1024);
	if (strcmp(key, "space") == 0)
		return set_size(p, &c->drill_space_bytes, key, value, 1);
	return wrong(p, "unknown key %s in [drill]; there are scratch, drill_exec, at, cpus, space", key);
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
	return wrong(p, "unknown key %s in [schedule]; there are backup, verify, drill", key);
}

/* Its value is not quoted: a webhook's URL is often a secret. */
static int set_url(struct parser *p, char **field, const char *key, const char *value, const char *scheme, const char *with_tls)
{
	const char *rest = strncmp(value, scheme, strlen(scheme)) == 0   ? value + strlen(scheme)
	    : strncmp(value, with_tls, strlen(with_tls)) == 0 ? value + strlen(with_tls)
	                                                      : "";
	if (strchr("/?#:@", *rest)) /* also the end */
		return wrong(p, "%s must begin with %s or %s and the name of a host", key, with_tls, scheme);
	for (const char *at = value; *at; at++)
		if (*at <= ' ' || *at > '~')
			return wrong(p, "%s holds a character that must be written as %%XX in a URL", key);
	return set_text(p, field, key, value);
}

static int set_smtp(struct parser *p, char **field, const char *key, const char *value)
{
	if (strchr(value, '@'))
		return wrong(p, "%s must not hold a user or password: write them into a file and name it with credentials =", key);
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
			return wrong(p, "%s = %s is not %s such as ops@example.org", key, value, several ? "a list of addresses" : "an address");
		at += len + strspn(at + len, " \t");
		if (!*at)
			return set_text(p, field, key, value);
		if (*at != ',')
			return wrong(p, "%s = %s: addresses are separated by commas", key, value);
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
	return wrong(p, "unknown key %s in [alert]; there are command, webhook, mail, smtp, from, credentials, repeat, ping_backup, ping_verify, "
	    "ping_drill", key);
}

static int on_key(void *context, const char *section, const char *key, const char *value)
{
	(void)section; /* inih cuts it to 49 bytes; p->section is whole */
	struct parser *p = context;
	if (p->rc)
		return 0;
	if (!*key)
		wrong(p, "a key is missing before the =");
	else if (!*value)
		wrong(p, "%s has no value", key);
	else if (p->section == SECTION_NODE)
		node_key(p, key, value);
	else if (p->section == SECTION_VAULT)
		vault_key(p, key, value);
	else if (p->section == SECTION_STORE)
		store_key(p, key, value);
	else if (p->section == SECTION_RETENTION)
		retention_key(p, key, value);
	else if (p->section == SECTION_FOLLOW)
		follow_key(p, key, value);
	else if (p->section == SECTION_DRILL)
		drill_key(p, key, value);
	else if (p->section == SECTION_SCHEDULE)
		schedule_key(p, key, value);
	else if (p->section == SECTION_ALERT)
		alert_key(p, key, value);
	else
		wrong(p, "%s stands before the first section", key);
	return p->rc == 0;
}

static int default_node_name(struct parser *p)
{
	char host[256] = "";
	if (gethostname(host, sizeof host - 1) == 0 && im_name_valid(host)) {
		p->config->node_name = strdup(host);
		return p->config->node_name ? 0 : no_memory(p);
	}
	return im_fail(p->err, IM_EUSAGE, "%s: this machine's host name \"%s\" cannot name a node; set name = in [node]",
	    p->source, host);
}

/* Alerts that could never be sent are a mistake to be told now, not on the day. */
static int check_alerts(struct parser *p)
{
	const struct im_config *c = p->config;
	if (c->alert_mail && !(c->alert_smtp && c->alert_from))
		return im_fail(p->err, IM_EUSAGE, "%s: mail = in [alert] also needs %s =", p->source, c->alert_smtp ? "from" : "smtp");
	if (!c->alert_mail && (c->alert_smtp || c->alert_from || c->alert_credentials))
		return im_fail(p->err, IM_EUSAGE, "%s: smtp, from and credentials in [alert] are for mail =, which is missing", p->source);
	bool pings = c->alert_ping_backup || c->alert_ping_verify || c->alert_ping_drill;
	if (p->seen_alert && !c->alert_command && !c->alert_webhook && !c->alert_mail && !pings)
		return im_fail(p->err, IM_EUSAGE, "%s: [alert] says nowhere to send to: it needs command =, webhook =, mail = or a ping", p->source);
	return 0;
}

static int complete(struct parser *p)
{
	struct im_config *c = p->config;
	for (size_t i = 0; i < c->store_count; i++) {
		const struct im_config_store *s = &c->stores[i];
		if (!s->type || !s->path)
			return im_fail(p->err, IM_EUSAGE, "%s: [store %s] has no %s =", p->source, s->name,
			    s->type ? "path" : "type");
	}
	int bad = check_alerts(p);
	if (bad)
		return bad;
	if (!c->node_name) {
		int rc = default_node_name(p);
		if (rc)
			return rc;
	}
	if (!c->tier && !(c->tier = strdup("im")))
		return no_memory(p);
	if (!c->drill_scratch && !(c->drill_scratch = strdup("/var/tmp")))
		return no_memory(p);
	if (!c->drill_at && !(c->drill_at = strdup("latest")))
		return no_memory(p);
	if (!p->has_rto)
		c->rto_ms = im_tier_rto_ms(c->tier);
	if (!p->has_level)
		c->compression_level = 1;
	return 0;
}

int im_config_parse(const char *text, const char *source, struct im_config **ret, struct im_error *err)
{
	struct im_config *c = calloc(1, sizeof *c);
	if (!c || !(c->text = strdup(text))) {
		im_config_free(c);
		return im_fail(err, IM_ENOMEM, "out of memory reading %s", source);
	}
	c->follow_flush_ms = IM_FOLLOW_FLUSH_MS;
	c->alert_repeat_ms = IM_ALERT_REPEAT_MS;
	c->follow_heartbeat_ms = IM_FOLLOW_HEARTBEAT_MS;
	c->follow_hold_ms = IM_FOLLOW_HOLD_MS;
	c->follow_spool_limit_bytes = IM_FOLLOW_SPOOL_LIMIT_BYTES;
	struct parser p = { .config = c, .source = source, .rest = text, .err = err };
	int line = ini_parse_stream(next_line, &p, on_key, &p);
	int rc = p.rc;
	if (!rc && line > 0)
		rc = im_fail(err, IM_EUSAGE, "%s, line %d: neither [section] nor key = value", source, line);
	else if (!rc && line < 0)
		rc = im_fail(err, IM_ENOMEM, "out of memory reading %s", source);
	if (!rc)
		rc = complete(&p);
	if (rc) {
		im_config_free(c);
		return rc;
	}
	*ret = c;
	return 0;
}

int im_config_load(const char *path, struct im_config **ret, struct im_error *err)
{
	auto_buf struct im_buf text = { 0 };
	int rc = im_file_read(path, CONFIG_MAX_BYTES, &text, err);
	if (rc)
		return rc;
	if (text.len && memchr(text.data, 0, text.len))
		return im_fail(err, IM_EUSAGE, "%s is not a text file: it holds a zero byte", path);
	im_buf_put_u8(&text, 0);
	if (text.failed)
		return im_fail(err, IM_ENOMEM, "out of memory reading %s", path);
	return im_config_parse((const char *)text.data, path, ret, err);
}

static void free_store(struct im_config_store *s)
{
	for (size_t i = 0; i < s->pair_count; i++) {
		free(s->pairs[i].key);
		free(s->pairs[i].value);
	}
	free(s->pairs);
	free(s->name);
	free(s->type);
	free(s->path);
}

void im_config_free(struct im_config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->store_count; i++)
		free_store(&c->stores[i]);
	free(c->stores);
	free(c->text);
	free(c->node_name);
	free(c->tier);
	free(c->state_dir);
	free(c->vault_url);
	free(c->vault_key);
	free(c->dedupe);
	free(c->drill_scratch);
	free(c->drill_exec);
	free(c->drill_at);
	free(c->alert_command);
	free(c->alert_webhook);
	free(c->alert_mail);
	free(c->alert_smtp);
	free(c->alert_from);
	free(c->alert_credentials);
	free(c->alert_ping_backup);
	free(c->alert_ping_verify);
	free(c->alert_ping_drill);
	free(c);
}

const char *im_config_get(const struct im_config_store *s, const char *key, const char *fallback)
{
	for (size_t i = 0; i < s->pair_count; i++)
		if (strcmp(s->pairs[i].key, key) == 0)
			return s->pairs[i].value;
	return fallback;
}

const struct im_config_store *im_config_find_store(const struct im_config *c, const char *name)
{
	for (size_t i = 0; i < c->store_count; i++)
		if (strcmp(c->stores[i].name, name) == 0)
			return &c->stores[i];
	return NULL;
}
