/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool of a followed store: encoded segments (signed and sealed: the restore key is needed to
 * read them) that wait to be shipped, and the head: where the log stands and what the next segment
 * continues.
 *
 * Order of a segment: its parts under temporary names, then the new head (which names the parts) by an
 * atomic rename, then the parts' own names. A crash before the rename leaves temporaries that are
 * dropped, after it temporaries that are given their names: the head is what counts.
 *
 * What a segment holds is always on the disk before the head names it. With sync so are the names and
 * the head when a call returns. Without, the page cache has them: enough for a kill, and cheap; a power
 * cut then makes head, spool and vault disagree, which is found out.
 *
 * One thread adds segments, another one may add objects beside them, a third one ships.
 */
#ifndef IM_BACKUP_SPOOL_H
#define IM_BACKUP_SPOOL_H

#include "base/bytes.h"
#include "base/error.h"
#include "vault/log.h"

#include <jansson.h>

#define SPOOL_SUM_BYTES 16

struct spool_head { /* after the newest segment */
	char epoch[LOG_EPOCH_CHARS + 1]; /* "": no segment yet */
	uint32_t first, point;   /* the segment's */
	uint8_t hash[32];        /* of its final part */
	int64_t complete_ms, latest_ms;
	json_t *position;        /* owned */
	bool snapshot_due;       /* no snapshot of the store that counts stands in this epoch yet */
	/* The newest snapshot of this epoch whose checksum is known, and the relative checksum of its point. */
	bool has_anchor;
	uint32_t anchor_point;
	int64_t anchor_ms;
	uint8_t anchor_sum[SPOOL_SUM_BYTES], anchor_checksum[SPOOL_SUM_BYTES];
	/* What the store's checksum was where the epoch before ended; joined: this epoch began there. */
	bool has_before, joined;
	uint8_t before_checksum[SPOOL_SUM_BYTES];
};
/* ret->position is another reference. */
void spool_head_copy(struct spool_head *ret, const struct spool_head *h);
void spool_head_clear(struct spool_head *h);
/* The head as text and back. parts: names in the spool, sequence: of the next one. */
json_t *spool_head_encode(const struct spool_head *h, uint64_t sequence, const json_t *parts);
bool spool_head_decode(const json_t *j, struct spool_head *ret, uint64_t *ret_sequence, json_t **ret_parts);

struct spool_item { /* an object to be shipped */
	char *name;     /* in the spool; sorts in shipping order */
	char *object;   /* in the vault */
	uint64_t bytes;
	bool unnamed;   /* still under its temporary name */
	/* Of a segment's final part added since spool_open; point 0: of none. */
	uint32_t point;
	int64_t complete_ms;
	char *position; /* JSON text */
};

struct spool;

/* folder: the store's own, exists. Finishes or drops what a crash left. ret_head: as written last (clear it);
 * *ret_lost: the head is there but cannot be read, why in ret_why (256 bytes). */
int spool_open(const char *folder, const char *node, const char *store, struct spool **ret, struct spool_head *ret_head, bool *ret_lost,
    char ret_why[256], struct im_error *err);
void spool_close(struct spool *s); /* NULL is fine */

/* The next part of the segment being added. object: its name in the vault. */
int spool_part(struct spool *s, const char *object, const void *data, size_t len, struct im_error *err);
/* The parts become a segment and this the head. After a failure neither has happened, and the parts are dropped. */
int spool_commit(struct spool *s, const struct spool_head *head, bool sync, struct im_error *err);
void spool_drop(struct spool *s); /* forgets the parts */
/* A new head without a segment. */
int spool_write_head(struct spool *s, const struct spool_head *head, bool sync, struct im_error *err);
/* An object beside the segments (a coarse one), after all that is there. */
int spool_add(struct spool *s, const char *object, const void *data, size_t len, struct im_error *err);

uint64_t spool_bytes(struct spool *s);
size_t spool_count(struct spool *s);
/* Calls fn with the name in the vault of each object that waits. fn must not call back; non-zero stops and is returned. */
int spool_each(struct spool *s, int (*fn)(void *context, const char *object), void *context);
/* The next object to ship; its texts are borrowed until spool_shipped. False: none. */
bool spool_front(struct spool *s, struct spool_item *ret);
/* Appends it. IM_ECORRUPT: it is not what its name says (a power cut). */
int spool_read(struct spool *s, const struct spool_item *item, struct im_buf *ret, struct im_error *err);
/* The front is in the vault (or beyond hope): it goes. */
void spool_shipped(struct spool *s);

#endif
