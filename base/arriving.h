/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders that an instant restore is still filling: their files have holes where content is to come,
 * so a backup of them could store zeros. Such a folder has a stage beside it, PARENT/.NAME.imvault-instant,
 * with a record in it. Everybody who reads or replaces a service's folders asks here first.
 */
#ifndef IM_BASE_ARRIVING_H
#define IM_BASE_ARRIVING_H

#include <stdbool.h>

#define IM_ARRIVING_SUFFIX ".imvault-instant"
#define IM_ARRIVING_RECORD "instant.json"
#define IM_ARRIVING_DONE "switched.json" /* beside it, or alone: it has arrived */

/* "." NAME SUFFIX, shortened to fit; NULL: SUFFIX alone. ret has NAME_MAX + 1 bytes. */
char *im_stage_name(char *ret, const char *name, const char *suffix);
/* Is path (absolute) such a folder, or below one? Returns the stage folder (allocated), or NULL. */
char *im_arriving_find(const char *path);

#endif
