/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the follower service share: a node with one store whose source is the fake, a vault
 * behind the fault layer, and the service running in a thread of this process or for one round.
 */
#ifndef IM_TESTS_FOLLOW_SERVICE_H
#define IM_TESTS_FOLLOW_SERVICE_H

#include "fake_source.h"
#include "fixture.h"

#include "backup/follow.h"

#include <stdatomic.h>

struct heard { /* what the service said */
	pthread_mutex_t lock;
	char *lines[400];
	size_t count;
	unsigned ready;
};

struct rig {
	struct fixture f;
	struct im_config *config;
	char state_dir[128];
	bool is_clone;
	int64_t check_ms;
	char follow_dir[256], store_dir[300]; /* of the local state */
	struct storage_fault_plan faults;
	struct heard heard;
	/* The snapshot that the service asks for */
	unsigned snapshots, snapshots_done; /* atomic */
	atomic_int snapshot_rc;
	atomic_bool snapshot_anchors; /* it asks for an anchor as imvault backup does */
	bool snapshot_forged;  /* … and then finds other content than the log leads to */
	json_t *log;           /* of the last anchored snapshot */
	/* The service in a thread */
	pthread_t thread;
	bool running, reload;
	int rc;
	struct im_error err;
	struct follow_result result;
};

/* follow: lines of [follow], or NULL. */
void rig_start(struct rig *r, const char *follow);
/* Another machine with the same keys and a copy of the local state, at the same vault and source. */
void rig_clone(struct rig *r, struct rig *of);
void rig_stop(struct rig *r);
/* One round. */
int rig_once(struct rig *r);
void rig_run(struct rig *r);
/* Ends the service as SIGTERM does, or as SIGHUP does. */
void rig_end(struct rig *r);
void rig_reload(struct rig *r);
/* The vault goes away and comes back. */
void rig_vault(struct rig *r, bool there);
/* A snapshot of the store with an anchor, as imvault backup takes it. */
int rig_snapshot(struct rig *r, struct im_error *err);

void rig_nap_ms(long ms);
bool rig_said(struct rig *r, const char *part);
unsigned rig_said_times(struct rig *r, const char *part);
/* Waits up to 20 s. */
void rig_wait_said(struct rig *r, const char *part);
/* … until that many snapshots that the service asked for are taken (or failed). */
void rig_wait_snapshots(struct rig *r, unsigned count);
/* … until the vault holds what leads to this many commits. */
void rig_wait_shipped(struct rig *r, uint64_t commits);

struct chain { /* all segments of the store in the vault, as a reader sees them */
	size_t epochs, segments, parts, coarse;
	char epoch[LOG_EPOCH_CHARS + 1]; /* the newest */
	uint32_t point;          /* its last */
	uint64_t commits;        /* to which it leads */
	char *reason, *after_epoch; /* of the newest epoch */
	uint32_t after_point;
};
/* Reads and checks everything: chain, points without holes, instants, bodies without holes within an epoch. */
void chain_read(struct rig *r, struct chain *ret);
void chain_clear(struct chain *c);

#endif
