/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathering inputs and merging them on a thread of low priority. A stretch that is to be merged moves
 * as a whole from the store's thread to the merging one; its result is an input of the next level.
 */
#include "backup/coarse.h"

#include "backup/scratch.h"
#include "base/cleanup.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LEVELS = 2, NICE = 10 };

struct input { /* a segment of level 0 or 1: its parts */
	uint32_t first, last;
	struct log_point point; /* of last */
	uint8_t prev[32], hash[32]; /* before first; of the fine segment that ends at last */
	char epoch[LOG_EPOCH_CHARS + 1];
	json_t *position;
	uint64_t bytes, commits;
	struct scratch_body *parts;
	size_t part_count;
};

struct inputs {
	struct input *at;
	size_t count, room;
};

struct job {
	struct job *next;
	struct inputs inputs;
	unsigned level; /* of the result */
	unsigned round; /* see coarse.round */
	bool cut;       /* then merge what there is of the next level, too */
};

struct coarse {
	struct coarse_request q;
	struct scratch *scratch;
	pthread_t thread;
	bool started;
	struct inputs fine;    /* the store's thread */
	int64_t begun_ms;      /* complete_ms where the minute begins; 0: with the next segment */
	struct inputs minutes; /* the merging thread */
	pthread_mutex_t lock;  /* of what follows */
	pthread_cond_t wake;
	struct job *jobs, **jobs_end;
	unsigned round;        /* a restart makes results of earlier rounds no inputs any more */
	bool end;
};

static void input_clear(struct coarse *c, struct input *i)
{
	for (size_t p = 0; p < i->part_count; p++)
		scratch_drop(c->scratch, &i->parts[p]);
	free(i->parts);
	json_decref(i->position);
	*i = (struct input){ 0 };
}

static void inputs_clear(struct coarse *c, struct inputs *l)
{
	for (size_t i = 0; i < l->count; i++)
		input_clear(c, &l->at[i]);
	free(l->at);
	*l = (struct inputs){ 0 };
}

/* Takes the input over. */
static bool inputs_add(struct coarse *c, struct inputs *l, struct input *i)
{
	size_t room = l->room ? 2 * l->room : 64;
	struct input *grown = l->count < l->room ? l->at : reallocarray(l->at, room, sizeof *grown);
	if (!grown) {
		input_clear(c, i);
		return false;
	}
	l->room = l->count < l->room ? l->room : room;
	l->at = grown;
	l->at[l->count++] = *i;
	*i = (struct input){ 0 };
	return true;
}

static int add_part(struct coarse *c, struct input *i, const void *data, size_t len, struct im_error *err)
{
	struct scratch_body *grown = reallocarray(i->parts, i->part_count + 1, sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	i->parts = grown;
	int rc = scratch_put(c->scratch, data, len, &grown[i->part_count], err);
	i->part_count += rc == 0;
	return rc;
}

/* --- merging, on its thread --- */

struct result { /* of a merge, part by part */
	struct coarse *c;
	json_t *meta;
	struct input input; /* for the next level */
	uint8_t prev[32];
	bool has_prev, keep;
	unsigned part;
};

static json_t *make_meta(const struct coarse *c, const struct inputs *l, unsigned level, uint64_t bytes, uint64_t commits)
{
	char host[256] = "", hex[65];
	const struct input *first = &l->at[0], *last = &l->at[l->count - 1];
	gethostname(host, sizeof host - 1);
	json_t *meta = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:s, s:[[I, I]], s:O, s:s*, s:s, s:I, s:I}", "kind", "segment", "node",
	    c->q.node, "store", c->q.store, "type", c->q.type, "epoch", first->epoch, "first", (json_int_t)first->first, "last",
	    (json_int_t)last->last, "level", (int)level, "ends", im_hex(hex, last->hash, 32), "points", (json_int_t)last->point.complete_ms,
	    (json_int_t)last->point.latest_ms, "position", last->position, "host", host, "version", IMVAULT_VERSION, "bytes", (json_int_t)bytes,
	    "commits", (json_int_t)commits);
	return meta;
}

static int on_part(void *context, const void *data, size_t len, bool final, struct im_error *err)
{
	struct result *r = context;
	auto_buf struct im_buf object = { 0 };
	auto_free char *name = NULL;
	char hex[65];
	json_object_set_new(r->meta, "part", json_integer(r->part));
	json_object_set_new(r->meta, "final", json_boolean(final));
	if (r->has_prev)
		json_object_set_new(r->meta, "prev", json_string(im_hex(hex, r->prev, 32)));
	int rc = log_encode(r->c->q.keyring, r->meta, data, len, &object, r->prev, &name, err);
	if (rc == 0)
		rc = spool_add(r->c->q.spool, name, object.data, object.len, err);
	if (rc)
		return rc;
	r->has_prev = true;
	r->part++;
	if (r->keep && add_part(r->c, &r->input, data, len, NULL))
		r->keep = false; /* no room: this minute is in no hour */
	return 0;
}

static int run_merge(struct coarse *c, const struct inputs *l, struct result *r, struct im_error *err)
{
	size_t count = 0, n = 0;
	for (size_t i = 0; i < l->count; i++)
		count += l->at[i].part_count;
	struct follow_source *sources = calloc(count + 1, sizeof *sources);
	struct scratch_reader *readers = calloc(count + 1, sizeof *readers);
	int rc = sources && readers ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; rc == 0 && i < l->count; i++) {
		for (size_t p = 0; p < l->at[i].part_count; p++, n++) {
			readers[n] = (struct scratch_reader){ .scratch = c->scratch, .body = &l->at[i].parts[p] };
			sources[n] = (struct follow_source){ scratch_read, &readers[n], l->at[i].parts[p].len };
		}
	}
	if (rc == 0)
		rc = c->q.ops->merge(sources, count, on_part, r, err);
	for (size_t i = 0; readers && i < n; i++)
		scratch_reader_clear(&readers[i]);
	free(sources);
	free(readers);
	return rc;
}

static void describe(struct input *ret, const struct inputs *l)
{
	const struct input *first = &l->at[0], *last = &l->at[l->count - 1];
	*ret = (struct input){ .first = first->first, .last = last->last, .point = last->point, .position = json_incref(last->position) };
	memcpy(ret->prev, first->prev, 32);
	memcpy(ret->hash, last->hash, 32);
	strcpy(ret->epoch, first->epoch);
	for (size_t i = 0; i < l->count; i++) {
		ret->bytes += l->at[i].bytes;
		ret->commits += l->at[i].commits;
	}
}

/* *ret: the merged segment as an input of the next level; empty if it is none. */
static int merge(struct coarse *c, const struct inputs *l, unsigned level, struct input *ret, struct im_error *err)
{
	struct result r = { .c = c, .has_prev = l->at[0].first > 1, .keep = level < LEVELS };
	describe(&r.input, l);
	memcpy(r.prev, r.input.prev, 32);
	r.meta = make_meta(c, l, level, r.input.bytes, r.input.commits);
	int rc = r.meta ? run_merge(c, l, &r, err) : im_fail(err, IM_ENOMEM, "out of memory");
	json_decref(r.meta);
	if (rc || !r.keep)
		input_clear(c, &r.input);
	*ret = r.input;
	if (rc == 0 && c->q.added)
		c->q.added(c->q.context);
	return rc;
}

static void complain(struct coarse *c, const struct im_error *why)
{
	if (c->q.warn)
		c->q.warn(c->q.context, why->text);
}

static void merge_minutes(struct coarse *c)
{
	struct im_error why = { 0 };
	struct input none = { 0 };
	if (c->minutes.count > 1 && merge(c, &c->minutes, 2, &none, &why))
		complain(c, &why);
	inputs_clear(c, &c->minutes);
}

static bool continues(const struct inputs *l, const struct input *i)
{
	const struct input *last = l->count ? &l->at[l->count - 1] : NULL;
	return !last || (last->last + 1 == i->first && strcmp(last->epoch, i->epoch) == 0);
}

/* A minute of one segment is that segment. */
static void do_job(struct coarse *c, struct job *j)
{
	struct im_error why = { 0 };
	struct input minute = { 0 };
	if (j->inputs.count == 1) {
		minute = j->inputs.at[0];
		j->inputs.count = 0;
	} else if (j->inputs.count && merge(c, &j->inputs, j->level, &minute, &why)) {
		complain(c, &why);
	}
	pthread_mutex_lock(&c->lock);
	bool stale = j->round != c->round;
	pthread_mutex_unlock(&c->lock);
	if (stale || !continues(&c->minutes, &minute))
		merge_minutes(c);
	if (stale || !minute.part_count)
		input_clear(c, &minute);
	else
		inputs_add(c, &c->minutes, &minute);
	if (j->cut || c->minutes.count >= c->q.hour_minutes)
		merge_minutes(c);
}

static struct job *next_job(struct coarse *c)
{
	pthread_mutex_lock(&c->lock);
	while (!c->jobs && !c->end)
		pthread_cond_wait(&c->wake, &c->lock);
	struct job *j = c->end ? NULL : c->jobs;
	if (j) {
		c->jobs = j->next;
		c->jobs_end = c->jobs ? c->jobs_end : &c->jobs;
	}
	pthread_mutex_unlock(&c->lock);
	return j;
}

static void *run(void *context)
{
	struct coarse *c = context;
	struct job *j;
	setpriority(PRIO_PROCESS, (id_t)gettid(), NICE); /* on Linux: of this thread */
	while ((j = next_job(c))) {
		do_job(c, j);
		inputs_clear(c, &j->inputs);
		free(j);
	}
	return NULL;
}

/* --- gathering, on the store's thread --- */

/* Hands the fine segments so far over. */
static void cut(struct coarse *c, bool also_hour)
{
	struct job *j = calloc(1, sizeof *j);
	if (!j) {
		inputs_clear(c, &c->fine);
		return;
	}
	*j = (struct job){ .inputs = c->fine, .level = 1, .cut = also_hour };
	c->fine = (struct inputs){ 0 };
	pthread_mutex_lock(&c->lock);
	j->round = c->round;
	*c->jobs_end = j;
	c->jobs_end = &j->next;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
}

void coarse_feed(struct coarse *c, const struct spool_head *head, const uint8_t prev[32], const struct follow_batch *batch)
{
	if (!c)
		return;
	struct input i = { .first = head->first, .last = head->point, .point = { head->complete_ms, head->latest_ms },
		.position = json_deep_copy(head->position), .bytes = batch->bytes, .commits = batch->commits };
	int rc = i.position ? 0 : IM_ENOMEM;
	memcpy(i.prev, prev, 32);
	memcpy(i.hash, head->hash, 32);
	strcpy(i.epoch, head->epoch);
	for (size_t p = 0; rc == 0 && p < batch->part_count; p++)
		rc = add_part(c, &i, batch->parts[p].data.data, batch->parts[p].data.len, NULL);
	if (!c->fine.count && !c->begun_ms)
		c->begun_ms = head->complete_ms;
	if (rc || !inputs_add(c, &c->fine, &i)) {
		input_clear(c, &i);
		cut(c, true); /* what comes after this segment is another stretch */
		c->begun_ms = 0;
		return;
	}
	if (head->complete_ms - c->begun_ms >= c->q.minute_ms) {
		cut(c, false);
		c->begun_ms = head->complete_ms;
	}
}

void coarse_anchor(struct coarse *c)
{
	if (!c)
		return;
	cut(c, true);
	c->begun_ms = 0;
}

void coarse_restart(struct coarse *c)
{
	if (!c)
		return;
	inputs_clear(c, &c->fine);
	c->begun_ms = 0;
	pthread_mutex_lock(&c->lock);
	c->round++;
	pthread_mutex_unlock(&c->lock);
}

/* --- begin and end --- */

int coarse_start(const struct coarse_request *q, struct coarse **ret, struct im_error *err)
{
	*ret = NULL;
	if (!q->ops->merge)
		return 0;
	struct coarse *c = calloc(1, sizeof *c);
	if (!c)
		return im_fail(err, IM_ENOMEM, "out of memory");
	c->q = *q;
	c->jobs_end = &c->jobs;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->wake, NULL);
	int rc = scratch_new(q->folder, q->limit_bytes, &c->scratch, err);
	if (rc == 0 && !(c->started = pthread_create(&c->thread, NULL, run, c) == 0))
		rc = im_fail(err, IM_EFAIL, "cannot start a thread");
	if (rc) {
		coarse_stop(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void coarse_finish(struct coarse *c)
{
	if (!c || !c->started)
		return;
	pthread_mutex_lock(&c->lock);
	c->end = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	c->started = false;
}

void coarse_stop(struct coarse *c)
{
	if (!c)
		return;
	coarse_finish(c);
	for (struct job *j = c->jobs, *next; j; j = next) {
		next = j->next;
		inputs_clear(c, &j->inputs);
		free(j);
	}
	inputs_clear(c, &c->fine);
	inputs_clear(c, &c->minutes);
	scratch_free(c->scratch);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->wake);
	free(c);
}
