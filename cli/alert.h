/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alerts: telling people how a run ended and what the follower sees, once, again after `repeat`, and once
 * when it is over (docs/ALERTS.md). Nothing here ever changes how a run ends: what cannot be delivered is
 * one line on stderr. Without [alert] in the configuration nothing happens at all.
 */
#ifndef IM_CLI_ALERT_H
#define IM_CLI_ALERT_H

#include "backup/follow.h"
#include "cli/cli.h"

/* When a run has ended and its answer is out. rc and err are the command's, status what the process exits with. */
void alert_after_run(const struct cli *cli, int rc, int status, const struct im_error *err);

/* For the run that has just read its configuration; waits for three seconds at most. */
void alert_ping_begin(const struct cli *cli);
void alert_ping_end(const struct cli *cli, int rc);

/* Beside a follower that runs as a service: a thread that judges and sends, so that the follower never waits. */
struct alert_watch;
/* NULL: there is nobody to tell. config is copied. */
struct alert_watch *alert_watch_start(const struct cli *cli);
/* From now on by this configuration. w may be NULL in each of these. */
void alert_watch_configure(struct alert_watch *w, const struct im_config *config);
void alert_watch_look(struct alert_watch *w, const struct follow_look *stores, size_t count); /* any thread */
void alert_watch_gap(struct alert_watch *w, const char *store, const char *text);             /* any thread */
void alert_watch_stop(struct alert_watch *w);

#endif
