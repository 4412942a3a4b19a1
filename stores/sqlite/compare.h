/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding what changed in a database file since it was read, as fast as memory allows: fast hashes
 * of all pages on two threads. Everything is allocated before, so that a pause only computes.
 */
#ifndef IM_STORES_SQLITE_COMPARE_H
#define IM_STORES_SQLITE_COMPARE_H

#include "stores/sqlite/fasthash.h"
#include "stores/sqlite/image.h"

#define COMPARE_ROOM_BYTES (64u << 20)

struct compare;

enum compare_end { COMPARE_DONE, COMPARE_LATE, COMPARE_FULL }; /* late: deadline passed; full: more changed than there is room for */

int compare_new(uint32_t page_size, struct compare **ret, struct im_error *err);
void compare_free(struct compare *c);
/* fast: hashes of fast_pages pages as they were; pages beyond count as changed. deadline_us: monotonic, for a file that stands still; 0: none, it may change.
 * The pages found so far are in compare_pages(), ascending, also after COMPARE_LATE and COMPARE_FULL. */
int compare_run(struct compare *c, int fd, const char *path, uint32_t pages, const uint64_t *fast, uint32_t fast_pages, const struct fasthash_key *key, int64_t deadline_us, enum compare_end *ret_end, struct im_error *err);
const struct image_page *compare_pages(struct compare *c, size_t *ret_count);

#endif
