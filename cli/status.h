/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `imvault status` share: findings about a node. Red: it is not protected as it is
 * meant to be, and the command fails. Amber: it is, but somebody should look. Each says what to do.
 */
#ifndef IM_CLI_STATUS_H
#define IM_CLI_STATUS_H

#include "cli/status_facts.h"

struct status_finding {
	bool red;
	char *text; /* one sentence */
};

struct verdict {
	struct cli *cli;
	size_t red, amber, restoring; /* restoring: instant restores that are not complete */
	struct status_finding *items;
	size_t count;
};

void status_red(struct verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
void status_amber(struct verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
void verdict_clear(struct verdict *v);

/* status_judge.c: all that is to be found about the node; also what can be found without the vault. */
void status_judge(struct verdict *v, const struct status_facts *f);
/* The forecast that counts against the target: how soon the service can be ready, full or instant. */
const struct forecast *status_best_forecast(const struct status_facts *f);

/* status_instant.c: instant restores that are under way on this machine, or were cut off. Also says and answers them. */
void status_judge_restores(struct verdict *v);

/* status_show.c: the screen, 24 lines of 80 for a node of up to seven stores; status_json.c: the same for programs. */
void status_show(const struct verdict *v, const struct status_facts *f);
void status_json(json_t *answer, const struct status_facts *f);

/* "3 days", "15 min", "4 min 10 s": how long, for people. Returns ret. */
char *status_span(char *ret, size_t size, int64_t ms);
/* Begins and ends a colour on a terminal: what to print, "" where there is none or NO_COLOR is set. */
enum status_colour { STATUS_PLAIN, STATUS_GREEN, STATUS_AMBER, STATUS_RED };
const char *status_colour(int fd, enum status_colour colour);

#endif
