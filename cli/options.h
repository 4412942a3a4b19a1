/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line. Every option exists once, in the table of options.c; a command names those it
 * takes. Strings are borrowed from argv.
 */
#ifndef IM_CLI_OPTIONS_H
#define IM_CLI_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIONS_DEFAULT_CONFIG "/etc/imvault/imvault.conf"

enum option_id {
	OPTION_END, OPTION_CONFIG, OPTION_JSON, OPTION_QUIET, OPTION_HELP, OPTION_VERSION, OPTION_VAULT, OPTION_KEY,
	OPTION_NODE, OPTION_PASSPHRASE_FILE, OPTION_RESTORE_KEY, OPTION_NODE_KEY, OPTION_FULL, OPTION_AT, OPTION_STORE,
	OPTION_PATH, OPTION_TO, OPTION_OVERWRITE, OPTION_EXEC, OPTION_DRY_RUN, OPTION_CHECK, OPTION_RTO, OPTION_READ,
	OPTION_OUTPUT, OPTION_ROLE, OPTION_NAME, OPTION_OUT, OPTION_NEW_PASSPHRASE_FILE, OPTION_ONCE, OPTION_INSTANT, OPTION_DETACH, OPTION_STOP, OPTION_READY, OPTION_RESUME, OPTION_ABORT,
	OPTION_SCRATCH, OPTION_OPERATOR, OPTION_REASON, OPTION_CPUS, OPTION_KEEP, OPTION_LANG, OPTION_TEST, OPTION_HTML, OPTION_COUNT
};

struct options {
	const char *config, *vault, *key, *node, *passphrase_file; /* NULL: not given */
	bool json, quiet, help, version;
	const char *restore_key, *node_key, *at, *path, *to, *exec, *stop, *ready, *check, *output, *role, *name, *out, *new_passphrase_file;
	const char *scratch, *operator_name, *reason, *cpus, *lang;
	bool full, overwrite, dry_run, once, detach, resume, abort, keep, test, html;
	const char *instant;      /* NULL: not given; "": without a mode */
	unsigned read_percent;    /* 0: --read not given */
	int64_t rto_ms;           /* 0: not given */
	const char **stores;      /* NULL-terminated; NULL: none named */
	size_t store_count;
	char **operands;          /* after the command's name; borrowed */
	int operand_count;
};

/* Options before the command. ret_next: index of the command in argv (argc: none). IM_EUSAGE. */
int options_parse_global(int argc, char **argv, struct options *ret, int *ret_next, struct im_error *err);
/* The command's arguments; argv[0] is its name. ids ends with OPTION_END and adds to the global ones. */
int options_parse_command(int argc, char **argv, const enum option_id *ids, struct options *ret, struct im_error *err);
void options_clear(struct options *o);

/* Is --json among these, whatever else is wrong with them? */
bool options_want_json(int argc, char **argv);

/* The word nearest to text among count words, or NULL if none is near. */
const char *options_nearest(const char *text, const char *const *words, size_t count);

#endif
