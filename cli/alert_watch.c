/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alerts of a follower that runs as a service. The follower hands over what it sees and goes on; this
 * thread judges and sends. What is wrong is said at once, that it is over only when it has stayed well
 * for a while: a log that falls behind again and again must not be two mails each time.
 */
#include "cli/alert.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/alert_internal.h"

#include <pthread.h>
#include <string.h>

#define WELL_MS (5 * 60000)
#define GAPS_MAX 32

struct seen { /* a store */
	char *store, *text; /* text: what is wrong, or NULL */
	int64_t shipped_ms;
	uint64_t spooled_bytes;
	bool behind;           /* more than rpo, also the time before: a blip is no alert */
	bool was_behind;
	int64_t well_since_ms; /* monotonic; 0: it is not */
};

struct gap {
	char *store, *text;
};

struct alert_watch {
	const struct options *options;
	pthread_t thread;
	int64_t started_ms;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t wake;
	struct im_config *fresh; /* the thread takes it */
	struct seen *stores;
	size_t store_count;
	struct gap gaps[GAPS_MAX];
	size_t gap_count;
	bool news, end;
};

/* --- what the follower hands over --- */

static struct seen *find(const struct alert_watch *w, const char *store)
{
	for (size_t i = 0; i < w->store_count; i++)
		if (strcmp(w->stores[i].store, store) == 0)
			return &w->stores[i];
	return NULL;
}

static struct seen *find_or_add(struct alert_watch *w, const char *store)
{
	struct seen *found = find(w, store);
	if (found)
		return found;
	char *name = strdup(store);
	struct seen *grown = name ? reallocarray(w->stores, w->store_count + 1, sizeof *grown) : NULL;
	if (!grown) {
		free(name);
		return NULL;
	}
	w->stores = grown;
	grown[w->store_count] = (struct seen){ .store = name };
	return &grown[w->store_count++];
}

static void look_at(struct alert_watch *w, const struct follow_look *look)
{
	struct seen *s = find_or_add(w, look->store);
	if (!s)
		return;
	free(s->text);
	s->text = look->text ? strdup(look->text) : NULL;
	s->shipped_ms = look->shipped_ms ? look->shipped_ms : w->started_ms;
	s->spooled_bytes = look->spooled_bytes;
}

void alert_watch_look(struct alert_watch *w, const struct follow_look *stores, size_t count)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < count; i++)
		look_at(w, &stores[i]);
	w->news = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

void alert_watch_gap(struct alert_watch *w, const char *store, const char *text)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	if (w->gap_count < GAPS_MAX) /* else the store's text says it */
		w->gaps[w->gap_count++] = (struct gap){ strdup(store), strdup(text) };
	w->news = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

void alert_watch_configure(struct alert_watch *w, const struct im_config *config)
{
	struct im_config *copy = NULL;
	if (!w || im_config_parse(config->text, "the configuration", &copy, NULL))
		return;
	pthread_mutex_lock(&w->lock);
	im_config_free(w->fresh);
	w->fresh = copy;
	pthread_mutex_unlock(&w->lock);
}

/* --- judging, under the lock --- */

static void add(struct alert_list *l, const char *store, const char *about, const char *text)
{
	struct alert *a = alert_add(l, ALERT_LOG, ALERT_CRITICAL, store, text);
	char *gist = a ? alert_gist(about) : NULL;
	if (gist) {
		free(a->about);
		a->about = gist;
	}
}

static void judge_lag(struct seen *s, const struct im_config *c, struct alert_list *ret)
{
	char lag[40], rpo[40];
	int64_t lag_ms = im_now_ms() - s->shipped_ms;
	bool late = c->rpo_ms && s->spooled_bytes && lag_ms > c->rpo_ms;
	s->behind = late && s->was_behind;
	s->was_behind = late;
	if (!s->behind)
		return;
	auto_free char *text = im_format("the log of store %s is %s behind its source, more than rpo = %s: what was captured waits in the spool; can "
	    "the vault be reached?", s->store, im_duration_format(lag, sizeof lag, lag_ms), im_duration_format(rpo, sizeof rpo, c->rpo_ms));
	if (text)
		add(ret, s->store, "lag", text);
}

static void judge_text(const char *store, const char *what, struct alert_list *ret)
{
	auto_free char *text = im_format("store %s: %s", store, what);
	if (text)
		add(ret, store, text, text);
}

static void judge(struct alert_watch *w, const struct im_config *c, struct alert_list *ret)
{
	for (size_t i = 0; i < w->store_count; i++) {
		struct seen *s = &w->stores[i];
		judge_lag(s, c, ret);
		if (s->text)
			judge_text(s->store, s->text, ret);
		bool well = !s->text && !s->was_behind;
		s->well_since_ms = !well ? 0 : s->well_since_ms ? s->well_since_ms : im_monotonic_ms();
	}
	for (size_t i = 0; i < w->gap_count; i++) {
		struct gap *g = &w->gaps[i];
		struct seen *s = g->store ? find(w, g->store) : NULL;
		if (g->store && g->text)
			judge_text(g->store, g->text, ret);
		if (s)
			s->well_since_ms = 0;
		free(g->store);
		free(g->text);
	}
	w->gap_count = 0;
}

struct bearing { /* for settling */
	struct alert_watch *w;
	const struct im_config *config;
};

static bool is_well(const struct bearing *b, const struct seen *s)
{
	int64_t enough_ms = b->config->alert_repeat_ms < WELL_MS ? b->config->alert_repeat_ms : WELL_MS;
	return s->well_since_ms && im_monotonic_ms() - s->well_since_ms >= enough_ms;
}

static bool settles(void *context, const struct alert_known *k)
{
	const struct bearing *b = context;
	bool well = true;
	if (k->kind == ALERT_VAULT || strcmp(k->command, "follow") != 0)
		return false;
	pthread_mutex_lock(&b->w->lock);
	const struct seen *s = find(b->w, k->store);
	if (s)
		well = is_well(b, s);
	else if (im_config_find_store(b->config, k->store))
		well = false; /* not looked at yet */
	for (size_t i = 0; !*k->store && i < b->w->store_count; i++)
		well = well && is_well(b, &b->w->stores[i]);
	pthread_mutex_unlock(&b->w->lock);
	return well;
}

/* --- the thread --- */

static void deliver(struct alert_watch *w, const struct im_config *c, struct alert_list *raised, bool *open)
{
	const struct options *o = w->options;
	const struct alert_origin origin = { .config = c, .config_path = o->config, .node = o->node ? o->node : c->node_name,
		.vault = o->vault ? o->vault : c->vault_url, .command = "follow" };
	struct bearing b = { w, c };
	if (raised->count || *open)
		*open = alert_deliver(&origin, raised, settles, &b);
}

/* Waits for news. False: that was all. */
static bool next(struct alert_watch *w, struct im_config **config, struct alert_list *ret)
{
	pthread_mutex_lock(&w->lock);
	while (!w->news && !w->end)
		pthread_cond_wait(&w->wake, &w->lock);
	bool more = !w->end;
	w->news = false;
	if (w->fresh) {
		im_config_free(*config);
		*config = w->fresh;
		w->fresh = NULL;
	}
	if (more && *config && alert_is_configured(*config))
		judge(w, *config, ret);
	pthread_mutex_unlock(&w->lock);
	return more;
}

static void *run(void *context)
{
	struct alert_watch *w = context;
	struct im_config *config = NULL;
	struct alert_list raised = { 0 };
	bool open = true; /* perhaps, from an earlier process */
	while (next(w, &config, &raised)) {
		if (config && alert_is_configured(config))
			deliver(w, config, &raised, &open);
		alert_list_clear(&raised);
	}
	im_config_free(config);
	return NULL;
}

struct alert_watch *alert_watch_start(const struct cli *cli)
{
	struct alert_watch *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	w->options = &cli->options;
	w->started_ms = im_now_ms();
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	alert_watch_configure(w, cli->config);
	if (pthread_create(&w->thread, NULL, run, w) == 0)
		return w;
	im_config_free(w->fresh);
	free(w);
	return NULL;
}

void alert_watch_stop(struct alert_watch *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->end = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	for (size_t i = 0; i < w->store_count; i++) {
		free(w->stores[i].store);
		free(w->stores[i].text);
	}
	for (size_t i = 0; i < w->gap_count; i++) {
		free(w->gaps[i].store);
		free(w->gaps[i].text);
	}
	free(w->stores);
	im_config_free(w->fresh);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->wake);
	free(w);
}
