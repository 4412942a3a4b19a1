/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What logs.c and logharm.c share: the check of one epoch after the other.
 */
#ifndef IM_VERIFY_LOGS_H
#define IM_VERIFY_LOGS_H

#include "vault/logreach.h"
#include "verify/internal.h"

struct suspect { /* a stretch of points whose segment is not there, or no good */
	char *object;
	size_t damage;    /* the row; VERIFY_NO_DAMAGE: only damage if instants are lost by it */
	char *problem;    /* of that row */
	uint32_t first, last;
	uint32_t at;      /* points before it are given by other segments */
	bool has_next;
	uint32_t next;    /* the next that can be reached */
	int64_t before_ms, next_ms;
};

struct fine_end { /* the hash of the final part of a fine segment that ends at this point */
	uint32_t point;
	uint8_t hash[32];
};

struct waiting { /* a coarse segment, until the fine one passes by that ends with it */
	char *object;
	uint32_t last;
	uint8_t ends[32];
	bool seen, same;
};

struct chain { /* parts of one segment, as far as they have passed by */
	unsigned level;
	uint32_t part;
	bool final, bad;  /* bad: it does not follow what is before it */
	uint8_t hash[32], ends[32];
	int64_t from_ms, ms;
};

struct fine_head { /* fine segments that begin at the current point */
	uint8_t prev[32];
	uint32_t first;
};

struct checker {
	struct verify *v;
	char *node, *store;
	char epoch[LOG_EPOCH_CHARS + 1]; /* "": none yet */
	struct verify_image **images; /* that stand in this epoch, by point; borrowed */
	size_t image_count, next_image;
	struct log_reach reach;
	struct suspect *suspects;
	size_t suspect_count;
	struct fine_end *ends;
	size_t end_count;
	struct waiting *waiting;
	size_t waiting_count;
	struct fine_head *heads;
	size_t head_count;
	/* The segment whose parts pass by: */
	uint32_t first, last;
	char *object;
	struct chain *chains;
	size_t chain_count;
	bool damaged;     /* one of its parts is, and that is said */
	bool any;         /* a segment of this epoch has passed by */
	uint32_t hole;    /* the hole that begins behind this point is known */
	uint32_t fine_to; /* so far fine segments lead; doubt: so far something is said of missing ones */
	uint32_t doubt;
	/* The epoch before, of the same store: */
	char before[LOG_EPOCH_CHARS + 1];
	uint32_t before_points, points;
	int64_t before_ms, ms;
	struct im_error *err;
};

int verify_log_no_memory(struct checker *c);
/* One more row of a growing list: a pointer to it, its count now. False: no memory. */
bool verify_log_grow(void *list, size_t count, size_t size);
/* A row of the result, with the store. */
size_t verify_log_damaged(struct checker *c, const char *object, const char *problem);

/* An epoch begins: fills c->images. */
int verify_log_find_images(struct checker *c);
/* The fine segment that ends at this point has this hash. */
void verify_log_note_images(struct checker *c, uint32_t point, const uint8_t hash[32]);
/* At the epoch's end: do images stand where they say? */
void verify_log_judge_images(struct checker *c);
/* These points are in doubt. damage VERIFY_NO_DAMAGE: it is only damage if instants are lost by it. */
int verify_log_suspect(struct checker *c, const char *object, size_t damage, const char *problem,
    uint32_t first, uint32_t last);
/* A segment that can be reached. */
void verify_log_offer(struct checker *c, const struct log_end *e);
/* object follows, and what it follows on is point `to`, but before is the last that can be reached: a row for what is missing, unless it is
 * known. */
int verify_log_note_hole(struct checker *c, const char *object, const struct log_end *before, uint32_t to);
/* Images that stand before `first`: from there on the log leads somewhere. object: what comes
 * next; NULL: nothing does, and what leads to an image may still be on its way. */
int verify_log_reach_images(struct checker *c, uint64_t first, const char *object);
/* Suspects that end before `first` have seen all that could help: says what is lost. */
int verify_log_settle(struct checker *c, uint64_t first);

#endif
