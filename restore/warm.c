/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warming. A file that would fill more than half of the memory to be had is left alone: reading
 * it would only push out what was just read.
 */
#include "restore/warm.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { STEP_BYTES = 1 << 20 };

struct warm {
	pthread_t thread;
	int fd;
	uint64_t size_bytes;
	_Atomic bool stop;
};

static uint64_t available_bytes(void)
{
	unsigned long long kilobytes = 0;
	char line[256];
	FILE *f = fopen("/proc/meminfo", "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1)
			break;
	if (f)
		fclose(f);
	return kilobytes * 1024;
}

static void *warm_main(void *context)
{
	struct warm *w = context;
	auto_free char *buffer = malloc(STEP_BYTES);
	for (uint64_t at = 0; buffer && at < w->size_bytes && !w->stop && !im_interrupt_signal();
	     at += STEP_BYTES)
		if (im_pread_full(w->fd, buffer, STEP_BYTES, at, NULL, "") <= 0)
			break;
	return NULL;
}

struct warm *warm_begin(const char *path)
{
	struct stat st;
	auto_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size > available_bytes() / 2)
		return NULL;
	struct warm *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	w->fd = TAKE_FD(fd);
	w->size_bytes = (uint64_t)st.st_size;
	if (pthread_create(&w->thread, NULL, warm_main, w) == 0)
		return w;
	close(w->fd);
	free(w);
	return NULL;
}

void warm_end(struct warm *w)
{
	if (!w)
		return;
	w->stop = true;
	pthread_join(w->thread, NULL);
	close(w->fd);
	free(w);
}
