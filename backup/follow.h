/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following: ships a node's log continuously. One thread per store captures, batches become signed
 * segments in the spool, one thread ships them; a store that cannot be followed without a gap gets
 * a new epoch and a new snapshot, and says so. The service a systemd unit runs; one round for cron.
 */
#ifndef IM_BACKUP_FOLLOW_H
#define IM_BACKUP_FOLLOW_H

#include "base/config.h"
#include "vault/keyring.h"

#include <jansson.h>

struct follow_look { /* a store as it is now; borrowed for the call */
	const char *store, *text;   /* text: what is wrong with it, or NULL */
	int64_t shipped_ms;         /* instant of the last shipped point; 0: none yet */
	uint64_t spooled_bytes;     /* captured, not shipped yet */
};

struct follow_events { /* each may be NULL; any thread */
	/* One line. store NULL: about the whole service. */
	void (*warn)(void *context, const char *store, const char *text);
	void (*note)(void *context, const char *store, const char *text); /* nothing is wrong: attached, shipped a backlog, … */
	void (*gap)(void *context, const char *store, const char *text); /* after its warning */
	void (*look)(void *context, const struct follow_look *stores, size_t count); /* every second; must not wait */
	void (*ready)(void *context); /* every store is attached or has said why not */
	/* Takes a snapshot of these stores (NULL-terminated) in another process or in this one and waits for it; its exit
	 * code as an IM_ code. No names: of all stores. It will ask this follower for anchors over the control socket, so it must not be called by a store's thread. */
	int (*snapshot)(void *context, const char *const *stores, struct im_error *err);
	void (*cancel)(void *context); /* the follower ends: so should a snapshot under way */
	void *context;
};

struct store_follow_ops;

struct follow_service_request {
	const struct im_config *config;
	const char *const *stores; /* names, NULL-terminated; NULL or empty: all that can be followed */
	const char *vault_url, *key_path, *node; /* NULL: the configuration's */
	bool once;
	const struct store_follow_ops *(*find)(const char *type); /* for tests: who follows stores of a type; NULL: the table says */
	int64_t check_ms; /* for tests: how often the vault is looked at; 0: once a minute */
	key_passphrase_fn *ask;
	void *ask_context;
	const struct follow_events *events;
};

struct follow_store {
	char *name, *type;
	const char *status; /* "following", "gap" (a new epoch began in this run), "refused", "failed" */
	char *text;         /* why, or NULL */
	char epoch[21];
	uint32_t point;         /* last captured */
	uint64_t segments, bytes_shipped, bytes_changed, commits;
	int64_t complete_ms;    /* of the last shipped point */
	int64_t spooled_bytes;  /* not shipped yet */
};

struct follow_result {
	char *node;
	struct follow_store *stores;
	size_t store_count;
};

/* Runs until SIGTERM or SIGINT (then ships what is captured and returns 0) or, with once, one round. SIGHUP: returns IM_OK with
 * *ret_reload set; the caller reads its configuration again and calls this again (sources stay held meanwhile). Codes: IM_EUSAGE, IM_ELOCKED (another follower of this node runs),
 * IM_EKEY, IM_EPARTIAL (a store could not be followed), IM_EGAP (a gap was recorded), IM_EUNREACHABLE (once: everything is in the spool only). */
int follow_run(const struct follow_service_request *request, bool *ret_reload, struct follow_result *ret, struct im_error *err);
void follow_result_clear(struct follow_result *r);

/* --- for status: what the follower last wrote down beside the local state --- */

struct follow_state_row {
	char *store, *epoch, *text; /* text: alarm or reason, or NULL */
	bool following;             /* the process that wrote it is alive */
	uint32_t point;
	int64_t written_ms, captured_ms /* complete_ms of the last captured point */, shipped_ms /* of the last shipped */;
	uint64_t spooled_bytes, held_bytes;
	json_t *position;           /* of the last shipped point */
};
struct follow_state {
	struct follow_state_row *rows;
	size_t count;
};
/* IM_ENOTFOUND: nobody ever followed. folder: backup_state_folder. */
int follow_state_load(const char *folder, const char *node, struct follow_state *ret, struct im_error *err);
void follow_state_clear(struct follow_state *s);

#endif
