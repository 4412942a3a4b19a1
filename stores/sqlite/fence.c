/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The authorizer sees what a statement means when it is prepared, the progress handler how it runs.
 */
#include "stores/sqlite/fence.h"

#include "base/clock.h"
#include "base/interrupt.h"

#include <string.h>

#define PROGRESS_STEPS 100000

static int authorize(void *context, int action, const char *a, const char *b, const char *c, const char *d)
{
	(void)context, (void)a, (void)c, (void)d;
	if (action == SQLITE_FUNCTION && b && strcmp(b, "load_extension") == 0)
		return SQLITE_DENY;
	return action == SQLITE_SELECT || action == SQLITE_READ || action == SQLITE_FUNCTION || action == SQLITE_RECURSIVE ?
	    SQLITE_OK : SQLITE_DENY;
}

bool fence_expired(const struct fence *f)
{
	return im_monotonic_ms() > f->deadline_ms || im_interrupt_signal();
}

static int too_long(void *context)
{
	return fence_expired(context);
}

void fence_raise(struct fence *f, sqlite3 *db, int64_t limit_ms)
{
	*f = (struct fence){ .db = db, .deadline_ms = im_monotonic_ms() + limit_ms };
	sqlite3_set_authorizer(db, authorize, NULL);
	sqlite3_progress_handler(db, PROGRESS_STEPS, too_long, f);
}

void fence_lower(struct fence *f)
{
	sqlite3_progress_handler(f->db, 0, NULL, NULL);
	sqlite3_set_authorizer(f->db, NULL, NULL);
}
