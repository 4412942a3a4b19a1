/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of restore/ share: the restore in progress.
 */
#ifndef IM_RESTORE_INTERNAL_H
#define IM_RESTORE_INTERNAL_H

#include "restore/engine.h"
#include "restore/history.h"
#include "restore/restore.h"
#include "restore/route.h"
#include "restore/target.h"

struct restore_pick { /* a store to restore; row i of the result's stores */
	const char *name, *type, *path; /* borrowed from the snapshot */
	const struct snapshot *snapshot; /* where its image comes from */
	struct restore_route route; /* with a log, or from an older snapshot */
	struct route_lost lost;
	bool late;               /* it comes from an older snapshot and no log makes up for that */
	json_t *manifest;        /* borrowed; NULL: not to be had */
	const char *path_filter; /* strictly below the store's path, or NULL */
	const char *unit_path;
	size_t unit, engine_store;
	bool added, planned, failed,
	    damaged; /* added: the engine knows it; planned: its finish is due */
};

struct restore_job {
	const struct restore_request *request;
	struct restore_result *result;
	struct history history;
	size_t main;                /* of the history: the snapshot below */
	struct snapshot *snapshot;  /* the newest that counts; owned by the history or: */
	struct snapshot *named;     /* asked for by its name: no log */
	int64_t until_ms;           /* what was asked for; ROUTE_LATEST */
	struct restore_pick *picks;
	size_t pick_count;
	struct fetcher *fetcher;
	struct target *target;
	struct engine *engine;
	struct store_events store_events;
	bool ordinary;              /* whatever was asked for */
	bool declined;              /* an instant restore cannot be done here; nothing was changed */
	int64_t start_us, start_wall_ms;
	uint64_t total_bytes; /* of the whole stores, as the snapshot says */
	struct im_error first; /* what failed first */
	int worst; /* what the run ends with if nothing stops it */
	bool bad;  /* something is missing, damaged or different: the service is not started */
};

/* choose.c: the snapshot to begin with. */
int restore_choose(struct restore_job *job, struct im_error *err);
/* Is the store asked for? */
bool restore_is_named(const struct restore_request *q, const char *name);
/* pick.c: the stores that are wanted, outermost paths first. */
int restore_pick_stores(struct restore_job *job, struct im_error *err);
/* way.c: the way each of them comes back, which may begin at another snapshot. */
int restore_find_way(struct restore_job *job, struct restore_pick *p, const char *reason, struct im_error *err);
/* After a store's plan failed with IM_EGAP: another way for it, without the segment that cannot be had. */
int restore_rethink(struct restore_job *job, size_t pick, bool *ret_again, struct im_error *err);

/* aim.c: units of the target; then, before and after the plan is known, the room for them. */
int restore_aim(struct restore_job *job, struct im_error *err);
int restore_check_space(struct restore_job *job, bool planned, struct im_error *err);

/* restore.c: is the service to work before everything is there? */
bool restore_is_instant(const struct restore_job *job);
/* restore.c: the plan of each store, and all that is fetched at once. */
int restore_plan(struct restore_job *job, struct im_error *err);
int restore_fetch(struct restore_job *job, struct im_error *err);

/* check.c: a difference is noted and the run goes on. */
int restore_check(struct restore_job *job, struct im_error *err);
/* check.c: what the caller wants to look at besides. touched: a service may have written already. */
int restore_examine(struct restore_job *job, bool touched, struct im_error *err);

/* report.c */
void restore_warn(struct restore_job *job, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Puts code into job->worst unless something worse is there. */
void restore_worst(struct restore_job *job, int code);
void restore_phase_begin(struct restore_job *job, const char *name);
struct restore_phase *restore_phase_add(
    struct restore_job *job, const char *name, int64_t us, uint64_t bytes);
int restore_add_rows(struct restore_job *job, struct im_error *err);
/* The pick's way into its row, and what all of them reach. */
int restore_tell_way(struct restore_job *job, size_t pick, struct im_error *err);
void restore_row(struct restore_job *job, size_t pick, const char *status, const char *text);
void restore_report_damage(struct restore_job *job, size_t pick);

struct start_options {
	const char *command, *target;
	const char *ready;   /* NULL: the command's own success tells; else it may stay, and this one's success does, asked again and again */
	int inherit_fd;      /* -1: none. The service gets it under a number it does not use itself */
	uint64_t files_soft; /* with inherit_fd: the limit of open files it shall have */
	void (*tick)(void *context); /* while it runs, some 50 times a second; may be NULL */
	void *context;
};
/* start.c: runs the command; *ret_status is its wait status. IM_EFAIL with the end of its output if
 * it fails. */
int restore_start(const struct start_options *options, int *ret_status, struct im_error *err);

#endif
