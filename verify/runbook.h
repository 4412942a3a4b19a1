/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runbook: the emergency page of one node, with its own names, paths, keys and forecasts, and with
 * what drills have proved of each way back. Made of facts that the caller gathered; nothing secret is
 * asked for, so nothing secret can be on it. Each command on it is executed by tests/integration/test_runbook.sh.
 */
#ifndef IM_VERIFY_RUNBOOK_H
#define IM_VERIFY_RUNBOOK_H

#include "base/bytes.h"
#include "base/config.h"
#include "vault/drills.h"
#include "vault/runlog.h"
#include "vault/snapshot.h"
#include "verify/forecast.h"

struct runbook_store { /* all borrowed */
	const char *name, *type, *path;
	uint64_t bytes;
	bool failed;             /* not saved in the newest snapshot: older states of it may be there */
	bool has_window, logged; /* logged: to any instant between, else to those of snapshots */
	int64_t from_ms, to_ms;
	bool has_forecast;
	struct forecast full; /* of this store alone */
};

struct runbook_facts { /* all borrowed; must outlive the runbook */
	const struct vault *vault;
	const char *node, *url;
	const char *config_path;        /* where the node has its configuration; NULL: not known */
	const struct im_config *config; /* the node's */
	bool config_is_vaults;          /* it came out of the newest snapshot */
	int64_t now_ms, rto_ms, rpo_ms; /* targets; 0: none */
	const struct snapshot *newest;
	uint64_t older_seq;             /* of the snapshot before it, or its own */
	const struct drill_list *drills;
	const struct runlog *verified;
	const struct forecast_node *forecast; /* NULL: none could be made */
	const struct runbook_store *stores;
	size_t store_count;
};

struct runbook_scenario { /* one way back and what is known about it */
	const char *name;   /* "machine_lost", "machine_lost_instant", "database_damaged", "deleted_by_mistake", "vault_damaged", "key_lost" */
	const char *store;  /* database_damaged: which; else NULL. Borrowed from the facts */
	bool has_forecast;
	struct forecast forecast; /* of the node, or of that store */
	const struct drill_record *worked; /* the newest record that proves it; NULL: none */
	const struct drill_record *failed; /* a newer try of the same that did not; NULL: none */
};

struct runbook; /* immutable once made */

int runbook_make(const struct runbook_facts *f, struct runbook **ret, struct im_error *err);
void runbook_free(struct runbook *r);
size_t runbook_scenario_count(const struct runbook *r);
const struct runbook_scenario *runbook_scenario_at(const struct runbook *r, size_t i);
/* What had to be left as a gap on the page: a sentence each, which names the key in [runbook]. Borrowed. */
size_t runbook_gap_count(const struct runbook *r);
const char *runbook_gap(const struct runbook *r, size_t i);

/* Append the page; both have the same words and the same commands. HTML is well-formed as XML too and loads nothing. */
int runbook_markdown(const struct runbook *r, struct im_buf *ret, struct im_error *err);
int runbook_html(const struct runbook *r, struct im_buf *ret, struct im_error *err);

#endif
