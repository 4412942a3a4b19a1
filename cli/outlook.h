/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forecasts as commands show them.
 */
#ifndef IM_CLI_OUTLOOK_H
#define IM_CLI_OUTLOOK_H

#include "cli/cli.h"
#include "verify/forecast.h"

/* forecast_full_p50_ms, … of service ready, and how much the forecast knows. */
void outlook_json(json_t *object, const struct forecast_node *f);
/* "12.3 s (p95 15.1 s), instant 0.61 s (p95 0.80 s); target 15 min (im)"; rto_ms 0: no target. Returns ret. */
char *outlook_text(char *ret, size_t size, const struct forecast_node *f, int64_t rto_ms);
/* "learned from 5 recoveries, usually within 8 %", or what it goes by instead. Returns ret. */
char *outlook_ground(char *ret, size_t size, const struct forecast *f);
/* A sentence if the target will or may be missed; NULL: all is well, or there is no target. */
const char *outlook_warning(const struct forecast *f, int64_t rto_ms);

#endif
