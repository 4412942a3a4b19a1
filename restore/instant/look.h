/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far instant restores of this machine are, for status.
 */
#ifndef IM_RESTORE_INSTANT_LOOK_H
#define IM_RESTORE_INSTANT_LOOK_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum instant_state {
	INSTANT_AT_WORK,
	INSTANT_CUT_OFF, /* nobody works on it: --resume or --abort */
	INSTANT_ALIAS,   /* complete; a second name is left until its service ends */
};

struct instant_look {
	const char *target, *node, *stage; /* borrowed during the call */
	enum instant_state state;
	bool held;            /* cut off, but a process of the service holds it: its accesses wait and see no zeros */
	bool known;           /* what follows is known */
	uint64_t filled_bytes, total_bytes, bad_bytes;
	uint32_t files_left, unsafe_files, waiting; /* accesses that wait just now */
	int64_t since_ms;     /* wall clock: when the restore began */
	int64_t ready_ms, service_ms; /* from then to "shown" and "service ready"; -1: not yet */
	int64_t left_ms;      /* until complete at the rate so far; -1: unknown */
	int64_t away_ms;      /* the vault is out of reach for so long; 0: it is there */
	int64_t rto_ms;
	uint32_t worker_starts, keeper_starts;
	const char *trouble;  /* the last there was, or NULL */
};

/* Those of the mounted folders, and of paths (absolute, NULL-terminated; NULL: none). One folder at a time. */
int instant_look(const char *const *paths, void (*fn)(void *context, const struct instant_look *l), void *context, struct im_error *err);

#endif
