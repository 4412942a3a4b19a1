/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a files store remembers of a segment between runs, as a blob in the node's local state: a
 * digest of the stat data of all its entries, where it lies in the vault, and the pieces of each
 * file that may be trusted. Losing it costs reading the files again, never data.
 */
#ifndef IM_STORES_FILES_MEMORY_H
#define IM_STORES_FILES_MEMORY_H

#include "stores/files/segment.h"

#include <sys/stat.h>

#define FILES_NAME_HASH_BYTES 16

struct files_key { /* if these are equal, nothing was written to the file */
	uint64_t dev, ino, size_bytes, rdev;
	int64_t mtime_s, ctime_s;
	uint32_t mtime_ns, ctime_ns, mode, uid, gid, zero; /* no padding: compared with memcmp */
};

struct files_counts {
	uint64_t files, dirs, others, bytes;
};

struct files_known { /* one file whose pieces may be used again */
	uint8_t name[FILES_NAME_HASH_BYTES], key[FILES_NAME_HASH_BYTES];
	uint64_t size_bytes;
	const struct files_piece *pieces;
	size_t piece_count;
};

struct files_memory {
	uint8_t digest[32]; /* zeros: never equal */
	struct im_ref *refs;
	size_t ref_count;
	struct files_counts counts;
	struct files_chunk *chunks;
	size_t chunk_count;
	struct files_known *known; /* ascending by name; pieces point into pieces */
	size_t known_count;
	struct files_piece *pieces;
	char **sqlite; /* paths of databases seen, to warn of each time */
	size_t sqlite_count;
};

void files_key_of(struct files_key *ret, const struct stat *st);
void files_key_put(struct im_buf *b, const struct files_key *k); /* for hashing */
void files_key_hash(uint8_t ret[FILES_NAME_HASH_BYTES], const struct files_key *k);
void files_name_hash(uint8_t ret[FILES_NAME_HASH_BYTES], const char *path);

/* Writes the parts of a blob. known must be ascending by name. */
int files_memory_encode(const struct files_memory *m, struct im_buf *ret, struct im_error *err);
/* IM_ECORRUPT: forget it. */
int files_memory_decode(const void *data, size_t len, struct files_memory *ret, struct im_error *err);
void files_memory_clear(struct files_memory *m);
const struct files_known *files_memory_find(const struct files_memory *m, const uint8_t name[FILES_NAME_HASH_BYTES]);
void files_memory_sort(struct files_known *known, size_t count);

#endif
