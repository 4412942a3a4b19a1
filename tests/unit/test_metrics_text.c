/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prometheus's text format: what is written can be read back by its rules, whatever the labels hold.
 */
#include "cli/metrics_text.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void expect(struct metrics_text *m, const char *text)
{
	im_buf_put_u8(&m->out, 0);
	assert_false(m->out.failed);
	assert_string_equal((const char *)m->out.data, text);
	im_buf_free(&m->out);
}

static void family__has_help_and_type_without_samples(void **state)
{
	(void)state;
	struct metrics_text m = { 0 };
	metrics_family(&m, METRICS_GAUGE, "imvault_a", "What a is.");
	metrics_family(&m, METRICS_COUNTER, "imvault_b_total", "What b is.");
	expect(&m, "# HELP imvault_a What a is.\n# TYPE imvault_a gauge\n# HELP imvault_b_total What b is.\n# TYPE imvault_b_total counter\n");
}

static void sample__labels_only_where_there_are_some(void **state)
{
	(void)state;
	struct metrics_text m = { .family = "imvault_a" };
	metrics_number(&m, NULL, NULL, 1);
	metrics_number(&m, "store", "chat", 2);
	m.node = "im-01";
	metrics_number(&m, NULL, NULL, INT64_MIN);
	metrics_number(&m, "store", "chat", INT64_MAX);
	expect(&m, "imvault_a 1\nimvault_a{store=\"chat\"} 2\nimvault_a{node=\"im-01\"} -9223372036854775808\n"
	    "imvault_a{node=\"im-01\",store=\"chat\"} 9223372036854775807\n");
}

static void label__is_escaped_and_utf8(void **state)
{
	(void)state;
	struct metrics_text m = { .family = "imvault_a" };
	metrics_number(&m, "x", "back\\slash \"quote\" line\nfeed", 1);
	metrics_number(&m, "x", "gr\xc3\xbc\xc3\x9f", 2);
	metrics_number(&m, "x", "gr\xfc\xdf", 3);
	expect(&m, "imvault_a{x=\"back\\\\slash \\\"quote\\\" line\\nfeed\"} 1\nimvault_a{x=\"gr\xc3\xbc\xc3\x9f\"} 2\nimvault_a{x=\"gr??\"} 3\n");
}

static void seconds__of_milliseconds(void **state)
{
	(void)state;
	struct metrics_text m = { .family = "s" };
	static const int64_t cases[] = { 0, 7, 1000, 1795820993105, -1, -1500, INT64_MIN };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		metrics_seconds(&m, NULL, NULL, cases[i]);
	expect(&m, "s 0.000\ns 0.007\ns 1.000\ns 1795820993.105\ns -0.001\ns -1.500\ns -9223372036854775.808\n");
}

static void ratio__of_percent(void **state)
{
	(void)state;
	struct metrics_text m = { .family = "r" };
	static const double cases[] = { 0, 0.004, 8.25, 100, 250.5 };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		metrics_ratio(&m, NULL, NULL, cases[i]);
	expect(&m, "r 0.0000\nr 0.0000\nr 0.0825\nr 1.0000\nr 2.5050\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(family__has_help_and_type_without_samples),
		cmocka_unit_test(sample__labels_only_where_there_are_some),
		cmocka_unit_test(label__is_escaped_and_utf8),
		cmocka_unit_test(seconds__of_milliseconds),
		cmocka_unit_test(ratio__of_percent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
