/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fast 64-bit hash for finding changed pages while a server stands still, where every
 * millisecond counts. Secret and random per run, kept in memory only: nobody can aim a collision.
 * Multiply-and-fold over 128-bit products, as in wyhash (Wang Yi, public domain).
 */
#ifndef IM_STORES_SQLITE_FASTHASH_H
#define IM_STORES_SQLITE_FASTHASH_H

#include <stddef.h>
#include <stdint.h>

struct fasthash_key {
	uint64_t word[8];
};

/* len is a multiple of 64. */
uint64_t fasthash(const struct fasthash_key *key, const void *data, size_t len);

#endif
