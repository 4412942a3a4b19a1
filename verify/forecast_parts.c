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
#define DECODE_RATE 1200e6  /* and of the machine that the constants are from */
#define WRITE_RATE 300e6
#define READ_GAIN 1.6      /* two threads read */
#define RAW_GAIN 3.0       /* what did not compress is only decrypted */
#define CHECK_RATE 720e6
#define LOG_RATE 130e6
/* Milliseconds for each file. */
#define FILE_PLAN 0.002
#define FILE_MAKE 0.020
#define FILE_END 0.008
#define FILE_CHECK 0.004
#define FILE_LAST_PAGE 1.2 /* instant: of a large file, the page that is not full comes at once */
#define HYDRATE_SHARE 1.65 /* of a full restore's fetch: blocks come in the order of demand */
#define EAGER_FILE_BYTES 131072.0 /* smaller files are there before an instant restore shows anything */

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

/* Machines differ by two; what seems slower yet is mostly a neighbour, who may be gone before a restore is over. */
static double decode_rate(const struct forecast_machine *m)
{
	double rate = or_default(m->decode_rate, DECODE_RATE), half = DECODE_RATE / 2;
	return rate < half ? sqrt(rate * half) : rate;
}

/* What only processors do takes so many times as long here. */
static double slowness(const struct forecast_machine *m)
{
	return DECODE_RATE / decode_rate(m);
}

/* read, write: bytes. */
static double fetch_ms(double read, double write, double files, const struct forecast_machine *m)
{
	unsigned cpus = m->cpus ? m->cpus : 1;
	double squeezed = write > 0 ? fmin(fmax((1 - read / write) * 2, 0), 1) : 1; /* 1: as the probe's sample */
	double rate = decode_rate(m) * (RAW_GAIN + (1 - RAW_GAIN) * squeezed);
	double reading = ms_of(read, or_default(m->read_rate, READ_RATE) * READ_GAIN);
	double decoding = ms_of(write, rate) / cpus;
	double writing = ms_of(write, or_default(m->write_rate, WRITE_RATE));
	return overlap(reading, decoding, writing, cpus) + slowness(m) * files * FILE_MAKE;
}

static double begin_ms(const struct forecast_sizes *z, const struct forecast_machine *m)
{
	return 12 + slowness(m) * ((double)z->packs * 0.05 + (double)z->write_bytes / 96e6 + (double)z->files * FILE_PLAN +
	    (double)z->log_segments * 0.4 + ms_of((double)z->log_bytes, LOG_RATE));
}

static void full_parts(const struct forecast_sizes *z, const struct forecast_machine *m, struct forecast_parts *ret)
{
	ret->ms[PART_BEGIN] = begin_ms(z, m);
	ret->ms[PART_FETCH] = fetch_ms((double)z->read_bytes, (double)z->write_bytes, (double)z->files, m);
	ret->ms[PART_END] = 5 + slowness(m) * (double)z->files * FILE_END + ms_of((double)z->write_bytes, 40 * or_default(m->write_rate, WRITE_RATE));
	ret->ms[PART_OTHER] = 5;
	ret->ms[PART_CHECK] = slowness(m) * (ms_of((double)z->database_bytes, CHECK_RATE) + (double)z->files * FILE_CHECK);
}

/* Small files at once, the rest while the service runs. */
static void instant_parts(const struct forecast_sizes *z, const struct forecast_machine *m, struct forecast_parts *ret)
{
	double tree = (double)(z->write_bytes > z->database_bytes ? z->write_bytes - z->database_bytes : 0), write = (double)z->write_bytes;
	bool small = z->files > z->stores && tree / (double)z->files < EAGER_FILE_BYTES;
	double eager = small ? tree : tree / 20, late = small || tree <= 0 ? 0 : (double)z->files;
	double share = write > 0 ? eager / write : 0, read = (double)z->read_bytes;
	ret->ms[PART_BEGIN] = begin_ms(z, m);
	ret->ms[PART_FETCH] = 5 + fetch_ms(read * share, eager, (double)z->files, m);
	ret->ms[PART_END] = slowness(m) * (8 + (double)z->files * FILE_END + late * FILE_LAST_PAGE);
	ret->ms[PART_OTHER] = slowness(m) * 5;
	ret->ms[PART_HYDRATE] = 100 + HYDRATE_SHARE * fetch_ms(read * (1 - share), write - eager, 0, m);
}

void forecast_parts_of(enum forecast_scenario scenario, const struct forecast_sizes *sizes, const struct forecast_machine *machine,
    struct forecast_parts *ret)
{
	*ret = (struct forecast_parts){ 0 };
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
