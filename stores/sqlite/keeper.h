/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: a small process beside the follower that holds the read pins, so that a follower that
 * is killed finds the source as it left it: not a frame after the pin can have gone. It also
 * keeps the follower's journal (an anonymous file, its own memory) alive. It holds on for a bounded time
 * without a follower and for a bounded size of the WAL, then lets go: the source is never held for long.
 *
 * It is the only process of ours that has the database open through SQLite, so the follower may
 * open and close the files as it likes (closing a descriptor drops a process's POSIX locks).
 */
#ifndef IM_STORES_SQLITE_KEEPER_H
#define IM_STORES_SQLITE_KEEPER_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct keeper; /* the follower's end; one thread */

struct keeper_pin {
	uint32_t page_size, pages; /* pages: 0 if the WAL never had a frame; then the file's size says */
	uint32_t frame;            /* frames of the WAL up to the pinned commit */
	uint32_t frame_checksum[2];
	uint8_t salt[8];
	bool all_backfilled;       /* every frame is in the database: the WAL may be restarted by the next writer */
	int64_t before_ms, after_ms; /* everything committed before is in; nothing committed after */
};

struct keeper_options {
	const char *folder;     /* where its socket lies: the same for the successor */
	const char *database;
	int64_t timeout_ms;     /* for locks */
	int64_t hold_ms;        /* without a follower */
	uint64_t wal_limit_bytes; /* it lets go when more of the WAL than this is in use */
};

/* Finds the keeper of this folder or starts one. *ret_journal: descriptor of the journal, the caller's. pins: the older first;
 * *ret_count is 0 for a new keeper. Not while another thread of this process is inside SQLite (it forks). */
int keeper_open(const struct keeper_options *o, struct keeper **ret, struct keeper_pin ret_pins[2], unsigned *ret_count, int *ret_journal, struct im_error *err);
/* Pins the newest commit beside the pin that is held. IM_EGAP: the keeper is gone or let go. */
int keeper_take(struct keeper *k, struct keeper_pin *ret, struct im_error *err);
/* Lets the older (or the newer) of two pins go. */
int keeper_release(struct keeper *k, bool newer, struct im_error *err);
/* False: the keeper has ended, and with it every lock it held. */
bool keeper_is_alive(const struct keeper *k);
/* A PASSIVE checkpoint; refused (IM_EUSAGE) unless a pin above slot 0 is held: then no writer can restart the WAL meanwhile,
 * which SQLite before 3.51.3 does not survive from another process (docs/DESIGN.md). */
int keeper_checkpoint(struct keeper *k, struct im_error *err);
/* hold false: it ends at once. */
void keeper_close(struct keeper *k, bool hold);

/* --- between keeper.c and keeper_process.c --- */

enum keeper_op { KEEPER_HELLO = 1, KEEPER_TAKE, KEEPER_RELEASE_OLD, KEEPER_RELEASE_NEW, KEEPER_CHECKPOINT, KEEPER_QUIT };
#define KEEPER_VERSION 1
#define KEEPER_SOCKET "keeper"

struct keeper_request {
	uint32_t version, op;
	int64_t hold_ms;
	uint64_t wal_limit_bytes;
};
struct keeper_reply {
	uint32_t version;
	int32_t code;
	uint32_t pin_count;
	uint64_t device, inode; /* of the database */
	struct keeper_pin pins[2];
	char text[IM_ERROR_TEXT_BYTES];
};

/* Never returns. listener: the bound socket. */
void keeper_process_run(const struct keeper_options *o, int listener) __attribute__((noreturn));

#endif
