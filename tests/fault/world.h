/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small real world for fault tests: a node with an SQLite store in WAL mode and a file tree, a
 * vault, keys and a configuration, in one temporary folder.
 */
#ifndef IM_TESTS_FAULT_WORLD_H
#define IM_TESTS_FAULT_WORLD_H

#include "backup/backup.h"
#include "restore/restore.h"
#include "verify/verify.h"

struct world {
	char dir[64];
	char source[96], vault[96], state[96], restore_key[96], node_key[96];
	char database[128], tree[128];
	struct im_config *config;
};

void world_start(struct world *w);
void world_stop(struct world *w);
/* Adds rows and files, numbered by round, so that each round changes both stores. */
void world_change(struct world *w, unsigned round);
/* Returns the code; the error's text goes to err. */
int world_backup(struct world *w, struct im_error *err);
/* at: NULL for latest. to: made below the world's folder. */
int world_restore(struct world *w, const char *at, const char *to, struct im_error *err);
int world_verify(struct world *w, struct im_error *err);
/* A digest of what a reader sees: all rows and all file contents below root + the original paths. 0 if either is missing. */
uint64_t world_digest(const struct world *w, const char *root);
/* True if every file that stands under a final name below root has the source's content, and so
 * has the database, if it is there. What could not be read may lie beside as NAME.imvault-damaged. */
bool world_nothing_half(const struct world *w, const char *root);

#endif
