/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is red and what is amber, at the limits, from facts made up here: no vault is there.
 */
#include "cli/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MINUTE_MS INT64_C(60000)
#define HOUR_MS (60 * MINUTE_MS)

struct world {
	struct storage storage;
	struct vault vault;
	struct im_config config;
	struct cli cli;
	struct snapshot snapshot;
	struct status_store store;
	struct follow_state_row row;
	struct drill_record drill;
	struct status_facts f;
};

/* A node of one store that is followed, protected in every way, without a drill. */
static void begin(struct world *w)
{
	*w = (struct world){ .storage = { .url = (char *)"/vault" }, .config = { .rpo_ms = 5 * MINUTE_MS },
		.row = { .store = (char *)"chat", .following = true }, .snapshot = { .seq = 7, .time_ms = 1000 * HOUR_MS } };
	w->vault.storage = &w->storage;
	w->cli = (struct cli){ .config = &w->config, .vault = &w->vault };
	w->snapshot.record.meta = json_pack("{s:I}", "bytes_stored", (json_int_t)1000000000);
	w->store = (struct status_store){ .name = "chat", .configured = true, .meta = json_pack("{s:s}", "status", "ok"), .log = STATUS_LOG_THERE, .row = &w->row };
	w->f = (struct status_facts){ .cli = &w->cli, .node = "im-01", .now_ms = 1000 * HOUR_MS + 1, .rpo_ms = 5 * MINUTE_MS, .rto_ms = 15 * MINUTE_MS,
		.has_vault = true, .newest = &w->snapshot, .stores = &w->store, .store_count = 1, .logged = 1, .vault_free_bytes = UINT64_C(500000000000),
		.has_free = true, .has_forecast = true };
	w->f.forecast.full = w->f.forecast.instant = (struct forecast){ .ready_p50_ms = 1000, .ready_p95_ms = 2000, .error_percent = -1 };
}

/* Judges, and takes the world down. words: of the first finding; NULL: there must be none. */
static void expect(struct world *w, size_t red, size_t amber, const char *words)
{
	struct verdict v = { .cli = &w->cli };
	status_judge(&v, &w->f);
	if (v.count)
		print_message("%s\n", v.items[0].text);
	assert_int_equal(v.red, red);
	assert_int_equal(v.amber, amber);
	assert_int_equal(v.count, red + amber);
	assert_true(words ? v.count && strstr(v.items[0].text, words) != NULL : v.count == 0);
	verdict_clear(&v);
	json_decref(w->snapshot.record.meta);
	json_decref((json_t *)w->store.meta);
}

static void all_is_well__nothing(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	expect(&w, 0, 0, NULL);
}

static void lag__red_above_rpo(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.store.lag_ms = 5 * MINUTE_MS;
	expect(&w, 0, 0, NULL);
	begin(&w);
	w.store.lag_ms = 5 * MINUTE_MS + 1;
	expect(&w, 1, 0, "see what the follower says (imvault follow)");
	begin(&w);
	w.store.lag_ms = 5 * MINUTE_MS + 1;
	w.row.following = false;
	expect(&w, 1, 0, "is the service running? (imvault follow)");
}

static void age__a_log_stands_in_for_a_day(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.f.age_ms = 24 * HOUR_MS;
	expect(&w, 0, 0, NULL);
	begin(&w);
	w.f.age_ms = 24 * HOUR_MS + 1;
	expect(&w, 1, 0, "older than a day");
	begin(&w);
	w.store.log = STATUS_LOG_NONE;
	w.f.logged = 0;
	w.f.age_ms = 5 * MINUTE_MS + 1;
	expect(&w, 1, 0, "older than rpo = 5 min: is the timer running? Run imvault backup");
}

static void forecast__the_better_scenario_counts(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.f.forecast.full = (struct forecast){ .ready_p50_ms = 20 * MINUTE_MS, .ready_p95_ms = 30 * MINUTE_MS };
	expect(&w, 0, 0, NULL);
	begin(&w);
	w.f.forecast.instant = (struct forecast){ 0 }; /* none can be made */
	w.f.forecast.full = (struct forecast){ .ready_p50_ms = 15 * MINUTE_MS, .ready_p95_ms = 15 * MINUTE_MS };
	expect(&w, 0, 0, NULL);
}

static void forecast__amber_by_p95_red_by_p50(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.f.forecast.full = w.f.forecast.instant = (struct forecast){ .ready_p50_ms = 15 * MINUTE_MS, .ready_p95_ms = 15 * MINUTE_MS + 1 };
	expect(&w, 0, 1, "imvault drill");
	begin(&w);
	w.f.forecast.full = w.f.forecast.instant = (struct forecast){ .ready_p50_ms = 15 * MINUTE_MS + 1, .ready_p95_ms = 20 * MINUTE_MS };
	expect(&w, 1, 0, "imvault drill");
}

static void space__red_below_three_backups_amber_within_a_fortnight(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.f.vault_free_bytes = UINT64_C(3000000000);
	expect(&w, 0, 0, NULL);
	begin(&w);
	w.f.vault_free_bytes = UINT64_C(3000000000) - 1;
	expect(&w, 1, 0, "make room");
	begin(&w);
	w.f.has_growth = true;
	w.f.growth_per_day = w.f.vault_free_bytes / 14;
	expect(&w, 0, 0, NULL);
	begin(&w);
	w.f.has_growth = true;
	w.f.growth_per_day = w.f.vault_free_bytes / 13;
	expect(&w, 0, 1, "full in about 13 days");
}

static void backup__a_failed_attempt(void **state)
{
	(void)state;
	struct world w;
	static const struct { int code; bool guarded, later; size_t red, amber; } cases[] = {
		{ 0, true, true, 0, 0 }, { 1, true, true, 0, 1 }, { 1, false, true, 1, 0 }, { 6, true, true, 1, 0 }, { 3, true, true, 0, 0 }, { 1, false, false, 0, 0 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		begin(&w);
		w.f.runs[RUN_BACKUP] = (struct run_record){ .known = true, .exit_code = cases[i].code, .began_ms = cases[i].later ? w.f.now_ms : 1, .error = "why" };
		if (!cases[i].guarded) {
			w.f.rpo_ms = 0;
			w.f.logged = 0;
			w.store.log = STATUS_LOG_NONE;
		}
		expect(&w, cases[i].red, cases[i].amber, cases[i].red + cases[i].amber ? "run imvault backup" : NULL);
	}
}

static void drill__each_verdict(void **state)
{
	(void)state;
	struct world w;
	static const struct { const char *verdict; bool sound, rto_met; size_t red, amber; const char *words; } cases[] = {
		{ "passed", true, true, 0, 0, NULL }, { "missed", true, false, 1, 0, "later than rto" }, { "missed", true, true, 1, 0, "less than rpo asks for" },
		{ "different", false, true, 1, 0, "imvault drill --instant" }, { "damaged", false, true, 1, 0, "not sound" }, { "failed", false, false, 1, 0, "not sound" },
		{ "partial", false, true, 1, 0, "not sound" }, { "interrupted", false, false, 0, 1, "proves nothing" }, { "", false, false, 1, 0, "not sound" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		begin(&w);
		w.drill = (struct drill_record){ .is_drill = true, .scenario = "instant", .verdict = cases[i].verdict, .passed = cases[i].sound,
			.rto_met = cases[i].rto_met, .rto_ms = 15 * MINUTE_MS, .service_ready_ms = 1 };
		w.f.drills = (struct drill_list){ .items = &w.drill, .count = 1 };
		expect(&w, cases[i].red, cases[i].amber, cases[i].words);
	}
}

static void due__overdue_is_red(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.f.next[0] = (struct status_next){ .command = RUN_VERIFY, .every_ms = 24 * HOUR_MS, .last_ms = 1, .due_ms = w.f.now_ms - HOUR_MS };
	w.f.next_count = 1;
	expect(&w, 0, 0, NULL);
	begin(&w);
	w.f.next[0] = (struct status_next){ .command = RUN_VERIFY, .every_ms = 24 * HOUR_MS, .last_ms = 1, .due_ms = w.f.now_ms - 3 * HOUR_MS, .overdue = true };
	w.f.next_count = 1;
	expect(&w, 1, 0, "overdue by 3 h: is the timer running? Run imvault verify");
	begin(&w);
	w.f.next[0] = (struct status_next){ .command = RUN_DRILL, .every_ms = 24 * HOUR_MS, .overdue = true };
	w.f.next_count = 1;
	expect(&w, 1, 0, "no drill yet");
}

static void vault__rollback_breaks_and_damage(void **state)
{
	(void)state;
	struct world w;
	char *finding = (char *)"a record is missing";
	begin(&w);
	w.f.has_state = true;
	w.f.state_seq = 9;
	expect(&w, 1, 0, "lacks snapshot 9");
	begin(&w);
	w.f.chain_findings = 1;
	expect(&w, 0, 1, "imvault list");
	begin(&w);
	w.f.damage_ms = 1;
	expect(&w, 1, 0, "imvault verify --read, which");
	begin(&w);
	w.f.damage_ms = 1;
	w.f.verify_log.damage_by_restore_key = true;
	expect(&w, 1, 0, "imvault verify --read with a restore key, which");
	begin(&w);
	w.f.report_log.finding_count = 2;
	strcpy(w.f.report_log.finding, "runs/im-01/report/1 is forged");
	expect(&w, 0, 1, "is forged; it counts for nothing, nor do others");
	begin(&w);
	w.f.drills.findings = &finding;
	w.f.drills.finding_count = 1;
	expect(&w, 1, 0, "a record is missing; find out who changed the vault");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_is_well__nothing),
		cmocka_unit_test(lag__red_above_rpo),
		cmocka_unit_test(age__a_log_stands_in_for_a_day),
		cmocka_unit_test(forecast__the_better_scenario_counts),
		cmocka_unit_test(forecast__amber_by_p95_red_by_p50),
		cmocka_unit_test(space__red_below_three_backups_amber_within_a_fortnight),
		cmocka_unit_test(backup__a_failed_attempt),
		cmocka_unit_test(drill__each_verdict),
		cmocka_unit_test(due__overdue_is_red),
		cmocka_unit_test(vault__rollback_breaks_and_damage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
