/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instants and durations: what people write is read exactly or refused, never guessed.
 */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void instant__survives_format_and_parse(void **state)
{
	(void)state;
	static const int64_t cases[] = { 0, 1, 999, 1000, 951782400123, 1795000000999, 4102444800000 };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[IM_INSTANT_BYTES];
		int64_t back = -1;
		assert_true(im_instant_parse(im_instant_format(text, cases[i]), &back));
		assert_int_equal(back, cases[i]);
	}
}

static void instant_format__is_utc_with_milliseconds(void **state)
{
	(void)state;
	char text[IM_INSTANT_BYTES];
	assert_string_equal(im_instant_format(text, 951827696007), "2000-02-29T12:34:56.007Z");
	assert_string_equal(im_instant_format(text, -1), "1969-12-31T23:59:59.999Z");
}

static void instant_parse__zones_and_forms(void **state)
{
	(void)state;
	int64_t ms;
	assert_true(im_instant_parse("2000-02-29T12:34:56Z", &ms));
	assert_int_equal(ms, 951827696000);
	assert_true(im_instant_parse("2000-02-29 20:34:56.007+08:00", &ms));
	assert_int_equal(ms, 951827696007);
	assert_true(im_instant_parse("2000-02-29T07:04:56.0079 -0530", &ms));
	assert_int_equal(ms, 951827696007);
	assert_true(im_instant_parse("2000-02-29T12:34Z", &ms));
	assert_int_equal(ms, 951827640000);
}

static void instant_parse__refuses_what_is_unclear(void **state)
{
	(void)state;
	static const char *const cases[] = { "", "latest", "2000-02-29", "2000-02-29T12:34:56", "2000-13-01T00:00:00Z",
		"2000-00-01T00:00:00Z", "2000-01-32T00:00:00Z", "2000-01-01T24:00:00Z", "2000-01-01T00:60:00Z",
		"2000-01-01T00:00:00Zx", "2000-01-01T00:00:00+2", "1960-01-01T00:00:00Z", "20000101T000000Z" };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int64_t ms;
		if (im_instant_parse(cases[i], &ms))
			fail_msg("accepted: %s", cases[i]);
	}
}

static void duration_parse__units(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t ms;
	} cases[] = { { "90", 90000 }, { "90s", 90000 }, { "10m", 600000 }, { "10 min", 600000 }, { "2h", 7200000 },
		{ "7d", 604800000 }, { "250ms", 250 }, { "0", 0 } };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int64_t ms = -1;
		assert_true(im_duration_parse(cases[i].text, &ms));
		assert_int_equal(ms, cases[i].ms);
	}
}

static void duration_parse__refuses_nonsense_and_overflow(void **state)
{
	(void)state;
	static const char *const cases[] = { "", "-1", "m", "10x", "1.5h", " 5", "99999999999999999999d", "9223372036854775807h" };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int64_t ms;
		if (im_duration_parse(cases[i], &ms))
			fail_msg("accepted: %s", cases[i]);
	}
}

static void duration_format__fits_its_size(void **state)
{
	(void)state;
	char text[32];
	assert_string_equal(im_duration_format(text, sizeof text, 420), "0.42 s");
	assert_string_equal(im_duration_format(text, sizeof text, 12300), "12.3 s");
	assert_string_equal(im_duration_format(text, sizeof text, 250000), "4 min 10 s");
	assert_string_equal(im_duration_format(text, sizeof text, 7500000), "2 h 5 min");
	assert_string_equal(im_duration_format(text, sizeof text, 3 * 86400000LL), "3 d 0 h");
}

static void bytes_format__powers_of_1000(void **state)
{
	(void)state;
	char text[32];
	assert_string_equal(im_bytes_format(text, sizeof text, 0), "0 B");
	assert_string_equal(im_bytes_format(text, sizeof text, 512), "512 B");
	assert_string_equal(im_bytes_format(text, sizeof text, 1200000000), "1.2 GB");
	assert_string_equal(im_bytes_format(text, sizeof text, 999700), "1.0 MB");
	assert_non_null(strstr(im_bytes_format(text, sizeof text, UINT64_MAX), "PB"));
}

static void monotonic__does_not_go_back(void **state)
{
	(void)state;
	int64_t before = im_monotonic_us();
	for (int i = 0; i < 1000; i++) {
		int64_t now = im_monotonic_us();
		assert_true(now >= before);
		before = now;
	}
}

static void size_parse__units_and_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = { { "0", 0 }, { "4096", 4096 }, { "7B", 7 }, { "1K", 1000 }, { "512M", 512000000 }, { "2G", 2000000000 }, { "2GB", 2000000000 },
		{ "1KiB", 1024 }, { "64MiB", UINT64_C(64) << 20 }, { "3TiB", UINT64_C(3) << 40 }, { "18446744073709551615", UINT64_MAX } };
	static const char *const bad[] = { "", "M", "-1", "+1", " 1", "1 G", "1.5G", "1g", "1Gi", "1GiBs", "1P", "1BB",
		"18446744073709551616", "18446744073709551615K", "99999999T" };
	uint64_t bytes;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_true(im_size_parse(good[i].text, &bytes));
		assert_int_equal(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (im_size_parse(bad[i], &bytes))
			fail_msg("\"%s\" was taken for a size", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(size_parse__units_and_refusals),
		cmocka_unit_test(instant__survives_format_and_parse),
		cmocka_unit_test(instant_format__is_utc_with_milliseconds),
		cmocka_unit_test(instant_parse__zones_and_forms),
		cmocka_unit_test(instant_parse__refuses_what_is_unclear),
		cmocka_unit_test(duration_parse__units),
		cmocka_unit_test(duration_parse__refuses_nonsense_and_overflow),
		cmocka_unit_test(duration_format__fits_its_size),
		cmocka_unit_test(bytes_format__powers_of_1000),
		cmocka_unit_test(monotonic__does_not_go_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
