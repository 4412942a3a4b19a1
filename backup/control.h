/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The follower's end of the control socket: a thread that serves one client at a time, `imvault
 * backup` of the same user. What it asks is carried out by the functions given here.
 */
#ifndef IM_BACKUP_CONTROL_H
#define IM_BACKUP_CONTROL_H

#include "base/error.h"

#include <jansson.h>

struct control_ops { /* on the control thread */
	int (*freeze)(void *context, const char *store, struct im_error *err);
	int (*pinned)(void *context, const char *store, const json_t *position, json_t **ret_log, struct im_error *err);
	int (*image)(void *context, const char *store, const char *checksum_hex, bool *ret_joined, struct im_error *err);
	void (*gone)(void *context); /* the client is: what it froze goes on */
	void *context;
};

struct control;
/* folder: the follower's. ops is borrowed. */
int control_start(const char *folder, const struct control_ops *ops, struct control **ret, struct im_error *err);
void control_stop(struct control *c); /* NULL is fine */

#endif
