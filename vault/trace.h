/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start traces: what a service read of its stores until it was ready, kept in the vault so that the
 * next instant restore brings that first (FORMAT §9). Signed by a restore key and sealed to restore
 * keys, but never more than a hint: a lost or old one costs time only.
 */
#ifndef IM_VAULT_TRACE_H
#define IM_VAULT_TRACE_H

#include "vault/vault.h"

#include <jansson.h>

/* Writes one more for the node. touches: FORMAT §9, private part. */
int trace_write(const struct vault *v, const char *node, int64_t time_ms, json_t *touches, struct im_error *err);
/* The newest that can be read and was signed by an active restore key; owned by the caller. IM_ENOTFOUND: there is none. */
int trace_read(const struct vault *v, const char *node, json_t **ret, struct im_error *err);

#endif
