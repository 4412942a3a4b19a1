/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What files that are restored later will hold: the pieces their stores declared, kept in memory,
 * and a reader that brings any range of a file from the vault, decoded, compared with its ids, with
 * the log laid over it. Planned by one thread; then read by many, each with a lane of its own.
 */
#ifndef IM_RESTORE_INSTANT_CONTENT_H
#define IM_RESTORE_INSTANT_CONTENT_H

#include "restore/built.h"
#include "stores/store.h"

struct content;
struct content_lane;

struct content_options {
	struct fetcher *fetcher;
	const uint8_t *chunk_key; /* 32 bytes, for ids; copied */
	/* A pack by the engine's number. */
	const struct pack_info *(*pack_of)(void *context, uint32_t number);
	void *context;
};

int content_new(const struct content_options *options, struct content **ret, struct im_error *err);
void content_free(struct content *c);

/* A file whose content comes later; f is borrowed. *ret_number counts from 0. */
int content_add(struct content *c, struct built_file *f, uint32_t *ret_number, struct im_error *err);
/* ref.pack: the engine's number. id: NULL if it has none. */
int content_piece(struct content *c, uint32_t file, uint64_t offset, uint32_t len, enum entry_type type, const struct im_ref *ref,
    uint32_t skip, const uint8_t id[32], struct im_error *err);
/* A range that the file's transform makes. */
int content_made(struct content *c, uint32_t file, uint64_t offset, uint32_t len, struct im_error *err);
/* After the last of them: sorts. IM_ECORRUPT if pieces of a file overlap. */
int content_seal(struct content *c, struct im_error *err);

size_t content_count(const struct content *c);
struct built_file *content_file(const struct content *c, uint32_t file);
uint64_t content_stored_bytes(const struct content *c); /* to be read from the vault */

/* The smallest range of whole pieces (and gaps between them) around [*offset, *offset + *len), not more than max_bytes longer. */
void content_extend(const struct content *c, uint32_t file, uint64_t *offset, uint64_t *len, uint64_t max_bytes);

/* Does any piece lie in the range? If not, it is a hole. */
bool content_holds(const struct content *c, uint32_t file, uint64_t offset, uint64_t len);

/* number: below BUILT_LANES, one thread's own. */
int content_lane_new(unsigned number, struct content_lane **ret, struct im_error *err);
void content_lane_free(struct content_lane *l);
/* Exactly [offset, offset + len) of the file; what no piece covers is zeros. IM_ECORRUPT and the storage's codes. */
int content_read(const struct content *c, struct content_lane *l, uint32_t file, uint64_t offset, uint64_t len, uint8_t *ret,
    struct im_error *err);

#endif
