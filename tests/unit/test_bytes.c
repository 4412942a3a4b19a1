/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers and the bounded reader: nothing is ever read past the end, and a failure stays one.
 */
#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void buf__integers_are_little_endian(void **state)
{
	(void)state;
	auto_buf struct im_buf b = { 0 };
	static const uint8_t expected[] = { 0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08 };
	im_buf_put_u8(&b, 0x01);
	im_buf_put_u16(&b, 0x0203);
	im_buf_put_u32(&b, 0x04050607);
	im_buf_put_u64(&b, 0x08090a0b0c0d0e0f);
	assert_int_equal(b.len, sizeof expected);
	assert_memory_equal(b.data, expected, sizeof expected);
	struct im_reader r = im_reader_of(b.data, b.len);
	assert_int_equal(im_read_u8(&r), 0x01);
	assert_int_equal(im_read_u16(&r), 0x0203);
	assert_int_equal(im_read_u32(&r), 0x04050607);
	assert_true(im_read_u64(&r) == 0x08090a0b0c0d0e0f);
	assert_int_equal(im_read_left(&r), 0);
	assert_false(r.failed);
}

static void buf__grows_and_is_usable_after_free(void **state)
{
	(void)state;
	auto_buf struct im_buf b = { 0 };
	for (int i = 0; i < 10000; i++)
		im_buf_put_u32(&b, (uint32_t)i);
	assert_int_equal(b.len, 40000);
	assert_int_equal(im_le32(b.data + 4 * 9999), 9999);
	im_buf_free(&b);
	assert_int_equal(b.len, 0);
	im_buf_put(&b, "abc", 3);
	assert_memory_equal(b.data, "abc", 3);
}

static void reader__never_passes_its_end(void **state)
{
	(void)state;
	static const uint8_t three[3] = { 1, 2, 3 };
	for (size_t len = 0; len < 3; len++) {
		uint8_t copy[4] = { 9, 9, 9, 9 };
		struct im_reader r = im_reader_of(three, len);
		assert_int_equal(im_read_u32(&r), 0);
		assert_true(r.failed);
		assert_int_equal(im_read_u8(&r), 0); /* stays failed, although a byte is left */
		assert_null(im_read_view(&r, 0));
		assert_false(im_read_copy(&r, copy, 4));
		assert_int_equal(copy[0] | copy[3], 0);
	}
}

static void reader__huge_length_is_refused(void **state)
{
	(void)state;
	static const uint8_t some[8] = { 0 };
	struct im_reader r = im_reader_of(some, sizeof some);
	assert_null(im_read_view(&r, SIZE_MAX));
	assert_true(r.failed);
}

static void hex__round_trip_and_refusals(void **state)
{
	(void)state;
	static const uint8_t data[] = { 0x00, 0x9f, 0xff };
	char text[7];
	uint8_t back[3];
	assert_string_equal(im_hex(text, data, 3), "009fff");
	assert_true(im_unhex(back, 3, "009fff"));
	assert_memory_equal(back, data, 3);
	assert_false(im_unhex(back, 3, "009ff"));
	assert_false(im_unhex(back, 3, "009fff0"));
	assert_false(im_unhex(back, 3, "009fxf"));
	assert_false(im_unhex(back, 3, ""));
}

static void base64__known_answers(void **state)
{
	(void)state;
	static const char *const cases[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" } };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		auto_buf struct im_buf b = { 0 };
		char *text = im_base64(cases[i][0], strlen(cases[i][0]));
		assert_string_equal(text, cases[i][1]);
		assert_true(im_unbase64(&b, text));
		assert_int_equal(b.len, strlen(cases[i][0]));
		if (b.len)
			assert_memory_equal(b.data, cases[i][0], b.len);
		free(text);
	}
}

static void base64__malformed_is_refused(void **state)
{
	(void)state;
	static const char *const cases[] = { "Z", "Zg", "Zg=", "Zm9v=", "Z===", "Zm 9v", "Zm9v\n", "=Zm9", "Zg==Zg==", "Zm9*" };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		auto_buf struct im_buf b = { 0 };
		if (im_unbase64(&b, cases[i]))
			fail_msg("accepted: %s", cases[i]);
	}
}

static void integers__unaligned(void **state)
{
	(void)state;
	uint8_t raw[13] = { 0 };
	im_put_le32(raw + 1, 0x01020304);
	im_put_le64(raw + 5, 0x1112131415161718);
	assert_int_equal(im_le32(raw + 1), 0x01020304);
	assert_int_equal(im_be32(raw + 1), 0x04030201);
	assert_true(im_le64(raw + 5) == 0x1112131415161718);
}

static void im_buf_grow__by_nothing_is_no_failure(void **state)
{
	(void)state;
	auto_buf struct im_buf b = { 0 };
	assert_non_null(im_buf_grow(&b, 0));
	assert_int_equal(b.len, 0);
	assert_false(b.failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(im_buf_grow__by_nothing_is_no_failure),
		cmocka_unit_test(buf__integers_are_little_endian),
		cmocka_unit_test(buf__grows_and_is_usable_after_free),
		cmocka_unit_test(reader__never_passes_its_end),
		cmocka_unit_test(reader__huge_length_is_refused),
		cmocka_unit_test(hex__round_trip_and_refusals),
		cmocka_unit_test(base64__known_answers),
		cmocka_unit_test(base64__malformed_is_refused),
		cmocka_unit_test(integers__unaligned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
