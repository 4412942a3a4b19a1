/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forecasts in words and in JSON, the same in every command.
 */
#include "cli/outlook.h"

#include "base/clock.h"
#include "cli/output.h"
#include "cli/restore_answer.h"

#include <stdio.h>

void outlook_json(json_t *object, const struct forecast_node *f)
{
	output_integer(object, "forecast_full_p50_ms", f->full.ready_p50_ms);
	output_integer(object, "forecast_full_p95_ms", f->full.ready_p95_ms);
	output_integer(object, "forecast_instant_p50_ms", f->instant.ready_p50_ms);
	output_integer(object, "forecast_instant_p95_ms", f->instant.ready_p95_ms);
	output_integer(object, "forecast_learned_from", f->full.learned_from);
	if (f->full.error_percent >= 0)
		output_integer(object, "forecast_error_percent", (int64_t)(f->full.error_percent + 0.5));
	if (f->instant.error_percent >= 0)
		output_integer(object, "forecast_instant_error_percent", (int64_t)(f->instant.error_percent + 0.5));
}

char *outlook_text(char *ret, size_t size, const struct forecast_node *f, int64_t rto_ms)
{
	char full[40], full95[40], instant[40], instant95[40], target[80] = "";
	if (rto_ms > 0)
		restore_format_target(target, sizeof target, rto_ms);
	snprintf(ret, size, "%s (p95 %s), instant %s (p95 %s)%s%s", im_duration_format(full, sizeof full, f->full.ready_p50_ms),
	    im_duration_format(full95, sizeof full95, f->full.ready_p95_ms), im_duration_format(instant, sizeof instant, f->instant.ready_p50_ms),
	    im_duration_format(instant95, sizeof instant95, f->instant.ready_p95_ms), *target ? "; target " : "", target);
	return ret;
}

char *outlook_ground(char *ret, size_t size, const struct forecast *f)
{
	if (!f->learned_from)
		snprintf(ret, size, "from sizes and a probe of this machine alone: no recovery was recorded yet");
	else if (f->error_percent < 0)
		snprintf(ret, size, "learned from %u recover%s", f->learned_from, f->learned_from == 1 ? "y" : "ies");
	else
		snprintf(ret, size, "learned from %u recover%s, usually within %.0f %%", f->learned_from, f->learned_from == 1 ? "y" : "ies",
		    f->error_percent < 1 ? 1 : f->error_percent);
	return ret;
}

const char *outlook_warning(const struct forecast *f, int64_t rto_ms)
{
	if (rto_ms <= 0 || f->ready_p95_ms <= rto_ms)
		return NULL;
	return f->ready_p50_ms > rto_ms ? "a recovery is expected to miss the target" : "a recovery may miss the target";
}
