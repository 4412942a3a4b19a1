/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source that only exists in memory, and a follower of it behind the vtable: for what a real
 * database cannot be made to do on demand (gaps, stalls, enormous batches). A commit is a number; the
 * state's checksum is the XOR of a hash of each.
 */
#ifndef IM_TESTS_FAKE_SOURCE_H
#define IM_TESTS_FAKE_SOURCE_H

#include "stores/store.h"

#include <pthread.h>

struct fake_source { /* under lock */
	pthread_mutex_t lock;
	uint64_t commits, generation; /* a new generation: what comes after an older position is gone */
	int64_t last_ms;          /* when it changed */
	uint8_t checksum[16];
	bool missing;             /* it cannot be opened */
	bool gap_at_capture, gap_at_open; /* once */
	bool stalled;             /* captures find nothing */
	bool stall_ends_at_open;
	uint64_t hidden;          /* this commit is left out of captures without a word */
	size_t parts, part_bytes; /* of a batch; default 1 and small */
	unsigned opens, closes, holds; /* counted */
	uint64_t durable;         /* commits that may be let go */
	uint64_t held_bytes;
	const char *alarm;
};
extern struct fake_source fake;

/* Changes a field while the service runs. */
#define FAKE_SET(field, value)                    \
	do {                                      \
		pthread_mutex_lock(&fake.lock);   \
		fake.field = (value);             \
		pthread_mutex_unlock(&fake.lock); \
	} while (0)
uint64_t fake_let_go(void); /* the commits that are durable elsewhere */

void fake_reset(void);
void fake_commit(uint64_t count);
/* The state's checksum as hex. */
void fake_checksum(char ret[33]);
extern const struct store_follow_ops fake_follow_ops;
/* For follow_service_request.find: every type is followed by the fake. */
const struct store_follow_ops *fake_find(const char *type);
/* The position of a source that has this many commits. */
json_t *fake_position(uint64_t commits);

#endif
