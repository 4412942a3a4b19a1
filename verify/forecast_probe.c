/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A short look at this machine: how fast its processors open entries, how fast packs come, how fast the
 * target's disk takes blocks. Each of the three has its own budget and uses what a restore uses. Nothing
 * is left behind: the file that is written never has a name. A figure that cannot be had is 0.
 */
#include "verify/forecast.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/workers.h"
#include "vault/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { DECODE_US = 60000, READ_US = 70000, WRITE_US = 70000 };
enum { ENTRY_BYTES = 256 << 10, DECODE_PIECE = 16, RANGE_BYTES = 1 << 20, RANGE_MIN_BYTES = 64 << 10, READ_RANGES = 8, READ_TRIES = 64, PACKS_SEEN = 16,
	WRITE_BYTES = 4 << 20, WRITE_STEP = 1 << 20 };
#define MEMORY_RATE 4e9 /* of packs that lie in memory: they are copied once */

/* --- processors --- */

/* "max 100000" or "150000 100000". */
static double read_quota(const char *path)
{
	FILE *f = fopen(path, "re");
	double quota = 0, period = 0;
	int n = f ? fscanf(f, "%lf %lf", &quota, &period) : 0;
	if (f)
		fclose(f);
	return n == 2 && quota > 0 && period > 0 ? quota / period : INFINITY;
}

static double read_number(const char *path)
{
	FILE *f = fopen(path, "re");
	double n = 0;
	bool ok = f && fscanf(f, "%lf", &n) == 1;
	if (f)
		fclose(f);
	return ok ? n : 0;
}

/* The smallest quota of the group and those above it. */
static double quota_of(const char *root, char *group, bool unified)
{
	double least = INFINITY;
	for (;;) {
		char path[PATH_MAX], period[PATH_MAX];
		snprintf(path, sizeof path, "%s%s/%s", root, group, unified ? "cpu.max" : "cpu.cfs_quota_us");
		snprintf(period, sizeof period, "%s%s/cpu.cfs_period_us", root, group);
		double quota = unified ? read_quota(path) : read_number(path) / fmax(read_number(period), 1);
		if (quota > 0 && quota < least)
			least = quota;
		char *slash = strrchr(group, '/');
		if (!slash || !*group)
			return least;
		*slash = 0;
	}
}

/* Processors' worth of time that the control group allows; infinite: any. */
static double group_quota(void)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX];
	double least = INFINITY;
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
		if (!group)
			continue;
		*group++ = 0;
		bool unified = names[1] == 0, cpu = strcmp(names + 1, "cpu") == 0 || strstr(names + 1, "cpu,") || strstr(names + 1, ",cpu");
		if (!unified && !cpu)
			continue;
		double quota = quota_of(unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu", group, unified);
		least = quota < least ? quota : least;
	}
	if (f)
		fclose(f);
	return least;
}

static unsigned count_cpus(void)
{
	unsigned n = im_cpu_count();
	double quota = group_quota();
	return quota >= n ? n : quota < 1.5 ? 1 : (unsigned)(quota + 0.5);
}

/* --- decoding --- */

/* Text as chats have it, which compresses about as well. */
static void fill_sample(uint8_t *ret, size_t len)
{
	static const char *const words[] = { "<message type='chat' to='", "' from='", "@im.example.org' id='", "'><body>", "</body></message>", "ok ", "see you ",
		"tomorrow ", "the meeting ", "is at ", "did you ", "read ", "my last ", "mail? ", "thanks, ", "I will ", "send it ", "again ", "\xe4\xbd\xa0\xe5\xa5\xbd ",
		"\xe6\x94\xb6\xe5\x88\xb0\xe4\xba\x86 " };
	uint32_t x = 12345;
	for (size_t at = 0; at < len;) {
		char text[64];
		x = x * 1664525 + 1013904223;
		uint32_t pick = (x >> 16) % (sizeof words / sizeof *words + 6);
		int n = pick < sizeof words / sizeof *words ? snprintf(text, sizeof text, "%s", words[pick]) : snprintf(text, sizeof text, "%08x", x);
		n = (size_t)n < len - at ? n : (int)(len - at);
		memcpy(ret + at, text, (size_t)n);
		at += (size_t)n;
	}
}

struct decoding { /* one thread's */
	const struct vault *vault;
	pthread_t thread;
	const int64_t *until_us;
	double rate;
	bool ok;
};

/* Of this thread's own time, in pieces, of which the quickest counts: what else runs now slows some of them down, but what it
 * takes in a moment says nothing of what it will take from a restore. */
static int64_t thread_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static bool decode_again(struct decoding *d, struct codec *codec, const struct pack_key *key, const uint8_t *sealed, size_t stored, uint8_t *copy, uint8_t *plain)
{
	do {
		int64_t begin = thread_us();
		for (int i = 0; i < DECODE_PIECE; i++) {
			memcpy(copy, sealed, stored); /* it is decrypted in place */
			if (entry_decode(codec, key, NULL, ENTRY_EXTENT, 0, copy, stored, plain, ENTRY_BYTES, NULL))
				return false;
		}
		double us = (double)(thread_us() - begin + 1);
		d->rate = fmax(d->rate, (double)DECODE_PIECE * ENTRY_BYTES * 1e6 / us);
	} while (im_monotonic_us() < *d->until_us);
	return true;
}

static void *decode_main(void *context)
{
	struct decoding *d = context;
	struct pack_key key;
	struct codec *codec = NULL;
	size_t stored = 0, bound = codec_bound(ENTRY_BYTES);
	auto_free uint8_t *plain = malloc(ENTRY_BYTES), *sealed = malloc(bound), *copy = malloc(bound);
	if (!plain || !sealed || !copy || codec_new(1, &codec, NULL))
		return NULL;
	fill_sample(plain, ENTRY_BYTES);
	pack_key_new(d->vault->id, &key);
	d->ok = entry_encode(codec, &key, NULL, ENTRY_EXTENT, 0, plain, ENTRY_BYTES, sealed, &stored, NULL) == 0 &&
	    decode_again(d, codec, &key, sealed, stored, copy, plain);
	codec_free(codec);
	crypto_wipe(&key, sizeof key);
	return NULL;
}

/* All processors at once: what they share, a restore will not have twice either. */
static double probe_decode(const struct vault *v, unsigned cpus)
{
	struct decoding threads[8];
	unsigned count = 0, good = 0;
	double sum = 0;
	const int64_t until_us = im_monotonic_us() + DECODE_US;
	for (; count < cpus && count < sizeof threads / sizeof *threads; count++) {
		threads[count] = (struct decoding){ .vault = v, .until_us = &until_us };
		if (pthread_create(&threads[count].thread, NULL, decode_main, &threads[count]))
			break;
	}
	for (unsigned i = 0; i < count; i++) {
		const struct decoding *d = &threads[i];
		pthread_join(d->thread, NULL);
		sum += d->ok ? d->rate : 0;
		good += d->ok;
	}
	return good ? sum / good : 0;
}

/* --- reading --- */

struct reading {
	struct storage *storage;
	const struct pack_info *packs[PACKS_SEEN]; /* a sample, evenly taken */
	size_t count;
	uint64_t bytes, resident;
	bool known; /* what lies in memory */
	size_t range;
};

static uint64_t random_below(uint64_t n)
{
	uint64_t x;
	crypto_random(&x, sizeof x);
	return n ? x % n : 0;
}

static void take_packs(struct reading *r, const struct snapshot *s)
{
	size_t count = s->pack_count < PACKS_SEEN ? s->pack_count : PACKS_SEEN;
	r->known = true;
	for (size_t i = 0; i < count; i++) {
		const struct pack_info *p = &s->packs[i * s->pack_count / count];
		char object[80];
		uint64_t resident = 0;
		if (p->size_bytes < RANGE_MIN_BYTES || p->size_bytes > PACK_MAX_BYTES)
			continue;
		r->known &= storage_resident(r->storage, fetch_pack_object(object, p->name), 0, p->size_bytes, &resident, NULL) == 0;
		r->packs[r->count++] = p;
		r->bytes += p->size_bytes;
		r->resident += resident;
	}
	r->range = r->bytes / 32 > RANGE_BYTES ? RANGE_BYTES : RANGE_MIN_BYTES;
}

/* One range that lies on the disk only, as far as that can be known; 0: this one does not. Returns its bytes. */
static size_t read_range(struct reading *r, uint8_t *buffer, int64_t *us)
{
	const struct pack_info *p = r->packs[random_below(r->count)];
	size_t n = p->size_bytes < r->range ? (size_t)p->size_bytes : r->range;
	uint64_t resident = 0, at = random_below((p->size_bytes - n) / 4096 + 1) * 4096;
	char object[80];
	fetch_pack_object(object, p->name);
	if (r->known && (storage_resident(r->storage, object, at, n, &resident, NULL) || resident))
		return 0;
	int64_t begin = im_monotonic_us();
	if (storage_read(r->storage, object, at, buffer, n, NULL))
		return 0;
	*us += im_monotonic_us() - begin;
	return n;
}

/* The packs as they lie now: a part in memory, the rest as fast as the disk gave a few ranges. Reading those
 * brings them into memory, so a small vault is not read at all but through a few small ranges. */
static double probe_read(const struct vault *v, const struct snapshot *s)
{
	struct reading r = { .storage = v->storage };
	auto_free uint8_t *buffer = malloc(RANGE_BYTES);
	uint64_t read = 0;
	int64_t us = 0, until = im_monotonic_us() + READ_US;
	int done = 0;
	take_packs(&r, s);
	if (!r.count || !buffer)
		return 0;
	double share = r.known ? (double)r.resident / (double)r.bytes : 0;
	for (int i = 0; i < READ_TRIES && done < READ_RANGES && share < 1 && im_monotonic_us() < until; i++) {
		size_t n = read_range(&r, buffer, &us);
		read += n;
		done += n > 0;
	}
	if (!read || us <= 0)
		return share > 0.9 ? MEMORY_RATE : 0;
	double cold = (double)read * 1e6 / (double)us;
	return 1 / (share / MEMORY_RATE + (1 - share) / cold);
}

/* --- writing --- */

/* An unnamed file in the folder, or in the nearest one above it that exists. */
static int open_unnamed(const char *target)
{
	char path[PATH_MAX];
	if (*target != '/' || snprintf(path, sizeof path, "%s", target) >= (int)sizeof path)
		return -1;
	for (;;) {
		int fd = open(*path ? path : "/", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		char *slash = strrchr(path, '/');
		if (fd >= 0 || !slash || (errno != ENOENT && errno != ENOTDIR))
			return fd;
		*slash = 0;
	}
}

/* Past the cache, as a restore writes large files; where that cannot be, through it and on to the disk. */
static bool write_step(int fd, const uint8_t *data, off_t at, bool *direct)
{
	if (*direct && pwrite(fd, data, WRITE_STEP, at) == WRITE_STEP)
		return true;
	*direct = false;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT);
	return pwrite(fd, data, WRITE_STEP, at) == WRITE_STEP &&
	    sync_file_range(fd, at, WRITE_STEP, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) == 0;
}

static double probe_write(const char *target)
{
	auto_close int fd = open_unnamed(target);
	void *data = mmap(NULL, WRITE_STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* aligned */
	off_t written = 0;
	if (fd < 0 || data == MAP_FAILED) {
		if (data != MAP_FAILED)
			munmap(data, WRITE_STEP);
		return 0;
	}
	crypto_random(data, WRITE_STEP); /* some disks are quicker with zeros */
	bool direct = fcntl(fd, F_SETFL, O_DIRECT) == 0, ok = fallocate(fd, 0, 0, WRITE_BYTES) == 0 || errno == EOPNOTSUPP;
	int64_t begin = im_monotonic_us(), us = 0;
	while (ok && written < WRITE_BYTES && us < WRITE_US) {
		ok = write_step(fd, data, written, &direct);
		written += ok ? WRITE_STEP : 0;
		us = im_monotonic_us() - begin;
	}
	munmap(data, WRITE_STEP);
	return written && us > 0 ? (double)written * 1e6 / (double)us : 0;
}

void forecast_probe(const struct vault *v, const struct snapshot *s, const char *target, struct forecast_machine *ret)
{
	*ret = (struct forecast_machine){ .cpus = count_cpus() };
	ret->decode_rate = probe_decode(v, ret->cpus);
	if (s)
		ret->read_rate = probe_read(v, s);
	if (target)
		ret->write_rate = probe_write(target);
}
