/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: INI as the manual page imvault.conf(5) has it, read with inih from a file or
 * from the text a snapshot carries. Unknown sections, keys and values are errors: an option that
 * cannot be honoured must never be ignored.
 */
#ifndef IM_BASE_CONFIG_H
#define IM_BASE_CONFIG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IM_FOLLOW_FLUSH_MS 300
#define IM_FOLLOW_HEARTBEAT_MS 60000
#define IM_FOLLOW_HOLD_MS 60000
#define IM_FOLLOW_SPOOL_LIMIT_BYTES UINT64_C(1000000000)
#define IM_ALERT_REPEAT_MS 14400000

struct im_config_pair {
	char *key, *value;
};

struct im_config_store {
	char *name, *type, *path; /* path: absolute, without a trailing slash */
	int priority;             /* 1 is first; default 1 */
	struct im_config_pair *pairs; /* all other keys in file order; repeated keys repeat */
	size_t pair_count;
};

struct im_config {
	char *text; /* as read: it travels with each snapshot */
	char *node_name, *tier, *state_dir;
	int64_t rto_ms, rpo_ms; /* rto: from tier or rto=; rpo 0: none set */
	char *vault_url, *vault_key, *dedupe;
	int compression_level;
	int64_t follow_flush_ms, follow_heartbeat_ms, follow_hold_ms; /* hold 0: the source is never held for a successor */
	uint64_t follow_spool_limit_bytes;
	char *drill_scratch, *drill_exec, *drill_at; /* scratch: /var/tmp, at: "latest" unless set; exec may be NULL */
	int drill_cpus;             /* 0: all there are */
	uint64_t drill_space_bytes; /* at most so much scratch; 0: what is free */
	int64_t backup_every_ms, verify_every_ms, drill_every_ms, report_every_ms; /* [schedule]: how often each is meant to run; 0: nobody said */
	char *alert_command, *alert_webhook, *alert_mail, *alert_smtp, *alert_from, *alert_credentials; /* NULL: not set */
	char *alert_ping_backup, *alert_ping_verify, *alert_ping_drill; /* NULL: not set */
	int64_t alert_repeat_ms;    /* the same alert not again before */
	/* [runbook], for people to read; NULL: not set. stop and start are commands, packages the names of Debian packages. */
	char *runbook_restore_key, *runbook_passphrase, *runbook_packages, *runbook_stop, *runbook_start;
	struct im_config_pair *runbook_lines; /* contact and note, in file order */
	size_t runbook_line_count;
	struct im_config_store *stores;
	size_t store_count;
};

/* source: file name for messages. Fills defaults: node name = host name, tier = im, level 1, [follow] as below. */
int im_config_parse(const char *text, const char *source, struct im_config **ret, struct im_error *err);
int im_config_load(const char *path, struct im_config **ret, struct im_error *err);
void im_config_free(struct im_config *c);

/* First value of key, or fallback. */
const char *im_config_get(const struct im_config_store *s, const char *key, const char *fallback);
const struct im_config_store *im_config_find_store(const struct im_config *c, const char *name);

/* "core" 5 min, "im" 15, "collab" 30, "noncore" 120: milliseconds, or 0 for an unknown tier. */
int64_t im_tier_rto_ms(const char *tier);
/* [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
bool im_name_valid(const char *name);

#endif
