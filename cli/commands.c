/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command table. To add a command: a file cmd_NAME.c and a line here.
 */
#include "cli/cli.h"

#include <string.h>

const struct command *const commands_table[] = { &cmd_init, &cmd_backup, &cmd_follow, &cmd_list, &cmd_restore, &cmd_drill, &cmd_verify, &cmd_export,
	&cmd_key, &cmd_status, &cmd_alert, &cmd_report, &cmd_runbook, &cmd_metrics, &cmd_drill_service, NULL };

/* Named in the documentation's outlook; people will try them. */
static const char *const later[] = { "prune" };

const struct command *commands_find(const char *name)
{
	for (const struct command *const *c = commands_table; *c; c++)
		if (strcmp((*c)->name, name) == 0)
			return *c;
	return NULL;
}

int commands_unknown(const char *name, struct im_error *err)
{
	const char *names[sizeof commands_table / sizeof *commands_table];
	size_t count = 0;
	for (size_t i = 0; i < sizeof later / sizeof *later; i++)
		if (strcmp(later[i], name) == 0)
			return im_fail(err, IM_EUSAGE, "this version (%s) has no command %s; a later one will (see imvault --help)",
			    IMVAULT_VERSION, name);
	for (const struct command *const *c = commands_table; *c; c++)
		names[count++] = (*c)->name;
	const char *near = options_nearest(name, names, count);
	if (near)
		return im_fail(err, IM_EUSAGE, "there is no command %s; did you mean %s? (see imvault --help)", name, near);
	return im_fail(err, IM_EUSAGE, "there is no command %s (see imvault --help)", name);
}

const char *commands_help(void)
{
	return
	    "imvault: encrypted snapshots of message stores, and a timed way back.\n"
	    "\n"
	    "  imvault [-c FILE] COMMAND [OPTION...]        COMMAND --help teaches each\n"
	    "\n"
	    "  init      make a vault, its restore key and a node key\n"
	    "  backup    take one incremental snapshot of this node (for cron)\n"
	    "  follow    keep shipping the log (a service; --once for cron)\n"
	    "  list      what snapshots there are\n"
	    "  restore   rebuild the node, a store or a path, and time it\n"
	    "  drill     rehearse a restore into scratch; check, time, record it\n"
	    "  verify    check the vault; --read: every byte\n"
	    "  status    is this node protected? Exit 0: yes\n"
	    "  report    a page: is the target proven?  runbook  the emergency page\n"
	    "  metrics   status for Prometheus         alert    where alerts go; --test\n"
	    "  key       list, add, revoke, rotate     export   a snapshot as a tar archive\n"
	    "\n"
	    "  --json         one JSON object on stdout      --quiet    problems only\n"
	    "  --vault URL --key FILE [--node NAME]          instead of a configuration\n"
	    "  --passphrase-file FILE    never on the command line\n"
	    "\n"
	    "In an emergency, on a bare machine (add --dry-run to see what it would do):\n"
	    "  imvault restore --vault /mnt/vault --key restore.key\n"
	    "Exit: 0 done, 1 failure, 2 usage, 3 in part, 4 no vault, 5 key, 6 damage,\n"
	    "7 not found, 8 no space, 9 locked, 10 too late, 11 differs. man imvault: more.\n";
}
