/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Are messages gone that should not be? Servers let messages expire from the old end: of a host's
 * archive, or (with a limit) of one owner's. So something is lost only if it was there before, is not
 * now, and something older of the same archive still is. Counts of days are compared up to the
 * day before the newest message, those of conversations between the oldest and newest message the
 * earlier drill saw: both can no longer grow. A drill of an older recovery point compares nothing newer than itself.
 */
#include "verify/survey_internal.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SAME_INSTANT_MS 2000      /* closer instants do not tell which recovery point is the older one */
#define OLDER_MARGIN_MS 60000     /* messages of that last minute may not all have been stored in the order of their times */
#define DAYS (UINT32_MAX / 86400 + 2)
#define DAYS_NAMED 3
#define EMPTY_NEIGHBOURS 20       /* messages on the days around that make a day without any remarkable */

struct compare {
	struct survey_run *run;
	const char *store;
	const struct tally *before, *now;
	bool older;
	int64_t limit_ms;        /* up to here both recovery points should hold the same */
	const char *when;        /* of the earlier drill */
	uint64_t lost;           /* messages of conversations */
	size_t conversations;
	int64_t first_ms, last_ms; /* of those conversations */
	uint64_t lost_of_days;
	size_t days, unproven_days;
	uint32_t named[DAYS_NAMED], last_day;
	int32_t *doubt;          /* per day: changes of the number of owners whose archive begins later than it did */
};

static const char *plural(uint64_t n) { return n == 1 ? "" : "s"; }

static int64_t highest_number(const struct tally *t) { return t->counter > t->last_id ? t->counter : t->last_id; }

static bool is_older(const struct tally *before, const struct tally *now)
{
	int64_t apart = now->instant_ms - before->instant_ms;
	if (now->instant_ms && before->instant_ms && llabs(apart) >= SAME_INSTANT_MS)
		return apart < 0;
	if (!now->messages)
		return false;
	if (now->counter >= 0 && before->counter >= 0)
		return highest_number(now) < highest_number(before);
	return now->newest_ms < before->newest_ms;
}

/* --- conversations --- */

static const struct tally_row *owner_now(const struct compare *c, const struct tally_row *b)
{
	return tally_find(&c->now->owners, tally_owner_id(b->owner));
}

static const struct tally_group *group_now(const struct compare *c, uint32_t group)
{
	int at = tally_find_group(c->now, c->before->groups[group].id);
	return at < 0 ? NULL : &c->now->groups[at];
}

/* Is something of the same archive still there that would have expired before? */
static bool cannot_have_expired(const struct compare *c, const struct tally_row *b)
{
	const struct tally_row *owner = owner_now(c, b);
	if (owner)
		return owner->oldest_ms <= b->oldest_ms;
	const struct tally_group *g = group_now(c, b->group);
	if (g)
		return g->oldest_ms <= b->oldest_ms;
	return b->oldest_ms > c->now->newest_ms - TALLY_DAY_MS; /* no server lets messages expire within a day */
}

static void compare_conversations(struct compare *c)
{
	for (size_t i = 0; i < c->before->conversations.count; i++) {
		const struct tally_row *b = &c->before->conversations.items[i];
		if (!tally_sampled(&c->now->conversations, b->id) || b->newest_ms > c->limit_ms)
			continue;
		const struct tally_row *n = tally_find(&c->now->conversations, b->id);
		uint32_t have = n ? n->then : 0;
		if (have >= b->count || !cannot_have_expired(c, b))
			continue;
		c->lost += b->count - have;
		if (c->conversations++ == 0 || b->oldest_ms < c->first_ms)
			c->first_ms = b->oldest_ms;
		if (b->newest_ms > c->last_ms)
			c->last_ms = b->newest_ms;
	}
}

/* --- days --- */

/* Where an owner's archive begins later than it did, a limit of the server on its length can be the reason: days from there on prove nothing. */
static int find_doubts(struct compare *c, struct im_error *err)
{
	c->doubt = calloc(DAYS + 1, sizeof *c->doubt);
	if (!c->doubt)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < c->before->conversations.count; i++) {
		const struct tally_row *b = &c->before->conversations.items[i], *owner = owner_now(c, b);
		if (!owner || owner->oldest_ms <= b->oldest_ms)
			continue;
		int64_t end = owner->oldest_ms < b->newest_ms ? owner->oldest_ms : b->newest_ms;
		c->doubt[b->oldest_ms / TALLY_DAY_MS]++;
		c->doubt[end / TALLY_DAY_MS + 1]--;
	}
	for (size_t day = 1; day <= DAYS; day++)
		c->doubt[day] += c->doubt[day - 1];
	return 0;
}

/* Days come in order. */
static void name_day(struct compare *c, uint32_t day)
{
	if (c->days && c->last_day == day)
		return;
	if (c->days < DAYS_NAMED)
		c->named[c->days] = day;
	c->last_day = day;
	c->days++;
}

static void compare_days(struct compare *c)
{
	if (c->now->days_cut)
		return;
	for (size_t i = c->before->day_count; i-- > 0;) { /* the newest is the first */
		const struct tally_day *b = &c->before->days[i];
		const struct tally_group *g = group_now(c, b->group);
		if (!g || b->day <= g->oldest_ms / TALLY_DAY_MS || b->day >= c->limit_ms / TALLY_DAY_MS)
			continue;
		uint32_t have = tally_count_of_day(c->now, (uint32_t)(g - c->now->groups), b->day);
		if (have >= b->count)
			continue;
		if (c->doubt[b->day]) {
			c->unproven_days++;
			continue;
		}
		name_day(c, b->day);
		c->lost_of_days += b->count - have;
	}
}

/* --- what is said --- */

static void name_days(const struct compare *c, char *ret, size_t size)
{
	char from[SURVEY_DAY_BYTES], to[SURVEY_DAY_BYTES];
	size_t len = 0;
	for (size_t i = 0; i < c->days && i < DAYS_NAMED && len < size; i++)
		len += (size_t)snprintf(ret + len, size - len, "%s%s", i ? ", " : "", survey_day(from, c->named[i] * TALLY_DAY_MS));
	if (c->days > DAYS_NAMED && len < size)
		snprintf(ret + len, size - len, " and %zu more days", c->days - DAYS_NAMED);
	if (c->days)
		return;
	survey_day(from, c->first_ms);
	survey_day(to, c->last_ms);
	if (c->first_ms / TALLY_DAY_MS == c->last_ms / TALLY_DAY_MS)
		snprintf(ret, size, "%s", from);
	else
		snprintf(ret, size, "%s to %s", from, to);
}

static void say_lost(struct compare *c)
{
	char days[128] = "", who[64] = "the archive";
	uint64_t lost = c->lost > c->lost_of_days ? c->lost : c->lost_of_days;
	name_days(c, days, sizeof days);
	if (c->conversations)
		snprintf(who, sizeof who, "%zu of %zu conversation%s", c->conversations, c->before->conversations.count, plural(c->before->conversations.count));
	survey_say(c->run, c->store, "messages", false,
	    "%s lost %" PRIu64 " message%s of %s that %s there in the drill of %s and cannot have expired; "
	    "if they were deleted on purpose, the next drill takes this as given",
	    who, lost, plural(lost), days, lost == 1 ? "was" : "were", c->when);
}

static void say_counted(struct compare *c)
{
	char from[IM_INSTANT_BYTES], to[IM_INSTANT_BYTES], sample[48] = "";
	const struct tally *t = c->now;
	if (t->newest_ms < 0) {
		survey_say(c->run, c->store, "messages", true, t->messages ? "no message has a usable time" : "there are no messages");
		return;
	}
	if (t->conversations.bits)
		snprintf(sample, sizeof sample, " (a sample of 1 in 2^%u)", t->conversations.bits);
	survey_say(c->run, c->store, "messages", true, "%" PRIu64 " message%s in %zu conversation%s%s, from %s to %s%s%s%s", t->messages,
	    plural(t->messages), t->conversations.count, plural(t->conversations.count), sample, im_instant_format(from, t->oldest_ms),
	    im_instant_format(to, t->newest_ms),
	    c->before ? "; none is missing that was there in the drill of " : "", c->before ? c->when : "",
	    c->older ? ", as far as this older recovery point goes" : "");
	if (c->unproven_days)
		survey_say(c->run, c->store, "messages", true,
		    "days with fewer messages than in the drill of %s: %zu; archives now begin later, so a limit on their length can be the reason",
		    c->when, c->unproven_days);
}

/* --- checks of a single survey --- */

static void check_counter(struct compare *c)
{
	if (c->now->counter >= 0 && c->now->counter < c->now->last_id)
		survey_say(c->run, c->store, "counters", false,
		    "the counter of message numbers stands at %" PRId64 ", below the highest number %" PRId64 ": numbers could be given a second time",
		    c->now->counter, c->now->last_id);
	else if (c->before && !c->older && c->now->counter >= 0 && c->now->counter < c->before->counter)
		survey_say(c->run, c->store, "counters", false,
		    "the counter of message numbers stands at %" PRId64 "; in the drill of %s it had reached %" PRId64 ": numbers could be given a second time",
		    c->now->counter, c->when, c->before->counter);
	if (c->now->unplaced)
		survey_say(c->run, c->store, "messages", true, "messages without a usable time, or of one host too many, which are only counted: %" PRIu64,
		    c->now->unplaced);
}

static int by_day(const void *a, const void *b)
{
	const struct tally_day *x = a, *y = b;
	return (x->day > y->day) - (x->day < y->day);
}

/* Days without a message between busy ones: a remark, since a server may have been down. */
static int check_silence(struct compare *c, struct im_error *err)
{
	size_t n = 0, silent = 0;
	uint32_t first = 0;
	struct tally_day *days = calloc(c->now->day_count + 1, sizeof *days);
	if (!days)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < c->now->day_count; i++)
		days[i] = c->now->days[i];
	qsort(days, c->now->day_count, sizeof *days, by_day);
	for (size_t i = 0; i < c->now->day_count; i++) {
		if (n && days[n - 1].day == days[i].day)
			days[n - 1].count += days[i].count;
		else
			days[n++] = days[i];
	}
	for (size_t i = 1; i < n; i++)
		if (days[i].day > days[i - 1].day + 1 && days[i].count >= EMPTY_NEIGHBOURS && days[i - 1].count >= EMPTY_NEIGHBOURS) {
			first = silent ? first : days[i - 1].day + 1;
			silent += days[i].day - days[i - 1].day - 1;
		}
	free(days);
	char day[SURVEY_DAY_BYTES];
	if (silent)
		survey_say(c->run, c->store, "messages", true,
		    "%zu day%s without any message between days with many, the first %s: was the server down then?", silent, plural(silent), survey_day(day, first * TALLY_DAY_MS));
	return 0;
}

/* --- the whole --- */

/* False: no closer look is worth while. */
static bool compare_whole(struct compare *c)
{
	char then[IM_INSTANT_BYTES], is[IM_INSTANT_BYTES];
	if (!c->now->messages && c->before->messages && !c->older) {
		survey_say(c->run, c->store, "messages", false, "there are no messages; in the drill of %s there were %" PRIu64, c->when, c->before->messages);
		return false;
	}
	if (c->older || c->now->newest_ms >= c->before->newest_ms)
		return true;
	survey_say(c->run, c->store, "messages", false,
	    "the newest message is of %s; in the drill of %s, of an earlier recovery point, it was of %s: the newest messages are gone; "
	    "if they were deleted on purpose, the next drill takes this as given",
	    im_instant_format(is, c->now->newest_ms), c->when, im_instant_format(then, c->before->newest_ms));
	return true;
}

static int compare_with_before(struct compare *c, bool *ret_lost, struct im_error *err)
{
	c->limit_ms = c->older ? c->now->newest_ms - OLDER_MARGIN_MS : c->before->newest_ms;
	*ret_lost = !c->older && c->now->newest_ms < c->before->newest_ms;
	if (!compare_whole(c)) {
		*ret_lost = true;
		return 0;
	}
	int rc = find_doubts(c, err);
	if (rc)
		return rc;
	compare_conversations(c);
	compare_days(c);
	free(c->doubt);
	if (c->lost || c->lost_of_days) {
		say_lost(c);
		*ret_lost = true;
	}
	return 0;
}

/* The table is gone altogether, or it was never there. */
static void say_unknown(struct survey_run *r, const struct survey_surveyed *s, const char *when)
{
	if (s->has_before && s->before.messages)
		survey_say(r, s->store->name, "messages", false,
		    "there is no message table that is known; in the drill of %s there was one with %" PRIu64 " message%s", when, s->before.messages, plural(s->before.messages));
}

int survey_compare(struct survey_run *r, struct survey_surveyed *s, struct im_error *err)
{
	char made[IM_INSTANT_BYTES];
	struct compare c = { .run = r, .store = s->store->name, .now = &s->found.tally, .before = s->has_before ? &s->before : NULL };
	bool lost = false;
	/* A survey may have been handed on from an earlier drill than the last one. */
	c.when = s->has_before && s->before.made_ms > 0 ? im_instant_format(made, s->before.made_ms) : r->before_when ? r->before_when : "before";
	if (!s->found.known) {
		say_unknown(r, s, c.when);
		return 0;
	}
	s->older = c.older = c.before && is_older(c.before, c.now);
	int rc = c.before ? compare_with_before(&c, &lost, err) : 0;
	if (rc)
		return rc;
	if (!lost)
		say_counted(&c);
	check_counter(&c);
	return check_silence(&c, err);
}
