/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restore: rebuilds a node's stores from snapshots and the logs behind them and keeps the clock. Everything is built in
 * a hidden folder beside its destination (".NAME.imvault-partial") and gets its final name only
 * when it is whole; what stood there before is moved aside, never deleted. Damage harms only the
 * files it covers: they keep what could be read under NAME.imvault-damaged, all others are
 * complete.
 */
#ifndef IM_RESTORE_RESTORE_H
#define IM_RESTORE_RESTORE_H

#include "stores/store.h"
#include "vault/snapshot.h"
#include "vault/vault.h"

struct restore_result;
struct restore_store;

struct restore_events { /* each may be NULL; progress comes from any thread */
	void (*phase)(void *context, const char *name); /* begins */
	/* Once, before content is fetched: the node, the snapshot and the sums in so_far.
	 * bytes_to_read 0: not known yet (a large plan is made while it is fetched), and the other
	 * sums are what the snapshot says. */
	void (*planned)(void *context, const struct restore_result *so_far);
	void (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
	void (*note)(void *context, const char *text); /* a few words beside the progress, replacing those before */
	void (*warn)(void *context, const char *text);
	void *context;
};

/* RESTORE_INSTANT takes the best of these that works here, and says which. */
enum restore_mode {
	RESTORE_ORDINARY, /* everything is back before the service starts */
	RESTORE_INSTANT,
	RESTORE_BLOCKS,   /* the service works at once; what it touches comes first, block by block */
	RESTORE_FILES,    /* ... file by file, when they are opened */
	RESTORE_VIEW,     /* ... through FUSE; in the end the service is stopped for a moment */
};

struct restore_request {
	struct vault *vault;      /* opened with a restore key */
	const char *node;         /* NULL: the vault's only node */
	const char *at;           /* NULL or "latest"; an instant (RFC 3339): as near to it as snapshots and
				     logs reach; else a snapshot (see snapshot_choose), without log */
	const char *const *stores; /* names, NULL-terminated; NULL: all */
	const char *path;         /* absolute original path: only it and what is below; NULL: all */
	const char
	    *to; /* folder under which the original absolute paths are made; NULL: in place */
	bool overwrite;           /* move aside what is in the way */
	const char *exec_command; /* run by /bin/sh -c with IMVAULT_TARGET set; its success is
				     "service ready" */
	enum restore_mode mode;
	bool resume;  /* an instant restore that was cut off goes on; paths says which */
	const char *const *paths; /* absolute, NULL-terminated: folders of it; NULL: of what is mounted now */
	bool detach;  /* instant: return when the service is ready; the rest goes on in the background */
	const char *ready_command; /* NULL: exec_command returns when the service is ready; else it may stay in the foreground, and this
				      one's success tells */
	const char *stop_command; /* RESTORE_VIEW: stops the service, run by /bin/sh -c; NULL: somebody else stops it */
	bool dry_run; /* plan only; writes nothing, and what is in the way is told, not
			 refused */
	const char *check_level;  /* NULL: "quick"; "full", "none" */
	int64_t rto_ms;           /* 0: the snapshot's own target */
	int64_t start_us;         /* im_monotonic_us() when the process began; 0: now */
	int64_t opened_us; /* when the vault was open (phase "open" starts at start_us); 0: now */
	/* Off the clock, for each store that is whole, before the service starts (instant: when all is there, touched: the service may have
	 * written already): more checks than a recovery has time for. *ret_text: what they proved, malloc'ed. IM_EDIFFERENT and IM_ECORRUPT are
	 * noted as of the check and the restore goes on. NULL: none. manifest: as for the store's check. */
	int (*examine)(void *context, const struct restore_store *row, json_t *manifest, bool touched, char **ret_text, struct im_error *err);
	/* After that, once, about all of them; NULL: nothing more. The same codes. */
	int (*examine_all)(void *context, const struct restore_result *so_far, bool touched, struct im_error *err);
	void *examine_context;
	const struct restore_events *events;
};

struct restore_phase {
	const char *name; /* open, plan, fetch, sync, finish, check, start; within fetch: read,
			     decode, write */
	int64_t ms;
	uint64_t bytes;   /* 0: none to speak of */
	bool of_threads; /* summed over threads and part of the phase before: not part of the
			    wall-clock sum */
};

struct restore_store {
	char *name, *type;
	char *path;         /* where it now is */
	const char *status; /* "ok", "older" (from an earlier snapshot), "damaged", "different",
			       "failed"; dry run: "planned" */
	char *text;         /* what the check proved, or what went wrong; may be NULL */
	uint64_t files, bytes;
	uint64_t bytes_free; /* dry run: free on its file system */
	uint64_t seq;       /* the snapshot its image comes from */
	int64_t instant_reached_ms; /* everything acknowledged before it is there */
	bool has_log;       /* its image has a place in a log: */
	char log_epoch[LOG_EPOCH_CHARS + 1];
	uint32_t log_after, log_until; /* points: the image's, and the one it is restored to */
	uint64_t log_segments, log_bytes; /* laid over the image */
	char *stopped;      /* why it goes no further than that, or NULL */
	char *moved_aside;  /* where the old one went, or NULL */
	char *in_the_way;   /* dry run: the first path that would be moved aside, or NULL */
};

struct restore_damage {
	char *store, *path; /* path: absolute, as it is now; NULL: see text */
	char *text;
};

struct restore_instant {
	uint64_t events, demand_bytes; /* accesses that were looked at; bytes they needed */
	int64_t longest_wait_ms;
	uint32_t worker_starts, keeper_starts; /* 1 each if nothing died */
	char *alias;  /* a path that is the live folder too, until the service's next start; or NULL */
};

struct restore_result {
	char *node;
	char *snapshot;   /* "SSSSSSSS-HHHHHHHHHHHHHHHH": the newest one used */
	uint64_t seq;
	int64_t instant_reached_ms; /* wall clock, since 1970: the smallest of the stores' */
	int64_t rpo_ms;             /* from that instant to the start of this restore */
	int64_t service_ready_ms, data_complete_ms; /* since start_us; -1: not reached */
	int64_t rto_ms;             /* 0: no target known */
	bool rto_met;
	uint64_t bytes_to_read, bytes_to_write, bytes_read, bytes_written, files, packs;
	const char *mode;           /* "ordinary", "blocks", "files" */
	struct restore_instant instant;
	int exec_status;            /* wait status of exec_command's shell, -1: not run */
	struct restore_phase phases[16];
	size_t phase_count;
	struct restore_store *stores;
	size_t store_count;
	char **warnings;
	size_t warning_count;
	struct restore_damage *damaged;
	size_t damaged_count;
};

/*
 * Does it. ret is filled as far as things went, also on failure; clear it in every case. Codes:
 * IM_EUSAGE (target not empty, unknown store), IM_ENOTFOUND, IM_EKEY, IM_ENOSPACE (before anything
 * is written where it can be known), IM_ECORRUPT (damage; all else is restored), IM_EDIFFERENT (a
 * check failed), IM_EPARTIAL (a store is missing, or is older than it should be: its image had to come
 * from an older snapshot, or a gap in its log lies before the instant asked for), IM_EFAIL (the
 * command failed), IM_EMISSED (all is fine but the target was missed).
 */
int restore_run(
    const struct restore_request *request, struct restore_result *ret, struct im_error *err);
void restore_result_clear(struct restore_result *r);

#endif
