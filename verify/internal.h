/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of verify/ share: the verification in progress.
 */
#ifndef IM_VERIFY_INTERNAL_H
#define IM_VERIFY_INTERNAL_H

#include "stores/store.h"
#include "verify/verify.h"
#include "vault/logroute.h"
#include "vault/snapshot.h"

#include <pthread.h>

#define VERIFY_NO_DAMAGE SIZE_MAX

struct verify_pack { /* a pack that is there, or that some snapshot needs */
	uint8_t name[32], commitment[32];
	uint64_t size_bytes;  /* as the snapshot has it; as found if no snapshot needs it */
	uint64_t found_bytes;
	bool found, needed, size_differs, has_commitment;
	bool read,
	    entries_known; /* entries_known: its trailer was read, bad lists all bad entries */
	uint32_t *bad;        /* offsets of bad entries */
	size_t bad_count;
	size_t damage;        /* row of the result, or VERIFY_NO_DAMAGE */
};

struct verify_store { /* a store of one snapshot */
	char *name;
	uint32_t *packs; /* rows of verify.packs, ascending */
	size_t pack_count;
};

struct verify_snapshot {
	struct snapshot_name name; /* borrowed from the list */
	char *label;               /* "NODE/SSSSSSSS-HHHH…" */
	bool readable;
	struct verify_store *stores;
	size_t store_count;
};

struct verify_image { /* a store's image that stands in a log */
	size_t snapshot; /* row of verify.snapshots */
	char *store;
	struct log_anchor anchor; /* without sum */
	bool visited, seen, same; /* logharm.c */
};

struct verify {
	const struct verify_request *request;
	struct verify_result *result;
	struct storage *storage;
	const struct keyring *keyring;
	bool keyless, can_decrypt;
	struct verify_pack *packs; /* ascending by name after verify_packs_list */
	size_t pack_count, pack_cap;
	struct snapshot_list list;
	struct verify_snapshot *snapshots; /* as list */
	struct verify_image *images;
	size_t image_count;
	bool all_readable;
	pthread_mutex_t mutex; /* result->damaged and progress, while threads read */
	uint64_t done_bytes, due_bytes;
};

/* damage.c */
/* Adds a row (or finds the one that says the same); any thread. VERIFY_NO_DAMAGE when out of
 * memory. */
size_t verify_damage_add(struct verify *v, const char *object, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void verify_damage_snapshot(struct verify *v, size_t damage, const char *label);
void verify_damage_store(struct verify *v, size_t damage, const char *node, const char *store);
void verify_damage_path(struct verify *v, size_t damage, const char *text);
void verify_warn(struct verify *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
void verify_phase(struct verify *v, const char *name);
void verify_progress(struct verify *v, uint64_t bytes); /* any thread */

/* objects.c: what is there; records, chain, index. */
int verify_list_packs(struct verify *v, struct im_error *err);
int verify_snapshots(struct verify *v, struct im_error *err);
int verify_chains(struct verify *v, struct im_error *err);
int verify_index(struct verify *v, struct im_error *err);
int verify_runs(struct verify *v, struct im_error *err);
int verify_presence(struct verify *v, struct im_error *err);
/* Any key or none: does the object hash to the digits of its name? Damage otherwise. */
int verify_named_hash(
    struct verify *v, const char *object, const char *digits, bool *ret_same, struct im_error *err);
struct verify_pack *verify_find_pack(struct verify *v, const uint8_t name[32]);

/* logs.c: where images stand in logs (as snapshots are read); the logs themselves. */
int verify_take_images(
    struct verify *v, size_t snapshot, const struct snapshot *s, struct im_error *err);
int verify_logs(struct verify *v, struct im_error *err);

/* content.c: reads the share that is due. */
int verify_content(struct verify *v, struct im_error *err);

/* harm.c: which snapshots, stores, pages and paths the damage harms; the maps of all snapshots. */
int verify_harm(struct verify *v, struct im_error *err);

#endif
