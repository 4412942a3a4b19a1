/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits for the vault: what is there is answered at once by whoever received the request; what
 * has to come first waits in a queue for the bringers, so that everything else goes on however long
 * that takes.
 */
#include "restore/instant/fuse_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>

/* --- lanes: all views of the process share them, since their numbers are few --- */

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t back;
	struct hydrate_lane *made[FUSE_VIEW_LANES], *idle[FUSE_VIEW_LANES];
	unsigned made_count, idle_count, views;
} lanes = { .mutex = PTHREAD_MUTEX_INITIALIZER, .back = PTHREAD_COND_INITIALIZER };

static int take_lane(struct hydrate_lane **ret, struct im_error *err)
{
	int rc = 0;
	pthread_mutex_lock(&lanes.mutex);
	while (!lanes.idle_count && lanes.made_count == FUSE_VIEW_LANES)
		pthread_cond_wait(&lanes.back, &lanes.mutex);
	if (!lanes.idle_count) {
		rc = hydrate_lane_new(FUSE_VIEW_FIRST_LANE + lanes.made_count, &lanes.idle[0], err);
		if (rc == 0)
			lanes.made[lanes.made_count++] = lanes.idle[lanes.idle_count++];
	}
	if (rc == 0)
		*ret = lanes.idle[--lanes.idle_count];
	pthread_mutex_unlock(&lanes.mutex);
	return rc;
}

static void give_lane_back(struct hydrate_lane *l)
{
	pthread_mutex_lock(&lanes.mutex);
	lanes.idle[lanes.idle_count++] = l;
	pthread_cond_signal(&lanes.back);
	pthread_mutex_unlock(&lanes.mutex);
}

static void count_view(int more)
{
	pthread_mutex_lock(&lanes.mutex);
	lanes.views += (unsigned)more;
	while (!lanes.views && lanes.made_count)
		hydrate_lane_free(lanes.made[--lanes.made_count]);
	lanes.idle_count = lanes.views ? lanes.idle_count : 0;
	pthread_mutex_unlock(&lanes.mutex);
}

/* --- which part is still the vault's --- */

static uint64_t end_of(const struct fuse_view *v, uint32_t file, const struct job *j)
{
	uint64_t limit = v->table->files[file].limit;
	return j->end < limit ? j->end : limit;
}

/* --- the queue --- */

static void free_job(struct job *j)
{
	free(j->kept);
	free(j);
}

static void enqueue(struct fuse_view *v, const struct job *j)
{
	struct job *kept = malloc(sizeof *kept);
	uint8_t *data = kept && j->data ? malloc(j->size) : NULL;
	if (!kept || (j->data && !data)) {
		free(kept);
		fuse_reply_err(j->req, ENOMEM);
		return;
	}
	*kept = *j;
	kept->data = kept->kept = data;
	kept->next = NULL;
	if (data)
		memcpy(data, j->data, j->size);
	atomic_fetch_add(&v->table->head->waiting, 1);
	pthread_mutex_lock(&v->mutex);
	*v->last = kept;
	v->last = &kept->next;
	pthread_cond_signal(&v->work);
	pthread_mutex_unlock(&v->mutex);
}

void wait_for(fuse_req_t req, struct job *j)
{
	struct fuse_view *v = view_of(req);
	uint32_t file = node_lazy(v, j->node);
	j->req = req;
	j->since_us = im_monotonic_us();
	uint64_t end = file == ACCESS_NO_FILE ? 0 : end_of(v, file, j);
	if (end > j->offset)
		access_trace(v->table, file, j->offset, end);
	if (end > j->offset && !access_is_there(v->table, file, j->offset, end)) {
		enqueue(v, j);
		return;
	}
	data_run(v, j);
	if (file != ACCESS_NO_FILE)
		access_count(v->table, j->since_us);
}

static void bring(struct fuse_view *v, struct job *j)
{
	struct im_error why = { 0 };
	struct hydrate_lane *lane = NULL;
	uint32_t file = j->node->file; /* it may have become an ordinary one meanwhile, or shorter */
	uint64_t offset = j->offset, end = end_of(v, file, j);
	int rc = take_lane(&lane, &why);
	if (rc == 0 && end > offset)
		rc = hydrate_range(v->hydrator, lane, file, offset, end - offset, HYDRATE_DEMAND, &why);
	if (rc && rc != IM_ECORRUPT)
		table_trouble(v->table, "%s", why.text);
	if (rc)
		fuse_reply_err(j->req, data_errno(rc));
	else
		data_run(v, j);
	access_count(v->table, j->since_us);
	atomic_fetch_add(&v->table->head->demand_bytes, end > offset ? end - offset : 0);
	atomic_fetch_sub(&v->table->head->waiting, 1);
	if (rc == 0 && end > offset)
		access_look_ahead(v->hydrator, lane, v->table, file, offset, end, &v->lazy[file].last_block);
	if (lane)
		give_lane_back(lane);
}

/* Waits; NULL: it is over. */
static struct job *next_job(struct fuse_view *v)
{
	pthread_mutex_lock(&v->mutex);
	while (!v->first && !v->over)
		pthread_cond_wait(&v->work, &v->mutex);
	struct job *j = v->over ? NULL : v->first;
	if (j && !(v->first = j->next))
		v->last = &v->first;
	pthread_mutex_unlock(&v->mutex);
	return j;
}

void *wait_bring(void *context)
{
	struct serving *s = context;
	fuse_self = s;
	for (struct job *j; (j = next_job(s->v));) {
		bring(s->v, j);
		free_job(j);
	}
	return NULL;
}

void wait_stop(struct fuse_view *v)
{
	pthread_mutex_lock(&v->mutex);
	v->over = true;
	pthread_cond_broadcast(&v->work);
	while (v->first) {
		struct job *j = v->first;
		v->first = j->next;
		fuse_reply_err(j->req, EIO);
		atomic_fetch_sub(&v->table->head->waiting, 1);
		free_job(j);
	}
	v->last = &v->first;
	pthread_mutex_unlock(&v->mutex);
}

/* --- */

int wait_begin(struct fuse_view *v, struct im_error *err)
{
	uint32_t count = v->table->head->file_count;
	pthread_mutex_init(&v->mutex, NULL);
	pthread_cond_init(&v->work, NULL);
	v->last = &v->first;
	count_view(1);
	v->lazy = calloc(count ? count : 1, sizeof *v->lazy);
	if (!v->lazy)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < count; i++)
		pthread_rwlock_init(&v->lazy[i].lock, NULL);
	return 0;
}

void wait_end(struct fuse_view *v)
{
	for (uint32_t i = 0; v->lazy && i < v->table->head->file_count; i++)
		pthread_rwlock_destroy(&v->lazy[i].lock);
	free(v->lazy);
	count_view(-1);
	pthread_mutex_destroy(&v->mutex);
	pthread_cond_destroy(&v->work);
}
