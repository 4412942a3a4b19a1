/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of a database's log share: a database in memory whose changes are written to bodies,
 * bodies laid over another one, and random edits that are the same in every run.
 */
#ifndef IM_TESTS_LOG_RIG_H
#define IM_TESTS_LOG_RIG_H

#include "stores/sqlite/logbody.h"

#define LOG_RIG_MAX_PAGES 4000u

void log_rig_seed(uint64_t seed);
uint32_t log_rig_random(uint32_t limit);
/* Overwrites, moves and fills some stretches of a page, as inserts and deletes in a B-tree do. */
void log_rig_edit(uint8_t *page, uint32_t page_size);

struct log_rig_db {
	uint32_t page_size, pages, point;
	uint8_t *data;
};
void log_rig_start(struct log_rig_db *db, uint32_t page_size, uint32_t pages); /* free data yourself */
uint8_t *log_rig_page(const struct log_rig_db *db, uint32_t page);
/* What the database's last point says of itself. */
struct logbody_section log_rig_section(const struct log_rig_db *db);
/* Changes about every `every`th page and makes the database new_pages long: one more point. */
void log_rig_write(struct log_rig_db *db, struct logbody_writer *w, uint32_t every, uint32_t new_pages);
/* Lays a body over a database, as a restore does. */
void log_rig_apply(struct log_rig_db *db, const struct im_buf *data);
void log_rig_assert_same(const struct log_rig_db *a, const struct log_rig_db *b);

/* These fail the test rather than return an error. */
struct logbody_writer *log_rig_writer(uint32_t page_size);
void log_rig_finish(struct logbody_writer *w, struct im_buf *ret);
struct logbody *log_rig_open(const struct im_buf *data);
struct logbody_cursor *log_rig_cursor(struct logbody *b);
bool log_rig_next(struct logbody_cursor *c, struct logbody_record *ret); /* false: the end */

#endif
