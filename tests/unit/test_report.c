/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report's parts that need no vault: foreign text, scales, values and the verdict. The page as a
 * whole is tested by tests/e2e/test_report.py.
 */
#include "verify/report_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1700000000000)

static void assert_text(const char *foreign, const char *expected)
{
	struct page p = { .lang = REPORT_EN };
	report_text(&p, foreign);
	im_buf_put_u8(&p.out, 0);
	assert_string_equal((const char *)p.out.data, expected);
	im_buf_free(&p.out);
}

static void text__markup_is_escaped(void **state)
{
	(void)state;
	assert_text("<a href='x'>&\"", "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
}

static void text__control_and_direction_characters_are_shown(void **state)
{
	(void)state;
	assert_text("a\nb\x1b\x7f", "a[U+000A]b[U+001B][U+007F]");
	assert_text("\xc2\x85", "[U+0085]");
	assert_text("\xe2\x80\xae" "abc\xe2\x81\xa6", "[U+202E]abc[U+2066]");
	assert_text("\xef\xbb\xbf", "[U+FEFF]");
}

static void text__letters_of_all_scripts_stay(void **state)
{
	(void)state;
	assert_text("\xe7\x8e\x8b \xc3\xa9 \xf0\x9f\x98\x80", "\xe7\x8e\x8b \xc3\xa9 \xf0\x9f\x98\x80");
}

static void text__what_is_no_utf8_is_replaced(void **state)
{
	(void)state;
	assert_text("a\xff" "b", "a&#xfffd;b");
	assert_text("\xc0\xbc", "&#xfffd;&#xfffd;");                  /* an overlong '<' */
	assert_text("\xed\xa0\x80", "&#xfffd;&#xfffd;&#xfffd;");      /* half a pair */
	assert_text("\xf4\x90\x80\x80", "&#xfffd;&#xfffd;&#xfffd;&#xfffd;");
	assert_text("\xe2\x80", "&#xfffd;&#xfffd;");                  /* cut off by the end */
	assert_text("\xf0\x9f<", "&#xfffd;&#xfffd;&lt;");             /* never swallows what follows */
}

static void text__long_ones_are_cut(void **state)
{
	struct page p = { .lang = REPORT_EN };
	char *text = malloc(3 * REPORT_TEXT_MAX + 1);
	(void)state;
	memset(text, 'x', 3 * REPORT_TEXT_MAX);
	text[3 * REPORT_TEXT_MAX] = '\0';
	report_text(&p, text);
	assert_true(p.out.len > REPORT_TEXT_MAX && p.out.len < REPORT_TEXT_MAX + 20);
	im_buf_free(&p.out);
	free(text);
}

static void say__values_are_escaped_and_may_not_bring_values_of_their_own(void **state)
{
	struct page p = { .lang = REPORT_EN };
	(void)state;
	report_say(&p, W_TITLE, "<{1}>", NULL);
	im_buf_put_u8(&p.out, 0);
	assert_string_equal((const char *)p.out.data, "Recovery report: &lt;{1}&gt;");
	im_buf_free(&p.out);
}

static void words__both_languages_take_the_same_values(void **state)
{
	struct page en = { .lang = REPORT_EN }, zh = { .lang = REPORT_ZH };
	(void)state;
	for (int w = 0; w < W_COUNT; w++)
		for (char n = '1'; n <= '9'; n++) {
			const char value[] = { '{', n, '}', '\0' };
			bool has_en = strstr(report_words_of(&en, w), value), has_zh = strstr(report_words_of(&zh, w), value);
			if (has_en != has_zh)
				fail_msg("\"%s\" and \"%s\" differ in %s", report_words_of(&en, w), report_words_of(&zh, w), value);
		}
}

/* --- values --- */

static void duration__is_what_people_say(void **state)
{
	static const struct {
		int64_t ms;
		const char *en, *zh;
	} cases[] = { { -1, "\xe2\x80\x93", "\xe2\x80\x93" }, { 0, "0 s", "0 \xe7\xa7\x92" }, { 420, "0.42 s", "0.42 \xe7\xa7\x92" },
		{ 5000, "5 s", "5 \xe7\xa7\x92" }, { 12340, "12.3 s", "12.3 \xe7\xa7\x92" }, { 900000, "15 min", "15 \xe5\x88\x86\xe9\x92\x9f" },
		{ 130000, "2 min 10 s", "2 \xe5\x88\x86\xe9\x92\x9f 10 \xe7\xa7\x92" }, { 3600000, "1 h", "1 \xe5\xb0\x8f\xe6\x97\xb6" },
		{ 7500000, "2 h 5 min", "2 \xe5\xb0\x8f\xe6\x97\xb6 5 \xe5\x88\x86\xe9\x92\x9f" }, { 60000, "1 min", "1 \xe5\x88\x86\xe9\x92\x9f" },
		{ 86400000, "1 d", "1 \xe5\xa4\xa9" }, { 180000000, "2 d 2 h", "2 \xe5\xa4\xa9 2 \xe5\xb0\x8f\xe6\x97\xb6" } };
	struct page en = { .lang = REPORT_EN }, zh = { .lang = REPORT_ZH };
	char text[REPORT_VALUE_BYTES];
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_string_equal(report_duration(&en, text, cases[i].ms), cases[i].en);
		assert_string_equal(report_duration(&zh, text, cases[i].ms), cases[i].zh);
	}
}

static void duration__the_largest_fits(void **state)
{
	struct page zh = { .lang = REPORT_ZH };
	char text[REPORT_VALUE_BYTES];
	(void)state;
	assert_true(strlen(report_duration(&zh, text, INT64_MAX)) < sizeof text - 1);
}

/* --- scales --- */

static void assert_scale(const struct report_scale *s, double min, double max)
{
	assert_true(s->high > s->low && s->low <= min && s->high >= max);
	assert_true(s->tick_count >= 2 && s->tick_count <= sizeof s->ticks / sizeof *s->ticks);
	for (size_t i = 0; i < s->tick_count; i++)
		assert_true(s->ticks[i] >= s->low && s->ticks[i] <= s->high && (!i || s->ticks[i] > s->ticks[i - 1]));
}

static void scale__holds_all_durations(void **state)
{
	struct report_scale s;
	(void)state;
	for (double max = 1; max < 3e11; max *= 1.7) {
		report_scale_durations(&s, 0, max);
		assert_scale(&s, 0, max);
		assert_false(s.log);
		report_scale_durations(&s, max / 1e4 + 1, max * 20 < 3e11 ? max * 20 : 3e11);
		assert_scale(&s, max / 1e4 + 1, max);
	}
}

static void scale__far_apart_durations_are_logarithmic_with_round_marks(void **state)
{
	struct report_scale s;
	(void)state;
	report_scale_durations(&s, 420, 900000);
	assert_true(s.log);
	assert_true(s.low == 100 && s.high == 3600000);
	assert_true(report_scale_at(&s, 100) == 0 && report_scale_at(&s, 3600000) == 1 && report_scale_at(&s, 0) == 0);
}

static void scale__holds_all_sizes(void **state)
{
	struct report_scale s;
	(void)state;
	for (double max = 0; max < 1e18; max = max * 1.7 + 1) {
		report_scale_bytes(&s, max);
		assert_scale(&s, 0, max);
	}
}

static void scale__times_have_round_ticks_for_hours_and_for_decades(void **state)
{
	struct report_scale s;
	char text[REPORT_VALUE_BYTES];
	(void)state;
	for (int64_t span_ms = 3600000; span_ms < 3650 * REPORT_DAY_MS; span_ms += span_ms / 3) {
		report_scale_times(&s, NOW - span_ms, NOW);
		assert_true(s.tick_count >= 1 && s.tick_count <= 8);
		for (size_t i = 0; i < s.tick_count; i++)
			assert_true(s.ticks[i] >= s.low && s.ticks[i] <= s.high);
	}
	report_scale_times(&s, NOW - 90 * REPORT_DAY_MS, NOW);
	assert_string_equal(report_scale_time(&s, text, s.ticks[0]), "2023-09-01");
	report_scale_times(&s, NOW - 30 * REPORT_DAY_MS, NOW);
	assert_string_equal(report_scale_time(&s, text, s.ticks[0]), "2023-10-16"); /* a Monday */
}

static void scale__absurd_values_end(void **state)
{
	struct report_scale s;
	(void)state;
	report_scale_durations(&s, 1e300, 1e300);
	assert_true(s.tick_count <= 16);
	report_scale_times(&s, 0, INT64_MAX);
	assert_true(s.tick_count <= 16);
	report_scale_bytes(&s, 1.8e19);
	assert_true(s.tick_count <= 16);
}

/* --- verdict --- */

struct rig {
	struct drill_record record;
	struct report r;
};

static void good(struct rig *g)
{
	g->record = (struct drill_record){ .is_drill = true, .passed = true, .signer_active = true, .kind = "drill", .scenario = "full",
		.verdict = "passed", .chosen = "latest", .time_ms = NOW - REPORT_DAY_MS, .service_ready_ms = 2000, .data_complete_ms = 2000,
		.rto_ms = 900000, .rto_met = true, .rpo_ms = 500, .rpo_target_ms = 5000, .rpo_met = true };
	g->r = (struct report){ .now_ms = NOW, .drills = { .items = &g->record, .count = 1 },
		.forecast = { .full = { .ready_p50_ms = 2000, .ready_p95_ms = 4000 }, .instant = { .ready_p50_ms = 1000000, .ready_p95_ms = 1000000 } },
		.summary = { .rto_ms = 900000, .rpo_ms = 5000, .has_forecast = true } };
}

static void assert_verdict(struct rig *g, enum report_verdict verdict, int reason)
{
	report_judge(&g->r);
	for (int i = 0; i < REPORT_REASON_COUNT; i++)
		if (g->r.summary.reasons[i] != (i == reason))
			fail_msg("reason %s is %d", report_reason_name((enum report_reason)i), g->r.summary.reasons[i]);
	assert_int_equal(g->r.summary.verdict, verdict);
}

static void judge__a_recent_good_drill_proves_it(void **state)
{
	struct rig g;
	(void)state;
	good(&g);
	assert_verdict(&g, REPORT_PROVEN, -1);
	assert_int_equal(g.r.summary.drills.met, 1);
	assert_int_equal(g.r.summary.rpo.of, 1);
}

static void judge__each_flaw_has_its_reason(void **state)
{
	struct rig g;
	(void)state;
	good(&g), g.r.drills.count = 0;
	assert_verdict(&g, REPORT_UNPROVEN, REPORT_NO_DRILL);
	good(&g), g.record.is_drill = false; /* a real restore is no drill */
	assert_verdict(&g, REPORT_UNPROVEN, REPORT_NO_DRILL);
	good(&g), g.record.passed = false;
	assert_verdict(&g, REPORT_UNPROVEN, REPORT_DRILL_FAILED);
	good(&g), g.record.service_ready_ms = -1;
	assert_verdict(&g, REPORT_UNPROVEN, REPORT_RTO_MISSED);
	good(&g), g.record.rpo_ms = 6000;
	assert_verdict(&g, REPORT_UNPROVEN, REPORT_RPO_MISSED);
	good(&g), g.r.now_ms += 31 * REPORT_DAY_MS;
	assert_verdict(&g, REPORT_RESERVED, REPORT_DRILL_OVERDUE);
	good(&g), g.r.newest_store_count = 2;
	assert_verdict(&g, REPORT_RESERVED, REPORT_DRILL_SCOPE);
	good(&g), g.record.signer_active = false;
	assert_verdict(&g, REPORT_RESERVED, REPORT_KEY_REVOKED);
	good(&g), g.r.forecast.full.ready_p95_ms = 900001;
	assert_verdict(&g, REPORT_RESERVED, REPORT_FORECAST_P95_OVER);
	good(&g), g.r.forecast.full.ready_p50_ms = 900001;
	assert_verdict(&g, REPORT_UNPROVEN, REPORT_FORECAST_OVER);
	good(&g), g.r.finding_count = 1;
	assert_verdict(&g, REPORT_RESERVED, REPORT_CHAIN_BROKEN);
	good(&g), g.r.summary.rto_ms = 0;
	assert_verdict(&g, REPORT_RESERVED, REPORT_NO_TARGET);
}

static void judge__a_stricter_target_than_on_that_day_counts(void **state)
{
	struct rig g;
	(void)state;
	good(&g), g.r.summary.rto_ms = 5000, g.record.service_ready_ms = 5001;
	assert_verdict(&g, REPORT_UNPROVEN, REPORT_RTO_MISSED);
}

static void judge__a_moment_in_the_past_says_nothing_about_data_loss(void **state)
{
	struct rig g;
	(void)state;
	good(&g), g.record.chosen = "random", g.record.rpo_ms = 20 * REPORT_DAY_MS;
	assert_verdict(&g, REPORT_PROVEN, -1);
	assert_int_equal(g.r.summary.rpo.of, 0);
}

static void judge__the_schedule_says_when_a_drill_is_overdue(void **state)
{
	struct rig g;
	(void)state;
	good(&g), g.r.drill_every_ms = REPORT_DAY_MS / 2;
	assert_verdict(&g, REPORT_RESERVED, REPORT_DRILL_OVERDUE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text__markup_is_escaped),
		cmocka_unit_test(text__control_and_direction_characters_are_shown),
		cmocka_unit_test(text__letters_of_all_scripts_stay),
		cmocka_unit_test(text__what_is_no_utf8_is_replaced),
		cmocka_unit_test(text__long_ones_are_cut),
		cmocka_unit_test(say__values_are_escaped_and_may_not_bring_values_of_their_own),
		cmocka_unit_test(words__both_languages_take_the_same_values),
		cmocka_unit_test(duration__is_what_people_say),
		cmocka_unit_test(duration__the_largest_fits),
		cmocka_unit_test(scale__holds_all_durations),
		cmocka_unit_test(scale__far_apart_durations_are_logarithmic_with_round_marks),
		cmocka_unit_test(scale__holds_all_sizes),
		cmocka_unit_test(scale__times_have_round_ticks_for_hours_and_for_decades),
		cmocka_unit_test(scale__absurd_values_end),
		cmocka_unit_test(judge__a_recent_good_drill_proves_it),
		cmocka_unit_test(judge__each_flaw_has_its_reason),
		cmocka_unit_test(judge__a_stricter_target_than_on_that_day_counts),
		cmocka_unit_test(judge__a_moment_in_the_past_says_nothing_about_data_loss),
		cmocka_unit_test(judge__the_schedule_says_when_a_drill_is_overdue),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
