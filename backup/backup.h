/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup: one incremental snapshot of a node's stores. Packs, then the index, then the snapshot,
 * then the local state: a run that dies leaves only unreferenced objects and needs no clean-up.
 * One failing store never stops the others; a snapshot never refers to a pack that is not there.
 */
#ifndef IM_BACKUP_BACKUP_H
#define IM_BACKUP_BACKUP_H

#include "base/config.h"
#include "vault/keyring.h"

struct backup_events { /* each may be NULL */
	/* One line. store NULL: about the whole run. Any thread. */
	void (*warn)(void *context, const char *store, const char *text);
	void (*progress)(void *context, const char *store, uint64_t done_bytes, uint64_t total_bytes);
	void *context;
};

struct backup_request {
	const struct im_config *config;
	const char *const *stores; /* names, NULL-terminated; NULL or empty: all */
	const char *vault_url, *key_path; /* NULL: the configuration's */
	const char *node;          /* NULL: the configuration's */
	bool full;                 /* read everything, believe no memory */
	key_passphrase_fn *ask;
	void *ask_context;
	const struct backup_events *events;
};

struct backup_store {
	char *name, *type, *path;
	const char *status; /* "ok" or "failed" */
	char *error;        /* if failed */
	int code;           /* 0 or why it failed */
	bool partial;       /* something was left out (warned) */
	bool carried;       /* not read this time: its last image was taken over */
	uint64_t bytes, bytes_read, bytes_changed;
	int64_t instant_ms, pause_us; /* pause: the server's longest, -1: none was needed */
};

struct backup_result {
	char *node;
	char *snapshot;     /* "SSSSSSSS-HHHHHHHHHHHHHHHH"; NULL: none was written */
	uint64_t seq;
	bool first;         /* the node's first snapshot */
	uint64_t bytes, bytes_read, bytes_changed, bytes_stored, bytes_deduplicated, packs_written;
	int64_t duration_ms, instant_ms;
	struct backup_store *stores;
	size_t store_count;
};

/*
 * Does it. ret is filled as far as things went, also on failure; clear it in every case. Codes:
 * IM_EUSAGE (before anything was read), IM_ELOCKED, IM_EKEY (not a node key), IM_EPARTIAL (written,
 * but a store failed or is incomplete), IM_ECORRUPT (written, but the vault was rolled back before;
 * or not written, a pack is missing), the first store's code if all failed, and what the vault says.
 */
int backup_run(const struct backup_request *request, struct backup_result *ret, struct im_error *err);
void backup_result_clear(struct backup_result *r);

/* Checks every store's type, keys and values. Reads no store. IM_EUSAGE. */
int backup_check_config(const struct im_config *config, struct im_error *err);

/* Folder of the local state for this vault: config's state =, else /var/lib/imvault for root, else
 * $XDG_STATE_HOME/imvault or ~/.local/state/imvault; below it the vault's id. config may be NULL. Allocated. */
int backup_state_folder(const struct im_config *config, const uint8_t vault_id[16], char **ret, struct im_error *err);
/* The folder above: for what has to be known also while the vault cannot be asked. Allocated. */
int backup_state_base(const struct im_config *config, char **ret, struct im_error *err);

#endif
