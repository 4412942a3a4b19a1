/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics as Prometheus reads them (text format 0.0.4): families in the order they are begun, each
 * with HELP and TYPE, whether or not it has samples.
 */
#ifndef IM_CLI_METRICS_TEXT_H
#define IM_CLI_METRICS_TEXT_H

#include "base/bytes.h"

struct metrics_text {
	struct im_buf out; /* failed: out of memory */
	const char *family;
	const char *node;  /* borrowed; a label of every sample; NULL: none */
};

enum metrics_type { METRICS_GAUGE, METRICS_COUNTER };

/* name and help are of ASCII letters and need no escaping; borrowed. Counters' names end with _total. */
void metrics_family(struct metrics_text *m, enum metrics_type type, const char *name, const char *help);
/* A sample of the family: a whole number, or milliseconds as seconds. label NULL: only the node's. value_text of any bytes. */
void metrics_number(struct metrics_text *m, const char *label, const char *value_text, int64_t value);
void metrics_seconds(struct metrics_text *m, const char *label, const char *value_text, int64_t ms);
/* percent / 100 */
void metrics_ratio(struct metrics_text *m, const char *label, const char *value_text, double percent);

#endif
