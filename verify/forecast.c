/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forecast. forecast_parts.c says what each part of a recovery takes by sizes and probe alone; for
 * each part, past recoveries say by what factor that was wrong here, and the median of those factors
 * (the more alike and the newer, the more weight) corrects it. How wrong the forecasts made in this way
 * would have been for the past recoveries, each from those before it only, gives the worse case.
 */
#include "verify/forecast_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Weights of a lesson. */
#define HALF_LIFE 6.0        /* recoveries after which it counts half */
#define OTHER_HOST 0.25
#define OTHER_SCENARIO 0.2   /* parts that both have */
#define OTHER_CPUS 0.4
#define SIZE_REACH 1.5       /* log of sizes apart by which it counts 1/e */
#define READ_REACH 1.6       /* log of read rates, so that what was read from memory says little of a disk */

#define PRIOR_WEIGHT 0.4     /* of the uncorrected model among the lessons */
#define GRAIN_MS 10.0        /* differences of less are no differences */
/* Before anything is known, half or double is usual; that much belief stays. */
#define SPREAD_PRIOR 0.50
#define SPREAD_WEIGHT 0.4
#define SPREAD_MIN 0.08
#define SPREAD_MAX 2.0
#define WORSE_MS 50.0        /* nor is any p95 nearer than that */
#define SERVICE_MS 1000.0    /* what a service may take to start, as long as none did in this scenario */

enum { ERRORS_SHOWN = 20 };

struct point {
	double value, weight;
};

static int by_value(const void *a, const void *b)
{
	const struct point *x = a, *y = b;
	return (x->value > y->value) - (x->value < y->value);
}

/* The value at this share of the whole weight, between its neighbours' middles; of at least one point. */
static double quantile(struct point *points, size_t count, double share)
{
	double whole = 0, sum = 0, last_at = 0;
	qsort(points, count, sizeof *points, by_value);
	for (size_t i = 0; i < count; i++)
		whole += points[i].weight;
	for (size_t i = 0; i < count; i++) {
		double at = (sum + points[i].weight / 2) / whole;
		sum += points[i].weight;
		if (at < share) {
			last_at = at;
			continue;
		}
		if (i == 0)
			return points[0].value;
		double way = at > last_at ? (share - last_at) / (at - last_at) : 1;
		return points[i - 1].value + way * (points[i].value - points[i - 1].value);
	}
	return points[count - 1].value;
}

/* As little moved by single bad days as the median, and less by all the others' scatter. */
static double middle(struct point *points, size_t count)
{
	return (quantile(points, count, 0.3) + quantile(points, count, 0.5) + quantile(points, count, 0.7)) / 3;
}

static double nearness(double a, double b, double reach)
{
	return a > 0 && b > 0 ? exp(-fabs(log(a / b)) / reach) : 1;
}

/* age: how many lessons are newer. */
static double worth_of(const struct forecast_lesson *l, size_t age)
{
	return exp2(-(double)age / HALF_LIFE) * (l->same_host ? 1 : OTHER_HOST);
}

static double weight_of(const struct forecast_lesson *l, size_t age, enum forecast_scenario scenario, const struct forecast_sizes *sizes,
    const struct forecast_machine *machine)
{
	double w = worth_of(l, age);
	w *= l->scenario == scenario ? 1 : OTHER_SCENARIO;
	w *= l->machine.cpus == machine->cpus ? 1 : OTHER_CPUS;
	w *= nearness((double)l->sizes.write_bytes, (double)sizes->write_bytes, SIZE_REACH);
	w *= nearness(l->machine.read_rate, machine->read_rate, READ_REACH);
	return fmax(w, 1e-9);
}

/* Does the part mean the same in both scenarios? */
static bool is_shared(enum forecast_part part)
{
	return part == PART_BEGIN || part == PART_START;
}

struct question {
	enum forecast_scenario scenario;
	const struct forecast_sizes *sizes;
	const struct forecast_machine *machine; /* of this host, or of the lesson that is foretold */
	bool here;
	const struct forecast_lesson *lessons;
	size_t count;
	struct forecast_machine usual; /* what probes of this host found in the median; 0: none yet */
};

/* A probe is short, and what it sees may be over soon: on a host that was probed before, half of what it says is what they said,
 * and all of it where this one could not measure. Of reading only that: whether packs lie in memory changes from time to time. */
static struct forecast_machine steady(const struct question *q, const struct forecast_machine *m, bool here)
{
	const struct forecast_machine *usual = &q->usual;
	struct forecast_machine ret = *m;
	if (!here)
		return ret;
	ret.read_rate = m->read_rate > 0 ? m->read_rate : usual->read_rate;
	ret.decode_rate = m->decode_rate > 0 && usual->decode_rate > 0 ? sqrt(m->decode_rate * usual->decode_rate) : m->decode_rate + usual->decode_rate;
	ret.write_rate = m->write_rate > 0 && usual->write_rate > 0 ? sqrt(m->write_rate * usual->write_rate) : m->write_rate + usual->write_rate;
	return ret;
}

struct rates {
	struct point points[FORECAST_LESSONS_MAX];
	size_t count;
};

static void add_rate(struct rates *r, double rate)
{
	if (rate > 0)
		r->points[r->count++] = (struct point){ rate, 1 };
}

static double usual_rate(struct rates *r)
{
	return r->count ? quantile(r->points, r->count, 0.5) : 0;
}

static void take_usual(struct question *q)
{
	struct rates read = { .count = 0 }, decode = { .count = 0 }, write = { .count = 0 };
	for (size_t i = 0; i < q->count; i++) {
		const struct forecast_machine *m = &q->lessons[i].machine;
		if (!q->lessons[i].same_host)
			continue;
		add_rate(&read, m->read_rate);
		add_rate(&decode, m->decode_rate);
		add_rate(&write, m->write_rate);
	}
	q->usual = (struct forecast_machine){ .read_rate = usual_rate(&read), .decode_rate = usual_rate(&decode), .write_rate = usual_rate(&write) };
}

/* By how much the model was wrong for this part, as a logarithm; false: this lesson says nothing about it. */
static bool factor_of(const struct question *q, const struct forecast_lesson *l, enum forecast_part part, double *ret)
{
	const struct forecast_machine then = steady(q, &l->machine, l->same_host);
	struct forecast_parts model;
	forecast_parts_of(l->scenario, &l->sizes, &then, &model);
	if (l->took.ms[part] >= 0)
		*ret = log((l->took.ms[part] + GRAIN_MS) / (model.ms[part] + GRAIN_MS));
	else if (part == PART_HYDRATE)
		return false;
	else /* no phases: it was wrong evenly */
		*ret = log((l->ready_ms + GRAIN_MS) / (forecast_ready_ms(&model) + GRAIN_MS));
	return true;
}


static double correct(const struct question *q, enum forecast_part part, double model_ms)
{
	struct point points[FORECAST_LESSONS_MAX + 1];
	size_t n = 0;
	for (size_t i = 0; i < q->count; i++) {
		const struct forecast_lesson *l = &q->lessons[i];
		bool silent = part == PART_START && l->took.ms[part] <= 0;
		if (silent || (l->scenario != q->scenario && !is_shared(part)) || !factor_of(q, l, part, &points[n].value))
			continue;
		points[n++].weight = weight_of(l, q->count - 1 - i, q->scenario, q->sizes, q->machine);
	}
	if (!n)
		return model_ms;
	if (part != PART_START && part != PART_OTHER) /* of these the model knows nothing */
		points[n++] = (struct point){ 0, PRIOR_WEIGHT };
	return fmax((model_ms + GRAIN_MS) * exp(middle(points, n)) - GRAIN_MS, 0);
}

static void predict(struct question *q, struct forecast_parts *ret)
{
	struct forecast_parts model;
	take_usual(q);
	const struct forecast_machine now = steady(q, q->machine, q->here);
	forecast_parts_of(q->scenario, q->sizes, &now, &model);
	for (int i = 0; i < PART_COUNT; i++)
		ret->ms[i] = correct(q, (enum forecast_part)i, model.ms[i]);
}

/* --- the past, foretold --- */

struct past {
	struct point ready[FORECAST_LESSONS_MAX], complete[FORECAST_LESSONS_MAX]; /* log(truth / forecast) */
	size_t count;
};

static double log_ratio(double truth_ms, double forecast_ms)
{
	double x = log((truth_ms + GRAIN_MS) / (forecast_ms + GRAIN_MS));
	return fmin(fmax(x, -SPREAD_MAX), SPREAD_MAX);
}

/* Each lesson of the scenario as it would have been foretold from those before it. */
static void replay(const struct question *q, struct past *ret)
{
	ret->count = 0;
	for (size_t i = 0; i < q->count; i++) {
		const struct forecast_lesson *l = &q->lessons[i];
		struct question then = { .scenario = l->scenario, .sizes = &l->sizes, .machine = &l->machine, .here = l->same_host, .lessons = q->lessons, .count = i };
		struct forecast_parts p;
		if (l->scenario != q->scenario)
			continue;
		predict(&then, &p);
		double w = worth_of(l, q->count - 1 - i) * ((double)i + 0.5) / ((double)i + 1.5); /* the first knew little */
		ret->ready[ret->count] = (struct point){ log_ratio(l->ready_ms, forecast_ready_ms(&p)), w };
		ret->complete[ret->count++] = (struct point){ log_ratio(l->complete_ms, forecast_complete_ms(l->scenario, &p)), w };
	}
}

/* How far above the forecast the truth may lie, as a logarithm. By the spread of the errors, of which four fifths count, so that the
 * first, made when little was known, do not count for ever; it begins wide. And no less than what a 20th of their weight exceeds. */
static double reach_of(struct point *errors, size_t count)
{
	struct point sizes[FORECAST_LESSONS_MAX];
	double weight = 0;
	for (size_t i = 0; i < count; i++) {
		sizes[i] = (struct point){ fabs(errors[i].value), errors[i].weight };
		weight += errors[i].weight;
	}
	double spread = count ? quantile(sizes, count, 0.8) / 1.28 : 0;
	spread = sqrt((SPREAD_WEIGHT * SPREAD_PRIOR * SPREAD_PRIOR + weight * spread * spread) / (SPREAD_WEIGHT + weight));
	double by_worst = count >= 5 ? quantile(errors, count, 0.95) : 0;
	return fmax(1.645 * fmax(spread, SPREAD_MIN), by_worst);
}

static double by_size(const struct forecast_lesson *l)
{
	return l->foretold_ms >= 0 ? fabs(l->foretold_ms - l->ready_ms) / l->ready_ms : -1;
}

/* Of the newest forecasts that were recorded, not of those one could have made. */
static double error_percent(const struct question *q)
{
	struct point errors[FORECAST_LESSONS_MAX];
	size_t n = 0;
	for (size_t i = q->count; i-- > 0 && n < ERRORS_SHOWN;)
		if (q->lessons[i].scenario == q->scenario && by_size(&q->lessons[i]) >= 0)
			errors[n++] = (struct point){ by_size(&q->lessons[i]), 1 };
	return n ? 100 * quantile(errors, n, 0.5) : -1;
}

/* --- the answer --- */

static int64_t whole_ms(double ms)
{
	return ms < 1 ? 1 : ms < 1e15 ? (int64_t)(ms + 0.5) : (int64_t)1e15;
}

/* A node key does not always know how many files there are; the last recovery counted them. */
static void guess_files(const struct forecast_lesson *lessons, size_t count, struct forecast_sizes *sizes)
{
	for (size_t i = count; i-- > 0 && !sizes->files;)
		if (lessons[i].sizes.files && lessons[i].sizes.write_bytes)
			sizes->files = (uint64_t)((double)lessons[i].sizes.files * (double)sizes->write_bytes / (double)lessons[i].sizes.write_bytes);
}

void forecast_make(enum forecast_scenario scenario, const struct forecast_sizes *sizes, const struct forecast_machine *machine,
    const struct drill_list *history, struct forecast *ret)
{
	struct forecast_lesson lessons[FORECAST_LESSONS_MAX];
	struct forecast_sizes known = *sizes;
	size_t count = forecast_lessons_take(history, machine, lessons);
	known.service |= count && lessons[count - 1].sizes.service;
	guess_files(lessons, count, &known);
	struct question q = { .scenario = scenario, .sizes = &known, .machine = machine, .here = true, .lessons = lessons, .count = count };
	struct forecast_parts p;
	struct past past;
	predict(&q, &p);
	replay(&q, &past);
	double ready = forecast_ready_ms(&p), complete = forecast_complete_ms(scenario, &p);
	double service = past.count ? 0 : SERVICE_MS;
	*ret = (struct forecast){ .ready_p50_ms = whole_ms(ready), .complete_p50_ms = whole_ms(complete),
		.ready_p95_ms = whole_ms(ready * exp(reach_of(past.ready, past.count)) + WORSE_MS + service),
		.complete_p95_ms = whole_ms(complete * exp(reach_of(past.complete, past.count)) + WORSE_MS),
		.learned_from = (unsigned)count, .error_percent = error_percent(&q) };
}
