/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of a verification's result.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "verify/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PATHS_MAX = 100000 };

static size_t find(const struct verify_result *r, const char *object, const char *problem)
{
	for (size_t i = 0; i < r->damaged_count; i++)
		if (!strcmp(r->damaged[i].object, object) &&
		    !strcmp(r->damaged[i].problem, problem))
			return i;
	return VERIFY_NO_DAMAGE;
}

static size_t append(struct verify_result *r, const char *object, const char *problem)
{
	struct verify_damage *grown = realloc(r->damaged, (r->damaged_count + 1) * sizeof *grown);
	if (!grown)
		return VERIFY_NO_DAMAGE;
	r->damaged = grown;
	struct verify_damage *d = &grown[r->damaged_count];
	*d = (struct verify_damage){ .object = strdup(object), .problem = strdup(problem) };
	if (!d->object || !d->problem) {
		free(d->object);
		free(d->problem);
		return VERIFY_NO_DAMAGE;
	}
	return r->damaged_count++;
}

size_t verify_damage_add(struct verify *v, const char *object, const char *format, ...)
{
	char problem[IM_ERROR_TEXT_BYTES];
	va_list ap;
	va_start(ap, format);
	vsnprintf(problem, sizeof problem, format, ap);
	va_end(ap);
	pthread_mutex_lock(&v->mutex);
	size_t row = find(v->result, object, problem);
	bool fresh = row == VERIFY_NO_DAMAGE;
	if (fresh)
		row = append(v->result, object, problem);
	const struct verify_events *ev = v->request->events;
	if (fresh && ev && ev->damage)
		ev->damage(ev->context, object, problem);
	pthread_mutex_unlock(&v->mutex);
	return row;
}

/* Adds text to a list of texts unless it is there. */
static void add_text(char ***list, size_t *count, const char *text)
{
	for (size_t i = *count; i-- > 0;)
		if (!strcmp((*list)[i], text))
			return;
	char **grown = *count < PATHS_MAX ? realloc(*list, (*count + 1) * sizeof *grown) : NULL;
	if (!grown)
		return;
	*list = grown;
	grown[*count] = strdup(text);
	*count += grown[*count] != NULL;
}

void verify_damage_snapshot(struct verify *v, size_t damage, const char *label)
{
	struct verify_damage *d = &v->result->damaged[damage];
	add_text(&d->snapshots, &d->snapshot_count, label);
}

void verify_damage_store(struct verify *v, size_t damage, const char *node, const char *store)
{
	struct verify_damage *d = &v->result->damaged[damage];
	auto_free char *text = im_format("%s/%s", node, store);
	if (text)
		add_text(&d->stores, &d->store_count, text);
}

void verify_damage_path(struct verify *v, size_t damage, const char *text)
{
	struct verify_damage *d = &v->result->damaged[damage];
	/* each store names its paths once: no search among what may be many */
	char **grown = d->path_count < PATHS_MAX ?
	    realloc(d->paths, (d->path_count + 1) * sizeof *grown) :
	    NULL;
	if (!grown)
		return;
	d->paths = grown;
	grown[d->path_count] = strdup(text);
	d->path_count += grown[d->path_count] != NULL;
}

void verify_warn(struct verify *v, const char *format, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, format);
	int n = vasprintf(&text, format, ap);
	va_end(ap);
	if (n < 0)
		return;
	add_text(&v->result->warnings, &v->result->warning_count, text);
	free(text);
}

void verify_phase(struct verify *v, const char *name)
{
	const struct verify_events *ev = v->request->events;
	if (ev && ev->phase)
		ev->phase(ev->context, name);
}

void verify_progress(struct verify *v, uint64_t bytes)
{
	const struct verify_events *ev = v->request->events;
	pthread_mutex_lock(&v->mutex);
	v->done_bytes += bytes;
	if (ev && ev->progress)
		ev->progress(ev->context, v->done_bytes, v->due_bytes);
	pthread_mutex_unlock(&v->mutex);
}
