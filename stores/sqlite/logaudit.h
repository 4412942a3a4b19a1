/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a restored database does not arrive at its checksum: the slow walk that finds out up to
 * which point of the log everything agrees, so that somebody can be told where to restore to.
 */
#ifndef IM_STORES_SQLITE_LOGAUDIT_H
#define IM_STORES_SQLITE_LOGAUDIT_H

#include "stores/sqlite/dbmanifest.h"

struct logaudit {
	bool agrees;          /* every point does */
	uint32_t bad_point;   /* the first that does not; unless agrees */
	bool any;             /* some point before it can be restored */
	uint32_t good_point;
	int64_t good_ms;      /* what to give to --at to reach it */
};

/* Applies r->log once more to the image's pages, point by point, and compares each point's sum. r: as while planning. */
int logaudit_run(const struct rebuild *r, const struct dbmanifest *m, const uint8_t *page_key, struct logaudit *ret, struct im_error *err);

#endif
