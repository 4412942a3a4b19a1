/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers for imvault-make-store: xoroshiro128+ seeded by splitmix64, and a Zipf sampler
 * (Walker's alias method: one table, one draw). The same seed always makes the same store, on
 * every machine, so that a failing test can be replayed. Not for cryptography.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct rng {
	uint64_t s[2];
};

static inline uint64_t rng_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static inline void rng_seed(struct rng *rng, uint64_t seed)
{
	rng->s[0] = rng_mix(seed);
	rng->s[1] = rng_mix(rng->s[0]);
}

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t a = rng->s[0], b = rng->s[1], sum = a + b;

	b ^= a;
	rng->s[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
	rng->s[1] = (b << 37) | (b >> 27);
	return sum;
}

/* 0 <= result < n; the bias is below 2^-32 for the small n used here. */
static inline uint32_t rng_below(struct rng *rng, uint32_t n)
{
	return (uint32_t)(((rng_next(rng) >> 32) * n) >> 32);
}

static inline double rng_unit(struct rng *rng)
{
	return (double)(rng_next(rng) >> 11) * 0x1p-53;
}

struct zipf {
	uint32_t n;
	uint32_t *threshold, *alias;
};

/* Ranks 0..n-1, probability of rank i proportional to 1/(i+shift)^exponent. */
void zipf_init(struct zipf *zipf, uint32_t n, double exponent, double shift);
void zipf_clear(struct zipf *zipf);

static inline uint32_t zipf_draw(const struct zipf *zipf, struct rng *rng)
{
	uint64_t r = rng_next(rng);
	uint32_t i = (uint32_t)(((r >> 32) * zipf->n) >> 32);

	return (uint32_t)r <= zipf->threshold[i] ? i : zipf->alias[i];
}
