/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be known about a node at this moment, gathered once for `status` and `metrics`: from names
 * and signed metas in the vault, the local state, the configuration. Nothing is judged or said here.
 * What could not be found out is absent; the vault may be, too.
 */
#ifndef IM_CLI_STATUS_FACTS_H
#define IM_CLI_STATUS_FACTS_H

#include "backup/follow.h"
#include "cli/runs.h"
#include "vault/drills.h"
#include "vault/logwindow.h"
#include "vault/runlog.h"
#include "verify/forecast.h"

enum status_log {
	STATUS_LOG_NONE,    /* nobody wants one, or nobody here can know */
	STATUS_LOG_MISSING, /* the store is meant to be followed and nothing was shipped yet */
	STATUS_LOG_THERE
};

struct status_store {
	const char *name;      /* borrowed; of a form that is a valid name */
	const json_t *meta;    /* in the newest snapshot, borrowed; NULL: not in it */
	bool configured;
	enum status_log log;
	const struct follow_state_row *row; /* borrowed; NULL: never followed from here */
	int64_t lag_ms;        /* log THERE: how long ago the first thing may have been committed that a restore would miss */
	char *trouble;         /* why the source cannot be looked at */
	bool has_window;
	int64_t from_ms, to_ms; /* the earliest and the latest instant that can be restored */
	bool logged;           /* by the log's windows: to any instant but those of gaps; else to those of snapshots */
	size_t gaps, holes, forks; /* gaps: between windows; holes: lost segments */
};

struct status_next { /* a kind of run that [schedule] names */
	enum run_command command;
	int64_t every_ms, last_ms /* 0: never */, due_ms;
	bool overdue;
};

struct status_facts {
	struct cli *cli;
	const char *node;       /* borrowed */
	int64_t now_ms;
	char *folder;           /* of the local state; NULL: not known */
	int64_t rpo_ms, rto_ms; /* targets; 0: none */
	bool has_vault;         /* all of the vault's part below is there */

	struct snapshot_list list;
	struct snapshot *newest; /* that can be read; NULL: none */
	int64_t age_ms;
	char **unreadable;      /* newer ones that cannot be, a sentence each */
	size_t unreadable_count;
	size_t chain_findings;  /* numbers missing or given twice */
	size_t read_count;      /* snapshots looked at, from the newest back, as time allows */
	int64_t oldest_ms;      /* 0: not known */

	struct status_store *stores; /* the configured ones first */
	size_t store_count;
	size_t logged;          /* stores with a log to count on */
	struct follow_state follow;
	struct log_windows windows;
	char *windows_trouble;

	uint64_t vault_bytes, vault_objects, vault_free_bytes, growth_per_day;
	bool has_free, has_growth;

	bool has_state, state_agrees; /* has_state: the local state knows a snapshot */
	uint64_t state_seq;
	struct runlog verify_log, report_log; /* the vault's records of runs on any machine */
	char *runlog_trouble;
	int64_t verified_ms;    /* when the vault was last read back, from here or elsewhere; 0: never */
	int64_t reported_ms;    /* when the report was last written */
	int64_t damage_ms;      /* when verify found damage, here or elsewhere, that none disproved since; 0: none is known */
	struct run_record runs[RUN_COUNT];
	struct status_next next[RUN_COUNT];
	size_t next_count;

	struct drill_list drills;
	char *drills_trouble;
	struct forecast_node forecast;
	bool has_forecast;
};

/* cli->config is read (or there is none), cli->vault is open or, if it cannot be reached, NULL: then only the local part is filled.
 * ret can be cleared in every case. Codes: what the vault says. */
int status_facts_gather(struct cli *cli, const char *node, struct status_facts *ret, struct im_error *err);
void status_facts_clear(struct status_facts *f);

/* The newest drill of a scenario ("full", "instant"), or NULL; borrowed. */
const struct drill_record *status_facts_drill(const struct status_facts *f, const char *scenario);
/* Days until the vault's disk is full as it grows now; negative: not known, or never. */
double status_facts_days_left(const struct status_facts *f);

#endif
