/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `imvault status` share.
 */
#ifndef IM_CLI_STATUS_H
#define IM_CLI_STATUS_H

#include "backup/follow.h"
#include "cli/cli.h"

struct verdict {
	struct cli *cli;
	size_t red, restoring; /* restoring: instant restores that are not complete */
	const char *node;
	int64_t now_ms, rpo_ms, age_ms; /* age: of the newest snapshot */
	struct follow_state follow;     /* empty: nobody ever followed from here */
	size_t logged;                  /* stores whose log was judged */
};

/* Something that is not green. */
void status_red(struct verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The log of a configured store: how far behind its source it is. row: the store's JSON. True if there is a log to count on, so
 * that the age of the snapshot does not matter. */
bool status_judge_log(struct verdict *v, const struct im_config_store *store, json_t *row);

/* Instant restores that are under way on this machine, or were cut off. */
void status_judge_restores(struct verdict *v);

#endif
