/* SPDX-License-Identifier: Apache-2.0 */
/* The alias tables of make_rng.h (Vose's construction). */
#include "make_rng.h"

#include <math.h>
#include <stdlib.h>

#include "make_store.h"

static void zipf_fill(struct zipf *zipf, double *p)
{
	uint32_t n = zipf->n, small_count = 0, large_count = 0;
	uint32_t *small = make_alloc(n * sizeof(*small)), *large = make_alloc(n * sizeof(*large));

	for (uint32_t i = 0; i < n; i++) {
		if (p[i] < 1)
			small[small_count++] = i;
		else
			large[large_count++] = i;
		zipf->threshold[i] = UINT32_MAX;
		zipf->alias[i] = i;
	}
	while (small_count && large_count) {
		uint32_t s = small[--small_count], l = large[--large_count];

		zipf->threshold[s] = (uint32_t)(p[s] * (double)UINT32_MAX);
		zipf->alias[s] = l;
		p[l] -= 1 - p[s];
		if (p[l] < 1)
			small[small_count++] = l;
		else
			large[large_count++] = l;
	}
	free(small);
	free(large);
}

void zipf_init(struct zipf *zipf, uint32_t n, double exponent, double shift)
{
	double *p = make_alloc(n * sizeof(*p)), sum = 0;

	zipf->n = n;
	zipf->threshold = make_alloc(n * sizeof(*zipf->threshold));
	zipf->alias = make_alloc(n * sizeof(*zipf->alias));
	for (uint32_t i = 0; i < n; i++)
		sum += p[i] = pow(i + shift, -exponent);
	for (uint32_t i = 0; i < n; i++)
		p[i] *= n / sum;
	zipf_fill(zipf, p);
	free(p);
}

void zipf_clear(struct zipf *zipf)
{
	free(zipf->threshold);
	free(zipf->alias);
}
