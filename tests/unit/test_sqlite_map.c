/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map leaves: what is encoded decodes, runs join and split, and nothing impossible is believed.
 */
#include "stores/sqlite/leafmap.h"

#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 4096u

static struct leafmap_run run_of(uint32_t first, uint16_t count, uint16_t skip, uint32_t offset, uint32_t extent_pages)
{
	return (struct leafmap_run){ first, count, skip, { .pack = 1, .offset = offset, .stored = 100, .slot = offset, .plain = extent_pages * PAGE } };
}

static void add(struct leafmap_list *l, struct leafmap_run run)
{
	struct im_error err = { 0 };
	assert_ok(leafmap_add(l, &run, &err), &err);
}

static void add__joins_neighbours_of_one_extent(void **state)
{
	struct leafmap_list l = { 0 };
	(void)state;
	add(&l, run_of(0, 3, 0, 10, 16));
	add(&l, run_of(3, 5, 3, 10, 16));
	assert_int_equal(l.count, 1);
	assert_int_equal(l.runs[0].count, 8);
	add(&l, run_of(8, 1, 9, 10, 16)); /* a page was skipped */
	add(&l, run_of(9, 1, 10, 11, 16)); /* another extent */
	assert_int_equal(l.count, 3);
	leafmap_clear(&l);
}

static void clip__gives_any_range(void **state)
{
	struct leafmap_list l = { 0 };
	struct im_error err = { 0 };
	(void)state;
	add(&l, run_of(0, 16, 0, 1, 16));
	add(&l, run_of(16, 1, 0, 2, 1));
	add(&l, run_of(17, 15, 1, 3, 16));
	for (uint32_t first = 0; first < 32; first++)
		for (uint32_t count = 1; first + count <= 32; count++) {
			struct leafmap_list part = { 0 };
			uint32_t next = first;
			assert_ok(leafmap_clip(&part, &l, first, count, &err), &err);
			for (size_t i = 0; i < part.count; i++) {
				const struct leafmap_run *whole = leafmap_find(&l, part.runs[i].first);
				assert_int_equal(part.runs[i].first, next);
				assert_int_equal(part.runs[i].skip - part.runs[i].first, whole->skip - whole->first);
				next += part.runs[i].count;
			}
			assert_int_equal(next, first + count);
			leafmap_clear(&part);
		}
	struct leafmap_list none = { 0 };
	assert_int_equal(leafmap_clip(&none, &l, 30, 3, &err), IM_ECORRUPT);
	leafmap_clear(&none);
	assert_null(leafmap_find(&l, 32));
	leafmap_clear(&l);
}

static void decode__returns_what_was_encoded(void **state)
{
	struct leafmap_list l = { 0 }, back = { 0 };
	struct im_error err = { 0 };
	auto_buf struct im_buf b = { 0 };
	(void)state;
	for (uint32_t i = 0; i < LEAFMAP_PAGES; i += 2)
		add(&l, run_of(i, 2, (uint16_t)(i % 14), i + 1, 16));
	leafmap_encode(&l, &b);
	assert_int_equal(b.len, l.count * LEAFMAP_RUN_BYTES);
	assert_ok(leafmap_decode(b.data, b.len, PAGE, LEAFMAP_PAGES, &back, &err), &err);
	assert_int_equal(back.count, l.count);
	for (size_t i = 0; i < l.count; i++)
		assert_memory_equal(&back.runs[i], &l.runs[i], sizeof l.runs[i]);
	leafmap_clear(&l);
	leafmap_clear(&back);
}

static void refuse(struct leafmap_run a, struct leafmap_run b, uint32_t pages)
{
	struct leafmap_list l = { 0 }, back = { 0 };
	auto_buf struct im_buf bytes = { 0 };
	add(&l, a);
	if (b.count)
		add(&l, b);
	leafmap_encode(&l, &bytes);
	assert_int_equal(leafmap_decode(bytes.data, bytes.len, PAGE, pages, &back, NULL), IM_ECORRUPT);
	assert_null(back.runs);
	leafmap_clear(&l);
}

static void decode__refuses_what_cannot_be(void **state)
{
	const struct leafmap_run none = { 0 };
	struct leafmap_list back = { 0 };
	(void)state;
	refuse(run_of(0, 9, 0, 1, 16), none, 8);                       /* too many pages */
	refuse(run_of(0, 7, 0, 1, 16), none, 8);                       /* too few */
	refuse(run_of(1, 7, 0, 1, 16), none, 8);                       /* a gap in front */
	refuse(run_of(0, 4, 0, 1, 16), run_of(5, 3, 0, 2, 16), 8);     /* a gap between */
	refuse(run_of(0, 4, 0, 1, 16), run_of(3, 5, 0, 2, 16), 8);     /* an overlap */
	refuse(run_of(0, 8, 9, 1, 16), none, 8);                       /* beyond the extent */
	refuse(run_of(0, 8, UINT16_MAX, 1, 16), none, 8);
	struct leafmap_run odd = run_of(0, 8, 0, 1, 16);
	odd.ref.plain++;
	refuse(odd, none, 8);
	odd.ref.plain = 0xfffff000u;
	refuse(odd, none, 8);
	refuse(run_of(0, 0, 0, 1, 16), run_of(0, 8, 0, 2, 16), 8);     /* an empty run */
	assert_int_equal(leafmap_decode("", 0, PAGE, 8, &back, NULL), IM_ECORRUPT);
	assert_int_equal(leafmap_decode("x", 1, PAGE, 8, &back, NULL), IM_ECORRUPT);
	uint8_t zeros[LEAFMAP_RUN_BYTES] = { 0 };
	assert_int_equal(leafmap_decode(zeros, sizeof zeros, PAGE, 8, &back, NULL), IM_ECORRUPT);
	assert_int_equal(leafmap_decode(zeros, sizeof zeros, PAGE, 0, &back, NULL), IM_ECORRUPT);
	assert_int_equal(leafmap_decode(zeros, sizeof zeros, PAGE, LEAFMAP_PAGES + 1, &back, NULL), IM_ECORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(add__joins_neighbours_of_one_extent),
		cmocka_unit_test(clip__gives_any_range),
		cmocka_unit_test(decode__returns_what_was_encoded),
		cmocka_unit_test(decode__refuses_what_cannot_be),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
