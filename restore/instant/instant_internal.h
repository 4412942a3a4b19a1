/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What instant.c, serve.c and resume.c share: one instant restore, as its command sees it.
 */
#ifndef IM_RESTORE_INSTANT_INTERNAL_H
#define IM_RESTORE_INSTANT_INTERNAL_H

#include "restore/instant/arrange.h"
#include "restore/instant/instant.h"
#include "restore/instant/keeper.h"
#include "restore/instant/record.h"
#include "restore/instant/stash.h"
#include "restore/instant/trace.h"

struct instant {
	struct restore_job *job;
	enum table_kind kind;
	struct arrangement *wholes;
	size_t whole_count;
	size_t arranged;        /* so many of them were begun */
	int *fds;               /* of the files, by number; then the table's and the group's: as the stash holds them */
	uint32_t file_count;
	struct table table;
	int group, stash, alive[2]; /* alive: read and write end */
	uint32_t *order;
	struct table_touch *hot; /* what a start touched before */
	size_t hot_count;
	struct worker_options worker;
	struct worker_view *views;
	struct im_buf identity; /* the vault's vault.json */
	struct keeper_options keeper;
	int64_t let_go_told_us; /* when the service was last told to let go of a view */
	pid_t child;            /* the first keeper, or -1 */
	bool resumed;           /* the files hold what came before a crash */
	int64_t shown_us;       /* when progress was last told, and the demand then */
	uint64_t shown_demand;
	bool serving;           /* from here on nothing is undone */
	uint64_t files_before;    /* the soft limit we came with */
};

/* instant.c */
void instant_begin(struct instant *in, struct restore_job *job);
void instant_clear(struct instant *in);
/* state.c */
const char *instant_kind_name(enum table_kind kind);
enum table_kind instant_kind_of(const char *name);
/* fds[] without the last two, which it fills; the order of the background. */
int instant_make_table(struct instant *in, struct im_error *err);
/* The order of the background alone; part of the above. */
int instant_make_order(struct instant *in, struct im_error *err);
/* The group exists: everything goes into the stash. */
int instant_make_stash(struct instant *in, struct im_error *err);
int instant_write_records(struct instant *in, enum record_phase phase, struct im_error *err);

/* serve.c: shows the folders (those not shown yet) and starts the keepers. From then on in->serving. */
int instant_serve(struct instant *in, struct im_error *err);
/* … starts the service, waits until all is ordinary, fills the result. */
int instant_see_through(struct instant *in, struct im_error *err);

#endif
