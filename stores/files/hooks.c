/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a hook. post runs to its end even when we were interrupted: it may be what lets the server go on.
 */
#include "stores/files/hooks.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/shell.h"

#include <string.h>

static int run(const struct im_config_store *store, const char *key, const char *command, struct im_error *err)
{
	struct im_shell shell = { .command = command, .input_fd = -1, .timeout_key = "hook_timeout", .to_the_end = strcmp(key, "post") == 0 };
	if (!im_duration_parse(im_config_get(store, "hook_timeout", FILES_HOOK_TIMEOUT_DEFAULT), &shell.timeout_ms))
		return im_fail(err, IM_EUSAGE, "hook_timeout is not a duration");
	auto_free char *name = im_format("IMVAULT_STORE=%s", store->name);
	auto_free char *path = im_format("IMVAULT_PATH=%s", store->path);
	if (!name || !path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	shell.variables = (char *const[]){ name, path, NULL };
	return im_shell_run(&shell, err);
}

int files_hook_run(const struct im_config_store *store, const char *key, struct im_error *err)
{
	const char *command = im_config_get(store, key, NULL);
	if (!command)
		return 0;
	struct im_error why = { 0 };
	int rc = run(store, key, command, &why);
	return rc ? im_fail(err, rc, "the %s hook \"%.100s\" %s", key, command, why.text) : 0;
}
