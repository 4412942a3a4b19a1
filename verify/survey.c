/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The survey of a drill: counts what each restored message store holds, compares it with the drill
 * before, looks for the attachments. What it cannot do for one store is a finding about that store;
 * the others go on.
 */
#include "verify/survey_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void survey_say(struct survey_run *r, const char *store, const char *check, bool ok, const char *format, ...)
{
	char text[IM_ERROR_TEXT_BYTES];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	r->fn(r->context, store, check, ok, text);
}

char *survey_day(char ret[SURVEY_DAY_BYTES], int64_t ms)
{
	char instant[IM_INSTANT_BYTES];
	snprintf(ret, SURVEY_DAY_BYTES, "%.10s", im_instant_format(instant, ms));
	return ret;
}

/* What ends the drill, rather than being a finding of it. */
static bool is_fatal(int rc) { return rc == IM_ENOMEM || rc == IM_EINTERRUPTED; }

static void read_before(struct survey_run *r, struct survey_surveyed *s, const json_t *before)
{
	const json_t *j = json_object_get(before, s->store->name);
	struct im_error why = { 0 };
	s->has_before = j && tally_decode(j, &s->before, &why) == 0;
	if (j && !s->has_before) {
		tally_clear(&s->before);
		survey_say(r, s->store->name, "messages", true, "%s: nothing is compared with it", why.text);
	}
}

static int survey_one(struct survey_run *r, const struct survey_store *store, const struct store_ops *ops, const json_t *before, struct im_error *err)
{
	struct survey_surveyed *s = &r->surveyed[r->surveyed_count];
	struct im_error why = { 0 };
	*s = (struct survey_surveyed){ .store = store };
	read_before(r, s, before);
	int rc = ops->survey(&(struct store_survey_request){ .path = store->path, .before = s->has_before ? &s->before : NULL,
	    .until_ms = store->until_ms / 1000 * 1000, /* servers date by the second */ .limit_ms = SURVEY_LIMIT_MS }, &s->found, &why);
	if (rc == 0) {
		s->found.tally.instant_ms = store->instant_ms;
		r->surveyed_count++;
		return survey_compare(r, s, err);
	}
	tally_clear(&s->before);
	if (is_fatal(rc))
		return im_fail(err, rc, "%s", why.text);
	survey_say(r, store->name, "messages", false, "%s", why.text);
	return 0;
}

/* What the record keeps: the newest that is known of each store. */
static int keep(const struct survey_run *r, const json_t *before, json_t **ret, struct im_error *err)
{
	json_t *all = before ? json_copy((json_t *)before) : json_object();
	bool bad = !all;
	for (size_t i = 0; !bad && i < r->surveyed_count; i++) {
		const struct survey_surveyed *s = &r->surveyed[i];
		if (s->older)
			continue;
		json_t *j = s->found.known ? tally_encode(&s->found.tally) : NULL;
		if (s->found.known)
			bad = json_object_set_new(all, s->store->name, j);
		else
			json_object_del(all, s->store->name);
	}
	if (bad) {
		json_decref(all);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	*ret = all;
	return 0;
}

int survey_run(const struct survey_store *stores, size_t count, const json_t *before, const char *before_when,
    survey_finding_fn *fn, void *context, json_t **ret, struct im_error *err)
{
	struct survey_run r = { .stores = stores, .count = count, .before_when = before_when, .fn = fn, .context = context };
	int rc = (r.surveyed = calloc(count + 1, sizeof *r.surveyed)) ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; rc == 0 && i < count; i++) {
		const struct store_ops *ops = store_find(stores[i].type);
		if (ops && ops->survey)
			rc = survey_one(&r, &stores[i], ops, before, err);
	}
	if (rc == 0)
		rc = survey_uploads(&r, err);
	if (rc == 0)
		rc = keep(&r, before, ret, err);
	for (size_t i = 0; i < r.surveyed_count; i++) {
		store_survey_clear(&r.surveyed[i].found);
		tally_clear(&r.surveyed[i].before);
	}
	free(r.surveyed);
	return rc;
}
