/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an instant restore leaves on disk while it is under way, for those who come after a crash:
 * "instant.json" (see base/arriving.h) in each of its stage folders, "switched.json" when all is ordinary. It holds no secrets.
 */
#ifndef IM_RESTORE_INSTANT_RECORD_H
#define IM_RESTORE_INSTANT_RECORD_H

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

enum record_phase {
	RECORD_BUILDING, /* nothing was served from it: may be thrown away */
	RECORD_SERVING,
	RECORD_SWITCHED, /* all is ordinary; what is left is an alias */
};

/* Durable, replacing the one before. */
int record_write(const char *stage, enum record_phase phase, const json_t *details, struct im_error *err);
/* For a stage from which nothing was served, when all is put back: it is an ordinary leftover then. */
void record_remove(const char *stage);
/* *ret_details: owned by the caller. IM_ENOTFOUND: there is none. */
int record_read(const char *stage, enum record_phase *ret_phase, json_t **ret_details, struct im_error *err);

#endif
