/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery records: what each drill and each real restore took and proved (FORMAT §10). One signed
 * object each, never overwritten, each naming the records before it, so that they survive the node
 * and a removed or altered one shows. Written with a restore key; every role reads the meta part.
 */
#ifndef IM_VAULT_DRILLS_H
#define IM_VAULT_DRILLS_H

#include "vault/vault.h"

#include <jansson.h>

struct drill_record {
	char *object;   /* "drills/NODE/SSSSSSSS-HHHH…" */
	uint64_t seq;
	uint8_t hash[32], signer[8];
	bool signer_active;     /* false: that key was revoked since */
	json_t *meta;           /* FORMAT §10; owned */
	json_t *private_part;   /* owned; NULL with a key that may not read it */
	/* Out of meta, borrowed; texts are never NULL (""), times in ms, -1: not there. */
	const char *kind, *scenario, *verdict, *chosen, *operator_name, *host, *version, *snapshot;
	bool is_drill;          /* else a real restore */
	int64_t time_ms, instant_reached_ms, rpo_ms, rpo_target_ms, rto_ms, service_ready_ms, data_complete_ms;
	int64_t forecast_p50_ms, forecast_p95_ms; /* made before it began, of service ready */
	bool rto_met, rpo_met, passed; /* passed: nothing was missing, damaged or different */
};

struct drill_list {
	struct drill_record *items; /* by seq, then hash */
	size_t count;
	char **findings;            /* what is wrong with the chain, a sentence each */
	size_t finding_count;
};

/* All of the node's that can be read and were signed by a restore key of this vault; others are findings. No record: an empty list. */
int drills_read(const struct vault *v, const char *node, struct drill_list *ret, struct im_error *err);
void drill_list_clear(struct drill_list *l);
/* The newest drill that passed (of any scenario), the newest drill, or NULL; borrowed. */
const struct drill_record *drills_last(const struct drill_list *l, bool passed);
/* Adds node, seq and prev to meta, signs and writes. own key: restore. ret_object: malloc'ed, may be NULL. */
int drills_append(const struct vault *v, const char *node, json_t *meta, json_t *private_part, char **ret_object, struct im_error *err);

#endif
