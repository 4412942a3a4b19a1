/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the configuration. inih does the INI; what it would do silently is caught before it sees
 * a line: indentation (which it takes for a continuation), lines over its buffer (which it splits),
 * and section names over 49 bytes (which it cuts). Every message names file and line.
 */
#include "base/config_internal.h"

#include "base/bytes.h"
#include "base/cleanup.h"
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

int config_wrong(struct parser *p, const char *format, ...)
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

int config_no_memory(struct parser *p)
{
	if (!p->rc)
		p->rc = im_fail(p->err, IM_ENOMEM, "out of memory reading %s", p->source);
	return p->rc;
}

static int begin_store(struct parser *p, const char *name)
{
	struct im_config *c = p->config;
	if (!im_name_valid(name))
		return config_wrong(p, "store name \"%s\" is not allowed; use 1 to 64 letters, digits, '.', '_', '-', "
		    "beginning with a letter or digit", name);
	if (im_config_find_store(c, name))
		return config_wrong(p, "there are two stores named %s", name);
	if (c->store_count == CONFIG_MAX_STORES)
		return config_wrong(p, "more than %d stores", CONFIG_MAX_STORES);
	struct im_config_store *grown = reallocarray(c->stores, c->store_count + 1, sizeof *grown);
	if (!grown)
		return config_no_memory(p);
	c->stores = grown;
	grown[c->store_count] = (struct im_config_store){ .name = strdup(name), .priority = 1 };
	if (!grown[c->store_count].name)
		return config_no_memory(p);
	c->store_count++;
	p->section = SECTION_STORE;
	return 0;
}

static int begin_single(struct parser *p, enum section section, bool *seen, const char *name)
{
	if (*seen)
		return config_wrong(p, "there are two sections [%s]", name);
	*seen = true;
	p->section = section;
	return 0;
}

/* line begins with '['. */
static int begin_section(struct parser *p, const char *line)
{
	const char *close = strchr(line, ']');
	if (!close)
		return config_wrong(p, "a section begins with [ and must end with ]");
	const char *tail = close + 1 + strspn(close + 1, " \t\r\n");
	if (*tail && *tail != ';' && *tail != '#')
		return config_wrong(p, "something follows the section's ]");
	auto_free char *name = strndup(line + 1, (size_t)(close - line - 1));
	if (!name)
		return config_no_memory(p);
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
	if (strcmp(name, "runbook") == 0)
		return begin_single(p, SECTION_RUNBOOK, &p->seen_runbook, name);
	return config_wrong(p, "unknown section [%s]; there are [node], [vault], [store NAME], [follow], [retention], [drill], [schedule], [alert] and "
	    "[runbook]", name);
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
		config_wrong(p, "the line has %zu bytes; at most %d are allowed", len, size - 2);
		return NULL;
	}
	memcpy(ret, start, len);
	memcpy(ret + len, "\n", 2);
	if (*ret == '[' && begin_section(p, ret))
		return NULL;
	return ret;
}

static int on_key(void *context, const char *section, const char *key, const char *value)
{
	(void)section; /* inih cuts it to 49 bytes; p->section is whole */
	struct parser *p = context;
	return p->rc == 0 && config_take_key(p, key, value) == 0;
}

static int default_node_name(struct parser *p)
{
	char host[256] = "";
	if (gethostname(host, sizeof host - 1) == 0 && im_name_valid(host)) {
		p->config->node_name = strdup(host);
		return p->config->node_name ? 0 : config_no_memory(p);
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
		return config_no_memory(p);
	if (!c->drill_scratch && !(c->drill_scratch = strdup("/var/tmp")))
		return config_no_memory(p);
	if (!c->drill_at && !(c->drill_at = strdup("latest")))
		return config_no_memory(p);
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

static void free_pairs(struct im_config_pair *pairs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(pairs[i].key);
		free(pairs[i].value);
	}
	free(pairs);
}

static void free_store(struct im_config_store *s)
{
	free_pairs(s->pairs, s->pair_count);
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
	free(c->runbook_restore_key);
	free(c->runbook_passphrase);
	free(c->runbook_packages);
	free(c->runbook_stop);
	free(c->runbook_start);
	free_pairs(c->runbook_lines, c->runbook_line_count);
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
