/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drawing the progress line. The mutex is held only for counting and one short write, and updates
 * between two drawings cost no system call but the clock.
 */
#include "cli/progress.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DRAW_EVERY_US 250000

static struct {
	pthread_mutex_t mutex;
	bool on, shown;
	char label[64], note[64];
	int64_t begun_us, drawn_us, target_us;
} line = { .mutex = PTHREAD_MUTEX_INITIALIZER };

void progress_begin(bool enabled, int64_t target_us)
{
	pthread_mutex_lock(&line.mutex);
	line.on = enabled && isatty(STDERR_FILENO);
	line.target_us = target_us;
	line.begun_us = im_monotonic_us();
	line.drawn_us = line.begun_us;
	pthread_mutex_unlock(&line.mutex);
}

void progress_label(const char *label)
{
	pthread_mutex_lock(&line.mutex);
	if (strcmp(line.label, label) != 0) {
		snprintf(line.label, sizeof line.label, "%s", label);
		line.begun_us = im_monotonic_us();
	}
	pthread_mutex_unlock(&line.mutex);
}

static size_t add_times(char *text, size_t n, size_t size, uint64_t done, uint64_t total, int64_t now_us)
{
	char left[40];
	double seconds = (double)(now_us - line.begun_us) / 1e6;
	if (done && total > done && seconds > 0.5)
		n += (size_t)snprintf(text + n, size - n, ", %s left",
		    im_duration_format(left, sizeof left, (int64_t)(seconds * 1000 / (double)done * (double)(total - done))));
	if (line.target_us && n < size) {
		int64_t ms = (line.target_us - now_us) / 1000;
		n += (size_t)snprintf(text + n, size - n, ms >= 0 ? ", %s to the target" : ", %s over the target",
		    im_duration_format(left, sizeof left, ms >= 0 ? ms : -ms));
	}
	return n < size ? n : size - 1;
}

static void draw(uint64_t done, uint64_t total, int64_t now_us)
{
	char text[200], a[24], b[24], rate[24];
	double seconds = (double)(now_us - line.begun_us) / 1e6;
	size_t n = (size_t)snprintf(text, sizeof text, "%s%s%s ", line.label, *line.note ? ": " : "", line.note);
	if (total)
		n += (size_t)snprintf(text + n, sizeof text - n, "%3u %%  %s of %s", (unsigned)(100.0 * (double)done / (double)total),
		    im_bytes_format(a, sizeof a, done), im_bytes_format(b, sizeof b, total));
	else
		n += (size_t)snprintf(text + n, sizeof text - n, "%s", im_bytes_format(a, sizeof a, done));
	if (seconds > 0.1)
		n += (size_t)snprintf(text + n, sizeof text - n, "  %s/s",
		    im_bytes_format(rate, sizeof rate, (uint64_t)((double)done / seconds)));
	add_times(text, n, sizeof text, done, total, now_us);
	fprintf(stderr, "\r\033[K%.119s", text);
	line.shown = true;
}

void progress_update(uint64_t done_bytes, uint64_t total_bytes)
{
	if (!line.on)
		return;
	int64_t now_us = im_monotonic_us();
	pthread_mutex_lock(&line.mutex);
	if (now_us - line.drawn_us >= DRAW_EVERY_US) {
		line.drawn_us = now_us;
		draw(done_bytes > total_bytes && total_bytes ? total_bytes : done_bytes, total_bytes, now_us);
	}
	pthread_mutex_unlock(&line.mutex);
}

void progress_on_phase(void *context, const char *name)
{
	(void)context;
	progress_label(name);
}

void progress_on_bytes(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	(void)context;
	progress_update(done_bytes, total_bytes);
}

void progress_on_note(void *context, const char *text)
{
	(void)context;
	pthread_mutex_lock(&line.mutex);
	snprintf(line.note, sizeof line.note, "%s", text);
	pthread_mutex_unlock(&line.mutex);
}

void progress_hide(void)
{
	pthread_mutex_lock(&line.mutex);
	if (line.shown) {
		fputs("\r\033[K", stderr);
		line.shown = false;
	}
	pthread_mutex_unlock(&line.mutex);
}
