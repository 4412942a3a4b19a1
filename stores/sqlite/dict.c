/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training: few reads spread evenly (the cache may be cold), fixed fastCover parameters instead of
 * a search, so that it costs a fraction of a second whatever the database's size.
 */
#define ZDICT_STATIC_LINKING_ONLY
#include "stores/sqlite/dict.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <zdict.h>

#define SAMPLE_READS 128
#define SAMPLE_BYTES (32u << 10)
#define SAMPLE_CUT 4096
#define DICT_BYTES (110u << 10)

int dict_train(const struct source *s, struct im_buf *ret, struct im_error *err)
{
	uint32_t pages_per_read = SAMPLE_BYTES / s->page_size ? SAMPLE_BYTES / s->page_size : 1;
	size_t read_bytes = (size_t)pages_per_read * s->page_size;
	size_t cut = s->page_size < SAMPLE_CUT ? s->page_size : SAMPLE_CUT;
	if (s->pages / pages_per_read < SAMPLE_READS)
		return 0;
	auto_free uint8_t *samples = malloc(SAMPLE_READS * read_bytes);
	auto_free size_t *sizes = calloc(SAMPLE_READS * read_bytes / cut, sizeof *sizes);
	if (!samples || !sizes)
		return im_fail(err, IM_ENOMEM, "out of memory for a dictionary");
	for (uint32_t i = 0; i < SAMPLE_READS; i++) {
		uint32_t first = (uint32_t)((uint64_t)(s->pages - pages_per_read) * i / (SAMPLE_READS - 1));
		int rc = source_read(s, first, pages_per_read, samples + i * read_bytes, err);
		if (rc)
			return rc;
	}
	unsigned count = (unsigned)(SAMPLE_READS * read_bytes / cut);
	for (unsigned i = 0; i < count; i++)
		sizes[i] = cut;
	uint8_t *dict = im_buf_grow(ret, DICT_BYTES);
	if (!dict)
		return im_fail(err, IM_ENOMEM, "out of memory for a dictionary");
	ZDICT_fastCover_params_t how = { .k = 256, .d = 8, .f = 20, .steps = 1, .nbThreads = 1, .accel = 2,
		.zParams = { .compressionLevel = 1 } };
	size_t n = ZDICT_trainFromBuffer_fastCover(dict, DICT_BYTES, samples, sizes, count, how);
	ret->len -= ZDICT_isError(n) ? DICT_BYTES : DICT_BYTES - n;
	return 0;
}
