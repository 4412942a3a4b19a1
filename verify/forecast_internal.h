/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the forecast's files share: the parts of a recovery, and what each took in the past.
 */
#ifndef IM_VERIFY_FORECAST_INTERNAL_H
#define IM_VERIFY_FORECAST_INTERNAL_H

#include "verify/forecast.h"

enum forecast_part {
	PART_BEGIN,   /* open the vault, plan, lay the log */
	PART_FETCH,   /* read, decode, write */
	PART_END,     /* finish, make durable; instant: make what the service sees */
	PART_CHECK,
	PART_OTHER,   /* whatever else lies before the service is ready */
	PART_START,   /* the service itself */
	PART_HYDRATE, /* instant: from there until all is complete, beside the service's start */
	PART_COUNT
};

struct forecast_parts {
	double ms[PART_COUNT]; /* negative: not known */
};

struct forecast_lesson { /* a past recovery that ended */
	enum forecast_scenario scenario;
	struct forecast_sizes sizes;
	struct forecast_machine machine;
	struct forecast_parts took;
	double ready_ms, complete_ms;
	double foretold_ms;   /* of ready; negative: nobody did */
	bool same_host;
};

#define FORECAST_LESSONS_MAX 64 /* the newest */

/* forecast_lessons.c: those of the history that can teach, oldest first. Figures that a record lacks are `now`'s. */
size_t forecast_lessons_take(const struct drill_list *history, const struct forecast_machine *now, struct forecast_lesson ret[FORECAST_LESSONS_MAX]);

/* forecast_parts.c: what each part takes, from sizes and probe alone. */
void forecast_parts_of(enum forecast_scenario scenario, const struct forecast_sizes *sizes, const struct forecast_machine *machine,
    struct forecast_parts *ret);
double forecast_ready_ms(const struct forecast_parts *p);
double forecast_complete_ms(enum forecast_scenario scenario, const struct forecast_parts *p);

#endif
