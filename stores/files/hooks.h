/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands around a store's capture (`pre =`, `post =`): run by /bin/sh -c with a time-out, in
 * their own process group, which is ended with them.
 */
#ifndef IM_STORES_FILES_HOOKS_H
#define IM_STORES_FILES_HOOKS_H

#include "base/config.h"

#define FILES_HOOK_TIMEOUT_DEFAULT "10m"

/* key is "pre" or "post": runs that command if the store has one. The environment has IMVAULT_STORE and
 * IMVAULT_PATH. The error holds the last line the command wrote to stderr. */
int files_hook_run(const struct im_config_store *store, const char *key, struct im_error *err);

#endif
