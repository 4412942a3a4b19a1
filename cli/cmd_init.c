/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault init: the vault and its two first keys.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/output.h"
#include "cli/passphrase.h"

#include <stdlib.h>

static const enum option_id options[] = { OPTION_RESTORE_KEY, OPTION_NODE_KEY, OPTION_END };

static const char help[] =
    "imvault init: make a vault and its two first keys.\n"
    "\n"
    "  imvault init --vault URL --restore-key FILE --node-key FILE [--node NAME]\n"
    "\n"
    "  --vault URL              where: a new or empty folder, best on another disk\n"
    "  --restore-key FILE       the key that decrypts; keep it away from this machine\n"
    "  --node-key FILE          the key for backups; it cannot read anything back\n"
    "  --node NAME              the only node this node key may write for\n"
    "  --passphrase-file FILE   its first line protects the restore key\n"
    "\n"
    "Asks for the restore key's passphrase on a terminal. Without a terminal and\n"
    "without --passphrase-file the restore key is left unprotected (mode 0600).\n"
    "Nothing that exists is ever overwritten.\n"
    "\n"
    "Example:\n"
    "  imvault init --vault /srv/backup/im --restore-key /media/usb/restore.key \\\n"
    "          --node-key /etc/imvault/node.key\n";

static int choose_passphrase(const struct cli *cli, char **ret, struct im_error *err)
{
	if (cli->options.passphrase_file) {
		*ret = passphrase_from_file(cli->options.passphrase_file, err);
		return *ret ? 0 : (int)err->code;
	}
	return passphrase_terminal() ? passphrase_ask_new(cli->options.restore_key, ret, err) : 0;
}

static void say(const struct cli *cli, const char *url, bool is_protected)
{
	const struct options *o = &cli->options;
	output_line(cli, "vault        %s", url);
	output_line(cli, "restore key  %s%s", o->restore_key, is_protected ? " (protected by the passphrase)" : "");
	output_line(cli, "node key     %s", o->node_key);
	output_line(cli, "%s", "");
	output_line(cli, "Next:");
	output_line(cli, "1. Move %s to a safe place off this machine, with a second copy", o->restore_key);
	output_line(cli, "   elsewhere. Only it can decrypt: without it nobody can ever read the vault.");
	output_line(cli, "2. Name the stores in %s (man imvault.conf), then:", o->config ? o->config : OPTIONS_DEFAULT_CONFIG);
	output_line(cli, "     imvault backup");
	output_line(cli, "3. Try the way back before you need it:");
	output_line(cli, "     imvault restore --vault %s --key %s --to /tmp/rehearsal", url, o->restore_key);
}

static int run(struct cli *cli, struct im_error *err)
{
	const struct options *o = &cli->options;
	char *passphrase = NULL;
	if (!o->vault && o->config) {
		int rc = session_config(cli, true, err);
		if (rc)
			return rc;
	}
	const char *url = session_url(cli);
	if (!url || !o->restore_key || !o->node_key)
		return im_fail(err, IM_EUSAGE, "init: --%s is missing (see imvault init --help)",
		    !url ? "vault URL" : !o->restore_key ? "restore-key FILE" : "node-key FILE");
	if (o->node && !im_name_valid(o->node))
		return im_fail(err, IM_EUSAGE, "\"%s\" cannot name a node; use 1 to 64 letters, digits, '.', '_', '-'", o->node);
	int rc = choose_passphrase(cli, &passphrase, err);
	bool is_protected = passphrase != NULL;
	if (rc == 0)
		rc = vault_init(url, o->restore_key, passphrase, o->node_key, o->node, err);
	passphrase_free(passphrase);
	if (rc)
		return rc;
	output_text(cli->json, "vault", url);
	output_text(cli->json, "restore_key", o->restore_key);
	output_text(cli->json, "node_key", o->node_key);
	output_boolean(cli->json, "protected", is_protected);
	say(cli, url, is_protected);
	if (!is_protected)
		output_note(cli, "%s is not protected by a passphrase: whoever has the file can read every backup. "
		    "Set one with: imvault key passphrase --key %s", o->restore_key, o->restore_key);
	return 0;
}

const struct command cmd_init = { "init", "make a vault and its first keys", help, options, 0, run };
