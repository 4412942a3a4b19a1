/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of a database under its own locks (WAL mode; rollback journal with locking = shared),
 * of an empty one, and of one that has not changed since the last snapshot.
 */
#ifndef IM_STORES_SQLITE_LIVE_H
#define IM_STORES_SQLITE_LIVE_H

#include "stores/sqlite/image.h"
#include "stores/sqlite/pin.h"

int live_snapshot(const struct snapshot_request *request, enum pin_mode mode, int64_t timeout_ms, struct snapshot_result *ret, struct im_error *err);
int live_snapshot_empty(const struct snapshot_request *request, const struct pin_files *files, struct snapshot_result *ret, struct im_error *err);
/* Tells the follower, if there is one, at which commit the image stands; ret->log is what it answers. A follower that cannot
 * is no reason to fail: the snapshot is then a recovery point by itself. */
void live_anchor(const struct snapshot_request *request, const struct shm_head *shm, uint32_t page_size, uint32_t pages, int64_t before_ms, struct snapshot_result *ret);
/* *ret_same: the files are what they were and every pack is still known; ret is then filled without reading anything. */
int live_unchanged(const struct snapshot_request *request, const struct pin_files *files, bool *ret_same, struct snapshot_result *ret, struct im_error *err);
/* Remembers the image and puts manifest and figures into ret, whose instant_ms and pause_us are set. Takes over manifest.
 * fingerprint: of the files at the instant of the image, or NULL if it can't be told. */
int live_conclude(struct image *image, const uint8_t *fingerprint, bool racy, json_t *manifest, struct snapshot_result *ret, struct im_error *err);

#endif
