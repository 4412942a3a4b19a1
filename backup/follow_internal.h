/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the follower share: the service and, per store, a thread with its place in the log.
 *
 * Who may touch what: a field of struct followed belongs to the store's thread unless it stands below
 * a lock or with the shipper. The service's fields are written before the threads start, or are atomic.
 */
#ifndef IM_BACKUP_FOLLOW_INTERNAL_H
#define IM_BACKUP_FOLLOW_INTERNAL_H

#include "backup/follow.h"
#include "backup/spool.h"
#include "stores/store.h"
#include "vault/vault.h"

#include <pthread.h>
#include <stdatomic.h>

#define FOLLOW_REOPEN_MS 30000      /* a store that cannot be opened is tried again */
#define FOLLOW_FREEZE_MS 30000      /* a frozen store goes on by itself */
#define FOLLOW_PENDING_BYTES (1u << 20) /* a larger batch does not wait */
#define FOLLOW_STOP_SHIP_MS 10000   /* at the end: for shipping */
#define FOLLOW_CHECK_MS 60000       /* looking for other writers, unless the request says otherwise */

struct question { /* of the control thread to a store's */
	enum { ASK_FREEZE, ASK_PINNED, ASK_IMAGE, ASK_THAW } what;
	const json_t *position;
	const char *checksum;
	json_t *log;
	bool joined, taken, done;
	int rc;
	struct im_error err;
};

struct follow_view { /* what others may see of a store; under its lock */
	bool tried;          /* it is attached or has said why not */
	bool following;      /* attached */
	bool gap;            /* a gap was recorded in this run */
	bool refused;        /* it will not be tried again */
	char trouble[400];   /* why it is not attached or does not get on; "" */
	char gap_text[400];  /* the gap, until a snapshot has healed it; "" */
	char alarm[400];     /* the source's */
	char epoch[LOG_EPOCH_CHARS + 1];
	uint32_t point, shipped_point;
	int64_t captured_ms, shipped_ms;
	char *shipped_position; /* JSON text */
	uint64_t held_bytes, segments, bytes_shipped, bytes_changed, commits;
	int64_t held_since_ms;
	bool dirty;          /* changed since the status was written */
};

struct ship_memory { /* of what this process put; the shipper's */
	char **leaves;
	size_t count, room;
	char newest[64];        /* the last one put */
	uint32_t floor;         /* of what ends at or before this point nothing is remembered */
	char epoch[LOG_EPOCH_CHARS + 1]; /* which epoch all this is about */
	char strangers[LOG_EPOCH_CHARS + 1]; /* in this epoch others were found writing */
	bool looked;            /* the first comparison with the vault is done */
};

struct service;
struct coarse;

struct followed { /* a store being followed */
	struct service *service;
	const struct im_config_store *store;
	const struct store_follow_ops *ops;
	char *folder;
	pthread_t thread;
	bool started;
	int wake[2];             /* a pipe */
	atomic_llong ticked_ms;  /* monotonic: the thread lives */
	atomic_bool finished;    /* the thread is through */
	struct spool *spool;
	struct coarse *coarse;   /* NULL: none */

	/* The thread's own */
	struct spool_head head;
	bool head_lost;
	char lost_why[256];
	struct follower *follower;
	struct store_events events;
	json_t *began;           /* of an epoch whose first segment is not written yet */
	struct follow_batch batch; /* taken, not in the spool yet */
	bool has_batch;
	int64_t batch_since_ms;  /* monotonic; 0: nothing captured */
	int64_t last_segment_ms, last_capture_ms, retry_ms, health_ms, look_ms; /* monotonic */
	int64_t moved_since_ms;  /* monotonic: the source is ahead since; 0: it is not */
	int64_t seen_ms;         /* wall clock: up to here the source was captured */
	unsigned stalls;         /* reopened because of a stall, without progress since */
	int64_t attached_ms, trouble_wait_ms; /* monotonic: since when; how long until the next attempt after trouble */
	int64_t epoch_ms, epoch_wait_ms; /* monotonic: when the epoch began; what must pass before the next */
	int64_t frozen_until_ms; /* monotonic; 0: not frozen */
	bool round_done;         /* --once: everything there was is captured */
	bool must_attach;        /* a gap ended the last attachment: the next one is due */
	bool anchored, anchored_has_sum; /* an anchor is given, its checksum awaited */
	uint32_t anchored_point;
	int64_t anchored_ms;
	uint8_t anchored_sum[SPOOL_SUM_BYTES];
	bool imaged;             /* a backup has read an image that stands in this epoch … */
	uint64_t imaged_seq;     /* … and will write a later snapshot than this */
	int64_t snapshot_again_ms; /* monotonic; 0: no need */
	unsigned idle_rounds;

	struct ship_memory shipped; /* the shipper's */
	uint32_t known_point, known_first; /* the newest segment when this process began; 0: none */
	uint8_t known_hash[32];

	pthread_mutex_t lock;    /* of what follows */
	pthread_cond_t answered;
	struct question *question;
	bool closed;             /* no more questions */
	bool thaw_wanted;        /* a backup that goes must let it go */
	char *demand;            /* somebody wants a new epoch: why */
	bool snapshot_wanted, snapshot_running, snapshot_taken;
	struct follow_view view;
};

enum { FOLLOW_RUN, FOLLOW_STOP, FOLLOW_RELOAD, FOLLOW_ABORT };

struct service {
	const struct follow_service_request *request;
	const struct im_config *config;
	const char *node, *url;
	char *folder;            /* the follower's: STATE/NODE.follow */
	int lock_fd;
	struct vault *vault;     /* its key and keyring; the storage is the shipper's own affair */
	bool vault_cached;       /* opened from the local copy of the keyring */
	struct followed *stores;
	size_t store_count;
	int wake[2];             /* the main thread's pipe */
	atomic_int state;        /* FOLLOW_RUN … */
	atomic_bool away;        /* the vault cannot be reached */
	atomic_ullong snapshot_seq; /* newest known of this node */
	pthread_mutex_t open_lock; /* a store kind may fork while it opens */

	pthread_t shipper;
	bool shipper_started;
	atomic_bool ship_finished;
	pthread_mutex_t ship_lock; /* of what follows */
	pthread_cond_t ship_wake;
	bool ship_new, ship_end; /* there is something; ship what you can and end */
	int64_t ship_deadline_ms;

	pthread_t snapshotter;
	bool snapshotter_started;
	pthread_mutex_t snapshot_lock;
	pthread_cond_t snapshot_wake;
	bool snapshot_new, snapshot_end;
	atomic_int snapshot_rc;  /* --once: how the snapshot ended */
};

/* follow_say.c */
void follow_warn(const struct service *s, const char *store, const char *format, ...) __attribute__((format(printf, 3, 4)));
void follow_note(const struct service *s, const char *store, const char *format, ...) __attribute__((format(printf, 3, 4)));
void follow_wake(int pipe_end);
void follow_drain(int pipe_end);
/* Puts text into a field of the view (under its lock), and says whether it is another one than before. */
bool follow_view_text(struct followed *f, char *field, size_t size, const char *text);

/* follow_setup.c: everything before the threads, and after them. */
int follow_setup(struct service *s, struct im_error *err);
void follow_teardown(struct service *s);

/* follow_vault.c: key, keyring, and where they come from while the vault is away. */
int follow_load_key(const struct service *s, struct key_file **ret, struct im_error *err);
int follow_open_vault(struct service *s, struct key_file *key, struct im_error *err);
/* Opens the vault's storage for shipping and makes sure that it is the same vault. */
int follow_open_storage(const struct service *s, struct storage **ret, struct im_error *err);

/* follow_store.c: a store's thread. */
void *follow_store_thread(void *followed);
int follow_flush(struct followed *f, bool heartbeat, struct im_error *err);
void follow_publish(struct followed *f);

/* follow_epoch.c: attaching, and new epochs. */
void follow_attach(struct followed *f);
void follow_detach(struct followed *f, bool hold);
/* What went wrong in a call of the store kind: a gap, or something that a new attempt may cure. */
void follow_trouble(struct followed *f, int rc, const struct im_error *why);
void follow_gap(struct followed *f, const char *reason);
void follow_heal(struct followed *f); /* if a snapshot stands in this epoch by now */

/* follow_segment.c: f->batch becomes a segment in the spool. 0 if there is no batch. */
int follow_deliver(struct followed *f, struct im_error *err);
bool follow_position_sum(const json_t *position, uint8_t ret[SPOOL_SUM_BYTES]);

/* follow_watch.c: health, and is the source moving on without us? */
void follow_watch(struct followed *f);

/* follow_anchor.c: what a backup asks. */
extern const struct control_ops follow_control_ops; /* context: the service, set by a copy */
void follow_answer(struct followed *f);
void follow_refuse_questions(struct followed *f);

/* follow_ship.c */
void *follow_ship_thread(void *service);
void follow_ship_wake(struct service *s);
uint64_t follow_spooled_bytes(const struct service *s);

/* follow_check.c: on the shipper's thread, or before it starts. */
int follow_check_store(struct followed *f, struct storage *storage, struct im_error *err);
/* A store without a head: has the vault a log of it all the same? */
int follow_check_first(struct followed *f, struct storage *storage, struct im_error *err);
/* *ret_set_back: the newest snapshot is not known yet and lies in the future; each store needs another one. */
int follow_check_vault(struct service *s, struct storage *storage, bool *ret_set_back, struct im_error *err);
int follow_remember_put(struct followed *f, const char *object, struct im_error *err);
void follow_demand_epoch(struct followed *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
void follow_memory_clear(struct ship_memory *m);

/* follow_snapshot.c */
void *follow_snapshot_thread(void *service);
void follow_want_snapshot(struct followed *f);
/* --once: no snapshot of this store is wanted or running. */
bool follow_snapshot_settled(struct followed *f);

/* follow_state.c */
void follow_write_status(struct followed *f);

#endif
