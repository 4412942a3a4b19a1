/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the local state lives.
 */
#include "backup/backup.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *default_base(void)
{
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	if (geteuid() == 0)
		return im_format("/var/lib/imvault");
	if (xdg && *xdg == '/')
		return im_format("%s/imvault", xdg);
	if (home && *home == '/')
		return im_format("%s/.local/state/imvault", home);
	return NULL;
}

int backup_state_base(const struct im_config *config, char **ret, struct im_error *err)
{
	char *base = config && config->state_dir ? strdup(config->state_dir) : default_base();
	if (!base)
		return im_fail(err, IM_EUSAGE, "no place for the local state: set state = in [node], or HOME");
	*ret = base;
	return 0;
}

int backup_state_folder(const struct im_config *config, const uint8_t vault_id[16], char **ret, struct im_error *err)
{
	char id[33];
	auto_free char *base = NULL;
	int rc = backup_state_base(config, &base, err);
	if (rc)
		return rc;
	char *folder = im_path_join(base, im_hex(id, vault_id, 16));
	if (!folder)
		return im_fail(err, IM_ENOMEM, "out of memory");
	*ret = folder;
	return 0;
}
