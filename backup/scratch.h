/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded scratch file: bodies of segments until they are merged. The file has no name and is
 * encrypted with a key that only this process's memory holds: when the process ends there is nothing.
 */
#ifndef IM_BACKUP_SCRATCH_H
#define IM_BACKUP_SCRATCH_H

#include "base/bytes.h"
#include "base/error.h"

struct scratch;
struct scratch_body { /* {0}: nothing */
	uint32_t *units;
	size_t unit_count;
	uint64_t len;
};
struct scratch_reader { /* one body being read, with the unit read last */
	struct scratch *scratch;
	const struct scratch_body *body;
	uint8_t *unit; /* its plain bytes; NULL: none yet */
	size_t unit_index, unit_len;
};

/* folder: where the file lies. All threads. */
int scratch_new(const char *folder, uint64_t limit_bytes, struct scratch **ret, struct im_error *err);
void scratch_free(struct scratch *s); /* NULL is fine */
/* IM_ENOSPACE: the bound is reached; nothing was stored. */
int scratch_put(struct scratch *s, const void *data, size_t len, struct scratch_body *ret, struct im_error *err);
void scratch_drop(struct scratch *s, struct scratch_body *b);
uint64_t scratch_bytes(struct scratch *s); /* in use */

/* context of a struct follow_source: a scratch_reader; one thread per reader. */
int scratch_read(void *reader, uint64_t offset, void *ret, size_t len, struct im_error *err);
void scratch_reader_clear(struct scratch_reader *r);

#endif
