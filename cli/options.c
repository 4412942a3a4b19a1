/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table of options; getopt_long does the parsing, with a table cut for each command. Mistakes
 * say what was meant, if that can be guessed.
 */
#include "cli/options.h"

#include "base/clock.h"

#include <ctype.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	int has_arg;
	char letter; /* 0: none */
} table[OPTION_COUNT] = {
	[OPTION_CONFIG] = { "config", required_argument, 'c' },
	[OPTION_JSON] = { "json", no_argument, 0 },
	[OPTION_QUIET] = { "quiet", no_argument, 'q' },
	[OPTION_HELP] = { "help", no_argument, 'h' },
	[OPTION_VERSION] = { "version", no_argument, 0 },
	[OPTION_VAULT] = { "vault", required_argument, 0 },
	[OPTION_KEY] = { "key", required_argument, 0 },
	[OPTION_NODE] = { "node", required_argument, 0 },
	[OPTION_PASSPHRASE_FILE] = { "passphrase-file", required_argument, 0 },
	[OPTION_RESTORE_KEY] = { "restore-key", required_argument, 0 },
	[OPTION_NODE_KEY] = { "node-key", required_argument, 0 },
	[OPTION_FULL] = { "full", no_argument, 0 },
	[OPTION_AT] = { "at", required_argument, 0 },
	[OPTION_STORE] = { "store", required_argument, 0 },
	[OPTION_PATH] = { "path", required_argument, 0 },
	[OPTION_TO] = { "to", required_argument, 0 },
	[OPTION_OVERWRITE] = { "overwrite", no_argument, 0 },
	[OPTION_EXEC] = { "exec", required_argument, 0 },
	[OPTION_DRY_RUN] = { "dry-run", no_argument, 0 },
	[OPTION_CHECK] = { "check", required_argument, 0 },
	[OPTION_RTO] = { "rto", required_argument, 0 },
	[OPTION_READ] = { "read", optional_argument, 0 },
	[OPTION_OUTPUT] = { "output", required_argument, 'o' },
	[OPTION_ROLE] = { "role", required_argument, 0 },
	[OPTION_NAME] = { "name", required_argument, 0 },
	[OPTION_OUT] = { "out", required_argument, 0 },
	[OPTION_ONCE] = { "once", no_argument, 0 },
	[OPTION_INSTANT] = { "instant", optional_argument, 0 },
	[OPTION_DETACH] = { "detach", no_argument, 0 },
	[OPTION_READY] = { "ready", required_argument, 0 },
	[OPTION_STOP] = { "stop", required_argument, 0 },
	[OPTION_RESUME] = { "resume", no_argument, 0 },
	[OPTION_ABORT] = { "abort", no_argument, 0 },
	[OPTION_SCRATCH] = { "scratch", required_argument, 0 },
	[OPTION_OPERATOR] = { "operator", required_argument, 0 },
	[OPTION_REASON] = { "reason", required_argument, 0 },
	[OPTION_CPUS] = { "cpus", required_argument, 0 },
	[OPTION_KEEP] = { "keep", no_argument, 0 },
	[OPTION_TEST] = { "test", no_argument, 0 },
	[OPTION_LANG] = { "lang", required_argument, 0 },
	[OPTION_HTML] = { "html", no_argument, 0 },
	[OPTION_NEW_PASSPHRASE_FILE] = { "new-passphrase-file", required_argument, 0 },
};

static const enum option_id global_ids[] = { OPTION_CONFIG, OPTION_JSON, OPTION_QUIET, OPTION_HELP, OPTION_VERSION,
	OPTION_VAULT, OPTION_KEY, OPTION_NODE, OPTION_PASSPHRASE_FILE, OPTION_END };

#define LONG_BASE 256 /* above every letter */

struct accepted { /* what getopt_long is told */
	struct option longs[OPTION_COUNT + 1];
	char shorts[2 * OPTION_COUNT + 3];
	const char *names[OPTION_COUNT];
	size_t count;
};

static void accept_ids(struct accepted *a, const enum option_id *ids)
{
	for (; *ids != OPTION_END; ids++) {
		char *end = a->shorts + strlen(a->shorts);
		a->longs[a->count] = (struct option){ table[*ids].name, table[*ids].has_arg, NULL, LONG_BASE + (int)*ids };
		a->names[a->count++] = table[*ids].name;
		if (table[*ids].letter) {
			*end++ = table[*ids].letter;
			if (table[*ids].has_arg == required_argument)
				*end++ = ':';
			*end = '\0';
		}
	}
}

static enum option_id id_of(int found)
{
	if (found >= LONG_BASE)
		return (enum option_id)(found - LONG_BASE);
	for (int i = 1; i < OPTION_COUNT; i++)
		if (table[i].letter == found)
			return (enum option_id)i;
	return OPTION_END;
}

static const char **text_field(struct options *o, enum option_id id)
{
	switch (id) {
	case OPTION_CONFIG: return &o->config;
	case OPTION_VAULT: return &o->vault;
	case OPTION_KEY: return &o->key;
	case OPTION_NODE: return &o->node;
	case OPTION_PASSPHRASE_FILE: return &o->passphrase_file;
	case OPTION_RESTORE_KEY: return &o->restore_key;
	case OPTION_NODE_KEY: return &o->node_key;
	case OPTION_AT: return &o->at;
	case OPTION_PATH: return &o->path;
	case OPTION_TO: return &o->to;
	case OPTION_EXEC: return &o->exec;
	case OPTION_STOP: return &o->stop;
	case OPTION_READY: return &o->ready;
	case OPTION_CHECK: return &o->check;
	case OPTION_OUTPUT: return &o->output;
	case OPTION_ROLE: return &o->role;
	case OPTION_NAME: return &o->name;
	case OPTION_OUT: return &o->out;
	case OPTION_NEW_PASSPHRASE_FILE: return &o->new_passphrase_file;
	case OPTION_SCRATCH: return &o->scratch;
	case OPTION_OPERATOR: return &o->operator_name;
	case OPTION_REASON: return &o->reason;
	case OPTION_CPUS: return &o->cpus;
	case OPTION_LANG: return &o->lang;
	default: return NULL;
	}
}

static bool *flag_field(struct options *o, enum option_id id)
{
	switch (id) {
	case OPTION_JSON: return &o->json;
	case OPTION_QUIET: return &o->quiet;
	case OPTION_HELP: return &o->help;
	case OPTION_VERSION: return &o->version;
	case OPTION_FULL: return &o->full;
	case OPTION_OVERWRITE: return &o->overwrite;
	case OPTION_DRY_RUN: return &o->dry_run;
	case OPTION_ONCE: return &o->once;
	case OPTION_DETACH: return &o->detach;
	case OPTION_RESUME: return &o->resume;
	case OPTION_ABORT: return &o->abort;
	case OPTION_KEEP: return &o->keep;
	case OPTION_TEST: return &o->test;
	case OPTION_HTML: return &o->html;
	default: return NULL;
	}
}

static int set_percent(struct options *o, const char *text, struct im_error *err)
{
	char *end = NULL;
	long v = text ? strtol(text, &end, 10) : 100;
	if (text && (!isdigit((unsigned char)*text) || (*end && strcmp(end, "%") != 0) || v < 1 || v > 100))
		return im_fail(err, IM_EUSAGE, "--read=%s is not a percentage from 1 to 100", text);
	o->read_percent = (unsigned)v;
	return 0;
}

static int add_store(struct options *o, const char *name, struct im_error *err)
{
	const char **grown = reallocarray(o->stores, o->store_count + 2, sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	o->stores = grown;
	grown[o->store_count++] = name;
	grown[o->store_count] = NULL;
	return 0;
}

static int set_option(struct options *o, enum option_id id, const char *value, struct im_error *err)
{
	const char **text = text_field(o, id);
	bool *flag = flag_field(o, id);
	if (flag) {
		*flag = true;
		return 0;
	}
	if (value && !*value)
		return im_fail(err, IM_EUSAGE, "--%s has an empty value", table[id].name);
	if (text && *text)
		return im_fail(err, IM_EUSAGE, "--%s is given twice", table[id].name);
	if (text) {
		*text = value;
		return 0;
	}
	if (id == OPTION_INSTANT) {
		o->instant = value ? value : "";
		return 0;
	}
	if (id == OPTION_STORE)
		return add_store(o, value, err);
	if (id == OPTION_READ)
		return set_percent(o, value, err);
	if (!im_duration_parse(value, &o->rto_ms) || !o->rto_ms)
		return im_fail(err, IM_EUSAGE, "--rto %s is not a duration such as 90s, 10m or 2h", value);
	return 0;
}

static int refuse(const struct accepted *a, int found, char **argv, struct im_error *err)
{
	const char *word = argv[optind - 1];
	if (found == ':')
		return im_fail(err, IM_EUSAGE, "%s needs a value", word);
	if (strncmp(word, "--", 2) != 0)
		return im_fail(err, IM_EUSAGE, "there is no option -%c here", optopt);
	size_t len = strcspn(word + 2, "=");
	char name[64] = "";
	memcpy(name, word + 2, len < sizeof name ? len : sizeof name - 1);
	const char *near = options_nearest(name, a->names, a->count);
	for (size_t i = 0; i < a->count; i++)
		if (strcmp(a->names[i], name) == 0)
			return im_fail(err, IM_EUSAGE, "--%s takes no value", name);
	if (near)
		return im_fail(err, IM_EUSAGE, "there is no option --%s here; did you mean --%s?", name, near);
	return im_fail(err, IM_EUSAGE, "there is no option --%s here", name);
}

static int parse(int argc, char **argv, struct accepted *a, struct options *ret, struct im_error *err)
{
	int found;
	opterr = 0;
	optind = 0; /* GNU: start anew */
	while ((found = getopt_long(argc, argv, a->shorts, a->longs, NULL)) != -1) {
		if (found == '?' || found == ':')
			return refuse(a, found, argv, err);
		int rc = set_option(ret, id_of(found), optarg, err);
		if (rc)
			return rc;
	}
	return 0;
}

int options_parse_global(int argc, char **argv, struct options *ret, int *ret_next, struct im_error *err)
{
	struct accepted a = { .shorts = "+:" };
	accept_ids(&a, global_ids);
	int rc = parse(argc, argv, &a, ret, err);
	*ret_next = optind;
	return rc;
}

int options_parse_command(int argc, char **argv, const enum option_id *ids, struct options *ret, struct im_error *err)
{
	struct accepted a = { .shorts = ":" };
	accept_ids(&a, global_ids);
	accept_ids(&a, ids);
	int rc = parse(argc, argv, &a, ret, err);
	ret->operands = argv + optind;
	ret->operand_count = argc - optind;
	return rc;
}

void options_clear(struct options *o)
{
	free(o->stores);
	*o = (struct options){ 0 };
}

bool options_want_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--json") == 0)
			return true;
	return false;
}

/* Levenshtein distance of words under 32 letters. */
static size_t distance(const char *a, const char *b)
{
	size_t row[32], la = strlen(a), lb = strlen(b);
	if (la >= 32 || lb >= 32)
		return 32;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			best = row[j] + 1 < best ? row[j] + 1 : best;
			row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
		}
	}
	return row[lb];
}

const char *options_nearest(const char *text, const char *const *words, size_t count)
{
	const char *best = NULL;
	size_t best_distance = 3, len = strlen(text);
	for (size_t i = 0; i < count; i++) {
		size_t d = distance(text, words[i]);
		if (len >= 3 && strncmp(text, words[i], len) == 0)
			d = 1;
		if (d < best_distance && d < len) {
			best = words[i];
			best_distance = d;
		}
	}
	return best;
}
