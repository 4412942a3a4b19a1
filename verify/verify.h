/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verify: is everything there that the snapshots need, is it what it was, and if not, what exactly
 * is harmed. It reads only: nothing is repaired, moved or deleted, and one bad object never stops
 * the check of the others. Any key will do, or none; a restore key sees more (pages and paths).
 */
#ifndef IM_VERIFY_VERIFY_H
#define IM_VERIFY_VERIFY_H

#include "vault/vault.h"

struct verify_events { /* each may be NULL */
	void (*phase)(void *context, const char *name);
	void (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
	void (*damage)(
	    void *context, const char *object, const char *problem); /* as soon as it is found */
	void *context;
};

struct verify_request {
	struct vault *vault;
	const char *node;         /* NULL: all nodes */
	unsigned read_percent;    /* 0: presence only … 100: every byte */
	const char *state_dir; /* keeps the cursor "verify-cursor" by which the share read moves on;
				  NULL: always from the start */
	const struct verify_events *events;
};

struct verify_damage {
	char *object;     /* name in the vault */
	char *problem;
	char **snapshots; /* "NODE/SSSSSSSS-HHHHHHHHHHHHHHHH" of those it harms */
	size_t snapshot_count;
	char **stores;    /* "NODE/STORE" */
	size_t store_count;
	char **paths; /* what is harmed in the newest harmed snapshot of each node: files, or pages
			 of a database; of a segment of a log: which instants, a sentence */
	size_t path_count;
};

struct verify_result {
	uint64_t snapshots, packs, fragments; /* looked at */
	uint64_t packs_read, bytes_read, bytes_total; /* of packs that snapshots need */
	uint64_t segments, log_bytes; /* of the logs, all of which are read */
	uint64_t runs;            /* run records; one that is forged or damaged is a warning: it harms no data */
	uint64_t entries_decoded; /* with a restore key */
	uint64_t unreferenced;    /* packs no snapshot needs (runs that died, or other nodes) */
	int64_t duration_ms;
	struct verify_damage *damaged;
	size_t damaged_count;
	char **warnings;
	size_t warning_count;
};

/* 0, IM_ECORRUPT if anything is damaged, IM_EUNREACHABLE, …. ret is filled also on failure; clear
 * it in every case. */
int verify_run(
    const struct verify_request *request, struct verify_result *ret, struct im_error *err);
void verify_result_clear(struct verify_result *r);

#endif
