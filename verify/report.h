/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report: one HTML page that proves, or does not, that a node can be recovered within its
 * targets. Gathered from the vault alone, so any host with a key can write it; with a node key the
 * private part of the records (what the checks said) is missing and the page says so.
 */
#ifndef IM_VERIFY_REPORT_H
#define IM_VERIFY_REPORT_H

#include "vault/drills.h"

#define REPORT_DRILL_AGE_MS (INT64_C(31) * 24 * 3600 * 1000) /* how long a drill proves something where no schedule says otherwise */

enum report_lang { REPORT_EN, REPORT_ZH };
enum report_verdict { REPORT_PROVEN, REPORT_RESERVED, REPORT_UNPROVEN }; /* of the targets */
enum report_reason { /* why it is not simply proven */
	REPORT_NO_TARGET, REPORT_NO_DRILL, REPORT_DRILL_FAILED, REPORT_RTO_MISSED, REPORT_RPO_MISSED, REPORT_DRILL_SCOPE, REPORT_DRILL_OVERDUE,
	REPORT_FORECAST_OVER, REPORT_FORECAST_P95_OVER, REPORT_KEY_REVOKED, REPORT_CHAIN_BROKEN, REPORT_REASON_COUNT
};

struct report_share {
	size_t met, of;
};

struct report_summary {
	enum report_verdict verdict;
	bool reasons[REPORT_REASON_COUNT];
	const struct drill_record *last_drill; /* borrowed; NULL: none */
	int64_t drill_age_ms, drill_limit_ms;  /* age: of last_drill */
	int64_t rto_ms, rpo_ms;                /* targets; 0: none */
	struct report_share drills, restores;  /* service ready within the target of its day, of those that had one */
	struct report_share rpo;               /* of those that restored the latest state and had a target */
	size_t drill_count, restore_count, finding_count;
	bool has_forecast, forecast_is_instant; /* of the way the last drill went */
	int64_t forecast_p50_ms, forecast_p95_ms;
};

struct report_request {
	const char *node;
	int64_t rto_ms, rpo_ms; /* 0: those of the newest snapshot */
	int64_t drill_every_ms; /* 0: not known */
	const char *target;     /* as in forecast_probe; NULL */
};

struct report; /* what the page shows; immutable once gathered */

/* IM_ENOTFOUND: the vault holds other nodes, but nothing of this one. An empty vault is no error: the page says what to do.
 * v must outlive it. Records and snapshots that cannot be believed are findings, not failures. */
int report_gather(const struct vault *v, const struct report_request *request, struct report **ret, struct im_error *err);
void report_free(struct report *r);
const struct report_summary *report_summary_of(const struct report *r);
const char *report_finding(const struct report *r, size_t i); /* i < finding_count; borrowed */
const char *report_verdict_name(enum report_verdict verdict); /* "proven", "reserved", "unproven" */
const char *report_reason_name(enum report_reason reason);    /* "no_target" … */

/* Appends the page: UTF-8, well-formed as XML too, nothing in it loads anything. */
int report_write(const struct report *r, enum report_lang lang, struct im_buf *ret, struct im_error *err);

#endif
