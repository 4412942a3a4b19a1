/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of restore/ share: the restore in progress.
 */
#ifndef IM_RESTORE_INTERNAL_H
#define IM_RESTORE_INTERNAL_H

#include "restore/engine.h"
#include "restore/restore.h"
#include "restore/target.h"

struct restore_pick { /* a store to restore; row i of the result's stores */
	const char *name, *type, *path; /* borrowed from the snapshot */
	const struct snapshot *snapshot;
	struct snapshot *older;  /* owned: where it comes from, if not from the chosen snapshot */
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
	struct snapshot *snapshot;
	struct restore_pick *picks;
	size_t pick_count;
	struct fetcher *fetcher;
	struct target *target;
	struct engine *engine;
	struct store_events store_events;
	int64_t start_us, start_wall_ms;
	uint64_t total_bytes; /* of the whole stores, as the snapshot says */
	struct im_error first; /* what failed first */
	int worst; /* what the run ends with if nothing stops it */
	bool bad;  /* something is missing, damaged or different: the service is not started */
};

/* pick.c: the snapshot, then the stores that are wanted, outermost paths first. */
int restore_choose(struct restore_job *job, struct im_error *err);
int restore_pick_stores(struct restore_job *job, struct im_error *err);

/* aim.c: units of the target; then, before and after the plan is known, the room for them. */
int restore_aim(struct restore_job *job, struct im_error *err);
int restore_check_space(struct restore_job *job, bool planned, struct im_error *err);

/* check.c: a difference is noted and the run goes on. */
int restore_check(struct restore_job *job, struct im_error *err);

/* report.c */
void restore_warn(struct restore_job *job, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Puts code into job->worst unless something worse is there. */
void restore_worst(struct restore_job *job, int code);
void restore_phase_begin(struct restore_job *job, const char *name);
struct restore_phase *restore_phase_add(
    struct restore_job *job, const char *name, int64_t us, uint64_t bytes);
int restore_add_rows(struct restore_job *job, struct im_error *err);
void restore_row(struct restore_job *job, size_t pick, const char *status, const char *text);
void restore_report_damage(struct restore_job *job, size_t pick);
void restore_forecast(struct restore_job *job);

/* start.c: runs the command; *ret_status is its wait status. IM_EFAIL with the end of its output if
 * it fails. */
int restore_start(const char *command, const char *target, int *ret_status, struct im_error *err);

#endif
