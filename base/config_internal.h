/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of the configuration while it works: what config.c (lines and sections) and config_keys.c (keys and values) share.
 */
#ifndef IM_BASE_CONFIG_INTERNAL_H
#define IM_BASE_CONFIG_INTERNAL_H

#include "base/config.h"

enum section { SECTION_NONE, SECTION_NODE, SECTION_VAULT, SECTION_STORE, SECTION_RETENTION, SECTION_FOLLOW, SECTION_DRILL, SECTION_SCHEDULE, SECTION_ALERT,
	SECTION_RUNBOOK };

struct parser {
	struct im_config *config;
	const char *source, *rest; /* rest: text not read yet */
	int line;
	enum section section;
	bool seen_node, seen_vault, seen_retention, seen_follow, seen_drill, seen_schedule, seen_alert, seen_runbook, has_rto, has_level;
	struct im_error *err;
	int rc;
};

/* config.c: the mistake, with file and line. Returns its code. */
int config_wrong(struct parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
int config_no_memory(struct parser *p);
/* config_keys.c: a key of the section that the parser is in. */
int config_take_key(struct parser *p, const char *key, const char *value);

#endif
