/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: captured sections that are not in the spool yet, in an anonymous file that the keeper
 * keeps alive. With a section in it, a follower that is killed has lost nothing, so the pin may move
 * on. It never reaches a disk.
 */
#ifndef IM_STORES_SQLITE_JOURNAL_H
#define IM_STORES_SQLITE_JOURNAL_H

#include "stores/sqlite/logbody.h"
#include "stores/sqlite/walpos.h"

struct journal_section { /* being gathered, then appended */
	struct logbody_section head;
	struct walpos after;
	uint64_t bytes, commits;
	uint32_t count;
	struct im_buf records; /* page[4] has_base[4] control_len[4] literals_len[4] control literals */
};

void journal_section_clear(struct journal_section *s);
int journal_section_add(struct journal_section *s, struct pagediff *d, uint32_t page, const uint8_t *base, const uint8_t *content, struct im_error *err);
/* Puts its records and itself into a body. */
int journal_section_write(const struct journal_section *s, struct logbody_writer *w, struct im_error *err);

/* Appends a whole section; it counts from the moment its length is written. */
int journal_append(int fd, const struct journal_section *s, struct im_error *err);
/* Calls fn for each whole section from the start. IM_ECORRUPT for anything else. */
int journal_replay(int fd, int (*fn)(void *context, const struct journal_section *s, struct im_error *err), void *context, struct im_error *err);
/* Everything in it is in the spool. */
int journal_reset(int fd, struct im_error *err);

#endif
