/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the survey share.
 */
#ifndef IM_VERIFY_SURVEY_INTERNAL_H
#define IM_VERIFY_SURVEY_INTERNAL_H

#include "stores/store.h"
#include "verify/survey.h"

#define SURVEY_LIMIT_MS 300000
#define SURVEY_DAY_BYTES 16

struct survey_surveyed { /* a message store and what it holds */
	const struct survey_store *store; /* borrowed */
	struct store_survey found;
	struct tally before; /* of the last drill, if has_before */
	bool has_before;
	bool older;          /* this recovery point is older than that one */
};

struct survey_run {
	const struct survey_store *stores; /* borrowed */
	size_t count;
	struct survey_surveyed *surveyed;  /* room for count */
	size_t surveyed_count;
	const char *before_when;           /* NULL: not known */
	survey_finding_fn *fn;
	void *context;
};

void survey_say(struct survey_run *r, const char *store, const char *check, bool ok, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* "2026-11-23"; returns ret. */
char *survey_day(char ret[SURVEY_DAY_BYTES], int64_t ms);

/* survey_compare.c: what is gone since the drill before, and what is wrong by itself. Sets older. */
int survey_compare(struct survey_run *r, struct survey_surveyed *s, struct im_error *err);
/* survey_uploads.c: is every attachment there? Sets uploads_found of each tally. */
int survey_uploads(struct survey_run *r, struct im_error *err);

#endif
