/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small things the follower's files share: talking, waking, the text fields of a view.
 */
#include "backup/follow_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void follow_warn(const struct service *s, const char *store, const char *format, ...)
{
	const struct follow_events *events = s->request->events;
	char text[IM_ERROR_TEXT_BYTES];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (events && events->warn)
		events->warn(events->context, store, text);
}

void follow_note(const struct service *s, const char *store, const char *format, ...)
{
	const struct follow_events *events = s->request->events;
	char text[IM_ERROR_TEXT_BYTES];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (events && events->note)
		events->note(events->context, store, text);
}

void follow_wake(int pipe_end)
{
	ssize_t n = write(pipe_end, "", 1);
	(void)n; /* full: it is awake already */
}

void follow_drain(int pipe_end)
{
	char bytes[64];
	while (read(pipe_end, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
		continue;
}

bool follow_view_text(struct followed *f, char *field, size_t size, const char *text)
{
	char cut[400];
	snprintf(cut, sizeof cut < size ? sizeof cut : size, "%s", text ? text : "");
	pthread_mutex_lock(&f->lock);
	bool other = strcmp(field, cut) != 0;
	if (other) {
		strcpy(field, cut);
		f->view.dirty = true;
	}
	pthread_mutex_unlock(&f->lock);
	return other;
}
