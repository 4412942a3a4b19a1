/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The logs: every segment by itself, each link of the chain where both ends are there, and what
 * damage means: which instants can no longer be reached. Names pass by in order, epoch by epoch;
 * kept are the ends of chains that may still go on, and the stretches that are not explained yet.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "verify/logs.h"

#include <stdio.h>
#include <string.h>

enum { WAITING_MAX = 65536 };

/* Coarse segments against the fine ones. */

static void judge_waiting(struct checker *c, uint64_t first)
{
	size_t kept = 0;
	for (size_t i = 0; i < c->waiting_count; i++) {
		struct waiting *w = &c->waiting[i];
		if (w->last >= first) {
			c->waiting[kept++] = *w;
			continue;
		}
		size_t row = w->seen && !w->same ?
		    verify_log_damaged(c, w->object,
			"it does not end where the fine segment of that point ends: one of the two was replaced") :
		    VERIFY_NO_DAMAGE;
		auto_free char *text = im_format(
		    "%s/%s: no instant is lost while the fine segments are there", c->node, c->store);
		if (row != VERIFY_NO_DAMAGE && text)
			verify_damage_path(c->v, row, text);
		free(w->object);
	}
	c->waiting_count = kept;
}

static int wait_for_end(struct checker *c, const struct chain *chain)
{
	struct waiting w = { .last = c->last };
	if (c->waiting_count == WAITING_MAX)
		return 0;
	memcpy(w.ends, chain->ends, 32);
	for (size_t i = 0; i < c->end_count; i++)
		if (c->ends[i].point == w.last) {
			w.seen = true;
			w.same |= memcmp(c->ends[i].hash, w.ends, 32) == 0;
		}
	w.object = strdup(c->object);
	if (!w.object || !verify_log_grow(&c->waiting, c->waiting_count, sizeof w)) {
		free(w.object);
		return verify_log_no_memory(c);
	}
	c->waiting[c->waiting_count++] = w;
	return 0;
}

static int take_fine_end(struct checker *c, const struct chain *chain)
{
	struct fine_end e = { .point = c->last };
	memcpy(e.hash, chain->hash, 32);
	if (!verify_log_grow(&c->ends, c->end_count, sizeof e))
		return verify_log_no_memory(c);
	c->ends[c->end_count++] = e;
	c->fine_to = e.point > c->fine_to ? e.point : c->fine_to;
	for (size_t i = 0; i < c->waiting_count; i++)
		if (c->waiting[i].last == e.point) {
			c->waiting[i].seen = true;
			c->waiting[i].same |= memcmp(c->waiting[i].ends, e.hash, 32) == 0;
		}
	verify_log_note_images(c, e.point, e.hash);
	return 0;
}

/* What cannot be followed any more. */
static void forget_before(struct checker *c, uint32_t first)
{
	size_t kept = 0;
	for (size_t i = 0; i < c->end_count; i++)
		if (c->ends[i].point >= first - 1)
			c->ends[kept++] = c->ends[i];
	c->end_count = kept;
	for (size_t i = kept = 0; i < c->head_count; i++)
		if (c->heads[i].first >= first)
			c->heads[kept++] = c->heads[i];
	c->head_count = kept;
	log_reach_trim(&c->reach, first);
}

/* A segment has passed by whole. */
static int take_whole(struct checker *c, const struct chain *chain)
{
	struct log_end e = { .point = c->last, .from = chain->level ? c->last : c->first };
	bool reached = false;
	int rc = chain->level ? wait_for_end(c, chain) : take_fine_end(c, chain);
	if (rc || chain->bad)
		return rc;
	e.from_ms = chain->level ? chain->ms : chain->from_ms;
	e.ms = chain->ms;
	rc = log_reach_add(&c->reach, c->first, &e, &reached, c->err);
	if (reached)
		verify_log_offer(c, &e);
	c->ms = chain->ms;
	return rc;
}

/* at_end: nothing follows in this epoch. */
static int end_segment(struct checker *c, bool at_end)
{
	static const char not_whole[] = "not all of its parts are there; they may be on their way into the vault";
	bool whole = false;
	int rc = 0;
	for (size_t i = 0; i < c->chain_count && rc == 0; i++) {
		whole |= c->chains[i].final;
		rc = c->chains[i].final ? take_whole(c, &c->chains[i]) : 0;
	}
	if (c->object && !whole && !c->damaged && at_end)
		verify_warn(c->v, "%s: %s", c->object, not_whole);
	else if (rc == 0 && c->object && !whole && !c->damaged)
		rc = verify_log_suspect(c, c->object, VERIFY_NO_DAMAGE, not_whole, c->first, c->last);
	c->chain_count = 0;
	free(c->object);
	c->object = NULL;
	return rc;
}

static int begin_segment(struct checker *c, const struct log_name *n)
{
	int rc = end_segment(c, false);
	if (rc == 0)
		rc = verify_log_reach_images(c, n->first, n->object);
	forget_before(c, n->first);
	const struct log_end *before = log_reach_before(&c->reach, n->first);
	c->first = n->first;
	c->last = n->last;
	c->points = n->last > c->points ? n->last : c->points;
	c->damaged = false;
	c->object = strdup(n->object);
	if (rc == 0 && !c->object)
		rc = verify_log_no_memory(c);
	if (n->first > 1 && !c->any && before && before->point == 0)
		verify_warn(c->v, "%s: the log of epoch %s begins with it; there is nothing of what was before", n->object, c->epoch);
	if (rc == 0)
		rc = verify_log_note_hole(c, n->object, before, n->first - 1);
	/* only now: what is damaged explains the hole it leaves */
	if (rc == 0)
		rc = verify_log_settle(c, n->first);
	judge_waiting(c, n->first);
	c->any = true;
	return rc;
}

/* Epochs. */

static int end_epoch(struct checker *c)
{
	if (!c->epoch[0])
		return 0;
	int rc = end_segment(c, true);
	if (rc == 0)
		rc = verify_log_reach_images(c, UINT64_MAX, NULL);
	if (rc == 0)
		rc = verify_log_settle(c, UINT64_MAX);
	judge_waiting(c, UINT64_MAX);
	verify_log_judge_images(c);
	log_reach_clear(&c->reach);
	c->end_count = c->head_count = 0;
	memcpy(c->before, c->epoch, sizeof c->before);
	c->before_points = c->points;
	c->before_ms = c->ms;
	c->epoch[0] = '\0';
	c->points = 0;
	return rc;
}

static int begin_epoch(struct checker *c, const char *node, const struct log_name *n)
{
	int rc = end_epoch(c);
	if (!c->store || strcmp(c->store, n->store) || strcmp(c->node, node)) {
		c->before[0] = '\0';
		free(c->node);
		free(c->store);
		c->node = strdup(node);
		c->store = strdup(n->store);
	}
	if (rc == 0 && (!c->node || !c->store))
		rc = verify_log_no_memory(c);
	memcpy(c->epoch, n->epoch, sizeof c->epoch);
	c->first = c->last = 0;
	c->any = false;
	c->fine_to = c->doubt = 0;
	c->hole = UINT32_MAX;
	if (rc == 0)
		rc = verify_log_find_images(c);
	return rc ? rc : log_reach_put(&c->reach, &(struct log_end){ 0 }, c->err); /* point 0 */
}

/* An epoch says how far the one before it went: so its end cannot be taken away unnoticed. */
static void check_beginning(struct checker *c, const struct log_name *n, const struct log_segment *s)
{
	json_t *after = json_object_get(json_object_get(s->record.meta, "began"), "after");
	const char *epoch = json_string_value(json_object_get(after, "epoch"));
	json_int_t point = json_integer_value(json_object_get(after, "point"));
	char problem[200], from[IM_INSTANT_BYTES];
	if (!epoch || strcmp(epoch, c->before) || point <= c->before_points || point > UINT32_MAX)
		return;
	snprintf(problem, sizeof problem, "the epoch before it, %s, went on to point %u, but ends at point %u: its end was removed or never written",
	    epoch, (unsigned)point, c->before_points);
	size_t row = verify_log_damaged(c, n->object, problem);
	auto_free char *text = im_format("%s/%s: no instant after %s can be reached in epoch %s", c->node, c->store,
	    im_instant_format(from, c->before_ms), epoch);
	if (row != VERIFY_NO_DAMAGE && text)
		verify_damage_path(c->v, row, text);
}

/* Segments, part by part. */

static bool follows(const struct checker *c, const struct log_segment *s)
{
	bool known = false;
	for (size_t i = 0; i < c->end_count; i++) {
		if (c->ends[i].point != s->first - 1)
			continue;
		known = true;
		if (s->has_prev && memcmp(c->ends[i].hash, s->prev, 32) == 0)
			return true;
	}
	return !known; /* what is not there cannot be compared with */
}

static int check_fork(struct checker *c, const struct log_name *n, const struct log_segment *s)
{
	struct fine_head head = { .first = n->first };
	char problem[160];
	memcpy(head.prev, s->prev, 32); /* zeros: none */
	snprintf(problem, sizeof problem, "fork: another segment follows point %u as well; two machines write this log, or a state was cloned",
	    n->first - 1);
	for (size_t i = 0; i < c->head_count; i++)
		if (memcmp(c->heads[i].prev, head.prev, 32) == 0) {
			size_t row = verify_log_damaged(c, n->object, problem);
			auto_free char *text = im_format("%s/%s: a restore stops before it", c->node, c->store);
			if (row != VERIFY_NO_DAMAGE && text)
				verify_damage_path(c->v, row, text);
			return 0;
		}
	if (!verify_log_grow(&c->heads, c->head_count, sizeof head))
		return verify_log_no_memory(c);
	c->heads[c->head_count++] = head;
	return 0;
}

/* Only coarse segments lead to this fine one: no damage, but less than there was. */
static void check_thinned(struct checker *c, const struct log_name *n)
{
	const struct log_end *before = log_reach_before(&c->reach, n->first);
	if (before && before->point == n->first - 1 && c->fine_to < n->first - 1 && c->doubt <= c->fine_to)
		verify_warn(c->v, "%s: fine segments before it, of points %u to %u, are not there: coarse ones lead over them, without the instants between",
		    n->object, c->fine_to + 1, n->first - 1);
}

static void end_chain(struct chain *chain, const struct log_segment *s)
{
	chain->part = s->part;
	chain->final = s->final;
	memcpy(chain->hash, s->hash, 32);
	memcpy(chain->ends, s->ends, 32);
}

static int take_head(struct checker *c, const struct log_name *n, const struct log_segment *s)
{
	struct chain chain = { .level = s->level,
		.from_ms = s->points[0].complete_ms,
		.ms = s->points[s->point_count - 1].complete_ms };
	static const char problem[] = "it does not follow the segment before it: one of the two was replaced";
	int rc = s->level ? 0 : check_fork(c, n, s);
	if (!s->level)
		check_thinned(c, n);
	if (n->first == 1)
		check_beginning(c, n, s);
	chain.bad = !follows(c, s);
	if (rc == 0 && chain.bad)
		rc = verify_log_suspect(c, n->object, verify_log_damaged(c, n->object, problem), problem, n->first, n->last);
	if (rc == 0 && !verify_log_grow(&c->chains, c->chain_count, sizeof chain))
		rc = verify_log_no_memory(c);
	if (rc)
		return rc;
	end_chain(&chain, s);
	c->chains[c->chain_count++] = chain;
	return 0;
}

static int take_part(struct checker *c, const struct log_name *n, const struct log_segment *s)
{
	static const char problem[] = "it does not follow the part before it: that one is missing or was replaced";
	for (size_t i = 0; i < c->chain_count; i++) {
		struct chain *chain = &c->chains[i];
		if (chain->final || chain->part + 1 != s->part || chain->level != s->level || memcmp(chain->hash, s->prev, 32))
			continue;
		end_chain(chain, s);
		return 0;
	}
	if (c->damaged)
		return 0;
	c->damaged = true;
	return verify_log_suspect(c, n->object, verify_log_damaged(c, n->object, problem), problem, n->first, n->last);
}

static int check_object(struct checker *c, const struct log_name *n)
{
	struct log_segment *s = NULL;
	struct im_error why = { 0 };
	int rc = log_read(c->v->storage, c->v->keyring, c->node, n, &s, &why);
	if (rc == IM_EUNREACHABLE || rc == IM_EINTERRUPTED || rc == IM_ENOMEM)
		return im_fail(c->err, rc, "%s", why.text);
	if (rc == IM_EKEY) {
		verify_warn(c->v, "%s: %s", n->object, why.text);
		c->damaged = true; /* nothing is known of it */
		return 0;
	}
	if (rc) {
		c->damaged = true;
		return verify_log_suspect(c, n->object, verify_log_damaged(c, n->object, why.text), why.text, n->first, n->last);
	}
	if (c->v->request->read_percent && c->v->can_decrypt && !s->record.has_private)
		verify_warn(c->v, "%s cannot be opened with this key, only its signature was checked", n->object);
	rc = s->part ? take_part(c, n, s) : take_head(c, n, s);
	log_segment_free(s);
	return rc;
}

static int take_object(void *context, const char *object, uint64_t size_bytes)
{
	struct checker *c = context;
	struct log_name n;
	auto_free char *node = NULL;
	bool same;
	int rc = im_interrupt_check(c->err);
	if (rc)
		return rc;
	if (!log_name_parse(object, &n, &node)) {
		verify_warn(c->v, "%s is no object of this vault; it is left alone", object);
		return 0;
	}
	c->v->result->segments++;
	c->v->result->log_bytes += size_bytes;
	if (c->v->keyless) {
		rc = verify_named_hash(c->v, object, n.hash_prefix, &same, c->err);
		if (rc == 0 && !same && c->v->result->damaged_count)
			verify_damage_store(c->v, c->v->result->damaged_count - 1, node, n.store);
		log_name_clear(&n);
		return rc;
	}
	if (strcmp(c->epoch, n.epoch) || strcmp(c->store, n.store) || strcmp(c->node, node))
		rc = begin_epoch(c, node, &n);
	if (rc == 0 && (n.first != c->first || n.last != c->last))
		rc = begin_segment(c, &n);
	if (rc == 0)
		rc = check_object(c, &n);
	log_name_clear(&n);
	return rc;
}

/* A snapshot stands in an epoch of which nothing is there. */
static void check_unvisited(struct verify *v)
{
	for (size_t i = 0; i < v->image_count; i++) {
		const struct verify_image *image = &v->images[i];
		const struct verify_snapshot *vs = &v->snapshots[image->snapshot];
		if (!image->visited && image->anchor.has_hash)
			verify_warn(v, "%s/%s: nothing of epoch %s, in which snapshots stand, is in the vault: it was removed, or is still on its way",
			    vs->name.node, image->store, image->anchor.epoch);
	}
}

static void checker_clear(struct checker *c)
{
	for (size_t i = 0; i < c->suspect_count; i++) {
		free(c->suspects[i].object);
		free(c->suspects[i].problem);
	}
	for (size_t i = 0; i < c->waiting_count; i++)
		free(c->waiting[i].object);
	free(c->suspects);
	free(c->waiting);
	free(c->ends);
	free(c->heads);
	free(c->chains);
	free(c->images);
	free(c->object);
	free(c->node);
	free(c->store);
	log_reach_clear(&c->reach);
}

int verify_logs(struct verify *v, struct im_error *err)
{
	IM_CLEANUP(checker_clear) struct checker c = { .v = v, .err = err };
	auto_free char *prefix = v->request->node ? im_format("logs/%s/", v->request->node) : strdup("logs/");
	verify_phase(v, "log");
	int rc = prefix ? storage_list(v->storage, prefix, take_object, &c, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0)
		rc = end_epoch(&c);
	if (rc == 0 && !v->keyless)
		check_unvisited(v);
	return rc;
}
