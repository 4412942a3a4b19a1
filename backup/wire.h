/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a follower, both ends: where it lies, and one JSON object per line. Either
 * side takes the other for a stranger: lines are bounded, waiting is bounded.
 */
#ifndef IM_BACKUP_WIRE_H
#define IM_BACKUP_WIRE_H

#include "base/bytes.h"
#include "base/error.h"

#include <jansson.h>

#define WIRE_MAX_LINE_BYTES (1u << 20)

struct wire { /* a connection */
	int fd;
	struct im_buf in; /* received, not read yet */
};

/* The folder of a node's follower: FOLDER/NODE.follow. Allocated. */
char *wire_folder(const char *folder, const char *node);
/* IM_ENOTFOUND: nobody listens. ret_pid: who does. */
int wire_connect(const char *folder, struct wire *ret, int *ret_pid, struct im_error *err);
int wire_listen(const char *folder, int *ret_fd, struct im_error *err);
int wire_send(struct wire *w, const json_t *message, struct im_error *err);
/* IM_ENOTFOUND: the other side closed. IM_EMISSED: nothing came in time. wake_fd (or -1): IM_EINTERRUPTED when it is readable. */
int wire_receive(struct wire *w, int wake_fd, int64_t timeout_ms, json_t **ret, struct im_error *err);
void wire_close(struct wire *w);

#endif
