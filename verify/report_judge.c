/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verdict. "Proven" is claimed only where the newest drill met today's targets, is recent, and
 * the forecast still agrees; everything else has a reason that the page prints with what to do.
 */
#include "verify/report_internal.h"

#include <string.h>

#define DURATION_MAX_MS (INT64_C(3650) * REPORT_DAY_MS)

bool report_time_plausible(const struct report *r, int64_t ms)
{
	return ms > r->now_ms - DURATION_MAX_MS && ms <= r->now_ms + REPORT_DAY_MS;
}

bool report_met(const struct drill_record *d)
{
	return d->rto_met && d->service_ready_ms >= 0;
}

static void add_share(struct report_share *s, bool met)
{
	s->of++;
	s->met += met;
}

static void count(struct report *r)
{
	struct report_summary *s = &r->summary;
	for (size_t i = 0; i < r->drills.count; i++) {
		const struct drill_record *d = &r->drills.items[i];
		*(d->is_drill ? &s->drill_count : &s->restore_count) += 1;
		if (d->rto_ms > 0)
			add_share(d->is_drill ? &s->drills : &s->restores, report_met(d));
		if (d->rpo_target_ms > 0 && strcmp(d->chosen, "latest") == 0)
			add_share(&s->rpo, d->rpo_met);
	}
}

static void judge_drill(struct report *r, const struct drill_record *d)
{
	struct report_summary *s = &r->summary;
	s->drill_age_ms = r->now_ms > d->time_ms ? r->now_ms - d->time_ms : 0;
	if (!d->passed)
		s->reasons[REPORT_DRILL_FAILED] = true;
	else if (d->service_ready_ms < 0 || (s->rto_ms ? d->service_ready_ms > s->rto_ms : d->rto_ms > 0 && !d->rto_met))
		s->reasons[REPORT_RTO_MISSED] = true;
	if (s->rpo_ms && strcmp(d->chosen, "latest") == 0 && d->rpo_ms > s->rpo_ms)
		s->reasons[REPORT_RPO_MISSED] = true;
	s->reasons[REPORT_DRILL_OVERDUE] = s->drill_age_ms > s->drill_limit_ms;
	s->reasons[REPORT_DRILL_SCOPE] = json_array_size(json_object_get(d->meta, "stores")) < r->newest_store_count;
	s->reasons[REPORT_KEY_REVOKED] = !d->signer_active;
}

static void judge_forecast(struct report *r)
{
	struct report_summary *s = &r->summary;
	const struct drill_record *d = s->last_drill;
	s->forecast_is_instant = d && strcmp(d->scenario, "instant") == 0;
	const struct forecast *f = s->forecast_is_instant ? &r->forecast.instant : &r->forecast.full;
	s->forecast_p50_ms = f->ready_p50_ms;
	s->forecast_p95_ms = f->ready_p95_ms;
	if (!s->has_forecast || !s->rto_ms)
		return;
	s->reasons[REPORT_FORECAST_OVER] = f->ready_p50_ms > s->rto_ms;
	s->reasons[REPORT_FORECAST_P95_OVER] = f->ready_p50_ms <= s->rto_ms && f->ready_p95_ms > s->rto_ms;
}

void report_judge(struct report *r)
{
	static const enum report_reason grave[] = { REPORT_NO_DRILL, REPORT_DRILL_FAILED, REPORT_RTO_MISSED, REPORT_RPO_MISSED, REPORT_FORECAST_OVER };
	struct report_summary *s = &r->summary;
	s->finding_count = r->finding_count;
	s->last_drill = drills_last(&r->drills, false);
	s->drill_limit_ms = r->drill_every_ms ? r->drill_every_ms + r->drill_every_ms / 2 : REPORT_DRILL_AGE_MS;
	count(r);
	judge_forecast(r);
	if (s->last_drill)
		judge_drill(r, s->last_drill);
	s->reasons[REPORT_NO_DRILL] = !s->last_drill;
	s->reasons[REPORT_NO_TARGET] = !s->rto_ms;
	s->reasons[REPORT_CHAIN_BROKEN] = r->finding_count > 0;
	for (int i = 0; i < REPORT_REASON_COUNT; i++)
		if (s->reasons[i])
			s->verdict = REPORT_RESERVED;
	for (size_t i = 0; i < sizeof grave / sizeof *grave; i++)
		if (s->reasons[grave[i]])
			s->verdict = REPORT_UNPROVEN;
}

const char *report_verdict_name(enum report_verdict verdict)
{
	static const char *const names[] = { [REPORT_PROVEN] = "proven", [REPORT_RESERVED] = "reserved", [REPORT_UNPROVEN] = "unproven" };
	return names[verdict];
}

const char *report_reason_name(enum report_reason reason)
{
	static const char *const names[] = { [REPORT_NO_TARGET] = "no_target", [REPORT_NO_DRILL] = "no_drill",
		[REPORT_DRILL_FAILED] = "drill_failed", [REPORT_RTO_MISSED] = "rto_missed", [REPORT_RPO_MISSED] = "rpo_missed",
		[REPORT_DRILL_SCOPE] = "drill_scope",
		[REPORT_DRILL_OVERDUE] = "drill_overdue", [REPORT_FORECAST_OVER] = "forecast_over",
		[REPORT_FORECAST_P95_OVER] = "forecast_p95_over", [REPORT_KEY_REVOKED] = "key_revoked", [REPORT_CHAIN_BROKEN] = "chain_broken" };
	return names[reason];
}
