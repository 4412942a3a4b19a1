/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead man's switches: a service that is told when a run begins and how it ended, and that raises the
 * alarm by itself when it hears nothing, as of a machine that is off. Their common convention: the
 * check's URL for success, with /start and /fail behind it for the rest.
 */
#include "cli/alert.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "cli/alert_internal.h"
#include "cli/output.h"

#include <string.h>

const char *alert_ping_url(const struct im_config *c, const char *command)
{
	return strcmp(command, "backup") == 0 ? c->alert_ping_backup
	    : strcmp(command, "verify") == 0  ? c->alert_ping_verify
	    : strcmp(command, "drill") == 0   ? c->alert_ping_drill
	                                      : NULL;
}

static int ping(const struct cli *cli, const char *suffix, bool patient, struct im_error *err)
{
	const char *url = cli->config && cli->command ? alert_ping_url(cli->config, cli->command) : NULL;
	auto_free char *whole = url ? im_format("%s%s", url, suffix) : NULL;
	return whole ? alert_curl_ping(whole, patient, err) : 0;
}

void alert_ping_begin(const struct cli *cli)
{
	ping(cli, "/start", false, NULL); /* if it cannot be reached, that is said at the end */
}

void alert_ping_end(const struct cli *cli, int rc)
{
	struct im_error why = { 0 };
	if (rc == IM_ELOCKED || rc == IM_EINTERRUPTED)
		return; /* it was no run; the next one is awaited */
	if (ping(cli, rc ? "/fail" : "", true, &why))
		output_problem("the dead man's switch of %s could not be told: %s", cli->command, why.text);
}
