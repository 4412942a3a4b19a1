/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a recovery from sizes and rates alone: the forecast of a node that never recovered. The
 * constants are of the machines imvault was measured on (docs/FORECAST.md); what a node's own
 * records say replaces them part by part.
 */
#include "verify/forecast_internal.h"

#include <math.h>

/* For a probe that could not measure. */
#define READ_RATE 300e6
#define DECODE_RATE 1250e6  /* and of the machine that the constants are from */
#define WRITE_RATE 300e6
#define READ_GAIN 1.6      /* two threads read */
#define TREE_DECODE 0.55   /* chunks of files are hashed as well */
#define CHECK_RATE 660e6
#define CHECK_BEGIN 25.0   /* ms */
#define LOG_RATE 130e6
#define FROM_MEMORY 2e9     /* packs that come faster do not come from a disk, and so do keys and names */
#define OPEN_FROM_DISK 12.0 /* ms */
#define SERVICE_GUESS 320.0 /* ms, as long as none was started: a small server, and a login */
#define SERVICE_FROM_DISK 70.0
/* Milliseconds for each file. */
#define FILE_PLAN 0.002
#define FILE_MAKE 0.042
#define FILE_END 0.008
#define FILE_CHECK 0.002
#define FILE_LAST_PAGE 1.2 /* instant: of a large file, the page that is not full comes at once */
#define HYDRATE_SHARE 1.65 /* of a full restore's fetch: blocks come in the order of demand */

static double or_default(double rate, double fallback)
{
	return rate > 0 ? rate : fallback;
}

static double ms_of(double bytes, double rate)
{
	return bytes * 1000 / rate;
}

/* Stages that run beside each other take as long as the slowest, and somewhat longer where they share processors. */
static double overlap(double a, double b, double c, unsigned cpus)
{
	double p = cpus > 1 ? 3 : 1.5;
	return pow(pow(a, p) + pow(b, p) + pow(c, p), 1 / p);
}

/* What only processors do takes so many times as long here. */
static double slowness(const struct forecast_machine *m)
{
	return sqrt(DECODE_RATE / or_default(m->decode_rate, DECODE_RATE));
}

/* Then nothing else is in this machine's memory either. */
static bool is_from_disk(const struct forecast_machine *m)
{
	return m->read_rate > 0 && m->read_rate < FROM_MEMORY;
}

static double make_ms(double files, const struct forecast_machine *m)
{
	return files * slowness(m) * FILE_MAKE / (m->cpus ? m->cpus : 1);
}

/* Bytes that are read, of databases, of trees. */
static double fetch_ms(double read, double database, double tree, const struct forecast_machine *m)
{
	unsigned cpus = m->cpus ? m->cpus : 1;
	double reading = ms_of(read, or_default(m->read_rate, READ_RATE) * READ_GAIN);
	double decoding = ms_of(database + tree / TREE_DECODE, or_default(m->decode_rate, DECODE_RATE)) / cpus;
	double writing = ms_of(database + tree, or_default(m->write_rate, WRITE_RATE));
	return overlap(reading, decoding, writing, cpus);
}

static double tree_bytes(const struct forecast_sizes *z)
{
	return z->write_bytes > z->database_bytes ? (double)(z->write_bytes - z->database_bytes) : 0;
}

static double begin_ms(const struct forecast_sizes *z, const struct forecast_machine *m)
{
	return 4 + (is_from_disk(m) ? OPEN_FROM_DISK : 0) + slowness(m) * ((double)z->packs * 0.05 + (double)z->write_bytes / 96e6 + (double)z->files * FILE_PLAN +
	    (double)z->log_segments * 0.4 + ms_of((double)z->log_bytes, LOG_RATE));
}

static void full_parts(const struct forecast_sizes *z, const struct forecast_machine *m, struct forecast_parts *ret)
{
	ret->ms[PART_BEGIN] = begin_ms(z, m);
	ret->ms[PART_FETCH] = fetch_ms((double)z->read_bytes, (double)z->database_bytes, tree_bytes(z), m) +
	    make_ms((double)z->files, m);
	ret->ms[PART_END] = 5 + slowness(m) * (double)z->files * FILE_END + ms_of(tree_bytes(z), 8 * or_default(m->write_rate, WRITE_RATE)); /* some waits in the page cache */
	ret->ms[PART_OTHER] = 5;
	ret->ms[PART_CHECK] = slowness(m) * ((z->database_bytes ? CHECK_BEGIN : 0) + ms_of((double)z->database_bytes, CHECK_RATE) + (double)z->files * FILE_CHECK);
}

/* Small files at once, the rest while the service runs. */
static void instant_parts(const struct forecast_sizes *z, const struct forecast_machine *m, struct forecast_parts *ret)
{
	double tree = tree_bytes(z), write = (double)z->write_bytes, small = fmin((double)z->small_bytes, tree);
	double eager = small + (tree - small) / 20, late = tree > small && z->files > z->small_files ? (double)(z->files - z->small_files) : 0;
	double share = write > 0 ? eager / write : 0, read = (double)z->read_bytes;
	ret->ms[PART_BEGIN] = begin_ms(z, m);
	ret->ms[PART_FETCH] = 5 + fetch_ms(read * share, 0, eager, m) + make_ms((double)z->files, m);
	ret->ms[PART_END] = slowness(m) * (8 + (double)z->files * FILE_END + late * FILE_LAST_PAGE);
	ret->ms[PART_OTHER] = slowness(m) * 5;
	ret->ms[PART_HYDRATE] = 100 + HYDRATE_SHARE * fetch_ms(read * (1 - share), (double)z->database_bytes, tree - eager, m);
}

void forecast_parts_of(enum forecast_scenario scenario, const struct forecast_sizes *sizes, const struct forecast_machine *machine,
    struct forecast_parts *ret)
{
	*ret = (struct forecast_parts){ .ms = { [PART_START] = sizes->service ? SERVICE_GUESS + (is_from_disk(machine) ? SERVICE_FROM_DISK : 0) : 0 } };
	if (scenario == FORECAST_FULL)
		full_parts(sizes, machine, ret);
	else
		instant_parts(sizes, machine, ret);
}

double forecast_ready_ms(const struct forecast_parts *p)
{
	double sum = 0;
	for (int i = 0; i < PART_HYDRATE; i++)
		sum += p->ms[i];
	return sum;
}

double forecast_complete_ms(enum forecast_scenario scenario, const struct forecast_parts *p)
{
	double without_start = forecast_ready_ms(p) - p->ms[PART_START];
	return scenario == FORECAST_INSTANT ? without_start + p->ms[PART_HYDRATE] : without_start;
}
