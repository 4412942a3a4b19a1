/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of an instant restore that outlives each of its processes: which blocks are there, who
 * waits for what, how far it is. It lies in memory shared by all of them (a memfd, found through
 * /proc by other commands) and holds no secrets and no content. What must outlive a reboot is on
 * disk instead: the files' own holes and attributes (see lazy.h).
 *
 * Fields that change after the start are atomic. Files and blocks are changed by the one worker
 * only; a new worker begins with table_take_over.
 */
#ifndef IM_RESTORE_INSTANT_TABLE_H
#define IM_RESTORE_INSTANT_TABLE_H

#include "base/error.h"
#include "restore/instant/fan.h"
#include "stores/store.h"

#include <stdatomic.h>

#define TABLE_BLOCK_BYTES (64u << 10)
#define TABLE_SLOTS 256
#define TABLE_TRACE_MAX 16384u
#define TABLE_TROUBLE_BYTES 512
#define TABLE_NAME "imvault-instant" /* of the memfd */

enum table_kind { /* how accesses are made to wait */
	TABLE_BLOCKS = FAN_BLOCKS,
	TABLE_FILES = FAN_FILES,
	TABLE_VIEW, /* they go through FUSE */
};

enum table_phase {
	TABLE_BUILDING,  /* nothing is served yet */
	TABLE_HYDRATING, /* the service may use it */
	TABLE_HYDRATED,  /* every file is whole; the switch is due */
	TABLE_SWITCHED,  /* ordinary files under their names */
	TABLE_GIVEN_UP,  /* ended by an abort */
};

enum table_block { BLOCK_NONE, BLOCK_BUSY, BLOCK_DONE, BLOCK_BAD, BLOCK_STATE = 3,
	BLOCK_DIGESTED = 0x40, /* its digest is known */
	BLOCK_TOUCHED = 0x80 /* by the service */ };

enum table_file_state {
	FILE_LAZY,      /* watched */
	FILE_WHOLE,     /* every block is there; to be made durable */
	FILE_ORDINARY,  /* durable and no longer watched */
};

struct table_file {
	uint64_t size, ino, device; /* ino 0: there is no such file (any more) */
	uint64_t first_block;
	uint32_t blocks, store;
	_Atomic uint64_t limit;   /* what lies beyond comes from the server: the smallest size seen */
	_Atomic uint32_t left;    /* blocks not there yet */
	_Atomic uint8_t state;    /* enum table_file_state */
	_Atomic uint8_t touched;  /* by the service: its time is its own */
	_Atomic uint8_t differs;  /* whole, but not what the snapshot says */
	_Atomic uint8_t unsafe;   /* it could not be made durable: what the disk holds is not known */
	bool has_digest;
};

struct table_slot { /* an event that somebody waits for; written by the kernel, so whole however the worker ends */
	_Alignas(64) uint8_t event[FAN_SLOT_BYTES];
	_Atomic uint32_t file; /* number + 1; 0: not known yet */
};

struct table_touch {
	uint32_t file, block;
};

struct table_head {
	uint64_t magic;
	uint32_t version, file_count;
	uint64_t block_count, total_bytes, digest_count;
	uint64_t stage_dev, stage_ino; /* which restore this is */
	int64_t begin_wall_ms, rto_ms; /* of the restore */
	int64_t begin_us;              /* monotonic */
	uint32_t kind;                 /* enum table_kind */
	_Atomic uint32_t phase;        /* enum table_phase */
	_Atomic int32_t keepers[2], worker; /* process ids */
	_Atomic uint32_t worker_starts, keeper_starts;
	_Atomic uint64_t filled_bytes, demand_bytes, events, longest_us, bad_blocks;
	_Atomic uint32_t files_left, waiting;
	_Atomic uint32_t awaits_service; /* files stay watched until it is ready, so that what it touches is known */
	_Atomic int64_t ready_us, service_us, hydrated_us, switched_us; /* monotonic; 0: not yet */
	_Atomic int64_t away_since_us; /* the vault cannot be reached; 0: it can */
	_Atomic uint32_t trouble_count;
	char trouble[TABLE_TROUBLE_BYTES]; /* the last; may be torn */
	_Atomic uint32_t trace_count;
	struct table_touch trace[TABLE_TRACE_MAX];
	struct table_slot slots[TABLE_SLOTS];
};

struct table {
	struct table_head *head;
	struct table_file *files;
	_Atomic uint8_t *blocks;
	uint8_t (*digests)[REBUILD_DIGEST_BYTES]; /* by block; of files that have one */
	size_t bytes;
	int fd;
};

/* sizes[file_count] in bytes. The blocks of a file follow each other. */
int table_new(const uint64_t *sizes, const bool *digests, uint32_t file_count, struct table *ret, struct im_error *err);
/* fd: of a memfd, duplicated. IM_EUSAGE: it is none of ours. writable: else a look only. */
int table_open(int fd, bool writable, struct table *ret, struct im_error *err);
void table_close(struct table *t);

static inline uint32_t table_phase(const struct table *t)
{
	return atomic_load(&t->head->phase);
}
static inline _Atomic uint8_t *table_block(const struct table *t, uint32_t file, uint32_t block)
{
	return &t->blocks[t->files[file].first_block + block];
}
/* Before a worker's first step: what its predecessor had begun is begun anew, what was damaged is tried again. */
void table_take_over(struct table *t);
/* Will it never be complete by itself: all is there that can be had, but something is damaged in the vault, or not safe on the disk? */
bool table_is_stuck(const struct table *t);
/* … then says so: IM_ECORRUPT or IM_EIO; 0: it is not. */
int table_check(const struct table *t, struct im_error *err);
uint32_t table_unsafe_files(const struct table *t);
/* Something an operator should know. */
void table_trouble(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
