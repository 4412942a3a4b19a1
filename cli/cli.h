/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every command works with: its options, the answer under construction, and the vault. Text
 * goes to stdout, problems and progress to stderr; with --json stdout is one object, always.
 */
#ifndef IM_CLI_CLI_H
#define IM_CLI_CLI_H

#include "base/config.h"
#include "cli/options.h"
#include "vault/vault.h"

#include <jansson.h>

struct cli {
	struct options options;
	const char *command;
	int64_t start_us, opened_us; /* monotonic: process begun, vault open */
	json_t *json;                /* the answer; the stable fields are added by output_finish */
	struct im_config *config;    /* NULL: none was needed or read */
	struct vault *vault;
	bool error_shown;            /* all there is to say has been said on stderr */
};

struct command {
	const char *name, *summary, *help; /* help: at most 24 lines of 80 */
	const enum option_id *options;
	int operands_max; /* -1: any number */
	int (*run)(struct cli *cli, struct im_error *err);
};

/* commands.c */
extern const struct command *const commands_table[]; /* NULL-terminated */
const struct command *commands_find(const char *name);
int commands_unknown(const char *name, struct im_error *err);
const char *commands_help(void);

extern const struct command cmd_init, cmd_backup, cmd_follow, cmd_list, cmd_restore, cmd_verify, cmd_export, cmd_key, cmd_status, cmd_drill, cmd_drill_service, cmd_alert, cmd_metrics, cmd_report,
	cmd_runbook;

/* session.c: configuration and vault, from options and file. */

/* Reads the configuration: the one named, or the usual one if it is there. must: it has to be. */
int session_config(struct cli *cli, bool must, struct im_error *err);
/* URL and key from options, else from the configuration. */
const char *session_url(const struct cli *cli);
const char *session_key(const struct cli *cli);
/* --node, else the configuration's, else NULL. */
const char *session_node(const struct cli *cli);
enum session_need { SESSION_ANY_KEY, SESSION_RESTORE_KEY, SESSION_KEYLESS_TOO };
/* Reads the configuration if it is needed and opens the vault as cli->vault. */
int session_open(struct cli *cli, enum session_need need, struct im_error *err);
struct session_only { /* the vault's only node */
	char name[65];
	size_t count;
};
/* The node asked for, the key's own, or the vault's only one; borrowed, perhaps from only. The vault is open. */
int session_choose_node(const struct cli *cli, struct session_only *only, const char **ret, struct im_error *err);
/* For key_file_load and friends; context is the cli. */
char *session_ask(void *context, const char *path);

#endif
