/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files a restore is making: what the store declared, what was lost of it, and its completion
 * (size, owner, mode, times). Files never move in memory: the writer and running jobs point at
 * them.
 */
#ifndef IM_RESTORE_BUILT_H
#define IM_RESTORE_BUILT_H

#include "restore/writer.h"
#include "stores/store.h"

#include <pthread.h>
#include <stdatomic.h>

enum { BUILT_LANES = 64 };

struct built_lane { /* one worker's share of a file's digest */
	_Alignas(64) uint8_t sum[REBUILD_DIGEST_BYTES];
	uint64_t bytes;
};

struct built_file {
	struct writer_file writer; /* writer.path is owned here */
	uint64_t declared_bytes;
	int64_t mtime_ns;
	unsigned mode;
	uint32_t uid, gid, store;
	bool set_owner;
	bool dropped; /* another store brings it, or its store failed */
	bool done;
	uint32_t lazy; /* its content comes later: number of the content + 1; else 0 */
	_Atomic bool damaged;
	_Atomic uint32_t pending; /* pieces not yet written in this window */
	uint64_t lost_bytes, lost_first;
	char *damage_text;
	int (*transform)(void *context, unsigned worker, uint64_t offset, const uint8_t **data,
	    size_t len, struct im_error *err);
	bool (*digest)(void *context, uint64_t offset, const uint8_t *data, size_t len,
	    uint8_t ret[REBUILD_DIGEST_BYTES]);
	struct built_lane *lanes; /* with a digest: one for each worker */
	atomic_bool ragged;       /* some range had no digest */
	int (*prove)(void *context, int fd, const uint8_t *sum, struct im_error *err);
	int (*finish)(void *context, int fd, int parent_fd, const char *name, struct im_error *err);
	void *context;
};

struct built { /* all files of a restore */
	struct built_file **chunks;
	size_t chunk_count, count;
	pthread_mutex_t mutex; /* damage */
	_Atomic uint64_t refused_owners; /* chown was not permitted */
};

void built_init(struct built *b);
void built_clear(struct built *b);
int built_add(struct built *b, const struct rebuild_file *file, uint32_t store, int root_fd,
    uint32_t *ret_number, struct im_error *err);
struct built_file *built_at(const struct built *b, size_t number);
/* Notes a loss; the first reason is kept. Any thread. */
void built_damage(
    struct built *b, struct built_file *f, uint64_t offset, uint64_t len, const char *text);
/* Adds a range to the file's digest, if it has one. Any thread, with its own worker number. */
void built_digest(struct built_file *f, unsigned worker, uint64_t offset, const uint8_t *data, size_t len);
/* Asks the store whether the file, of which all is written, is what it should be. */
int built_prove(struct built_file *f, int fd, struct im_error *err);
/* Owner, mode and times of an open file. */
int built_set_metadata(struct built *b, struct built_file *f, int fd, struct im_error *err);
/* Gives the staged file (and every other hard link to it) its damaged name. */
int built_rename_damaged(const struct built_file *f, struct im_error *err);

#endif
