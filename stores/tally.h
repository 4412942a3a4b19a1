/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is counted of a message store, whatever its kind: messages by day, and by conversation how
 * many and from when to when (FORMAT §10.1). Names never get in here, only hashes of them. Its size
 * has a limit, however many messages there are: beyond it a sample is kept that depends on the
 * hashes alone, so that two tallies of one store hold the same conversations.
 */
#ifndef IM_STORES_TALLY_H
#define IM_STORES_TALLY_H

#include "stores/hash64.h"

#include <jansson.h>

#define TALLY_MAX_ROWS 100000
#define TALLY_MAX_GROUPS 64
#define TALLY_MAX_DAYS 8000 /* of all groups together, encoded; the newest */
#define TALLY_MAX_ABSENT 10000
#define TALLY_DAY_MS INT64_C(86400000)

/* A conversation, or one who has some: a user's archive, a room. Messages of one owner expire together, oldest first. */
struct tally_row {
	uint64_t id;
	uint32_t owner;      /* hash */
	uint32_t group;      /* row of groups */
	uint32_t count;
	uint32_t then;       /* of these, how many lie between the oldest and newest that `before` knows; 0 without it */
	uint32_t before;     /* its row there + 1; 0: it is new */
	int64_t oldest_ms, newest_ms;
};

struct tally_rows {
	struct tally_row *items;
	size_t count, cap;
	unsigned bits;       /* only ids whose highest `bits` bits are 0 are kept */
	struct hash64 index;
};

struct tally_group { /* what one rule of expiry is about: a host's personal archives, its rooms */
	uint64_t id;
	uint64_t messages;
	int64_t oldest_ms, newest_ms;
};

struct tally_day {
	uint32_t group, day; /* since 1970, UTC */
	uint32_t count;
};

struct tally {
	const char *schema;  /* borrowed: a name of tally_schema */
	uint64_t messages;
	uint64_t unplaced;   /* of these, without a time that can be one, or of a group too many */
	int64_t oldest_ms, newest_ms; /* -1: none */
	int64_t last_id;     /* the highest number of a message; -1: none */
	int64_t counter;     /* the highest number ever given, as the database has it; -1: not known */
	int64_t instant_ms;  /* the recovery point; 0: not known */
	int64_t made_ms;     /* when this was counted */
	uint64_t uploads_found; /* attachments that were there */
	uint64_t uploads_store; /* hash of the name of the store they were in; 0: none */
	int64_t uploads_until_ms; /* up to when all that were sent should be; 0: not known */
	uint64_t *absent;    /* hashes of those that were not, whatever the reason; ascending */
	size_t absent_count;
	struct tally_group groups[TALLY_MAX_GROUPS];
	size_t group_count;
	struct tally_rows conversations, owners; /* owners: not encoded */
	struct tally_day *days;
	size_t day_count, day_cap;
	struct hash64 day_index;
	bool days_cut;       /* there are more than are kept */
	const struct tally *before; /* borrowed, while counting; NULL: none */
};

struct tally_message {
	uint64_t group, owner, conversation; /* hashes */
	int64_t time_ms;     /* -1: none that can be one */
};

/* The names a tally may have as its schema; NULL for others. */
const char *tally_schema(const char *name);
void tally_init(struct tally *t, const char *schema);
void tally_clear(struct tally *t);
int tally_add(struct tally *t, const struct tally_message *m, struct im_error *err);
/* NULL if it is not there, or not in the sample (then tally_sampled is false, too). */
const struct tally_row *tally_find(const struct tally_rows *rows, uint64_t id);
bool tally_sampled(const struct tally_rows *rows, uint64_t id);
/* Under which id `owners` has the owner of a conversation. */
uint64_t tally_owner_id(uint32_t owner);
/* -1 if there is none. */
int tally_find_group(const struct tally *t, uint64_t id);
uint32_t tally_count_of_day(const struct tally *t, uint32_t group, uint32_t day);

/* Notes an attachment that is not there; after the last one, tally_sort_absent. */
int tally_add_absent(struct tally *t, uint64_t id, struct im_error *err);
void tally_sort_absent(struct tally *t);
bool tally_is_absent(const struct tally *t, uint64_t id);

/* FORMAT §10.1; owned by the caller, NULL without memory. */
json_t *tally_encode(const struct tally *t);
/* It comes out of a signed record and is checked all the same. IM_ECORRUPT; *ret is to be cleared in every case. */
int tally_decode(const json_t *j, struct tally *ret, struct im_error *err);

#endif
