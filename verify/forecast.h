/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long would a recovery take now? Sizes come from the vault, rates from past drills and restores
 * (vault/drills.h) and from a short probe of this machine; the answer takes well under a second. The
 * model is in forecast.c and explained in docs/FORECAST.md. "Now" is meant: what of the vault lies in
 * this machine's memory is counted as that.
 */
#ifndef IM_VERIFY_FORECAST_H
#define IM_VERIFY_FORECAST_H

#include "vault/drills.h"
#include "vault/snapshot.h"

struct forecast_sizes { /* what a recovery has to move; 0: not known or none */
	uint64_t write_bytes;    /* plain bytes of all files */
	uint64_t read_bytes;     /* of packs, as stored */
	uint64_t files, packs, stores;
	uint64_t database_bytes; /* of write_bytes: in databases, which are checked by reading them */
	uint64_t log_bytes, log_segments;
	uint64_t small_files, small_bytes; /* of files and write_bytes: in trees of small files, which an instant restore brings at once */
	bool service;            /* one is started at the end; not in records, whose phases say it */
};

struct forecast_machine { /* what the probe found; rates in bytes per second, 0: not measured */
	unsigned cpus;           /* that this process may use */
	double read_rate;        /* from the vault, as the snapshot's packs lie now: in memory or not */
	double decode_rate;      /* decryption and decompression, plain bytes, of each of as many threads as cpus, by its own time */
	double write_rate;       /* to the target's file system */
};

#define FORECAST_NOW INT64_MAX

enum forecast_scenario { FORECAST_FULL, FORECAST_INSTANT };

struct forecast {
	int64_t ready_p50_ms, ready_p95_ms;       /* service ready */
	int64_t complete_p50_ms, complete_p95_ms; /* data complete */
	unsigned learned_from;   /* records that taught it; 0: only the probe */
	double error_percent;    /* median of |forecast - truth| / truth over past records; negative: none yet */
};

struct forecast_node { /* both scenarios of a node, as status, backup, metrics and report show them */
	struct forecast full, instant;
	struct forecast_sizes sizes;
	struct forecast_machine machine;
};

#define FORECAST_SMALL_BYTES 131072 /* a tree whose files are smaller on average is one of small files */

/* From the meta part alone, so with any key. logs are not counted here. read_bytes is an upper bound: which part of a
 * pack is needed, only restore keys can read. */
void forecast_sizes_of_snapshot(const struct snapshot *s, struct forecast_sizes *ret);
/* A tree's files, which are counted already, once more if they are small. */
void forecast_sizes_count_small(uint64_t files, uint64_t bytes, struct forecast_sizes *ret);
/* Adds what a restore to an instant (FORECAST_NOW; 0: to the snapshot as it is) would read of the logs behind the snapshot, from the names of
 * their segments. */
int forecast_sizes_add_logs(const struct vault *v, const struct snapshot *s, int64_t until_ms, struct forecast_sizes *ret, struct im_error *err);
/* At most 300 ms. target: the folder that would be restored to, or the nearest that exists above it; NULL: no write rate (4 MiB are
 * written there each time: whoever asks every minute passes NULL, and past probes count).
 * s: a snapshot whose packs may be read a little, or NULL: no read rate. */
void forecast_probe(const struct vault *v, const struct snapshot *s, const char *target, struct forecast_machine *ret);
/* Where a recovery of s would write most: the path of its largest store, for forecast_probe. Borrowed; NULL: none. */
const char *forecast_target_of(const struct snapshot *s);
/* history: the node's, any order of scenarios; may be empty. Its content is not believed further than its form. */
void forecast_make(enum forecast_scenario scenario, const struct forecast_sizes *sizes, const struct forecast_machine *machine,
    const struct drill_list *history, struct forecast *ret);
/* All of the above for a recovery of the node from snapshot s to an instant. target as in forecast_probe. service: one will be started;
 * if the last recovery started one, that is expected anyway. */
int forecast_of_node(const struct vault *v, const struct snapshot *s, int64_t until_ms, const struct drill_list *history, const char *target,
    bool service, struct forecast_node *ret, struct im_error *err);
/* For records (FORMAT §10: `sizes`, `machine`); owned by the caller, NULL without memory. */
json_t *forecast_sizes_json(const struct forecast_sizes *sizes);
json_t *forecast_machine_json(const struct forecast_machine *machine);
/* The same back, from a record; whatever is there: what is no sensible figure is 0. */
void forecast_sizes_read(const json_t *j, struct forecast_sizes *ret);
void forecast_machine_read(const json_t *j, struct forecast_machine *ret);

#endif
