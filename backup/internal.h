/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of backup/ share: the run in progress.
 */
#ifndef IM_BACKUP_INTERNAL_H
#define IM_BACKUP_INTERNAL_H

#include "backup/anchor.h"
#include "backup/backup.h"
#include "stores/store.h"
#include "vault/index.h"
#include "vault/snapshot.h"
#include "vault/vault.h"

struct backup_image { /* of one configured store, beside its row in the result */
	const struct im_config_store *store;
	bool selected;
	struct snapshot_result result; /* manifest NULL: none */
};

struct backup_head { /* where the new snapshot goes in the chain */
	uint64_t seq;         /* of the new snapshot */
	bool has_prev;
	uint8_t prev[32];
	bool rolled_back;     /* the vault lacks what this node wrote */
};

struct backup_run {
	const struct backup_request *request;
	const struct im_config *config;
	const char *node;
	struct backup_result *result;
	struct vault *vault;
	struct state *state;
	struct state_head state_head;
	bool has_state_head;
	struct backup_head head;
	struct packer *packer;
	struct anchor *anchor;       /* NULL: nobody follows this node */
	struct backup_image *images; /* one per row of result->stores, in the order they are read */
	struct pack_info *packs;     /* ascending by number */
	size_t pack_count;
	int64_t started_ms, started_us;
	int lock_fd; /* -1: not taken */
};

void backup_warn(const struct backup_run *run, const char *store, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* select.c: fills the rows and images of the configured stores. */
int backup_choose_stores(struct backup_run *run, struct im_error *err);
/* head.c: judges the vault's chain against the local state; may forget the state. */
int backup_find_head(struct backup_run *run, struct im_error *err);

/* present.c: every pack of run->packs is in the vault, or IM_ECORRUPT and the local state forgets. */
int backup_check_packs(struct backup_run *run, struct im_error *err);

/* record.c: the images of stores not read this time, from the local state. */
int backup_carry_over(struct backup_run *run, struct backup_image *image, struct backup_store *row, struct im_error *err);
/* Remembers this image for later carrying over. */
int backup_remember(struct backup_run *run, const struct backup_image *image, const struct backup_store *row, struct im_error *err);
/* Writes the snapshot. run->packs and the rows are final. */
int backup_write_record(struct backup_run *run, uint8_t ret_hash[32], struct im_error *err);
char *backup_pack_table(const struct pack_info *packs, size_t count); /* base64; NULL when out of memory */

#endif
