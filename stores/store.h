/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Message stores: one vtable per kind, one folder per kind, one line per kind in table.c.
 * Data flows one way: a store hands consistent blocks to the packer (snapshot), and declares
 * files and pieces to a rebuild (restore); it never knows where packs lie or who asks.
 */
#ifndef IM_STORES_STORE_H
#define IM_STORES_STORE_H

#include "base/config.h"
#include "vault/fetch.h"
#include "vault/packer.h"

#include <jansson.h>

/* Warnings and progress; any thread. */
struct store_events {
	void (*warn)(void *context, const char *store, const char *text); /* one line; the run goes on, but ends with IM_EPARTIAL if partial is set by the store */
	void (*progress)(void *context, const char *store, uint64_t done_bytes, uint64_t total_bytes);
	void *context;
};

struct snapshot_request {
	const struct im_config *config;
	const struct im_config_store *store;
	struct packer *packer;
	struct state *state;
	const struct keyring *keyring;
	bool full; /* read everything, believe no memory */
	const struct store_events *events;
};

struct snapshot_result {
	json_t *manifest;       /* FORMAT §5, private; owned by the caller */
	uint32_t *packs;        /* numbers this image needs, ascending; malloc'ed */
	size_t pack_count;
	uint64_t bytes, bytes_read, bytes_changed;
	int64_t instant_ms;     /* when the image was true */
	int64_t pause_us;       /* the server's longest pause, or -1 */
	bool partial;           /* something was left out (warned) */
};

/* A file to be made. path: relative to the restore root, no "..". */
struct rebuild_file {
	const char *path;
	uint64_t size_bytes;
	unsigned mode;
	uint32_t uid, gid;
	int64_t mtime_ns;
	bool set_owner;
	/* Called on a decode thread for each range written, for a running check; NULL if none. */
	void (*on_bytes)(void *context, unsigned worker, uint64_t offset, const uint8_t *data, size_t len);
	/* On one thread, when all is written and before the final name appears. 0 or a code. */
	int (*finish)(void *context, int fd, int parent_fd, const char *name, struct im_error *err);
	void *context; /* must live until the store's finish */
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
	/* Makes a folder now (0700); its metadata comes in the store's finish. path as above. */
	int (*folder)(struct rebuild *r, const char *path, struct im_error *err);
	/* A part of the store's map could not be read: what it covered is named in text; the rest goes on. */
	void (*damaged)(struct rebuild *r, const char *text);
	int root_fd;           /* the restore root: everything stays beneath it */
	void *store_data;      /* the store's own, between plan and finish */
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
	/* After all pieces are written and files have their final names: links, metadata, folders' times. Frees store_data, also after a failure (failed = true). */
	int (*finish)(struct rebuild *r, bool failed, struct im_error *err);
	/* Is what was rebuilt at path (absolute, re-rooted) sound, and do probes equal the recorded? level: "none", "quick", "full". ret_text: what was proven, malloc'ed. IM_EDIFFERENT or IM_ECORRUPT. */
	int (*check)(json_t *manifest, const char *path, const char *level, char **ret_text, struct im_error *err);
	/* Writes the store as tar entries in order (struct archive * as void to keep libarchive out of here). */
	int (*export_tar)(struct rebuild *r, void *archive, struct im_error *err);
	/* Files of this store that a files store must not copy (db, -wal, …): fn per absolute path. */
	void (*own_files)(const struct im_config_store *store, void (*fn)(void *context, const char *path), void *context);
	/* For verify: what the damaged ranges mean: given refs of bad entries (by pack number and offset), calls fn with a text ("pages 10-25", a path). */
	int (*explain)(struct rebuild *r, bool (*is_bad)(void *context, const struct im_ref *ref), void *bad_context, void (*fn)(void *context, const char *text), void *context, struct im_error *err);
};

const struct store_ops *store_find(const char *type); /* NULL if unknown */
const struct store_ops *const *store_table(void);     /* NULL-terminated */

#endif
