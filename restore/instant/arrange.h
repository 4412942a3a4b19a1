/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making room at a final place before a staged folder is shown there: what stands there is moved
 * aside, or, where only single files of a folder are restored, everything else in it moves into the
 * staged folder, which then is the whole. All of it is written down first and can be undone, also by
 * a later command.
 */
#ifndef IM_RESTORE_INSTANT_ARRANGE_H
#define IM_RESTORE_INSTANT_ARRANGE_H

#include "restore/instant/cover.h"
#include "restore/target.h"

#include <jansson.h>

struct arrangement {
	struct cover cover;
	char *stage;   /* absolute */
	bool is_folder; /* single files of it are restored */
	bool loose;    /* the empty place could not be made immutable */
	json_t *moves; /* [{"from": NAME, "to": NAME}]: from the place's folder into the staged one, or, if it is no folder, its parent's
	                  names: the old one aside */
};

/* What has to be moved; nothing is changed yet. IM_EUSAGE: it cannot be done. */
int arrange_plan(const struct target *t, size_t whole, struct arrangement *ret, struct im_error *err);
int arrange_do(struct arrangement *a, struct im_error *err);
/* Whatever of it was done is undone; the mount is gone already. */
int arrange_undo(const struct arrangement *a, struct im_error *err);
/* When nothing in it is needed any more. IM_ELOCKED, and nothing is touched: the live folder is still mounted in there. */
int arrange_remove_stage(const struct arrangement *a, struct im_error *err);
void arrange_clear(struct arrangement *a);

#endif
