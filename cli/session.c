/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding configuration, vault and key. In an emergency there is only --vault and --key: then no
 * configuration is looked for, so that a leftover or broken one cannot stand in the way.
 */
#include "cli/cli.h"

#include "base/clock.h"
#include "cli/alert.h"
#include "cli/output.h"
#include "cli/passphrase.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int load_config(struct cli *cli, bool must, struct im_error *err)
{
	const char *path = cli->options.config;
	if (path)
		return im_config_load(path, &cli->config, err) == IM_ENOTFOUND ? (err->code = IM_EUSAGE) : (int)err->code;
	struct im_error why = { 0 };
	int rc = im_config_load(OPTIONS_DEFAULT_CONFIG, &cli->config, &why);
	if (rc == 0 || (rc == IM_ENOTFOUND && !must))
		return 0;
	if (rc == IM_ENOTFOUND)
		return im_fail(err, IM_EUSAGE, "there is no configuration %s; name one with -c FILE", OPTIONS_DEFAULT_CONFIG);
	return im_fail(err, rc, "%s", why.text);
}

int session_config(struct cli *cli, bool must, struct im_error *err)
{
	if (cli->config)
		return 0;
	int rc = load_config(cli, must, err);
	if (rc == 0)
		alert_ping_begin(cli);
	return rc;
}

const char *session_url(const struct cli *cli)
{
	return cli->options.vault ? cli->options.vault : cli->config ? cli->config->vault_url : NULL;
}

const char *session_key(const struct cli *cli)
{
	return cli->options.key ? cli->options.key : cli->config ? cli->config->vault_key : NULL;
}

const char *session_node(const struct cli *cli)
{
	return cli->options.node ? cli->options.node : cli->config ? cli->config->node_name : NULL;
}

char *session_ask(void *context, const char *path)
{
	const struct cli *cli = context;
	struct im_error why = { 0 };
	if (!cli->options.passphrase_file)
		return passphrase_ask(path);
	char *ret = passphrase_from_file(cli->options.passphrase_file, &why);
	if (!ret)
		output_problem("%s", why.text);
	return ret;
}

static int read_config_if_needed(struct cli *cli, enum session_need need, struct im_error *err)
{
	bool self_sufficient = cli->options.vault && (cli->options.key || need == SESSION_KEYLESS_TOO);
	if (self_sufficient && !cli->options.config)
		return 0;
	return session_config(cli, false, err);
}

int session_open(struct cli *cli, enum session_need need, struct im_error *err)
{
	int rc = read_config_if_needed(cli, need, err);
	if (rc)
		return rc;
	const char *url = session_url(cli), *key = session_key(cli);
	if (cli->options.node && !im_name_valid(cli->options.node))
		return im_fail(err, IM_EUSAGE, "\"%s\" is not a node name", cli->options.node);
	if (!url)
		return im_fail(err, IM_EUSAGE, "where is the vault? Give --vault URL (and --key FILE), or a configuration with -c FILE");
	if (!key && need != SESSION_KEYLESS_TOO)
		return im_fail(err, IM_EUSAGE, "which key? Give --key FILE%s", need == SESSION_RESTORE_KEY ? " with the restore key" : "");
	rc = vault_open(url, key, session_ask, cli, 0, &cli->vault, err);
	if (rc == IM_ENOTFOUND && key && access(key, F_OK))
		rc = err->code = IM_EUSAGE;
	if (rc)
		return rc;
	cli->opened_us = im_monotonic_us();
	if (need == SESSION_RESTORE_KEY && cli->vault->key->role != KEY_RESTORE)
		return im_fail(err, IM_EKEY, "%s is a %s key and cannot decrypt content; give the restore key with --key FILE", key,
		    key_role_name(cli->vault->key->role));
	return 0;
}

static int take_node(void *context, const char *name, uint64_t size_bytes)
{
	struct session_only *n = context;
	const char *begin = strchr(name, '/') + 1;
	(void)size_bytes;
	if (n->count++ == 0)
		snprintf(n->name, sizeof n->name, "%.*s", (int)strcspn(begin, "/"), begin);
	return 0;
}

int session_choose_node(const struct cli *cli, struct session_only *only, const char **ret, struct im_error *err)
{
	const struct key_file *key = cli->vault->key;
	*ret = session_node(cli) ? session_node(cli) : key->node;
	if (*ret)
		return 0;
	int rc = storage_list_folders(cli->vault->storage, "snapshots/", take_node, only, err);
	if (rc == 0 && only->count != 1)
		rc = im_fail(err, IM_EUSAGE, "%s: which node? Give --node NAME (the vault has snapshots of %zu)", cli->command,
		    only->count);
	*ret = only->name;
	return rc;
}
