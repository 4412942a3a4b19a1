/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IM_RESTORE_INSTANT_ABORT_H
#define IM_RESTORE_INSTANT_ABORT_H

#include "base/error.h"

/* Ends the instant restores of these folders (absolute paths, NULL-terminated; NULL: of what is mounted now), living or cut off,
 * and puts back what stood there before; what the service wrote since goes with them. An alias that is left of a finished one is taken
 * away. say: one line for each. IM_ELOCKED: a service still uses one, nothing was changed; IM_ENOTFOUND: there is none. */
int instant_abort(const char *const *paths, void (*say)(void *context, const char *text), void *context, struct im_error *err);

/* What is left of finished ones (all that is mounted now), as far as no service uses it any more. */
void instant_sweep(void);
/* Before another restore to path: what is left of a finished one, or of one that died before it showed anything, is taken away.
 * IM_ELOCKED: an instant restore is under way there, or was cut off. */
int instant_make_way(const char *path, struct im_error *err);

#endif
