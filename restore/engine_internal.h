/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What engine.c, engine_declare.c and engine_window.c share.
 */
#ifndef IM_RESTORE_ENGINE_INTERNAL_H
#define IM_RESTORE_ENGINE_INTERNAL_H

#include "restore/built.h"
#include "restore/engine.h"
#include "restore/idlist.h"
#include "restore/instant/content.h"

enum { ENGINE_FEW_FILES = 256 }; /* up to this many files and folders are fsynced one by one */

struct engine_piece {
	uint64_t offset;
	uint32_t file, len, skip;
	uint32_t id; /* row of ids */
};

struct engine_made { /* a range its file's transform makes */
	uint64_t offset;
	uint32_t file, len;
};

struct engine_store {
	struct rebuild rebuild; /* first: the store kinds see only this */
	struct engine *engine;
	const struct store_ops *ops;
	char *name;
	uint32_t number, base; /* base: engine's number of the first pack of its snapshot */
	size_t unit;
	uint64_t files, bytes;
	bool failed, planned, dressed;
	char **damaged_maps;
	size_t damaged_map_count;
};

struct engine_folder {
	char *path;
	int root_fd;
};

struct engine {
	struct engine_options options;
	struct engine_store **stores;
	size_t store_count;
	struct built built;
	struct writer *writer;
	struct content *content; /* NULL: all is fetched */
	uint8_t chunk_key[32];
	struct fetch_item *items;
	struct engine_piece *pieces;
	size_t piece_count, piece_cap;
	struct engine_made *made; /* by stretch, while a window is fetched */
	size_t made_count, made_cap;
	_Atomic size_t made_next; /* the first nobody has taken */
	struct idlist ids;
	bool is_root;
	bool sealed; /* nothing more will be declared */
	bool told;   /* of the first window */
	struct engine_folder folders[ENGINE_FEW_FILES];
	size_t folder_count; /* may be more than are kept */
	uint8_t *pack_seen; /* by the engine's pack numbers */
	uint32_t pack_total;
	_Atomic uint64_t done_bytes, replay_us;
	struct engine_stats stats;
};

/* engine_declare.c: fills in the functions stores call. */
void engine_declare_init(struct rebuild *r);
/* engine_made.c. Makes what is due before or in a stretch (see engine_stretch). Worker threads. */
int engine_make_due(struct engine *e, unsigned worker, uint64_t stretch, struct im_error *err);
void engine_made_begin(struct engine *e); /* before a window is fetched */
int engine_made_rest(struct engine *e, struct im_error *err); /* after it: the rest, on all CPUs */
/* engine_lazy.c */
int engine_lazy_init(struct engine *e, struct im_error *err);
int engine_lazy_file(struct engine *e, struct built_file *f, bool at_once, struct im_error *err);
/* engine_window.c: which stretch of which large file; 0 for all small ones. */
uint64_t engine_stretch(const struct engine *e, uint32_t file, uint64_t offset);
/* Bytes of a file (data NULL: to be made) through its transform and check to the writer; p->skip
 * is taken off already. */
int engine_put(struct engine *e, unsigned worker, const struct engine_piece *p, const uint8_t *data,
    struct im_error *err);
/* engine_window.c: a pack by the engine's number; context: the engine. */
const struct pack_info *engine_pack(void *context, uint32_t number);
/* engine_window.c: fetches (in a dry run: counts) what was declared since the last window. */
int engine_window(struct engine *e, struct im_error *err);

#endif
