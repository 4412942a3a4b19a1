/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where it begins: the clock first (a recovery is timed from here), then signals, locale, options,
 * the command, and the one place that turns a code into an exit status.
 */
#include "base/clock.h"
#include "base/interrupt.h"
#include "cli/alert.h"
#include "cli/output.h"
#include "cli/runs.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* What a mistake on the command line ends with. */
static int hint(struct im_error *err, const struct command *command)
{
	size_t n = strlen(err->text);
	snprintf(err->text + n, sizeof err->text - n, " (see imvault %s --help)", command->name);
	return im_error_context(err, "%s", command->name);
}

static int run_command(struct cli *cli, const struct command *command, int argc, char **argv, struct im_error *err)
{
	struct options *o = &cli->options;
	int rc = options_parse_command(argc, argv, command->options, o, err);
	if (rc)
		return hint(err, command);
	if (o->help) {
		fputs(command->help, stdout);
		return 0;
	}
	if (o->version) {
		puts("imvault " IMVAULT_VERSION);
		return 0;
	}
	if (command->operands_max >= 0 && o->operand_count > command->operands_max)
		return im_fail(err, IM_EUSAGE, "unexpected argument %s", o->operands[command->operands_max]), hint(err, command);
	output_text(cli->json, "command", cli->command); /* first in the object */
	rc = command->run(cli, err);
	runs_record(cli, rc, err);
	return rc;
}

static int run(struct cli *cli, int argc, char **argv, struct im_error *err)
{
	int next = argc;
	int rc = options_parse_global(argc, argv, &cli->options, &next, err);
	if (rc)
		return rc;
	if (cli->options.version) {
		puts("imvault " IMVAULT_VERSION);
		return 0;
	}
	if (next == argc && !cli->options.help)
		return im_fail(err, IM_EUSAGE, "which command? See imvault --help");
	if (next == argc) {
		fputs(commands_help(), stdout);
		return 0;
	}
	const struct command *command = commands_find(argv[next]);
	cli->command = argv[next];
	if (!command && strcmp(argv[next], "help") == 0 && next + 1 < argc && commands_find(argv[next + 1])) {
		cli->options.help = true;
		command = commands_find(argv[next + 1]);
		fputs(command->help, stdout);
		return 0;
	}
	if (!command)
		return commands_unknown(argv[next], err);
	return run_command(cli, command, argc - next, argv + next, err);
}

int main(int argc, char **argv)
{
	struct cli cli = { .start_us = im_monotonic_us() };
	struct im_error err = { 0 };
	cli.opened_us = cli.start_us;
	im_interrupt_install();
	umask(077);
	setlocale(LC_CTYPE, "C.UTF-8"); /* libarchive converts file names by it */
	cli.json = json_object();
	int rc = crypto_init(&err);
	if (rc == 0)
		rc = run(&cli, argc, argv, &err);
	cli.options.json |= options_want_json(argc, argv);
	int status = output_finish(&cli, rc, &err);
	alert_after_run(&cli, rc, status, &err);
	vault_close(cli.vault);
	im_config_free(cli.config);
	options_clear(&cli.options);
	json_decref(cli.json);
	return status;
}
