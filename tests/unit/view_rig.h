/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of a view: a staged folder of lazy files, what a vault would hold of them, and a process
 * that serves it all through FUSE.
 */
#ifndef IM_TESTS_VIEW_RIG_H
#define IM_TESTS_VIEW_RIG_H

#include "restore/instant/fuse.h"

#include <sqlite3.h>

#define BLOCK ((uint64_t)TABLE_BLOCK_BYTES)
#define BIG (3u * 1024 * 1024 + 1234)
#define SMALL (300u * 1024 + 77)
#define MTIME 1500000000

enum { FILE_BIG, FILE_SMALL, FILE_BAD, FILE_DB, FILES }; /* "big", "sub/small", "bad", "some.db" */

struct source { /* what the vault holds of a file */
	uint8_t *data;
	uint64_t size;
	uint64_t bad; /* this offset cannot be had; UINT64_MAX: all can */
};

struct shared { /* with the process that serves */
	_Atomic bool away;       /* the vault cannot be read */
	_Atomic bool background; /* brings everything and lets go of it */
	_Atomic uint32_t reads;
};

struct rig {
	char dir[64], staged[96], target[96], vault[96];
	struct source sources[FILES];
	struct built_file built[FILES];
	struct content *content;
	struct table table;
	struct storage *storage;
	struct shared *shared;
	int root_fd, fds[FILES];
	pid_t server;
	unsigned descriptors; /* the server may have so many; 0: as we */
	bool resumed;
};

extern struct rig rig;

int rig_setup(void **state);                 /* served */
int rig_setup_few_descriptors(void **state); /* … with few of them */
int rig_setup_unserved(void **state);
int rig_teardown(void **state);

void rig_serve(void);
/* The service has stopped; the server ends by itself. */
void rig_unmount(void);
void rig_kill(void);
/* As after a restart of the machine: only the files themselves are left to tell what has arrived. Not while it is served. */
void rig_forget_the_table(void);
void rig_wait_for_background(void);

struct hydrator *rig_hydrator(void);
struct fuse_view_options rig_options(struct hydrator *h);

uint8_t byte_at(uint64_t offset); /* of "big" and "sub/small"; never 0 */
/* Paths below a folder, and below the view; valid until the next but three calls. */
const char *below(const char *top, const char *rest);
const char *in(const char *rest);
int open_in(const char *rest, int flags);
void assert_holds(int fd, uint64_t offset, const uint8_t *want, size_t len);

void sql(sqlite3 *db, const char *text);
int64_t number(sqlite3 *db, const char *text);
void assert_sound(sqlite3 *db);

#endif
