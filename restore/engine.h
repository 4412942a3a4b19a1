/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine behind struct rebuild: stores declare files and pieces, the engine fetches and writes
 * them. A plan that would outgrow its memory is fetched in windows. Within one, small files come in
 * the order of the packs, large ones stretch by stretch, so that blocks fill up completely before
 * they are written even where increments scattered a file over many packs.
 */
#ifndef IM_RESTORE_ENGINE_H
#define IM_RESTORE_ENGINE_H

#include "restore/restore.h"
#include "restore/writer.h"

struct target;
struct engine;

struct engine_options {
	struct vault *vault;
	struct fetcher *fetcher;
	const struct restore_events *events;
	const struct store_events *store_events; /* for the stores' own warnings */
	struct target *target;   /* for target_is_covered; NULL for a dry run */
	bool dry_run;            /* count, fetch nothing */
	bool check_ids;          /* compare chunks with their ids */
	uint64_t lazy_bytes;     /* the content of larger files comes later (engine_content); 0: everything is fetched */
	uint32_t lazy_max;       /* not more of them than this */
	bool only_lazy;          /* everything else is there already: nothing is fetched, made or written */
	uint64_t total_bytes;    /* for progress; 0: unknown */
	/* Once, before anything is fetched; not in a dry run. all: everything is planned, so the
	 * figures are final. */
	void (*first_window)(void *context, bool all);
	void *context;
};

struct engine_stats {
	struct fetch_stats fetch;
	uint64_t files, planned_bytes, read_bytes_planned, packs, fetch_us, write_us,
	    refused_owners;
	uint64_t replay_us; /* reading and laying the log, over all threads */
};

int engine_new(const struct engine_options *options, struct engine **ret, struct im_error *err);
void engine_free(struct engine *e);

/* A store to rebuild; everything is borrowed until engine_free. unit: of the target. log: may be
 * NULL. */
int engine_add(struct engine *e, const struct snapshot *snapshot, json_t *manifest,
    const char *name, size_t unit, int root_fd, const char *path_filter,
    const struct rebuild_log *log, size_t *ret_store, struct im_error *err);
/* Lets the store declare what it has. A failure harms this store only: its pieces are not fetched.
 */
int engine_plan(struct engine *e, size_t store, struct im_error *err);
/* Fetches and writes everything still due. */
int engine_fetch(struct engine *e, struct im_error *err);
/* What was not fetched; borrowed. NULL unless lazy_bytes was given. */
struct content;
const struct content *engine_content(const struct engine *e);
/* Makes the files whose content comes later, empty but with their metadata; fds[number of the content], open for reading and
 * writing, the caller's. After the last plan, before dress. A last page that is not full is filled at once: a server that appends
 * to it announces another place. */
int engine_make_lazy(struct engine *e, int *fds, struct im_error *err);
/* Makes their names durable, both of them; part of what engine_sync_few leaves out. */
int engine_sync_lazy_names(struct engine *e, struct im_error *err);
/* Ends the threads that write; nothing more can be fetched. */
void engine_stop_writing(struct engine *e);

/* Gives every file its size, owner, mode and time; calls files' finish. A finish that finds damage
 * harms its file only. */
int engine_complete(struct engine *e, struct im_error *err);
/* Links, folders' metadata and the like; part of finish unless it was done before. */
int engine_dress(struct engine *e, size_t store, struct im_error *err);
/* The store's own finish, and the names of its damaged files. */
int engine_finish(struct engine *e, size_t store, bool failed, struct im_error *err);

/* Makes what was restored durable file by file, if it is not much; *ret_done false: it is, sync the
 * file system. After finish, before publishing. */
int engine_sync_few(struct engine *e, bool *ret_done, struct im_error *err);

struct engine_damage {
	const char *path; /* original, absolute; NULL: a part of the map */
	const char *text;
};
/* Calls fn for each damage of the store. */
void engine_each_damage(const struct engine *e, size_t store,
    void (*fn)(void *context, const struct engine_damage *d), void *context);
uint64_t engine_damage_count(const struct engine *e, size_t store);
void engine_store_stats(
    const struct engine *e, size_t store, uint64_t *ret_files, uint64_t *ret_bytes);
void engine_get_stats(const struct engine *e, struct engine_stats *ret);

#endif
