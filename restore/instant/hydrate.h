/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing blocks: whoever needs a range gets it whole, each block is brought once, whoever comes
 * second waits for the first. The worker's threads share one of these; it ends with the process.
 */
#ifndef IM_RESTORE_INSTANT_HYDRATE_H
#define IM_RESTORE_INSTANT_HYDRATE_H

#include "restore/instant/content.h"
#include "restore/instant/table.h"
#include "vault/storage/storage.h"

struct hydrator;
struct hydrate_lane; /* a thread's own */

struct hydrate_options {
	const struct content *content;
	struct table *table;
	struct storage *storage; /* asked whether the vault is there at all: */
	const uint8_t *identity; /* its vault.json, as it was; NULL: any will do */
	size_t identity_len;
	const int *fds;          /* by file; raise no events */
	int group;               /* -1: nothing is watched */
	bool resumed;            /* files hold what came before a crash: only holes are filled */
};

int hydrate_new(const struct hydrate_options *options, struct hydrator **ret, struct im_error *err);
/* No thread may be using it any more. */
void hydrate_free(struct hydrator *h);
/* number: one thread's own, below BUILT_LANES. */
int hydrate_lane_new(unsigned number, struct hydrate_lane **ret, struct im_error *err);
void hydrate_lane_free(struct hydrate_lane *l);

enum hydrate_why { HYDRATE_DEMAND, HYDRATE_AHEAD };

/* Returns when all of [offset, offset + len) that is still the vault's has arrived (AHEAD: what another thread is bringing is not
 * waited for). Waits as long as the vault is away. IM_ECORRUPT: part of it is damaged in the vault; IM_ENOSPACE; IM_EIO. */
int hydrate_range(struct hydrator *h, struct hydrate_lane *l, uint32_t file, uint64_t offset, uint64_t len, enum hydrate_why why,
    struct im_error *err);
/* The server is about to touch the file: notes that, and if it was made shorter since. *ret_limit: what lies beyond is the server's. */
int hydrate_touch(struct hydrator *h, uint32_t file, uint64_t *ret_limit, struct im_error *err);
/* All blocks are there: proves, makes durable (unless synced: it is), and lets go of the file. Several at once for different files. */
int hydrate_finish(struct hydrator *h, uint32_t file, bool synced, struct im_error *err);
/* Waits until a file may have become whole, at most this long. */
void hydrate_wait(struct hydrator *h, unsigned timeout_ms);

#endif
