/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log laid over a database's image while it is restored: what a page finally is, from the
 * image's page (if one is needed) and the changes of the log's layers, oldest first. Nothing is
 * written twice and no stale page is read where the log replaces it.
 */
#ifndef IM_STORES_SQLITE_LOGOVERLAY_H
#define IM_STORES_SQLITE_LOGOVERLAY_H

#include "stores/sqlite/loglayer.h"

#define LOGOVERLAY_MAX_WORKERS 64

struct logoverlay;

/* r: with a log that is not empty, and not a dry run. */
int logoverlay_new(const struct rebuild *r, uint32_t page_size, uint32_t image_pages, struct logoverlay **ret, struct im_error *err);
void logoverlay_free(struct logoverlay *o);
/* The point it ends at: the restored database's pages and sum. Borrowed. */
const struct logbody_section *logoverlay_end(const struct logoverlay *o);
/* Is nothing of the image's pages first … first+count-1 needed? */
bool logoverlay_replaces(const struct logoverlay *o, uint32_t first, uint32_t count);
/* Turns the image's pages at *data (NULL: there are none) into what they finally are: leaves *data alone if nothing changes, else points it
 * at bytes that stay until the worker's next call. Any thread, with a worker number of its own. IM_ECORRUPT. */
int logoverlay_apply(struct logoverlay *o, unsigned worker, uint32_t first, uint32_t count, const uint8_t **data, struct im_error *err);

#endif
