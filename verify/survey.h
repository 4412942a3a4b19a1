/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What restored message stores hold, for drills: message counts and gaps per conversation for known
 * schemas, and whether every attachment that a message refers to is there. A survey is compared with
 * that of the drill before; what is gone without having expired is a difference.
 */
#ifndef IM_VERIFY_SURVEY_H
#define IM_VERIFY_SURVEY_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct survey_store { /* borrowed */
	const char *name, *type, *path; /* path: where it was restored to */
	int64_t instant_ms;             /* the instant its image is of; 0: not known */
	int64_t until_ms;               /* when the drill began: a service it started may have written since, which does not count; 0: count everything */
};

/* ok false: a difference. text: one sentence for people. store may be NULL: about several. */
typedef void survey_finding_fn(void *context, const char *store, const char *check, bool ok, const char *text);

/* before: what this gave for the last drill ({store: survey}), or NULL; before_when: its instant as text, or NULL.
 * A store that cannot be surveyed is a finding. *ret: to be kept in the record's private part; owned by the caller, may be an empty object.
 * Where this recovery point is older than the one before, or a store was not restored now, it is what `before` had. */
int survey_run(const struct survey_store *stores, size_t count, const json_t *before, const char *before_when,
    survey_finding_fn *fn, void *context, json_t **ret, struct im_error *err);

#endif
