/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drills: a recovery for real, into scratch, by the engine of the emergency; then more checks than an
 * emergency has time for, and a signed record in the vault (vault/drills.h). Production paths are never touched.
 */
#ifndef IM_VERIFY_DRILL_H
#define IM_VERIFY_DRILL_H

#include "restore/restore.h"
#include "verify/forecast.h"

struct drill_request {
	struct vault *vault;         /* opened with a restore key */
	const char *node;            /* NULL: the vault's only node */
	const char *at;              /* as of a restore; "random": any instant that the node's snapshots reach, evenly */
	const char *const *stores;   /* NULL-terminated; NULL: all */
	enum restore_mode mode;
	const char *folder;          /* the scratch folder, see enclosure.h: the node is restored to folder/root */
	const char *exec_command;    /* run in a sandbox (sandbox.h); its success is "service ready". NULL: none */
	const char *ready_command;   /* as of a restore */
	const char *operator_name, *reason; /* for the record; NULL: who runs it; none */
	unsigned cpus;               /* at most so many; 0: all */
	uint64_t space_bytes;        /* at most so much scratch; 0: what is free */
	int64_t rto_ms;              /* 0: the snapshot's own target */
	int64_t start_us, opened_us; /* as of a restore */
	const struct restore_events *events;
};

struct drill_check {
	char *store; /* NULL: several */
	char *check, *text;
	bool ok;
};

struct drill_result {
	struct restore_result restore;
	char *object;         /* the record's; NULL: there is none */
	const char *verdict;  /* FORMAT §10 */
	const char *chosen;
	char *at;             /* what a random choice asked for; else NULL */
	int64_t rpo_target_ms; /* 0: none */
	bool rpo_met;
	struct forecast forecast; /* made before it began, for what it became: full or instant */
	struct drill_check *checks;
	size_t check_count, difference_count;
	char **findings;      /* what is wrong with the chain of records */
	size_t finding_count;
};

/*
 * Runs one. Must be called in a process of its own (enclosure_run): it lowers that process's priority and may leave services running.
 * ret is filled as far as things went; clear it in every case. Codes are those of a restore, of which IM_EMISSED is also a missed RPO,
 * and IM_EDIFFERENT a difference that only the drill's own checks show. A record is written unless it was interrupted or had nothing to restore.
 */
int drill_run(const struct drill_request *q, struct drill_result *ret, struct im_error *err);
void drill_result_clear(struct drill_result *r);
/* Lets this process, its session and what it starts give way to others. */
void drill_be_nice(void);

/* drill_record.c: a record's meta of a restore that was no drill, or of a drill (d not NULL: then r is its restore), FORMAT §10. */
struct drill_facts {
	const char *kind, *chosen, *at, *operator_name, *reason;
	int64_t began_ms, rpo_target_ms, rpo_ms;
	bool rpo_met;
	const struct forecast *forecast;         /* NULL: none was made */
	const struct forecast_sizes *sizes;
	const struct forecast_machine *machine;
	unsigned limit_cpus;                     /* 0: not held back */
	int nice;
	int code;                                /* what it ended with */
	size_t difference_count;
};
json_t *drill_record_meta(const struct drill_facts *f, const struct restore_result *r);
/* An instant restore may have become an ordinary one. */
bool drill_was_instant(const struct restore_result *r);
/* The verdict's word for a code of restore_run or drill_run. */
const char *drill_verdict(int code);
/* "NAME@HOST" of who runs this process; malloc'ed. */
char *drill_operator(void);

#endif
