/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing victims. Only packs less than half alive are worth it; among them, first those where
 * most is won for least, weighted by age, as log-structured file systems do (Rosenblum, Ousterhout
 * 1992): what has lived long in an old pack will live on, while the rest of a young one dies by
 * itself and would be moved again and again.
 */
#include "stores/sqlite/victims.h"

#include <stdlib.h>

#define PLAIN_PER_STORED 4 /* a guess: how much larger pages are than their stored form */
#define MAX_LIVE_SHARE 0.5

struct pack_life {
	uint32_t number;
	uint64_t live_bytes;
	double share, worth;
};

static int by_number(const void *a, const void *b)
{
	const struct pack_life *x = a, *y = b;
	return (x->number > y->number) - (x->number < y->number);
}

static int by_worth(const void *a, const void *b)
{
	const struct pack_life *x = a, *y = b;
	return (x->worth < y->worth) - (x->worth > y->worth);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

/* One row per pack, live bytes summed. */
static size_t sum_lives(const struct remember_leaf *leaves, uint32_t leaf_count, struct pack_life *rows)
{
	size_t count = 0, kept = 0;
	for (uint32_t i = 0; i < leaf_count; i++)
		for (uint32_t u = 0; u < leaves[i].use_count; u++)
			rows[count++] = (struct pack_life){ leaves[i].uses[u].pack, leaves[i].uses[u].bytes, 1, 0 };
	qsort(rows, count, sizeof *rows, by_number);
	for (size_t i = 0; i < count; i++) {
		if (kept && rows[kept - 1].number == rows[i].number)
			rows[kept - 1].live_bytes += rows[i].live_bytes;
		else
			rows[kept++] = rows[i];
	}
	return kept;
}

int victims_choose(struct state *s, const struct remember_leaf *leaves, uint32_t leaf_count, uint64_t budget_bytes, uint32_t **ret, size_t *ret_count, struct im_error *err)
{
	size_t uses = 0, chosen = 0;
	for (uint32_t i = 0; i < leaf_count; i++)
		uses += leaves[i].use_count;
	struct pack_life *rows = calloc(uses ? uses : 1, sizeof *rows);
	size_t count = rows ? sum_lives(leaves, leaf_count, rows) : 0;
	uint32_t *numbers = calloc(count ? count : 1, sizeof *numbers);
	if (!rows || !numbers) {
		free(rows);
		free(numbers);
		return im_fail(err, IM_ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < count; i++) {
		struct pack_info info;
		if (state_pack_get(s, rows[i].number, &info, NULL) == 0 && info.size_bytes)
			rows[i].share = (double)rows[i].live_bytes / (double)info.size_bytes;
		double age = rows[count - 1].number - rows[i].number + 1.0;
		rows[i].worth = rows[i].share < MAX_LIVE_SHARE ? (1 - rows[i].share) * age / (1 + rows[i].share) : 0;
	}
	qsort(rows, count, sizeof *rows, by_worth);
	uint64_t spent = 0;
	for (size_t i = 0; budget_bytes && i < count && rows[i].worth > 0; i++) {
		spent += rows[i].live_bytes * PLAIN_PER_STORED;
		if (i && spent > budget_bytes)
			break; /* the first may cost more: it is emptied over several runs */
		numbers[chosen++] = rows[i].number;
	}
	free(rows);
	qsort(numbers, chosen, sizeof *numbers, by_value);
	*ret = numbers;
	*ret_count = chosen;
	return 0;
}
