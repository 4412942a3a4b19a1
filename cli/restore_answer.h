/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer of a restore, for people and for programs. A drill is a restore and answers alike.
 */
#ifndef IM_CLI_RESTORE_ANSWER_H
#define IM_CLI_RESTORE_ANSWER_H

#include "cli/cli.h"
#include "restore/restore.h"

/* The stable fields (imvault(1)). */
void restore_answer_json(json_t *j, const struct restore_result *r);
/* For restore_events.planned; context is the cli. */
void restore_on_planned(void *context, const struct restore_result *so_far);

void restore_say_plan(const struct cli *cli, const struct restore_result *r);
void restore_say_stores(const struct cli *cli, const struct restore_result *r);
void restore_say_phases(const struct cli *cli, const struct restore_result *r);
void restore_say_instant(const struct cli *cli, const struct restore_result *r);
/* Of a dry run: where it would not fit. */
void restore_say_room(const struct cli *cli, const struct restore_result *r);
void restore_say_damage(const struct restore_result *r);
/* word: what became of it, such as "RECOVERED". */
void restore_say_verdict(const struct cli *cli, const char *word, const struct restore_result *r);

/* "15 min (im)" */
void restore_format_target(char *ret, size_t size, int64_t rto_ms);
/* --instant=MODE of the options. */
int restore_mode_of(const struct options *o, const char *command, enum restore_mode *ret, struct im_error *err);

#endif
