/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Message stores: one vtable per kind, one folder per kind, one line per kind in table.c.
 * Data flows one way: a store hands consistent blocks to the packer (snapshot), and declares
 * files and pieces to a rebuild (restore); it never knows where packs lie or who asks.
 */
#ifndef IM_STORES_STORE_H
#define IM_STORES_STORE_H

#include "base/clock.h"
#include "base/config.h"
#include "stores/tally.h"
#include "vault/fetch.h"
#include "vault/log.h"
#include "vault/packer.h"

#include <jansson.h>
#include <sys/stat.h>

/* Warnings and progress; any thread. */
struct store_events {
	void (*warn)(void *context, const char *store, const char *text); /* one line; the run goes on, but ends with IM_EPARTIAL if partial is set by the store */
	void (*progress)(void *context, const char *store, uint64_t done_bytes, uint64_t total_bytes);
	void *context;
};

/* The follower's side of a snapshot, offered to stores while they take one: it makes the image stand
 * at a point of the log. NULL in a request: nobody follows. */
struct snapshot_anchor {
	/* Before the image is pinned: the follower has captured what there is and now stands still. */
	int (*freeze)(struct snapshot_anchor *a, const char *store, struct im_error *err);
	/* The image is pinned (or known to be unchanged) at this position (the store kind's own JSON; NULL: the point
	 * reached by freeze is right): the follower captures up to exactly there and goes on. *ret_log: the
	 * snapshot's `log` (FORMAT §5), or NULL if the follower could not; owned by the caller. */
	int (*pinned)(struct snapshot_anchor *a, const char *store, const json_t *position, json_t **ret_log, struct im_error *err);
};

struct snapshot_request {
	const struct im_config *config;
	const struct im_config_store *store;
	struct packer *packer;
	struct state *state;
	const struct keyring *keyring;
	bool full; /* read everything, believe no memory */
	struct snapshot_anchor *anchor; /* NULL: the store is not followed */
	const struct store_events *events;
};

struct snapshot_result {
	json_t *manifest;       /* FORMAT §5, private; owned by the caller */
	json_t *log;            /* where in the log the image stands, for the store's meta; NULL: nowhere. Owned by the caller */
	uint32_t *packs;        /* numbers this image needs, ascending; malloc'ed */
	size_t pack_count;
	uint64_t bytes, bytes_read, bytes_changed;
	int64_t instant_ms;     /* when the image was true */
	int64_t pause_us;       /* the server's longest pause, or -1 */
	bool partial;           /* something was left out (warned) */
};

#define REBUILD_DIGEST_BYTES 16

/* A file to be made. path: relative to the restore root, no "..". */
struct rebuild_file {
	const char *path;
	uint64_t size_bytes;
	unsigned mode;
	uint32_t uid, gid;
	int64_t mtime_ns;
	bool set_owner;
	bool at_once; /* some of its bytes come by write: an instant restore makes it before the service starts */
	/* Called on a decode thread with each piece before it is written, and for made ranges with *data NULL: may point *data to len
	 * other bytes, which stay as they are until the same worker calls again. IM_ECORRUPT harms this range only. NULL: bytes are written as they come. */
	int (*transform)(void *context, unsigned worker, uint64_t offset, const uint8_t **data, size_t len, struct im_error *err);
	/* Of a range as it is written; the digests of all ranges XORed are the file's. Any thread. false: such a range has none
	 * (prove then reads the file). NULL: there is no running check. */
	bool (*digest)(void *context, uint64_t offset, const uint8_t *data, size_t len, uint8_t ret[REBUILD_DIGEST_BYTES]);
	/* On one thread, when all is written: is it what it should be? sum: of its digests; NULL: not to be had, read fd. NULL if nothing is known. */
	int (*prove)(void *context, int fd, const uint8_t *sum, struct im_error *err);
	/* After prove, before the final name appears: what lies beside it. 0 or a code. */
	int (*finish)(void *context, int fd, int parent_fd, const char *name, struct im_error *err);
	void *context; /* must live until the store's finish */
};

/* The log behind an image, to be laid over it: bodies of consecutive segments (every part of each, in order), checked
 * by chain, hash and signature. Lives until the store's finish. */
struct rebuild_log_body {
	uint32_t first, last, part; /* points its segment covers */
	bool final;                 /* the segment's last part */
	uint64_t bytes;
};
struct rebuild_log {
	uint32_t after, until;      /* only what belongs to points in (after, until] counts; the last segment may hold later ones */
	const json_t *anchor;       /* the image's place in the log: `log` of the store's meta */
	const struct rebuild_log_body *bodies;
	size_t body_count;          /* 0: nothing happened; after == until */
	/* Body i whole, appended to ret. Any thread. */
	int (*read)(const struct rebuild_log *log, size_t i, struct im_buf *ret, struct im_error *err);
};

/* The restore engine's side, offered to stores while they plan. Implemented in restore/. */
struct rebuild {
	const struct snapshot *snapshot;
	struct fetcher *fetcher;
	json_t *manifest;
	const struct keyring *keyring;
	const char *path_filter; /* absolute original path, or NULL: only it and what is below */
	const struct store_events *events;
	/* Declares a file; number is used in pieces. */
	int (*file)(struct rebuild *r, const struct rebuild_file *file, uint32_t *ret_number, struct im_error *err);
	/* These bytes of the file are entry's plain bytes from skip on; id, if not NULL, must match the whole entry (chunk id). */
	int (*piece)(struct rebuild *r, uint32_t file, uint64_t file_offset, uint32_t len, enum entry_type type, const struct im_ref *ref, uint32_t skip, const uint8_t id[32], struct im_error *err);
	/* These bytes of the file come from no entry: its transform makes them. */
	int (*made)(struct rebuild *r, uint32_t file, uint64_t file_offset, uint32_t len, struct im_error *err);
	/* Writes these bytes now (a dry run counts them): for little, since it is one thread. Nothing else may be declared for that range. */
	int (*write)(struct rebuild *r, uint32_t file, uint64_t file_offset, const void *data, uint32_t len, struct im_error *err);
	/* Makes a folder now (0700); its metadata comes in the store's finish. path as above. */
	int (*folder)(struct rebuild *r, const char *path, struct im_error *err);
	/* A part of the store's map could not be read: what it covered is named in text; the rest goes on. */
	void (*damaged)(struct rebuild *r, const char *text);
	int root_fd;           /* the restore root: everything stays beneath it; -1: a dry run, nothing is written or transformed */
	const struct rebuild_log *log; /* NULL: the image as it is */
	_Atomic uint64_t *replay_us; /* grows by what reading and laying the log takes, over all threads; plans add their part. NULL: nobody asks */
	bool log_taken;        /* set by plan: it lays the log over the image. A log that is not taken fails the store */
	void *store_data;      /* the store's own, between plan and finish */
};

/* Time with the log that began at since_us (monotonic) has ended. */
static inline void rebuild_replayed(const struct rebuild *r, int64_t since_us)
{
	if (r->log && r->replay_us)
		*r->replay_us += (uint64_t)(im_monotonic_us() - since_us);
}

/* --- surveys: what restored stores hold, for drills --- */

struct store_survey_request {
	const char *path;           /* where the store was restored to */
	const struct tally *before; /* of an earlier drill, or NULL: its conversations are counted as far as it knew them, too */
	int64_t until_ms;           /* messages of this instant or later are not counted: a service has been running since; 0: all are */
	int64_t limit_ms;           /* how long it may take */
};

struct store_attachment { /* a file that messages refer to, or that the server registered for them */
	char *tail;             /* how its path in a files store ends: "NAME", or "FOLDER/": any file in such a folder */
	const char *folder;     /* the server keeps all of them in a folder of this name; NULL: in any */
	uint64_t site;          /* hash of where it is offered; files of other servers are offered elsewhere */
	int64_t bytes;          /* -1: not known */
	int64_t registered_ms;  /* -1: the server keeps no register */
	int64_t referred_ms;    /* when a message first referred to it; -1: none does */
};

struct store_survey {
	bool known;             /* false: no message tables that are known, and nothing else is set */
	struct tally tally;
	struct store_attachment *attachments;
	size_t attachment_count;
	bool attachments_cut;   /* there are more than are kept */
};
void store_survey_clear(struct store_survey *s);

/* --- following --- */

struct follower; /* a store kind's own */

struct follow_request {
	const struct im_config *config;
	const struct im_config_store *store;
	const struct keyring *keyring; /* the node key's */
	const char *folder;     /* the store's own, below the local state; exists, 0700 */
	const json_t *position; /* where the last durable segment ends; NULL: begin where the source is now */
	uint32_t point;         /* the point there, 0 with NULL: what is captured next is numbered from point + 1 on */
	int64_t hold_ms;        /* how long the source stays held for a successor if this process dies */
	bool once;              /* one round; what was not restarted by then is held for hold_ms */
	const struct store_events *events;
};

struct follow_body { /* one part of a segment */
	struct im_buf data;
};

struct follow_source { /* a body to be read, wherever it lies (memory, the encrypted spool) */
	/* Exactly len bytes at offset. */
	int (*read)(void *context, uint64_t offset, void *ret, size_t len, struct im_error *err);
	void *context;
	uint64_t len;
};

struct follow_batch { /* becomes one segment */
	struct follow_body *parts; /* at least one (it may hold nothing: a heartbeat) */
	size_t part_count;
	struct log_point *points;  /* at least one */
	size_t point_count;
	json_t *position;          /* of the last point */
	uint64_t bytes, commits;   /* changed, before compression; commits 0: unknown */
};
void follow_batch_clear(struct follow_batch *b);

struct follow_health { /* what an operator should know of the source */
	uint64_t held_bytes;       /* kept at the source because of us (a WAL's size) */
	int64_t held_since_ms;     /* wall clock since when nothing could be let go; 0: fine */
	const char *alarm;         /* a sentence, borrowed until the next call, or NULL */
};

/* What a store kind must offer to be followed. One thread per follower calls these, in any order that the comments allow.
 * IM_EGAP from any of them: the source can no longer be followed without a gap (err says why); only close is allowed then.
 * PostgreSQL fits so: capture reads the stream, position is the LSN and timeline, durable acknowledges the flush. */
struct store_follow_ops {
	/* Attaches to the source and protects what comes after position. *ret_exact: it continues exactly at position (or there was none). */
	int (*open)(const struct follow_request *q, struct follower **ret, struct im_error *err);
	/* Returns when something may be new, wake_fd is readable, or time is up. Costs nothing while nothing happens. */
	int (*wait)(struct follower *f, int wake_fd, int64_t timeout_ms, struct im_error *err);
	/* Captures what was committed since the last call as one more point of the batch in memory. *ret_new: there was something. */
	int (*capture)(struct follower *f, bool *ret_new, struct im_error *err);
	/* Bytes of the batch so far: flush when it gets large. */
	size_t (*pending)(const struct follower *f);
	/* Captures a last time and hands the batch over. With heartbeat, a batch without changes is made too (point: now). *ret_any: there is one. */
	int (*take)(struct follower *f, bool heartbeat, struct follow_batch *ret, bool *ret_any, struct im_error *err);
	/* As take, up to exactly this position (see snapshot_anchor); always makes a batch. IM_ENOTFOUND: that position is not to be had. */
	int (*take_to)(struct follower *f, const json_t *position, struct follow_batch *ret, struct im_error *err);
	/* What the last batch held is durable outside the source: the source may let it go. */
	int (*durable)(struct follower *f, struct im_error *err);
	void (*health)(struct follower *f, struct follow_health *ret);
	/* hold: the source stays held for hold_ms, for a successor. */
	void (*close)(struct follower *f, bool hold);
	/* Merges the bodies of consecutive segments (all parts of each, in order) into one change, newest wins; part is called
	 * for each part of the result in order (takes nothing over; final: the last one). Memory stays small. NULL: no coarse segments. */
	int (*merge)(const struct follow_source *bodies, size_t count, int (*part)(void *context, const void *data, size_t len, bool final, struct im_error *err), void *context, struct im_error *err);
	/* For status, without a follower: has the source moved beyond position? *ret_last_ms: when it last changed, wall clock. */
	int (*moved)(const struct im_config_store *store, const json_t *position, bool *ret_moved, int64_t *ret_last_ms, struct im_error *err);
	/* Is this store meant to be followed, by its configuration? ret_why: if not, the reason, or NULL if nobody asked. */
	bool (*wanted)(const struct im_config_store *store, const char **ret_why);
};

struct store_ops {
	const char *type;
	/* Keys of im_config_store.pairs this kind understands, NULL-terminated; others are refused. */
	const char *const *keys;
	/* A check of the configuration's values, before anything runs. */
	int (*validate)(const struct im_config_store *store, struct im_error *err);
	/* A consistent image. On failure nothing is kept; other stores go on. */
	int (*snapshot)(const struct snapshot_request *request, struct snapshot_result *ret, struct im_error *err);
	/* Declares files and pieces for the manifest. */
	int (*plan)(struct rebuild *r, struct im_error *err);
	/* After the files are made (in an instant restore they may still lack content): links, metadata, folders' times. May be NULL. */
	int (*complete)(struct rebuild *r, struct im_error *err);
	/* The end: frees store_data, also after a failure (failed = true). */
	int (*finish)(struct rebuild *r, bool failed, struct im_error *err);
	/* Is what was rebuilt at path (absolute, re-rooted) sound, and do probes equal the recorded? With `log_laid` true in the manifest, a log
	 * changed the image: what the manifest records of it is then a lower bound at best. level: "none", "quick", "full". ret_text: what was proven, malloc'ed. IM_EDIFFERENT or IM_ECORRUPT. */
	int (*check)(json_t *manifest, const char *path, const char *level, char **ret_text, struct im_error *err);
	/* Writes the store as tar entries in order (struct archive * as void to keep libarchive out of here). */
	int (*export_tar)(struct rebuild *r, void *archive, struct im_error *err);
	/* Files of this store that a files store must not copy (db, -wal, …): fn per absolute path. */
	void (*own_files)(const struct im_config_store *store, void (*fn)(void *context, const char *path), void *context);
	/* What the messages in a restored store come to. NULL: such stores hold no messages that are known. Nothing of ret is kept on failure. */
	int (*survey)(const struct store_survey_request *q, struct store_survey *ret, struct im_error *err);
	/* Everything in a restored tree, by its path below `path` ("." itself first); what cannot be looked at is left out. Non-zero stops. NULL: it is no tree. */
	int (*each_entry)(const char *path, int (*fn)(void *context, const char *relative, const struct stat *st, struct im_error *err), void *context,
	    struct im_error *err);
	const struct store_follow_ops *follow; /* NULL: this kind cannot be followed */
	/* For verify: what the damaged ranges mean: given refs of bad entries (by pack number and offset), calls fn with a text ("pages 10-25", a path). */
	int (*explain)(struct rebuild *r, bool (*is_bad)(void *context, const struct im_ref *ref), void *bad_context, void (*fn)(void *context, const char *text), void *context, struct im_error *err);
};

const struct store_ops *store_find(const char *type); /* NULL if unknown */
const struct store_ops *const *store_table(void);     /* NULL-terminated */

#endif
